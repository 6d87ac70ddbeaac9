"""Small convolutional networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from etude.nn.initialization import glorot_initialise_

__all__ = ["conv_n", "convolutional"]


def convolutional(
    channels: int,
    size: int,
    blocks: Sequence[Sequence[int]],
    hidden: Sequence[int] = (),
    outputs: int = 10,
    *,
    average: bool = False,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """A VGG-like network: blocks of 3x3 convolutions, each followed by 2x2 max-pooling, then linear layers.

    Args:
        channels: of an image.
        size: pixels on a side; it must not be halved below 1 by the pooling.
        blocks: output channels of each convolution, block by block.
        hidden: units of the hidden linear layers.
        outputs: classes.
        average: average each feature over the image before the linear layers.
        generator: where the initial weights are drawn from (Gaussian Glorot, biases zero); by default torch's own.

    Returns:
        A network (n, channels, size, size) -> logits (n, outputs), with layers ``conv1``, ``conv2``, ...,
        ``fc1``, ..., ``output``.

    Raises:
        ValueError: the image is too small for so many blocks.
    """
    side = size // 2 ** len(blocks)
    if channels < 1 or side < 1:
        raise ValueError(
            f"size={size}, channels={channels}: give at least {2 ** len(blocks)} pixels a side and 1 channel"
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    count = 0
    for number, block in enumerate(blocks, 1):
        for width in block:
            count += 1
            layers[f"conv{count}"] = nn.utils.skip_init(nn.Conv2d, channels, width, 3, padding=1)
            layers[f"conv_relu{count}"] = nn.ReLU()
            channels = width
        layers[f"pool{number}"] = nn.MaxPool2d(2)
    if average:
        layers["average"], side = nn.AdaptiveAvgPool2d(1), 1
    layers["flatten"] = nn.Flatten()
    features = channels * side * side
    for number, width in enumerate(hidden, 1):
        layers[f"fc{number}"] = nn.utils.skip_init(nn.Linear, features, width)
        layers[f"fc_relu{number}"] = nn.ReLU()
        features = width
    layers["output"] = nn.utils.skip_init(nn.Linear, features, outputs)
    return glorot_initialise_(nn.Sequential(layers), generator)


def conv_n(
    depth: int, channels: int = 3, size: int = 32, outputs: int = 10, *, generator: torch.Generator | None = None
) -> nn.Sequential:
    """Conv-2, Conv-4 or Conv-6: pairs of 64, 128 and 256 channels, then linear layers of 256, 256 and `outputs` units.

    Args:
        depth: convolutions: 2, 4 or 6.
        channels: of an image.
        size: pixels on a side.
        outputs: classes.
        generator: where the initial weights are drawn from; by default torch's own.

    Raises:
        ValueError: another depth, or an image too small for it.

    Source: Frankle and Carbin, ICLR 2019 (arXiv 1803.03635), figure 2.
    """
    if depth not in (2, 4, 6):
        raise ValueError(f"depth={depth!r}: give 2, 4 or 6")
    blocks = [(64, 64), (128, 128), (256, 256)][: depth // 2]
    return convolutional(channels, size, blocks, (256, 256), outputs, generator=generator)
