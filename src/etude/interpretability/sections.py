"""A network as a chain of maps between the layers one wants to look at."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from etude.errors import suggest
from etude.nn.activations import evaluating, unwrap

__all__ = ["Section", "split_module"]


class _Reached(Exception):
    """The layer at which a section ends has run; nothing behind it is needed."""


class Section(nn.Module):
    """The part of a network from behind one layer to behind another, made by `split_module`.

    It runs the network itself, with the first layer's output replaced by what it is given, and stops at the last one.

    Args:
        model: the network.
        start: the layer whose output is the section's input; None for the network's own input.
        stop: the layer whose output is the section's; None for the network's own output.
        example: an input of one row, which what lies before `start` is run on.
    """

    def __init__(self, model: nn.Module, start: str | None, stop: str | None, example: Tensor) -> None:
        super().__init__()
        self.model, self.start, self.stop = model, start, stop
        self.register_buffer("example", example, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """What the network makes of `x`."""
        reached: list[Tensor] = []
        handles: list[RemovableHandle] = []

        def replace(module: nn.Module, inputs: Any, output: Any) -> Tensor:
            return x

        def finish(module: nn.Module, inputs: Any, output: Tensor) -> None:
            reached.append(output)
            raise _Reached

        if self.start is not None:
            handles.append(self.model.get_submodule(self.start).register_forward_hook(replace))
        if self.stop is not None:
            handles.append(self.model.get_submodule(self.stop).register_forward_hook(finish))
        try:
            return self.model(x if self.start is None else self.example.expand(len(x), *self.example.shape[1:]))
        except _Reached:
            return reached[0]
        finally:
            for handle in handles:
                handle.remove()

    def extra_repr(self) -> str:
        """From where to where it leads."""
        return f"{self.start or 'input'} -> {self.stop or 'output'}"


def split_module(model: nn.Module, layers: Sequence[str], example: Tensor) -> list[Section]:
    """Cut a network behind some of its layers into maps that make the network when run one after the other.

    ::

        first, *sections = split_module(model, ["relu1", "relu2"], images[:8])
        hidden = first(images)                      # what "relu1" puts out
        logits = sections[1](sections[0](hidden))   # model(images)

    The network may be of any class, as long as all that is behind a layer depends on the input through that layer's
    output alone; that is checked on the example. Wrapped ones are taken out of their wrapper.

    Args:
        model: any module that takes one tensor; it is shared with the sections, not copied.
        layers: names as in ``model.named_modules()``, in the order in which they run.
        example: a few inputs, (n, ...) with n of at least 2; the first one is kept.

    Returns:
        One section more than layers: from the input to the first, ..., from the last to the output.

    Raises:
        TypeError: `layers` is one string.
        ValueError: an unknown layer, one that does not run, layers out of order, none, or a connection around a layer.
    """
    if isinstance(layers, str):
        raise TypeError(f"layers: one string was given, {layers!r}; a list of names is accepted")
    inner, names = unwrap(model), list(layers)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"layers={names!r}: give at least one name, each once")
    known = dict(inner.named_modules())
    for name in names:
        if name not in known or not name:
            raise ValueError(f"layers: the model has no layer {name!r}.{suggest(name, known)}")
    if len(example) < 2:
        raise ValueError(f"example: {len(example)} rows were given; at least 2 are accepted")
    ran = _order(inner, names, example)
    if ran != names:
        missing = [name for name in names if name not in ran]
        why = f"{missing[0]!r} does not run" if missing else f"they run as {', '.join(ran)}"
        raise ValueError(
            f"layers={names!r}: {why}; names of layers in the order in which they run, once each, are accepted"
        )
    cuts = [None, *names, None]
    sections = [Section(inner, start, stop, example[:1].detach()) for start, stop in pairwise(cuts)]
    _check_chain(inner, sections, example)
    return sections


def _order(model: nn.Module, names: list[str], example: Tensor) -> list[str]:
    """The layers in the order in which they put something out."""
    ran: list[str] = []
    handles = [
        model.get_submodule(name).register_forward_hook(lambda module, inputs, output, name=name: ran.append(name))
        for name in names
    ]
    try:
        with evaluating(model), torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return ran


def _check_chain(model: nn.Module, sections: list[Section], example: Tensor) -> None:
    # The sections run what lies before them on the first row: were there a connection around a layer, the other rows
    # would come out differently.
    with evaluating(model), torch.no_grad():
        whole, value = model(example), example
        for section in sections:
            value = section(value)
        if value.shape != whole.shape or not torch.allclose(
            value, whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max())
        ):
            raise ValueError(
                "layers: the model's output depends on its input in another way than through them one by one (a "
                "connection around a layer); cut where all information passes"
            )
