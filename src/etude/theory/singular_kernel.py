"""The classifier an infinitely wide and deep network becomes: a vote weighted by a singular kernel.

Source: Radhakrishnan, Belkin and Uhler, PNAS 2023 (arXiv 2204.14126); Devroye, Gyorfi and Krzyzak, J. Multivariate
Analysis 1998 (the Hilbert kernel estimate); Belkin, Rakhlin and Tsybakov, AISTATS 2019 (truncation); Facco, d'Errico,
Rodriguez and Laio, Scientific Reports 2017 (intrinsic dimension).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Real
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from etude.theory.dual_activation import Activation, Array, optimal_activation
from etude.theory.ntk import Kernel, KernelTable, check_depth, gap_blocks, on_sphere, ridgeless


class SingularKernelClassifier(ClassifierMixin, BaseEstimator):
    """The infinitely wide network of given activation and depth, trained to interpolate its labels.

    Of infinite depth and for an activation in the singular regime, it predicts the class with the largest vote
    `sum_i psi(||x - x_i||) 1[y_i = class]` with `psi(r) = R(r) / r^alpha`. If `alpha` is the dimension of the data, its
    error tends to the Bayes error with the number of samples, without a parameter to tune. (Activations of the other
    regimes become the majority vote and the nearest neighbour.) Of finite depth, it is ridgeless kernel regression on
    one-hot labels.

    Points live on the unit sphere. Repeated points with one label count once; a point of the training set gets its own
    label. Everything is computed in the log domain, so no depth underflows, in memory O(chunk_size x n).

    Args:
        alpha: singular exponent of the default activation: positive, or `"auto"` for the intrinsic dimension of the
            training points, rounded to a whole number.
        activation: the network's activation; `optimal_activation(alpha)` by default.
        depth: number of hidden layers, or `math.inf`. Finite depth holds the n x n kernel matrix in memory.
        kernel: `"nngp"` (only the last layer learns) or `"ntk"` (all layers do); of infinite depth both are the same.
        radius: of infinite depth in the singular regime: only training points within this distance vote (a point with
            none takes the nearest). With `alpha` below half the dimension such votes reach minimax rates.
        normalize: divide rows by their norm instead of refusing those off the sphere.
        chunk_size: rows predicted at once; by default as many as make about 130,000 pairs.

    Attributes:
        classes_: labels, sorted.
        n_features_in_: columns of `X`.
        activation_: the activation used.
        alpha_: its exponent.
        points_: distinct training points on the sphere.

    Raises:
        ValueError: on `fit`, for a parameter out of its range; rows off the sphere; data not finite; fewer than two
            classes; or two identical training points with different labels, where the vote is undefined.

    Example:
        >>> import numpy as np
        >>> angle = np.linspace(0, np.pi / 2, 50)
        >>> X, y = np.column_stack([np.cos(angle), np.sin(angle)]), angle > 0.5
        >>> model = SingularKernelClassifier().fit(X[::2], y[::2])
        >>> model.alpha_, model.score(X[1::2], y[1::2]) > 0.9
        (1.0, True)
    """

    def __init__(
        self,
        alpha: float | Literal["auto"] = "auto",
        activation: Activation | None = None,
        depth: float = math.inf,
        kernel: Kernel = "nngp",
        radius: float | None = None,
        normalize: bool = False,
        chunk_size: int | None = None,
    ) -> None:
        self.alpha = alpha
        self.activation = activation
        self.depth = depth
        self.kernel = kernel
        self.radius = radius
        self.normalize = normalize
        self.chunk_size = chunk_size

    def fit(self, X: ArrayLike, y: ArrayLike) -> SingularKernelClassifier:
        """Store the distinct points and, for finite depth, solve for their coefficients.

        Args:
            X: points, (n, d + 1).
            y: labels of any sortable kind, (n,).

        Returns:
            itself.
        """
        self._check_parameters()
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must have at least two classes; got one class: {self.classes_[0]!r}")
        points = on_sphere(X, "X", self.normalize)
        self.points_, first, inverse = np.unique(points, axis=0, return_index=True, return_inverse=True)
        inverse = inverse.reshape(-1)
        conflicts = np.flatnonzero(labels != labels[first][inverse])
        if conflicts.size:
            i, j = sorted((int(first[inverse[conflicts[0]]]), int(conflicts[0])))
            names = self.classes_[labels[[i, j]]].tolist()
            raise ValueError(
                f"X must have no identical points with different labels, where the vote is undefined: rows {i} and {j} "
                f"are the same point, labelled {names[0]!r} and {names[1]!r}"
            )
        if self.activation is None:
            self.activation_: Activation = optimal_activation(self._exponent(self.points_))
        else:
            self.activation_ = self.activation
        self.alpha_ = round(self.activation_.alpha, 12)
        regime = self.activation_.regime()
        if self.depth == math.inf and regime == "ordered":
            raise ValueError(
                f"depth must be finite for {self.activation_.name}: with A != 0 and B' < 1 the limit is not a vote"
            )
        if self.radius is not None and (self.depth != math.inf or regime != "singular"):
            raise ValueError("radius must be None unless depth is infinite and the activation's regime is singular")
        self._votes: Array = np.where(labels[first][:, None] == np.arange(len(self.classes_)), 1.0, -1.0)
        self._table = None
        if self.depth != math.inf:
            self._table = KernelTable(self.activation_, self.depth, self.kernel)
            self._votes = ridgeless(self._training_kernel(), self._votes)
        elif regime == "singular":
            self._table = KernelTable(self.activation_)
        return self

    def decision_function(self, X: ArrayLike) -> Float[np.ndarray, " m *classes"]:
        """Votes, as shares of all weight.

        Args:
            X: points, (m, d + 1).

        Returns:
            Binary: (m,), positive for `classes_[1]`; otherwise (m, classes), the largest is predicted. Values lie in
            [-1, 1] for infinite depth; for finite depth they are the network's outputs up to a factor a row.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        scores = np.empty((len(X), len(self.classes_)))
        for rows, weights in self._weights(on_sphere(X, "X", self.normalize)):
            scores[rows] = weights @ self._votes / np.abs(weights).sum(axis=1, keepdims=True)
        return scores[:, 1] if len(self.classes_) == 2 else scores

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Most voted class.

        Args:
            X: points, (m, d + 1).

        Returns:
            (m,), of the labels' type.
        """
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)]

    def _weights(self, X: Array) -> Iterator[tuple[slice, Array]]:
        """Kernel of blocks of rows against the training points, each row divided by its largest entry."""
        for rows, u in gap_blocks(X, self.points_, self.chunk_size):
            if self._table is not None:
                log_abs, sign = self._table(u)
                if self.radius is not None:
                    log_abs[(u > self.radius**2 / 2) & (u > u.min(axis=1, keepdims=True))] = -np.inf
                top = log_abs.max(axis=1, keepdims=True)
                # Where the top is infinite the point is a training point, which alone decides.
                log_abs -= np.where(np.isfinite(top), top, 0.0)
                yield rows, np.where(top == np.inf, log_abs == np.inf, sign * np.exp(np.minimum(log_abs, 0.0)))
            elif self.activation_.regime() == "nearest":
                yield rows, (u == u.min(axis=1, keepdims=True)).astype(np.float64)
            else:  # majority, but for training points
                known = (u == 0.0).any(axis=1, keepdims=True)
                yield rows, np.where(known, u == 0.0, 1.0)

    def _training_kernel(self) -> Array:
        assert self._table is not None
        kernel = np.empty((len(self.points_), len(self.points_)))
        for rows, u in gap_blocks(self.points_, self.points_, self.chunk_size):
            log_abs, sign = self._table(u)
            kernel[rows] = sign * np.exp(log_abs - self._table.log_diagonal)
        np.fill_diagonal(kernel, 1.0)
        return kernel

    def _exponent(self, points: Array) -> float:
        if self.alpha == "auto":
            return float(min(max(1, round(intrinsic_dimension(points))), points.shape[1] - 1))
        return float(self.alpha)

    def _check_parameters(self) -> None:
        if isinstance(self.alpha, str):
            if self.alpha != "auto":
                raise ValueError(f"alpha must be 'auto' or a positive number; got {self.alpha!r}")
        elif not _positive(self.alpha):
            raise ValueError(f"alpha must be 'auto' or a positive number; got {self.alpha!r}")
        elif self.activation is not None:
            raise ValueError("alpha must stay 'auto' where activation is given: an activation has its own exponent")
        if self.activation is not None and not isinstance(self.activation, Activation):
            raise ValueError(
                f"activation must be an Activation or None; got {type(self.activation).__name__}. "
                "HermiteActivation.from_callable makes one of any function"
            )
        if self.depth != math.inf:
            check_depth(self.depth)
        if self.kernel not in ("nngp", "ntk"):
            raise ValueError(f"kernel must be 'nngp' or 'ntk'; got {self.kernel!r}")
        if self.radius is not None and not _positive(self.radius):
            raise ValueError(f"radius must be None or a positive number; got {self.radius!r}")
        if self.chunk_size is not None and not (isinstance(self.chunk_size, (int, np.integer)) and self.chunk_size > 0):
            raise ValueError(f"chunk_size must be None or a positive whole number; got {self.chunk_size!r}")


def intrinsic_dimension(X: ArrayLike, *, discard: float = 0.1) -> float:
    """Dimension of the set the points were drawn from, by two nearest neighbours.

    The ratio `mu` of the distances to the second and the first neighbour has the distribution `1 - mu^-d` wherever
    the density is locally constant; `d` is the slope of `-ln(1 - F(mu))` against `ln mu` through the origin.

    Args:
        X: points, (n, features), anywhere; repeated points count once.
        discard: share of the largest ratios left out of the fit, in [0, 1).

    Returns:
        The dimension, a positive number.

    Raises:
        ValueError: if `discard` is out of range, `X` is not finite or has fewer than 3 distinct rows, or if all
            neighbours are equally far, as on a grid.
    """
    if not 0.0 <= discard < 1.0:
        raise ValueError(f"discard must lie in [0, 1); got {discard!r}")
    points = np.asarray(X, dtype=np.float64)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ValueError(f"X must be a finite array of shape (samples, features); got shape {points.shape}")
    points = np.unique(points, axis=0)
    n = len(points)
    if n < 3:
        raise ValueError(f"X must have at least 3 distinct points to estimate a dimension (or give alpha); got {n}")
    distances, _ = NearestNeighbors(n_neighbors=3).fit(points).kneighbors()
    with np.errstate(divide="ignore"):  # neighbours nearer than float64's root of the smallest number
        ratios = np.sort(np.log(distances[:, 1]) - np.log(distances[:, 0]))
    ratios = ratios[np.isfinite(ratios)]
    kept = ratios[: max(1, math.ceil(len(ratios) * (1 - discard)))]
    if kept.size == 0 or kept[-1] <= 0.0:
        raise ValueError("X has every first and second neighbour equally far, as on a grid: give alpha")
    exceedance = -np.log1p(-np.arange(1, len(kept) + 1) / (len(ratios) + 1))
    return float(kept @ exceedance / (kept @ kept))


def _positive(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value) and value > 0
