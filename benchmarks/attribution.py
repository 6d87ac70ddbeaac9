"""Masks on tensors beside a loop, input gradients beside captum, projected gradient ascent beside foolbox."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.measuring import Row, installed, medians
from etude.data import images
from etude.interpretability import attribute, from_captum, input_gradient, rank_features, unmask
from etude.training import ProjectedGradient


def run(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    repetitions = 3 if quick else 9
    return [*masks(500 if quick else 10_000, repetitions), *gradients(quick, repetitions), *attacks(quick, repetitions)]


def masks(n: int, repetitions: int) -> list[Row]:
    """Ranking and masking images of 784 pixels; ours draws the order of ties too, which the loop does not."""
    generator = torch.Generator().manual_seed(0)
    x, values = (torch.rand(n, 784, generator=generator) for _ in range(2))
    ranking = rank_features(values)

    def loop() -> None:
        kept = torch.zeros_like(x)
        for image, result, order in zip(x, kept, ranking):
            for place in order[:39].tolist():
                result[place] = image[place]

    def indexed() -> None:
        kept = torch.zeros_like(x)
        for image, result, order in zip(x, kept, ranking):
            result[order[:39]] = image[order[:39]]

    def sorted_one_by_one() -> None:
        for size in values:
            size.argsort(descending=True)

    ours = medians({"ours": partial(unmask, x, ranking, 0.05), "indexed": indexed}, repetitions)
    pixels = medians({"ours": partial(unmask, x, ranking, 0.05), "loop": loop}, 1)
    ranks = medians({"ours": partial(rank_features, values), "loop": sorted_one_by_one}, repetitions)
    return [
        Row(f"keep 5 % of {n:,} images, on tensors / indexing in a loop over images", ours["ours"], ours["indexed"],
            inverse=True, aim=">= 5x"),
        Row(f"keep 5 % of {n:,} images, on tensors / loop over pixels", pixels["ours"], pixels["loop"], inverse=True,
            aim=">= 5x"),
        Row(f"rank the pixels of {n:,} images, ties drawn / sort in a loop over images, ties as they come",
            ranks["ours"], ranks["loop"]),
    ]  # fmt: skip


def trained(quick: bool) -> tuple[nn.Module, Tensor, Tensor]:
    """A network that knows its digits, and test images."""
    data = images("digits")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(20 if quick else 300):
        adam.zero_grad()
        cross_entropy(model(data.train.x), data.train.y).backward()
        adam.step()
    return model.eval(), data.test.x, data.test.y


def gradients(quick: bool, repetitions: int) -> list[Row]:
    if not installed("captum"):
        return []
    from captum.attr import Saliency

    model, x, y = trained(quick)
    x, y = x.repeat(10, 1, 1, 1), y.repeat(10)
    theirs = from_captum(Saliency)
    seconds = medians(
        {
            "ours": partial(attribute, model, x, y, method=input_gradient),
            "captum": lambda: torch.cat([theirs(model, *part) for part in zip(x.split(1000), y.split(1000))]),
        },
        repetitions,
    )
    return [Row("input gradients of 3,600 digits, étude / captum", seconds["ours"], seconds["captum"], aim="< 1.2")]


def attacks(quick: bool, repetitions: int) -> list[Row]:
    """The same norm, radius, steps and random starts; success is the share of the images that are misclassified."""
    if not installed("foolbox"):
        return []
    import foolbox

    model, x, y = trained(quick)
    peer = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    settings = {
        "l2": (0.5, foolbox.attacks.L2ProjectedGradientDescentAttack),
        "linf": (0.06, foolbox.attacks.LinfProjectedGradientDescentAttack),
    }
    rows = []
    for norm, (radius, kind) in settings.items():
        ours = ProjectedGradient(norm, radius=radius, steps=20, step_size=0.1 * radius)
        theirs = kind(rel_stepsize=0.1, steps=20, random_start=True)
        attack: dict[str, Callable[[], Tensor]] = {
            "ours": partial(ours, model, x, y),
            "foolbox": partial(lambda a, r: a(peer, x, y, epsilons=r)[1], theirs, radius),
        }
        seconds = medians(attack, repetitions)
        success, size = {}, {}
        for name, make in attack.items():
            found = [make() for _ in range(repetitions)]
            success[name] = (
                100 * sum(float((model(part).argmax(1) != y).float().mean()) for part in found) / repetitions
            )
            order = 2 if norm == "l2" else float("inf")
            size[name] = max(float((part - x).flatten(1).norm(p=order, dim=1).max()) for part in found)
        rows += [
            Row(f"projected gradient, {norm}, 20 steps, étude / foolbox", seconds["ours"], seconds["foolbox"],
                aim="< 1"),
            Row(f"... largest {norm} norm", size["ours"], size["foolbox"], unit=norm),
            Row(f"... success, étude {success['ours']:.1f} %, foolbox {success['foolbox']:.1f} %, difference",
                abs(success["ours"] - success["foolbox"]), None, unit="points", aim="< 1"),
        ]  # fmt: skip
    return rows
