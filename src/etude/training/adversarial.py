"""Adversarial training: examples changed, within a small ball, to raise the loss.

Source: Madry, Makelov, Schmidt, Tsipras and Vladu, Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR
2018 (arXiv 1706.06083).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from etude.nn.activations import unwrap

__all__ = ["ProjectedGradient"]


class ProjectedGradient:
    """Projected gradient ascent on the loss: the attack, and with it adversarial training, in any loop.

    ::

        attack = ProjectedGradient("l2", radius=2.0)    # 1

        for x, y in batches:                            # your own loop, optimizer, Fabric or DDP
            x = attack(model, x, y)                     # 2
            loss = loss_fn(model(x), y)
            ...

    From x, or a random point of the ball around it, it takes steps in the direction that raises the loss the most for
    the norm, and projects onto the ball and the bounds after each:

        l2:    x' <- P[x' + step_size g / |g|_2]
        linf:  x' <- P[x' + step_size sign(g)]          with g = dL(f(x'), y) / dx'

    Norms are those of one example, over all its numbers, in the units of the data. Clipping to the bounds brings no
    coordinate farther from x, so the result lies in the ball and the bounds both.

    The model is run in evaluation mode, which is undone afterwards: batch statistics do not see the attack's steps and
    there is no dropout in them. Its parameters receive no gradients. With a radius of 0 it returns x as it is.

    Args:
        norm: ``"l2"`` or ``"linf"``.
        radius: of the ball, at least 0.
        steps: how many, at least 1.
        step_size: of each, in the units of the data, positive; by default ``2.5 * radius / steps``.
        random_start: begin at a point drawn uniformly from the ball rather than at x.
        bounds: the least and greatest number an input may have, (0, 1) for images as they are; None for no bounds.
        generator: where random starts are drawn; torch's own by default.

    Raises:
        ValueError: an argument out of its range.

    Source: section 2.1 of the paper; for l2 the normalised step of its appendix.
    """

    def __init__(
        self,
        norm: Literal["l2", "linf"] = "l2",
        *,
        radius: float,
        steps: int = 7,
        step_size: float | None = None,
        random_start: bool = True,
        bounds: tuple[float, float] | None = (0.0, 1.0),
        generator: torch.Generator | None = None,
    ) -> None:
        if norm not in ("l2", "linf"):
            raise ValueError(f"norm={norm!r}: give 'l2' or 'linf'")
        if not (math.isfinite(radius) and radius >= 0):
            raise ValueError(f"radius={radius!r}: give a number of at least 0")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps={steps!r}: give a whole number of at least 1")
        if step_size is not None and not (math.isfinite(step_size) and step_size > 0):
            raise ValueError(f"step_size={step_size!r}: give a positive number, or None for 2.5 radius / steps")
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError(f"bounds={bounds!r}: give two numbers, the smaller one first, or None")
        self.norm, self.radius, self.steps = norm, float(radius), steps
        self.step_size = 2.5 * self.radius / steps if step_size is None else float(step_size)
        self.random_start, self.bounds, self.generator = random_start, bounds, generator
        self._examined = False

    def __repr__(self) -> str:
        start = "random start" if self.random_start else "start at x"
        return f"ProjectedGradient({self.norm}, radius {self.radius:g}, {self.steps} of {self.step_size:g}, {start})"

    def __call__(
        self,
        model: Callable[[Tensor], Any],
        x: Float[Tensor, "n ..."],
        y: Shaped[Tensor, "n ..."] | Int[Tensor, " n"],
        loss: Callable[[Any, Tensor], Tensor] = cross_entropy,
    ) -> Float[Tensor, "n ..."]:
        """Adversarial examples for a batch.

        Args:
            model: the network, wrapped (DistributedDataParallel, Fabric) or not, or any differentiable function of a
                batch that treats its examples one by one.
            x: inputs, within the bounds.
            y: what the loss compares the outputs with.
            loss: (outputs, y) -> a loss to be raised, of the batch or of each example. For linf only the signs of its
                gradient matter, for l2 only the directions, so a mean does as well as a sum.

        Returns:
            Inputs of the same shape and type, without graph, in the ball and the bounds.

        Raises:
            TypeError: `x` does not hold floating point numbers.
            ValueError: at the first call, numbers of `x` that are not finite or outside the bounds (later calls do not
                look, as that would make a GPU wait), or an output that does not depend on the input.
        """
        if not x.is_floating_point():
            raise TypeError(f"x: a tensor of {x.dtype} was given; floating point numbers are accepted")
        x = x.detach()
        if not self._examined:
            self._examine(x)
        if self.radius == 0:
            return x
        network = unwrap(model) if isinstance(model, nn.Module) else model
        modes = {module: module.training for module in network.modules()} if isinstance(network, nn.Module) else {}
        if isinstance(network, nn.Module):
            network.eval()
        try:
            with torch.enable_grad():
                changed = self._clipped(x, x + self._start(x)) if self.random_start else x.clone()
                for _ in range(self.steps):
                    changed = self._clipped(x, changed + self.step_size * self._direction(network, changed, y, loss))
        finally:
            for module, mode in modes.items():
                module.training = mode
        return changed

    def _examine(self, x: Tensor) -> None:
        if not torch.isfinite(x).all():
            raise ValueError("x: it holds numbers that are not finite")
        if self.bounds is not None and x.numel():
            low, high = (float(end) for end in torch.aminmax(x))
            if low < self.bounds[0] or high > self.bounds[1]:
                raise ValueError(
                    f"bounds={self.bounds}: x holds numbers from {low:g} to {high:g}; give bounds that contain the data"
                )
        self._examined = True

    def _direction(self, network: Callable[[Tensor], Any], x: Tensor, y: Tensor, loss: Callable[..., Tensor]) -> Tensor:
        x = x.detach().requires_grad_()
        value = loss(network(x), y).sum()
        # A gradient for the input alone: those of the parameters are neither computed nor stored.
        gradient = torch.autograd.grad(value, x, allow_unused=True)[0] if value.requires_grad else None
        if gradient is None:
            raise ValueError(
                "model: its output is not differentiable with respect to its input; no gradient flows back"
            )
        if self.norm == "linf":
            return gradient.sign()
        size = gradient.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
        return gradient / size.clamp_min(torch.finfo(x.dtype).tiny)

    def _start(self, x: Tensor) -> Tensor:
        def drawn(draw: Callable[..., Tensor], *shape: int) -> Tensor:
            device = x.device if self.generator is None else self.generator.device
            return draw(*shape, dtype=x.dtype, device=device, generator=self.generator).to(x.device)

        if self.norm == "linf":
            return self.radius * (2 * drawn(torch.rand, *x.shape) - 1)
        normal = drawn(torch.randn, *x.shape).flatten(1)
        # In d dimensions the radius of a uniform point of the unit ball is U^(1/d).
        length = drawn(torch.rand, len(x), 1) ** (1 / max(normal.shape[1], 1))
        return (self.radius * length * normal / normal.norm(dim=1, keepdim=True)).view_as(x)

    def _clipped(self, x: Tensor, changed: Tensor) -> Tensor:
        """The nearest point of the ball around x, then of the bounds."""
        step = changed.detach() - x
        if self.norm == "linf":
            step = step.clamp(-self.radius, self.radius)
        else:
            size = step.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
            step = step * (self.radius / size.clamp_min(self.radius))
        return x + step if self.bounds is None else (x + step).clamp(*self.bounds)
