"""Why does a network learn to learn from its context all at once, and what decides whether it does?

A sequence shows eight items with their labels, then an item whose label is asked for. Two layers of attention and a
classifier can answer from the context, once their heads have become an induction head, or from their weights, if
classes keep their labels through training. Networks are trained on sequences of new classes (with more labels than
fit into a context, and with just as many) and on sequences of trained classes (many or few of them, usually or rarely
shown in the context); probes follow the heads, and interventions on their attention say what they are needed for. Two
simpler models stand beside the network: an induction head of three numbers (or two) trained on the same sequences,
and the loss of three nested logits, whose gradient flow predicts the transition.

Sequences are drawn anew for every step, those of the tests too; the length of training was fixed beforehand, so
nothing is selected. The number of steps comes from pilots with seeds of their own, and so does the learning rate of the
minimal head's numbers: of 0.003, 0.005, 0.01 and 0.02 the one whose rise on new classes comes nearest the network's.

Departures from the paper: AdamW in place of plain SGD, whose plateau is ten and more times as long (`paper` and
`--optimizer sgd` have it); each unit of the classifier has its own bias; a new class is new in every sequence, not in
every batch. The equations of both simpler models are put together from the paper's description. A training of the
network is bound by its matrix products, so stacking the seeds would save nothing (`benchmarks/item_labels.py`).

What was learnt beside the claims: the flow of the nested logits jumps too, but labels of the context come well before
the right one only where its classifier learns hundreds of times as fast as its head. The head of three numbers forms
with as many labels as pairs, too, where the network's does not.

By the time of a step, `paper` needs about three hours of one core for each training of the network, of which it has
102: a day of a machine with 16 cores, or of one GPU.

Source: Reddy, ICLR 2024 (arXiv 2312.03002), sections 2 to 5, figures 1 to 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding

from etude.in_context import (
    AttentionOnlyClassifier,
    GaussianItems,
    ItemLabelSequences,
    ItemLabelTask,
    MinimalInductionHead,
    NestedLogitLoss,
    Transition,
    context_label_accuracy,
    encode,
    even_attention,
    hidden_positions,
    in_context_accuracy,
    in_weights_accuracy,
    induction_scores,
    interleave,
    label_to_item,
    nearest_exemplar,
    target_to_labels,
    transition,
)
from etude.study import Axes, Config, Evidence, Lab, Paper, Quantity, Rule, Study, Table, all_of, exact, mean, ratio


class Protocol(Config):
    """How long the networks are trained, how, and on which data besides those of the claims."""

    steps: int = 1_200
    """Training steps of every network."""
    evaluate_every: int = 25
    """Steps between points of the learning curves."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """The optimizer; the paper's is plain SGD."""
    learning_rate: float = 1e-3
    """Its learning rate."""
    head_rate: float = 3e-3
    """Learning rate of the few numbers of the minimal induction head."""
    shrink: float = 1e-6
    """Fraction by which a step shrinks the weights, whatever the learning rate."""
    tested: int = 4_000
    """Sequences of each test after training; an eighth of them at each point of the learning curves."""
    between: bool = False
    """Whether to train on the data between those of the claims, too."""


@dataclass(frozen=True)
class Data:
    """What the training sequences are like; the defaults are the paper's."""

    classes: int = 2_048
    labels: int = 32
    shots: int = 2
    p_bursty: float = 1.0
    p_novel: float = 0.0
    zipf_exponent: float = 0.0
    noise: float = 0.1


DATA = {
    "new classes": Data(shots=1, p_novel=1.0),
    "as many labels as pairs": Data(labels=8, shots=1, p_novel=1.0),
    "many classes": Data(),
    "few classes": Data(classes=128),
    "rarely bursty": Data(p_bursty=0.1),
}
BETWEEN = {
    "256 classes": Data(classes=256),
    "512 classes": Data(classes=512),
    "1024 classes": Data(classes=1_024),
    "8192 classes": Data(classes=8_192),
    "a quarter bursty": Data(p_bursty=0.25),
    "half bursty": Data(p_bursty=0.5),
    "4 shots, few classes": Data(classes=128, shots=4),
    "noisy, few classes": Data(classes=128, noise=1.0),
    "Zipf": Data(zipf_exponent=1.0),
    "half new": Data(p_bursty=0.5, p_novel=0.5),
    "16 labels": Data(labels=16, shots=1, p_novel=1.0),
    "9 labels": Data(classes=2_043, labels=9, shots=1, p_novel=1.0),
}
COMPARED = ("new classes", "many classes", "few classes", "rarely bursty")
PAIRS, CONTENT, POSITIONS, BATCH = 8, 63, 65, 128
CLASSIFIER_RATES = (1, 300)  # of the nested logits' classifier, the head's being 1
NEAR_ORIGIN = (0.01, 0.01, 0.01)
MINIMAL = {"three numbers": ("beta1", "alpha", "beta2"), "two numbers": ("beta1", "alpha")}
Network = Literal["attention", "three numbers", "two numbers"]

study = Study(
    paper=Paper(
        "The mechanistic basis of data dependence and abrupt learning in an in-context classification task",
        "Gautam Reddy",
        2024,
        "2312.03002",
        "ICLR",
    ),
    topic="in-context learning",
    presets={
        "smoke": Protocol(steps=6, evaluate_every=3, tested=64, seeds=2),
        "laptop": Protocol(),
        "extended": Protocol(steps=5_000, between=True, seeds=10),
        "paper": Protocol(
            steps=500_000,
            evaluate_every=500,
            optimizer="sgd",
            learning_rate=1e-2,
            head_rate=1e-2,
            tested=10_000,
            between=True,
            seeds=6,
        ),
    },
)


def cells(config: Protocol) -> list[dict[str, Any]]:
    """Every network on the data of the claims (the one of two numbers on new classes alone), one on those between."""
    more = BETWEEN if config.between else {}
    trained = [("attention", name) for name in (*DATA, *more)] + [("three numbers", name) for name in DATA]
    return [{"network": network, "data": name} for network, name in [*trained, ("two numbers", "new classes")]]


class Bench:
    """A task with vectors for its labels, and how a network is asked for the answers to its sequences."""

    def __init__(self, network: Network, data: Data, lab: Lab) -> None:
        self.network = network

        def generator(stream: str) -> torch.Generator:
            return torch.Generator(lab.device).manual_seed(lab.generator(stream).initial_seed())

        world = generator("world")
        items = GaussianItems(data.classes, CONTENT, data.noise, generator=world)
        self.task = ItemLabelTask(
            items, data.labels, pairs=PAIRS, shots=data.shots, p_bursty=data.p_bursty, p_novel=data.p_novel,
            zipf_exponent=data.zipf_exponent,
        )  # fmt: skip
        self.label_vectors = torch.randn(data.labels, CONTENT, generator=world, device=lab.device) / CONTENT**0.5
        self.training, self.places, self.testing = (generator(name) for name in ("training", "places", "testing"))
        weights = lab.generator("weights")
        self.model: nn.Module = (
            AttentionOnlyClassifier(CONTENT, positions=POSITIONS, labels=data.labels, generator=weights)
            if network == "attention"
            else MinimalInductionHead(CONTENT, labels=data.labels, parameters=MINIMAL[network], generator=weights)
        ).to(lab.device)

    def answer(self, batch: ItemLabelSequences, generator: torch.Generator, **options: Any) -> Any:
        """Logits of the target's label, and attention maps if they are asked for."""
        if self.network == "attention":
            tokens = encode(batch, self.label_vectors, positions=POSITIONS, generator=generator)
            return self.model(tokens, **options)
        return self.model(interleave(batch.items, embedding(batch.labels, self.label_vectors)), **options)

    def descent(self, config: Protocol) -> torch.optim.Optimizer:
        """The optimizer; what shrinks the weights is divided by the learning rate that it will be multiplied with."""
        few = [p for p in self.model.parameters() if p.ndim == 0]
        rest = [p for p in self.model.parameters() if p.ndim > 0]
        groups = [
            {"params": parameters, "lr": rate, "weight_decay": config.shrink / rate}
            for parameters, rate in ((rest, config.learning_rate), (few, config.head_rate))
            if parameters
        ]
        optimizers: dict[str, Callable[..., torch.optim.Optimizer]] = {
            "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD,
        }  # fmt: skip
        return optimizers[config.optimizer](groups, fused=True)


@study.measure(over=cells)
def learn(lab: Lab, config: Protocol, *, network: Network, data: str) -> None:
    """Learning curves; after training, the tests, what is possible on them, and what breaks the attention network."""
    bench = Bench(network, {**DATA, **BETWEEN}[data], lab)
    task, draws = bench.task, bench.testing
    small = max(config.tested // 8, 1)
    context, weights = task.in_context(small, draws), task.in_weights(small, draws)

    @torch.no_grad()
    def progress() -> dict[str, Tensor]:
        logits, maps = bench.answer(context, draws, maps=True)
        scores = induction_scores(maps, context)
        return {
            "in_context": in_context_accuracy(logits, context),
            "context_label": context_label_accuracy(logits, context),
            "item_label": scores.item_label[0],
            "target_item_label": scores.target_item_label[0],
            "target_label": scores.target_label[0],
            "in_weights": in_weights_accuracy(bench.answer(weights, draws), weights),
        }

    descent = bench.descent(config)
    for step in lab.track(range(config.steps + 1), "steps"):
        if step % config.evaluate_every == 0:
            lab.record(stage="training", step=step, **progress())
        if step < config.steps:
            batch = task.train(BATCH, bench.training)
            loss = cross_entropy(bench.answer(batch, bench.places), batch.target)
            descent.zero_grad()
            loss.backward()
            descent.step()

    context, weights = task.in_context(config.tested, draws), task.in_weights(config.tested, draws)
    swapped, as_trained = task.swapped(config.tested, draws), task.train(config.tested, draws)
    means = torch.cdist(weights.items[:, -1], task.items.means).argmin(1)
    possible = {
        "in_context_ceiling": (nearest_exemplar(context) == context.target).float().mean(),
        "in_weights_ceiling": (means % task.labels == weights.target).float().mean(),
    }
    edits: dict[str, Mapping[int, Callable[[Tensor], Tensor]] | None] = {"none": None}
    if network == "attention":
        labels = label_to_item(PAIRS, lab.device).any(2)
        seen = target_to_labels(torch.ones(1, PAIRS, dtype=torch.bool, device=lab.device))
        edits |= {"layer 1": {0: even_attention(labels)}, "layer 2": {1: hidden_positions(seen[:, None])}}
    tests = {"in_context": context, "swapped": swapped, "as_trained": as_trained}
    for name, edit in edits.items():
        options = {} if edit is None else {"edit": edit}
        with torch.no_grad():
            right = {test: in_context_accuracy(bench.answer(x, draws, **options), x) for test, x in tests.items()}
            recalled = in_weights_accuracy(bench.answer(weights, draws, **options), weights)
        lab.record(
            stage="trained",
            edit=name,
            step=config.steps,
            in_weights=recalled,
            **right,
            **possible,
        )


@study.measure(seeds=1)
def nested(lab: Lab, config: Protocol) -> None:
    """Gradients of the loss of three nested logits at the origin, and its gradient flow from there."""
    for labels in (8, 9, 16, 32):
        loss = NestedLogitLoss(PAIRS, labels)
        origin = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(loss(*origin), origin)
        expected = torch.tensor([0, 0, -(1 - PAIRS / labels) / (2 * PAIRS)], dtype=torch.float64)
        lab.record(labels=labels, error=(gradient - expected).abs().max(), norm=gradient.norm())
        times = torch.linspace(0, 400, 8_001, dtype=torch.float64)
        for rate in CLASSIFIER_RATES:
            path = loss.flow(times, start=NEAR_ORIGIN, rates=(1, 1, rate))
            lab.save(f"flow-{labels}-{rate}", {"times": times, "path": path, **vars(loss.predictions(*path.T))})


# ---- claims --------------------------------------------------------------------------------------------------------

SHORTER = "AdamW and 1,200 steps for SGD and 75,000 and more"
CHANCE = {"in_context": 1 / PAIRS, "context_label": PAIRS / 32, "target_item_label": 1 / (2 * PAIRS + 1)}


def after(e: Evidence[Protocol], data: str, network: str = "attention", edit: str = "none") -> Table:
    """The tests of the trained networks of a kind."""
    return e[learn].at(network=network, data=data, stage="trained", edit=edit)


def rise(e: Evidence[Protocol], measure: str, part: str, network: str = "attention") -> Quantity:
    """The onset, middle, end or width of a measure's rise from its level by chance to 1, on new classes."""

    def of_one(rows: Any) -> float:
        rows = rows.sort_values("step")
        steps, values = (torch.tensor(rows[column].to_numpy(np.float64)) for column in ("step", measure))
        found: Transition = transition(steps, values, CHANCE[measure], 1.0)
        return float(getattr(found, part))

    return e[learn].at(network=network, data="new classes", stage="training").per("seed").apply(of_one)


def flow(e: Evidence[Protocol], rate: int, labels: int = 32) -> dict[str, Tensor]:
    """The gradient flow of the nested logits from near the origin, for one rate of the classifier."""
    found: dict[str, Tensor] = e.saved("nested", f"flow-{labels}-{rate}")
    return {**found, "in_context": found["correct"]}


def predicted(e: Evidence[Protocol], measure: str, rate: int) -> Transition:
    """The same rise in that flow, by its own clock."""
    found = flow(e, rate)
    return transition(found["times"], found[measure], CHANCE[measure], 1.0)


@study.claim(reported="a plateau at 1/N, then a jump to about 1 (figures 1d and 3)", deviation=SHORTER)
def accuracy_in_context_jumps(e: Evidence[Protocol]) -> Rule:
    """From 1/8, accuracy in context makes the middle three fifths of its way in at most 35 % of the steps before."""
    onset, width = rise(e, "in_context", "onset"), rise(e, "in_context", "width")
    theory = {rate: predicted(e, "in_context", rate) for rate in CLASSIFIER_RATES}
    return all_of(
        (ratio(width, onset) <= 0.35).named("steps of the rise over those before"),
        (mean(after(e, "new classes")["in_context"]) >= 0.9).named("accuracy in context at the end"),
    ).also(
        **{"step of the onset": mean(onset)},
        **{f"rise over before, nested logits, classifier {rate} times as fast": exact(found.width / found.onset)
           for rate, found in theory.items()},
        **{"best possible": mean(after(e, "new classes")["in_context_ceiling"])},
        **{"rise over before, three numbers": ratio(*(rise(e, "in_context", part, "three numbers")
                                                     for part in ("width", "onset")))},
    )  # fmt: skip


@study.claim(reported="CLA first; ILA1, TILA2 and accuracy together (figure 4)", deviation=SHORTER)
def context_labels_come_first(e: Evidence[Protocol]) -> Rule:
    """Answers are labels of the context before the second layer finds the right one, and that makes them right."""
    named, found, right = (
        rise(e, measure, "middle") for measure in ("context_label", "target_item_label", "in_context")
    )
    return all_of(
        (mean(found - named) > 0).named("steps from labels of the context to the right label found"),
        (mean((found - right).abs() / right) <= 0.15).named("distance from the rise of accuracy, relative"),
    ).also(
        **{"step of right answers over step of labels of the context": ratio(right, named)},
        **{f"the same, nested logits, classifier {rate} times as fast": exact(
            predicted(e, "in_context", rate).middle / predicted(e, "context_label", rate).middle
        ) for rate in CLASSIFIER_RATES},
    )  # fmt: skip


def gain(e: Evidence[Protocol], test: str, more: str, less: str, network: str = "attention") -> Quantity:
    """How much better networks trained on some data are on a test than those trained on other data."""
    return after(e, more, network)[test] - after(e, less, network)[test]


@study.claim(reported="more classes: more in-context, less in-weights learning (figure 2)", deviation=SHORTER)
def many_classes_favour_the_context(e: Evidence[Protocol]) -> Rule:
    """With 2,048 classes networks learn in context, with 128 in weights."""
    many, few = "many classes", "few classes"
    return all_of(
        (mean(gain(e, "in_context", many, few)) > 0.4).named("accuracy in context, 2,048 against 128 classes"),
        (mean(gain(e, "in_weights", few, many)) > 0.2).named("accuracy in weights, 128 against 2,048 classes"),
    ).also(**{"in context against memory, 2,048 classes": mean(after(e, many)["swapped"])})


@study.claim(reported="burstier data: more in-context, less in-weights learning (figure 2)", deviation=SHORTER)
def bursts_favour_the_context(e: Evidence[Protocol]) -> Rule:
    """Networks learn in context where every sequence is bursty, and in weights where one in ten is."""
    often, rarely = "many classes", "rarely bursty"
    return all_of(
        (mean(gain(e, "in_context", often, rarely)) > 0.4).named("accuracy in context, always against rarely bursty"),
        (mean(gain(e, "in_weights", rarely, often)) > 0.2).named("accuracy in weights, rarely against always bursty"),
    )


@study.claim(reported="0 of 6 seeds with L = N = 8, 6 of 6 with L = 32", deviation=SHORTER)
def without_the_curriculum_no_head_forms(e: Evidence[Protocol]) -> Rule:
    """Where all labels are in every context, so that none of them tells the context apart, there is no jump."""
    equal, more = after(e, "as many labels as pairs"), after(e, "new classes")
    return all_of(
        (mean(equal["in_context"]) <= 0.3).named("accuracy in context, 8 labels"),
        (mean(more["in_context"]) >= 0.8).named("accuracy in context, 32 labels"),
    ).also(**{"three numbers, 8 labels": mean(after(e, "as many labels as pairs", "three numbers")["in_context"])})


@study.claim(reported="an induction head (section 3)", deviation="the paper shows attention, and no intervention on it")
def both_heads_are_needed(e: Evidence[Protocol]) -> Rule:
    """Breaking either layer's head of a trained network takes in-context learning away, and no in-weights learning."""

    def drop(data: str, test: str, layer: str) -> Quantity:
        return after(e, data)[test] - after(e, data, edit=layer)[test]

    rules = []
    for layer in ("layer 1", "layer 2"):
        rules.append((mean(drop("new classes", "in_context", layer)) >= 0.6).named(f"in context, {layer}"))
        rules.append((mean(drop("few classes", "in_weights", layer)) <= 0.1).named(f"in weights, {layer}"))
    return all_of(*rules)


@study.claim(
    reported="same transition and data dependence (figures 5 and 6)",
    deviation="two kinds of data count as ordered where the networks' mean accuracies are more than 0.1 apart",
)
def three_numbers_are_enough(e: Evidence[Protocol]) -> Rule:
    """An induction head of three numbers learns in context, and on the data on which the network does so more."""
    rules = [
        (mean(after(e, "new classes", "three numbers")["in_context"]) >= 0.9).named("accuracy in context, new classes")
    ]
    for one, other in combinations(COMPARED, 2):
        apart = gain(e, "in_context", one, other).mean()
        if abs(apart) > 0.1:
            more, less = (one, other) if apart > 0 else (other, one)
            better = gain(e, "in_context", more, less, "three numbers")
            rules.append((mean(better) > 0).named(f"{more} against {less}"))
    two = after(e, "new classes", "two numbers")["in_context"]
    return all_of(*rules).also(**{"two numbers, new classes": mean(two)})


@study.claim(reported="the origin is critical if and only if L = N (section 5)")
def the_origin_is_critical_only_without_curriculum(e: Evidence[Protocol]) -> Rule:
    """The nested logits' gradient at the origin is (N/L - 1) / 2N in one direction and zero in the others."""
    rows = e[nested].frame.set_index("labels")
    return all_of(
        (exact(rows["error"].max()) < 1e-10).named("distance of the gradient from the closed form"),
        (exact(rows["norm"][PAIRS]) < 1e-10).named("its norm where L = N"),
        (exact(rows["norm"].drop(PAIRS).min()) > 1e-3).named("its least norm elsewhere"),
    )


# ---- figures -------------------------------------------------------------------------------------------------------


@study.figure
def abrupt_learning(e: Evidence[Protocol], axes: Axes) -> None:
    """Accuracy in context of every seed, beside what chance, a context read blindly and an exact matcher reach."""
    for data, colour, label in (("new classes", "C0", "32 labels"), ("as many labels as pairs", "C1", "8 labels")):
        rows = e[learn].at(network="attention", data=data, stage="training")
        for number, (_, run) in enumerate(rows.split("seed")):
            axes.plot(*run.curve("step", "in_context"), colour, alpha=0.7, label=None if number else label)
    levels = {"exact matcher": after(e, "new classes")["in_context_ceiling"].mean(), "1/N": 1 / PAIRS, "1/L": 1 / 32}
    for (label, level), line in zip(levels.items(), ("-", "--", ":")):
        axes.axhline(level, color="0.5", linewidth=1, linestyle=line, label=label)
    axes.set(xlabel="training step", ylabel="accuracy in context")
    axes.legend(frameon=False)


PARTS = {
    "context_label": ("label of the context", "C2"),
    "item_label": ("layer 1: label to item", "C4"),
    "target_item_label": ("layer 2: target to its label", "C3"),
    "in_context": ("right answer", "C0"),
}


@study.figure
def what_comes_first(e: Evidence[Protocol], axes: Axes) -> None:
    """Progress of the first seed's network; dashed, nested logits with a fast classifier, by a clock of their own."""
    run = e[learn].at(network="attention", data="new classes", stage="training", seed=0)
    theory, flow_clock = flow(e, CLASSIFIER_RATES[-1]), predicted(e, "in_context", CLASSIFIER_RATES[-1]).middle
    network_clock = rise(e, "in_context", "middle")[0]
    network_clock = network_clock if np.isfinite(network_clock) else float(e.config.steps)
    for measure, (label, colour) in PARTS.items():
        steps, values = run.curve("step", measure)
        axes.plot(steps / network_clock, values, colour, label=label)
        axes.plot(theory["times"] / flow_clock, theory[measure], colour, linestyle="--", alpha=0.6)
    axes.set(xlim=(0, 2), xlabel="time over that of half the rise", ylabel="attention, probability or accuracy")
    axes.legend(frameon=False)


@study.figure
def memory_or_context(e: Evidence[Protocol], axes: Axes) -> None:
    """Accuracy in weights and in context by the data, of every seed: networks (discs), three numbers (crosses)."""
    trained = e[learn].at(stage="trained", edit="none")
    for number, (data, rows) in enumerate(trained.split("data")):
        for network, own in rows.split("network"):
            marker = {"attention": "o", "three numbers": "x", "two numbers": "+"}[network]
            label = data if network == "attention" else None
            axes.plot(own["in_weights"], own["in_context"], marker, color=f"C{number % 10}", alpha=0.7, label=label)
    best = trained.at(network="attention", data="few classes")
    axes.axhline(best["in_context_ceiling"].mean(), color="0.5", linewidth=1, linestyle="--", label="best possible")
    axes.axvline(best["in_weights_ceiling"].mean(), color="0.5", linewidth=1, linestyle="--")
    axes.set(xlabel="accuracy in weights", ylabel="accuracy in context")
    axes.legend(frameon=False, fontsize="small")


@study.figure
def landscape(e: Evidence[Protocol], axes: Axes) -> None:
    """Loss of the nested logits for 32 labels with beta1 = alpha, and gradient flows from near the origin."""
    head, classifier = torch.meshgrid(torch.linspace(-1, 8, 90), torch.linspace(-1, 12, 90), indexing="ij")
    levels = axes.contourf(head, classifier, NestedLogitLoss(PAIRS, 32)(head, head, classifier), 20, cmap="Greys")
    axes.figure.colorbar(levels, label="loss")
    for labels, colour in ((32, "C0"), (16, "C2"), (9, "C3"), (8, "C1")):
        path = flow(e, 1, labels)["path"]
        axes.plot(path[:, :2].mean(1), path[:, 2], colour, label=f"{labels} labels")
    axes.set(xlim=(-1, 8), ylim=(-1, 12), xlabel="logits of the head, mean of beta1 and alpha", ylabel="xi")
    axes.legend(frameon=False)
