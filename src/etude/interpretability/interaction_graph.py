"""What an interaction graph says: how many edges are needed, which modules it falls into, what directions compute.

Source: Bushnaq, Heimersheim, Goldowsky-Dill et al., The Local Interaction Basis (arXiv 2405.10928), 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from etude.errors import MissingExtra
from etude.interpretability.local_interaction import (
    Inputs,
    InteractionBasis,
    InteractionEdges,
    Sections,
    interaction_basis,
)
from etude.savable import Savable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = [
    "GraphModules",
    "SmallestSet",
    "edges_needed",
    "fourier_terms",
    "interaction_modules",
    "subspace_overlaps",
]


@dataclass(frozen=True)
class SmallestSet(Savable):
    """How few edges, or directions, a score needs. Made by `edges_needed`.

    Attributes:
        count: where bisection ended: enough, where one less is not.
        smallest: the fewest of all counts tried that are enough; below `count` where the score is not monotone.
        sustained: one more than the largest of all counts tried that is not enough; above `count` where the score is
            not monotone.
        least_score: what counts as enough.
        scores: the score of every count tried.
    """

    count: int
    smallest: int
    sustained: int
    least_score: float
    scores: Mapping[int, float]

    @property
    def monotone(self) -> bool:
        """Whether no count tried is enough where a larger one is not."""
        return self.smallest == self.sustained

    def __str__(self) -> str:
        odd = "" if self.monotone else f" (not monotone: {self.smallest} are enough, and from {self.sustained} on all)"
        return f"{self.count} needed for a score of {self.least_score:.4g}{odd}"

    def plot(self, axes: Axes) -> None:
        """The scores of the counts tried, and the least that is enough.

        Args:
            axes: of matplotlib.
        """
        counts = sorted(self.scores)
        axes.plot(counts, [self.scores[count] for count in counts], "o-", markersize=3)
        axes.axhline(self.least_score, color="0.5", linestyle=":")
        axes.set(xlabel="kept", ylabel="score", xscale="symlog")


def edges_needed(
    score: Callable[[int], float], total: int, tolerance: float, *, base: float | None = None, neighbours: int = 3
) -> SmallestSet:
    """The smallest number of edges whose score is within a tolerance of the whole network's.

    ::

        def accuracy(count):
            logits = ablate_edges(sections, basis, hidden, 0, edges.mask(0, count))
            return float((logits.argmax(1) == labels).double().mean())
        found = edges_needed(accuracy, edges.weights[0].numel(), tolerance=0.001, base=accuracy_of_the_model)

    Counts are doubled from 1 until one is enough, which costs less than bisection from above, since an ablated network
    runs once for each different set of inputs. Then the gap to the last that was not enough is bisected. As scores are
    not monotone, the neighbours of where that ends are tried too.

    Args:
        score: of the network with so many of its largest edges, the larger the better; called once a count.
        total: how many edges there are, at least 1.
        tolerance: how far below `base` a score may be, above 0.
        base: the score of the whole network; by default ``score(total)``.
        neighbours: counts tried on each side of the result.

    Returns:
        The count, beside what the check of its neighbours says.

    Raises:
        ValueError: a `tolerance` that is not above 0, a `total` below 1, negative `neighbours`, or a score of all
            edges that is not within the tolerance of `base`.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance={tolerance!r}: give a number above 0")
    if total < 1:
        raise ValueError(f"total={total}: give a number of at least 1")
    if neighbours < 0:
        raise ValueError(f"neighbours={neighbours}: give a number of at least 0")
    scores: dict[int, float] = {}
    least = (float(score(total)) if base is None else base) - tolerance

    def enough(count: int) -> bool:
        if count not in scores:
            scores[count] = float(score(count))
        return scores[count] >= least

    low, high = -1, 0  # low is not enough
    while not enough(high):
        if high == total:
            raise ValueError(
                f"score: {scores[total]:.6g} with all {total} edges is more than tolerance={tolerance} below the "
                f"base of {least + tolerance:.6g}; a basis without part of what the network needs cannot reach it"
            )
        low, high = high, min(max(1, 2 * high), total)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    for step in range(1, neighbours + 1):
        for count in (high - step, high + step):
            if 0 <= count <= total:
                enough(count)
    good = [count for count, value in scores.items() if value >= least]
    bad = [count for count, value in scores.items() if value < least]
    return SmallestSet(high, min(good), max(bad, default=-1) + 1, least, scores)


@dataclass(frozen=True, eq=False)
class GraphModules(Savable):
    """The modules of an interaction graph. Made by `interaction_modules`.

    Attributes:
        labels: the module of each direction of each node layer, numbered from the largest; -1 for one without edges.
        modularity: how much more weight lies inside modules than chance would put there.
    """

    labels: tuple[Int[Tensor, " _"], ...]
    modularity: float

    def __str__(self) -> str:
        every = torch.cat(self.labels)
        sizes = torch.bincount(every[every >= 0]).tolist()
        return f"{len(sizes)} modules of {', '.join(map(str, sizes))} directions, modularity {self.modularity:.3f}"

    def plot(self, axes: Axes) -> None:
        """How many directions of each node layer belong to each module, stacked.

        Args:
            axes: of matplotlib.
        """
        modules = 1 + max(int(labels.max()) for labels in self.labels if len(labels))
        counts = torch.stack([torch.bincount(labels[labels >= 0].cpu(), minlength=modules) for labels in self.labels])
        below = torch.cat([torch.zeros_like(counts[:, :1]), counts.cumsum(1)], 1)
        for module in range(modules):
            heights, bottoms = counts[:, module].tolist(), below[:, module].tolist()
            axes.bar(range(len(counts)), heights, bottom=bottoms, label=f"module {module}")
        axes.set(xlabel="node layer", ylabel="directions")
        axes.legend()


def interaction_modules(
    edges: InteractionEdges, *, floor: float, resolution: float = 1.0, seed: int = 0, iterations: int = 10
) -> GraphModules:
    """Modules of an interaction graph by Leiden's method, on weights log10(E / floor), edges below the floor left out.

    Args:
        edges: the graph.
        floor: the smallest edge that counts, above 0; such as the smallest of those `edges_needed` finds.
        resolution: gamma of the modularity, above 0; larger gives more modules.
        seed: of the method's random order.
        iterations: how often the partition is refined.

    Raises:
        ValueError: a number out of range, or no edge above the floor.
        MissingExtra: the package ``leidenalg`` is not installed.

    Source: Traag, Waltman and van Eck, From Louvain to Leiden, Scientific Reports 9 (2019).
    """
    for name, value in {"floor": floor, "resolution": resolution, "iterations": iterations}.items():
        if not value > 0:
            raise ValueError(f"{name}={value!r}: give a number above 0")
    try:
        import igraph
        import leidenalg
    except ImportError as error:
        raise MissingExtra("the package leidenalg is not installed", "Install it: pip install leidenalg") from error

    sizes = [edges.weights[0].shape[1], *(len(weights) for weights in edges.weights)]
    starts = [sum(sizes[:layer]) for layer in range(len(sizes))]
    ends, strengths = [], []
    for layer, weights in enumerate(edges.weights):
        for after, before in (weights > floor).nonzero().tolist():
            ends.append((starts[layer] + before, starts[layer + 1] + after))
            strengths.append(float((weights[after, before] / floor).log10()))
    if not ends:
        raise ValueError(f"floor={floor!r}: no edge lies above it")
    graph = igraph.Graph(n=sum(sizes), edges=ends)
    partition = leidenalg.find_partition(
        graph, leidenalg.RBConfigurationVertexPartition, weights=strengths, resolution_parameter=resolution, seed=seed,
        n_iterations=iterations,
    )  # fmt: skip
    labels = torch.tensor(partition.membership)
    labels[torch.tensor(graph.degree()) == 0] = -1
    return GraphModules(labels.split(sizes), float(graph.modularity(partition.membership, weights=strengths)))


def fourier_terms(directions: Float[Tensor, "p p k"]) -> pd.DataFrame:
    """How much of each direction's variance over the pairs (x, y) one Fourier term explains.

    Two forms of a term are tried at each pair of frequencies a, b (in turns over the p values):
    cos(2 pi (a x + b y) / p + phase), with b of either sign, and cos(2 pi a x / p + phase) cos(2 pi b y / p + phase').

    Args:
        directions: values of each direction for x and y from 0 to p - 1.

    Returns:
        One row a direction: ``a`` and ``b``, ``form`` ("sum" or "product") and ``share`` of the best term, and
        ``second``, the share of the best term of other frequencies. A direction that does not vary has shares of 0.

    Raises:
        ValueError: the first two axes differ in length, or have fewer than 3 values.
    """
    import pandas as pd

    p = len(directions)
    if directions.shape[1] != p or p < 3:
        raise ValueError(f"directions: shape {tuple(directions.shape)} was given; (p, p, k) with p of at least 3")
    values = directions.double().movedim(-1, 0)
    waves = _waves(p).to(values)
    # Squares of coefficients in an orthonormal basis sum to those of the values; [k, a, cos or sin, b, cos or sin]
    coefficients = torch.einsum("axm,kmn,byn->kaxby", waves, values, waves)
    everything = values.square().sum((1, 2))
    total = everything - coefficients[:, 0, 0, 0, 0].square()
    cc, cs, sc, ss = (coefficients[:, :, i, :, j] for i in (0, 1) for j in (0, 1))
    power = cc**2 + cs**2 + sc**2 + ss**2
    # The best product is the best approximation of rank one of the four coefficients.
    product = (power + (power**2 - 4 * (cc * ss - cs * sc) ** 2).clamp(min=0).sqrt()) / 2
    # cos(ax + by) is (cos cos - sin sin) / sqrt 2 in unit vectors, its shift by a quarter (cos sin + sin cos) / sqrt 2
    plus, minus = ((cc - ss) ** 2 + (cs + sc) ** 2) / 2, ((cc + ss) ** 2 + (sc - cs) ** 2) / 2
    best = torch.stack([product, plus, minus]).max(0)
    ranked = best.values.masked_fill(torch.eye(len(waves))[0, :, None] * torch.eye(len(waves))[0] > 0, 0).flatten(1)
    strongest = ranked.topk(2)
    share = torch.where(total > 1e-12 * everything, 1 / total, 0)[:, None] * strongest.values
    place = strongest.indices[:, 0]
    form = best.indices.flatten(1).gather(1, place[:, None])[:, 0]
    a, b = place // len(waves), place % len(waves)
    return pd.DataFrame(
        {
            "direction": range(len(values)),
            "a": a.tolist(),
            "b": torch.where(form == 2, -b, b).tolist(),
            "form": ["product" if one == 0 else "sum" for one in form.tolist()],
            "share": share[:, 0].tolist(),
            "second": share[:, 1].tolist(),
        }
    )


def subspace_overlaps(
    sections: Sections,
    inputs: Inputs,
    make: Callable[[Sections, Inputs], InteractionBasis],
    counts: tuple[int, ...],
    *,
    resamples: int = 10,
    generator: torch.Generator | None = None,
) -> pd.DataFrame:
    """How well the span of a node layer's first directions is determined by the data: its overlap under resampling.

    Single directions are meaningless where eigenvalues are nearly equal; the spans of several are not. The overlap of
    two spans is the mean squared cosine of the angles between them, measured in coordinates in which the layer's
    activations are white: 1 for the same span, and k over the layer's directions for random ones.

    Args:
        sections: as for `interaction_basis`.
        inputs: activations of node layer 0, as one tensor; its rows are drawn again with replacement.
        make: how a basis is made, such as `interaction_basis` itself.
        counts: how many directions span.
        resamples: how many times.
        generator: where rows are drawn from, on the processor; by default torch's own.

    Returns:
        One row a ``layer``, ``count`` and ``resample`` with the ``overlap``; counts beyond a layer's directions are
        left out.

    Raises:
        TypeError: `inputs` is no tensor.
        ValueError: `resamples` below 1.
    """
    import pandas as pd

    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs: a {type(inputs).__name__} was given; one tensor is accepted, to be resampled")
    if resamples < 1:
        raise ValueError(f"resamples={resamples}: give a number of at least 1")
    whole, rows = make(sections, inputs), []
    white = interaction_basis(sections, inputs, align=False)
    for resample in range(resamples):
        drawn = torch.randint(len(inputs), (len(inputs),), generator=generator).to(inputs.device)
        other = make(sections, inputs[drawn])
        for layer in range(len(sections)):
            for count in counts:
                if count > min(whole.directions[layer], other.directions[layer]):
                    continue
                spans = []
                for basis in (whole, other):
                    # f C = (f R)(R+ C): a direction in white coordinates
                    span = white.from_basis[layer] @ basis.to_basis[layer][:, :count]
                    spans.append(torch.linalg.qr(span).Q)
                overlap = float((spans[0].T @ spans[1]).square().sum()) / count
                rows.append({"layer": layer, "count": count, "resample": resample, "overlap": overlap})
    return pd.DataFrame(rows)


def _waves(p: int) -> Float[Tensor, "frequencies 2 p"]:
    """The orthonormal real Fourier basis of functions of 0 .. p-1: cosine and sine of each frequency from 0 to p / 2.

    Where there is no sine (frequencies 0 and p / 2) there are zeros.
    """
    angle = 2 * torch.pi * torch.outer(torch.arange(p // 2 + 1), torch.arange(p)).double() / p
    waves = torch.stack([angle.cos(), angle.sin()], 1)
    waves[0, 1] = 0
    if p % 2 == 0:
        waves[-1, 1] = 0
    return waves / waves.norm(dim=2, keepdim=True).clamp(min=1e-300)
