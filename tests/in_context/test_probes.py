"""Scores of heads that do one thing exactly, and transitions of curves that can be solved by hand."""

import math

import pytest
import torch

from etude.in_context import chance_corrected, head_score, ngram_followers, previous_position, transition


def test_a_previous_token_head_scores_one_and_an_even_one_what_chance_gives():
    exact = torch.zeros(2, 2, 5, 5)
    exact[:, 0, 0, 0] = 1
    exact[:, 0, range(1, 5), range(4)] = 1
    even = torch.ones(5, 5).tril()
    exact[:, 1] = even / even.sum(-1, keepdim=True)
    scores = head_score(exact, previous_position(5))
    assert scores.tolist() == pytest.approx([1, (1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 4])


def test_only_queries_with_targets_count_and_several_targets_add_up():
    attention = torch.tensor([[[[1.0, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5]]], [[[1.0, 0, 0], [1, 0, 0], [0, 0, 1.0]]]])
    targets = torch.zeros(2, 3, 3, dtype=torch.bool)
    targets[0, 2, :2] = True
    assert head_score(attention, targets).item() == pytest.approx(0.5)
    targets[1, 1, 0] = True
    assert head_score(attention, targets).item() == pytest.approx(0.75)


def test_targets_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        head_score(torch.ones(2, 1, 3, 3), torch.ones(2, 3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="no query has any"):
        head_score(torch.ones(2, 1, 3, 3), torch.zeros(2, 3, 3, dtype=torch.bool))


def test_a_straight_line_crosses_where_it_should():
    steps = torch.arange(0.0, 101, 10)
    found = transition(steps, steps / 100 * 0.9 + 0.1, low=0.1, high=1.0)
    assert (found.onset, found.middle, found.end) == pytest.approx((20, 50, 80))
    assert found.width == pytest.approx(60)


def test_an_excursion_is_no_onset_and_a_jump_is_short():
    values = torch.tensor([0.0, 0.5, 0.1, 0.0, 1.0, 1.0])
    found = transition(torch.arange(6.0), values, low=0, high=1)
    assert (found.onset, found.end) == pytest.approx((3.2, 3.8))


def test_a_curve_that_does_not_rise_has_no_transition():
    found = transition(torch.arange(4.0), torch.tensor([0.1, 0.3, 0.2, 0.7]), low=0, high=1)
    assert all(map(math.isnan, (found.onset, found.middle, found.end, found.width)))


def test_a_curve_that_starts_high_is_there_from_the_start():
    found = transition(torch.tensor([5.0, 6.0]), torch.ones(2), low=0, high=1)
    assert (found.onset, found.end) == (5, 5)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((torch.arange(3.0), torch.ones(3), 1.0, 1.0), "high=1.0"),
        ((torch.arange(3.0), torch.ones(2), 0.0, 1.0), "steps and values"),
        ((torch.zeros(3), torch.ones(3), 0.0, 1.0), "steps and values"),
    ],
)
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        transition(*arguments)


def test_an_ngram_head_scores_one_and_an_even_one_nothing():
    tokens = torch.randint(3, (4, 20), generator=torch.Generator().manual_seed(0))
    for order in (1, 2):
        targets = ngram_followers(tokens, order)
        for i in range(20):
            for j in range(20):
                same = tokens[:, max(i - order + 1, 0) : i + 1].tolist(), tokens[:, max(j - order, 0) : j].tolist()
                expected = [i >= order - 1 and order <= j <= i and a == b for a, b in zip(*same)]
                assert targets[:, i, j].tolist() == expected
        looking = torch.where(targets.any(-1, keepdim=True), targets, torch.ones(20, 20).tril())
        even = torch.ones(20, 20).tril().expand(4, 20, 20)
        attention = torch.stack([looking, even], dim=1)
        attention = attention / attention.sum(-1, keepdim=True)
        scores = head_score(attention, targets)
        assert scores[0].item() == pytest.approx(1)
        assert 0.05 < scores[1] < 0.95
        assert chance_corrected(scores, targets).tolist() == pytest.approx([1, 0], abs=1e-6)


def test_chance_is_of_all_positions():
    with pytest.raises(ValueError, match="as many queries"):
        chance_corrected(torch.ones(1), torch.ones(1, 2, 3, dtype=torch.bool))
