"""What a program may use, and what came of running it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

Outcome = Literal["value", "error", "timeout", "memory", "output", "crashed", "refused"]


@dataclass(frozen=True)
class Limits:
    """What one program, with all its inputs, may use.

    Args:
        cpu_seconds: processor time, above 0; the kernel counts whole seconds, so it is rounded up.
        wall_seconds: time from the start to the last answer, above 0.
        memory_mb: address space beyond that of the bare interpreter, in MB, from 1.
        output_kb: what all answers together may take as JSON, in kB, from 1.
        file_kb: size of a file, and of the working directory where the level gives a program its own, in kB, from 0.
        processes: processes and threads at a time, the program itself included, from 1. More than one is a bound only
            where the caller is not root, whose processes Linux does not count; for root it lifts the bound.
        depth: how deeply an answer may be nested, from 1.
        source_kb: length of the program, in kB, from 1.

    Raises:
        TypeError: a limit is no number, or a fraction where whole numbers are meant.
        ValueError: a limit is out of range.
    """

    cpu_seconds: float = 2.0
    wall_seconds: float = 5.0
    memory_mb: int = 256
    output_kb: int = 256
    file_kb: int = 1024
    processes: int = 1
    depth: int = 32
    source_kb: int = 64

    def __post_init__(self) -> None:
        for field in fields(self):
            value, seconds = getattr(self, field.name), field.name.endswith("seconds")
            if isinstance(value, bool) or not isinstance(value, (int, float) if seconds else int):
                accepted = "a number" if seconds else "a whole number"
                raise TypeError(f"{field.name}: {value!r} was given; {accepted} is accepted")
            least = 0 if field.name == "file_kb" else 1
            if seconds and not 0 < value <= 3600:
                raise ValueError(f"{field.name}: {value} was given; more than 0 and at most 3600 is accepted")
            if not seconds and not least <= value <= 1 << 20:
                raise ValueError(f"{field.name}: {value} was given; {least} to {1 << 20} is accepted")
        if self.depth > 200:
            raise ValueError(f"depth: {self.depth} was given; 1 to 200 is accepted")


@dataclass(frozen=True)
class Result:
    """What came of one input.

    Attributes:
        outcome: ``"value"``; ``"error"``: the program raised; ``"timeout"``, ``"memory"``, ``"output"``: it met that
            limit; ``"crashed"``: its process ended before it answered; ``"refused"``: the program was too long, or
            what it gave is no JSON data.
        value: what the program returned, as JSON data (tuples and arrays are lists); None unless there is a value.
        error: what went wrong, with the program's own lines of the traceback; "" if nothing did.
        seconds: time the program took for all its inputs, from outside.
        level: the level of isolation it ran at.
    """

    outcome: Outcome
    value: Any = None
    error: str = ""
    seconds: float = 0.0
    level: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.outcome == "value"


def check_data(value: Any, depth: int, name: str) -> None:
    """Refuse what JSON cannot hold: other types (subclasses too), NaN, infinities, keys that are no text.

    Args:
        value: what is to be data.
        depth: how deeply it may be nested.
        name: what to call it in the error.

    Raises:
        TypeError: something in it is no data.
        ValueError: it is nested too deeply, or holds a number or text that JSON has not.
    """
    kind = type(value)
    if value is None or kind is bool or kind is int:
        return
    if kind is float:
        if not math.isfinite(value):
            raise ValueError(f"{name}: {value} is no JSON number")
    elif kind is str:
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError(f"{name}: a text with half a surrogate pair is no JSON text")
    elif kind is list or kind is tuple or kind is dict:
        if depth <= 0:
            raise ValueError(f"{name}: it is nested too deeply")
        for each in value:
            if kind is dict and type(each) is not str:
                raise TypeError(f"{name}: a key is a {type(each).__name__}; text is accepted")
            check_data(value[each] if kind is dict else each, depth - 1, name)
    else:
        raise TypeError(f"{name}: a {kind.__name__} is no JSON value; numbers, text, lists and dicts of them are")


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: numbers by value, true and false apart from 1 and 0, lists in order.

    Args:
        one: a JSON value; a tuple counts as a list.
        other: another.
    """
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)
