"""Magnitude pruning: masks, iterative pruning with rewinding, and the controls a sparse network is compared with.

A network is written f(x; m * theta): weights theta and a mask m of zeros and ones of the same shapes. Training the
full network, removing the smallest weights and putting the survivors back to their initial values theta_0, several
times over, finds sparse networks that train as well as the full one: winning tickets.

Source: Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019 (arXiv 1803.03635), section 2,
appendices B to F.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from os import PathLike
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Shaped
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from etude.errors import suggest
from etude.nn.initialization import glorot_normal_

R = TypeVar("R")
State = Mapping[str, Tensor]
Rate = float | Mapping[str, float]
Scope = Literal["layer", "global"]
Initialiser = Callable[[Tensor, torch.Generator], Any]

__all__ = [
    "Level",
    "Mask",
    "early_stop",
    "iterative_magnitude_pruning",
    "keep_sign",
    "magnitude_mask",
    "masked",
    "perturb",
    "prunable",
    "random_mask",
    "reinitialise",
    "reinitialise_from_ticket",
    "shuffle_within_layer",
    "time_to_level",
]


@dataclass(frozen=True, eq=False)
class Mask:
    """Which weights of a network are kept: an ordered mapping from parameter name to a tensor of booleans.

    Args:
        layers: for each pruned parameter a tensor of the parameter's shape, true (or 1) where the weight is kept.

    Raises:
        ValueError: no layers, an empty layer, or entries other than zero and one; the message names the layer.
    """

    layers: dict[str, Shaped[Tensor, "*shape"]]

    def __post_init__(self) -> None:
        if not isinstance(self.layers, Mapping) or not self.layers:
            raise ValueError("layers: a mask needs at least one parameter name with its tensor of zeros and ones")
        layers = {}
        for name, kept in self.layers.items():
            if not isinstance(kept, Tensor):
                raise TypeError(f"layers[{name!r}] is a {type(kept).__name__}; a mask holds tensors")
            if kept.numel() == 0:
                raise ValueError(f"layers[{name!r}] has no entries")
            if kept.dtype != torch.bool and not ((kept == 0) | (kept == 1)).all():
                raise ValueError(f"layers[{name!r}] has entries other than 0 and 1")
            layers[name] = kept.detach().to(torch.bool)
        object.__setattr__(self, "layers", layers)

    @classmethod
    def full(cls, module: nn.Module, names: Iterable[str] | None = None) -> Mask:
        """The mask that keeps every weight of `names` (by default of everything `prunable`)."""
        names = prunable(module) if names is None else names
        return cls({name: torch.ones_like(_parameter(module, name), dtype=torch.bool) for name in names})

    def __getitem__(self, name: str) -> Bool[Tensor, "*shape"]:
        return self.layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def keys(self) -> Iterable[str]:
        """Parameter names, in order."""
        return self.layers.keys()

    def items(self) -> Iterable[tuple[str, Bool[Tensor, "*shape"]]]:
        """Parameter names with their tensors, in order."""
        return self.layers.items()

    def counts(self) -> dict[str, int]:
        """How many weights each layer keeps."""
        return {name: int(kept.sum()) for name, kept in self.layers.items()}

    def density(self) -> float:
        """The fraction of weights kept, ||m||_0 / |m|; biases are neither pruned nor counted."""
        return sum(self.counts().values()) / sum(kept.numel() for kept in self.layers.values())

    def per_layer(self) -> dict[str, float]:
        """The fraction of weights kept in each layer."""
        return {name: count / self.layers[name].numel() for name, count in self.counts().items()}

    def select(self, weights: State) -> dict[str, Tensor]:
        """A copy of a state dictionary with the pruned weights at exactly zero, m * theta.

        Raises:
            ValueError: the state lacks a masked parameter, or has it in another shape.
        """
        self._check({name: value.shape for name, value in weights.items()})
        state = {name: value.detach().clone() for name, value in weights.items()}
        for name, kept in self.layers.items():
            state[name].masked_fill_(~kept.to(state[name].device), 0)
        return state

    @torch.no_grad()
    def apply_(self, module: nn.Module) -> nn.Module:
        """Set the pruned weights of a module to exactly zero, in place, and return the module.

        Raises:
            ValueError: the module lacks a masked parameter, or has it in another shape.
        """
        self._check(_shapes(module))
        for name, kept in self.layers.items():
            parameter = _parameter(module, name)
            parameter.masked_fill_(~kept.to(parameter.device), 0)
        return module

    def __and__(self, other: Mask) -> Mask:
        return self._combine(other, torch.logical_and)

    def __or__(self, other: Mask) -> Mask:
        return self._combine(other, torch.logical_or)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return list(self) == list(other) and all(
            kept.shape == other[name].shape and torch.equal(kept, other[name].to(kept.device))
            for name, kept in self.layers.items()
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Mask(density={self.density():.4g}, {', '.join(f'{n}: {c}' for n, c in self.counts().items())})"

    def save(self, path: str | PathLike[str]) -> None:
        """Write the mask as safetensors, with the order of its layers."""
        tensors = {name: kept.contiguous().cpu() for name, kept in self.layers.items()}
        save_file(tensors, path, metadata={"order": json.dumps(list(self.layers))})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Mask:
        """Read a mask that `save` wrote.

        Raises:
            ValueError: the file holds something else.
        """
        with safe_open(path, "pt") as file:
            order = json.loads((file.metadata() or {}).get("order", "null"))
            if order is None or set(order) != set(file.keys()):
                raise ValueError(f"path: {path} is a safetensors file, but no mask saved by Mask.save")
            return cls({name: file.get_tensor(name) for name in order})

    def _check(self, shapes: Mapping[str, torch.Size]) -> None:
        for name, kept in self.layers.items():
            if name not in shapes:
                raise ValueError(f"mask: the network has no parameter {name!r}.{suggest(name, shapes)}")
            if shapes[name] != kept.shape:
                raise ValueError(
                    f"mask: {name!r} has shape {tuple(kept.shape)} in the mask and {tuple(shapes[name])} in the network"
                )

    def _combine(self, other: Mask, operation: Callable[[Tensor, Tensor], Tensor]) -> Mask:
        if not isinstance(other, Mask):
            raise TypeError(f"a mask combines with a mask, not with a {type(other).__name__}")
        if set(self) != set(other):
            raise ValueError(f"masks of different layers: {sorted(set(self) ^ set(other))} are in one only")
        self._check({name: kept.shape for name, kept in other.items()})
        return Mask({name: operation(kept, other[name].to(kept.device)) for name, kept in self.layers.items()})


def prunable(
    module: nn.Module, types: tuple[type[nn.Module], ...] = (nn.Linear, _ConvNd), exclude: Sequence[str] = ()
) -> tuple[str, ...]:
    """Names of the weights that are pruned: those of the linear and convolution layers, never the biases.

    Args:
        module: any network.
        types: layer classes whose ``weight`` is pruned.
        exclude: parameter names, or patterns such as ``"shortcut.*"``, to leave out.

    Returns:
        Parameter names in the order of ``module.named_modules()``.

    Raises:
        ValueError: nothing is left to prune; a pattern in `exclude` matches nothing; a weight is shared between two
            places (it cannot have two masks), is not initialised yet, or is computed by another parametrisation.
    """
    names: list[str] = []
    for path, layer in module.named_modules():
        if not isinstance(layer, types):
            continue
        name = f"{path}.weight" if path else "weight"
        computed = getattr(layer, "parametrizations", {})
        if "weight" in computed and not all(isinstance(part, _Hold) for part in computed["weight"]):
            raise ValueError(f"module: {name!r} is computed by a parametrisation; remove that before pruning")
        if not parametrize.is_parametrized(layer, "weight") and not isinstance(
            layer._parameters.get("weight"), nn.Parameter
        ):
            raise ValueError(f"module: {name!r} is not a parameter of its own (weight normalisation or pruning hooks?)")
        names.append(name)
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"exclude: {pattern!r} matches no weight.{suggest(pattern, names)}")
    names = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in exclude)]
    if not names:
        raise ValueError(f"module: {type(module).__name__} has no weights to prune")
    places: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        places.setdefault(id(parameter), []).append(name)
    for name in names:
        weight = _parameter(module, name)
        if isinstance(weight, nn.parameter.UninitializedParameter):
            raise ValueError(f"module: {name!r} has no shape yet; run the module once on an input")
        if len(places[id(weight)]) > 1:
            raise ValueError(
                f"module: one weight is shared by {places[id(weight)]}; pruning it is ambiguous, so exclude it"
            )
    return tuple(names)


def magnitude_mask(
    weights: nn.Module | State,
    mask: Mask | None = None,
    *,
    rate: Rate,
    scope: Scope = "layer",
    min_per_layer: int = 1,
) -> Mask:
    """Remove the smallest weights that are still kept.

    Exactly ``round(rate * survivors)`` weights go (halves to even). Among equal magnitudes the one that comes first in
    the flattened layer (for `scope="global"`: in the first layer) goes first.

    Args:
        weights: a network, or its state dictionary.
        mask: the weights still kept; by default all that are `prunable`. A state dictionary needs one.
        rate: fraction of the survivors to remove, in (0, 1). With ``scope="layer"`` also a mapping from names or
            patterns to fractions in [0, 1): a full name comes before ``"output"`` (the last layer), which comes
            before patterns in their order, such as ``{"output": 0.1, "conv*": 0.15, "*": 0.2}``.
        scope: rank the weights within each layer, or all together.
        min_per_layer: how many weights a layer must keep.

    Returns:
        A mask that keeps a subset of `mask`.

    Raises:
        ValueError: a rate out of range or for no layer, a mask that does not fit, a weight that is not finite, or a
            layer that would keep fewer than `min_per_layer` weights.

    Source: section 2 ("identifying winning tickets") and appendix H (layer-wise and global rates).
    """
    if mask is None:
        if not isinstance(weights, nn.Module):
            raise ValueError("mask: give one with a state dictionary; only a module says which weights are prunable")
        mask = Mask.full(weights)
    rates = _rates(rate, list(mask), scope)
    if isinstance(weights, nn.Module):
        mask._check(_shapes(weights))
        values = {name: _parameter(weights, name).detach() for name in mask}
    else:
        mask._check({name: value.shape for name, value in weights.items()})
        values = {name: weights[name].detach() for name in mask}
    survivors = {name: values[name][kept.to(values[name].device)].abs() for name, kept in mask.items()}
    for name, magnitudes in survivors.items():
        if not torch.isfinite(magnitudes).all():
            raise ValueError(f"weights: {name!r} holds values that are not finite; the training has diverged")

    if scope == "global":
        device = next(iter(survivors.values())).device
        ranked = torch.cat([magnitudes.to(device) for magnitudes in survivors.values()])
        kept_flat = _keep_largest(ranked, rates[next(iter(mask))])
        keeps = dict(zip(survivors, kept_flat.split([len(magnitudes) for magnitudes in survivors.values()])))
    else:
        keeps = {name: _keep_largest(magnitudes, rates[name]) for name, magnitudes in survivors.items()}

    layers = {}
    for name, kept in mask.items():
        if int(keeps[name].sum()) < min_per_layer:
            raise ValueError(
                f"rate: layer {name!r} would keep {int(keeps[name].sum())} of its {kept.numel()} weights, "
                f"fewer than min_per_layer={min_per_layer}; prune less or exclude it"
            )
        layers[name] = torch.zeros_like(kept).masked_scatter_(kept, keeps[name].to(kept.device))
    return Mask(layers)


def random_mask(like: Mask, generator: torch.Generator) -> Mask:
    """A mask that keeps as many weights in each layer as `like`, at positions drawn uniformly.

    Args:
        like: the mask whose counts are kept.
        generator: where the positions come from.

    Returns:
        A mask of the same layers, shapes and counts, on the same devices.

    Source: appendix E.
    """
    layers = {}
    for name, kept in like.items():
        order = torch.randperm(kept.numel(), generator=generator, device=generator.device).to(kept.device)
        layers[name] = (order < kept.sum()).view(kept.shape)
    return Mask(layers)


def masked(module: nn.Module, mask: Mask) -> Masked:
    """Keep the pruned weights of a module at exactly zero, whatever any optimiser does.

    Each masked weight becomes ``m * theta`` of a stored theta, so momentum, moments, weight decay and noise
    act on theta alone and pruned entries receive no gradient. Make the optimiser afterwards. Call ``remove()`` on what
    is returned, or use it in a ``with`` statement, to get plain parameters with the pruned entries at zero.

    Raises:
        ValueError: the mask does not fit the module, or the module is masked already.
    """
    mask._check(_shapes(module))
    for name in mask:
        layer, leaf = _place(module, name)
        if parametrize.is_parametrized(layer, leaf):
            raise ValueError(f"module: {name!r} already has a parametrisation; remove it first")
    for name, kept in mask.items():
        layer, leaf = _place(module, name)
        parametrize.register_parametrization(layer, leaf, _Hold(kept.to(_parameter(module, name), copy=True)))
    return Masked(module, mask)


class Masked:
    """A module whose mask is being held; made by `masked`."""

    def __init__(self, module: nn.Module, mask: Mask) -> None:
        self.module, self.mask = module, mask

    def remove(self) -> None:
        """Make the weights plain parameters again, the pruned ones at zero. Calling it twice does nothing."""
        for name in self.mask:
            layer, leaf = _place(self.module, name)
            if parametrize.is_parametrized(layer, leaf):
                parametrize.remove_parametrizations(layer, leaf, leave_parametrized=True)
        self.mask.apply_(self.module)  # +0 also where the stored weight was negative or infinite

    def __enter__(self) -> nn.Module:
        return self.module

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


class _Hold(nn.Module):
    """theta -> m * theta, with m in theta's type: on a processor a tenth of the time of `torch.where`."""

    def __init__(self, kept: Float[Tensor, "*shape"]) -> None:
        super().__init__()
        self.register_buffer("kept", kept)
        self.kept: Tensor

    def forward(self, theta: Tensor) -> Tensor:
        return theta * self.kept

    def right_inverse(self, weight: Tensor) -> Tensor:
        return self.forward(weight)


@dataclass(frozen=True, eq=False)
class Level(Generic[R]):
    """One level of iterative pruning: a mask, and what training the network under it gave.

    Attributes:
        index: rounds of pruning so far; 0 is the full network.
        mask: the weights kept while training.
        initial: state dictionary of the full network at the rewinding point (the same at every level).
        trained: state dictionary after training under the mask.
        result: whatever the training function returned.
    """

    index: int
    mask: Mask
    initial: dict[str, Tensor]
    trained: dict[str, Tensor]
    result: R

    @property
    def ticket(self) -> dict[str, Tensor]:
        """The sparse network before training, m * theta_0, as a state dictionary."""
        return self.mask.select(self.initial)


def iterative_magnitude_pruning(
    model: nn.Module,
    train: Callable[..., R],
    *,
    rounds: int,
    rate: Rate | Sequence[Rate] = 0.2,
    scope: Scope = "layer",
    mask: Mask | None = None,
    rewind_to: int = 0,
    strategy: Literal["reset", "continue"] = "reset",
    hold: bool = True,
    seed: int | None = None,
    min_per_layer: int = 1,
) -> Iterator[Level[R]]:
    """Train, prune, put the survivors back to where they started, repeat: the search for winning tickets.

    Level n trains f(x; m_n * theta_0) and gets m_(n+1) from m_n by removing a fraction of the survivors that are
    smallest after training. One round with the whole fraction is one-shot pruning. To reach a density d in n rounds
    use ``rate = 1 - d ** (1 / n)``. Nothing is trained before the first level is asked for, and each level is handed
    out as soon as it is trained.

    Args:
        model: the initialised network. It is copied, never changed.
        train: ``train(model, mask)`` trains the model it is given, in place, and returns anything (it becomes
            `Level.result`). With ``rewind_to`` above 0 it is called as ``train(model, mask, start=0, stop=rewind_to)``
            once, and then as ``train(model, mask, start=rewind_to, stop=None)`` at every level: iterations `start` up
            to, not including, `stop` of its schedule, with a new optimiser each time, so that no optimiser state
            leaks from one level to the next.
        rounds: how often to prune, at least 1; ``rounds + 1`` levels are trained.
        rate: as for `magnitude_mask`; or a sequence with one a round.
        scope: as for `magnitude_mask`.
        mask: where to start; by default everything `prunable` is kept.
        rewind_to: the training iteration whose state (buffers such as batch statistics included) the survivors go
            back to; 0 is initialisation.
        strategy: ``"reset"`` rewinds after each round; ``"continue"`` goes on from the trained weights, and only
            `Level.ticket` is rewound (appendix B, strategy 2).
        hold: keep pruned weights at zero with `masked` while `train` runs. With ``False`` that is up to `train`
            (faster where it can be done cheaply), and it is checked afterwards.
        seed: if given, torch's global generators are set to it for each call of `train`, so that every level draws the
            same data order and dropout; they are left as they were found.
        min_per_layer: as for `magnitude_mask`.

    Yields:
        One `Level` a density, from the full network down.

    Raises:
        ValueError: an argument out of range, a network without weights to prune, weights that are not finite when
            they are to be pruned, or (``hold=False``) pruned weights that `train` moved away from zero.

    Example:
        >>> digits = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        >>> def train(model, mask):
        ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        ...     for step in range(20):
        ...         loss = nn.functional.cross_entropy(model(digits), torch.arange(32) % 10)
        ...         optimizer.zero_grad(), loss.backward(), optimizer.step()
        ...     return loss.item()
        >>> for level in iterative_magnitude_pruning(model, train, rounds=3, rate={"output": 0.1, "*": 0.2}):
        ...     print(level.index, level.mask.counts(), f"{level.mask.density():.1%}")
        0 {'0.weight': 36, '4.weight': 1440} 100.0%
        1 {'0.weight': 29, '4.weight': 1296} 89.8%
        2 {'0.weight': 23, '4.weight': 1166} 80.6%
        3 {'0.weight': 18, '4.weight': 1049} 72.3%

    Source: section 2; strategies in appendix B. Rewinding to an iteration k > 0: Frankle et al., Linear Mode
    Connectivity and the Lottery Ticket Hypothesis, ICML 2020 (arXiv 1912.05671).
    """
    if not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"rounds={rounds!r}: give a whole number of at least 1")
    if not isinstance(rewind_to, int) or rewind_to < 0:
        raise ValueError(f"rewind_to={rewind_to!r}: give an iteration, at least 0")
    if strategy not in ("reset", "continue"):
        raise ValueError(f"strategy={strategy!r}: give 'reset' or 'continue'")
    full = Mask.full(model) if mask is None else mask
    full._check(_shapes(model))
    rates = list(rate) if isinstance(rate, Sequence) else [rate] * rounds
    if len(rates) != rounds:
        raise ValueError(f"rate: {len(rates)} rates were given for rounds={rounds}")
    for each in rates:
        _rates(each, list(full), scope)
    model = copy.deepcopy(model)  # from here on the caller's model may change

    def trained(weights: State, mask: Mask, **part: Any) -> tuple[dict[str, Tensor], R]:
        network = copy.deepcopy(model)
        network.load_state_dict(weights)
        mask.apply_(network)
        with masked(network, mask) if hold else nullcontext(), _seeded(seed, network):
            result = train(network, mask, **part)
        state = _state(network)
        for name, kept in mask.items():
            if not hold and state[name][~kept.to(state[name].device)].count_nonzero():
                raise ValueError(f"train: it moved pruned weights of {name!r} away from zero; use hold=True")
        return state, result

    def levels() -> Iterator[Level[R]]:
        initial, part, current = _state(model), {}, full
        if rewind_to:
            initial, _ = trained(initial, current, start=0, stop=rewind_to)
            part = {"start": rewind_to, "stop": None}
        start = initial
        for index in range(rounds + 1):
            state, result = trained(start, current, **part)
            yield Level(index, current, dict(initial), state, result)
            if index < rounds:
                current = magnitude_mask(state, current, rate=rates[index], scope=scope, min_per_layer=min_per_layer)
                start = initial if strategy == "reset" else state

    return levels()


def reinitialise(
    initial: State, mask: Mask, generator: torch.Generator, init: Initialiser = glorot_normal_
) -> dict[str, Tensor]:
    """The paper's main control: the same mask with new weights, m * theta_0'.

    Args:
        initial: state dictionary at initialisation.
        mask: its layers are drawn anew; biases and all else stay.
        generator: where the draws come from. Every weight is drawn, kept or not, so that masks can be compared.
        init: ``init(weight, generator)`` fills a tensor in place, as the initial weights were drawn.

    Returns:
        A new state dictionary, pruned weights at exactly zero.

    Raises:
        ValueError: the mask does not fit the state.
    """
    return mask.select(_changed(initial, mask, lambda weight, kept: _drawn(weight, generator, init)))


def reinitialise_from_ticket(initial: State, mask: Mask, generator: torch.Generator) -> dict[str, Tensor]:
    """New weights drawn with replacement from each layer's kept initial weights (appendix F.3).

    Arguments, result and errors as for `reinitialise`.
    """

    def change(weight: Tensor, kept: Tensor) -> Tensor:
        values = weight[kept]
        chosen = torch.randint(len(values), (len(values),), generator=generator, device=generator.device)
        return torch.zeros_like(weight).masked_scatter_(kept, values[chosen.to(weight.device)])

    return _changed(initial, mask, change)


def keep_sign(
    initial: State, mask: Mask, generator: torch.Generator, init: Initialiser = glorot_normal_
) -> dict[str, Tensor]:
    """New magnitudes with the signs of the initial weights, m * sign(theta_0) * abs(theta_0').

    Arguments, result and errors as for `reinitialise`.

    Source: Zhou et al., Deconstructing Lottery Tickets, NeurIPS 2019 (arXiv 1905.01067).
    """
    return mask.select(
        _changed(initial, mask, lambda weight, kept: _drawn(weight, generator, init).abs() * weight.sign())
    )


def perturb(initial: State, mask: Mask, sigma: float, generator: torch.Generator) -> dict[str, Tensor]:
    """The ticket with noise on its initial weights (appendix F.7).

    Args:
        initial: state dictionary at initialisation.
        mask: the layers that receive noise.
        sigma: standard deviation of the noise in units of each layer's own at initialisation, at least 0.
        generator: where the noise comes from.

    Returns:
        A new state dictionary, pruned weights at exactly zero.

    Raises:
        ValueError: `sigma` is negative or not finite, or the mask does not fit the state.
    """
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma={sigma!r}: give a number of at least 0")

    def change(weight: Tensor, kept: Tensor) -> Tensor:
        noise = _drawn(weight, generator, lambda new, source: new.normal_(generator=source))
        return weight + sigma * weight.std(correction=0) * noise

    return mask.select(_changed(initial, mask, change))


def shuffle_within_layer(initial: State, mask: Mask, generator: torch.Generator) -> dict[str, Tensor]:
    """The ticket's own initial weights, exchanged among the kept positions of each layer.

    Arguments, result and errors as for `reinitialise`.
    """

    def change(weight: Tensor, kept: Tensor) -> Tensor:
        values = weight[kept]
        order = torch.randperm(len(values), generator=generator, device=generator.device).to(weight.device)
        return torch.zeros_like(weight).masked_scatter_(kept, values[order])

    return _changed(initial, mask, change)


def early_stop(losses: Tensor | Sequence[float], smooth: int = 1) -> int:
    """Index of the least validation loss: the paper's measure of how fast a network learns.

    Args:
        losses: one a time of evaluation; those that are not finite never count as least.
        smooth: evaluations averaged around each one, an odd number; at the ends fewer.

    Returns:
        The first index where the (averaged) loss is least.

    Raises:
        ValueError: no finite loss, or `smooth` is not odd and positive.
    """
    curve = torch.as_tensor(losses, dtype=torch.float64).flatten()
    if smooth < 1 or smooth % 2 == 0:
        raise ValueError(f"smooth={smooth!r}: give an odd number of at least 1")
    if not torch.isfinite(curve).any():
        raise ValueError("losses: there is no finite value among them")
    curve = torch.where(torch.isfinite(curve), curve, torch.inf)
    reach = smooth // 2
    means = [curve[max(0, i - reach) : i + reach + 1].mean().item() for i in range(len(curve))] if reach else curve
    return int(torch.as_tensor(means).argmin())


def time_to_level(losses: Tensor | Sequence[float], level: float) -> int | None:
    """How soon a curve reaches a level.

    Args:
        losses: one a time of evaluation; those that are not finite reach nothing.
        level: in the units of the losses.

    Returns:
        The index of the first loss at or below the level, or None if there is none.
    """
    below = torch.as_tensor(losses, dtype=torch.float64).flatten() <= level
    return int(below.int().argmax()) if below.any() else None


def _rates(rate: Rate, names: list[str], scope: str) -> dict[str, float]:
    """The rate of each layer."""
    if scope not in ("layer", "global"):
        raise ValueError(f"scope={scope!r}: give 'layer' or 'global'")
    if not isinstance(rate, Mapping):
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < 1:
            raise ValueError(f"rate={rate!r}: give a fraction between 0 and 1, both excluded")
        return dict.fromkeys(names, float(rate))
    if scope == "global":
        raise ValueError("rate: a global threshold takes one rate for all layers, not a mapping")
    for key, value in rate.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise ValueError(f"rate[{key!r}]={value!r}: give a fraction of at least 0 and below 1")
        if key not in ("output", "*") and not any(fnmatchcase(name, key) for name in names):
            raise ValueError(f"rate[{key!r}] matches no layer.{suggest(key, names)} The layers are {names}")
    found = {}
    for name in names:
        patterns = [key for key in rate if key not in (name, "output") and fnmatchcase(name, key)]
        keys = [name] * (name in rate) + ["output"] * (name == names[-1] and "output" in rate) + patterns
        if not keys:
            raise ValueError(f"rate: no rate is given for layer {name!r}; add it, or '*' for all others")
        found[name] = float(rate[keys[0]])
    if not any(found.values()):
        raise ValueError("rate: all rates are 0, so nothing would be pruned")
    return found


def _keep_largest(magnitudes: Float[Tensor, " survivors"], rate: float) -> Bool[Tensor, " survivors"]:
    order = torch.argsort(magnitudes, stable=True)
    keep = torch.ones_like(magnitudes, dtype=torch.bool)
    keep[order[: round(rate * len(magnitudes))]] = False
    return keep


def _place(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf


def _parameter(module: nn.Module, name: str) -> Tensor:
    """A parameter by name; of a module held by `masked`, the stored one."""
    layer, leaf = _place(module, name)
    if parametrize.is_parametrized(layer, leaf):
        layer, leaf = layer.get_submodule(f"parametrizations.{leaf}"), "original"
    value: Tensor = getattr(layer, leaf)
    return value


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {
        name.replace("parametrizations.", "").removesuffix(".original"): parameter.shape
        for name, parameter in module.named_parameters(remove_duplicate=False)
    }


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _changed(weights: State, mask: Mask, change: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    mask._check({name: value.shape for name, value in weights.items()})
    state = {name: value.detach().clone() for name, value in weights.items()}
    for name, kept in mask.items():
        state[name] = change(state[name], kept.to(state[name].device))
    return state


def _drawn(like: Tensor, generator: torch.Generator, init: Initialiser) -> Tensor:
    new = torch.empty(like.shape, dtype=like.dtype, device=generator.device)
    with torch.no_grad():
        init(new, generator)
    return new.to(like.device)


class _seeded:
    """torch's global generators at a seed, and back as they were; with None, nothing."""

    def __init__(self, seed: int | None, module: nn.Module) -> None:
        devices = {parameter.device for parameter in module.parameters() if parameter.is_cuda}
        self.seed, self.fork = seed, torch.random.fork_rng(devices=sorted(d.index for d in devices))

    def __enter__(self) -> None:
        if self.seed is not None:
            self.fork.__enter__()
            torch.manual_seed(self.seed)

    def __exit__(self, *error: Any) -> None:
        if self.seed is not None:
            self.fork.__exit__(*error)
