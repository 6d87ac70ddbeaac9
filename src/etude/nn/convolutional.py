"""Small convolutional networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from etude.nn.initialization import glorot_initialise_

__all__ = ["Autoencoder", "conv_n", "convolutional", "convolutional_autoencoder"]


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


class Autoencoder(NamedTuple):
    """An encoder with the decoder that mirrors it.

    Attributes:
        encoder: (n, channels, size, size) -> (n, *code_shape).
        decoder: (n, *code_shape) -> (n, channels, size, size).
        code_shape: of one example's code.
    """

    encoder: nn.Sequential
    decoder: nn.Sequential
    code_shape: tuple[int, int, int]


def convolutional_autoencoder(
    channels: int = 1,
    size: int = 28,
    maps: Sequence[int] = (32, 32, 32, 10),
    *,
    deviation: float | None = 0.01,
    generator: torch.Generator | None = None,
) -> Autoencoder:
    """3x3 convolutions of stride 2, a ReLU after each, and the transposed convolutions that undo their sizes.

    A side of s pixels becomes ceil(s / 2), padded as TensorFlow's ``SAME`` does: nothing before and one zero after an
    even side, one on both ends of an odd one. The decoder's layers are the transposes of such convolutions, a ReLU
    between them and a sigmoid at the end. At the defaults sides are 28, 14, 7, 4, 2 and a code has 40 numbers.

    Args:
        channels: of an image.
        size: pixels on a side.
        maps: feature maps of each layer of the encoder.
        deviation: standard deviation of the initial weights, drawn from a normal distribution; None for Gaussian
            Glorot. Biases are zero.
        generator: where the weights are drawn from; by default torch's own.

    Raises:
        ValueError: a number below 1, no `maps`, or a `deviation` that is not positive.

    Source: Li, Liu, Chen and Rudin, AAAI 2018 (arXiv 1710.04806), the authors' program for MNIST.
    """
    for name, value in {"channels": channels, "size": size, **{f"maps[{i}]": m for i, m in enumerate(maps)}}.items():
        if value < 1:
            raise ValueError(f"{name}={value}: give a number of at least 1")
    if not maps:
        raise ValueError("maps: none were given; give the feature maps of at least one layer")
    if deviation is not None and not deviation > 0:
        raise ValueError(f"deviation={deviation!r}: give a positive number, or None for Glorot's")
    widths, sides = [channels, *maps], [size]
    for _ in maps:
        sides.append(-(-sides[-1] // 2))
    down = [_Halving(a, b, side) for a, b, side in zip(widths, widths[1:], sides)]
    up = [_Doubling(b, a, side) for a, b, side in reversed(list(zip(widths, widths[1:], sides)))]
    encoder = nn.Sequential(*(layer for convolution in down for layer in (convolution, nn.ReLU())))
    decoder = nn.Sequential(*(layer for convolution in up for layer in (convolution, nn.ReLU())))
    decoder[-1] = nn.Sigmoid()
    for network in (encoder, decoder):
        glorot_initialise_(network, generator)
        if deviation is not None:
            for layer in network[::2]:
                nn.init.normal_(layer.weight, std=deviation, generator=generator)
    return Autoencoder(encoder, decoder, (maps[-1], sides[-1], sides[-1]))


class _Halving(nn.Conv2d):
    """A 3x3 convolution of stride 2 on images of one size, padded as ``SAME``."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2, padding=size % 2)
        self.even = size % 2 == 0

    def forward(self, x: Float[Tensor, "n inputs size size"]) -> Float[Tensor, "n outputs half half"]:
        """Halve the images."""
        return super().forward(functional.pad(x, (0, 1, 0, 1)) if self.even else x)


class _Doubling(nn.ConvTranspose2d):
    """The transpose of a 3x3 convolution of stride 2 that reads images of the given size."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2, padding=size % 2)
        self.size = size

    def forward(self, x: Float[Tensor, "n inputs half half"]) -> Float[Tensor, "n outputs size size"]:  # type: ignore[override]
        """Double the images; what falls behind an even side is cut off."""
        return super().forward(x)[..., : self.size, : self.size]
