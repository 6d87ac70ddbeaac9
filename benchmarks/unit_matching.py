"""Matching units: moments beside one matrix product, assignment, transport and lasso beside the packages for them."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measuring import Row, alone, installed, medians
from etude.interpretability import (
    CrossMoments,
    RunningCrossMoments,
    match_units,
    soft_match_units,
    sparse_stitch,
    unit_cross_moments,
)

ROWS = 4_096  # rows of a batch


def run(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    return [
        *correlation(512 if quick else 4_096, 2 if quick else 12),
        *memory(256 if quick else 2_048),
        *assignment([32] if quick else [96, 256], [64] if quick else [1_024, 4_096]),
        *transport((16, 24) if quick else (256, 384)),
        *lasso(2_000 if quick else 50_000, 16 if quick else 64, 3),
        *permuted_copy(32 if quick else 512),
    ]


def batch(units: int, seed: int, rows: int = ROWS) -> Tensor:
    """Rectified units in single precision."""
    return torch.randn(rows, units, generator=torch.Generator().manual_seed(seed)).relu()


def correlation(units: int, batches: int) -> list[Row]:
    """All correlations between two layers, of about 50,000 samples, beside X'Y of the same batches in the same type.

    The sides take turns batch by batch, and processor time is counted: a pass takes long enough for a busy machine to
    favour one of them.
    """
    x, y = batch(units, 0), batch(units, 1)
    name = f"correlation of 2 x {units:,} units, {batches * ROWS:,} samples"
    results, rows = [], []
    for dtype, words in {torch.float32: "in single, summed in double", torch.float64: "in double"}.items():
        running = RunningCrossMoments(within=False, precision=dtype)
        total, seconds = torch.zeros(units, units, dtype=dtype), {"ours": 0.0, "product": 0.0}
        x_there, y_there = x.to(dtype), y.to(dtype)
        for _ in range(batches):
            start = time.process_time()
            total.addmm_(x_there.T, y_there)
            middle = time.process_time()
            running.update(x, y)
            seconds["product"] += middle - start
            seconds["ours"] += time.process_time() - middle
        start = time.process_time()
        results.append(running.moments().correlation())
        seconds["ours"] += time.process_time() - start
        rows.append(Row(f"{name}: {words} / one product X'Y", seconds["ours"], seconds["product"], aim="< 1.5"))
    error = float((results[0] - results[1]).abs().max())
    return [*rows, Row(f"{name}: largest error in single", error, None, unit="", aim="< 0.00001")]


def peak(units: int, batches: int) -> float:
    """Correlate two layers in this process, each batch made anew."""
    torch.set_num_threads(1)
    running = RunningCrossMoments(within=False)
    for number in range(batches):
        running.update(batch(units, 2 * number, 1_000), batch(units, 2 * number + 1, 1_000))
    return float(running.moments().correlation().abs().max())


def memory(units: int) -> list[Row]:
    """Peak memory against the number of samples."""
    few, many = (alone("benchmarks.unit_matching:peak", units, batches) for batches in (6, 48))
    name = f"correlation of 2 x {units:,} units: memory at 48,000 / at 6,000 samples"
    return [Row(name, many.megabytes, few.megabytes, unit="MB", aim="< 1.1")]


def assignment(both: list[int], alone_sizes: list[int]) -> list[Row]:
    """The Hungarian method of scipy beside the blossom method of networkx, which the paper's code calls."""
    rows = []
    for n in [*both, *alone_sizes]:
        values = torch.rand(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        seconds = medians({"ours": partial(match_units, values)}, 3 if n < 4_096 else 1, warm=False)["ours"]
        peer = None
        if n in both and installed("networkx"):
            peer, best = by_networkx(values)
            assert abs(best - float(match_units(values).score.sum())) < 1e-6 * n
        name = f"matching of {n:,} units"
        if peer is None:
            rows.append(Row(name, seconds, None))
        else:
            rows.append(Row(f"{name}: speed-up over networkx", seconds, peer, inverse=True, aim=">= 100x"))
    return rows


def by_networkx(values: Tensor) -> tuple[float, float]:
    """Seconds of the matching and its sum."""
    import networkx

    graph, table = networkx.Graph(), values.tolist()
    graph.add_weighted_edges_from((i, -1 - j, w) for i, row in enumerate(table) for j, w in enumerate(row))
    start = time.perf_counter()
    pairs = networkx.max_weight_matching(graph, maxcardinality=True)
    seconds = time.perf_counter() - start
    return seconds, sum(table[max(pair)][-1 - min(pair)] for pair in pairs)


def transport(shape: tuple[int, int]) -> list[Row]:
    """Soft matching of layers of different widths by scipy's linear programs, beside POT's network simplex."""
    if not installed("ot"):
        return []
    import ot

    values = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights, costs = [np.full(n, 1 / n) for n in shape], 1 - values.numpy()
    score = float((ot.emd(*weights, costs) * values.numpy()).sum())
    assert abs(score - soft_match_units(values).score) < 1e-8
    sides = {"ours": partial(soft_match_units, values), "peer": partial(ot.emd, *weights, costs)}
    seconds = medians(sides, 3, warm=False)
    return [Row(f"soft matching of {shape[0]} with {shape[1]} units / POT", seconds["ours"], seconds["peer"])]


def lasso(samples: int, units: int, repetitions: int) -> list[Row]:
    """All units of a layer from a few of another: from moments, the pass over the data included, and from raw data."""
    from sklearn.linear_model import Lasso

    draws, penalty = torch.Generator().manual_seed(0), 0.05
    mix = torch.randn(units, units, generator=draws) / units**0.5
    x = (torch.randn(samples, units, generator=draws) @ mix).relu()
    y = (
        x @ torch.randn(units, units, generator=draws) / units**0.5 + torch.randn(samples, units, generator=draws)
    ).relu()
    scaled, target = (((side - side.mean(0)) / side.std(0, correction=0)).double().numpy() for side in (x, y))

    def ours() -> Tensor:
        return sparse_stitch(CrossMoments.of(x, y), penalty).weights

    def peer(precompute: bool) -> np.ndarray:
        return Lasso(penalty, precompute=precompute, tol=1e-7, fit_intercept=False).fit(scaled, target).coef_

    assert np.abs(ours().numpy().T - peer(False)).max() < 1e-3
    moments = CrossMoments.of(x, y)
    sides: dict[str, Callable[[], object]] = {
        "ours": ours,
        "solved": partial(sparse_stitch, moments, penalty),
        "raw": partial(peer, False),
        "gram": partial(peer, True),
    }
    seconds = medians(sides, repetitions, warm=False)
    name = f"lasso of {units} units from {units}, {samples:,} samples"
    return [
        Row(f"{name}, moments included: speed-up over scikit-learn", seconds["ours"], seconds["raw"], inverse=True,
            aim=">= 1x"),
        Row(f"{name}, moments included: speed-up over its precompute=True", seconds["ours"], seconds["gram"],
            inverse=True),
        Row(f"{name}, moments at hand: speed-up over scikit-learn", seconds["solved"], seconds["raw"], inverse=True),
    ]  # fmt: skip


def permuted_copy(width: int) -> list[Row]:
    """The hidden units of a permuted copy of a network: by their activations, and by weights (Git Re-Basin)."""
    if not installed("rebasin"):
        return []
    from rebasin import PermutationCoordinateDescent

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    order, copied = torch.randperm(width), copy.deepcopy(model)
    with torch.no_grad():
        copied[0].weight.copy_(model[0].weight[order])
        copied[0].bias.copy_(model[0].bias[order])
        copied[2].weight.copy_(model[2].weight[:, order])
    images = torch.randn(2_000, 64)

    def ours() -> float:
        match = match_units(unit_cross_moments(model, "1", copied, "1", images.split(500), within=False))
        return float((order[match.partners] == match.units).double().mean())

    def peer() -> float:
        other = copy.deepcopy(copied)
        PermutationCoordinateDescent(model, other, images[:1]).rebasin()
        return float((other[0].weight == model[0].weight).all(1).double().mean())

    found = ours(), peer()
    seconds = medians({"ours": lambda: [ours()], "peer": lambda: [peer()]}, 3, warm=False)
    return [
        Row(f"units of a permuted copy found, width {width} / rebasin", *found, unit="of 1"),
        Row(f"seconds for that, width {width} / rebasin", seconds["ours"], seconds["peer"]),
    ]
