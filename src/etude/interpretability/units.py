"""The units of a layer, and their moments over a data set.

A unit is a neuron of a linear layer, or a channel of a convolution, whose value at each place is a sample of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from etude.interpretability.moments import CrossMoments, Moments, RunningCrossMoments, RunningMoments
from etude.nn.activations import Layers, stream_activations

__all__ = ["flatten_units", "unit_cross_moments", "unit_moments"]

Forward = Callable[[nn.Module, Any], object] | None


def flatten_units(
    activation: Float[Tensor, "n ..."], *, axis: int | None = None, places: Int[Tensor, " places"] | None = None
) -> Float[Tensor, "samples units"]:
    """An activation as one row a sample and one column a unit: (n, c, h, w) becomes (n h w, c).

    Args:
        activation: what a layer put out, its first axis the examples.
        axis: which axis counts the units; by default the second of four or five axes (images, volumes) and else the
            last (vectors, sequences). A convolution over sequences, (n, c, length), needs ``axis=1``.
        places: which of the places h w to keep, counted row by row; by default all.

    Raises:
        ValueError: fewer than two axes, an `axis` that is not there or counts the examples, or a place that is not
            there.
    """
    if activation.ndim < 2:
        raise ValueError(f"activation: shape {tuple(activation.shape)} was given; (n, ...) with units is accepted")
    chosen = (1 if activation.ndim in (4, 5) else activation.ndim - 1) if axis is None else axis
    if not (1 <= chosen < activation.ndim or -activation.ndim < chosen < 0):
        raise ValueError(
            f"axis={axis}: give one from 1 to {activation.ndim - 1}, as activations have {activation.ndim}"
        )
    rows = activation.movedim(chosen, -1).flatten(1, -2) if activation.ndim > 2 else activation[:, None]
    if places is not None:
        if len(places) and int(places.max()) >= rows.shape[1]:
            raise ValueError(f"places: {int(places.max())} was given; the layer has places 0 to {rows.shape[1] - 1}")
        rows = rows.index_select(1, places.to(rows.device))
    return rows.flatten(0, 1)


def unit_moments(
    model: nn.Module,
    loader: Iterable[Any],
    layers: Layers = None,
    *,
    places: int | None = None,
    generator: torch.Generator | None = None,
    axis: int | None = None,
    precision: torch.dtype | None = None,
    forward: Forward = None,
) -> dict[str, Moments]:
    """Means, variances and correlations of a network's units over a data set, by layer and in one pass.

    ::

        moments = unit_moments(model, test_loader, ["conv1", "fc2"])
        correlation = moments["conv1"].correlation()      # (channels, channels)

    Args:
        model: any module; run in evaluation mode, without gradients.
        loader: batches, as for `etude.nn.stream_activations`.
        layers: which; by default those with weights.
        places: so many places of each image or sequence, drawn anew for each batch; by default all of them.
        generator: where places are drawn from, on the processor; by default torch's own.
        axis: as for `flatten_units`.
        precision: as for `RunningMoments`.
        forward: as for `etude.nn.stream_activations`.

    Raises:
        ValueError: `places` below 1, an unknown layer or one that does not run, no batches, or activations that are not
            finite.
        TypeError: a layer that puts out no floating point numbers.
    """
    _check_places(places)
    running: dict[str, RunningMoments] = {}
    for found in stream_activations(model, loader, layers, forward=forward):
        for layer, activation in found.items():
            rows = flatten_units(activation, axis=axis, places=_draw(activation, axis, places, generator))
            running.setdefault(layer, RunningMoments(precision=precision)).update(rows)
    return {layer: one.moments() for layer, one in running.items()}


def unit_cross_moments(
    model: nn.Module,
    layer: str,
    other: nn.Module,
    other_layer: str,
    loader: Iterable[Any],
    *,
    within: bool = True,
    places: int | None = None,
    generator: torch.Generator | None = None,
    axis: int | None = None,
    precision: torch.dtype | None = None,
    forward: Forward = None,
) -> CrossMoments:
    """The joint moments of a layer of one network and a layer of another over the same data, in one pass.

    ::

        moments = unit_cross_moments(model, "conv2", other_model, "conv2", test_loader)
        match = match_units(moments)

    Args:
        model: any module; run in evaluation mode, without gradients.
        layer: its layer.
        other: another module, or the same.
        other_layer: its layer, of as many units or not, with as many places.
        loader: batches that both see, as for `etude.nn.stream_activations`.
        within: as for `RunningCrossMoments`; False is enough for matching.
        places: so many places of each image, the same ones in both networks; by default all.
        generator: where places are drawn from, on the processor; by default torch's own.
        axis: as for `flatten_units`.
        precision: as for `RunningMoments`.
        forward: as for `etude.nn.stream_activations`; called with each network, so that they may be handed different
            parts of a batch.

    Raises:
        ValueError: as for `unit_moments`; or the two layers give different numbers of samples.
        TypeError: as for `unit_moments`.
    """
    _check_places(places)
    models = {"model": model} if other is model else {"model": model, "other": other}
    names = f"model.{layer}", f"{'model' if other is model else 'other'}.{other_layer}"
    running = RunningCrossMoments(within=within, precision=precision)
    for found in stream_activations(models, loader, dict.fromkeys(names), forward=forward):
        one, two = (found[name] for name in names)
        chosen = _draw(one, axis, places, generator)
        x, y = (flatten_units(activation, axis=axis, places=chosen) for activation in (one, two))
        if len(x) != len(y):
            raise ValueError(
                f"layer, other_layer: {layer!r} gives {len(x)} samples a batch and {other_layer!r} gives {len(y)}; "
                "layers with as many examples and places are accepted"
            )
        running.update(x, y)
    return running.moments()


def _check_places(places: int | None) -> None:
    if places is not None and (isinstance(places, bool) or not isinstance(places, int) or places < 1):
        raise ValueError(f"places={places!r}: give a whole number of at least 1, or None for all")


def _draw(activation: Tensor, axis: int | None, places: int | None, generator: torch.Generator | None) -> Tensor | None:
    """Some of the places of an activation in random order, or None for all."""
    if places is None:
        return None
    count = len(flatten_units(activation[:1], axis=axis))
    return torch.randperm(count, generator=generator)[:places]
