"""Programs as written for Logic-LM: read as logic, and as a rule engine without negation runs them."""

import pytest

from etude.reasoning import label_of
from etude.reasoning.logic import entails, parse
from etude.reasoning.logic_programs import as_rule_engine, logic_program

RULES = """Predicates:
Furry($x, bool) ::: Is x furry?
Facts:
Furry(Anne, True) ::: Anne is furry.
Likes(Anne, Bob, True)
Rules:
Furry($x, True) && Likes($x, Bob, True) >>> Nice($x, True) ::: Furry things that like Bob are nice.
Nice($x, False) >>> Rough($x, True)
Query:
{}
"""


def test_facts_and_rules_become_formulas():
    program = logic_program(RULES.format("Nice(Anne, False) ::: Anne is not nice."))
    assert program.premises == tuple(
        map(
            parse,
            [
                "Furry(Anne)",
                "Likes(Anne, Bob)",
                "all x.((Furry(x) & Likes(x, Bob)) -> Nice(x))",
                "all x.(-Nice(x) -> Rough(x))",
            ],
        )
    )
    assert program.conclusion == parse("-Nice(Anne)")
    assert label_of(entails(program.premises, program.conclusion)) == "False"


def test_formulas_are_read_and_closed():
    text = (
        "Predicates:\nCat(x) ::: x is a cat\nPremises:\nCat(x) → Animal(x) ::: Cats\nCat(tom)\nConclusion:\nAnimal(tom)"
    )
    program = logic_program(text)
    assert program.premises[0] == parse("∀x (Cat(x) → Animal(x))")
    assert label_of(entails(program.premises, program.conclusion)) == "True"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("Nice(Anne, True)", "True"),
        ("Nice(Anne, False)", "False"),
        ("Rough(Anne, True)", "Uncertain"),
        ("Likes(Anne, Bob, True)", "Uncertain"),  # that program looks one-place queries up, and no others
    ],
)
def test_the_rule_engine_knows_values_and_no_negation(query, expected):
    assert as_rule_engine(RULES.format(query)) == expected


def test_the_rule_engine_takes_what_is_derived_both_ways_for_false():
    text = "Facts:\nA(Tom, True)\nA(Tom, False)\nQuery:\nA(Tom, True)"
    assert as_rule_engine(text) == "False"


@pytest.mark.parametrize(
    "text", ["", "Facts:\nA(Tom, True)", "Premises:\nA(tom)\nConclusion:\n", "Conclusion:\nA(tom)"]
)
def test_incomplete_programs_are_refused(text):
    with pytest.raises(ValueError, match="lacks"):
        logic_program(text)
