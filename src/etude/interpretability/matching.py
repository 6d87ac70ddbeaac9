"""Which units of one network answer to which of another: one to one, one from a few, many with many.

All but the mutual information need only the moments of the units, which one pass over any amount of data gives::

    first, second = (unit_cross_moments(model, "conv2", other, "conv2", part) for part in (loader, held_out_loader))
    match = match_units(first).on(second)             # matched on one part of the data, scored on the other
    match.score.mean(), match.gap.mean()
    path = stitch_path(first, [0, 0.01, 0.1])         # each unit of `other` from a few units of `model`
    [(stitch.n_active().mean(), stitch.fraction_unexplained(second).mean()) for stitch in path]

The greatest of many noisy correlations is too great on average, so a match is scored on data that it was not made from;
`etude.interpretability.nulls` has what to compare it with. Units that are constant have no correlation: they are left
out, and reported. What is returned is a dataclass of tensors and numbers, which ``vars`` lists for saving.

Source: Li, Yosinski, Clune, Lipson and Hopcroft, Convergent Learning, ICLR 2016 (arXiv 1511.07543).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from etude.interpretability.moments import CrossMoments, Moments, _Sum
from etude.savable import Savable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "RunningMutualInformation",
    "SoftMatch",
    "Stitch",
    "UnitClusters",
    "UnitMatch",
    "match_units",
    "mutual_information",
    "percentile_edges",
    "soft_match_units",
    "sparse_stitch",
    "stitch_path",
    "unit_clusters",
]

By = Literal["signed", "absolute"]

_COPIES = 4_096
"""Up to so many units a side a transport is an assignment of copies; beyond, a linear program is faster."""


# ---- one to one ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class UnitMatch(Savable):
    """Partners of units: unit ``units[k]`` of the one side goes with ``partners[k]`` of the other.

    Attributes:
        units: units of the one side that have a partner, in ascending order.
        partners: their partners.
        score: correlation (or its absolute value) of each with its partner.
        rivals: for each, the unit of the other side with which it correlates most.
        best: the correlation with that one.
        constant: numbers of the units of either side that are constant and so cannot be matched.
        method: how it was made.
        by: whether the sign of correlations counts.
    """

    units: Int[Tensor, " matched"]
    partners: Int[Tensor, " matched"]
    score: Float[Tensor, " matched"]
    rivals: Int[Tensor, " matched"]
    best: Float[Tensor, " matched"]
    constant: tuple[Int[Tensor, " _"], Int[Tensor, " _"]]
    method: str
    by: By

    @property
    def gap(self) -> Float[Tensor, " matched"]:
        """How much better a unit's best partner is than the one it was given.

        Never negative on the data that the match was made from.
        """
        return self.best - self.score

    def on(self, moments: CrossMoments | Float[Tensor, "p q"]) -> UnitMatch:
        """The same partners and rivals with their correlations on other data: without the bias of having chosen.

        Args:
            moments: those of the same units over samples that the match was not made from, or their correlation. A
                unit that is constant on them scores 0.
        """
        values, _ = _similarity(moments, self.by)
        return replace(self, score=values[self.units, self.partners], best=values[self.units, self.rivals])

    def plot(self, axes: Axes, **style: Any) -> None:
        """Draw the scores, from the best matched unit to the worst, and dotted the best correlations beside them.

        Args:
            axes: matplotlib's.
            style: for ``axes.plot``, such as ``label=``.
        """
        order = self.score.argsort(descending=True).cpu()
        (line,) = axes.plot(self.score.cpu()[order], **style)
        axes.plot(self.best.cpu()[order], ".", color=line.get_color(), markersize=3)

    def __repr__(self) -> str:
        left = " and ".join(str(len(side)) for side in self.constant)
        return (
            f"UnitMatch({self.method}, {self.by}: {len(self.units)} units, mean correlation {self.score.mean():.3f}, "
            f"mean gap {self.gap.mean():.3f}; constant: {left})"
        )


@dataclass(frozen=True, eq=False)
class SoftMatch(Savable):
    """A match in which a unit may be shared out among several of the other side.

    Attributes:
        plan: the share of each pair, (p, q); rows sum to 1 / p and columns to 1 / q over units that vary.
        score: sum of plan times correlation.
        constant: as in `UnitMatch`.
        by: whether the sign of correlations counts.
    """

    plan: Float[Tensor, "p q"]
    score: float
    constant: tuple[Int[Tensor, " _"], Int[Tensor, " _"]]
    by: By

    def on(self, moments: CrossMoments | Float[Tensor, "p q"]) -> SoftMatch:
        """The same plan with its score on other data.

        Args:
            moments: as for `UnitMatch.on`.
        """
        values, _ = _similarity(moments, self.by)
        return replace(self, score=float((self.plan * values).sum()))

    def plot(self, axes: Axes) -> None:
        """Draw the plan as an image: rows are units of the one side, columns those of the other.

        Args:
            axes: matplotlib's.
        """
        drawn = axes.imshow(self.plan.cpu().numpy(), cmap="Greys", aspect="auto")
        axes.set(xlabel="unit of the other side", ylabel="unit of the one side")
        axes.figure.colorbar(drawn, ax=axes, label="share")

    def __repr__(self) -> str:
        return f"SoftMatch({self.by}: {' x '.join(map(str, self.plan.shape))} units, mean correlation {self.score:.3f})"


def match_units(
    moments: CrossMoments | Float[Tensor, "p q"],
    *,
    method: Literal["matching", "semi-matching"] = "matching",
    by: By = "signed",
) -> UnitMatch:
    """Give units of one side partners on the other.

    The matching is the one-to-one assignment with the greatest sum of correlations (the Hungarian method); of unequally
    many units as many are matched as the smaller side has. In the semi-matching each unit takes the one it correlates
    with most, which others may take too.

    Args:
        moments: joint moments of the units, or their correlations alone. For a layer's next of kin within itself, give
            ``correlation().fill_diagonal_(-1)`` of its `Moments`.
        method: ``"matching"`` or ``"semi-matching"``.
        by: ``"signed"``, or ``"absolute"`` for activations without a sign of their own, such as a transformer's.

    Returns:
        The partners with their correlations on these data; `UnitMatch.on` scores them on others.

    Raises:
        ValueError: another `method` or `by`, correlations that are not finite or not a matrix, or no unit that varies.
    """
    from scipy.optimize import linear_sum_assignment

    if method not in ("matching", "semi-matching"):
        raise ValueError(
            f"method={method!r}: give 'matching' or 'semi-matching' (soft_match_units is its own function)"
        )
    values, varying = _similarity(moments, by)
    rows, columns = (side.nonzero()[:, 0] for side in varying)
    among = values[rows][:, columns]
    best, rival = among.max(1)
    if method == "matching":
        # Square or not, the rows come back in ascending order.
        chosen, partner = (torch.from_numpy(found) for found in linear_sum_assignment(among.cpu(), maximize=True))
        chosen, partner = chosen.to(rows.device), partner.to(rows.device)
    else:
        chosen, partner = torch.arange(len(rows), device=rows.device), rival
    return UnitMatch(
        units=rows[chosen],
        partners=columns[partner],
        score=among[chosen, partner],
        rivals=columns[rival[chosen]],
        best=best[chosen],
        constant=_constant(varying),
        method=method,
        by=by,
    )


def soft_match_units(moments: CrossMoments | Float[Tensor, "p q"], *, by: By = "signed") -> SoftMatch:
    """The optimal transport between two layers' units, each side's of equal weight: max_P sum_ij P_ij c_ij.

    It treats layers of different widths alike and is symmetric. For equally many units it is the matching.

    Args:
        moments: as for `match_units`.
        by: as for `match_units`.

    Raises:
        ValueError: as for `match_units`.

    Source: Khosla and Williams, Soft Matching Distance, UniReps 2023 (arXiv 2311.09466), section 2.
    """
    from scipy import sparse
    from scipy.optimize import linear_sum_assignment, linprog

    values, varying = _similarity(moments, by)
    rows, columns = (side.nonzero()[:, 0] for side in varying)
    among = values[rows][:, columns].cpu().numpy()
    p, q = among.shape
    size = math.lcm(p, q)
    if size <= _COPIES:
        # As many copies of each unit as make both sides equally long; then a permutation is optimal (Birkhoff).
        copied = np.repeat(np.repeat(among, size // p, 0), size // q, 1)
        chosen, partner = linear_sum_assignment(copied, maximize=True)
        shares = np.zeros((p, q))
        np.add.at(shares, (chosen // (size // p), partner // (size // q)), 1 / size)
    else:
        sums = sparse.vstack(
            [
                sparse.kron(sparse.eye_array(p), np.ones((1, q))),
                sparse.kron(np.ones((1, p)), sparse.eye_array(q)),
            ]
        )
        weights = np.concatenate([np.full(p, 1 / p), np.full(q, 1 / q)])
        found = linprog(-among.ravel(), A_eq=sums.tocsr(), b_eq=weights, method="highs")
        if found.status != 0:
            raise RuntimeError(f"the transport problem was not solved: {found.message}")
        shares = found.x.reshape(p, q)
    plan = torch.zeros_like(values)
    plan[rows[:, None], columns] = torch.from_numpy(shares).to(values)
    return SoftMatch(plan, float((plan * values).sum()), _constant(varying), by)


def _similarity(moments: CrossMoments | Tensor, by: By) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Correlations, or their absolute values, and which units of either side vary."""
    if by not in ("signed", "absolute"):
        raise ValueError(f"by={by!r}: give 'signed' or 'absolute'")
    if isinstance(moments, CrossMoments):
        values = moments.correlation()
        varying = ~moments.x.constant(), ~moments.y.constant()
    else:
        values = moments
        if values.ndim != 2 or not values.is_floating_point() or not torch.isfinite(values).all():
            raise ValueError(
                f"moments: a tensor of {values.dtype}, shape {tuple(values.shape)}, was given; a matrix of finite "
                "correlations is accepted"
            )
        varying = values.new_ones(len(values), dtype=torch.bool), values.new_ones(values.shape[1], dtype=torch.bool)
    for side, varies in zip(("one", "other"), varying):
        if not varies.any():
            raise ValueError(f"moments: none of the {len(varies)} units of the {side} side varies, so none has a match")
    return (values.abs() if by == "absolute" else values), varying


def _constant(varying: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return (~varying[0]).nonzero()[:, 0], (~varying[1]).nonzero()[:, 0]


# ---- one from a few --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Stitch(Savable):
    """A linear map from units of one layer to those of another; called on activations, it predicts the other's.

    Attributes:
        penalty: lambda.
        weights: (p, q), between units scaled to variance one on either side; column j predicts unit j.
        x: means and variances that the map was made with.
        y: those of the other side.
        excess: by how much, at most, the objective of a unit is above its least.
    """

    penalty: float
    weights: Float[Tensor, "p q"]
    x: Moments
    y: Moments
    excess: float

    def targets(self) -> Int[Tensor, " targets"]:
        """Numbers of the units that are predicted: those that vary."""
        return (~self.y.constant()).nonzero()[:, 0]

    def n_active(self, threshold: float = 0.01) -> Int[Tensor, " targets"]:
        """How many units each of the `targets` is predicted from.

        Args:
            threshold: weights of at most this size do not count.
        """
        return (self.weights.abs() > threshold).sum(0)[self.targets()]

    def fraction_unexplained(self, moments: CrossMoments) -> Float[Tensor, " _"]:
        """E[(y - prediction)^2] / Var(y) of each of the `targets`, best on data that the map was not made from.

        Args:
            moments: those of the same units, with what is within the one side.

        Returns:
            One number a target, without targets that are constant on these data (``moments.y.constant()``).

        Raises:
            ValueError: only variances were kept within the one side.
        """
        kept = (~self.y.constant() & ~moments.y.constant()).nonzero()[:, 0]
        matrix, offset = (value[..., kept] for value in self._map())
        bias = moments.y.mean[kept] - moments.x.mean @ matrix - offset
        explained = 2 * (matrix * moments.covariance()[:, kept]).sum(0)
        residual = moments.y.variance()[kept] - explained + (matrix * (moments.x.covariance() @ matrix)).sum(0)
        return (residual.clamp(min=0) + bias.square()) / moments.y.variance()[kept]

    def __call__(self, x: Float[Tensor, "n p"]) -> Float[Tensor, "n q"]:
        """What the other layer's units are predicted to be.

        Args:
            x: activations of the one layer.
        """
        matrix, offset = self._map()
        return x @ matrix.to(x) + offset.to(x)

    def _map(self) -> tuple[Tensor, Tensor]:
        """Weights and offset between units as they are."""
        x_scale = torch.where(self.x.constant(), 1, self.x.variance()).sqrt()
        y_scale = torch.where(self.y.constant(), 0, self.y.variance()).sqrt()
        matrix = self.weights / x_scale[:, None] * y_scale
        return matrix, self.y.mean - self.x.mean @ matrix

    def plot(self, axes: Axes, threshold: float = 0.01) -> None:
        """Draw from how many units each of the `targets` is predicted: how many targets need so many.

        Args:
            axes: matplotlib's.
            threshold: as for `n_active`.
        """
        counts = self.n_active(threshold).cpu().bincount()
        axes.bar(range(len(counts)), counts.tolist())
        axes.set(xlabel="units a target is predicted from", ylabel="targets")

    def __repr__(self) -> str:
        p, q = self.weights.shape
        return (
            f"Stitch({p} -> {q} units, penalty {self.penalty:g}, {self.n_active().double().mean():.3g} active a unit)"
        )


def sparse_stitch(moments: CrossMoments, penalty: float, *, tolerance: float = 1e-7) -> Stitch:
    """Predict every unit of the other layer from a few of the one: the lasso, from the moments alone.

    For each unit y of the other layer, all scaled to variance one,

        minimise  E[(y - w . x)^2] / 2 + lambda |w|_1,

    by coordinate descent for all units at once and by solving for the weights that are not zero, whose cost does not
    depend on the number of samples. At lambda = 0 it is the least-squares solution of least norm. With intercept, since
    moments are centred.

    Args:
        moments: joint moments, with what is within `moments.x`, of more samples than it has units.
        penalty: lambda, at least 0. At 1 all weights are zero.
        tolerance: the objective of each unit ends at most this far above its least (the duality gap).

    Raises:
        ValueError: a negative `penalty`, a `tolerance` that is not positive, or too few samples.

    Source: Li et al. (arXiv 1511.07543), section 4; Friedman, Hastie and Tibshirani, Journal of Statistical Software 33
    (2010), section 2.2 (covariance updates).
    """
    return stitch_path(moments, [penalty], tolerance=tolerance)[0]


def stitch_path(moments: CrossMoments, penalties: Iterable[float], *, tolerance: float = 1e-7) -> list[Stitch]:
    """`sparse_stitch` at several penalties, each solution the start for the next smaller penalty.

    Args:
        moments: as for `sparse_stitch`.
        penalties: in any order.
        tolerance: as for `sparse_stitch`.

    Returns:
        One map a penalty, in the order given.

    Raises:
        ValueError: as for `sparse_stitch`, or no penalties.
    """
    given = [float(penalty) for penalty in penalties]
    if not given or not all(penalty >= 0 for penalty in given):
        raise ValueError(f"penalties: {given} were given; numbers of at least 0 are accepted, and at least one")
    if not tolerance > 0:
        raise ValueError(f"tolerance={tolerance!r}: give a positive number")
    if moments.count <= moments.x.units:
        raise ValueError(
            f"moments: {moments.count} samples of {moments.x.units} units were given; a map needs more samples than "
            f"units, at least {moments.x.units + 1}"
        )
    gram, target = moments.x.correlation(), moments.correlation()
    found: dict[float, tuple[Tensor, float]] = {}
    weights = torch.zeros_like(target)
    for penalty in sorted({*given}, reverse=True):
        if penalty == 0:
            found[penalty] = torch.linalg.pinv(gram, rtol=1e-12, hermitian=True) @ target, 0.0
        else:
            found[penalty] = _coordinate_descent(gram, target, penalty, weights, tolerance)
            weights = found[penalty][0]
    x, y = (replace(side, scatter=side.variance() * side.count) for side in (moments.x, moments.y))
    return [Stitch(penalty, found[penalty][0], x, y, found[penalty][1]) for penalty in given]


_BLOCK = 64  # coordinates between two products with the whole Gram matrix
_SWEEPS = 10  # between two solutions on the support, each round of which ends with the duality gap
_ROUNDS = 10_000


def _coordinate_descent(
    gram: Tensor, target: Tensor, penalty: float, start: Tensor, tolerance: float
) -> tuple[Tensor, float]:
    """The lasso's weights for all targets, and the largest duality gap left.

    Sweeps find which weights are not zero and their signs; where units are nearly collinear they would then take
    thousands more to get the values right, which solving for these weights does at once.
    """
    weights, excess = start.clone(), _duality_gap(gram, target, start, penalty)
    for _ in range(_ROUNDS):
        left = (excess > tolerance).nonzero()[:, 0]  # targets that have not converged
        if not len(left):
            break
        w, aim = weights[:, left], target[:, left]
        for _ in range(_SWEEPS):
            _sweep(gram, aim, w, penalty)
        for _ in range(_SWEEPS):
            moved = _solve_on_support(gram, aim, w, penalty)
            if torch.equal(moved, w):
                break
            w = moved
        weights[:, left] = w
        excess[left] = _duality_gap(gram, aim, w, penalty)
    return weights, float(excess.max())


def _sweep(gram: Tensor, target: Tensor, weights: Tensor, penalty: float) -> None:
    """Minimise over each coordinate in turn, in place."""
    for first in range(0, len(gram), _BLOCK):
        block = slice(first, first + _BLOCK)
        within, inner = gram[block, block], weights[block]
        # What the block should explain once all other coordinates have done their part.
        rest = target[block] - gram[block] @ weights + within @ inner
        for k in range(len(inner)):
            z = rest[k] - within[k] @ inner + within[k, k] * inner[k]
            inner[k] = torch.nn.functional.softshrink(z, penalty)


def _solve_on_support(gram: Tensor, target: Tensor, weights: Tensor, penalty: float) -> Tensor:
    """Go to the best weights on each target's support, or towards them until the first weight becomes zero."""
    found, several = [], max(1, 2**24 // gram.numel())
    for w, aim in zip(weights.T.split(several), target.T.split(several)):
        signs = w.sign()
        held = signs == 0
        system = gram * (~held[:, :, None] & ~held[:, None, :]) + torch.diag_embed(held.to(gram))
        solution, failed = torch.linalg.solve_ex(system, torch.where(held, 0, aim - penalty * signs)[..., None])
        solution = solution[..., 0]
        crosses = ~held & (solution * signs <= 0)
        reach = torch.where(crosses, w / (w - solution), 1)
        part = reach.amin(1, keepdim=True)
        moved = torch.where(crosses & (reach == part), 0, w + part * (solution - w))
        # A support that is all but singular may lead anywhere.
        better = _objective(gram, aim, moved, penalty) < _objective(gram, aim, w, penalty)
        found.append(torch.where(((failed == 0) & better)[:, None], moved, w))
    return torch.cat(found).T.contiguous()


def _objective(gram: Tensor, target: Tensor, weights: Tensor, penalty: float) -> Tensor:
    return (weights * (weights @ gram / 2 - target)).sum(1) + penalty * weights.abs().sum(1)


def _duality_gap(gram: Tensor, target: Tensor, weights: Tensor, penalty: float) -> Tensor:
    """How far the objective may be above its least: the dual point is the residual, scaled to be feasible."""
    slope = target - gram @ weights
    explained = (weights * target).sum(0)
    residual = (1 - explained - (weights * slope).sum(0)).clamp(min=0)
    shrink = (penalty / slope.abs().amax(0)).clamp(max=1)
    return residual * (1 + shrink.square()) / 2 + penalty * weights.abs().sum(0) - shrink * (1 - explained)


# ---- many with many --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class UnitClusters(Savable):
    """Clusters of the units of two layers taken together.

    Attributes:
        labels: the cluster of each unit, those of the one side first; -1 for units that are constant.
        other: True for units of the other side.
        count: how many clusters.
    """

    labels: Int[Tensor, " units"]
    other: Bool[Tensor, " units"]
    count: int

    def composition(self) -> Int[Tensor, "clusters 2"]:
        """How many units of the one side and of the other each cluster has."""
        return _composition(self.labels, self.other, self.count)

    def members(self, cluster: int) -> tuple[Int[Tensor, " p"], Int[Tensor, " q"]]:
        """The units of a cluster, numbered on their own side.

        Args:
            cluster: its number.
        """
        mine = self.labels == cluster
        return mine[~self.other].nonzero()[:, 0], mine[self.other].nonzero()[:, 0]

    def mixing(self, least: float = 0.2) -> float:
        """The share of clusters in which the side with fewer units has at least a share `least` of them.

        Args:
            least: in (0, 0.5].

        Raises:
            ValueError: `least` out of range.
        """
        return float(_mixing(self.composition(), least))

    def mixing_null(
        self, least: float = 0.2, *, draws: int = 1_000, generator: torch.Generator | None = None
    ) -> Float[Tensor, " draws"]:
        """The `mixing` of the same clusters when units are said to be of the one or the other side at random.

        Args:
            least: as for `mixing`.
            draws: how many, at least 1.
            generator: where permutations are drawn from, on the processor; by default torch's own.

        Raises:
            ValueError: a number out of range.
        """
        if draws < 1:
            raise ValueError(f"draws={draws!r}: give at least 1")
        kept = (self.labels >= 0).cpu()
        labels, other = self.labels.cpu()[kept], self.other.cpu()[kept]
        found = [
            _mixing(_composition(labels, other[torch.randperm(len(other), generator=generator)], self.count), least)
            for _ in range(draws)
        ]
        return torch.stack(found)

    def plot(self, axes: Axes, labels: tuple[str, str] = ("the one", "the other")) -> None:
        """Draw how many units each cluster has of the one side, upwards, and of the other, downwards.

        Args:
            axes: matplotlib's.
            labels: names of the two sides for a legend.
        """
        counts = self.composition()
        order = counts.sum(1).argsort(descending=True)
        for sign, side, label in zip((1, -1), counts[order].T.tolist(), labels):
            axes.bar(range(self.count), [sign * count for count in side], label=label)
        axes.axhline(0, color="0.3", linewidth=0.8)

    def __repr__(self) -> str:
        return f"UnitClusters({len(self.labels)} units in {self.count} clusters, mixing {self.mixing():.2f})"


def unit_clusters(
    moments: CrossMoments, n_clusters: int, *, generator: torch.Generator | None = None, restarts: int = 20
) -> UnitClusters:
    """Spectral clustering of the units of both layers by their absolute correlations.

    With W the absolute correlations of all pairs of units, 0 on the diagonal, and D its row sums, the eigenvectors of
    the least eigenvalues of I - D^-1 W are clustered by k-means.

    Args:
        moments: joint moments, with what is within each side.
        n_clusters: how many, from 2 to the number of units that vary.
        generator: where the seed of k-means is drawn from; by default torch's own.
        restarts: of k-means, of which the best is kept.

    Raises:
        ValueError: a number out of range, or only variances were kept within.

    Source: von Luxburg, A Tutorial on Spectral Clustering, Statistics and Computing 17 (2007), section 4 (after Shi and
    Malik); Li et al. (arXiv 1511.07543), section 5.
    """
    from scipy.linalg import eigh
    from sklearn.cluster import KMeans

    blocks = [[moments.x.correlation(), moments.correlation()], [moments.T.correlation(), moments.y.correlation()]]
    affinity = torch.cat([torch.cat(row, 1) for row in blocks]).abs().cpu()
    # A unit that correlates with none is no more use here than one that is constant.
    varying = affinity.fill_diagonal_(0).sum(1) > 0
    if not 2 <= n_clusters <= int(varying.sum()) or restarts < 1:
        raise ValueError(
            f"n_clusters={n_clusters!r}, restarts={restarts!r}: give 2 to {int(varying.sum())} clusters, as many units "
            "vary, and at least 1 restart"
        )
    affinity = affinity[varying][:, varying]
    scale = affinity.sum(1).rsqrt()
    # D^-1/2 W D^-1/2 is symmetric; its eigenvectors times D^-1/2 are those of D^-1 W.
    size = len(affinity)
    symmetric = (scale[:, None] * affinity * scale).numpy()
    _, vectors = eigh(symmetric, subset_by_index=[size - n_clusters, size - 1])
    places = scale.numpy()[:, None] * vectors
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    found = KMeans(n_clusters, n_init=restarts, random_state=seed).fit_predict(places / np.abs(places).max(0))
    labels = torch.full((len(varying),), -1)
    labels[varying] = torch.from_numpy(found).long()
    return UnitClusters(labels, torch.arange(len(varying)) >= moments.x.units, n_clusters)


def _composition(labels: Tensor, other: Tensor, count: int) -> Tensor:
    kept = labels >= 0
    cells = labels[kept] * 2 + other[kept].long()
    return torch.bincount(cells, minlength=2 * count).reshape(count, 2)


def _mixing(composition: Tensor, least: float) -> Tensor:
    if not 0 < least <= 0.5:
        raise ValueError(f"least={least!r}: give a share in (0, 0.5]")
    sizes = composition.double()
    return (sizes.amin(1) >= least * sizes.sum(1) - 1e-9).logical_and(sizes.amin(1) > 0).double().mean()


# ---- mutual information ----------------------------------------------------------------------------------------------


class RunningMutualInformation:
    """Mutual information of all pairs of units of two layers from binned activations, batch after batch.

    Args:
        x_edges: the inner edges of the bins of each unit of the one layer, ascending; `percentile_edges` makes them.
        y_edges: for the other layer.
        zero_mass: give activations that are exactly zero a bin of their own, as those of rectified units need.
    """

    def __init__(
        self, x_edges: Float[Tensor, "p inner"], y_edges: Float[Tensor, "q others"], *, zero_mass: bool = True
    ) -> None:
        self._edges, self._zero_mass = (x_edges, y_edges), zero_mass
        self._counts, self._samples = _Sum(), 0

    def update(self, x: Float[Tensor, "n p"], y: Float[Tensor, "n q"]) -> RunningMutualInformation:
        """Take in a batch.

        Args:
            x: one row a sample.
            y: the same samples in the other layer.

        Returns:
            Itself.

        Raises:
            ValueError: different numbers of samples, or of units than there are edges for.
        """
        for name, values, edges in zip("xy", (x, y), self._edges):
            if values.ndim != 2 or values.shape[1] != len(edges) or len(x) != len(y):
                raise ValueError(
                    f"{name}: shape {tuple(values.shape)} was given; (samples, {len(edges)}) is accepted, with as many "
                    "samples in x and y"
                )
        for parts in zip(x.split(1024), y.split(1024)):
            hot = [self._one_hot(part, edges) for part, edges in zip(parts, self._edges)]
            self._counts.add(*hot)
        self._samples += len(x)
        return self

    def nats(self, bias: Literal["miller-madow"] | None = "miller-madow") -> Float[Tensor, "p q"]:
        """sum over bins of p_ij ln(p_ij / (p_i p_j)), less its bias.

        The plug-in estimate is too great by about (K_xy - K_x - K_y + 1) / (2 N) nats, with K the numbers of bins that
        are not empty; where all are filled that is (K_x - 1)(K_y - 1) / (2 N).

        Args:
            bias: ``"miller-madow"`` to subtract it, None not to. Corrected values of independent units scatter around
                0.

        Raises:
            ValueError: another `bias`, or no samples yet.

        Source: Miller, Note on the Bias of Information Estimates (1955).
        """
        if bias not in ("miller-madow", None):
            raise ValueError(f"bias={bias!r}: give 'miller-madow' or None")
        if not self._samples:
            raise ValueError("no samples were taken in; call update(x, y) first")
        widths = [self._bins(edges) for edges in self._edges]
        (p, q), (rows, columns) = (len(edges) for edges in self._edges), widths
        joint = self._counts.value().reshape(p, rows, q, columns).transpose(1, 2)  # (p, q, rows, columns)
        marginals = joint.sum(3), joint.sum(2)
        terms = [torch.special.xlogy(counts, counts / self._samples) for counts in (joint, *marginals)]
        entropies = [-term.flatten(2).sum(2) / self._samples for term in terms]
        found = entropies[1] + entropies[2] - entropies[0]
        if bias is not None:
            filled = [(counts > 0).flatten(2).sum(2) for counts in (joint, *marginals)]
            found = found - (filled[0] - filled[1] - filled[2] + 1) / (2 * self._samples)
        return found

    def _bins(self, edges: Tensor) -> int:
        return edges.shape[1] + 1 + self._zero_mass

    def _one_hot(self, values: Tensor, edges: Tensor) -> Tensor:
        codes = torch.searchsorted(edges, values.to(edges).T.contiguous()).T
        if self._zero_mass:
            codes = codes.masked_fill(values == 0, edges.shape[1] + 1)
        # Sums of up to 2^24 ones are exact in single precision.
        return torch.nn.functional.one_hot(codes, self._bins(edges)).flatten(1).float()


def percentile_edges(
    x: Float[Tensor, "n units"], bins: int = 10, *, zero_mass: bool = True
) -> Float[Tensor, "units inner"]:
    """Edges between bins that hold equally many of a unit's values each.

    Args:
        x: one row a sample; a part of the data is enough.
        bins: how many, at least 2.
        zero_mass: leave out activations that are exactly zero.

    Returns:
        ``bins - 1`` edges a unit; zeros for a unit without values.

    Raises:
        ValueError: fewer than 2 bins, or not two axes with samples.
    """
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 2:
        raise ValueError(f"bins={bins!r}: give a whole number of at least 2")
    if x.ndim != 2 or not len(x):
        raise ValueError(f"x: a tensor of shape {tuple(x.shape)} was given; (samples, units) is accepted, not empty")
    left_out = x == 0 if zero_mass else torch.zeros_like(x, dtype=torch.bool)
    ordered = x.masked_fill(left_out, torch.inf).sort(0).values
    held = (~left_out).sum(0)
    steps = torch.arange(1, bins, device=x.device)[:, None]
    place = (steps * held // bins - 1).clamp(min=0)
    edges = ordered.gather(0, place)
    return torch.where(torch.isfinite(edges), edges, 0).T.contiguous()


def mutual_information(
    x: Float[Tensor, "n p"],
    y: Float[Tensor, "n q"],
    *,
    bins: int = 10,
    zero_mass: bool = True,
    bias: Literal["miller-madow"] | None = "miller-madow",
) -> Float[Tensor, "p q"]:
    """Mutual information in nats of all pairs of units, from samples in memory; `RunningMutualInformation` streams.

    Args:
        x: one row a sample.
        y: the same samples in the other layer.
        bins: bins of equally many values, at least 2.
        zero_mass: give activations that are exactly zero a bin of their own beside them.
        bias: as for `RunningMutualInformation.nats`.

    Returns:
        Entry i, j belongs to units i of `x` and j of `y`; 0, but for the bias, where one is constant.

    Raises:
        ValueError: as for `percentile_edges` and `RunningMutualInformation`.

    Source: Li et al. (arXiv 1511.07543), section 3.2.
    """
    edges = (percentile_edges(side, bins, zero_mass=zero_mass) for side in (x, y))
    return RunningMutualInformation(*edges, zero_mass=zero_mass).update(x, y).nats(bias)
