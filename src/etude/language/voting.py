"""Votes: the majority and how it grows, weights, and how far voters agree with the truth and with each other.

Votes are integers, one row an item and one column a voter (or a sample of one model): labels 0, 1, ... and -1 where
there is none, as after an answer that could not be read. ``vote_table`` makes such rows from a list of judgments.

Example:
    Five samples of a model on each item::

        from etude.language import majority_vote
        votes = np.array([[0, 1, 1, -1, 1], [2, 0, 0, 2, -1]])
        majority_vote(votes, ties="first")      # array([1, 2]): of 2 and 0, 2 was cast first
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from etude.errors import MissingExtra

Ties = Literal["first", "none"]


class VoteTable(NamedTuple):
    """Judgments as rows of votes.

    Attributes:
        votes: one row an item and one column a judge; `missing` where a judge said nothing of an item.
        items: what names each row.
        judges: what names each column.
    """

    votes: Int[np.ndarray, "items judges"]
    items: np.ndarray
    judges: np.ndarray


class McNemar(NamedTuple):
    """McNemar's exact test of two judges on the same items.

    Attributes:
        only_first: items that only the first is right about.
        only_second: items that only the second is right about.
        p: two-sided probability, if both are equally often right alone, of a split at least as uneven.
    """

    only_first: int
    only_second: int
    p: float


class DawidSkene(NamedTuple):
    """Labels and judges as the model of Dawid and Skene explains the votes.

    Attributes:
        labels: the most probable label of each item, -1 for an item without a vote.
        probabilities: those of each label; rows without a vote are NaN.
        confusion: of each judge, the probability of a vote (last axis) given the true label.
        prior: the share of each label.
    """

    labels: Int[np.ndarray, " items"]
    probabilities: Float[np.ndarray, "items labels"]
    confusion: Float[np.ndarray, "judges labels labels"]
    prior: Float[np.ndarray, " labels"]


def vote_table(
    items: Sequence[Hashable] | np.ndarray,
    judges: Sequence[Hashable] | np.ndarray,
    labels: Int[np.ndarray, " judgments"],
    *,
    missing: int = -1,
) -> VoteTable:
    """Judgments, listed one by one, as one row an item and one column a judge.

    Args:
        items: the item of each judgment.
        judges: its judge.
        labels: its label, from 0, or `missing`.
        missing: the label that stands for no vote, also where a judge never judged an item.

    Returns:
        The votes, items and judges in ascending order.

    Raises:
        ValueError: the lengths differ or are 0, or a judge judged an item twice.
    """
    import pandas as pd

    if not len(items) == len(judges) == len(labels) > 0:
        raise ValueError(
            f"items, judges, labels: {len(items)}, {len(judges)} and {len(labels)} were given; "
            "as many of each, at least one, are accepted"
        )
    (rows, names), (columns, voters) = (pd.factorize(np.asarray(keys), sort=True) for keys in (items, judges))
    if (rows < 0).any() or (columns < 0).any():
        raise ValueError("items, judges: some judgments lack their item or judge; every one needs both")
    votes = np.full((len(names), len(voters)), missing, dtype=np.int64)
    votes[rows, columns] = labels
    taken = np.zeros(votes.shape, dtype=np.int64)
    np.add.at(taken, (rows, columns), 1)
    if (taken > 1).any():
        row, column = np.argwhere(taken > 1)[0]
        raise ValueError(
            f"items: {names[row]} is judged {taken[row, column]} times by {voters[column]}; once each is accepted"
        )
    return VoteTable(votes, np.asarray(names), np.asarray(voters))


def majority_vote(
    votes: Int[np.ndarray, "items votes"],
    *,
    missing: int = -1,
    ties: Ties = "first",
    weights: Float[np.ndarray, " votes"] | None = None,
) -> Int[np.ndarray, " items"]:
    """The label with most votes, or with the greatest sum of weights: ``argmax_c sum_j w_j [v_ij = c]``.

    Args:
        votes: labels from 0, and `missing`.
        missing: what stands for no vote.
        ties: ``"first"`` takes, of the labels that tie, the one voted for first (so that, with voters in random
            order, ties are broken at random); ``"none"`` gives -1.
        weights: one a column, also negative ones (a vote against); 1 each when left out.

    Returns:
        The winners, -1 where there is no vote.

    Raises:
        TypeError: the votes are no integers.
        ValueError: no item or no vote, a label below 0, or weights of another number or not finite.
    """
    cast = _cast(votes, missing)
    if ties not in ("first", "none"):
        raise ValueError(f"ties={ties!r}: give 'first' or 'none'")
    if weights is not None and (weights.shape != votes.shape[1:] or not np.isfinite(weights).all()):
        raise ValueError(
            f"weights: shape {weights.shape} was given; one finite number for each of the {votes.shape[1]} votes "
            "of an item is accepted"
        )
    scores = _scores(votes, cast, weights)
    best = scores.max(1, keepdims=True)
    # Sums of the same weights in another order may differ by rounding, and still tie.
    tied = scores == best if weights is None else np.isclose(scores, best, rtol=1e-12, atol=1e-12)
    if ties == "none":
        return np.where(cast.any(1) & (tied.sum(1) == 1), tied.argmax(1), -1)
    for_tied = np.take_along_axis(tied, np.where(cast, votes, 0), 1) & cast
    first = np.take_along_axis(votes, for_tied.argmax(1)[:, None], 1)[:, 0]
    return np.where(for_tied.any(1), first, np.where(cast.any(1), tied.argmax(1), -1))


def majority_chances(
    votes: Int[np.ndarray, "items votes"],
    gold: Int[np.ndarray, " items"],
    sizes: Sequence[int],
    *,
    generator: np.random.Generator,
    draws: int = 100,
    missing: int = -1,
    ties: Ties = "first",
) -> Float[np.ndarray, "items sizes"]:
    """Each item's chance of a right majority among so many of its votes, drawn without replacement.

    A draw puts every item's votes into an order of their own and judges the first of them, so that the sizes of a
    draw are nested. Votes that are missing are drawn like any other; an item without a majority counts as wrong.

    Args:
        votes: labels from 0, and `missing`.
        gold: the right labels.
        sizes: how many votes, each from 1 to all.
        generator: draws the orders.
        draws: how many orders; where all votes are taken one is enough, but for ties.
        missing: what stands for no vote.
        ties: as for `majority_vote`.

    Returns:
        Shares of draws with the right majority.

    Raises:
        TypeError: the votes are no integers.
        ValueError: as for `majority_vote`; or a size out of range, `draws` below 1, or not one gold label an item.
    """
    _cast(votes, missing)
    _check_gold(votes, gold)
    if not sizes or min(sizes) < 1 or max(sizes) > votes.shape[1]:
        raise ValueError(f"sizes: {list(sizes)} was given; numbers from 1 to {votes.shape[1]} are accepted")
    if draws < 1:
        raise ValueError(f"draws: {draws} was given; at least 1 is accepted")
    right = np.zeros((len(votes), len(sizes)))
    for _ in range(draws):
        mixed = generator.permuted(votes, axis=1)
        for place, size in enumerate(sizes):
            right[:, place] += majority_vote(mixed[:, :size], missing=missing, ties=ties) == gold
    return right / draws


def majority_curve(
    votes: Int[np.ndarray, "items votes"],
    gold: Int[np.ndarray, " items"],
    sizes: Sequence[int],
    *,
    generator: np.random.Generator,
    draws: int = 100,
    missing: int = -1,
    ties: Ties = "first",
) -> Float[np.ndarray, " sizes"]:
    """Accuracy of the majority by the number of votes: the mean over items of `majority_chances`, same arguments.

    Returns:
        One accuracy a size.
    """
    chances = majority_chances(
        votes, gold, sizes, generator=generator, draws=draws, missing=missing, ties=ties
    )  # fmt: skip
    return chances.mean(0)


def adaptive_vote(
    votes: Int[np.ndarray, "items votes"], *, lead: int | None = None, missing: int = -1
) -> tuple[Int[np.ndarray, " items"], Int[np.ndarray, " items"]]:
    """Ask voters one by one and stop as soon as the majority is decided.

    Asking stops when the leading label is ahead of the next by `lead`, or by more than there are voters left, so that
    these cannot change the winner. Without `lead` the winners are those of `majority_vote`, with fewer votes. With it
    this is Wald's sequential test: for independent voters of accuracy p and two labels, a lead of k is wrong with
    probability ``1 / (1 + (p / (1 - p))^k)``.

    Args:
        votes: labels from 0, and `missing`, in the order of asking.
        lead: how far ahead is enough, at least 1; never, when left out.
        missing: what stands for no vote; it counts as asked.

    Returns:
        The winners (ties to the label voted for first, -1 without a vote), and how many voters were asked.

    Raises:
        TypeError: the votes are no integers.
        ValueError: as for `majority_vote`, or `lead` below 1.

    Source: Wald, Annals of Mathematical Statistics 16 (1945).
    """
    cast = _cast(votes, missing)
    if lead is not None and lead < 1:
        raise ValueError(f"lead: {lead} was given; at least 1, or None, is accepted")
    n = votes.shape[1]
    asked = np.full(len(votes), n)
    counts = np.zeros((len(votes), max(2, 1 + int(votes.max(where=cast, initial=0)))), dtype=np.int64)
    rows = np.arange(len(votes))
    for number in range(1, n):
        column = votes[:, number - 1]
        np.add.at(counts, (rows[cast[:, number - 1]], column[cast[:, number - 1]]), 1)
        second, first = np.partition(counts, -2, axis=1)[:, -2:].T
        decided = (first - second > n - number) | (False if lead is None else first - second >= lead)
        asked = np.where(decided & (asked == n), number, asked)
    heard = np.where(np.arange(n) < asked[:, None], votes, missing)
    return majority_vote(heard, missing=missing), asked


def majority_accuracy(n: int, p: float) -> float:
    """Chance that a majority of n independent voters is right: ``P(B > n/2) + P(B = n/2) / 2``, B binomial (n, p).

    There are two labels, and a tie is broken by a fair coin.

    Args:
        n: voters, at least 1.
        p: the chance of each to be right, from 0 to 1.

    Raises:
        ValueError: n or p out of range.

    Source: Condorcet, Essai sur l'application de l'analyse (1785).
    """
    from scipy.stats import binom

    if n < 1:
        raise ValueError(f"n: {n} was given; at least 1 is accepted")
    if not 0 <= p <= 1:
        raise ValueError(f"p: {p} was given; a probability is accepted")
    tie = binom.pmf(n // 2, n, p) / 2 if n % 2 == 0 else 0.0
    return float(binom.sf(n // 2, n, p) + tie)


def accuracy_weights(
    votes: Int[np.ndarray, "items judges"],
    gold: Int[np.ndarray, " items"],
    *,
    labels: int | None = None,
    missing: int = -1,
) -> Float[np.ndarray, " judges"]:
    """The weights that are best for independent judges: ``log((k - 1) p / (1 - p))``, p the accuracy on known items.

    p is smoothed, ``(right + 1) / (judged + 2)``, so that no judge is beyond doubt. A judge at chance has weight 0,
    one below it a negative one, and one that judged nothing 0.

    Args:
        votes: labels of known items from 0, and `missing`.
        gold: their right labels.
        labels: k, how many labels there are; as many as occur, but at least 2, when left out.
        missing: what stands for no vote.

    Returns:
        One weight a judge, for `majority_vote`.

    Raises:
        TypeError: the votes are no integers.
        ValueError: as for `majority_vote`, or not one gold label an item.

    Source: Nitzan and Paroush, International Economic Review 23 (1982), theorem 1.
    """
    cast = _cast(votes, missing)
    _check_gold(votes, gold)
    k = max(2, 1 + int(max(votes[cast].max(initial=0), gold.max()))) if labels is None else labels
    right, judged = ((votes == gold[:, None]) & cast).sum(0), cast.sum(0)
    weights = np.log(k - 1) + np.log((right + 1) / (judged - right + 1))
    return np.where(judged > 0, weights, 0.0)


def cohen_kappa(first: Int[np.ndarray, " items"], second: Int[np.ndarray, " items"], *, missing: int = -1) -> float:
    """Agreement of two judges beyond chance: ``(p_o - p_e) / (1 - p_e)``, p_e from the labels each gives.

    Args:
        first: labels from 0, and `missing`; items that one of the two did not label are left out.
        second: labels of the same items.
        missing: what stands for no label.

    Returns:
        Kappa, at most 1; NaN where both always give the same label, so that chance alone agrees.

    Raises:
        ValueError: the lengths differ, or there is no item that both labelled.

    Source: Cohen, Educational and Psychological Measurement 20 (1960).
    """
    if first.shape != second.shape:
        raise ValueError(f"first, second: {first.shape} and {second.shape} were given; as many labels are accepted")
    both = (first != missing) & (second != missing)
    if not both.any():
        raise ValueError("first, second: there is no item that both labelled; at least one is accepted")
    first, second = first[both], second[both]
    labels = 1 + int(max(first.max(), second.max()))
    shares = [np.bincount(labelled, minlength=labels) / len(first) for labelled in (first, second)]
    chance = float(shares[0] @ shares[1])
    return float("nan") if chance == 1 else float(((first == second).mean() - chance) / (1 - chance))


def krippendorff_alpha(votes: Int[np.ndarray, "items judges"], *, missing: int = -1) -> float:
    """Agreement of any number of judges, some absent: ``1 - D_o / D_e`` for labels without order (nominal).

    With n_ic the votes of item i for c, m_i their number, n_c and n the sums over items that have two or more votes:
    ``D_o = sum_i sum_c n_ic (m_i - n_ic) / (m_i - 1) / n`` and ``D_e = sum_c n_c (n - n_c) / (n (n - 1))``.

    Args:
        votes: labels from 0, and `missing`.
        missing: what stands for no vote.

    Returns:
        Alpha, at most 1; NaN where all votes are for one label.

    Raises:
        TypeError: the votes are no integers.
        ValueError: as for `majority_vote`, or no item has two votes.

    Source: Krippendorff, Content Analysis (2004), section 11.3.
    """
    cast = _cast(votes, missing)
    paired = cast.sum(1) > 1
    if not paired.any():
        raise ValueError("votes: no item has two votes; agreement needs at least one such item")
    counts = _scores(votes, cast, None)[paired]
    each, by_label = counts.sum(1, keepdims=True), counts.sum(0)
    n = counts.sum()
    observed = (counts * (each - counts) / (each - 1)).sum() / n
    expected = (by_label * (n - by_label)).sum() / (n * (n - 1))
    return float("nan") if expected == 0 else float(1 - observed / expected)


def mean_correlation(values: Float[np.ndarray, "items judges"]) -> float:
    """Rho: Pearson's correlation of two judges over items, averaged over the pairs of judges.

    Args:
        values: numbers, such as margins, or 1 where a judge is right and 0 where it is wrong; NaN where there is
            none, and then a pair is correlated over the items that both have.

    Returns:
        The mean over pairs that have a correlation (a judge whose values are all equal has none with any); NaN if
        no pair has one.

    Raises:
        ValueError: fewer than two judges or items.
    """
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError(f"values: shape {values.shape} was given; at least two items and two judges are accepted")
    known = ~np.isnan(values)
    filled, present = np.where(known, values, 0.0), known.astype(float)
    n = present.T @ present
    with np.errstate(divide="ignore", invalid="ignore"):
        # Moments over the items that both of a pair have: entry (a, b) of `sums` is that of a.
        sums, squares = filled.T @ present, (filled**2).T @ present
        covariance = filled.T @ filled / n - sums * sums.T / n**2
        variance = squares / n - (sums / n) ** 2
        variance = np.where(variance > 1e-12 * squares / n, variance, np.nan)
        correlation = covariance / np.sqrt(variance * variance.T)
    pairs = correlation[np.triu_indices(values.shape[1], 1)]
    return float(np.nanmean(pairs)) if not np.isnan(pairs).all() else float("nan")


def effective_judges(
    votes: Int[np.ndarray, "items judges"], gold: Int[np.ndarray, " items"] | None = None, *, missing: int = -1
) -> float:
    """How many independent judges so many correlated ones are worth: ``n / (1 + (n - 1) rho)``.

    The variance of a mean of n values of variance s^2 whose pairs correlate by rho is s^2 (rho + (1 - rho) / n), that
    of the mean of this many independent ones.

    Args:
        votes: labels from 0, and `missing`. Without `gold` there must be two labels at most, as labels have no order.
        gold: the right labels; rho is then the correlation of being right, and what judges share by agreeing with
            the truth does not count. Always give them where they are known.
        missing: what stands for no vote.

    Returns:
        From 1 (all the same) to n (uncorrelated), more where judges err on different items on purpose; infinite
        where their errors cancel wholly, NaN where there is no correlation to speak of.

    Raises:
        TypeError: the votes are no integers.
        ValueError: as for `majority_vote`; fewer than two judges or items; or more than two labels without `gold`.

    Source: Kish, Survey Sampling (1965), section 5.4 (design effect).
    """
    cast = _cast(votes, missing)
    if gold is None:
        if votes[cast].max(initial=0) > 1:
            raise ValueError("gold: it was left out with more than two labels; give the right labels")
        values: Any = votes
    else:
        _check_gold(votes, gold)
        values = votes == gold[:, None]
    n = votes.shape[1]
    shared = 1 + (n - 1) * mean_correlation(np.where(cast, values, np.nan).astype(float))
    return float("inf") if shared < 1e-9 else n / shared


def mcnemar(first: Bool[np.ndarray, " items"], second: Bool[np.ndarray, " items"]) -> McNemar:
    """Are two judges equally often right? Exact test on the items that only one of them is right about.

    Args:
        first: whether the first judge is right about each item.
        second: the same of the second.

    Raises:
        ValueError: the lengths differ or are 0.

    Source: McNemar, Psychometrika 12 (1947); exact binomial form.
    """
    from scipy.stats import binomtest

    if first.shape != second.shape or not len(first):
        raise ValueError(f"first, second: {first.shape} and {second.shape} were given; as many items are accepted")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    n = only_first + only_second
    return McNemar(only_first, only_second, float(binomtest(only_first, n).pvalue) if n else 1.0)


def dawid_skene(votes: Int[np.ndarray, "items judges"], *, missing: int = -1, iterations: int = 100) -> DawidSkene:
    """Labels without any known ones: each judge has its own confusion of labels, estimated together with them by EM.

    The work is crowd-kit's. Its start is the majority, so that where most judges are wrong most of the time it ends
    at their side.

    Args:
        votes: labels from 0, and `missing`.
        missing: what stands for no vote.
        iterations: steps of expectation and maximisation at most, at least 1.

    Returns:
        Labels, their probabilities, the judges' confusions and the prior.

    Raises:
        MissingExtra: crowd-kit is not installed.
        TypeError: the votes are no integers.
        ValueError: as for `majority_vote`, no vote at all, or `iterations` below 1.

    Source: Dawid and Skene, Applied Statistics 28 (1979).
    """
    cast = _cast(votes, missing)
    if iterations < 1:
        raise ValueError(f"iterations: {iterations} was given; at least 1 is accepted")
    if not cast.any():
        raise ValueError("votes: all are missing; at least one vote is accepted")
    try:
        from crowdkit.aggregation import DawidSkene as Model
    except ImportError as error:
        raise MissingExtra(
            "Dawid and Skene's aggregation needs crowd-kit", "Install it: pip install 'etude[judges]'"
        ) from error
    import pandas as pd

    rows, columns = np.nonzero(cast)
    listed = pd.DataFrame({"task": rows, "worker": columns, "label": votes[cast]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # how it calls pandas is no concern of a user
        model = Model(n_iter=iterations).fit(listed)
    labels = range(1 + int(votes[cast].max()))
    items, judges = range(len(votes)), range(votes.shape[1])
    found = model.probas_.reindex(index=items, columns=labels).to_numpy(dtype=float)
    probabilities = np.where(cast.any(1, keepdims=True), np.nan_to_num(found), np.nan)
    pairs = pd.MultiIndex.from_product([judges, labels], names=["worker", "label"])
    errors = model.errors_.reindex(index=pairs, columns=labels).fillna(0.0).to_numpy(dtype=float)
    winners = np.where(cast.any(1), np.nan_to_num(probabilities).argmax(1), -1)
    prior = model.priors_.reindex(labels).fillna(0.0).to_numpy(dtype=float)
    confusion = errors.reshape(len(judges), len(labels), len(labels)).transpose(0, 2, 1)
    return DawidSkene(winners, probabilities, confusion, prior)


def _cast(votes: np.ndarray, missing: int) -> Bool[np.ndarray, "items votes"]:
    """Where there is a vote, once it is known that `votes` are votes."""
    if not isinstance(votes, np.ndarray) or not np.issubdtype(votes.dtype, np.integer):
        given = votes.dtype if isinstance(votes, np.ndarray) else type(votes).__name__
        raise TypeError(f"votes: {given} was given; an array of integers is accepted")
    if votes.ndim != 2 or not votes.size:
        raise ValueError(
            f"votes: shape {votes.shape} was given; one row an item and one column a vote, at least one of each, "
            "is accepted"
        )
    cast: np.ndarray = votes != missing
    if (votes[cast] < 0).any():
        raise ValueError(f"votes: {votes[cast].min()} was given; labels from 0 and {missing} (no vote) are accepted")
    return cast


def _check_gold(votes: np.ndarray, gold: np.ndarray) -> None:
    if gold.shape != votes.shape[:1]:
        raise ValueError(f"gold: shape {gold.shape} was given; one label for each of {len(votes)} items is accepted")


def _scores(votes: np.ndarray, cast: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Votes, or their weights, for each label of each item: (items, labels)."""
    labels = 1 + int(votes.max(where=cast, initial=0))
    where = (votes + labels * np.arange(len(votes))[:, None])[cast]
    spread = None if weights is None else np.broadcast_to(weights, votes.shape)[cast]
    return np.bincount(where, spread, minlength=labels * len(votes)).reshape(len(votes), labels)
