"""Corpora of connected digits, their errors and delays against those of made-up networks, and training on them."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import ctc_loss, one_hot

from etude.data import connected_digits, dial_tones
from etude.nn import StreamingConvNet
from etude.training import digit_corpus, fit_ctc


def corpus(n=12, spelled=False, seed=0):
    return digit_corpus(
        dial_tones(), n, takes=range(5), generator=torch.Generator().manual_seed(seed), snr=30.0, spelled=spelled
    )


def test_labels_and_times_are_those_of_the_utterances():
    made = connected_digits(dial_tones(), 12, takes=range(5), generator=torch.Generator().manual_seed(0), snr=30.0)
    given = corpus()
    assert torch.equal(given.labels, made.digits + 1)
    assert torch.equal(given.ends, 1000 * made.ends)
    assert given.features.shape[1] >= 4 * int(given.frames.max())
    assert (given.frames * 40 <= 1000 * made.samples / 8000).all()
    assert len(given.spoken()) == 4 * int(given.frames.sum())


def test_spelled_utterances_are_the_same_sound_in_letters():
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    given, spelled = corpus(), corpus(spelled=True)
    assert torch.equal(spelled.features, given.features)
    for item in range(len(given.counts)):
        text = "".join(spelled.symbols[label] for label in spelled.labels[item, : spelled.counts[item]])
        assert text.split() == [names[label - 1] for label in given.labels[item, : given.counts[item]]]
    with pytest.raises(ValueError, match=r"^begins, ends"):
        spelled.delays(torch.zeros(3, 12, 17))


class Oracle(nn.Module):
    """Emits digits in the last whole frame before their ends, and takes the first of an utterance for another."""

    def __init__(self, corpus):
        super().__init__()
        self.corpus, self.done = corpus, 0
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        here = slice(self.done, self.done + len(x))
        self.done += len(x)
        path = torch.zeros(len(x), x.shape[1] // 4, dtype=torch.long)
        for row, labels, ends, count in zip(
            path, self.corpus.labels[here], self.corpus.ends[here], self.corpus.counts[here]
        ):
            said = labels[:count].clone()
            said[0] = said[0] % 10 + 1
            row[(ends[:count] / 40).long() - 1] = said
        return (9.0 * one_hot(path.T, 11)).log_softmax(-1)


def test_errors_and_delays_are_those_of_a_network_made_by_hand():
    given = corpus()
    log_probs = given.log_probs(Oracle(given), batch=5)
    wrong = len(given.counts) / int(given.counts.sum())
    errors = given.errors(log_probs)
    assert errors["error"] == pytest.approx(wrong)
    assert errors["beam_error"] == pytest.approx(wrong)
    for after, shortest, longest in (("end", 0, 0), ("begin", 100, 300)):  # how long sounds are, in ms
        delays = given.delays(log_probs, after=after)
        assert len(delays) == int(given.counts.sum()) - len(given.counts)
        assert float(delays.min()) > shortest - 40
        assert float(delays.max()) <= longest
    assert len(given.delays(log_probs, forced=True)) == int(given.counts.sum())
    with pytest.raises(ValueError, match=r"^after='start'"):
        given.delays(log_probs, after="start")


def test_training_depends_on_its_generator_and_shortens_where_it_is_told():
    given = corpus(n=20)
    seen = []

    def shorten(x, frames, counts):
        seen.append((x.shape, counts))
        return x[:, 4:], frames - 1

    def weights(seed, **options):
        model = StreamingConvNet(40, 11, width=8, blocks=1, generator=torch.Generator().manual_seed(0))
        generator = torch.Generator().manual_seed(seed)
        fit_ctc(model, given, ctc_loss, epochs=1, learning_rate=1e-3, generator=generator, batch=8, **options)
        return model.output.weight.detach()

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))
    assert not torch.equal(weights(0), weights(0, augment=shorten))
    assert [shape[0] for shape, _ in seen] == [8, 8]


def test_a_batch_holds_utterances_of_similar_length_and_an_epoch_each_of_them_once():
    given, seen = corpus(n=64), []

    def note(x, frames, counts):
        seen.append(frames)
        return x, frames

    model = StreamingConvNet(40, 11, width=8, blocks=1)
    generator = torch.Generator().manual_seed(0)
    fit_ctc(model, given, ctc_loss, epochs=1, learning_rate=1e-3, generator=generator, batch=8, augment=note)
    assert torch.equal(torch.cat(seen).sort().values, given.frames.sort().values)
    spans = sorted((int(frames.min()), int(frames.max())) for frames in seen)
    assert all(longest <= shortest for (_, longest), (shortest, _) in itertools.pairwise(spans))


def test_training_learns_tones():
    given = corpus(n=32)
    model = StreamingConvNet(40, 11, width=16, blocks=1, generator=torch.Generator().manual_seed(0))
    model.standardise_by(given.spoken())
    before = given.log_probs(model)
    fit_ctc(model, given, ctc_loss, epochs=3, learning_rate=3e-3, generator=torch.Generator().manual_seed(0))
    args = (given.labels, given.frames, given.counts)
    assert ctc_loss(given.log_probs(model), *args) < ctc_loss(before, *args) / 2


@pytest.mark.parametrize("epochs", [1, 2, 10, 11])
def test_trainings_of_few_steps_run(epochs):
    model = StreamingConvNet(40, 11, width=8, blocks=1)
    fit_ctc(model, corpus(), ctc_loss, epochs=epochs, learning_rate=1e-3, generator=torch.Generator(), batch=12)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch": 0}, {"batch": 13}])
def test_training_of_no_step_is_refused(change):
    options = {"epochs": 1, "learning_rate": 1e-3, "generator": torch.Generator(), **change}
    model = StreamingConvNet(40, 11, width=8, blocks=1)
    with pytest.raises(ValueError, match=r"^epochs="):
        fit_ctc(model, corpus(), ctc_loss, **options)
