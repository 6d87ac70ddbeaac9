"""How alike two networks represent the same inputs, and how alike they err.

All measures depend on the data through similarities between samples, so the two sides may have any shapes after the
first axis, which is the sample. All are functions of tensors that gradients flow through, on any device; half
precision is computed in single precision, also under autocast.

The biased CKA of finite samples is far above 0 for unrelated features: of n samples of d independent Gaussians it is
about d / (d + n), 0.8 for 256 samples of 1,024 features. So its values are comparable only at equal n and d. The
debiased one is 0 on average there.

Source: Kornblith, Norouzi, Lee and Hinton, Similarity of Neural Network Representations Revisited, ICML 2019 (arXiv
1905.00414), section 3; Song, Smola, Gretton, Bedo and Borgwardt, Feature Selection via Dependence Maximization, JMLR
13 (2012), theorem 5 (the unbiased HSIC); Nguyen, Raghu and Kornblith, ICLR 2021 (arXiv 2010.15327), section 3 (its use
in CKA).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Shaped
from scipy.linalg import blas
from torch import Tensor

__all__ = ["cka_from_grams", "cka_matrix", "cka_pairs", "error_consistency", "gram", "linear_cka", "rsa"]


def linear_cka(
    x: Float[Tensor, "n ..."],
    y: Float[Tensor, "n ..."],
    *,
    debiased: bool = False,
    form: Literal["auto", "gram", "features"] = "auto",
) -> Float[Tensor, ""]:
    """Linear centred kernel alignment: HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), K = X X^T, L = Y Y^T.

    Biased, HSIC(K, L) is the sum of the products of the centred matrices' entries, which is ||X_c^T Y_c||^2. Debiased,
    with the diagonals left out of K and L as K' and L',

        HSIC(K, L) = [tr(K' L') + (1'K'1)(1'L'1) / ((n-1)(n-2)) - 2 (1'K'L'1) / (n-2)] / (n (n-3)).

    Args:
        x: activations of n samples, axes after the first flattened.
        y: activations of the same samples; as many features or not.
        debiased: the unbiased estimates of HSIC. The value then may be slightly negative.
        form: ``"gram"`` costs n^2 (d1 + d2) multiplications, ``"features"`` n (d1 d2 + d1^2 + d2^2); they give the
            same value, and ``"auto"`` takes the cheaper.

    Returns:
        A number from 0 to 1, or, debiased, from -1 to 1: the estimate of HSIC(K, L) may be negative, those of
        HSIC(K, K) and HSIC(L, L) are sums of squares and have a root (Szekely and Rizzo, Annals of Statistics 42,
        2014, section 2). Where one of these is zero to rounding there is nothing to align, as `x` or `y` is the same
        for all samples (or, debiased, all samples are equally far apart), and the value is 0 with zero gradient. NaN
        for activations that are not finite.

    Raises:
        ValueError: different numbers of samples, fewer than 2 (debiased: 4), no features, or another `form`.
        TypeError: `x` or `y` is no tensor of floating point numbers.
    """
    if form not in ("auto", "gram", "features"):
        raise ValueError(f"form={form!r}: give 'auto', 'gram' or 'features'")
    rows = _alike(_rows("x", x), _rows("y", y))
    _check_samples({"x": rows[0], "y": rows[1]}, debiased)
    by_gram = form == "gram" or (form == "auto" and _gram_is_cheaper([rows[0]], [rows[1]]))
    return _of_sides(*(_side(row, by_gram) for row in rows), debiased)


def cka_matrix(
    xs: Sequence[Float[Tensor, "n ..."]],
    ys: Sequence[Float[Tensor, "n ..."]] | None = None,
    *,
    debiased: bool = False,
) -> Float[Tensor, "{len(xs)} columns"]:
    """`linear_cka` of every activation in one list with every one in another.

    Args:
        xs: activations of the same n samples, (n, ...) each, such as those of a network's layers.
        ys: the other list; None for `xs` again.
        debiased: as for `linear_cka`.

    Returns:
        Entry i, j belongs to ``xs[i]`` and ``ys[j]``.

    Raises:
        TypeError, ValueError: as for `cka_pairs`.
    """
    columns = xs if ys is None else ys
    pairs = [(i, j) for i in range(len(xs)) for j in range(len(columns))]
    return cka_pairs(xs, ys, pairs, debiased=debiased).reshape(len(xs), -1)


def cka_pairs(
    xs: Sequence[Float[Tensor, "n ..."]],
    ys: Sequence[Float[Tensor, "n ..."]] | None,
    pairs: Sequence[tuple[int, int]],
    *,
    debiased: bool = False,
    grams: bool = False,
) -> Float[Tensor, " {len(pairs)}"]:
    """`linear_cka` of chosen pairs from two lists; what depends on one activation alone is computed once.

    Args:
        xs: activations of the same n samples, (n, ...) each.
        ys: the other list; None for `xs` again.
        pairs: places (i, j) in the two lists.
        debiased: as for `linear_cka`.
        grams: `ys` are Gram matrices (n, n), as for `cka_from_grams`, not activations.

    Returns:
        One number a pair.

    Raises:
        ValueError: an empty list, or activations that `linear_cka` refuses, named by their place.
        TypeError: as for `linear_cka`.
    """
    lists = {"xs": xs} if ys is None else {"xs": xs, "ys": ys}
    for name, given in {**lists, "pairs": pairs}.items():
        if not given:
            raise ValueError(f"{name}: the list is empty; give at least one")
    if grams:
        for j, matrix in enumerate(ys or ()):
            _check_square(f"ys[{j}]", matrix)
    rows = {name: [_rows(f"{name}[{i}]", x) for i, x in enumerate(values)] for name, values in lists.items()}
    _check_samples({f"{name}[{i}]": x for name, values in rows.items() for i, x in enumerate(values)}, debiased)
    by_gram = grams or _gram_is_cheaper(rows["xs"], rows.get("ys", rows["xs"]))
    alike = iter(_alike(*(x for values in rows.values() for x in values)))
    sides = {
        name: [
            _centred_side(x) if grams and name == "ys" else _side(x, by_gram) for x in itertools.islice(alike, count)
        ]
        for name, count in ((name, len(values)) for name, values in rows.items())
    }
    ours, theirs = sides["xs"], sides.get("ys", sides["xs"])
    own = [[_hsic(side, side, debiased) for side in group] for group in (ours, theirs)]
    values = [_quotient(_hsic(ours[i], theirs[j], debiased), own[0][i], own[1][j]) for i, j in pairs]
    return torch.stack(values)


def gram(x: Float[Tensor, "n ..."]) -> Float[Tensor, "n n"]:
    """The centred Gram matrix X_c X_c^T of n samples, with X_c the features less their means over the samples.

    Args:
        x: activations, (n, ...); axes after the first are flattened.

    Raises:
        ValueError: no samples or no features.
        TypeError: no tensor of floating point numbers.
    """
    rows = _rows("x", x)
    with _full_precision(rows):
        return _CentredGram.apply(rows)[0]


def cka_from_grams(
    k: Float[Tensor, "n n"],
    l: Float[Tensor, "n n"],  # noqa: E741 (the field's names)
    *,
    debiased: bool = False,
) -> Float[Tensor, ""]:
    """`linear_cka` from Gram matrices, centred or not.

    The Gram matrix of a batch is the part of the whole data set's Gram matrix that its rows and columns pick out: for a
    network that no longer changes and inputs that do not either, compute it once and index it.

    Args:
        k: inner products between n samples in one representation; any kernel matrix will do.
        l: those of the same samples in another.
        debiased: as for `linear_cka`.

    Returns:
        As `linear_cka` does.

    Raises:
        ValueError: matrices that are not square or of different sizes, or fewer than 2 samples (debiased: 4).
        TypeError: no tensors of floating point numbers.
    """
    for name, matrix in {"k": k, "l": l}.items():
        _check_square(name, matrix)
    rows = _alike(_rows("k", k), _rows("l", l))
    _check_samples({"k": rows[0], "l": rows[1]}, debiased)
    return _of_sides(*(_centred_side(row) for row in rows), debiased)


def rsa(x: Float[Tensor, "n ..."], y: Float[Tensor, "n ..."]) -> Float[Tensor, ""]:
    """Representational similarity analysis: Pearson's correlation of the cosine similarities of all pairs of samples.

    Args:
        x: activations of n samples, axes after the first flattened. Unlike for `linear_cka` the origin matters.
        y: activations of the same samples.

    Returns:
        A number from -1 to 1; 0, with zero gradient, where all pairs of `x` or of `y` are equally similar. A sample
        that is all zero has similarity 0 with every other.

    Raises:
        ValueError: different numbers of samples, fewer than 3, or no features.
        TypeError: `x` or `y` is no tensor of floating point numbers.

    Source: Kriegeskorte, Mur and Bandettini, Frontiers in Systems Neuroscience 2 (2008).
    """
    rows = _alike(_rows("x", x), _rows("y", y))
    _check_samples({"x": rows[0], "y": rows[1]}, False, 3)
    n = len(rows[0])
    above = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
    with _full_precision(x):
        unit = [torch.nn.functional.normalize(row, dim=1) for row in rows]
        pairs = [(row @ row.T)[above] for row in unit]
        means = [values.mean() for values in pairs]
        a, b = (values - mean for values, mean in zip(pairs, means))
        # Equal similarities differ by rounding alone
        tiny = 64 * torch.finfo(a.dtype).eps ** 2 * len(a)
        return _quotient(a.dot(b), a.dot(a), b.dot(b), tiny)


def error_consistency(
    predictions: Shaped[Tensor, " n"], others: Shaped[Tensor, " n"], labels: Shaped[Tensor, " n"]
) -> float:
    """Cohen's kappa of which samples two classifiers get right: (c - e) / (1 - e).

    c is the share of samples that both get right or both get wrong, and e = p q + (1 - p)(1 - q) what it would be for
    classifiers with these accuracies p and q that err independently.

    Args:
        predictions: class numbers one classifier gives to n samples.
        others: those another one gives to the same samples.
        labels: the true class numbers.

    Returns:
        1 where the same samples are right, 0 where agreement is chance; NaN where e = 1, as both classifiers are always
        right or both always wrong.

    Raises:
        ValueError: tensors of different lengths, or empty ones.

    Source: Geirhos, Meding and Wichmann, Beyond Accuracy, NeurIPS 2020 (arXiv 2006.16736), section 2.
    """
    sizes = {len(labels), len(predictions), len(others)}
    if len(sizes) > 1 or 0 in sizes:
        raise ValueError(
            f"predictions, others, labels: {len(predictions)}, {len(others)} and {len(labels)} were given; as many of "
            "each are accepted, at least 1"
        )
    one, other = (predictions == labels).double(), (others == labels).double()
    p, q, agreement = (float(share) for share in (one.mean(), other.mean(), (one == other).double().mean()))
    chance = p * q + (1 - p) * (1 - q)
    return (agreement - chance) / (1 - chance) if chance < 1 else float("nan")


class _CentredGram(torch.autograd.Function):
    """K = X_c X_c^T and ||mean||^2, the latter without a gradient.

    A processor computes half of K, as it is symmetric, and centres K instead of X where that costs no precision: where
    the features' variance is not small beside their squares. The gradient (G + G') X_c, centred, takes one product
    instead of two.
    """

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        if x.device.type != "cpu":
            mean = x.mean(0)
            centred = x - mean
            return centred @ centred.T, mean.square().sum()
        x = x.detach()
        some = x[:: max(1, len(x) // 8)]  # a few samples tell which way to go; all of them, whether it was right
        if _varies_enough(some.mean(0).square().sum(), some.square().sum() / len(some)):
            raw = _symmetric(_half_gram(x, None))
            means = raw.mean(0)
            mean_square = means.mean()
            if _varies_enough(mean_square, raw.diagonal().mean()):
                return raw.sub_(means).sub_((means - mean_square)[:, None]), mean_square
        # From 512 features at a time, so that their centred copy stays in the cache.
        half, square = x.new_zeros(len(x), len(x)), x.new_zeros(())
        for features in x.split(512, dim=1):
            mean = features.mean(0)
            square += mean.square().sum()
            half = _half_gram(features - mean, half)
        return _symmetric(half), square

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        product = (gradient + gradient.T) @ (x - x.mean(0))
        return product - product.mean(0)


def _half_gram(x: Tensor, onto: Tensor | None) -> Tensor:
    """The lower half of X X^T, added to a matrix; what is above its diagonal stays as it was, zero."""
    rank_k_product = blas.dsyrk if x.dtype == torch.float64 else blas.ssyrk
    c = (x.new_zeros(len(x), len(x)) if onto is None else onto).numpy()
    # BLAS keeps matrices by columns, so X is X^T to it.
    return torch.from_numpy(rank_k_product(1.0, x.numpy().T, trans=1, beta=1.0, c=c.T, overwrite_c=True).T)


def _symmetric(half: Tensor) -> Tensor:
    both = half + half.T
    both.diagonal().mul_(0.5)
    return both


def _varies_enough(mean_square: Tensor, square: Tensor) -> bool:
    """Whether taking the squared mean from the mean square costs less than two bits."""
    return bool(mean_square < 0.75 * square)


class _Side(NamedTuple):
    """One representation, centred and scaled so that K has a mean diagonal of one (CKA does not depend on scale)."""

    gram: Tensor | None  # K, or
    features: Tensor | None  # X with K = X X^T
    diagonal: Tensor  # of K


def _side(rows: Tensor, by_gram: bool) -> _Side:
    with _full_precision(rows):
        # What rounding leaves of features that are the same for all samples is taken for the zero it stands for.
        rounding = len(rows) * (8 * torch.finfo(rows.dtype).eps) ** 2
        if by_gram:
            product, mean_square = _CentredGram.apply(rows)
            return _scaled(product, rounding * mean_square)
        mean = rows.mean(0)
        centred = rows - mean
        squares = centred.square().sum(1)
        scale = _scale(squares, rounding * mean.detach().square().sum())
        return _Side(None, centred * scale.sqrt(), squares * scale)


def _centred_side(k: Tensor) -> _Side:
    means = k.mean(0)
    rounding = 4 * torch.finfo(k.dtype).eps * k.detach().diagonal().abs().sum()
    return _scaled(k - means - k.mean(1, keepdim=True) + means.mean(), rounding)


def _scaled(k: Tensor, rounding: Tensor) -> _Side:
    """A side from its Gram matrix, which is overwritten."""
    k = k.mul_(_scale(k.diagonal(), rounding))
    return _Side(k, None, k.diagonal())


def _scale(diagonal: Tensor, rounding: Tensor) -> Tensor:
    """What makes the diagonal's mean one; zero where nothing varies. No gradient: a constant factor cancels in CKA."""
    total = diagonal.detach().sum()
    varies = ~(total <= rounding)  # NaN counts as varying, so that it comes out as NaN
    return torch.where(varies, len(diagonal) / torch.where(varies, total, 1), 0)


def _of_sides(x: _Side, y: _Side, debiased: bool) -> Tensor:
    return _quotient(*(_hsic(*pair, debiased) for pair in ((x, y), (x, x), (y, y))))


def _hsic(x: _Side, y: _Side, debiased: bool) -> Tensor:
    """HSIC but for the factor 1 / (n-1)^2 or 1 / (n (n-3)), that cancels in CKA."""
    with _full_precision(x.diagonal):
        if x.gram is not None and y.gram is not None:
            cross = torch.dot(x.gram.reshape(-1), y.gram.reshape(-1))  # tr(K L), as K is symmetric
        else:
            assert x.features is not None
            assert y.features is not None
            cross = (x.features.T @ y.features).square().sum()
        if not debiased:
            return cross
        # The rows of a centred matrix sum to zero, those of the matrix without its diagonal to minus the diagonal.
        n, p, q = len(x.diagonal), x.diagonal, y.diagonal
        inner = torch.dot(p, q)
        value = cross - inner + p.sum() * q.sum() / ((n - 1) * (n - 2)) - 2 * inner / (n - 2)
        return torch.where(value.abs() <= 16 * torch.finfo(value.dtype).eps * cross.abs(), 0, value)


def _quotient(cross: Tensor, own: Tensor, other: Tensor, least: float = 0.0) -> Tensor:
    """cross / sqrt(own other), and 0 with zero gradient where one of them is not above `least`."""
    undefined = (own <= least) | (other <= least)
    root = torch.where(undefined, 1, own).sqrt() * torch.where(undefined, 1, other).sqrt()
    return torch.where(undefined, 0, cross / root)


def _gram_is_cheaper(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> bool:
    n, widths, others = len(xs[0]), [x.shape[1] for x in xs], [y.shape[1] for y in ys]
    features = sum(widths) * sum(others) + sum(d * d for d in widths + others)
    return n * sum(widths + others) <= features


def _rows(name: str, x: Tensor) -> Tensor:
    """One row a sample, in single precision at least."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        given = f"tensor of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name}: a {given} was given; a tensor of floating point numbers is accepted")
    if x.ndim < 1 or not x.numel():
        raise ValueError(f"{name}: a tensor of shape {tuple(x.shape)} was given; (samples, ...) is accepted, not empty")
    rows = x.reshape(len(x), -1)
    return rows.float() if torch.finfo(rows.dtype).bits < 32 else rows


def _alike(*rows: Tensor) -> tuple[Tensor, ...]:
    """All in the widest of their types."""
    widest = max((row.dtype for row in rows), key=lambda dtype: torch.finfo(dtype).bits)
    return tuple(row.to(widest) for row in rows)


def _check_samples(sides: dict[str, Tensor], debiased: bool, least: int = 2) -> None:
    (first, x), *others = sides.items()
    for name, y in others:
        if len(y) != len(x):
            raise ValueError(f"{first}, {name}: {len(x)} and {len(y)} samples were given; as many of both are accepted")
    least = 4 if debiased else least
    if len(x) < least:
        estimator = "the debiased estimator" if debiased else "this measure"
        raise ValueError(f"{first}: {len(x)} samples were given; {estimator} needs at least {least}")


def _check_square(name: str, matrix: Tensor) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name}: a tensor of shape {tuple(matrix.shape)} was given; a square matrix is accepted")


def _full_precision(x: Tensor) -> torch.autocast:
    """Autocast switched off, which would take the products in half precision."""
    return torch.autocast(x.device.type, enabled=False)
