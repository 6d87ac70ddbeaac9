"""Initial weights drawn from a given generator."""

from __future__ import annotations

from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

M = TypeVar("M", bound=nn.Module)

__all__ = ["glorot_initialise_", "glorot_normal_"]


def glorot_normal_(weight: Float[Tensor, "outputs inputs *kernel"], generator: torch.Generator | None = None) -> None:
    """Draw one weight from N(0, 2 / (inputs + outputs)), in place; a kernel counts as many inputs as it has places.

    Args:
        weight: (outputs, inputs, *kernel).
        generator: where the weight is drawn from; by default torch's own.
    """
    nn.init.xavier_normal_(weight, generator=generator)


def glorot_initialise_(module: M, generator: torch.Generator | None = None) -> M:
    """Gaussian Glorot initialisation of all linear and convolution layers, in place: N(0, 2 / (inputs + outputs)).

    Args:
        module: any network; its biases become zero.
        generator: where the weights are drawn from; by default torch's own.

    Returns:
        The module.

    Source: Glorot and Bengio, Understanding the Difficulty of Training Deep Feedforward Neural Networks, 2010.
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, _ConvNd)):
            glorot_normal_(layer.weight, generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module
