"""How long does a loop take as a trial?

A study to time the spine with: its loop trains a small network for a given number of steps and records as it goes.
"""

from __future__ import annotations

import torch
from torch import nn

from etude.study import Config, Evidence, Lab, Paper, Rule, Study, mean


class Loop(Config):
    """The loop's length."""

    steps: int = 1
    """Training steps."""


study = Study(
    paper=Paper("Nothing in particular", "Nobody", 2024, "0000.00000"),
    topic="timing",
    presets={"smoke": Loop(seeds=1), "laptop": Loop()},
)


@study.measure()
def train(lab: Lab, config: Loop) -> None:
    """Train on random numbers, recording every hundredth loss."""
    generator = lab.generator("data")
    network = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10))
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    images, labels = torch.randn(60, 784, generator=generator), torch.randint(10, (60,), generator=generator)
    for step in lab.track(range(config.steps), "training"):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            lab.record(step=step, loss=loss.item())


@study.claim(reported="nothing")
def losses_are_positive(e: Evidence[Loop]) -> Rule:
    """A cross-entropy is at least zero."""
    return mean(e[train].per("seed").mean("loss")) >= 0
