"""The errors étude raises on purpose, and a helper for naming what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EtudeError(Exception):
    """Base of every error étude defines."""


class BrokenStudy(EtudeError):
    """A study file cannot be read, cannot be imported, or holds no study."""


class Unavailable(EtudeError):
    """Something a study or method needs is not on this machine.

    A trial that raises it is skipped, and the claims that read its evidence are `untested`.

    Args:
        what: what is missing, as a sentence without a full stop.
        remedy: what the user can do about it, as an imperative sentence without a full stop.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}. {self.remedy}."


class MissingData(Unavailable):
    """A data set is not at hand, or what is at hand is not the data set."""


class MissingExtra(Unavailable):
    """An optional dependency is not installed."""


def suggest(name: str, choices: Iterable[str]) -> str:
    """A sentence naming the choice nearest to a mistyped name.

    Args:
        name: what was given.
        choices: what would have been accepted.

    Returns:
        ``" Did you mean 'x'?"`` (with the leading space), or ``""`` when nothing is near.
    """
    near = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.55)
    return f" Did you mean '{near[0]}'?" if near else ""
