"""Sizes of the networks as published, their initialisation, and what they refuse."""

import math

import pytest
import torch
from torch import nn

from etude.nn import conv_n, convolutional, glorot_initialise_, lenet_300_100


def weights(model, kind=(nn.Linear, nn.Conv2d)):
    return sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, kind))


@pytest.mark.parametrize(
    ("model", "millions", "thousands_in_convolutions"),
    [(lenet_300_100(), 0.266, 0), (conv_n(2), 4.3, 38), (conv_n(4), 2.4, 260), (conv_n(6), 2.26, 1_100)],
    ids=["lenet-300-100", "conv-2", "conv-4", "conv-6"],
)
def test_sizes_are_the_papers(model, millions, thousands_in_convolutions):
    """Frankle and Carbin, figure 2, except that the layers listed there for Conv-6 exceed its 1.7 million."""
    assert weights(model) / 1e6 == pytest.approx(millions, abs=0.05 if millions > 1 else 0.0005)
    assert weights(model, nn.Conv2d) / 1e3 == pytest.approx(thousands_in_convolutions, rel=0.05)


def test_lenet_flattens_images_and_gives_logits():
    assert sum(p.numel() for name, p in lenet_300_100().named_parameters() if "weight" in name) == 266_200
    assert lenet_300_100(64, 7)(torch.zeros(3, 1, 8, 8)).shape == (3, 7)


def test_convolutional_shapes():
    model = convolutional(1, 14, [(8, 16), (64, 64)], outputs=5, average=True)
    assert model(torch.zeros(2, 1, 14, 14)).shape == (2, 5)
    assert [tuple(p.shape) for p in model.parameters() if p.ndim == 4] == [
        (8, 1, 3, 3),
        (16, 8, 3, 3),
        (64, 16, 3, 3),
        (64, 64, 3, 3),
    ]
    assert model.output.in_features == 64


def test_glorot_initialisation_from_a_generator_only():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, two = (lenet_300_100(generator=torch.Generator().manual_seed(5)) for _ in range(2))
    conv_n(2, generator=torch.Generator().manual_seed(5))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    for layer in one:
        if isinstance(layer, nn.Linear):
            count, variance = layer.weight.numel(), 2 / (layer.in_features + layer.out_features)
            assert abs(layer.weight.var() - variance) < 5 * variance * math.sqrt(2 / count)
            assert abs(layer.weight.mean()) < 5 * math.sqrt(variance / count)
            assert layer.bias.eq(0).all()
    kernel = glorot_initialise_(nn.Conv2d(16, 32, 3), torch.Generator().manual_seed(1)).weight
    assert abs(kernel.var() * (16 + 32) * 9 / 2 - 1) < 5 * math.sqrt(2 / kernel.numel())


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: lenet_300_100(0), "inputs=0"),
        (lambda: conv_n(3), "depth=3"),
        (lambda: conv_n(6, size=4), "size=4.*at least 8"),
        (lambda: convolutional(0, 8, [(4,)]), "channels=0"),
    ],
)
def test_refuses(make, text):
    with pytest.raises(ValueError, match=text):
        make()
