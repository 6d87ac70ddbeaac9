"""N-gram heads: static attention from each position to what followed earlier occurrences of its last n tokens.

    match_n(i, j) = 1  if  tokens[j-n+1 .. j] == tokens[i-n+1 .. i]  and  j < i,
    A_n(i, j+1)   = match_n(i, j) / sum_k match_n(i, k),            and a row without a match is zero.

A head of order 1 is an induction head. Nothing about where it looks is learnt, so it needs no queries and keys: with
positions sorted by their n-gram, ``A_n h`` is a difference of running sums, and costs O(L log L + L width) instead of
the O(L^2 width) of attention.

Source: Akyürek, Wang, Kim and Andreas, ICML 2024 (arXiv 2401.12973), section 6. The authors' code leaves out the pairs
with j + 1 = i, though that token is read already; ``include_current=False`` does as it does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["NGramHeads", "NGramMixer", "ngram_attention", "ngram_mean", "ngram_sum"]


def ngram_attention(
    tokens: Int[Tensor, "batch positions"],
    order: int,
    *,
    include_current: bool = True,
    separator: int | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "batch positions positions"]:
    """The attention weights A_n of an n-gram head, as a matrix.

    Made to be looked at and compared with; to multiply by it, `ngram_mean` is far cheaper.

    Args:
        tokens: token numbers, at least 0.
        order: n, how many tokens are compared, from 1 to the number of positions.
        include_current: let position i look at itself where tokens i-n .. i-1 equal tokens i-n+1 .. i.
        separator: a token before which no context reaches: n-grams are compared from the last separator on. By default
            contexts run over all tokens.
        dtype: of the weights; torch's default when left out.

    Returns:
        (batch, queries, positions); each row sums to 1, or to 0 where its n-gram is new.

    Raises:
        ValueError: an order out of range.
    """
    code = _context_code(tokens, order, separator)
    same = code[:, :, None] == code[:, None, :]
    same = same.tril(-1 if include_current else -2)
    follower = functional.pad(same, (1, -1))  # a match at j is a look at j + 1
    weights = follower.to(dtype or torch.get_default_dtype())
    return weights / weights.sum(-1, keepdim=True).clamp(min=1)


def ngram_sum(
    values: Float[Tensor, "batch positions width"],
    tokens: Int[Tensor, "batch positions"],
    order: int,
    *,
    include_current: bool = True,
    separator: int | None = None,
) -> tuple[Float[Tensor, "batch positions width"], Int[Tensor, "batch positions"]]:
    """The sum of the values that followed earlier occurrences of each position's n-gram, and how many there were.

    Of one-hot vectors of the tokens this counts the successors of every n-gram so far, at all positions at once. Sums
    are differences of running sums in single precision at least; what comes later can change their rounding, no more.

    Args:
        values: what is summed.
        tokens: as for `ngram_attention`, and so are `order`, `include_current` and `separator`.
        order: n.
        include_current: whether the value at a position counts for itself.
        separator: where contexts end.

    Returns:
        Sums (batch, positions, width) and numbers (batch, positions).

    Raises:
        ValueError: an order out of range, or values of other positions than the tokens.
    """
    if values.shape[:2] != tokens.shape:
        raise ValueError(f"values of shape {tuple(values.shape)} do not fit tokens of {tuple(tokens.shape)}")
    batch, positions, width = values.shape
    code = _context_code(tokens, order, separator)
    code, place = code.sort(dim=1, stable=True)  # a context's occurrences side by side, the earlier ones first
    rank = torch.arange(positions, device=tokens.device).expand(batch, -1)
    new = torch.ones_like(code, dtype=torch.bool)
    new[:, 1:] = code[:, 1:] != code[:, :-1]
    first = (rank * new).cummax(dim=1).values
    last = rank  # of what is summed, one past the end
    if not include_current:
        repeated = torch.zeros_like(new)
        repeated[:, 1:] = ~new[:, 1:] & (place[:, 1:] == place[:, :-1] + 1)
        last = rank - repeated.long()
    back = torch.empty_like(place).scatter_(1, place, rank)  # where a position stands in the sorted order
    first, last = first.gather(1, back), last.gather(1, back)

    offset = positions * torch.arange(batch, device=tokens.device)[:, None]
    # The last position has no successor; nothing that is summed reads what stands for it.
    successor = (offset + (place + 1).clamp(max=positions - 1)).flatten()
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    followed = wide.reshape(-1, width).index_select(0, successor).view(batch, positions, width)
    running = functional.pad(followed.cumsum(1), (0, 0, 1, 0)).reshape(-1, width)
    offset = offset + torch.arange(batch, device=tokens.device)[:, None]  # running sums have a zero in front
    total = running.index_select(0, (offset + last).flatten()) - running.index_select(0, (offset + first).flatten())
    return total.view(batch, positions, width).to(values.dtype), last - first


def ngram_mean(
    values: Float[Tensor, "batch positions width"],
    tokens: Int[Tensor, "batch positions"],
    order: int,
    *,
    include_current: bool = True,
    separator: int | None = None,
) -> Float[Tensor, "batch positions width"]:
    """``A_n values``: the mean of the values that followed earlier occurrences of each position's n-gram.

    Args:
        values: what is averaged.
        tokens: as for `ngram_attention`, and so are `order`, `include_current` and `separator`.
        order: n.
        include_current: whether the value at a position counts for itself.
        separator: where contexts end.

    Returns:
        (batch, positions, width); zero where the n-gram is new.

    Raises:
        ValueError: an order out of range, or values of other positions than the tokens.
    """
    total, number = ngram_sum(values, tokens, order, include_current=include_current, separator=separator)
    return total / number.clamp(min=1)[:, :, None].to(total.dtype)


def _context_code(
    tokens: Int[Tensor, "batch positions"], order: int, separator: int | None
) -> Int[Tensor, "batch positions"]:
    """A number a position, equal within a sequence exactly where the last `order` tokens are; 0 to positions - 1."""
    positions = tokens.shape[1]
    if isinstance(order, bool) or not isinstance(order, int) or not 1 <= order <= positions:
        raise ValueError(f"order={order!r}: give a whole number from 1 to {positions}, the positions of tokens")
    code = tokens.long()
    for longer in range(1, order + 1):
        if longer > 1:
            before = functional.pad(code[:, :-1] + 1, (1, 0))  # 0: the context would begin before the sequence
            if separator is not None:
                before = before.masked_fill(tokens == separator, 0)
            code = tokens * (positions + 1) + before
        # Numbering the contexts anew each time keeps the codes small, whatever the vocabulary and the order.
        code, place = code.sort(dim=1)
        number = functional.pad((code[:, 1:] != code[:, :-1]).long(), (1, 0)).cumsum(1)
        code = torch.empty_like(number).scatter_(1, place, number)
    return code


class NGramMixer(nn.Module):
    """An n-gram head as a layer: ``W1 h + W0 A_n h + b``, with A_n from the tokens as in `ngram_attention`.

    It stands where attention or another token mixer would, usually after a normalisation and inside a residual block.

    Args:
        width: of the input and output.
        order: n, at least 1.
        bias: whether b is there.
        include_current: whether a position may look at itself.
        separator: a token before which no context reaches.
        generator: where the initial weights are drawn from, uniform within ``1 / sqrt(width)``; by default torch's.

    Raises:
        ValueError: a width or order below 1.
    """

    def __init__(
        self,
        width: int,
        order: int,
        *,
        bias: bool = True,
        include_current: bool = True,
        separator: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"width": width, "order": order}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: give a number of at least 1")
        self.order, self.include_current, self.separator = order, include_current, separator
        self.current = nn.Linear(width, width, bias=bias)
        self.followers = nn.Linear(width, width, bias=False)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-1 / math.sqrt(width), 1 / math.sqrt(width), generator=generator)

    def forward(
        self, x: Float[Tensor, "batch positions width"], tokens: Int[Tensor, "batch positions"]
    ) -> Float[Tensor, "batch positions width"]:
        """Each position's own vector and the mean of those that followed its n-gram, mixed linearly."""
        seen = ngram_mean(x, tokens, self.order, include_current=self.include_current, separator=self.separator)
        return self.current(x) + self.followers(seen)


class NGramHeads(nn.Module):
    """Any sequence model with n-gram heads in front of it: ``x <- x + mixer_n(norm(x))`` for each order, then the body.

    Args:
        body: a module (batch, positions, width) -> (batch, positions, width): a transformer, an LSTM, your own.
        width: of its input.
        orders: n of each head, in their order.
        include_current: whether a position may look at itself.
        separator: a token before which no context reaches.
        generator: where the heads' initial weights are drawn from; by default torch's own.

    Raises:
        ValueError: no orders, or a number below 1.

    Example:
        An LSTM that can look up what followed the last one, two and three tokens::

            embed, read_out = nn.Embedding(20, 64), nn.Linear(64, 20)
            body = NGramHeads(Recurrent(64, layers=2), 64, orders=(1, 2, 3))
            logits = read_out(body(embed(tokens), tokens))
    """

    def __init__(
        self,
        body: nn.Module,
        width: int,
        orders: Iterable[int] = (1, 2, 3),
        *,
        include_current: bool = True,
        separator: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        orders = tuple(orders)
        if not orders:
            raise ValueError("orders=(): give at least one order")
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in orders)
        self.mixers = nn.ModuleList(
            NGramMixer(width, order, include_current=include_current, separator=separator, generator=generator)
            for order in orders
        )
        self.body = body

    def forward(
        self, x: Float[Tensor, "batch positions width"], tokens: Int[Tensor, "batch positions"], **options: Any
    ) -> Any:
        """What the body makes of the input with the heads' readings added.

        Args:
            x: embedded tokens.
            tokens: the token numbers that are matched.
            options: handed to the body, such as ``maps=True``.
        """
        for norm, mixer in zip(self.norms, self.mixers):
            x = x + mixer(norm(x), tokens)
        return self.body(x, **options)
