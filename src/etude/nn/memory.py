"""End-to-end memory networks: questions answered by attending, several times, to stored sentences."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["MemoryNetwork", "position_encoding"]


def position_encoding(words: int, features: int) -> Float[Tensor, "words features"]:
    """Weights that make a sum of word vectors depend on their order.

    ``l_jk = (1 - j / J) - (k / d) (1 - 2 j / J)`` for word j = 1..J and feature k = 1..d.

    Args:
        words: J, the length of a sentence.
        features: d, the length of a word's vector.

    Returns:
        The weights.

    Source: Sukhbaatar et al. (arXiv 1503.08895), section 4.1.
    """
    j = torch.arange(1, words + 1)[:, None] / words
    k = torch.arange(1, features + 1) / features
    return (1 - j) - k * (1 - 2 * j)


class MemoryNetwork(nn.Module):
    """A memory network with adjacent weight sharing.

    A sentence x_i is stored as ``m_i = sum_j l_j * A x_ij + T_A(i)`` and answers as ``c_i``, the same with C; a
    question becomes ``u = sum_j l_j * B q_j``. Each hop adds ``o = sum_i softmax(u^T m)_i c_i`` to u; the answer's
    logits are ``W u``. Sharing: A of a hop is C of the one before, B is the first A, W the last C; so the hops + 1
    tables of ``embeddings`` and ``times`` are all the parameters. Sentences are numbered from the last one back; word
    0 is padding, with a vector of zeros that noise on the parameters does not reach.

    Args:
        vocabulary: number of words, padding included; at least 2.
        sentences: most sentences that are stored.
        words: words in a sentence, and at most as many in a question.
        features: length of a vector.
        hops: how often the memory is read.
        deviation: of the initial parameters, which are normal.
        generator: where they are drawn from; by default torch's own.

    Raises:
        ValueError: a number out of range.

    Source: Sukhbaatar, Szlam, Weston and Fergus, End-To-End Memory Networks, NeurIPS 2015 (arXiv 1503.08895),
        sections 2 and 4.1.
    """

    encoding: Tensor

    def __init__(
        self,
        vocabulary: int,
        sentences: int,
        words: int,
        *,
        features: int = 20,
        hops: int = 3,
        deviation: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        counts = {"vocabulary": vocabulary - 1, "sentences": sentences, "words": words, "features": features}
        for name, value in (counts | {"hops": hops}).items():
            if value < 1:
                raise ValueError(f"{name}={value + (name == 'vocabulary')}: too few")
        shapes = (hops + 1, vocabulary - 1, features), (hops + 1, sentences, features)
        self.embeddings, self.times = (
            nn.Parameter(torch.empty(shape).normal_(0, deviation, generator=generator)) for shape in shapes
        )
        self.register_buffer("encoding", position_encoding(words, features), persistent=False)

    def forward(
        self, story: Int[Tensor, "batch sentences words"], question: Int[Tensor, "batch question_words"]
    ) -> Float[Tensor, "batch vocabulary"]:
        """Logits of the answer; sentences of padding alone, such as fill up short stories, are not attended to."""
        tables, features = len(self.embeddings), self.embeddings.shape[2]
        padded = functional.pad(self.embeddings, (0, 0, 1, 0))
        # all tables side by side: one look-up reads a word's vectors of every hop
        words = functional.embedding(story, padded.transpose(0, 1).flatten(1)).unflatten(-1, (tables, features))
        stored = torch.einsum("bsjhd,jd->hbsd", words, self.encoding)
        stored = stored + self.times[:, : story.shape[1]].flip(1).unsqueeze(1)
        empty = (story == 0).all(2)
        u = torch.einsum("bjd,jd->bd", functional.embedding(question, padded[0]), self.encoding[: question.shape[1]])
        for memory, answer in pairwise(stored):
            match = torch.einsum("bsd,bd->bs", memory, u).masked_fill(empty, -torch.inf)
            u = u + torch.einsum("bs,bsd->bd", match.softmax(1), answer)
        return u @ padded[-1].T
