"""The kernel of an infinitely deep network at n = 4,000, beside iterating the matrix and scikit-learn's neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.measuring import Row, alone, medians
from etude.theory import SingularKernelClassifier, limit_kernel, optimal_activation

DIMENSION, DEPTH = 2, 100
Array = NDArray[np.float64]


def points(n: int, seed: int) -> tuple[Array, NDArray[np.int64]]:
    """Points of the sphere with non-negative coordinates, and noisy labels."""
    random = np.random.default_rng(seed)
    X = np.abs(random.standard_normal((n, DIMENSION + 1)))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X, (X[:, 0] + 0.3 * random.standard_normal(n) > X[:, 1]).astype(np.int64)


def limit(n: int) -> Array:
    X, _ = points(n, 0)
    return limit_kernel(X, X, optimal_activation(DIMENSION))


def iterated(n: int) -> Array:
    """The recursion as it is written: the whole matrix, layer by layer, in place."""
    X, _ = points(n, 0)
    kernel = np.clip(X @ X.T, -1, 1)
    q = 2 ** (-DIMENSION / 2)
    for _ in range(DEPTH):
        kernel *= q + kernel * (1 - 2 * q + q * kernel)
    return kernel / q**DEPTH


def vote(n: int) -> int:
    (X, y), (Z, _) = points(n, 0), points(n, 1)
    return int(SingularKernelClassifier(alpha=DIMENSION).fit(X, y).predict(Z).sum())


def neighbours(n: int) -> int:
    """The vote weighted by 1 / r^2 of all points, as scikit-learn does it."""
    (X, y), (Z, _) = points(n, 0), points(n, 1)
    everyone = KNeighborsClassifier(n, weights=lambda r: r**-DIMENSION, algorithm="brute")
    return int(everyone.fit(X, y).predict(Z).sum())


def run(quick: bool) -> list[Row]:
    apart = ~np.eye(200, dtype=bool)
    if not np.allclose(iterated(200)[apart], limit(200)[apart], rtol=1e-6):
        raise RuntimeError("the tabulated limit and the iterated kernel differ")
    n, repetitions = (500, 3) if quick else (4000, 9)
    kernel = medians({"ours": lambda: limit(n), "peer": lambda: iterated(n)}, repetitions)
    voting = medians({"ours": lambda: vote(n), "peer": lambda: neighbours(n)}, repetitions)
    memory = {
        side.__name__: alone(f"{__name__}:{side.__name__}", n).megabytes for side in (limit, iterated, vote, neighbours)
    }
    return [
        Row(f"kernel, n = {n:,}: infinite depth / depth {DEPTH} iterated", kernel["ours"], kernel["peer"], aim="< 1"),
        Row("the same, peak memory", memory["limit"], memory["iterated"], "MB", aim="< 1"),
        Row(f"vote, n = {n:,}: ours / scikit-learn, 1/r^2 weights", voting["ours"], voting["peer"], aim="< 1"),
        Row("the same, peak memory", memory["vote"], memory["neighbours"], "MB", aim="< 1"),
    ]
