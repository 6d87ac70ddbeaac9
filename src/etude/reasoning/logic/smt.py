"""The engines z3 and cvc5: all of first-order logic, each limited by the solver's own clock."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from etude.errors import MissingExtra
from etude.reasoning.logic.formulas import (
    And,
    Atom,
    Equal,
    ForAll,
    Formula,
    Iff,
    Implies,
    Not,
    Or,
    Signature,
    Term,
    Variable,
)
from etude.reasoning.logic.interpretation import Interpretation
from etude.reasoning.logic.outcome import Outcome

_GRACE = 1.0
"""Seconds after which a solver that has not seen its own limit is interrupted from outside."""
_ENTRIES = 10_000
"""The most entries of predicates and functions that are asked of z3's model one by one."""


class Z3:
    """Premises and a conclusion for z3, in a context of their own. Arguments as for `Ground`.

    Quantifiers are instantiated by models, which decides the exists*-forall* fragment.
    """

    name = "z3"

    def __init__(self, premises: Sequence[Formula], conclusion: Formula, symbols: Signature) -> None:
        try:
            import z3
        except ImportError as error:
            raise MissingExtra(
                "the engine 'z3' needs z3-solver", "Install it: pip install 'etude[reasoning]'"
            ) from error
        self._z3 = z3
        self._context = context = z3.Context()
        self._symbols = symbols
        self._sort = z3.DeclareSort("thing", context)
        truth = z3.BoolSort(context)
        self._predicates = {
            name: z3.Function(f"p {name}", *[self._sort] * arity, truth) if arity else z3.Bool(f"p {name}", context)
            for name, arity in symbols.predicates.items()
        }
        self._functions = {
            name: z3.Function(f"f {name}", *[self._sort] * (arity + 1)) for name, arity in symbols.functions.items()
        }
        self._constants = {name: z3.Const(f"c {name}", self._sort) for name in symbols.constants}
        self._solver = z3.Solver(ctx=context)
        self._labels = [z3.Bool(f"premise {number}", context) for number in range(len(premises))]
        for label, premise in zip(self._labels, premises):
            self._solver.assert_and_track(self._expression(premise, {}), label)
        self._conclusion = self._expression(conclusion, {})

    def ask(self, conclusion: bool | None, deadline: float) -> Outcome:
        """Whether the premises have a model. Arguments as for `Ground.ask`."""
        z3, solver = self._z3, self._solver
        left = deadline - time.monotonic()
        if left <= 0:
            return Outcome("unknown", why="out of time")
        solver.push()
        try:
            if conclusion is not None:
                solver.add(self._conclusion if conclusion else z3.Not(self._conclusion))
            solver.set("timeout", max(1, int(1000 * left)))
            answer = _interrupted_after(left + _GRACE, self._context.interrupt, solver.check)
            if answer == z3.unsat:
                numbers = {str(label): number for number, label in enumerate(self._labels)}
                return Outcome("unsat", used=tuple(sorted(numbers[str(label)] for label in solver.unsat_core())))
            if answer == z3.sat:
                return Outcome("sat", model=self._model(solver.model()))
            return Outcome("unknown", why=f"z3: {solver.reason_unknown()}")
        except z3.Z3Exception as error:
            return Outcome("unknown", why=f"z3: {error}")
        finally:
            solver.pop()

    def close(self) -> None:
        """Let go of the solver; its context is freed with it."""
        del self._solver

    def _expression(self, formula: Formula, values: dict[Variable, Any]) -> Any:
        z3 = self._z3
        match formula:
            case Atom(predicate, arguments):
                declared = self._predicates[predicate]
                return declared(*[self._term(term, values) for term in arguments]) if arguments else declared
            case Equal(left, right):
                return self._term(left, values) == self._term(right, values)
            case Not(body):
                return z3.Not(self._expression(body, values))
            case And(parts):
                return z3.And(*[self._expression(part, values) for part in parts])
            case Or(parts):
                return z3.Or(*[self._expression(part, values) for part in parts])
            case Implies(left, right):
                return z3.Implies(self._expression(left, values), self._expression(right, values))
            case Iff(left, right):
                return self._expression(left, values) == self._expression(right, values)
        variable = formula.variable
        bound = z3.Const(f"v {variable.name}", self._sort)
        body = self._expression(formula.body, {**values, variable: bound})
        return (z3.ForAll if isinstance(formula, ForAll) else z3.Exists)([bound], body)

    def _term(self, term: Term, values: dict[Variable, Any]) -> Any:
        if isinstance(term, Variable):
            return values[term]
        if not term.arguments:
            return self._constants[term.name]
        return self._functions[term.name](*[self._term(argument, values) for argument in term.arguments])

    def _model(self, model: Any) -> Interpretation | None:
        """z3's model, whose domain is the finite universe it names; None if it names none, or tables would be long."""
        z3 = self._z3
        universe = [value for sort in model.sorts() for value in model.get_universe(sort)]
        arities = [*self._symbols.predicates.values(), *self._symbols.functions.values()]
        if not universe or sum(len(universe) ** arity for arity in arities) > _ENTRIES:
            return None
        names = {value.sexpr(): f"e{number}" for number, value in enumerate(universe)}

        def element(expression: Any) -> str | None:
            return names.get(model.eval(expression, model_completion=True).sexpr())

        def holds(expression: Any) -> bool:
            return bool(z3.is_true(model.eval(expression, model_completion=True)))

        predicates = {}
        for name, arity in self._symbols.predicates.items():
            declared = self._predicates[name]
            held = itertools.product(universe, repeat=arity)
            predicates[name] = frozenset(
                tuple(names[value.sexpr()] for value in values)
                for values in held
                if holds(declared(*values) if arity else declared)
            )
        functions = {
            name: {
                tuple(names[value.sexpr()] for value in values): element(self._functions[name](*values))
                for values in itertools.product(universe, repeat=arity)
            }
            for name, arity in self._symbols.functions.items()
        }
        constants = {name: element(constant) for name, constant in self._constants.items()}
        denoted = [*constants.values(), *(value for values in functions.values() for value in values.values())]
        if None in denoted:
            return None
        return Interpretation(tuple(names.values()), constants, predicates, functions)  # type: ignore[arg-type]


class CVC5:
    """Premises and a conclusion for cvc5, which looks for finite models as well. Arguments as for `Ground`."""

    name = "cvc5"

    def __init__(self, premises: Sequence[Formula], conclusion: Formula, symbols: Signature) -> None:
        try:
            import cvc5
        except ImportError as error:
            raise MissingExtra("the engine 'cvc5' needs cvc5", "Install it: pip install 'etude[reasoning]'") from error
        self._cvc5, self._given = cvc5, (list(premises), conclusion, symbols)

    def ask(self, conclusion: bool | None, deadline: float) -> Outcome:
        """Whether the premises have a model. Arguments as for `Ground.ask`."""
        left = deadline - time.monotonic()
        if left <= 0:
            return Outcome("unknown", why="out of time")
        # Instantiation refutes, and finite models satisfy; the second search gets what the first leaves.
        for finite, share in ((False, 0.3), (True, 1.0)):
            outcome = self._check(conclusion, finite, max(0.001, share * (deadline - time.monotonic())))
            if outcome.status != "unknown":
                break
        return outcome

    def _check(self, conclusion: bool | None, finite: bool, seconds: float) -> Outcome:
        cvc5 = self._cvc5
        premises, claimed, symbols = self._given
        manager = cvc5.TermManager()
        solver = cvc5.Solver(manager)
        solver.setLogic("UF")
        solver.setOption("produce-unsat-cores", "true")
        solver.setOption("tlimit-per", str(max(1, int(1000 * seconds))))
        if finite:
            solver.setOption("finite-model-find", "true")
        thing, truth = manager.mkUninterpretedSort("thing"), manager.getBooleanSort()
        write = _CVC5Writer(cvc5, manager, thing)
        for name, arity in symbols.predicates.items():
            sort = manager.mkFunctionSort([thing] * arity, truth) if arity else truth
            write.predicates[name] = manager.mkConst(sort, f"p {name}")
        for name, arity in symbols.functions.items():
            write.functions[name] = manager.mkConst(manager.mkFunctionSort([thing] * arity, thing), f"f {name}")
        for name in symbols.constants:
            write.functions[name] = manager.mkConst(thing, f"c {name}")
        terms = [write.formula(premise, {}) for premise in premises]
        for term in terms:
            solver.assertFormula(term)
        if conclusion is not None:
            term = write.formula(claimed, {})
            solver.assertFormula(term if conclusion else manager.mkTerm(cvc5.Kind.NOT, term))
        try:
            answer = solver.checkSat()
        except RuntimeError as error:
            return Outcome("unknown", why=f"cvc5: {error}")
        if answer.isUnsat():
            core = solver.getUnsatCore()
            return Outcome("unsat", used=tuple(number for number, term in enumerate(terms) if term in core))
        if answer.isSat():
            return Outcome("sat")
        return Outcome("unknown", why=f"cvc5: {str(answer.getUnknownExplanation()).rpartition('.')[2].lower()}")

    def close(self) -> None:
        """Nothing is held between questions."""


class _CVC5Writer:
    """Formulas as cvc5's terms."""

    def __init__(self, cvc5: Any, manager: Any, thing: Any) -> None:
        self._kinds, self._manager, self._thing = cvc5.Kind, manager, thing
        self.predicates: dict[str, Any] = {}
        self.functions: dict[str, Any] = {}

    def formula(self, formula: Formula, values: dict[Variable, Any]) -> Any:
        kinds, make = self._kinds, self._manager.mkTerm
        match formula:
            case Atom(predicate, arguments):
                declared = self.predicates[predicate]
                if not arguments:
                    return declared
                return make(kinds.APPLY_UF, declared, *[self.term(term, values) for term in arguments])
            case Equal(left, right):
                return make(kinds.EQUAL, self.term(left, values), self.term(right, values))
            case Not(body):
                return make(kinds.NOT, self.formula(body, values))
            case And(parts):
                return make(kinds.AND, *[self.formula(part, values) for part in parts])
            case Or(parts):
                return make(kinds.OR, *[self.formula(part, values) for part in parts])
            case Implies(left, right):
                return make(kinds.IMPLIES, self.formula(left, values), self.formula(right, values))
            case Iff(left, right):
                return make(kinds.EQUAL, self.formula(left, values), self.formula(right, values))
        variable = formula.variable
        bound = self._manager.mkVar(self._thing, variable.name)
        body = self.formula(formula.body, {**values, variable: bound})
        kind = kinds.FORALL if isinstance(formula, ForAll) else kinds.EXISTS
        return make(kind, make(kinds.VARIABLE_LIST, bound), body)

    def term(self, term: Term, values: dict[Variable, Any]) -> Any:
        if isinstance(term, Variable):
            return values[term]
        declared = self.functions[term.name]
        if not term.arguments:
            return declared
        arguments = [self.term(argument, values) for argument in term.arguments]
        return self._manager.mkTerm(self._kinds.APPLY_UF, declared, *arguments)


def _interrupted_after(seconds: float, interrupt: Callable[[], None], call: Callable[[], Any]) -> Any:
    """What a call returns; after so many seconds it is interrupted."""
    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        return call()
    finally:
        timer.cancel()
