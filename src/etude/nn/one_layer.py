"""A transformer of one layer that reads a few tokens and answers at the last one, as a chain of its parts."""

from __future__ import annotations

from collections import OrderedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from etude.nn.transformer import Attention

__all__ = ["one_layer_transformer"]


def one_layer_transformer(
    tokens: int,
    positions: int,
    *,
    width: int = 128,
    heads: int = 4,
    hidden: int = 512,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Embedding, attention, a rectified hidden layer and a read-out, without normalisation.

    Attention and hidden layer are added to what they read. Only the last position is computed from the attention on.
    As an ``nn.Sequential`` of four parts it can be cut between them: ``list(model)[1:]`` are maps between the residual
    stream after the embedding (n, positions, width), after the attention (n, width), after the hidden layer (n, width),
    and the logits.

    Args:
        tokens: different ones; as many logits come out.
        positions: tokens of an example.
        width: of the residual stream.
        heads: of the attention; they divide the width.
        hidden: units of the hidden layer.
        generator: where the initial weights are drawn from, N(0, 0.64 / width), biases zero; by default torch's own.

    Returns:
        A network (n, positions) -> logits (n, tokens), with parts ``embed``, ``attention``, ``hidden``, ``read_out``.

    Raises:
        ValueError: a number below 1, or heads that do not divide the width.

    Source: Nanda et al., Progress Measures for Grokking via Mechanistic Interpretability, ICLR 2023 (arXiv 2301.05217).
    """
    for name, value in {"tokens": tokens, "positions": positions, "width": width, "hidden": hidden}.items():
        if value < 1:
            raise ValueError(f"{name}={value}: give a number of at least 1")
    model = nn.Sequential(
        OrderedDict(
            embed=_Embedding(tokens, positions, width),
            attention=_LastAttention(width, heads),
            hidden=_Hidden(width, hidden),
            read_out=nn.Linear(width, tokens),
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            else:
                parameter.normal_(std=0.8 * width**-0.5, generator=generator)
    return model


class _Embedding(nn.Module):
    def __init__(self, tokens: int, positions: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, width)
        self.positions = nn.Parameter(torch.empty(positions, width))

    def forward(self, tokens: Int[Tensor, "n positions"]) -> Float[Tensor, "n positions width"]:
        return self.tokens(tokens) + self.positions


class _LastAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)

    def forward(self, x: Float[Tensor, "n positions width"]) -> Float[Tensor, "n width"]:
        read, _ = self.attention(x, last=1)  # the last position sees all of them
        return x[:, -1] + read[:, 0]


class _Hidden(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        return x + self.down(torch.relu(self.up(x)))
