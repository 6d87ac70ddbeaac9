"""Entailment by going through all interpretations: the yardstick that engines are checked against."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from etude.reasoning.logic.clauses import Clausifier
from etude.reasoning.logic.entailment import Verdict
from etude.reasoning.logic.formulas import (
    And,
    Atom,
    Constant,
    Equal,
    Exists,
    ForAll,
    Formula,
    Iff,
    Implies,
    Not,
    Or,
    Signature,
    Term,
    Variable,
    exclusive_or,
    signature,
)

if TYPE_CHECKING:
    import numpy as np

MOST_BITS = 20
"""At most so many ground atoms, that is 2 to that many interpretations."""


def by_enumeration(premises: Sequence[Formula], conclusion: Formula) -> Verdict:
    """The verdict from the truth table over all ground atoms of a domain that is large enough.

    For formulas without functions whose witnesses are constants, a domain with an element for each constant and each
    witness suffices; with equality every way of letting some of them be the same is gone through too. A set of
    interpretations is one large integer with a bit for each, so connectives are bitwise operations.

    Args:
        premises: closed formulas of that kind.
        conclusion: a closed formula of that kind, and its negation too.

    Raises:
        ValueError: other formulas, or more than 20 ground atoms.

    Source: Boerger, Graedel and Gurevich, The Classical Decision Problem (1997), proposition 6.2.17.
    """
    symbols, names = _elements(premises, conclusion)
    consistent = true = false = False
    for blocks in _partitions(len(names)) if symbols.equality else [tuple(range(len(names)))]:
        table = _TruthTable(dict(zip(names, blocks)), max(blocks) + 1, symbols.predicates)
        models = table.every
        for premise in premises:
            models &= table.of(premise)
        holds = table.of(conclusion)
        consistent |= models != 0
        true |= models & holds != 0
        false |= models & ~holds != 0
    if not consistent:
        return Verdict.INCONSISTENT
    return Verdict.UNCERTAIN if true and false else Verdict.TRUE if true else Verdict.FALSE


def _elements(premises: Sequence[Formula], conclusion: Formula) -> tuple[Signature, list[str]]:
    """The symbols, and a name for every element that a domain may need."""
    symbols = signature([*premises, conclusion])
    clausifier, witnesses = Clausifier(), dict[str, None]()
    for formula in (*premises, conclusion, Not(conclusion)):
        for clause in clausifier.clauses(formula):
            for _, _, terms in clause.literals:
                witnesses |= dict.fromkeys(term for term in terms if isinstance(term, str) and "#" in term)
    if clausifier.functions:
        raise ValueError("premises: a witness depends on a universal variable; formulas without such are accepted")
    return symbols, [*symbols.constants, *witnesses] or ["c#0"]


class _TruthTable:
    """For each formula the set of interpretations over a domain in which it is true, as the bits of an integer."""

    def __init__(self, constants: dict[str, int], size: int, predicates: dict[str, int] | object) -> None:
        self._constants, self._size = constants, size
        self._columns: dict[tuple[str, tuple[int, ...]], int] = {}
        atoms = [
            (predicate, arguments)
            for predicate, arity in dict(predicates).items()  # type: ignore[call-overload]
            for arguments in itertools.product(range(size), repeat=arity)
        ]
        if len(atoms) > MOST_BITS:
            raise ValueError(f"premises: they have {len(atoms)} ground atoms; at most {MOST_BITS} are accepted")
        rows = 1 << len(atoms)
        self.every = (1 << rows) - 1
        for number, atom in enumerate(atoms):
            period = 1 << number  # rows alternate: so many without the atom, so many with it
            pattern = ((1 << period) - 1) << period
            width = 2 * period
            while width < rows:
                pattern |= pattern << width
                width *= 2
            self._columns[atom] = pattern

    def of(self, formula: Formula, values: dict[Variable, int] | None = None) -> int:
        values = values or {}
        match formula:
            case Atom(predicate, arguments):
                return self._columns[predicate, tuple(self._element(term, values) for term in arguments)]
            case Equal(left, right):
                return self.every if self._element(left, values) == self._element(right, values) else 0
            case Not(body):
                return self.every ^ self.of(body, values)
            case And(parts):
                found = self.every
                for part in parts:
                    found &= self.of(part, values)
                return found
            case Or(parts):
                found = 0
                for part in parts:
                    found |= self.of(part, values)
                return found
            case Implies(left, right):
                return self.every ^ self.of(left, values) | self.of(right, values)
            case Iff(left, right):
                return self.every ^ self.of(left, values) ^ self.of(right, values)
        instances = (self.of(formula.body, {**values, formula.variable: n}) for n in range(self._size))
        found = next(instances)
        for instance in instances:
            found = found & instance if isinstance(formula, ForAll) else found | instance
        return found

    def _element(self, term: Term, values: dict[Variable, int]) -> int:
        if isinstance(term, Variable):
            return values[term]
        return self._constants[term.name]


def _partitions(count: int) -> Iterator[tuple[int, ...]]:
    """Every way of letting some of so many names denote the same, as the number of each name's element."""

    def extend(blocks: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(blocks) == count:
            yield blocks
            return
        for block in range(max(blocks, default=-1) + 2):
            yield from extend((*blocks, block))

    return extend(())


def random_theory(generator: np.random.Generator, *, equality: bool = False) -> tuple[tuple[Formula, ...], Formula]:
    """A small random theory without functions: up to 3 constants, 4 predicates and 5 premises, and a conclusion.

    Premises are literals, rules and nested formulas with up to two quantifiers of one kind; at most one asks for a
    witness. The conclusion has at most one quantifier. What would have more than 16 ground atoms is drawn again, so
    every model can be gone through.

    Args:
        generator: the source of randomness.
        equality: let some atoms be equations.

    Returns:
        The premises and the conclusion.
    """
    while True:
        theory = _drawn_theory(generator, equality)
        symbols, names = _elements(*theory)
        if sum(len(names) ** arity for arity in symbols.predicates.values()) <= 16:
            return theory


def _drawn_theory(generator: np.random.Generator, equality: bool) -> tuple[tuple[Formula, ...], Formula]:
    constants = [Constant(name) for name in "abc"[: generator.integers(1, 4)]]
    arities = [(1, 1), (1, 1, 1), (1, 1, 1, 0), (1, 2), (2, 0), (1, 0, 2)][generator.integers(6)]
    predicates = [(f"P{number}", arity) for number, arity in enumerate(arities)]

    def pick(options: Sequence[object]) -> object:
        return options[generator.integers(len(options))]

    def atom(variables: tuple[Variable, ...]) -> Formula:
        candidates: list[Term] = [*constants, *variables, *variables]
        if equality and generator.random() < 0.2:
            return Equal(pick(candidates), pick(candidates))  # type: ignore[arg-type]
        name, arity = pick(predicates)  # type: ignore[misc]
        return Atom(name, tuple(pick(candidates) for _ in range(arity)))  # type: ignore[misc]

    def matrix(variables: tuple[Variable, ...], depth: int) -> Formula:
        if depth == 0 or generator.random() < 0.3:
            found = atom(variables)
            return Not(found) if generator.random() < 0.35 else found
        left, right = matrix(variables, depth - 1), matrix(variables, depth - 1)
        kind = generator.integers(6)
        if kind == 0:
            return And((left, right))
        if kind == 1:
            return Or((left, right))
        if kind == 2:
            return Iff(left, right) if generator.random() < 0.5 else exclusive_or(left, right)
        return Implies(left, right)

    x, y = Variable("x"), Variable("y")
    premises: list[Formula] = []
    witnessed = False
    for _ in range(generator.integers(1, 6)):
        kind = generator.random()
        if kind < 0.35:
            premises.append(matrix((), 0))
        elif kind < 0.75:
            premises.append(ForAll(x, matrix((x,), 2)))
        elif kind < 0.85:
            premises.append(ForAll(x, ForAll(y, matrix((x, y), 2))))
        elif kind < 0.93 or witnessed:
            premises.append(matrix((), 2))
        else:
            witnessed = True
            premises.append(Exists(x, matrix((x,), 1)))
    kind = generator.random()
    if kind < 0.6 or witnessed:
        return tuple(premises), matrix((), 1)
    body = matrix((x,), 1)
    return tuple(premises), ForAll(x, body) if kind < 0.8 else Exists(x, body)
