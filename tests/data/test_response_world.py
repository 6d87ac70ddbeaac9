"""Responses have the defects they are said to have, and no others."""

import numpy as np
import pytest

from etude.data import ResponseWorld
from etude.data.response_world import _ELSEWHERE, _FILLERS, _SAID, _SLIPS, _VALUES, DEFECTS, WEIGHTS


def draws(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def world():
    return ResponseWorld()


@pytest.fixture(scope="module")
def drawn(world):
    return world.sample(400, draws(), ties=True)


def found_defects(world, question, response):
    """The defects of a response, read off its text by one who knows the world."""
    animal = next(number for number, name in enumerate(world.names) if name in question)
    facts = {kind: _VALUES[kind][world.facts[kind][animal]] for kind in _VALUES}
    sentences = [f"{sentence.strip()} ." for sentence in response.split(" .") if sentence.strip()]
    verbose = any(sentence in _FILLERS for sentence in sentences)
    elsewhere = any(sentence in _ELSEWHERE for sentence in sentences)
    told = [sentence for sentence in sentences if sentence not in (*_FILLERS, *_ELSEWHERE)]
    correct = {
        wording.format(world.names[animal], value): (kind, value)
        for kind, wordings in _SAID.items()
        for wording in wordings
        for value in _VALUES[kind]
    }
    slipped = {" ".join(_SLIPS.get(word, word) for word in text.split()): said for text, said in correct.items()}
    said = [correct.get(sentence) or slipped[sentence] for sentence in told]
    wrong = any(value != facts[kind] for kind, value in said)
    return [wrong, len(told) == 1, elsewhere, any(sentence not in correct for sentence in told), verbose]


def test_defects_are_those_in_the_text(world, drawn):
    for comparison, (of_a, of_b) in zip(drawn.comparisons, drawn.defects):
        assert found_defects(world, comparison.question, comparison.a) == of_a.tolist()
        assert found_defects(world, comparison.question, comparison.b) == of_b.tolist()


def test_the_better_response_has_the_smaller_sum(drawn):
    sums = np.array([[sum(w * x for w, x in zip(WEIGHTS.values(), one)) for one in pair] for pair in drawn.defects])
    expected = np.select([sums[:, 0] < sums[:, 1], sums[:, 0] > sums[:, 1]], [1, 2])
    assert np.array_equal(drawn.labels, expected)
    assert (drawn.labels == 0).any()
    better = np.select([drawn.defects[:, 0] < drawn.defects[:, 1], drawn.defects[:, 0] > drawn.defects[:, 1]], [1, 2])
    assert np.array_equal(drawn.aspects, better)


def test_ties_are_left_out_unless_asked_for(world):
    made = world.sample(300, draws(1))
    assert set(made.labels) == {1, 2}
    assert made.aspects.shape == (300, len(DEFECTS))


def test_the_same_draws_give_the_same_comparisons():
    first, second = (ResponseWorld(seed=3).sample(20, draws(4)) for _ in range(2))
    assert first.comparisons == second.comparisons
    assert first.comparisons != ResponseWorld(seed=5).sample(20, draws(4)).comparisons


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"animals": 1}, "animals"),
        ({"animals": 200}, "animals"),
        ({"chance": 0}, "chance"),
        ({"weights": {"wrong fact": 1.0}}, "weights"),
        ({"weights": {**WEIGHTS, "verbosity": 0}}, "weights"),
    ],
)
def test_bad_worlds_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        ResponseWorld(**given)


def test_no_comparisons_are_refused(world):
    with pytest.raises(ValueError, match="n: 0"):
        world.sample(0, draws())
