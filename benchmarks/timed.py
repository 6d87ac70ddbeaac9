"""The study that times the spine: loading it, and steps that fill a number of seconds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from etude.study.catalogue import find, load


class Bare:
    """What a loop needs of a `Lab`, and nothing else: for calling it without the spine."""

    seed = 0

    def generator(self, stream: str) -> torch.Generator:
        return torch.Generator().manual_seed(0)

    def track(self, iterable: Any, label: str = "") -> Any:
        return iterable

    def record(self, **row: Any) -> None:
        pass


def timed_study() -> Any:
    """The study `studies/timed_loop.py`."""
    return load(find(str(Path(__file__).parent / "studies" / "timed_loop.py")))


def steps_in(study: Any, seconds: float) -> int:
    """How many steps of the loop take about so long, with one thread."""
    torch.set_num_threads(1)
    config = study.presets["laptop"].updated(steps=1000)
    study.measurements["train"](Bare(), config)
    start = time.perf_counter()
    study.measurements["train"](Bare(), config)
    return max(1, round(1000 * seconds / (time.perf_counter() - start)))
