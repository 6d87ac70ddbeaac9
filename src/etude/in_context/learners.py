"""Learners with nothing to train beforehand, to stand beside a model that learns in context.

A learner takes the inputs and labels of a batch of prompts and gives a score at every point from the pairs before it:
the sign is the predicted label, 0 (no opinion) counts as -1. Nothing here sees a point's own label. `BayesPredictor` is
the ceiling: no predictor of the same class is right more often.

Example:
    How far a model is from the best possible::

        expected = BayesPredictor(task)(prompts.x, prompts.y)
        regret = excess_error(model(prompts.x, prompts.y), expected)  # (batch, points), never negative

Source: Bhattamishra, Patel, Blunsom and Kanade, ICLR 2024 (arXiv 2310.03016), baselines of section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad, soft_margin_loss

from etude.in_context.functions import FunctionClass

__all__ = [
    "Averaging",
    "BayesPredictor",
    "EliminationLearner",
    "MajorityVote",
    "NearestNeighbour",
    "ParitySolver",
    "PerPromptNetwork",
    "RidgeRegression",
    "excess_error",
    "predicted",
]

_PAIRS = 2**22  # (prompt, function) pairs held at once


def predicted(scores: Float[Tensor, "batch points"]) -> Float[Tensor, "batch points"]:
    """The labels that scores predict: +1 where positive, else -1.

    Args:
        scores: logits, expected labels or votes.
    """
    return torch.where(scores > 0, 1.0, -1.0)


def excess_error(
    scores: Float[Tensor, "batch points"], expected: Float[Tensor, "batch points"]
) -> Float[Tensor, "batch points"]:
    """How much likelier than the best prediction a prediction is wrong: ``|E y|`` where they differ, else 0.

    The mean over prompts is the error above Bayes', with less noise than a difference of counted errors.

    Args:
        scores: of the model or learner; the signs are its predictions.
        expected: E[y | what came before], from `BayesPredictor`.
    """
    return expected.abs() * (predicted(scores) != predicted(expected))


class BayesPredictor:
    """The expected label of each point under the exact posterior, by listing every function of a class.

    With the prior p(f) and the probability p(x | f) of an input, the posterior after k pairs is proportional to
    ``p(f) prod_i p(x_i | f) [f(x_i) = y_i]``, and E[y_k] is the mean of f(x_k) under it with p(x_k | f) included:
    where a class overwrites inputs to satisfy its function, inputs tell of the function even before their labels.
    Its sign is the prediction that is right most often.

    Args:
        task: a class of functions of -1 and +1 that can be enumerated.
        memory: bytes that the table of all labels may take, at least 1.

    Raises:
        ValueError: a class that cannot be enumerated, or whose table does not fit; the message has the numbers.
    """

    def __init__(self, task: FunctionClass, memory: float = 2e9) -> None:
        count, bits = task.count(), getattr(task, "bits", None)
        if count is None or bits is None:
            raise ValueError(f"task: {task} cannot be enumerated; give a class of Boolean functions that can")
        if not memory >= 1:
            raise ValueError(f"memory={memory!r}: give a number of bytes of at least 1")
        probe = torch.ones(1, bits)
        uniform = task.input_ratio(task.parameters(1, torch.Generator()), probe) is None
        needed = count * 2**bits * (1 if uniform else 9)
        if needed > memory:
            raise ValueError(
                f"task: {count:,} functions at {2**bits:,} inputs take {needed:,} bytes, more than memory={memory:,.0f}"
            )
        self.task, self.bits = task, bits
        parameters, self.prior = task.enumerate()
        inputs = (torch.arange(2**bits)[:, None] >> torch.arange(bits)) % 2 * 2.0 - 1
        self.positive = torch.empty(2**bits, count, dtype=torch.bool)
        self.ratio = None if uniform else torch.empty(2**bits, count, dtype=torch.float64)
        block = max(1, _PAIRS // 2**bits)
        for start in range(0, count, block):
            part = slice(start, start + block)
            self.positive[:, part] = (task.labels(parameters[part], inputs) > 0).T
            if self.ratio is not None:
                self.ratio[:, part] = task.input_ratio(parameters[part], inputs).T

    def to(self, device: torch.device | str) -> BayesPredictor:
        """Move the tables to a device, in place."""
        self.prior, self.positive = self.prior.to(device), self.positive.to(device)
        self.ratio = None if self.ratio is None else self.ratio.to(device)
        return self

    def __call__(
        self, x: Float[Tensor, "batch points bits"], y: Float[Tensor, "batch points"]
    ) -> Float[Tensor, "batch points"]:
        """E[y_k | x_1, y_1, ..., x_k] in [-1, 1], float64.

        Args:
            x: inputs of -1 and +1.
            y: labels of -1 and +1.

        Raises:
            ValueError: other values, a wrong number of bits, or labels that no function of the class gives.
        """
        _check(x, y)
        codes = self._codes(x)
        block = max(1, _PAIRS // len(self.prior))
        parts = [
            self._block(c, y > 0, first * block) for first, (c, y) in enumerate(zip(codes.split(block), y.split(block)))
        ]
        return torch.cat(parts)

    def inputs_alone(self, x: Float[Tensor, "batch points bits"]) -> Float[Tensor, " batch"]:
        """E[y_m | x_1, ..., x_m] of the last point, with no label seen: what the inputs' distribution gives away.

        Args:
            x: inputs of -1 and +1.

        Raises:
            ValueError: other values or a wrong number of bits.
        """
        codes = self._codes(x)
        log = self.prior.log().repeat(len(x), 1)
        if self.ratio is not None:
            for code in codes.T:
                log = log + self.ratio[code].log()
        signs = 2.0 * self.positive[codes[:, -1]] - 1
        return (log.softmax(1) * signs).sum(1)

    def _codes(self, x: Tensor) -> Int[Tensor, "batch points"]:
        if x.shape[-1] != self.bits:
            raise ValueError(f"x has {x.shape[-1]} bits; the functions have {self.bits}")
        if not bool((x.abs() == 1).all()):
            raise ValueError("x: there are values other than -1 and +1")
        return ((x > 0).long() << torch.arange(self.bits, device=x.device)).sum(-1)

    def _block(self, codes: Tensor, y: Bool[Tensor, "batch points"], first: int) -> Float[Tensor, "batch points"]:
        """Keep the consistent (prompt, function) pairs only: their number falls with every label."""
        batch, points = codes.shape
        functions = len(self.prior)
        prompt = torch.arange(batch, device=codes.device).repeat_interleave(functions)
        function = torch.arange(functions, device=codes.device).repeat(batch)
        weight = self.prior.repeat(batch)
        expected = []
        for k in range(points):
            at = codes[prompt, k] * functions + function
            if self.ratio is not None:
                weight = weight * self.ratio.view(-1)[at]
            positive = self.positive.view(-1)[at]
            zeros = weight.new_zeros(batch)
            for_positive = zeros.index_add(0, prompt, weight * positive)
            for_negative = zeros.index_add(0, prompt, weight * ~positive)
            expected.append((for_positive - for_negative) / (for_positive + for_negative))
            likelihood = torch.where(y[:, k], for_positive, for_negative)
            if not bool((likelihood > 0).all()):
                row = first + int((likelihood <= 0).nonzero()[0])
                raise ValueError(f"y: no function of {self.task} gives the first {k + 1} labels of prompt {row}")
            kept = (positive == y[prompt, k]).nonzero()[:, 0]
            prompt, function = prompt[kept], function[kept]
            weight = weight[kept] / likelihood[prompt]
        return torch.stack(expected, dim=1)


@dataclass(frozen=True)
class EliminationLearner:
    """The most specific conjunction of literals that agrees with the positive examples (or the dual disjunction).

    It begins with all literals and drops those that some positive example violates. On conjunctions (without label
    noise) it is never wrong where it predicts +1, and on disjunctions where it predicts -1; it ignores what the
    distribution of inputs tells.

    Args:
        of: ``"conjunctions"`` or ``"disjunctions"``.

    Raises:
        ValueError: another class.

    Source: Valiant, CACM 27 (1984), section 5.
    """

    of: Literal["conjunctions", "disjunctions"] = "conjunctions"

    def __post_init__(self) -> None:
        if self.of not in ("conjunctions", "disjunctions"):
            raise ValueError(f"of={self.of!r}: give 'conjunctions' or 'disjunctions'")

    def __call__(
        self, x: Float[Tensor, "batch points bits"], y: Float[Tensor, "batch points"]
    ) -> Float[Tensor, "batch points"]:
        """+1 or -1.

        Args:
            x: inputs of -1 and +1.
            y: labels of -1 and +1.

        Raises:
            ValueError: other labels.
        """
        _check(x, y)
        sign = 1 if self.of == "conjunctions" else -1
        literals = torch.cat([sign * x, -sign * x], dim=-1)
        violated = (literals < 0) & (sign * y > 0)[..., None]
        dropped = _before(violated.to(x.dtype)).cumsum(1) > 0
        true = (dropped | (literals > 0)).all(-1)
        return torch.where(true, 1.0, -1.0) * sign


@dataclass(frozen=True)
class ParitySolver:
    """Gaussian elimination over GF(2): the label where it follows from the pairs before, else 0.

    For parities of any set, drawn uniformly, this is the exact expected label.
    """

    def __call__(
        self, x: Float[Tensor, "batch points bits"], y: Float[Tensor, "batch points"]
    ) -> Float[Tensor, "batch points"]:
        """+1, -1, or 0 where both labels are consistent.

        Args:
            x: inputs of -1 and +1.
            y: labels of -1 and +1.

        Raises:
            ValueError: other labels.
        """
        _check(x, y)
        batch, points, bits = x.shape
        vectors, labels = x > 0, y > 0
        # Row i has its first one at bit i, or is all zero; the last column is the label's.
        rows = torch.zeros(batch, bits, bits + 1, dtype=torch.bool, device=x.device)
        scores = []
        for k in range(points):
            residual = pad(vectors[:, k], (0, 1))
            for i in range(bits):
                residual = residual ^ (rows[:, i] & residual[:, i : i + 1])
            known = ~residual[:, :bits].any(1)
            scores.append(torch.where(known, residual[:, bits] * 2.0 - 1, 0.0))
            residual[:, bits] ^= labels[:, k]
            lead = residual[:, :bits].int().argmax(1)
            rows[torch.arange(batch, device=x.device), lead] |= residual & ~known[:, None]
        return torch.stack(scores, dim=1)


@dataclass(frozen=True)
class NearestNeighbour:
    """The mean label of the k nearest earlier points by cosine; of equally near ones the earlier are taken.

    Args:
        k: neighbours, at least 1; fewer at the beginning, none at the first point.

    Raises:
        ValueError: a number out of range.
    """

    k: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise ValueError(f"k={self.k!r}: give a whole number of at least 1")

    def __call__(
        self, x: Float[Tensor, "batch points dims"], y: Float[Tensor, "batch points"]
    ) -> Float[Tensor, "batch points"]:
        """The mean label, in [-1, 1].

        Args:
            x: inputs.
            y: labels of -1 and +1.

        Raises:
            ValueError: other labels.
        """
        _check(x, y)
        similarity = x @ x.mT
        if not bool((x.abs() == 1).all()):  # products of signs are exact, so ties stay ties
            norm = x.norm(dim=-1)
            similarity = similarity / (norm[:, None] * norm[..., None])
        place = torch.arange(x.shape[1], device=x.device)
        similarity = similarity.masked_fill(place[:, None] <= place, -torch.inf)
        order = similarity.sort(dim=-1, descending=True, stable=True).indices[..., : self.k]
        labels = y[:, None].expand(-1, x.shape[1], -1).gather(2, order)
        there = order < place[:, None]
        return (labels * there).sum(-1) / there.sum(-1).clamp(min=1)


@dataclass(frozen=True)
class Averaging:
    """``w . x_k`` with w the mean of y_i x_i over the points before: one step of a linear model's gradient descent."""

    def __call__(
        self, x: Float[Tensor, "batch points dims"], y: Float[Tensor, "batch points"]
    ) -> Float[Tensor, "batch points"]:
        """Inner products.

        Args:
            x: inputs.
            y: labels of -1 and +1.

        Raises:
            ValueError: other labels.
        """
        _check(x, y)
        sums = _before(y[..., None] * x).cumsum(1)
        return (sums * x).sum(-1) / torch.arange(x.shape[1], device=x.device).clamp(min=1)


@dataclass(frozen=True)
class MajorityVote:
    """The mean label of the points before, whatever their inputs."""

    def __call__(
        self, x: Float[Tensor, "batch points dims"], y: Float[Tensor, "batch points"]
    ) -> Float[Tensor, "batch points"]:
        """Means in [-1, 1].

        Args:
            x: inputs, which are not read.
            y: labels of -1 and +1.

        Raises:
            ValueError: other labels.
        """
        _check(x, y)
        return _before(y).cumsum(1) / torch.arange(y.shape[1], device=y.device).clamp(min=1)


@dataclass(frozen=True)
class RidgeRegression:
    """``x_k . (X^T X + s^2 I)^-1 X^T y`` from the pairs before: the exact posterior mean of `LinearFunctions`.

    Without noise the least solution of least norm.

    Args:
        noise: standard deviation s of the noise of labels, at least 0.

    Raises:
        ValueError: a number out of range.
    """

    noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.noise < math.inf:
            raise ValueError(f"noise={self.noise!r}: give a number of at least 0")

    def __call__(
        self, x: Float[Tensor, "batch points dims"], y: Float[Tensor, "batch points"]
    ) -> Float[Tensor, "batch points"]:
        """Predictions.

        Args:
            x: inputs.
            y: labels, any real numbers.
        """
        products = _before(x[..., :, None] * x[..., None, :]).cumsum(1)
        targets = _before(y[..., None] * x).cumsum(1)
        if self.noise:
            products = products + self.noise**2 * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
            weights = torch.linalg.solve(products, targets)
        else:
            weights = (torch.linalg.pinv(products, hermitian=True) @ targets[..., None])[..., 0]
        return (weights * x).sum(-1)


@dataclass(frozen=True)
class PerPromptNetwork:
    """A network of two hidden layers (ReLU) trained from scratch on the pairs before each point, all prompts at once.

    Full-batch Adam on the logistic loss.

    Args:
        last: how many of the last points are predicted; the scores of others are 0.
        units: of each hidden layer.
        steps: of training.
        learning_rate: Adam's.
        seed: draws the initial weights: uniform within one over the square root of the inputs, torch's default.

    Raises:
        ValueError: a number out of range.

    Source: section 3, baselines; its code's feed-forward learner.
    """

    last: int = 1
    units: int = 100
    steps: int = 100
    learning_rate: float = 5e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("last", "units", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: give a whole number of at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate={self.learning_rate!r}: give a positive number")

    def __call__(
        self, x: Float[Tensor, "batch points dims"], y: Float[Tensor, "batch points"]
    ) -> Float[Tensor, "batch points"]:
        """Logits.

        Args:
            x: inputs.
            y: labels of -1 and +1.

        Raises:
            ValueError: other labels, or no more points than `last`.
        """
        _check(x, y)
        batch, points, dims = x.shape
        if self.last >= points:
            raise ValueError(f"last={self.last}: give less than the {points} points of a prompt")
        generator = torch.Generator(x.device).manual_seed(self.seed)
        sizes = [dims, self.units, self.units, 1]
        layers = []
        for inputs, outputs in pairwise(sizes):
            for shape in ((inputs, outputs), (1, outputs)):
                drawn = torch.rand(batch * self.last, *shape, generator=generator, device=x.device, dtype=x.dtype)
                layers.append(((2 * drawn - 1) / math.sqrt(inputs)).requires_grad_())

        def network(h: Tensor) -> Float[Tensor, "networks points"]:
            for weight, bias in zip(layers[:-2:2], layers[1:-2:2]):
                h = torch.baddbmm(bias, h, weight).relu()
            return torch.baddbmm(layers[-1], h, layers[-2])[..., 0]

        # One network a prompt and predicted point; each sees its prompt's pairs up to that point.
        place = torch.arange(points, device=x.device)
        seen = (place < place[-self.last :, None]).to(x.dtype)
        share = (seen / seen.sum(1, keepdim=True)).repeat(batch, 1)
        inputs, labels = x.repeat_interleave(self.last, 0), y.repeat_interleave(self.last, 0)
        with torch.enable_grad():
            descent = torch.optim.Adam(layers, lr=self.learning_rate)
            for _ in range(self.steps):
                loss = (share * soft_margin_loss(network(inputs), labels, reduction="none")).sum()
                descent.zero_grad()
                loss.backward()
                descent.step()
        with torch.no_grad():
            logits = network(x[:, -self.last :].flatten(0, 1)[:, None])
        return pad(logits.view(batch, self.last), (points - self.last, 0))


def _before(values: Float[Tensor, "batch points *rest"]) -> Float[Tensor, "batch points *rest"]:
    """Shifted by one point, so that a cumulative sum is over the points before."""
    return torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], dim=1)


def _check(x: Tensor, y: Tensor) -> None:
    if x.shape[:-1] != y.shape:
        raise ValueError(f"y of shape {tuple(y.shape)} does not fit x of shape {tuple(x.shape)}")
    if not bool((y.abs() == 1).all()):
        raise ValueError(f"y: there are labels in [{y.min():g}, {y.max():g}]; labels of -1 and +1 are accepted")
