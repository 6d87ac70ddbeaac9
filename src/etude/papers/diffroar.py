"""Do the numbers of an input with the largest gradients tell the most about its label?

Fresh networks are trained on images of which only the pixels with the largest (or only those with the smallest)
gradients of a network are left, for a network trained as usual, one trained on adversarial examples, and a ranking by
chance. Why gradients may mislead is shown where it is known what tells the label: one coordinate of ten, or one of two
blocks. Networks and their retrained judges have the same architecture and are trained for a fixed time, with nothing
selected; test images take no part but to be classified. Gradients are those of the class that the network predicts, as
with the true class a test image's mask would carry its label. Masks carry the prediction all the same: networks that
are shown nothing but where pixels were kept classify about as well as those shown the pixels, and at 5 % half of what
sets robust networks apart is in their masks alone. Both stand beside the claim. Every seed draws its own training
images, weights, placements and orders. What is left out is black.

The paper trains ResNets on CIFAR-10 and ImageNet-10 (`paper` has a ResNet-18 and CIFAR-10, and needs a GPU for a day);
here fully connected networks read Fashion-MNIST. Ten nets of the first task are trained as one, on all twenty inputs
there are, which is the population's gradient. The theorem is on maximum-margin networks: here small initial weights
and steps of the gradient over the loss, on new inputs each, until the margin hardly grows. Numbers of steps were set on
seed 101: by the margin (a fixed set of 512 inputs had its noise fitted), and by the accuracy of the nets that have an
adversary (after 3,000 steps they still err on their twenty inputs, after 6,000 they do not).

Source: Shah, Jain and Netrapalli, NeurIPS 2021 (arXiv 2102.12781), sections 3 to 5.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, softplus

from etude.data import Blocks, block_images, images, signal_blocks
from etude.interpretability import (
    attribute,
    diffroar,
    input_gradient,
    leakage,
    pointing_accuracy,
)
from etude.nn import ResidualNetwork, glorot_initialise_
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
    within,
)
from etude.training import LinearDecay, ProjectedGradient, evaluate

Network = Literal["mlp", "cnn", "resnet"]
Training = Literal["standard", "robust"]
Placement = Literal["random", "top"]


class Protocol(Config):
    """What is trained on what, how long, and how much of an image is left."""

    data: Literal["digits", "fashion-mnist", "cifar10", "cifar10-jpeg"] = "fashion-mnist"
    """The images that networks are retrained on."""
    train: int = 10_000
    """Training images, drawn anew by every seed."""
    test: int = 5_000
    """Test images."""
    network: Network = "mlp"
    """The network, explained and retrained."""
    width: int = 256
    """Units in each of its two hidden layers, or channels in its first one."""
    epochs: int = 6
    """Epochs, for the networks explained and retrained."""
    batch: int = 256
    """Images a step."""
    learning_rate: float = 2e-3
    """Adam's, falling to zero in a straight line."""
    radius: float = 1.0
    """How far an adversarial image may be from its own, in l2 and with pixels in [0, 1]."""
    attack_steps: int = 7
    """Steps of projected gradient ascent."""
    fractions: tuple[float, ...] = (0.05, 0.2)
    """How much of an image is left."""
    of: tuple[Literal["logit", "loss", "probability"], ...] = ("logit",)
    """What is differentiated."""
    blocks: Literal["digits", "mnist-10k", "mnist"] = "mnist-10k"
    """Where the zeros and ones of the block images come from."""
    block_train: int = 1_500
    """Training images of two blocks."""
    block_networks: tuple[Network, ...] = ("mlp", "cnn")
    """Networks that read them."""
    block_width: int = 512
    """Units in each hidden layer of the fully connected one."""
    block_epochs: int = 10
    """Epochs on block images."""
    block_radius: float = 2.0
    """The adversarial radius for block images, in l2."""
    coordinates: int = 10
    """d, of the task in which one coordinate tells the label."""
    nets: int = 10
    """Networks trained on it, from weights of their own."""
    hidden: int = 2_000
    """Their hidden units."""
    standard_steps: int = 4_000
    """Gradient steps where there is no adversary."""
    robust_steps: int = 6_000
    """Gradient steps where there is one."""
    radii: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.45)
    """The adversary's radii, in l-infinity; without and with the strongest one decide."""
    margin_width: int = 4_096
    """Hidden units of the maximum-margin network."""
    margin_steps: int = 500
    """Its gradient steps."""
    margin_batch: int = 512
    """New inputs at each of them."""


SMALLER = "Fashion-MNIST and two hidden layers of 256 units; the paper's numbers are of ResNets"
ARMS: tuple[tuple[Placement, Training], ...] = (("random", "standard"), ("random", "robust"), ("top", "standard"))
D_BLOCKS, BLOCK, NOISE = 8, 4, 0.1

study = Study(
    paper=Paper(
        "Do Input Gradients Highlight Discriminative Features?",
        "Harshay Shah, Prateek Jain, Praneeth Netrapalli",
        2021,
        "2102.12781",
        "NeurIPS",
    ),
    topic="interpretability",
    presets={
        "smoke": Protocol(
            data="digits", train=200, test=100, width=16, epochs=1, batch=50, blocks="digits", block_train=100,
            block_width=16, block_epochs=1, nets=3, hidden=256, standard_steps=60, robust_steps=30, radii=(0.0, 0.45),
            margin_width=128, margin_steps=30, margin_batch=32, seeds=1,
        ),
        "laptop": Protocol(),
        "extended": Protocol(
            train=50_000, test=10_000, fractions=(0.05, 0.1, 0.2, 0.3, 0.5), of=("logit", "loss"), nets=30, seeds=10,
        ),
        "paper": Protocol(
            data="cifar10", train=45_000, test=10_000, network="resnet", width=64, epochs=100, batch=128,
            learning_rate=1e-3, radius=0.5, fractions=(0.05, 0.1, 0.2, 0.3, 0.5), blocks="mnist", block_train=12_000,
            block_networks=("mlp", "resnet"), block_width=1024, block_epochs=50, hidden=25_000, standard_steps=20_000,
            robust_steps=20_000, seeds=5,
        ),
    },
)  # fmt: skip


# ---- networks --------------------------------------------------------------------------------------------------------


def build(network: Network, shape: tuple[int, ...], classes: int, width: int, generator: torch.Generator) -> nn.Module:
    """A network for images of this shape, its weights drawn from the generator."""
    channels, height, across = shape
    if network == "resnet":
        widths = [width * 2**stage for stage in range(4)]
        return ResidualNetwork(channels, classes, widths, blocks=2, generator=generator)
    if network == "mlp":
        sizes = [channels * height * across, width, width]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
        return glorot_initialise_(nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, classes)), generator)
    convolutions = [nn.Conv2d(channels, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten()]
    features = 32 * -(-height // 4) * -(-across // 4)
    head = [nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, classes)]
    return glorot_initialise_(nn.Sequential(*convolutions, *head), generator)


def fit(
    model: nn.Module,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, " n"],
    order: int,
    *,
    epochs: int,
    batch: int,
    learning_rate: float,
    attack: ProjectedGradient | None = None,
) -> None:
    """Train a classifier in place, on the examples or on what the attack makes of them; `order` seeds their order."""
    draws = torch.Generator().manual_seed(order)
    adam = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    steps = epochs * -(-len(y) // batch)
    decay = torch.optim.lr_scheduler.LambdaLR(adam, LinearDecay(steps))
    model.train()
    for _ in range(epochs):
        for index in torch.randperm(len(y), generator=draws).to(y.device).split(batch):
            inputs, labels = x[index], y[index]
            if attack is not None:
                inputs = attack(model, inputs, labels)
            adam.zero_grad()
            cross_entropy(model(inputs), labels).backward()
            adam.step()
            decay.step()


# ---- retraining ------------------------------------------------------------------------------------------------------


@study.measure()
def retrain(lab: Lab, config: Protocol) -> None:
    """Accuracy after retraining on what gradients of both kinds of network, and chance, leave of the images."""
    data = images(config.data)
    drawn = torch.randperm(len(data.train), generator=lab.generator("examples"))[: config.train]
    x, y = data.train.x[drawn].to(lab.device), data.train.y[drawn].to(lab.device)
    test = data.test.x[: config.test].to(lab.device), data.test.y[: config.test].to(lab.device)
    learn = partial(fit, epochs=config.epochs, batch=config.batch, learning_rate=config.learning_rate)
    start, order = (lab.generator(stream).initial_seed() for stream in ("weights", "order"))

    def make_model(seed: int) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        return build(config.network, data.shape, len(data.classes), config.width, generator).to(lab.device)

    attack = ProjectedGradient(radius=config.radius, steps=config.attack_steps, generator=lab.generator("attack"))
    found = {}
    for training in ("standard", "robust"):
        model = make_model(start)
        learn(model, x, y, order, attack=attack if training == "robust" else None)
        attacked = attack(model, *test), test[1]
        lab.record(
            kind="explained", method=training, accuracy=evaluate(model, test)[1], robust=evaluate(model, attacked)[1]
        )
        for of in config.of:
            name = training if of == "logit" else f"{training}, {of}"
            method = partial(input_gradient, of=of)
            found[name] = attribute(model, x, method=method), attribute(model, test[0], method=method)
    # In double precision, where no two of an image's draws are the same: a tie would not be reversed with the rest.
    draws = {name: lab.generator(f"chance, {name}") for name in ("train", "test")}
    chance, chance_test = (
        torch.rand(part.shape, dtype=torch.float64, generator=draws[name]).to(lab.device)
        for name, part in (("train", x), ("test", test[0]))
    )
    judge = partial(
        diffroar,
        train=(x, y),
        test=test,
        make_model=make_model,
        fit=learn,
        seeds=[lab.generator("retraining").initial_seed()],
        generator=lab.generator("ties"),
    )
    tables = [
        judge(found, fractions=config.fractions, masks_alone=True),
        judge({"chance": (chance, chance_test)}, fractions=config.fractions),
        # In a call of its own, so that nothing is shared with the ranking it reverses.
        judge({"chance reversed": (1 - chance, 1 - chance_test)}, fractions=config.fractions[:1]),
    ]
    lab.record(pd.concat(tables).drop(columns="seed"), kind="retrained")


# ---- blocks of images ------------------------------------------------------------------------------------------------


@study.measure(over=lambda config: grid(network=config.block_networks))
def leak(lab: Lab, config: Protocol, *, network: Network) -> None:
    """How much of the gradient lies in the block that is the same for all, by placement and training."""
    data = images(config.blocks)
    drawn = torch.randperm(len(data.train), generator=lab.generator("examples"))
    few = drawn[data.train.y[drawn] < 2][: config.block_train]
    told = data.test.y < 2

    def placed(placement: Placement) -> tuple[Blocks, Blocks]:
        parts = (data.train.x[few], data.train.y[few], "train"), (data.test.x[told], data.test.y[told], "test")
        return tuple(
            block_images(x.to(lab.device), y.to(lab.device), placement=placement, generator=lab.generator(name))
            for x, y, name in parts
        )

    attack = ProjectedGradient(radius=config.block_radius, steps=config.attack_steps, generator=lab.generator("attack"))
    for placement, training in ARMS:
        train, test = placed(placement)
        width = 64 if network == "resnet" else config.block_width
        model = build(network, tuple(test.x.shape[1:]), 2, width, lab.generator("weights")).to(lab.device)
        options = {"epochs": config.block_epochs, "batch": 64, "learning_rate": 1e-3}
        order = lab.generator("order").initial_seed()
        fit(model, train.x, train.y, order, attack=attack if training == "robust" else None, **options)
        gradient = attribute(model, test.x)
        lab.record(
            placement=placement,
            training=training,
            leakage=leakage(gradient, test.relevant).mean(),
            pointing=pointing_accuracy(gradient, test.relevant).mean(),
            accuracy=evaluate(model, (test.x, test.y))[1],
            robust=evaluate(model, (attack(model, test.x, test.y), test.y))[1],
        )
        lab.save(f"{placement}, {training}", {"image": test.x[:3, 0].cpu(), "gradient": gradient[:3, 0].cpu()})


# ---- one coordinate of ten -------------------------------------------------------------------------------------------


def stacked_network(weights: list[Tensor], x: Float[Tensor, "nets n d"]) -> Float[Tensor, "nets n"]:
    """The scores of many networks with one hidden layer, each of its own inputs."""
    first, first_bias, second, second_bias = weights
    hidden = torch.baddbmm(first_bias.mT, first.mT, x.mT).relu()  # inputs last: a third faster than inputs first
    return torch.baddbmm(second_bias, second.mT, hidden)[:, 0]


def drawn_weights(d: int, hidden: int, generator: torch.Generator) -> list[Tensor]:
    """PyTorch's initialisation of two linear layers: uniform within one over the root of the number of inputs."""
    shapes = {(d, hidden): d, (1, hidden): d, (hidden, 1): hidden, (1, 1): hidden}
    return [(2 * torch.rand(shape, generator=generator) - 1) / inputs**0.5 for shape, inputs in shapes.items()]


@study.measure(seeds=1, over=lambda config: grid(radius=config.radii))
def one_coordinate(lab: Lab, config: Protocol, *, radius: float) -> None:
    """x = y e_j: how often the coordinate that tells the label has the largest gradient, and the smallest."""
    d, nets = config.coordinates, config.nets
    draws = [drawn_weights(d, config.hidden, lab.generator(f"weights {net}")) for net in range(nets)]
    weights = [torch.stack(parts).to(lab.device).requires_grad_() for parts in zip(*draws)]
    unit = torch.eye(d, device=lab.device)
    x = torch.cat([unit, -unit]).expand(nets, -1, -1).contiguous()
    y = torch.cat([torch.ones(d), -torch.ones(d)]).to(lab.device).expand(nets, -1)
    attack = ProjectedGradient(
        "linf", radius=radius, steps=8, step_size=0.25 * radius or None, random_start=False, bounds=None
    )
    model, loss = partial(stacked_network, weights), lambda score, y: softplus(-y * score)
    descent = torch.optim.SGD(weights, lr=0.1)
    for _ in lab.track(range(config.robust_steps if radius else config.standard_steps), "steps"):
        descent.zero_grad()
        loss(model(attack(model, x, y, loss)), y).mean(1).sum().backward()
        descent.step()

    start = x.clone().requires_grad_()
    score = model(start)
    (gradient,) = torch.autograd.grad(score.sum(), start)
    relevant = x != 0
    flat, where = gradient.flatten(0, 1), relevant.flatten(0, 1)
    found = {
        "largest": pointing_accuracy(flat, where),
        "smallest": pointing_accuracy(flat, where, at="smallest"),
        "cosine": cosine_similarity(flat, x.flatten(0, 1), dim=1).abs(),
        "accuracy": (score * y > 0).double().flatten(),
        "loss": loss(score, y).detach().flatten(),
    }
    columns = {name: values.view(nets, -1).mean(1).double().cpu().numpy() for name, values in found.items()}
    lab.record(pd.DataFrame({"net": range(nets), **columns}))


# ---- the theorem, and gradients themselves ---------------------------------------------------------------------------


def maximum_margin(
    sample: Callable[[], Blocks], width: int, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, list[float]]:
    """A network with one hidden layer of rectified units near the largest margin, and its margins on the way.

    Steps, on new inputs each, along the gradient of log sum exp(-y f(x)), which is that of the exponential loss over
    the loss itself, from small and balanced weights. The margin is min y f(x) / sum |a_i| |w_i| over a step's inputs.
    """
    size, margins = LinearDecay(steps, 0.1), list[float]()
    for step in range(steps):
        blocks = sample()
        x, y = blocks.x, blocks.y.to(blocks.x)
        if step == 0:
            first = 0.01 * torch.randn(x.shape[1], width, generator=generator).to(x) / x.shape[1] ** 0.5
            second = (2 * torch.randint(2, (width,), generator=generator) - 1).to(x) * first.norm(dim=0)
        hidden = x @ first
        active = hidden.relu()
        margin = y * (active @ second)
        margins.append(float(margin.min() / (first.norm(dim=0) * second.abs()).sum()))
        pull = (-margin).softmax(0) * y
        up, down = active.T @ pull, x.T @ ((hidden > 0) * torch.outer(pull, second))
        second, first = second + size(step) * up, first + size(step) * down
    return first, second, margins


@study.measure()
def theorem(lab: Lab, config: Protocol) -> None:
    """The gradient of a maximum-margin network in blocks that could tell the label, and in those that never do."""
    draws = lab.generator("train")  # of new inputs at every step, so that there is no noise to be fitted
    blocks = partial(signal_blocks, d=D_BLOCKS, block_size=BLOCK, noise=NOISE)
    test = blocks(2_000, generator=lab.generator("test"))
    first, second, margins = maximum_margin(
        lambda: blocks(config.margin_batch, generator=draws),
        config.margin_width,
        config.margin_steps,
        lab.generator("weights"),
    )
    hidden = test.x @ first
    gradient = (((hidden > 0) * second) @ first.T).view(-1, D_BLOCKS, BLOCK).norm(dim=2)
    could, never = gradient.chunk(2, 1)
    lab.record(
        variation=(could.std(1, correction=0) / could.mean(1)).mean(),
        noise_share=(never.sum(1) / gradient.sum(1)).mean(),
        margin=margins[-1],
        margin_before=margins[len(margins) * 3 // 4],
        accuracy=((hidden.relu() @ second) * test.y > 0).double().mean(),
    )


def outputs(model: nn.Module, x: Tensor, target: Tensor, of: str) -> Tensor:
    """What is differentiated, for each input."""
    logits = model(x)
    if of == "loss":
        return cross_entropy(logits, target, reduction="none")
    return (logits if of == "logit" else logits.softmax(1)).gather(1, target[:, None])[:, 0]


@study.measure(seeds=1)
def differences(lab: Lab, config: Protocol) -> None:
    """Gradients beside central differences, and those of a linear network at different inputs, in double precision."""
    generator = lab.generator("weights")
    x = torch.rand(20, 1, 6, 6, generator=generator, dtype=torch.float64)
    for name in ("logit", "loss", "probability"):
        model = build("mlp", (1, 6, 6), 3, 64, generator).double()
        target = torch.arange(20) % 3
        gradient = input_gradient(model, x, target, of=name, absolute=False)

        steps = 1e-6 * torch.eye(36, dtype=torch.float64).view(36, 1, 1, 6, 6)
        with torch.no_grad():
            columns = [
                (outputs(model, x + step, target, name) - outputs(model, x - step, target, name)) / 2e-6
                for step in steps
            ]
        error = (torch.stack(columns, 1).view_as(x) - gradient).norm() / gradient.norm()
        lab.record(check=f"central differences, {name}", error=error)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    gradient = input_gradient(linear, x, torch.zeros(20, dtype=torch.int64), absolute=False)
    lab.record(check="linear network", error=(gradient - gradient[:1]).abs().max())


# ---- claims ----------------------------------------------------------------------------------------------------------


def rate(e: Evidence[Protocol], end: Literal["largest", "smallest"], radius: float) -> Quantity:
    """How often the signal coordinate has the largest or smallest gradient, one number a net."""
    return e[one_coordinate].at(radius=radius).per("net")[end]


def roar(e: Evidence[Protocol], method: str, fraction: float, kind: Literal["image", "mask"] = "image") -> Quantity:
    """DiffROAR of each seed."""
    rows = e[retrain].at(kind="retrained", method=method, fraction=fraction, input=kind)
    return rows.at(side="top")["accuracy"] - rows.at(side="bottom")["accuracy"]


@study.claim(reported="0.041 (chance 0.1)", deviation="width 2,000; the 20 inputs there are, full batch")
def signal_is_not_highlighted(e: Evidence[Protocol]) -> Rule:
    """In a standard network the coordinate that tells the label has the largest gradient no more often than chance."""
    return (
        (mean(rate(e, "largest", 0.0)) < 1 / e.config.coordinates)
        .named("largest is the signal")
        .also(accuracy=mean(e[one_coordinate].at(radius=0.0).per("net")["accuracy"]))
    )


@study.claim(reported="0.562 (chance 0.1)", deviation="width 2,000; the 20 inputs there are, full batch")
def inversion(e: Evidence[Protocol]) -> Rule:
    """In a standard network the coordinate that tells the label often has the smallest gradient."""
    return (
        (mean(rate(e, "smallest", 0.0)) > 0.3)
        .named("smallest is the signal")
        .also(**{"cosine of input and gradient": mean(e[one_coordinate].at(radius=0.0).per("net")["cosine"])})
    )


@study.claim(reported="1.000 at radius 0.45", deviation="width 2,000; the 20 inputs there are, full batch")
def robustness_fixes_it(e: Evidence[Protocol]) -> Rule:
    """With adversarial training the largest gradient is the signal's, the more often the stronger the adversary."""
    trend = e[one_coordinate].per("net").apply(lambda rows: rank_correlation(rows["radius"], rows["largest"]))
    strongest = max(e.config.radii)
    return all_of(
        (mean(rate(e, "largest", strongest)) > 0.95).named(f"largest is the signal, radius {strongest:g}"),
        (mean(trend) > 0).named("rank correlation with the radius"),
    ).also(
        **{f"radius {radius:g}": mean(rate(e, "largest", radius)) for radius in e.config.radii},
        **{"smallest is the signal": mean(rate(e, "smallest", strongest))},
        **{"cosine of input and gradient": mean(e[one_coordinate].at(radius=strongest).per("net")["cosine"])},
    )


def rank_correlation(one: pd.Series, two: pd.Series) -> float:
    """Spearman's; 0 where one of both is constant, as there is no association."""
    return float(spearmanr(one, two).statistic) if one.nunique() > 1 and two.nunique() > 1 else 0.0


@study.claim(reported="qualitative (figures of section 4)", deviation="a network of two convolutions for ResNet-18")
def leakage_on_blocks(e: Evidence[Protocol]) -> Rule:
    """More of the gradient lies in the null block if the signal could be there; robust training lowers that share."""
    rules: list[Rule] = []
    notes: dict[str, Estimate] = {}
    for network in e.config.block_networks:
        arm = {(p, t): e[leak].at(network=network, placement=p, training=t) for p, t in ARMS}
        share = {key: rows["leakage"] for key, rows in arm.items()}
        standard, robust, top = share["random", "standard"], share["random", "robust"], share["top", "standard"]
        rules += [
            (mean(standard - top) > 0).named(f"{network}, random less top"),
            (mean(standard - robust) > 0).named(f"{network}, standard less robust"),
        ]
        for (placement, training), rows in arm.items():
            notes[f"share, {network}, {placement}, {training}"] = mean(rows["leakage"])
            notes[f"accuracy, {network}, {placement}, {training}"] = mean(rows["accuracy"])
        notes[f"accuracy under attack, {network}, robust"] = mean(arm["random", "robust"]["robust"])
    return all_of(*rules).also(**notes)


@study.claim(reported="+0.12 to +0.29, by attack (CIFAR-10)", deviation=SMALLER)
def diffroar_sign(e: Evidence[Protocol]) -> Rule:
    """With 5 and 20 % of the pixels left DiffROAR is greater for an adversarially trained network."""
    fractions = [fraction for fraction in e.config.fractions if fraction in (0.05, 0.2)]
    gaps = {fraction: mean(roar(e, "robust", fraction) - roar(e, "standard", fraction)) for fraction in fractions}
    notes = {
        f"{method}, {fraction:.0%}{', masks alone' * (kind == 'mask')}": mean(roar(e, method, fraction, kind))
        for fraction in fractions
        for kind in ("image", "mask")
        for method in ("standard", "robust")
    }
    for fraction in fractions:
        gap = roar(e, "robust", fraction, "mask") - roar(e, "standard", fraction, "mask")
        notes[f"robust less standard, {fraction:.0%}, masks alone"] = mean(gap)
        for method in ("standard", "robust"):
            rows = e[retrain].at(kind="retrained", method=method, fraction=fraction, side="top")
            for kind in ("image", "mask"):
                notes[f"accuracy, {kind}s, {method}, top {fraction:.0%}"] = mean(rows.at(input=kind)["accuracy"])
    explained = e[retrain].at(kind="explained")
    for method in ("standard", "robust"):
        rows = explained.at(method=method)
        notes |= {f"accuracy, {method}": mean(rows["accuracy"]), f"under attack, {method}": mean(rows["robust"])}
    return all_of(*((gap > 0).named(f"robust less standard, {fraction:.0%}") for fraction, gap in gaps.items())).also(
        **notes
    )


@study.claim(reported="0, in expectation and exactly (by construction)")
def random_control(e: Evidence[Protocol]) -> Rule:
    """A ranking by chance has DiffROAR 0, and reversing it changes the sign and nothing else."""
    first = e.config.fractions[0]
    flipped = (roar(e, "chance", first) + roar(e, "chance reversed", first)).abs().max()
    return all_of(
        *(
            within(mean(roar(e, "chance", fraction)), -0.02, 0.02).named(f"chance, {fraction:.0%}")
            for fraction in e.config.fractions
        ),
        (exact(flipped) <= 1e-12).named("sum with that of the reversed ranking"),
    )


@study.claim(
    reported="equal on all blocks that could tell, 0 on the others (theorem)",
    deviation="a margin that has stopped growing for the largest one",
)
def gradient_check(e: Evidence[Protocol]) -> Rule:
    """Gradients are right; a linear network's do not depend on the input; maximum-margin ones single out no block."""
    errors = e[differences].frame.set_index("check")["error"]
    return all_of(
        (exact(errors.drop("linear network").max()) < 1e-6).named("relative error of central differences"),
        (exact(errors["linear network"]) <= 1e-12).named("change of a linear network's"),
        (mean(e[theorem]["variation"]) < 0.15).named("variation over blocks that could tell"),
        (mean(e[theorem]["noise_share"]) < 0.1).named("share of the others"),
    ).also(
        margin=mean(e[theorem]["margin"]),
        **{"margin at three quarters of the steps": mean(e[theorem]["margin_before"])},
        accuracy=mean(e[theorem]["accuracy"]),
    )


# ---- figures ---------------------------------------------------------------------------------------------------------


@study.figure
def where_gradients_lie(e: Evidence[Protocol], axes: Axes) -> None:
    """Block images and their gradients, each brightest where it is largest."""
    network, columns = e.config.block_networks[0], []
    for placement, training in ARMS:
        saved = e.saved(leak, f"{placement}, {training}", network=network)
        if training == "standard":
            columns.append((f"image\n({placement})", saved["image"]))
        columns.append((f"{training}\n({placement})", saved["gradient"]))
    tiles = np.concatenate([column(np.asarray(pictures)) for _, pictures in columns], 1)
    axes.imshow(tiles, cmap="magma")
    width = tiles.shape[1] / len(columns)
    axes.set_xticks([width * (place + 0.5) for place in range(len(columns))], [name for name, _ in columns])
    axes.set_yticks([])
    axes.tick_params(labelsize="small")
    axes.set(xlabel="image, or gradient after training (placement)", ylabel="test images")


def column(pictures: Float[np.ndarray, "n height width"]) -> Float[np.ndarray, "rows columns"]:
    """Pictures one above the other, each scaled to its own maximum."""
    scaled = pictures / np.maximum(pictures.max((1, 2), keepdims=True), 1e-12)
    return np.concatenate([np.pad(one, 1, constant_values=1) for one in scaled])


@study.figure
def diffroar_by_fraction(e: Evidence[Protocol], axes: Axes) -> None:
    """DiffROAR with 95 % intervals over seeds, of the images and of the masks alone."""
    methods = ("standard", "robust", "chance")
    for number, (method, colour) in enumerate(zip(methods, ("tab:blue", "tab:orange", "0.5"))):
        for kind, style, shift in (("image", "o-", -0.1), ("mask", "s:", 0.1))[: 1 if method == "chance" else 2]:
            estimates = [mean(roar(e, method, fraction, kind)) for fraction in e.config.fractions]
            at = [place + 0.05 * (number - 1) + shift for place in range(len(estimates))]
            ends = [estimate.interval(0.05) for estimate in estimates]
            axes.plot(at, [estimate.value for estimate in estimates], style, color=colour,
                      label=method if kind == "image" else f"{method}, masks alone")  # fmt: skip
            axes.vlines(at, [low for low, _ in ends], [high for _, high in ends], color=colour)
    axes.axhline(0, color="0.8", zorder=0)
    axes.set_xticks(range(len(e.config.fractions)), [f"{fraction:.0%}" for fraction in e.config.fractions])
    axes.set(xlabel="pixels left", ylabel="accuracy, top less bottom", xlim=(-0.5, len(e.config.fractions) - 0.5))
    axes.legend(frameon=False, fontsize="small", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))


@study.figure
def largest_by_radius(e: Evidence[Protocol], axes: Axes) -> None:
    """How often the coordinate that tells the label has the largest or the smallest gradient."""
    for end in ("largest", "smallest"):
        axes.plot(*Table(e[one_coordinate].frame).curve("radius", end), "o-", label=f"{end} gradient")
    axes.axhline(1 / e.config.coordinates, color="0.6", linestyle=":", label="chance")
    axes.set(xlabel="adversary's radius in training", ylabel="how often it is the signal", ylim=(-0.03, 1.03))
    axes.legend(frameon=False, fontsize="small", ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))


@study.figure
def share_in_the_null_block(e: Evidence[Protocol], axes: Axes) -> None:
    """The share of the gradient that lies in the block that is the same for all, one point a seed."""
    for number, (network, rows) in enumerate(e[leak].split("network")):
        for place, (placement, training) in enumerate(ARMS):
            shares = rows.at(placement=placement, training=training).frame["leakage"]
            at = np.full(len(shares), place + 0.2 * number - 0.1)
            axes.plot(at, shares, "o", color=f"C{number}", alpha=0.7, label=network if place == 0 else None)
    axes.set_xticks(range(len(ARMS)), [f"{training}\n({placement})" for placement, training in ARMS])
    axes.set(
        xlabel="training (placement of the digit)", ylabel="share of the gradient in the null block", ylim=(0, 0.75)
    )
    axes.legend(frameon=False, fontsize="small", ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
