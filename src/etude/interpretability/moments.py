"""Means, covariances and correlations of units over data larger than memory, in one pass.

Sums are kept in double precision and centred as they grow, so that units whose mean is far above their spread lose
nothing, and two halves of a data set, or the shards of several processes, can be put together afterwards.

Source: Chan, Golub and LeVeque, Algorithms for Computing the Sample Variance, The American Statistician 37 (1983).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from etude.savable import Savable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["CrossMoments", "Moments", "RunningCrossMoments", "RunningMoments"]

_ROWS = 4096
"""Rows whose products are summed in the data's own precision before they go into the double sum."""


@dataclass(frozen=True, eq=False, repr=False)
class Moments(Savable):
    """What is known of units up to second order: how many samples, their means and their scatter.

    Made by `RunningMoments`, or at once by ``Moments.of(x)``. A dataclass of a number and tensors, so that it is stored
    as it is.

    Attributes:
        count: samples n.
        mean: the mean m of each unit, in double precision.
        scatter: sum of (x - m)(x - m)^T over samples, (units, units), in double precision; (units,), its diagonal, if
            no more was asked for.
        resolution: the relative precision of the data's type.
    """

    count: int
    mean: Float[Tensor, " units"]
    scatter: Float[Tensor, "units ..."]
    resolution: float

    @classmethod
    def of(cls, x: Float[Tensor, "n units"], *, diagonal: bool = False) -> Moments:
        """The moments of samples that are in memory.

        Args:
            x: one row a sample.
            diagonal: keep the variances alone.
        """
        return RunningMoments(diagonal=diagonal, precision=torch.float64).update(x).moments()

    @property
    def units(self) -> int:
        """How many."""
        return len(self.mean)

    def variance(self) -> Float[Tensor, " units"]:
        """The mean squared distance from the mean (divided by n)."""
        return (self.scatter if self.scatter.ndim == 1 else self.scatter.diagonal()).clamp(min=0) / self.count

    def constant(self) -> Bool[Tensor, " units"]:
        """Where a unit does not vary, to the precision of its numbers: no correlation with it is defined."""
        return self.variance() <= (8 * self.resolution * self.mean) ** 2

    def covariance(self) -> Float[Tensor, "units units"]:
        """E[(x - m)(x - m)^T], divided by n.

        Raises:
            ValueError: the variances alone were kept.
        """
        return self._full() / self.count

    def second_moment(self) -> Float[Tensor, "units units"]:
        """The Gram matrix over samples, not centred: E[x x^T] = covariance + m m^T.

        Raises:
            ValueError: the variances alone were kept.
        """
        return self.covariance() + torch.outer(self.mean, self.mean)

    def correlation(self) -> Float[Tensor, "units units"]:
        """Pearson's correlation of all pairs of units; 0 in the rows and columns of those that are `constant`.

        Raises:
            ValueError: the variances alone were kept.
        """
        scale = _inverse_deviation(self)
        return (scale[:, None] * self.covariance() * scale).clamp(-1, 1)

    def select(self, units: Int[Tensor, " kept"] | slice) -> Moments:
        """The moments of some of the units.

        Args:
            units: their numbers, or a slice.
        """
        scatter = self.scatter[units]
        scatter = scatter if scatter.ndim == 1 else scatter[:, units]
        return Moments(self.count, self.mean[units], scatter, self.resolution)

    def between(self, x: Int[Tensor, " p"] | slice, y: Int[Tensor, " q"] | slice) -> CrossMoments:
        """The joint moments of two groups of these units, such as those of two networks.

        Args:
            x: the numbers of the one group, or a slice.
            y: those of the other.

        Raises:
            ValueError: the variances alone were kept.
        """
        return CrossMoments(self.select(x), self.select(y), self._full()[x][:, y])

    def mapped(self, matrix: Float[Tensor, "outputs units"]) -> Moments:
        """The moments of A x: mean A m and scatter A S A^T.

        Args:
            matrix: A.

        Raises:
            ValueError: the variances alone were kept, or A has another number of columns.
        """
        if matrix.ndim != 2 or matrix.shape[1] != self.units:
            raise ValueError(f"matrix: shape {tuple(matrix.shape)} was given; (outputs, {self.units}) is accepted")
        a = matrix.to(self.mean)
        return Moments(self.count, a @ self.mean, a @ self._full() @ a.T, self.resolution)

    def merge(self, other: Moments) -> Moments:
        """The moments of these samples and others together: S + S' + d d^T n n' / (n + n'), d the means' distance.

        Args:
            other: moments of the same units over other samples.

        Raises:
            ValueError: other units, or the variances alone on one side.
        """
        if other.scatter.shape != self.scatter.shape:
            raise ValueError(
                f"other: scatter of shape {tuple(other.scatter.shape)} was given; {tuple(self.scatter.shape)} is "
                "accepted, that of the same units"
            )
        n, step = self.count + other.count, other.mean - self.mean
        between = step.square() if self.scatter.ndim == 1 else torch.outer(step, step)
        scatter = self.scatter + other.scatter + between * (self.count * other.count / n)
        mean = self.mean + step * (other.count / n)
        return Moments(n, mean, scatter, max(self.resolution, other.resolution))

    def all_reduce(self, group: Any = None) -> Moments:
        """The moments over the samples of all processes of ``torch.distributed``, each of which has its own shard.

        Args:
            group: the processes; by default all.
        """
        n, mean, step = _common_mean(self, group)
        between = step.square() if self.scatter.ndim == 1 else torch.outer(step, step)
        return Moments(n, mean, _summed(self.scatter + self.count * between, group), self.resolution)

    def __repr__(self) -> str:
        kept = "" if self.scatter.ndim == 2 else ", variances alone"
        return f"Moments({self.units} units, {self.count} samples{kept})"

    def _full(self) -> Tensor:
        if self.scatter.ndim == 1:
            raise ValueError("only the variances of these units were kept (diagonal=True or within=False)")
        return self.scatter


@dataclass(frozen=True, eq=False, repr=False)
class CrossMoments(Savable):
    """The joint moments of two groups of units over the same samples.

    Made by `RunningCrossMoments`, by ``CrossMoments.of(x, y)``, or from `Moments.between`.

    Attributes:
        x: moments of the one group.
        y: moments of the other.
        cross: sum of (x - m_x)(y - m_y)^T over samples, in double precision.
    """

    x: Moments
    y: Moments
    cross: Float[Tensor, "p q"]

    @classmethod
    def of(cls, x: Float[Tensor, "n p"], y: Float[Tensor, "n q"], *, within: bool = True) -> CrossMoments:
        """The moments of samples that are in memory.

        Args:
            x: one row a sample.
            y: the same samples in the other group.
            within: keep the scatter inside each group too, not its variances alone.
        """
        return RunningCrossMoments(within=within, precision=torch.float64).update(x, y).moments()

    @property
    def count(self) -> int:
        """How many samples."""
        return self.x.count

    @property
    def T(self) -> CrossMoments:
        """The same with the groups exchanged."""
        return CrossMoments(self.y, self.x, self.cross.T)

    def covariance(self) -> Float[Tensor, "p q"]:
        """E[(x - m_x)(y - m_y)^T], divided by n."""
        return self.cross / self.count

    def correlation(self) -> Float[Tensor, "p q"]:
        """Pearson's correlation of every unit of `x` with every one of `y`; 0 for those that are constant.

        ``x.constant()`` and ``y.constant()`` say which these are.
        """
        scales = _inverse_deviation(self.x)[:, None], _inverse_deviation(self.y)
        return (scales[0] * self.covariance() * scales[1]).clamp(-1, 1)

    def mapped(self, matrix: Float[Tensor, "outputs p"]) -> CrossMoments:
        """The joint moments of A x and y.

        Args:
            matrix: A.

        Raises:
            ValueError: as for `Moments.mapped`.
        """
        return CrossMoments(self.x.mapped(matrix), self.y, matrix.to(self.cross) @ self.cross)

    def linear_cka(self) -> float:
        """`etude.interpretability.linear_cka` of the samples: |S_xy|^2 / (|S_xx| |S_yy|), in Frobenius norms.

        Raises:
            ValueError: the variances alone were kept.
        """
        own = self.x._full().norm() * self.y._full().norm()
        return float(self.cross.square().sum() / own) if own > 0 else 0.0

    def merge(self, other: CrossMoments) -> CrossMoments:
        """The moments of these samples and others together.

        Args:
            other: moments of the same units over other samples.

        Raises:
            ValueError: other units.
        """
        x, y = self.x.merge(other.x), self.y.merge(other.y)
        steps = other.x.mean - self.x.mean, other.y.mean - self.y.mean
        share = self.count * other.count / (self.count + other.count)
        return CrossMoments(x, y, self.cross + other.cross + share * torch.outer(*steps))

    def all_reduce(self, group: Any = None) -> CrossMoments:
        """The moments over the samples of all processes, as `Moments.all_reduce`.

        Args:
            group: the processes; by default all.
        """
        steps = _common_mean(self.x, group)[2], _common_mean(self.y, group)[2]
        cross = _summed(self.cross + self.count * torch.outer(*steps), group)
        return CrossMoments(self.x.all_reduce(group), self.y.all_reduce(group), cross)

    def plot(self, axes: Axes) -> None:
        """Draw the correlation of every unit of `y` (across) with every one of `x` (down) as an image.

        Args:
            axes: matplotlib's.
        """
        drawn = axes.imshow(self.correlation().cpu().numpy(), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
        axes.set(xlabel="unit of y", ylabel="unit of x")
        axes.figure.colorbar(drawn, ax=axes, label="correlation")

    def __repr__(self) -> str:
        return f"CrossMoments({self.x!r} with {self.y!r})"


class RunningMoments:
    """Moments of units from batches, each of which is let go.

    ::

        running = RunningMoments()
        for hidden in batches:                    # (n, units), any floating type, on any device
            running.update(hidden)
        covariance = running.moments().covariance()

    With m the mean before a batch and m' the one after it, S grows by the sum of (x - m)(x - m')^T over the batch,
    which is what merging the batch's own moments would add. Memory does not depend on the number of samples.

    Args:
        diagonal: keep the variances alone.
        precision: the type in which products are taken; by default the data's own, single at least. Products of 4,096
            rows at a time are then summed in double precision: correlations of single precision data are right to about
            1e-6. With ``torch.float64`` they are right to about 1e-15, at twice the cost.

    Raises:
        ValueError: `precision` is neither None, ``torch.float32`` nor ``torch.float64``.
    """

    def __init__(self, *, diagonal: bool = False, precision: torch.dtype | None = None) -> None:
        if precision not in (None, torch.float32, torch.float64):
            raise ValueError(f"precision={precision!r}: give None, torch.float32 or torch.float64")
        self._diagonal, self._precision = diagonal, precision
        self._count, self._mean, self._resolution = 0, torch.zeros(0, dtype=torch.float64), 0.0
        self._scatter = _Sum()

    def update(self, x: Float[Tensor, "n units"]) -> RunningMoments:
        """Take in a batch.

        Args:
            x: one row a sample.

        Returns:
            Itself.

        Raises:
            TypeError: no tensor of floating point numbers.
            ValueError: not two axes, or another number of units than before.
        """
        _check_batch("x", x, self._mean, self._count)
        for rows in _blocks(x):
            self._take(rows)
        return self

    def moments(self) -> Moments:
        """What is known so far.

        Raises:
            ValueError: no samples yet, or numbers that were not finite.
        """
        if not self._count:
            raise ValueError("no samples were taken in; call update(x) first")
        scatter = self._scatter.value()
        finite = torch.isfinite(scatter if scatter.ndim == 1 else scatter.diagonal()) & torch.isfinite(self._mean)
        if not finite.all():
            units = (~finite).nonzero()[:, 0].tolist()
            raise ValueError(f"x: {len(units)} units were not finite, the first of them unit {units[0]}")
        scatter = scatter if self._diagonal else (scatter + scatter.T) / 2
        return Moments(self._count, self._mean.clone(), scatter, self._resolution)

    def _take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Take rows in; return them less the mean before them, and by how much that mean moved."""
        half = torch.finfo(rows.dtype).bits < 32
        self._resolution = max(self._resolution, torch.finfo(torch.float32 if half else rows.dtype).eps)
        rows = rows.to(self._precision or (torch.float32 if half else rows.dtype))
        # The first mean is a provisional one, that the rows less it correct.
        before = self._mean if self._count else rows.mean(0).double()
        shift = before.to(rows.dtype)
        rows = rows - shift
        here = rows.mean(0).double()
        self._count += len(rows)
        step = (here + (shift.double() - before)) * (len(rows) / self._count)
        self._mean = before + step
        moved = step.to(rows.dtype)
        if self._diagonal:
            self._scatter.add_diagonal(rows, len(rows) * here * step)
        else:
            self._scatter.add(rows, rows - moved)
        return rows, moved


class RunningCrossMoments:
    """Joint moments of two groups of units from batches, as `RunningMoments` does for one.

    ::

        running = RunningCrossMoments()
        for x, y in batches:                      # (n, p) and (n, q): the same n samples in two networks
            running.update(x, y)
        correlation = running.moments().correlation()

    Args:
        within: keep the scatter inside each group too. Without it there is one product a batch in place of three, which
            is enough for correlations between the groups.
        precision: as for `RunningMoments`.

    Raises:
        ValueError: as for `RunningMoments`.
    """

    def __init__(self, *, within: bool = True, precision: torch.dtype | None = None) -> None:
        self._x, self._y = (RunningMoments(diagonal=not within, precision=precision) for _ in range(2))
        self._cross = _Sum()

    def update(self, x: Float[Tensor, "n p"], y: Float[Tensor, "n q"]) -> RunningCrossMoments:
        """Take in a batch.

        Args:
            x: one row a sample.
            y: the same samples in the other group.

        Returns:
            Itself.

        Raises:
            TypeError: no tensors of floating point numbers.
            ValueError: different numbers of samples, not two axes, or another number of units than before.
        """
        _check_batch("x", x, self._x._mean, self._x._count)
        _check_batch("y", y, self._y._mean, self._y._count)
        if len(x) != len(y):
            raise ValueError(f"x, y: {len(x)} and {len(y)} samples were given; as many of both are accepted")
        for one, other in zip(_blocks(x), _blocks(y)):
            (before, _), (rows, moved) = self._x._take(one), self._y._take(other)
            after = rows - moved
            wider = torch.promote_types(before.dtype, after.dtype)
            self._cross.add(before.to(wider), after.to(wider))
        return self

    def moments(self) -> CrossMoments:
        """What is known so far.

        Raises:
            ValueError: no samples yet, or numbers that were not finite.
        """
        return CrossMoments(self._x.moments(), self._y.moments(), self._cross.value())


class _Sum:
    """The sum of a^T b over batches, in double precision."""

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._pending: Tensor | None = None  # in the data's precision; of a few thousand rows at most
        self._rows = 0

    @torch.no_grad()
    def add(self, a: Tensor, b: Tensor) -> None:
        with torch.autocast(a.device.type, enabled=False):
            if self._total is None:
                self._total = torch.zeros(a.shape[1], b.shape[1], dtype=torch.float64, device=a.device)
            if a.dtype == torch.float64:
                self._total.addmm_(a.T, b)
            else:
                self._pending = a.T @ b if self._pending is None else self._pending.addmm_(a.T, b)
                self._rows += len(a)
                if self._rows >= _ROWS:
                    self._flush()

    def add_diagonal(self, a: Tensor, less: Tensor) -> None:
        """Only the sums of squares, less what they have too much."""
        squares = a.square().sum(0).double() - less
        self._total = squares if self._total is None else self._total + squares

    def value(self) -> Tensor:
        self._flush()
        assert self._total is not None
        return self._total.clone()

    def _flush(self) -> None:
        if self._pending is not None and self._total is not None:
            self._total += self._pending
            self._pending, self._rows = None, 0


def _inverse_deviation(moments: Moments) -> Tensor:
    """1 / standard deviation, 0 for units that are constant."""
    constant = moments.constant()
    return torch.where(constant, 0, moments.variance().where(~constant, 1).rsqrt())


def _common_mean(moments: Moments, group: Any) -> tuple[int, Tensor, Tensor]:
    """Over all processes: the number of samples, their mean, and how far this process's mean is from it."""
    count = torch.tensor(float(moments.count), dtype=torch.float64, device=moments.mean.device)
    total = _summed(count, group)
    mean = _summed(moments.mean * moments.count, group) / total
    return int(total), mean, moments.mean - mean


def _summed(value: Tensor, group: Any) -> Tensor:
    value = value.clone()
    torch.distributed.all_reduce(value, group=group)
    return value


def _blocks(x: Tensor) -> tuple[Tensor, ...]:
    return x.detach().split(_ROWS) if len(x) else ()


def _check_batch(name: str, x: Tensor, mean: Tensor, count: int) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        given = f"tensor of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name}: a {given} was given; a tensor of floating point numbers is accepted")
    if x.ndim != 2 or not x.shape[1]:
        raise ValueError(
            f"{name}: a tensor of shape {tuple(x.shape)} was given; (samples, units) is accepted (flatten_units makes "
            "it of a layer's activations)"
        )
    if count and x.shape[1] != len(mean):
        raise ValueError(f"{name}: {x.shape[1]} units were given; {len(mean)} are accepted, as in the batches before")
