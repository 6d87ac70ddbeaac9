"""The named texts, and byte pairs to write them in. To add a text: a `Source`, and what its files are parts of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from etude.data.locate import SOURCES, Source, listing, locate
from etude.errors import suggest

__all__ = ["BytePairs", "texts"]

# The validation and test articles as PyTorch's examples keep them; the page they first came from is gone.
WIKITEXT_2 = Source(
    "wikitext-2",
    files=listing(
        """
        f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8 1121681 valid.txt
        d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0 1256449 test.txt
        """
    ),
    address="https://raw.githubusercontent.com/pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8/"
    "word_language_model/data/wikitext-2/",
)
PARTS = {"wikitext-2": {"validation": "valid.txt", "test": "test.txt"}}
SOURCES[WIKITEXT_2.name] = WIKITEXT_2


def texts(name: str) -> dict[str, str]:
    """The parts of a named text.

    Args:
        name: ``"wikitext-2"``, whose parts are ``"validation"`` and ``"test"``: 60 articles of Wikipedia each, words
            apart and rare ones replaced by <unk> (Merity et al., 2016, arXiv 1609.07843). Its training part, nine times
            as long, is not among them.

    Raises:
        ValueError: an unknown name.
        MissingData: the files are not at hand and cannot be fetched.
    """
    if name not in PARTS:
        raise ValueError(f"name={name!r}: there is no such text.{suggest(name, PARTS)} Give one of {', '.join(PARTS)}")
    paths = locate(SOURCES[name]).paths
    return {part: paths[file].read_text(encoding="utf-8") for part, file in PARTS[name].items()}


@dataclass(frozen=True)
class BytePairs:
    """Text as tokens: single bytes 0 to 255, then pairs of tokens that are often side by side.

    Args:
        merges: the pairs in their order; the first becomes token 256.

    Source: Sennrich, Haddow and Birch, ACL 2016 (arXiv 1508.07909), on bytes instead of characters.
    """

    merges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def learn(cls, text: str, size: int) -> BytePairs:
        """Join the most frequent pair of tokens, again and again.

        A token never goes on over the beginning of a word, so that words are written alike wherever they stand.

        Args:
            text: what is counted. Nothing of a test text should be in it.
            size: tokens in the end, at least 256; fewer where no pair occurs twice any more.

        Raises:
            ValueError: a size below 256.
        """
        if size < 256:
            raise ValueError(f"size={size}: give a number of at least 256, the single bytes")
        tokens = _bytes(text)
        begins = np.zeros(size, dtype=bool)  # tokens that begin with white space
        begins[list(b" \n\t")] = True
        merges: list[tuple[int, int]] = []
        while 256 + len(merges) < size:
            left, right = tokens[:-1], tokens[1:]
            inside = ~begins[right]
            counts = np.bincount(left[inside] * size + right[inside])
            if not len(counts) or counts.max() < 2:
                break
            pair = divmod(int(counts.argmax()), size)
            begins[256 + len(merges)] = begins[pair[0]]
            tokens = _join(tokens, pair, 256 + len(merges))
            merges.append(pair)
        return cls(tuple(merges))

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return 256 + len(self.merges)

    def encode(self, text: str) -> Int[np.ndarray, " tokens"]:
        """A text's tokens, pairs joined in the order in which they were learnt (`torch.from_numpy` takes them)."""
        tokens = _bytes(text)
        for number, pair in enumerate(self.merges, 256):
            tokens = _join(tokens, pair, number)
        return tokens

    def decode(self, tokens: Int[np.ndarray, " tokens"] | Sequence[int]) -> str:
        """The text of tokens; bytes that are no UTF-8 become replacement characters."""
        written = [bytes([byte]) for byte in range(256)]
        for left, right in self.merges:
            written.append(written[left] + written[right])
        return b"".join(written[int(token)] for token in tokens).decode(errors="replace")


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8).astype(np.int64)


def _join(tokens: np.ndarray, pair: tuple[int, int], number: int) -> np.ndarray:
    """Write a pair as one token wherever it stands, from the left."""
    place = np.flatnonzero((tokens[:-1] == pair[0]) & (tokens[1:] == pair[1]))
    if pair[0] == pair[1] and len(place):  # of a run such as aaa, every second pair overlaps the one before
        starts = np.flatnonzero(np.diff(place, prepend=-2) > 1)
        rank = np.arange(len(place)) - np.repeat(starts, np.diff(starts, append=len(place)))
        place = place[rank % 2 == 0]
    joined = tokens.copy()
    joined[place] = number
    return np.delete(joined, place + 1)
