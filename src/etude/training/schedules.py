"""Numbers that change with the training step: weights of a loss, variances of noise.

A schedule is any function from the step (0, 1, 2, ...) to a number; a method that takes one takes your own function
too. Those here compare equal when they are the same, print as what they are, and check their arguments when made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["AfterStep", "Constant", "FirstSteps", "LinearDecay", "PowerDecay", "Schedule"]

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class Constant:
    """The same value at every step.

    Args:
        value: a finite number.

    Raises:
        ValueError: it is not finite.
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        _check_finite("value", self.value)

    def __call__(self, step: int) -> float:
        """The value at a step."""
        return self.value


@dataclass(frozen=True)
class FirstSteps:
    """A value during the first steps, then 0.

    Args:
        steps: how many, at least 0.
        value: a finite number.

    Raises:
        ValueError: a number out of range.
    """

    steps: int
    value: float = 1.0

    def __post_init__(self) -> None:
        _check_count("steps", self.steps, 0)
        _check_finite("value", self.value)

    def __call__(self, step: int) -> float:
        """The value at a step."""
        return self.value if step < self.steps else 0.0


@dataclass(frozen=True)
class AfterStep:
    """0 before a step, a value from it on.

    Args:
        start: the first step with the value, at least 0.
        value: a finite number.

    Raises:
        ValueError: a number out of range.
    """

    start: int
    value: float = 1.0

    def __post_init__(self) -> None:
        _check_count("start", self.start, 0)
        _check_finite("value", self.value)

    def __call__(self, step: int) -> float:
        """The value at a step."""
        return self.value if step >= self.start else 0.0


@dataclass(frozen=True)
class LinearDecay:
    """A straight line from `value` at step 0 to `end` at step `steps`, and `end` from there on.

    Args:
        steps: length of the line, at least 1.
        value: where it starts, finite.
        end: where it ends, finite.

    Raises:
        ValueError: a number out of range.
    """

    steps: int
    value: float = 1.0
    end: float = 0.0

    def __post_init__(self) -> None:
        _check_count("steps", self.steps, 1)
        _check_finite("value", self.value)
        _check_finite("end", self.end)

    def __call__(self, step: int) -> float:
        """The value at a step."""
        part = min(step / self.steps, 1.0)
        return self.value * (1 - part) + self.end * part


@dataclass(frozen=True)
class PowerDecay:
    """``value / (1 + step) ** power``.

    Args:
        value: the number at step 0, finite.
        power: how fast it falls, at least 0.

    Raises:
        ValueError: a number out of range.
    """

    value: float
    power: float

    def __post_init__(self) -> None:
        _check_finite("value", self.value)
        _check_finite("power", self.power)
        if self.power < 0:
            raise ValueError(f"power={self.power!r}: give a number of at least 0")

    def __call__(self, step: int) -> float:
        """The value at a step."""
        return self.value / (1 + step) ** self.power


def _check_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"{name}={value!r}: give a finite number")


def _check_count(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r}: give a whole number of at least {least}")
