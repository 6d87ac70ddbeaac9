"""Decoders against brute force, and error rates and delays on utterances made by hand."""

import itertools
import sys

import pytest
import torch
from torch.nn.functional import log_softmax

from etude.errors import MissingExtra
from etude.training import (
    collapse_alignments,
    ctc_beam_search,
    ctc_greedy_search,
    emission_delays,
    labels_to_text,
    text_error_rate,
)


def test_greedy_search_collapses_the_most_probable_labels():
    path = torch.tensor([[0, 1, 1, 0, 1, 2, 2], [3, 3, 0, 0, 2, 0, 3]])
    log_probs = log_softmax(5.0 * torch.nn.functional.one_hot(path.T, 4), -1)
    tokens = ctc_greedy_search(log_probs, [7, 6])
    assert labels_to_text(tokens.labels, tokens.counts, "-abc") == ["aab", "cb"]
    assert tokens.first[0, :3].tolist() == [1, 4, 5]
    assert tokens.last[0, :3].tolist() == [2, 4, 6]


@pytest.mark.parametrize("blank", [0, 2])
def test_beam_search_finds_the_most_probable_text(blank):
    frames, items, vocabulary = 5, 30, 3
    draws = torch.Generator().manual_seed(0)
    log_probs = log_softmax(torch.randn(frames, items, vocabulary, generator=draws), -1)
    lengths = torch.randint(1, frames + 1, (items,), generator=draws)
    found = ctc_beam_search(log_probs, lengths, blank=blank, beams=1000)
    differs_from_greedy = 0
    for item, length in enumerate(lengths.tolist()):
        probability = {}
        for path in itertools.product(range(vocabulary), repeat=length):
            text = tuple(label for label, _ in itertools.groupby(path) if label != blank)
            score = sum(float(log_probs[t, item, label]) for t, label in enumerate(path))
            probability[text] = probability.get(text, 0) + torch.tensor(score).exp()
        assert tuple(found[item]) == max(probability, key=probability.get)
        greedy = collapse_alignments(log_probs[:, item].argmax(-1)[None], torch.tensor([length]), blank=blank)
        differs_from_greedy += greedy.labels[0, : int(greedy.counts)].tolist() != found[item]
    assert differs_from_greedy > 0


def test_error_rates_count_words_and_characters():
    references, hypotheses = ["one two", "nine"], ["one too two", "nive"]
    assert text_error_rate(references, hypotheses) == pytest.approx(2 / 3)
    assert text_error_rate(references, hypotheses, unit="character") == pytest.approx(5 / 11)
    assert text_error_rate(["one"], [""]) == 1


def test_delays_are_those_of_rightly_recognised_tokens():
    # said: 5 7 7 2; recognised: 5 9 7 2, the second token wrong
    path = torch.tensor([[0, 5, 5, 9, 0, 7, 0, 2, 0, 0]])
    tokens = collapse_alignments(path, torch.tensor([10]))
    ends = torch.tensor([[0.10, 0.20, 0.25, 0.30]])
    delays = emission_delays(tokens, torch.tensor([[5, 7, 7, 2]]), [4], ends, frame=0.04)
    assert delays.tolist() == pytest.approx([2 * 0.04 - 0.10, 6 * 0.04 - 0.25, 8 * 0.04 - 0.30])
    nothing = collapse_alignments(torch.zeros(1, 10, dtype=torch.long), torch.tensor([10]))
    assert emission_delays(nothing, torch.tensor([[5, 7, 7, 2]]), [4], ends, frame=0.04).shape == (0,)


def test_what_cannot_be_measured_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^references: text 1 is empty"):
        text_error_rate(["a", " "], ["a", "b"])
    with pytest.raises(ValueError, match=r"^hypotheses: 1 texts for 2"):
        text_error_rate(["a", "b"], ["a"])
    with pytest.raises(ValueError, match=r"^beams=0"):
        ctc_beam_search(torch.zeros(3, 1, 2), [3], beams=0)


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("jiwer", lambda: text_error_rate(["a"], ["a"])),
        ("fast_ctc_decode", lambda: ctc_beam_search(torch.zeros(3, 1, 2), [3])),
    ],
)
def test_an_absent_package_is_named_with_its_remedy(package, call, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"etude\[speech\]"):
        call()
