"""Estimates keep the coverage they promise, and rules and looks their rate of wrong decisions."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from etude.study.evidence import Quantity, Table
from etude.study.rules import all_of, any_of, count_of, outside
from etude.study.statistics import LOOKS, bootstrap, exact, mean, proportion, ratio

DRAWS = {
    "normal": (lambda generator, n: generator.normal(size=n), 0.0),
    "exponential": (lambda generator, n: generator.exponential(size=n), 1.0),
    "log-normal": (lambda generator, n: generator.lognormal(size=n), math.exp(0.5)),
}
# By how much 95 % intervals of a mean are known to fall short (the table in the module's docstring).
SHORTFALL = {
    "normal": dict.fromkeys((3, 5, 10, 20, 100), 0.0),
    "exponential": {3: 0.08, 5: 0.075, 10: 0.055, 20: 0.01, 100: 0.0},
    "log-normal": {3: 0.12, 5: 0.125, 10: 0.12, 20: 0.03, 100: 0.01},
}


def quantity(values, name="seed") -> Quantity:
    return Quantity(values, index=pd.RangeIndex(len(values), name=name))


def covers(estimate, truth, alpha=0.05) -> bool:
    low, high = estimate.interval(alpha)
    return low <= truth <= high


def keeps(covered: list[bool], promised: float) -> bool:
    """Whether a simulated coverage is not below a promise by more than three of its standard errors."""
    return np.mean(covered) >= promised - 3 * math.sqrt(promised * (1 - promised) / len(covered))


def rate_within(decided: list[bool], bound: float) -> bool:
    return np.mean(decided) <= bound + 3 * math.sqrt(bound * (1 - bound) / len(decided))


# ---- coverage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 5, 10, 20, 100])
@pytest.mark.parametrize("kind", DRAWS)
def test_coverage_of_the_mean(kind, n):
    draw, truth = DRAWS[kind]
    generator = np.random.default_rng(n)
    covered = [covers(mean(quantity(draw(generator, n))), truth) for _ in range(1000 if n < 20 else 400)]
    assert keeps(covered, 0.95 - SHORTFALL[kind][n])


def test_the_check_of_coverage_can_fail():
    generator = np.random.default_rng(0)
    samples = generator.normal(size=(1500, 5))
    reach = stats.norm.ppf(0.975) * samples.std(axis=1, ddof=1) / math.sqrt(5)
    assert not keeps(list(abs(samples.mean(axis=1)) <= reach), 0.95)
    resampled = samples[:, generator.integers(0, 5, (500, 5))].mean(axis=2)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=1)
    assert not keeps(list((low <= 0) & (high >= 0)), 0.95)


@pytest.mark.parametrize(("n", "shortfall"), [(3, 0.035), (5, 0.035), (10, 0.035), (20, 0.01), (100, 0.0)])
def test_coverage_of_the_ratio(n, shortfall):
    generator = np.random.default_rng(n)
    repeats = 600 if n < 20 else 250
    log_normal = [
        covers(ratio(quantity(generator.lognormal(1, 0.5, n)), quantity(generator.lognormal(0, 0.5, n))), math.e)
        for _ in range(repeats)
    ]
    assert keeps(log_normal, 0.95)
    truth = math.exp(-1.9635100260214235)  # exp(digamma(1/2)), the geometric mean of a gamma variable of shape 1/2
    skewed = [
        covers(ratio(quantity(generator.gamma(0.5, size=n)), quantity(np.ones(n))), truth) for _ in range(repeats)
    ]
    assert keeps(skewed, 0.95 - shortfall)


@pytest.mark.parametrize("n", [3, 5, 10, 20, 100])
def test_coverage_of_the_proportion_is_at_least_promised_for_every_probability(n):
    intervals = [proportion(quantity(np.arange(n) < k)).interval(0.05) for k in range(n + 1)]
    low, high = (np.array(ends)[:, None] for ends in zip(*intervals))
    probability = np.linspace(0.001, 0.999, 999)
    chance = stats.binom.pmf(np.arange(n + 1)[:, None], n, probability)
    coverage = (chance * ((low <= probability) & (probability <= high))).sum(axis=0)
    assert coverage.min() >= 0.95 - 1e-9


@pytest.mark.parametrize("n", [3, 5, 10, 20, 100])
def test_coverage_of_the_bootstrap(n):
    # The units drawn do not depend on the data, so the draws of one call give the interval of any other data set.
    draws: list[np.ndarray] = []

    def recorded(sample: Table) -> float:
        draws.append(np.bincount(sample.frame["row"], minlength=n) / n)
        return average(sample)

    values = np.random.default_rng(n).normal(size=n)
    table = Table(pd.DataFrame({"seed": np.arange(n), "row": np.arange(n), "x": values}))
    interval = bootstrap(table, recorded, unit="seed", resamples=400).interval(0.05)
    weights = np.array(draws[1:])
    assert weights.shape == (400, n)

    def reach(samples: np.ndarray) -> np.ndarray:
        spread = (samples @ weights.T).std(axis=1, ddof=1) * math.sqrt(n / (n - 1))
        return stats.t.ppf(0.975, n - 1) * spread

    half = reach(values[None])[0]
    assert interval == pytest.approx((values.mean() - half, values.mean() + half))
    for kind, (draw, truth) in DRAWS.items():
        samples = draw(np.random.default_rng(n + 1), 2000 * n).reshape(2000, n)
        covered = abs(samples.mean(axis=1) - truth) <= reach(samples)
        # From 20 units on it does not allow for skewness as `mean` does.
        late = {"normal": 0.0, "exponential": 0.04, "log-normal": 0.09}[kind] if n >= 20 else SHORTFALL[kind][n]
        assert keeps(list(covered), 0.95 - late), kind


# ---- wrong decisions -------------------------------------------------------------------------------------------------

# One array is the data of one part in every repetition; a part is true or false exactly at the region's edge, where a
# wrong decision is likeliest, or so far from it that it is always decided rightly.
COMPOSITES = {
    "all of 4": (lambda rules: all_of(*rules), 4, 4),
    "any of 4": (lambda rules: any_of(*rules), 4, 1),
    "2 of 4": (lambda rules: count_of(rules, 2), 4, 2),
    "3 of 4": (lambda rules: count_of(rules, 3), 4, 3),
}


@pytest.mark.parametrize("name", COMPOSITES)
def test_wrong_holds_and_wrong_fails_of_composites(name):
    combine, n, k = COMPOSITES[name]
    samples = np.random.default_rng(5).normal(size=(800, n, 5))
    wrong_holds, wrong_fails, uncorrected = [], [], []
    for sample in samples:
        # "differs from 0" is false for n - k + 1 parts (their mean is 0) and plainly true for the others.
        parts = [outside(mean(quantity(x + 1e6 * (i < k - 1))), 0, 0) for i, x in enumerate(sample)]
        wrong_holds.append(combine(parts).judge("claim", 0.05).status == "holds")
        uncorrected.append(sum(part.judge("claim", 0.05).status == "holds" for part in parts) >= k)
        # "is at least 0" is true for k parts, at the edge, and plainly false for the others.
        parts = [mean(quantity(x - 1e6 * (i >= k))) >= 0 for i, x in enumerate(sample)]
        wrong_fails.append(combine(parts).judge("claim", 0.05).status == "fails")
    assert rate_within(wrong_holds, 0.05)
    assert rate_within(wrong_fails, 0.05)
    if k < n:
        assert not rate_within(uncorrected, 0.05)


def test_parts_that_depend_on_each_other_are_no_worse():
    samples = np.random.default_rng(6).normal(size=(600, 5))
    wrong = []
    for sample in samples:
        parts = [outside(mean(quantity(sign * sample)), 0, 0) for sign in (1, -1, 2, -2)]
        wrong.append(any_of(*parts).judge("claim", 0.05).status == "holds")
    assert rate_within(wrong, 0.05)


def decides_wrongly(values: np.ndarray, schedule) -> bool:
    """Whether any look at the first units decides about a bound at which the true mean lies."""
    return any(
        (mean(quantity(values[:seeds])) > 0).judge("claim", level).status != "undecided" for seeds, level in schedule
    )


def test_stopping_when_decided_keeps_the_rate_of_wrong_decisions():
    samples = np.random.default_rng(7).normal(size=(800, LOOKS[-1]))
    assert rate_within(
        [decides_wrongly(values, [(seeds, 0.05 / len(LOOKS)) for seeds in LOOKS]) for values in samples], 0.05
    )
    every_seed = [(seeds, 0.05) for seeds in range(3, 21)]
    assert np.mean([decides_wrongly(values, every_seed) for values in samples[:150]]) > 0.12


# ---- the mean --------------------------------------------------------------------------------------------------------


def test_mean_of_few_is_student_t():
    values = np.array([1.0, 4.0, 2.0, 8.0, 5.0])
    expected = stats.t.interval(0.9, 4, values.mean(), stats.sem(values))
    estimate = mean(quantity(values))
    assert (estimate.value, estimate.n, estimate.method) == (4.0, 5, "Student t")
    assert estimate.interval(0.1) == pytest.approx(expected)


@pytest.mark.parametrize("n", [5, 20, 60, 300])
def test_mean_follows_scale_shift_and_mirror(n):
    values = np.random.default_rng(n).exponential(size=n)
    low, high = mean(quantity(values)).interval(0.05)
    assert mean(quantity(3 * values - 7)).interval(0.05) == pytest.approx((3 * low - 7, 3 * high - 7))
    assert mean(quantity(-2 * values)).interval(0.05) == pytest.approx((-2 * high, -2 * low))


@pytest.mark.parametrize("n", [4, 20, 60, 300])
def test_intervals_are_nested_and_repeatable(n):
    values = np.random.default_rng(n).exponential(size=n)
    estimate = mean(quantity(values))
    alphas = [0.5, 0.1, 0.05, 0.01, 0.004, 0.001, 1e-4, 1e-6]
    ends = [estimate.interval(alpha) for alpha in alphas]
    assert ends == [mean(quantity(values)).interval(alpha) for alpha in alphas]
    for (low, high), (lower, higher) in itertools.pairwise(ends):
        assert lower < low < estimate.value < high < higher


def test_from_twenty_units_skewness_counts():
    values = np.random.default_rng(0).exponential(size=20)
    estimate = mean(quantity(values))
    low, high = estimate.interval(0.05)
    t_low, t_high = stats.t.interval(0.95, 19, values.mean(), stats.sem(values))
    assert estimate.method == "bootstrap-t, at least Student t"
    assert low == pytest.approx(t_low)  # the short tail of the data: Student's t reaches further
    assert high > t_high + 0.1 * (t_high - t_low)


def test_rare_values_give_a_finite_interval():
    # In most resamples of such data all values are equal, and a bootstrap-t interval alone would be infinite.
    values = quantity([0.0] * 19 + [1.0])
    assert mean(values).interval(0.05) == pytest.approx(stats.t.interval(0.95, 19, 0.05, stats.sem(values)), rel=0.5)


@pytest.mark.parametrize("n", [3, 30])
def test_equal_values_have_no_spread(n):
    estimate = mean(quantity([0.1] * n))
    assert estimate.interval(0.05) == (0.1, 0.1)
    verdict = (estimate > 0).judge("claim", 0.05)
    assert (verdict.status, verdict.why) == ("holds", "0.1 [0.1, 0.1] > 0 (no spread)")


def test_too_few_units_decide_nothing():
    for values in ([1.0], [1.0, 1.0]):
        verdict = (mean(quantity(values)) > 0).judge("claim", 0.05)
        assert (verdict.status, verdict.why[:18]) == ("undecided", "fewer than 3 units")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("n", [5, 25])
def test_what_is_not_finite_decides_nothing(bad, n):
    values = quantity(np.r_[np.arange(1.0, n), bad])
    estimates = [mean(values), ratio(values, quantity(np.ones(n)))]
    table = Table(values.rename("x").reset_index())
    estimates.append(bootstrap(table, average, unit="seed"))
    if math.isnan(bad):
        estimates.append(proportion(quantity(np.r_[np.ones(n - 1), bad])))
    for estimate in estimates:
        verdict = (estimate > 0).judge("claim", 0.05)
        assert (verdict.status, verdict.why[:10]) == ("undecided", "not finite")


def test_truth_values_and_integers_are_numbers():
    assert mean(quantity([True, False, True, True])).value == 0.75
    assert mean(quantity([1, 2, 3])).value == 2.0
    assert math.isnan(mean(quantity(pd.array([True, None, False], dtype="boolean"))).value)
    assert math.isnan(mean(quantity(np.array([True, None, False], dtype=object))).value)


@pytest.mark.parametrize("estimate", [mean, proportion, lambda q: ratio(q, q)])
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([1.0, 0.0], TypeError, "a list was given"),
        (pd.Series([1.0, 0.0]), ValueError, "does not name a unit"),
        (pd.Series([1.0, 0.0], index=pd.Index([3, 3], name="seed")), ValueError, "seed 3 has several values"),
        (quantity([]), ValueError, "it is empty"),
        (quantity(["a", "b"]), TypeError, "numbers are accepted"),
    ],
)
def test_bad_quantities(estimate, given, error, message):
    with pytest.raises(error, match=message):
        estimate(given)


# ---- ratio, proportion, exact ----------------------------------------------------------------------------------------


def test_ratio_is_the_geometric_mean_of_paired_ratios():
    a, b = quantity([2.0, 8.0, 3.0]), quantity([1.0, 2.0, 3.0])
    estimate = ratio(a, b)
    assert estimate.value == pytest.approx(2.0)
    logs = mean(np.log(a / b))
    assert estimate.interval(0.05) == pytest.approx(tuple(np.exp(logs.interval(0.05))))
    low, high = estimate.interval(0.05)
    assert ratio(b, a).interval(0.05) == pytest.approx((1 / high, 1 / low))


def test_ratio_refuses_what_has_no_logarithm():
    with pytest.raises(ValueError, match="denominator: 0 at seed = 1; positive"):
        ratio(quantity([1.0, 2.0]), quantity([1.0, 0.0]))
    with pytest.raises(ValueError, match="numerator: -2 at seed = 1; positive"):
        ratio(quantity([1.0, -2.0]), quantity([1.0, -2.0]))
    with pytest.raises(ValueError, match="without a partner"):
        ratio(quantity([1.0, 2.0]), quantity([1.0]))


@pytest.mark.parametrize(("k", "n"), [(0, 3), (3, 3), (1, 4), (7, 20), (50, 100)])
def test_proportion_is_clopper_pearson(k, n):
    estimate = proportion(quantity(np.arange(n) < k))
    expected = stats.binomtest(k, n).proportion_ci(0.9, "exact")
    assert estimate.value == k / n
    assert estimate.interval(0.1) == pytest.approx((expected.low, expected.high))
    low, high = proportion(quantity((np.arange(n) >= k).astype(float))).interval(0.1)
    assert (1 - high, 1 - low) == pytest.approx((expected.low, expected.high))


def test_proportion_wants_truth_values():
    with pytest.raises(ValueError, match=r"quantity: 0.5 at item = 1; truth values"):
        proportion(quantity([1.0, 0.5], name="item"))


def test_exact():
    assert exact(np.float32(0.5)).interval(0.05) == (0.5, 0.5)
    assert (exact(True) >= 1).judge("claim", 0.05).status == "holds"
    assert exact(1).n is None
    for value in ("1", None, [1]):
        with pytest.raises(TypeError, match="a number is accepted"):
            exact(value)


def test_an_estimate_is_neither_a_number_nor_a_truth_value():
    with pytest.raises(TypeError, match="within"):
        exact(1) == 1  # noqa: B015
    with pytest.raises(TypeError, match="truth value"):
        bool(exact(1))
    assert repr(exact(1)) == "1 (exact)"
    assert repr(mean(quantity([1.0, 2.0, 3.0]))) == "2 [-0.4841, 4.484] (95 %, n = 3, Student t)"
    with pytest.raises(ValueError, match="alpha"):
        mean(quantity([1.0, 2.0, 3.0])).interval(0)


# ---- the bootstrap ---------------------------------------------------------------------------------------------------


def average(table: Table) -> float:
    return float(table.frame["x"].to_numpy().mean())


def items(n: int, rows: int = 1, **columns) -> Table:
    generator = np.random.default_rng(n)
    units = np.repeat(np.arange(n), rows)
    frame = pd.DataFrame({"item": [f"item-{unit}" for unit in units], "x": generator.normal(size=n)[units]})
    return Table(frame.assign(**{name: np.asarray(values)[units] for name, values in columns.items()}))


@pytest.mark.parametrize("n", [3, 10, 50])
def test_bootstrap_of_a_mean_is_student_t(n):
    table = items(n, rows=2)
    values = table.per("item").mean("x").to_numpy()
    expected = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    estimate = bootstrap(table, average, unit="item", resamples=2000)
    assert estimate.n == n
    # Four standard errors of a standard deviation over 2000 resamples.
    assert estimate.interval(0.05) == pytest.approx(expected, abs=0.064 * (expected[1] - expected[0]) / 2)
    assert estimate.interval(0.05) == bootstrap(table, average, unit="item", resamples=2000).interval(0.05)


def test_units_are_resampled_whole_and_copies_count():
    table = items(12, rows=3)
    seen = []

    def by_unit(sample: Table) -> float:
        groups = sample.frame.groupby("item")["x"]
        assert (groups.size() == 3).all()
        assert (groups.nunique() == 1).all()
        assert sample.frame["item"].str.startswith("item-").all()
        seen.append(len(groups))
        return float(groups.mean().mean())

    grouped, plain = (bootstrap(table, statistic, unit="item") for statistic in (by_unit, average))
    assert set(seen) == {12}
    assert grouped.interval(0.05) == pytest.approx(plain.interval(0.05))


def test_units_of_several_columns_and_of_unequal_size():
    frame = pd.DataFrame({"seed": [0, 0, 0, 1, 1, 2], "item": [0, 0, 1, 0, 1, 0], "x": range(6)})
    sizes = []

    def statistic(sample: Table) -> float:
        sizes.append(sample.frame.groupby(["seed", "item"]).ngroups)
        return average(sample)

    assert bootstrap(Table(frame), statistic, unit=("seed", "item")).n == 5
    by_seed = bootstrap(Table(frame), lambda t: float(t.frame["seed"].nunique()), unit="seed")
    assert (by_seed.n, by_seed.interval(0.05)) == (3, (3.0, 3.0))
    assert set(sizes) == {5}


def test_strata_keep_their_sizes():
    strata = np.array([0] * 8 + [1] * 8)
    table = items(16, stratum=strata)
    frame = table.frame.assign(x=table.frame["x"] + 1000.0 * strata)
    estimate = bootstrap(Table(frame), average, unit="item", within="stratum", resamples=2000)
    variance = sum(frame["x"][strata == s].var(ddof=1) / 8 / 4 for s in (0, 1))
    reach = stats.t.ppf(0.975, 14) * math.sqrt(variance)
    low, high = estimate.interval(0.05)
    assert (high - low) / 2 == pytest.approx(reach, rel=0.064)
    whole = bootstrap(Table(frame), average, unit="item").interval(0.05)
    assert whole[1] - whole[0] > 100 * (high - low)


def test_resamples_without_a_value_are_told():
    def undefined_where_equal(sample: Table) -> float:
        x = sample.frame["x"].to_numpy()
        return float(x.mean()) if np.ptp(x) else math.nan

    some = bootstrap(items(4), undefined_where_equal, unit="item")
    assert math.isfinite(some.interval(0.05)[0])
    assert "of 1000 resamples without a value" in some.method
    many = bootstrap(items(3), undefined_where_equal, unit="item")
    assert (many > -1e9).judge("claim", 0.05).status == "undecided"


def test_two_units_decide_nothing():
    assert (bootstrap(items(2), average, unit="item") > -1e9).judge("claim", 0.05).status == "undecided"
    assert (bootstrap(items(1), average, unit="item") > -1e9).judge("claim", 0.05).status == "undecided"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"unit": "itme"}, KeyError, "no column 'itme'. Did you mean 'item'"),
        ({"unit": "item", "within": "set"}, KeyError, "no column 'set'"),
        ({"unit": "item", "within": "x"}, ValueError, "has a single item"),
        ({"unit": "pair", "within": "item"}, ValueError, "a pair lies in several item"),
        ({"unit": "item", "resamples": 10}, ValueError, "at least 100"),
        ({"unit": "item", "resamples": 1e3}, ValueError, "at least 100"),
        ({"unit": []}, ValueError, "no column was named"),
    ],
)
def test_bad_bootstraps(arguments, error, message):
    with pytest.raises(error, match=message):
        bootstrap(items(6, pair=[0, 0, 1, 1, 2, 2]), average, **arguments)


def test_a_statistic_returns_a_number():
    with pytest.raises(TypeError, match="statistic: it returned a Series"):
        bootstrap(items(5), lambda t: t.frame["x"], unit="item")
