"""Elastic deformation of a batch of images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor


def elastic_deform(
    images: Float[Tensor, "n channels height width"],
    sigma: float = 4.0,
    alpha: float = 20.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n channels height width"]:
    """Bend every image of a batch in a way of its own.

    A pixel at u takes the value at u + alpha (G * e)(u), e two fields (down and right) of independent U(-1, 1) and G
    a normalised Gaussian cut off at 4 sigma; outside the image everything, fields and pixels, is zero. Between pixels
    values are interpolated linearly, so that they stay in the range of the image's own and zero.

    A field is smoothed by two small matrix products, and the whole batch is resampled at once. The authors' loop over
    images also sets a pixel to zero that lies outside by less than one pixel; here it fades.

    Args:
        images: floating point, on any device.
        sigma: width of the Gaussian in pixels, positive: how far neighbouring pixels move together.
        alpha: scale of the displacements in pixels, at least 0. At the defaults they deviate by 0.8 pixels.
        generator: draws the fields, on its own device, so that one on the processor gives the same on every device;
            by default torch's own.

    Returns:
        The deformed images; gradients flow through to `images`.

    Raises:
        TypeError: `images` are no floating point tensor.
        ValueError: `images` have not four axes, or a number is out of range.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> elastic_deform(torch.rand(250, 1, 28, 28), sigma=4, alpha=20, generator=generator).shape
        torch.Size([250, 1, 28, 28])

    Source: Simard, Steinkraus and Platt, Best Practices for Convolutional Neural Networks, ICDAR 2003, section 2;
        sigma and alpha of Li, Liu, Chen and Rudin, AAAI 2018 (arXiv 1710.04806).
    """
    import torch

    if not isinstance(images, torch.Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
        raise TypeError(f"images: {kind} was given; a tensor of floating point numbers is accepted")
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(f"images: shape {tuple(images.shape)}; (n, channels, height, width) is accepted")
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma={sigma!r}: give a positive number of pixels")
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ValueError(f"alpha={alpha!r}: give a number of pixels of at least 0")
    n, _, height, width = images.shape
    device = images.device if generator is None else generator.device
    fields = torch.empty(n, 2, height, width, device=device).uniform_(-1, 1, generator=generator).to(images)
    return resample(images, alpha * _blur(height, sigma, images) @ fields @ _blur(width, sigma, images).T)


def resample(
    images: Float[Tensor, "n channels height width"], displacements: Float[Tensor, "n 2 height width"]
) -> Float[Tensor, "n channels height width"]:
    """The images read at displaced places: out[u] = image(u + displacement[u]), linear between pixels, zero outside.

    Args:
        images: floating point.
        displacements: down and to the right, in pixels.
    """
    import torch

    height, width = images.shape[2:]
    # grid_sample wants (right, down), with -1 and 1 at the outer edges of the first and last pixel.
    down, right = (
        (2 * torch.arange(size, dtype=images.dtype, device=images.device) + 1) / size - 1 for size in (height, width)
    )
    rows = torch.add(down[:, None], displacements[:, 0], alpha=2 / height)
    columns = torch.add(right, displacements[:, 1], alpha=2 / width)
    return torch.nn.functional.grid_sample(images, torch.stack((columns, rows), dim=-1), align_corners=False)


def _blur(size: int, sigma: float, like: Tensor) -> Tensor:
    """The matrix (size, size) that smooths a line, which is zero beyond its ends."""
    import torch

    reach = int(4 * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    places = torch.arange(size)
    between = places - places[:, None]
    inside = between.abs() <= reach
    return torch.where(inside, weights[(between + reach).clamp(0, 2 * reach)], 0.0).to(like)
