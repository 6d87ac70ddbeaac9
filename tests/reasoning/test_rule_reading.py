"""Readers of rule worlds: what they see, that they can learn, and that a user's own loop will do."""

import pytest
import torch

from etude.data import LogicProblem, RuleWorld
from etude.data.rule_worlds import LABELS
from etude.nn import pointer_loss
from etude.reasoning import ProblemReader, SentenceParser, encode_problems, fit_parser, fit_reader
from etude.reasoning.logic import parse, to_nltk
from etude.reasoning.rule_reading import CLOSED, SIGNS, _formula, _renumbered, tokens


def test_open_words_lose_their_s_and_closed_ones_do_not():
    assert tokens("The cat chases things.") == ["the", "cat", "chase", "<s>", "things", "."]
    assert tokens("all x.(Red(x) -> -Chase(x,Dog))")[:8] == ["all", "x", ".", "(", "red", "(", "x", ")"]


@pytest.mark.parametrize("vocabulary", ["train", "test"])
def test_targets_spell_the_formulas(vocabulary):
    parser = SentenceParser(width=16, layers=1)
    for problem, formulas in RuleWorld(vocabulary=vocabulary, seed=2).sample(36):
        sentences = [*problem.premises, problem.conclusion]
        targets = parser.targets(sentences, formulas)
        for sentence, formula, row in zip(sentences, formulas, targets.tolist()):
            assert _formula(tokens(sentence), row) == formula
            assert row[-1] == 0  # the end always fits
    assert (parser.encode(["Anne is red."]) == parser.encode(["Paul is wild."])).all()


def test_a_parser_learns_a_few_sentences_and_copies_new_words():
    parser = SentenceParser(width=32, layers=1, generator=torch.Generator().manual_seed(0))
    train = {
        "Anne is red.": "Red(Anne)",
        "Bob is not red.": "-Red(Bob)",
        "All red things are kind.": "all x.(Red(x) -> Kind(x))",
    }
    run = fit_parser(
        parser,
        list(train),
        [parse(text) for text in train.values()],
        steps=120,
        batch=16,
        learning_rate=1e-2,
        generator=torch.Generator().manual_seed(0),
    )
    assert run.losses.shape == (120,)
    found = parser.parse(["Zoe is not wild.", "All tame things are sly.", "Otto is bold."])
    assert [to_nltk(f) for f in found] == ["-Wild(Zoe)", "all x.(Tame(x) -> Sly(x))", "Bold(Otto)"]


def test_what_is_no_formula_is_none():
    assert _formula(["anne"], [SIGNS.index("("), 0]) is None
    assert _formula(["anne"], [len(SIGNS) + 5, 0]) is None


def test_a_reader_sees_which_words_are_the_same_and_not_what_they_are():
    one = LogicProblem(("Anne is red.", "If something is red then it is kind."), "Anne is kind.", "True")
    other = LogicProblem(("Paul is wild.", "If something is wild then it is tame."), "Paul is tame.", "True")
    third = LogicProblem(("Paul is wild.", "If something is tame then it is wild."), "Paul is tame.", "Uncertain")
    read = [encode_problems([problem]) for problem in (one, other, third)]
    assert torch.equal(read[0].premises, read[1].premises)
    assert torch.equal(read[0].questions, read[1].questions)
    assert not torch.equal(read[0].premises, read[2].premises)
    drawn = _renumbered(read[0].premises, read[0].questions, torch.Generator().manual_seed(0))
    pairs = set()
    for before, after in zip((read[0].premises, read[0].questions), drawn):
        assert torch.equal(before < len(CLOSED), after < len(CLOSED))
        pairs |= set(zip(before.flatten().tolist(), after.flatten().tolist()))
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


def test_questions_about_one_world_are_read_together():
    sample = RuleWorld(seed=4).sample(4, (0, 1, 2), questions=5)
    problems = [problem for problem, _ in sample]
    read = encode_problems(problems)
    assert (read.premises.shape[:2], read.questions.shape[:2]) == ((4, 14), (4, 5))
    assert [LABELS[label] for label in read.labels.flatten().tolist()] == [problem.label for problem in problems]


def test_a_reader_does_not_care_for_the_order_of_premises_nor_see_later_questions():
    read = encode_problems([problem for problem, _ in RuleWorld(seed=4).sample(4, questions=3)])
    model = ProblemReader(width=32, layers=2, generator=torch.Generator().manual_seed(0)).eval()
    logits = model(read.premises, read.questions)
    order = torch.randperm(read.premises.shape[1])
    assert torch.allclose(logits, model(read.premises[:, order], read.questions), atol=1e-5)
    assert torch.allclose(logits[:, :1], model(read.premises, read.questions[:, :1]), atol=1e-5)


def test_a_reader_learns_a_few_problems():
    sample = RuleWorld(seed=4, max_depth=2).sample(12)
    for formulas in (None, [[to_nltk(f) for f in fs] for _, fs in sample]):
        problems = encode_problems([problem for problem, _ in sample], formulas)
        model = ProblemReader(width=32, layers=1, generator=torch.Generator().manual_seed(0))
        run = fit_reader(
            model, problems, steps=40, batch=12, learning_rate=3e-3, generator=torch.Generator().manual_seed(0)
        )
        assert run.losses[-5:].mean() < run.losses[:5].mean()
        assert set(model.answers(problems, generator=torch.Generator().manual_seed(1))) <= {
            "True",
            "False",
            "Uncertain",
        }


def test_networks_train_in_a_plain_loop_of_ones_own():
    sample = RuleWorld(seed=4).sample(6)
    sentences, formulas = [p.conclusion for p, _ in sample], [fs[-1] for _, fs in sample]
    parser = SentenceParser(width=16, layers=1)
    source, target = parser.encode(sentences), parser.targets(sentences, formulas)
    optimizer = torch.optim.SGD(parser.parameters(), lr=0.1)
    before = pointer_loss(parser.network(source, target), target)
    for _ in range(5):
        optimizer.zero_grad()
        pointer_loss(parser.network(source, target), target).backward()
        optimizer.step()
    assert pointer_loss(parser.network(source, target), target) < before


def test_too_long_input_is_refused():
    with pytest.raises(ValueError, match="at most 24 are accepted"):
        SentenceParser(width=16, layers=1).encode(["red " * 30])
    with pytest.raises(ValueError, match="open words"):
        encode_problems([LogicProblem((" ".join(f"w{n}" for n in range(40)),), "Anne is red.", "True")])
