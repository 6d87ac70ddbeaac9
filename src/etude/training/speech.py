"""Recognising speech with a CTC network: a corpus as the network sees it, and plain training on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from etude.data import SpokenDigits, connected_digits
from etude.data.speech import DIGITS
from etude.nn import LogMel
from etude.training.ctc import collapse_alignments, viterbi_align
from etude.training.ctc_decoding import (
    ctc_beam_search,
    ctc_greedy_search,
    emission_delays,
    labels_to_text,
    text_error_rate,
)

__all__ = ["SpeechCorpus", "digit_corpus", "fit_ctc"]

LETTERS = (" ", *sorted(set("".join(DIGITS))))
SUBSAMPLING = 4  # feature frames of 10 ms to a frame of the network
FRAME = 40.0  # its duration in milliseconds


@dataclass(frozen=True, eq=False)
class SpeechCorpus:
    """Utterances as a network sees them that emits a frame for every four of features.

    Attributes:
        features: log-mel, a frame each 10 ms, (n, T, filters).
        frames: frames of 40 ms of each utterance, (n,).
        labels: what is said, from 1, padded with 0, (n, S).
        counts: labels of each utterance, (n,).
        symbols: the text of each label; label 0 is the blank.
        begins: when each label's sound begins, in ms, (n, S); None where that is unknown.
        ends: when it ends.
    """

    features: Float[Tensor, "n frames filters"]
    frames: Int[Tensor, " n"]
    labels: Int[Tensor, "n symbols"]
    counts: Int[Tensor, " n"]
    symbols: tuple[str, ...]
    begins: Float[Tensor, "n symbols"] | None = None
    ends: Float[Tensor, "n symbols"] | None = None

    def spoken(self) -> Float[Tensor, "spoken filters"]:
        """The feature frames of all utterances, without what is behind their ends."""
        return self.features[torch.arange(self.features.shape[1]) < SUBSAMPLING * self.frames[:, None]]

    @torch.no_grad()
    def log_probs(self, model: nn.Module, batch: int = 50) -> Float[Tensor, "frames n vocabulary"]:
        """What a network makes of it, on the device of the corpus.

        Args:
            model: from features (B, T, filters) to log-probabilities (T // 4, B, V); on any device, in the mode it is
                in (call ``eval()`` first where it has dropout or batch normalisation).
            batch: utterances at a time.
        """
        device = next(model.parameters()).device
        outputs = [model(x.to(device)) for x in self.features.split(batch)]
        return torch.cat(outputs, 1).to(self.features.device)

    def errors(self, log_probs: Float[Tensor, "frames n vocabulary"]) -> dict[str, float]:
        """Word error rate by greedy and by beam search, and character error rate by greedy search, as fractions.

        Args:
            log_probs: log P(v | x, t), (T, n, V).

        Raises:
            MissingExtra: jiwer or fast-ctc-decode is not installed.
        """
        references = labels_to_text(self.labels, self.counts, self.symbols)
        tokens = ctc_greedy_search(log_probs, self.frames)
        greedy = labels_to_text(tokens.labels, tokens.counts, self.symbols)
        beam = ["".join(self.symbols[label] for label in text) for text in ctc_beam_search(log_probs, self.frames)]
        return {
            "error": text_error_rate(references, greedy),
            "beam_error": text_error_rate(references, beam),
            "character_error": text_error_rate(references, greedy, unit="character"),
        }

    def delays(
        self, log_probs: Float[Tensor, "frames n vocabulary"], *, after: str = "end", forced: bool = False
    ) -> Float[Tensor, " recognised"]:
        """How many milliseconds after its sound each token is emitted, as `emission_delays` defines it.

        Args:
            log_probs: log P(v | x, t), (T, n, V).
            after: ``"begin"`` or ``"end"`` of the sound.
            forced: of the forced alignment, which holds all tokens, in place of the rightly recognised ones of a
                greedy search.

        Raises:
            ValueError: `after` is another word, or the corpus does not know its times.
            MissingExtra: jiwer is not installed.
        """
        if after not in ("begin", "end"):
            raise ValueError(f"after={after!r}: give 'begin' or 'end'")
        times = self.begins if after == "begin" else self.ends
        if times is None:
            raise ValueError("begins, ends: this corpus does not know when its labels are spoken")
        if forced:
            path = viterbi_align(log_probs, self.labels, self.frames, self.counts)
            tokens = collapse_alignments(path, self.frames)
        else:
            tokens = ctc_greedy_search(log_probs, self.frames)
        return emission_delays(tokens, self.labels, self.counts, times, frame=FRAME)


def digit_corpus(
    recordings: SpokenDigits,
    n: int,
    *,
    takes: Sequence[int],
    generator: torch.Generator,
    speakers: Sequence[int] | None = None,
    snr: float | None = None,
    spelled: bool = False,
) -> SpeechCorpus:
    """Connected digits, with a label for each digit, or for each letter and the space between words.

    Args:
        recordings: what they are made of.
        n: utterances.
        takes: the takes to draw from.
        generator: where everything random comes from; on the processor.
        speakers: numbers of the speakers to draw from; by default all.
        snr: signal-to-noise ratio in decibels; no noise when left out.
        spelled: whether labels are letters, whose times are not known.

    Raises:
        ValueError: as for `etude.data.connected_digits`.
    """
    made = connected_digits(recordings, n, takes=takes, generator=generator, speakers=speakers, snr=snr)
    log_mel = LogMel(recordings.rate)
    features = torch.cat([log_mel(waveforms) for waveforms in made.waveforms.split(50)])
    frames = log_mel.frames(made.samples) // SUBSAMPLING
    if not spelled:
        symbols = ("", *(f" {digit}" for digit in range(10)))
        times = (1000 * made.begins, 1000 * made.ends)
        return SpeechCorpus(features, frames, made.digits + 1, made.counts, symbols, *times)
    texts = [" ".join(DIGITS[digit] for digit in row if digit >= 0) for row in made.digits.tolist()]
    letters = [torch.tensor([LETTERS.index(letter) + 1 for letter in text]) for text in texts]
    labels, counts = nn.utils.rnn.pad_sequence(letters, batch_first=True), torch.tensor([*map(len, texts)])
    return SpeechCorpus(features, frames, labels, counts, ("", *LETTERS))


def fit_ctc(
    model: nn.Module,
    corpus: SpeechCorpus,
    loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    *,
    epochs: int,
    learning_rate: float,
    generator: torch.Generator,
    batch: int = 16,
    augment: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> None:
    """Train a network in place: Adam, the learning rate rising for a tenth of the steps and falling to nearly zero.

    Batches are of utterances of similar length, out of eight times as many drawn; they go to the device of the network.

    Args:
        model: from features (B, T, filters) to log-probabilities (T // 4, B, V).
        corpus: the utterances; those that fill no batch are left out of an epoch.
        loss: of (log-probabilities, labels, frames, counts), such as torch's ``ctc_loss``.
        epochs: how often an utterance is seen, at least 1.
        learning_rate: the greatest.
        generator: gives the order of the utterances.
        batch: utterances a step.
        augment: makes of the (features, frames, counts) of a batch its new (features, frames).

    Raises:
        ValueError: an argument out of range.
    """
    steps = len(corpus.frames) // batch if batch > 0 else 0
    if epochs < 1 or steps < 1:
        raise ValueError(
            f"epochs={epochs!r}, batch={batch!r}: give at least one epoch of at least one batch of the "
            f"{len(corpus.frames)} utterances"
        )
    device = next(model.parameters()).device
    adam = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    # Not quite a tenth: with exactly that torch divides by zero where a training has ten steps.
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, learning_rate, total_steps=epochs * steps, pct_start=0.099)
    for _ in range(epochs):
        order = torch.randperm(len(corpus.frames), generator=generator)[: steps * batch]
        # Utterances of similar length share a batch, so that less of it is padding.
        groups = [group[corpus.frames[group].argsort()] for group in order.split(8 * batch)]
        batches = torch.cat(groups).view(steps, batch)
        for index in batches[torch.randperm(steps, generator=generator)]:
            longest = SUBSAMPLING * int(corpus.frames[index].max())
            parts = corpus.features[index, :longest], corpus.labels[index], corpus.frames[index], corpus.counts[index]
            x, labels, frames, counts = (part.to(device) for part in parts)
            if augment is not None:
                x, frames = augment(x, frames, counts)
            value = loss(model(x), labels, frames, counts)
            adam.zero_grad()
            value.backward()
            adam.step()
            schedule.step()
