"""What judges are swayed by, what width and depth of a jury bring, and the ranking that verdicts amount to.

Every quantity comes with a bootstrap interval over comparisons. Winners are integers: 1 for the first response of a
comparison, 2 for the second, 0 for a tie, -1 where there is no verdict; `winners_of` takes them from verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from etude.errors import MissingExtra
from etude.language.juries import Verdict
from etude.language.voting import majority_chances

RESAMPLES = 1_000


class Interval(NamedTuple):
    """An estimate with its percentile bootstrap interval of 95 %.

    Attributes:
        value: the estimate.
        low: lower end.
        high: upper end.
        n: comparisons it rests on.
    """

    value: float
    low: float
    high: float
    n: int


class PositionBias(NamedTuple):
    """How far the order of the responses decides.

    Attributes:
        first: share of decided judgments that prefer the response shown first; 1/2 without bias.
        agreement: share of comparisons with the same winner in both orders.
    """

    first: Interval
    agreement: Interval


class Depth(NamedTuple):
    """What one layer of a jury says by itself.

    Attributes:
        layer: its number, from 1.
        accuracy: share of comparisons whose winner by this layer's reviews is the right one.
        agreement: share of pairs of reviews with the same winner in both orders.
    """

    layer: int
    accuracy: Interval
    agreement: Interval


def winners_of(verdicts: Sequence[Verdict | None]) -> Int[np.ndarray, " n"]:
    """The winners as integers, -1 where there is none.

    Args:
        verdicts: of `WideDeep.judge_many`.
    """
    return np.array([-1 if v is None or v.winner is None else v.winner for v in verdicts])


def position_bias(winners: Int[np.ndarray, "n 2"], *, seed: int = 0) -> PositionBias:
    """How often the response shown first is preferred, and how often both orders agree.

    Args:
        winners: with the first response shown first (column 0), and with the second shown first (column 1).
        seed: of the resamples.

    Raises:
        ValueError: another shape or other values, or no comparison was decided in both orders.
    """
    _check_winners(winners, 2)
    first = np.where(winners > 0, winners == np.array([1, 2]), np.nan).astype(float)
    same = np.where((winners >= 0).all(1), winners[:, 0] == winners[:, 1], np.nan).astype(float)
    return PositionBias(*(_bootstrap(lambda i, v=v: float(np.nanmean(v[i])), len(v), seed) for v in (first, same)))


def verbosity_bias(
    winners: Int[np.ndarray, " n"],
    first: Sequence[str],
    second: Sequence[str],
    gold: Int[np.ndarray, " n"] | None = None,
    *,
    seed: int = 0,
) -> Interval:
    """The logit of preferring the longer response: ``log(w / s)``, w and s how often the longer, the shorter one won.

    One half is added to each count, so that the logit is finite. Ties and responses of equal length do not count.

    Args:
        winners: one a comparison.
        first: the first responses.
        second: the second responses.
        gold: the right winners; the logit of their preferring the longer one, over the same comparisons, is then
            taken off, since a longer answer may well be the better one.
        seed: of the resamples.

    Raises:
        ValueError: lengths that differ, other values, or no comparison that counts.
    """
    _check_winners(winners, 1)
    if not len(winners) == len(first) == len(second) == (len(winners) if gold is None else len(gold)):
        raise ValueError(f"winners, first, second, gold: {len(winners)} winners; as many of each are accepted")
    longer = np.array([len(a) for a in first]) - np.array([len(b) for b in second])
    counts = (longer != 0) & (winners > 0) & (True if gold is None else gold > 0)
    if not counts.any():
        raise ValueError("winners: no comparison has a winner and responses of different length")
    longer = np.where(longer > 0, 1, 2)[counts]

    def logit(chosen: np.ndarray) -> float:
        won = int((winners[counts][chosen] == longer[chosen]).sum())
        value = np.log((won + 0.5) / (len(chosen) - won + 0.5))
        if gold is not None:
            right = int((gold[counts][chosen] == longer[chosen]).sum())
            value -= np.log((right + 0.5) / (len(chosen) - right + 0.5))
        return float(value)

    return _bootstrap(logit, len(longer), seed)


def width_curve(
    votes: Int[np.ndarray, "items judges"],
    gold: Int[np.ndarray, " items"],
    sizes: Sequence[int],
    *,
    generator: np.random.Generator,
    draws: int = 100,
    missing: int = -1,
) -> list[Interval]:
    """Accuracy of the majority of so many judges, each comparison with judges drawn anew.

    Args:
        votes: labels, and `missing`; as for `majority_chances`.
        gold: the right labels.
        sizes: numbers of judges.
        generator: draws the judges.
        draws: how often.
        missing: what stands for no vote.

    Returns:
        One interval a size.
    """
    chances = majority_chances(votes, gold, sizes, generator=generator, draws=draws, missing=missing)
    return [_bootstrap(lambda i, c=column: float(c[i].mean()), len(column)) for column in chances.T]


def depth_curve(verdicts: Sequence[Verdict], gold: Int[np.ndarray, " n"], *, seed: int = 0) -> list[Depth]:
    """What each layer says by itself: does another round of review help, or only agree?

    Args:
        verdicts: of a jury.
        gold: the right winners, one a verdict.
        seed: of the resamples.

    Raises:
        ValueError: no verdict has a review, or not one right winner a verdict.
    """
    if len(verdicts) != len(gold):
        raise ValueError(f"gold: {len(gold)} were given for {len(verdicts)} verdicts; one each is accepted")
    layers = sorted({review.layer for verdict in verdicts for review in verdict.reviews})
    if not layers:
        raise ValueError("verdicts: none has a review")
    found = []
    for layer in layers:
        right, same = np.full(len(verdicts), np.nan), np.full(len(verdicts), np.nan)
        for place, verdict in enumerate(verdicts):
            reviews = [review for review in verdict.reviews if review.layer == layer]
            if reviews:
                margin = sum(review.margin for review in reviews)
                right[place] = (1 if margin > 0 else 2 if margin < 0 else 0) == gold[place]
            orders = [[r.margin for r in reviews if r.order == order] for order in (0, 1)]
            if orders[0] and len(orders[0]) == len(orders[1]):
                same[place] = np.mean([np.sign(one) == np.sign(other) for one, other in zip(*orders)])
        parts = (_bootstrap(lambda i, v=v: float(np.nanmean(v[i])), len(v), seed) for v in (right, same))
        found.append(Depth(layer, *parts))
    return found


def bradley_terry(
    first: Sequence[str],
    second: Sequence[str],
    winners: Int[np.ndarray, " n"],
    *,
    prior: float = 0.01,
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, Interval]:
    """How good each of several systems is, by verdicts on pairs: ``P(i beats j) = 1 / (1 + exp(s_j - s_i))``.

    A tie is half a victory of each. The fit is choix's.

    Args:
        first: the system behind each comparison's first response.
        second: the system behind its second response.
        winners: the verdicts; comparisons without one (-1) do not count.
        prior: rate added to every pair, so that a system that always wins has a finite strength.
        resamples: of the comparisons, for the intervals.
        seed: of the resamples.

    Returns:
        Strengths that sum to 0, the strongest first.

    Raises:
        MissingExtra: choix is not installed.
        ValueError: lengths that differ, other values, a system compared with itself, or no verdict.
    """
    _check_winners(winners, 1)
    if not len(first) == len(second) == len(winners):
        raise ValueError(f"first, second, winners: {len(first)}, {len(second)}, {len(winners)}; as many are accepted")
    names = sorted({*first, *second})
    one, other = (np.array([names.index(name) for name in side], dtype=int) for side in (first, second))
    if (one == other).any():
        raise ValueError(f"first, second: {names[one[one == other][0]]!r} is compared with itself")
    judged = winners >= 0
    if not judged.any():
        raise ValueError("winners: there is no verdict; at least one is accepted")
    try:
        import choix
    except ImportError as error:
        raise MissingExtra("Ranking needs choix", "Install it: pip install 'etude[judges]'") from error
    one, other = one[judged], other[judged]
    share = np.select([winners[judged] == 1, winners[judged] == 2], [1.0, 0.0], 0.5)

    def strengths(chosen: np.ndarray) -> np.ndarray:
        won = np.zeros((len(names), len(names)))
        np.add.at(won, (one[chosen], other[chosen]), share[chosen])
        np.add.at(won, (other[chosen], one[chosen]), 1 - share[chosen])
        return np.asarray(choix.ilsr_pairwise_dense(won, alpha=prior, max_iter=1_000))

    fitted, generator = strengths(np.arange(len(one))), np.random.default_rng(seed)
    again = np.array([strengths(generator.integers(0, len(one), len(one))) for _ in range(resamples)])
    low, high = np.quantile(again, [0.025, 0.975], axis=0)
    counts = np.bincount(np.r_[one, other], minlength=len(names))
    found = {names[i]: Interval(*map(float, (fitted[i], low[i], high[i])), int(counts[i])) for i in range(len(names))}
    return dict(sorted(found.items(), key=lambda pair: -pair[1].value))


def _bootstrap(statistic: Callable[[np.ndarray], float], n: int, seed: int = 0) -> Interval:
    generator = np.random.default_rng(seed)
    value = statistic(np.arange(n))
    if np.isnan(value):
        raise ValueError("winners: there is nothing to count: no comparison was decided")
    drawn = [statistic(generator.integers(0, n, n)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Interval(value, float(low), float(high), n)


def _check_winners(winners: np.ndarray, dimensions: int) -> None:
    shape = "(n,)" if dimensions == 1 else "(n, 2)"
    if winners.ndim != dimensions or not len(winners) or (dimensions == 2 and winners.shape[1] != 2):
        raise ValueError(f"winners: shape {winners.shape} was given; {shape} with at least one row is accepted")
    if not np.isin(winners, [-1, 0, 1, 2]).all():
        raise ValueError("winners: values other than 1, 2, 0 (a tie) and -1 (no verdict) are among them")
