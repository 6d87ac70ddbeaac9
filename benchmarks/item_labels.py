"""Item-label sequences beside a generator that loops over them, and seeds trained one by one beside stacked ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from benchmarks.measuring import Row, medians
from etude.in_context import (
    AttentionOnlyClassifier,
    GaussianItems,
    ItemLabelTask,
    MinimalInductionHead,
    encode,
    interleave,
)

PAIRS, DIM, POSITIONS, LABELS, BATCH, SEEDS = 8, 63, 65, 32, 128, 5
DATA = {
    "new classes": {"shots": 1, "p_novel": 1.0},
    "2,048 classes, 2 shots": {"shots": 2},
    "half bursty, half new": {"shots": 2, "p_bursty": 0.5, "p_novel": 0.5},
}


def looped(task: ItemLabelTask, vectors: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
    """Tokens of n sequences in numpy, drawing each sequence's classes and places in a Python loop."""
    ways, tokens, noise = PAIRS // task.shots, 2 * PAIRS + 1, task.items.noise
    means = task.items.means.numpy()
    encoded = np.zeros((n, tokens, POSITIONS + DIM), dtype=np.float32)
    bursty, novel = generator.random(n) < task.p_bursty, generator.random(n) < task.p_novel
    for sequence in range(n):
        of = means
        if bursty[sequence] or novel[sequence]:
            labels = generator.choice(LABELS, ways, replace=False)
            classes = generator.integers(len(means) // LABELS, size=ways) * LABELS + labels
            slots = generator.permutation(np.repeat(np.arange(ways), task.shots))
            slots = np.append(slots, generator.integers(ways))
            if novel[sequence]:
                of, classes = generator.normal(size=(ways, DIM)) / math.sqrt(DIM), np.arange(ways)
        else:
            classes, slots = generator.integers(len(means), size=PAIRS + 1), np.arange(PAIRS + 1)
            labels = classes % LABELS
        items = of[classes[slots]] + noise * generator.normal(size=(PAIRS + 1, DIM)) / math.sqrt(DIM)
        encoded[sequence, 0::2, POSITIONS:] = items / math.sqrt(1 + noise**2)
        encoded[sequence, 1::2, POSITIONS:] = vectors[labels[slots[:-1]]]
        start = generator.integers(POSITIONS - tokens + 1)
        encoded[sequence, np.arange(tokens), start + np.arange(tokens)] = 1
    return encoded


def one_by_one(models: list[nn.Module], tokens: Tensor, targets: Tensor) -> Callable[[], None]:
    descents = [torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True) for model in models]

    def step() -> None:
        for model, descent, x, y in zip(models, descents, tokens, targets):
            descent.zero_grad()
            cross_entropy(model(x), y).backward()
            descent.step()

    return step


def stacked(models: list[nn.Module], tokens: Tensor, targets: Tensor) -> Callable[[], None]:
    parameters, buffers = stack_module_state(models)  # type: ignore[arg-type]
    descent = torch.optim.AdamW(parameters.values(), lr=1e-3, fused=True)

    def loss(own: dict[str, Tensor], rest: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(functional_call(models[0], (own, rest), (x,)), y)

    gradient = vmap(grad(loss))

    def step() -> None:
        found = gradient({name: p.detach() for name, p in parameters.items()}, buffers, tokens, targets)
        for name, parameter in parameters.items():
            parameter.grad = found[name]
        descent.step()

    return step


def run(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    repetitions, batches = (3, 2) if quick else (9, 20)
    generator, numpy_generator = torch.Generator().manual_seed(0), np.random.default_rng(0)
    vectors = torch.randn(LABELS, DIM, generator=generator) / math.sqrt(DIM)
    rows = []
    for name, options in DATA.items():
        items = GaussianItems(2048, DIM, generator=generator)
        task = ItemLabelTask(items, LABELS, pairs=PAIRS, **options)

        def ours(task: ItemLabelTask = task) -> None:
            for _ in range(batches):
                encode(task.train(BATCH, generator), vectors, positions=POSITIONS, generator=generator)

        def loop(task: ItemLabelTask = task) -> None:
            for _ in range(batches):
                looped(task, vectors.numpy(), BATCH, numpy_generator)

        seconds = medians({"ours": ours, "loop": loop}, repetitions)
        rates = {side: batches * BATCH / value for side, value in seconds.items()}
        rows.append(Row(f"sequences, {name}", rates["ours"], None, "a second", aim=">= 50000"))
        rows.append(Row(f"sequences, {name} / looped over in numpy", rates["ours"], rates["loop"], "a second"))

    batch = task.train(SEEDS * BATCH, generator)
    targets = batch.target.view(SEEDS, BATCH)
    kinds: dict[str, tuple[Tensor, Callable[[], nn.Module]]] = {
        "two layers of attention": (
            encode(batch, vectors, positions=POSITIONS, generator=generator),
            lambda: AttentionOnlyClassifier(DIM, positions=POSITIONS, labels=LABELS, generator=generator),
        ),
        "an induction head of three numbers": (
            interleave(batch.items, vectors[batch.labels]),
            lambda: MinimalInductionHead(DIM, labels=LABELS, generator=generator),
        ),
    }
    for name, (tokens, build) in kinds.items():
        tokens = tokens.view(SEEDS, BATCH, *tokens.shape[1:])
        sides = {
            side: step([build() for _ in range(SEEDS)], tokens, targets)
            for side, step in {"one by one": one_by_one, "stacked": stacked}.items()
        }
        seconds = medians(sides, repetitions * (1 if quick else 2))
        rows.append(Row(f"step of {SEEDS} seeds of {name}, one by one / stacked", seconds["one by one"],
                        seconds["stacked"]))  # fmt: skip
    return rows
