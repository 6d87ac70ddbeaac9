"""Rules: what a claim says about its estimates, and the verdict an interval gives.

A rule compares an estimate with a *region* of the real line. With the interval of level ``1 - alpha``,

- it ``holds`` if the interval lies inside the region,
- it ``fails`` if the interval and the region have no point in common,
- it is ``undecided`` otherwise, and also when the interval is not finite or comes from fewer than three units.

A wrong ``holds`` needs an interval that misses the true value, and so does a wrong ``fails``: each has
probability at most ``alpha`` as long as the interval keeps its coverage.
"""

from __future__ import annotations

import copy
import html
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from etude.errors import EtudeError

if TYPE_CHECKING:
    from etude.study.statistics import Estimate

Status = Literal["holds", "fails", "undecided", "untested"]

FEWEST_UNITS = 3
"""With fewer units an interval is too wide or too fragile to decide anything."""

_PARTS_IN_TEXT = 3


class Untested(EtudeError):
    """The evidence a claim needs is not whole, so that the claim is neither confirmed nor refuted."""


@dataclass(frozen=True)
class Part:
    """One estimate of a verdict, with the interval it was judged by.

    Args:
        label: name or place in a composite rule ("1", "2.1"), or the name given to `Rule.also`; "" for a rule alone.
        value: the estimate.
        low: lower end of the interval.
        high: upper end of the interval.
        alpha: one minus the interval's level.
        n: number of units, None for an exact value.
        method: how the interval was made.
        region: intervals (low, high) in which the rule holds; None for an estimate that is shown but not judged.
        relation: the region in words, "< 1" or "in [0.45, 0.55]"; "" if not judged.
        status: what this estimate alone says; None if not judged.
    """

    label: str
    value: float
    low: float
    high: float
    alpha: float
    n: int | None
    method: str
    region: tuple[tuple[float, float], ...] | None
    relation: str
    status: Status | None

    def __str__(self) -> str:
        return f"{_estimate_text(self)} {self.relation}".rstrip()


@dataclass(frozen=True)
class Verdict:
    """What the evidence says about one claim.

    Args:
        claim: the claim's id.
        status: "holds", "fails", "undecided" or "untested".
        estimates: the estimates judged and shown.
        why: one line for a reader.
        error: True if the claim's own code raised.
    """

    claim: str
    status: Status
    estimates: tuple[Part, ...]
    why: str
    error: bool = False

    def to_json(self) -> dict[str, Any]:
        """This verdict as plain values; numbers that JSON lacks become "nan", "inf" and "-inf"."""
        parts = [
            {
                "label": part.label,
                **{name: _to_json(getattr(part, name)) for name in ("value", "low", "high", "alpha")},
                "n": part.n,
                "method": part.method,
                "region": None if part.region is None else [[_to_json(end) for end in ends] for ends in part.region],
                "relation": part.relation,
                "status": part.status,
            }
            for part in self.estimates
        ]
        return {"claim": self.claim, "status": self.status, "estimates": parts, "why": self.why, "error": self.error}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Verdict:
        """The verdict that `to_json` wrote.

        Raises:
            KeyError: if a field is missing.
        """
        parts = tuple(
            Part(
                label=part["label"],
                **{name: _from_json(part[name]) for name in ("value", "low", "high", "alpha")},
                n=part["n"],
                method=part["method"],
                region=None
                if part["region"] is None
                else tuple((_from_json(low), _from_json(high)) for low, high in part["region"]),
                relation=part["relation"],
                status=part["status"],
            )
            for part in values["estimates"]
        )
        return cls(values["claim"], values["status"], parts, values["why"], values["error"])

    def __str__(self) -> str:
        return f"{self.claim}: {self.status} ({self.why})"

    def _repr_html_(self) -> str:
        claim, status, why = (html.escape(text) for text in (self.claim, self.status, self.why))
        return f"<p><b>{claim}</b>: <b>{status}</b><br>{why}</p>"


class Rule:
    """A statement about estimates that can be judged at a level.

    Made by comparing an estimate with a number (``mean(q) < 1``) and by `within`, `outside`, `all_of`, `any_of`
    and `count_of`. It has no truth value: ``and``, ``or``, ``not`` and chained comparisons are a TypeError.
    """

    _shown: Mapping[str, Estimate] = {}
    _label: str = ""

    def judge(self, claim: str, alpha: float) -> Verdict:
        """The verdict at one level.

        Args:
            claim: the claim's id.
            alpha: bound on the probability of a wrong ``holds`` and on that of a wrong ``fails``, in (0, 1).

        Raises:
            ValueError: if alpha is not in (0, 1).
        """
        if not 0 < alpha < 1:
            raise ValueError(f"alpha: {alpha!r} was given; a number between 0 and 1 is accepted")
        decision = self._decide(alpha, alpha)
        parts = tuple(_relabel(part, self._label) if not part.label else part for part in decision.parts)
        return Verdict(claim, decision.status, parts, decision.why)

    def named(self, label: str) -> Rule:
        """The same rule with what it estimates in words: "points of accuracy against the nearest neighbour".

        Raises:
            ValueError: if the name is empty.
        """
        if not label:
            raise ValueError("label: it is empty; a few words are accepted")
        rule = copy.copy(self)
        rule._label = label
        return rule

    def also(self, **estimates: Estimate) -> Rule:
        """The same rule, with further estimates that are shown beside it but not judged.

        Raises:
            TypeError: if a value is not an estimate.
        """
        for name, estimate in estimates.items():
            _check_estimate(name, estimate)
        rule = copy.copy(self)
        rule._shown = {**self._shown, **estimates}
        return rule

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "a rule has no truth value before it is judged: use all_of, any_of and within "
            "instead of 'and', 'or' and chained comparisons"
        )

    def _decide(self, alpha_holds: float, alpha_fails: float) -> _Decision:
        """Judged at one level for ``holds`` and at another for ``fails``, with what is shown beside."""
        decision = self._decide_alone(alpha_holds, alpha_fails)
        shown = tuple(
            _part(estimate, max(alpha_holds, alpha_fails), name, None, "", None)
            for name, estimate in self._shown.items()
        )
        return _Decision(decision.status, decision.why, decision.parts + shown)

    def _decide_alone(self, alpha_holds: float, alpha_fails: float) -> _Decision:
        raise NotImplementedError


def compare(estimate: Estimate, relation: Literal["<", "<=", ">", ">="], bound: float) -> Rule:
    """The rule that an estimate lies on one side of a number; `Estimate` calls it for its operators.

    Args:
        estimate: what is judged.
        relation: the side, and whether the bound belongs to it.
        bound: a finite number.

    Raises:
        TypeError: if the bound is not a number.
        ValueError: if it is not finite.
    """
    end = _number("bound", bound)
    closed = relation.endswith("=")
    if relation.startswith("<"):
        interval = _Interval(-math.inf, end, closed_low=False, closed_high=closed)
    else:
        interval = _Interval(end, math.inf, closed_low=closed, closed_high=False)
    return _InRegion(estimate, (interval,), f"{relation} {format_number(end, 6)}")


def within(estimate: Estimate, low: float, high: float) -> Rule:
    """The rule ``low <= estimate <= high``.

    Args:
        estimate: what is judged.
        low: lower end, finite.
        high: upper end, finite, not below `low`.

    Raises:
        TypeError: if `estimate` is not an estimate, or an end is not a number.
        ValueError: if an end is not finite, or low > high.
    """
    low, high = _ends(estimate, low, high)
    region = (_Interval(low, high, closed_low=True, closed_high=True),)
    return _InRegion(estimate, region, f"in [{format_number(low, 6)}, {format_number(high, 6)}]")


def outside(estimate: Estimate, low: float, high: float) -> Rule:
    """The rule ``estimate < low or estimate > high``: it holds where `within` fails.

    The side must be clear: an interval that reaches from one half-line into the other leaves the rule undecided.

    Args:
        estimate: what is judged.
        low: end of the lower half-line, finite.
        high: start of the upper half-line, finite, not below `low`.

    Raises:
        TypeError: if `estimate` is not an estimate, or an end is not a number.
        ValueError: if an end is not finite, or low > high.
    """
    low, high = _ends(estimate, low, high)
    region = (
        _Interval(-math.inf, low, closed_low=False, closed_high=False),
        _Interval(high, math.inf, closed_low=False, closed_high=False),
    )
    return _InRegion(estimate, region, f"outside [{format_number(low, 6)}, {format_number(high, 6)}]")


def all_of(*rules: Rule) -> Rule:
    """The rule that every one of `rules` holds: `count_of` with ``at_least=len(rules)``.

    It holds if each part holds at alpha, and fails if some part fails at alpha / n.

    Raises:
        TypeError: if an argument is not a rule.
        ValueError: if there is none.
    """
    return count_of(rules, max(len(rules), 1))


def any_of(*rules: Rule) -> Rule:
    """The rule that at least one of `rules` holds: `count_of` with ``at_least=1``.

    It holds if some part holds at alpha / n, and fails if each part fails at alpha.

    Raises:
        TypeError: if an argument is not a rule.
        ValueError: if there is none.
    """
    return count_of(rules, 1)


def count_of(rules: Iterable[Rule], at_least: int) -> Rule:
    """The rule that at least k of n rules hold.

    For ``holds`` each part is judged at alpha / (n - k + 1): if the statement is false, at least n - k + 1 parts are
    false, and of any n - k + 1 false parts one would have to be judged wrongly. ``fails`` is the complementary
    statement, that at least n - k + 1 parts are false, so each part is judged at alpha / k. Both bounds hold for
    parts that depend on each other in any way.

    Args:
        rules: the n parts.
        at_least: k, from 1 to n.

    Raises:
        TypeError: if a part is not a rule or k not an integer.
        ValueError: if k is not in 1..n, or there are no parts.

    Source: Benjamini and Heller, Biometrics 64 (2008), section 2 (partial conjunction, Bonferroni).
    """
    parts = tuple(rules)
    for number, part in enumerate(parts, start=1):
        if not isinstance(part, Rule):
            raise TypeError(
                f"rules: part {number} is a {type(part).__name__}; a rule is accepted, such as mean(q) < 1 "
                "(all_of and any_of take their rules one by one: all_of(*rules))"
            )
    if not parts:
        raise ValueError("rules: none was given; at least one is accepted")
    if isinstance(at_least, bool) or not isinstance(at_least, int):
        raise TypeError(f"at_least: {at_least!r} was given; an integer is accepted")
    if not 1 <= at_least <= len(parts):
        raise ValueError(f"at_least: {at_least} was given; 1 to {len(parts)} (the number of rules) is accepted")
    return parts[0] if len(parts) == 1 else _CountOf(parts, at_least)


def format_number(value: float, digits: int = 4) -> str:
    """A number with some significant digits, trailing zeros dropped, whole digits before the point kept.

    Args:
        value: any number, NaN and infinities included.
        digits: significant digits, at least 1.
    """
    if not math.isfinite(value) or value == 0:
        return f"{value:g}" if value else "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True)
class _Interval:
    low: float
    high: float
    closed_low: bool
    closed_high: bool

    def contains(self, low: float, high: float) -> bool:
        """Whether the closed interval [low, high] lies inside."""
        above = low > self.low or (low == self.low and self.closed_low)
        return above and (high < self.high or (high == self.high and self.closed_high))

    def misses(self, low: float, high: float) -> bool:
        """Whether the closed interval [low, high] has no point in common with this one."""
        below = high < self.low or (high == self.low and not self.closed_low)
        return below or low > self.high or (low == self.high and not self.closed_high)


@dataclass(frozen=True)
class _Decision:
    status: Status
    why: str
    parts: tuple[Part, ...]


class _InRegion(Rule):
    """One estimate and the region it should lie in."""

    def __init__(self, estimate: Estimate, region: tuple[_Interval, ...], relation: str) -> None:
        self._estimate, self._region, self._relation = estimate, region, relation

    def __repr__(self) -> str:
        return f"<rule: {format_number(self._estimate.value, 3)} {self._relation}>"

    def _decide_alone(self, alpha_holds: float, alpha_fails: float) -> _Decision:
        # An undecided part shows the wider of its two intervals: being nested, that one straddles the region's edge.
        undecided = self._part(min(alpha_holds, alpha_fails), "undecided")
        if undecided.n is not None and undecided.n < FEWEST_UNITS:
            why = f"fewer than {FEWEST_UNITS} units: {format_number(undecided.value, 3)} (n = {undecided.n})"
            return _Decision("undecided", why, (undecided,))
        if not _is_finite(undecided):
            return _Decision("undecided", f"not finite: {undecided}", (undecided,))
        part = undecided
        holds, fails = self._part(alpha_holds, "holds"), self._part(alpha_fails, "fails")
        if _is_finite(holds) and any(interval.contains(holds.low, holds.high) for interval in self._region):
            part = holds
        elif _is_finite(fails) and all(interval.misses(fails.low, fails.high) for interval in self._region):
            part = fails
        joint = {"holds": " ", "fails": ", not ", "undecided": ", not decided: "}[str(part.status)]
        why = f"{_estimate_text(part)}{joint}{self._relation}"
        if part.n is not None and math.isclose(part.low, part.high, rel_tol=1e-12):
            why += " (no spread)"
        return _Decision(part.status or "undecided", why, (part,))

    def _part(self, alpha: float, status: Status) -> Part:
        region = tuple((interval.low, interval.high) for interval in self._region)
        return _part(self._estimate, alpha, "", region, self._relation, status)


class _CountOf(Rule):
    """At least k of n rules."""

    def __init__(self, rules: tuple[Rule, ...], at_least: int) -> None:
        self._rules, self._at_least = rules, at_least

    def __repr__(self) -> str:
        return f"<rule: at least {self._at_least} of {len(self._rules)} rules>"

    def _decide_alone(self, alpha_holds: float, alpha_fails: float) -> _Decision:
        n, k = len(self._rules), self._at_least
        decisions = [rule._decide(alpha_holds / (n - k + 1), alpha_fails / k) for rule in self._rules]
        by_status = {
            status: [d.why for d in decisions if d.status == status] for status in ("holds", "fails", "undecided")
        }
        hold, fail = len(by_status["holds"]), len(by_status["fails"])
        status: Status = "holds" if hold >= k else "fails" if fail >= n - k + 1 else "undecided"
        head = {
            "holds": f"{hold} of {n} hold, {k} needed",
            "fails": f"{fail} of {n} fail, {k} needed to hold",
            "undecided": f"{hold} of {n} hold and {fail} fail, {k} needed to hold; undecided",
        }[status]
        reasons = [f"({why})" if "; " in why else why for why in by_status[status]]
        if len(reasons) > _PARTS_IN_TEXT:
            reasons[_PARTS_IN_TEXT:] = [f"and {len(reasons) - _PARTS_IN_TEXT} more"]
        parts = tuple(
            _relabel(part, _joined(rule._label or str(number), part.label))
            for number, (rule, decision) in enumerate(zip(self._rules, decisions), start=1)
            for part in decision.parts
        )
        return _Decision(status, f"{head}: {'; '.join(reasons)}", parts)


def _part(
    estimate: Estimate,
    alpha: float,
    label: str,
    region: tuple[tuple[float, float], ...] | None,
    relation: str,
    status: Status | None,
) -> Part:
    low, high = estimate.interval(alpha)
    return Part(label, estimate.value, low, high, alpha, estimate.n, estimate.method, region, relation, status)


def _relabel(part: Part, label: str) -> Part:
    return Part(**{**part.__dict__, "label": label})


def _joined(outer: str, inner: str) -> str:
    if not inner:
        return outer
    return f"{outer}.{inner}" if outer.replace(".", "").isdigit() else f"{outer}: {inner}"


def _is_finite(part: Part) -> bool:
    return all(map(math.isfinite, (part.value, part.low, part.high)))


def _estimate_text(part: Part) -> str:
    ends = [] if part.n is None else [part.low, part.high]
    bounds = {bound for interval in part.region or () for bound in interval}

    def text(number: float) -> str:
        # More digits where rounding would make a number look as if it lay on the region's edge.
        for digits in range(3, 12):
            shown = format_number(number, digits)
            if number in bounds or shown not in {format_number(bound, digits) for bound in bounds}:
                break
        return shown

    return text(part.value) + (f" [{', '.join(map(text, ends))}]" if ends else "")


def _check_estimate(name: str, estimate: object) -> None:
    from etude.study.statistics import Estimate

    if not isinstance(estimate, Estimate):
        raise TypeError(
            f"{name}: a {type(estimate).__name__} was given; an estimate is accepted, such as mean(q) or exact(value)"
        )


def _ends(estimate: Estimate, low: float, high: float) -> tuple[float, float]:
    _check_estimate("estimate", estimate)
    low, high = _number("low", low), _number("high", high)
    if low > high:
        raise ValueError(f"low: {low:g} was given with high = {high:g}; low <= high is accepted")
    return low, high


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{name}: a {type(value).__name__} was given; a rule compares an estimate with a number "
            "(to compare two measurements, estimate their difference or ratio)"
        )
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name}: {number} was given; a finite number is accepted")
    return number


def _to_json(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _from_json(value: float | str) -> float:
    # math.nan itself, so that a verdict with it equals the one it was written from.
    return math.nan if value == "nan" else float(value)
