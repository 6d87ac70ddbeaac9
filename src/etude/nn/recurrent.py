"""Recurrent networks as sequence models: (batch, positions, width) -> (batch, positions, width)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["GatedLinearRecurrence", "Recurrent", "linear_recurrence"]


class Recurrent(nn.Module):
    """An LSTM, GRU or plain recurrent network over a sequence of vectors, read out to the input's width.

    Args:
        width: of the input and output.
        layers: recurrent layers.
        cell: ``"lstm"``, ``"gru"`` or ``"tanh"``.
        units: of each layer; the width when left out, and then there is no read-out.
        dropout: between layers, in training.
        generator: where the initial weights are drawn from: uniform within one over the square root of the units, as
            torch's own; by default torch's generator.

    Raises:
        ValueError: an unknown cell, or a number below 1.
    """

    def __init__(
        self,
        width: int,
        layers: int = 1,
        cell: Literal["lstm", "gru", "tanh"] = "lstm",
        *,
        units: int | None = None,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        cells: dict[str, type[nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "tanh": nn.RNN}
        if cell not in cells:
            raise ValueError(f"cell={cell!r}: give one of {', '.join(map(repr, cells))}")
        units = width if units is None else units
        for name, value in {"width": width, "layers": layers, "units": units}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: give a number of at least 1")
        self.width = width
        self.recurrent = cells[cell](width, units, layers, batch_first=True, dropout=dropout)
        self.read_out = nn.Linear(units, width) if units != width else nn.Identity()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-1 / math.sqrt(units), 1 / math.sqrt(units), generator=generator)

    def forward(self, x: Float[Tensor, "batch positions width"]) -> Float[Tensor, "batch positions width"]:
        """Hidden states at every position; each depends on the positions up to its own."""
        return self.read_out(self.recurrent(x)[0])


def linear_recurrence(
    decay: Float[Tensor, "batch positions units"], update: Float[Tensor, "batch positions units"]
) -> Float[Tensor, "batch positions units"]:
    """``h_t = decay_t h_(t-1) + update_t`` from h_(-1) = 0, at all positions, in log2(positions) parallel steps.

    Args:
        decay: factors, usually in [0, 1].
        update: what is added.

    Source: Blelloch, Prefix Sums and Their Applications, 1990, section 1.4.
    """
    reach, positions = 1, decay.shape[1]
    while reach < positions:
        # What stands at t sums the last `reach` updates; joined with what stands `reach` before, twice as many.
        update = torch.cat([update[:, :reach], update[:, reach:] + decay[:, reach:] * update[:, :-reach]], dim=1)
        decay = torch.cat([decay[:, :reach], decay[:, reach:] * decay[:, :-reach]], dim=1)
        reach *= 2
    return update


class GatedLinearRecurrence(nn.Module):
    """Layers of a linear recurrence whose gates depend on the input alone, each followed by a hidden layer.

    In each layer ``h_t = f_t h_(t-1) + (1 - f_t) c_t`` with ``f = sigmoid(W_f x)`` and ``c = W_c x``, read out through
    ``sigmoid(W_o x) * h``; normalised before, added to what it reads. No step waits for the one before it.

    Args:
        width: of the input and output.
        layers: of them.
        units: of the recurrence; the width when left out.
        hidden: units of the hidden layer (GELU) that follows; four times the width when left out, 0 for none.
        generator: where the initial weights are drawn from, N(0, 0.02^2) with forget biases in [1, 4], so that units
            remember for 4 to 55 positions; by default torch's own.

    Raises:
        ValueError: a number below 1.

    Source: the gated impulse linear recurrent layer of Martin and Cundy, ICLR 2018 (arXiv 1709.04057), section 3.
    """

    def __init__(
        self,
        width: int,
        layers: int = 1,
        *,
        units: int | None = None,
        hidden: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        units = width if units is None else units
        hidden = 4 * width if hidden is None else hidden
        for name, value in {"width": width, "layers": layers, "units": units}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: give a number of at least 1")
        self.width = width
        self.layers = nn.ModuleList(_LinearRecurrentLayer(width, units, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    module.weight.normal_(std=0.02, generator=generator)
                    module.bias.zero_()
            for layer in self.layers:
                layer.gates.bias[:units] = torch.linspace(1, 4, units)

    def forward(self, x: Float[Tensor, "batch positions width"]) -> Float[Tensor, "batch positions width"]:
        """Hidden states at every position; each depends on the positions up to its own."""
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class _LinearRecurrentLayer(nn.Module):
    def __init__(self, width: int, units: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.gates = nn.Linear(width, 3 * units)
        self.project = nn.Linear(units, width)
        self.hidden = (
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
            if hidden
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        forget, candidate, output = self.gates(self.norm1(x)).chunk(3, dim=-1)
        forget = forget.sigmoid()
        state = linear_recurrence(forget, (1 - forget) * candidate)
        x = x + self.project(output.sigmoid() * state)
        return x if self.hidden is None else x + self.hidden(x)
