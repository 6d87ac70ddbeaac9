"""Which properties of its training data make a network learn in context, though nobody trains it to?

Eight items with their labels, then an item whose label is asked for: ordinary supervised training on sequences of
classes that keep their labels. Afterwards networks are tested in context (new classes, labels defined by the context
alone: two classes, four times each) and in weights (a trained class that the context does not show). Dials of the
data: how bursty the contexts are, how many classes there are, how much items of a class vary, how many labels a class
has, and how steeply classes' frequencies fall. Items are vectors around prototypes, or Omniglot's characters; LSTMs
stand beside the transformers.

The original test draws its two classes with replacement from the 10 held out, so that one sequence in ten shows one
class under two labels and 0.95 is the best possible. The corrected test, which the claims are judged by, draws two
different ones; both are reported with what is possible on each, and learning curves are drawn beside it.

Lengths of training were fixed beforehand, so nothing is selected but the LSTM's learning rate, and that in its favour:
per seed the best of three by the very test that it is judged by. Sizes and rates come from pilots with other seeds.

Departures from the paper, all made to fit a laptop. In pilots with a label for each of 1,600 classes networks had
memorised all prototypes in 450 steps and stayed at chance in context; so here classes share 20 labels, and memory needs
more than a linear map. Item and label of a pair are one token: with tokens of their own (``layout``) no network matched
target and context in 600 steps of a pilot, where with one it did in 300. The two labels of a test in context are drawn
from all, not always the same two. Classes of a bursty context differ in training, too. Omniglot is here in its two
small background sets (242 characters, 8 alphabets; 1,800 classes with turned and mirrored ones, and the 17 of an
alphabet held out as they were drawn), as principal components in place of a residual network.

What was learnt where a claim does not hold. Noise slowed memory and took some in-context learning along: networks with
one item a class matched target and context within 200 steps and kept most of it. Its size may be why: 0.5 is half a
prototype's standard deviation here, and twice a pixel's (0.24) in the paper. Twenty drawings make the test harder, too
(the nearest drawing is right in 85 % of sequences, where one drawing is matched exactly), so that among the two labels
networks of one drawing are no worse, though they were at 0.95 by step 200 and were losing it; among all labels they
are far worse. LSTMs do learn in context at the highest of three rates, if less than transformers; at a rate of 0.001
they look as the paper says. Joined tokens relieve them of remembering which label belongs to which item.

`paper` turns all dials on the whole of Omniglot (at 28x28 pixels, as the authors' code can), embedded by a
convolutional network trained with the rest, with a label a class, tokens of their own, 12 layers and 500,000 steps:
by estimate 10 to 15 hours of a GPU for each network.

Source: Chan et al., NeurIPS 2022 (arXiv 2205.05055), sections 2 and 3, figures 2 to 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from etude.data import omniglot
from etude.errors import Unavailable
from etude.in_context import (
    ExemplarItems,
    ItemLabelSequences,
    ItemLabelTask,
    Marginal,
    PairClassifier,
    context_label_accuracy,
    in_context_accuracy,
    in_context_ceiling,
    in_weights_accuracy,
    nearest_exemplar,
)
from etude.nn import Recurrent, Transformer, convolutional
from etude.study import (
    Axes,
    Config,
    Evidence,
    Lab,
    Paper,
    Quantity,
    Rule,
    Study,
    Table,
    all_of,
    any_of,
    exact,
    grid,
    mean,
    within,
)


class Protocol(Config):
    """How long the networks are trained, how, and on which data besides those of the claims."""

    steps: int = 1_000
    """Training steps of every network; recurrent ones go on to three times as many."""
    evaluate_every: int = 50
    """Steps between points of the learning curves."""
    batch: int = 128
    """Sequences a step."""
    learning_rate: float = 1e-3
    """The transformers' rate, reached after `warm_up` steps."""
    recurrent_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    """The rates that recurrent networks are trained with."""
    warm_up: int = 100
    """Steps in which the rate rises linearly."""
    decay: bool = False
    """Whether the rate falls as one over the square root of the step after that, as in the paper."""
    labels: int = 20
    """Labels that the classes share; 0 for as many as the classes own."""
    layout: Literal["joined", "interleaved"] = "joined"
    """Whether item and label of a pair are one token or two."""
    layers: int = 2
    """Layers of every network."""
    heads: int = 4
    """Heads of the transformers' attention."""
    tested: int = 2_000
    """Sequences of each test after training; a quarter of them at each point of the learning curves."""
    items: Literal["prototypes", "characters"] = "prototypes"
    """What the dials are turned on: vectors around prototypes, or Omniglot's characters."""
    omniglot: Literal["small", "all"] = "small"
    """Which of Omniglot's sets."""
    pixels: bool = False
    """Whether drawings are embedded by a convolutional network trained with the rest, or as principal components."""
    between: bool = False
    """Whether to train on the data between those of the claims, and other recurrent networks, too."""


@dataclass(frozen=True)
class Data:
    """What the training sequences are like."""

    classes: int = 1_600
    p_bursty: float = 0.9
    noise: float = 0.1
    multiplicity: int = 1
    zipf_exponent: float = 0.0
    permuted: bool = False
    drawings: int = 20
    """Of a character; where there are several, they are its variation, and noise is not added."""


DATA = {
    "usual": Data(),
    "never bursty": Data(p_bursty=0.0),
    "half bursty": Data(p_bursty=0.5),
    "100 classes": Data(classes=100),
    "400 classes": Data(classes=400),
    "one item a class": Data(classes=400, noise=0.0, drawings=1),
    "noisy items": Data(classes=400, noise=0.5, drawings=1),
    "four labels a class": Data(classes=400, multiplicity=4),
    "Zipf 1": Data(zipf_exponent=1.0),
    "Zipf 2": Data(zipf_exponent=2.0),
    "permuted labels": Data(permuted=True),
}
BETWEEN = {
    "always bursty": Data(p_bursty=1.0),
    "12,800 classes": Data(classes=12_800),
    "very noisy items": Data(classes=400, noise=1.0, drawings=1),
    "two labels a class": Data(classes=400, multiplicity=2),
    "Zipf 1/2": Data(zipf_exponent=0.5),
    "Zipf 3/2": Data(zipf_exponent=1.5),
    "Zipf 3": Data(zipf_exponent=3.0),
}
PAIRS, WIDTH, HELD_OUT, COMMON, ALPHABET = 8, 64, 10, 10, "Tagalog"
CELLS = ("lstm", "gru", "tanh")
Cell = Literal["lstm", "gru", "tanh"]

study = Study(
    paper=Paper(
        "Data Distributional Properties Drive Emergent In-Context Learning in Transformers",
        "Stephanie C. Y. Chan, Adam Santoro, Andrew K. Lampinen, Jane X. Wang, Aaditya Singh, Pierre H. Richemond, "
        "Jay McClelland, Felix Hill",
        2022,
        "2205.05055",
        "NeurIPS",
    ),
    topic="in-context learning",
    presets={
        "smoke": Protocol(steps=6, evaluate_every=3, batch=16, tested=64, seeds=2),
        "laptop": Protocol(),
        "extended": Protocol(steps=5_000, between=True, seeds=10),
        "paper": Protocol(
            steps=500_000,
            evaluate_every=1_000,
            batch=32,
            learning_rate=3e-4,
            recurrent_rates=(1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
            warm_up=4_000,
            decay=True,
            labels=0,
            layout="interleaved",
            layers=12,
            heads=8,
            tested=10_000,
            items="characters",
            omniglot="all",
            pixels=True,
            between=True,
        ),
    },
)


# ---- measurements --------------------------------------------------------------------------------------------------


class Bench:
    """A task, its tests, and the streams of numbers of a trial."""

    def __init__(self, lab: Lab, config: Protocol, data: Data, kind: str) -> None:
        self.lab, self.config, self.data = lab, config, data
        items, self.embed = world(lab, config, data, kind)
        self.training, self.testing = device_generator(lab, "training"), device_generator(lab, "testing")
        labels = config.labels or None
        options: dict[str, Any] = {"pairs": PAIRS, "shots": 3, "ways": 2, "multiplicity": data.multiplicity}
        self.task = ItemLabelTask(
            items, labels, p_bursty=data.p_bursty, zipf_exponent=data.zipf_exponent, distinct="labels", **options
        )
        self.original = ItemLabelTask(items, labels, distinct=None, **options)
        self.prototypes = items.exemplars[: items.classes].flatten(2).mean(1)

    def tests(self, n: int) -> dict[str, ItemLabelSequences]:
        """Sequences of every test."""
        task, draws = self.task, self.testing
        return {
            "in_context": task.in_context(n, draws, ways=2, shots=4),
            "original": self.original.in_context(n, draws, ways=2, shots=4),
            "in_weights": task.in_weights(n, draws),
            "common": task.in_weights(n, draws, ranks=(0, COMMON)),
            "rare": task.in_weights(n, draws, ranks=(COMMON, task.items.classes)),
        }

    @torch.no_grad()
    def scores(self, model: nn.Module, tests: dict[str, ItemLabelSequences]) -> dict[str, Tensor]:
        """Accuracy on every test: in context among the two labels shown, in weights among all labels."""
        found = {}
        for name, sequences in tests.items():
            logits = torch.cat(
                [model(x, y) for x, y in zip(sequences.items.split(500), sequences.labels.split(500), strict=True)]
            )
            if name in ("in_context", "original"):
                found[name] = in_context_accuracy(logits, sequences, restrict=True)
            else:
                found[name] = in_weights_accuracy(logits, sequences, multiplicity=self.data.multiplicity)
            if name == "in_context":
                found["of_all_labels"] = in_context_accuracy(logits, sequences)
                found["context_label"] = context_label_accuracy(logits, sequences)
        return found

    def possible(self, tests: dict[str, ItemLabelSequences]) -> dict[str, float | Tensor]:
        """What an exact matcher reaches in context, the nearest trained prototype in weights, and theory at best."""
        weights = tests["in_weights"]
        nearest = torch.cdist(weights.items[:, -1].flatten(1), self.prototypes).argmin(1)
        own = self.task.labels // self.data.multiplicity
        return {
            "in_context_matcher": (nearest_exemplar(tests["in_context"]) == tests["in_context"].target).float().mean(),
            "original_matcher": (nearest_exemplar(tests["original"]) == tests["original"].target).float().mean(),
            "original_ceiling": in_context_ceiling(self.task.items.held_out),
            "in_weights_prototype": (nearest % own == weights.target // self.data.multiplicity).float().mean(),
        }

    def run(self, model: PairClassifier, rate: float, *lengths: int) -> None:
        """Train a network, recording its learning curve, and all tests after each of some numbers of steps."""
        config, model = self.config, model.to(self.lab.device)
        small = self.tests(max(config.tested // 4, 1))
        small = {name: small[name] for name in ("in_context", "original", "in_weights")}
        descent = torch.optim.AdamW(model.parameters(), lr=rate, fused=True)
        final = self.tests(config.tested)
        for step in self.lab.track(range(max(lengths) + 1), "steps"):
            if step % config.evaluate_every == 0:
                self.lab.record(stage="training", step=step, **self.scores(model, small))
            if step in lengths:
                self.lab.record(stage="trained", step=step, **self.scores(model, final), **self.possible(final))
            if step < max(lengths):
                batch = self.task.train(config.batch, self.training)
                if self.data.permuted:
                    batch = batch.permuted_labels(self.training)
                after = (step + 1) / config.warm_up
                factor = min(after, after**-0.5 if config.decay else 1.0)
                for group in descent.param_groups:
                    group["lr"] = rate * factor
                loss = cross_entropy(model(batch.items, batch.labels), batch.target)
                descent.zero_grad()
                loss.backward()
                descent.step()

    def network(self, cell: Cell | None) -> PairClassifier:
        """A transformer, or a recurrent network of the same width and depth."""
        weights, config = self.lab.generator("weights"), self.config
        body = (
            Transformer(WIDTH, config.layers, config.heads, positions=None, generator=weights)
            if cell is None
            else Recurrent(WIDTH, config.layers, cell, generator=weights)
        )
        return PairClassifier(
            self.embed, body, width=WIDTH, labels=self.task.labels, pairs=PAIRS, layout=config.layout, generator=weights
        )


def device_generator(lab: Lab, stream: str) -> torch.Generator:
    """A stream of numbers on the trial's device."""
    return torch.Generator(lab.device).manual_seed(lab.generator(stream).initial_seed())


def divided(part: Literal["small", "all"]) -> tuple[Tensor, Tensor]:
    """Turned and mirrored characters of all alphabets but one, and that one's characters as they are."""
    upright = omniglot(part, size=28)
    every = upright.turned_and_mirrored()
    trained = torch.ones(len(every), dtype=torch.bool)
    trained[every.of([ALPHABET])] = False
    return every.drawings[trained], upright.drawings[upright.of([ALPHABET])]


def components(part: Literal["small", "all"], count: int) -> tuple[Tensor, Tensor]:
    """The same drawings as leading principal components of those of the trained alphabets, at a mean square of 1."""
    trained, aside = (drawings.flatten(2) for drawings in divided(part))
    centre = trained.mean((0, 1))
    spread = (trained - centre).flatten(0, 1)
    axes = torch.linalg.eigh(spread.mT @ spread).eigenvectors[:, -count:]
    trained, aside = (trained - centre) @ axes, (aside - centre) @ axes
    size = trained.square().mean().sqrt()
    return trained / size, aside / size


def world(lab: Lab, config: Protocol, data: Data, items: str) -> tuple[ExemplarItems, nn.Module]:
    """What classes look like, those held out too, and how their items become vectors of the network's width."""
    if items == "characters" and config.pixels:
        known, new = divided(config.omniglot)
        blocks, own = [(16, 16), (32, 32), (64, 64)], lab.generator("embedding")
        embed: nn.Module = convolutional(1, 28, blocks, outputs=WIDTH, average=True, generator=own)
    else:
        with lab.seeded("embedding"):
            embed = nn.Linear(WIDTH, WIDTH)
        if items == "prototypes":
            draws = device_generator(lab, "world")
            known, new = (
                torch.randn(n, 1, WIDTH, generator=draws, device=lab.device) for n in (data.classes, HELD_OUT)
            )
        else:
            known, new = lab.cached(components)(config.omniglot, WIDTH)
    if items == "characters":
        if data.classes > len(known):
            raise Unavailable(
                f"{data.classes:,} classes are asked for, and there are {len(known):,}", "Use --omniglot all"
            )
        known = known[torch.randperm(len(known), generator=lab.generator("classes"))[: data.classes]]
    exemplars = torch.cat([known, new])[:, : data.drawings].to(lab.device)
    single = exemplars.shape[1] == 1
    aside = torch.arange(data.classes, len(exemplars), device=lab.device)
    return ExemplarItems(exemplars, held_out=aside, noise=data.noise if single else 0.0, replace=single), embed


@study.measure(over=lambda config: grid(data=list(DATA | BETWEEN if config.between else DATA)))
def learn(lab: Lab, config: Protocol, *, data: str) -> None:
    """A transformer on one kind of data."""
    own = (DATA | BETWEEN)[data]
    bench = Bench(lab, config, own, config.items)
    bench.run(bench.network(None), config.learning_rate, config.steps)


@study.measure(over=lambda c: grid(cell=CELLS if c.between else CELLS[:1], rate=list(c.recurrent_rates)))
def recur(lab: Lab, config: Protocol, *, cell: Cell, rate: float) -> None:
    """A recurrent network on the usual data, at one learning rate, for as many steps and for three times as many."""
    bench = Bench(lab, config, DATA["usual"], config.items)
    bench.run(bench.network(cell), rate, config.steps, 3 * config.steps)


@study.measure(over=lambda config: grid(drawings=[1, 20]))
def characters(lab: Lab, config: Protocol, *, drawings: int) -> None:
    """A transformer on Omniglot: 400 classes of one drawing each, or of twenty; tested on a new alphabet."""
    bench = Bench(lab, config, Data(classes=400, noise=0.0, drawings=drawings), "characters")
    bench.run(bench.network(None), config.learning_rate, config.steps)


@study.measure(seeds=1)
def sampling(lab: Lab, config: Protocol) -> None:
    """How often classes come by theory and in fact, and what an exact matcher reaches where classes may repeat."""
    draws = lab.generator("sampling")
    for exponent in (0.0, 1.0, 2.0, 3.0):
        marginal = Marginal.zipf(1_600, exponent)
        drawn, expected = marginal.sample((100_000,), draws).bincount(minlength=1_600), 1e5 * marginal.probabilities
        # Classes expected fewer than 20 times are taken together, as the chi-square test needs.
        often = expected >= 20
        counts = torch.cat([drawn[often].double(), drawn[~often].sum()[None].double()])
        theory = torch.cat([expected[often], expected[~often].sum()[None]])
        kept = theory > 0
        probability = float(stats.chisquare(counts[kept].numpy(), theory[kept].numpy()).pvalue)
        lab.record(check="marginal", value=exponent, top=marginal.share_of_top(3), probability=probability)
    for held_out in (2, 5, 10, 80):
        means = torch.randn(50 + held_out, 1, WIDTH, generator=draws)
        aside = torch.arange(50, 50 + held_out)
        items = ExemplarItems(means, held_out=aside, noise=0.1, replace=True)
        options: dict[str, Any] = {"pairs": PAIRS, "shots": 3, "ways": 2}
        n, ceiling = 20_000, in_context_ceiling(held_out)
        for distinct in ("classes", None):
            batch = ItemLabelTask(items, distinct=distinct, **options).in_context(n, draws, ways=2, shots=4)
            reached = float((nearest_exemplar(batch) == batch.target).double().mean())
            best = 1.0 if distinct else ceiling
            deviations = (reached - best) / max((best * (1 - best) / n) ** 0.5, 1e-12)
            kind = "distinct" if distinct else "with replacement"
            lab.record(check=kind, value=held_out, reached=reached, ceiling=best, deviations=deviations)


# ---- claims --------------------------------------------------------------------------------------------------------

SMALLER = "prototypes for images, 20 labels, joined tokens, 2 layers and 1,000 steps for 12 and 500,000"


def after(e: Evidence[Protocol], data: str) -> Table:
    """The tests of the transformers trained on one kind of data."""
    return e[learn].at(data=data, stage="trained")


def gain(e: Evidence[Protocol], test: str, one: str, other: str) -> Quantity:
    """How much better transformers trained on some data are on a test than those trained on other data."""
    return after(e, one)[test] - after(e, other)[test]


@study.claim(reported="burstiness up: in-context learning up, in-weights learning down (figure 2)", deviation=SMALLER)
def bursts_favour_the_context(e: Evidence[Protocol]) -> Rule:
    """The burstier the data, the more networks learn in context and the less in weights."""
    values = {name: DATA[name].p_bursty for name in ("never bursty", "half bursty", "usual")}

    def ordered(rows: Any) -> float:
        # Where all three are equally good there is no order, and Spearman's coefficient is 0 / 0.
        found = rows["in_context"]
        return float(stats.spearmanr(rows["data"].map(values), found)[0]) if found.nunique() > 1 else 0.0

    order = e[learn].at(data=list(values), stage="trained").per("seed").apply(ordered)
    return all_of(
        (mean(gain(e, "in_context", "usual", "never bursty")) > 0.2).named("in context, 0.9 against never bursty"),
        (mean(gain(e, "in_weights", "never bursty", "usual")) > 0.1).named("in weights, never bursty against 0.9"),
        (mean(order) > 0).named("rank correlation of burstiness and accuracy in context"),
    ).also(**{"in context, answers of all labels": mean(gain(e, "of_all_labels", "usual", "never bursty"))})


@study.claim(reported="classes up: in-context learning up, in-weights learning down (figure 3)", deviation=SMALLER)
def many_classes_favour_the_context(e: Evidence[Protocol]) -> Rule:
    """With 1,600 classes networks learn in context, with 100 in weights, from equally bursty data."""
    return all_of(
        (mean(gain(e, "in_context", "usual", "100 classes")) > 0.15).named("in context, 1,600 against 100 classes"),
        (mean(gain(e, "in_weights", "100 classes", "usual")) > 0.15).named("in weights, 100 against 1,600 classes"),
    ).also(**{"in context, answers of all labels": mean(gain(e, "of_all_labels", "usual", "100 classes"))})


@study.claim(reported="single exemplar < noise < 20 exemplars (figure 5)", deviation=f"400 classes; {SMALLER}")
def variation_favours_the_context(e: Evidence[Protocol]) -> Rule:
    """The more items of a class vary, the more networks learn in context."""
    much, none = "noisy items", "one item a class"
    return (
        (mean(gain(e, "in_context", much, none)) > 0)
        .named("accuracy in context, noise 0.5 against none")
        .also(
            **{"in context, answers of all labels": mean(gain(e, "of_all_labels", much, none))},
            **{"in weights": mean(gain(e, "in_weights", much, none))},
        )
    )


@study.claim(
    reported="single exemplar < 20 exemplars (figure 5)",
    deviation=f"400 classes of the small sets' principal components; {SMALLER}",
)
def varied_drawings_favour_the_context(e: Evidence[Protocol]) -> Rule:
    """On Omniglot, twenty drawings of a character make networks learn in context more than one does."""
    many, one = (e[characters].at(drawings=number, stage="trained") for number in (20, 1))
    return (
        (mean(many["in_context"] - one["in_context"]) > 0)
        .named("accuracy in context, 20 drawings against 1")
        .also(
            **{"in context, answers of all labels": mean(many["of_all_labels"] - one["of_all_labels"])},
            **{"corrected test, 20 drawings": mean(many["in_context"])},
            **{"original test, 20 drawings": mean(many["original"])},
            **{"nearest drawing, corrected test": mean(many["in_context_matcher"])},
            **{"nearest drawing, original test": mean(many["original_matcher"])},
            **{"in weights, 20 drawings against 1": mean(many["in_weights"] - one["in_weights"])},
        )
    )


@study.claim(reported="more labels a class: in-context learning up (figure 4)", deviation=f"400 classes; {SMALLER}")
def several_labels_favour_the_context(e: Evidence[Protocol]) -> Rule:
    """Four labels for each class, one of them in a sequence, make networks learn in context more than one does."""
    four, one = "four labels a class", "400 classes"
    return (
        (mean(gain(e, "in_context", four, one)) > 0)
        .named("accuracy in context, four labels against one")
        .also(**{"in context, answers of all labels": mean(gain(e, "of_all_labels", four, one))})
    )


@study.claim(
    reported="exponent 0: in context only; large: common classes in weights only; 1: both (figure 6)",
    deviation=f"1,600 classes for 12,800, exponent 2 against 1 by paired difference; {SMALLER}",
)
def zipf_keeps_both(e: Evidence[Protocol]) -> Rule:
    """With frequencies as one over the rank networks learn both ways; flatter or steeper they lose one."""
    flat, natural, steep = (after(e, name) for name in ("usual", "Zipf 1", "Zipf 2"))
    return all_of(
        (mean(natural["in_context"]) > 0.65).named("in context, exponent 1"),
        (mean(natural["common"]) > 0.5).named("10 common classes in weights, exponent 1"),
        any_of(
            (mean(flat["common"]) < 0.5).named("in weights, exponent 0"),
            (mean(natural["in_context"] - steep["in_context"]) > 0).named("in context, exponent 1 against 2"),
        ),
    ).also(
        **{"rare classes in weights, exponent 1": mean(natural["rare"])},
        **{"in context, exponent 2": mean(steep["in_context"])},
        **{"always the most common class's label, exponent 1": exact(Marginal.zipf(COMMON, 1.0).share_of_top(1))},
    )


def best_recurrent(e: Evidence[Protocol], longer: int) -> Quantity:
    """Accuracy in context of the LSTM, for each seed at the learning rate at which it is highest."""
    rows = e[recur].at(cell="lstm", stage="trained", step=longer * e.config.steps)
    return rows.per("seed").apply(lambda own: float(own["in_context"].max()))


@study.claim(reported="at chance in 90 of 90 runs (figure 7)", deviation=f"best of 3 learning rates; {SMALLER}")
def lstms_do_not_learn_in_context(e: Evidence[Protocol]) -> Rule:
    """On data from which a transformer learns in context, an LSTM of its width and depth does not."""
    return all_of(
        (mean(best_recurrent(e, 1)) <= 0.6).named("LSTM, as many steps"),
        (mean(best_recurrent(e, 3)) <= 0.6).named("LSTM, three times as many"),
        (mean(after(e, "usual")["in_context"]) >= 0.8).named("transformer"),
    )


@study.claim(reported="not in the paper", deviation="a control of ours: the paper varies burstiness alone")
def bursts_act_through_the_context(e: Evidence[Protocol]) -> Rule:
    """Burstiness acts through labels that can be used: with labels in random order it teaches nothing of the kind."""
    return all_of(
        (mean(after(e, "permuted labels")["in_context"]) <= 0.6).named("labels of the context permuted"),
        (mean(after(e, "usual")["in_context"]) >= 0.8).named("as they are"),
    )


@study.claim(reported="97 % in three classes at exponent 3", deviation="the ceiling of the original test is ours")
def frequencies_and_ceiling_are_exact(e: Evidence[Protocol]) -> Rule:
    """Classes come as often as they should, and ways drawn with replacement leave 1 - 1/(2 H) to an exact matcher."""
    marginals = e[sampling].at(check="marginal").frame.set_index("value")
    ceilings = e[sampling].at(check="with replacement").frame
    return all_of(
        within(exact(marginals["top"][3.0]), 0.966, 0.968).named("three classes' share at exponent 3"),
        (exact(marginals["probability"].min()) > 0.01).named("least p-value of four exponents"),
        (exact(ceilings["deviations"].abs().max()) <= 3).named("standard deviations from the ceiling, at most"),
    ).also(
        **{"matcher, two different classes": exact(e[sampling].at(check="distinct").frame["reached"].min())},
        **{"matcher, ten classes with replacement": exact(ceilings.set_index("value")["reached"][HELD_OUT])},
    )


# ---- figures -------------------------------------------------------------------------------------------------------


def curves(axes: Axes, rows: Table, column: str, colour: str, label: str, line: str = "-") -> None:
    """The mean learning curve, with those of single seeds behind it."""
    for _, run in rows.split("seed"):
        axes.plot(*run.curve("step", column), line, color=colour, alpha=0.25, linewidth=1)
    axes.plot(*rows.curve("step", column), line, color=colour, label=label)


def ceilings(axes: Axes, **levels: float) -> None:
    """Horizontal lines at what is possible and at chance."""
    for (label, level), line in zip(levels.items(), ("-", "--", ":", "-."), strict=False):
        axes.axhline(level, color="0.5", linewidth=1, linestyle=line, label=label.replace("_", " "))
    axes.legend(frameon=False, fontsize="small")


@study.figure
def burstiness_curves(e: Evidence[Protocol], axes: Axes) -> None:
    """Learning in context by burstiness, in the corrected test and (dashed) in the original one."""
    for number, name in enumerate(("usual", "half bursty", "never bursty")):
        rows = e[learn].at(data=name, stage="training")
        curves(axes, rows, "in_context", f"C{number}", f"{DATA[name].p_bursty:.0%} bursty")
    curves(axes, e[learn].at(data="usual", stage="training"), "original", "C0", "90% bursty, original test", "--")
    best = after(e, "usual")
    axes.set(xlabel="training step", ylabel="accuracy in context, of two labels")
    ceilings(
        axes,
        exact_matcher=best["in_context_matcher"].mean(),
        ceiling_of_the_original=best["original_ceiling"].mean(),
        chance=0.5,
    )


@study.figure
def characters_curves(e: Evidence[Protocol], axes: Axes) -> None:
    """Learning in context on Omniglot, in the corrected test and (dashed) in the original one."""
    for number, (drawings, label) in enumerate(((20, "20 drawings a class"), (1, "one drawing a class"))):
        rows = e[characters].at(drawings=drawings, stage="training")
        curves(axes, rows, "in_context", f"C{number}", label)
        curves(axes, rows, "original", f"C{number}", f"{label}, original test", "--")
    best = e[characters].at(drawings=20, stage="trained")
    axes.set(xlabel="training step", ylabel="accuracy in context, of two labels")
    ceilings(
        axes,
        possible_in_theory=1.0,
        ceiling_of_the_original=best["original_ceiling"].mean(),
        nearest_of_20_drawings=best["in_context_matcher"].mean(),
        chance=0.5,
    )


@study.figure
def memory_curves(e: Evidence[Protocol], axes: Axes) -> None:
    """Learning in weights by the number of classes and burstiness."""
    for number, name in enumerate(("usual", "400 classes", "100 classes", "never bursty")):
        curves(axes, e[learn].at(data=name, stage="training"), "in_weights", f"C{number}", name)
    axes.set(xlabel="training step", ylabel="accuracy in weights, of all labels")
    labels = e.config.labels or 1_600
    ceilings(axes, nearest_prototype=after(e, "usual")["in_weights_prototype"].mean(), chance=1 / labels)


@study.figure
def architectures(e: Evidence[Protocol], axes: Axes) -> None:
    """Learning in context from the usual data: a transformer, and the LSTM at each learning rate."""
    curves(axes, e[learn].at(data="usual", stage="training"), "in_context", "C0", "transformer")
    for number, rate in enumerate(e.config.recurrent_rates, 1):
        rows = e[recur].at(cell="lstm", rate=rate, stage="training")
        curves(axes, rows, "in_context", f"C{number}", f"LSTM, rate {rate:g}")
    axes.set(xlabel="training step", ylabel="accuracy in context, of two labels")
    ceilings(axes, exact_matcher=after(e, "usual")["in_context_matcher"].mean(), chance=0.5)


@study.figure
def frequencies(e: Evidence[Protocol], axes: Axes) -> None:
    """Learning both ways by the exponent of the classes' frequencies: mean and every seed."""
    measured = DATA | BETWEEN if e.config.between else DATA
    dial = {own.zipf_exponent: name for name, own in measured.items() if own == Data(zipf_exponent=own.zipf_exponent)}
    exponents = sorted(dial)
    for column, label, colour in (
        ("in_context", "in context", "C0"),
        ("common", "in weights, 10 common classes", "C1"),
        ("rare", "in weights, the others", "C2"),
    ):
        found = [after(e, dial[exponent])[column] for exponent in exponents]
        axes.plot(exponents, [values.mean() for values in found], color=colour, label=label)
        for exponent, values in zip(exponents, found, strict=True):
            axes.plot([exponent] * len(values), values, ".", color=colour, alpha=0.5)
    axes.set(xlabel="exponent of the frequencies", ylabel="accuracy")
    ceilings(axes, possible=1.0, chance_in_context=0.5)


@study.figure
def context_or_memory(e: Evidence[Protocol], axes: Axes) -> None:
    """Accuracy in weights and in context of every transformer, by its data."""
    for number, (name, rows) in enumerate(e[learn].at(stage="trained").split("data")):
        marker = "osD^v"[number // 10]
        axes.plot(rows["in_weights"], rows["in_context"], marker, color=f"C{number % 10}", alpha=0.7, label=name)
    axes.set(xlabel="accuracy in weights, of all labels", ylabel="accuracy in context, of two labels")
    ceilings(axes, possible=1.0, chance=0.5)
