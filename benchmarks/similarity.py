"""CKA and a guided step: beside one matrix product, beside ckatorch, beside the step without a guide."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.measuring import Row, installed, medians
from etude.interpretability import cka_from_grams, cka_matrix, gram, linear_cka
from etude.nn import ResidualNetwork
from etude.training import Guidance, GuideGrams


def run(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    return [*similarity(3 if quick else 31), *guided_step(3 if quick else 31)]


def similarity(repetitions: int) -> list[Row]:
    """CKA of 256 samples of 4,096 features, and of the layers of two networks."""
    draws = torch.Generator().manual_seed(0)
    x, y = (torch.randn(256, 4_096, generator=draws).relu() for _ in range(2))
    stored = gram(y)
    layers = [torch.randn(256, 1_024, generator=draws).relu() for _ in range(10)]

    sides: dict[str, Callable[[], object]] = {
        "product": lambda: x @ y.T,
        "products": lambda: (x @ x.T, y @ y.T),
        "cka": lambda: linear_cka(x, y),
        "stored": lambda: cka_from_grams(gram(x), stored),
        "matrix": lambda: cka_matrix(layers),
    }
    if installed("ckatorch"):
        from ckatorch.core import cka_base

        def by_peer(one: Tensor, other: Tensor) -> Tensor:
            return cka_base(one, other, kernel="linear", method="fro_norm")

        assert abs(float(by_peer(x, y)) - float(linear_cka(x, y))) < 1e-3
        sides["peer"] = lambda: by_peer(x, y)
        sides["peer matrix"] = lambda: [by_peer(a, b) for a in layers for b in layers]
    seconds = medians(sides, repetitions)
    rows = [
        Row("CKA, 256 x 4,096, stored Gram of one side / one product X Y'", seconds["stored"], seconds["product"],
            aim="< 1.3"),
        Row("CKA, 256 x 4,096, two new sides / one product X Y'", seconds["cka"], seconds["product"], aim="< 1.3"),
        Row("CKA, 256 x 4,096, two new sides / the two products it needs", seconds["cka"], seconds["products"]),
    ]  # fmt: skip
    if "peer" in seconds:
        rows += [
            Row("CKA, 256 x 4,096 / ckatorch", seconds["cka"], seconds["peer"], aim="< 1"),
            Row("CKA of all pairs of 10 layers, 256 x 1,024 / ckatorch", seconds["matrix"], seconds["peer matrix"],
                aim="< 1"),
        ]  # fmt: skip
    return rows


def guided_step(repetitions: int) -> list[Row]:
    """A step of a 10-layer fully connected network on 256 images: plain, guided, and with logits to match."""
    torch.manual_seed(0)
    images, labels = torch.randn(1_024, 3, 16, 16), torch.randint(10, (1_024,))
    guide = ResidualNetwork()
    grams = GuideGrams.of(guide, images, dtype=torch.float16)

    def step(source: nn.Module | GuideGrams | None, distil: bool = False) -> Callable[[], None]:
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(768, 256), nn.ReLU()]
        layers += [layer for _ in range(9) for layer in (nn.Linear(256, 256), nn.ReLU())]
        model = nn.Sequential(*layers, nn.Linear(256, 10))
        guidance = None if source is None else Guidance(model, source)
        adam = torch.optim.Adam(model.parameters(), fused=True)
        draws = torch.Generator().manual_seed(1)

        def train() -> None:
            index = torch.randint(1_024, (256,), generator=draws)
            logits = model(images[index])
            loss = cross_entropy(logits, labels[index])
            if guidance is not None:
                loss = loss + guidance(index if isinstance(source, GuideGrams) else images[index])
            if distil:
                with torch.no_grad():
                    theirs = guide(images[index]).softmax(1)
                loss = loss + cross_entropy(logits, theirs)
            adam.zero_grad()
            loss.backward()
            adam.step()

        return train

    sides = {"plain": step(None), "live": step(guide), "stored": step(grams), "distilled": step(None, distil=True)}
    seconds = medians(sides, repetitions)
    return [
        Row("step guided by a ResNet-8, 9 pairs / plain", seconds["live"], seconds["plain"]),
        Row("step guided by its stored Gram matrices / plain", seconds["stored"], seconds["plain"]),
        Row("step guided by a ResNet-8 / by its logits (distillation)", seconds["live"], seconds["distilled"]),
    ]
