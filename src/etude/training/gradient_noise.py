"""Annealed Gaussian noise on the gradients of any PyTorch optimizer.

Before each step every entry of the gradient gets independent noise whose variance falls with the number of steps t:

    g_t <- g_t + N(0, sigma_t^2),    sigma_t^2 = eta / (1 + t)^gamma.

It is a remedy for training that does not start (a plateau, a bad initialisation), not a regulariser: with a good
initialisation it changes little. The random walk that the noise alone makes has the variance `accumulated_variance`,
which may be as large as that of the initial weights; `GradientNoise.signal_to_noise` says whether the gradient is
heard above it.

Source: Neelakantan, Vilnis, Le, Sutskever, Kaiser, Kurach and Martens, Adding Gradient Noise Improves Learning for
Very Deep Networks (arXiv 1511.06807), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from etude.training.schedules import PowerDecay, Schedule

__all__ = ["GradientNoise", "accumulated_variance"]


class GradientNoise:
    """Clip the gradient and add annealed Gaussian noise to it, before every step of an optimizer.

    One line beside the making of the optimizer; the training loop stays as it is::

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        noise = GradientNoise(optimizer, PowerDecay(0.01, 0.55), clip_norm=10)
        for x, y in batches:
            optimizer.zero_grad()
            loss_of(model(x), y).backward()
            optimizer.step()  # clips, adds noise, steps

    Noise comes once a step, however many backward passes were accumulated; after `torch.amp.GradScaler` has taken out
    its scale; inside a closure's evaluation where the step is given one. It is drawn on the gradients' device, in
    single precision for half-precision gradients, into a buffer of the parameters' size. With Lightning Fabric give
    the optimizer before or after ``fabric.setup``. Under ``DistributedDataParallel`` every process draws the same
    noise from the same seed, so the copies stay equal; processes that hold different parts of the parameters need
    different seeds.

    A parameter group may have a number ``"noise_scale"``, at least 0, that multiplies its standard deviation.

    Several networks trained as one, each parameter of shape (networks, ...) as `torch.func.stack_module_state` makes
    them, are treated apart if `seed` is a sequence: each is clipped by its own norm and gets the noise it would get
    alone with its seed, so that networks with equal seeds get equal normal numbers.

    Args:
        optimizer: any but LBFGS; one wrapped by Lightning Fabric or Accelerate will do.
        variance: sigma_t^2 as a function of the step 0, 1, 2, ..., finite and at least 0; for stacked networks also
            a sequence of them. The paper takes eta from {0.01, 0.3, 1}: 0.01 for SGD, more for Adam.
        clip_norm: scale the gradient down to this Euclidean norm before adding noise; None for no clipping. The paper
            calls clipping crucial: a large gradient would drown the noise.
        seed: of the noise; for stacked networks one for each.

    Attributes:
        step: how many steps have had noise: t of the next one. One that a fused optimizer itself skips, since a scaled
            gradient overflowed, counts: only the device knows of it.

    Raises:
        TypeError: LBFGS, or no optimizer at all; a variance that is no function.
        ValueError: a negative or infinite variance, norm or scale, or networks whose number does not fit.
        NotImplementedError: complex parameters; at a step, sparse gradients.
        RuntimeError: at a step, no parameter has a gradient.

    Source: section 3 of the paper; clipping before noise, section 4.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        variance: Schedule | Sequence[Schedule] = PowerDecay(0.01, 0.55),  # noqa: B008 (immutable)
        *,
        clip_norm: float | None = None,
        seed: int | Sequence[int] = 0,
    ) -> None:
        optimizer = getattr(optimizer, "optimizer", optimizer)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: a {type(optimizer).__name__} was given; give a torch.optim.Optimizer")
        if isinstance(optimizer, LBFGS):
            raise TypeError("optimizer: LBFGS evaluates the gradient several times a step, each time with other noise")
        if clip_norm is not None and not 0 < clip_norm < math.inf:
            raise ValueError(f"clip_norm={clip_norm!r}: give a positive number, or None")
        self._stacked = isinstance(seed, Sequence)
        self._seeds = tuple(seed) if isinstance(seed, Sequence) else (seed,)
        if not self._seeds:
            raise ValueError("seed: an empty sequence was given; give one seed for each network")
        for group in optimizer.param_groups:
            _check_scale(group)
            for parameter in group["params"]:
                self._check_parameter(parameter)
        several = isinstance(variance, Sequence)
        self._schedules = tuple(variance) if several else (variance,) * len(self._seeds)
        if len(self._schedules) != len(self._seeds) or (several and not self._stacked):
            given = f"{len(self._seeds)} seeds" if self._stacked else "a single seed"
            raise ValueError(f"variance: {len(self._schedules)} schedules with {given}; give as many of both, or one")
        for schedule in self._schedules:
            _check_schedule(schedule)
        self.step = 0
        self._optimizer, self._clip_norm = optimizer, clip_norm
        self._generators: dict[torch.device, list[torch.Generator]] = {}
        self._saved: list[Tensor] = []  # states of generators not needed yet
        self._key: tuple[Any, ...] = ()
        self._buffers: list[tuple[Tensor, list[int], list[Tensor]]] = []
        self._hook = optimizer.register_step_pre_hook(self._before_step)

    def remove(self) -> None:
        """Leave the optimizer as it was: later steps are without noise and clipping."""
        self._hook.remove()

    def state_dict(self) -> dict[str, Any]:
        """The step and the states of the generators; a run that loads them goes on bit by bit as one not interrupted.

        Returns:
            ``{"step": int, "generators": [uint8 tensor, ...]}``, devices in the order in which parameters name them,
            so that each process of a distributed run can load what one of them saved.
        """
        states = [generator.get_state() for row in self._generators.values() for generator in row]
        return {"step": self.step, "generators": states + [state.clone() for state in self._saved]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Args:
            state: from a `GradientNoise` with as many seeds, on devices of the same kinds.

        Raises:
            ValueError: a state of something else.
        """
        keys, count = {"step", "generators"}, len(self._seeds)
        if set(state) != keys or len(state["generators"]) % count:
            raise ValueError(f"state: give the state_dict() of a GradientNoise with {count} seed{'s'[: count - 1]}")
        if isinstance(state["step"], bool) or not isinstance(state["step"], int) or state["step"] < 0:
            raise ValueError(f"state: its step is {state['step']!r}; a whole number of at least 0 is accepted")
        self.step = state["step"]
        self._generators, self._saved = {}, [value.cpu().clone() for value in state["generators"]]

    @torch.no_grad()
    def signal_to_noise(self) -> list[Float[Tensor, "*networks"]]:
        """How loud each gradient is beside the noise of the next step: RMS(g) / sigma_t, after backward.

        Far below 1 on every step, training is a random walk of the weights; far above 1, the noise changes nothing.

        Returns:
            One number for each parameter that has a gradient, in the optimizer's order; for stacked networks of shape
            (networks,). Infinite where there is no noise. Nothing is fetched from the device.
        """
        networks, quotients = len(self._seeds), []
        levels = torch.tensor(self._deviations(), dtype=torch.float64)
        for parameter, scale in self._found(self._optimizer):
            rows = parameter.grad.reshape(networks, -1)
            quotient = rows.square().mean(1).sqrt() / (scale * levels).to(rows)
            quotients.append(quotient if self._stacked else quotient.squeeze(0))
        return quotients

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        positional = len(args) > 1  # the first one is the optimizer
        closure = args[1] if positional else kwargs.get("closure")
        if closure is None:
            self._perturb(optimizer)
            return None

        def evaluate() -> Any:
            loss = closure()
            self._perturb(optimizer)
            return loss

        return ((args[0], evaluate, *args[2:]), kwargs) if positional else (args, {**kwargs, "closure": evaluate})

    @torch.no_grad()
    def _perturb(self, optimizer: Optimizer) -> None:
        deviations, found = self._deviations(), self._found(optimizer)
        grads = [parameter.grad for parameter, _ in found]
        _unscale(optimizer, grads)
        if self._clip_norm is not None and self._stacked:
            _clip_apart(grads, self._clip_norm)
        elif self._clip_norm is not None:
            torch.nn.utils.clip_grad_norm_([parameter for parameter, _ in found], self._clip_norm)
        if any(deviations):
            self._add(grads, [scale for _, scale in found], deviations)
        self.step += 1

    def _deviations(self) -> list[float]:
        """sigma_t of each network."""
        return [math.sqrt(_variance(schedule, self.step)) for schedule in self._schedules]

    def _found(self, optimizer: Optimizer) -> list[tuple[Tensor, float]]:
        """The parameters that have a gradient, each with the factor of its noise."""
        found: list[tuple[Tensor, float]] = []
        for group in optimizer.param_groups:
            scale = _check_scale(group)
            found += [(parameter, scale) for parameter in group["params"] if parameter.grad is not None]
        if not found:
            raise RuntimeError("no parameter has a gradient: call backward() before the optimizer's step()")
        for parameter, _ in found:
            if (layout := parameter.grad.layout) is not torch.strided:
                raise NotImplementedError(f"noise on a gradient of layout {layout}: only dense ones are perturbed")
        return found

    def _add(self, grads: Sequence[Tensor], scales: Sequence[float], deviations: Sequence[float]) -> None:
        key = tuple((grad.shape, grad.device, grad.dtype) for grad in grads)
        if key != self._key:
            self._key, self._buffers = key, list(self._arranged(grads))
        for buffer, places, parts in self._buffers:
            for row, deviation, generator in zip(buffer, deviations, self._generators_on(buffer.device)):
                if deviation:
                    row.normal_(0, deviation, generator=generator)
                else:
                    row.zero_()
            for scale in {scales[place] for place in places} - {0.0}:
                some = [(grads[place], part) for place, part in zip(places, parts) if scales[place] == scale]
                torch._foreach_add_(*map(list, zip(*some)), alpha=scale)

    def _arranged(self, grads: Sequence[Tensor]) -> Iterable[tuple[Tensor, list[int], list[Tensor]]]:
        """One buffer a device and type, a row a network, with its parts in the gradients' shapes: one draw fills it."""
        places: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for place, grad in enumerate(grads):
            dtype = torch.float64 if grad.dtype == torch.float64 else torch.float32
            places.setdefault((grad.device, dtype), []).append(place)
        rows = len(self._seeds)
        for (device, dtype), members in places.items():
            sizes = [grads[place].numel() // rows for place in members]
            buffer = torch.empty(rows, sum(sizes), device=device, dtype=dtype)
            parts = buffer.split(sizes, dim=1)
            yield buffer, members, [part.view(grads[place].shape) for part, place in zip(parts, members)]

    def _generators_on(self, device: torch.device) -> list[torch.Generator]:
        if device not in self._generators:
            # by order of appearance, not by the device's number: each process of a distributed run has another number
            shift = 0x9E3779B9 * len(self._generators)
            row = [torch.Generator(device).manual_seed((seed + shift) % 2**63) for seed in self._seeds]
            for generator, state in zip(row, self._saved):
                generator.set_state(state)
            del self._saved[: len(row)]
            self._generators[device] = row
        return self._generators[device]

    def _check_parameter(self, parameter: Tensor) -> None:
        if parameter.is_complex():
            raise NotImplementedError("noise on complex parameters: only real ones are perturbed")
        if self._stacked and (parameter.dim() == 0 or len(parameter) != len(self._seeds)):
            raise ValueError(
                f"seed: {len(self._seeds)} networks, but a parameter has the shape {tuple(parameter.shape)}; "
                "give one number, or stack all parameters along their first dimension"
            )


def accumulated_variance(
    variance: Schedule, steps: int, learning_rate: float | Sequence[float] | Float[Tensor, " steps"]
) -> float:
    """Variance of the random walk that the noise alone makes under gradient descent: sum_t lr_t^2 sigma_t^2.

    For a power decay it is ``eta lr^2 (zeta(gamma) - zeta(gamma, steps + 1))``; like eta / (1 - gamma) steps^(1 -
    gamma) it grows without end for gamma < 1. Beside the variance of the initial weights it says whether the noise
    explores around them or replaces them.

    Args:
        variance: sigma_t^2 as a function of the step.
        steps: how many, at least 0.
        learning_rate: one number, or one for each step.

    Returns:
        The variance of a weight's displacement.

    Raises:
        ValueError: a negative or infinite number, or not as many learning rates as steps.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps={steps!r}: give a whole number of at least 0")
    rates = [learning_rate] * steps if isinstance(learning_rate, (int, float)) else [float(r) for r in learning_rate]
    if len(rates) != steps:
        raise ValueError(f"learning_rate: {len(rates)} were given for {steps} steps")
    if not all(math.isfinite(rate) for rate in rates):
        raise ValueError("learning_rate: give finite numbers")
    return math.fsum(rate**2 * _variance(variance, step) for step, rate in enumerate(rates))


def _variance(schedule: Schedule, step: int) -> float:
    value = float(schedule(step))
    if not 0 <= value < math.inf:
        raise ValueError(f"variance: {value} at step {step}; give a schedule of finite numbers of at least 0")
    return value


def _check_schedule(schedule: Callable[[int], float]) -> None:
    if not callable(schedule):
        raise TypeError(
            f"variance: a {type(schedule).__name__} was given; give a function of the step, such as PowerDecay(0.01, "
            "0.55) or Constant(0.01)"
        )
    _variance(schedule, 0)
    with suppress(LookupError):  # a table may end, but what a formula comes to is refused before the training
        for power in range(10):
            _variance(schedule, 10**power)


def _check_scale(group: Mapping[str, Any]) -> float:
    scale = group.get("noise_scale", 1.0)
    if not 0 <= scale < math.inf:
        raise ValueError(f"noise_scale={scale!r} in a parameter group: give a finite number of at least 0")
    return float(scale)


def _unscale(optimizer: Optimizer, grads: list[Tensor]) -> None:
    """Take out a gradient scaler's factor now, where a fused optimizer would do so in its step."""
    factor = getattr(optimizer, "grad_scale", None)
    if factor is None:
        return
    inverse = factor.double().reciprocal().float()  # as the scaler itself computes it
    for grad in grads:
        grad.mul_(inverse.to(grad.device))
    optimizer.grad_scale = None  # type: ignore[attr-defined]


def _clip_apart(grads: list[Tensor], clip_norm: float) -> None:
    """Scale the gradient of each stacked network down to a norm, as `torch.nn.utils.clip_grad_norm_` does for one."""
    home = grads[0].device
    norms = torch.stack([torch.linalg.vector_norm(grad.reshape(len(grad), -1), dim=1).to(home) for grad in grads])
    factors = (clip_norm / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1)
    torch._foreach_mul_(grads, [factors.to(grad).view(-1, *[1] * (grad.dim() - 1)) for grad in grads])
