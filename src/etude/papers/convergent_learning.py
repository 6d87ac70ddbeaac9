"""Do networks trained from different seeds learn the same units?

In every seed two networks of one architecture, differing in their initial weights and the order of examples, are
trained on the same images, and a third one on the same images with permuted labels. A unit is a channel after its
rectifier, and each of its places a sample. On images that none was trained on units are matched one to one, predicted
from a few units of the other network (the lasso), and clustered together. Matches and predictions are made on one half
of these images and scored on the other, since the greatest of many noisy correlations is too great on average; the
paper scores what it chose by. Beside the trained pair stand the two networks before training, the two with the entries
of each weight in random order, and the second network's units each with its samples in random order.

What counts as independent: pairs that share a network are not, and with K networks neither are the K(K-1)/2 pairs nor,
for a statistic of pairs, resampled networks, among which a network is paired with itself. So no pair of one seed shares
a network with one of another: the seeds' values are independent and alike, and Student's t over them is exact for
normal values. The U-statistic over all pairs of as many networks has at most this variance, and the same one where what
networks contribute adds up, but its interval (jackknife) is an approximation with few networks. What is measured within
a seed (places, units, rotations) is averaged first.

The paper trains four AlexNets on ILSVRC-2012. Here convolutions of 32, 48 and 64 channels and a layer of 128 units see
15,000 images of Fashion-MNIST three times, with Adam at 0.001, one value for all networks; it was not tuned, and no
network is chosen by its accuracy. `paper` has AlexNet's widths on CIFAR-10, as ILSVRC-2012 is no set of this library,
and needs a GPU for an hour; a folder of images that fits into memory can be named in place of it. Clusters are not
merged into a hierarchy.

What was learnt: the first layer here is not the paper's. 3x3 filters of grey images see nine numbers (11x11 ones in
colour 363), so its 32 units are nearly combinations of nine. All units of the other network leave 3 or 4 % of a unit
unexplained, where the paper's log has 34 %, and a fifth of them 11 %: little, but three times as much. And a unit has
several partners nearly as good as the best, so that the semi-matching gains more than in the second layer, not less.
In the second and third layer the two networks with the entries of each weight in random order match as well as the
trained pair: a high correlation of matched units there is no sign yet of a feature that both have learnt. The dip of
the paper's loss at small penalties is not seen where the lasso is solved: no penalty predicts better than none.

Source: Li, Yosinski, Clune, Lipson and Hopcroft, ICLR 2016 (arXiv 1511.07543), sections 3 to 5.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn

from etude.data import ImageData, images
from etude.interpretability import (
    CrossMoments,
    Moments,
    RunningCrossMoments,
    flatten_units,
    match_units,
    mutual_information,
    random_features,
    shuffled,
    sparse_stitch,
    stitch_path,
    unit_clusters,
)
from etude.nn import convolutional, stream_activations
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
    mean,
)
from etude.training import Run, fit


class Protocol(Config):
    """What is trained on what, and on how many images units are compared."""

    data: str = "fashion-mnist"
    """The images: a set that `etude.data.images` knows, or the path of a folder of your own."""
    blocks: tuple[tuple[int, ...], ...] = ((32,), (48,), (64,))
    """Channels of the convolutions; each block ends with pooling. At least three convolutions."""
    hidden: tuple[int, ...] = (128,)
    """Units of the fully connected layers."""
    train_images: int | None = 15_000
    """Images to learn from; all of them when left out."""
    epochs: int = 3
    """How often each is seen."""
    statistics: int = 5_000
    """Images on which units are compared: half to match on, half to score on. None is trained on."""
    places: int = 64
    """Places of each image at which convolutions are compared, drawn anew for every 250 images."""
    clusters: int = 12
    """Clusters of the units of two networks."""
    rotations: int = 20
    """Random rotations of one cluster's units."""


BATCH, RATE = 128, 1e-3
PENALTIES = (0.0, *(10 ** (-3 + 2.5 * step / 11) for step in range(12)))
FEW, ACTIVE = 0.2, 0.01  # the share of a layer that counts as few units; weights above it count as active
PAIRS = {
    "trained": ("first", "second"),
    "one on permuted labels": ("first", "memoriser"),
    "other on permuted labels": ("second", "memoriser"),
    "before training": ("first at start", "second at start"),
    "weights in random order": ("first scrambled", "second scrambled"),
    "samples in random order": ("first", "second shuffled"),
}

SMALLER = "Fashion-MNIST, three convolutions; pairs of different seeds share no network"

study = Study(
    paper=Paper(
        "Convergent Learning: Do different neural networks learn the same representations?",
        "Yixuan Li, Jason Yosinski, Jeff Clune, Hod Lipson, John Hopcroft",
        2016,
        "1511.07543",
        "ICLR",
    ),
    topic="interpretability",
    presets={
        "smoke": Protocol(
            data="digits", blocks=((8,), (10,), (12,)), hidden=(16,), train_images=None, statistics=240, places=4,
            clusters=4, rotations=2, seeds=2,
        ),
        "laptop": Protocol(seeds=8),
        "extended": Protocol(train_images=None, epochs=10, places=196, seeds=10),
        "paper": Protocol(
            data="cifar10", blocks=((96,), (256,), (384, 384, 256)), hidden=(4_096, 4_096), train_images=None,
            epochs=60, places=256, clusters=40, seeds=5,
        ),
    },
)  # fmt: skip


# ---- networks --------------------------------------------------------------------------------------------------------


def network(data: ImageData, blocks: tuple[tuple[int, ...], ...], hidden: tuple[int, ...], weights: int) -> nn.Module:
    """A convolutional network for these images, its weights drawn from a seed."""
    channels, size, _ = data.shape
    generator = torch.Generator().manual_seed(weights)
    return convolutional(channels, size, blocks, hidden, len(data.classes), generator=generator)


def train(
    data: ImageData,
    blocks: tuple[tuple[int, ...], ...],
    hidden: tuple[int, ...],
    epochs: int,
    *,
    weights: int,
    order: int,
    labels: int | None,
) -> Run:
    """Train a network; `weights`, `order` and `labels` seed what they say, and without `labels` none is permuted."""
    x, y = data.train.x, data.train.y
    if labels is not None:
        y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(labels)).to(y.device)]
    steps = epochs * (len(y) // BATCH)
    held_out = (data.test.x, data.test.y)
    return fit(
        network(data, blocks, hidden, weights).to(x.device),
        (x, y),
        held_out,
        held_out,
        steps=steps,
        batch=BATCH,
        optimizer=partial(torch.optim.Adam, lr=RATE, fused=True),
        generator=torch.Generator().manual_seed(order),
        evaluate_every=steps,
    )


def networks(lab: Lab, config: Protocol, data: ImageData) -> dict[str, nn.Module]:
    """The networks of a seed, trained and not, on the device of the data."""
    learn, shape, found = lab.cached(train), (config.blocks, config.hidden), {}
    for name in ("first", "second", "memoriser"):
        weights, order = (lab.generator(f"{what} of {name}").initial_seed() for what in ("weights", "order"))
        labels = lab.generator("labels").initial_seed() if name == "memoriser" else None
        run = learn(data, *shape, config.epochs, weights=weights, order=order, labels=labels)
        found[name] = network(data, *shape, weights)
        found[name].load_state_dict(run.weights)
        lab.record(kind="network", network=name, accuracy=run.final_accuracy)
        if name != "memoriser":
            found[f"{name} at start"] = network(data, *shape, weights)
            found[f"{name} scrambled"] = random_features(found[name], generator=lab.generator(f"scrambled {name}"))
    return {name: model.to(lab.device) for name, model in found.items()}


Halves = tuple[dict[tuple[str, str], CrossMoments], dict[tuple[str, str], CrossMoments]]  # by layer and pair


def moments_of_pairs(
    lab: Lab, config: Protocol, models: Mapping[str, nn.Module], x: Tensor, part: str
) -> dict[tuple[str, str], CrossMoments]:
    """The joint moments of every pair of networks, by layer and pair, over one part of the images."""
    depth = sum(map(len, config.blocks))
    modules = {f"conv{n}": f"conv_relu{n}" for n in range(1, depth + 1)}
    modules |= {f"fc{n}": f"fc_relu{n}" for n in range(1, len(config.hidden) + 1)}
    drawn, orders = lab.generator(f"places {part}"), lab.generator(f"shuffled {part}")
    running = {(layer, pair): RunningCrossMoments(precision=torch.float64) for layer in modules for pair in PAIRS}
    asked = [f"{name}.{module}" for name in models for module in modules.values()]
    for found in stream_activations(models, x.split(250), asked):
        for layer, module in modules.items():
            places = some_places(found[f"first.{module}"], config.places, drawn)
            rows = {name: flatten_units(found[f"{name}.{module}"], places=places) for name in models}
            rows["second shuffled"] = shuffled(rows["second"], generator=orders)
            for pair, (first, second) in PAIRS.items():
                running[layer, pair].update(rows[first], rows[second])
    return {key: one.moments() for key, one in running.items()}


def some_places(activation: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Some of a layer's places in random order; a fully connected layer has one."""
    return torch.randperm(activation[0, 0].numel(), generator=generator)[:count]


# ---- measurements ----------------------------------------------------------------------------------------------------


@study.measure()
def pairs(lab: Lab, config: Protocol) -> None:
    """Two networks, a third on permuted labels, and all that is asked of their units."""
    data = images(config.data)
    sizes = {"train": config.train_images, "validation": config.statistics, "test": min(1_000, len(data.test))}
    data = data.subset(**sizes).to(lab.device)
    models, parts = networks(lab, config, data), data.validation.x.chunk(2)
    matched, scored = (moments_of_pairs(lab, config, models, x, f"part {n}") for n, x in enumerate(parts))
    record_matches(lab, (matched, scored))
    record_information(lab, config, models, parts[0], matched)
    record_stitches(lab, (matched, scored))
    record_clusters(lab, config, (matched, scored))


def record_matches(lab: Lab, halves: Halves) -> None:
    """One row a unit: its correlation with its partner and with the unit it correlates with most."""
    matched, scored = halves
    for (layer, pair), first in matched.items():
        chosen, second = match_units(first), scored[layer, pair]
        held_out, constant = chosen.on(second), sum(map(len, chosen.constant)) / (first.x.units + first.y.units)
        columns = {"score": held_out.score, "best": held_out.best, "in_sample": chosen.score, "gap": chosen.gap}
        table = pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})
        table["rank"] = table["score"].rank(ascending=False, method="first") / len(table)
        lab.record(table, kind="unit", layer=layer, pair=pair, constant=constant, cka=second.linear_cka())


def record_information(
    lab: Lab,
    config: Protocol,
    models: Mapping[str, nn.Module],
    x: Tensor,
    matched: Mapping[tuple[str, str], CrossMoments],
) -> None:
    """How many units of the trained pair have the same best partner by mutual information as by correlation."""
    names, layers = PAIRS["trained"], (1, 2, 3)
    asked = [f"{name}.conv_relu{n}" for name in names for n in layers]
    (found,) = stream_activations({name: models[name] for name in names}, [x[:500]], asked)
    for n in layers:
        first, second = (found[f"{name}.conv_relu{n}"] for name in names)
        places = some_places(first, config.places, lab.generator("places of information"))
        semi = match_units(matched[f"conv{n}", "trained"], method="semi-matching")
        information = mutual_information(flatten_units(first, places=places), flatten_units(second, places=places))
        agreement = (information[semi.units].argmax(1) == semi.partners).double().mean()
        lab.record(kind="information", layer=f"conv{n}", agreement=agreement)


def record_stitches(lab: Lab, halves: Halves) -> None:
    """The path of penalties in both directions, for the first two convolutions of the trained pair."""
    for layer in ("conv1", "conv2"):
        first, second = (half[layer, "trained"] for half in halves)
        paths = stitch_path(first, PENALTIES), stitch_path(first.T, PENALTIES)
        for penalty, one, other in zip(PENALTIES, *paths):
            active = torch.cat([one.n_active(ACTIVE), other.n_active(ACTIVE)]).double().mean()
            unexplained = torch.cat([one.fraction_unexplained(second), other.fraction_unexplained(second.T)]).mean()
            about = {"kind": "stitch", "layer": layer, "width": first.x.units}
            lab.record(**about, penalty=penalty, active=active, unexplained=unexplained)


def record_clusters(lab: Lab, config: Protocol, halves: Halves) -> None:
    """Clusters of the second convolution's units, and what rotating the units of one of them changes."""
    found = {}
    for pair in list(PAIRS)[:3]:
        moments = halves[0]["conv2", pair]
        found[pair] = unit_clusters(moments, config.clusters, generator=lab.generator("clusters"))
        chance = found[pair].mixing_null(draws=200, generator=lab.generator("chance")).mean()
        lab.record(kind="clusters", pair=pair, mixing=found[pair].mixing(), chance=chance)
        lab.save(f"clusters, {pair}", found[pair])

    largest = int(found["trained"].composition()[:, 0].argmax())
    members = found["trained"].members(largest)[0]
    first, second = (half["conv2", "trained"] for half in halves)
    unexplained, correlation = stitched_and_matched(first, second)
    draws = lab.generator("rotations")
    for number in range(config.rotations):
        turn = torch.eye(first.x.units, dtype=torch.float64)
        q, r = torch.linalg.qr(torch.randn(len(members), len(members), dtype=torch.float64, generator=draws))
        turn[members[:, None], members] = q * r.diagonal().sign()  # so that all rotations are equally likely
        after, lower = stitched_and_matched(first.mapped(turn), second.mapped(turn))
        change = ((after - unexplained).abs() / unexplained).max()
        lab.record(kind="rotation", number=number, turned=len(members), change=change, drop=correlation - lower)


def stitched_and_matched(matched: CrossMoments, scored: CrossMoments) -> tuple[Tensor, float]:
    """What least squares leaves unexplained of each unit, and the mean correlation of matched ones, held out."""
    unexplained = sparse_stitch(matched, 0).fraction_unexplained(scored)
    return unexplained, float(match_units(matched).on(scored).score.mean())


@study.measure(seeds=1)
def identities(lab: Lab, config: Protocol) -> None:
    """Matching and moments against brute force, fifty times."""
    draws = lab.generator("matrices")
    for n in range(50):
        x = (
            torch.randn(500, 12, dtype=torch.float64, generator=draws)
            @ torch.randn(12, 12, dtype=torch.float64, generator=draws)
        ).relu()
        order = torch.randperm(12, generator=draws)
        y = x[:, order] * (0.1 + torch.rand(12, dtype=torch.float64, generator=draws))
        match = match_units(CrossMoments.of(x, y))
        wrong = (order[match.partners] != match.units).sum()
        lab.record(check="permutation", n=n, error=wrong + (match.score - 1).abs().max())

        size = 2 + n % 6
        values = 2 * torch.rand(size, size, dtype=torch.float64, generator=draws) - 1
        rows = torch.arange(size)
        best = max(float(values[rows, list(columns)].sum()) for columns in itertools.permutations(range(size)))
        lab.record(check="assignment", n=n, error=abs(float(match_units(values).score.sum()) - best))

        cuts = torch.randint(1, 500, (4,), generator=draws).sort().values.tolist()
        parts = [Moments.of(part) for part in x.tensor_split(cuts) if len(part)]
        whole = parts[0]
        for part in parts[1:]:
            whole = whole.merge(part)
        centred = x - x.mean(0)
        lab.record(check="moments", n=n, error=(whole.covariance() - centred.T @ centred / len(x)).abs().max())


# ---- claims ----------------------------------------------------------------------------------------------------------


def of_units(e: Evidence[Protocol], layer: str, column: str = "score", pair: str = "trained") -> Quantity:
    """A column averaged over the units of a layer, one number a seed."""
    return e[pairs].at(kind="unit", layer=layer, pair=pair).per("seed").mean(column)


@study.claim(
    reported="conv1 aligns strongly",
    deviation=f"{SMALLER}; matched on one half of the images, scored on the other",
)
def some_units_are_shared(e: Evidence[Protocol]) -> Rule:
    """Matched units of conv1 correlate by more than 0.1 more than before training, and than shuffled samples do."""
    trained = e[pairs].at(kind="network", network=["first", "second"])
    above = {pair: mean(of_units(e, "conv1") - of_units(e, "conv1", pair=pair)) for pair in list(PAIRS)[3:]}
    return all_of(
        (above["before training"] > 0.1).named("above networks before training"),
        (above["samples in random order"] > 0.1).named("above shuffled samples"),
    ).also(
        **{"above weights in random order": above["weights in random order"]},
        **{f"correlation, {pair}": mean(of_units(e, "conv1", pair=pair)) for pair in PAIRS},
        **{"bias of scoring what was matched": mean(of_units(e, "conv1", "in_sample") - of_units(e, "conv1"))},
        **{"same partner by mutual information": mean(e[pairs].at(kind="information", layer="conv1")["agreement"])},
        **{f"share of constant units, {layer}": mean(of_units(e, layer, "constant")) for layer in ("conv1", "fc1")},
        **{"test accuracy": mean(trained.per("seed").mean("accuracy"))},
    )


@study.claim(reported="conv1 and conv5 best, middle layers worse", deviation=SMALLER)
def middle_layers_align_worse(e: Evidence[Protocol]) -> Rule:
    """Matched units of the first convolution correlate more than those of the second and third."""
    first, second, third = (of_units(e, f"conv{n}") for n in (1, 2, 3))
    return (
        (mean(first - (second + third) / 2) > 0)
        .named("correlation of conv1 above conv2 and conv3")
        .also(
            **{
                f"{layer}, {pair}": mean(of_units(e, layer, pair=pair))
                for layer in ("conv1", "conv2", "conv3", "fc1")
                for pair in ("trained", "before training", "weights in random order")
            }
        )
    )


@study.claim(
    reported="units are reused, more so after conv1 (figure)",
    deviation=f"{SMALLER}; filters of conv1 are 3x3 and grey, not 11x11 in colour",
)
def not_one_to_one(e: Evidence[Protocol]) -> Rule:
    """The best correlation exceeds the matched one by more in conv2 than in conv1, and is never below it."""
    gaps = {layer: of_units(e, layer, "gap") for layer in ("conv1", "conv2", "conv3")}
    least = exact(e[pairs].at(kind="unit").frame["gap"].min())
    return all_of(
        (mean(gaps["conv2"] - gaps["conv1"]) > 0).named("gap of conv2 above that of conv1"),
        (least >= 0).named("least gap of any unit"),
    ).also(**{f"gap of {layer}": mean(gap) for layer, gap in gaps.items()})


def few_units(rows: pd.DataFrame) -> pd.Series:
    """The row of the smallest penalty that leaves few active units; missing values where none does."""
    few = rows[rows["active"] <= FEW * rows["width"]].sort_values("penalty")
    return few.iloc[0] if len(few) else rows.iloc[0].where(rows.iloc[0].isna())


def rise(rows: pd.DataFrame) -> float:
    """By how much more is left unexplained with few units than without penalty, relatively."""
    free = rows.loc[rows["penalty"] == 0, "unexplained"].iloc[0]
    return float(few_units(rows)["unexplained"] / free - 1)


@study.claim(
    reported="of 96 units 14.4 at +1.3 %, 6.9 at +15.5 %",
    deviation=f"{SMALLER}; filters of conv1 are 3x3 and grey, not 11x11 in colour; the lasso is solved to its optimum",
)
def few_units_suffice(e: Evidence[Protocol]) -> Rule:
    """With at most a fifth of the units, those of conv1 are predicted at most 15 % worse than from all of them."""
    seeds = {layer: e[pairs].at(kind="stitch", layer=layer).per("seed") for layer in ("conv1", "conv2")}
    free = {layer: e[pairs].at(kind="stitch", layer=layer, penalty=0.0)["unexplained"] for layer in seeds}
    least = {layer: seed.apply(lambda rows: float(rows["unexplained"].min())) for layer, seed in seeds.items()}
    return (
        (mean(seeds["conv1"].apply(rise)) <= 0.15)
        .named("relative rise of the unexplained fraction")
        .also(
            **{"active units": mean(seeds["conv1"].apply(lambda rows: float(few_units(rows)["active"])))},
            **{"penalty": mean(seeds["conv1"].apply(lambda rows: float(few_units(rows)["penalty"])))},
            **{
                "unexplained of conv1 by few units": mean(
                    seeds["conv1"].apply(lambda r: float(few_units(r)["unexplained"]))
                )
            },
            **{"relative rise in conv2": mean(seeds["conv2"].apply(rise))},
            **{f"unexplained of {layer} without penalty": mean(value) for layer, value in free.items()},
            **{f"lowest over that, {layer}": mean(least[layer] / free[layer]) for layer in seeds},
        )
    )


@study.claim(
    reported="clusters hold units of both, in unequal numbers",
    deviation="judged against a network trained on permuted labels; no hierarchy of clusters",
)
def clusters_mix_networks(e: Evidence[Protocol]) -> Rule:
    """More clusters hold a fifth or more of either network's units when both were trained on the true labels."""
    true = e[pairs].at(kind="clusters", pair="trained")
    permuted = e[pairs].at(kind="clusters", pair=["one on permuted labels", "other on permuted labels"]).per("seed")
    return (
        (mean(true["mixing"] - permuted.mean("mixing")) > 0)
        .named("share of mixed clusters")
        .also(
            **{"mixed, trained": mean(true["mixing"])},
            **{"mixed, one on permuted labels": mean(permuted.mean("mixing"))},
            **{"mixed by chance, trained": mean(true["chance"])},
            **{"mixed by chance, one on permuted labels": mean(permuted.mean("chance"))},
        )
    )


@study.claim(reported="by construction")
def exact_recovery(e: Evidence[Protocol]) -> Rule:
    """Permuted units are found, the assignment is the best of all, merged moments are those of two passes."""
    errors = e[identities].frame.groupby("check")["error"].max()
    allowed = {
        "permutation": (1e-10, "units not found, and correlation off 1"),
        "assignment": (1e-12, "assignment below the best of all permutations"),
        "moments": (1e-10, "merged moments off those of two passes"),
    }
    return all_of(*((exact(errors[check]) <= most).named(what) for check, (most, what) in allowed.items()))


@study.claim(
    reported="shared subspaces, not shared bases", deviation="conv2; the cluster with most of the first's units"
)
def subspace_not_basis(e: Evidence[Protocol]) -> Rule:
    """Rotating one cluster's units leaves what least squares explains as it is and lowers the matched correlation."""
    rows = e[pairs].at(kind="rotation")
    return all_of(
        (exact(rows.frame["change"].max()) < 1e-6).named("largest relative change of the unexplained fraction"),
        (mean(rows.per("seed").mean("drop")) > 0).named("drop of the layer's matched correlation"),
    ).also(
        **{"units rotated": mean(rows.per("seed").mean("turned"))},
        **{"matched correlation before": mean(of_units(e, "conv2"))},
        **{"linear CKA, which no rotation changes": mean(of_units(e, "conv2", "cka"))},
    )


# ---- figures ---------------------------------------------------------------------------------------------------------


@study.figure
def units_by_rank(e: Evidence[Protocol], axes: Axes) -> None:
    """Held-out correlation of matched units from the best to the worst: trained pairs, and before training dotted."""
    for place, layer in enumerate(("conv1", "conv2", "conv3", "fc1")):
        for pair, style in {"trained": "-", "before training": ":", "samples in random order": "--"}.items():
            if pair == "samples in random order" and layer != "fc1":
                continue
            rows = e[pairs].at(kind="unit", layer=layer, pair=pair).frame
            tenths = rows.assign(tenth=(rows["rank"] * 20).map(math.ceil) / 20)
            label = {"trained": layer, "before training": None}.get(pair, "shuffled samples")
            colour = f"C{place}" if pair != "samples in random order" else "0.5"
            axes.plot(*Table(tenths).curve("tenth", "score"), style, color=colour, label=label)
    axes.plot([], [], ":", color="0.3", label="before training")
    axes.set(xlabel="share of units, best matched first", ylabel="correlation with the matched unit", ylim=(None, 1.02))
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


@study.figure
def clusters_of_two_networks(e: Evidence[Protocol], axes: Axes) -> None:
    """Units in each cluster of conv2, of the first network upwards and of the second downwards, in seed 0."""
    e.saved("pairs", "clusters, trained", seed=0).plot(axes, ("first network", "second network"))
    axes.set(xlabel="cluster, by size", ylabel="units of conv2")
    axes.legend(frameon=False)


@study.figure
def layers_and_nulls(e: Evidence[Protocol], axes: Axes) -> None:
    """Mean held-out correlation of matched units by layer: mean and range over seeds."""
    rows = Table(e[pairs].at(kind="unit").frame)
    layers = list(rows.frame["layer"].unique())
    for place, pair in enumerate(pair for pair in PAIRS if not pair.startswith("other")):
        means = rows.at(pair=pair).frame.groupby(["layer", "seed"])["score"].mean().unstack().loc[layers]
        at = [x + 0.06 * (place - 2) for x in range(len(layers))]
        axes.plot(at, means.mean(axis=1), "o", color=f"C{place}", label=pair)
        axes.vlines(at, means.min(axis=1), means.max(axis=1), color=f"C{place}", alpha=0.5)
    axes.set_xticks(range(len(layers)), layers)
    axes.set(xlabel="layer", ylabel="mean correlation of matched units, held out")
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))


@study.figure
def few_units_predict(e: Evidence[Protocol], axes: Axes) -> None:
    """What is left unexplained, over that without penalty, against the share of units used; the paper's as crosses."""
    for place, (layer, rows) in enumerate(e[pairs].at(kind="stitch").split("layer")):
        frame = rows.frame.groupby("penalty")[["active", "unexplained", "width"]].mean()
        relative, share = frame["unexplained"] / frame["unexplained"].iloc[0], frame["active"] / frame["width"]
        axes.plot(100 * share, relative, "o-", color=f"C{place}", markersize=4, label=layer)
    paper = {83.5: 0.1696, 14.4: 0.1719, 6.9: 0.1959, 4.1: 0.2348}
    axes.plot(
        [100 * n / 96 for n in paper],
        [loss / 0.1696 for loss in paper.values()],
        "x",
        color="0.3",
        label="paper, conv1",
    )
    axes.axvline(100 * FEW, color="0.7", linewidth=1)
    axes.axhline(1.15, color="0.7", linewidth=1)
    axes.set(
        xlabel="active units of the other network (%)", ylabel="unexplained, over that without penalty", ylim=(0.8, 3)
    )
    axes.legend(frameon=False)
