"""Two trials at a time against one after the other."""

from __future__ import annotations

import tempfile

from benchmarks.measuring import Row, medians
from benchmarks.timed import steps_in, timed_study


def run(quick: bool) -> list[Row]:
    study = timed_study()
    length, repetitions = (1.0, 1) if quick else (10.0, 5)
    config = study.presets["laptop"].updated(steps=steps_in(study, length), seeds=2)

    def run_study(workers: int) -> None:
        with tempfile.TemporaryDirectory() as store:
            study.run(config, store=store, progress=False, workers=workers)

    seconds = medians({"two": lambda: run_study(2), "one": lambda: run_study(1)}, repetitions, warm=False)
    name = f"speed-up of two {length:g} s trials by two workers, their start included"
    return [Row(name, seconds["two"], seconds["one"], aim=">= 1.6x", inverse=True)]
