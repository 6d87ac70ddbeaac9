"""What a score would be if there were nothing to find: samples shuffled, networks untrained, weights scrambled."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

__all__ = ["random_features", "shuffled", "untrained"]


def shuffled(
    x: Shaped[Tensor, "n units"], *, generator: torch.Generator | None = None, together: bool = False
) -> Shaped[Tensor, "n units"]:
    """Each unit's values in an order of its own: what each unit does is kept, what they do together is not.

    Args:
        x: one row a sample.
        generator: where orders are drawn from, on the processor; by default torch's own.
        together: one order for all units: they keep what they share among themselves and lose what they share with
            others.

    Returns:
        The same numbers in the same columns.

    Raises:
        ValueError: not two axes.
    """
    if x.ndim != 2:
        raise ValueError(f"x: a tensor of shape {tuple(x.shape)} was given; (samples, units) is accepted")
    if together:
        return x[torch.randperm(len(x), generator=generator).to(x.device)]
    # Ranks of random numbers are a permutation, one a column; ties, which doubles hardly have, do no harm.
    order = torch.rand(x.shape, dtype=torch.float64, generator=generator).argsort(0)
    return x.gather(0, order.to(x.device))


def untrained(model: nn.Module, *, generator: torch.Generator | None = None) -> nn.Module:
    """A copy of a network with weights as at the start of a training: every part's own ``reset_parameters``.

    Args:
        model: any module; it is not changed.
        generator: where the seed is drawn from; by default torch's own. Random states outside are left as they were.

    Raises:
        ValueError: a part has parameters and no ``reset_parameters``, so that how it starts is not known; it is named.
    """
    fresh = copy.deepcopy(model)
    parts = [(name, part) for name, part in fresh.named_modules() if _owns_weights(part)]
    for name, part in parts:
        if not callable(getattr(part, "reset_parameters", None)):
            raise ValueError(
                f"model: {name or 'the module itself'} ({type(part).__name__}) has weights and no reset_parameters(); "
                "build an untrained network yourself, or take random_features(model)"
            )
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for _, part in parts:
            part.reset_parameters()  # type: ignore[operator]
    return fresh


@torch.no_grad()
def random_features(model: nn.Module, *, generator: torch.Generator | None = None) -> nn.Module:
    """A copy of a network with the entries of each weight in random order: as large as learned ones, with no order.

    Unlike those of an `untrained` network its weights have the sizes that training gave them. Parameters with one axis
    (biases, normalisation) are permuted too; buffers stay.

    Args:
        model: any module; it is not changed.
        generator: where orders are drawn from, on the processor; by default torch's own.
    """
    scrambled = copy.deepcopy(model)
    for parameter in scrambled.parameters():
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return scrambled


def _owns_weights(part: nn.Module) -> bool:
    return any(parameter is not None for parameter in part._parameters.values())
