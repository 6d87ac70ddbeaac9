"""A sequence model that reads pairs (x, y) and predicts every y from what came before it."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["PromptModel"]


class PromptModel(nn.Module):
    """Read-in and read-out around any sequence model: x_1, y_1, x_2, ... in, a logit for each y out.

    A y is put into the first coordinate of a vector of zeros; one linear map, times the square root of the width,
    takes both kinds of vectors to the model; another takes its states at the x positions to logits.

    Args:
        sequence: a causal model (batch, positions, width) -> (batch, positions, width), such as
            `etude.nn.Transformer` (with a context of 2 points - 1), `etude.nn.Recurrent` or
            `etude.nn.GatedLinearRecurrence`.
        dims: of x, at least 1.
        width: of the sequence model, at least 1.
        generator: where the two maps are drawn from, N(0, 0.02^2) with zero biases; by default torch's own.

    Raises:
        ValueError: a number out of range.

    Example:
        In a loop of your own, on prompts of any class::

            model = PromptModel(Transformer(64, layers=3, heads=4, context=47), dims=8, width=64)
            prompts = Conjunctions(bits=8).prompts(64, 24, generator)
            loss = soft_margin_loss(model(prompts.x, prompts.y), prompts.y)

    Source: Garg et al., NeurIPS 2022 (arXiv 2208.01066), appendix A.1; Bhattamishra et al., ICLR 2024.
    """

    def __init__(self, sequence: nn.Module, dims: int, width: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        for name, value in {"dims": dims, "width": width}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: give a number of at least 1")
        self.sequence, self.dims, self.width = sequence, dims, width
        self.read_in, self.read_out = nn.Linear(dims, width), nn.Linear(width, 1)
        for layer in (self.read_in, self.read_out):
            nn.init.normal_(layer.weight, std=0.02, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(
        self, x: Float[Tensor, "batch points dims"], y: Float[Tensor, "batch points"], *, maps: bool = False
    ) -> Float[Tensor, "batch points"] | tuple[Float[Tensor, "batch points"], tuple[Tensor, ...]]:
        """Logits of y = +1 (or real predictions); each depends on the pairs before and its own x alone.

        Args:
            x: inputs.
            y: labels; the last is not read.
            maps: return the sequence model's attention maps too, over 2 points - 1 positions.

        Raises:
            ValueError: shapes that do not fit.
        """
        batch, points, dims = x.shape
        if dims != self.dims:
            raise ValueError(f"x has {dims} dimensions; the model reads {self.dims}")
        if y.shape != (batch, points):
            raise ValueError(f"y of shape {tuple(y.shape)} does not fit x of shape {tuple(x.shape)}")
        pairs = torch.stack([x, nn.functional.pad(y[..., None].to(x.dtype), (0, dims - 1))], dim=2)
        tokens = math.sqrt(self.width) * self.read_in(pairs.flatten(1, 2)[:, :-1])
        states, *found = self.sequence(tokens, maps=True) if maps else (self.sequence(tokens),)
        logits = self.read_out(states[:, ::2])[..., 0]
        return (logits, *found) if maps else logits
