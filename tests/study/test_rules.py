"""Rules as regions, composites and verdicts."""

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.study.rules import Part, Rule, Verdict, all_of, any_of, count_of, format_number, outside, within
from etude.study.statistics import Estimate, exact

finite = st.floats(-100, 100)
alphas = st.floats(0.001, 0.4)


def spread(value: float, width: float, n: int | None = 5) -> Estimate:
    """An estimate whose intervals are nested: value ± width / alpha."""
    return Estimate(value, lambda alpha: (value - width / alpha, value + width / alpha), n, "test")


def fixed(low: float, high: float, n: int | None = 5) -> Estimate:
    return Estimate((low + high) / 2, lambda alpha: (low, high), n, "test")


def status(rule: Rule, alpha: float = 0.05) -> str:
    return rule.judge("claim", alpha).status


estimates = st.builds(spread, finite, st.floats(0, 1))
HOLDS, FAILS, UNDECIDED = fixed(1, 2) > 0, fixed(-2, -1) > 0, fixed(-1, 1) > 0


@pytest.mark.parametrize(
    ("estimate", "less", "at_most", "inside", "out"),
    [
        (fixed(0, 1), "undecided", "holds", "holds", "fails"),
        (fixed(1, 2), "fails", "undecided", "undecided", "undecided"),
        (fixed(-1, -0.5), "holds", "holds", "fails", "holds"),
        (fixed(-1, 0), "holds", "holds", "undecided", "undecided"),
        (fixed(-1, 2), "undecided", "undecided", "undecided", "undecided"),
        (fixed(2, 3), "fails", "fails", "fails", "holds"),
        (fixed(1, 1), "fails", "holds", "holds", "fails"),
        (exact(1), "fails", "holds", "holds", "fails"),
        (exact(math.nan), "undecided", "undecided", "undecided", "undecided"),
        (fixed(0, math.inf), "undecided", "undecided", "undecided", "undecided"),
        (fixed(5, 6, n=2), "undecided", "undecided", "undecided", "undecided"),
    ],
)
def test_ends_of_the_region_belong_to_it_or_not(estimate, less, at_most, inside, out):
    rules = (estimate < 1, estimate <= 1, within(estimate, 0, 1), outside(estimate, 0, 1))
    assert [status(rule) for rule in rules] == [less, at_most, inside, out]


def test_outside_needs_one_side():
    straddling = fixed(-1, 2)
    assert status(outside(straddling, 0, 1)) == "undecided"
    assert status(outside(straddling, -3, -2)) == "holds"


@given(estimates, finite, alphas)
def test_a_rule_holds_where_its_negation_fails(estimate, bound, alpha):
    opposite = {"holds": "fails", "fails": "holds", "undecided": "undecided"}
    assert status(estimate < bound, alpha) == opposite[status(estimate >= bound, alpha)]
    assert status(estimate <= bound, alpha) == opposite[status(estimate > bound, alpha)]
    low, high = sorted((bound, bound / 2))
    assert status(within(estimate, low, high), alpha) == opposite[status(outside(estimate, low, high), alpha)]


@given(estimates, finite, finite)
def test_mirrored_data_mirror_the_rule(estimate, bound, other):
    mirrored = Estimate(-estimate.value, lambda a: tuple(-end for end in estimate.interval(a)[::-1]), 5, "test")
    low, high = sorted((bound, other))
    assert status(estimate < bound) == status(mirrored > -bound)
    assert status(within(estimate, low, high)) == status(within(mirrored, -high, -low))


@given(st.lists(st.tuples(estimates, finite), min_size=1, max_size=5), st.data(), alphas, alphas)
def test_what_a_strict_level_decides_a_lax_one_decides_alike(pairs, data, first, second):
    rule = count_of([e < bound for e, bound in pairs], data.draw(st.integers(1, len(pairs))))
    strict, lax = sorted((first, second))
    if (decided := status(rule, strict)) != "undecided":
        assert status(rule, lax) == decided


@given(st.lists(st.tuples(estimates, finite), min_size=1, max_size=6), st.data())
def test_order_of_the_parts_does_not_matter(pairs, data):
    rules = [e < bound for e, bound in pairs]
    k = data.draw(st.integers(1, len(rules)))
    shuffled = random.Random(0).sample(rules, len(rules))
    assert status(count_of(rules, k)) == status(count_of(shuffled, k))


@given(st.lists(st.tuples(estimates, finite), min_size=1, max_size=5), st.data(), alphas)
def test_not_k_of_n_is_n_minus_k_plus_one_of_the_negations(pairs, data, alpha):
    n, k = len(pairs), data.draw(st.integers(1, len(pairs)))
    rule = count_of([e < bound for e, bound in pairs], k)
    negation = count_of([e >= bound for e, bound in pairs], n - k + 1)
    opposite = {"holds": "fails", "fails": "holds", "undecided": "undecided"}
    assert status(negation, alpha) == opposite[status(rule, alpha)]


@given(estimates, finite, alphas)
def test_one_part_is_judged_as_if_alone(estimate, bound, alpha):
    rule = estimate < bound
    alone = rule.judge("claim", alpha)
    assert all_of(rule).judge("claim", alpha) == any_of(rule).judge("claim", alpha) == alone
    assert count_of([rule], 1).judge("claim", alpha) == alone


@given(st.lists(st.sampled_from([HOLDS, FAILS, UNDECIDED]), min_size=1, max_size=6), st.data())
def test_count_of_counts(rules, data):
    k = data.draw(st.integers(1, len(rules)))
    hold, fail = rules.count(HOLDS), rules.count(FAILS)
    expected = "holds" if hold >= k else "fails" if fail > len(rules) - k else "undecided"
    assert status(count_of(rules, k)) == expected


def test_levels_of_the_parts():
    seen: list[float] = []

    def interval(alpha: float) -> tuple[float, float]:
        seen.append(alpha)
        return -1.0, 1.0

    def levels(n: int, k: int) -> set[float]:
        seen.clear()
        count_of([Estimate(0.0, interval, 5, "test") > 0 for _ in range(n)], k).judge("claim", 0.12)
        return {round(alpha, 12) for alpha in seen}

    assert levels(4, 4) == {0.12, 0.03}  # all: holds at alpha, fails at alpha / 4
    assert levels(4, 1) == {0.03, 0.12}  # any: holds at alpha / 4, fails at alpha
    assert levels(4, 3) == {0.06, 0.04}


def test_a_decided_part_shows_the_interval_that_decided_it():
    verdict = all_of(spread(1, 0.01) > 0, spread(5, 0.01) > 0).judge("claim", 0.02)
    first, second = verdict.estimates
    assert (verdict.status, first.alpha, first.low, second.label) == ("holds", 0.02, 0.5, "2")
    # Not above 0 at the level 0.02 / 2 that a failure of either needs, though at 0.02 it would be.
    undecided = all_of(spread(-0.75, 0.01) > 0, spread(5, 0.01) > 0).judge("claim", 0.02)
    assert undecided.status == "undecided"
    assert undecided.estimates[0].status == "undecided"
    assert undecided.estimates[0].low < 0 < undecided.estimates[0].high


def test_text_is_for_a_reader():
    assert (fixed(0.51, 0.73) < 1).judge("c", 0.05).why == "0.62 [0.51, 0.73] < 1"
    assert (fixed(1.1, 1.5) < 1).judge("c", 0.05).why == "1.3 [1.1, 1.5], not < 1"
    assert (fixed(0.8, 1.5) >= 1).judge("c", 0.05).why == "1.15 [0.8, 1.5], not decided: >= 1"
    assert (exact(3e-7) < 1e-5).judge("c", 0.05).why == "3e-07 < 1e-05"
    assert (exact(math.nan) < 1).judge("c", 0.05).why == "not finite: nan < 1"
    assert (fixed(1, 3, n=2) < 1).judge("c", 0.05).why == "fewer than 3 units: 2 (n = 2)"
    assert within(fixed(0.5, 0.5), 0.45, 0.55).judge("c", 0.05).why == "0.5 [0.5, 0.5] in [0.45, 0.55] (no spread)"
    assert all_of(HOLDS, FAILS, UNDECIDED).judge("c", 0.05).why == (
        "1 of 3 fail, 3 needed to hold: -1.5 [-2, -1], not > 0"
    )
    assert (
        any_of(*[HOLDS] * 5)
        .judge("c", 0.05)
        .why.startswith("5 of 5 hold, 1 needed: 1.5 [1, 2] > 0; 1.5 [1, 2] > 0; 1.5 [1, 2] > 0; and 2 more")
    )


def test_rounding_never_hides_on_which_side_an_end_lies():
    assert (fixed(0.99, 0.99996) < 1).judge("c", 0.05).why == "0.995 [0.99, 0.99996] < 1"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.123456, 3, "0.123"),
        (1234.4, 3, "1234"),
        (0.5, 4, "0.5"),
        (1e-7, 3, "1e-07"),
        (12345678, 3, "1.23e+07"),
        (0, 3, "0"),
        (-0.0, 3, "0"),
        (100, 3, "100"),
        (math.nan, 3, "nan"),
        (-math.inf, 3, "-inf"),
    ],
)
def test_format_number(value, digits, text):
    assert format_number(value, digits) == text


@given(st.floats(-1e300, 1e300), st.integers(1, 10))
def test_a_formatted_number_is_as_near_as_its_digits(value, digits):
    assert float(format_number(value, digits)) == pytest.approx(value, rel=0.51 * 10 ** (1 - digits), abs=0)


def test_shown_estimates_are_not_judged():
    plain = fixed(1, 2) > 0
    rule = plain.also(censored=exact(math.nan), time=fixed(-3, -2))
    verdict = all_of(rule, HOLDS).judge("claim", 0.05)
    assert verdict.status == "holds"
    assert [part.label for part in verdict.estimates] == ["1", "1.censored", "1.time", "2"]
    assert verdict.estimates[1].status is None
    assert verdict.estimates[1].region is None
    assert len(plain.judge("claim", 0.05).estimates) == 1
    with pytest.raises(TypeError, match="time: a float was given"):
        plain.also(time=0.3)


def test_a_rule_has_no_truth_value():
    with pytest.raises(TypeError, match="all_of"):
        bool(HOLDS)
    with pytest.raises(TypeError, match="within"):
        0 < fixed(0, 1) < 1  # noqa: B015
    with pytest.raises(TypeError, match="truth value"):
        HOLDS and FAILS  # noqa: B018


@pytest.mark.parametrize("bound", ["1", None, exact(1), True, [1]])
def test_estimates_compare_with_numbers_only(bound):
    with pytest.raises(TypeError, match="bound"):
        exact(0) < bound  # noqa: B015
    with pytest.raises(TypeError, match="high"):
        within(exact(0), 0, bound)


def test_numpy_numbers_are_numbers():
    for bound in (np.float64(1), np.float32(1), np.int64(1)):
        assert status(exact(0) < bound) == "holds"
        assert status(bound > exact(0)) == "holds"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: exact(0) < math.nan, ValueError, "bound: nan"),
        (lambda: exact(0) < math.inf, ValueError, "bound: inf"),
        (lambda: within(exact(0), 2, 1), ValueError, "low <= high"),
        (lambda: outside(exact(0), 2, 1), ValueError, "low <= high"),
        (lambda: within(0.5, 0, 1), TypeError, "estimate: a float"),
        (lambda: all_of(), ValueError, "none was given"),
        (lambda: count_of([], 1), ValueError, "none was given"),
        (lambda: all_of([HOLDS]), TypeError, "all_of\\(\\*rules\\)"),
        (lambda: any_of(HOLDS, True), TypeError, "part 2 is a bool"),
        (lambda: count_of([HOLDS, HOLDS], 0), ValueError, "1 to 2"),
        (lambda: count_of([HOLDS, HOLDS], 3), ValueError, "1 to 2"),
        (lambda: count_of([HOLDS, HOLDS], 1.5), TypeError, "at_least"),
        (lambda: HOLDS.judge("claim", 0), ValueError, "alpha"),
        (lambda: HOLDS.judge("claim", 1.0), ValueError, "alpha"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()


numbers = st.one_of(st.floats(allow_nan=False), st.just(math.nan))
parts = st.builds(
    Part,
    label=st.text(),
    value=numbers,
    low=numbers,
    high=numbers,
    alpha=alphas,
    n=st.one_of(st.none(), st.integers(0, 100)),
    method=st.text(),
    region=st.one_of(st.none(), st.lists(st.tuples(numbers, numbers), max_size=2).map(tuple)),
    relation=st.text(),
    status=st.sampled_from(["holds", "fails", "undecided", "untested", None]),
)


@given(st.lists(parts, max_size=3), st.text(), st.booleans())
def test_a_verdict_survives_json(estimates, why, error):
    verdict = Verdict("claim", "undecided", tuple(estimates), why, error)
    text = json.dumps(verdict.to_json(), allow_nan=False)
    assert Verdict.from_json(json.loads(text)) == verdict


def test_a_verdict_displays_itself():
    verdict = (exact(0) < 1).judge("a<b", 0.05)
    assert str(verdict) == "a<b: holds (0 < 1)"
    assert "a&lt;b" in verdict._repr_html_()


def test_a_named_part_shows_its_name_and_decides_the_same():
    rules = [exact(1.0) > 0, exact(2.0) > 3]
    plain, named = all_of(*rules).judge("c", 0.05), all_of(rules[0].named("first"), rules[1]).judge("c", 0.05)
    assert named.status == plain.status == "fails"
    assert [part.label for part in named.estimates] == ["first", "2"]
    nested = all_of(any_of(*rules).named("either"), rules[0]).judge("c", 0.05)
    assert [part.label for part in nested.estimates] == ["either: 1", "either: 2", "2"]
    with pytest.raises(ValueError, match="empty"):
        rules[0].named("")
