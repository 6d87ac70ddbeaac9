"""Programs of logic as language models write them for Logic-LM: sections of formulas, or of facts, rules and a query.

Source: Pan, Albalak, Wang and Wang, EMNLP Findings 2023 (arXiv 2305.12295), section 3 and its repository.
"""

from __future__ import annotations

from dataclasses import dataclass

from etude.data.rule_worlds import Label
from etude.reasoning.logic import (
    And,
    Atom,
    Constant,
    Formula,
    Implies,
    Not,
    closure,
    entails,
    parse,
)

SECTIONS = ("Predicates", "Premises", "Conclusion", "Facts", "Rules", "Query")


@dataclass(frozen=True)
class LogicProgram:
    """What a program says.

    Attributes:
        premises: closed formulas.
        conclusion: a closed formula.
    """

    premises: tuple[Formula, ...]
    conclusion: Formula


def logic_program(text: str, *, valued: bool = False) -> LogicProgram:
    """Read a program: ``Premises`` and ``Conclusion`` in the Unicode notation, or ``Facts``, ``Rules`` and ``Query``.

    Facts are ``Likes(Cat, Dog, True)``, whose last argument says whether they hold, and rules
    ``Red($x, True) && Cold($x, False) >>> Kind($x, True)``. Free variables are bound universally. What follows
    ``:::`` on a line is a comment.

    Args:
        text: the program.
        valued: leave the last argument of facts as a constant, as a rule engine without negation reads it, instead of
            taking it for negation.

    Raises:
        ValueError: a section is missing or empty, or a line is no formula.
    """
    sections = _sections(text)
    if "Conclusion" in sections:
        premises = [_line(line) for line in sections.get("Premises", ())]
        queries = sections["Conclusion"]
        read = _line
    else:
        premises = [_rule(line, valued) for name in ("Facts", "Rules") for line in sections.get(name, ())]
        queries = sections.get("Query", ())
        read = lambda line: _rule(line, valued)  # noqa: E731
    if not premises or not queries:
        raise ValueError("text: the program lacks premises (or facts), or a conclusion (or query)")
    return LogicProgram(tuple(premises), read(queries[0]))


def as_rule_engine(text: str) -> Label:
    """The answer of Logic-LM's own program for facts and rules, which runs them forward in Pyke.

    There True and False are values like any other and nothing is negated. A query of one argument is looked up among
    what rules derive; one of two arguments never matches, so it is Uncertain; where both values are derived, the
    thing is taken to be false.

    Args:
        text: the program.

    Raises:
        ValueError: as for `logic_program`.
    """
    program = logic_program(text, valued=True)
    query = program.conclusion
    if not isinstance(query, Atom) or len(query.arguments) != 2:
        return "Uncertain"
    thing, asked = query.arguments
    derived = {
        value
        for value in ("True", "False")
        if entails(
            program.premises, Atom(query.predicate, (thing, Constant(value))), check_consistency=False
        ).verdict.name
        == "TRUE"
    }
    if not derived:
        return "Uncertain"
    value = "False" if "False" in derived else "True"
    return "True" if asked == Constant(value) else "False"


def _sections(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        name = line.strip().removesuffix(":")
        if name in SECTIONS and line.strip().endswith(":"):
            current = found.setdefault(name, [])
        elif formula := line.partition(":::")[0].strip():
            current.append(formula)
    return found


def _line(line: str) -> Formula:
    return closure(parse(line))


def _rule(line: str, valued: bool) -> Formula:
    # "$x" is a variable, ">>>" an implication; "&&" is read as it stands.
    formula = parse(line.replace("$", "").replace(">>>", "->"))
    return closure(formula if valued else _signed(formula))


def _signed(formula: Formula) -> Formula:
    """A last argument True dropped, and False turned into a negation."""
    match formula:
        case Atom(predicate, (*arguments, last)) if last == Constant("True"):
            return Atom(predicate, tuple(arguments))
        case Atom(predicate, (*arguments, last)) if last == Constant("False"):
            return Not(Atom(predicate, tuple(arguments)))
        case And(parts):
            return And(tuple(map(_signed, parts)))
        case Implies(left, right):
            return Implies(_signed(left), _signed(right))
        case Not(body):
            return Not(_signed(body))
    return formula
