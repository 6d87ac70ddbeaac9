"""Does a network learn more from as many examples if epochs shrink to easy ones and grow back to all, over and over?

A network is trained as usual; the losses it ends with are the difficulties. A fresh one then sees a quarter, half, all,
half, a quarter ... of the data an epoch, easy examples drawn first ("easy cycle"). Controls keep the sizes and draw any
example ("random cycle"), or keep the scores and an average size ("static easy"). All arms of a seed start from the same
weights, see the same number of examples, and are evaluated after the same numbers of examples seen, to a batch: more
frequent looks would find higher maxima. The point at which test accuracy is read is the first one of the best
validation accuracy; only the claim about reporting looks at any other. A seed has a division of its own into training
and validation images. The scoring run is not counted, as in the paper: counted, a cycle costs twice the examples.

The paper trains 18 data sets; `laptop` 4,000 photographs of CIFAR-10 (JPEG) for the examples of 18 epochs, with its
network, batch, optimizer and no augmentation. Batch normalisation keeps PyTorch's constants, and weights are drawn
from Glorot's normal distribution. Learning rates were chosen by validation accuracy on right labels of two other
divisions (seeds 101 and 102): the ordinary network was better at 0.004 than at 0.008, and on one of them than at
0.0005, 0.001 and 0.002; the easy cycle, scored by it, was best at 0.002 of 0.001, 0.002 and 0.004. The floor of
losses is the paper's 1e-7; on one of them the library's 0.001 was no better. On wrong labels and for "static easy"
nothing was tuned. `extended` has 5,000 images, 20 epochs, all arms, and ordinary training with twice the examples,
which pays for the scoring run. `paper` is the paper's run on CIFAR-10: two hours of a core a seed, minutes of a GPU.

What was learnt: with the learning rate that suits it, ordinary training is not behind. At the code's 0.001 and on one
other division, the easy cycle had led by half a point to a point of validation accuracy; there ordinary training
gains three and a half at 0.004, and the easy cycle nothing. Drawing easy examples first costs two points here in a
cycle and without one; the cycle of sizes by itself neither costs nor gains. With wrong labels the two are level, as
scores of the network that has learnt them tell few of them apart (23 % of the first quarter are wrong, of 30 %).

Source: Kesgin and Amasyali, IEEE TNNLS 2023 (arXiv 2202.05531), and its code.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from etude.data import ImageData, Part, images
from etude.nn import glorot_initialise_
from etude.study import (
    Axes,
    Config,
    Estimate,
    Evidence,
    Lab,
    Paper,
    Quantity,
    Rule,
    Study,
    all_of,
    any_of,
    exact,
    grid,
    mean,
    outside,
)
from etude.training import (
    CurriculumSampler,
    constant_sizes,
    cycle_moments,
    cycle_sizes,
    easy_scores,
    effective_sample_size,
    evaluate,
    growing_sizes,
    hard_scores,
    per_sample_loss,
    random_scores,
    sample_without_replacement,
)

Arm = Literal["easy cycle", "random cycle", "hard cycle", "static easy", "growing easy", "ordinary, twice as long"]


class Protocol(Config):
    """What is trained on how many images, and for how long."""

    data: Literal["digits", "fashion-mnist", "mnist", "cifar10", "cifar10-jpeg"] = "cifar10-jpeg"
    """The images; digits are enlarged threefold."""
    train: int = 4_000
    """Training images."""
    validation: int = 1_000
    """Images that choose the point at which test accuracy is read."""
    test: int = 2_000
    """Test images."""
    budget: float = 18
    """Examples shown to each network, as a multiple of the training images."""
    learning_rate: float = 4e-3
    """Adam's learning rate for arms that draw examples at random, the ordinary one among them."""
    scored_learning_rate: float = 2e-3
    """Adam's learning rate for arms that draw them by scores."""
    floor: float = 1e-7
    """Losses below this count as it when they are turned into scores of easiness."""
    wrong: float = 0.3
    """Fraction of training labels that are replaced by another class, where labels are noisy."""
    arms: tuple[Arm, ...] = ("easy cycle", "random cycle", "static easy")
    """What is trained beside the ordinary network, on the right labels."""
    noisy_arms: tuple[Arm, ...] = ("easy cycle",)
    """The same, on noisy labels."""
    draws: int = 200_000
    """Draws for each vector of scores that are compared with their exact probabilities."""
    chains: int = 50_000
    """Simulated descents that the closed form of alternation is compared with."""


MEAN_SIZE = 0.5625  # of a cycle's epochs
ARMS: dict[str, tuple[Callable[..., Tensor], Callable[..., tuple[float, ...]]]] = {
    "ordinary": (random_scores, constant_sizes),
    "easy cycle": (easy_scores, cycle_sizes),
    "random cycle": (random_scores, cycle_sizes),
    "hard cycle": (hard_scores, cycle_sizes),
    "static easy": (easy_scores, partial(constant_sizes, size=MEAN_SIZE)),
    "growing easy": (easy_scores, growing_sizes),
    "ordinary, twice as long": (random_scores, constant_sizes),
}
BATCH = 128
CHUNK = 100  # images evaluated at a time: their features stay in the cache, which more than doubles the speed
SMALLER = "4,000 images of CIFAR-10 as JPEG for 18 epochs, and selection by validation"

study = Study(
    paper=Paper(
        "Cyclical Curriculum Learning", "H. Toprak Kesgin, M. Fatih Amasyali", 2023, "2202.05531", "IEEE TNNLS"
    ),
    topic="training",
    presets={
        "smoke": Protocol(
            data="digits", train=300, validation=100, test=100, budget=3, draws=2_000, chains=500, seeds=2
        ),
        "laptop": Protocol(),
        "extended": Protocol(
            train=5_000, budget=20, arms=get_args(Arm), noisy_arms=("easy cycle", "random cycle"), seeds=10
        ),
        "paper": Protocol(
            data="cifar10",
            train=45_000,
            validation=5_000,
            test=10_000,
            budget=30,
            learning_rate=1e-3,
            scored_learning_rate=1e-3,
            floor=1e-7,
            arms=get_args(Arm),
            noisy_arms=("easy cycle", "random cycle"),
        ),
    },
)


def network(channels: int, size: int, classes: int, generator: torch.Generator) -> nn.Sequential:
    """The paper's network for CIFAR-10: three 3x3 convolutions without padding, 66,890 weights.

    (The 67,210 of the paper's code count the running means and variances of its batch normalisation.)
    """
    side = ((size - 2) // 2 - 2) // 2 - 2
    blocks = [
        nn.Sequential(nn.Conv2d(inputs, outputs, 3), nn.BatchNorm2d(outputs), nn.ReLU(), pool)
        for inputs, outputs, pool in [
            (channels, 32, nn.MaxPool2d(2)),
            (32, 64, nn.MaxPool2d(2)),
            (64, 64, nn.Flatten()),
        ]
    ]
    layers = nn.Sequential(*blocks, nn.Linear(64 * side * side, classes))
    return glorot_initialise_(layers, generator).to(memory_format=torch.channels_last)


def load(lab: Lab, config: Protocol) -> ImageData:
    """The images of a seed, in the layout in which convolutions are fastest."""
    data = images(config.data, validation=config.validation, split=lab.seed)
    data = data.subset(train=config.train, test=config.test)

    def laid_out(part: Part) -> Part:
        x = functional.interpolate(part.x, scale_factor=3.0) if config.data == "digits" else part.x
        return Part(x.contiguous(memory_format=torch.channels_last), part.y)

    parts = {name: laid_out(part) for name, part in vars(data).items() if isinstance(part, Part)}
    return replace(data, **parts).to(lab.device)


def with_wrong_labels(part: Part, fraction: float, generator: torch.Generator) -> Part:
    """The same images, a fraction of them with one of the other classes, drawn at random."""
    chosen = torch.randperm(len(part.y), generator=generator)[: round(fraction * len(part.y))]
    classes = int(part.y.max()) + 1
    shift = torch.zeros(len(part.y), dtype=torch.long)
    shift[chosen] = torch.randint(1, classes, chosen.shape, generator=generator)
    return Part(part.x, (part.y + shift.to(part.y.device)) % classes)


def learn(
    model: nn.Module, data: ImageData, sampler: CurriculumSampler, points: list[int], learning_rate: float, audit: bool
) -> pd.DataFrame:
    """Train in place until so many examples were seen as the last point says, and evaluate at all of the points.

    Test accuracy is measured where validation accuracy exceeds all before; with `audit` at all points, and at the ends
    of the sampler's epochs too.
    """
    train, validation, test = ((part.x, part.y) for part in (data.train, data.validation, data.test))
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    rows: list[dict[str, float]] = []
    seen, passed, best = 0, 0, -1.0
    while passed < len(points):
        batches = sampler.indices().to(train[1].device).split(BATCH)
        for number, index in enumerate(batches, 1):
            loss = functional.cross_entropy(model(train[0][index]), train[1][index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(index)
            end, point = number == len(batches), seen >= points[passed]
            if not (point or (audit and end)):
                continue
            accuracy = evaluate(model, validation, chunk=CHUNK)[1]
            tested = evaluate(model, test, chunk=CHUNK)[1] if audit or accuracy > best else math.nan
            rows.append({"seen": seen, "point": point, "end": end, "validation": accuracy, "accuracy": tested})
            if point:
                passed, best = passed + 1, max(best, accuracy)
            if passed == len(points):
                break
        # Sizes are rounded down, so the last point may lie a few examples beyond the schedule: then it starts anew.
        sampler.set_epoch((sampler.epoch + 1) % sampler.epochs)
    return pd.DataFrame(rows)


@study.measure(over=lambda config: grid(labels=["right", "noisy"]))
def train(lab: Lab, config: Protocol, *, labels: Literal["right", "noisy"]) -> None:
    """The arms' accuracies against the number of examples seen."""
    data, noisy = load(lab, config), labels == "noisy"
    truth, n = data.train.y, len(data.train)
    if noisy:
        data = replace(data, train=with_wrong_labels(data.train, config.wrong, lab.generator("wrong labels")))
    losses = torch.ones(n)
    for arm in lab.track(("ordinary", *(config.noisy_arms if noisy else config.arms)), "arms"):
        score, sizes = ARMS[arm]
        budget = config.budget * (2 if arm == "ordinary, twice as long" else 1)
        scores = score(losses, floor=config.floor) if score is easy_scores else score(losses)
        sampler = CurriculumSampler(range(n), scores, sizes(budget), seed=lab.generator("order").initial_seed())
        points = [math.floor(n * seen) for seen in itertools.accumulate(cycle_sizes(budget))]
        model = network(data.shape[0], data.shape[1], len(data.classes), lab.generator("weights")).to(lab.device)
        rate = config.learning_rate if score is random_scores else config.scored_learning_rate
        audit = not noisy and arm in ("ordinary", "easy cycle")
        curve = learn(model, data, sampler, points, rate, audit)
        if arm == "ordinary":
            batches = zip(data.train.x.split(CHUNK), data.train.y.split(CHUNK))
            losses = per_sample_loss(model, batches)
        sampler.set_epoch(0)
        first = sampler.indices().to(truth.device)
        lab.record(
            curve,
            arm=arm,
            effective=effective_sample_size(scores) / n,
            wrong_in_first_epoch=(data.train.y != truth)[first].double().mean(),
        )


@study.measure(seeds=1)
def schedules(lab: Lab, config: Protocol) -> None:
    """Sizes of epochs over a grid of parameters, and the same from the recurrence of the paper's code."""
    ends = [(low, high) for low in (0.1, 0.25, 0.3, 0.5, 1.0) for high in (0.5, 0.75, 1.0) if low <= high]
    for (low, high), ratio, budget in itertools.product(ends, (0.3, 0.5, 0.7, 0.9), (0.5, 3.0, 20.0, 30.0, 48.3)):
        start, end, multiplier, wanted = (Fraction(str(value)) for value in (low, high, ratio, budget))
        sizes = [start]
        while sum(sizes) < wanted:
            last = sizes[-1]
            rises = last == start or (sizes[-2] < last and last != end)
            sizes.append(min(last / multiplier, end) if rises else max(last * multiplier, start))
        found = cycle_sizes(budget, low, high, ratio)
        over = (sum(sizes) - wanted) / end
        lab.record(differs=found != tuple(map(float, sizes)), over=float(over))


@study.measure(seeds=1)
def draws(lab: Lab, config: Protocol) -> None:
    """Draws of 3 of 6 examples against the probabilities of all ordered draws, for scores of ever wider range."""
    orders = np.array(list(itertools.permutations(range(6), 3)))
    for decades in (0.0, 0.5, 1.0, 3.0, 12.0):
        scores = torch.logspace(0, decades, 6, dtype=torch.float64)
        left, probability = np.full(len(orders), float(scores.sum())), np.ones(len(orders))
        for place in orders.T:
            taken = scores.numpy()[place]
            probability, left = probability * taken / left, left - taken
        drawn = sample_without_replacement(scores.expand(config.draws, 6), 3, lab.generator(f"{decades} decades"))
        counts = np.bincount((drawn.numpy() @ [36, 6, 1]), minlength=216)[orders @ [36, 6, 1]]
        expected = config.draws * probability

        order = np.argsort(-expected)  # orders so rare that fewer than 5 are expected are counted as one
        cells = np.minimum(np.arange(len(order)), max((expected >= 5).sum() - 1, 0))
        pooled = [np.bincount(cells, weights=values[order]) for values in (counts, expected)]
        included = [np.bincount(orders.ravel(), weights=values.repeat(3)) for values in (counts, expected)]
        error = np.sqrt(included[1] * (1 - included[1] / config.draws).clip(0))
        common = error**2 >= 5
        lab.record(
            decades=decades,
            p=stats.chisquare(*pooled, sum_check=False).pvalue,
            errors=(abs(included[0] - included[1])[common] / error[common]).max(),
        )


@study.measure(seeds=1)
def alternation(lab: Lab, config: Protocol) -> None:
    """Linear regression of 5 weights, trained on 20 examples that fit and on all 80 in turn: theory and simulation."""
    for problem in range(3):
        generator = lab.generator(f"problem {problem}")
        x = torch.randn(80, 5, generator=generator, dtype=torch.float64)
        y = x.sum(1) + torch.randn(80, generator=generator, dtype=torch.float64)
        easy = (y - x @ torch.linalg.lstsq(x, y[:, None]).solution[:, 0]).abs().argsort()[:20]
        phases, rate = [(x[easy], y[easy], 10), (x, y, 10)], 0.05
        means, covariances = cycle_moments(phases, rate)
        weights = torch.zeros(config.chains, 5, dtype=torch.float64)
        for cycle in range(20):
            for phase, (inputs, targets, steps) in enumerate(phases):
                for _ in range(steps):
                    drawn = torch.randint(len(targets), (config.chains,), generator=generator)
                    taken = inputs[drawn]
                    weights += rate * taken * (targets[drawn] - (taken * weights).sum(1))[:, None]
                if cycle == 19:
                    trace = covariances[phase].trace()
                    lab.record(
                        problem=problem,
                        phase=("easy", "all")[phase],
                        mean_error=(weights.mean(0) - means[phase]).norm() / means[phase].norm(),
                        trace_error=abs(weights.var(0).sum() - trace) / trace,
                    )


def selected(e: Evidence[Protocol], arm: str, labels: str = "right") -> Quantity:
    """Test accuracy of each seed in percent, where validation accuracy is first at its best."""

    def read(rows: pd.DataFrame) -> float:
        points = rows[rows.point].reset_index()
        return float(100 * points.accuracy[points.validation.idxmax()])

    return e[train].at(arm=arm, labels=labels).per("seed").apply(read)


def greatest(e: Evidence[Protocol], arm: str) -> Quantity:
    """The greatest test accuracy of each seed in percent, over the ends of the arm's own epochs."""
    rows = e[train].at(arm=arm, labels="right", end=True)
    return rows.per("seed").apply(lambda found: float(100 * found.accuracy.max()))


def gain(e: Evidence[Protocol], arm: str, over: str = "ordinary", labels: str = "right") -> Estimate:
    """Points of test accuracy by which an arm is better than another."""
    return mean(selected(e, arm, labels) - selected(e, over, labels))


@study.claim(reported="0.25, 0.5, 1, 0.5, ...; 54 epochs for 30")
def sizes_follow_the_cycle(e: Evidence[Protocol]) -> Rule:
    """Sizes are those of the paper's recurrence, and overshoot the budget by less than one epoch of full size."""
    rows, sizes = e[schedules].frame, cycle_sizes(30)
    return all_of(
        (exact(rows.differs.sum()) <= 0).named("parameters at which the sizes differ"),
        (exact(rows.over.min()) >= 0).named("least overshoot, in last sizes"),
        (exact(rows.over.max()) < 1).named("greatest overshoot"),
        (exact(abs(np.mean(sizes[:4]) - MEAN_SIZE)) <= 0).named("mean of a period, off 0.5625"),
        (exact(abs(len(sizes) - 54)) <= 0).named("epochs for a budget of 30, off 54"),
    )


@study.claim(reported="numpy's choice without replacement")
def draws_are_successive(e: Evidence[Protocol]) -> Rule:
    """Examples are drawn like one after the other in proportion to the scores of those left, whatever their range."""
    return all_of(
        (exact(e[draws].frame.p.min()) > 1e-3).named("least p of five chi-square tests"),
        (exact(e[draws].frame.errors.max()) < 4).named("standard errors of inclusion, greatest"),
    )


@study.claim(reported="+3.8 points, the greatest of all epochs' test accuracies (one run)", deviation=SMALLER)
def cycles_beat_ordinary_training(e: Evidence[Protocol]) -> Rule:
    """After as many examples the easy cycle is more accurate on test images than ordinary training."""
    return (gain(e, "easy cycle") > 0).named("points of accuracy")


@study.claim(reported="not stated", deviation=SMALLER)
def easiness_is_the_cause(e: Evidence[Protocol]) -> Rule:
    """The easy cycle is more accurate than the same cycle of sizes with examples drawn at random."""
    return (
        (gain(e, "easy cycle", "random cycle") > 0)
        .named("points of accuracy")
        .also(
            **{"easy cycle against the static easy": gain(e, "easy cycle", "static easy")},
            **{"random cycle against ordinary": gain(e, "random cycle")},
            **{"static easy against ordinary": gain(e, "static easy")},
        )
    )


@study.claim(reported="the code reports the greatest", deviation=SMALLER)
def reporting_the_maximum_favours_cycles(e: Evidence[Protocol]) -> Rule:
    """What the greatest test accuracy of all epochs adds to the cycle's gain is known: not 0, or to half a point."""
    inflation = {arm: greatest(e, arm) - selected(e, arm) for arm in ("easy cycle", "ordinary")}
    added = mean(inflation["easy cycle"] - inflation["ordinary"])
    low, high = added.interval(0.05)
    return any_of(
        outside(added, 0, 0).named("points added to the gain"),
        (exact((high - low) / 2) < 0.5).named("half-width of its interval"),
    ).also(
        **{"gain at the greatest test accuracies": mean(greatest(e, "easy cycle") - greatest(e, "ordinary"))},
        **{f"points added to the {arm}": mean(points) for arm, points in inflation.items()},
    )


@study.claim(reported="not stated; curricula are known to help there", deviation=SMALLER)
def cycles_resist_wrong_labels(e: Evidence[Protocol]) -> Rule:
    """With three in ten training labels wrong, the easy cycle is more accurate than ordinary training."""
    share = e[train].at(arm="easy cycle", labels="noisy").per("seed").mean("wrong_in_first_epoch")
    return (
        (gain(e, "easy cycle", labels="noisy") > 0)
        .named("points of accuracy")
        .also(**{"wrong labels in a quarter drawn by easiness": mean(share)})
    )


@study.claim(reported="not stated; own analysis")
def moments_of_alternation_are_closed(e: Evidence[Protocol]) -> Rule:
    """For linear regression, where descent settles that alternates between easy and all examples has a closed form."""
    errors = e[alternation].frame
    return all_of(
        (exact(errors.mean_error.max()) < 0.03).named("relative error of the mean, greatest"),
        (exact(errors.trace_error.max()) < 0.03).named("relative error of the covariance's trace, greatest"),
    )


@study.figure
def accuracy_while_training(e: Evidence[Protocol], axes: Axes) -> None:
    """Validation accuracy against passes over the data, on the right labels: mean over seeds."""
    rows = e[train].at(labels="right", point=True)
    for arm, found in rows.split("arm"):
        per_seed = [100 * seed.frame.validation.to_numpy() for _, seed in found.split("seed")]
        passes = found.at(seed=0).frame.seen / e.config.train
        axes.plot(passes, np.mean(per_seed, axis=0), label=arm, linewidth=1.2)
    axes.set(xlabel="examples seen (passes over the data)", ylabel="validation accuracy (%)")
    axes.legend(frameon=False)


@study.figure
def accuracy_by_arm(e: Evidence[Protocol], axes: Axes) -> None:
    """Test accuracy of each seed at the best validation accuracy; lines join a seed's arms."""
    for labels, colour in (("right", "C0"), ("noisy", "C3")):
        arms = list(dict.fromkeys(e[train].at(labels=labels).frame.arm))
        values = pd.DataFrame({arm: selected(e, arm, labels) for arm in arms})
        for seed, row in enumerate(values.to_numpy()):
            axes.plot(
                arms, row, "o-", color=colour, alpha=0.5, linewidth=0.8, label=None if seed else f"{labels} labels"
            )
    axes.set(xlabel="arm", ylabel="test accuracy at the best validation accuracy (%)")
    axes.legend(frameon=False)
