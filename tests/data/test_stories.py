"""Generated stories: a reader who keeps track sentence by sentence comes to the same answers."""

import pytest
import torch

from etude.data.stories import two_supporting_facts


def read(line):
    """Where the thing asked for is, by keeping track of everything; None where the story is impossible."""
    *sentences, question = line.split(". ")
    room, carrier, lies = {}, {}, {}
    for sentence in sentences:
        who, verb, what = sentence.split()
        if verb == "went":
            if room.get(who) == what:
                return None
            room[who] = what
        elif verb == "took":
            if who not in room or what in carrier or lies.get(what, room[who]) != room[who]:
                return None
            carrier[what] = who
        elif verb == "left":
            if carrier.pop(what, None) != who:
                return None
            lies[what] = room[who]
    asked = question.split()[1].rstrip("?")
    found = room[carrier[asked]] if asked in carrier else lies[asked]
    return asked, found, question.split()[-1]


@pytest.mark.parametrize("sentences", [2, 12, 30])
def test_answers_are_those_of_a_reader(sentences):
    stories = two_supporting_facts(300, torch.Generator().manual_seed(sentences), sentences=sentences)
    assert len(stories) == 300
    assert stories.sentences.shape == (300, sentences, 3)
    for number in range(300):
        _, found, answer = read(stories.text(number))
        assert found == answer


def test_everything_happens_and_nothing_gives_the_answer_away():
    stories = two_supporting_facts(4000, torch.Generator().manual_seed(0))
    _, shares = torch.unique(stories.answer, return_counts=True)
    assert len(shares) == 6
    assert (shares / 4000 - 1 / 6).abs().max() < 0.04
    assert torch.unique(stories.question[:, 1]).numel() == 3
    verbs = torch.bincount(stories.sentences[:, :, 1].flatten())
    assert (verbs[verbs > 0] > 1000).all()
    assert torch.unique(stories.sentences[:, :, 0]).numel() == 4
    # the room that was last spoken of is the answer in some stories only
    is_room = stories.sentences[:, :, 2] < len(stories.vocabulary) - 3
    last = (is_room * torch.arange(12)).argmax(1)
    guess = stories.sentences[torch.arange(4000), last, 2]
    assert (guess == stories.answer).float().mean() < 0.6


def test_the_same_generator_gives_the_same_stories():
    one, two = (two_supporting_facts(50, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.sentences, two.sentences)
    assert torch.equal(one.answer, two.answer)


@pytest.mark.parametrize("arguments", [{"n": 0}, {"n": 5, "sentences": 1}])
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=r"n=.*sentences="):
        two_supporting_facts(generator=torch.Generator(), **arguments)
