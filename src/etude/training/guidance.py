"""Guidance: a network learns its task and, layer by layer, to see the similarities that another network sees.

The loss of the network that trains, the target, gets a term for each pair of a layer of its own and a layer of a
frozen guide:

    L = L_task + w(t) sum over pairs (i, j) of [1 - CKA(A_i, G_j)]

with A_i and G_j the two layers' activations on the batch and linear CKA as the similarity. CKA sees only which samples
are alike to a layer, so the guide may be of any other architecture: a convolutional network guides a fully connected
one, trained or as initialised, in which case nothing but its architecture can be handed on.

Source: Subramaniam, Mayo, Conwell, Poggio, Katz, Cheung and Barbu, Training the Untrainable: Introducing Inductive
Bias via Representational Alignment, NeurIPS 2025 (arXiv 2410.20035), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from etude.errors import suggest
from etude.interpretability.similarity import cka_from_grams, cka_pairs, gram, linear_cka
from etude.nn.activations import ActivationTap, Layers
from etude.training.schedules import Constant, Schedule

Pairs = Iterable[tuple[str, str]]
Similarity = Callable[[Tensor, Tensor], Tensor]

__all__ = ["Guidance", "GuideGrams", "pair_evenly"]


class Guidance:
    """A penalty for layers that see other similarities than the layers of a guide.

    ::

        guidance = Guidance(model, guide, weight=FirstSteps(300))   # 1: `guide` is any frozen network

        for x, y in batches:                                        # your own loop, optimizer, Fabric or DDP
            loss = loss_fn(model(x), y)                             # your own forward pass is the only one
            loss = loss + guidance(x)                               # 2: runs the guide on x
            ...

        guidance.remove()                                           # 3: when done

    The target's activations are taken from the pass that the loop makes anyway, so that batch normalisation and dropout
    see each batch once. What the guide is shown is up to the loop: other images, noise, another order. Calls with a
    weight of zero run no guide, keep no activations and cost nothing.

    The guide runs in evaluation mode without gradients; its parameters and modes are left as they were. A batch
    normalisation that never saw data does nothing in evaluation mode: for a guide as initialised let it see some first
    (``torch.optim.swa_utils.update_bn(batches, guide)``). Controls are other guides: ``nn.Identity()``, whose layer is
    called ``""``, for the raw input; the batch in another order; a fully connected network.

    Where inputs come back unchanged epoch after epoch, give the guide's similarities instead of the guide, computed
    once: see `GuideGrams`. Under DistributedDataParallel each process compares the samples of its own batch.

    Args:
        target: the network that trains, wrapped or not; called as ``target(...)``.
        guide: a network, or `GuideGrams`.
        pairs: (name in the target, name in the guide), as often and in whatever combination you like; or ``"even"`` for
            `pair_evenly` of all layers with weights but the last one, in the order in which they run.
        weight: w, at least 0; or a function of the step, that is of how often the guidance was called before: see
            `etude.training.schedules` (``FirstSteps(300)`` guides a beginning, ``AfterStep(300)`` a delayed guide).
        debiased: take the unbiased estimates of HSIC, whose values do not rise with the layers' width.
        similarity: another function of two activations (n, ...) with a largest value of 1, such as
            `etude.interpretability.rsa`.

    Attributes:
        pairs: the pairs of names; with ``"even"`` empty until the first call.
        similarities: of each pair at the last call, without gradients, on the model's device.
        step: calls so far; set it when training is resumed.

    Raises:
        TypeError: `target` or `guide` is something else.
        ValueError: no layer of that name, with the nearest name; no pairs; a negative weight; `debiased` or Gram
            matrices together with a `similarity`.
    """

    def __init__(
        self,
        target: nn.Module,
        guide: nn.Module | GuideGrams,
        pairs: Literal["even"] | Pairs = "even",
        *,
        weight: float | Schedule = 1.0,
        debiased: bool = False,
        similarity: Similarity | None = None,
    ) -> None:
        if similarity is not None and (debiased or isinstance(guide, GuideGrams)):
            raise ValueError("similarity: debiased=True and Gram matrices are for CKA; leave them out or leave it out")
        if not isinstance(guide, nn.Module | GuideGrams):
            raise TypeError(f"guide: a {type(guide).__name__} was given; a network or GuideGrams is accepted")
        if isinstance(pairs, str) and pairs != "even":
            raise ValueError(f"pairs={pairs!r}: give 'even' or pairs of names")
        self.pairs: tuple[tuple[str, str], ...] = () if pairs == "even" else _checked(pairs)
        self.weight: Schedule = weight if callable(weight) else Constant(weight)
        self.debiased, self.similarity = debiased, similarity
        self.step, self.similarities = 0, dict[tuple[str, str], Tensor]()
        self._examined = False
        self._weight_now()
        wanted = [list(dict.fromkeys(names)) or None for names in zip(*self.pairs)] or [None, None]
        with _argument("pairs, guide"):
            self._guide = _Stored(guide, wanted[1]) if isinstance(guide, GuideGrams) else _Frozen(guide, wanted[1])
        try:
            with _argument("pairs, target"):
                self._tap = ActivationTap(target, wanted[0], only_with_grad=True)
        except (TypeError, ValueError):
            self._guide.remove()  # what is refused leaves no trace
            raise
        self._prepare()

    def __call__(self, *inputs: Any, **keywords: Any) -> Float[Tensor, ""]:
        """The penalty of the batch that the target has just run on, to be added to the loss.

        Args:
            *inputs: what the guide is run on, usually the target's inputs; for `GuideGrams` the indices of the batch.
            **keywords: handed to the guide as well.

        Returns:
            w(step) times the sum over pairs of one minus their similarity.

        Raises:
            RuntimeError: the target has not run, with gradients recorded, since the last call.
            ValueError: activations that cannot be compared, named by their layers: other numbers of samples, too few
                for the debiased estimator; at the first call also activations that are not finite or the same for all
                samples. (Later ones are not looked for: it would make a GPU wait. One that is constant counts as
                similarity 0 and gets no gradient.)
        """
        weight = self._weight_now()
        if weight == 0:
            self.step += 1
            self._prepare()
            return torch.zeros((), device=next(self._tap.model.parameters()).device)
        ours, theirs = self._tap.activations, self._guide(*inputs, **keywords)
        if not self.pairs:
            self.pairs = tuple(pair_evenly(_all_but_last("target", list(ours)), list(theirs)))
        self._compare_sizes(ours, theirs)
        if not self._examined:
            self._examine(ours, theirs)
        values = self._compare(ours, theirs)
        self.similarities = dict(zip(self.pairs, values.detach()))
        self._tap.clear()
        self.step += 1
        self._prepare()
        return weight * (1 - values).sum()

    def remove(self) -> None:
        """Take the taps out of both networks."""
        self._tap.remove()
        self._guide.remove()

    def _compare(self, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Tensor:
        """The similarity of each pair; what depends on one layer alone is computed once for all its pairs."""
        if self.similarity is not None:
            return torch.stack([self.similarity(ours[name], theirs[other]) for name, other in self.pairs])
        names, others = (list(dict.fromkeys(side)) for side in zip(*self.pairs))
        places = [(names.index(name), others.index(other)) for name, other in self.pairs]
        xs, ys = [ours[name] for name in names], [theirs[name] for name in others]
        return cka_pairs(xs, ys, places, debiased=self.debiased, grams=isinstance(self._guide, _Stored))

    def _weight_now(self) -> float:
        weight = self.weight(self.step)
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight: {weight!r} at step {self.step}; a finite number of at least 0 is accepted")
        return weight

    def _prepare(self) -> None:
        """See the next pass only if it will be penalised."""
        self._tap.enabled = self._weight_now() > 0

    def _compare_sizes(self, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
        least = 4 if self.debiased else 2
        for name, other in self.pairs:
            n, m = len(ours[name]), len(theirs[other])
            if n != m:
                raise ValueError(
                    f"inputs: the target's {name!r} has {n} samples, the guide's {other!r} {m}; both must be of one "
                    "batch, the sample first"
                )
            if n < least:
                kind = "debiased=True" if self.debiased else "a similarity"
                raise ValueError(f"inputs: a batch of {n} was given; {kind} needs at least {least} samples")

    def _examine(self, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
        sides = [("target", name, ours[name]) for name, _ in self.pairs]
        sides += [("guide", name, theirs[name]) for _, name in self.pairs]
        for whose, name, values in sides:
            if not values.detach().isfinite().all():
                raise ValueError(f"{whose}: the activations of {name!r} are not finite")
            is_gram = whose == "guide" and isinstance(self._guide, _Stored)
            own = cka_from_grams(values, values) if is_gram else linear_cka(values.detach(), values.detach())
            if own == 0:
                raise ValueError(f"{whose}: the activations of {name!r} are the same for all samples of the batch")
        self._examined = True


class GuideGrams:
    """A frozen guide's similarities between all samples of a data set, from which each batch takes its part.

    ::

        guide = GuideGrams.of(network, images)                  # once; needs images that are not augmented
        guidance = Guidance(model, guide)
        ...
        loss = loss_fn(model(images[index]), labels[index]) + guidance(index)

    A batch's Gram matrix is a part of the whole one, so a step costs no pass of the guide and no product of its
    activations. A layer takes n^2 numbers: 64 MB for 4,000 samples in single precision. In half precision, CKA changes
    by less than 0.001.

    Args:
        grams: for each layer the inner products of its activations, (n, n), centred or not. They are kept as they are.

    Raises:
        ValueError: no layers, or matrices that are not square, differ in size or are not finite, by name.
    """

    def __init__(self, grams: Mapping[str, Float[Tensor, "n n"]]) -> None:
        if not grams:
            raise ValueError("grams: give at least one layer")
        sizes = {name: tuple(k.shape) for name, k in grams.items()}
        n = next(iter(sizes.values()))[0]
        for name, k in grams.items():
            if sizes[name] != (n, n):
                raise ValueError(
                    f"grams: {name!r} is {sizes[name]}; all must be square and of one size, here ({n}, {n})"
                )
            if not k.isfinite().all():
                raise ValueError(f"grams: {name!r} is not finite")
        self.grams = dict(grams)

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        guide: nn.Module,
        inputs: Shaped[Tensor, "n ..."],
        layers: Layers = None,
        *,
        chunk: int = 500,
        dtype: torch.dtype = torch.float32,
    ) -> GuideGrams:
        """Run a guide on all inputs, in evaluation mode, and take the Gram matrices of its layers.

        Args:
            guide: a network, called with inputs alone.
            inputs: all n samples, images or tokens or what it takes.
            layers: which, as for `ActivationTap`; by default all with weights but the last.
            chunk: samples at a time.
            dtype: in which to keep the matrices. They are centred and scaled to a mean diagonal of one, so that half
                precision does not overflow.

        Raises:
            ValueError: an unknown layer; fewer than two inputs; activations that are not finite or are the same for
                all inputs, named by their layer.
        """
        if len(inputs) < 2:
            raise ValueError(f"inputs: {len(inputs)} were given; at least 2 are accepted")
        frozen = _Frozen(guide, layers)
        try:
            parts = [frozen(part) for part in inputs.split(chunk)]
        finally:
            frozen.remove()
        grams = {}
        for name in list(parts[0]):
            rows = torch.cat([part.pop(name).flatten(1) for part in parts])
            rows = rows.float() if torch.finfo(rows.dtype).bits < 32 else rows
            k = gram(rows)
            size = k.diagonal().sum()
            if not size.isfinite():
                raise ValueError(f"guide: the activations of {name!r} are not finite")
            if size <= len(rows) * (8 * torch.finfo(rows.dtype).eps) ** 2 * rows.mean(0).square().sum():
                raise ValueError(f"guide: the activations of {name!r} are the same for all inputs")
            grams[name] = k.mul_(len(rows) / size).to(dtype)
        return cls(grams)

    def batch(
        self, index: Int64[Tensor, " batch"], layers: Iterable[str] | None = None
    ) -> dict[str, Float[Tensor, "batch batch"]]:
        """The Gram matrices of some of the samples.

        Args:
            index: which, as whole numbers from 0 to n - 1, on the matrices' device.
            layers: of which layers; None for all.
        """
        columns = index.expand(len(index), -1)
        # Whole rows first, as memory is then read in order: a third of the time of picking entries one by one.
        return {
            name: self.grams[name].index_select(0, index).gather(1, columns)
            for name in (self.grams if layers is None else layers)
        }


def pair_evenly(target: Sequence[str], guide: Sequence[str]) -> list[tuple[str, str]]:
    """Give each layer of a guide a layer of a target, from first to last at even distances.

    Guide layer i of m goes to target layer ``round(i (n - 1) / (m - 1))`` of n; several may go to one. A single guide
    layer goes to the first.

    Args:
        target: names of the target's layers in the order in which they run.
        guide: those of the guide's.

    Returns:
        Pairs (target, guide), one for each guide layer.

    Raises:
        ValueError: no layers.
    """
    for argument, names in {"target": target, "guide": guide}.items():
        if not names:
            raise ValueError(f"{argument}: no layers were given; give at least one")
    places = (round(i * (len(target) - 1) / max(len(guide) - 1, 1)) for i in range(len(guide)))
    return [(target[place], name) for place, name in zip(places, guide)]


class _Frozen:
    """A network run for its activations alone: without gradients, in evaluation mode, left as it was."""

    def __init__(self, guide: nn.Module, layers: Layers) -> None:
        self._guide, self._all_but_last = guide, layers is None
        self._tap = ActivationTap(guide, layers, detach=True)
        self._tap.enabled = False

    def __call__(self, *inputs: Any, **keywords: Any) -> dict[str, Tensor]:
        training = [module for module in self._guide.modules() if module.training]
        self._guide.eval()
        self._tap.enabled = True
        try:
            with torch.no_grad():
                self._guide(*inputs, **keywords)
            found = self._tap.activations
        finally:
            self._tap.enabled = False
            self._tap.clear()
            for module in training:
                module.training = True
        if not self._all_but_last:
            return found
        return {name: found[name] for name in _all_but_last("guide", list(found))}

    def remove(self) -> None:
        self._tap.remove()


class _Stored:
    """The Gram matrices of some layers, by the indices of a batch."""

    def __init__(self, grams: GuideGrams, layers: Iterable[str] | None) -> None:
        self._grams, self._layers = grams, list(grams.grams if layers is None else layers)
        for name in self._layers:
            if name not in grams.grams:
                raise ValueError(f"there is no Gram matrix of a layer {name!r}.{suggest(name, grams.grams)}")

    def __call__(self, index: Tensor) -> dict[str, Tensor]:
        return self._grams.batch(index, self._layers)

    def remove(self) -> None:
        """Nothing to take out: no network is tapped."""


def _checked(pairs: Any) -> tuple[tuple[str, str], ...]:
    given = tuple(pairs)
    for pair in given:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise TypeError(f"pairs: {pair!r} was given; a pair (name in the target, name in the guide) is accepted")
    if not given:
        raise ValueError("pairs: the list is empty; give at least one pair of names")
    if len(set(map(tuple, given))) < len(given):
        raise ValueError("pairs: a pair is there twice; give each once")
    return tuple((ours, theirs) for ours, theirs in given)


def _all_but_last(whose: str, names: Sequence[str]) -> list[str]:
    if len(names) < 2:
        raise ValueError(
            f"pairs='even': the {whose} has one layer with weights, {names[0]!r}, and the last one is not paired; "
            "give pairs of names"
        )
    return list(names[:-1])


@contextmanager
def _argument(name: str) -> Iterator[None]:
    """Errors about layers, said of the argument they came from."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {str(error).removeprefix('layers: ')}") from None
