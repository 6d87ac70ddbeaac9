"""How good is the learning algorithm that a sequence model finds when it learns Boolean functions in context?

A prompt holds inputs and labels of a function drawn anew; a model trained on prompts of one class predicts every label
from the pairs before it. The classes are small enough to list all their functions, so what is reported is regret: how
much more often the model errs than the exact posterior does, averaged over the second half of the prompt. Accuracy
alone misleads, because labels are unbalanced and no learner is perfect. Everything is measured at points that repeat
no earlier one of their prompt, so that nothing can be looked up.

`laptop` trains small networks on 6 bits and 20 points (the paper: 28 bits, up to 70 points, 12 layers of width 256),
so all classes but the sparse parities (10 bits, 2 of them) and the taught monotone conjunctions (12 bits) have 64
inputs. Models are trained for a fixed number of steps with Adam on the logistic loss of all points; the learning rate
rises over the first steps and falls to zero along a cosine. Rates, the spread of initial weights and the sizes were
chosen on seed 101, on prompts of their own: for the transformer from 0.001 to 0.01, where 0.005 did not leave
the plateau on halfspaces; for the LSTM from 0.003 to 0.01 and from 32 to 128 units, where only the last learns
conjunctions in so few steps. Initial matrices are wider than GPT-2's, which at width 48 leave attention flat for most
of so short a training. A model trained with a prefix in half of the prompts sees half as many ordinary ones.

At 28 bits functions cannot be listed, so at `paper` the claims about regret are untested; by its size, a training
there takes hours of a GPU.

The paper says that a model given a teaching sequence "can implement two distinct algorithms". Two claims treat this:
the behaviour (a model trained on prompts with and without a prefix learns from both), and its simplest reading (one
posterior, which knows of no prefix, does both as well). The first does not prove two algorithms; where the second
holds too, one suffices to explain what is seen. Its margin of 0.05, that of the first, was set after a trial with
another seed and a smaller network, which was 0.09 behind the posterior.

Many inputs of a conjunction are drawn so as to satisfy it, so inputs alone give it away in part. What the best
predictor makes of them, with no label, is shown beside the claim that shuffled labels destroy learning.

What was learnt: conjunctions are learnt to within 0.03 of the exact posterior on average, though five seeds leave
that limit open. One model learns from prefixes and from ordinary prompts, but with half the ordinary prompts of the
network that has no others it is 0.05 behind it and 0.08 behind the one posterior that would explain both, at this
length of training. With shuffled labels prompts still say something: inputs are made to satisfy the function in three
cases of ten, so that the best prediction from inputs alone is 0.19 above a constant, and the network finds half of
that; a constant is too weak a null.

Source: Bhattamishra, Patel, Blunsom and Kanade, ICLR 2024 (arXiv 2310.03016), sections 3 to 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import soft_margin_loss

from etude.in_context import (
    CNF,
    DNF,
    Averaging,
    BayesPredictor,
    Conjunctions,
    Disjunctions,
    EliminationLearner,
    FunctionClass,
    IntegerHalfspaces,
    Majorities,
    NearestNeighbour,
    NearestNeighbourRule,
    Parities,
    ParitySolver,
    PerPromptNetwork,
    PromptModel,
    Prompts,
    SparseDisjunctions,
    Thresholds,
    excess_error,
    head_score,
    nearest_neighbour_labels,
    predicted,
    unseen,
)
from etude.nn import Recurrent, Transformer
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
    exact,
    grid,
    mean,
    within,
)

Sequence = Literal["transformer", "lstm"]
AFTER = 5  # points after the prefix that are read
LAST = 8  # points at the end of a prompt at which parities are read
LISTED = 5e8  # functions times inputs that are listed at most


class Protocol(Config):
    """What is learnt, by which network, how long."""

    bits: int = 6
    """Bits of the inputs, of all classes but those named below."""
    points: int = 20
    """Points of a prompt."""
    largest: int = 3
    """Largest weight of halfspaces."""
    parity_bits: int = 10
    """Bits of the inputs of parities; two of them count."""
    taught_bits: int = 12
    """Bits of the monotone conjunctions that are always taught."""
    taught_points: int = 24
    """Points of their prompts."""
    taught_steps: int = 400
    """Training steps on them."""
    free: int = 6
    """Points with random labels before the nearest-neighbour rule sets in."""
    width: int = 48
    """Width of the transformer."""
    layers: int = 2
    """Layers of the transformer."""
    heads: int = 1
    """Attention heads of each layer."""
    spread: float = 6.0
    """Factor of the transformer's initial matrices, which are N(0, 0.02^2) before."""
    lstm_width: int = 128
    """Units of each of the LSTM's two layers."""
    steps: int = 1_400
    """Training steps, the same for every class and both networks."""
    batch: int = 64
    """Prompts of a training step."""
    learning_rate: float = 3e-3
    """Adam's largest, for the transformer."""
    lstm_learning_rate: float = 3e-3
    """Adam's largest, for the LSTM."""
    beta2: float = 0.98
    """Adam's decay rate of squared gradients."""
    decay: bool = True
    """Whether the learning rate rises over the first steps and falls to zero along a cosine, or is constant."""
    tests: int = 600
    """Test prompts."""


study = Study(
    paper=Paper(
        "Understanding In-Context Learning in Transformers and LLMs by Learning to Learn Discrete Functions",
        "Satwik Bhattamishra, Arkil Patel, Phil Blunsom, Varun Kanade",
        2024,
        "2310.03016",
        "ICLR",
    ),
    topic="in-context learning",
    presets={
        "smoke": Protocol(
            bits=3, points=10, parity_bits=5, taught_bits=3, taught_points=10, taught_steps=4, free=3, width=8,
            lstm_width=8, steps=4, batch=8, tests=16, seeds=2,
        ),
        "laptop": Protocol(),
        "extended": Protocol(
            bits=8, points=24, largest=2, free=8, width=64, layers=3, heads=4, steps=10_000,
            taught_steps=2_000, learning_rate=2e-3, lstm_learning_rate=2e-3, tests=1_000,
        ),
        "paper": Protocol(
            bits=28, points=70, taught_bits=28, taught_points=70, taught_steps=30_000, free=20, width=256, layers=12,
            heads=8, spread=1.0, lstm_width=256, steps=30_000, learning_rate=1e-4, lstm_learning_rate=1e-3,
            beta2=0.999, decay=False, tests=1_280,
        ),
    },
)  # fmt: skip
SMALL = "6 bits, 20 points and small networks at laptop; steps fixed, where the paper stops at a perfect batch"


def functions(config: Protocol, task: str) -> FunctionClass:
    """A class of functions by its name."""
    bits = config.bits
    classes: dict[str, Callable[[], FunctionClass]] = {
        "conjunctions": lambda: Conjunctions(bits),
        "disjunctions": lambda: Disjunctions(bits),
        "sparse disjunctions": lambda: SparseDisjunctions(bits, size=min(4, bits)),
        "DNF": lambda: DNF(bits),
        "CNF": lambda: CNF(bits),
        "majorities": lambda: Majorities(bits),
        "thresholds": lambda: Thresholds(bits),
        "halfspaces": lambda: IntegerHalfspaces(bits, config.largest),
        "sparse parities": lambda: Parities(config.parity_bits, size=2),
        "parities": lambda: Parities(config.parity_bits),
        "nearest neighbour": lambda: NearestNeighbourRule(bits, config.free),
        "monotone conjunctions": lambda: Conjunctions(config.taught_bits, negated=False, forced=0.4),
    }
    return classes[task]()


def listable(task: FunctionClass) -> bool:
    """Whether all functions at all inputs are few enough."""
    count, bits = task.count(), getattr(task, "bits", 0)
    return count is not None and count * 2**bits <= LISTED


def ceiling(task: FunctionClass) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The exact expected label; None where the functions are too many to list."""
    if isinstance(task, NearestNeighbourRule):
        return NearestNeighbour()  # determines every label that is scored
    if isinstance(task, Parities) and task.size is None:
        return ParitySolver()
    return BayesPredictor(task) if listable(task) else None


def network(config: Protocol, sequence: Sequence, bits: int, points: int, generator: torch.Generator) -> PromptModel:
    """A transformer or an LSTM that reads prompts."""
    if sequence == "lstm":
        width = config.lstm_width
        return PromptModel(Recurrent(width, 2, generator=generator), bits, width, generator=generator)
    width, context = config.width, 2 * points - 1
    body = Transformer(width, config.layers, config.heads, context=context, generator=generator)
    with torch.no_grad():
        for parameter in body.parameters():
            if parameter.ndim == 2:
                parameter *= config.spread
    return PromptModel(body, bits, width, generator=generator)


def learn(
    lab: Lab, config: Protocol, task: FunctionClass, sequence: Sequence, taught: float, points: int
) -> PromptModel:
    """Train on prompts that never repeat."""
    steps = config.taught_steps if taught == 1 else config.steps
    model = network(config, sequence, task.bits, points, lab.generator("weights")).to(lab.device)
    rate = config.lstm_learning_rate if sequence == "lstm" else config.learning_rate
    descent = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, config.beta2), fused=True)
    warm = max(1, min(100, steps // 10))

    def share(step: int) -> float:
        return min(1.0, (step + 1) / warm) * (1 + math.cos(math.pi * step / steps)) / 2 if config.decay else 1.0

    schedule = torch.optim.lr_scheduler.LambdaLR(descent, share)
    draws, start = lab.generator("training"), task.scored_from
    for _ in lab.track(range(steps), "steps"):
        prompts = task.prompts(config.batch, points, draws, taught=taught)
        x, y = prompts.x.to(lab.device), prompts.y.to(lab.device)
        loss = soft_margin_loss(model(x, y)[:, start:], y[:, start:])
        descent.zero_grad()
        loss.backward()
        descent.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def scores(model: nn.Module, prompts: Prompts, device: torch.device) -> Tensor:
    """The model's logits, in chunks."""
    chunks = zip(prompts.x.to(device).split(256), prompts.y.to(device).split(256))
    return torch.cat([model(x, y) for x, y in chunks]).cpu()


def by_point(
    prompts: Prompts, learners: dict[str, Tensor], expected: Tensor | None, at: Tensor, first: int = 0
) -> pd.DataFrame:
    """Accuracy and regret of learners at given points (batch, places) that repeat no earlier one of their prompt."""
    y, new = prompts.y.gather(1, at), unseen(prompts.x).gather(1, at)
    ideal = None if expected is None else expected.gather(1, at)

    def on_new(values: Tensor) -> list[float]:
        return (values.double().where(new, math.nan)).nanmean(0).tolist()

    tables = []
    for name, logits in learners.items():
        chosen = logits.gather(1, at)
        regret = math.nan if ideal is None else on_new(excess_error(chosen, ideal))
        columns = {
            "point": range(first, first + at.shape[1]),
            "accuracy": on_new(predicted(chosen) == y),
            "regret": regret,
        }
        tables.append(pd.DataFrame(columns).assign(learner=name))
    return pd.concat(tables)


def train_and_test(lab: Lab, config: Protocol, task: FunctionClass, sequence: Sequence, taught: float) -> None:
    """Train a model, and record it and the learners it stands beside on ordinary, taught and shuffled prompts."""
    points = config.taught_points if taught == 1 else config.points
    model = learn(lab, config, task, sequence, taught, points)
    draws, bayes = lab.generator("test"), ceiling(task)

    def record(kind: str, prompts: Prompts, at: Tensor, first: int = 0) -> None:
        x, y = prompts.x, prompts.y
        expected = None if bayes is None else bayes(x, y)
        learners = {
            "model": scores(model, prompts, lab.device),
            "one neighbour": NearestNeighbour(1)(x, y),
            "three neighbours": NearestNeighbour(3)(x, y),
            "averaging": Averaging()(x, y),
            "always -1": -torch.ones_like(y),
        }
        if expected is not None:
            learners["Bayes"] = expected
        if isinstance(task, Conjunctions):
            learners["elimination"] = EliminationLearner()(x, y)
        if isinstance(task, Parities):
            learners["Gaussian elimination"] = ParitySolver()(x, y)
        lab.record(by_point(prompts, learners, expected, at, first), prompts=kind)

    ordinary = task.prompts(config.tests, points, draws)
    start = task.scored_from
    record("ordinary", ordinary, torch.arange(start, points).expand(config.tests, -1), start)
    if isinstance(task, Conjunctions):
        lesson = task.prompts(config.tests, points, draws, taught=1)
        after = lesson.prefix[:, None] + torch.arange(AFTER)
        record("taught", lesson, after)
        record("as late, untaught", task.prompts_of(lesson.parameters, points, draws), after)
        whole = task.prompts(8 * config.tests, points, draws)
        order = torch.rand(whole.y[:, :-1].shape, generator=draws).argsort(1)
        shuffled = replace(whole, y=torch.cat([whole.y[:, :-1].gather(1, order), whole.y[:, -1:]], 1))
        one = torch.ones_like(shuffled.y)
        learners = {"model": scores(model, shuffled, lab.device), "always +1": one, "always -1": -one}
        if isinstance(bayes, BayesPredictor):
            learners["inputs alone"] = bayes.inputs_alone(shuffled.x)[:, None].expand_as(one)
        end = torch.full((len(one), 1), points - 1)
        lab.record(by_point(shuffled, learners, None, end), prompts="shuffled")
    if isinstance(task, Parities):
        few = slice(max(1, config.tests // 16))  # each trains a network for each of its last points
        alone = PerPromptNetwork(last=LAST)(ordinary.x[few], ordinary.y[few])
        accuracy = (predicted(alone)[:, -LAST:] == ordinary.y[few, -LAST:]).double().mean()
        lab.record(prompts="ordinary", learner="network of each prompt", accuracy=accuracy)
    if isinstance(task, NearestNeighbourRule) and sequence == "transformer":
        with torch.no_grad():
            _, maps = model(ordinary.x.to(lab.device), ordinary.y.to(lab.device), maps=True)
        targets = nearest_neighbour_labels(ordinary.x.to(lab.device), task.free)
        best = torch.stack([head_score(layer, targets) for layer in maps]).max()
        lab.record(prompts="ordinary", learner="best nearest-neighbour head", head_score=best)


@study.measure(
    over=lambda config: [
        *grid(task=["conjunctions"], sequence=["transformer"], taught=[0.0, 0.5]),
        *grid(task=["halfspaces", "sparse parities"], sequence=["transformer"], taught=[0.0]),
        *grid(task=["nearest neighbour"], sequence=["transformer", "lstm"], taught=[0.0]),
        *grid(task=["conjunctions"], sequence=["lstm"], taught=[0.0]),
        *grid(task=["monotone conjunctions"], sequence=["transformer"], taught=[1.0]),
    ]
)
def train(lab: Lab, config: Protocol, *, task: str, sequence: Sequence, taught: float) -> None:
    """The classes and networks that the claims are about; `taught` is the share of prompts with a teaching prefix."""
    train_and_test(lab, config, functions(config, task), sequence, taught)


@study.measure(
    since="extended",
    over=lambda config: grid(
        task=["disjunctions", "sparse disjunctions", "DNF", "CNF", "majorities", "thresholds", "parities"],
        sequence=["transformer", "lstm"],
    ),
)
def other_classes(lab: Lab, config: Protocol, *, task: str, sequence: Sequence) -> None:
    """The remaining classes, for the table of categories."""
    train_and_test(lab, config, functions(config, task), sequence, taught=0.0)


@study.measure(seeds=1)
def exactness(lab: Lab, config: Protocol) -> None:
    """The learners on 6 bits against brute force; nothing is trained."""
    task, draws = Conjunctions(6), lab.generator("prompts")
    prompts = task.prompts(10, 12, draws)
    bayes = BayesPredictor(task)(prompts.x, prompts.y)
    for x, y, expected in zip(prompts.x.tolist(), prompts.y.tolist(), bayes.tolist()):
        lab.record(check="posterior", value=max(abs(a - b) for a, b in zip(expected, by_hand(task, x, y))))
    many = task.prompts(5_000, 16, draws)
    wrong = (EliminationLearner()(many.x, many.y) > 0) & (many.y < 0)
    lab.record(check="false positives", value=int(wrong.sum()))
    every, _ = task.enumerate()
    points = torch.tensor(list(product([-1.0, 1.0], repeat=6)))
    table, (lessons, lengths) = task.labels(every, points), task.teaching(every)
    codes = ((lessons > 0) * 2 ** torch.arange(5, -1, -1)).sum(-1)
    for own, code, length in zip(table, codes, lengths):
        consistent = (table[:, code[:length]] == own[code[:length]]).all(1).sum()
        lab.record(check="consistent functions", value=int(consistent))


def by_hand(task: Conjunctions, x: list[list[float]], y: list[float]) -> list[float]:
    """The posterior mean of each label from the definition of conjunctions and their inputs, in plain Python."""
    posterior = {}
    for w in product([0, 1, -1], repeat=task.bits):
        size = sum(map(abs, w))
        posterior[w] = (task.relevant / 2) ** size * (1 - task.relevant) ** (task.bits - size)
    expected = []
    for point, label in zip(x, y):
        total = {1: 0.0, -1: 0.0}
        for w in posterior:
            true = all(wi * xi >= 0 for wi, xi in zip(w, point))
            size = sum(map(abs, w))
            posterior[w] *= (1 - task.forced) + (task.forced * 2**size if true else 0)
            total[1 if true else -1] += posterior[w]
            if true != (label > 0):
                posterior[w] = 0.0
        expected.append((total[1] - total[-1]) / (total[1] + total[-1]))
        posterior = {w: p / total[int(label)] for w, p in posterior.items() if p}
    return expected


def rows_of(
    e: Evidence[Protocol],
    task: str,
    sequence: Sequence = "transformer",
    taught: float = 0.0,
    prompts: str = "ordinary",
    learner: str = "model",
) -> Table:
    """The rows of one learner on one kind of prompts."""
    return e[train].at(task=task, sequence=sequence, taught=taught, prompts=prompts, learner=learner)


def late(table: Table, config: Protocol, column: str) -> Quantity:
    """The mean of a column over the second half of the prompt."""
    return table.at(point=list(range(config.points // 2, config.points))).per("seed").mean(column)


def last(table: Table, config: Protocol) -> Quantity:
    """Accuracy at the last points."""
    points = range(max(0, config.points - LAST), config.points)
    return table.at(point=list(points)).per("seed").mean("accuracy")


def listed(config: Protocol) -> bool | str:
    """Whether the ceiling of conjunctions and halfspaces can be computed."""
    fits = all(listable(functions(config, task)) for task in ("conjunctions", "halfspaces"))
    return fits or "functions of so many bits cannot be listed, and without the exact ceiling there is no regret"


@study.claim(reported='"nearly match the optimal learning algorithm"', deviation=SMALL, when=listed)
def conjunctions_are_learnt_nearly_optimally(e: Evidence[Protocol]) -> Rule:
    """On new points of conjunctions the transformer errs at most 0.03 above Bayes and 0.03 less than neighbours."""
    regret = {
        name: late(rows_of(e, "conjunctions", learner=name), e.config, "regret")
        for name in ("model", "one neighbour", "three neighbours", "averaging", "elimination")
    }
    neighbours = {n: (mean(regret[n] - regret["model"]) > 0.03).named(f"above {n}") for n in regret if "nei" in n}
    return all_of((mean(regret["model"]) <= 0.03).named("regret"), *neighbours.values()).also(
        **{"regret of averaging": mean(regret["averaging"]), "regret of elimination": mean(regret["elimination"])}
    )


@study.claim(reported="chance on parity-(10,2)", deviation="20 points and small networks at laptop")
def parity_is_not_learnt(e: Evidence[Protocol]) -> Rule:
    """On parities of two of ten bits the transformer stays near chance where Gaussian elimination is nearly perfect."""
    accuracy = {
        name: last(rows_of(e, "sparse parities", learner=name), e.config) for name in ("model", "Gaussian elimination")
    }
    alone = rows_of(e, "sparse parities", learner="network of each prompt")["accuracy"]
    return all_of(
        (mean(accuracy["model"]) <= 0.6).named("transformer"),
        (mean(accuracy["Gaussian elimination"]) >= 0.95).named("Gaussian elimination"),
    ).also(**{"a network trained on each prompt alone": mean(alone)})


@study.claim(reported="three categories of difficulty", deviation=SMALL, when=listed)
def classes_are_of_unequal_difficulty(e: Evidence[Protocol]) -> Rule:
    """Regret grows from conjunctions to integer halfspaces to sparse parities."""
    easy, middle, hard = (
        late(rows_of(e, task), e.config, "regret") for task in ("conjunctions", "halfspaces", "sparse parities")
    )
    return all_of(
        (mean(middle - easy) > 0).named("halfspaces above conjunctions"),
        (mean(hard - middle) > 0).named("parities above halfspaces"),
    ).also(conjunctions=mean(easy), halfspaces=mean(middle), parities=mean(hard))


@study.claim(
    reported="near perfect right after the prefix (figure 2)", deviation="12 bits and a small network at laptop"
)
def teaching_makes_learning_immediate(e: Evidence[Protocol]) -> Rule:
    """Trained with teaching prefixes, the transformer knows a monotone conjunction right after its prefix."""
    after, without = (
        rows_of(e, "monotone conjunctions", taught=1.0, prompts=kind).per("seed").mean("accuracy")
        for kind in ("taught", "as late, untaught")
    )
    return all_of(
        (mean(after) >= 0.95).named("accuracy after the prefix"),
        (mean(after - without) > 0.1).named("above the same points without"),
    )


def mixture(e: Evidence[Protocol], column: str, learner: str = "model") -> tuple[Quantity, Quantity]:
    """On ordinary prompts and after a prefix: the model trained on both, or a learner beside it."""
    ordinary = late(rows_of(e, "conjunctions", taught=0.5, learner=learner), e.config, column)
    return ordinary, rows_of(e, "conjunctions", taught=0.5, prompts="taught", learner=learner).per("seed").mean(column)


@study.claim(reported="both algorithms in one model (figure 3)", deviation=SMALL)
def one_model_learns_from_both_kinds_of_prompts(e: Evidence[Protocol]) -> Rule:
    """Trained with a prefix in half of the prompts, it uses prefixes and learns from ordinary prompts as well as ever.

    This does not prove two algorithms: see the next claim.
    """
    ordinary, after = mixture(e, "accuracy")
    alone = late(rows_of(e, "conjunctions"), e.config, "accuracy")
    without = rows_of(e, "conjunctions", prompts="taught").per("seed").mean("accuracy")
    return all_of(
        within(mean(alone - ordinary), -0.05, 0.05).named("accuracy lost on ordinary prompts"),
        (mean(after) >= 0.95).named("accuracy after the prefix"),
    ).also(**{"after the prefix, trained without prefixes": mean(without)})


@study.claim(reported="disputed in review: one posterior explains both curves", deviation=SMALL, when=listed)
def one_posterior_explains_both(e: Evidence[Protocol]) -> Rule:
    """One exact posterior that knows of no prefix is never more than 0.05 better than that model on either kind."""
    ordinary, after = mixture(e, "regret")
    ideal, certain = mixture(e, "accuracy", learner="Bayes")
    return all_of(
        (mean(ordinary) <= 0.05).named("regret on ordinary prompts"),
        (mean(after) <= 0.05).named("regret after the prefix"),
    ).also(**{"accuracy of the posterior, ordinary": mean(ideal), "and after the prefix": mean(certain)})


@study.claim(reported='"almost identical" on a range of tasks, worse on others', deviation=SMALL)
def an_lstm_matches_on_conjunctions_alone(e: Evidence[Protocol]) -> Rule:
    """An LSTM learns conjunctions as well as the transformer, and the nearest-neighbour rule less well."""
    difference = {
        task: late(rows_of(e, task), e.config, "accuracy") - late(rows_of(e, task, "lstm"), e.config, "accuracy")
        for task in ("conjunctions", "nearest neighbour")
    }
    head = rows_of(e, "nearest neighbour", learner="best nearest-neighbour head")["head_score"]
    return all_of(
        within(mean(difference["conjunctions"]), -0.05, 0.05).named("transformer above LSTM, conjunctions"),
        (mean(difference["nearest neighbour"]) > 0.03).named("transformer above LSTM, nearest neighbour"),
    ).also(**{"score of the best nearest-neighbour head": mean(head)})


@study.claim(reported="-")
def references_are_exact(e: Evidence[Protocol]) -> Rule:
    """The posterior is that of brute force, elimination has no false positive, a lesson leaves one function of 3^6."""
    worst = e[exactness].frame.groupby("check")["value"].max()
    return all_of(
        (exact(worst["posterior"]) <= 1e-12).named("largest difference from brute force"),
        (exact(worst["false positives"]) <= 0).named("false positives of elimination"),
        (exact(worst["consistent functions"]) <= 1).named("functions consistent with a teaching sequence"),
    )


@study.claim(reported="-", deviation="null: the better of the two constant predictions, which inputs do not raise")
def labels_carry_what_is_learnt(e: Evidence[Protocol]) -> Rule:
    """With its labels shuffled, the last point of a prompt is predicted no better than by a constant."""
    model, plus, minus = (
        rows_of(e, "conjunctions", prompts="shuffled", learner=learner)["accuracy"]
        for learner in ("model", "always +1", "always -1")
    )
    constant, shown = np.maximum(plus, minus), {}
    if listed(e.config) is True:
        inputs = rows_of(e, "conjunctions", prompts="shuffled", learner="inputs alone")["accuracy"]
        shown["best prediction from inputs alone, above it"] = mean(inputs - constant)
    return (mean(model - constant) <= 0.03).named("accuracy above the better constant").also(**shown)


COLOURS = {
    "model": "C0",
    "Bayes": "black",
    "one neighbour": "C1",
    "three neighbours": "C3",
    "elimination": "C2",
    "always -1": "0.6",
}


def draw(axes: Axes, table: Table, column: str, label: str, colour: str, style: str = "-") -> None:
    """The mean over seeds and their range, by place in the prompt."""
    point, value = table.curve("point", column)
    axes.plot(point + 1, value, style, color=colour, label=label)
    spread = table.frame.groupby("point")[column].agg(["min", "max"])
    axes.fill_between(point + 1, spread["min"], spread["max"], color=colour, alpha=0.15, linewidth=0)


@study.figure
def conjunctions_point_by_point(e: Evidence[Protocol], axes: Axes) -> None:
    """Accuracy on conjunctions by the number of points seen: mean and range over seeds, beside the ceiling."""
    for learner, colour in COLOURS.items():
        name = {"model": "transformer", "Bayes": "Bayes (ceiling)"}.get(learner, learner)
        draw(axes, rows_of(e, "conjunctions", learner=learner), "accuracy", name, colour)
    draw(axes, rows_of(e, "conjunctions", "lstm"), "accuracy", "LSTM", "C4")
    axes.set(xlabel="point of the prompt", ylabel="accuracy", ylim=(0, 1.03))
    axes.legend(frameon=False, loc="lower right", ncols=2)


@study.figure
def regret_by_class(e: Evidence[Protocol], axes: Axes) -> None:
    """How much more often the model errs than the exact posterior, whose line is zero: mean and range over seeds."""
    for number, task in enumerate(("conjunctions", "halfspaces", "sparse parities", "nearest neighbour")):
        draw(axes, rows_of(e, task), "regret", f"{task}, transformer", f"C{number}")
        if task in ("conjunctions", "nearest neighbour"):
            draw(axes, rows_of(e, task, "lstm"), "regret", f"{task}, LSTM", f"C{number}", "--")
    axes.axhline(0, color="black", linewidth=1, label="Bayes (ceiling)")
    axes.set(xlabel="point of the prompt", ylabel="error above Bayes", ylim=(None, 0.9))
    axes.legend(frameon=False, loc="upper left", ncols=2, fontsize="small")


@study.figure
def taught_and_untaught(e: Evidence[Protocol], axes: Axes) -> None:
    """Accuracy at the points after a teaching prefix, and as late in prompts without one: mean and range over seeds."""
    trained = {1.0: ("monotone conjunctions", "trained with prefixes alone"), 0.5: ("conjunctions", "with and without")}
    for number, (taught, (task, label)) in enumerate(trained.items()):
        for kind, style in {"taught": "o-", "as late, untaught": "o--"}.items():
            words = "after the prefix" if kind == "taught" else "no prefix"
            rows = rows_of(e, task, taught=taught, prompts=kind)
            draw(axes, rows, "accuracy", f"{label}: {words}", f"C{number}", style)
            if number:
                bayes = rows_of(e, task, taught=taught, prompts=kind, learner="Bayes")
                draw(axes, bayes, "accuracy", f"Bayes (ceiling): {words}", "black", style.replace("o", "."))
    axes.set(xlabel="point after the prefix", ylabel="accuracy", ylim=(0, 1.03))
    axes.legend(frameon=False, loc="lower left", fontsize="small")
