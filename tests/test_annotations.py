"""The shapes and types that the methods' annotations promise are those of the values the studies hand around."""

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "etude"
METHODS = sorted(
    f"etude.{path.parent.name}"
    for path in SOURCE.glob("*/__init__.py")
    if path.parent.name not in ("cli", "papers", "study", "web")
)
STUDIES = sorted(path.stem for path in SOURCE.glob("papers/[!_]*.py"))

CHECKED = """
import sys
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do where a float is asked for
sys.modules["checker"] = sys.modules[__name__]
with install_import_hook(sys.argv[3:], "checker.check"):
    import importlib
    study = importlib.import_module(f"etude.papers.{sys.argv[1]}").study

evidence = study.run("smoke", engine="inline", store=sys.argv[2], progress=False, seeds=1)
for failure in evidence.failures:
    print(failure.measurement, failure.error, failure.log, file=sys.stderr)
sys.exit(len(evidence.failures))
"""


@pytest.mark.parametrize("study", STUDIES)
def test_annotations_hold_throughout_a_study(study, tmp_path):
    command = [sys.executable, "-c", CHECKED, study, tmp_path / "store", *METHODS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
