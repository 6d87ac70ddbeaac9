"""What it costs to run a five-second loop as a trial instead of calling it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.measuring import Row, medians
from benchmarks.timed import Bare, steps_in, timed_study


def run(quick: bool) -> list[Row]:
    study = timed_study()
    length, repetitions, trials = (0.5, 3, 5) if quick else (5.0, 9, 40)
    loop = study.presets["laptop"].updated(steps=steps_in(study, length), seeds=1)
    empty = loop.updated(steps=1, seeds=1 + trials)
    train = study.measurements["train"]

    def as_trial() -> float:
        """The loop's seconds inside a trial: its recording and tracking included, the trial's start and end not."""
        with tempfile.TemporaryDirectory() as store:
            evidence = study.run(loop, engine="inline", store=store, progress=False)
        return float(evidence.trials[0].seconds)

    def cycle(engine: str) -> float:
        """Seconds from the end of one empty trial to that of the next: all that a trial costs besides its loop."""
        with tempfile.TemporaryDirectory() as store:
            study.run(empty, engine=engine, workers=1, store=store, progress=False)
            ends = [path.stat().st_mtime for path in Path(store).glob("trials/*/*/*/trial.json")]
        return (max(ends) - min(ends)) / trials

    seconds = medians({"bare": lambda: train(Bare(), loop), "trial": as_trial}, repetitions)
    fixed = medians({"inline": lambda: cycle("inline"), "local": lambda: cycle("local")}, 3, warm=False)
    name = f"overhead of a {length:g} s loop as a trial"
    return [
        Row(
            f"{name}, in this process", seconds["trial"] + fixed["inline"], seconds["bare"], aim="< 2 %", subtract=True
        ),
        Row(f"{name}, in a worker", seconds["trial"] + fixed["local"], seconds["bare"], aim="< 2 %", subtract=True),
        Row("of that, fixed: in this process", fixed["inline"], None),
        Row("of that, fixed: in a worker", fixed["local"], None),
    ]
