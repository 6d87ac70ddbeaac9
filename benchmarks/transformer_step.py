"""A training step of the transformer at the sizes the studies train, beside the least code that does the same.

Where transformer-lens below version 4 is installed its transformer is measured, too, without any hook.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measuring import Row, installed, medians
from etude.nn import Transformer

SIZES = {  # (width, layers, heads, positions, batch)
    "width 64, 2 layers, 17 positions": (64, 2, 4, 17, 128),
    "width 128, 4 layers, 128 positions": (128, 4, 4, 128, 16),
}


class Minimal(nn.Module):
    """A causal pre-norm transformer of learned positions, written out."""

    def __init__(self, width: int, layers: int, heads: int, positions: int) -> None:
        super().__init__()
        self.heads = heads
        self.positions = nn.Parameter(0.02 * torch.randn(positions, width))
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(width),
                    "qkv": nn.Linear(width, 3 * width),
                    "out": nn.Linear(width, width),
                    "norm2": nn.LayerNorm(width),
                    "up": nn.Linear(width, 4 * width),
                    "down": nn.Linear(4 * width, width),
                }
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        x = x + self.positions[:length]
        for block in self.blocks:
            q, k, v = block["qkv"](block["norm1"](x)).chunk(3, dim=-1)
            q, k, v = (t.view(batch, length, self.heads, -1).transpose(1, 2) for t in (q, k, v))
            read = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + block["out"](read.transpose(1, 2).reshape(batch, length, width))
            x = x + block["down"](functional.gelu(block["up"](block["norm2"](x))))
        return self.norm(x)


class Hooked(nn.Module):
    """The same of transformer-lens, between its embedding and its read-out."""

    def __init__(self, width: int, layers: int, heads: int, positions: int) -> None:
        from transformer_lens import HookedTransformer

        super().__init__()
        self.layers = layers
        self.positions = nn.Parameter(0.02 * torch.randn(positions, width))
        self.body = HookedTransformer(
            {
                "n_layers": layers, "d_model": width, "n_ctx": positions, "d_head": width // heads, "n_heads": heads,
                "d_mlp": 4 * width, "act_fn": "gelu", "d_vocab": 2, "seed": 0, "device": "cpu",
            }
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body.ln_final(self.body(x + self.positions, start_at_layer=0, stop_at_layer=self.layers))


def run(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    repetitions, steps = (3, 3) if quick else (15, 20)
    rows = []
    for name, (width, layers, heads, positions, batch) in SIZES.items():
        x = torch.randn(batch, positions, width, generator=torch.Generator().manual_seed(0))

        def training(model: nn.Module, x: Tensor = x, **options: int):
            descent = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

            def train() -> None:
                for _ in range(steps):
                    loss = model(x, **options)[:, -1].square().mean()
                    descent.zero_grad()
                    loss.backward()
                    descent.step()

            return train

        ours = Transformer(width, layers, heads, context=positions)
        sides = {
            "ours": training(ours),
            "minimal": training(Minimal(width, layers, heads, positions)),
            "last": training(Transformer(width, layers, heads, context=positions), last=1),
        }
        if installed("transformer_lens"):
            sides["hooked"] = training(Hooked(width, layers, heads, positions))
        seconds = {side: value / steps for side, value in medians(sides, repetitions).items()}
        rows.append(Row(f"step, {name} / written out", seconds["ours"], seconds["minimal"], aim="< 1.02"))
        rows.append(Row(f"step, {name}, last position alone / written out", seconds["last"], seconds["minimal"]))
        if "hooked" in seconds:
            rows.append(Row(f"step, {name} / transformer-lens", seconds["ours"], seconds["hooked"]))
    return rows
