"""A classifier of item-label sequences around any sequence model."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from etude.in_context.item_label import interleave
from etude.nn import Transformer
from etude.nn.transformer import sinusoidal_positions

__all__ = ["PairClassifier"]


class PairClassifier(nn.Module):
    """Embeds items and labels, hands the sequence to a model, and reads the target's label from its last position.

    ``logits = W h(x_1, l_1, ..., x_N, l_N, x_target)_last``, each token with a vector of its position added to it.

    Args:
        embed: items of any shape to vectors, (n, *shape) -> (n, width): a linear map of features, a small
            convolutional network of images.
        body: a sequence model, (n, positions, width) -> (n, positions, width), that looks back from the last position:
            a `Transformer`, a `Recurrent`, your own.
        width: of the vectors, even.
        labels: how many there are, at least 1.
        pairs: N, the longest context, at least 1.
        layout: ``"interleaved"`` makes a token of each item and of each label, 2N + 1 in all; ``"joined"`` makes one
            of each pair, the sum of both vectors, and one of the target. Then a single attention can match the target
            with the pairs, where it takes two with tokens of their own.
        scale: standard deviation of the label vectors' and length per number of the positions' entries, positive.
        generator: where the label vectors and read-out weights are drawn from; by default torch's own.

    Raises:
        ValueError: a number out of range, or an unknown layout.

    Example:
        Any network that maps sequences of vectors stands in for the body::

            body = Transformer(64, layers=2, heads=4, positions=None)
            model = PairClassifier(nn.Linear(63, 64), body, width=64, labels=task.labels)
            batch = task.train(128, generator)                       # of an ItemLabelTask
            loss = cross_entropy(model(batch.items, batch.labels), batch.target)

    Source: Chan et al., NeurIPS 2022 (arXiv 2205.05055), section 2 and appendix on the model: tokens of their own,
    sinusoidal positions of base 30.
    """

    def __init__(
        self,
        embed: nn.Module,
        body: nn.Module,
        *,
        width: int,
        labels: int,
        pairs: int = 8,
        layout: Literal["interleaved", "joined"] = "interleaved",
        scale: float = 0.125,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"width": width, "labels": labels, "pairs": pairs}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: give a number of at least 1")
        if layout not in ("interleaved", "joined"):
            raise ValueError(f"layout={layout!r}: give 'interleaved' or 'joined'")
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale={scale}: give a positive number")
        self.embed, self.body, self.layout, self.pairs = embed, body, layout, pairs
        self.label_vectors = nn.Embedding(labels, width)
        self.read_out = nn.Linear(width, labels)
        tokens = 2 * pairs + 1 if layout == "interleaved" else pairs + 1
        self.register_buffer("places", scale * sinusoidal_positions(tokens, width, 30.0), persistent=False)
        with torch.no_grad():
            self.label_vectors.weight.normal_(std=scale, generator=generator)
            self.read_out.weight.normal_(std=0.02, generator=generator)
            self.read_out.bias.zero_()

    def forward(
        self, items: Float[Tensor, "n items *shape"], labels: Int[Tensor, "n pairs"]
    ) -> Float[Tensor, "n classes"]:
        """Logits of the target's label.

        Args:
            items: of the context, and the target last.
            labels: of the context.

        Raises:
            ValueError: a longer context, or not one item more than labels.
        """
        n, count = items.shape[:2]
        if count != labels.shape[1] + 1 or count > self.pairs + 1:
            raise ValueError(f"items of {count} and labels of {labels.shape[1]} places: give one item more than labels "
                             f"and at most {self.pairs} pairs")  # fmt: skip
        embedded = self.embed(items.flatten(0, 1)).unflatten(0, (n, count))
        context = self.label_vectors(labels)
        if self.layout == "interleaved":
            tokens = interleave(embedded, context)
        else:
            tokens = embedded + nn.functional.pad(context, (0, 0, 0, 1))
        tokens = tokens + self.places[: tokens.shape[1]]
        # Only the last position is read, and a transformer need not compute others in its last block.
        hidden = self.body(tokens, last=1) if isinstance(self.body, Transformer) else self.body(tokens)
        return self.read_out(hidden[:, -1])
