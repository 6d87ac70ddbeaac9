"""Can a rule that improves alignments a little teach a CTC network to emit earlier, or to get more words right?

A small streaming network learns connected spoken digits with the CTC loss. From that checkpoint it learns on, with
CTC alone or with CTC plus a loss that prefers, to each alignment sampled from it, one that a rule has improved: the
same text one frame earlier, one frame later (a control), or with one word put right. All arms see the same utterances
in the same order with the same optimiser. When the loss begins, most words are right, as the paper advises.

Utterances are 3 to 6 recordings of single digits of one speaker with silences between, so that every token's end is
known; a token's delay is the end of the first frame that emits it minus the end of its recording (the network's
look-ahead of 400 ms, the same for all arms, comes on top). Only rightly recognised tokens count, found by edit
distance; beside it stands the delay of forced alignments, which all tokens enter. Test utterances are made of the set's
test takes, and a second test of one speaker (another for each seed) that the network never heard. In the second task
digits are spelled letter by letter, at a noise that leaves about a fifth of the words wrong.

Learning rates, weights and the noise were chosen on validation utterances of seeds 101 and 102, which no measurement
uses: the greatest weight of {0.03, 0.1, 0.3, 1, 3} whose validation error was at most a point above CTC's; and for
words, the weight with the least error. `extended` adds the comparison with three other ways to emit early, at three
strengths each.

The paper trains on up to 280,000 hours; those of LibriSpeech it also uses are not in reach here and have no token
times. `paper` is the protocol at full size for a corpus of your own (``--corpus mine:librispeech``): networks of some
25 million parameters, 280,000 utterances and 50 epochs, by the time of a step about a day on a GPU.

Source: Segev, Alroy et al., ICLR 2024 (arXiv 2307.01715), sections 3 to 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import jiwer
import torch
from scipy.stats import chisquare
from torch import Tensor
from torch.nn.functional import ctc_loss, log_softmax

from etude.data import connected_digits, spoken_digits
from etude.data.speech import DIGITS, TAKES
from etude.nn import LogMel, StreamingConvNet
from etude.study import (
    Axes,
    Config,
    Evidence,
    Lab,
    Paper,
    Quantity,
    Reference,
    Rule,
    Study,
    Table,
    all_of,
    exact,
    grid,
    mean,
    ratio,
)
from etude.training import (
    AlignWithPurpose,
    EarlierEmission,
    FewerWordErrors,
    LaterEmission,
    alignment_scores,
    collapse_alignments,
    collapses_to,
    ctc_beam_search,
    ctc_greedy_search,
    delay_penalised_ctc_loss,
    emission_delays,
    labels_to_text,
    peak_first_loss,
    sample_alignments,
    text_error_rate,
    trim_tail,
    viterbi_align,
)

State = dict[str, Tensor]
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
FRAME = 40.0  # milliseconds of an output frame: four feature frames of 10 ms
BATCH = 16
LETTERS = (" ", *sorted(set("".join(DIGITS))))


class Corpus(NamedTuple):
    """Utterances as a network sees them.

    Attributes:
        features: (n, T, 40).
        frames: output frames of each, (n,).
        labels: what is said, from 1, padded with 0, (n, S).
        counts: labels of each, (n,).
        begins: when each label's sound begins, in ms, (n, S).
        ends: when it ends.
        symbols: the text of each label; label 0 is the blank.
    """

    features: Tensor
    frames: Tensor
    labels: Tensor
    counts: Tensor
    begins: Tensor
    ends: Tensor
    symbols: tuple[str, ...]


PARTS = ("train", "validation", "test", "other speaker")


@lru_cache(maxsize=2)
def digits(part: str, n: int, snr: float, held_out: int, seed: int) -> Corpus:
    """Connected digits, a label each, of all speakers but one, or (part "other speaker") of that one."""
    recordings = spoken_digits()
    everyone = range(len(recordings.speakers))
    made = connected_digits(
        recordings,
        n,
        takes=TAKES.get(part, TAKES["test"]),
        generator=torch.Generator().manual_seed(seed + PARTS.index(part)),
        speakers=[who for who in everyone if (who == held_out) == (part == "other speaker")],
        snr=snr,
    )
    log_mel = LogMel(recordings.rate)
    features = torch.cat([log_mel(waveforms) for waveforms in made.waveforms.split(50)])
    times = (1000 * made.begins, 1000 * made.ends)
    symbols = ("", *(f" {digit}" for digit in range(10)))
    return Corpus(features, log_mel.frames(made.samples) // 4, made.digits + 1, made.counts, *times, symbols)


def spelled(part: str, n: int, snr: float, held_out: int, seed: int) -> Corpus:
    """The same utterances with a label for each letter, and one for the space between words."""
    corpus = digits(part, n, snr, held_out, seed)
    texts = [" ".join(DIGITS[label - 1] for label in row if label) for row in corpus.labels.tolist()]
    labels = [torch.tensor([LETTERS.index(letter) + 1 for letter in text]) for text in texts]
    padded = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True)
    unknown = torch.full(padded.shape, math.nan)
    counts = torch.tensor([len(text) for text in texts])
    return Corpus(corpus.features, corpus.frames, padded, counts, unknown, unknown, ("", *LETTERS))


class Protocol(Config):
    """What is learned for how long, and how strongly the preference counts."""

    seeds: int = 8
    corpus: Reference[Callable[..., Corpus]] = Reference("etude.papers.align_with_purpose:digits")
    """Makes the utterances whose delay is measured: ``(part, n, snr, held_out, seed) -> Corpus``."""
    spelled_corpus: Reference[Callable[..., Corpus]] = Reference("etude.papers.align_with_purpose:spelled")
    """Makes the utterances whose word errors are measured."""
    utterances: int = 1_600
    """Training utterances."""
    test_utterances: int = 400
    """Utterances of each test of delay."""
    spelled_test_utterances: int = 1_000
    """Utterances of the test of word errors."""
    epochs: int = 12
    """Epochs with the CTC loss alone."""
    purpose_epochs: int = 8
    """Epochs after that, in every arm."""
    learning_rate: float = 1e-3
    """Adam's greatest learning rate of the one-cycle schedule; half of it after the checkpoint."""
    width: int = 64
    """Channels of the network."""
    blocks: int = 5
    """Residual blocks of the network, each of which looks 80 ms ahead."""
    snr: float = 20.0
    """Signal-to-noise ratio in decibels where delay is measured."""
    spelled_snr: float = 0.0
    """The same where word errors are measured."""
    weight: float = 0.3
    """Weight of the preference for earlier (or later) emission."""
    word_weight: float = 0.3
    """Weight of the preference for fewer word errors."""
    paths: int = 100_000
    """Random alignments that the rule for earlier emission is checked on."""
    samples: int = 200_000
    """Alignments drawn where their share of perfect ones is compared with the CTC loss."""


STRENGTHS = {
    "earlier": (0.1, 0.3, 1.0),
    "delay penalty": (0.1, 0.3, 1.0),
    "peak first": (0.1, 0.3, 1.0),
    "trim tail": (10.0, 30.0, 60.0),
}
"""Weights of each method; of TrimTail the greatest number of frames of 10 ms cut."""

SMALL = "spoken digits with a network of 170,000 parameters instead of read speech; delays from true token times"

study = Study(
    paper=Paper(
        "Align With Purpose: Optimize Desired Properties in CTC Models with a General Plug-and-Play Framework",
        "Eliya Segev, Maya Alroy, et al.",
        2024,
        "2307.01715",
        "ICLR",
    ),
    topic="speech",
    extras=("speech",),
    presets={
        "smoke": Protocol(
            utterances=32,
            test_utterances=8,
            spelled_test_utterances=8,
            epochs=1,
            purpose_epochs=1,
            learning_rate=1e-6,  # so short a training would only learn the blank; this one stays where it is
            width=16,
            blocks=1,
            paths=2_000,
            samples=5_000,
            seeds=3,
        ),
        "laptop": Protocol(),
        "extended": Protocol(seeds=16, utterances=3_200),
        "paper": Protocol(utterances=280_000, epochs=50, purpose_epochs=25, width=512, blocks=12, seeds=5),
    },
)


@dataclass(frozen=True)
class Setting:
    """What a checkpoint depends on."""

    corpus: Reference[Callable[..., Corpus]]
    utterances: int
    snr: float
    held_out: int
    width: int
    blocks: int
    learning_rate: float
    epochs: int
    seed: int

    def data(self, part: str, n: int) -> Corpus:
        """Utterances of a part, the same in every arm."""
        return self.corpus.resolve()(part, n, self.snr, self.held_out, self.seed)

    def network(self) -> StreamingConvNet:
        """The network before training."""
        labels = len(self.data("train", self.utterances).symbols)
        draws = torch.Generator().manual_seed(self.seed)
        return StreamingConvNet(40, labels, width=self.width, blocks=self.blocks, generator=draws)


def learn(
    model: StreamingConvNet, corpus: Corpus, loss: Loss, *, epochs: int, learning_rate: float, order: int, cut: int = 0
) -> State:
    """Train in place; `order` seeds the order of utterances, `cut` is the most that TrimTail removes of them."""
    adam = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    draws, count = torch.Generator().manual_seed(order), len(corpus.frames)
    steps = epochs * (count // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, learning_rate, total_steps=steps, pct_start=0.1)
    quiet, place = corpus.features.min(), torch.arange(corpus.features.shape[1])[:, None]
    for step in range(steps):
        batch = step % (count // BATCH)
        if batch == 0:
            shuffled = torch.randperm(count, generator=draws)
        index = shuffled[batch * BATCH : (batch + 1) * BATCH]
        frames, counts = corpus.frames[index], corpus.counts[index]
        longest = 4 * int(frames.max())
        x = corpus.features[index, :longest]
        if cut:
            kept = trim_tail(4 * frames, cut, at_least=8 * counts, generator=draws)
            x, frames = torch.where(place[:longest] < kept[:, None, None], x, quiet), kept // 4
        value = loss(model(x), corpus.labels[index], frames, counts)
        adam.zero_grad()
        value.backward()
        adam.step()
        schedule.step()
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def purpose(arm: str, strength: float, labels: int, draws: torch.Generator) -> Loss:
    """The loss of an arm."""
    rules = {
        "earlier": EarlierEmission(generator=draws),
        "later": LaterEmission(generator=draws),
        "fewer word errors": FewerWordErrors(space=1, generator=draws),
    }
    if arm in rules:
        keeps = arm != "fewer word errors"
        awp = AlignWithPurpose(rules[arm], labels, weight=strength, preserves_text=keeps, generator=draws)
        return lambda *batch: ctc_loss(*batch) + awp(*batch)
    if arm == "delay penalty":
        return partial(delay_penalised_ctc_loss, weight=strength)
    if arm == "peak first":
        return lambda *batch: ctc_loss(*batch) + strength * peak_first_loss(batch[0], batch[2])
    return ctc_loss


def checkpoint(setting: Setting) -> State:
    """The network after training with CTC alone."""
    model, corpus = setting.network(), setting.data("train", setting.utterances)
    spoken = torch.arange(corpus.features.shape[1]) < 4 * corpus.frames[:, None]
    model.standardise_by(corpus.features[spoken])
    rate = setting.learning_rate
    return learn(model, corpus, ctc_loss, epochs=setting.epochs, learning_rate=rate, order=setting.seed)


def continued(setting: Setting, start: State, arm: str, strength: float, epochs: int) -> State:
    """The network after training on from a checkpoint, in one of the arms."""
    model, corpus = setting.network(), setting.data("train", setting.utterances)
    model.load_state_dict(start)
    draws = torch.Generator().manual_seed(setting.seed + 1)
    loss = purpose(arm, strength, len(corpus.symbols), draws)
    rate, cut = setting.learning_rate / 2, int(strength) if arm == "trim tail" else 0
    return learn(model, corpus, loss, epochs=epochs, learning_rate=rate, order=setting.seed + 2, cut=cut)


def trained(lab: Lab, config: Protocol, task: str, arm: str, strength: float) -> tuple[Setting, StreamingConvNet]:
    """A network of an arm; what it starts from is shared by the arms of a seed."""
    spelling = task == "spelled"
    setting = Setting(
        config.spelled_corpus if spelling else config.corpus,
        config.utterances,
        config.spelled_snr if spelling else config.snr,
        lab.seed % 6,
        config.width,
        config.blocks,
        config.learning_rate,
        config.epochs,
        lab.generator("speech").initial_seed(),
    )
    start = lab.cached(checkpoint)(setting)
    model = setting.network()
    model.load_state_dict(lab.cached(continued)(setting, start, arm, strength, config.purpose_epochs))
    return setting, model


@torch.no_grad()
def recognised(model: StreamingConvNet, corpus: Corpus) -> tuple[Tensor, dict[str, float]]:
    """Log-probabilities of a corpus, and the error rates of its texts."""
    log_probs = torch.cat([model(x) for x in corpus.features.split(50)], 1)
    tokens = ctc_greedy_search(log_probs, corpus.frames)
    references = labels_to_text(corpus.labels, corpus.counts, corpus.symbols)
    greedy = labels_to_text(tokens.labels, tokens.counts, corpus.symbols)
    beam = ["".join(corpus.symbols[label] for label in text) for text in ctc_beam_search(log_probs, corpus.frames)]
    return log_probs, {
        "error": text_error_rate(references, greedy),
        "beam_error": text_error_rate(references, beam),
        "character_error": text_error_rate(references, greedy, unit="character"),
    }


def delays(log_probs: Tensor, corpus: Corpus) -> tuple[Tensor, dict[str, float]]:
    """Delays in milliseconds of rightly recognised tokens, and their summary."""
    tokens = ctc_greedy_search(log_probs, corpus.frames)
    after_end, after_begin = (
        emission_delays(tokens, corpus.labels, corpus.counts, times, frame=FRAME)
        for times in (corpus.ends, corpus.begins)
    )
    path = viterbi_align(log_probs, corpus.labels, corpus.frames, corpus.counts)
    first = collapse_alignments(path, corpus.frames).first[:, : corpus.labels.shape[1]]
    spread = after_end if len(after_end) else torch.tensor([math.nan])
    return after_end, {
        "delay": float(after_end.mean()),
        "median_delay": float(spread.median()),
        "late_delay": float(spread.quantile(0.9)),
        "forced_delay": float(((first + 1) * FRAME - corpus.ends)[corpus.labels > 0].mean()),
        "before_begin": float((after_begin < 0).float().mean()),
    }


@study.measure(over=lambda config: grid(arm=["ctc", "earlier", "later"]))
def latency(lab: Lab, config: Protocol, *, arm: Literal["ctc", "earlier", "later"]) -> None:
    """Errors and delays after training on from one checkpoint, with new recordings and with a new speaker."""
    setting, model = trained(lab, config, "connected", arm, config.weight if arm != "ctc" else 0.0)
    for test in ("test", "other speaker"):
        corpus = setting.data(test, config.test_utterances)
        log_probs, errors = recognised(model, corpus)
        each, summary = delays(log_probs, corpus)
        lab.record(test=test, recognised=len(each), **errors, **summary)
        if test == "test":
            lab.save("delays", each)
            emitting = 1 - log_probs[: int(corpus.frames[0]), 0, 0].exp()
            lab.save("example", [emitting, *(times[0, : corpus.counts[0]] for times in (corpus.begins, corpus.ends))])


@study.measure(over=lambda config: grid(arm=["ctc", "fewer word errors"]))
def spelling(lab: Lab, config: Protocol, *, arm: Literal["ctc", "fewer word errors"]) -> None:
    """Word errors of digits spelled in letters, in noise."""
    setting, model = trained(lab, config, "spelled", arm, config.word_weight if arm != "ctc" else 0.0)
    _, errors = recognised(model, setting.data("test", config.spelled_test_utterances))
    lab.record(**errors)


def strengths(config: Protocol) -> list[dict[str, object]]:
    """The cells of the comparison with rivals."""
    return [{"method": method, "strength": strength} for method, values in STRENGTHS.items() for strength in values]


@study.measure(seeds=3, since="extended", over=strengths)
def fronts(lab: Lab, config: Protocol, *, method: str, strength: float) -> None:
    """Error and delay of four ways to emit earlier, at three strengths each."""
    setting, model = trained(lab, config, "connected", method, strength)
    corpus = setting.data("test", config.test_utterances)
    log_probs, errors = recognised(model, corpus)
    lab.record(**errors, **delays(log_probs, corpus)[1])


@study.measure(seeds=1)
def mechanism(lab: Lab, config: Protocol) -> None:
    """The rule on random alignments, sampling against the sum over all alignments, and the hinge's gradient."""
    draws = lab.generator("alignments")
    earlier = EarlierEmission(generator=draws)
    lengths = torch.randint(1, 25, (config.paths,), generator=draws)
    held = torch.rand(config.paths, 24, generator=draws) < 0.5
    held[:, 0] = False
    labels = torch.randint(4, held.shape, generator=draws)
    paths = labels.gather(1, torch.where(held, 0, torch.arange(24)).cummax(1).values)
    paths[: config.paths // 100] = 0
    better = earlier(paths[None], lengths)[0]
    before, after = (collapse_alignments(each, lengths) for each in (paths, better))
    lab.record(check="texts changed", value=(before.labels != after.labels).any(1).sum())
    lab.record(check="tokens delayed", value=(after.first > before.first).sum())
    # Candidates of this alignment are frames 0, 2, 5, 7 and 8; removing either of the last two gives one result.
    path = torch.tensor([0, 1, 1, 2, 0, 0, 3, 3, 3])
    shifted = earlier(path.expand(1, config.paths, -1), torch.full((config.paths,), 9))[0]
    moved = (shifted != path).int().argmax(1)
    counts = torch.stack([(moved == frame).sum() for frame in moved.unique()]).double()
    uniform = torch.tensor([1.0, 1.0, 1.0, 2.0]) * config.paths / 5
    lab.record(check="uniform choice", value=chisquare(counts, uniform).pvalue if len(counts) == 4 else 0.0)

    log_probs = log_softmax(2 * torch.randn(6, 1, 4, generator=draws, dtype=torch.float64), -1)
    every = torch.cartesian_prod(*[torch.arange(4)] * 6)[:, None]
    batch = torch.tensor([[1, 2, 2]]), torch.tensor([6]), torch.tensor([3])
    targets, frames, symbols = batch
    probabilities = alignment_scores(log_probs, every, frames, score="probability")
    perfect = probabilities[collapses_to(every, frames, targets, symbols)].sum()
    likelihood = (-ctc_loss(log_probs, *batch, reduction="sum")).exp()
    lab.record(check="sum of perfect alignments", value=(perfect - likelihood).abs())
    sampled = sample_alignments(log_probs, frames, config.samples, generator=draws)
    share = collapses_to(sampled, frames, targets, symbols).double().mean()
    error = (likelihood * (1 - likelihood) / config.samples).sqrt()
    lab.record(check="standard errors off", value=(share - likelihood).abs() / error)

    said = torch.randint(1, 5, (4_000, 24), generator=draws)
    wanted = torch.randint(1, 5, (4_000, 9), generator=draws).index_fill_(1, torch.tensor(0), 2)
    repaired = FewerWordErrors(space=1, generator=draws)(
        said[None], torch.full((4_000,), 24), wanted, torch.full((4_000,), 9)
    )[0]
    changed = (repaired != said).any(1)
    errors = []
    for paths in (said[changed], repaired[changed]):
        collapsed = collapse_alignments(paths, torch.full((len(paths),), 24))
        texts = labels_to_text(collapsed.labels, collapsed.counts, "- abc")
        references = labels_to_text(wanted[changed], torch.full((len(paths),), 9), "- abc")
        compared = [jiwer.process_words(reference, text) for reference, text in zip(references, texts)]
        errors.append(torch.tensor([c.substitutions + c.insertions + c.deletions for c in compared]))
    lab.record(check="repairs that lower errors by other than 1", value=((errors[0] - errors[1]) != 1).sum())
    lab.record(check="repairs", value=changed.sum())

    raw = torch.randn(8, 2, 4, generator=draws, dtype=torch.float64)
    pair = torch.tensor([[1, 2], [3, 3]]), torch.tensor([8, 6]), torch.tensor([2, 2])
    for name, rule in {"earlier": EarlierEmission, "identity": lambda generator: lambda a, *_: a.clone()}.items():

        def hinge(raw: Tensor, rule: Callable[..., Callable[..., Tensor]] = rule) -> Tensor:
            # The same alignments in every call: those of a network that is not differentiated.
            fixed = torch.Generator().manual_seed(0)
            awp = AlignWithPurpose(rule(generator=fixed), 4, weight=1.0, margin=0.2, temperature=1e9, generator=fixed)
            return awp(log_softmax(raw, -1), *pair)

        numbers = torch.autograd.functional.jacobian(hinge, raw)
        shifts = 1e-6 * torch.eye(raw.numel(), dtype=raw.dtype).view(-1, *raw.shape)
        differences = torch.stack([(hinge(raw + shift) - hinge(raw - shift)) / 2e-6 for shift in shifts])
        lab.record(check=f"gradient of {name}", value=numbers.abs().max())
        lab.record(check=f"gradient error of {name}", value=(numbers.flatten() - differences).abs().max())


def checks(e: Evidence[Protocol]) -> dict[str, float]:
    """The exact checks by name."""
    return dict(e[mechanism].frame[["check", "value"]].itertuples(index=False))


@study.claim(reported="by construction (section 3.2)")
def earlier_rule_keeps_texts_and_delays_no_token(e: Evidence[Protocol]) -> Rule:
    """On random alignments the rule keeps every text, delays no token, and takes each candidate equally often."""
    value = checks(e)
    return all_of(
        (exact(value["texts changed"]) <= 0).named("texts changed"),
        (exact(value["tokens delayed"]) <= 0).named("tokens that begin later"),
        (exact(value["uniform choice"]) > 1e-3).named("p of a uniform choice of the candidate"),
    )


@study.claim(reported="definitions (sections 2 and 3)")
def samples_agree_with_the_ctc_loss(e: Evidence[Protocol]) -> Rule:
    """Perfect alignments sum to the CTC likelihood and are sampled as often; a repair removes just one word error."""
    value = checks(e)
    return all_of(
        (exact(value["sum of perfect alignments"]) <= 1e-6).named("sum of perfect alignments minus exp(-CTC loss)"),
        (exact(value["standard errors off"]) <= 4).named("standard errors of the sampled share"),
        (exact(value["repairs that lower errors by other than 1"]) <= 0).named("repairs with another effect"),
        (exact(value["repairs"]) > 0).named("repairs made"),
    )


@study.claim(reported="definition (equation 5)")
def hinge_has_the_right_gradient(e: Evidence[Protocol]) -> Rule:
    """The loss's gradient agrees with finite differences, and is exactly zero for a rule that changes nothing."""
    value = checks(e)
    return all_of(
        (exact(value["gradient error of earlier"]) <= 1e-6).named("largest difference from finite differences"),
        (exact(value["gradient of earlier"]) > 0).named("largest gradient"),
        (exact(value["gradient of identity"]) <= 0).named("largest gradient of the identity"),
    )


def arms(e: Evidence[Protocol], column: str, test: str = "test") -> dict[str, Quantity]:
    """A column of each arm, one number a seed."""
    return {str(arm): rows.at(test=test)[column] for arm, rows in e[latency].split("arm")}


def trained_enough(config: Protocol) -> bool | str:
    """Whether networks recognise anything."""
    return config.epochs * config.utterances >= 5_000 or "too few steps to learn any digit"


@study.claim(
    reported="up to 590 ms earlier, with a minor increase of word errors", deviation=SMALL, when=trained_enough
)
def emissions_come_earlier_at_little_cost(e: Evidence[Protocol]) -> Rule:
    """The preference makes tokens come more than 20 ms earlier and costs less than 2 points of digit errors."""
    delay, error = arms(e, "delay"), arms(e, "error")
    forced, beam = arms(e, "forced_delay"), arms(e, "beam_error")
    new_delay, new_error = arms(e, "delay", "other speaker"), arms(e, "error", "other speaker")
    return all_of(
        (mean(delay["earlier"] - delay["ctc"]) < -20).named("delay against CTC (ms)"),
        (mean(100 * (error["earlier"] - error["ctc"])) < 2).named("digit errors against CTC (points)"),
    ).also(
        **{
            "delay of CTC (ms after the token's end)": mean(delay["ctc"]),
            "digit errors of CTC (%)": mean(100 * error["ctc"]),
            "forced alignments against CTC (ms)": mean(forced["earlier"] - forced["ctc"]),
            "digit errors by beam search against CTC (points)": mean(100 * (beam["earlier"] - beam["ctc"])),
            "emitted before the token begins (%)": mean(100 * arms(e, "before_begin")["earlier"]),
            "new speaker: delay against CTC (ms)": mean(new_delay["earlier"] - new_delay["ctc"]),
            "new speaker: digit errors against CTC (points)": mean(100 * (new_error["earlier"] - new_error["ctc"])),
        }
    )


@study.claim(reported="no such control", deviation=SMALL, when=trained_enough)
def direction_of_the_rule_decides(e: Evidence[Protocol]) -> Rule:
    """A rule that shifts earlier lowers delay and its mirror image raises it; the identity, CTC alone, lies between."""
    delay = arms(e, "delay")
    return all_of(
        (mean(delay["earlier"] - delay["ctc"]) < 0).named("earlier against identity (ms)"),
        (mean(delay["later"] - delay["ctc"]) > 0).named("later against identity (ms)"),
    )


@study.claim(
    reported="4.5 % fewer word errors (relative)",
    deviation="spelled digits in noise; undecided if the interval's half-width is above 5 %",
    when=trained_enough,
)
def word_rule_lowers_word_errors(e: Evidence[Protocol]) -> Rule:
    """Where about a fifth of the words is wrong, the word rule lowers the word error rate."""
    rows = {str(arm): part for arm, part in e[spelling].split("arm")}
    ours, ctc = rows["fewer word errors"], rows["ctc"]
    change = ratio(ours["error"], ctc["error"])
    low, high = change.interval(0.05)
    half = 50 * (high - low)
    return all_of(
        (change < 1).named("word errors over those of CTC"),
        (exact(half if half <= 5 else math.nan) <= 5).named("half-width of that interval (%)"),
    ).also(
        **{
            "word errors of CTC (%)": mean(100 * ctc["error"]),
            "half-width (%)": exact(half),
            "word errors by beam search": ratio(ours["beam_error"], ctc["beam_error"]),
            "character errors": ratio(ours["character_error"], ctc["character_error"]),
        }
    )


def front_areas(e: Evidence[Protocol]) -> dict[str, Quantity]:
    """Area under each method's front: least delay against CTC (ms), averaged over error budgets of 0 to 5 points."""
    front = e[fronts].frame
    base = e[latency].at(arm="ctc", test="test").frame.set_index("seed")
    front["delay"] -= front["seed"].map(base["delay"])
    front["points"] = 100 * (front["error"] - front["seed"].map(base["error"]))

    def area(rows: object) -> float:
        least = [min([0.0, *rows["delay"][rows["points"] <= budget / 10]]) for budget in range(51)]  # type: ignore[index]
        return sum(least) / len(least)

    return {str(method): rows.per("seed").apply(area) for method, rows in Table(front).split("method")}


@study.claim(reported="on a par with TrimTail, better than Peak-First CTC", deviation=SMALL, when=trained_enough)
def trade_off_is_no_worse_than_peak_first(e: Evidence[Protocol]) -> Rule:
    """Over error budgets of 0 to 5 points, delays are on average not longer than with Peak-First CTC."""
    areas = front_areas(e)
    against = {name: mean(areas["earlier"] - area) for name, area in areas.items() if name != "earlier"}
    worst = against["peak first"].interval(0.05)[0]
    return (
        (exact(worst) <= 0)
        .named("lower end of the interval of the difference from Peak-First (ms)")
        .also(**{f"difference from {name} (ms)": estimate for name, estimate in against.items()})
        .also(**{f"area of {name} (ms)": mean(area) for name, area in areas.items()})
    )


COLOURS = {"ctc": "0.4", "earlier": "C0", "later": "C1", "fewer word errors": "C2"}


@study.figure
def delays_of_tokens(e: Evidence[Protocol], axes: Axes) -> None:
    """How many tokens have been emitted so long after their end, all seeds together."""
    for arm in ("earlier", "ctc", "later"):
        each = torch.cat([e.saved(latency, "delays", seed=seed, arm=arm) for seed in range(e.config.seeds)])
        ordered = each.sort().values
        axes.step(ordered, 100 * torch.arange(1, len(ordered) + 1) / len(ordered), color=COLOURS[arm], label=arm)
    axes.axvline(0, color="0.8", linewidth=1)
    axes.set(xlabel="time after the end of the digit (ms)", ylabel="digits emitted (%)")
    axes.legend(frameon=False)


@study.figure
def one_utterance(e: Evidence[Protocol], axes: Axes) -> None:
    """The probability of emitting something in each frame of a test utterance; digits are spoken where it is grey."""
    for arm in ("earlier", "ctc", "later"):
        emitting, begins, ends = e.saved(latency, "example", seed=0, arm=arm)
        axes.plot((torch.arange(len(emitting)) + 1) * FRAME / 1000, emitting, color=COLOURS[arm], label=arm)
    for begin, end in zip(begins.tolist(), ends.tolist()):
        axes.axvspan(begin / 1000, end / 1000, color="0.9", zorder=0)
    axes.set(xlabel="time (s)", ylabel="probability of not being blank")
    axes.legend(frameon=False, loc="upper right")


@study.figure
def errors_and_delays(e: Evidence[Protocol], axes: Axes) -> None:
    """Digit errors against delay, a point a seed: filled with new recordings, hollow with a new speaker."""
    for arm, rows in e[latency].split("arm"):
        for test, fill in (("test", COLOURS[arm]), ("other speaker", "none")):
            part = rows.at(test=test)
            label = arm if test == "test" else None
            axes.plot(part["delay"], 100 * part["error"], "o", color=COLOURS[arm], markerfacecolor=fill, label=label)
    axes.set(xlabel="mean delay after the end of the digit (ms)", ylabel="digit errors (%)")
    axes.legend(frameon=False)


@study.figure
def word_errors(e: Evidence[Protocol], axes: Axes) -> None:
    """Word errors of spelled digits with CTC and with the word rule, a line a seed."""
    rows = {str(arm): part["error"] for arm, part in e[spelling].split("arm")}
    ctc, ours = 100 * rows["ctc"], 100 * rows["fewer word errors"]
    axes.plot([0, 1], [ctc, ours], "o-", color="0.7")
    axes.plot([0, 1], [ctc.mean(), ours.mean()], "s-", color=COLOURS["fewer word errors"], label="mean")
    axes.set_xticks([0, 1], ["CTC", "CTC and fewer word errors"])
    axes.set(xlabel="loss", ylabel="word errors (%)", xlim=(-0.3, 1.3))
    axes.legend(frameon=False)
