"""Parse, prove, vote: with scripted replies, so that every step is known; and what is refused."""

import functools

import pytest

from etude.data import LogicProblem
from etude.reasoning import (
    ChainOfThought,
    LabelOnly,
    Linc,
    Scratchpad,
    Shot,
    label_of,
    translation,
    translation_grammar,
    vote,
    worked_examples,
)
from etude.reasoning.logic import entails, parse, signature
from language.scripted import ScriptedModel

PROBLEM = LogicProblem(("All cats are animals.", "Tom is a cat."), "Tom is an animal.", "True")


def fol(*formulas):
    return "".join(f"TEXT:\tsomething\nFOL:\t{formula}\n" for formula in formulas)


TRUE = fol("all x.(Cat(x) -> Animal(x))", "Cat(Tom)", "Animal(Tom)")
FALSE = fol("all x.(Cat(x) -> -Animal(x))", "Cat(Tom)", "Animal(Tom)")
UNCERTAIN = fol("all x.(Cat(x) -> Animal(x))", "Dog(Tom)", "Animal(Tom)")
CLASH = fol("all x.(Cat(x) -> Animal(x, Zoo))", "Cat(Tom)", "Animal(Tom)")
INCONSISTENT = fol("Cat(Tom)", "-Cat(Tom)", "Animal(Tom)")
UNREADABLE = fol("all x.(Cat(x) -> ", "Cat(Tom)", "Animal(Tom)")


def asked(mode, *replies, **options):
    model = ScriptedModel(lambda _, k: replies[k])
    return mode(model, worked_examples(2), k=len(replies), **options).answer(PROBLEM), model


def test_samples_are_proved_and_vote():
    answer, _ = asked(Linc, UNCERTAIN, TRUE, FALSE, TRUE)
    assert answer.votes == ("Uncertain", "True", "False", "True")
    assert answer.label == "True"
    assert not answer.tie
    assert answer.errors == ("", "", "", "")
    assert answer.parses[1] == tuple(map(parse, ["all x.(Cat(x) -> Animal(x))", "Cat(Tom)", "Animal(Tom)"]))
    assert answer.proofs[1].premises_used == (0, 1)
    assert answer.proofs[0].countermodel is not None


def test_errors_abstain_and_say_why():
    answer, _ = asked(Linc, CLASH, UNREADABLE, INCONSISTENT, "I cannot do that.", FALSE)
    assert answer.votes == ("Error",) * 4 + ("False",)
    assert answer.label == "False"
    clash, unreadable, inconsistent, nothing, fine = answer.errors
    assert "Animal is used as a predicate of 1 argument, but as a predicate of 2" in clash
    assert "formula 0: text: no formula" in unreadable
    assert "premises (0, 1) contradict" in inconsistent
    assert "0 lines with FOL:" in nothing
    assert fine == ""
    assert answer.parses[0] is not None
    assert answer.parses[1] is None


def test_inconsistent_premises_are_true_if_consistency_is_not_checked():
    answer, _ = asked(Linc, INCONSISTENT, check_consistency=False)
    assert answer.votes == ("True",)


def test_no_sample_no_label():
    answer, _ = asked(Linc, CLASH, "nothing")
    assert answer.label is None
    assert not answer.tie


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        (["False", "True", "True", "False"], ("False", True)),
        (["Error", "True", "False", "False", "True"], ("True", True)),
        (["Uncertain"], ("Uncertain", False)),
        (["Error", "Error"], (None, False)),
        (["True", "False", "False"], ("False", False)),
    ],
)
def test_ties_go_to_the_first_and_are_reported(votes, expected):
    assert vote(votes) == expected


def test_the_siblings_read_a_label():
    assert asked(LabelOnly, "True", " Uncertain\n", "Perhaps")[0].votes == ("True", "Uncertain", "Error")
    assert asked(ChainOfThought, "Cats are animals.\nANSWER:\tTrue\n</EVALUATE>\nFalse")[0].votes == ("True",)
    assert asked(ChainOfThought, "True")[0].votes == ("Error",)
    answer, _ = asked(Scratchpad, f"{TRUE}ANSWER:\tFalse", f"{CLASH}ANSWER:\tTrue", f"{UNREADABLE}ANSWER:\tTrue")
    assert answer.votes == ("False", "True", "True")  # the label counts, whatever the formulas say
    assert answer.parses[0] is not None
    assert answer.parses[2] is None


@pytest.mark.parametrize("mode", [Linc, Scratchpad, ChainOfThought, LabelOnly])
def test_one_frame_for_all(mode):
    reply = {Linc: TRUE, Scratchpad: f"{TRUE}ANSWER:\tTrue", ChainOfThought: "So.\nANSWER:\tTrue", LabelOnly: "True"}[
        mode
    ]
    answer, model = asked(mode, reply, reply, temperature=0.5, top_p=0.9, max_tokens=77, seed=5)
    assert answer.label == "True"
    (prompt,), (sampling,) = model.prompts, model.samplings
    assert prompt.endswith("<CONCLUSION>\nTom is an animal.\n</CONCLUSION>\n<EVALUATE>\n")
    assert prompt.count("<PREMISES>") == 3
    assert prompt.count("</EVALUATE>") == 2
    assert ("FOL:" in prompt) == (mode in (Linc, Scratchpad))
    assert ("Northpoint is a lighthouse, so" in prompt) == (mode is ChainOfThought)
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.seed) == (0.5, 0.9, 77, 5)
    assert sampling.stop == ("</EVALUATE>",)


def test_several_problems_are_asked_in_one_call():
    model = ScriptedModel(lambda *_: TRUE)
    answers = Linc(model, k=3).answers([PROBLEM, PROBLEM])
    assert [answer.label for answer in answers] == ["True", "True"]
    assert len(model.samplings) == 1


def test_a_grammar_goes_with_every_problem():
    model = ScriptedModel(lambda *_: TRUE)
    Linc(model, k=1, grammar="nltk").answers([PROBLEM, PROBLEM])
    assert [s.grammar for s in model.samplings] == [translation_grammar((*PROBLEM.premises, PROBLEM.conclusion))] * 2
    assert 'FOL:\\t" formula' in model.samplings[0].grammar
    Linc(model, k=1, grammar='root ::= "x"').answer(PROBLEM)
    assert model.samplings[-1].grammar == 'root ::= "x"'


def derived(grammar, generator, rule="formula"):
    """A text that a GBNF grammar derives, drawn at random (of the part of GBNF that ours uses)."""
    import re

    rules = dict(line.split(" ::= ", 1) for line in grammar.splitlines())

    def alternatives(text):
        parts, depth, current = [], 0, []
        for token in re.findall(r'"(?:\\.|[^"\\])*"|\[[^\]]*\]|\{[^}]*\}|[()|?]|\w+', text):
            depth += (token == "(") - (token == ")")
            if token == "|" and depth == 0:
                parts.append(current)
                current = []
            else:
                current.append(token)
        return [*parts, current]

    def write(text):
        options = alternatives(text)
        tokens, out, place = options[generator.integers(len(options))], "", 0
        while place < len(tokens):
            token = tokens[place]
            if token == "(":
                depth, end = 1, place + 1
                while depth:
                    depth += (tokens[end] == "(") - (tokens[end] == ")")
                    end += 1
                piece, place = functools.partial(write, " ".join(tokens[place + 1 : end - 1])), end
            elif token.startswith('"'):
                piece, place = (lambda token=token: token[1:-1]), place + 1
            elif token.startswith("["):
                piece, place = (
                    (lambda token=token: chr(generator.integers(ord(token[1]), ord(token[3]) + 1))),
                    place + 1,
                )
            else:
                piece, place = (lambda token=token: write(rules[token])), place + 1
            suffix = tokens[place] if place < len(tokens) else ""
            times = 1
            if suffix == "?":
                times, place = int(generator.integers(2)), place + 1
            elif suffix.startswith("{"):
                low, high = map(int, suffix[1:-1].split(","))
                times, place = int(generator.integers(low, high + 1)), place + 1
            out += "".join(piece() for _ in range(times))
        return out

    return write(rules[rule])


def test_whatever_the_grammar_derives_is_a_closed_formula_without_clashes():
    import numpy as np

    generator, grammar = np.random.default_rng(0), translation_grammar()
    texts = {derived(grammar, generator) for _ in range(300)}
    assert len(texts) > 290
    for text in texts:
        signature([parse(text)])
        assert parse(text, "nltk") == parse(text)
    assert any("exists" in text for text in texts)


def test_the_grammar_compiles_and_holds_the_small_model():
    from etude.errors import Unavailable
    from etude.language import language_model

    try:
        model = language_model("local")
        ((one, two),) = model.generate(
            ["Tom is a cat."], n=2, max_tokens=200, temperature=1.5, seed=1, grammar=translation_grammar()
        )
    except Unavailable as error:
        pytest.skip(str(error))
    for completion in (one, two):
        assert completion.finish == "stop"
        signature([parse(completion.text)])


def test_the_worked_examples_are_right():
    shots = worked_examples()
    assert len(shots) == 8
    assert {shot.problem.label for shot in shots} == {"True", "False", "Uncertain"}
    for shot in shots:
        proof = entails(shot.formulas[:-1], shot.formulas[-1])
        assert label_of(proof) == shot.problem.label
        assert shot.rationale
    assert worked_examples(0) == ()
    with pytest.raises(ValueError, match="n: 9"):
        worked_examples(9)


def test_a_translation_binds_free_variables_as_prover9_does():
    assert translation(fol("Cat(x) -> Animal(x)", "Cat(Tom)"))[0] == parse("all x.(Cat(x) -> Animal(x))")
    with pytest.raises(ValueError, match="formula 1: text"):
        translation(fol("Cat(Tom)", "Cat(Tom"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, ValueError, "k: 0"),
        ({"k": True}, ValueError, "k: True"),
        ({"temperature": -0.1}, ValueError, "temperature: -0.1"),
        ({"top_p": 0.0}, ValueError, "top_p: 0.0"),
        ({"max_tokens": 0}, ValueError, "max_tokens: 0"),
        ({"engine": "vampire"}, ValueError, "engine: 'vampire'"),
        ({"timeout": 0}, ValueError, "timeout: 0"),
        ({"shots": [PROBLEM]}, TypeError, r"shots\[0\]: a LogicProblem"),
        ({"model": "gpt-4"}, TypeError, "model: a str"),
    ],
)
def test_bad_input_is_refused_by_name(options, error, message):
    with pytest.raises(error, match=message):
        Linc(**{"model": ScriptedModel(lambda *_: ""), **options})


def test_bad_shots_are_refused():
    with pytest.raises(ValueError, match="problem: it has no label"):
        Shot(LogicProblem(("A.",), "B."), ("A", "B"), "")
    with pytest.raises(ValueError, match="formulas: 1 were given for 1 premises"):
        Shot(LogicProblem(("A.",), "B.", "True"), ("A",), "")
