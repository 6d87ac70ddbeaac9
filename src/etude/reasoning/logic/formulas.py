"""Formulas of first-order logic as immutable values, and the checks on what symbols they use.

Conjunctions and disjunctions hold two or more parts; exclusive or has no type of its own: it is ``Not(Iff(a, b))``.
Names are words: letters, digits and underscores. Names like ``x`` or ``y2`` (one letter from u to z, then digits) are
kept for variables, as in Prover9, so that text says which of its symbols are free variables.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

WORD = re.compile(r"\w+")
VARIABLE = re.compile(r"[u-z][0-9]*")
"""What a free variable looks like; a bound one may have any name that begins with a small letter."""
RESERVED = frozenset(["all", "forall", "exists", "exist", "some", "every", "not", "and", "or", "xor", "implies", "iff"])
"""Words that dialects read as connectives and quantifiers."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable.

    Args:
        name: a word beginning with a small letter.
    """

    name: str

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not self.name[0].islower():
            raise ValueError(f"name: {self.name!r} was given; a variable begins with a small letter")


@dataclass(frozen=True, slots=True)
class Function:
    """A function applied to terms; with no arguments, a constant.

    Args:
        name: a word that is no variable's.
        arguments: the terms.
    """

    name: str
    arguments: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        _check_name(self.name, variable=False)
        _check_parts("arguments", self.arguments, (Variable, Function))


Term: TypeAlias = Variable | Function


def Constant(name: str) -> Function:
    """The constant of a name: a function without arguments.

    Args:
        name: a word that is no variable's.
    """
    return Function(name)


@dataclass(frozen=True, slots=True)
class Atom:
    """A predicate applied to terms; with no arguments, a proposition.

    Args:
        predicate: its name, a word that is no variable's.
        arguments: the terms.
    """

    predicate: str
    arguments: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        _check_name(self.predicate, variable=False)
        _check_parts("arguments", self.arguments, (Variable, Function))

    def __str__(self) -> str:
        return _shown(self)


@dataclass(frozen=True, slots=True)
class Equal:
    """Two terms denote the same thing.

    Args:
        left: a term.
        right: a term.
    """

    left: Term
    right: Term

    def __post_init__(self) -> None:
        _check_parts("left, right", (self.left, self.right), (Variable, Function))

    def __str__(self) -> str:
        return _shown(self)


@dataclass(frozen=True, slots=True)
class Not:
    """Negation.

    Args:
        body: what is negated.
    """

    body: Formula

    def __post_init__(self) -> None:
        _check_parts("body", (self.body,), FORMULAS)

    def __str__(self) -> str:
        return _shown(self)


@dataclass(frozen=True, slots=True)
class And:
    """Conjunction.

    Args:
        parts: two or more formulas.
    """

    parts: tuple[Formula, ...]

    def __post_init__(self) -> None:
        _check_parts("parts", self.parts, FORMULAS, least=2)

    def __str__(self) -> str:
        return _shown(self)


@dataclass(frozen=True, slots=True)
class Or:
    """Disjunction.

    Args:
        parts: two or more formulas.
    """

    parts: tuple[Formula, ...]

    def __post_init__(self) -> None:
        _check_parts("parts", self.parts, FORMULAS, least=2)

    def __str__(self) -> str:
        return _shown(self)


@dataclass(frozen=True, slots=True)
class Implies:
    """Implication.

    Args:
        left: the condition.
        right: what follows.
    """

    left: Formula
    right: Formula

    def __post_init__(self) -> None:
        _check_parts("left, right", (self.left, self.right), FORMULAS)

    def __str__(self) -> str:
        return _shown(self)


@dataclass(frozen=True, slots=True)
class Iff:
    """Equivalence.

    Args:
        left: one side.
        right: the other.
    """

    left: Formula
    right: Formula

    def __post_init__(self) -> None:
        _check_parts("left, right", (self.left, self.right), FORMULAS)

    def __str__(self) -> str:
        return _shown(self)


@dataclass(frozen=True, slots=True)
class ForAll:
    """Universal quantification.

    Args:
        variable: what is bound.
        body: the formula it is bound in.
    """

    variable: Variable
    body: Formula

    def __post_init__(self) -> None:
        _check_parts("variable", (self.variable,), (Variable,))
        _check_parts("body", (self.body,), FORMULAS)

    def __str__(self) -> str:
        return _shown(self)


@dataclass(frozen=True, slots=True)
class Exists:
    """Existential quantification.

    Args:
        variable: what is bound.
        body: the formula it is bound in.
    """

    variable: Variable
    body: Formula

    def __post_init__(self) -> None:
        _check_parts("variable", (self.variable,), (Variable,))
        _check_parts("body", (self.body,), FORMULAS)

    def __str__(self) -> str:
        return _shown(self)


Formula: TypeAlias = Atom | Equal | Not | And | Or | Implies | Iff | ForAll | Exists
FORMULAS = (Atom, Equal, Not, And, Or, Implies, Iff, ForAll, Exists)


def exclusive_or(left: Formula, right: Formula) -> Formula:
    """Exactly one of two: ``Not(Iff(left, right))``.

    Args:
        left: one side.
        right: the other.
    """
    return Not(Iff(left, right))


def negation(formula: Formula) -> Formula:
    """The negated formula; of a negation, what it negates.

    Args:
        formula: any formula.
    """
    return formula.body if isinstance(formula, Not) else Not(formula)


def subformulas(formula: Formula) -> tuple[Formula, ...]:
    """The formulas directly below a formula.

    Args:
        formula: any formula.
    """
    match formula:
        case And(parts) | Or(parts):
            return parts
        case Implies(left, right) | Iff(left, right):
            return (left, right)
        case Not(body) | ForAll(_, body) | Exists(_, body):
            return (body,)
    return ()


def terms(formula: Formula) -> tuple[Term, ...]:
    """The terms directly below a formula: the arguments of an atom, the sides of an equation.

    Args:
        formula: any formula.
    """
    match formula:
        case Atom(_, arguments):
            return arguments
        case Equal(left, right):
            return (left, right)
    return ()


def free_variables(formula: Formula) -> tuple[Variable, ...]:
    """The variables that no quantifier binds, in order of their first occurrence.

    Args:
        formula: any formula.
    """
    found: dict[Variable, None] = {}
    _collect_free(formula, frozenset(), found)
    return tuple(found)


def _collect_free(formula: Formula, bound: frozenset[Variable], found: dict[Variable, None]) -> None:
    if isinstance(formula, ForAll | Exists):
        bound = bound | {formula.variable}
    for term in terms(formula):
        for variable in variables_of(term):
            if variable not in bound:
                found[variable] = None
    for part in subformulas(formula):
        _collect_free(part, bound, found)


def variables_of(term: Term) -> Iterator[Variable]:
    """The variables in a term.

    Args:
        term: any term.
    """
    if isinstance(term, Variable):
        yield term
    else:
        for argument in term.arguments:
            yield from variables_of(argument)


def closure(formula: Formula) -> Formula:
    """The universal closure: every free variable bound by a quantifier in front, as Prover9 reads free variables.

    Args:
        formula: any formula.
    """
    for variable in reversed(free_variables(formula)):
        formula = ForAll(variable, formula)
    return formula


def renamed(formula: Formula, names: Mapping[str, str]) -> Formula:
    """The formula with other names for its predicates, functions and constants.

    Args:
        formula: any formula.
        names: old name -> new one; names that are not in it stay.
    """
    match formula:
        case Atom(predicate, arguments):
            return Atom(names.get(predicate, predicate), tuple(_renamed_term(term, names) for term in arguments))
        case Equal(left, right):
            return Equal(_renamed_term(left, names), _renamed_term(right, names))
        case And(parts) | Or(parts):
            return type(formula)(tuple(renamed(part, names) for part in parts))
        case Implies(left, right) | Iff(left, right):
            return type(formula)(renamed(left, names), renamed(right, names))
        case Not(body):
            return Not(renamed(body, names))
        case ForAll(variable, body) | Exists(variable, body):
            return type(formula)(variable, renamed(body, names))
    raise TypeError(f"formula: a {type(formula).__name__} was given; a formula is accepted")


def _renamed_term(term: Term, names: Mapping[str, str]) -> Term:
    if isinstance(term, Variable):
        return term
    return Function(
        names.get(term.name, term.name), tuple(_renamed_term(argument, names) for argument in term.arguments)
    )


@dataclass(frozen=True)
class Signature:
    """The symbols of some formulas.

    Attributes:
        predicates: name -> arity (propositions have 0).
        functions: name -> arity, at least 1.
        constants: the names, in order of occurrence.
        equality: whether terms are equated.
    """

    predicates: Mapping[str, int]
    functions: Mapping[str, int]
    constants: tuple[str, ...]
    equality: bool


def signature(formulas: Iterable[Formula], *, names: Sequence[str] | None = None) -> Signature:
    """The symbols of closed formulas that are read together, checked.

    Args:
        formulas: the formulas.
        names: what errors call each formula; ``sentence 0``, ``sentence 1``, ... when left out.

    Returns:
        The symbols with their arities.

    Raises:
        TypeError: something is no formula.
        ValueError: a free variable, or one symbol with two arities or in two roles (predicate, constant, function);
            the message names the sentence and the symbol.
    """
    known: dict[str, tuple[str, int, str]] = {}
    equality = False
    for number, formula in enumerate(formulas):
        where = names[number] if names is not None else f"sentence {number}"
        if not isinstance(formula, FORMULAS):
            raise TypeError(f"{where}: a {type(formula).__name__} was given; a formula is accepted")
        equality |= _enter(formula, (), known, where)
    by_role: dict[str, dict[str, int]] = {"predicate": {}, "function": {}, "constant": {}}
    for symbol, (role, arity, _) in known.items():
        by_role[role][symbol] = arity
    return Signature(by_role["predicate"], by_role["function"], tuple(by_role["constant"]), equality)


def _enter(formula: Formula, bound: tuple[Variable, ...], known: dict[str, tuple[str, int, str]], where: str) -> bool:
    """Enter a formula's symbols into `known`; whether it equates terms."""
    kind = type(formula)
    if kind is Atom:
        predicate, arguments = formula.predicate, formula.arguments  # type: ignore[union-attr]
        entry = known.get(predicate)
        if entry is None:
            known[predicate] = ("predicate", len(arguments), where)
        elif entry[0] != "predicate" or entry[1] != len(arguments):
            _clash(predicate, "predicate", len(arguments), where, entry)
        for term in arguments:
            _enter_term(term, bound, known, where)
        return False
    if kind is Equal:
        for term in (formula.left, formula.right):  # type: ignore[union-attr]
            _enter_term(term, bound, known, where)
        return True
    if kind is ForAll or kind is Exists:
        bound = (*bound, formula.variable)  # type: ignore[union-attr]
    equality = False
    for part in subformulas(formula):
        equality |= _enter(part, bound, known, where)
    return equality


def _enter_term(term: Term, bound: tuple[Variable, ...], known: dict[str, tuple[str, int, str]], where: str) -> None:
    if isinstance(term, Variable):
        if term not in bound:
            raise ValueError(
                f"{where}: the variable {term.name} is free; closed formulas are accepted (quantify it, or take "
                "the formula's closure)"
            )
        return
    role = "function" if term.arguments else "constant"
    entry = known.get(term.name)
    if entry is None:
        known[term.name] = (role, len(term.arguments), where)
    elif entry[0] != role or entry[1] != len(term.arguments):
        _clash(term.name, role, len(term.arguments), where, entry)
    for argument in term.arguments:
        _enter_term(argument, bound, known, where)


def _clash(symbol: str, role: str, arity: int, where: str, entry: tuple[str, int, str]) -> None:
    def words(role: str, arity: int) -> str:
        return "a constant" if role == "constant" else f"a {role} of {arity} argument{'' if arity == 1 else 's'}"

    raise ValueError(
        f"{where}: {symbol} is used as {words(role, arity)}, but as {words(*entry[:2])} in {entry[2]}; "
        "one role and one arity a symbol is accepted"
    )


@functools.lru_cache(maxsize=8192)
def _check_name(name: object, *, variable: bool = True) -> None:
    if not isinstance(name, str):
        raise TypeError(f"name: a {type(name).__name__} was given; a word is accepted")
    if not WORD.fullmatch(name):
        raise ValueError(f"name: {name!r} was given; letters, digits and underscores are accepted")
    if name in RESERVED:
        raise ValueError(f"name: {name!r} was given, which dialects read as a connective or quantifier")
    if not variable and VARIABLE.fullmatch(name):
        raise ValueError(f"name: {name!r} was given, which is kept for variables")


def _check_parts(name: str, parts: object, kinds: tuple[type, ...], least: int = 0) -> None:
    if type(parts) is not tuple:
        raise TypeError(f"{name}: a {type(parts).__name__} was given; a tuple is accepted")
    for part in parts:
        if not isinstance(part, kinds):
            accepted = "a formula" if kinds is FORMULAS else "a term" if len(kinds) > 1 else "a variable"
            raise TypeError(f"{name}: a {type(part).__name__} was given; {accepted} is accepted")
    if len(parts) < least:
        raise ValueError(f"{name}: {len(parts)} was given; at least {least} are accepted")


def _shown(formula: Formula) -> str:
    from etude.reasoning.logic.notation import to_unicode

    return to_unicode(formula)
