"""Byte pairs against counting with a dictionary, and the texts where they are at hand."""

from collections import Counter
from itertools import pairwise

import pytest

from etude.data import BytePairs, available, texts
from etude.errors import MissingData

TEXT = "the cat sat on the mat , the the  theme aaaaaaa aaa\nnaïve café — the end\n" * 3


def by_hand(text, size):
    """Join the most frequent pair with lists; a token that begins with white space is no second half."""
    tokens, written, merges = list(text.encode()), {byte: bytes([byte]) for byte in range(256)}, []
    while len(written) < size:
        pairs = Counter((a, b) for a, b in pairwise(tokens) if written[b][:1] not in (b" ", b"\n", b"\t"))
        most = max(pairs.values(), default=0)
        if most < 2:
            break
        pair = min(pair for pair, count in pairs.items() if count == most)
        new, joined, place = len(written), [], 0
        while place < len(tokens):
            if tuple(tokens[place : place + 2]) == pair:
                joined.append(new)
                place += 2
            else:
                joined.append(tokens[place])
                place += 1
        tokens, written[new] = joined, written[pair[0]] + written[pair[1]]
        merges.append(pair)
    return merges, tokens


@pytest.mark.parametrize("size", [256, 260, 300, 1_000])
def test_pairs_are_those_counted_by_hand(size):
    merges, tokens = by_hand(TEXT, size)
    pairs = BytePairs.learn(TEXT, size)
    assert list(pairs.merges) == merges
    assert pairs.encode(TEXT).tolist() == tokens
    assert pairs.size == 256 + len(merges) <= size


def test_a_text_comes_back_whether_or_not_it_was_learnt_from():
    pairs = BytePairs.learn(TEXT, 320)
    for text in (TEXT, "", "a", "aaaa", "unheard of: ∀x", "the  \n\n theatre"):
        assert pairs.decode(pairs.encode(text)) == text
    assert BytePairs().encode("é").tolist() == list("é".encode())


def test_no_token_goes_on_over_the_beginning_of_a_word():
    pairs = BytePairs.learn(TEXT, 400)
    for number in range(256, pairs.size):
        assert not any(space in pairs.decode([number])[1:] for space in " \n\t")


def test_the_named_text_is_read_whole():
    if not {status.name: status.present for status in available()}["wikitext-2"]:
        pytest.skip("WikiText-2 is not at hand")
    parts = texts("wikitext-2")
    assert {name: len(part.encode()) for name, part in parts.items()} == {"validation": 1_121_681, "test": 1_256_449}


def test_a_text_that_is_not_there_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("ETUDE_DATA", str(tmp_path))
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "wikitext-2").mkdir()
    (tmp_path / "wikitext-2" / "valid.txt").write_text("no such text")
    with pytest.raises(MissingData, match=r"valid\.txt"):
        texts("wikitext-2")


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"name='wikitext2'.*wikitext-2"):
        texts("wikitext2")
    with pytest.raises(ValueError, match="size=255"):
        BytePairs.learn(TEXT, 255)
