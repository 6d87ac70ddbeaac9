"""Does noise on the gradient let a deep network learn that otherwise would not, and is it exploration that does it?

A plain network of 20 hidden layers with 50 rectified units is trained by gradient descent. "Simple Init", N(0, 0.1^2),
shrinks signals and gradients a millionfold on their way, so that training starts on a plateau; with all-zero weights it
never starts. To each gradient, clipped to norm 10, is added N(0, 0.01 / (1 + t)^0.55). Biases are zero at first,
examples are drawn with replacement, and the arms of a seed see the same examples and, up to a factor, the same initial
weights. Accuracy is measured on test digits where that of validation digits is highest.

What the paper does not ask: the noise alone moves each weight by a random walk, whose standard deviation after 5,000
steps is as large as that of the initial weights. So two more arms start from Simple Init: one without noise whose
initial weights are larger by just that walk (re-scaling without exploration), one whose noise has the same total
variance but does not fall (exploration without annealing).

Rules were written before the study was run; trials at these settings on the same digits, of two or three other seeds,
had shown how large the effects of noise are. Without noise a learning rate of 0.3 or 1 leaves the plateau no sooner
(one other seed, 6,000 steps). The paper gives no batch size and no number of steps, and its averages include runs at
a learning rate of 0.01, which hardly move; `--learning-rate 0.01` and `--clip-norm 100` (or None) train its other
cells. Of its good initialisations this is He's, and of its experiments on memory networks a small one on generated
stories, at a learning rate of 0.03: at 0.01, that of Sukhbaatar et al., 60 epochs on 1,000 stories left both arms
wrong on two in three; at 0.03 both arms erred alike, while noise was ahead by two points at 0.02 and behind by two at
0.06 (two other seeds, rates halved every 15 epochs): what is found there depends on the rate. Neural Programmer,
Neural RAM and Neural GPU are left out. By the time of a step `paper` needs about ten hours of one core.

What was learnt: from Simple Init every network with noise leaves the plateau when its hidden weights have grown to
0.137 to 0.143 (root mean square), with constant noise at 0.133 to 0.144 and from zero weights at 0.130 to 0.142;
larger weights without noise leave it three times sooner and end no worse. That is re-scaling, though six seeds leave
the interval of their lead just open. On stories both arms learn all they are shown, and noise does not lower the
error on others.

Source: Neelakantan, Vilnis, Le, Sutskever, Kaiser, Kurach and Martens (arXiv 1511.06807), sections 3 and 4.1, table 1;
section 4.2 for memory networks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from scipy import stats
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from etude.data import ImageData, images
from etude.data.stories import two_supporting_facts
from etude.nn import MemoryNetwork
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
    any_of,
    exact,
    grid,
    mean,
    proportion,
    within,
)
from etude.training import Constant, GradientNoise, PowerDecay, accumulated_variance
from etude.training.schedules import Schedule

if TYPE_CHECKING:
    import pandas as pd


class Protocol(Config):
    """What is trained on what, how long, and with how much noise."""

    data: Literal["digits", "mnist-10k", "mnist", "fashion-mnist"] = "mnist-10k"
    """The images."""
    layers: int = 20
    """Hidden layers."""
    width: int = 50
    """Units of each hidden layer."""
    learning_rate: float = 0.1
    """Of gradient descent without momentum."""
    clip_norm: float | None = 10.0
    """Norm to which the gradient is scaled down before noise is added."""
    eta: float = 0.01
    """Variance of the noise at the first step."""
    simple_steps: int = 8_000
    """Steps from Simple Init."""
    walk: int = 5_000
    """Steps of noise whose random walk the larger initial weights have."""
    he_steps: int = 6_000
    """Steps from the initialisation of He et al."""
    zero_steps: int = 28_000
    """Steps from zero weights."""
    zero_runs: int = 10
    """Runs from zero weights."""
    evaluate_every: int = 500
    """Steps between evaluations."""
    stories: int = 1_000
    """Stories a memory network learns from, and as many to validate it."""
    epochs: int = 60
    """Passes over the stories."""
    seeds: int = 6
    """Seeds of all but the runs from zero weights."""


GAMMA, BATCH = 0.55, 100
SIMPLE, LEARNT = 0.1, 0.8  # standard deviation of Simple Init; accuracy above which a run counts as one that learnt
STORY_BATCH, STORY_RATE, STORY_CLIP, STORY_ETA = 32, 0.03, 40.0, 1.0

SMALLER = "10,000 MNIST digits divided anew, one learning rate, steps and batch chosen here: the paper states neither"

study = Study(
    paper=Paper(
        "Adding Gradient Noise Improves Learning for Very Deep Networks",
        "Arvind Neelakantan, Luke Vilnis, Quoc V. Le, Ilya Sutskever, Lukasz Kaiser, Karol Kurach, James Martens",
        2015,
        "1511.06807",
    ),
    topic="training",
    presets={
        "smoke": Protocol(
            data="digits",
            layers=4,
            width=10,
            simple_steps=40,
            walk=20,
            he_steps=40,
            zero_steps=40,
            zero_runs=3,
            evaluate_every=20,
            stories=60,
            epochs=2,
            seeds=2,
        ),
        "laptop": Protocol(),
        "extended": Protocol(simple_steps=12_000, he_steps=8_000, zero_steps=40_000, seeds=10),
        "paper": Protocol(
            data="mnist", simple_steps=60_000, he_steps=60_000, zero_steps=60_000, zero_runs=40, seeds=40
        ),
    },
)


def network(widths: Sequence[int], deviation: float | None, generator: torch.Generator) -> nn.Sequential:
    """A rectified network with normal weights and zero biases; without a deviation that of He et al."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        spread = math.sqrt(2 / inputs) if deviation is None else deviation
        nn.init.normal_(linear.weight, generator=generator).data.mul_(spread)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Networks:
    """Several networks trained as one by gradient descent with noise, each as it would be alone.

    Args:
        models: of one architecture.
        rate: learning rate as a function of the step.
        variances: of each network's noise.
        clip_norm: of each network's gradient.
        seeds: of each network's noise.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        rate: Schedule,
        variances: Sequence[Schedule],
        clip_norm: float | None,
        seeds: Sequence[int],
    ) -> None:
        self.parameters, buffers = stack_module_state(list(models))
        one = copy.deepcopy(models[0]).to("meta")
        together = vmap(lambda weights, fixed, *inputs: functional_call(one, (weights, fixed), inputs))
        self.forward: Callable[..., Tensor] = lambda *inputs: together(self.parameters, buffers, *inputs)
        self.count, self.rate = len(models), rate
        self.sgd = torch.optim.SGD(self.parameters.values(), lr=rate(0), foreach=True)
        self.noise = GradientNoise(self.sgd, list(variances), clip_norm=clip_norm, seed=list(seeds))

    def all(self, values: Tensor) -> Tensor:
        """(networks, ...) from the same, or from (1, ...) that all share."""
        return values.expand(self.count, *values.shape[1:])

    def learn(
        self, inputs: Sequence[Tensor], labels: Tensor, steps: int, draw: Callable[[], Tensor], *, summed: bool = False
    ) -> Iterator[int]:
        """Steps on batches drawn as indices, (networks, batch) or (1, batch); yields how many are made, from 0 on.

        The gradients of the coming step's batch are there then: sums over its examples, or means.
        """
        for step in range(steps + 1):
            index = draw()
            logits = self.forward(*(self.all(values[index]) for values in inputs))
            loss = cross_entropy(logits.flatten(0, 1), self.all(labels[index]).flatten(), reduction="sum")
            self.sgd.zero_grad()
            (loss if summed else loss / index.shape[1]).backward()
            yield step
            if step < steps:
                for group in self.sgd.param_groups:
                    group["lr"] = self.rate(step)
                self.sgd.step()

    @torch.no_grad()
    def accuracy(self, inputs: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Fraction of right answers of each network."""
        logits = self.forward(*(self.all(values[None]) for values in inputs))
        return (logits.argmax(2) == labels).double().mean(1)


def batches(labels: Tensor, batch: int, generator: torch.Generator, *, networks: int = 1) -> Callable[[], Tensor]:
    """Draws indices with replacement, (networks, batch): with one row for all networks, or one for each."""
    return lambda: torch.randint(len(labels), (networks, batch), generator=generator).to(labels.device)


class Arm(NamedTuple):
    """How a network starts and what noise it gets."""

    name: str
    deviation: float | None
    variance: Schedule


def arms(config: Protocol, initialization: str) -> list[Arm]:
    """What is compared from one initialisation."""
    falling = PowerDecay(config.eta, GAMMA)
    if initialization == "he":
        return [Arm("noise", None, falling), Arm("none", None, Constant(0.0))]
    walked = math.sqrt(SIMPLE**2 + accumulated_variance(falling, config.walk, config.learning_rate))
    level = accumulated_variance(falling, config.simple_steps, 1.0) / config.simple_steps
    return [
        Arm("noise", SIMPLE, falling),
        Arm("none", SIMPLE, Constant(0.0)),
        Arm("larger weights", walked, Constant(0.0)),
        Arm("constant noise", SIMPLE, Constant(level)),
    ]


def follow(
    lab: Lab, config: Protocol, networks: Networks, data: ImageData, steps: int, *, own: bool
) -> Iterator[dict[str, Tensor]]:
    """Train on the images; at each evaluation what there is to know, a number for each network."""
    draw = batches(data.train.y, BATCH, lab.generator("examples"), networks=networks.count if own else 1)
    hidden = [f"{2 * layer}.weight" for layer in range(1, config.layers)]
    middle = list(networks.parameters).index(hidden[len(hidden) // 2])
    for step in lab.track(networks.learn([data.train.x], data.train.y, steps, draw), "steps"):
        if step % config.evaluate_every == 0 or step == steps:
            weights = [networks.parameters[name].detach().square().mean((1, 2)) for name in hidden]
            yield {
                "step": torch.full((networks.count,), step),
                "validation_accuracy": networks.accuracy([data.validation.x], data.validation.y),
                "accuracy": networks.accuracy([data.test.x], data.test.y),
                "weight": torch.stack(weights).mean(0).sqrt(),
                "signal_to_noise": networks.noise.signal_to_noise()[middle],
            }


def widths(config: Protocol, data: ImageData) -> list[int]:
    """Units from the inputs to the outputs."""
    return [*data.shape, *[config.width] * config.layers, len(data.classes)]


@study.measure(over=lambda config: grid(initialization=["simple", "he"]))
def train(lab: Lab, config: Protocol, *, initialization: Literal["simple", "he"]) -> None:
    """Learning curves of the arms from one initialisation, with the scale of the hidden layers' weights."""
    data = images(config.data).flat().to(lab.device)
    plan = arms(config, initialization)
    models = [network(widths(config, data), arm.deviation, lab.generator("weights")).to(lab.device) for arm in plan]
    seeds = [lab.generator("noise").initial_seed()] * len(plan)
    variances = [arm.variance for arm in plan]
    networks = Networks(models, Constant(config.learning_rate), variances, config.clip_norm, seeds)
    steps = config.simple_steps if initialization == "simple" else config.he_steps
    for row in follow(lab, config, networks, data, steps, own=False):
        for place, arm in enumerate(plan):
            lab.record(arm=arm.name, **{name: values[place] for name, values in row.items()})


@study.measure(seeds=1)
def zero(lab: Lab, config: Protocol) -> None:
    """Learning curves with noise from zero weights: runs with noise and examples of their own, trained together."""
    data = images(config.data).flat().to(lab.device)
    runs = range(config.zero_runs)
    models = [network(widths(config, data), 0.0, lab.generator("weights")).to(lab.device) for _ in runs]
    seeds = [lab.generator(f"noise {run}").initial_seed() for run in runs]
    variances = [PowerDecay(config.eta, GAMMA)] * len(runs)
    networks = Networks(models, Constant(config.learning_rate), variances, config.clip_norm, seeds)
    for row in follow(lab, config, networks, data, config.zero_steps, own=True):
        for run in runs:
            lab.record(run=run, **{name: values[run] for name, values in row.items()})


@study.measure(seeds=1)
def zero_without_noise(lab: Lab, config: Protocol) -> None:
    """What becomes of zero weights in 200 steps without noise."""
    data = images(config.data).flat().to(lab.device)
    models = [network(widths(config, data), 0.0, lab.generator("weights")).to(lab.device)]
    networks = Networks(models, Constant(config.learning_rate), [Constant(0.0)], config.clip_norm, [0])
    draw = batches(data.train.y, BATCH, lab.generator("examples"))
    for _ in networks.learn([data.train.x], data.train.y, 200, draw):
        pass
    *others, _output_bias = networks.parameters.values()
    lab.record(
        largest=max(values.detach().abs().max() for values in others),
        accuracy=networks.accuracy([data.test.x], data.test.y)[0],
        majority=(data.test.y == data.train.y.mode().values).double().mean(),
    )


@study.measure(seeds=1)
def law(lab: Lab, config: Protocol) -> None:
    """What is added to 100,000 weights that start from zero and whose gradient is the same at every step."""
    n, falling = 100_000, PowerDecay(config.eta, GAMMA)

    def descent(
        gradient: Tensor, clip_norm: float | None = None, stream: str = "noise"
    ) -> tuple[Tensor, GradientNoise, Callable[[int], None]]:
        weights = nn.Parameter(torch.zeros(n, device=lab.device))
        sgd = torch.optim.SGD([weights], lr=config.learning_rate)
        noise = GradientNoise(sgd, falling, clip_norm=clip_norm, seed=lab.generator(stream).initial_seed())

        def advance(steps: int) -> None:
            for _ in range(steps):
                weights.grad = gradient.clone()
                sgd.step()

        return weights.detach(), noise, advance

    none = torch.zeros(n, device=lab.device)
    for t in (0, 10, 1000):
        weights, noise, advance = descent(none, stream=f"noise from step {t}")
        noise.step = t
        advance(1)
        squares = float((weights.double() / config.learning_rate).square().sum()) * (1 + t) ** GAMMA / config.eta
        lab.record(check="variance", t=t, value=2 * min(stats.chi2.cdf(squares, n), stats.chi2.sf(squares, n)))

    weights, noise, advance = descent(none)
    advance(1000)
    state, midway = noise.state_dict(), weights.clone()
    advance(1000)
    expected = accumulated_variance(falling, 2000, config.learning_rate)
    lab.record(check="walk", value=weights.double().square().mean() / expected - 1)
    resumed, noise, advance = descent(none)
    resumed.copy_(midway)
    noise.load_state_dict(state)
    advance(1000)
    lab.record(check="resume", value=(resumed != weights).sum())

    weights, _, advance = descent(none)
    advance(1)
    gradient = torch.randn(n, generator=lab.generator("gradient")).to(lab.device)
    clipped, _, advance = descent(gradient, 1e-3)
    advance(1)
    difference = clipped - weights + config.learning_rate * 1e-3 * gradient / gradient.norm()
    lab.record(check="clipping", value=difference.abs().max() / weights.square().mean().sqrt())


@study.measure()
def stories(lab: Lab, config: Protocol) -> None:
    """Learning curves of memory networks with and without noise on stories with two supporting facts."""
    told = two_supporting_facts(2 * config.stories, lab.generator("stories"))
    parts = [value.to(lab.device).split(config.stories) for value in (told.sentences, told.question, told.answer)]
    (*learnt, answers), (*held_out, right) = zip(*parts)
    size = len(told.vocabulary), told.sentences.shape[1], told.sentences.shape[2]
    models = [MemoryNetwork(*size, generator=lab.generator("weights")).to(lab.device) for _ in range(2)]
    epoch = -(-config.stories // STORY_BATCH)
    variances, seeds = [PowerDecay(STORY_ETA, GAMMA), Constant(0.0)], [lab.generator("noise").initial_seed()] * 2
    networks = Networks(models, lambda step: STORY_RATE * 0.5 ** (step // (25 * epoch)), variances, STORY_CLIP, seeds)
    draw = batches(answers, STORY_BATCH, lab.generator("examples"))
    steps = networks.learn(learnt, answers, config.epochs * epoch, draw, summed=True)
    for step in lab.track(steps, "steps"):
        if step % epoch == 0:
            train_error, error = 1 - networks.accuracy(learnt, answers), 1 - networks.accuracy(held_out, right)
            for place, arm in enumerate(("noise", "none")):
                lab.record(arm=arm, epoch=step // epoch, train_error=train_error[place], error=error[place])


def selected(rows: Table, unit: str = "seed") -> Quantity:
    """Test accuracy where validation accuracy is highest, first, of each run."""
    return rows.per(unit).apply(lambda run: run.loc[run["validation_accuracy"].idxmax(), "accuracy"])


def steps_to_learn(rows: Table, unit: str = "seed") -> Quantity:
    """The first evaluation with more than 80 % of the validation digits right, NaN where there is none."""
    return rows.per(unit).apply(lambda run: run.loc[run["validation_accuracy"] > LEARNT, "step"].min())


def arm(e: Evidence[Protocol], initialization: str, name: str) -> Table:
    """One arm's learning curves."""
    return e[train].at(initialization=initialization, arm=name)


def points(e: Evidence[Protocol], initialization: str, ours: str, theirs: str) -> Estimate:
    """Difference of two arms' test accuracies in percentage points."""
    return mean(100 * (selected(arm(e, initialization, ours)) - selected(arm(e, initialization, theirs))))


def nothing_moves(e: Evidence[Protocol]) -> list[Rule]:
    """That zero weights stay zero without noise, so that the answer is always the most frequent digit."""
    rows = e[zero_without_noise]
    return [
        (exact(rows["largest"].max()) <= 0).named("largest weight without noise"),
        (exact(abs(rows["accuracy"] - rows["majority"]).max()) <= 0).named("accuracy off the most frequent digit's"),
    ]


@study.claim(reported="variance 0.01 / (1 + t)^0.55, after clipping")
def noise_has_the_stated_law(e: Evidence[Protocol]) -> Rule:
    """The noise has the stated variance, adds up as it should, and depends neither on clipping nor on interruptions."""
    variance = e[law].at(check="variance").frame.set_index("t")["value"]
    walk, resume, clipping = (e[law].at(check=check)["value"].iloc[0] for check in ("walk", "resume", "clipping"))
    return all_of(
        *((exact(variance[t]) > 1e-3).named(f"chi-square test at t = {t}, p") for t in (0, 10, 1000)),
        within(exact(walk), -0.02, 0.02).named("variance of 2,000 steps' random walk over its sum, less 1"),
        (exact(clipping) < 1e-4).named("noise with clipping less noise without, in standard deviations"),
        (exact(resume) <= 0).named("weights that differ after resuming"),
    )


@study.claim(reported="11.4 % at best: the most frequent digit")
def zero_weights_stay_without_noise(e: Evidence[Protocol]) -> Rule:
    """Without noise zero weights stay exactly zero, and the network always answers the most frequent digit."""
    return all_of(*nothing_moves(e))


@study.claim(reported="94.5 % at best, 49.7 % on average over two learning rates", deviation=SMALLER)
def zero_weights_learn_with_noise(e: Evidence[Protocol]) -> Rule:
    """With noise more than half of the runs from zero weights get over 80 %; without it none can."""
    accuracy = selected(e[zero], "run")
    learnt = (proportion(accuracy > LEARNT) > 0.5).named("runs from zero weights over 80 %")
    return all_of(learnt, *nothing_moves(e)).also(
        **{"their test accuracy": mean(accuracy)}, **{"steps to 80 %": mean(steps_to_learn(e[zero], "run"))}
    )


@study.claim(
    reported="53.6 against 51.6 % on average over two learning rates, 97.0 against 95.7 % at best", deviation=SMALLER
)
def noise_helps_from_simple_init(e: Evidence[Protocol]) -> Rule:
    """From Simple Init accuracy is higher with noise than without."""
    rule = (points(e, "simple", "noise", "none") > 0).named("points of accuracy")
    for name in ("noise", "none"):
        rows = arm(e, "simple", name)
        steps = steps_to_learn(rows)
        rule = rule.also(**{f"{name}: runs over 80 %": proportion(selected(rows) > LEARNT)})
        rule = rule.also(**{f"{name}: test accuracy": mean(selected(rows)), f"{name}: steps to 80 %": mean(steps)})
    return rule


@study.claim(reported="91.7 against 91.7 % on average", deviation=SMALLER)
def noise_changes_nothing_from_good_init(e: Evidence[Protocol]) -> Rule:
    """From the initialisation of He et al. noise changes accuracy by less than a point and a half."""
    return (
        within(points(e, "he", "noise", "none"), -1.5, 1.5)
        .named("points of accuracy")
        .also(**{f"{name}: test accuracy": mean(selected(arm(e, "he", name))) for name in ("noise", "none")})
    )


@study.claim(reported="not asked", deviation=SMALLER)
def rescaling_explains_the_gain(e: Evidence[Protocol]) -> Rule:
    """Noise acts, and larger initial weights without noise do as well: it re-scales the weights, it does not explore.

    "As well" is at least as good, or within two points. Were larger weights worse by more, it would be exploration.
    """
    larger = points(e, "simple", "larger weights", "noise")
    taking_off = arm(e, "simple", "noise").per("seed").apply(weight_at_take_off)
    return all_of(
        (points(e, "simple", "noise", "none") > 0).named("noise less none, points"),
        any_of(larger >= 0, within(larger, -2, 2)).named("larger weights less noise, points"),
    ).also(
        **{"falling noise less constant noise, points": points(e, "simple", "noise", "constant noise")},
        **{"steps to 80 %, noise": mean(steps_to_learn(arm(e, "simple", "noise")))},
        **{"steps to 80 %, larger weights": mean(steps_to_learn(arm(e, "simple", "larger weights")))},
        **{"RMS of the hidden weights when noise takes off": mean(taking_off)},
    )


def weight_at_take_off(run: pd.DataFrame) -> float:
    """RMS of the hidden weights at the last evaluation before one with more than 20 % right; NaN if there is none."""
    off = run.loc[run["validation_accuracy"] > 0.2, "step"].min()
    return float(run.loc[run["step"] < off, "weight"].iloc[-1]) if (run["step"] < off).any() else math.nan


@study.claim(
    reported="16.6 against 19.5 % (one-stage training)",
    deviation="generated stories of one kind, 12 sentences each, instead of the 20 bAbI tasks",
)
def noise_lowers_a_memory_networks_error(e: Evidence[Protocol]) -> Rule:
    """A memory network's error on held-out stories after the last epoch is lower with noise."""
    last = {name: e[stories].at(arm=name, epoch=e.config.epochs) for name in ("noise", "none")}
    rule = (mean(100 * (last["noise"]["error"] - last["none"]["error"])) < 0).named("points of error")
    for name, rows in last.items():
        rule = rule.also(
            **{f"{name}: error": mean(rows["error"]), f"{name}: training error": mean(rows["train_error"])}
        )
    return rule


STYLES = {"noise": "C0", "none": "0.5", "larger weights": "C1", "constant noise": "C2"}


def curves(axes: Axes, rows: Table, unit: str, column: str, label: str, colour: str, scale: float = 1) -> None:
    """One line for each run, and the label once."""
    for number, (_, run) in enumerate(rows.split(unit)):
        step, values = run.curve("step", column)
        axes.plot(step, scale * values, color=colour, alpha=0.7, linewidth=1, label=label if number == 0 else None)


@study.figure
def accuracy_by_step(e: Evidence[Protocol], axes: Axes) -> None:
    """Test accuracy of every run from Simple Init, by what it is given, and from zero weights with noise."""
    for name, colour in STYLES.items():
        curves(axes, arm(e, "simple", name), "seed", "accuracy", name, colour, 100)
    curves(axes, e[zero], "run", "accuracy", "noise, from zero weights", "C3", 100)
    axes.set(xlabel="step", ylabel="test accuracy (%)")
    axes.legend(frameon=False)


@study.figure
def weights_by_step(e: Evidence[Protocol], axes: Axes) -> None:
    """Scale of the hidden layers' weights: noise carries it to where the larger weights start."""
    for name, colour in STYLES.items():
        curves(axes, arm(e, "simple", name), "seed", "weight", name, colour)
    step = range(0, e.config.simple_steps + 1, e.config.evaluate_every)
    falling = PowerDecay(e.config.eta, GAMMA)
    walk = [math.sqrt(SIMPLE**2 + accumulated_variance(falling, t, e.config.learning_rate)) for t in step]
    axes.plot(step, walk, "k:", label="initial weights and noise alone")
    axes.set(xlabel="step", ylabel="root mean square of the hidden weights")
    axes.legend(frameon=False)


@study.figure
def signal_by_step(e: Evidence[Protocol], axes: Axes) -> None:
    """How loud the gradient of the middle layer is beside the noise: below 1 the weights walk at random."""
    for initialization, colour in (("simple", "C0"), ("he", "C1")):
        label = {"simple": "Simple Init", "he": "He et al."}[initialization]
        curves(axes, arm(e, initialization, "noise"), "seed", "signal_to_noise", label, colour)
    curves(axes, e[zero], "run", "signal_to_noise", "zero weights", "C3")
    axes.axhline(1, color="0.6", linewidth=1, linestyle=":")
    axes.set(xlabel="step", ylabel="RMS of the gradient / standard deviation of the noise", yscale="log")
    axes.legend(frameon=False)
