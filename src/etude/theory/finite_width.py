"""Tangent kernels of networks as they are: of finite width, with the weights they have.

Source: Jacot, Gabriel and Hongler, NeurIPS 2018 (arXiv 1806.07572).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import nn
from torch.func import functional_call, jacrev, vmap

from etude.theory.ntk import check_depth, on_sphere


def empirical_ntk(
    net: nn.Module,
    X: Float[torch.Tensor, " n *input"],
    Z: Float[torch.Tensor, " m *input"] | None = None,
    *,
    chunk_size: int = 32,
) -> Float[np.ndarray, "n m *outputs"]:
    """Tangent kernel `sum_p df(x)/dp df(z)/dp` of a network as it is, over its trainable parameters.

    Args:
        net: maps (batch, ...) to (batch,) or (batch, outputs), sample by sample (no batch statistics).
        X: inputs, (n, ...).
        Z: inputs, (m, ...); `X` by default.
        chunk_size: samples whose gradients are held at once, twice; memory is `2 chunk_size` times the parameters.

    Returns:
        (n, m) if the network has one output, else (n, m, outputs, outputs); float64.

    Raises:
        ValueError: if `chunk_size` is below 1, the net has no trainable parameter, or an output of another rank.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 1))
        >>> empirical_ntk(net, torch.randn(5, 3)).shape
        (5, 5)
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1; got {chunk_size}")
    trained = {name: p.detach() for name, p in net.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError("net must have at least one parameter with requires_grad=True")
    frozen = {
        n: t.detach() for n, t in itertools.chain(net.named_parameters(), net.named_buffers()) if n not in trained
    }

    def outputs(parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        out = functional_call(net, {**frozen, **parameters}, (x[None],))
        if out.ndim not in (1, 2) or len(out) != 1:
            raise ValueError(
                f"net must return (batch,) or (batch, outputs); got shape {tuple(out.shape)} for one sample"
            )
        return out.reshape(-1)

    gradients = vmap(jacrev(outputs), in_dims=(None, 0))

    def jacobian(x: torch.Tensor) -> torch.Tensor:
        parts = gradients(trained, x)
        return torch.cat([g.reshape(*g.shape[:2], -1) for g in parts.values()], dim=2)

    Z = X if Z is None else Z
    rows = []
    for x in X.split(chunk_size):
        left = jacobian(x)
        rows.append(torch.cat([torch.einsum("ncp,mdp->nmcd", left, jacobian(z)) for z in Z.split(chunk_size)], dim=1))
    kernel = torch.cat(rows).double().cpu().numpy()
    return kernel[:, :, 0, 0] if kernel.shape[2] == 1 else kernel


def finite_width_ntk(
    X: ArrayLike, activation: Callable[[torch.Tensor], torch.Tensor], depth: int, width: int, generator: torch.Generator
) -> Float[np.ndarray, "n n"]:
    """Tangent kernel of one random fully connected network of finite width, in NTK parametrisation.

    `h_1 = W_1 x`, `h_(l+1) = W_(l+1) phi(h_l) / sqrt(width)`, `f = w.phi(h_L) / sqrt(width)`, all weights standard
    normal. Gradients of a layer are outer products, so only activations and back-propagated errors are held, never a
    Jacobian: a width of 4,096 takes 64 MB a layer. Its mean tends to `ntk` with the width.

    Args:
        X: points on the unit sphere, (n, d + 1).
        activation: acts elementwise on tensors and can be differentiated.
        depth: number of hidden layers, at least 1.
        width: units a hidden layer, at least 1.
        generator: draws the weights.

    Returns:
        (n, n), float64 (computed in float32).

    Raises:
        ValueError: as `nngp`, and if `width` is below 1.
    """
    check_depth(depth)
    if width < 1:
        raise ValueError(f"width must be at least 1; got {width}")
    signal = torch.from_numpy(on_sphere(X, "X")).float()
    scale = 1 / math.sqrt(width)
    signals, fields = [signal], []
    for _ in range(depth):
        weight = torch.randn(width, signal.shape[1], generator=generator)
        fields.append(signal @ weight.T)
        signal = activation(fields[-1].requires_grad_()) * scale
        signals.append(signal)
    output = signal @ torch.randn(width, generator=generator)
    errors = [*torch.autograd.grad(output.sum(), fields), torch.ones(len(output), 1)]
    # Layer l's weights multiply signals[l] and receive errors[l]; the factor scale sits in the signals.
    kernel = sum((a @ a.T).double() * (e @ e.T).double() for a, e in zip(signals, errors, strict=True))
    return kernel.detach().numpy()
