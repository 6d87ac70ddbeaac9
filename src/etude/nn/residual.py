"""Residual convolutional networks for small images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["ResidualNetwork"]


class ResidualNetwork(nn.Module):
    """A ResNet for small images: a 3x3 convolution, stages of blocks of two 3x3 convolutions, an average, a read-out.

    Each stage but the first halves the image. Where a block changes the image's size or channels, its shortcut is a
    1x1 convolution. Batch normalisation follows every convolution. Weights are drawn from N(0, 2 / (outputs x kernel)).

    Args:
        channels: of an image.
        outputs: classes.
        widths: channels of each stage.
        blocks: in each stage; depth 6 ``blocks`` + 2 at three stages.
        generator: where the initial weights are drawn from; by default torch's own.

    Raises:
        ValueError: no stages, or a number below 1.

    Source: He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv 1512.03385),
        section 4.2, with the projections of section 4.1, option B.
    """

    def __init__(
        self,
        channels: int = 3,
        outputs: int = 10,
        widths: Sequence[int] = (16, 32, 64),
        blocks: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"channels": channels, "outputs": outputs, "blocks": blocks}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: give a number of at least 1")
        if not widths or min(widths) < 1:
            raise ValueError(f"widths={tuple(widths)}: give at least one number of at least 1")
        self.stem = _normalised(channels, widths[0], 3, 1)
        inputs = [widths[0], *(width for width in widths for _ in range(blocks))]
        strides = [2 if stage and not block else 1 for stage in range(len(widths)) for block in range(blocks)]
        self.blocks = nn.Sequential(*(_Block(a, b, stride) for a, b, stride in zip(inputs, inputs[1:], strides)))
        self.output = nn.Linear(widths[-1], outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        nn.init.kaiming_uniform_(self.output.weight, a=5**0.5, generator=generator)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n outputs"]:
        """Logits."""
        return self.output(self.blocks(self.stem(x).relu()).mean((2, 3)))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _normalised(inputs, outputs, 3, stride)
        self.second = _normalised(outputs, outputs, 3, 1)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _normalised(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return (self.second(self.first(x).relu()) + self.shortcut(x)).relu()


def _normalised(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
