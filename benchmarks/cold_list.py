"""`etude list` in a new process with 52 studies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring import Row, medians
from etude.study.catalogue import catalogue

STUDIES = 52


def run(quick: bool) -> list[Row]:
    shipped = [entry.path for entry in catalogue().values() if not entry.problem]
    originals = shipped or [Path(__file__).parent / "studies" / "timed_loop.py"]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(STUDIES - len(shipped)):
            original = originals[number % len(originals)]
            shutil.copy(original, Path(folder, f"{original.stem}_{number}.py"))
        environment = os.environ | {"ETUDE_STUDIES": folder}

        def call(*arguments: str) -> str:
            command = [sys.executable, *arguments]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

        listed = call("-m", "etude", "list")
        for name in (path.stem.replace("_", "-") for path in Path(folder).glob("*.py")):
            if name not in listed:
                raise RuntimeError(f"`etude list` does not name {name}")
        seconds = medians(
            {"list": lambda: call("-m", "etude", "list"), "python": lambda: call("-c", "pass")}, 3 if quick else 15
        )
    return [
        Row(f"etude list, {STUDIES} studies, new process", seconds["list"], None, aim="< 0.3 s"),
        Row("etude list / python -c pass", seconds["list"], seconds["python"]),
    ]
