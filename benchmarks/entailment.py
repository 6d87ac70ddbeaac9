"""Verdicts on generated rule worlds: our grounding engine beside z3 used by hand, cvc5, E and nltk's provers.

All get formulas that are read already and answer both questions (does the conclusion follow, does its negation). A
prover whose verdict differs from the generator's label ends the benchmark. nltk's are stopped after a second, and its
tableau prover also gives up by itself and then reports that there is no proof: the share that they answer rightly is a
row, and only a proof of what does not follow is an error.
"""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.measuring import Row, installed
from etude.data import RuleWorld
from etude.errors import MissingExtra
from etude.reasoning.logic import And, Atom, Constant, ForAll, Formula, Implies, Not, Variable, entails, to_nltk
from etude.reasoning.logic.eprover import find_eprover

Theory = tuple[Formula, ...]
LIMIT = 1.0


def by_hand() -> Callable[[Theory], str]:
    """z3 as one would use it for this: one context, a solver a problem, the rules as quantified implications."""
    import z3

    thing = z3.DeclareSort("thing")
    x = z3.Const("x", thing)
    booleans = z3.BoolSort()

    def expression(formula: Formula) -> Any:
        match formula:
            case Atom(predicate, arguments):
                declared = z3.Function(predicate, *[thing] * len(arguments), booleans)
                return declared(*[x if isinstance(a, Variable) else z3.Const(a.name, thing) for a in arguments])
            case Not(body):
                return z3.Not(expression(body))
            case And(parts):
                return z3.And(*map(expression, parts))
            case Implies(left, right):
                return z3.Implies(expression(left), expression(right))
            case ForAll(_, body):
                return z3.ForAll([x], expression(body))
        raise TypeError(formula)

    def verdict(theory: Theory) -> str:
        *premises, conclusion = map(expression, theory)
        solver = z3.Solver()
        solver.add(*premises)
        found = []
        for claim in (z3.Not(conclusion), conclusion):
            solver.push()
            solver.add(claim)
            found.append(solver.check() == z3.sat)
            solver.pop()
        return label(*found)

    return verdict


def label(false: bool, true: bool) -> str:
    """The label, from whether the conclusion can be false and can be true."""
    return {(True, True): "Uncertain", (False, True): "True", (True, False): "False"}.get((false, true), "Inconsistent")


def by_engine(engine: str) -> Callable[[Theory], str]:
    return lambda theory: entails(theory[:-1], theory[-1], engine=engine).verdict.name.capitalize()  # type: ignore[arg-type]


def by_nltk(prover: Any) -> Callable[[Theory], str]:
    from nltk.sem.logic import Expression

    def verdict(theory: Theory) -> str:
        *premises, conclusion = [Expression.fromstring(to_nltk(formula)) for formula in theory]
        return label(not prover.prove(conclusion, premises), not prover.prove(-conclusion, premises))

    return verdict


def seconds(verdict: Callable[[Theory], str], problems: Sequence[tuple[str, Theory]]) -> float:
    """Seconds a problem; a wrong verdict is an error."""
    began = time.perf_counter()
    for expected, theory in problems:
        found = verdict(theory)
        if found != expected:
            raise AssertionError(f"{found} where {expected} is right: {list(map(str, theory))}")
    return (time.perf_counter() - began) / len(problems)


def limited(verdict: Callable[[Theory], str], problems: Sequence[tuple[str, Theory]]) -> tuple[float, float]:
    """Seconds a problem with a limit, and the share answered rightly; a proof of what does not follow is an error."""

    def stop(*_: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, stop)
    spent, answered = 0.0, 0
    try:
        for expected, theory in problems:
            signal.setitimer(signal.ITIMER_REAL, LIMIT)
            began = time.perf_counter()
            try:
                found = verdict(theory)
                signal.setitimer(signal.ITIMER_REAL, 0)
                if found not in (expected, "Uncertain"):
                    raise AssertionError(f"{found} where {expected} is right: {list(map(str, theory))}")
                answered += found == expected
            except (TimeoutError, RecursionError):
                signal.setitimer(signal.ITIMER_REAL, 0)
            spent += time.perf_counter() - began
    finally:
        signal.signal(signal.SIGALRM, previous)
    return spent / len(problems), answered / len(problems)


def run(quick: bool) -> list[Row]:
    sampled = RuleWorld(seed=20_231_206).sample(36 if quick else 500)
    problems = [(str(problem.label), theory) for problem, theory in sampled]
    ground = by_engine("ground")
    ours = min(seconds(ground, problems) for _ in range(3))
    rows = []
    for package, name, peer in (
        ("z3", "z3-solver by hand", by_hand),
        ("z3", "our engine 'z3'", lambda: by_engine("z3")),
        ("cvc5", "our engine 'cvc5'", lambda: by_engine("cvc5")),
    ):
        if installed(package):
            rows.append(Row(f"a rule-world problem, ground / {name}", ours, seconds(peer(), problems), aim="< 1"))
    try:
        find_eprover()
        eprover = by_engine("eprover")
        rows.append(Row("a rule-world problem, ground / E", ours, seconds(eprover, problems), aim="< 1"))
        path = [("True", path_of(40))]  # many instances, so they are made as they are violated; z3 leaves it undecided
        rows.append(Row("a path of 40 edges, ground / E", seconds(ground, path), seconds(eprover, path)))
    except MissingExtra as error:
        print(f"{error} Its rows are left out.")
    if installed("nltk"):
        from nltk.inference import ResolutionProver, TableauProver

        for prover in (TableauProver(), ResolutionProver()):
            name = type(prover).__name__
            few = problems[:: len(problems) // (6 if quick else 20)]
            taken, answered = limited(by_nltk(prover), few)
            rows.append(Row(f"a rule-world problem, ground / nltk's {name} (1 s at most)", ours, taken, aim="< 1"))
            rows.append(Row(f"share that nltk's {name} answers rightly in 1 s", answered, None, unit=""))

    return rows


def path_of(edges: int) -> Theory:
    """Edges in a row, what a path is, and that one leads from the first node to the last."""
    nodes = [Constant(f"n{number}") for number in range(edges + 1)]
    x, y, z = (Variable(name) for name in "xyz")

    def of(predicate: str, *arguments: Any) -> Formula:
        return Atom(predicate, arguments)

    edge = ForAll(x, ForAll(y, Implies(of("Edge", x, y), of("Path", x, y))))
    longer = ForAll(x, ForAll(y, ForAll(z, Implies(And((of("Path", x, y), of("Edge", y, z))), of("Path", x, z)))))
    edges_in_a_row = (of("Edge", *pair) for pair in itertools.pairwise(nodes))
    return (*edges_in_a_row, edge, longer, of("Path", nodes[0], nodes[-1]))
