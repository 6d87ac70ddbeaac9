"""Entailment: what follows from premises, by which prover, and why."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from etude.reasoning.logic.formulas import FORMULAS, Formula, Not, Signature, signature
from etude.reasoning.logic.interpretation import Interpretation
from etude.reasoning.logic.notation import parse
from etude.reasoning.logic.outcome import Engine, Outcome, OutsideFragment

if TYPE_CHECKING:
    from collections.abc import Callable

EngineName: TypeAlias = Literal["auto", "ground", "z3", "cvc5", "eprover"]
ENGINES = ("ground", "z3", "cvc5", "eprover")


class Verdict(Enum):
    """What premises say of a conclusion."""

    TRUE = "true"
    """It follows."""
    FALSE = "false"
    """Its negation follows."""
    UNCERTAIN = "uncertain"
    """Neither follows: it is true in one model of the premises and false in another."""
    INCONSISTENT = "inconsistent"
    """The premises have no model, so that everything follows."""
    UNKNOWN = "unknown"
    """The prover did not decide within its limits. Never the same as uncertain."""


@dataclass(frozen=True)
class Proof:
    """What a prover found.

    Attributes:
        verdict: what the premises say of the conclusion.
        engine: the provers that were asked, in order, joined by "+".
        seconds: how long it took.
        premises_used: for TRUE, FALSE and INCONSISTENT, the premises that a proof used, by number, where the engine
            says so; those of `ground` are a minimal set, from which none can be left out, unless there are so many
            instances that it makes them one by one.
        countermodel: a finite model of the premises in which the conclusion is false, where the engine gives one.
        model: one in which the conclusion is true.
        why: for UNKNOWN, the reason.
    """

    verdict: Verdict
    engine: str
    seconds: float
    premises_used: tuple[int, ...] | None = None
    countermodel: Interpretation | None = None
    model: Interpretation | None = None
    why: str = ""


def entails(
    premises: Sequence[Formula | str],
    conclusion: Formula | str,
    *,
    engine: EngineName = "auto",
    timeout: float = 10.0,
    check_consistency: bool = True,
) -> Proof:
    """Decide whether a conclusion, its negation, or neither follows from premises.

    Two questions are asked: do the premises have a model in which the conclusion is false, and one in which it is
    true? No and yes is TRUE, yes and no FALSE, yes twice UNCERTAIN, no twice INCONSISTENT. Names are not taken to be
    distinct: that needs ``a != b`` among the premises. ::

        >>> proof = entails(["Cat(Tom)", "all x.(Cat(x) -> Animal(x))", "Red(Tom)"], "Animal(Tom)")
        >>> proof.verdict, proof.premises_used
        (<Verdict.TRUE: 'true'>, (0, 1))

    Engines: ``ground`` decides formulas without functions whose existential quantifiers depend on no universal one
    (negated conclusion included), always, with a countermodel or the used premises. ``z3``, ``cvc5`` and
    ``eprover`` take all of first-order logic, which no prover decides. ``auto`` takes ``ground`` where it applies and
    else those of the others that are installed, one after the other, until both questions are answered.

    Args:
        premises: closed formulas, or texts that `parse` reads; none means that validity is asked.
        conclusion: a closed formula, or a text.
        engine: ``"auto"``, ``"ground"``, ``"z3"``, ``"cvc5"`` or ``"eprover"``.
        timeout: seconds for the whole call, above 0. What is not decided by then is UNKNOWN.
        check_consistency: without it, TRUE is said as soon as the conclusion follows and FALSE as soon as its
            negation does, so inconsistent premises make it TRUE (as in the paper's program).

    Returns:
        The verdict with its proof or its countermodel.

    Raises:
        TypeError: a premise or the conclusion is neither formula nor text.
        ValueError: a text that is no formula, a free variable, a symbol with two arities or roles (each with the
            sentence it is in); a formula that `ground` does not decide; an unknown engine; a time-out not above 0.
        MissingExtra: the engine is not installed.
    """
    began = time.monotonic()
    if engine != "auto" and engine not in ENGINES:
        raise ValueError(f"engine: {engine!r} was given; 'auto' and {', '.join(map(repr, ENGINES))} are accepted")
    if not timeout > 0:
        raise ValueError(f"timeout: {timeout!r} was given; seconds above 0 are accepted")
    if isinstance(premises, str):
        raise TypeError("premises: a string was given; a sequence of formulas is accepted")
    given = [_formula(premise, f"premises[{number}]") for number, premise in enumerate(premises)]
    claimed = _formula(conclusion, "conclusion")
    names = _Names(len(given))
    symbols = signature([*given, claimed], names=names)
    provers = _provers(given, claimed, symbols, engine)
    deadline = began + timeout
    try:
        # The first question may be one that never ends, so it gets half of the time.
        false = _asked(provers, False, began, began + timeout / 2)
        settled = not check_consistency and false.status == "unsat"
        true = Outcome("unknown", why="not asked") if settled else _asked(provers, True, time.monotonic(), deadline)
        verdict, used, why = _verdict(false, true, check_consistency)
        if verdict is Verdict.INCONSISTENT:  # a contradiction of the premises alone
            used = _asked(provers, None, time.monotonic(), deadline).used or used
    finally:
        for prover in provers:
            prover.close()
    seconds = time.monotonic() - began
    return Proof(verdict, "+".join(p.name for p in provers), seconds, used, false.model, true.model, why)


def _verdict(false: Outcome, true: Outcome, check_consistency: bool) -> tuple[Verdict, tuple[int, ...] | None, str]:
    match false.status, true.status:
        case "unsat", "unsat" if check_consistency:
            return Verdict.INCONSISTENT, _inconsistent(false, true), ""
        case "unsat", _ if not check_consistency:
            return Verdict.TRUE, false.used, ""
        case _, "unsat" if not check_consistency:
            return Verdict.FALSE, true.used, ""
        case "unsat", "sat":
            return Verdict.TRUE, false.used, ""
        case "sat", "unsat":
            return Verdict.FALSE, true.used, ""
        case "sat", "sat":
            return Verdict.UNCERTAIN, None, ""
    whys = []
    for outcome, follows in ((false, "the conclusion"), (true, "its negation")):
        if outcome.status == "unknown":
            whys.append(f"whether {follows} follows was not decided ({outcome.why})")
        elif outcome.status == "unsat":
            whys.append(f"{follows} follows, but the premises may be inconsistent")
    return Verdict.UNKNOWN, None, "; ".join(whys)


def _inconsistent(false: Outcome, true: Outcome) -> tuple[int, ...] | None:
    """What refutes the conclusion together with what refutes its negation is inconsistent."""
    if false.used is None or true.used is None:
        return None
    return tuple(sorted({*false.used, *true.used}))


def _asked(provers: list[Engine], conclusion: bool | None, now: float, deadline: float) -> Outcome:
    """The first answer: every prover gets an equal share of the time that is left."""
    outcome = Outcome("unknown", why="out of time")
    for left, prover in zip(range(len(provers), 0, -1), provers):
        outcome = prover.ask(conclusion, now + (deadline - now) / left)
        if outcome.status != "unknown":
            break
        now = time.monotonic()
    return outcome


class _Names(Sequence[str]):
    """What errors call the sentences; made only for an error."""

    def __init__(self, premises: int) -> None:
        self._premises = premises

    def __len__(self) -> int:
        return self._premises + 1

    def __getitem__(self, number: Any) -> Any:
        return f"premises[{number}]" if number < self._premises else "conclusion"


def _formula(given: Formula | str, where: str) -> Formula:
    if isinstance(given, FORMULAS):
        return given
    if not isinstance(given, str):
        raise TypeError(f"{where}: a {type(given).__name__} was given; a formula or its text is accepted")
    try:
        return parse(given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _provers(premises: list[Formula], conclusion: Formula, symbols: Signature, engine: str) -> list[Engine]:
    from etude.reasoning.logic.ground import Ground

    if engine in ("auto", "ground"):
        try:
            return [Ground(premises, conclusion, symbols)]
        except OutsideFragment as error:
            if engine == "ground":
                where = "conclusion" if error.premise is None else f"premises[{error.premise}]"
                raise ValueError(
                    f"{where}: {error}; the engine 'ground' accepts formulas without functions whose existential "
                    "quantifiers are under no universal one (take 'auto', 'z3', 'cvc5' or 'eprover')"
                ) from None
    from etude.errors import MissingExtra
    from etude.reasoning.logic.eprover import EProver
    from etude.reasoning.logic.smt import CVC5, Z3

    kinds: dict[str, Callable[..., Engine]] = {"z3": Z3, "cvc5": CVC5, "eprover": EProver}
    if engine != "auto":
        return [kinds[engine](premises, conclusion, symbols)]
    found: list[Engine] = []
    for kind in kinds.values():
        try:
            found.append(kind(premises, conclusion, symbols))
        except MissingExtra:
            continue
    if not found:
        raise MissingExtra(
            "these formulas need a prover for all of first-order logic, and none is installed",
            "Install one: pip install 'etude[reasoning]'",
        )
    return found


def negated(proof: Proof) -> Verdict:
    """The verdict on the negated conclusion: TRUE and FALSE exchanged, the others the same.

    Args:
        proof: the proof.
    """
    return {Verdict.TRUE: Verdict.FALSE, Verdict.FALSE: Verdict.TRUE}.get(proof.verdict, proof.verdict)


def verify(proof: Proof, premises: Sequence[Formula], conclusion: Formula) -> bool:
    """Whether what a proof shows is what it says, checked without the prover that found it.

    Its models are evaluated formula by formula. Its used premises are given to another engine (`z3`), which must
    find that they suffice.

    Args:
        proof: what `entails` returned.
        premises: the premises it was given.
        conclusion: the conclusion it was given.

    Returns:
        False if a model is none, if the conclusion has the wrong truth value there, or if the used premises do not
        suffice.
    """
    for model, holds in ((proof.model, True), (proof.countermodel, False)):
        if model is None:
            continue
        if not all(model.satisfies(premise) for premise in premises) or model.satisfies(conclusion) != holds:
            return False
    if proof.premises_used is None:
        return True
    kept = [premises[number] for number in proof.premises_used]
    if proof.verdict is Verdict.INCONSISTENT:
        return entails(kept, conclusion, engine="z3").verdict is Verdict.INCONSISTENT
    wanted = conclusion if proof.verdict is Verdict.TRUE else Not(conclusion)
    return entails(kept, wanted, engine="z3", check_consistency=False).verdict is Verdict.TRUE
