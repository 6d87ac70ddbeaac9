"""A small transformer: from bare attention to full blocks, with its attention maps where they are asked for.

A *sequence model* here is any module (batch, positions, width) -> (batch, positions, width); so are the recurrent
networks of `etude.nn.recurrent`, and one can stand in for another. What goes in (embedded tokens, vectors, pairs) and
what comes out (logits) is the user's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Attention", "Block", "Transformer", "attention_mask", "rotate", "sinusoidal_positions"]

Visibility = Literal["causal", "bidirectional", "prefix"]
Positions = Literal["learned", "sinusoidal", "rotary"]
Edit = Callable[[Tensor], Tensor]


def sinusoidal_positions(count: int, width: int, longest: float = 10_000.0) -> Float[Tensor, "count width"]:
    """Sines, then cosines, of the position times frequencies that fall geometrically from 1 to ``1 / longest``.

    Args:
        count: positions 0 .. count-1.
        width: even; half of it sines and half of it cosines.
        longest: the longest wavelength over 2 pi.

    Raises:
        ValueError: an odd width.

    Source: Vaswani et al., NeurIPS 2017, section 3.5 (with sines and cosines side by side, as is usual today).
    """
    if width % 2:
        raise ValueError(f"width={width}: give an even number")
    frequency = longest ** -torch.linspace(0, 1, width // 2)
    angle = torch.arange(count)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def rotate(
    x: Float[Tensor, "*batch positions width"], base: float = 10_000.0, start: int = 0
) -> Float[Tensor, "*batch positions width"]:
    """Rotary position embedding: coordinate pairs (i, i + width/2) of position p are turned by ``p base^(-2i/width)``.

    Inner products of two rotated vectors depend on their contents and the difference of their positions alone.

    Args:
        x: queries or keys of one head, of even width.
        base: sets the slowest rotation.
        start: the first position's number.

    Source: Su et al., RoFormer, 2021 (arXiv 2104.09864), equation 34.
    """
    half = x.shape[-1] // 2
    frequency = base ** -(torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = torch.arange(start, start + x.shape[-2], device=x.device)[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def attention_mask(
    visibility: Visibility,
    positions: int,
    *,
    last: int | None = None,
    prefix: Int[Tensor, " batch"] | int | None = None,
    device: torch.device | str | None = None,
) -> Bool[Tensor, "... queries positions"] | None:
    """True where a query may look: (queries, positions), or (batch, 1, queries, positions) with a prefix an example.

    Args:
        visibility: ``"causal"`` (itself and what is before), ``"bidirectional"`` (everything: no mask, None) or
            ``"prefix"`` (everything inside the prefix, and what is before).
        positions: length of the sequence.
        last: queries at the last so many positions only; all when left out.
        prefix: how many positions see each other, one number or one an example; needed for ``"prefix"``.
        device: of the mask.

    Raises:
        ValueError: ``"prefix"`` without a prefix, or a prefix without ``"prefix"``.
    """
    if (visibility == "prefix") != (prefix is not None):
        raise ValueError(
            f"prefix={prefix!r} with visibility {visibility!r}: a prefix goes with 'prefix', and only there"
        )
    if visibility == "bidirectional":
        return None
    place = torch.arange(positions, device=device)
    query = place if last is None else place[positions - last :]
    causal = place <= query[:, None]
    if prefix is None:
        return causal
    if isinstance(prefix, int):
        return causal | (place < prefix)
    return causal | (place < prefix.to(place.device)[:, None, None, None])


class Attention(nn.Module):
    """Multi-head softmax attention: ``softmax(scale Q K^T) V`` of each head, then a linear map of all heads together.

    Args:
        width: of the input and output.
        heads: they divide the width.
        bias: whether the linear maps have biases.
        scale: factor of the inner products; one over the square root of a head's width when left out.
        project: whether a linear map of all heads follows; without one the heads' values are the output.
        rotary: whether queries and keys are rotated by their positions.
        dropout: of attention weights, in training.

    Raises:
        ValueError: heads that do not divide the width, or an odd width of a head with rotary positions.
    """

    def __init__(
        self,
        width: int,
        heads: int = 1,
        *,
        bias: bool = True,
        scale: float | None = None,
        project: bool = True,
        rotary: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads={heads}: give a number that divides the width {width}")
        if rotary and (width // heads) % 2:
            raise ValueError(f"heads={heads}: rotary positions need an even width of a head, not {width // heads}")
        self.width, self.heads, self.rotary, self.dropout = width, heads, rotary, dropout
        self.scale = 1 / math.sqrt(width // heads) if scale is None else scale
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.project = nn.Linear(width, width, bias=bias) if project else None

    def forward(
        self,
        x: Float[Tensor, "batch positions width"],
        mask: Bool[Tensor, "... queries positions"] | None = None,
        *,
        causal: bool = False,
        last: int | None = None,
        maps: bool = False,
        edit: Edit | None = None,
    ) -> tuple[Float[Tensor, "batch queries width"], Float[Tensor, "batch heads queries positions"] | None]:
        """The output, and the attention weights if they are asked for.

        Args:
            x: (batch, positions, width).
            mask: true where a query may look; None for everywhere.
            causal: the mask is the causal one of all positions (then `mask` is not read on the fast path).
            last: compute queries at the last so many positions only.
            maps: return the attention weights too.
            edit: changes the scores (batch, heads, queries, positions) before the softmax, to see what an attention
                is needed for; what must not be seen stands at minus infinity.
        """
        batch, positions, width = x.shape
        size = width // self.heads
        if last is None:
            q, k, v = self.qkv(x).view(batch, positions, 3, self.heads, size).permute(2, 0, 3, 1, 4)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            q = functional.linear(x[:, positions - last :], weight[:width], None if bias is None else bias[:width])
            kv = functional.linear(x, weight[width:], None if bias is None else bias[width:])
            q = q.view(batch, last, self.heads, size).transpose(1, 2)
            k, v = kv.view(batch, positions, 2, self.heads, size).permute(2, 0, 3, 1, 4)
        if self.rotary:
            q, k = rotate(q, start=positions - q.shape[-2]), rotate(k)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if maps or edit is not None:
            scores = self.scale * q @ k.transpose(-1, -2)
            if mask is not None:
                scores = scores.masked_fill(~mask, -torch.inf)
            weights = (scores if edit is None else edit(scores)).softmax(-1)
            out = functional.dropout(weights, dropout) @ v
        else:
            # Given no mask, the fused kernels need not read one; they are told of the causal one by a flag.
            plain = causal and last is None
            out = functional.scaled_dot_product_attention(
                q, k, v, None if plain else mask, dropout_p=dropout, is_causal=plain, scale=self.scale
            )
        out = out.transpose(1, 2).reshape(batch, -1, width)
        return (out if self.project is None else self.project(out)), weights


class Block(nn.Module):
    """Attention, then a network of one hidden layer at each position, each added to what it reads.

    Args:
        attention: the attention.
        hidden: units of the hidden layer (GELU); 0 for attention alone.
        norm: layer normalisation before each of the two, or none.
        bias: whether the linear maps have biases.
        dropout: of what is added, in training.
    """

    def __init__(
        self, attention: Attention, hidden: int, *, norm: bool = True, bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        width = attention.width
        self.norm1 = nn.LayerNorm(width, bias=bias) if norm else nn.Identity()
        self.attention = attention
        self.hidden = hidden
        if hidden:
            self.norm2 = nn.LayerNorm(width, bias=bias) if norm else nn.Identity()
            self.up = nn.Linear(width, hidden, bias=bias)
            self.down = nn.Linear(hidden, width, bias=bias)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "batch positions width"],
        mask: Bool[Tensor, "... queries positions"] | None = None,
        *,
        causal: bool = False,
        last: int | None = None,
        maps: bool = False,
        edit: Edit | None = None,
    ) -> tuple[Float[Tensor, "batch queries width"], Float[Tensor, "batch heads queries positions"] | None]:
        """The output, and the attention weights if they are asked for; arguments as for `Attention`."""
        read, weights = self.attention(self.norm1(x), mask, causal=causal, last=last, maps=maps, edit=edit)
        x = (x if last is None else x[:, x.shape[1] - last :]) + self.dropout(read)
        if self.hidden:
            x = x + self.dropout(self.down(functional.gelu(self.up(self.norm2(x)))))
        return x, weights


class Transformer(nn.Module):
    """A stack of blocks over a sequence of vectors.

    Initial weights are N(0, 0.02^2), those that write to the residual stream divided by the square root of the number
    of writers, biases zero (GPT-2's).

    Args:
        width: of the vectors.
        layers: blocks.
        heads: of each block's attention.
        visibility: ``"causal"``, ``"bidirectional"`` or ``"prefix"``.
        positions: ``"learned"`` or ``"sinusoidal"`` vectors added to the input, ``"rotary"``, or None for none.
        context: the longest sequence; needed for learned and sinusoidal positions.
        hidden: units of each block's hidden layer; four times the width when left out, 0 for attention alone.
        norm: layer normalisation before attention, before the hidden layer, and at the end; or none.
        bias: whether linear maps have biases.
        scale: factor of the inner products; one over the square root of a head's width when left out.
        project: whether a linear map follows the heads.
        dropout: of attention weights and of what blocks add, in training.
        generator: where the initial weights are drawn from; by default torch's own.

    Raises:
        ValueError: a number out of range, or positions that need a context without one.

    Example:
        Next-token logits, with the user's own embedding and read-out::

            body = Transformer(64, layers=2, heads=4, positions="learned", context=128)
            embed, read_out = nn.Embedding(20, 64), nn.Linear(64, 20)
            logits = read_out(body(embed(tokens)))
            hidden, maps = body(embed(tokens), maps=True)  # maps[layer]: (batch, heads, positions, positions)
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int = 1,
        *,
        visibility: Visibility = "causal",
        positions: Positions | None = "learned",
        context: int | None = None,
        hidden: int | None = None,
        norm: bool = True,
        bias: bool = True,
        scale: float | None = None,
        project: bool = True,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if visibility not in ("causal", "bidirectional", "prefix"):
            raise ValueError(f"visibility={visibility!r}: give 'causal', 'bidirectional' or 'prefix'")
        if positions not in ("learned", "sinusoidal", "rotary", None):
            raise ValueError(f"positions={positions!r}: give 'learned', 'sinusoidal', 'rotary' or None")
        for name, value in {"width": width, "layers": layers, "heads": heads}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: give a number of at least 1")
        if positions in ("learned", "sinusoidal") and context is None:
            raise ValueError(f"context=None: {positions} positions need the longest sequence")
        if context is not None and context < 1:
            raise ValueError(f"context={context}: give a number of at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: give a number in [0, 1)")
        self.width, self.visibility, self.context = width, visibility, context
        self.positions: Tensor | None
        if positions == "learned":
            self.positions = nn.Parameter(torch.empty(context or 0, width))
        else:
            table = sinusoidal_positions(context or 0, width) if positions == "sinusoidal" else None
            self.register_buffer("positions", table, persistent=False)
        units = 4 * width if hidden is None else hidden
        options = {"bias": bias, "scale": scale, "project": project, "rotary": positions == "rotary"}
        self.blocks = nn.ModuleList(
            Block(Attention(width, heads, dropout=dropout, **options), units, norm=norm, bias=bias, dropout=dropout)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width, bias=bias) if norm else nn.Identity()
        self._initialise(generator)

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator | None) -> None:
        writers = sum(2 if block.hidden else 1 for block in self.blocks)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" not in name:
                writes = name.endswith(("project.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / (math.sqrt(writers) if writes else 1), generator=generator)

    def forward(
        self,
        x: Float[Tensor, "batch positions width"],
        *,
        prefix: Int[Tensor, " batch"] | int | None = None,
        last: int | None = None,
        maps: bool = False,
        edit: Mapping[int, Edit] | None = None,
    ) -> (
        Float[Tensor, "batch queries width"]
        | tuple[Float[Tensor, "batch queries width"], tuple[Float[Tensor, "batch heads _ positions"], ...]]
    ):
        """Hidden states, and the attention weights of each layer if they are asked for.

        Args:
            x: (batch, positions, width).
            prefix: how many positions see each other (visibility ``"prefix"``), one number or one an example.
            last: return the last so many positions only. The last block computes no others, which saves up to half
                of a two-layer network where only the last position is read; its map has so many queries.
            maps: return ``(hidden, maps)`` with maps[layer] of shape (batch, heads, queries, positions).
            edit: for a layer's number, what changes its attention's scores before the softmax, as for `Attention`.

        Raises:
            ValueError: a sequence longer than the context, `last` out of range, or an edit of a layer there is not.
        """
        positions = x.shape[1]
        if self.context is not None and positions > self.context:
            raise ValueError(f"x has {positions} positions, more than the context of {self.context}")
        if last is not None and not 1 <= last <= positions:
            raise ValueError(f"last={last}: give a number from 1 to {positions}, the positions of x")
        edit = edit or {}
        if not edit.keys() <= set(range(len(self.blocks))):
            raise ValueError(f"edit of layers {sorted(edit)}: there are layers 0 to {len(self.blocks) - 1}")
        if self.positions is not None:
            x = x + self.positions[:positions]
        causal = self.visibility == "causal"
        mask = None
        plain = causal and not maps and not edit
        if not plain or prefix is not None:  # the fused causal path reads no mask, so none is made for it
            mask = attention_mask(self.visibility, positions, prefix=prefix, device=x.device)
        found = []
        for layer, block in enumerate(self.blocks[:-1]):
            x, weights = block(x, mask, causal=causal, maps=maps, edit=edit.get(layer))
            found.append(weights)
        if last is not None and (not plain or last > 1):
            mask = attention_mask(self.visibility, positions, last=last, prefix=prefix, device=x.device)
        x, weights = self.blocks[-1](x, mask, causal=causal, last=last, maps=maps, edit=edit.get(len(self.blocks) - 1))
        hidden = self.norm(x)
        return (hidden, (*found, weights)) if maps else hidden
