"""A step with noise on a million parameters: beside the bare step, noise drawn tensor by tensor, and optax.

Drawing a normal number costs a processor more than a step of gradient descent does, so the ratio to a bare step of the
optimizer alone cannot be near 1 there; what a user waits for is the whole step, with the gradient of her batch.
`pip install optax` for the last row.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.measuring import Row, installed, medians
from etude.training import GradientNoise, PowerDecay

VARIANCE = PowerDecay(0.01, 0.55)
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": partial(torch.optim.SGD, lr=1e-6, foreach=True),
    "Adam": partial(torch.optim.Adam, lr=1e-6, fused=True),
}


def network() -> nn.Sequential:
    """About a million parameters in 18 tensors."""
    widths = [784, *[376] * 5, 256, 256, 128, 10]
    layers = [layer for sizes in pairwise(widths) for layer in (nn.Linear(*sizes), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def add_by_tensor(optimizer: torch.optim.Optimizer) -> None:
    """The loop that people write."""
    step = 0

    def add(*_: object) -> None:
        nonlocal step
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad += torch.randn_like(parameter.grad) * math.sqrt(VARIANCE(step))
        step += 1

    optimizer.register_step_pre_hook(add)


PREPARE: dict[str, Callable[[torch.optim.Optimizer], object]] = {
    "with": lambda optimizer: GradientNoise(optimizer, VARIANCE),
    "by tensor": add_by_tensor,
    "without": lambda optimizer: None,
}


def by_optax(model: nn.Module, count: int) -> Callable[[], None]:
    """optax's descent with the same noise, compiled, on one thread like the others."""
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax
    import optax

    weights = [jax.numpy.asarray(parameter.detach().numpy()) for parameter in model.parameters()]
    gradients = [jax.numpy.ones_like(value) for value in weights]
    rule = optax.noisy_sgd(1e-6, eta=0.01, gamma=0.55)

    @jax.jit
    def step(weights: Any, state: Any) -> Any:
        updates, state = rule.update(gradients, state)
        return optax.apply_updates(weights, updates), state

    start = rule.init(weights)

    def go() -> None:
        now, state = weights, start
        for _ in range(count):
            now, state = step(now, state)
        jax.block_until_ready(now)

    return go


def run(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    count, repetitions, batch = (2, 3, 64) if quick else (10, 15, 512)
    torch.manual_seed(0)
    model = network()
    x, y = torch.rand(batch, 784), torch.randint(10, (batch,))

    def backward() -> None:
        model.zero_grad()
        cross_entropy(model(x), y).backward()

    def repeated(step: Callable[[], object], gradient: Callable[[], None] | None = None) -> Callable[[], None]:
        def go() -> None:
            for _ in range(count):
                if gradient is not None:
                    gradient()
                step()

        return go

    def per_step(sides: dict[str, Callable[[], None]]) -> dict[str, float]:
        return {side: seconds / count for side, seconds in medians(sides, repetitions).items()}

    backward()
    rows = []
    for name, make in OPTIMIZERS.items():
        optimizers = {kind: make(model.parameters()) for kind in PREPARE}
        for kind, optimizer in optimizers.items():
            PREPARE[kind](optimizer)
        alone = per_step({kind: repeated(optimizer.step) for kind, optimizer in optimizers.items()})
        whole = per_step({kind: repeated(optimizers[kind].step, backward) for kind in ("with", "without")})
        rows += [
            Row(f"{name}'s step with noise / without, 1M parameters", alone["with"], alone["without"], aim="< 1.1"),
            Row(f"{name}'s step with noise / with noise by tensor", alone["with"], alone["by tensor"], aim="< 1"),
            Row(
                f"training step, batch {batch}, {name} with noise / without",
                whole["with"],
                whole["without"],
                aim="< 1.1",
            ),
        ]
    optimizer = OPTIMIZERS["SGD"](model.parameters())
    PREPARE["with"](optimizer)
    drawn = torch.empty(sum(parameter.numel() for parameter in model.parameters()))
    sides = {"ours": repeated(optimizer.step), "draw": repeated(drawn.normal_)}
    if installed("optax"):
        sides["optax"] = by_optax(model, count)
    seconds = per_step(sides)
    rows.append(Row("SGD's step with noise / drawing its numbers and nothing else", seconds["ours"], seconds["draw"]))
    if "optax" in seconds:
        rows.append(Row("SGD's step with noise / optax.noisy_sgd", seconds["ours"], seconds["optax"], aim="< 1"))
    return rows
