"""Which numbers of an input a network relies on, and whether that is so: attributions and DiffROAR.

An *attribution* says of each number of an input how much it matters for a class. Its evaluation by DiffROAR keeps of
each image only the numbers ranked highest, or only those ranked lowest, trains a fresh network on what is left, and
compares how well the two classify held-out images treated alike:

    DiffROAR(k) = PredictivePower(top k) - PredictivePower(bottom k)

Positive: numbers with larger attributions do tell more about the label. Zero: no better than chance. Negative: worse.

Source: Shah, Jain and Netrapalli, Do Input Gradients Highlight Discriminative Features?, NeurIPS 2021 (arXiv
2102.12781), sections 2 and 3.
"""

from __future__ import annotations

import hashlib
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float64, Int
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from etude.nn.activations import evaluating, unwrap
from etude.nn.prototype import batches

Attribution = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(model, inputs (n, ...), classes (n,)) -> what each number contributes, in the shape of the inputs."""
Pair = tuple[Float[Tensor, "_ ..."], Float[Tensor, "_ ..."]]
"""Of the training and of the test examples."""
Examples = tuple[Float[Tensor, "_ ..."], Int[Tensor, " _"]]
Fit = Callable[[nn.Module, Tensor, Tensor, int], Any]
"""``fit(model, x, y, seed)`` trains the model in place."""
Side = Literal["top", "bottom"]

__all__ = [
    "Attribution",
    "UnmaskedLoader",
    "attribute",
    "diffroar",
    "diffroar_intervals",
    "from_captum",
    "input_gradient",
    "kept_entries",
    "leakage",
    "pointing_accuracy",
    "predictive_power",
    "rank_features",
    "unmask",
]


# ---- attributions ----------------------------------------------------------------------------------------------------


def input_gradient(
    model: nn.Module,
    x: Float[Tensor, "n ..."],
    target: Int[Tensor, " n"],
    of: Literal["logit", "loss", "probability"] = "logit",
    absolute: bool = True,
) -> Float[Tensor, "n ..."]:
    """The gradient of an output with respect to the input, |d f_target / dx|.

    Logits, cross-entropy and softmax probability rank the numbers of an input alike if there are two classes and the
    two logits are opposite; in general they do not. The gradient of a saturated probability can vanish in rounding.

    Args:
        model: (n, ...) -> logits (n, classes), each row from its own input alone. It is run in evaluation mode, which
            is undone afterwards, and its parameters receive no gradients.
        x: inputs.
        target: the class of each, 0 to classes - 1.
        of: ``"logit"``, ``"probability"`` (softmax) or ``"loss"`` (cross-entropy).
        absolute: magnitudes; with False, with sign.

    Returns:
        The gradient, in the shape of the inputs.

    Raises:
        TypeError: `x` does not hold floating point numbers.
        ValueError: another `of`, a target out of range, or an output that is not differentiable.

    Source: section 2.
    """
    if of not in ("logit", "loss", "probability"):
        raise ValueError(f"of={of!r}: give 'logit', 'loss' or 'probability'")
    _check_float("x", x)
    with evaluating(unwrap(model)), torch.enable_grad():
        start = x.detach().clone().requires_grad_()
        logits = model(start)
        _check_logits(logits, len(x))
        _check_target(target, logits)
        rows = target.to(logits.device).long()[:, None]
        if of == "loss":
            value = cross_entropy(logits, rows[:, 0], reduction="sum")
        else:
            value = (logits.softmax(1) if of == "probability" else logits).gather(1, rows).sum()
        gradient = torch.autograd.grad(value, start, allow_unused=True)[0] if value.requires_grad else None
    if gradient is None:
        raise ValueError("model: its output is not differentiable with respect to its input; no gradient flows back")
    return gradient.abs() if absolute else gradient


def from_captum(method: Callable[[nn.Module], Any], **keywords: Any) -> Attribution:
    """An attribution method of the package captum with the signature that is used here.

    ::

        from captum.attr import IntegratedGradients
        attribute(model, x, method=from_captum(IntegratedGradients, n_steps=20))

    Args:
        method: its class; or anything that is made from a model and has ``attribute(x, target=...)``.
        **keywords: handed to its ``attribute``.

    Returns:
        A function (model, x, target) -> attribution.
    """

    def attribution(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        with evaluating(unwrap(model)):
            found: Tensor = method(model).attribute(x, target=target, **keywords)
        return found.detach()

    return attribution


def attribute(
    model: nn.Module,
    x: Float[Tensor, "n ..."],
    target: Int[Tensor, " n"] | None = None,
    *,
    method: Attribution = input_gradient,
    chunk: int = 1000,
) -> Float[Tensor, "n ..."]:
    """Attributions of many inputs, some at a time.

    Args:
        model: (n, ...) -> logits (n, classes).
        x: inputs.
        target: the class of each; None for the class that the model itself predicts. A test image attributed to its
            true label carries that label in its mask; attributed to the prediction it does not.
        method: any function (model, x, target) -> attribution; ``functools.partial(input_gradient, of="loss")``.
        chunk: inputs at a time.

    Returns:
        The attributions, in the shape of `x`.

    Raises:
        TypeError: `x` does not hold floating point numbers.
        ValueError: a target out of range, a chunk below 1, or an attribution that is not finite or of another shape.
    """
    _check_float("x", x)
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise ValueError(f"chunk={chunk!r}: give a whole number of at least 1")
    if target is not None and len(target) != len(x):
        raise ValueError(f"target: {len(target)} classes for {len(x)} inputs; as many are accepted")
    with evaluating(unwrap(model)), torch.no_grad():
        logits = model(x[:1])
        _check_logits(logits, len(x[:1]))
        if target is None:
            target = torch.cat([model(some).argmax(1) for some in x.split(chunk)])
        _check_target(target, logits, rows=len(x))
    found = []
    for some, classes in zip(x.split(chunk), target.split(chunk)):
        values = method(model, some, classes)
        if values.shape != some.shape:
            raise ValueError(
                f"method: an attribution of shape {tuple(values.shape)} for inputs of shape {tuple(some.shape)}; "
                "the same shape is accepted"
            )
        if not torch.isfinite(values).all():
            raise ValueError("method: an attribution is not finite")
        found.append(values.detach())
    return torch.cat(found)


# ---- ranking and masking ---------------------------------------------------------------------------------------------


def rank_features(
    attribution: Float[Tensor, "n ..."],
    reduce: Literal["entry", "pixel"] = "entry",
    generator: torch.Generator | None = None,
) -> Int[Tensor, "n d"]:
    """The places of each input, those with the largest magnitude of attribution first.

    Args:
        attribution: (n, ...); (n, channels, ...) for pixels.
        reduce: ``"entry"`` ranks every number by itself, ``"pixel"`` the sum of magnitudes over the channels.
        generator: draws the order of ties, anew for each input; torch's own by default. (In order of place, the many
            zeros of a dead corner would all be ranked from the top left.)

    Returns:
        Places in the flattened input, or among its pixels.

    Raises:
        ValueError: another `reduce`, pixels of an attribution without channels, or numbers that are not finite.
    """
    if reduce not in ("entry", "pixel"):
        raise ValueError(f"reduce={reduce!r}: give 'entry' or 'pixel'")
    if reduce == "pixel" and attribution.ndim < 3:
        raise ValueError(
            f"attribution: shape {tuple(attribution.shape)} has no channels; (n, channels, ...) is accepted"
        )
    if not torch.isfinite(attribution).all():
        raise ValueError("attribution: it holds numbers that are not finite")
    size = attribution.abs()
    size = (size.sum(1) if reduce == "pixel" else size).flatten(1)
    ordered, ranking = size.sort(dim=1, descending=True)
    tied = (ordered[:, 1:] == ordered[:, :-1]).any(1).nonzero()[:, 0]
    if len(tied):
        some, device = size[tied], size.device if generator is None else generator.device
        shuffled = torch.rand(some.shape, generator=generator, device=device).argsort(1).to(size.device)
        # A stable sort of shuffled places leaves ties in the order they were shuffled into.
        ranking[tied] = shuffled.gather(1, some.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    return ranking


def kept_entries(
    ranking: Int[Tensor, "n d"], fraction: float, keep: Side, shape: Sequence[int]
) -> Bool[Tensor, "n ..."]:
    """Which numbers of each input are kept: the first or the last places of its ranking.

    Args:
        ranking: from `rank_features`.
        fraction: of the places, in (0, 1]; rounded to a whole number of at least one.
        keep: ``"top"`` for the places ranked first, ``"bottom"`` for those ranked last.
        shape: of one input; its size is d, or d times its channels where pixels were ranked.

    Returns:
        True where a number is kept, (n, \\*shape).

    Raises:
        ValueError: an argument out of its range, or a shape that does not fit the ranking.
    """
    if isinstance(fraction, bool) or not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction!r}: give a number above 0 and at most 1")
    if keep not in ("top", "bottom"):
        raise ValueError(f"keep={keep!r}: give 'top' or 'bottom'")
    n, d = ranking.shape
    if d != math.prod(shape) and (len(shape) < 2 or d != math.prod(shape[1:])):
        raise ValueError(f"ranking: {d} places for inputs of shape {tuple(shape)}; {math.prod(shape)} are accepted")
    count = max(1, round(fraction * d))
    chosen = ranking[:, :count] if keep == "top" else ranking[:, d - count :]
    mask = torch.zeros(n, d, dtype=torch.bool, device=ranking.device).scatter_(1, chosen, True)
    if d != math.prod(shape):
        return mask.view(n, 1, *shape[1:]).expand(n, *shape)
    return mask.view(n, *shape)


def unmask(
    x: Float[Tensor, "n ..."],
    ranking: Int[Tensor, "n d"],
    fraction: float,
    keep: Side = "top",
    fill: float | Float[Tensor, "*shape"] = 0.0,
) -> Float[Tensor, "n ..."]:
    """Inputs of which only a fraction is left.

    ::

        ranking = rank_features(attribute(model, x))
        x_top, x_bottom = unmask(x, ranking, 0.1, "top"), unmask(x, ranking, 0.1, "bottom")

    Args:
        x: inputs.
        ranking: of their places, from `rank_features`.
        fraction: kept, in (0, 1].
        keep: ``"top"`` or ``"bottom"``.
        fill: what the others become: a number, or a tensor in the shape of one input, such as the mean of the training
            images. On inputs of another scale it is another thing: zero is black in [0, 1], grey once standardised.

    Returns:
        x where it is kept, `fill` elsewhere.

    Raises:
        ValueError: an argument out of its range, shapes that do not fit, or a fill that is not finite.
    """
    return _filled(x, kept_entries(_checked_ranking(x, ranking), fraction, keep, x.shape[1:]), _checked_fill(x, fill))


class UnmaskedLoader:
    """A loader whose inputs have only a fraction left, attributed and masked batch by batch as they are read.

    Nothing of them is kept, so the data may be larger than memory. In a loop of one's own::

        for keep in ("top", "bottom"):
            network = train(UnmaskedLoader(train_loader, model, 0.1, keep))      # a fresh network, in your own loop
            accuracy = evaluate(network, UnmaskedLoader(test_loader, model, 0.1, keep))

    and the accuracies of both sides go to `diffroar_intervals` as rows like those of `diffroar`. Where many passes are
    made over data that do fit into memory, `attribute` and `diffroar` save attributing anew each time.

    Args:
        loader: batches of inputs and labels; both are moved to the device of the model.
        model: the network whose attributions rank the numbers: (n, ...) -> logits (n, classes). It is not trained.
        fraction: kept, in (0, 1].
        keep: ``"top"`` or ``"bottom"``.
        method: as for `attribute`; the class is the one that the model predicts.
        reduce: as for `rank_features`.
        fill: as for `unmask`.
        generator: draws the order of ties, anew in each pass.

    Yields:
        Masked inputs and their labels.

    Raises:
        TypeError: `loader` is a tensor or cannot be gone through, or a batch is not a pair (inputs, labels).
        ValueError: a fraction, side or `reduce` that is not accepted; and as `attribute`, when it is read.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        model: nn.Module,
        fraction: float,
        keep: Side = "top",
        *,
        method: Attribution = input_gradient,
        reduce: Literal["entry", "pixel"] = "entry",
        fill: float | Float[Tensor, "*shape"] = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        if isinstance(loader, Tensor) or not isinstance(loader, Iterable):
            raise TypeError(f"loader: a {type(loader).__name__} was given; batches of inputs and labels are accepted")
        kept_entries(torch.zeros(1, 1, dtype=torch.long), fraction, keep, (1,))
        if reduce not in ("entry", "pixel"):
            raise ValueError(f"reduce={reduce!r}: give 'entry' or 'pixel'")
        self.loader, self.model, self.fraction, self.keep = loader, unwrap(model), fraction, keep
        self.method, self.reduce, self.fill, self.generator = method, reduce, fill, generator

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        like = next(self.model.parameters(), torch.empty(0))
        for x, y in batches(self.loader, like.device):
            if y is None:
                raise TypeError("loader: it gives no labels; pairs (inputs, labels) are accepted")
            found = attribute(self.model, x, method=self.method, chunk=max(1, len(x)))
            ranking = rank_features(found, self.reduce, self.generator)
            yield unmask(x, ranking, self.fraction, self.keep, self.fill), y


# ---- evaluation ------------------------------------------------------------------------------------------------------


def predictive_power(
    make_model: Callable[[int], nn.Module],
    fit: Fit,
    train: Examples,
    test: Examples,
    seeds: Iterable[int],
    *,
    chunk: int = 1000,
) -> Float64[np.ndarray, " seeds"]:
    """How well networks trained from scratch on the examples classify held-out ones.

    It estimates sup over networks f of P[f(x) = y] by the test accuracy of the last weights. What is tested plays no
    part in the training: whatever `fit` selects by, it has to take from the training examples.

    Args:
        make_model: ``make_model(seed)`` makes an untrained network, another object each time.
        fit: ``fit(model, x, y, seed)`` trains it in place, in any loop.
        train: inputs and class numbers to learn from.
        test: those that accuracy is measured on.
        seeds: one retraining each.
        chunk: test examples at a time.

    Returns:
        Accuracy for each seed.

    Raises:
        ValueError: no seeds, as many labels as inputs are not given, or `make_model` hands out a network, or a layer,
            that was trained before.

    Source: section 3.1.
    """
    return _predictive_power(make_model, fit, train, test, list(seeds), chunk, weakref.WeakSet())


def diffroar(
    attributions: Mapping[str, Pair],
    train: Examples,
    test: Examples,
    *,
    fractions: Sequence[float],
    make_model: Callable[[int], nn.Module],
    fit: Fit,
    seeds: Sequence[int],
    fill: float | Float[Tensor, "*shape"] = 0.0,
    reduce: Literal["entry", "pixel"] = "entry",
    masks_alone: bool = False,
    generator: torch.Generator | None = None,
) -> pd.DataFrame:
    """Accuracy after retraining on the numbers that attributions rank first, and on those they rank last.

    ::

        def make_model(seed): ...            # an untrained network
        def fit(model, x, y, seed): ...      # trains it, in your own loop

        found = {"gradients": (attribute(model, train_x), attribute(model, test_x)),
                 "chance": (torch.rand_like(train_x), torch.rand_like(test_x))}
        accuracies = diffroar(found, (train_x, train_y), (test_x, test_y), fractions=[0.05, 0.2],
                              make_model=make_model, fit=fit, seeds=range(5))
        print(diffroar_intervals(accuracies))

    A network can also read the label from *where* numbers were kept. `masks_alone` measures it: trained on the masks
    (1 where kept, 0 elsewhere) and nothing else, how well does it do?

    A retraining is done once for all methods that mask alike: at fraction 1 that is all of them, and the bottom of a
    ranking is the top of its reverse. Masks are made one at a time and not kept.

    Args:
        attributions: by name of the method, the attributions of the training and of the test inputs, from `attribute`
            or anywhere else.
        train: inputs and class numbers to learn from.
        test: those that accuracy is measured on; they take no other part.
        fractions: of numbers kept, each in (0, 1].
        make_model: ``make_model(seed)`` makes an untrained network.
        fit: ``fit(model, x, y, seed)`` trains it in place.
        seeds: one retraining each; both sides have the same, so that differences are paired.
        fill: as for `unmask`.
        reduce: as for `rank_features`.
        masks_alone: train on the masks alone as well.
        generator: draws the order of ties.

    Returns:
        One row a retraining: ``method``, ``fraction``, ``side`` ("top" or "bottom"), ``input`` ("image" or "mask"),
        ``seed``, ``accuracy``.

    Raises:
        ValueError: no method, fraction or seed, or any of them twice; attributions that are not finite or of another
            shape than the inputs; and as `unmask` and `predictive_power`.

    Source: section 3.2, equation 2.
    """
    fractions, seeds = list(fractions), list(seeds)
    for name, values in {"attributions": list(attributions), "fractions": fractions, "seeds": seeds}.items():
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name}: {values} were given; at least one is accepted, none of them twice")
    for name, pair in attributions.items():
        for part, (x, _), values in zip(("train", "test"), (train, test), pair):
            if values.shape != x.shape:
                raise ValueError(
                    f"attributions[{name!r}]: shape {tuple(values.shape)} for {part} inputs of shape {tuple(x.shape)}"
                )
            if not torch.isfinite(values).all():
                raise ValueError(f"attributions[{name!r}]: a number for the {part} inputs is not finite")
    for fraction in fractions:
        if isinstance(fraction, bool) or not 0 < fraction <= 1:
            raise ValueError(f"fractions: {fraction!r} was given; numbers above 0 and at most 1 are accepted")
    _check_examples(train, test)
    filled = _checked_fill(train[0], fill)
    made: weakref.WeakSet[nn.Module] = weakref.WeakSet()
    known: dict[str, np.ndarray] = {}
    rows = []
    for method, pair in attributions.items():
        rankings = [rank_features(values, reduce, generator) for values in pair]
        for fraction in fractions:
            for side in ("top", "bottom"):
                kept = [
                    kept_entries(ranking, fraction, side, x.shape[1:])
                    for ranking, (x, _) in zip(rankings, (train, test))
                ]
                for kind in ("image", "mask")[: 1 + masks_alone]:
                    key = f"{kind} {_digest(kept)}"
                    if key not in known:
                        sets = [
                            (_filled(x, mask, filled) if kind == "image" else mask.to(x.dtype), y)
                            for mask, (x, y) in zip(kept, (train, test))
                        ]
                        known[key] = _predictive_power(make_model, fit, *sets, seeds, 1000, made)
                    rows += [(method, fraction, side, kind, *row) for row in zip(seeds, known[key])]
    return pd.DataFrame(rows, columns=["method", "fraction", "side", "input", "seed", "accuracy"])


def diffroar_intervals(accuracies: pd.DataFrame, alpha: float = 0.05) -> pd.DataFrame:
    """DiffROAR from the accuracies of `diffroar`, with Student's interval of the differences paired by seed.

    Args:
        accuracies: from `diffroar`; several put together if each row's ``seed`` names an independent repetition
            (another split, another model explained, another retraining).
        alpha: the intervals cover with probability 1 - alpha, in (0, 1).

    Returns:
        One row a method, fraction and input: ``top``, ``bottom`` (mean accuracies), ``diffroar``, its interval ``low``
        to ``high`` (missing where there is one seed) and ``seeds``.

    Raises:
        ValueError: an alpha outside (0, 1), or a seed of which one side is missing or given twice.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha!r}: give a number between 0 and 1")
    unit = ["method", "fraction", "input", "seed"]
    sides = accuracies.set_index([*unit, "side"])["accuracy"]
    if not sides.index.is_unique:
        raise ValueError("accuracies: a seed has two rows of one side; give each repetition a seed of its own")
    pairs = sides.unstack("side")
    if {"top", "bottom"} - set(pairs) or pairs[["top", "bottom"]].isna().any(axis=None):
        raise ValueError("accuracies: a seed lacks its top or its bottom row; both are accepted")
    pairs["diffroar"] = pairs["top"] - pairs["bottom"]
    groups = pairs.groupby(level=unit[:3], sort=False)
    table, count = groups.mean(), groups.size()
    half = groups["diffroar"].std() / np.sqrt(count) * stats.t.ppf(1 - alpha / 2, (count - 1).clip(lower=1))
    found = table.assign(low=table["diffroar"] - half, high=table["diffroar"] + half, seeds=count)
    return found[["top", "bottom", "diffroar", "low", "high", "seeds"]].reset_index()


def leakage(attribution: Float[Tensor, "n ..."], relevant: Bool[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """The share of an attribution that lies where nothing tells of the label: sum outside of |a| / sum of |a|.

    Args:
        attribution: (n, ...).
        relevant: true at the places that do tell, in the same shape, such as ``block_images(...).relevant``.

    Returns:
        In [0, 1] for each input.

    Raises:
        ValueError: another shape, or an input whose attribution is zero everywhere or not finite.
    """
    size = _sizes(attribution, relevant)
    total = size.sum(1)
    if not (total > 0).all():
        raise ValueError(f"attribution: that of input {int((total > 0).int().argmin())} is zero everywhere")
    return 1 - (size * relevant.flatten(1)).sum(1) / total


def pointing_accuracy(
    attribution: Float[Tensor, "n ..."],
    relevant: Bool[Tensor, "n ..."],
    at: Literal["largest", "smallest"] = "largest",
) -> Float[Tensor, " n"]:
    """Whether the place with the largest (or smallest) magnitude of attribution is one that tells of the label.

    Args:
        attribution: (n, ...).
        relevant: true at the places that do tell, in the same shape.
        at: ``"largest"`` or ``"smallest"``.

    Returns:
        1 or 0 for each input; where several places tie, the share of them that are relevant.

    Raises:
        ValueError: another shape, another `at`, or numbers that are not finite.
    """
    if at not in ("largest", "smallest"):
        raise ValueError(f"at={at!r}: give 'largest' or 'smallest'")
    size = _sizes(attribution, relevant)
    end = size.amax(1, keepdim=True) if at == "largest" else size.amin(1, keepdim=True)
    tied = size == end
    return (tied & relevant.flatten(1)).sum(1).to(size.dtype) / tied.sum(1)


# ---- parts -----------------------------------------------------------------------------------------------------------


def _predictive_power(
    make_model: Callable[[int], nn.Module],
    fit: Fit,
    train: Examples,
    test: Examples,
    seeds: list[int],
    chunk: int,
    made: weakref.WeakSet[nn.Module],
) -> Float64[np.ndarray, " seeds"]:
    if not seeds:
        raise ValueError("seeds: none was given; at least one is accepted")
    _check_examples(train, test)
    found = []
    for seed in seeds:
        model = make_model(seed)
        # Every layer with parameters: a new wrapper around a trained network is a trained network.
        layers = {model, *(layer for layer in model.modules() if list(layer.parameters(recurse=False)))}
        if any(layer in made for layer in layers):
            raise ValueError(
                f"make_model: for seed {seed} it hands out a network, or a layer, that was trained before; "
                "make a new one each time"
            )
        for layer in layers:
            made.add(layer)
        fit(model, *train, seed)
        with evaluating(unwrap(model)), torch.no_grad():
            right = [(model(x).argmax(1) == y).sum() for x, y in zip(*(part.split(chunk) for part in test))]
        found.append(int(sum(right)) / len(test[1]))
    return np.array(found, dtype=np.float64)


def _filled(x: Tensor, kept: Tensor, fill: Tensor) -> Tensor:
    return torch.where(kept, x, fill)


def _checked_fill(x: Tensor, fill: float | Tensor) -> Tensor:
    filled = torch.as_tensor(fill, dtype=x.dtype, device=x.device)
    if not torch.isfinite(filled).all():
        raise ValueError("fill: it is not finite")
    sizes = zip(reversed(filled.shape), reversed(x.shape[1:]))
    if filled.ndim >= x.ndim or any(size not in (1, whole) for size, whole in sizes):
        raise ValueError(f"fill: shape {tuple(filled.shape)} does not fit inputs of shape {tuple(x.shape[1:])}")
    return filled


def _checked_ranking(x: Tensor, ranking: Tensor) -> Tensor:
    if len(ranking) != len(x):
        raise ValueError(f"ranking: {len(ranking)} rows for {len(x)} inputs; as many are accepted")
    return ranking


def _sizes(attribution: Tensor, relevant: Tensor) -> Tensor:
    if relevant.shape != attribution.shape:
        raise ValueError(
            f"relevant: shape {tuple(relevant.shape)} for an attribution of shape {tuple(attribution.shape)}; "
            "the same is accepted"
        )
    if not torch.isfinite(attribution).all():
        raise ValueError("attribution: it holds numbers that are not finite")
    return attribution.abs().flatten(1)


def _digest(masks: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for mask in masks:
        digest.update(np.packbits(mask.cpu().numpy()).tobytes())
    return digest.hexdigest()


def _check_float(name: str, x: Tensor) -> None:
    if not x.is_floating_point():
        raise TypeError(f"{name}: a tensor of {x.dtype} was given; floating point numbers are accepted")


def _check_logits(logits: Tensor, rows: int) -> None:
    if logits.ndim != 2 or len(logits) != rows:
        raise ValueError(f"model: outputs of shape {tuple(logits.shape)}; logits ({rows}, classes) are accepted")


def _check_target(target: Tensor, logits: Tensor, rows: int | None = None) -> None:
    rows, classes = len(logits) if rows is None else rows, logits.shape[1]
    if target.shape != (rows,) or target.is_floating_point():
        raise ValueError(f"target: {target.dtype} of shape {tuple(target.shape)}; ({rows},) class numbers are accepted")
    if rows and not 0 <= int(target.min()) <= int(target.max()) < classes:
        raise ValueError(f"target: classes {int(target.min())} to {int(target.max())}; 0 to {classes - 1} are accepted")


def _check_examples(*parts: Examples) -> None:
    for name, (x, y) in zip(("train", "test"), parts):
        if len(x) != len(y) or not len(y):
            raise ValueError(f"{name}: {len(x)} inputs and {len(y)} labels; give as many of both, at least 1")
