"""Function classes to be learnt in context, generated in batches: Boolean functions, and linear ones of real inputs.

A prompt is x_1, f(x_1), ..., x_m, f(x_m) for a function f drawn anew from a class; a model predicts every f(x_k) from
the pairs before it. Inputs and labels are -1 and +1. A class says how functions and their inputs are drawn, gives
labels, for some a *teaching sequence* that leaves one function of the class consistent, and lists all its functions
where that is possible, which makes the best possible prediction computable (`etude.in_context.BayesPredictor`).

Everything is drawn on the generator's device with no loop over prompts or points; the stream of prompts never ends.

Example:
    Train a model of your own on conjunctions::

        task, generator = Conjunctions(bits=8), torch.Generator().manual_seed(0)
        for step in range(1000):
            prompts = task.prompts(64, 24, generator)
            loss = soft_margin_loss(model(prompts.x, prompts.y), prompts.y)  # logits (64, 24)

Source: Bhattamishra, Patel, Blunsom and Kanade, ICLR 2024 (arXiv 2310.03016), section 3 and its appendix on tasks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

__all__ = [
    "CNF",
    "DNF",
    "Conjunctions",
    "Disjunctions",
    "FunctionClass",
    "IntegerHalfspaces",
    "LinearFunctions",
    "Majorities",
    "NearestNeighbourRule",
    "Parities",
    "Prompts",
    "SparseDisjunctions",
    "Thresholds",
    "unseen",
]


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts.

    Attributes:
        x: the inputs.
        y: their labels.
        parameters: which function each prompt is of; the class's `labels` takes them.
        prefix: how many of each prompt's first points are its teaching sequence.
    """

    x: Float[Tensor, "batch points dims"]
    y: Float[Tensor, "batch points"]
    parameters: Float[Tensor, "batch ..."]
    prefix: Int[Tensor, " batch"]


def unseen(x: Float[Tensor, "batch points dims"]) -> Bool[Tensor, "batch points"]:
    """True where no earlier point of the prompt is the same: where a label cannot just be looked up.

    Args:
        x: inputs of -1 and +1.
    """
    same = x @ x.mT == x.shape[-1]
    return ~same.tril(-1).any(-1)


class FunctionClass(ABC):
    """Functions, their inputs and their labels.

    `parameters` are a tensor whose first axis runs over functions. A class of your own defines `parameters`, `inputs`
    and `labels`; for exact Bayes also `count`, `enumerate` and, where inputs depend on the function, `input_ratio`.
    """

    scored_from: int = 0
    """The first point whose label can be predicted at all."""

    @abstractmethod
    def parameters(self, batch: int, generator: torch.Generator) -> Float[Tensor, "batch ..."]:
        """Draw functions."""

    @abstractmethod
    def inputs(
        self, parameters: Float[Tensor, "batch ..."], points: int, generator: torch.Generator
    ) -> Float[Tensor, "batch points dims"]:
        """Draw each function's inputs."""

    @abstractmethod
    def labels(
        self, parameters: Float[Tensor, "functions ..."], x: Float[Tensor, "*functions points dims"]
    ) -> Float[Tensor, "functions points"]:
        """Values of functions at inputs: of each at its own, or of all at the same (points, dims)."""

    def noisy(self, y: Float[Tensor, "batch points"], noise: float, generator: torch.Generator) -> Tensor:
        """Flip labels with probability `noise`."""
        return torch.where(_uniform(y.shape, generator) < noise, -y, y)

    def teaching(
        self, parameters: Float[Tensor, "batch ..."]
    ) -> tuple[Float[Tensor, "batch longest dims"], Int[Tensor, " batch"]]:
        """Inputs that teach each function, filled up to the class's longest, and how many there are.

        Args:
            parameters: the functions.

        Raises:
            ValueError: no teaching sequence is known for this class.
        """
        raise ValueError(f"taught: no teaching sequence is known for {self}")

    def count(self) -> int | None:
        """How many parameters `enumerate` lists; None if the class cannot be listed."""
        return None

    def enumerate(self) -> tuple[Float[Tensor, "functions ..."], Float[Tensor, " functions"]]:
        """All parameters, and the probabilities with which they are drawn (float64)."""
        raise ValueError(f"{self} cannot be enumerated")

    def input_ratio(
        self, parameters: Float[Tensor, "functions ..."], x: Float[Tensor, "points dims"]
    ) -> Float[Tensor, "functions points"] | None:
        """p(x | f) over the uniform probability, at all inputs for all functions; None where it is always one.

        Args:
            parameters: the functions.
            x: the inputs.
        """
        return None

    def prompts(
        self, batch: int, points: int, generator: torch.Generator, *, taught: float = 0.0, noise: float = 0.0
    ) -> Prompts:
        """Draw functions and a prompt of each.

        Args:
            batch: number of prompts, at least 1.
            points: inputs of each prompt, at least 1.
            generator: draws everything, on its device.
            taught: probability that a prompt begins with its function's teaching sequence, in [0, 1].
            noise: probability that a label is flipped, in [0, 1/2]; of linear functions, the standard deviation of
                the noise.

        Raises:
            ValueError: a number out of its range, or a teaching sequence that is unknown or longer than the prompt.
        """
        _check_count("batch", batch)
        return self.prompts_of(self.parameters(batch, generator), points, generator, taught=taught, noise=noise)

    def prompts_of(
        self,
        parameters: Float[Tensor, "batch ..."],
        points: int,
        generator: torch.Generator,
        *,
        taught: float = 0.0,
        noise: float = 0.0,
    ) -> Prompts:
        """A prompt of each of the given functions, as of a limited pool; other arguments as for `prompts`."""
        _check_count("points", points)
        _check_share("taught", taught)
        self._check_noise(noise)
        x = self.inputs(parameters, points, generator)
        prefix = torch.zeros(len(x), dtype=torch.long, device=x.device)
        if taught:
            lesson, length = self.teaching(parameters)
            if lesson.shape[1] > points:
                raise ValueError(
                    f"points={points}: teaching sequences of {self} have up to {lesson.shape[1]} points; "
                    "give at least as many"
                )
            prefix = torch.where(_uniform((len(x),), generator) < taught, length, 0)
            inside = torch.arange(points, device=x.device) < prefix[:, None]
            padded = torch.nn.functional.pad(lesson, (0, 0, 0, points - lesson.shape[1]))
            x = torch.where(inside[..., None], padded, x)
        y = self.labels(parameters, x)
        return Prompts(x, self.noisy(y, noise, generator) if noise else y, parameters, prefix)

    def _check_noise(self, noise: float) -> None:
        _check_share("noise", noise, most=0.5)


@dataclass(frozen=True)
class _NormalForm(FunctionClass):
    """Terms of literals: a disjunction of conjunctions, or, with inputs and labels negated, the reverse.

    With f' (x) = -f(-x), conjunctions become disjunctions and DNF becomes CNF, so one code computes both.
    """

    _sign: ClassVar[int] = 1
    bits: int

    @property
    def _terms(self) -> int:
        return 1

    def __post_init__(self) -> None:
        _check_count("bits", self.bits)
        for name in ("relevant", "forced"):
            if hasattr(self, name):
                _check_share(name, getattr(self, name))

    def parameters(self, batch: int, generator: torch.Generator) -> Float[Tensor, "batch terms bits"]:
        """Draw literals: +1 for a bit, -1 for its negation, 0 for neither, of shape (batch, terms, bits)."""
        shape = (batch, self._terms, self.bits)
        present = _uniform(shape, generator) < self.relevant
        return present * (_signs(shape, generator) if self.negated else torch.ones(shape, device=generator.device))

    def inputs(
        self, parameters: Float[Tensor, "batch terms bits"], points: int, generator: torch.Generator
    ) -> Float[Tensor, "batch points bits"]:
        """Uniform inputs, each with probability `forced` overwritten so as to satisfy (or falsify) a whole term.

        Of several terms, which are drawn alike, the first is the one.
        """
        x = _signs((len(parameters), points, self.bits), generator)
        term = parameters[:, :1]
        overwritten = (_uniform((len(parameters), points, 1), generator) < self.forced) & (term != 0)
        return torch.where(overwritten, self._sign * term, x)

    def labels(
        self, parameters: Float[Tensor, "functions terms bits"], x: Float[Tensor, "*functions points bits"]
    ) -> Float[Tensor, "functions points"]:
        """+1 where all literals of some term are true, for conjunctions and DNF; the dual for the others."""
        true = self._satisfied(parameters, x).any(1)
        return torch.where(true, self._sign, -self._sign).to(x.dtype)

    def input_ratio(
        self, parameters: Float[Tensor, "functions terms bits"], x: Float[Tensor, "points bits"]
    ) -> Float[Tensor, "functions points"]:
        """``1 - q + q 2^k [x satisfies the first term]`` for a term of k literals and q = `forced`."""
        size = parameters[:, 0].abs().sum(-1, keepdim=True).double()
        forced = self.forced
        return 1 - forced + forced * 2**size * self._satisfied(parameters[:, :1], x)[:, 0]

    def _satisfied(self, parameters: Tensor, x: Tensor) -> Bool[Tensor, "functions terms points"]:
        return self._sign * (parameters @ x.mT) == parameters.abs().sum(-1, keepdim=True)

    def teaching(
        self, parameters: Float[Tensor, "batch terms bits"]
    ) -> tuple[Float[Tensor, "batch longest bits"], Int[Tensor, " batch"]]:
        """For each term of k literals: it is true (all else false), then k times false by one literal alone.

        With negated literals a second true example, all else reversed, comes second. One term so taught is the only
        one consistent with its k + 1 (k + 2) examples. Filled up to `bits` + 1 (`bits` + 2) points a term.

        Args:
            parameters: literals, (batch, terms, bits).

        Raises:
            ValueError: several terms with negated literals, for which no sequence is known.

        Source: section 5 and the appendix on teaching sequences; Goldman and Kearns, JCSS 50 (1995).
        """
        if self._terms > 1 and self.negated:
            return super().teaching(parameters)
        relevant = parameters != 0
        size = relevant.sum(-1)
        base = torch.where(relevant, parameters, -1.0)
        # Row i of the negatives flips the i-th relevant bit; what follows the last of them is cut off below.
        order = relevant.int().argsort(dim=-1, descending=True, stable=True)
        flip = 1 - 2 * one_hot(order, self.bits).to(base.dtype)
        examples = [base[..., None, :], base[..., None, :] * flip]
        if self.negated:
            examples.insert(1, torch.where(relevant, parameters, 1.0)[..., None, :])
        lessons, first = torch.cat(examples, dim=-2), len(examples) - 1
        kept = torch.arange(lessons.shape[-2], device=size.device) < size[..., None] + first
        front = (~kept.flatten(1)).int().argsort(dim=1, stable=True)
        lessons = lessons.flatten(1, 2).gather(1, front[..., None].expand(-1, -1, self.bits))
        return self._sign * lessons, kept.sum((1, 2))

    def count(self) -> int:
        """Two or three values a bit of each term."""
        return (3 if self.negated else 2) ** (self.bits * self._terms)

    def enumerate(self) -> tuple[Float[Tensor, "functions terms bits"], Float[Tensor, " functions"]]:
        """All literals and their probabilities."""
        relevant, negated = self.relevant, self.negated
        every = _product([0.0, 1.0, -1.0] if negated else [0.0, 1.0], self.bits * self._terms)
        used = every.abs().sum(-1).double()
        prior = (relevant / (1 + negated)) ** used * (1 - relevant) ** (every.shape[1] - used)
        return every.unflatten(1, (self._terms, self.bits)), prior


@dataclass(frozen=True)
class Conjunctions(_NormalForm):
    """+1 where all literals of a random set are true; the empty set is true everywhere.

    Parameters are literals (functions, 1, bits): +1 for a bit, -1 for its negation, 0 for neither.

    Args:
        bits: of the inputs, at least 1.
        relevant: probability that a bit has a literal, in [0, 1].
        negated: whether half of the literals are negations; without, functions are monotone.
        forced: probability that an input is overwritten so that all literals are true, in [0, 1]. It balances the
            labels, and lets the inputs say something about the function.

    Raises:
        ValueError: a number out of range.
    """

    relevant: float = 0.3
    negated: bool = True
    forced: float = 0.3


@dataclass(frozen=True)
class Disjunctions(_NormalForm):
    """+1 where some literal of a random set is true; the empty set is false everywhere.

    Parameters are literals (functions, 1, bits): +1 for a bit, -1 for its negation, 0 for neither.

    Args:
        bits: of the inputs, at least 1.
        relevant: probability that a bit has a literal, in [0, 1].
        negated: whether half of the literals are negations; without, functions are monotone.
        forced: probability that an input is overwritten so that all literals are false, in [0, 1].

    Raises:
        ValueError: a number out of range.
    """

    _sign: ClassVar[int] = -1
    relevant: float = 0.3
    negated: bool = True
    forced: float = 0.3


@dataclass(frozen=True)
class SparseDisjunctions(_NormalForm):
    """+1 where some bit of a random set of given size is +1.

    Parameters are literals (functions, 1, bits), +1 for a bit of the set and 0 for others.

    Args:
        bits: of the inputs, at least 1.
        size: of the set, from 1 to `bits`.
        forced: probability that an input is overwritten so that all bits of the set are -1, in [0, 1].

    Raises:
        ValueError: a number out of range.
    """

    _sign: ClassVar[int] = -1
    negated: ClassVar[bool] = False
    size: int = 4
    forced: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count("size", self.size, most=self.bits)

    def parameters(self, batch: int, generator: torch.Generator) -> Float[Tensor, "batch terms bits"]:
        """Draw sets, of shape (batch, 1, bits)."""
        return _subsets(batch, self.bits, self.size, generator)[:, None]

    def count(self) -> int:
        """The number of sets."""
        return math.comb(self.bits, self.size)

    def enumerate(self) -> tuple[Float[Tensor, "functions terms bits"], Float[Tensor, " functions"]]:
        """All sets, equally probable."""
        return _evenly(_all_subsets(self.bits, self.size)[:, None])


@dataclass(frozen=True)
class DNF(_NormalForm):
    """A disjunction of conjunctions: +1 where all literals of some term are true.

    Parameters are literals (functions, terms, bits): +1 for a bit, -1 for its negation, 0 for neither.

    Args:
        bits: of the inputs, at least 1.
        terms: conjunctions, at least 1.
        relevant: probability that a bit has a literal in a term, in [0, 1].
        negated: whether half of the literals are negations; without, functions are monotone.
        forced: probability that an input is overwritten so that one term, the same throughout a prompt, is true.

    Raises:
        ValueError: a number out of range.
    """

    terms: int = 3
    relevant: float = 0.2
    negated: bool = True
    forced: float = 0.35

    @property
    def _terms(self) -> int:
        return self.terms

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count("terms", self.terms)


@dataclass(frozen=True)
class CNF(_NormalForm):
    """A conjunction of disjunctions: +1 where some literal of every clause is true.

    Parameters are literals (functions, clauses, bits): +1 for a bit, -1 for its negation, 0 for neither.

    Args:
        bits: of the inputs, at least 1.
        clauses: disjunctions, at least 1.
        relevant: probability that a bit has a literal in a clause, in [0, 1].
        negated: whether half of the literals are negations; without, functions are monotone.
        forced: probability that an input is overwritten so that one clause, the same throughout a prompt, is false.

    Raises:
        ValueError: a number out of range.
    """

    _sign: ClassVar[int] = -1
    clauses: int = 3
    relevant: float = 0.2
    negated: bool = True
    forced: float = 0.3

    @property
    def _terms(self) -> int:
        return self.clauses

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count("clauses", self.clauses)


@dataclass(frozen=True)
class _Halfspace(FunctionClass):
    """``sign(w . x - b)`` at uniform inputs; parameters are (functions, bits + 1), the weights and then b."""

    bits: int

    def __post_init__(self) -> None:
        _check_count("bits", self.bits)
        if hasattr(self, "relevant"):
            _check_share("relevant", self.relevant)

    def inputs(
        self, parameters: Float[Tensor, "batch _"], points: int, generator: torch.Generator
    ) -> Float[Tensor, "batch points bits"]:
        """Uniform inputs."""
        return _signs((len(parameters), points, self.bits), generator)

    def labels(
        self, parameters: Float[Tensor, "functions _"], x: Float[Tensor, "*functions points bits"]
    ) -> Float[Tensor, "functions points"]:
        """``sign(w . x - b)``; b is a half-integer, so that nothing lies on the boundary."""
        product = (parameters[:, None, :-1] @ x.mT)[:, 0]
        return torch.where(product > parameters[:, -1:], 1.0, -1.0).to(x.dtype)


@dataclass(frozen=True)
class Majorities(_Halfspace):
    """Whether most bits of a random set are +1: ``sign(w . x - 1/2)`` with w_i = 1 with probability `relevant`, else 0.

    Parameters are (functions, bits + 1), the weights and 1/2.

    Args:
        bits: of the inputs, at least 1.
        relevant: probability that a bit is in the set, in [0, 1].

    Raises:
        ValueError: a number out of range.
    """

    relevant: float = 0.3

    def parameters(self, batch: int, generator: torch.Generator) -> Float[Tensor, "batch _"]:
        """Draw sets."""
        return _with_bias((_uniform((batch, self.bits), generator) < self.relevant).float())

    def count(self) -> int:
        """The number of sets."""
        return 2**self.bits

    def enumerate(self) -> tuple[Float[Tensor, "functions _"], Float[Tensor, " functions"]]:
        """All sets and their probabilities."""
        every = _product([0.0, 1.0], self.bits)
        used = every.sum(-1).double()
        return _with_bias(every), self.relevant**used * (1 - self.relevant) ** (self.bits - used)


@dataclass(frozen=True)
class Thresholds(_Halfspace):
    """Whether enough of some literals are true: ``sign(w . x - b - 1/2)``.

    Weights are as those of conjunctions, b uniform in -3 ... 2. Parameters are (functions, bits + 1), the weights and
    b + 1/2.

    Args:
        bits: of the inputs, at least 1.
        relevant: probability that a weight is +1 or -1 rather than 0, in [0, 1].

    Raises:
        ValueError: a number out of range.
    """

    relevant: float = 0.3

    def parameters(self, batch: int, generator: torch.Generator) -> Float[Tensor, "batch _"]:
        """Draw weights and thresholds."""
        shape = (batch, self.bits)
        weights = (_uniform(shape, generator) < self.relevant) * _signs(shape, generator)
        bias = torch.randint(-3, 3, (batch, 1), generator=generator, device=generator.device)
        return torch.cat([weights, bias + 0.5], dim=1)

    def count(self) -> int:
        """Three values a bit, six thresholds."""
        return 6 * 3**self.bits

    def enumerate(self) -> tuple[Float[Tensor, "functions _"], Float[Tensor, " functions"]]:
        """All weights with all thresholds, and their probabilities."""
        every = _product([0.0, 1.0, -1.0], self.bits)
        used = every.abs().sum(-1).double()
        prior = (self.relevant / 2) ** used * (1 - self.relevant) ** (self.bits - used) / 6
        bias = torch.arange(-3, 3)[:, None, None].expand(6, len(every), 1) + 0.5
        return torch.cat([every.expand(6, -1, -1), bias], dim=-1).flatten(0, 1), prior.repeat(6)


@dataclass(frozen=True)
class IntegerHalfspaces(_Halfspace):
    """``sign(w . x - 1/2)`` with weights uniform in -largest ... largest.

    Parameters are (functions, bits + 1), the weights and 1/2.

    Args:
        bits: of the inputs, at least 1.
        largest: weight, at least 1.

    Raises:
        ValueError: a number out of range.
    """

    largest: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_count("largest", self.largest)

    def parameters(self, batch: int, generator: torch.Generator) -> Float[Tensor, "batch _"]:
        """Draw weights."""
        ends = (-self.largest, self.largest + 1)
        return _with_bias(
            torch.randint(*ends, (batch, self.bits), generator=generator, device=generator.device).float()
        )

    def count(self) -> int:
        """``(2 largest + 1) ** bits``."""
        return (2 * self.largest + 1) ** self.bits

    def enumerate(self) -> tuple[Float[Tensor, "functions _"], Float[Tensor, " functions"]]:
        """All weights, equally probable."""
        return _evenly(_with_bias(_product([float(w) for w in range(-self.largest, self.largest + 1)], self.bits)))


@dataclass(frozen=True)
class Parities(FunctionClass):
    """+1 where an odd number of the bits of a random set are +1.

    Parameters are (functions, bits), 1 for a bit of the set and 0 for others. Inputs are uniform.

    Args:
        bits: of the inputs, at least 1.
        size: of the set, from 1 to `bits`; any set, the empty one too, when left out.

    Raises:
        ValueError: a number out of range.
    """

    bits: int
    size: int | None = None

    def __post_init__(self) -> None:
        _check_count("bits", self.bits)
        if self.size is not None:
            _check_count("size", self.size, most=self.bits)

    def parameters(self, batch: int, generator: torch.Generator) -> Float[Tensor, "batch bits"]:
        """Draw sets."""
        if self.size is None:
            return (_uniform((batch, self.bits), generator) < 0.5).float()
        return _subsets(batch, self.bits, self.size, generator)

    def inputs(
        self, parameters: Float[Tensor, "batch bits"], points: int, generator: torch.Generator
    ) -> Float[Tensor, "batch points bits"]:
        """Uniform inputs."""
        return _signs((len(parameters), points, self.bits), generator)

    def labels(
        self, parameters: Float[Tensor, "functions bits"], x: Float[Tensor, "*functions points bits"]
    ) -> Float[Tensor, "functions points"]:
        """+1 for an odd number."""
        number = (parameters[:, None] @ (x > 0).to(parameters.dtype).mT)[:, 0]
        return 2 * (number % 2).to(x.dtype) - 1

    def teaching(
        self, parameters: Float[Tensor, "batch bits"]
    ) -> tuple[Float[Tensor, "batch longest bits"], Int[Tensor, " batch"]]:
        """Points with a single +1: at each bit of a set whose size is known, otherwise at each bit.

        Args:
            parameters: sets, (batch, bits).
        """
        shown = self.bits if self.size is None else self.size
        order = (parameters > 0).int().argsort(dim=1, descending=True, stable=True)[:, :shown]
        if self.size is None:
            order = order.sort(dim=1).values
        length = torch.full((len(parameters),), shown, device=parameters.device)
        return 2 * one_hot(order, self.bits).to(parameters.dtype) - 1, length

    def count(self) -> int:
        """The number of sets."""
        return 2**self.bits if self.size is None else math.comb(self.bits, self.size)

    def enumerate(self) -> tuple[Float[Tensor, "functions bits"], Float[Tensor, " functions"]]:
        """All sets, equally probable."""
        return _evenly(_product([0.0, 1.0], self.bits) if self.size is None else _all_subsets(self.bits, self.size))


@dataclass(frozen=True)
class NearestNeighbourRule(FunctionClass):
    """The label of the nearest earlier point, after `free` points with random labels.

    A free point that repeats an earlier one repeats its label; of equally near points the earliest counts. Parameters
    are the random labels, (functions, free). Inputs are uniform. Labels depend on the order of the inputs.

    Args:
        bits: of the inputs, at least 1.
        free: points with random labels, at least 1; they cannot be predicted and are not to be scored.

    Raises:
        ValueError: a number out of range.
    """

    bits: int
    free: int = 8

    def __post_init__(self) -> None:
        _check_count("bits", self.bits)
        _check_count("free", self.free)

    @property
    def scored_from(self) -> int:
        """The first point after the free ones."""
        return self.free

    def parameters(self, batch: int, generator: torch.Generator) -> Float[Tensor, "batch free"]:
        """Draw labels of the free points."""
        return _signs((batch, self.free), generator)

    def inputs(
        self, parameters: Float[Tensor, "batch free"], points: int, generator: torch.Generator
    ) -> Float[Tensor, "batch points bits"]:
        """Uniform inputs.

        Raises:
            ValueError: no more points than free ones.
        """
        _check_count("points", points, least=self.free + 1)
        return _signs((len(parameters), points, self.bits), generator)

    def labels(
        self, parameters: Float[Tensor, "functions free"], x: Float[Tensor, "*functions points bits"]
    ) -> Float[Tensor, "functions points"]:
        """Every point follows the chain of nearest earlier points to a free one."""
        x = x.expand(len(parameters), -1, -1)
        place = torch.arange(x.shape[1], device=x.device)
        similarity = (x @ x.mT).masked_fill(place[:, None] <= place, -torch.inf)
        best = similarity.max(-1)  # the first of equals
        stays = (place < self.free) & (best.values < self.bits)
        chain = torch.where(stays, place, best.indices)
        for _ in range(math.ceil(math.log2(x.shape[1])) if x.shape[1] > 1 else 0):
            chain = chain.gather(1, chain)  # twice as far with every step
        return parameters.to(x.dtype).gather(1, chain)


@dataclass(frozen=True)
class LinearFunctions(FunctionClass):
    """``w . x`` with w and x standard normal.

    Parameters are w, (functions, dims).

    Args:
        dims: of the inputs, at least 1.

    Raises:
        ValueError: a number out of range.

    Source: Garg, Tsipras, Liang and Valiant, NeurIPS 2022 (arXiv 2208.01066), section 3.
    """

    dims: int

    def __post_init__(self) -> None:
        _check_count("dims", self.dims)

    def parameters(self, batch: int, generator: torch.Generator) -> Float[Tensor, "batch dims"]:
        """Draw weights."""
        return torch.randn(batch, self.dims, generator=generator, device=generator.device)

    def inputs(
        self, parameters: Float[Tensor, "batch dims"], points: int, generator: torch.Generator
    ) -> Float[Tensor, "batch points dims"]:
        """Standard normal inputs."""
        return torch.randn(len(parameters), points, self.dims, generator=generator, device=generator.device)

    def labels(
        self, parameters: Float[Tensor, "functions dims"], x: Float[Tensor, "*functions points dims"]
    ) -> Float[Tensor, "functions points"]:
        """Inner products."""
        return (parameters[:, None].to(x.dtype) @ x.mT)[:, 0]

    def noisy(self, y: Float[Tensor, "batch points"], noise: float, generator: torch.Generator) -> Tensor:
        """Add normal noise of standard deviation `noise`."""
        return y + noise * torch.randn(y.shape, generator=generator, device=y.device)

    def _check_noise(self, noise: float) -> None:
        _check_share("noise", noise, most=math.inf)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return 2 * torch.randint(2, shape, generator=generator, device=generator.device, dtype=torch.float32) - 1


def _subsets(batch: int, bits: int, size: int, generator: torch.Generator) -> Float[Tensor, "batch bits"]:
    chosen = _uniform((batch, bits), generator).topk(size, dim=1).indices
    return torch.zeros(batch, bits, device=chosen.device).scatter_(1, chosen, 1.0)


def _all_subsets(bits: int, size: int) -> Float[Tensor, "subsets bits"]:
    return one_hot(torch.tensor(list(combinations(range(bits), size))), bits).sum(1).float()


def _product(values: list[float], places: int) -> Float[Tensor, "all places"]:
    """All sequences of so many of the values."""
    return torch.cartesian_prod(*[torch.tensor(values)] * places).reshape(-1, places)


def _evenly(parameters: Tensor) -> tuple[Tensor, Float[Tensor, " functions"]]:
    return parameters, torch.full((len(parameters),), 1 / len(parameters), dtype=torch.float64)


def _with_bias(weights: Float[Tensor, "functions bits"]) -> Float[Tensor, "functions _"]:
    return torch.nn.functional.pad(weights, (0, 1), value=0.5)


def _check_count(name: str, value: int, *, least: int = 1, most: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        accepted = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name}={value!r}: give a whole number {accepted}")


def _check_share(name: str, value: float, *, most: float = 1.0) -> None:
    if not 0 <= value <= most or value == math.inf:
        accepted = "of at least 0" if most == math.inf else f"in [0, {most:g}]"
        raise ValueError(f"{name}={value!r}: give a number {accepted}")
