"""Formulas as text: what is printed is read back, what NLTK reads is read alike, what models write is understood."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.reasoning.logic import (
    And,
    Atom,
    Constant,
    Equal,
    Exists,
    ForAll,
    Iff,
    Implies,
    Not,
    Or,
    Variable,
    exclusive_or,
    parse,
    to_nltk,
    to_tptp,
    to_unicode,
)
from reasoning.formula_strategies import formulas

PRINTERS = {"nltk": to_nltk, "unicode": to_unicode, "tptp": to_tptp}
X, Y = Variable("x"), Variable("y")


def atom(name, *arguments):
    return Atom(name, tuple(Constant(a) if isinstance(a, str) else a for a in arguments))


@pytest.mark.parametrize("dialect", PRINTERS)
@settings(max_examples=200, deadline=None)
@given(formula=formulas())
def test_what_is_printed_is_read_back(dialect, formula):
    text = PRINTERS[dialect](formula)
    assert parse(text, dialect) == formula
    if dialect != "tptp" or "[" in text:  # a TPTP text without quantifiers looks like any other
        assert parse(text) == formula


@settings(max_examples=100, deadline=None)
@given(formula=formulas())
def test_nltk_reads_what_is_printed_for_it_as_the_same_tree(formula):
    sem = pytest.importorskip("nltk.sem.logic")

    def tree(e):
        match type(e).__name__:
            case "AllExpression":
                return ("all", e.variable.name, tree(e.term))
            case "ExistsExpression":
                return ("exists", e.variable.name, tree(e.term))
            case "NegatedExpression":
                return ("not", tree(e.term))
            case "AndExpression" | "OrExpression" | "ImpExpression" | "IffExpression" | "EqualityExpression" as kind:
                return (kind[:2], tree(e.first), tree(e.second))
        return str(e).replace(" ", "")

    def ours(f):
        match f:
            case ForAll(v, body):
                return ("all", v.name, ours(body))
            case Exists(v, body):
                return ("exists", v.name, ours(body))
            case Not(body):
                return ("not", ours(body))
            case And((first, *rest)) | Or((first, *rest)):
                found = ours(first)
                for part in rest:
                    found = ("An" if isinstance(f, And) else "Or", found, ours(part))
                return found
            case Implies(left, right):
                return ("Im", ours(left), ours(right))
            case Iff(left, right):
                return ("If", ours(left), ours(right))
            case Equal():
                left, right = to_nltk(f).split(" = ")
                return ("Eq", left, right)
        return to_nltk(f)

    assert tree(sem.Expression.fromstring(to_nltk(formula))) == ours(formula)


def test_one_formula_in_three_dialects():
    formula = ForAll(X, Implies(And((atom("Cold", X), Not(atom("Kind", X)))), Exists(Y, atom("Likes", X, Y))))
    assert to_nltk(formula) == "all x.((Cold(x) & -Kind(x)) -> exists y.Likes(x,y))"
    assert to_unicode(formula) == "∀x ((Cold(x) ∧ ¬Kind(x)) → ∃y Likes(x, y))"
    assert to_tptp(formula) == "! [X] : (('Cold'(X) & ~ 'Kind'(X)) => ? [Y] : 'Likes'(X,Y))"
    assert str(formula) == to_unicode(formula)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Exists x. (P(x) & -Q(x))", Exists(X, And((atom("P", X), Not(atom("Q", X)))))),
        ("FORALL x (P(x) => Q(x))", ForAll(X, Implies(atom("P", X), atom("Q", X)))),
        ("for all x, P(x) -> Q(x, New York)", None),
        ("∀x: (P(x) ∧ Q(x))", ForAll(X, And((atom("P", X), atom("Q", X))))),
        ("∀x∃y R(x,y)", ForAll(X, Exists(Y, atom("R", X, Y)))),
        ("∀x, y (R(x, y))", ForAll(X, ForAll(Y, atom("R", X, Y)))),
        ("all x y.R(x,y)", ForAll(X, ForAll(Y, atom("R", X, Y)))),
        ("∀X (P(X) → Q(X))", ForAll(X, Implies(atom("P", X), atom("Q", X)))),
        ("P(a) ⊕ Q(b) → R(c)", Implies(exclusive_or(atom("P", "a"), atom("Q", "b")), atom("R", "c"))),
        ("P(a) XOR Q(b)", exclusive_or(atom("P", "a"), atom("Q", "b"))),
        ("((A ⊕ B) ⊕ (C ∧ D))", exclusive_or(exclusive_or(atom("A"), atom("B")), And((atom("C"), atom("D"))))),
        ("not P(a) and Q(b) or R(c)", Or((And((Not(atom("P", "a")), atom("Q", "b"))), atom("R", "c")))),
        ("~P(a) && !Q(b) || ¬R(c)", Or((And((Not(atom("P", "a")), Not(atom("Q", "b")))), Not(atom("R", "c"))))),
        ("Well-known(Bob Dylan)", atom("Well_known", "Bob_Dylan")),
        ('From(K-12, St. Louis, Bob\'s, 3.5, "J.K. Rowling")', None),
        ("-P(a)->-Q(b).", Implies(Not(atom("P", "a")), Not(atom("Q", "b")))),
        ("∀x [P(x) <=> Q(x)];", ForAll(X, Iff(atom("P", X), atom("Q", X)))),
        ("a != b", Not(Equal(Constant("a"), Constant("b")))),
        ("all x.P(x) -> Q(a)", Implies(ForAll(X, atom("P", X)), atom("Q", "a"))),
        ("All(x)", atom("All", X)),
        ("fof(one, axiom, ! [X,Y] : ('P'(X) <~> q(Y, 'New York'))).", None),
    ],
)
def test_what_models_write_is_read(text, expected):
    found = parse(text)
    if expected is not None:
        assert found == expected
    assert parse(to_unicode(found)) == found


def test_names_with_signs_become_words():
    names = [term.name for term in parse('From(K-12, St. Louis, Bob\'s, 3.5, "J.K. Rowling")').arguments]
    assert names == ["K_12", "St_Louis", "Bobs", "3_5", "J_K_Rowling"]


def test_a_capital_variable_does_not_capture_a_small_one():
    found = parse("∀X R(X, x)")
    assert isinstance(found, ForAll)
    assert found.variable != X
    assert found.body == atom("R", found.variable, X)


def test_chained_implications_are_read_as_each_notation_does_and_refused_where_unclear():
    a, b, c = atom("A"), atom("B"), atom("C")
    assert parse("A -> B -> C", "nltk") == Implies(Implies(a, b), c)
    assert parse("A → B → C", "unicode") == Implies(a, Implies(b, c))
    with pytest.raises(ValueError, match="no formula"):
        parse("A -> B -> C")


@pytest.mark.parametrize(
    "text",
    ["(P(a)", "P(a))", "P(a", "P(a,)", "P()", "∀x", "P(a) & ", "& P(a)", "P(a) Q(b)", "-> P(a)", "∀x P(x) =", "P(a) @"],
)
@pytest.mark.parametrize("dialect", ["auto", "nltk", "unicode", "tptp"])
def test_what_is_no_formula_is_refused_with_its_place(text, dialect):
    with pytest.raises(ValueError, match="⟨here⟩"):
        parse(text, dialect)


def test_other_bad_input_is_refused_by_name():
    with pytest.raises(ValueError, match="text: it is empty"):
        parse(" \n")
    with pytest.raises(TypeError, match="text: a int"):
        parse(3)
    with pytest.raises(ValueError, match="dialect: 'latex'"):
        parse("P(a)", "latex")
    with pytest.raises(ValueError, match="deep inside"):
        parse("-" * 400 + "P(a)")
    with pytest.raises(ValueError, match="kept for variables"):
        parse("x(a)")


def test_long_conjunctions_are_flat():
    assert len(parse(" & ".join(f"P(a{n})" for n in range(3000))).parts) == 3000


def test_what_would_be_misread_is_not_printed():
    person = Variable("person")
    for printer in (to_nltk, to_unicode):
        with pytest.raises(ValueError, match="free variable person"):
            printer(atom("P", person))
        with pytest.raises(ValueError, match="constant person"):
            printer(ForAll(person, atom("P", "person")))
        assert parse(printer(ForAll(person, atom("P", person)))) == ForAll(person, atom("P", person))
    assert parse(to_tptp(atom("P", person)), "tptp") == atom("P", person)


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="PQxya()∀∃.,&|->¬⊕ =[]'\"", max_size=25))
def test_any_text_is_a_formula_or_a_value_error(text):
    for dialect in ("auto", "nltk", "unicode", "tptp"):
        try:
            formula = parse(text, dialect)
        except ValueError:
            continue
        assert parse(to_tptp(formula), "tptp") == formula
