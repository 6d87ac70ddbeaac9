"""Clauses of a closed formula: negation normal form with small scopes, Skolem terms, definitions where it would grow.

A clause is a disjunction of literals whose variables are all universally quantified. A literal is ``(sign, predicate,
terms)``; a term is a number (the clause's variable), a string (a constant) or a tuple (a function's name and its
arguments). Equations have the predicate ``"="``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from etude.reasoning.logic.formulas import (
    And,
    Atom,
    Equal,
    Exists,
    ForAll,
    Formula,
    Iff,
    Implies,
    Not,
    Or,
    Term,
    Variable,
    free_variables,
    subformulas,
)

ClauseTerm: TypeAlias = "int | str | tuple[str, tuple[ClauseTerm, ...]]"
Literal: TypeAlias = tuple[bool, str, tuple[ClauseTerm, ...]]

EQUALITY = "="
_MOST_NESTED = 2
"""An equivalence's side with so many equivalences inside each other is named by a definition."""
_MOST_CLAUSES = 16
"""A conjunction below a disjunction is named by a definition when multiplying out would give more clauses."""


@dataclass(frozen=True, slots=True)
class Clause:
    """A disjunction of literals.

    Attributes:
        literals: its literals.
        variables: how many variables they have, numbered from 0.
    """

    literals: tuple[Literal, ...]
    variables: int


class Clausifier:
    """Turns formulas into clauses that are satisfiable together exactly if the formulas are.

    Skolem constants and definitions have names that no formula can have, and new ones for every formula.

    Attributes:
        functions: whether a Skolem function with arguments, or a function of the formulas, has occurred.
    """

    def __init__(self) -> None:
        self.functions = False
        self._number = 0
        self._definitions: list[_Node] = []
        self._names: dict[int, tuple[str, tuple[Variable, ...]]] = {}

    def clauses(self, formula: Formula) -> list[Clause]:
        """The clauses of a closed formula.

        Args:
            formula: a closed formula.
        """
        plain = _rule(formula)
        if plain is not None:
            return [plain]
        self._names.clear()  # its keys are of objects that may be gone
        pending = [self._skolemised(_small_scopes(self._normal(formula, True)), {})]
        found: list[Clause] = []
        while pending:
            for literals in self._product(pending.pop(), pending):
                clause = _clause(literals)
                if clause is not None:
                    found.append(clause)
            while self._definitions:
                definition = self._definitions.pop()
                pending.append(self._skolemised(_small_scopes(definition), {}))
        return found

    def _fresh(self, kind: str) -> str:
        self._number += 1
        return f"{kind}#{self._number}"

    def _normal(self, formula: Formula, sign: bool) -> _Node:
        """Negation normal form of the formula, or of its negation."""
        match formula:
            case Atom(predicate, arguments):
                return ("literal", sign, predicate, arguments)
            case Equal(left, right):
                return ("literal", sign, EQUALITY, (left, right))
            case Not(body):
                return self._normal(body, not sign)
            case And(parts) | Or(parts):
                kind = "and" if isinstance(formula, And) == sign else "or"
                return (kind, tuple(self._normal(part, sign) for part in parts))
            case Implies(left, right):
                return ("or" if sign else "and", (self._normal(left, not sign), self._normal(right, sign)))
            case Iff(left, right):
                # Both sides occur twice; one that would double again and again is given a name.
                one, other = (
                    self._named(side) if _equivalences(side) >= _MOST_NESTED else (side,) for side in (left, right)
                )
                first = ("or", (self._either(one, not sign), self._either(other, True)))
                second = ("or", (self._either(one, sign), self._either(other, False)))
                return ("and", (first, second))
            case ForAll(variable, body) | Exists(variable, body):
                kind = "all" if isinstance(formula, ForAll) == sign else "exists"
                return (kind, variable, self._normal(body, sign))
        raise TypeError(f"formula: a {type(formula).__name__} was given; a formula is accepted")

    def _either(self, side: tuple[Any, ...], sign: bool) -> _Node:
        """A side of an equivalence, or its negation: a formula, or the name it was given with the name's arguments."""
        return self._normal(side[0], sign) if len(side) == 1 else ("literal", sign, *side)

    def _named(self, formula: Formula) -> tuple[str, tuple[Variable, ...]]:
        """A new predicate of a formula's free variables, defined to be equivalent to it."""
        if id(formula) in self._names:
            return self._names[id(formula)]
        name, variables = self._names[id(formula)] = self._fresh("d"), free_variables(formula)
        definition: _Node = (
            "and",
            tuple(
                ("or", (("literal", not sign, name, variables), self._normal(formula, sign))) for sign in (True, False)
            ),
        )
        for variable in variables:
            definition = ("all", variable, definition)
        self._definitions.append(definition)
        return name, variables

    def _skolemised(self, node: _Node, values: Mapping[Variable, _Value]) -> _Node:
        """The node without quantifiers; universal variables renamed apart, existential ones replaced."""
        kind = node[0]
        if kind == "literal":
            _, sign, predicate, terms = node
            return ("literal", sign, predicate, tuple(self._replaced(term, values) for term in terms))
        if kind == "all":
            return self._skolemised(node[2], {**values, node[1]: self._fresh("x")})
        if kind == "exists":
            # A witness depends on the universal variables that occur in the scope, on no others.
            free = {values[variable] for variable in _free(node) if variable in values}
            universal = sorted({name for value in free for name in _universal(value)})
            if universal:
                self.functions = True
            witness: _Value = (self._fresh("c"), tuple(universal))
            return self._skolemised(node[2], {**values, node[1]: witness})
        return (kind, tuple(self._skolemised(part, values) for part in node[1]))

    def _replaced(self, term: Term, values: Mapping[Variable, _Value]) -> _Value:
        if isinstance(term, Variable):
            return values[term]
        if term.arguments:
            self.functions = True
        return (term.name, tuple(self._replaced(argument, values) for argument in term.arguments))

    def _product(self, node: _Node, pending: list[_Node]) -> list[tuple[_Node, ...]]:
        """Clauses as tuples of literal nodes; what would multiply too much is defined and put into `pending`."""
        kind = node[0]
        if kind == "literal":
            return [(node,)]
        parts = [self._product(part, pending) for part in node[1]]
        if kind == "and":
            return [clause for part in parts for clause in part]
        product: list[tuple[_Node, ...]] = [()]
        for part in sorted(parts, key=len):
            if len(product) * len(part) > _MOST_CLAUSES:
                names = sorted({name for clause in part for literal in clause for name in _universal_in(literal)})
                defined = self._fresh("d")
                for clause in part:
                    pending.append(("or", (("literal", False, defined, tuple(names)), *clause)))
                part = [(("literal", True, defined, tuple(names)),)]
            product = [(*done, *clause) for done in product for clause in part]
        return product


# Nodes of negation normal form: ("literal", sign, predicate, terms), ("and" | "or", parts), ("all" | "exists",
# variable, body). After Skolemisation a term is a universal variable's name, or a name with arguments.
_Node: TypeAlias = tuple  # type: ignore[type-arg]
_Value: TypeAlias = "str | tuple[str, tuple[_Value, ...]]"


def _rule(formula: Formula) -> Clause | None:
    """The one clause of a ground literal or of ``all x.(atoms -> literal)``, which most formulas are; else None."""
    variables: dict[Variable, int] = {}
    while type(formula) is ForAll:
        if formula.variable in variables:
            return None
        variables[formula.variable] = len(variables)
        formula = formula.body
    literals: list[Literal] = []
    if type(formula) is Implies:
        left = formula.left
        parts = left.parts if type(left) is And else (left,)
        formula = formula.right
        for part in parts:
            if not _add_literal(part, False, variables, literals):
                return None
    if not _add_literal(formula, True, variables, literals):
        return None
    return Clause(tuple(literals), len(variables))


def _add_literal(formula: Formula, sign: bool, variables: dict[Variable, int], literals: list[Literal]) -> bool:
    if type(formula) is Not:
        sign, formula = not sign, formula.body
    if type(formula) is not Atom:
        return False
    terms: list[ClauseTerm] = []
    for term in formula.arguments:
        if type(term) is Variable:
            terms.append(variables[term])
        elif term.arguments:  # type: ignore[union-attr]
            return False
        else:
            terms.append(term.name)
    literals.append((sign, formula.predicate, tuple(terms)))
    return True


def _equivalences(formula: Formula) -> int:
    """How many equivalences lie inside each other."""
    inner = max((_equivalences(part) for part in subformulas(formula)), default=0)
    return inner + isinstance(formula, Iff)


def _small_scopes(node: _Node) -> _Node:
    """Quantifiers moved inwards as far as they distribute, so that witnesses depend on fewer variables."""
    kind = node[0]
    if kind == "literal":
        return node
    if kind in ("and", "or"):
        return (kind, tuple(_small_scopes(part) for part in node[1]))
    variable, body = node[1], _small_scopes(node[2])
    return _pushed(kind, variable, body)


def _pushed(kind: str, variable: Variable, body: _Node) -> _Node:
    if variable not in _free(body):
        return body
    if body[0] in ("and", "or"):
        if (body[0] == "and") == (kind == "all"):  # all over "and", exists over "or"
            return (body[0], tuple(_pushed(kind, variable, part) for part in body[1]))
        inside = [part for part in body[1] if variable in _free(part)]
        outside = [part for part in body[1] if variable not in _free(part)]
        if outside:
            core = inside[0] if len(inside) == 1 else (body[0], tuple(inside))
            return (body[0], (*outside, _pushed(kind, variable, core)))
    return (kind, variable, body)


def _free(node: _Node) -> set[Variable]:
    kind = node[0]
    if kind == "literal":
        return {variable for term in node[3] for variable in _variables(term)}
    if kind in ("and", "or"):
        return set().union(*(_free(part) for part in node[1]))
    return _free(node[2]) - {node[1]}


def _variables(term: Term) -> Iterator[Variable]:
    if isinstance(term, Variable):
        yield term
    else:
        for argument in term.arguments:
            yield from _variables(argument)


def _universal(value: _Value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    else:
        for argument in value[1]:
            yield from _universal(argument)


def _universal_in(literal: _Node) -> Iterator[str]:
    for value in literal[3]:
        yield from _universal(value)


def _clause(nodes: tuple[_Node, ...]) -> Clause | None:
    """The clause of literal nodes, without repeated literals; None for one that is always true."""
    numbers: dict[str, int] = {}

    def numbered(value: _Value) -> ClauseTerm:
        if isinstance(value, str):
            return numbers.setdefault(value, len(numbers))
        name, arguments = value
        return (name, tuple(numbered(argument) for argument in arguments)) if arguments else name

    literals = dict.fromkeys((sign, predicate, tuple(map(numbered, terms))) for _, sign, predicate, terms in nodes)
    if any((not sign, predicate, terms) in literals for sign, predicate, terms in literals):
        return None
    return Clause(tuple(literals), len(numbers))
