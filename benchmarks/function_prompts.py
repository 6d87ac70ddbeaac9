"""Prompts of function classes beside the paper's own generators, learners beside scikit-learn's, stacked seeds."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import ModuleType

import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import softplus

from benchmarks.measuring import Row, medians
from etude.data.locate import Source, listing, locate
from etude.errors import MissingData
from etude.in_context import (
    DNF,
    Conjunctions,
    Disjunctions,
    FunctionClass,
    NearestNeighbour,
    NearestNeighbourRule,
    PromptModel,
)
from etude.nn import Transformer

OFFICIAL = Source(
    "incontext-bool",
    listing("5bda5cdb00bce9ad7710faa643d822c99eb09ba20a5de1a26d9da3788269ca60 29936 bool_tasks.py"),
    "https://raw.githubusercontent.com/satwik77/incontext-bool/a25a2cb0c62ad541cd30b0672df136230d878d9c/src/",
)
BATCH, BITS, POINTS = 64, 28, 40  # the official defaults


def official() -> ModuleType | None:
    """The paper's generators, where they are at hand or can be fetched."""
    try:
        path = locate(OFFICIAL).paths["bool_tasks.py"]
    except MissingData as missing:
        print(f"beside no peer: {missing}")
        return None
    spec = importlib.util.spec_from_file_location("bool_tasks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    repetitions = 2 if quick else 9
    return [*generators(repetitions), *learners(repetitions), *stacked(repetitions)]


def generators(repetitions: int) -> list[Row]:
    theirs, generator, rows = official(), torch.Generator().manual_seed(0), []
    classes: dict[str, tuple[FunctionClass, dict[str, float], dict[str, int]]] = {
        "Conjunction": (Conjunctions(BITS), {}, {}),
        "Disjunction": (Disjunctions(BITS), {}, {}),
        "DNF": (DNF(BITS), {}, {}),
        "TeachBiConjunction": (Conjunctions(BITS, forced=0.4), {"taught": 1.0}, {}),
        "NearestNeighbours": (NearestNeighbourRule(BITS, free=20), {}, {"start_idx": 20}),
    }
    for name, (task, options, theirs_options) in classes.items():

        def ours(task: FunctionClass = task, options: dict[str, float] = options) -> None:
            for _ in range(10):
                task.prompts(BATCH, POINTS, generator, **options)

        def peer(name: str = name, options: dict[str, int] = theirs_options) -> None:
            drawn = getattr(theirs, name)(BITS, BATCH, **options)
            drawn.evaluate(drawn.sample_xs(POINTS, BATCH))

        seconds = medians({"ours": ours} if theirs is None else {"ours": ours, "peer": peer}, repetitions)
        label = f"{BATCH} prompts, {name}, times faster than the paper's generator"
        if theirs is None:
            rows.append(Row(f"{label} (not at hand)", seconds["ours"] / 10, None))
        else:
            rows.append(Row(label, seconds["ours"] / 10, seconds["peer"], aim=">= 10x", inverse=True))
    return rows


def learners(repetitions: int) -> list[Row]:
    prompts = Conjunctions(BITS).prompts(8, POINTS, torch.Generator().manual_seed(0))

    def scikit() -> None:
        for x, y in zip(prompts.x.numpy(), prompts.y.numpy()):
            for k in range(1, POINTS):
                KNeighborsClassifier(min(3, k), metric="cosine").fit(x[:k], y[:k]).predict(x[k : k + 1])

    seconds = medians({"ours": lambda: NearestNeighbour(3)(prompts.x, prompts.y), "scikit-learn": scikit}, repetitions)
    label = "three neighbours at every point of 8 prompts, times faster than scikit-learn prompt by prompt"
    return [Row(label, seconds["ours"], seconds["scikit-learn"], aim=">= 10x", inverse=True)]


def stacked(repetitions: int) -> list[Row]:
    """A training step of five seeds of the study's transformer, at once and one after another."""
    generator, task, points = torch.Generator().manual_seed(0), Conjunctions(6), 20
    models = [
        PromptModel(Transformer(32, 2, 2, context=2 * points - 1, generator=generator), 6, 32, generator=generator)
        for _ in range(5)
    ]
    batches = [task.prompts(64, points, generator) for _ in models]
    parameters, _ = stack_module_state(models)
    x, y = torch.stack([b.x for b in batches]), torch.stack([b.y for b in batches])

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return softplus(-y * functional_call(models[0], weights, (x, y))).mean()

    gradients: Callable[..., dict[str, Tensor]] = vmap(grad(loss))

    def at_once() -> None:
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention of processors cannot be stacked
            gradients(parameters, x, y)

    def one_by_one() -> None:
        for model, batch in zip(models, batches):
            model.zero_grad()
            softplus(-batch.y * model(batch.x, batch.y)).mean().backward()

    sides = {"stacked": at_once, "single": one_by_one}
    seconds = medians(sides, repetitions)
    return [Row("gradients of five seeds, stacked / one by one", seconds["stacked"], seconds["single"])]
