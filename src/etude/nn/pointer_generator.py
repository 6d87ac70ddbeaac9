"""A sequence-to-sequence network that copies: at each step it writes a word of its vocabulary or one of the source."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from etude.nn.transformer import Transformer

__all__ = ["PointerGenerator", "pointer_loss"]


class PointerGenerator(nn.Module):
    """A transformer over source and target with a pointer to the source.

    The source's positions see each other, the target's see the source and what is before (a prefix language model).
    With h the state of a target position, s_i the states of the source and V the vocabulary, scores

        ``u_w = v_w . h`` for w in V,    ``u_i = (Q h) . (K s_i) / sqrt(width)`` for source position i

    share one softmax, so copying position i competes with writing any word. What was copied is read at the next step
    as "position i", whatever the word there.

    Args:
        source_words: size of the source vocabulary; 0 is padding.
        target_words: size of the target vocabulary; 0 is the end.
        source_length: the longest source.
        target_length: the longest target, its end included.
        width: of the states.
        layers: blocks.
        heads: of each block's attention.
        generator: where the initial weights are drawn from.

    Example:
        One step of training, and reading::

            model = PointerGenerator(40, 12, source_length=20, target_length=30)
            loss = pointer_loss(model(source, target), target)  # target: a word, or target_words + i to copy place i
            written = model.write(source)                       # greedy, the same numbering

    Source: See, Liu and Manning, ACL 2017 (arXiv 1704.04368), section 2.2; one softmax as in Gu et al., ACL 2016.
    """

    def __init__(
        self,
        source_words: int,
        target_words: int,
        source_length: int,
        target_length: int,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        sizes = {"source_words": source_words, "target_words": target_words}
        sizes |= {"source_length": source_length, "target_length": target_length}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name}={value}: give a number of at least 1")
        self.target_words, self.source_length, self.target_length = target_words, source_length, target_length
        self.source = nn.Embedding(source_words, width, padding_idx=0)
        self.target = nn.Embedding(target_words + source_length + 1, width)  # the last is what a target begins with
        context = source_length + target_length
        self.body = Transformer(
            width, layers, heads, visibility="prefix", positions="learned", context=context, generator=generator
        )
        self.vocabulary = nn.Linear(width, target_words)
        self.query, self.key = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        with torch.no_grad():
            for parameter in (self.source.weight, self.target.weight, self.body.positions):
                nn.init.normal_(parameter, std=0.1, generator=generator)  # type: ignore[arg-type]
            for layer in (self.vocabulary, self.query, self.key):
                nn.init.normal_(layer.weight, std=width**-0.5, generator=generator)
            nn.init.zeros_(self.vocabulary.bias)
            self.source.weight[0] = 0

    def forward(
        self, source: Int[Tensor, "batch source"], target: Int[Tensor, "batch target"]
    ) -> Float[Tensor, "batch target choices"]:
        """Log-probabilities of what comes at each target position: a word, or (from target_words on) a copy.

        Args:
            source: words, 0 behind the end.
            target: what comes there, of which a position reads only those before it.
        """
        begin = torch.full_like(target[:, :1], self.target.num_embeddings - 1)
        read = torch.cat([begin, target[:, :-1]], dim=1)
        length = source.shape[1]
        states = self.body(torch.cat([self.source(source), self.target(read)], dim=1), prefix=length)
        there, here = states[:, :length], states[:, length:]
        pointed = self.query(here) @ self.key(there).mT / self.query.out_features**0.5
        pointed = pointed.masked_fill((source == 0)[:, None], -torch.inf)
        return torch.cat([self.vocabulary(here), pointed], dim=-1).log_softmax(-1)

    @torch.no_grad()
    def write(
        self,
        source: Int[Tensor, "batch source"],
        *,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "batch target"]:
        """Targets word by word: the most probable each time, or drawn at a temperature.

        Args:
            source: words, 0 behind the end.
            temperature: what log-probabilities are divided by; 0 takes the greatest.
            generator: where draws come from.

        Returns:
            Words or copies, 0 at the end and behind it.
        """
        if temperature < 0:
            raise ValueError(f"temperature={temperature}: give a number of at least 0")
        target = source.new_zeros(len(source), self.target_length)
        running = torch.ones(len(source), dtype=torch.bool, device=source.device)
        for place in range(self.target_length):
            scores = self(source, target[:, : place + 1])[:, -1]
            if temperature:
                word = torch.multinomial((scores / temperature).softmax(-1), 1, generator=generator)[:, 0]
            else:
                word = scores.argmax(-1)
            target[:, place] = torch.where(running, word, 0)
            running = running & (word != 0)
            if not running.any():
                break
        return target


def pointer_loss(
    scores: Float[Tensor, "batch target choices"], target: Int[Tensor, "batch target"]
) -> Float[Tensor, ""]:
    """Mean negative log-probability of the targets, up to and including the first end of each.

    Args:
        scores: log-probabilities, as `PointerGenerator` gives them.
        target: words or copies, 0 at the end and behind it.
    """
    chosen = scores.gather(-1, target[..., None])[..., 0]
    going_on = (target != 0).cumprod(1)
    counted = torch.cat([torch.ones_like(going_on[:, :1]), going_on[:, :-1]], dim=1).to(chosen.dtype)
    return -(chosen * counted).sum() / counted.sum()
