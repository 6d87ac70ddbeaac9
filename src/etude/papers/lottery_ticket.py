"""Does a dense network hide a small one that learns as well from the same start?

Train LeNet-300-100, remove the smallest weights of each layer (half as many of the output layer's), put the survivors
back to their initial values, repeat: iterative magnitude pruning finds "winning tickets". Controls keep a ticket's
mask and draw new initial weights, keep its counts and draw the positions, or prune to its size in one shot. All
trainings have the same hyper-parameters and, within a seed, the same order of examples. Densities were fixed
beforehand, and when to stop is chosen by validation loss; test accuracy is measured there.

The paper trains MNIST for 50,000 iterations in 12 and more rounds. `laptop` trains Fashion-MNIST for 7,500 and gets to
the same densities in 5 rounds. Some dense networks reach their least validation loss only at the last evaluation; with
more iterations it would come later still, so the comparison of speed errs on the side of the dense network.
By the time of a step, `paper` needs about an hour of one core a seed; with `--network conv-2` to `conv-6` and
`--data cifar10` it needs a GPU.

Source: Frankle and Carbin, ICLR 2019 (arXiv 1803.03635), section 2, figures 3 and 4, appendices B, C and E.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

from etude.compression import (
    Mask,
    iterative_magnitude_pruning,
    magnitude_mask,
    masked,
    prunable,
    random_mask,
    reinitialise,
    time_to_level,
)
from etude.data import ImageData, Part, images
from etude.nn import conv_n, convolutional, lenet_300_100
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
    Table,
    all_of,
    exact,
    grid,
    mean,
    near,
    proportion,
    ratio,
)
from etude.training import Run, fit


class Protocol(Config):
    """What is trained on what, how long, and how far it is pruned."""

    data: Literal["digits", "fashion-mnist", "mnist", "cifar10", "cifar10-jpeg"] = "fashion-mnist"
    """The images."""
    network: Literal["lenet-300-100", "conv-2", "conv-4", "conv-6"] = "lenet-300-100"
    """The network; its learning rate and pruning rates are the paper's (figure 2)."""
    steps: int = 7_500
    """Training iterations at each level."""
    evaluate_every: int = 100
    """Iterations between evaluations."""
    levels: tuple[int, ...] = (2, 4, 7, 9, 12)
    """The densities trained, counted in the paper's rounds of pruning; what lies between is pruned in one go."""
    unequal_steps: int = 1_500
    """Training iterations at each level of the network with very unequal layers."""
    unequal_rounds: int = 13
    """Rounds in which that network is pruned to 5 %."""


class Recipe(NamedTuple):
    """What the paper trains a network with: Adam's learning rate, and the fractions pruned in a round."""

    learning_rate: float
    rates: dict[str, float]


RECIPES = {
    "lenet-300-100": Recipe(1.2e-3, {"output": 0.1, "*": 0.2}),
    "conv-2": Recipe(2e-4, {"output": 0.1, "conv*": 0.1, "*": 0.2}),
    "conv-4": Recipe(3e-4, {"output": 0.1, "conv*": 0.1, "*": 0.2}),
    "conv-6": Recipe(3e-4, {"output": 0.1, "conv*": 0.15, "*": 0.2}),
    "unequal": Recipe(1.2e-3, {}),
}
BATCH = 60
SMALL, SMALLER, SMALLEST = 0.211, 0.135, 0.0695  # densities of LeNet-300-100 after 7, 9 and 12 rounds
REDRAWN = {7: 1, 9: 2, 12: 2}  # after so many rounds, how many times the ticket's weights are drawn anew

SHORTER = "Fashion-MNIST, or digits in the demo; at laptop 7,500 iterations, and 5 rounds to the densities of 12"

study = Study(
    paper=Paper(
        "The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks",
        "Jonathan Frankle, Michael Carbin",
        2019,
        "1803.03635",
        "ICLR",
    ),
    topic="compression",
    presets={
        "smoke": Protocol(
            data="digits", steps=40, evaluate_every=10, levels=(7, 9, 12), unequal_steps=10, unequal_rounds=2, seeds=2
        ),
        "demo": Protocol(data="digits", steps=3_000, evaluate_every=20, levels=tuple(range(1, 13))),
        "laptop": Protocol(),
        "extended": Protocol(steps=10_000, levels=tuple(range(1, 13))),
        "paper": Protocol(data="mnist", steps=50_000, levels=tuple(range(1, 16))),
    },
)


def build(network: str, data: ImageData, generator: torch.Generator) -> nn.Module:
    """The network for images of this shape, its weights drawn from the generator."""
    channels, size, _ = data.shape
    if network == "lenet-300-100":
        return lenet_300_100(channels * size * size, len(data.classes), generator=generator)
    if network == "unequal":
        blocks = [(8, 16), (64, 64)]
        return convolutional(channels, size, blocks, outputs=len(data.classes), average=True, generator=generator)
    return conv_n(int(network[-1]), channels, size, len(data.classes), generator=generator)


def train(
    network: str, data: ImageData, start: dict[str, Tensor], mask: Mask, steps: int, evaluate_every: int, order: int
) -> Run:
    """Train the network from the given weights under a mask; `order` seeds the order of examples."""
    model = build(network, data, torch.Generator()).to(data.train.x.device)
    model.load_state_dict(start)
    return fit(
        model,
        *((part.x, part.y) for part in (data.train, data.validation, data.test)),
        steps=steps,
        batch=BATCH,
        optimizer=partial(torch.optim.Adam, lr=RECIPES[network].learning_rate, fused=True),
        generator=torch.Generator().manual_seed(order),
        evaluate_every=evaluate_every,
        mask=mask.layers,
    )


def trainer(lab: Lab, config: Protocol, network: str, data: ImageData, steps: int) -> Callable[..., Run]:
    """``learn(start, mask)``, stored once computed; all of a seed's trainings see the examples in the same order."""
    order = lab.generator("order").initial_seed()
    cached, every = lab.cached(train), config.evaluate_every
    return lambda start, mask: cached(network, data, start, mask, steps=steps, evaluate_every=every, order=order)


def in_place(learn: Callable[..., Run]) -> Callable[[nn.Module, Mask], Run]:
    """The same as a function that trains the model it is given."""

    def learn_in_place(model: nn.Module, mask: Mask) -> Run:
        run = learn(dict(model.state_dict()), mask)
        model.load_state_dict(run.weights)
        return run

    return learn_in_place


@study.measure()
def prune(lab: Lab, config: Protocol) -> None:
    """Tickets at every level and their controls."""
    data = images(config.data).to(lab.device)
    model = build(config.network, data, lab.generator("weights")).to(lab.device)
    learn = trainer(lab, config, config.network, data, config.steps)

    def record(weights: str, mask: Mask, run: Run, repeat: int = 0) -> None:
        reached = time_to_level(run.validation_loss, dense.result.validation_loss.min().item())
        lab.record(
            weights=weights,
            density=mask.density(),
            repeat=repeat,
            early_stop=run.best_step,
            censored=run.censored,
            time_to_dense=float("nan") if reached is None else int(run.steps[reached]),
            validation_loss=run.validation_loss.min(),
            accuracy=run.best_accuracy,
            final_accuracy=run.final_accuracy,
        )

    rounds = [after - before for before, after in zip((0, *config.levels), config.levels)]
    rates = [{name: 1 - (1 - rate) ** n for name, rate in RECIPES[config.network].rates.items()} for n in rounds]
    search = iterative_magnitude_pruning(model, in_place(learn), rounds=len(rates), rate=rates, hold=False)
    for level, done in zip(lab.track(search, "levels"), (0, *config.levels)):
        if done == 0:
            dense = level
        record("ticket", level.mask, level.result)
        for repeat in range(REDRAWN.get(done, 0)):
            weights = reinitialise(level.initial, level.mask, lab.generator(f"new weights {repeat}"))
            record("reinitialised", level.mask, learn(weights, level.mask), repeat)
        if done == max(REDRAWN):
            scattered = random_mask(level.mask, lab.generator("positions"))
            record("random positions", scattered, learn(scattered.select(level.initial), scattered))
            at_once = {name: 1 - kept for name, kept in level.mask.per_layer().items()}
            once = magnitude_mask(dense.trained, dense.mask, rate=at_once)
            record("one shot", once, learn(once.select(level.initial), once))
    lab.save("smallest-ticket", level.mask)


@study.measure(seeds=1)
def bookkeeping(lab: Lab, config: Protocol) -> None:
    """The schedule on LeNet-300-100, what optimisers do to pruned weights, and masks of permuted networks."""
    model = lenet_300_100(generator=lab.generator("weights"))
    mask, full, rates = Mask.full(model), Mask.full(model).counts(), RECIPES["lenet-300-100"].rates
    for n in range(1, 16):
        mask = magnitude_mask(model, mask, rate=rates)
        keep = {name: (1 - rates["output" if "output" in name else "*"]) ** n for name in full}
        error = max(abs(count - full[name] * keep[name]) for name, count in mask.counts().items())
        lab.record(check="schedule", n=n, density=mask.density(), error=error)

    order = torch.randperm(300, generator=lab.generator("permutation"))
    permuted = {name: value[order] if name.startswith("fc1") else value for name, value in model.state_dict().items()}
    permuted["fc2.weight"] = permuted["fc2.weight"][:, order]
    found, expected = magnitude_mask(permuted, Mask.full(model), rate=0.9), magnitude_mask(model, rate=0.9)
    moved = {"fc1.weight": expected["fc1.weight"][order], "fc2.weight": expected["fc2.weight"][:, order]}
    differing = [(found[name] != moved.get(name, kept)).sum() for name, kept in expected.items()]
    lab.record(check="permutation", error=sum(differing))

    optimizers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "SGD": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-4),
        "Adam": partial(torch.optim.Adam, lr=1.2e-3, weight_decay=1e-4),
    }
    for name, optimizer in optimizers.items():
        network, draws = lenet_300_100(64, generator=lab.generator("weights")), lab.generator("examples")
        mask = magnitude_mask(network, rate=0.8)
        with masked(network, mask):
            descent = optimizer(network.parameters())
            for _ in range(200):
                x, y = torch.rand(BATCH, 64, generator=draws), torch.randint(10, (BATCH,), generator=draws)
                descent.zero_grad()
                cross_entropy(network(x), y).backward()
                descent.step()
        pruned = [network.get_parameter(layer)[~kept] for layer, kept in mask.items()]
        lab.record(check=name, error=max(weights.abs().max() for weights in pruned))


@study.measure(seeds=3, since="extended", over=lambda config: grid(scope=["layer", "global"]))
def unequal_layers(lab: Lab, config: Protocol, *, scope: Literal["layer", "global"]) -> None:
    """Convolutions of 8, 16, 64 and 64 channels, on images of half the size, pruned to 5 % (the output is not)."""
    data = images(config.data)
    data = data.subset(train=min(10_000, len(data.train)))
    train_half, validation_half, test_half = (
        Part(avg_pool2d(part.x, 2), part.y) for part in (data.train, data.validation, data.test)
    )
    data = replace(data, train=train_half, validation=validation_half, test=test_half).to(lab.device)
    model = build("unequal", data, lab.generator("weights")).to(lab.device)
    learn = in_place(trainer(lab, config, "unequal", data, config.unequal_steps))
    rate = 1 - 0.05 ** (1 / config.unequal_rounds)
    convolutions = Mask.full(model, prunable(model, exclude=["output.weight"]))
    search = iterative_magnitude_pruning(
        model, learn, rounds=config.unequal_rounds, rate=rate, scope=scope, mask=convolutions, hold=False
    )
    for level in lab.track(search, "levels"):
        first, *_, last = level.mask.per_layer().values()
        density, accuracy = level.mask.density(), level.result.best_accuracy
        lab.record(n=level.index, density=density, first_layer=first, last_layer=last, accuracy=accuracy)


def runs(e: Evidence[Protocol], weights: str, density: float) -> Table:
    """One kind of network at one of the densities that were fixed beforehand."""
    return e[prune].at(weights=weights, density=near(density, 0.005))


def fresh(e: Evidence[Protocol], column: str, density: float) -> Quantity:
    """A column of the ticket's mask with new weights, averaged over the draws of a seed."""
    return runs(e, "reinitialised", density).per("seed").mean(column)


@study.claim(reported="51.3, 21.1, 13.5 and 3.6 % after 3, 7, 9 and 15 rounds")
def masks_are_kept_exactly(e: Evidence[Protocol]) -> Rule:
    """Every layer keeps what the schedule says to one weight; pruned weights stay exactly zero; masks follow units."""
    errors = e[bookkeeping].frame.groupby("check")["error"].max()
    densities = e[bookkeeping].at(check="schedule").frame.set_index("n")["density"]
    allowed = {
        "schedule": (1, "weights a layer is off the schedule"),
        "SGD": (0, "largest pruned weight after momentum and weight decay"),
        "Adam": (0, "largest pruned weight after Adam"),
        "permutation": (0, "mask entries that do not follow permuted units"),
    }
    return all_of(*((exact(errors[check]) <= most).named(what) for check, (most, what) in allowed.items())).also(
        **{f"density after {n} rounds": exact(densities[n]) for n in (3, 7, 9, 15)}
    )


@study.claim(reported="38 % earlier at 21.1 % of the weights (MNIST)", deviation=SHORTER)
def tickets_learn_faster(e: Evidence[Protocol]) -> Rule:
    """At about 21 % of the weights the validation minimum comes earlier than in the dense network."""
    ticket, dense = runs(e, "ticket", SMALL), runs(e, "ticket", 1.0)
    return (
        (ratio(ticket["early_stop"], dense["early_stop"]) < 1)
        .named("ticket's iteration over the dense network's")
        .also(
            **{"time to the dense network's least loss": ratio(ticket["time_to_dense"], dense["early_stop"])},
            **{"seeds that reach it": proportion(ticket["time_to_dense"].notna())},
            **{"dense minimum is the last evaluation": proportion(dense["censored"])},
            **{"ticket's minimum is the last evaluation": proportion(ticket["censored"])},
        )
    )


def points(ours: Quantity, theirs: Quantity) -> Estimate:
    """Difference of two accuracies in percentage points."""
    return mean(100 * (ours - theirs))


def a_quarter_point_shows(config: Protocol) -> bool | str:
    """Whether the test images can tell accuracies a quarter of a point apart."""
    return config.data != "digits" or "one of 360 test images is more than a quarter of a point"


@study.claim(reported="+0.3 points at 13.5 % (MNIST)", deviation=SHORTER, when=a_quarter_point_shows)
def tickets_do_not_lose_accuracy(e: Evidence[Protocol]) -> Rule:
    """At about 13.5 % of the weights test accuracy is at most a quarter of a point below the dense network's."""
    ticket, dense = runs(e, "ticket", SMALLER), runs(e, "ticket", 1.0)
    return (
        (points(ticket["accuracy"], dense["accuracy"]) > -0.25)
        .named("points of accuracy")
        .also(**{"after the last iteration": points(ticket["final_accuracy"], dense["final_accuracy"])})
    )


@study.claim(reported="+0.5 points, 2.51 times faster at 21 % (MNIST)", deviation=SHORTER)
def initialisation_matters(e: Evidence[Protocol]) -> Rule:
    """The ticket is more accurate than its mask with new weights, at about 13.5 % and at about 6.95 %."""
    gains = {d: points(runs(e, "ticket", d)["accuracy"], fresh(e, "accuracy", d)) for d in (SMALL, SMALLER, SMALLEST)}
    smaller, smallest = (gains[SMALLER] > 0).named("points at 13.5 %"), (gains[SMALLEST] > 0).named("points at 6.95 %")
    return all_of(smaller, smallest).also(
        **{"points at 21 %": gains[SMALL]},
        **{"times slower at 21 %": ratio(fresh(e, "early_stop", SMALL), runs(e, "ticket", SMALL)["early_stop"])},
    )


@study.claim(reported="new weights better than random positions, on this network (appendix E)", deviation=SHORTER)
def structure_matters(e: Evidence[Protocol]) -> Rule:
    """At 6.95 % the ticket's mask with new weights is more accurate than as many weights at random positions."""
    scattered = runs(e, "random positions", SMALLEST)["accuracy"]
    return (points(fresh(e, "accuracy", SMALLEST), scattered) > 0).named("points of accuracy")


@study.claim(reported="smaller and better tickets (section 2, appendix B)", deviation=SHORTER)
def iterative_beats_one_shot(e: Evidence[Protocol]) -> Rule:
    """At 6.95 % pruning in rounds gives a more accurate network than pruning the dense one in one shot."""
    ticket, once = (runs(e, kind, SMALLEST)["accuracy"] for kind in ("ticket", "one shot"))
    return (points(ticket, once) > 0).named("points of accuracy")


@study.claim(reported="tickets down to 1.5 % against 6.9 % (VGG-19)", deviation="a network of 48,000 weights at 5 %")
def one_threshold_beats_many(e: Evidence[Protocol]) -> Rule:
    """Where layers differ much in size, one threshold for all gives a better network than one rate for each."""
    last = e[unequal_layers].at(n=e.config.unequal_rounds)
    together, apart = (last.at(scope=scope)["accuracy"] for scope in ("global", "layer"))
    return (points(together, apart) > 0).named("points of accuracy")


STYLES = {
    "ticket": ("o-", "winning ticket", "C0"),
    "reinitialised": ("s--", "its mask, new weights", "C1"),
    "random positions": ("^", "random positions", "C2"),
    "one shot": ("D", "pruned in one shot", "C3"),
}


def by_density(e: Evidence[Protocol], axes: Axes, column: str, kinds: tuple[str, ...], scale: float = 1) -> None:
    """Draw the mean over seeds, and the range of seeds, of a column against density, from dense to sparse."""
    from matplotlib.ticker import NullFormatter, PercentFormatter

    for place, kind in enumerate(kinds):
        marker, label, colour = STYLES[kind]
        table = e[prune].at(weights=kind)
        density, values = table.curve("density", column)
        percent = 100 * density * 0.98**place  # side by side, so that ranges do not cover each other
        axes.plot(percent, scale * values, marker, color=colour, label=label, markersize=5)
        spread = table.frame.groupby("density")[column].agg(["min", "max"]) * scale
        axes.vlines(percent, spread["min"], spread["max"], color=colour, alpha=0.35)
    axes.axhline(scale * runs(e, "ticket", 1.0)[column].mean(), color="0.6", linewidth=1, linestyle=":", label="dense")
    axes.set_xscale("log")
    axes.set_xticks([100, 50, 20, 10, 5])
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("weights kept")
    axes.invert_xaxis()
    axes.legend(frameon=False)


@study.figure
def accuracy_by_density(e: Evidence[Protocol], axes: Axes) -> None:
    """Test accuracy where validation loss is least, against the weights kept: mean and range over seeds."""
    by_density(e, axes, "accuracy", tuple(STYLES), scale=100)
    axes.set_ylabel("test accuracy at early stopping (%)")


@study.figure
def speed_by_density(e: Evidence[Protocol], axes: Axes) -> None:
    """Iteration of the least validation loss, against the weights kept: mean and range over seeds."""
    by_density(e, axes, "early_stop", ("ticket", "reinitialised"))
    axes.set_ylabel("iteration of least validation loss")
