"""The engine for formulas without functions: instances over the constants, decided by a SAT solver; complete there.

Clauses whose Skolem terms are constants (the exists*-forall* fragment, Bernays-Schoenfinkel) have a model exactly if
their instances over their constants have one (Herbrand). With few instances all are handed to the solver at once. With
many, only those that the solver's current model violates are added, round by round, until there are none: since atoms
are false by default, rules then fire as in semi-naive forward chaining. Each premise is an assumption of the solver,
so its core names the premises of a proof; a model of the instances is a countermodel. Equality is an equivalence that
predicates respect, and what is equal is one element of the countermodel's domain.

Source: Korovin, Inst-Gen: a modular approach to instantiation-based automated reasoning (2013), sections 2 and 3.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence

from etude.errors import MissingExtra
from etude.reasoning.logic.clauses import EQUALITY, Clause, ClauseTerm, Clausifier, Literal
from etude.reasoning.logic.formulas import Formula, Not, Signature
from etude.reasoning.logic.interpretation import Interpretation
from etude.reasoning.logic.outcome import Outcome, OutOfTime, OutsideFragment

EAGER = 30_000
"""Up to so many literals in all instances, all are made at once."""
_NUMBERED = 1_000_000
"""Up to so many atoms that could be, they are numbered by position."""
_CONFLICTS = 5_000
"""Conflicts between two looks at the clock."""


class Ground:
    """Premises and a conclusion, ready to be asked whether the premises hold together with the conclusion or without.

    Args:
        premises: closed formulas, checked together with the conclusion.
        conclusion: a closed formula.
        symbols: the signature of all of them.
        eager: literals up to which all instances are made at once.

    Raises:
        OutsideFragment: a function, or a witness that depends on a universal variable.
        MissingExtra: python-sat is not installed.
    """

    name = "ground"

    def __init__(
        self, premises: Sequence[Formula], conclusion: Formula, symbols: Signature, *, eager: int = EAGER
    ) -> None:
        try:
            from pysat.solvers import Minisat22
        except ImportError as error:
            raise MissingExtra(
                "the engine 'ground' needs python-sat", "Install it: pip install 'etude[reasoning]'"
            ) from error
        clausifier = Clausifier()
        groups = []
        for number, premise in enumerate(premises):
            groups.append(clausifier.clauses(premise))
            if clausifier.functions:
                raise OutsideFragment(f"premise {number} needs a function", number)
        groups.append(clausifier.clauses(conclusion))
        groups.append(clausifier.clauses(Not(conclusion)))
        if clausifier.functions:
            raise OutsideFragment("the conclusion or its negation needs a function", None)
        self._symbols = symbols
        self._constants = _constants(groups, symbols.constants)
        laws = _laws_of_equality(groups) if symbols.equality else []
        size = len(self._constants)
        clauses = [*laws, *itertools.chain.from_iterable(groups)]
        literals = sum(len(clause.literals) * size**clause.variables for clause in clauses)
        # Numbering atoms by position gives a number to each that could be, and the solver room for each number.
        arities = {predicate: len(terms) for clause in clauses for _, predicate, terms in clause.literals}
        atoms = sum(size**arity for arity in arities.values())
        self._atoms: _DenseAtoms | _SparseAtoms
        if literals <= eager and atoms <= _NUMBERED:
            self._atoms = _DenseAtoms(clauses, self._constants)
        else:
            self._atoms = _SparseAtoms(self._constants)
        self._solver = Minisat22()
        self._lazy: list[tuple[Clause, int]] = []
        assumptions = [self._enter(clauses) for clauses in groups]
        for law in laws:
            self._add(law, 0)
        *self._premises, self._holds, self._fails = assumptions

    def ask(self, conclusion: bool | None, deadline: float) -> Outcome:
        """Whether the premises have a model.

        Args:
            conclusion: what the conclusion should be in it; None for either.
            deadline: when to stop, on the clock of ``time.monotonic``.
        """
        query = [] if conclusion is None else self._holds if conclusion else self._fails
        assumptions = list(dict.fromkeys(itertools.chain.from_iterable(self._premises)))
        try:
            core = self._refute([*assumptions, *query], deadline)
            if core is None:
                return Outcome("sat", model=self._model())
            return Outcome("unsat", used=self._used(core, query, deadline))
        except OutOfTime:
            return Outcome("unknown", why="out of time")

    def close(self) -> None:
        """Free the solver."""
        self._solver.delete()

    # ---- instances ---------------------------------------------------------------------------------------------------

    def _enter(self, clauses: list[Clause]) -> list[int]:
        """Make a formula's clauses known; what to assume for the formula to hold."""
        if len(clauses) == 1 and clauses[0].variables == 0 and len(clauses[0].literals) == 1:
            return [self._atoms.literal(clauses[0].literals[0], ())]
        selector = self._atoms.selector()
        for clause in clauses:
            self._add(clause, selector)
        return [selector]

    def _add(self, clause: Clause, selector: int) -> None:
        """Hand a clause's instances to the solver, or keep it for those that a model violates."""
        if isinstance(self._atoms, _DenseAtoms):
            for instance in self._atoms.instances(clause, selector):
                self._solver.add_clause(instance)
        elif clause.variables == 0:
            self._add_instance(clause, selector, ())
        else:
            self._lazy.append((clause, selector))

    def _add_instance(self, clause: Clause, selector: int, binding: Sequence[int]) -> None:
        instance = [self._atoms.literal(literal, binding) for literal in clause.literals]
        self._solver.add_clause([-selector, *instance] if selector else instance)

    # ---- search ------------------------------------------------------------------------------------------------------

    def _refute(self, assumptions: list[int], deadline: float) -> list[int] | None:
        """The assumptions a refutation needs, or None if the solver's model is one of all instances."""
        assumed = set(assumptions)
        before: _Truth | None = None
        while True:
            self._solver.conf_budget(_CONFLICTS)
            while (answer := self._solver.solve_limited(assumptions)) is None:
                if time.monotonic() > deadline:
                    raise OutOfTime
                self._solver.conf_budget(_CONFLICTS)
            if not answer:
                return self._solver.get_core() or []
            if not self._lazy:
                return None
            truth = _Truth(self._atoms.true(self._solver.get_model()), self._constants, before)
            before = truth
            # What became true since the last round violates most (semi-naive); only when it does not, all is looked at.
            if not (
                self._add_violated(truth, assumed, True, deadline)
                or self._add_violated(truth, assumed, False, deadline)
            ):
                return None

    def _add_violated(self, truth: _Truth, assumed: set[int], new: bool, deadline: float) -> bool:
        """Hand the instances that a model violates to the solver; whether there were any."""
        added = False
        for clause, selector in self._lazy:
            if selector and selector not in assumed:
                continue
            for number, binding in enumerate(truth.violations(clause, new)):
                if number % 256 == 0 and time.monotonic() > deadline:
                    raise OutOfTime
                self._add_instance(clause, selector, binding)
                added = True
        return added

    def _used(self, core: list[int], query: list[int], deadline: float) -> tuple[int, ...]:
        """The premises of a refutation; where all instances are at hand, none of which it can do without."""
        asked = set(query)
        needed = [literal for literal in core if literal not in asked]
        # With instances made as they are violated, every question to a smaller set would be a search of its own.
        for literal in [] if self._lazy else list(needed):
            fewer = [other for other in needed if other != literal]
            smaller = self._refute([*fewer, *query], deadline)
            if smaller is not None:
                kept = set(smaller)
                needed = [other for other in fewer if other in kept]
        named: dict[int, int] = {}
        for number, part in enumerate(self._premises):
            for literal in part:
                named.setdefault(literal, number)
        return tuple(sorted(named[literal] for literal in needed))

    def _model(self) -> Interpretation:
        """The interpretation of the solver's model."""
        true = self._atoms.true(self._solver.get_model())
        names = list(self._constants)
        element = names
        if self._symbols.equality:
            first: dict[int, int] = {}
            for left, right in true.get(EQUALITY, ()):
                first[left] = min(first.get(left, left), right)
            element = [names[first.get(number, number)] for number in range(len(names))]
        held = {
            predicate: frozenset(tuple([element[number] for number in numbers]) for numbers in true.get(predicate, ()))
            for predicate in self._symbols.predicates
        }
        constants = {name: element[self._constants[name]] for name in self._symbols.constants}
        return Interpretation(tuple(dict.fromkeys(element)), constants, held)


class _DenseAtoms:
    """Atoms numbered by position: base of the predicate plus its arguments as digits, so instances are ranges."""

    def __init__(self, clauses: Iterable[Clause], constants: dict[str, int]) -> None:
        self._numbers, self._size = constants, len(constants)
        self._base: dict[str, int] = {}
        self._arity: dict[str, int] = {}
        following = 1
        for clause in clauses:
            for _, predicate, terms in clause.literals:
                if predicate not in self._base:
                    self._base[predicate] = following
                    self._arity[predicate] = len(terms)
                    following += self._size ** len(terms)
        self._selectors = following - 1

    def selector(self) -> int:
        self._selectors += 1
        return self._selectors

    def literal(self, literal: Literal, binding: Sequence[int]) -> int:
        sign, predicate, terms = literal
        number = 0
        for term in terms:
            number = number * self._size + (self._numbers[term] if type(term) is str else binding[term])  # type: ignore[index]
        number += self._base[predicate]
        return number if sign else -number

    def instances(self, clause: Clause, selector: int) -> Iterator[tuple[int, ...]]:
        """All instances: for each binding of the first variables, the last one's values at once."""
        count = clause.variables
        guard = (itertools.repeat(-selector),) if selector else ()
        if count == 0:
            lits = [self.literal(literal, ()) for literal in clause.literals]
            yield tuple([-selector, *lits] if selector else lits)
            return
        for binding in itertools.product(range(self._size), repeat=count - 1):
            columns = [self._column(literal, (*binding, 0), count - 1) for literal in clause.literals]
            if any(type(column) is range for column in columns):
                yield from zip(*guard, *columns)
            else:
                yield _first(guard, columns)

    def _column(self, literal: Literal, binding: tuple[int, ...], variable: int) -> range | itertools.repeat[int]:
        """A literal's numbers while one variable goes through the constants."""
        sign, predicate, terms = literal
        start = step = 0
        for term in terms:
            start *= self._size
            step *= self._size
            if term == variable:
                step += 1
            else:
                start += self._numbers[term] if type(term) is str else binding[term]  # type: ignore[index]
        start += self._base[predicate]
        if step == 0:
            return itertools.repeat(start if sign else -start)
        stop = start + step * self._size
        return range(start, stop, step) if sign else range(-start, -stop, -step)

    def true(self, model: list[int]) -> dict[str, list[tuple[int, ...]]]:
        """Predicate -> the arguments (as numbers of constants) it holds for in a solver's model."""
        found: dict[str, list[tuple[int, ...]]] = {}
        for predicate, base in self._base.items():
            arity, size = self._arity[predicate], self._size
            held = [number - base for number in model[base - 1 : base - 1 + size**arity] if number > 0]
            if arity == 1:
                found[predicate] = [(number,) for number in held]
            elif arity == 2:
                found[predicate] = [divmod(number, size) for number in held]
            else:
                found[predicate] = [_digits(number, size, arity) for number in held]
        return found


class _SparseAtoms:
    """Atoms numbered as they occur."""

    def __init__(self, constants: dict[str, int]) -> None:
        self._numbers = constants
        self._number: dict[tuple[str, tuple[int, ...]], int] = {}
        self._atom: dict[int, tuple[str, tuple[int, ...]]] = {}
        self._following = 1

    def selector(self) -> int:
        self._following += 1
        return self._following - 1

    def literal(self, literal: Literal, binding: Sequence[int]) -> int:
        sign, predicate, terms = literal
        key = (predicate, tuple(self._numbers[t] if type(t) is str else binding[t] for t in terms))  # type: ignore[index]
        number = self._number.get(key)
        if number is None:
            number = self._number[key] = self.selector()
            self._atom[number] = key
        return number if sign else -number

    def true(self, model: list[int]) -> dict[str, list[tuple[int, ...]]]:
        found: dict[str, list[tuple[int, ...]]] = {}
        for number in model:
            if number > 0 and number in self._atom:
                predicate, arguments = self._atom[number]
                found.setdefault(predicate, []).append(arguments)
        return found


class _Truth:
    """A model's true atoms, indexed for joins."""

    def __init__(
        self, true: dict[str, list[tuple[int, ...]]], constants: dict[str, int], before: _Truth | None
    ) -> None:
        self._true = true
        self._sets = {predicate: set(held) for predicate, held in true.items()}
        known = {} if before is None else before._sets
        self._new = {p: [held for held in tuples if held not in known.get(p, ())] for p, tuples in true.items()}
        self._constants = constants
        self._indices: dict[tuple[str, tuple[int, ...]], dict[tuple[int, ...], list[tuple[int, ...]]]] = {}

    def violations(self, clause: Clause, new: bool) -> Iterator[tuple[int, ...]]:
        """Bindings of a clause's variables under which every literal is false.

        Args:
            clause: the clause.
            new: only those that need an atom that was not true before.
        """
        body = [(predicate, terms) for sign, predicate, terms in clause.literals if not sign]
        head = [(predicate, terms) for sign, predicate, terms in clause.literals if sign]
        body.sort(key=lambda atom: len(self._true.get(atom[0], ())))
        orders = [[atom, *body[:n], *body[n + 1 :]] for n, atom in enumerate(body)] if new else [body]
        binding: list[int | None] = [None] * clause.variables
        for order in orders:
            for _ in self._join(order, binding, new):
                unbound = [variable for variable, value in enumerate(binding) if value is None]
                for values in itertools.product(range(len(self._constants)), repeat=len(unbound)):
                    for variable, value in zip(unbound, values):
                        binding[variable] = value
                    if not any(self._holds(predicate, terms, binding) for predicate, terms in head):
                        yield tuple(binding)  # type: ignore[arg-type]
                for variable in unbound:
                    binding[variable] = None

    def _holds(self, predicate: str, terms: tuple[ClauseTerm, ...], binding: list[int | None]) -> bool:
        held = self._sets.get(predicate)
        return held is not None and tuple([self._value(term, binding) for term in terms]) in held

    def _value(self, term: ClauseTerm, binding: list[int | None]) -> int | None:
        return self._constants[term] if type(term) is str else binding[term]  # type: ignore[index, call-overload]

    def _join(
        self, body: list[tuple[str, tuple[ClauseTerm, ...]]], binding: list[int | None], new: bool, at: int = 0
    ) -> Iterator[None]:
        """Bind variables in place so that all atoms of the body are true (the first newly so), in every way in turn."""
        if at == len(body):
            yield
            return
        predicate, terms = body[at]
        values = [self._value(term, binding) for term in terms]
        known = tuple(place for place, value in enumerate(values) if value is not None)
        given = tuple([values[place] for place in known])
        matching = self._matching(predicate, known).get(given, ())  # type: ignore[arg-type]
        if new and at == 0:
            fresh = self._new.get(predicate, ())
            matching = [held for held in fresh if tuple([held[place] for place in known]) == given] if known else fresh
        for held in matching:
            bound = []
            for place, term in enumerate(terms):
                if values[place] is None:
                    if binding[term] is None:  # type: ignore[index, call-overload]
                        binding[term] = held[place]  # type: ignore[index, call-overload]
                        bound.append(term)
                    elif binding[term] != held[place]:  # type: ignore[index, call-overload]
                        break  # the same variable twice in one atom
            else:
                yield from self._join(body, binding, new, at + 1)
            for term in bound:
                binding[term] = None  # type: ignore[index, call-overload]

    def _matching(self, predicate: str, known: tuple[int, ...]) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
        """The true atoms of a predicate by their arguments at some places."""
        index = self._indices.get((predicate, known))
        if index is None:
            index = self._indices[predicate, known] = {}
            for held in self._true.get(predicate, ()):
                index.setdefault(tuple([held[place] for place in known]), []).append(held)
        return index


def _first(guard: Iterable[Iterator[int]], columns: Iterable[Iterator[int]]) -> tuple[int, ...]:
    """The one instance of columns that do not vary."""
    return tuple(next(iter(column)) for column in (*guard, *columns))


def _digits(number: int, base: int, count: int) -> tuple[int, ...]:
    digits = []
    for _ in range(count):
        number, digit = divmod(number, base)
        digits.append(digit)
    return tuple(reversed(digits))


def _constants(groups: Iterable[Iterable[Clause]], named: Iterable[str]) -> dict[str, int]:
    """Every constant's number, the formulas' before the witnesses; at least one, as a domain is never empty."""
    found = dict.fromkeys(named)
    for clauses in groups:
        for clause in clauses:
            for _, _, terms in clause.literals:
                for term in terms:
                    if type(term) is str and term not in found:
                        found[term] = None
    return {name: number for number, name in enumerate(found or ["c#0"])}


def _laws_of_equality(groups: Iterable[Iterable[Clause]]) -> list[Clause]:
    """Equality is an equivalence, and predicates do not tell equals apart."""
    laws = [
        Clause(((True, EQUALITY, (0, 0)),), 1),
        Clause(((False, EQUALITY, (0, 1)), (True, EQUALITY, (1, 0))), 2),
        Clause(((False, EQUALITY, (0, 1)), (False, EQUALITY, (1, 2)), (True, EQUALITY, (0, 2))), 3),
    ]
    arity = {p: len(terms) for clauses in groups for clause in clauses for _, p, terms in clause.literals}
    for predicate, count in arity.items():
        if predicate == EQUALITY:
            continue
        for place in range(count):
            before = tuple(range(count))
            after = (*before[:place], count, *before[place + 1 :])
            literals = ((False, EQUALITY, (place, count)), (False, predicate, before), (True, predicate, after))
            laws.append(Clause(literals, count + 1))
    return laws
