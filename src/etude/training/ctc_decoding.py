"""From a CTC network's probabilities to texts, and how wrong and how late they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from etude.errors import MissingExtra
from etude.training.ctc import Emissions, Lengths, _lengths, collapse_alignments

__all__ = ["ctc_beam_search", "ctc_greedy_search", "emission_delays", "labels_to_text", "text_error_rate"]


@torch.no_grad()
def ctc_greedy_search(
    log_probs: Float[Tensor, "frames batch vocabulary"], input_lengths: Lengths, *, blank: int = 0
) -> Emissions:
    """The text of the most probable alignment, with the frames of its tokens.

    Args:
        log_probs: log P(v | x, t), (T, B, V).
        input_lengths: frames of each utterance.
        blank: the blank label.

    Returns:
        `Emissions` of shape (B, T).
    """
    lengths = _lengths("input_lengths", input_lengths, log_probs.shape[1], log_probs.device)
    return collapse_alignments(log_probs.argmax(-1).T, lengths, blank=blank)


@torch.no_grad()
def ctc_beam_search(
    log_probs: Float[Tensor, "frames batch vocabulary"],
    input_lengths: Lengths,
    *,
    blank: int = 0,
    beams: int = 8,
) -> list[list[int]]:
    """The most probable text by prefix beam search, without a language model (fast-ctc-decode, on the processor).

    The probability of a text is the sum over its alignments, so that it can differ from `ctc_greedy_search`'s.

    Args:
        log_probs: log P(v | x, t), (T, B, V).
        input_lengths: frames of each utterance.
        blank: the blank label.
        beams: texts kept at each frame, at least 1; with enough of them the search is exact.

    Returns:
        The labels of each utterance's text.

    Raises:
        ValueError: `beams` is out of range.
        MissingExtra: fast-ctc-decode is not installed.

    Source: Graves et al., ICML 2006, section 3.2.
    """
    if isinstance(beams, bool) or not isinstance(beams, int) or beams < 1:
        raise ValueError(f"beams={beams!r}: give a whole number of at least 1")
    try:
        from fast_ctc_decode import beam_search as decode
    except ImportError as error:
        raise _missing("fast-ctc-decode", "beam search") from error
    _, batch, vocabulary = log_probs.shape
    lengths = _lengths("input_lengths", input_lengths, batch, log_probs.device).tolist()
    # The library wants the blank first, and one character a label.
    order = [blank, *(label for label in range(vocabulary) if label != blank)]
    alphabet = [chr(0x4E00 + label) for label in order]
    probabilities = log_probs[..., order].float().exp().transpose(0, 1).contiguous().cpu().numpy()
    found = (decode(item[:length], alphabet, beam_size=beams)[0] for item, length in zip(probabilities, lengths))
    return [[ord(character) - 0x4E00 for character in text] for text in found]


def labels_to_text(
    labels: Int[Tensor, "batch symbols"], counts: Int[Tensor, " batch"], symbols: Sequence[str], *, between: str = ""
) -> list[str]:
    """Labels as strings.

    Args:
        labels: (B, S); what is beyond the counts is not looked at.
        counts: labels of each item.
        symbols: the string of each label.
        between: what is put between two labels, such as a space where labels are words.
    """
    return [
        between.join(symbols[label] for label in row[:count]) for row, count in zip(labels.tolist(), counts.tolist())
    ]


def text_error_rate(
    references: Sequence[str], hypotheses: Sequence[str], *, unit: Literal["word", "character"] = "word"
) -> float:
    """Word or character error rate: substitutions, insertions and deletions over the length of the references (jiwer).

    Args:
        references: what was said; none is empty.
        hypotheses: what was recognised.
        unit: what is counted.

    Returns:
        A fraction; above 1 where much is inserted.

    Raises:
        ValueError: different numbers of texts, or an empty reference.
        MissingExtra: jiwer is not installed.
    """
    if len(references) != len(hypotheses) or not references:
        raise ValueError(
            f"hypotheses: {len(hypotheses)} texts for {len(references)} references; give as many, at least 1"
        )
    if empty := [place for place, text in enumerate(references) if not text.strip()]:
        raise ValueError(f"references: text {empty[0]} is empty; an error rate divides by its length")
    try:
        import jiwer
    except ImportError as error:
        raise _missing("jiwer", "error rates") from error
    count = jiwer.wer if unit == "word" else jiwer.cer
    return float(count(list(references), list(hypotheses)))


def emission_delays(
    tokens: Emissions,
    targets: Int[Tensor, "batch symbols"],
    target_lengths: Lengths,
    ends: Float[Tensor, "batch symbols"],
    *,
    frame: float,
) -> Float[Tensor, " recognised"]:
    """How long after its end each rightly recognised token is emitted.

    A token is emitted with the end of its first frame, at ``(first + 1) * frame``; the network's look-ahead, the same
    for every token, comes on top. Which recognised token is which one of the target is decided by edit distance
    (jiwer), so that an error elsewhere in an utterance does not remove its other tokens.

    Args:
        tokens: recognised, (B, T).
        targets: what was said, (B, S).
        target_lengths: tokens of each target, at least 1.
        ends: when each token of the target ends, from the beginning of the utterance, in the unit of `frame`.
        frame: duration of a frame of `tokens`.

    Returns:
        Delays in the unit of `frame`, utterance by utterance; negative where a token is emitted before its end.

    Raises:
        MissingExtra: jiwer is not installed.
    """
    try:
        import jiwer
    except ImportError as error:
        raise _missing("jiwer", "matching recognised tokens with targets") from error
    counts = _lengths("target_lengths", target_lengths, len(targets), targets.device)
    symbols = [str(label) for label in range(int(max(targets.max(), tokens.labels.max())) + 1)]
    references = labels_to_text(targets, counts, symbols, between=" ")
    hypotheses = labels_to_text(tokens.labels, tokens.counts, symbols, between=" ")
    item, said, meant = [], [], []
    for row, chunks in enumerate(jiwer.process_words(references, hypotheses).alignments):
        for chunk in chunks:
            if chunk.type == "equal":
                meant += range(chunk.ref_start_idx, chunk.ref_end_idx)
                said += range(chunk.hyp_start_idx, chunk.hyp_end_idx)
                item += [row] * (chunk.ref_end_idx - chunk.ref_start_idx)
    rows = torch.tensor(item, dtype=torch.long, device=targets.device)
    return (tokens.first[rows, said] + 1) * frame - ends[rows, meant]


def _missing(package: str, purpose: str) -> MissingExtra:
    return MissingExtra(
        f"{package} is not installed, and {purpose} needs it", "Install it: pip install 'etude[speech]'"
    )
