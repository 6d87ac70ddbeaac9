"""What a very deep, very wide network with a given activation would be: the numbers, the classifier, the depth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from etude.theory.dual_activation import Activation, HermiteActivation, Regime
from etude.theory.ntk import log_correlation, log_layer

CLASSIFIERS: dict[Regime, str] = {
    "singular": "vote weighted by R(r) / r^alpha",
    "nearest": "1-nearest neighbour",
    "majority": "majority vote",
    "ordered": "none: all points become one, and interpolation goes on with what is left of their differences",
}


@dataclass(frozen=True, repr=False)
class ReportCard:
    """Report of one activation; prints as a table.

    Attributes:
        name: the activation's name.
        A: `E phi(u)`, for phi normalised to `E phi(u)^2 = 1`.
        B: `E phi'(u)`.
        B_prime: `E phi'(u)^2`.
        alpha: singular exponent; infinite for the nearest neighbour, nan where `A != 0`.
        regime: `"singular"`, `"nearest"`, `"majority"` or `"ordered"`.
        classifier: what the infinitely deep network computes.
        consistency: what follows for data of the given dimension.
        n: number of training points.
        dimension: their intrinsic dimension.
        depth: layers from which the NNGP acts as the limit on that many points; None if more than `max_depth`.
        max_depth: where the search stopped.
        dual_error: bound on the error of the dual activation, zero for closed forms.
    """

    name: str
    A: float
    B: float
    B_prime: float
    alpha: float
    regime: Regime
    classifier: str
    consistency: str
    n: int
    dimension: int
    depth: int | None
    max_depth: int
    dual_error: float

    def __repr__(self) -> str:
        depth = f"more than {self.max_depth}" if self.depth is None else f"about {self.depth} layers"
        exact = "closed form" if self.dual_error == 0 else f"{self.dual_error:.1e} (expansion and quadrature)"
        where = f"{self.n} points of dimension {self.dimension}"
        rows = {
            "A = E phi": f"{self.A:.6g}",
            "B = E phi'": f"{self.B:.6g}",
            "B' = E phi'^2": f"{self.B_prime:.6g}",
            "alpha": "none" if math.isnan(self.alpha) else f"{self.alpha:.6g}",
            "regime": self.regime,
            "infinite depth": self.classifier,
            "consistency": self.consistency,
            "limit reached": "no limit" if self.regime == "ordered" else f"{depth}, for {where}",
            "error of dual": exact,
        }
        return "\n".join([self.name, *(f"  {key:<14}  {value}" for key, value in rows.items())])


def report_card(
    activation: Activation | Callable[[torch.Tensor], Any],
    n: int = 1000,
    dimension: int = 1,
    *,
    tolerance: float = 0.05,
    max_depth: int = 20_000,
) -> ReportCard:
    """Report on any activation: what would a very deep and wide network with it be?

    The depth is where the NNGP vote of `n` evenly spread points is the limit's up to `tolerance`. Seen from one of
    them, the j-th nearest lies at distance `(j/n)^(1/dimension)`. Singular and nearest: what the kernel matrix has off
    its diagonal, `sum_j S_L(r_j)`, is below `tolerance` (and for the nearest, the share of all but the first neighbour
    in the vote too). Majority: the spread of the off-diagonal entries is, against what separates them from
    the diagonal.

    Args:
        activation: an `Activation`, or any function or module acting elementwise on tensors.
        n: number of training points, at least 2.
        dimension: their intrinsic dimension, at least 1.
        tolerance: in (0, 1).
        max_depth: layers after which to stop looking.

    Returns:
        The report, which prints as a table.

    Raises:
        ValueError: if an argument is out of its range, or the activation is constant, linear or jumps.

    Example:
        >>> from etude.theory import optimal_activation
        >>> report_card(optimal_activation(2), n=1000, dimension=2).regime
        'singular'
    """
    if n < 2 or dimension < 1 or max_depth < 1:
        raise ValueError(
            f"n, dimension and max_depth must be at least 2, 1 and 1; got {n!r}, {dimension!r} and {max_depth!r}"
        )
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie in (0, 1); got {tolerance!r}")
    if not isinstance(activation, Activation):
        activation = HermiteActivation.from_callable(activation)
    alpha, regime = activation.alpha, activation.regime()
    if regime != "singular":
        consistency = "not consistent where labels are noisy" if regime == "nearest" else "not consistent"
    elif abs(alpha - dimension) <= max(1e-6, 10 * activation.dual_error) * dimension:
        consistency = f"Bayes-consistent: alpha is the dimension, {dimension}"
    elif alpha < dimension:
        consistency = f"not consistent: alpha < {dimension}, far points outweigh the near ones"
    else:
        consistency = f"not consistent: alpha > {dimension}, the few nearest points decide"
    depth = None if regime == "ordered" else _depth_of_limit(activation, regime, n, dimension, tolerance, max_depth)
    return ReportCard(
        activation.name,
        activation.A,
        activation.B,
        activation.B_prime,
        alpha,
        regime,
        CLASSIFIERS[regime],
        consistency,
        n,
        dimension,
        depth,
        max_depth,
        activation.dual_error,
    )


def _depth_of_limit(
    activation: Activation, regime: Regime, n: int, dimension: int, tolerance: float, max_depth: int
) -> int | None:
    neighbours = np.unique(np.geomspace(1, n - 1, 200).round())
    counts = np.diff(neighbours, prepend=0.0)  # the j-th kept neighbour stands for those since the last kept one
    u = 0.5 * (neighbours / n) ** (2 / dimension)
    log_abs, sign = log_correlation(u)
    for depth in range(1, max_depth + 1):
        log_abs, sign = log_layer(log_abs, sign, activation)
        kernel = np.exp(log_abs)
        if regime == "majority":
            separation = -np.expm1(log_abs)
            spread = counts @ np.abs(separation / separation[-1] - 1)
            reached = spread < tolerance
        else:
            reached = counts @ kernel < tolerance
            if regime == "nearest":
                reached = reached and counts[1:] @ np.exp(log_abs[1:] - log_abs[0]) < tolerance
        if reached:
            return depth
    return None
