"""Votes against brute force, closed forms and other libraries."""

import importlib.util
import itertools
import math
import sys
from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from etude.errors import MissingExtra
from etude.language import (
    accuracy_weights,
    cohen_kappa,
    dawid_skene,
    effective_judges,
    krippendorff_alpha,
    majority_accuracy,
    majority_chances,
    majority_curve,
    majority_vote,
    mcnemar,
    mean_correlation,
    vote_table,
)


def draws(seed=0):
    return np.random.default_rng(seed)


def random_votes(items=200, judges=7, labels=3, seed=0):
    return draws(seed).integers(-1, labels, (items, judges))


# ---- majority --------------------------------------------------------------------------------------------------------


def test_majority_is_that_of_counting():
    votes = random_votes()
    for row, first, none in zip(votes, majority_vote(votes, ties="first"), majority_vote(votes, ties="none")):
        cast = [int(vote) for vote in row if vote >= 0]
        expected = Counter(cast).most_common()  # equal counts in the order first met
        assert first == (expected[0][0] if cast else -1)
        unique = len(expected) == 1 or (cast and expected[0][1] > expected[1][1])
        assert none == (expected[0][0] if cast and unique else -1)


def test_weighted_majority_is_that_of_adding():
    votes, weights = random_votes(labels=2), draws(1).normal(size=7)
    for row, winner in zip(votes, majority_vote(votes, weights=weights)):
        sums = [sum(w for w, vote in zip(weights, row) if vote == label) for label in (0, 1)]
        assert winner == (int(np.argmax(sums)) if (row >= 0).any() else -1)


def test_equal_weights_change_nothing_and_ties_survive_rounding():
    votes = random_votes()
    assert np.array_equal(majority_vote(votes), majority_vote(votes, weights=np.full(7, 0.1)))
    tied = np.array([[1, 1, 1, 0]])
    assert majority_vote(tied, weights=np.array([0.1, 0.1, 0.1, 0.3]), ties="none")[0] == -1


def test_a_vote_against_is_one_for_the_other_label():
    votes = np.array([[0, -1], [1, 0]])
    assert majority_vote(votes, weights=np.array([-1.0, 0.5])).tolist() == [1, 0]


def test_missing_may_be_another_number():
    votes = np.array([[9, 1, 1, 0], [9, 9, 9, 9]])
    assert majority_vote(votes, missing=9).tolist() == [1, -1]


def test_curve_is_the_mean_over_all_subsets():
    votes, gold = random_votes(items=20, judges=5, labels=2), draws(2).integers(0, 2, 20)
    expected = np.zeros((20, 5))
    for size in range(1, 6):
        orders = list(itertools.permutations(range(5), size))
        expected[:, size - 1] = np.mean([majority_vote(votes[:, list(o)]) == gold for o in orders], 0)
    found = majority_chances(votes, gold, range(1, 6), generator=draws(), draws=4_000)
    assert np.abs(found - expected).max() < 6 * 0.5 / math.sqrt(4_000)
    curve = majority_curve(votes, gold, [1, 3], generator=draws(), draws=50)
    assert np.array_equal(curve, majority_chances(votes, gold, [1, 3], generator=draws(), draws=50).mean(0))


@pytest.mark.parametrize("n", [1, 2, 3, 8])
@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_majority_of_independent_voters_is_that_of_all_outcomes(n, p):
    total = 0.0
    for outcome in itertools.product([0, 1], repeat=n):
        chance = math.prod(p if right else 1 - p for right in outcome)
        total += chance * (0.5 if 2 * sum(outcome) == n else float(2 * sum(outcome) > n))
    assert majority_accuracy(n, p) == pytest.approx(total)


def test_best_weights_are_those_of_bayes():
    """With known accuracies the weighted vote is the more probable label; here accuracies are those counted."""
    gold = draws().integers(0, 2, 3_000)
    accuracies = np.array([0.9, 0.6, 0.6, 0.6, 0.2])
    votes = np.where(draws(1).random((3_000, 5)) < accuracies, gold[:, None], 1 - gold[:, None])
    weights = accuracy_weights(votes, gold)
    right = ((votes == gold[:, None]).sum(0) + 1) / 3_002
    for row, winner in zip(votes[:100], majority_vote(votes[:100], weights=weights)):
        chances = [math.prod(p if vote == label else 1 - p for p, vote in zip(right, row)) for label in (0, 1)]
        assert winner == int(np.argmax(chances))
    assert weights[4] < 0 < weights[1] < weights[0]
    nothing = np.full((3_000, 1), -1)
    assert accuracy_weights(nothing, gold).tolist() == [0.0]


# ---- agreement -------------------------------------------------------------------------------------------------------


def test_kappa_is_scikit_learns():
    first, second = draws().integers(0, 3, 100), draws(1).integers(0, 3, 100)
    second[:60] = first[:60]
    assert cohen_kappa(first, second) == pytest.approx(cohen_kappa_score(first, second))
    missing = np.where(np.arange(100) % 7 == 0, -1, first)
    kept = missing >= 0
    assert cohen_kappa(missing, second) == pytest.approx(cohen_kappa_score(first[kept], second[kept]))
    assert math.isnan(cohen_kappa(np.zeros(5, int), np.zeros(5, int)))


def test_alpha_is_that_of_krippendorffs_example():
    """Krippendorff (2004), section 11.3.2: 12 units, 4 observers, nominal alpha .743."""
    votes = np.array([
        [1, 2, 3, 3, 2, 1, 4, 1, 2, -1, -1, -1],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, -1, 3],
        [-1, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, -1],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, -1],
    ]).T  # fmt: skip
    assert krippendorff_alpha(votes) == pytest.approx(0.743, abs=5e-4)


def test_alpha_does_not_depend_on_names_and_order():
    votes = random_votes()
    renamed = np.array([2, 0, 1, -1])[votes]
    assert krippendorff_alpha(renamed[::-1, ::-1]) == pytest.approx(krippendorff_alpha(votes))
    assert math.isnan(krippendorff_alpha(np.ones((3, 2), int)))


def test_correlation_is_numpys():
    values = draws().normal(size=(50, 4)) + draws(1).normal(size=(50, 1))
    pairs = np.corrcoef(values.T)[np.triu_indices(4, 1)]
    assert mean_correlation(values) == pytest.approx(pairs.mean())
    holes = np.where(draws(2).random(values.shape) < 0.2, np.nan, values)
    expected = []
    for a, b in itertools.combinations(holes.T, 2):
        both = ~np.isnan(a) & ~np.isnan(b)
        expected.append(np.corrcoef(a[both], b[both])[0, 1])
    assert mean_correlation(holes) == pytest.approx(np.mean(expected))
    constant = np.c_[values[:, :2], np.full(50, 0.1)]
    assert mean_correlation(constant) == pytest.approx(np.corrcoef(values[:, 0], values[:, 1])[0, 1])
    assert math.isnan(mean_correlation(np.ones((4, 3))))


def test_effective_judges_at_both_ends():
    gold = draws().integers(0, 2, 2_000)
    same = np.repeat(draws(1).integers(0, 2, (2_000, 1)), 5, 1)
    assert effective_judges(same, gold) == pytest.approx(1)
    alone = np.where(draws(2).random((2_000, 5)) < 0.7, gold[:, None], 1 - gold[:, None])
    assert effective_judges(alone, gold) == pytest.approx(5, rel=0.15)
    assert effective_judges(alone) < 4  # what they share by being right is counted here
    opposite = np.c_[same[:, :1], 1 - same[:, :1]]
    assert effective_judges(opposite) == math.inf


def test_variance_of_a_mean_is_that_of_so_many_independent_judges():
    n, rho, size = 6, 0.4, 200_000
    shared, own = draws().normal(size=(size, 1)), draws(1).normal(size=(size, n))
    values = math.sqrt(rho) * shared + math.sqrt(1 - rho) * own
    effective = n / (1 + (n - 1) * mean_correlation(values))
    assert values.mean(1).var() == pytest.approx(1 / effective, rel=0.02)


def test_mcnemar_is_the_binomial_of_the_disagreements():
    first = np.array([True] * 12 + [False] * 8)
    second = np.array([True] * 4 + [False] * 8 + [True] * 1 + [False] * 7)
    expected = 2 * sum(math.comb(9, k) for k in (8, 9)) / 2**9
    assert mcnemar(first, second) == (8, 1, pytest.approx(expected))
    assert mcnemar(first, first) == (0, 0, 1.0)


# ---- Dawid and Skene -------------------------------------------------------------------------------------------------

CROWD_KIT = pytest.mark.skipif(importlib.util.find_spec("crowdkit") is None, reason="crowd-kit is not installed")


@CROWD_KIT
def test_dawid_skene_finds_judges_and_labels():
    gold = draws().integers(0, 2, 2_000)
    accuracies = np.array([0.95, 0.9, 0.6, 0.55, 0.55])
    votes = np.where(draws(1).random((2_000, 5)) < accuracies, gold[:, None], 1 - gold[:, None])
    votes[0], votes[1, 1:] = -1, -1
    found = dawid_skene(votes)
    assert found.labels[0] == -1
    assert np.isnan(found.probabilities[0]).all()
    assert np.allclose(found.probabilities[1:].sum(1), 1)
    assert np.allclose(found.confusion.sum(2), 1)
    diagonal = found.confusion[:, [0, 1], [0, 1]].mean(1)
    assert np.abs(diagonal - accuracies).max() < 0.1
    kept = slice(2, None)
    assert (found.labels == gold)[kept].mean() > (majority_vote(votes) == gold)[kept].mean()


@CROWD_KIT
def test_dawid_skene_is_one_step_of_em_by_hand():
    votes = random_votes(items=30, judges=4, labels=3, seed=5)
    votes = votes[(votes >= 0).any(1)]
    shares = np.stack([(votes == label).sum(1) for label in range(3)], 1) / (votes >= 0).sum(1, keepdims=True)
    prior = shares.mean(0)
    confusion = np.stack([np.stack([shares[votes[:, j] == v].sum(0) for v in range(3)], 1) for j in range(4)])
    confusion = confusion / confusion.sum(2, keepdims=True)
    posterior = np.log(prior) + sum(
        np.where(votes[:, [j]] >= 0, np.log(confusion[j].T[votes[:, j]]), 0) for j in range(4)
    )
    posterior = np.exp(posterior) / np.exp(posterior).sum(1, keepdims=True)
    assert np.allclose(dawid_skene(votes, iterations=1).probabilities, posterior, atol=1e-6)


def test_crowd_kit_that_is_absent_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "crowdkit.aggregation", None)
    with pytest.raises(MissingExtra, match=r"etude\[judges\]"):
        dawid_skene(random_votes())


# ---- tables and bad input --------------------------------------------------------------------------------------------


def test_table_of_listed_judgments():
    table = vote_table(["b", "a", "b"], ["y", "x", "x"], np.array([1, 0, 2]))
    assert table.items.tolist() == ["a", "b"]
    assert table.judges.tolist() == ["x", "y"]
    assert table.votes.tolist() == [[0, -1], [2, 1]]
    with pytest.raises(ValueError, match="items: b is judged 2 times by y"):
        vote_table(["b", "b"], ["y", "y"], np.array([1, 0]))
    with pytest.raises(ValueError, match="items, judges, labels: 1, 2 and 2"):
        vote_table(["b"], ["y", "y"], np.array([1, 0]))


GOOD = np.array([[0, 1], [1, 1]])
GOLD = np.array([0, 1])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: majority_vote(np.zeros((2, 0), int)), ValueError, "votes: shape"),
        (lambda: majority_vote(np.zeros((0, 2), int)), ValueError, "votes: shape"),
        (lambda: majority_vote(np.array([0, 1])), ValueError, "votes: shape"),
        (lambda: majority_vote(GOOD.astype(float)), TypeError, "votes: float64"),
        (lambda: majority_vote(GOOD.tolist()), TypeError, "votes: list"),
        (lambda: majority_vote(GOOD - 3), ValueError, "votes: -3"),
        (lambda: majority_vote(GOOD, ties="last"), ValueError, "ties='last'"),
        (lambda: majority_vote(GOOD, weights=np.ones(3)), ValueError, "weights: shape"),
        (lambda: majority_vote(GOOD, weights=np.array([1, np.nan])), ValueError, "weights"),
        (lambda: majority_curve(GOOD, GOLD, [0], generator=draws()), ValueError, "sizes"),
        (lambda: majority_curve(GOOD, GOLD, [3], generator=draws()), ValueError, "sizes"),
        (lambda: majority_curve(GOOD, GOLD, [], generator=draws()), ValueError, "sizes"),
        (lambda: majority_curve(GOOD, GOLD, [1], generator=draws(), draws=0), ValueError, "draws"),
        (lambda: majority_curve(GOOD, GOLD[:1], [1], generator=draws()), ValueError, "gold"),
        (lambda: majority_accuracy(0, 0.5), ValueError, "n: 0"),
        (lambda: majority_accuracy(3, 1.5), ValueError, "p: 1.5"),
        (lambda: cohen_kappa(GOLD, GOLD[:1]), ValueError, "first, second"),
        (lambda: cohen_kappa(GOLD, np.array([-1, -1])), ValueError, "both labelled"),
        (lambda: krippendorff_alpha(np.array([[0, -1]])), ValueError, "two votes"),
        (lambda: mean_correlation(np.ones((5, 1))), ValueError, "values"),
        (lambda: effective_judges(GOOD + 1), ValueError, "gold"),
        (lambda: mcnemar(np.array([True]), np.array([True, False])), ValueError, "first, second"),
        (lambda: dawid_skene(np.full((2, 2), -1)), ValueError, "all are missing"),
        (lambda: dawid_skene(GOOD, iterations=0), ValueError, "iterations"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_name(call, error, words):
    with pytest.raises(error, match=words):
        call()
