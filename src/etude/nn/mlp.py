"""Fully connected networks."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from etude.nn.initialization import glorot_initialise_

__all__ = ["lenet_300_100"]


def lenet_300_100(inputs: int = 784, outputs: int = 10, *, generator: torch.Generator | None = None) -> nn.Sequential:
    """LeNet-300-100: two hidden layers of 300 and 100 rectified units; 266,200 weights at the default sizes.

    Args:
        inputs: numbers in an image; images of any shape (n, ...) are flattened.
        outputs: classes.
        generator: where the initial weights are drawn from (Gaussian Glorot, biases zero); by default torch's own.

    Returns:
        A network (n, ...) -> logits (n, outputs), with layers ``fc1``, ``fc2`` and ``output``.

    Source: LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998.
    """
    if inputs < 1 or outputs < 1:
        raise ValueError(f"inputs={inputs}, outputs={outputs}: both must be at least 1")
    layers = OrderedDict(
        flatten=nn.Flatten(),
        fc1=nn.utils.skip_init(nn.Linear, inputs, 300),
        relu1=nn.ReLU(),
        fc2=nn.utils.skip_init(nn.Linear, 300, 100),
        relu2=nn.ReLU(),
        output=nn.utils.skip_init(nn.Linear, 100, outputs),
    )
    return glorot_initialise_(nn.Sequential(layers), generator)
