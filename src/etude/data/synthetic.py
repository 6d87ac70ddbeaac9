"""Generated classification tasks whose best possible rule is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import special


@dataclass(frozen=True)
class Sample:
    """Points of a two-class task.

    Attributes:
        points: on the unit sphere, (n, d + 1), non-negative.
        labels: -1 or +1, (n,).
        bayes: the label of the larger posterior, -1 or +1, (n,).
    """

    points: Float[np.ndarray, "n coordinates"]
    labels: Int[np.ndarray, " n"]
    bayes: Int[np.ndarray, " n"]


def dirichlet_task(
    n: int, positive: Sequence[float], negative: Sequence[float], generator: np.random.Generator, *, prior: float = 0.4
) -> Sample:
    """Two Dirichlet distributions, projected from the simplex to the sphere.

    The projection is one-to-one, so its Jacobian cancels in the posterior: a point is positive under the Bayes rule
    if `prior Dir(p; positive) > (1 - prior) Dir(p; negative)` at its point `p` of the simplex.

    Args:
        n: number of points, at least 1.
        positive: concentrations of class +1, two or more, all positive.
        negative: concentrations of class -1, as many.
        generator: draws labels and points.
        prior: probability of class +1, in (0, 1).

    Returns:
        `n` points.

    Raises:
        ValueError: if an argument is out of its range or the concentrations differ in number.

    Source: Radhakrishnan, Belkin and Uhler (arXiv 2204.14126), whose tasks these are.
    """
    a, b = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2 or not (np.isfinite([a, b]).all() and min(a.min(), b.min()) > 0):
        raise ValueError(f"positive and negative must be equally many (2 or more) positive numbers; got {a} and {b}")
    _check_sample(n, "prior", prior)
    labels = np.where(generator.random(n) < prior, 1, -1)
    simplex = np.where(labels[:, None] > 0, generator.dirichlet(a, n), generator.dirichlet(b, n))
    log_ratio = (
        np.log(prior / (1 - prior))
        + special.gammaln(a.sum()) - special.gammaln(a).sum()
        - special.gammaln(b.sum()) + special.gammaln(b).sum()
        + special.xlogy(a - b, simplex).sum(axis=1)
    )  # fmt: skip
    return Sample(simplex / np.linalg.norm(simplex, axis=1, keepdims=True), labels, np.where(log_ratio > 0, 1, -1))


def minority_arc(n: int, generator: np.random.Generator, *, share: float = 0.1, noise: float = 0.15) -> Sample:
    """A quarter circle whose middle carries the rare label, with some labels flipped.

    Angles are uniform on [0, pi/2]; the Bayes label is +1 on the middle `share` of them; a label is the Bayes label,
    flipped with probability `noise`.

    Args:
        n: number of points, at least 1.
        generator: draws angles and flips.
        share: share of the arc with label +1, in (0, 1).
        noise: probability of a flip, in (0, 1/2).

    Returns:
        `n` points of the plane's unit circle.

    Raises:
        ValueError: if an argument is out of its range.
    """
    _check_sample(n, "share", share)
    if not 0 < noise < 0.5:
        raise ValueError(f"noise must lie in (0, 1/2), or the labels tell nothing; got {noise!r}")
    position = generator.random(n)
    bayes = np.where(np.abs(position - 0.5) < share / 2, 1, -1)
    angle = 0.5 * np.pi * position
    flipped = generator.random(n) < noise
    return Sample(np.column_stack([np.cos(angle), np.sin(angle)]), np.where(flipped, -bayes, bayes), bayes)


def _check_sample(n: int, name: str, value: float) -> None:
    if n < 1:
        raise ValueError(f"n must be at least 1; got {n!r}")
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie in (0, 1); got {value!r}")
