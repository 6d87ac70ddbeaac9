"""Activations of a network's layers, taken from its own forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from etude.errors import suggest

Layers = Iterable[str] | Callable[[str, nn.Module], bool] | None

__all__ = ["ActivationTap", "activations", "evaluating", "stream_activations", "unwrap"]


class ActivationTap:
    """Keeps what chosen layers put out each time a network runs.

    The network is run by whoever owns it, as often and in whatever mode they like: the tap adds no pass of its own.
    It works on any ``nn.Module``; of one wrapped by DistributedDataParallel, Lightning Fabric or ``torch.compile`` it
    taps the module inside, so that names are the same as without the wrapper. Tap a compiled one before it first runs.

    ::

        with ActivationTap(model) as tap:         # its layers with weights; or layers=["conv1", "fc2"]
            loss = loss_fn(model(x), y)           # your own forward pass
            hidden = tap.activations              # {"conv1": (n, ...), ..., "output": (n, 10)}

    Without ``with`` it stays until `remove`.

    Each activation is the layer's output as a tensor with the sample first. Of several outputs the first one is kept
    (an LSTM's sequence, an attention layer's values), of a mapping its first value. A packed sequence is padded. A
    layer that says ``batch_first=False`` has its sequences turned, so that the sample comes first.

    Args:
        model: called as ``model(...)``; only passes that go through this call are seen.
        layers: names as in ``model.named_modules()``; or a function of name and module that says which to tap; or None
            for the layers that own a weight of two or more dimensions (linear, convolution, recurrent, attention,
            embedding; no normalisation), or the innermost of them where they are nested. Layers found by a function
            or by default and not run are left out; a name that does not run is an error.
        detach: keep the activations without their graph.
        only_with_grad: see only passes that record gradients, so that an evaluation under ``no_grad`` leaves no
            activations in memory.

    Attributes:
        enabled: set it to False to see no passes; they then cost nothing.

    Raises:
        TypeError: `model` is no module, or `layers` is one string.
        ValueError: an unknown layer, named with the nearest name; no layers; a layer named twice.
    """

    def __init__(
        self, model: nn.Module, layers: Layers = None, *, detach: bool = False, only_with_grad: bool = False
    ) -> None:
        self.model = unwrap(model)
        self.detach, self.only_with_grad, self.enabled = detach, only_with_grad, True
        self._chosen = layers is None or callable(layers)
        self._by_default = layers is None
        names = _find(self.model, layers)
        self._outputs: dict[str, list[tuple[Tensor, int]]] = {}  # each with its version, which in-place changes raise
        self._running = self._seen = False
        root = self.model
        self._handles = [root.register_forward_pre_hook(self._begin)]
        self._handles += [root.get_submodule(name).register_forward_hook(self._keep(name)) for name in names]
        # Last, so that the model's own output is kept before the pass is over.
        self._handles.append(root.register_forward_hook(self._end))
        self.layers: tuple[str, ...] = tuple(names)

    @property
    def activations(self) -> dict[str, Tensor]:
        """What the layers put out in the last pass, by name, in the order in which they ran.

        Raises:
            RuntimeError: the network has not run since the tap was made or cleared, or broke off.
            ValueError: a layer asked for by name did not run, a layer ran several times in one pass, or its output was
                changed in place afterwards.
        """
        if not self._seen:
            why = "broke off" if self._running else "has not run since the tap was set"
            kind = " with gradients recorded" if self.only_with_grad else ""
            raise RuntimeError(f"there are no activations: the model {why}{kind}; call model(inputs) first")
        repeated = [name for name, outputs in self._outputs.items() if len(outputs) > 1]
        if repeated:
            raise ValueError(
                f"layers: {repeated[0]!r} ran {len(self._outputs[repeated[0]])} times in one forward pass, so that it "
                "has no one activation; tap a layer that runs once"
            )
        if not self._chosen:
            missing = [name for name in self.layers if name not in self._outputs]
            if missing:
                ran = ", ".join(self._outputs) or "none"
                raise ValueError(f"layers: {missing[0]!r} did not run in the forward pass (those that did: {ran})")
        found = {}
        for name, ((output, version),) in self._outputs.items():
            if _version(output) != version:
                raise ValueError(
                    f"layers: the output of {name!r} was changed in place by what came after it, such as "
                    "nn.ReLU(inplace=True); set inplace=False there"
                )
            found[name] = output
        if self._by_default:
            found = {name: kept for name, kept in found.items() if not any(_is_inside(other, name) for other in found)}
        if not found:
            raise ValueError("layers: none of those tapped ran in the forward pass")
        return found

    def clear(self) -> None:
        """Forget the last pass and free its activations."""
        self._outputs, self._running, self._seen = {}, False, False

    def remove(self) -> None:
        """Take the tap out of the network; what it kept is kept."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> ActivationTap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _sees(self) -> bool:
        return self.enabled and (not self.only_with_grad or torch.is_grad_enabled())

    def _begin(self, module: nn.Module, inputs: Any) -> None:
        if self._sees():
            self._outputs, self._running, self._seen = {}, True, False

    def _keep(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._running:
                kept = _first_tensor(module, name, output)
                kept = kept.detach() if self.detach else kept
                self._outputs.setdefault(name, []).append((kept, _version(kept)))

        return keep

    def _end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._running:
            self._running, self._seen = False, True


def activations(
    model: nn.Module, *inputs: Any, layers: Layers = None, detach: bool = False, **keywords: Any
) -> dict[str, Tensor]:
    """Run a network once and return what its layers put out.

    Args:
        model: any module; its training mode is used as it is.
        *inputs: handed to the module.
        layers: which, as for `ActivationTap`.
        detach: without their graph, as for `ActivationTap`.
        **keywords: handed to the module.

    Returns:
        Activations by name, each (n, ...), in the order in which the layers ran.

    Raises:
        TypeError, ValueError: as `ActivationTap` does.
    """
    with ActivationTap(model, layers, detach=detach) as tap:
        model(*inputs, **keywords)
        return tap.activations


def stream_activations(
    model: nn.Module | Mapping[str, nn.Module],
    loader: Iterable[Any],
    layers: Layers = None,
    *,
    forward: Callable[[nn.Module, Any], object] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Run a network over a loader and yield what its layers put out, batch after batch.

    In evaluation mode and without gradients; the mode of every module is put back before a batch is yielded. Only one
    batch is held, so the data may be larger than memory.

    Args:
        model: any module, on any device; batches are moved to that of its first parameter. Several by name all see
            each batch, and their layers are called ``"name.layer"``.
        loader: batches: tensors (``x.split(500)`` makes them of one tensor); tuples or lists, of which the first entry
            is the input; or mappings, whose entries are handed over as keywords.
        layers: which, as for `ActivationTap`.
        forward: how a batch is run, where that is not enough: called with the model and the batch as it came, on its
            own device.

    Yields:
        Activations by layer, as `ActivationTap.activations`.

    Raises:
        TypeError: `loader` is a tensor or cannot be gone through; `model` and `layers` as for `ActivationTap`.
        ValueError: an unknown layer or one that does not run, one module under two names, or a loader without batches.
    """
    if isinstance(loader, Tensor) or not isinstance(loader, Iterable):
        raise TypeError(
            f"loader: a {type(loader).__name__} was given; an iterable of batches is accepted, such as a DataLoader or "
            "x.split(500)"
        )
    run = forward or _run
    if isinstance(model, Mapping):
        model, run = _SideBySide(model, run), _SideBySide.__call__
    layers = layers if layers is None or callable(layers) or isinstance(layers, str) else list(layers)
    _find(unwrap(model), layers)
    return _stream(model, loader, layers, run)


def _stream(
    model: nn.Module, loader: Iterable[Any], layers: Layers, run: Callable[[nn.Module, Any], object]
) -> Iterator[dict[str, Tensor]]:
    batches = 0
    with ActivationTap(model, layers, detach=True) as tap:
        for batch in loader:
            with evaluating(model), torch.no_grad():
                run(model, batch)
            found = tap.activations
            tap.clear()
            yield found
            batches += 1
    if not batches:
        raise ValueError("loader: it gave no batches; at least one is accepted")


class _SideBySide(nn.Module):
    """Several networks that see the same batch."""

    def __init__(self, models: Mapping[str, nn.Module], run: Callable[[nn.Module, Any], object]) -> None:
        super().__init__()
        inner = {name: unwrap(model) for name, model in models.items()}
        if not inner or len({id(model) for model in inner.values()}) < len(inner):
            raise ValueError(
                f"model: {len(inner)} names were given; at least one is accepted, each with its own module"
            )
        for name, model in inner.items():
            self.add_module(name, model)
        self._run = run

    def forward(self, batch: Any) -> None:
        for model in self.children():
            self._run(model, batch)


def _run(model: nn.Module, batch: Any) -> None:
    device = next((parameter.device for parameter in model.parameters()), None)

    def here(value: Any) -> Any:
        return value.to(device, non_blocking=True) if isinstance(value, Tensor) and device is not None else value

    if isinstance(batch, Mapping):
        model(**{name: here(value) for name, value in batch.items()})
    else:
        model(here(batch[0] if isinstance(batch, tuple | list) else batch))


@contextmanager
def evaluating(*parts: object) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards every module is in the mode it was in.

    Args:
        parts: modules, wrapped or not; what is no module is left alone.
    """
    modules = [part for part in parts if isinstance(part, nn.Module)]
    modes = [(module, module.training) for part in modules for module in part.modules()]
    try:
        for part in modules:
            part.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside wrappers of DistributedDataParallel, Lightning Fabric and ``torch.compile``.

    Args:
        model: any module, wrapped or not.

    Raises:
        TypeError: it is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: a {type(model).__name__} was given; a torch.nn.Module is accepted")
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif "_orig_mod" in model._modules:  # torch.compile
            model = model._modules["_orig_mod"]  # type: ignore[assignment]
        elif type(model).__name__ == "_FabricModule":  # by its name, as Fabric need not be installed
            model = model._modules["_original_module"]  # type: ignore[assignment]
        else:
            return model


def _find(model: nn.Module, layers: Layers) -> list[str]:
    modules = dict(model.named_modules())
    if isinstance(layers, str):
        raise TypeError(f"layers: one string was given, {layers!r}; a list of names, a function or None is accepted")
    if layers is None:
        names = [name for name, module in modules.items() if _has_weight(name, module)]
        if not names:
            raise ValueError(f"layers: {type(model).__name__} has no layers with weights; give names")
    elif callable(layers):
        names = [name for name, module in modules.items() if layers(name, module)]
        if not names:
            raise ValueError("layers: the function chose no layer of the model")
    else:
        names = list(layers)
        if not names:
            raise ValueError("layers: the list is empty; give at least one name")
    for place, name in enumerate(names):
        if name not in modules:
            meant = suggest(str(name), modules)
            known = "" if meant else f" Its layers are {', '.join(filter(None, list(modules)[:12]))}."
            raise ValueError(f"layers: the model has no layer {name!r}.{meant}{known}")
        if name in names[:place]:
            raise ValueError(f"layers: {name!r} is named twice")
    return names


def _has_weight(name: str, module: nn.Module) -> bool:
    """Whether a module owns a matrix, itself or through a parametrisation."""
    if "parametrizations" in name.split("."):
        return False
    owned = list(module._parameters.values())
    owned += list(module._modules["parametrizations"].parameters()) if "parametrizations" in module._modules else []
    # An uninitialised parameter has no shape yet; it is a lazy layer's weight.
    return any(p is not None and (isinstance(p, nn.UninitializedParameter) or p.ndim >= 2) for p in owned)


def _is_inside(name: str, other: str) -> bool:
    return name != other and (other == "" or name.startswith(f"{other}."))


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _first_tensor(module: nn.Module, name: str, output: Any) -> Tensor:
    while not isinstance(output, Tensor | PackedSequence):
        inner = list(output.values()) if isinstance(output, Mapping) else output
        if not isinstance(inner, tuple | list) or not inner:
            raise TypeError(
                f"layers: {name!r} puts out a {type(output).__name__}; a layer whose output is or starts with a "
                "tensor is accepted"
            )
        output = inner[0]
    if isinstance(output, PackedSequence):
        return pad_packed_sequence(output, batch_first=True)[0]
    if getattr(module, "batch_first", True) is False and output.ndim == 3:
        return output.transpose(0, 1)
    return output
