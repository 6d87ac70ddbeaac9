"""An epoch's indices from a million examples: our sampler, torch's weighted one, and numpy's choice."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
import torch
from torch.utils.data import RandomSampler, WeightedRandomSampler

from benchmarks.measuring import Row, medians
from etude.training import CurriculumSampler


def run(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    n, repetitions = (100_000, 3) if quick else (1_000_000, 7)
    scores = 1 / torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64).clamp(min=1e-3)
    rows = []
    for share in (0.25, 1.0):
        shown = int(share * n)
        ours = CurriculumSampler(range(n), scores, [share])

        def exhaust(sampler: Iterable[int]) -> None:
            deque(sampler, maxlen=0)

        def choose(shown: int = shown) -> None:
            weights = scores.numpy() / scores.numpy().sum()
            np.random.default_rng(0).choice(n, shown, replace=False, p=weights).tolist()

        def all_in_order(shown: int = shown) -> None:
            exhaust(RandomSampler(range(shown)))

        seconds = medians(
            {
                "ours": lambda ours=ours: exhaust(ours),
                "without": lambda shown=shown: exhaust(WeightedRandomSampler(scores, shown, replacement=False)),
                "with": lambda shown=shown: exhaust(WeightedRandomSampler(scores, shown, replacement=True)),
                "numpy": choose,
                "random": all_in_order,
            },
            repetitions,
        )
        of = f"{share:.0%} of {n:,} examples"
        rows += [
            Row(f"{of}, WeightedRandomSampler(replacement=False) / ours", seconds["ours"], seconds["without"],
                aim=">= 1", inverse=True),
            Row(f"{of}, WeightedRandomSampler / ours", seconds["ours"], seconds["with"], aim=">= 1", inverse=True),
            Row(f"{of}, numpy's choice without replacement / ours", seconds["ours"], seconds["numpy"], inverse=True),
            Row(f"{of}, RandomSampler, without scores / ours", seconds["ours"], seconds["random"], inverse=True),
        ]  # fmt: skip
    return rows
