"""Kernels of infinitely wide networks at any depth, infinity included.

For points of the unit sphere and an activation with dual `k`, a network of infinite width with `L` hidden layers has

    NNGP  S_0 = x.z,  S_l = k(S_(l-1));        NTK  K_0 = S_0,  K_l = S_l + K_(l-1) k'(S_(l-1)).

If `A = 0` and `B != 0`, `S_L / B^(2L)` tends to `psi(x.z)`, the solution of Schroeder's equation
`psi(k(xi)) = B^2 psi(xi)`, `psi'(0) = 1` (Koenigs, 1884), which grows as `||x - z||^-alpha` near the diagonal. All
kernels are functions of `u = ||x - z||^2 / 2` alone: a table of one variable replaces the iteration of matrices.

Source: Radhakrishnan, Belkin and Uhler, PNAS 2023 (arXiv 2204.14126); Jacot, Gabriel and Hongler, NeurIPS 2018.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Real
from numpy.typing import ArrayLike
from scipy import interpolate, linalg

from etude.theory.dual_activation import Activation, Array

Kernel = Literal["nngp", "ntk"]

CLOSE = 1e-4
"""Below this `u` is computed from differences: `1 - x.z` would lose more than twelve digits."""
BLOCK = 2**17
"""Pairs handled at once unless told otherwise: what fits into a core's cache."""


def nngp(
    X: ArrayLike, Z: ArrayLike, activation: Activation, depth: int | Sequence[int], *, normalize: bool = False
) -> Float[np.ndarray, "*depths n m"]:
    """NNGP kernel `S_L(x, z)` by `L` applications of the dual activation.

    Args:
        X: points on the unit sphere, (n, d + 1).
        Z: points on the unit sphere, (m, d + 1).
        activation: the network's activation.
        depth: number of hidden layers `L`, at least 1, or an increasing sequence of such numbers.
        normalize: divide rows by their norm instead of refusing those off the sphere.

    Returns:
        (n, m), or (depths, n, m) for a sequence; float64. Entries keep their relative precision until they underflow
        (see `log_nngp`).

    Raises:
        ValueError: if `depth` is no whole number from 1 on, or a sequence of depths does not increase; if points are
            not finite, not on the sphere or of different dimension.
    """
    return _plain(X, Z, activation, depth, normalize, tangent=False)


def ntk(
    X: ArrayLike, Z: ArrayLike, activation: Activation, depth: int | Sequence[int], *, normalize: bool = False
) -> Float[np.ndarray, "*depths n m"]:
    """Neural tangent kernel `K_L(x, z)`, by recursion; its diagonal is `sum_l B'^l`, `l = 0..L`.

    Args:
        X: points on the unit sphere, (n, d + 1).
        Z: points on the unit sphere, (m, d + 1).
        activation: the network's activation.
        depth: number of hidden layers `L`, at least 1, or an increasing sequence of such numbers.
        normalize: divide rows by their norm instead of refusing those off the sphere.

    Returns:
        (n, m), or (depths, n, m) for a sequence; float64.

    Raises:
        ValueError: as `nngp`.
    """
    return _plain(X, Z, activation, depth, normalize, tangent=True)


def log_nngp(
    X: ArrayLike, Z: ArrayLike, activation: Activation, depth: int, *, normalize: bool = False
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m"]]:
    """Logarithm and sign of the NNGP kernel: it never underflows, as `numpy.linalg.slogdet` does not.

    Args:
        X: points on the unit sphere, (n, d + 1).
        Z: points on the unit sphere, (m, d + 1).
        activation: the network's activation.
        depth: number of hidden layers `L`, at least 1.
        normalize: divide rows by their norm instead of refusing those off the sphere.

    Returns:
        `ln|S_L|` and the sign of `S_L`, (n, m) each.

    Raises:
        ValueError: as `nngp`.
    """
    check_depth(depth)
    X, Z = on_sphere(X, "X", normalize), on_sphere(Z, "Z", normalize)
    log_abs, sign = np.empty((len(X), len(Z))), np.empty((len(X), len(Z)))
    for rows, u in gap_blocks(X, Z):
        log_abs[rows], sign[rows] = _deep_log(*log_correlation(u), activation, depth)
    return log_abs, sign


def limit_kernel(
    X: ArrayLike, Z: ArrayLike, activation: Activation, *, normalize: bool = False
) -> Float[np.ndarray, "n m"]:
    """Kernel of the infinitely deep network, `psi = lim S_L / B^(2L)`; infinite where points coincide.

    The tangent kernel has the same limit after division by `(L + 1) B^(2L)`, but at a distance `r` only once `L` is
    large against `r^-2`, where the NNGP needs about `ln r^-2` layers.

    Args:
        X: points on the unit sphere, (n, d + 1).
        Z: points on the unit sphere, (m, d + 1).
        activation: an activation in the singular regime.
        normalize: divide rows by their norm instead of refusing those off the sphere.

    Returns:
        (n, m), float64; `log_limit_kernel` has the same without overflow.

    Raises:
        ValueError: as `nngp`, and if the activation is not in the singular regime.
    """
    table = KernelTable(activation)
    X, Z = on_sphere(X, "X", normalize), on_sphere(Z, "Z", normalize)
    kernel = np.empty((len(X), len(Z)))
    for rows, u in gap_blocks(X, Z):
        log_abs, sign = table(u)
        kernel[rows] = sign * np.exp(log_abs)
    return kernel


def log_limit_kernel(
    X: ArrayLike, Z: ArrayLike, activation: Activation, *, normalize: bool = False
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m"]]:
    """Logarithm and sign of `limit_kernel`, same arguments and errors; (n, m) each."""
    table = KernelTable(activation)
    X, Z = on_sphere(X, "X", normalize), on_sphere(Z, "Z", normalize)
    log_abs, sign = np.empty((len(X), len(Z))), np.empty((len(X), len(Z)))
    for rows, u in gap_blocks(X, Z):
        log_abs[rows], sign[rows] = table(u)
    return log_abs, sign


class KernelTable:
    """A deep kernel as a function of `u = ||x - z||^2 / 2`: the cost of a pair does not depend on the depth.

    The logarithm of the kernel is tabulated against `t = ln(u / (1 - u))`, where it is nearly linear at both ends, and
    interpolated by a cubic spline (relative error about 1e-9). Pairs with `x.z <= 0` are iterated one by one.

    Args:
        activation: the network's activation; in the singular regime if `depth` is infinite.
        depth: number of hidden layers, or `math.inf` for `psi = lim S_L / B^(2L)`.
        kernel: `"nngp"` or `"ntk"`; of infinite depth both are the same.

    Raises:
        ValueError: if `depth` or `kernel` is something else, or the activation has no singular limit.
    """

    _START, _STOP, _POINTS = -80.0, 40.0, 8001

    def __init__(self, activation: Activation, depth: float = math.inf, kernel: Kernel = "nngp") -> None:
        if kernel not in ("nngp", "ntk"):
            raise ValueError(f"kernel must be 'nngp' or 'ntk'; got {kernel!r}")
        if depth != math.inf:
            check_depth(depth)
        elif activation.regime() != "singular":
            raise ValueError(
                f"activation must have A = 0 and B != 0 for a singular limit; {activation.name} has A = "
                f"{activation.A:.4g}, B = {activation.B:.4g} ({activation.regime()} regime)"
            )
        self.activation, self.depth, self.kernel = activation, depth, kernel
        t = np.linspace(self._START, self._STOP, self._POINTS)
        values, _ = self._iterate(-np.logaddexp(0.0, t), np.ones_like(t))
        self._spline = np.ascontiguousarray(interpolate.CubicSpline(t, values).c[::-1])
        self._step = t[1] - t[0]
        self._slopes = (values[1] - values[0]) / self._step, (values[-1] - values[-2]) / self._step
        diagonal = self._iterate(np.zeros(1), np.ones(1))[0][0] if depth != math.inf else math.inf
        self.log_diagonal = float(diagonal)
        """`ln` of the kernel of a point with itself: 0 for the NNGP, `ln sum_l B'^l` for the NTK, infinite for psi."""

    def __call__(
        self, u: Float[np.ndarray, "*pairs"]
    ) -> tuple[Float[np.ndarray, "*pairs"], Float[np.ndarray, "*pairs"]]:
        """`ln|kernel|` and the kernel's sign at gaps `u` in [0, 2], of any shape."""
        inside = (u > 0.0) & (u < 1.0)
        if inside.all():
            return self._interpolate(u), np.ones_like(u)
        log_abs, sign = np.empty_like(u), np.ones_like(u)
        log_abs[inside] = self._interpolate(u[inside])
        log_abs[u == 0.0] = self.log_diagonal
        far = u >= 1.0
        log_abs[far], sign[far] = self._iterate(*log_correlation(u[far]))
        return log_abs, sign

    def _iterate(self, log_abs: Array, sign: Array) -> tuple[Array, Array]:
        if self.depth == math.inf:
            return _koenigs(log_abs, sign, self.activation)
        return _deep_log(log_abs, sign, self.activation, int(self.depth), tangent=self.kernel == "ntk")

    def _interpolate(self, u: Array) -> Array:
        t = np.log(u) - np.log1p(-u)
        position = (t - self._START) / self._step
        index = np.clip(position, 0, self._POINTS - 2).astype(np.intp)
        x = np.clip(position - index, 0.0, 1.0) * self._step
        c0, c1, c2, c3 = self._spline
        value = c3[index]
        for c in (c2, c1, c0):
            value *= x
            value += c[index]
        outside = (t < self._START) | (t > self._STOP)
        if outside.any():  # points closer than float64 has digits near one; the logarithm is linear there
            value[outside] += np.where(
                t[outside] < self._START,
                self._slopes[0] * (t[outside] - self._START),
                self._slopes[1] * (t[outside] - self._STOP),
            )
        return value


def ridgeless(
    K: Float[np.ndarray, "n n"], targets: Real[np.ndarray, " n *outputs"]
) -> Float[np.ndarray, " n *outputs"]:
    """Coefficients of the interpolant of least norm, `K^+ y`: what gradient flow from zero tends to.

    Args:
        K: symmetric positive semi-definite kernel matrix, (n, n).
        targets: (n,) or (n, outputs).

    Returns:
        Coefficients of the shape of `targets`; by Cholesky factors where `K` is well conditioned, else from the
        eigenvectors whose eigenvalues exceed `n` times the float64 resolution of the largest.
    """
    n = len(K)
    try:
        factor = linalg.cholesky(K, lower=True)
        reciprocal_condition = linalg.lapack.dpocon(factor, linalg.norm(K, 1), uplo="L")[0]
        if reciprocal_condition > n * np.finfo(float).eps:
            return linalg.cho_solve((factor, True), targets)
    except linalg.LinAlgError:
        pass
    values, vectors = linalg.eigh(K)
    kept = values > n * np.finfo(float).eps * values[-1]
    return vectors[:, kept] @ ((vectors[:, kept].T @ targets).T / values[kept]).T


def on_sphere(X: ArrayLike, name: str, normalize: bool = False) -> Float[np.ndarray, "n features"]:
    """Rows as float64 points of the unit sphere.

    Args:
        X: array, tensor or nested sequence, (n, d + 1).
        name: what to call it in an error.
        normalize: divide rows by their norm; otherwise norms may differ from one by 1e-6.

    Raises:
        ValueError: if it is not two-dimensional with at least one row and two columns, not finite, has a row of norm
            zero, or one off the sphere without `normalize`.
    """
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu().numpy()
    points = np.asarray(X, dtype=np.float64)
    if points.ndim != 2 or len(points) == 0:
        raise ValueError(f"{name} must have shape (samples, features) and at least one sample; got {points.shape}")
    if points.shape[1] < 2:
        raise ValueError(
            f"{name} must have at least 2 features: points on a sphere; got n_features = {points.shape[1]}"
        )
    if not np.isfinite(points).all():
        raise ValueError(f"{name} must be finite; row {np.flatnonzero(~np.isfinite(points).all(axis=1))[0]} is not")
    largest = np.abs(points).max(axis=1)
    if not largest.all():
        raise ValueError(f"{name} must have no row of norm zero; row {np.argmin(largest)} is zero")
    scaled = points / largest[:, None]  # squares of huge or tiny entries neither overflow nor vanish
    norms = np.linalg.norm(scaled, axis=1)
    off = np.abs(norms * largest - 1.0)
    if not normalize and off.max() > 1e-6:
        worst = int(off.argmax())
        raise ValueError(
            f"{name} must lie on the unit sphere: row {worst} has norm {norms[worst] * largest[worst]:.6g}. "
            "Pass normalize=True to divide rows by their norm"
        )
    return scaled / norms[:, None] + 0.0  # + 0.0 makes -0.0 equal to 0.0


def gap_blocks(
    X: Float[np.ndarray, "n features"], Z: Float[np.ndarray, "m features"], chunk_size: int | None = None
) -> Iterator[tuple[slice, Float[np.ndarray, "rows m"]]]:
    """`u = ||x - z||^2 / 2` for blocks of rows of `X` against all of `Z`, exact for near pairs.

    Args:
        X: points on the unit sphere, (n, d + 1).
        Z: points on the unit sphere, (m, d + 1).
        chunk_size: rows a block; by default as many as make about 130,000 pairs.

    Yields:
        the rows and their gaps (rows, m) in [0, 2].

    Raises:
        ValueError: if the dimensions differ.
    """
    if X.shape[1] != Z.shape[1]:
        raise ValueError(f"X and Z must have the same number of features; got {X.shape[1]} and {Z.shape[1]}")
    rows = chunk_size or max(1, BLOCK // len(Z))
    for start in range(0, len(X), rows):
        block = slice(start, min(start + rows, len(X)))
        u = X[block] @ Z.T
        np.subtract(1.0, u, out=u)
        np.clip(u, 0.0, 2.0, out=u)
        close = np.flatnonzero(u < CLOSE)
        for part in np.array_split(close, max(1, len(close) * X.shape[1] // 2**20)):
            i, j = np.divmod(part, len(Z))
            u.flat[part] = 0.5 * np.square(X[block][i] - Z[j]).sum(axis=1)
        yield block, u


def check_depth(depth: Any) -> None:
    """Refuse what is no whole number of layers from 1 on."""
    if isinstance(depth, bool) or not isinstance(depth, (int, np.integer)) or depth < 1:
        raise ValueError(f"depth must be a whole number, at least 1; got {depth!r}")


def _plain(
    X: ArrayLike, Z: ArrayLike, activation: Activation, depth: int | Sequence[int], normalize: bool, *, tangent: bool
) -> Array:
    """The recursion as it stands in the module's docstring, block by block."""
    depths = list(depth) if isinstance(depth, Sequence) else [depth]
    for layers in depths:
        check_depth(layers)
    if not depths or any(b <= a for a, b in itertools.pairwise(depths)):
        raise ValueError(f"depth must be increasing numbers of layers; got {depths!r}")
    X, Z = on_sphere(X, "X", normalize), on_sphere(Z, "Z", normalize)
    kernels = np.empty((len(depths), len(X), len(Z)))
    for rows, u in gap_blocks(X, Z):
        xi = 1.0 - u
        tangents = xi.copy()
        place = 0
        for layer in range(1, depths[-1] + 1):
            if tangent:
                tangents *= activation.derivative_at_gap(u)
            xi, u = _layer(xi, u, activation)
            if tangent:
                tangents += xi
            if layer == depths[place]:
                kernels[place, rows] = tangents if tangent else xi
                place += 1
    return kernels if isinstance(depth, Sequence) else kernels[0]


def _layer(xi: Array, u: Array, activation: Activation) -> tuple[Array, Array]:
    """`(k(xi), 1 - k(xi))`, each from whichever of `xi` and `u = 1 - xi` has all its digits."""
    near = u < 0.5
    if near.all():
        u = activation.gap(u)
        return 1.0 - u, u
    if not near.any():
        xi = activation.dual(xi)
        return xi, 1.0 - xi
    new_xi, new_u = np.empty_like(xi), np.empty_like(u)
    new_u[near] = activation.gap(u[near])
    new_xi[near] = 1.0 - new_u[near]
    new_xi[~near] = activation.dual(xi[~near])
    new_u[~near] = 1.0 - new_xi[~near]
    return new_xi, new_u


def log_correlation(u: Array) -> tuple[Array, Array]:
    """`ln|xi|` and the sign of `xi = 1 - u`."""
    with np.errstate(divide="ignore"):
        return np.where(u < 1.0, np.log1p(-np.minimum(u, 1.0)), np.log(np.maximum(u - 1.0, 0.0))), np.sign(1.0 - u)


def log_layer(log_abs: Array, sign: Array, activation: Activation) -> tuple[Array, Array]:
    """`ln|k(xi)|` and the sign of `k(xi)` from those of `xi`."""
    near = (log_abs > -math.log(2)) & (sign > 0)
    new_log, new_sign = np.empty_like(log_abs), np.ones_like(sign)
    new_log[near] = np.log1p(-activation.gap(-np.expm1(log_abs[near])))
    far = ~near
    reduced = activation.reduced(sign[far] * np.exp(log_abs[far]))
    with np.errstate(divide="ignore"):
        new_log[far] = np.log(np.abs(reduced))
    if activation.order:
        new_log[far] += activation.order * log_abs[far]
    new_sign[far] = np.sign(reduced) * sign[far] ** activation.order
    return new_log, new_sign


def _deep_log(
    log_abs: Array, sign: Array, activation: Activation, depth: int, *, tangent: bool = False
) -> tuple[Array, Array]:
    """`depth` layers in the log domain, for the NNGP or the NTK.

    The ratio `q_l = K_l / S_l` of the tangent kernel to the NNGP obeys `q_l = 1 + q_(l-1) e(S_(l-1))`, with `e` the
    elasticity of the dual, which neither underflows nor vanishes with `S`.
    """
    log_ratio, ratio_sign = np.zeros_like(log_abs), np.ones_like(sign)
    for _ in range(depth):
        if tangent:
            xi = sign * np.exp(log_abs)
            u = np.where(xi > 0, -np.expm1(log_abs), 1.0 - xi)
            near = u < 0.5
            elasticity = np.empty_like(xi)
            elasticity[near] = xi[near] * activation.derivative_at_gap(u[near]) / (1 - activation.gap(u[near]))
            elasticity[~near] = activation.elasticity(xi[~near])
            with np.errstate(divide="ignore"):
                log_product = log_ratio + np.log(np.abs(elasticity))
            log_ratio, ratio_sign = _log_one_plus(log_product, ratio_sign * np.sign(elasticity))
        log_abs, sign = log_layer(log_abs, sign, activation)
    return log_abs + log_ratio, sign * ratio_sign


def _log_one_plus(log_abs: Array, sign: Array) -> tuple[Array, Array]:
    """`ln|1 + s e^l|` and its sign."""
    same = np.logaddexp(0.0, log_abs)
    with np.errstate(divide="ignore"):
        opposite = np.maximum(log_abs, 0.0) + np.log(-np.expm1(-np.abs(log_abs)))
    return np.where(sign < 0, opposite, same), np.where((sign < 0) & (log_abs > 0), -1.0, 1.0)


def _koenigs(log_abs: Array, sign: Array, activation: Activation) -> tuple[Array, Array]:
    """`ln|psi|` and the sign of psi, as the limit of `ln|S_L| - L ln B^2`; converged to rounding."""
    log_slope = 2 * math.log(abs(activation.B))
    for layer in range(200_000):
        # Once k(xi) / xi is B^2 to the last digit, further layers change nothing.
        if np.all(np.abs(activation.reduced(sign * np.exp(log_abs)) / activation.B**2 - 1) < 1e-15):
            return log_abs - layer * log_slope, sign
        log_abs, sign = log_layer(log_abs, sign, activation)
    raise ValueError(f"{activation.name} is so nearly linear that 200,000 layers do not reach its limit")
