"""N-gram models fitted to each prompt alone, at all of its positions at once.

Source: Akyürek, Wang, Kim and Andreas, ICML 2024 (arXiv 2401.12973), section 5, where trained networks are compared
with them. There each is fitted anew at every position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from etude.nn import ngram_sum

__all__ = ["InContextNGram", "successor_counts"]


def successor_counts(
    tokens: Int[Tensor, "prompts positions"], order: int, symbols: int, *, dtype: torch.dtype | None = None
) -> Float[Tensor, "prompts positions symbols"]:
    """How often each symbol has followed each position's last `order` tokens, before and up to that position.

    Contexts end at the last separator, so that strings are counted as if each stood alone, and successors that are
    separators are left out.

    Args:
        tokens: symbols, and the separator, whose number is the number of symbols.
        order: tokens of the context; 0 counts the symbols read so far.
        symbols: how many there are.
        dtype: of the counts; torch's default when left out.

    Raises:
        ValueError: an order out of range, or a token out of range.
    """
    if bool(((tokens < 0) | (tokens > symbols)).any()):
        raise ValueError(
            f"tokens: one is out of range; give symbols from 0 to {symbols - 1}, or the separator {symbols}"
        )
    each = functional.one_hot(tokens, symbols + 1)[..., :symbols].to(dtype or torch.get_default_dtype())
    return each.cumsum(1) if order == 0 else ngram_sum(each, tokens, order, separator=symbols)[0]


@dataclass(frozen=True)
class InContextNGram:
    """The next symbol's distribution by what followed the same context earlier in the prompt.

    The context is the last `order` tokens or, where these never had a successor, as many fewer as it takes.

    Args:
        order: the longest context, at least 0. An n-gram model has contexts of n - 1.
        smoothing: with counts c of the successors of the context, c / sum c for ``"back-off"``; the same for each that
            occurred for ``"uniform-support"``, which suits automata whose successors are equally likely; and
            ``(c + 1) / sum (c + 1)`` over the symbols read so far, at the full context always, for ``"add-one"``.

    Raises:
        ValueError: a number or name out of range.
    """

    order: int
    smoothing: Literal["back-off", "uniform-support", "add-one"] = "back-off"

    def __post_init__(self) -> None:
        if isinstance(self.order, bool) or not isinstance(self.order, int) or self.order < 0:
            raise ValueError(f"order={self.order!r}: give a whole number of at least 0")
        if self.smoothing not in ("back-off", "uniform-support", "add-one"):
            raise ValueError(f"smoothing={self.smoothing!r}: give 'back-off', 'uniform-support' or 'add-one'")

    def __call__(
        self, tokens: Int[Tensor, "prompts positions"], symbols: int, *, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "prompts positions symbols"]:
        """Distributions of the symbol after each position; all symbols alike where nothing is known.

        Args:
            tokens: prompts as `Automata.prompts` makes them.
            symbols: how many there are.
            dtype: of the probabilities; torch's default when left out.

        Raises:
            ValueError: fewer positions than the order, or a token out of range.
        """
        if self.smoothing == "add-one":
            seen = successor_counts(tokens, 0, symbols, dtype=dtype) > 0
            weight = (successor_counts(tokens, self.order, symbols, dtype=dtype) + 1) * seen
        else:
            weight = successor_counts(tokens, 0, symbols, dtype=dtype)
            for order in range(1, self.order + 1):
                longer = successor_counts(tokens, order, symbols, dtype=dtype)
                weight = torch.where((longer > 0).any(-1, keepdim=True), longer, weight)
            if self.smoothing == "uniform-support":
                weight = (weight > 0).to(weight.dtype)
        weight = torch.where((weight > 0).any(-1, keepdim=True), weight, torch.ones_like(weight))
        return weight / weight.sum(-1, keepdim=True)
