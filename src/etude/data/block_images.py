"""Inputs of which it is known what tells their label: blocks, one with the signal and others without.

Source: Shah, Jain and Netrapalli, NeurIPS 2021 (arXiv 2102.12781), section 4 (BlockMNIST) and section 5 (the theorem).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

__all__ = ["Blocks", "block_images", "signal_blocks", "square_patch"]


@dataclass(frozen=True, eq=False)
class Blocks:
    """Inputs made of blocks.

    Attributes:
        x: the inputs.
        y: their labels, as they were given or drawn.
        relevant: true in the block that tells the label, in the shape of the inputs.
    """

    x: Float[Tensor, "n ..."]
    y: Int[Tensor, " n"]
    relevant: Bool[Tensor, "n ..."]


def block_images(
    signal_images: Float[Tensor, "n channels height width"],
    labels: Int[Tensor, " n"],
    null: Literal["square"] | Float[Tensor, "channels height width"] = "square",
    placement: Literal["random", "top"] = "random",
    axis: Literal[0, 1] = 0,
    *,
    generator: torch.Generator | None = None,
) -> Blocks:
    """Images of two blocks: a picture with a label, and a patch that is the same for all.

    ::

        zero_or_one = part.y < 2
        blocks = block_images(part.x[zero_or_one], part.y[zero_or_one], generator=generator)

    Args:
        signal_images: the pictures.
        labels: their classes; handed through.
        null: the patch: ``"square"`` for `square_patch` with the pictures' mean intensity, or one of your own. (To one
            that is all zeros the first layer's weights would matter for the gradient but never for the output.)
        placement: ``"random"`` puts the picture first or second with equal probability, ``"top"`` always first.
        axis: 0 stacks the blocks from top to bottom, 1 puts them side by side.
        generator: draws the placement; torch's own by default. A draw is made for every picture whatever the placement.

    Returns:
        The images, of twice the height (or width), their labels, and where the pictures are.

    Raises:
        ValueError: another `placement` or `axis`, as many labels as pictures are not given, or a patch of another
            shape or not finite.

    Source: section 4.1. There the picture is a digit 0 or 1 of MNIST and placed at random; in BlockMNIST-Top on top.
    """
    import torch

    if signal_images.ndim != 4 or len(signal_images) != len(labels) or not len(labels):
        raise ValueError(
            f"signal_images: shape {tuple(signal_images.shape)} with {len(labels)} labels; "
            "(n, channels, height, width) with n labels are accepted, n at least 1"
        )
    if placement not in ("random", "top"):
        raise ValueError(f"placement={placement!r}: give 'random' or 'top'")
    if axis not in (0, 1):
        raise ValueError(f"axis={axis!r}: give 0 (one above the other) or 1 (side by side)")
    if isinstance(null, str):
        if null != "square":
            raise ValueError(f"null={null!r}: give 'square' or a tensor")
        null = square_patch(signal_images)
    if null.shape != signal_images.shape[1:] or not torch.isfinite(null).all():
        raise ValueError(
            f"null: give finite numbers of shape {tuple(signal_images.shape[1:])}, not {tuple(null.shape)}"
        )
    device = signal_images.device
    draws = torch.rand(len(labels), generator=generator, device=generator.device if generator else device).to(device)
    first = (draws < 0.5 if placement == "random" else torch.ones_like(draws, dtype=torch.bool)).view(-1, 1, 1, 1)
    patch = null.to(signal_images).expand_as(signal_images)
    here, dimension = first.expand_as(signal_images), 2 + axis
    return Blocks(
        x=torch.cat([torch.where(first, signal_images, patch), torch.where(first, patch, signal_images)], dimension),
        y=labels,
        relevant=torch.cat([here, ~here], dimension),
    )


def square_patch(images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "channels height width"]:
    """A square in the middle, as a chequerboard of a full and a half tone, as bright on average as the images.

    Args:
        images: whose mean intensity, channel by channel, and size it takes; the square leaves an edge of a fourteenth.

    Returns:
        The patch.

    Raises:
        ValueError: images of fewer than 3 pixels a side.
    """
    import torch

    height, width = images.shape[2:]
    if min(height, width) < 3:
        raise ValueError(f"images: {height}x{width} pixels; at least 3x3 are accepted")
    rows, columns = (torch.arange(size, device=images.device) for size in (height, width))
    tones = torch.where((rows[:, None] + columns) % 2 == 0, 1.0, 0.5).to(images)
    edge = [max(1, round(size / 14)) for size in (height, width)]
    inside = torch.zeros_like(tones)
    inside[edge[0] : height - edge[0], edge[1] : width - edge[1]] = 1
    square = tones * inside
    return square / square.mean() * images.mean((0, 2, 3))[:, None, None]


def signal_blocks(
    n: int, d: int, block_size: int, noise: float, generator: torch.Generator, *, dtype: torch.dtype | None = None
) -> Blocks:
    """The theorem's task: the label's sign times a fixed vector in one of d/2 blocks, noise in all.

        x = (noise g_1, ..., noise g_j + y u, ..., noise g_d),    y = -1 or +1,    j uniform over 1 .. d/2

    with u the unit vector of equal entries and each g uniform in the unit ball. The others never tell anything.

    Args:
        n: inputs, at least 1.
        d: blocks, an even number.
        block_size: numbers in a block, at least 1.
        noise: radius of the noise's ball, at least 0.
        generator: draws labels, places and noise.
        dtype: of the inputs; torch's default by default.

    Returns:
        Inputs (n, d block_size), labels -1 or +1, and where the signal is.

    Raises:
        ValueError: an argument out of its range.

    Source: section 5, equation 3.
    """
    import torch

    for name, value, least in (("n", n, 1), ("d", d, 2), ("block_size", block_size, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least or (name == "d" and value % 2):
            raise ValueError(f"{name}={value!r}: give a whole number of at least {least}{', even' * (name == 'd')}")
    if not (math.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise={noise!r}: give a number of at least 0")
    dtype, device = dtype or torch.get_default_dtype(), generator.device
    options = {"generator": generator, "device": device}
    y = 2 * torch.randint(2, (n,), **options) - 1
    place = torch.randint(d // 2, (n,), **options)
    normal = torch.randn(n, d, block_size, dtype=dtype, **options)
    length = torch.rand(n, d, 1, dtype=dtype, **options) ** (1 / block_size)
    x = noise * length * normal / normal.norm(dim=2, keepdim=True)
    relevant = torch.zeros(n, d, 1, dtype=torch.bool, device=device)
    relevant[torch.arange(n, device=device), place] = True
    x = x + relevant * (y.to(dtype) / block_size**0.5)[:, None, None]
    return Blocks(x.flatten(1), y, relevant.expand_as(x).flatten(1).clone())
