"""Formulas as values, and the checks of the symbols they share."""

import pytest
from hypothesis import given, settings

from etude.reasoning.logic import (
    And,
    Atom,
    Constant,
    ForAll,
    Not,
    Variable,
    closure,
    free_variables,
    negation,
    parse,
    renamed,
    signature,
)
from reasoning.formula_strategies import formulas


def test_a_signature_lists_the_symbols():
    found = signature([parse("∀x (P(x) → R(x, f(a)))"), parse("Q"), parse("b = a")])
    assert found.predicates == {"P": 1, "R": 2, "Q": 0}
    assert found.functions == {"f": 1}
    assert found.constants == ("a", "b")
    assert found.equality


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            ["P(a)", "P(a, b)"],
            "sentence 1: P is used as a predicate of 2 arguments, but as a predicate of 1 argument in",
        ),
        (["P(a)", "R(P, a)"], "sentence 1: P is used as a constant, but as a predicate of 1 argument in sentence 0"),
        (["R(a, f(b))", "P(f)"], "sentence 1: f is used as a constant, but as a function of 1 argument in sentence 0"),
        (["Q", "R(f(a)) & f(a)"], "sentence 1: f is used as a predicate of 1 argument, but as a function"),
        (["P(a)", "∀x P(x)", "∀x (P(x) → R(x, y))"], "sentence 2: the variable y is free"),
        (["∀x P(x) → P(x)"], "sentence 0: the variable x is free"),
    ],
)
def test_clashes_are_refused_with_sentence_and_symbol(texts, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        signature([parse(text) for text in texts])


def test_sentences_can_be_named():
    with pytest.raises(ValueError, match="goal: the variable x is free"):
        signature([parse("P(x)")], names=["goal"])
    with pytest.raises(TypeError, match="sentence 0: a str"):
        signature(["P(a)"])


@settings(max_examples=100, deadline=None)
@given(formula=formulas())
def test_the_closure_binds_every_variable_and_nothing_else(formula):
    closed = closure(formula)
    assert free_variables(closed) == ()
    depth = len(free_variables(formula))
    for _ in range(depth):
        closed = closed.body
    assert closed == formula
    assert negation(negation(formula)) == formula or isinstance(formula, Not)


def test_formulas_are_values():
    x = Variable("x")
    one, other = (ForAll(x, Atom("P", (x, Constant("a")))) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    with pytest.raises(AttributeError):
        one.body = other


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Variable("X"), ValueError, "small letter"),
        (lambda: Variable("a b"), ValueError, "letters, digits"),
        (lambda: Constant("x1"), ValueError, "kept for variables"),
        (lambda: Constant("exists"), ValueError, "quantifier"),
        (lambda: Atom("P(a)"), ValueError, "letters, digits"),
        (lambda: Atom(7), TypeError, "name: a int"),
        (lambda: Atom("P", ("a",)), TypeError, "arguments: a str"),
        (lambda: Atom("P", [Constant("a")]), TypeError, "arguments: a list"),
        (lambda: And((Atom("P"),)), ValueError, "at least 2"),
        (lambda: Not("P"), TypeError, "body: a str"),
        (lambda: ForAll("x", Atom("P")), TypeError, "variable: a str"),
    ],
)
def test_what_is_no_formula_cannot_be_made(make, error, message):
    with pytest.raises(error, match=message):
        make()


@settings(max_examples=50, deadline=None)
@given(formula=formulas())
def test_renaming_there_and_back_is_the_identity(formula):
    there = {name: f"N{number}" for number, name in enumerate(["P", "Cold", "a", "Bob", "fg1", "fH2"])}
    back = {new: old for old, new in there.items()}
    assert renamed(renamed(formula, there), back) == formula
