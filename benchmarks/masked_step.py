"""A training step of LeNet-300-100 at a fifth of its weights: our two ways of masking, torch's, and none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn.utils import prune

from benchmarks.measuring import Row, medians
from etude.compression import Mask, magnitude_mask, masked
from etude.nn import lenet_300_100
from etude.training import fit


def run(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    steps, repetitions = (50, 3) if quick else (600, 15)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(6000, 784, generator=generator)
    labels = torch.randint(10, (6000,), generator=generator)
    few = (images[:60], labels[:60])  # evaluation is no part of the comparison

    def training(prepare: Callable[[nn.Module, Mask], object], hand_mask: bool = False) -> Callable[[], None]:
        def train() -> None:
            model = lenet_300_100(generator=torch.Generator().manual_seed(1))
            mask = magnitude_mask(model, rate=0.8)
            prepare(model, mask)
            fit(
                model,
                (images, labels),
                few,
                few,
                steps=steps,
                batch=60,
                optimizer=partial(torch.optim.Adam, lr=1.2e-3, fused=True),
                generator=torch.Generator().manual_seed(2),
                evaluate_every=steps,
                mask=mask if hand_mask else None,
            )

        return train

    def leave(model: nn.Module, mask: Mask) -> None:
        pass

    def by_torch(model: nn.Module, mask: Mask) -> None:
        for name, kept in mask.items():
            prune.custom_from_mask(model.get_submodule(name.removesuffix(".weight")), "weight", kept)

    seconds = medians(
        {
            "dense": training(leave),
            "fit": training(leave, hand_mask=True),
            "masked": training(masked),
            "torch": training(by_torch),
        },
        repetitions,
    )
    step = {name: value / steps for name, value in seconds.items()}
    return [
        Row("masked step, fit(mask=) / torch.nn.utils.prune", step["fit"], step["torch"], aim="< 1"),
        Row("masked step, fit(mask=) / dense", step["fit"], step["dense"]),
        Row("masked step, masked() / torch.nn.utils.prune", step["masked"], step["torch"]),
        Row("masked step, masked() / dense", step["masked"], step["dense"]),
    ]
