"""What prototypes cost: a training step beside that of the same autoencoder under a linear head, and their distances.

Of packages with learned prototypes, sklvq 0.1.2 does not run with scikit-learn 1.9 nor prototorch 0.7.6 without
pkg_resources, so that none can stand beside ours; the distances' peers are torch's own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.measuring import Row, medians
from etude.nn import PrototypeClassifier, convolutional_autoencoder, prototype_loss, squared_distances


def run(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    batch, repetitions = (50, 3) if quick else (250, 25)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, 1, 28, 28, generator=generator)
    y = torch.randint(10, (batch,), generator=generator)

    encoder, decoder, code_shape = convolutional_autoencoder(deviation=None, generator=generator)
    head = nn.Linear(40, 10)

    def plain() -> Tensor:
        codes = encoder(x)
        return 20 * cross_entropy(head(codes.flatten(1)), y) + (decoder(codes) - x).square().flatten(1).sum(1).mean()

    model = PrototypeClassifier(*convolutional_autoencoder(deviation=None)[:2], 15, 10, code_shape=code_shape)

    def step(loss: Callable[[], Tensor], parameters: list[nn.Parameter]) -> Callable[[], None]:
        adam = torch.optim.Adam(parameters, lr=1e-3, fused=True)

        def go() -> None:
            adam.zero_grad()
            loss().backward()
            adam.step()

        return go

    steps = medians(
        {
            "with": step(lambda: prototype_loss(model(x), x, y).total, [*model.parameters()]),
            "without": step(plain, [*encoder.parameters(), *decoder.parameters(), *head.parameters()]),
        },
        repetitions,
    )

    codes, prototypes = torch.rand(batch, 40, requires_grad=True), torch.rand(15, 40, requires_grad=True)
    weights = torch.rand(batch, 15)

    def gradients(distances: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None]:
        def go() -> None:
            for _ in range(20):
                torch.autograd.grad((distances(codes, prototypes) * weights).sum(), (codes, prototypes))

        return go

    def by_cdist(a: Tensor, b: Tensor) -> Tensor:
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()

    def expanded(a: Tensor, b: Tensor) -> Tensor:
        return a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T

    sides = {"ours": squared_distances, "cdist": by_cdist, "expanded": expanded}
    seconds = medians({name: gradients(side) for name, side in sides.items()}, repetitions)
    seconds = {name: value / 20 for name, value in seconds.items()}
    return [
        Row(f"step of {batch} images with 15 prototypes / a linear head", steps["with"], steps["without"], aim="< 1.1"),
        Row("distances and gradients / torch.cdist squared", seconds["ours"], seconds["cdist"]),
        Row("distances and gradients / the square multiplied out (inexact)", seconds["ours"], seconds["expanded"]),
    ]
