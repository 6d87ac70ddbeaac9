"""What an engine answers to one question, and why it may not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from etude.reasoning.logic.interpretation import Interpretation


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether some formulas have a model.

    Attributes:
        status: ``"sat"``, ``"unsat"`` or ``"unknown"``.
        used: with ``"unsat"``, the premises a refutation used, by number, where the engine says so.
        model: with ``"sat"``, a finite model where the engine gives one.
        why: with ``"unknown"``, the reason.
    """

    status: Literal["sat", "unsat", "unknown"]
    used: tuple[int, ...] | None = None
    model: Interpretation | None = None
    why: str = ""


@runtime_checkable
class Engine(Protocol):
    """Premises and a conclusion in the hands of a prover."""

    name: str

    def ask(self, conclusion: bool | None, deadline: float) -> Outcome:
        """Whether the premises have a model: one in which the conclusion is true, is false, or either way (None)."""

    def close(self) -> None:
        """Let go of what it holds."""


class OutOfTime(Exception):
    """The deadline has passed."""


class OutsideFragment(Exception):
    """The formulas are not of the kind that an engine decides.

    Args:
        why: what it cannot do.
        premise: the premise at fault, None for the conclusion.
    """

    def __init__(self, why: str, premise: int | None) -> None:
        super().__init__(why)
        self.premise = premise
