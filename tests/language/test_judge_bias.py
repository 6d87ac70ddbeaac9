"""Biases, curves and rankings on judgments whose truth is known."""

import importlib.util
import math
import sys

import numpy as np
import pytest

from etude.errors import MissingExtra
from etude.language import (
    Review,
    Verdict,
    adaptive_vote,
    bradley_terry,
    depth_curve,
    majority_accuracy,
    majority_vote,
    position_bias,
    role_weights,
    verbosity_bias,
    width_curve,
    winners_of,
)

CHOIX = pytest.mark.skipif(importlib.util.find_spec("choix") is None, reason="choix is not installed")


def draws(seed=0):
    return np.random.default_rng(seed)


def verdict(*margins):
    """A verdict of reviews given as (layer, order, role, margin)."""
    reviews = tuple(Review(5 + m / 2, 5 - m / 2, "", order, role, layer) for layer, order, role, m in margins)
    total = sum(review.margin for review in reviews)
    return Verdict(1 if total > 0 else 2 if total < 0 else 0, total, 0.0, reviews)


# ---- biases ----------------------------------------------------------------------------------------------------------


def test_a_judge_that_takes_the_first_is_found_out():
    winners = np.array([[1, 2], [1, 2], [1, 1], [2, 2], [0, 1], [-1, 1]])
    bias = position_bias(winners)
    decided = [1, 1, 1, 1, 1, 0, 0, 1, 0, 0]  # is the one shown first preferred, in each decided judgment
    assert bias.first.value == pytest.approx(np.mean(decided))
    assert bias.agreement.value == pytest.approx(2 / 5)
    assert bias.first.low <= bias.first.value <= bias.first.high
    always = position_bias(np.tile([1, 2], (50, 1)))
    assert always.first[:3] == (1, 1, 1)
    assert always.agreement[:3] == (0, 0, 0)


def test_an_unbiased_judge_is_covered():
    chosen = draws().integers(1, 3, 400)
    bias = position_bias(np.stack([chosen, chosen], 1))
    assert bias.first.value == 0.5
    assert bias.agreement.value == 1


def test_the_longer_one_is_preferred_by_so_many_logits():
    winners = np.array([1, 1, 1, 2, 0, 1, -1])
    first, second = ["long text"] * 7, ["short"] * 5 + ["just as l", "short"]
    assert verbosity_bias(winners, first, second).value == pytest.approx(math.log(3.5 / 1.5))
    gold = np.array([1, 2, 2, 2, 1, 1, 1])
    controlled = verbosity_bias(winners, first, second, gold)
    assert controlled.value == pytest.approx(math.log(3.5 / 1.5) - math.log(1.5 / 3.5))
    assert controlled.n == 4


# ---- curves ----------------------------------------------------------------------------------------------------------


def test_width_curve_is_the_binomial_for_independent_judges():
    gold = draws().integers(0, 2, 3_000)
    votes = np.where(draws(1).random((3_000, 9)) < 0.65, gold[:, None], 1 - gold[:, None])
    curve = width_curve(votes, gold, [1, 3, 9], generator=draws(2), draws=20)
    for size, point in zip((1, 3, 9), curve):
        exact = majority_accuracy(size, 0.65)
        assert point.value == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 3_000))
        assert point.low < point.value < point.high


def test_each_layer_speaks_for_itself():
    one = verdict((1, 0, "x", 4), (1, 1, "x", -2), (2, 0, "x", -1), (2, 1, "x", -3))
    other = verdict((1, 0, "x", -4), (1, 1, "x", -2), (2, 0, "x", -1), (2, 1, "x", 3))
    first, second = depth_curve([one, other], np.array([1, 1]))
    assert (first.layer, first.accuracy.value, first.agreement.value) == (1, 0.5, 0.5)
    assert (second.layer, second.accuracy.value, second.agreement.value) == (2, 0.5, 0.5)
    assert math.isnan(first.correlation)


def test_judges_that_copy_each_other_correlate_in_the_second_layer():
    gold = draws().integers(1, 3, 300)
    own = draws(1).normal(size=(300, 2)) + np.where(gold == 1, 0.5, -0.5)[:, None]
    copied = own.mean(1)
    verdicts = [
        verdict((1, 0, "x", a), (1, 0, "y", b), (2, 0, "x", c), (2, 0, "y", c)) for (a, b), c in zip(own, copied)
    ]
    first, second = depth_curve(verdicts, gold)
    towards = own * np.where(gold == 1, 1, -1)[:, None]
    assert first.correlation == pytest.approx(np.corrcoef(towards.T)[0, 1])
    assert second.correlation == pytest.approx(1)


def test_judges_below_one_half_are_warned_of():
    gold = np.zeros(40, int)
    votes = (draws().random((40, 5)) < 0.8).astype(int)
    with pytest.warns(UserWarning, match="a majority will rather hurt"):
        one, five = width_curve(votes, gold, [1, 5], generator=draws())
    assert five.value < one.value


def test_asking_stops_where_nothing_can_change_any_more():
    votes = draws().integers(-1, 3, (500, 7))
    winners, asked = adaptive_vote(votes)
    expected = majority_vote(votes)
    assert np.array_equal(winners, expected)
    for row, winner, number in zip(votes, winners, asked):

        def certain(k, row=row, winner=winner):
            counts = np.bincount(row[:k][row[:k] >= 0], minlength=3)
            return counts[winner] - max(np.delete(counts, winner)) > 7 - k

        assert number == 7 or certain(number)
        assert not any(certain(k) for k in range(1, number))
    assert asked.mean() < 7


def test_a_lead_is_as_often_wrong_as_walds_test_says():
    votes = (draws(3).random((20_000, 400)) < 0.6).astype(int)
    winners, asked = adaptive_vote(votes, lead=4)
    right = 1 / (1 + (0.4 / 0.6) ** 4)
    assert winners.mean() == pytest.approx(right, abs=4 * math.sqrt(right * (1 - right) / 20_000))
    assert asked.mean() == pytest.approx(4 * (2 * right - 1) / 0.2, rel=0.03)  # Wald's identity


def test_weights_of_roles_follow_what_they_know():
    gold = draws().integers(1, 3, 800)
    sign = np.where(gold == 1, 1, -1)
    noise = draws(1).normal(size=(800, 3))
    verdicts = [
        verdict((1, 0, "sharp", s * 2 + n[0]), (1, 0, "blunt", s * 0.3 + n[1]), (1, 0, "liar", -s + n[2]))
        for s, n in zip(sign, noise)
    ]
    weights = role_weights(verdicts, gold)
    assert list(weights) == ["sharp", "blunt", "liar"]
    assert weights["sharp"] > weights["blunt"] > weights["liar"] == 0


# ---- ranking ---------------------------------------------------------------------------------------------------------


@CHOIX
def test_two_systems_are_apart_by_the_log_odds():
    winners = np.array([1] * 30 + [2] * 10)
    ranking = bradley_terry(["x"] * 40, ["y"] * 40, winners, prior=0.0)
    assert list(ranking) == ["x", "y"]
    assert ranking["x"].value - ranking["y"].value == pytest.approx(math.log(3), abs=1e-4)
    assert ranking["x"].low < ranking["x"].value < ranking["x"].high
    assert ranking["x"].n == 40


@CHOIX
def test_strengths_are_recovered_whichever_side_a_system_is_on():
    strengths = np.array([1.0, 0.3, -0.4, -0.9])
    generator = draws()
    one, other = generator.integers(0, 4, 20_000), generator.integers(1, 4, 20_000)
    other = (one + other) % 4
    won = generator.random(20_000) < 1 / (1 + np.exp(strengths[other] - strengths[one]))
    names = np.array(list("abcd"))
    ranking = bradley_terry(names[one], names[other], np.where(won, 1, 2), resamples=20)
    found = np.array([ranking[name].value for name in names])
    assert np.allclose(found, strengths - strengths.mean(), atol=0.08)
    flipped = bradley_terry(names[other], names[one], np.where(won, 2, 1), resamples=20)
    assert [flipped[name].value for name in names] == pytest.approx(found.tolist())


@CHOIX
def test_ties_are_half_a_victory_each_and_missing_verdicts_do_not_count():
    ranking = bradley_terry(["x"] * 5, ["y"] * 5, np.array([0, 0, 0, -1, -1]), resamples=5)
    assert ranking["x"].value == pytest.approx(0, abs=1e-6)
    assert ranking["x"].n == 3


def test_choix_that_is_absent_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "choix", None)
    with pytest.raises(MissingExtra, match=r"etude\[judges\]"):
        bradley_terry(["x"], ["y"], np.array([1]))


def test_winners_of_verdicts():
    unread = Verdict(None, math.nan, math.nan, (), 2, 2)
    assert winners_of([verdict((1, 0, "x", 3)), unread, None]).tolist() == [1, -1, -1]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: position_bias(np.array([1, 2])), "winners: shape"),
        (lambda: position_bias(np.array([[1, 3]])), "values other"),
        (lambda: position_bias(np.array([[-1, 0]])), "nothing to count"),
        (lambda: verbosity_bias(np.array([1]), ["a"], []), "winners, first, second"),
        (lambda: verbosity_bias(np.array([1]), ["a"], ["b"]), "different length"),
        (lambda: depth_curve([], np.array([])), "none has a review"),
        (lambda: depth_curve([verdict((1, 0, "x", 1))], np.array([1, 2])), "gold: 2"),
        (lambda: adaptive_vote(np.array([[0, 1]]), lead=0), "lead: 0"),
        (lambda: role_weights([verdict((1, 0, "x", 1))], np.array([1])), "both 1 and 2"),
        (lambda: role_weights([verdict((1, 0, "x", 1))], np.array([1]), penalty=0), "penalty"),
        (lambda: role_weights([], np.array([1])), "gold: 1"),
        (lambda: bradley_terry(["x"], ["x"], np.array([1])), "compared with itself"),
        (lambda: bradley_terry(["x"], ["y"], np.array([-1])), "no verdict"),
        (lambda: bradley_terry(["x"], [], np.array([1])), "first, second, winners"),
    ],
)
def test_bad_input_is_refused_by_name(call, words):
    with pytest.raises(ValueError, match=words):
        call()
