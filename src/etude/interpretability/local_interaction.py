"""The local interaction basis: directions of each layer that later computation needs, and how they act on each other.

A network is a chain of *sections*, maps f_(l+1) = s_l(f_l) between *node layers* l = 0 .. L. No training is involved:
the basis follows from the second moments of activations and from the Jacobians between neighbouring layers, the edges
of the interaction graph from gradients.

::

    first, *sections = split_module(model, ["relu1", "relu2"], images[:8])
    hidden = [first(batch) for batch, _ in loader]                # activations of the first node layer, by batches
    basis = interaction_basis(sections, hidden)                   # prints, plots and saves
    edges = interaction_edges(sections, basis, hidden)
    logits = ablate_edges(sections, basis, test_hidden, 0, edges.mask(0, 50))   # with 50 edges of the first layer

Source: Bushnaq, Heimersheim, Goldowsky-Dill et al., The Local Interaction Basis (arXiv 2405.10928), 2024; equations as
in the authors' program. There a constant 1 is appended to activations and its direction is a node of its own; here it
is the layer's mean, and edges from it are the value of a section at the mean: free in every basis.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from etude.interpretability.jacobian import check_differentiable, stream_vector_jacobian_products
from etude.interpretability.moments import Moments, RunningMoments
from etude.nn.activations import evaluating
from etude.savable import Savable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Sections = Sequence[Callable[[Tensor], Tensor]]
Inputs = Tensor | Iterable[Any]
Integration = Literal["gradient", "gauss-legendre"]

__all__ = [
    "InteractionBasis",
    "InteractionEdges",
    "ablate_directions",
    "ablate_edges",
    "interaction_basis",
    "interaction_edges",
    "neuron_basis",
    "pca_basis",
    "random_basis",
]

TRUNCATION = 1e-12
"""Directions are dropped whose variance or importance, relative to the largest of the layer, is no more than this."""

_ROWS = 256
"""Samples at a time, where inputs are one tensor: their products stay near the processor."""


@dataclass(frozen=True, eq=False)
class InteractionBasis(Savable):
    """A basis of every node layer: coordinates z = (f - mean) C, and back f = z C+ + mean.

    Made by `interaction_basis`, `pca_basis`, `neuron_basis` and `random_basis`.

    Attributes:
        kind: which basis it is.
        to_basis: C of each node layer, (d_l, k_l), its directions in the order of their importance.
        from_basis: its pseudo-inverse C+, (k_l, d_l).
        importance: of each direction: the eigenvalue Lambda for aligned bases, else its variance; at the output ones.
        mean: what is subtracted first; zeros if nothing is.
        samples: how many samples (times positions) the first layer's moments rest on.
    """

    kind: str
    to_basis: tuple[Float[Tensor, "_ _"], ...]
    from_basis: tuple[Float[Tensor, "_ _"], ...]
    importance: tuple[Float[Tensor, " _"], ...]
    mean: tuple[Float[Tensor, " _"], ...]
    samples: int

    def __len__(self) -> int:
        return len(self.to_basis)

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each node layer."""
        return tuple(len(matrix) for matrix in self.to_basis)

    @property
    def directions(self) -> tuple[int, ...]:
        """Directions kept in each node layer."""
        return tuple(matrix.shape[1] for matrix in self.to_basis)

    def transform(self, layer: int, activation: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch k"]:
        """Coordinates of activations in a layer's basis.

        Args:
            layer: the number l of the node layer.
            activation: f, its last axis the layer's units.
        """
        # In the basis's own precision: where a unit hardly varies, coordinates are differences of large numbers.
        matrix = self.to_basis[layer].to(activation.device)
        return ((activation.to(matrix) - self.mean[layer].to(matrix)) @ matrix).to(activation)

    def inverse(self, layer: int, coordinates: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch d"]:
        """Activations from coordinates.

        Args:
            layer: the number l of the node layer.
            coordinates: z, its last axis the layer's directions.
        """
        return coordinates @ self.from_basis[layer].to(coordinates) + self.mean[layer].to(coordinates)

    def eigengaps(self, layer: int) -> Float[Tensor, " _"]:
        """How far each importance lies above the next, relatively; near 0 two directions are as good as any mixture.

        Args:
            layer: the number l of the node layer.
        """
        values = self.importance[layer]
        return 1 - values[1:] / values[:-1]

    def mapped(self, layer: int, matrix: Float[Tensor, "d d"]) -> InteractionBasis:
        """The same basis written for activations f A in place of f.

        Args:
            layer: the number l of the node layer whose activations were mapped.
            matrix: A, invertible.
        """
        inverse = torch.linalg.inv(matrix.to(self.to_basis[layer]))
        parts = [list(part) for part in (self.to_basis, self.from_basis, self.mean)]
        parts[0][layer] = inverse @ parts[0][layer]
        parts[1][layer] = parts[1][layer] @ matrix.to(inverse)
        parts[2][layer] = parts[2][layer] @ matrix.to(inverse)
        to_basis, from_basis, mean = map(tuple, parts)
        return InteractionBasis(self.kind, to_basis, from_basis, self.importance, mean, self.samples)

    def __str__(self) -> str:
        lines = [
            f"{self.kind} basis from {self.samples} samples",
            "layer  units  directions  effective  least eigengap",
        ]
        for layer, (width, kept) in enumerate(zip(self.widths, self.directions)):
            weights = self.importance[layer].double()
            effective = float(weights.sum() ** 2 / weights.square().sum()) if kept else 0.0
            gap = f"{float(self.eigengaps(layer).min()):.1e}" if kept > 1 else "-"
            lines.append(f"{layer:5}  {width:5}  {kept:10}  {effective:9.1f}  {gap:>14}")
        return "\n".join(lines)

    def plot(self, axes: Axes) -> None:
        """Importance by rank, a line a node layer but the last.

        Args:
            axes: of matplotlib.
        """
        for layer, values in enumerate(self.importance[:-1]):
            axes.semilogy(np.arange(1, len(values) + 1), values.cpu().numpy(), label=f"layer {layer}")
        axes.set(xlabel="direction", ylabel=f"importance in the {self.kind} basis")
        axes.legend()


@dataclass(frozen=True, eq=False)
class InteractionEdges(Savable):
    """How strongly directions act on those of the next node layer. Made by `interaction_edges`.

    Attributes:
        weights: E of each section, (k_(l+1), k_l): the mean square of what direction j adds to direction i.
        kind: the basis they belong to.
    """

    weights: tuple[Float[Tensor, "_ _"], ...]
    kind: str

    def __len__(self) -> int:
        return len(self.weights)

    def mask(self, layer: int, count: int) -> Bool[Tensor, "_ _"]:
        """True for the largest edges of a section; of equal ones the first.

        Args:
            layer: the number l of the section, which leads from node layer l to l + 1.
            count: how many, from 0 to all.

        Raises:
            ValueError: a `count` out of range.
        """
        weights = self.weights[layer]
        if not 0 <= count <= weights.numel():
            raise ValueError(f"count={count}: give a number from 0 to {weights.numel()}, the edges of layer {layer}")
        kept = torch.zeros(weights.numel(), dtype=torch.bool, device=weights.device)
        kept[weights.flatten().argsort(descending=True, stable=True)[:count]] = True
        return kept.view_as(weights)

    def __str__(self) -> str:
        lines = [f"edges in the {self.kind} basis", "layer  edges      sum  carrying 99 %"]
        for layer, weights in enumerate(self.weights):
            cumulated = weights.flatten().sort(descending=True).values.cumsum(0)
            most = int((cumulated < 0.99 * cumulated[-1]).sum()) + 1
            lines.append(f"{layer:5}  {weights.numel():5}  {float(cumulated[-1]):7.2g}  {most:13}")
        return "\n".join(lines)

    def plot(self, axes: Axes, layer: int = 0, largest: int = 20) -> None:
        """The edges among the most important directions as an image, log10 of the weights.

        Args:
            axes: of matplotlib.
            layer: the number l of the section.
            largest: directions shown on each side.
        """
        shown = self.weights[layer][:largest, :largest].double().cpu().clamp(min=1e-300).log10().numpy()
        drawn = axes.imshow(shown, cmap="viridis", vmin=float(shown.max()) - 6)
        axes.set(xlabel=f"direction of layer {layer}", ylabel=f"direction of layer {layer + 1}")
        axes.figure.colorbar(drawn, ax=axes, label="log10 of the edge")


def interaction_basis(
    sections: Sections,
    inputs: Inputs,
    *,
    center: bool = True,
    whiten: bool = True,
    align: bool = True,
    rotate_output: bool = False,
    truncation: float | None = None,
    sources: int | None = None,
    generator: torch.Generator | None = None,
    chunk: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> InteractionBasis:
    """The local interaction basis of every node layer, from the last one backwards.

    With G_l the covariance of the layer's activations, G = U D U^T, and R = U D^(-1/2) its whitening, R+ = D^(1/2) U^T,

        M'  = E sum_(i,t,s) J_(t,i),(s,j) J_(t,i),(s,j') / T,     J = d[s_l(f) C_(l+1)] / df
        M   = R+ M' R+^T = V Lambda V^T
        C_l = R V Lambda^(1/2),    C_l+ = Lambda^(-1/2) V^T R+

    where t runs over the T output positions and s over the input positions of a sequence, if there are any. Directions
    without variance (D) and those that the next layer's basis is insensitive to (Lambda) are dropped. Rows are samples,
    and coordinates are z = (f - mean) C. At the output C = 1. Where an invertible matrix is put behind a node layer and
    its inverse in front of the next section, edges and importances stay as they were.

    The exact M' takes one vector-Jacobian product a direction and position of the next layer, batched over samples and
    vectors; `sources` of them, with random signs phi in place of directions and positions (E[phi phi^T] = 1), give an
    unbiased estimate.

    Args:
        sections: the maps s_0 .. s_(L-1), modules or functions of one tensor: (n, d_l) -> (n, d_(l+1)), or (n,
            positions, d_l) -> (n, positions', d_(l+1)). They treat samples one by one; modules are run in evaluation
            mode and in `dtype`, and are not changed. A function must take `dtype`.
        inputs: activations of node layer 0: one tensor, or batches that can be gone through several times (a
            DataLoader; tensors, or tuples whose first entry counts). Only one batch is held.
        center: subtract each layer's mean.
        whiten: use D. With False, R = U: alignment alone, which is no longer invariant.
        align: use M. With False, C = R: whitening alone; or, if `whiten` is False too, principal components.
        rotate_output: principal components at the output in place of C = 1.
        truncation: relative to the largest D and Lambda of the layer; directions no larger are dropped. By default
            1e-12, with a warning where there are fewer samples than units.
        sources: random vectors in place of all directions and positions.
        generator: where their signs are drawn from, on the processor; by default torch's own.
        chunk: vectors in a backward pass, as for `vector_jacobian_products`.
        dtype: of all computations; single precision loses the small directions.

    Returns:
        The basis; `importance` is Lambda.

    Raises:
        TypeError: sections that are no functions, inputs that are no floating point numbers or can be gone through
            only once.
        ValueError: sections that do not chain (named by number), are not differentiable or give numbers that are not
            finite; no batches; a number out of range.

    Source: arXiv 2405.10928, section 3 and the authors' program.
    """
    for name, value in {"truncation": truncation, "sources": sources}.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name}={value!r}: give a number above 0, or None")
    chain = _Chain(sections, inputs, dtype)
    with evaluating(*chain.sections):
        if align:
            chain.check_differentiable()
        moments = chain.moments()
        _warn_of_few_samples(moments, truncation)
        limit = TRUNCATION if truncation is None else truncation
        last = moments[-1]
        found = [_output_basis(last, center, limit) if rotate_output else _neurons(last, center=False)]
        for layer in reversed(range(len(chain.sections))):
            one = moments[layer]
            variance, axes = _eigen(one.covariance() if center else one.second_moment(), limit)
            _check_kept(variance, f"node layer {layer} does not vary over the inputs")
            scale = variance.rsqrt() if whiten else torch.ones_like(variance)
            to_basis, from_basis, importance = axes * scale, axes.T / scale[:, None], variance
            if align:
                sensitivity = chain.sensitivity(layer, from_basis, found[0][0], sources, generator, chunk)
                importance, rotation = _eigen(sensitivity, limit)
                _check_kept(importance, f"sections[{layer}]: nothing behind node layer {layer} depends on it")
                root = importance.sqrt()
                to_basis, from_basis = to_basis @ rotation * root, rotation.T @ from_basis / root[:, None]
            found.insert(0, (to_basis, from_basis, importance, _center(one, center)))
    names = {(True, True): "interaction", (True, False): "whitened", (False, True): "aligned", (False, False): "PCA"}
    return _assemble(names[whiten, align], found, moments)


def pca_basis(
    sections: Sections,
    inputs: Inputs,
    *,
    center: bool = True,
    rotate_output: bool = False,
    truncation: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> InteractionBasis:
    """Principal components of every node layer but the last, in the order of their variance.

    Args:
        sections: as for `interaction_basis`.
        inputs: as for `interaction_basis`.
        center: subtract each layer's mean.
        rotate_output: principal components at the output too.
        truncation: as for `interaction_basis`.
        dtype: of all computations.

    Returns:
        The basis; `importance` is the variance.

    Raises:
        TypeError, ValueError: as `interaction_basis` does.
    """
    return interaction_basis(
        sections, inputs, center=center, whiten=False, align=False, rotate_output=rotate_output, truncation=truncation,
        dtype=dtype,
    )  # fmt: skip


def neuron_basis(
    sections: Sections, inputs: Inputs, *, center: bool = True, dtype: torch.dtype = torch.float64
) -> InteractionBasis:
    """The layers' own units, in the order of their variance.

    Args:
        sections: as for `interaction_basis`.
        inputs: as for `interaction_basis`.
        center: subtract each layer's mean.
        dtype: of all computations.

    Returns:
        The basis; C is a permutation and `importance` the variance.

    Raises:
        TypeError, ValueError: as `interaction_basis` does.
    """
    chain = _Chain(sections, inputs, dtype)
    with evaluating(*chain.sections):
        moments = chain.moments()
    found = [_ordered(one, torch.eye(one.units).to(one.mean), center) for one in moments[:-1]]
    return _assemble("neuron", [*found, _neurons(moments[-1], center=False)], moments)


def random_basis(
    sections: Sections,
    inputs: Inputs,
    *,
    center: bool = True,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> InteractionBasis:
    """A rotation of each node layer but the last, drawn uniformly: what a basis is worth that knows nothing.

    Args:
        sections: as for `interaction_basis`.
        inputs: as for `interaction_basis`.
        center: subtract each layer's mean.
        generator: where rotations are drawn from, on the processor; by default torch's own.
        dtype: of all computations.

    Returns:
        The basis; `importance` is the variance along each direction.

    Raises:
        TypeError, ValueError: as `interaction_basis` does.
    """
    chain = _Chain(sections, inputs, dtype)
    with evaluating(*chain.sections):
        moments = chain.moments()
    found = []
    for one in moments[:-1]:
        normal = torch.randn(one.units, one.units, dtype=torch.float64, generator=generator)
        rotation, triangle = torch.linalg.qr(normal)
        found.append(_ordered(one, (rotation * triangle.diagonal().sign()).to(one.mean), center))
    return _assemble("random", [*found, _neurons(moments[-1], center=False)], moments)


def interaction_edges(
    sections: Sections,
    basis: InteractionBasis,
    inputs: Inputs,
    *,
    integration: Integration = "gradient",
    points: int = 1,
    chunk: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> InteractionEdges:
    """The edges between neighbouring node layers: the mean square attribution of direction i to direction j.

        E_ij = E (1/T) sum_t [ sum_s ( int_0^1 dz_(l+1),t,i / dz_(l),s,j (alpha z_l) d alpha ) z_(l),s,j ]^2

    A direction's attributions sum to its change from the layer's mean (z = 0) if the integral is taken well enough;
    with ``"gradient"`` it is replaced by its integrand at alpha = 1, as in the paper's experiments.

    Args:
        sections: as for `interaction_basis`.
        basis: of the node layers they connect.
        inputs: activations of node layer 0, as for `interaction_basis`.
        integration: ``"gradient"`` or ``"gauss-legendre"``.
        points: nodes of the Gauss-Legendre rule, at least 1; for ``"gradient"`` there is one.
        chunk: vectors in a backward pass, as for `vector_jacobian_products`.
        dtype: of all computations.

    Returns:
        One matrix a section.

    Raises:
        TypeError, ValueError: as `interaction_basis` does; a basis of other layers; `integration` or `points` out of
            range.
    """
    if integration not in ("gradient", "gauss-legendre"):
        raise ValueError(f"integration={integration!r}: give 'gradient' or 'gauss-legendre'")
    if isinstance(points, bool) or not isinstance(points, int) or points < 1:
        raise ValueError(f"points={points!r}: give a whole number of at least 1")
    if integration == "gradient" and points != 1:
        raise ValueError(f"points={points}: the gradient is taken at one; give integration='gauss-legendre'")
    nodes, shares = (np.ones(1), np.ones(1)) if integration == "gradient" else np.polynomial.legendre.leggauss(points)
    if integration == "gauss-legendre":
        nodes, shares = (nodes + 1) / 2, shares / 2
    chain = _Chain(sections, inputs, dtype)
    _check_basis(basis, len(chain.sections))
    sums = [torch.zeros(1, dtype=dtype) for _ in chain.sections]
    rows = [0] * len(sums)
    with evaluating(*chain.sections):
        chain.check_differentiable()
        for values in chain.activations():
            for layer, (before, after) in enumerate(pairwise(values)):
                run, z = chain.calls[layer], basis.transform(layer, before)

                # Its derivative is that of the section, integrated over alpha.
                def integrated(z: Tensor, run: Callable[[Tensor], Tensor] = run, layer: int = layer) -> Tensor:
                    return sum(share / node * run(basis.inverse(layer, node * z)) for node, share in zip(nodes, shares))

                positions = after.shape[1:-1].numel()
                unit = _units(after.shape[1:-1], basis.to_basis[layer + 1].T.to(z))
                found = []
                for products in stream_vector_jacobian_products(integrated, z, unit, chunk=chunk):
                    attribution = (products * z).flatten(2, -2).sum(2) if z.ndim > 2 else products * z
                    found.append(attribution.square().sum(1))
                total = torch.cat(found).unflatten(0, (positions, -1)).sum(0)
                sums[layer] = sums[layer].to(total) + total
                rows[layer] += len(z) * positions
    return InteractionEdges(tuple(total / count for total, count in zip(sums, rows)), basis.kind)


@torch.no_grad()
def ablate_directions(
    sections: Sections, basis: InteractionBasis, inputs: Inputs, layer: int, keep: int
) -> Float[Tensor, "n ..."]:
    """The network's output with the first directions of a node layer only, the others at zero (their mean).

    Args:
        sections: as for `interaction_basis`, here in their own precision.
        basis: of the node layers they connect.
        inputs: activations of node layer 0, as for `interaction_basis`.
        layer: the number l of the node layer.
        keep: how many directions.

    Returns:
        What the last section puts out, over all batches.

    Raises:
        TypeError, ValueError: as `interaction_basis` does; a `layer` or `keep` out of range.
    """
    chain = _Chain(sections, inputs, None)
    _check_basis(basis, len(chain.sections))
    _check_layer(layer, len(chain.sections))
    if not 0 <= keep <= basis.directions[layer]:
        raise ValueError(f"keep={keep}: give a number from 0 to {basis.directions[layer]}, the directions of the layer")

    def change(f: Tensor) -> Tensor:
        z = basis.transform(layer, f)
        return chain.run(layer, basis.inverse(layer, torch.cat([z[..., :keep], torch.zeros_like(z[..., keep:])], -1)))

    return chain.outputs(layer, change)


@torch.no_grad()
def ablate_edges(
    sections: Sections, basis: InteractionBasis, inputs: Inputs, layer: int, mask: Bool[Tensor, "k_out k_in"]
) -> Float[Tensor, "n ..."]:
    """The network's output when each direction behind a section sees some of the directions before it only.

    Direction i is computed with the directions j where mask_ij is true, the others at zero (their mean). The section
    runs once for each different row of the mask; for an ``nn.Linear`` all rows come from one product.

    Args:
        sections: as for `interaction_basis`, here in their own precision.
        basis: of the node layers they connect.
        inputs: activations of node layer 0, as for `interaction_basis`.
        layer: the number l of the section.
        mask: which edges to keep, (k_(l+1), k_l), as from `InteractionEdges.mask`.

    Returns:
        What the last section puts out, over all batches.

    Raises:
        TypeError, ValueError: as `interaction_basis` does; a `layer` or the shape of `mask`.
    """
    chain = _Chain(sections, inputs, None)
    _check_basis(basis, len(chain.sections))
    _check_layer(layer, len(chain.sections))
    shape = basis.directions[layer + 1], basis.directions[layer]
    if mask.shape != shape or mask.dtype != torch.bool:
        raise ValueError(
            f"mask: {mask.dtype} of shape {tuple(mask.shape)} was given; bool of shape {shape} is accepted"
        )
    run, section = chain.calls[layer], chain.sections[layer]
    patterns, which = mask.unique(dim=0, return_inverse=True)

    def change(f: Tensor) -> Tensor:
        z, there = basis.transform(layer, f), layer + 1
        if isinstance(section, nn.Linear):
            weight = basis.from_basis[layer] @ section.weight.T.to(basis.from_basis[layer]) @ basis.to_basis[there]
            at_mean = basis.transform(there, run(basis.mean[layer].to(f)[None]))
            kept = z @ (weight * mask.T.to(weight)).to(f) + at_mean
        else:
            kept = z.new_empty(())
            for number, pattern in enumerate(patterns.to(z.device)):
                after = run(basis.inverse(layer, z * pattern))
                rows = (which == number).nonzero()[:, 0].to(z.device)
                part = (after - basis.mean[there].to(after)) @ basis.to_basis[there].to(after)[:, rows]
                kept = z.new_empty(*after.shape[:-1], shape[0]) if not kept.ndim else kept
                kept[..., rows] = part
        return chain.run(there, basis.inverse(there, kept))

    return chain.outputs(layer, change)


# ---- the chain of sections -------------------------------------------------------------------------------------------


class _Chain:
    """Sections in one precision over batches that can be gone through again and again."""

    def __init__(self, sections: Sections, inputs: Inputs, dtype: torch.dtype | None) -> None:
        self.sections = list(sections)
        if not self.sections:
            raise ValueError("sections: none was given; at least one is accepted")
        for number, section in enumerate(self.sections):
            if not callable(section):
                raise TypeError(f"sections[{number}]: a {type(section).__name__} was given; a function is accepted")
        if not isinstance(inputs, Tensor) and (not isinstance(inputs, Iterable) or iter(inputs) is inputs):
            raise TypeError(
                f"inputs: a {type(inputs).__name__} was given; a tensor, or batches that can be gone through several "
                "times (a list, a DataLoader) are accepted"
            )
        self.inputs, self.dtype = inputs, dtype
        self.calls = [self._guarded(number, _in_precision(part, dtype)) for number, part in enumerate(self.sections)]
        parameters = (p for part in self.sections if isinstance(part, nn.Module) for p in part.parameters())
        self.device = next((parameter.device for parameter in parameters), None)

    def batches(self) -> Iterator[Tensor]:
        """Activations of node layer 0."""
        count = 0
        for batch in self.inputs.split(_ROWS) if isinstance(self.inputs, Tensor) else self.inputs:
            x = batch[0] if isinstance(batch, tuple | list) else batch
            if not isinstance(x, Tensor) or not x.is_floating_point():
                kind = f"tensor of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
                raise TypeError(f"inputs: a {kind} was given; tensors of floating point numbers are accepted")
            if x.ndim < 2:
                raise ValueError(f"inputs: shape {tuple(x.shape)} was given; (n, units) or (n, positions, units)")
            count += len(x)
            yield x.detach().to(device=self.device, dtype=self.dtype)
        if not count:
            raise ValueError("inputs: there are no samples; at least one is accepted")

    @torch.no_grad()
    def activations(self, layers: int | None = None) -> Iterator[list[Tensor]]:
        """What all node layers hold, or the first ones up to number `layers`, batch after batch."""
        for x in self.batches():
            values = [x]
            for run in self.calls[:layers]:
                values.append(run(values[-1]))
            yield values

    def run(self, layer: int, f: Tensor) -> Tensor:
        """The output from the activation of a node layer."""
        for run in self.calls[layer:]:
            f = run(f)
        return f

    def outputs(self, layer: int, change: Callable[[Tensor], Tensor]) -> Tensor:
        """All outputs, with a changed computation from a node layer on."""
        with evaluating(*self.sections):
            return torch.cat([change(values[-1]) for values in self.activations(layer)])

    def moments(self) -> list[Moments]:
        """Second moments of every node layer."""
        running = [RunningMoments(precision=torch.float64) for _ in range(len(self.sections) + 1)]
        for values in self.activations():
            for layer, (one, value) in enumerate(zip(running, values)):
                if not torch.isfinite(value).all():
                    what = "inputs" if layer == 0 else f"sections[{layer - 1}]"
                    raise ValueError(f"{what}: activations of node layer {layer} are not finite")
                one.update(value.flatten(0, -2))
        return [one.moments() for one in running]

    def check_differentiable(self) -> None:
        """Refuse sections without gradients, by number."""
        value = next(self.batches())[:1]
        for number, run in enumerate(self.calls):
            check_differentiable(run, value, f"sections[{number}]")
            with torch.no_grad():
                value = run(value)

    def sensitivity(
        self,
        layer: int,
        white: Tensor,
        behind: Tensor,
        sources: int | None,
        generator: torch.Generator | None,
        chunk: int | None,
    ) -> Tensor:
        """M = R+ M' R+^T of a node layer, given its R+ and the C of the next one.

        Products are written in white coordinates before they are squared: from M' itself an ill-conditioned layer would
        get rounding errors of the square of its condition, which look like directions.
        """
        total, count = white.new_zeros(len(white), len(white)), 0
        for values in self.activations(layer):
            f, run = values[-1], self.calls[layer]
            with torch.no_grad():
                shape = run(f[:1]).shape[1:]
            behind = behind.to(f)
            if sources is None:
                vectors = _units(shape[:-1], behind.T)
            else:
                signs = torch.randint(2, (sources, len(f), *shape[:-1], behind.shape[1]), generator=generator)
                vectors = (2 * signs - 1).to(f) @ behind.T
            for products in stream_vector_jacobian_products(run, f, vectors, chunk=chunk):
                flat = products.flatten(0, -2).to(white) @ white.T
                total.addmm_(flat.T, flat)
            count += len(f) * shape[:-1].numel()
        return total / (count * (sources or 1))

    def _guarded(self, number: int, run: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def call(x: Tensor) -> Tensor:
            try:
                out = run(x)
            except (RuntimeError, TypeError) as error:
                before = f"what sections[{number - 1}] puts out" if number else "the inputs"
                raise ValueError(
                    f"sections[{number}]: it does not take {before}, {x.dtype} of shape {tuple(x.shape)} ({error})"
                ) from error
            if not isinstance(out, Tensor) or out.ndim < 2 or len(out) != len(x):
                given = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
                raise ValueError(
                    f"sections[{number}]: it puts out {given}; ({len(x)}, units) or ({len(x)}, positions, units) is "
                    "accepted"
                )
            return out

        return call


def _in_precision(section: Callable[[Tensor], Tensor], dtype: torch.dtype | None) -> Callable[[Tensor], Tensor]:
    """The section with its weights in a precision; the section itself is left as it is."""
    if dtype is None or not isinstance(section, nn.Module):
        return section
    state = {
        name: value.detach().to(dtype) if value.is_floating_point() else value
        for name, value in (*section.named_parameters(), *section.named_buffers())
    }
    return lambda x: functional_call(section, state, (x,))


def _units(positions: torch.Size, rows: Float[Tensor, "k d"]) -> Float[Tensor, "r ..."]:
    """Vectors (positions k, *positions, d) that have one of the rows at one of the positions, and zeros elsewhere."""
    count = positions.numel()
    vectors = torch.einsum("pq,kd->pkqd", torch.eye(count).to(rows), rows)
    return vectors.reshape(count * len(rows), *positions, rows.shape[1])


# ---- bases of one layer ----------------------------------------------------------------------------------------------

_Layer = tuple[Tensor, Tensor, Tensor, Tensor]


def _eigen(matrix: Float[Tensor, "d d"], truncation: float) -> tuple[Float[Tensor, " k"], Float[Tensor, "d k"]]:
    """Eigenvalues from the largest down to those above the truncation, and their vectors as columns."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    kept = (values > truncation * values[-1].clamp(min=0)).nonzero()[:, 0].flip(0)
    return values[kept], vectors[:, kept]


def _check_kept(values: Tensor, what: str) -> None:
    if not len(values):
        raise ValueError(f"{what}, so that it has no directions")


def _center(moments: Moments, center: bool) -> Tensor:
    return moments.mean if center else torch.zeros_like(moments.mean)


def _neurons(moments: Moments, *, center: bool) -> _Layer:
    """The units in their own order."""
    one = torch.eye(moments.units).to(moments.mean)
    return one, one.clone(), torch.ones_like(moments.mean), _center(moments, center)


def _output_basis(moments: Moments, center: bool, truncation: float) -> _Layer:
    variance, axes = _eigen(moments.covariance() if center else moments.second_moment(), truncation)
    return axes, axes.T.contiguous(), variance, _center(moments, center)


def _ordered(moments: Moments, rotation: Float[Tensor, "d d"], center: bool) -> _Layer:
    """The columns of a rotation in the order of the variance along them."""
    along = ((moments.covariance() if center else moments.second_moment()) @ rotation * rotation).sum(0)
    order = along.argsort(descending=True, stable=True)
    rotation = rotation[:, order]
    return rotation, rotation.T.contiguous(), along[order], _center(moments, center)


def _assemble(kind: str, layers: Sequence[_Layer], moments: Sequence[Moments]) -> InteractionBasis:
    to_basis, from_basis, importance, mean = zip(*layers)
    return InteractionBasis(kind, to_basis, from_basis, importance, mean, moments[0].count)


def _warn_of_few_samples(moments: Sequence[Moments], truncation: float | None) -> None:
    for layer, one in enumerate(moments[:-1]):
        if truncation is None and one.count <= one.units:
            rank = int(torch.linalg.matrix_rank(one.covariance(), hermitian=True))
            warnings.warn(
                f"inputs: node layer {layer} has {one.units} units and only {one.count} samples, of effective rank "
                f"{rank}; give more samples, or say with truncation= which directions count",
                stacklevel=3,
            )


def _check_basis(basis: InteractionBasis, sections: int) -> None:
    if len(basis) != sections + 1:
        raise ValueError(f"basis: it has {len(basis)} node layers; {sections + 1} are accepted, one more than sections")


def _check_layer(layer: int, sections: int) -> None:
    if not 0 <= layer < sections:
        raise ValueError(f"layer={layer}: give a number from 0 to {sections - 1}")


# ---- files -----------------------------------------------------------------------------------------------------------
