"""What attention heads look at, and how abruptly a learning curve rises.

A head's score is the attention it pays to given *targets*, a boolean mask of (query, position) pairs: the previous
position, what followed an earlier occurrence, the label of the same item. What the targets are tells heads apart; the
score is the same for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from etude.nn import ngram_attention

__all__ = [
    "Transition",
    "chance_corrected",
    "head_score",
    "nearest_neighbour_labels",
    "ngram_followers",
    "previous_position",
    "transition",
]


def head_score(
    attention: Float[Tensor, "batch heads queries positions"],
    targets: Bool[Tensor, "#batch queries positions"],
) -> Float[Tensor, " heads"]:
    """Attention on the targets, summed over positions and averaged over the queries that have any.

    Args:
        attention: weights of one layer; each query's sum to 1.
        targets: true where the head would look if it did what it is tested for; one mask for all examples will do.

    Returns:
        One number in [0, 1] a head.

    Raises:
        ValueError: no query has a target, or the shapes do not fit.

    Source: Olsson et al., In-context Learning and Induction Heads, 2022, "head activation evaluators".
    """
    if targets.ndim != 3 or targets.shape[1:] != attention.shape[2:] or targets.shape[0] not in (1, len(attention)):
        raise ValueError(f"targets of shape {tuple(targets.shape)} do not fit attention of {tuple(attention.shape)}")
    asked = targets.any(-1).expand(len(attention), -1)
    if not bool(asked.any()):
        raise ValueError("targets: no query has any; give at least one")
    found = (attention * targets[:, None]).sum(-1)
    return (found * asked[:, None]).sum((0, 2)) / asked.sum()


def previous_position(
    positions: int, device: torch.device | str | None = None
) -> Bool[Tensor, "1 positions positions"]:
    """Targets of a previous-token head: each position but the first looks at the one before it.

    Args:
        positions: length of the sequence.
        device: of the mask.
    """
    return torch.ones(positions - 1, dtype=torch.bool, device=device).diag(-1)[None]


@dataclass(frozen=True)
class Transition:
    """How a learning curve gets from one level to another.

    Attributes:
        onset: the step at which the curve first reaches a fifth of the way and does not fall below it again before
            `end`; NaN if it never gets to four fifths.
        middle: the step at which it crosses half of the way, after `onset`.
        end: the first step at which it reaches four fifths of the way.
    """

    onset: float
    middle: float
    end: float

    @property
    def width(self) -> float:
        """Steps from a fifth to four fifths of the way."""
        return self.end - self.onset


def transition(
    steps: Float[Tensor, " evaluations"], values: Float[Tensor, " evaluations"], low: float, high: float
) -> Transition:
    """When and how abruptly one curve rises from a level to another; crossings are interpolated linearly.

    Made for single runs: a mean over runs that jump at different times is not abrupt.

    Args:
        steps: where the curve was evaluated, increasing.
        values: the curve there.
        low: the level it starts from, such as the plateau's.
        high: the level it goes to, above `low`.

    Raises:
        ValueError: `high` not above `low`, or steps and values that do not fit or are not in order.
    """
    if not high > low:
        raise ValueError(f"high={high}: give a level above low={low}")
    if steps.shape != values.shape or steps.ndim != 1 or not len(steps) or not bool((steps.diff() > 0).all()):
        raise ValueError(f"steps and values: give as many of both, the steps increasing, not {tuple(steps.shape)} and "
                         f"{tuple(values.shape)}")  # fmt: skip
    steps, share = steps.double(), (values.double() - low) / (high - low)
    reached = (share >= 0.8).nonzero()
    if not len(reached):
        return Transition(float("nan"), float("nan"), float("nan"))
    last = int(reached[0])

    def crossing(level: float) -> float:
        below = (share[: last + 1] < level).nonzero()
        if not len(below):
            return float(steps[0])
        left = int(below[-1])  # the last evaluation below the level, so that a brief excursion is no onset
        part = (level - share[left]) / (share[left + 1] - share[left])
        return float(steps[left] + part * (steps[left + 1] - steps[left]))

    return Transition(crossing(0.2), crossing(0.5), crossing(0.8))


def nearest_neighbour_labels(
    x: Float[Tensor, "batch points dims"], start: int = 1
) -> Bool[Tensor, "batch positions positions"]:
    """Targets of a nearest-neighbour head, where x and y take turns and the last y is left out (`PromptModel`).

    Each x looks at the y of the most similar earlier x by cosine; of several equally similar ones, at all.

    Args:
        x: inputs of the prompts.
        start: the first point that looks back, at least 1.

    Raises:
        ValueError: fewer than two points, or a start that is not one of the later points.

    Source: Bhattamishra et al., ICLR 2024 (arXiv 2310.03016), "nearest neighbour score".
    """
    batch, points, _ = x.shape
    if not 1 <= start < points:
        raise ValueError(f"start={start}: give a number from 1 to {points - 1}, the points but the first")
    unit = torch.nn.functional.normalize(x.double(), dim=-1)
    place = torch.arange(points, device=x.device)
    similarity = (unit @ unit.mT).masked_fill(place[:, None] <= place, -torch.inf)
    nearest = similarity >= similarity.amax(-1, keepdim=True) - 1e-9  # equal but for rounding
    nearest &= (place[:, None] > place) & (place[:, None] >= start)
    targets = torch.zeros(batch, 2 * points - 1, 2 * points - 1, dtype=torch.bool, device=x.device)
    targets[:, ::2, 1::2] = nearest[:, :, :-1]
    return targets


def ngram_followers(
    tokens: Int[Tensor, "batch positions"], order: int = 1
) -> Bool[Tensor, "batch positions positions"]:
    """Targets of an n-gram head: what followed earlier occurrences of the last `order` tokens.

    Of order 1 they are an induction head's (prefix matching).

    Args:
        tokens: token numbers.
        order: how many tokens are compared, at least 1.
    """
    return ngram_attention(tokens, order) > 0


def chance_corrected(
    scores: Float[Tensor, " heads"], targets: Bool[Tensor, "#batch queries positions"]
) -> Float[Tensor, " heads"]:
    """``(score - chance) / (1 - chance)``: 0 for attention spread evenly over the past, 1 for nothing but targets.

    Where tokens are few, many positions are targets, and a head that looks at nothing in particular scores high.

    Args:
        scores: of `head_score`, from causal attention of all positions.
        targets: the ones they were computed with.

    Raises:
        ValueError: targets of fewer queries than positions, or no query has any.
    """
    if targets.shape[-2] != targets.shape[-1]:
        raise ValueError(f"targets of shape {tuple(targets.shape)}: give those of all positions, as many queries")
    even = torch.ones(targets.shape[-2:], dtype=scores.dtype, device=scores.device).tril()
    even = (even / even.sum(-1, keepdim=True)).expand(len(targets), 1, -1, -1)
    chance = head_score(even, targets)
    return (scores - chance) / (1 - chance)
