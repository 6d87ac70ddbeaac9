"""Item-label sequences: classification in context, with a dial for each property of the data.

A sequence is ``x_1 l_1 x_2 l_2 ... x_N l_N x_target``, and the label of the target is asked for. A network can answer
from the context, where the target's class has been shown with its label, or from its weights, where the class has had
the same label all through training. What the data are like decides which it learns: how bursty the contexts are, how
many classes there are and how often each, how much its items vary, whether classes are new.

`ItemLabelTask` draws whole batches on tensors, on the processor or a GPU, as many as are asked for::

    items = GaussianItems(2048, dim=63, noise=0.1, generator=generator)
    task = ItemLabelTask(items, labels=32, pairs=8, shots=2)
    batch = task.train(128, generator)                        # batch.items, batch.labels, batch.target
    tokens = encode(batch, label_vectors, positions=65, generator=generator)
    loss = cross_entropy(model(tokens), batch.target)         # your own model, your own loop

Source: Chan et al., NeurIPS 2022 (arXiv 2205.05055), section 2; Reddy, ICLR 2024 (arXiv 2312.03002), section 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

__all__ = [
    "ExemplarItems",
    "GaussianItems",
    "ItemLabelSequences",
    "ItemLabelTask",
    "Items",
    "Marginal",
    "context_label_accuracy",
    "encode",
    "in_context_accuracy",
    "in_context_ceiling",
    "in_weights_accuracy",
    "interleave",
    "nearest_exemplar",
]

_FEW = 256  # so many choices and fewer are drawn without replacement by sorting keys


class Marginal:
    """How often each class occurs: ``p(k)``, drawn from with and without replacement.

    Args:
        weights: non-negative, finite, not all zero; probabilities up to a factor.

    Attributes:
        probabilities: ``p``, in double precision.

    Raises:
        ValueError: other weights.
    """

    def __init__(self, weights: Float[Tensor, " classes"]) -> None:
        if weights.ndim != 1 or not bool(torch.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
            raise ValueError("weights: give one non-negative, finite number a class, not all of them zero")
        self.probabilities = weights.double() / weights.double().sum()
        self._cumulative = self.probabilities.cumsum(0)
        self._even = bool((weights == weights[0]).all())
        self._possible = int((weights > 0).sum())
        self._shares = [0.0, *self.probabilities.sort(descending=True).values.cumsum(0).tolist()]

    @classmethod
    def zipf(cls, classes: int, exponent: float = 0.0, device: torch.device | str | None = None) -> Marginal:
        """``p(k)`` proportional to ``(k + 1)^-exponent``: classes are numbered from the most to the least frequent.

        Args:
            classes: how many, at least 1.
            exponent: at least 0; 0 makes all equally frequent.
            device: where the marginal draws.

        Raises:
            ValueError: a number out of range.
        """
        _at_least("classes", classes, 1)
        if not (math.isfinite(exponent) and exponent >= 0):
            raise ValueError(f"exponent={exponent}: give a finite number of at least 0")
        return cls(torch.arange(1, classes + 1, dtype=torch.float64, device=device) ** -exponent)

    def __len__(self) -> int:
        return len(self.probabilities)

    def share_of_top(self, k: int) -> float:
        """Probability of the k most frequent classes together.

        Args:
            k: from 0 to the number of classes.

        Raises:
            ValueError: another number.
        """
        if not 0 <= k <= len(self):
            raise ValueError(f"k={k}: give 0 to {len(self)}, the classes")
        return self._shares[k]

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Int[Tensor, "*shape"]:
        """Independent draws.

        Args:
            shape: of the result.
            generator: on the marginal's device.
        """
        if self._even:
            return torch.randint(len(self), shape, generator=generator, device=generator.device)
        uniform = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
        return self._invert(uniform * self._cumulative[-1])

    def sample_other(self, than: Int[Tensor, " n"], count: int, generator: torch.Generator) -> Int[Tensor, "n count"]:
        """Independent draws given that they are not a certain class, a row of them for each such class.

        Args:
            than: the class that a row does not contain.
            count: draws a row.
            generator: on the marginal's device.
        """
        mass = self.probabilities[than, None]
        uniform = torch.rand(len(than), count, generator=generator, device=generator.device, dtype=torch.float64)
        uniform = uniform * (self._cumulative[-1] - mass)
        # The class's own stretch of the unit interval is cut out and the rest pushed together.
        uniform = torch.where(uniform >= self._cumulative[than, None] - mass, uniform + mass, uniform)
        found = self._invert(uniform)
        # At the edges of that stretch rounding may still give the class itself, once in 10^15 draws.
        return torch.where(found == than[:, None], (found + 1) % len(self), found)

    def distinct(self, n: int, count: int, generator: torch.Generator) -> Int[Tensor, "n count"]:
        """Rows of classes that differ, each drawn from what the marginal leaves once those before it are taken out.

        Args:
            n: rows.
            count: classes a row.
            generator: on the marginal's device.

        Raises:
            ValueError: more classes a row than have a positive probability.
        """
        if not 1 <= count <= self._possible:
            raise ValueError(f"count={count}: give 1 to {self._possible}, the classes there are")
        # On a GPU, asking how many repetitions are left would hold up every round.
        if len(self) <= _FEW or self.share_of_top(count - 1) > 0.5 or generator.device.type != "cpu":
            keys = torch.rand(n, len(self), generator=generator, device=generator.device)
            if not self._even:
                # Exponential times with these rates: the order of arrivals is the order of such draws.
                keys = keys.log_().neg_().div_(self.probabilities.float())
            return _order(keys)[:, :count] if len(self) <= _FEW else keys.topk(count, dim=1, largest=False).indices
        rows = self.sample((n, count), generator)
        earlier = torch.ones(count, count, dtype=torch.bool, device=rows.device).tril(-1)
        again = torch.arange(n, device=rows.device)
        while len(again):
            # Whatever follows the first repetition of a row is drawn anew, so what comes before it is final.
            kept = rows[again]
            repeated = ((kept[:, :, None] == kept[:, None, :]) & earlier).any(2).cumsum(1) > 0
            bad = repeated[:, -1]
            again, kept, repeated = again[bad], kept[bad], repeated[bad]
            rows[again] = torch.where(repeated, self.sample((len(again), count), generator), kept)
        return rows

    def _invert(self, uniform: Tensor) -> Tensor:
        return torch.searchsorted(self._cumulative, uniform, right=True).clamp_(max=len(self) - 1)


@runtime_checkable
class Items(Protocol):
    """What classes look like. Write your own to put other items into the sequences.

    Attributes:
        classes: those trained, numbered 0 .. classes - 1 from the most frequent.
        held_out: classes kept from training, numbered from `classes` on; None where new ones are made for every
            sequence.
        repeats: how many different items a class has at most in a sequence; None for no limit.
        device: where items are drawn.
    """

    classes: int
    held_out: int | None
    repeats: int | None

    @property
    def device(self) -> torch.device:
        """Where items are drawn."""

    def draw(
        self, classes: Int[Tensor, "n count"], generator: torch.Generator, *, fresh: int = 0
    ) -> Float[Tensor, "n count *shape"]:
        """An item of each class.

        Args:
            classes: class numbers of the items of each sequence.
            generator: on the items' device.
            fresh: how many classes are new in a sequence at most, where they are made for it: numbers from `classes`
                to ``classes + fresh - 1`` then stand for them, and mean another class in another sequence.
        """


class GaussianItems:
    """Clusters in R^D: ``x = (mu_k + noise eta) / sqrt(1 + noise^2)`` with ``mu_k`` and ``eta`` from ``N(0, I / D)``.

    Items of all classes have length about 1. New classes have a mean drawn for one sequence.

    Args:
        classes: trained classes, at least 1; their means are drawn here, once.
        dim: D, at least 1.
        noise: variation within a class, at least 0.
        generator: draws the means; its device is where items are drawn.

    Attributes:
        means: ``mu``.

    Raises:
        ValueError: a number out of range.

    Source: Reddy (arXiv 2312.03002), section 2.
    """

    held_out = None
    repeats = None

    def __init__(self, classes: int, dim: int = 63, noise: float = 0.1, *, generator: torch.Generator) -> None:
        _at_least("classes", classes, 1)
        _at_least("dim", dim, 1)
        _at_least("noise", noise, 0)
        self.classes, self.dim, self.noise = classes, dim, noise
        self.means = torch.randn(classes, dim, generator=generator, device=generator.device) / math.sqrt(dim)
        self._shrunk = self.means / math.sqrt(1 + noise**2)

    @property
    def device(self) -> torch.device:
        """Where items are drawn."""
        return self.means.device

    def draw(
        self, classes: Int[Tensor, "n count"], generator: torch.Generator, *, fresh: int = 0
    ) -> Float[Tensor, "n count dim"]:
        """An item of each class; arguments as for `Items`."""
        spread = 1 / math.sqrt(self.dim * (1 + self.noise**2))
        if not fresh:
            items = functional.embedding(classes, self._shrunk)
        elif self.device.type == "cpu" and int(classes.min()) < self.classes:
            # Of the sequences only some have new classes; means are drawn for those alone.
            items = functional.embedding(classes.clamp(max=self.classes - 1), self._shrunk)
            some = (classes.amax(1) >= self.classes).nonzero()[:, 0]
            theirs = classes[some]
            made = self._new(theirs, fresh, spread, generator)
            if len(some) and int(theirs.min()) < self.classes:
                made = torch.where((theirs >= self.classes)[..., None], made, items[some])
            items[some] = made
        else:
            items = self._new(classes, fresh, spread, generator)
            if self.device.type != "cpu":  # looking whether all classes are new would hold up the step
                trained = functional.embedding(classes.clamp(max=self.classes - 1), self._shrunk)
                items = torch.where((classes >= self.classes)[..., None], items, trained)
        if self.noise:
            items += torch.empty_like(items).normal_(0, self.noise * spread, generator=generator)
        return items

    def _new(self, classes: Tensor, fresh: int, spread: float, generator: torch.Generator) -> Tensor:
        """Means of new classes, `fresh` of them for each sequence."""
        n = len(classes)
        new = torch.empty(n * fresh, self.dim, device=self.device).normal_(0, spread, generator=generator)
        own = (classes - self.classes).clamp(min=0)
        return functional.embedding(own + fresh * torch.arange(n, device=self.device)[:, None], new)


class ExemplarItems:
    """Your own items: some exemplars of each class, as feature vectors, images or anything else of one shape.

    Args:
        exemplars: all classes' exemplars, finite; the trained classes come in the order of their frequency.
        held_out: numbers of the classes kept from training; none when left out.
        groups: a number for each class; those of a group (rotations of one character) are all trained or all held out.
        noise: standard deviation of normal noise added to every number of an item, at least 0.
        replace: whether an exemplar may occur twice in a sequence. Otherwise a class shows all its exemplars before one
            comes again, and tasks that would need more of them are refused.

    Raises:
        ValueError: exemplars that are not finite, class numbers out of range or twice, nothing left to train, a group
            on both sides, or a negative noise.

    Source: Chan et al. (arXiv 2205.05055), section 2 and appendix on the data.
    """

    def __init__(
        self,
        exemplars: Float[Tensor, "classes exemplars *shape"],
        *,
        held_out: Int[Tensor, " held_out"] | None = None,
        groups: Int[Tensor, " classes"] | None = None,
        noise: float = 0.0,
        replace: bool = False,
    ) -> None:
        total = len(exemplars)
        if exemplars.ndim < 2 or 0 in exemplars.shape or not bool(torch.isfinite(exemplars).all()):
            raise ValueError("exemplars: give finite numbers of shape (classes, exemplars, ...), at least one of each")
        _at_least("noise", noise, 0)
        aside = torch.zeros(total, dtype=torch.bool, device=exemplars.device)
        if held_out is not None:
            if held_out.numel() and not 0 <= int(held_out.min()) <= int(held_out.max()) < total:
                raise ValueError(f"held_out: there are classes 0 to {total - 1}, not {int(held_out.max())}")
            if len(held_out.unique()) != len(held_out):
                raise ValueError("held_out: a class is named twice")
            aside[held_out] = True
        if bool(aside.all()):
            raise ValueError(f"held_out: all {total} classes are held out; leave some to train")
        if groups is not None:
            if groups.shape != (total,):
                raise ValueError(f"groups of shape {tuple(groups.shape)}: give one number for each of {total} classes")
            both = set(groups[aside].tolist()) & set(groups[~aside].tolist())
            if both:
                raise ValueError(f"groups: {min(both)} has classes among the trained and among the held-out ones")
        self.exemplars = torch.cat([exemplars[~aside], exemplars[aside]])
        self.held_out: int | None = int(aside.sum())
        self.classes = total - self.held_out
        self.noise, self.replace = noise, replace
        self.repeats = None if replace else exemplars.shape[1]

    @property
    def device(self) -> torch.device:
        """Where items are drawn."""
        return self.exemplars.device

    def draw(
        self, classes: Int[Tensor, "n count"], generator: torch.Generator, *, fresh: int = 0
    ) -> Float[Tensor, "n count *shape"]:
        """An item of each class; arguments as for `Items`, `fresh` without effect."""
        n, count = classes.shape
        each = self.exemplars.shape[1]
        if each == 1:
            chosen = torch.zeros_like(classes)
        elif self.replace:
            chosen = torch.randint(each, (n, count), generator=generator, device=self.device)
        else:
            # Every class of a sequence has an order of its exemplars, kept where the class first occurs.
            same = classes[:, :, None] == classes[:, None, :]
            first = same.to(torch.uint8).argmax(2)
            before = same.tril(-1).sum(2)
            orders = torch.rand(n, count, each, generator=generator, device=self.device).argsort(2)
            chosen = orders[torch.arange(n, device=self.device)[:, None], first, before % each]
        items = self.exemplars.flatten(0, 1)[classes * each + chosen]
        if self.noise:
            items = items + self.noise * torch.randn(items.shape, generator=generator, device=self.device)
        return items


@dataclass(frozen=True)
class ItemLabelSequences:
    """A batch of sequences.

    Attributes:
        items: those of the context, and the target last.
        labels: of the context's items.
        target: the label asked for.
        classes: of the items; numbers from the number of trained classes on are new ones.
        novel: whether a sequence is made of new classes.
        bursty: whether the context was made to contain the target's class.
    """

    items: Float[Tensor, "n items *shape"]
    labels: Int[Tensor, "n pairs"]
    target: Int[Tensor, " n"]
    classes: Int[Tensor, "n items"]
    novel: Bool[Tensor, " n"]
    bursty: Bool[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.target)

    @property
    def matches(self) -> Bool[Tensor, "n pairs"]:
        """Which pairs of the context are of the target's class."""
        return self.classes[:, :-1] == self.classes[:, -1:]

    def permuted_labels(self, generator: torch.Generator) -> ItemLabelSequences:
        """The same with the context's labels in a random order: as bursty as before, but of no use.

        Args:
            generator: on the sequences' device.
        """
        order = torch.rand(self.labels.shape, generator=generator, device=generator.device).argsort(1)
        return replace(self, labels=self.labels.gather(1, order))


class ItemLabelTask:
    """Draws sequences for training and for three tests: in context, against a memory, and in weights.

    Class k owns the labels ``m k, ..., m k + m - 1`` (modulo the number of labels) for multiplicity m. A *bursty*
    sequence shows `ways` classes `shots` times each, in random order, and the target is of one of them; further pairs
    are of classes drawn from the marginal, as are all classes of a sequence that is not bursty, target included.

    Args:
        items: what classes look like.
        labels: how many labels there are; a multiple of the multiplicity and a divisor of classes times multiplicity,
            which it is when left out.
        pairs: N, the length of the context, at least 1.
        shots: copies of a class in a bursty context (burstiness), at least 1.
        ways: classes that are repeated so; as many as fill the context when left out.
        p_bursty: fraction of the sequences that are bursty, in [0, 1].
        p_novel: fraction of the sequences that are of new classes with labels drawn for the sequence, in [0, 1]; these
            are bursty.
        zipf_exponent: the k-th class is drawn in proportion to ``k^-exponent``, at least 0.
        multiplicity: m, labels that a class owns, at least 1; one of them is drawn for all copies in a sequence.
        distinct: what may not repeat among the ways of a sequence: ``"labels"``, ``"classes"``, or None.

    Raises:
        ValueError: a number out of range or numbers that do not go together, named.

    Source: Chan et al. (arXiv 2205.05055), section 2; Reddy (arXiv 2312.03002), section 2.
    """

    def __init__(
        self,
        items: Items,
        labels: int | None = None,
        *,
        pairs: int = 8,
        shots: int = 1,
        ways: int | None = None,
        p_bursty: float = 1.0,
        p_novel: float = 0.0,
        zipf_exponent: float = 0.0,
        multiplicity: int = 1,
        distinct: Literal["labels", "classes"] | None = "labels",
    ) -> None:
        for name, value in {"pairs": pairs, "shots": shots, "multiplicity": multiplicity}.items():
            _at_least(name, value, 1)
        for name, probability in {"p_bursty": p_bursty, "p_novel": p_novel}.items():
            if not 0 <= probability <= 1:
                raise ValueError(f"{name}={probability}: give a probability, from 0 to 1")
        if distinct not in ("labels", "classes", None):
            raise ValueError(f"distinct={distinct!r}: give 'labels', 'classes' or None")
        classes = items.classes
        owned = classes * multiplicity
        self.labels = owned if labels is None else labels
        if not 1 <= self.labels <= owned:
            raise ValueError(
                f"labels={self.labels}: give at most {owned}, {multiplicity} for each of {classes} classes"
            )
        if owned % self.labels:
            raise ValueError(f"labels={self.labels}: give a divisor of the {owned} that the classes own")
        if self.labels % multiplicity:
            raise ValueError(f"labels={self.labels}: give a multiple of multiplicity={multiplicity}")
        self.items, self.multiplicity, self.distinct = items, multiplicity, distinct
        self.pairs, self.p_bursty, self.p_novel = pairs, p_bursty, p_novel
        self.ways, self.shots = self._burst(ways, shots)
        self._patterns: dict[tuple[int, int], Tensor] = {}
        if p_novel:
            self._check_novel(self.ways, self.shots, self.labels)
        self.marginal = Marginal.zipf(classes, zipf_exponent, items.device)
        self._label_marginal = Marginal.zipf(self.labels, device=items.device)
        self._held_out = Marginal.zipf(items.held_out, device=items.device) if items.held_out else None
        self._groups = self.labels // multiplicity if distinct == "labels" else classes
        if distinct and self.ways > self._groups:
            raise ValueError(f"ways={self.ways}: there are only {self._groups} {distinct} to tell them apart")
        by_group = self.marginal.probabilities.view(-1, self._groups)
        self._group_marginal = Marginal(by_group.sum(0))
        # Which of a group's classes it is, by inverting the cumulative distribution among them; None where it is even.
        within = (by_group.cumsum(0) / by_group.sum(0)).T.contiguous()[:, :-1]
        self._within = within if zipf_exponent else None

    def train(self, n: int, generator: torch.Generator) -> ItemLabelSequences:
        """Sequences as in training.

        Args:
            n: how many, at least 1.
            generator: on the items' device.
        """
        if self.p_novel == 1:
            return self.in_context(n, generator)
        self._check(n, generator)
        device = generator.device
        novel = torch.rand(n, generator=generator, device=device) < self.p_novel
        bursty = (torch.rand(n, generator=generator, device=device) < self.p_bursty) | novel
        # Of a sequence that is not bursty every place is a slot of its own; its classes are independent draws.
        slots = self._slots(n, self.ways, self.shots, generator)
        slots = torch.where(bursty[:, None], slots, torch.arange(self.pairs + 1, device=device))
        classes = self.marginal.sample((n, self.pairs + 1), generator)
        classes[:, : self.ways] = torch.where(bursty[:, None], self._ways(n, generator), classes[:, : self.ways])
        labels = self._own_labels(classes, generator)
        if self.p_novel:
            new, new_labels = self._novel(n, self.ways, self._label_marginal, generator)
            classes = torch.where(novel[:, None], new, classes)
            labels = torch.where(novel[:, None], new_labels, labels)
        fresh = self._fresh(self.ways, self.shots) if self.p_novel else 0
        return self._assemble(slots, classes, labels, novel, bursty, generator, fresh)

    def in_context(
        self,
        n: int,
        generator: torch.Generator,
        *,
        ways: int | None = None,
        shots: int | None = None,
        labels: int | None = None,
    ) -> ItemLabelSequences:
        """Bursty sequences of new classes with labels drawn for each: only the context can tell the answer.

        Args:
            n: how many, at least 1.
            generator: on the items' device.
            ways: classes in the context, as in training when left out.
            shots: copies of each, as in training when left out.
            labels: the ways have different ones of the first so many labels; all labels when left out.

        Raises:
            ValueError: a number out of range, or no classes held out.
        """
        self._check(n, generator)
        if ways is None and shots is None:
            ways = self.ways
        ways, shots = self._burst(ways, self.shots if shots is None else shots)
        self._check_novel(ways, shots, self.labels if labels is None else labels)
        given = self._label_marginal if labels is None else Marginal.zipf(labels, device=generator.device)
        classes, own = self._novel(n, ways, given, generator)
        slots, yes = self._slots(n, ways, shots, generator), torch.ones(n, dtype=torch.bool, device=generator.device)
        return self._assemble(slots, classes, own, yes, yes, generator, self._fresh(ways, shots))

    def swapped(self, n: int, generator: torch.Generator) -> ItemLabelSequences:
        """Bursty sequences of trained classes, each label one further than in training: context against weights.

        The answer is the label that the context shows, ``(label + 1) mod labels``.

        Args:
            n: how many, at least 1.
            generator: on the items' device.
        """
        self._check(n, generator)
        classes = self.marginal.sample((n, self.pairs + 1), generator)
        classes[:, : self.ways] = self._ways(n, generator)
        labels = (self._own_labels(classes, generator) + 1) % self.labels
        slots = self._slots(n, self.ways, self.shots, generator)
        yes = torch.ones(n, dtype=torch.bool, device=classes.device)
        return self._assemble(slots, classes, labels, ~yes, yes, generator)

    def in_weights(
        self, n: int, generator: torch.Generator, *, ranks: tuple[int, int] | None = None
    ) -> ItemLabelSequences:
        """Sequences of trained classes without the target's class in the context: only weights can tell the answer.

        Args:
            n: how many, at least 1.
            generator: on the items' device.
            ranks: the target is one of the classes from the first to before the second number, in proportion to
                their frequencies; all when left out. ``(0, 10)`` are the ten most frequent.

        Raises:
            ValueError: a number out of range.
        """
        self._check(n, generator)
        classes = self.items.classes
        first, end = (0, classes) if ranks is None else ranks
        if not 0 <= first < end <= classes:
            raise ValueError(f"ranks={ranks}: give two numbers from 0 to {classes}, the first below the second")
        if classes < 2:
            raise ValueError("items: sequences without the target's class need 2 classes or more")
        targets = self.marginal if ranks is None else Marginal(self.marginal.probabilities[first:end])
        target = first + targets.sample((n,), generator)
        others = self.marginal.sample_other(target, self.pairs, generator)
        drawn = torch.cat([others, target[:, None]], 1)
        slots = torch.arange(self.pairs + 1, device=drawn.device).expand(n, -1)
        no = torch.zeros(n, dtype=torch.bool, device=drawn.device)
        return self._assemble(slots, drawn, self._own_labels(drawn, generator), no, no, generator)

    # A sequence has slots, each with a class and a label: the ways first, then one for every further pair. `slots`
    # says which of them stands at each place.

    def _slots(self, n: int, ways: int, shots: int, generator: torch.Generator) -> Tensor:
        pattern = self._patterns.get((ways, shots))
        if pattern is None:
            place = torch.arange(self.pairs, device=generator.device)
            pattern = torch.where(place < ways * shots, place // shots, place - ways * (shots - 1))
            self._patterns[ways, shots] = pattern
        keys = torch.rand(n, self.pairs, generator=generator, device=generator.device)
        target = torch.randint(ways, (n, 1), generator=generator, device=generator.device)
        return torch.cat([pattern[_order(keys)], target], 1)

    def _ways(self, n: int, generator: torch.Generator) -> Tensor:
        if self.distinct is None:
            return self.marginal.sample((n, self.ways), generator)
        group = self._group_marginal.distinct(n, self.ways, generator)
        if self._within is None:
            each = self.items.classes // self._groups
            which = torch.randint(each, group.shape, generator=generator, device=generator.device)
        else:
            uniform = torch.rand(*group.shape, 1, generator=generator, device=generator.device, dtype=torch.float64)
            which = (uniform >= self._within[group]).sum(-1)
        return group + self._groups * which

    def _own_labels(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        if self.multiplicity == 1:
            return classes % self.labels
        which = torch.randint(self.multiplicity, classes.shape, generator=generator, device=generator.device)
        return (classes * self.multiplicity + which) % self.labels

    def _novel(self, n: int, ways: int, labels: Marginal, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Classes and labels of the slots of sequences of new classes."""
        own = labels.sample((n, self.pairs + 1), generator)
        own[:, :ways] = labels.distinct(n, ways, generator)
        if self._held_out is None:
            return self.items.classes + torch.arange(self.pairs + 1, device=own.device).expand(n, -1), own
        classes = self._held_out.sample((n, self.pairs + 1), generator)
        if self.distinct:
            classes[:, :ways] = self._held_out.distinct(n, ways, generator)
        return self.items.classes + classes, own

    def _fresh(self, ways: int, shots: int) -> int:
        """Classes to be made for a sequence: one a slot in use."""
        return self.pairs - ways * (shots - 1) if self._held_out is None else 0

    def _assemble(
        self,
        slots: Tensor,
        classes: Tensor,
        labels: Tensor,
        novel: Tensor,
        bursty: Tensor,
        generator: torch.Generator,
        fresh: int = 0,
    ) -> ItemLabelSequences:
        classes, labels = classes.gather(1, slots), labels.gather(1, slots)
        items = self.items.draw(classes, generator, fresh=fresh)
        return ItemLabelSequences(items, labels[:, :-1], labels[:, -1], classes, novel, bursty)

    def _burst(self, ways: int | None, shots: int) -> tuple[int, int]:
        _at_least("shots", shots, 1)
        if ways is None:
            if self.pairs % shots or self.pairs == shots > 1:
                raise ValueError(f"shots={shots}: give a proper divisor of the {self.pairs} pairs, or name the ways")
            ways = self.pairs // shots
        if not 1 <= ways <= self.pairs // shots:
            raise ValueError(
                f"ways={ways}: {shots} shots of 1 to {self.pairs // shots} ways fit into {self.pairs} pairs"
            )
        if self.items.repeats is not None and shots + 1 > self.items.repeats:
            raise ValueError(f"shots={shots}: with the target that is {shots + 1} items of a class, and items has "
                             f"{self.items.repeats} exemplars; draw them with replace=True")  # fmt: skip
        return ways, shots

    def _check_novel(self, ways: int, shots: int, labels: int) -> None:
        if not 1 <= labels <= self.labels:
            raise ValueError(f"labels={labels}: give 1 to {self.labels}")
        if ways > labels:
            raise ValueError(f"ways={ways}: new classes have different labels, and there are {labels}")
        held_out = self.items.held_out
        if held_out is not None and held_out < (ways if self.distinct else 1):
            raise ValueError(f"ways={ways}: items holds out {held_out} classes")

    def _check(self, n: int, generator: torch.Generator) -> None:
        _at_least("n", n, 1)
        if generator.device.type != self.items.device.type:
            raise ValueError(f"generator: it is on {generator.device}, the items on {self.items.device}")


def interleave(
    items: Float[Tensor, "n items width"], labels: Float[Tensor, "n pairs width"]
) -> Float[Tensor, "n positions width"]:
    """``x_1 l_1 x_2 l_2 ... x_N l_N x_target``: items at even places, labels at odd ones.

    Args:
        items: embedded, one more than the labels.
        labels: embedded.

    Raises:
        ValueError: shapes that do not fit.
    """
    n, count, width = items.shape
    if labels.shape != (n, count - 1, width):
        raise ValueError(f"labels of shape {tuple(labels.shape)}: give {(n, count - 1, width)} for items of "
                         f"{tuple(items.shape)}")  # fmt: skip
    tokens = items.new_empty(n, 2 * count - 1, width)
    tokens[:, 0::2], tokens[:, 1::2] = items, labels
    return tokens


def encode(
    sequences: ItemLabelSequences,
    label_vectors: Float[Tensor, "labels width"],
    *,
    positions: int,
    generator: torch.Generator,
) -> Float[Tensor, "n tokens features"]:
    """Tokens ``[one-hot position, content]``, the sequence beginning at a position drawn uniformly from all that fit.

    Only what stands before or after what can be of use then, and not where it stands.

    Args:
        sequences: items are vectors.
        label_vectors: content of each label's token, as wide as items.
        positions: P, at least the 2N + 1 tokens.
        generator: draws where sequences begin; on their device.

    Returns:
        Vectors of ``P + width`` features: position and content.

    Raises:
        ValueError: too few positions, items that are no vectors as wide as labels, or labels out of range.

    Source: Reddy (arXiv 2312.03002), section 2.
    """
    items, labels = sequences.items, sequences.labels
    n, count = items.shape[:2]
    tokens, width = 2 * count - 1, label_vectors.shape[1]
    if tokens > positions:
        raise ValueError(f"positions={positions}: give at least {tokens}, the tokens of {count - 1} pairs and a target")
    if items.shape[2:] != (width,):
        raise ValueError(f"label_vectors of width {width}: items have shape {tuple(items.shape[2:])}; give the same")
    # On a GPU looking at the numbers would hold up the step.
    if labels.device.type == "cpu":
        least, most = map(int, labels.aminmax())
        if not 0 <= least <= most < len(label_vectors):
            raise ValueError(f"labels {least} to {most}: label_vectors has 0 to {len(label_vectors) - 1}")
    encoded = items.new_empty(n, tokens, positions + width)
    encoded[..., :positions] = 0
    encoded[:, 0::2, positions:] = items
    encoded[:, 1::2, positions:] = functional.embedding(labels, label_vectors)
    start = torch.randint(positions - tokens + 1, (n, 1), generator=generator, device=generator.device)
    place = start + torch.arange(tokens, device=items.device)
    return encoded.scatter_(2, place[..., None], 1.0)


def nearest_exemplar(sequences: ItemLabelSequences) -> Int[Tensor, " n"]:
    """The label of the context's item nearest to the target in Euclidean distance: what the context is good for.

    Args:
        sequences: items of any shape.
    """
    flat = sequences.items.flatten(2)
    nearest = (flat[:, :-1] - flat[:, -1:]).square().sum(2).argmin(1)
    return sequences.labels.gather(1, nearest[:, None])[:, 0]


def in_context_ceiling(held_out: int | None, ways: int = 2) -> float:
    """Best possible accuracy on `ways` classes drawn with replacement, each with a label of its own.

    Where the target's class was drawn ``c`` times it has c labels, and the best guess is right once in c; this is
    ``E[1 / c] = (1 - (1 - 1/H)^ways) H / ways``, for two ways ``1 - 1 / (2 H)``.

    Args:
        held_out: H, classes to draw from, or None for infinitely many (or ways that are distinct).
        ways: classes drawn.
    """
    return 1.0 if held_out is None else (1 - (1 - 1 / held_out) ** ways) * held_out / ways


def in_context_accuracy(
    logits: Float[Tensor, "n labels"], sequences: ItemLabelSequences, *, restrict: bool = False
) -> Float[Tensor, ""]:
    """Fraction of targets whose predicted label is the one that the context gives to their class.

    Args:
        logits: of the target's label.
        sequences: what was asked.
        restrict: predict the most likely one of the labels in the context only, so that chance is one over their
            number, even for a network that would name others.
    """
    if restrict:
        shown = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, sequences.labels, True)
        logits = logits.masked_fill(~shown, -torch.inf)
    return (logits.argmax(1) == sequences.target).float().mean()


def in_weights_accuracy(
    logits: Float[Tensor, "n labels"], sequences: ItemLabelSequences, *, multiplicity: int = 1
) -> Float[Tensor, ""]:
    """Fraction of targets whose predicted label is one of those that their class owns.

    Args:
        logits: of the target's label.
        sequences: what was asked.
        multiplicity: labels that a class owns.
    """
    return (logits.argmax(1) // multiplicity == sequences.target // multiplicity).float().mean()


def context_label_accuracy(logits: Float[Tensor, "n labels"], sequences: ItemLabelSequences) -> Float[Tensor, ""]:
    """Fraction of targets whose predicted label is some label of the context, right or wrong.

    Args:
        logits: of the target's label.
        sequences: what was asked.
    """
    return (sequences.labels == logits.argmax(1, keepdim=True)).any(1).float().mean()


def _order(keys: Tensor) -> Tensor:
    """Places of each row's numbers in ascending order. numpy sorts short rows several times as fast as torch."""
    return keys.argsort(1) if keys.device.type != "cpu" else torch.from_numpy(keys.numpy().argsort(1))


def _at_least(name: str, value: float, least: int) -> None:
    if not (math.isfinite(value) and value >= least):
        raise ValueError(f"{name}={value}: give a number of at least {least}")
