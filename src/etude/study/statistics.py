"""Estimates with intervals, one number a unit at a time, and the levels at which a run may be looked at.

Each interval was chosen by its measured coverage. Where 95 % is promised, simulation gives (in percent, standard error
at most 0.6; for proportions the least over all probabilities, computed exactly):

==========================  ===========  =====  =====  =====  =====  =====
interval                    data         n = 3      5     10     20    100
==========================  ===========  =====  =====  =====  =====  =====
`mean`                      normal        94.3   95.5   94.9   95.9   95.5
`mean`                      exponential   87.6   87.4   89.6   95.3   96.1
`mean`                      log-normal    84.2   83.4   83.4   92.8   95.4
`ratio`                     log-gamma     92.1   92.4   92.3   95.5   95.5
`bootstrap` of a mean       normal        94.9   95.1   95.2   95.2   95.3
`bootstrap` of a mean       exponential   88.5   87.4   89.5   91.7   93.9
`bootstrap` of a mean       log-normal    84.4   82.5   83.5   86.8   91.8
`proportion`                Bernoulli     97.5   97.5   96.1   95.8   95.0
==========================  ===========  =====  =====  =====  =====  =====

So with fewer than 20 units the mean of strongly skewed data is covered less often than promised: 8 points less for
exponential, 12 for log-normal data. Take logarithms (`ratio` does) or more seeds where the data look like that.
For the mean of 20 exponential (log-normal) values the alternatives cover, in 2,000 samples, 91.3 (86.6) % with
Student's t, 89.5 (84.1) % with percentiles, 90.5 (86.3) % with BCa and 94.5 (92.3) % with the bootstrap-t alone.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from scipy import special

from etude.study.evidence import Quantity, Table
from etude.study.rules import Rule, compare, format_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Interval = Callable[[float], tuple[float, float]]

BOOTSTRAP_FROM = 20
"""From this many units on, a mean's interval takes the skewness of the data into account."""

LOOKS = (5, 10, 20)
"""Numbers of seeds after which a run that stops early may be judged."""

_RESAMPLES = 10_000
_ROWS_AT_ONCE = 100_000


@dataclass(frozen=True, eq=False, repr=False)
class Estimate:
    """A number with its interval. Compared with a number by ``<``, ``<=``, ``>``, ``>=`` it gives a `Rule`.

    Args:
        value: the estimate.
        interval: the interval of level 1 - alpha as a function of alpha in (0, 1); nested: a smaller alpha gives an
            interval that contains that of a larger one.
        n: number of units it rests on, None for an exact value.
        method: how the interval was made.
    """

    value: float
    interval: Interval
    n: int | None
    method: str

    def __lt__(self, bound: float) -> Rule:
        return compare(self, "<", bound)

    def __le__(self, bound: float) -> Rule:
        return compare(self, "<=", bound)

    def __gt__(self, bound: float) -> Rule:
        return compare(self, ">", bound)

    def __ge__(self, bound: float) -> Rule:
        return compare(self, ">=", bound)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Real):
            raise TypeError("an estimate is not compared with == ; use within(estimate, low, high)")
        return self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        if self.n is None:
            return f"{format_number(self.value)} ({self.method})"
        low, high = map(format_number, self.interval(0.05))
        return f"{format_number(self.value)} [{low}, {high}] (95 %, n = {self.n}, {self.method})"

    def __bool__(self) -> NoReturn:
        raise TypeError("an estimate has no truth value; compare it with a number to get a rule")


def exact(value: float) -> Estimate:
    """A value without sampling error: a worst case, a count, an identity that holds or does not.

    Args:
        value: a number or a truth value. NaN is accepted and never decides anything.

    Raises:
        TypeError: if it is not a number.
    """
    if not isinstance(value, (Real, np.bool_)):
        raise TypeError(f"value: a {type(value).__name__} was given; a number is accepted")
    number = float(value)
    return Estimate(number, lambda alpha: (number, number), None, "exact")


def mean(quantity: pd.Series[Any]) -> Estimate:
    """The mean over units.

    Below 20 units Student's t: ``m ± t(1 - alpha/2; n - 1) s / sqrt(n)``. From 20 units the bootstrap-t interval
    ``(m - q(1 - alpha/2) s / sqrt(n), m - q(alpha/2) s / sqrt(n))``, with q the quantiles of
    ``(m* - m) / (s* / sqrt(n))`` over 10,000 resamples, widened to Student's t interval at each end where that one
    reaches further (which matters where many values are equal). Fixed generator: the same data give the same
    interval. A value that is NaN gives an interval that is not finite, hence no decision.

    Args:
        quantity: one number a unit (numbers or truth values), the index naming the unit.

    Raises:
        TypeError: if it is not a Series of numbers.
        ValueError: if it is empty, its index does not name a unit, or a unit occurs more than once.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 12.5.
    """
    return _mean(_values("quantity", quantity))


def ratio(numerator: pd.Series[Any], denominator: pd.Series[Any]) -> Estimate:
    """The geometric mean over units of paired ratios: ``exp(mean(log(a / b)))``, with the interval of that `mean`.

    Args:
        numerator: one positive number a unit.
        denominator: one positive number a unit, for the same units.

    Raises:
        TypeError: if one is not a Series of numbers.
        ValueError: if a value is zero or negative (the unit is named), or the units do not pair.
    """
    sides = {"numerator": numerator, "denominator": denominator}
    for name, side in sides.items():
        values = _values(name, side)
        if (values <= 0).any():
            where = int(np.argmax(values <= 0))
            raise ValueError(
                f"{name}: {values[where]:g} at {_name_of(side, where)}; positive numbers are accepted, "
                "as a geometric mean is taken"
            )
    quotient = Quantity(numerator).astype(float) / Quantity(denominator).astype(float)
    logarithm = _mean(np.log(quotient.to_numpy(dtype=np.float64)))

    def interval(alpha: float) -> tuple[float, float]:
        low, high = logarithm.interval(alpha)
        return _exp(low), _exp(high)

    return Estimate(_exp(logarithm.value), interval, logarithm.n, f"geometric mean, {logarithm.method}")


def proportion(quantity: pd.Series[Any]) -> Estimate:
    """The share of units that are true, with the Clopper-Pearson interval, which never covers less than it promises.

    Args:
        quantity: one truth value a unit (booleans, or numbers 0 and 1). NaN makes the interval non-finite.

    Raises:
        TypeError: if it is not a Series of numbers or truth values.
        ValueError: if a value is neither 0 nor 1 (the unit is named), it is empty, its index does not name a unit, or
            a unit occurs more than once.

    Source: Clopper and Pearson, Biometrika 26 (1934).
    """
    values = _values("quantity", quantity)
    method = "Clopper-Pearson"
    n = len(values)
    if np.isnan(values).any():
        return Estimate(math.nan, lambda alpha: (math.nan, math.nan), n, method)
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        where = int(np.argmax(wrong))
        raise ValueError(
            f"quantity: {values[where]:g} at {_name_of(quantity, where)}; truth values (or 0 and 1) are accepted"
        )
    k = int(values.sum())

    def interval(alpha: float) -> tuple[float, float]:
        check_alpha(alpha)
        low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, alpha / 2))
        high = 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1 - alpha / 2))
        return low, high

    return Estimate(k / n, interval, n, method)


def bootstrap(
    table: Table,
    statistic: Callable[[Table], float],
    *,
    unit: str | Sequence[str],
    within: str | Sequence[str] | None = None,
    resamples: int = 1000,
) -> Estimate:
    """Any statistic of a table, with units resampled whole: ``v ± t(1 - alpha/2; n - H) f sd*``.

    sd* is the standard deviation of the statistic over the resamples, H the number of strata, and
    ``f = sqrt(n_h / (n_h - 1))`` for the smallest stratum undoes the shrinkage of resampling few units. In
    simulations of means, ratios of means, correlations, standard deviations and medians this interval covers as well
    as or better than the percentile and BCa intervals from 5 to 100 units; jackknife pseudo-values fail for medians
    (72 %). What no resampling repairs is a statistic of heavy tails: the standard deviation of log-normal data is
    covered in about 65 % of samples of 20.

    Every copy of a unit in a resample has a label of its own (text keeps its beginning, ``name#3``; other labels
    become running numbers), so a statistic that groups by unit counts it as often as it was drawn.

    Args:
        table: the rows.
        statistic: takes a table and returns one number.
        unit: columns that name the outermost unit; its rows stay together.
        within: columns that name strata; each keeps its number of units.
        resamples: how many, at least 100.

    Returns:
        The estimate. Where more than one resample in twenty has no finite value, the interval is not finite; fewer
        are left out, and the method says how many.

    Raises:
        KeyError: if there is no such column.
        TypeError: if the statistic does not return a number.
        ValueError: if the table is empty, a row lacks its unit, a unit lies in two strata, a stratum has a single
            unit (with `within`), or `resamples` is below 100.
    """
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 100:
        raise ValueError(f"resamples: {resamples!r} was given; an integer of at least 100 is accepted")
    keys = [unit] if isinstance(unit, str) else list(unit)
    plan = _Resampling(table, keys, [] if within is None else [within] if isinstance(within, str) else list(within))
    value = _number(statistic(table))
    method = f"bootstrap standard error over {' and '.join(keys)}, Student t"
    n, freedom = plan.units, plan.units - plan.strata
    if not math.isfinite(value) or freedom < 1:
        return Estimate(value, lambda alpha: (math.nan, math.nan), n, method)
    drawn = np.array([_number(statistic(sample)) for sample in plan.samples(resamples)])
    finite = drawn[np.isfinite(drawn)]
    if len(finite) < resamples:
        method += f" ({resamples - len(finite)} of {resamples} resamples without a value)"
    spread = float(finite.std(ddof=1)) * plan.inflation if len(finite) >= 0.95 * resamples else math.nan

    def interval(alpha: float) -> tuple[float, float]:
        check_alpha(alpha)
        reach = _student(alpha, freedom) * spread
        return value - reach, value + reach

    return Estimate(value, interval, n, method)


def _mean(values: Array) -> Estimate:
    n = len(values)
    centre = float(values.mean())
    if n < 2 or not np.isfinite(values).all():
        return Estimate(centre, lambda alpha: (math.nan, math.nan), n, "Student t")
    # Equal values can have a mean that differs from them by rounding, and then a spread that is only that.
    spread = 0.0 if (values == values[0]).all() else float(values.std(ddof=1))
    centre = float(values[0]) if spread == 0 else centre
    error = spread / math.sqrt(n)
    ratios = _studentised(values, centre, spread) if n >= BOOTSTRAP_FROM and spread > 0 else None

    def interval(alpha: float) -> tuple[float, float]:
        check_alpha(alpha)
        t = _student(alpha, n - 1)
        below, above = (t, t) if ratios is None else (max(t, _tail(ratios, alpha, n)), max(t, _tail(-ratios, alpha, n)))
        return centre - below * error, centre + above * error

    method = "Student t" if n < BOOTSTRAP_FROM else "bootstrap-t, at least Student t"
    return Estimate(centre, interval, n, method)


def _studentised(values: Array, centre: float, spread: float) -> Array:
    """(m* - m) / (s* / sqrt(n)) over the resamples, without those whose values are all equal."""
    n = len(values)
    scaled = (values - centre) / spread
    moments = [(counts @ scaled / n, counts @ scaled**2 / n) for counts in _counts(n)]
    means, squares = (np.concatenate(part) for part in zip(*moments))
    variances = squares - means**2
    kept = variances > 1e-12
    result: Array = means[kept] / np.sqrt(variances[kept] / (n - 1))
    return result


def _tail(ratios: Array, alpha: float, n: int) -> float:
    """The quantile 1 - alpha/2; beyond what the resamples resolve, continued like Student's t."""
    if len(ratios) < 1000:
        return -math.inf
    level = max(alpha / 2, 10 / len(ratios))
    quantile = float(np.quantile(ratios, 1 - level))
    return quantile * _student(alpha, n - 1) / _student(2 * level, n - 1)


@functools.lru_cache(maxsize=1024)
def _student(alpha: float, freedom: int) -> float:
    """The two-sided quantile t(1 - alpha/2)."""
    return float(special.stdtrit(freedom, 1 - alpha / 2))


def _counts(n: int) -> Iterator[NDArray[np.float64]]:
    """How often each of n units is drawn in each resample, in blocks of shape (resamples, n)."""
    if n <= 200:
        yield _few_counts(n)
        return
    generator = np.random.default_rng(0)
    left = min(_RESAMPLES, max(1000, 10**8 // n))
    while left > 0:
        block = min(left, max(1, 2 * 10**6 // n))
        yield _multiplicities(n, block, generator)
        left -= block


@functools.lru_cache(maxsize=4)
def _few_counts(n: int) -> NDArray[np.float64]:
    return _multiplicities(n, _RESAMPLES, np.random.default_rng(0))


def _multiplicities(n: int, resamples: int, generator: np.random.Generator) -> NDArray[np.float64]:
    drawn = generator.integers(0, n, (resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * resamples).reshape(resamples, n).astype(np.float64)


class _Resampling:
    """Tables in which the units of a table are drawn with replacement, within strata."""

    def __init__(self, table: Table, unit: list[str], within: list[str]) -> None:
        table.per(*unit)  # checks the columns and that every row has its unit
        frame = table.frame
        if frame.empty:
            raise ValueError("table: it has no rows")
        self._frame, self._label = frame, unit[-1]
        codes = frame.groupby(unit).ngroup().to_numpy()
        self._order = np.argsort(codes, kind="stable")
        self._lengths = np.bincount(codes)
        self._starts = np.cumsum(self._lengths) - self._lengths
        self.units = len(self._lengths)
        first = self._order[self._starts]
        self._names = frame[self._label].to_numpy()[first]
        self._members = [np.arange(self.units)]
        if within:
            table.per(*within)
            stratum = frame.groupby(within).ngroup().to_numpy()
            if (stratum != stratum[first][codes]).any():
                raise ValueError(f"within: a {' and '.join(unit)} lies in several {' and '.join(within)}")
            self._members = [np.flatnonzero(stratum[first] == code) for code in np.unique(stratum)]
            if min(map(len, self._members)) < 2:
                raise ValueError(
                    f"within: a {' and '.join(within)} has a single {' and '.join(unit)}; at least 2 are accepted"
                )
        self.strata = len(self._members)
        smallest = min(map(len, self._members))
        self.inflation = math.sqrt(smallest / max(smallest - 1, 1))

    def samples(self, resamples: int) -> Iterator[Table]:
        generator = np.random.default_rng(0)
        drawn = np.concatenate(
            [members[generator.integers(0, len(members), (resamples, len(members)))] for members in self._members],
            axis=1,
        )
        textual = all(isinstance(name, str) for name in self._names)
        places = np.arange(self.units)
        column = list(self._frame.columns).index(self._label)
        # Many resamples are taken from the frame at once and cut apart, as pandas takes its time for each call.
        block = max(1, _ROWS_AT_ONCE // len(self._frame))
        for start in range(0, resamples, block):
            units = drawn[start : start + block].ravel()
            lengths = self._lengths[units]
            ends = np.cumsum(lengths)
            offsets = np.repeat(self._starts[units] - (ends - lengths), lengths)
            taken = self._frame.take(self._order[offsets + np.arange(ends[-1])]).reset_index(drop=True)
            labels: Any = np.tile(places, len(units) // self.units)
            if textual:
                labels = np.array([f"{self._names[unit]}#{place}" for unit, place in zip(units, labels)], dtype=object)
            taken.isetitem(column, np.repeat(labels, lengths))
            cuts = [0, *ends[self.units - 1 :: self.units]]
            for first, last in itertools.pairwise(cuts):
                yield Table(taken.iloc[first:last])


def _values(name: str, quantity: object) -> Array:
    if not isinstance(quantity, pd.Series):
        raise TypeError(
            f"{name}: a {type(quantity).__name__} was given; one number a unit is accepted, such as table['accuracy']"
        )
    index = quantity.index
    if any(level is None for level in index.names):
        raise ValueError(
            f"{name}: its index does not name a unit; one number a unit is accepted, such as table.per('item')['right']"
        )
    if not len(quantity):
        raise ValueError(f"{name}: it is empty; at least one unit is accepted")
    if not index.is_unique:
        twice = index[index.duplicated()][0]
        raise ValueError(f"{name}: {' and '.join(map(str, index.names))} {twice} has several values; one is accepted")
    if not (is_numeric_dtype(quantity) or is_bool_dtype(quantity)):
        # Truth values with missing ones among them have the dtype object.
        if not all(isinstance(value, (Real, np.bool_)) or value is None for value in quantity):
            raise TypeError(f"{name}: values of type {quantity.dtype} were given; numbers are accepted")
        return np.array([math.nan if value is None else float(value) for value in quantity])
    return quantity.to_numpy(dtype=np.float64, na_value=math.nan)


def _name_of(quantity: pd.Series[Any], position: int) -> str:
    label = quantity.index[position]
    labels = label if isinstance(label, tuple) else (label,)
    return ", ".join(f"{name} = {value}" for name, value in zip(quantity.index.names, labels))


def _number(value: object) -> float:
    if not isinstance(value, (Real, np.bool_)):
        raise TypeError(f"statistic: it returned a {type(value).__name__}; one number is accepted")
    return float(value)


def _exp(value: float) -> float:
    return math.inf if value > 709 else math.exp(value)


def check_alpha(alpha: float) -> None:
    """Refuse an alpha outside (0, 1)."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha!r}: give a number in (0, 1)")
