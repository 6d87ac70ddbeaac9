"""A training step of the classifier of item-label pairs around different sequence models, with batches drawn anew."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.measuring import Row, medians
from etude.in_context import GaussianItems, ItemLabelTask, PairClassifier
from etude.nn import GatedLinearRecurrence, Recurrent, Transformer

WIDTH, LAYERS, HEADS, LABELS, BATCH = 64, 2, 4, 20, 128


class Peer(nn.Module):
    """PyTorch's own encoder with a causal mask, as a user would put it in."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.encoder(x, mask, is_causal=True)


def run(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    repetitions, steps = (3, 3) if quick else (15, 20)
    task = ItemLabelTask(
        GaussianItems(1_600, WIDTH, generator=torch.Generator().manual_seed(0)), LABELS, shots=3, ways=2, p_bursty=0.9
    )
    rows = []
    for layout in ("interleaved", "joined"):

        def training(body: nn.Module, layout: str = layout):
            model = PairClassifier(nn.Linear(WIDTH, WIDTH), body, width=WIDTH, labels=LABELS, layout=layout)
            descent = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
            generator = torch.Generator().manual_seed(1)

            def train() -> None:
                for _ in range(steps):
                    batch = task.train(BATCH, generator)
                    loss = cross_entropy(model(batch.items, batch.labels), batch.target)
                    descent.zero_grad()
                    loss.backward()
                    descent.step()

            return train

        sides = {
            "Transformer": training(Transformer(WIDTH, LAYERS, HEADS, positions=None)),
            "GatedLinearRecurrence": training(GatedLinearRecurrence(WIDTH, LAYERS)),
            "LSTM": training(Recurrent(WIDTH, LAYERS, "lstm")),
            "peer": training(Peer()),
        }
        seconds = {side: value / steps for side, value in medians(sides, repetitions).items()}
        peer = seconds.pop("peer")
        for side, value in seconds.items():
            aim = "< 0.8" if side == "Transformer" else ""  # the last block computes the target's position alone
            rows.append(Row(f"step, {layout}, {side} / nn.TransformerEncoder", value, peer, aim=aim))
    return rows
