"""Finite interpretations: what a countermodel is, and the check that it is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from etude.reasoning.logic.formulas import (
    And,
    Atom,
    Equal,
    Exists,
    ForAll,
    Formula,
    Function,
    Iff,
    Implies,
    Not,
    Or,
    Term,
    Variable,
)


@dataclass(frozen=True)
class Interpretation:
    """A finite domain, what constants and functions denote in it, and where predicates hold.

    Attributes:
        domain: the elements, at least one.
        constants: constant -> element.
        predicates: predicate -> the tuples of elements it holds for (a proposition that holds has the empty tuple).
        functions: function -> arguments -> element.
    """

    domain: tuple[str, ...]
    constants: Mapping[str, str]
    predicates: Mapping[str, frozenset[tuple[str, ...]]]
    functions: Mapping[str, Mapping[tuple[str, ...], str]] = field(default_factory=dict)

    def satisfies(self, formula: Formula) -> bool:
        """Whether a closed formula is true here, by the definition of truth: quantifiers go through the domain.

        Args:
            formula: a closed formula.

        Raises:
            ValueError: a free variable, or a constant or function that has no denotation here.
        """
        return self._true(formula, {})

    def _true(self, formula: Formula, values: dict[Variable, str]) -> bool:
        match formula:
            case Atom(predicate, arguments):
                elements = tuple(self._denoted(term, values) for term in arguments)
                return elements in self.predicates.get(predicate, ())
            case Equal(left, right):
                return self._denoted(left, values) == self._denoted(right, values)
            case Not(body):
                return not self._true(body, values)
            case And(parts):
                return all(self._true(part, values) for part in parts)
            case Or(parts):
                return any(self._true(part, values) for part in parts)
            case Implies(left, right):
                return not self._true(left, values) or self._true(right, values)
            case Iff(left, right):
                return self._true(left, values) == self._true(right, values)
            case ForAll(variable, body):
                return all(self._true(body, {**values, variable: element}) for element in self.domain)
            case Exists(variable, body):
                return any(self._true(body, {**values, variable: element}) for element in self.domain)
        raise TypeError(f"formula: a {type(formula).__name__} was given; a formula is accepted")

    def _denoted(self, term: Term, values: dict[Variable, str]) -> str:
        if isinstance(term, Variable):
            if term not in values:
                raise ValueError(f"formula: the variable {term.name} is free; a closed formula is accepted")
            return values[term]
        if not term.arguments:
            if term.name not in self.constants:
                raise ValueError(f"formula: the constant {term.name} denotes nothing here")
            return self.constants[term.name]
        arguments = tuple(self._denoted(argument, values) for argument in term.arguments)
        try:
            return self.functions[term.name][arguments]
        except KeyError:
            raise ValueError(f"formula: {_written(term)} denotes nothing here") from None

    def __str__(self) -> str:
        lines = [f"domain: {', '.join(self.domain)}"]
        lines += [f"{name} = {element}" for name, element in self.constants.items() if name != element]
        for name, values in self.functions.items():
            lines += [f"{name}({', '.join(arguments)}) = {element}" for arguments, element in sorted(values.items())]
        for predicate, tuples in sorted(self.predicates.items()):
            held = ", ".join(
                f"({', '.join(elements)})" if len(elements) != 1 else elements[0] for elements in sorted(tuples)
            )
            lines.append(f"{predicate}: {held or 'nowhere'}")
        return "\n".join(lines)


def _written(term: Function) -> str:
    return f"{term.name}/{len(term.arguments)}"
