"""Entailment: every engine against enumeration of all models, its certificates checked, its limits kept."""

import itertools
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from etude.errors import MissingExtra
from etude.reasoning.logic import (
    ENGINES,
    Interpretation,
    Not,
    Verdict,
    by_enumeration,
    entails,
    negated,
    parse,
    random_theory,
    verify,
)
from etude.reasoning.logic import entailment as entailment_module
from etude.reasoning.logic.eprover import find_eprover
from etude.reasoning.logic.formulas import signature
from etude.reasoning.logic.ground import Ground

NUMBERS = ["Even(zero)", "∀x (Even(x) → Even(s(s(x))))", "Odd(zero)"]
FOUR = "Even(s(s(s(s(zero)))))"


def installed(engine):
    if engine == "eprover":
        try:
            find_eprover()
        except MissingExtra:
            pytest.skip("E is not installed")
    return engine


@pytest.mark.parametrize("equality", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_equal_enumeration(engine, equality):
    installed(engine)
    generator = np.random.default_rng(7)
    seen = set()
    for _ in range(200 if engine == "ground" else 25):
        premises, conclusion = random_theory(generator, equality=equality)
        expected = by_enumeration(premises, conclusion)
        proof = entails(premises, conclusion, engine=engine)
        assert proof.verdict is expected, [*map(str, premises), str(conclusion)]
        assert proof.engine == engine
        seen.add(expected)
    assert seen == set(Verdict) - {Verdict.UNKNOWN}


@pytest.mark.parametrize("equality", [False, True])
def test_models_and_used_premises_are_what_they_say(equality):
    generator = np.random.default_rng(11)
    for number in range(60):
        premises, conclusion = random_theory(generator, equality=equality)
        for engine in ("ground", "z3") if number < 20 else ("ground",):
            proof = entails(premises, conclusion, engine=engine)
            assert verify(proof, premises, conclusion)
            if engine == "z3":
                continue  # its models may leave the domain open
            assert (proof.countermodel is not None) == (proof.verdict in (Verdict.UNCERTAIN, Verdict.FALSE))
            assert (proof.model is not None) == (proof.verdict in (Verdict.UNCERTAIN, Verdict.TRUE))
            assert (proof.premises_used is not None) == (proof.verdict is not Verdict.UNCERTAIN)


def test_no_used_premise_can_be_left_out():
    generator = np.random.default_rng(13)
    checked = 0
    for _ in range(100):
        premises, conclusion = random_theory(generator)
        proof = entails(premises, conclusion, engine="ground")
        for left_out in proof.premises_used or ():
            fewer = [premises[number] for number in proof.premises_used if number != left_out]
            assert entails(fewer, conclusion, engine="ground").verdict is not proof.verdict
            checked += 1
    assert checked > 50


def test_the_verdict_is_invariant():
    """Under the order of premises and the names of symbols; negating the conclusion swaps true and false."""
    generator = np.random.default_rng(17)
    for _ in range(60):
        premises, conclusion = random_theory(generator)
        proof = entails(premises, conclusion)
        assert entails(premises[::-1], conclusion).verdict is proof.verdict
        assert entails(premises, Not(conclusion)).verdict is negated(proof)
        renamed = [str(f).replace("P", "Q").replace("a", "Zoe").replace("b", "a") for f in (*premises, conclusion)]
        assert entails(renamed[:-1], renamed[-1]).verdict is proof.verdict


@pytest.mark.parametrize("equality", [False, True])
def test_instances_made_when_violated_give_the_same(equality):
    generator = np.random.default_rng(19)
    for _ in range(150):
        premises, conclusion = random_theory(generator, equality=equality)
        symbols = signature([*premises, conclusion])
        at_once, lazy = (Ground(premises, conclusion, symbols, eager=eager) for eager in (10**6, -1))
        for query in (True, False, None):
            one, other = (engine.ask(query, time.monotonic() + 10) for engine in (at_once, lazy))
            assert one.status == other.status
            if other.model is not None:
                assert all(other.model.satisfies(premise) for premise in premises)
                assert query is None or other.model.satisfies(conclusion) == query
            if other.used is not None:
                kept = [premises[number] for number in other.used]
                goal = conclusion if query is False else Not(conclusion)
                verdict = entails(kept, goal, check_consistency=False).verdict
                assert query is None or verdict is Verdict.TRUE


def test_a_large_world_is_decided_lazily():
    names = [f"n{number}" for number in range(40)]
    premises = [parse(f"Edge({one}, {two})") for one, two in itertools.pairwise(names)]
    premises += [parse("∀x ∀y (Edge(x, y) → Path(x, y))"), parse("∀x ∀y ∀z ((Path(x, y) ∧ Edge(y, z)) → Path(x, z))")]
    proof = entails(premises, parse("Path(n0, n39)"), engine="ground")
    assert proof.verdict is Verdict.TRUE
    assert proof.premises_used == tuple(range(41))
    proof = entails(premises, parse("Path(n39, n0)"), engine="ground")
    assert proof.verdict is Verdict.UNCERTAIN
    assert verify(proof, premises, parse("Path(n39, n0)"))


@pytest.mark.parametrize("engine", ["auto", "z3", "cvc5", "eprover"])
def test_functions_go_to_the_other_engines(engine):
    installed(engine)
    proof = entails(NUMBERS, FOUR, engine=engine, check_consistency=False)
    assert proof.verdict is Verdict.TRUE
    assert proof.premises_used == (0, 1)
    assert proof.engine != "ground"


@pytest.mark.parametrize("engine", ["auto", "z3", "cvc5"])
def test_witnesses_that_depend_on_others(engine):
    premises = ["∀x (Person(x) → ∃y Mother(y, x))", "Person(Ann)"]
    assert entails(premises, "∃y Mother(y, Ann)", engine=engine).verdict is Verdict.TRUE
    assert entails(premises, "Person(Bob)", engine=engine).verdict is Verdict.UNCERTAIN


def test_small_scopes_bring_formulas_into_the_fragment():
    premises = ["∀x (Cat(x) → ∃y Dog(y))", "Cat(Tom)"]
    assert entails(premises, "∃y Dog(y)", engine="ground").verdict is Verdict.TRUE
    with pytest.raises(ValueError, match=r"premises\[1\].*'ground' accepts"):
        entails(["Cat(Tom)", "∀x ∃y Likes(x, y)"], "Cat(Tom)", engine="ground")
    with pytest.raises(ValueError, match=r"conclusion: .*'ground' accepts"):
        entails(["Cat(Tom)"], "∃x ∀y Likes(x, y)", engine="ground")


def test_nested_equivalences_do_not_explode():
    names = [f"P{number}" for number in range(24)]
    chain = " ↔ ".join(names)
    premises = [chain, *(f"¬{name}" for name in names[:-1])]
    # An odd number of false propositions makes the chain of equivalences the negation of the last one.
    assert entails(premises, names[-1], engine="ground").verdict is Verdict.FALSE
    assert entails(premises[:-1], names[-1], engine="ground").verdict is Verdict.UNCERTAIN


def test_inconsistent_premises_are_told_apart_and_can_be_left_unchecked():
    premises = ["P(a)", "Q(b)", "¬P(a)"]
    proof = entails(premises, "R(c)")
    assert proof.verdict is Verdict.INCONSISTENT
    assert proof.premises_used == (0, 2)
    assert entails(premises, "R(c)", check_consistency=False).verdict is Verdict.TRUE


def test_names_may_denote_the_same():
    assert entails(["P(a)", "a = b"], "P(b)").verdict is Verdict.TRUE
    assert entails(["P(a)", "¬P(b)"], "a = b").verdict is Verdict.FALSE
    assert entails(["P(a)"], "a = b").verdict is Verdict.UNCERTAIN
    assert entails(["∀x (x = a)", "P(a)"], "∀x P(x)").verdict is Verdict.TRUE


def test_no_premises_ask_for_validity():
    assert entails([], "P(a) ∨ ¬P(a)").verdict is Verdict.TRUE
    assert entails([], "∃x (P(x) → ∀y P(y))").verdict is Verdict.TRUE
    assert entails([], "P(a)").verdict is Verdict.UNCERTAIN
    assert entails(["∀x P(x)"], "∃x P(x)").verdict is Verdict.TRUE  # domains are not empty


PIGEONS = 14
"""Nobody proves quickly that so many pigeons do not fit into one hole fewer."""


def pigeons():
    holes = range(PIGEONS - 1)
    premises = [" ∨ ".join(f"In(p{pigeon}, h{hole})" for hole in holes) for pigeon in range(PIGEONS)]
    for hole in holes:
        premises += [f"¬(In(p{i}, h{hole}) ∧ In(p{j}, h{hole}))" for i in range(PIGEONS) for j in range(i)]
    return [parse(premise) for premise in premises]


@pytest.mark.parametrize("engine", ENGINES)
def test_time_outs_hold_and_are_never_called_uncertain(engine):
    installed(engine)
    premises = pigeons()
    began = time.monotonic()
    proof = entails(premises, parse("Coo"), engine=engine, timeout=0.5)
    assert proof.verdict is Verdict.UNKNOWN
    assert "not decided" in proof.why
    assert time.monotonic() - began < 20  # far below what the problem takes, far above any slow machine's start


def test_an_infinite_search_ends():
    premises = ["∀x ∃y Less(x, y)", "∀x ¬Less(x, x)", "∀x ∀y ∀z ((Less(x, y) ∧ Less(y, z)) → Less(x, z))"]
    for engine in ("z3", "cvc5"):
        assert entails(premises, "P(a)", engine=engine, timeout=1).verdict is Verdict.UNKNOWN


def test_follows_though_consistency_stays_open():
    """E refutes at once what z3 and cvc5 cannot show consistent, as only infinite models exist."""
    premises = ["∀x ∃y Less(x, y)", "∀x ¬Less(x, x)", "∀x ∀y ∀z ((Less(x, y) ∧ Less(y, z)) → Less(x, z))"]
    proof = entails(premises, "∃x ∃y Less(x, y)", engine="z3", timeout=1)
    assert proof.verdict is Verdict.UNKNOWN
    assert "the conclusion follows, but the premises may be inconsistent" in proof.why
    assert entails(premises, "∃x ∃y Less(x, y)", engine="z3", check_consistency=False).verdict is Verdict.TRUE


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"premises": ["P(a)", "P(a, b)"]}, ValueError, r"premises\[1\]: P is used"),
        ({"premises": ["P(a)"], "conclusion": "P(x)"}, ValueError, "conclusion: the variable x is free"),
        ({"premises": ["P(a)", "(P(a)"]}, ValueError, r"premises\[1\]: text: no formula"),
        ({"premises": "P(a)"}, TypeError, "premises: a string"),
        ({"premises": [None]}, TypeError, r"premises\[0\]: a NoneType"),
        ({"engine": "vampire"}, ValueError, "engine: 'vampire'"),
        ({"timeout": 0}, ValueError, "timeout: 0"),
        ({"timeout": float("nan")}, ValueError, "timeout: nan"),
    ],
)
def test_bad_input_is_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        entails(**{"premises": ["P(a)"], "conclusion": "P(a)", **arguments})


@pytest.mark.parametrize(("engine", "package"), [("ground", "pysat.solvers"), ("z3", "z3"), ("cvc5", "cvc5")])
def test_an_absent_engine_says_what_to_install(monkeypatch, engine, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match="pip install"):
        entails(["P(a)"], "P(a)", engine=engine)


def test_auto_needs_some_engine_for_functions(monkeypatch):
    for package in ("z3", "cvc5"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("etude.reasoning.logic.eprover.find_eprover", absent)
    with pytest.raises(MissingExtra, match="none is installed"):
        entails(NUMBERS, FOUR)


def absent():
    raise MissingExtra("E is not there", "Install it")


def test_eprover_is_given_neither_names_nor_a_shell(monkeypatch):
    """Odd names stay in this process, the program gets a list of arguments and an empty environment."""
    installed("eprover")
    seen = {}
    real = subprocess.Popen

    def watched(command, **options):
        seen.update(options, command=command, text=Path(command[-1]).read_text(encoding="ascii"))
        return real(command, **options)

    monkeypatch.setattr(subprocess, "Popen", watched)
    proof = entails(["∀x (Über(x) → fof(x))", "Über(José)"], "fof(José)", engine="eprover")
    assert proof.verdict is Verdict.TRUE
    assert proof.premises_used == (0, 1)
    assert isinstance(seen["command"], list)
    assert "shell" not in seen
    assert seen["env"] == {}
    assert "Jos" not in seen["text"]


def test_interpretations_follow_the_definition_of_truth():
    world = Interpretation(
        ("0", "1"),
        {"zero": "0", "one": "1"},
        {"Even": frozenset({("0",)}), "Next": frozenset({("0", "1"), ("1", "0")}), "Rain": frozenset({()})},
        {"s": {("0",): "1", ("1",): "0"}},
    )
    for text, expected in {
        "∀x ∃y Next(x, y)": True,
        "∃y ∀x Next(x, y)": False,
        "Rain ∧ Even(zero)": True,
        "Even(zero) ⊕ Even(one)": True,
        "s(s(zero)) = zero": True,
        "s(one) = one": False,
        "∀x (Even(x) ↔ ¬Even(s(x)))": True,
        "Snow": False,
    }.items():
        assert world.satisfies(parse(text)) is expected
    with pytest.raises(ValueError, match="two denotes nothing"):
        world.satisfies(parse("Even(two)"))
    with pytest.raises(ValueError, match="x is free"):
        world.satisfies(parse("Even(x)"))
    assert "Rain: ()" in str(world)


def test_a_wrong_certificate_is_found_out():
    premises, conclusion = [parse("∀x (Cat(x) → Animal(x))"), parse("Cat(Tom)")], parse("Animal(Tom)")
    proof = entails(premises, conclusion)
    assert verify(proof, premises, conclusion)
    assert not verify(replace(proof, premises_used=(1,)), premises, conclusion)
    assert not verify(replace(proof, model=replace(proof.model, predicates={})), premises, conclusion)
    assert not verify(replace(proof, countermodel=proof.model), premises, conclusion)


def test_enumeration_refuses_what_it_cannot_enumerate():
    with pytest.raises(ValueError, match="a witness depends"):
        by_enumeration([parse("∀x ∃y R(x, y)")], parse("P(a)"))
    with pytest.raises(ValueError, match="at most 20"):
        by_enumeration([parse("R(a, b, c)")], parse("P(a)"))


def test_verdicts_are_apart():
    assert len({verdict.value for verdict in Verdict}) == 5
    assert entailment_module.ENGINES == ENGINES


def test_a_predicate_of_many_places_takes_neither_memory_nor_time():
    names = [f"C{number}" for number in range(13)]
    premises = [f"Colleges({', '.join(names)})", "Private(YALE)", "Moved(YALE, NEWHAVEN)"]
    conclusion = "exists x.(Private(x) & Moved(x, NEWHAVEN))"
    assert entails(premises, conclusion, engine="ground", timeout=5).verdict is Verdict.TRUE
    open_question = entails([*premises, "Organised(YALE, Parts(N27))"], "Private(NEWHAVEN)", engine="z3", timeout=5)
    assert open_question.verdict is Verdict.UNCERTAIN
    assert open_question.countermodel is None
