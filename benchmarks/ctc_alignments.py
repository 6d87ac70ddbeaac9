"""Sampling and improving CTC alignments beside torch's CTC loss, and beside loops over paths and frames."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss

from benchmarks.measuring import Row, medians
from etude.nn import StreamingConvNet
from etude.training import AlignWithPurpose, EarlierEmission, sample_alignments

BATCH, FRAMES, VOCABULARY, SYMBOLS = 32, 200, 32, 40


def loops(alignments: Tensor, lengths: Tensor) -> Tensor:
    """Earlier emission path by path, as an implementation without tensors goes about it."""
    better = alignments.clone()
    for path in better.flatten(0, 1):
        labels = path.tolist()
        places = [t for t, label in enumerate(labels) if label == (labels[t - 1] if t else 0)]
        if places:
            chosen = random.choice(places)
            path.copy_(torch.tensor([*labels[:chosen], *labels[chosen + 1 :], 0]))
    return better


def run(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    repetitions, steps = (3, 1) if quick else (9, 3)
    draws = torch.Generator().manual_seed(0)
    raw = torch.randn(FRAMES, BATCH, VOCABULARY, generator=draws, requires_grad=True)
    features = torch.randn(BATCH, 4 * FRAMES, 40, generator=draws)
    lengths, counts = torch.full((BATCH,), FRAMES), torch.full((BATCH,), SYMBOLS)
    targets = torch.randint(1, VOCABULARY, (BATCH, SYMBOLS), generator=draws)
    log_probs = raw.detach().log_softmax(-1)
    alignments = sample_alignments(log_probs, lengths, 5, generator=draws)

    def loss() -> None:
        ctc_loss(raw.log_softmax(-1), targets, lengths, counts).backward()

    def training(samples: int) -> Callable[[], None]:
        model = StreamingConvNet(40, VOCABULARY, width=64, generator=torch.Generator().manual_seed(1))
        adam = torch.optim.Adam(model.parameters(), fused=True)
        purpose = AlignWithPurpose(EarlierEmission(), VOCABULARY, weight=0.1, samples=max(samples, 1))

        def train() -> None:
            for _ in range(steps):
                output = model(features)
                value = ctc_loss(output, targets, lengths, counts)
                if samples:
                    value = value + purpose(output, targets, lengths, counts)
                adam.zero_grad()
                value.backward()
                adam.step()

        return train

    rule = EarlierEmission()

    def ten(call: Callable[[], object]) -> Callable[[], None]:
        def several() -> None:
            for _ in range(10):
                call()

        return several

    sides: dict[str, Callable[[], object]] = {
        "loss": ten(loss),
        "sampling": ten(lambda: sample_alignments(log_probs, lengths, 5, generator=draws)),
        "rule": ten(lambda: rule(alignments, lengths)),
        "loops": ten(lambda: loops(alignments, lengths)),
    }
    seconds = {name: value / 10 for name, value in medians(sides, repetitions).items()}
    step = medians({f"{n}": training(n) for n in (0, 1, 5, 10)}, 3 if quick else 7)
    return [
        Row("5 alignments of 32 x 200 frames / CTC loss and gradient", seconds["sampling"], seconds["loss"], aim="< 1"),
        Row("earlier emission, loops / tensors", seconds["rule"], seconds["loops"], aim=">= 20x", inverse=True),
        *(
            Row(f"step with {n} alignments, added to CTC's", step[f"{n}"] / steps, step["0"] / steps, subtract=True)
            for n in (1, 5, 10)
        ),
    ]
