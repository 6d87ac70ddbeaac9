"""A call of a small program, and many: the sandbox, a fresh interpreter a call, Monty's subset, and exec right here."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.measuring import Row, installed, medians
from etude.sandbox import LEVELS, Sandbox, probe

PROGRAM = "def transform(x):\n    return sorted(2 * e for e in x if e % 3)\n"
VALUE = list(range(30))
ANSWER = [2 * each for each in VALUE if each % 3]
FRESH = f"import json, sys\n{PROGRAM}\nprint(json.dumps(transform(json.loads(sys.argv[1]))))"


def in_process() -> None:
    space: dict[str, object] = {}
    exec(compile(PROGRAM, "<program>", "exec"), space)
    assert space["transform"](VALUE) == ANSWER  # type: ignore[operator]


def fresh_interpreter(libraries: str = "") -> None:
    """What a careful script does: isolated mode, no environment, a limit of time."""
    command = [sys.executable, "-I", "-c", f"{libraries}{FRESH}", json.dumps(VALUE)]
    done = subprocess.run(command, capture_output=True, timeout=20, env={}, check=True)
    assert json.loads(done.stdout) == ANSWER


def run(quick: bool) -> list[Row]:
    repetitions, many = (3, 10) if quick else (101, 200)
    boxes = {level: Sandbox(level=level) for level in LEVELS if not probe(level).missing}

    def warm(level: str) -> Callable[[], None]:
        def call() -> None:
            (result,) = boxes[level].run(PROGRAM, "transform", [VALUE])
            assert result.value == ANSWER

        return call

    sides = {level: warm(level) for level in boxes}
    sides |= {"exec": in_process, "fresh": fresh_interpreter}
    sides["fresh with numpy"] = lambda: fresh_interpreter("import numpy, scipy.ndimage\n")
    pool = None
    if installed("pydantic_monty"):
        from pydantic_monty import Monty

        pool = Monty().__enter__()

        def monty() -> None:
            with pool.checkout() as session:  # type: ignore[union-attr]
                assert session.feed_run(f"{PROGRAM}\ntransform(x)", inputs={"x": VALUE}) == ANSWER

        sides["monty"] = monty
    seconds = medians(sides, repetitions)
    rows = []
    for level in boxes:
        rows += [
            Row(f"warm call, {level}", seconds[level], None, aim="< 0.015 s"),
            Row(f"warm call, {level} / fresh interpreter", seconds[level], seconds["fresh"], aim="< 1"),
            Row(f"warm call, {level} / the same with numpy", seconds[level], seconds["fresh with numpy"]),
            Row(f"warm call, {level} / exec in process", seconds[level], seconds["exec"]),
        ]
        if pool is not None:
            rows.append(Row(f"warm call, {level} / Monty", seconds[level], seconds["monty"]))
        with Sandbox(level=level, workers=2) as pair:
            sources = [f"{PROGRAM}# {number}" for number in range(many)]
            pair.run_each(sources[:4], "transform", [VALUE])
            for together in (False, True):
                start = time.perf_counter()
                found = pair.run_each(sources, "transform", [VALUE], together=together)
                rate = many / (time.perf_counter() - start)
                assert all(result.value == ANSWER for (result,) in found)
                name = "programs a second in one process" if together else "programs a second, two workers"
                rows.append(Row(f"{name}, {level}", rate, None, unit="/s", aim="" if together else ">= 50"))
    for box in boxes.values():
        box.close()
    if pool is not None:
        pool.__exit__(None, None, None)
    return rows
