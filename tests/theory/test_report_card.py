import math

import pytest
import torch
from torch import nn

from etude.theory import HermiteActivation, ReLUActivation, optimal_activation, report_card


def test_a_matched_activation():
    card = report_card(optimal_activation(3), n=500, dimension=3)
    assert (card.regime, card.alpha) == ("singular", pytest.approx(3))
    assert "Bayes-consistent" in card.consistency
    assert 5 < card.depth < 100
    assert "alpha" in str(card)


def test_the_dimension_decides_consistency():
    assert "alpha < 4" in report_card(optimal_activation(3), dimension=4).consistency
    assert "alpha > 2" in report_card(optimal_activation(3), dimension=2).consistency


def test_more_points_need_more_layers():
    few, many = (report_card(optimal_activation(2), n=n, dimension=2).depth for n in (100, 10_000))
    assert few < many


@pytest.mark.parametrize(
    ("phi", "regime"),
    [
        (nn.functional.gelu, "majority"),
        (nn.SiLU(), "majority"),
        (torch.tanh, "singular"),
        (nn.SELU(), "singular"),
        (nn.Softplus(), "ordered"),
        (HermiteActivation([0, 0, 1]), "nearest"),
    ],
)
def test_any_activation_has_a_report(phi, regime):
    card = report_card(phi, n=100)
    assert card.regime == regime
    assert card.classifier in str(card)


def test_relu_is_too_slow_and_says_so():
    card = report_card(ReLUActivation(), n=100, max_depth=200)
    assert card.depth is None
    assert "more than 200" in str(card)
    assert "closed form" in str(card)


def test_errors_of_the_expansion_are_told():
    card = report_card(nn.SELU())
    assert 1e-6 < card.dual_error < 1e-3
    assert f"{card.dual_error:.1e}" in str(card)
    assert card.alpha == pytest.approx(0.861, abs=0.002)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 1}, "n, dimension"),
        ({"dimension": 0}, "n, dimension"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": math.nan}, "tolerance"),
        ({"max_depth": 0}, "max_depth"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        report_card(torch.tanh, **arguments)
