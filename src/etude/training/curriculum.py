"""Curricula: how many examples an epoch shows, and which ones.

An epoch of size S shows ``floor(S n)`` of n examples, drawn without replacement with probabilities proportional to
scores. Scores say what is drawn first (the easy, the hard, any); sizes say how much, and rise and fall with the epoch.
Where the sizes of two schedules add up to the same budget, both show the same number of examples.

Source: Kesgin and Amasyali, Cyclical Curriculum Learning, IEEE Transactions on Neural Networks and Learning Systems
2023 (arXiv 2202.05531), and its code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from fractions import Fraction
from typing import Any

import numpy as np
import torch
import torch.distributed
from jaxtyping import Float, Float64, Int64, Real
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DistributedSampler, RandomSampler

Numbers = Real[Tensor, " n"] | Real[np.ndarray, " n"]

__all__ = [
    "CurriculumSampler",
    "constant_sizes",
    "cycle_moments",
    "cycle_sizes",
    "easy_scores",
    "effective_sample_size",
    "exponential_scores",
    "growing_sizes",
    "hard_scores",
    "per_sample_loss",
    "random_scores",
    "sample_without_replacement",
    "shrinking_sizes",
]


# ---- how many examples ---------------------------------------------------------------------------------------------


def cycle_sizes(budget: float, start: float = 0.25, end: float = 1.0, multiplier: float = 0.5) -> tuple[float, ...]:
    """Sizes that rise from `start` to `end` and fall back, over and over: S, S/a, S/a^2, ..., end, a end, ..., S, ...

    ``cycle_sizes(3)`` is (0.25, 0.5, 1, 0.5, 0.25, 0.5). With the defaults a cycle has four epochs of mean size 0.5625.

    Args:
        budget: examples to show, as a multiple of the data set; above 0.
        start: least size, a fraction of the data set in (0, 1].
        end: greatest size, in [start, 1].
        multiplier: a, the ratio of neighbouring sizes, in (0, 1); the last step to either end may be shorter.

    Returns:
        The size of each epoch. They are computed without rounding, from the decimals given, and end with the epoch
        that reaches the budget: ``budget <= sum < budget + end``.

    Raises:
        ValueError: a number out of range.
    """
    low, high, ratio = _range(start, end, multiplier)
    rising, falling = [low], [high]
    while rising[-1] < high:
        rising.append(min(rising[-1] / ratio, high))
    while falling[-1] > low:
        falling.append(max(falling[-1] * ratio, low))
    cycle = (*rising, *falling[1:-1])
    return _until(budget, lambda epoch: cycle[epoch % len(cycle)])


def growing_sizes(
    budget: float, start: float = 0.25, end: float = 1.0, multiplier: float = 0.5, repeats: int = 1
) -> tuple[float, ...]:
    """Sizes that only rise: S, S/a, S/a^2, ..., each `repeats` times, and `end` from there on.

    Args:
        budget: as for `cycle_sizes`.
        start: the first size, in (0, 1].
        end: the last size, in [start, 1].
        multiplier: a, in (0, 1).
        repeats: epochs of each size but the last, at least 1.

    Returns:
        The size of each epoch, as for `cycle_sizes`.

    Raises:
        ValueError: a number out of range.
    """
    low, high, ratio = _range(start, end, multiplier)
    _check_count("repeats", repeats, 1)
    return _until(budget, lambda epoch: min(low / ratio ** (epoch // repeats), high))


def shrinking_sizes(
    budget: float, start: float = 1.0, end: float = 0.25, multiplier: float = 0.5, repeats: int = 1
) -> tuple[float, ...]:
    """Sizes that only fall: S, a S, a^2 S, ..., each `repeats` times, and `end` from there on.

    Args:
        budget: as for `cycle_sizes`; it is overshot by less than `start`.
        start: the first size, in [end, 1].
        end: the last size, in (0, 1].
        multiplier: a, in (0, 1).
        repeats: epochs of each size but the last, at least 1.

    Returns:
        The size of each epoch, as for `cycle_sizes`.

    Raises:
        ValueError: a number out of range.
    """
    low, high, ratio = _range(end, start, multiplier, names=("end", "start"))
    _check_count("repeats", repeats, 1)
    return _until(budget, lambda epoch: max(high * ratio ** (epoch // repeats), low))


def constant_sizes(budget: float, size: float = 1.0) -> tuple[float, ...]:
    """One size for all epochs; 1 is ordinary training, and 0.5625 the mean of `cycle_sizes`.

    Args:
        budget: as for `cycle_sizes`.
        size: a fraction of the data set in (0, 1].

    Returns:
        The size of each epoch, as for `cycle_sizes`.

    Raises:
        ValueError: a number out of range.
    """
    only = _range(size, size, 0.5, names=("size", "size"))[0]
    return _until(budget, lambda epoch: only)


def _range(
    low: float, high: float, multiplier: float, names: tuple[str, str] = ("start", "end")
) -> tuple[Fraction, Fraction, Fraction]:
    for name, value in zip(names, (low, high)):
        if not _is_number(value) or not 0 < value <= 1:
            raise ValueError(f"{name}={value!r}: give a fraction of the data set, above 0 and at most 1")
    if low > high:
        raise ValueError(f"{names[0]}={low!r} is above {names[1]}={high!r}")
    if not _is_number(multiplier) or not 0 < multiplier < 1:
        raise ValueError(f"multiplier={multiplier!r}: give a number between 0 and 1, both excluded")
    return _decimal(low), _decimal(high), _decimal(multiplier)


def _decimal(value: float) -> Fraction:
    """The decimal as it is written: in binary 0.49 / 0.7 * 0.7 would not come back to 0.49."""
    return Fraction(str(float(value)))


def _until(budget: float, size: Callable[[int], Fraction]) -> tuple[float, ...]:
    if not _is_number(budget) or not 0 < budget < math.inf:
        raise ValueError(f"budget={budget!r}: give a finite number of passes over the data, above 0")
    sizes = [size(0)]
    shown, wanted = sizes[0], _decimal(budget)
    while shown < wanted:
        sizes.append(size(len(sizes)))
        shown += sizes[-1]
    return tuple(map(float, sizes))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _check_count(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r}: give a whole number of at least {least}")


# ---- which examples ------------------------------------------------------------------------------------------------


@torch.no_grad()
def per_sample_loss(
    model: nn.Module,
    batches: Iterable[tuple[Any, Any]],
    loss: Callable[[Any, Any], Tensor] | None = None,
) -> Float[Tensor, " n"]:
    """The loss of each example, in evaluation mode: how hard a trained model finds it.

    Args:
        model: called as ``model(inputs)``; its training mode is left as it was.
        batches: pairs of inputs and targets in the order of the data set, such as a `DataLoader` that does not
            shuffle; tensors are moved to the model's device.
        loss: ``loss(outputs, targets)``, one number an example, or one a token of an example: these are summed. By
            default cross-entropy.

    Returns:
        Shape (n,), on the model's device, in at least single precision.

    Raises:
        ValueError: the loader shuffles or leaves examples out, there are no batches, or `loss` averages over examples.
    """
    if isinstance(getattr(batches, "sampler", None), (RandomSampler, DistributedSampler)):
        raise ValueError("batches: the loader shuffles, and losses would belong to other examples; give shuffle=False")
    if getattr(batches, "drop_last", False):
        raise ValueError("batches: the loader leaves out the last examples; give drop_last=False")
    measure = _cross_entropy if loss is None else loss
    device = next((parameter.device for parameter in model.parameters()), None)
    training = model.training
    model.eval()
    losses = []
    try:
        for inputs, targets in batches:
            inputs, targets = (part.to(device) if isinstance(part, Tensor) else part for part in (inputs, targets))
            each = measure(model(inputs), targets)
            if each.ndim == 0 or len(each) != len(targets):
                raise ValueError(
                    f"loss: {len(targets)} examples gave a loss of shape {tuple(each.shape)}; give one number an "
                    "example (reduction='none')"
                )
            losses.append(each.flatten(1).sum(1) if each.ndim > 1 else each)
    finally:
        model.train(training)
    if not losses:
        raise ValueError("batches: there are none")
    found = torch.cat(losses)
    return found.to(torch.promote_types(found.dtype, torch.float32))


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none")


def easy_scores(losses: Numbers, floor: float = 1e-3, temperature: float = 1.0) -> Float64[Tensor, " n"]:
    """The easy first: ``max(loss, floor) ** (-1 / temperature)``.

    Args:
        losses: (n,), not negative, as from `per_sample_loss`.
        floor: losses below count as this. The paper has none, and an example learnt to a loss of 1e-7 is then drawn
            ten million times as likely as one of loss 1.
        temperature: above 0; greater ones level the scores.

    Returns:
        Scores, (n,).

    Raises:
        TypeError: losses that are no tensor or array.
        ValueError: a loss that is negative or not finite, or a number out of range.
    """
    return _power(losses, floor, temperature, -1)


def hard_scores(losses: Numbers, floor: float = 1e-7, temperature: float = 1.0) -> Float64[Tensor, " n"]:
    """The hard first (anti-curriculum): ``max(loss, floor) ** (1 / temperature)``.

    Args:
        losses: (n,), not negative.
        floor: losses below count as this, so that every example can be drawn.
        temperature: above 0; greater ones level the scores.

    Returns:
        Scores, (n,).

    Raises:
        TypeError: losses that are no tensor or array.
        ValueError: a loss that is negative or not finite, or a number out of range.
    """
    return _power(losses, floor, temperature, 1)


def random_scores(losses: Numbers) -> Float64[Tensor, " n"]:
    """One for each example: all are drawn alike.

    Args:
        losses: (n,); only their number counts.

    Returns:
        Scores, (n,).

    Raises:
        TypeError: losses that are no tensor or array.
        ValueError: a loss that is negative or not finite.
    """
    return torch.ones_like(_checked("losses", losses))


def exponential_scores(losses: Numbers, rate: float = 0.5) -> Float64[Tensor, " n"]:
    """The density ``rate * exp(-rate * loss)``, zeros replaced by the least positive score.

    Args:
        losses: (n,), not negative.
        rate: above 0; the paper's code has 5, 0.5 and 0.25.

    Returns:
        Scores, (n,).

    Raises:
        TypeError: losses that are no tensor or array.
        ValueError: a loss that is negative or not finite, a `rate` out of range, or one so great that all scores are 0.
    """
    _check_positive("rate", rate)
    scores = rate * torch.exp(-rate * _checked("losses", losses))
    positive = scores[scores > 0]
    if not len(positive):
        raise ValueError(f"rate={rate!r}: at these losses all scores are 0; give a smaller one")
    return torch.where(scores > 0, scores, positive.min())


def effective_sample_size(scores: Numbers) -> float:
    """How many examples take part in a draw, ``(sum s)^2 / sum s^2``: n where all scores are equal, 1 where one rules.

    Args:
        scores: (n,), not negative, not all zero.

    Raises:
        TypeError: scores that are no tensor or array.
        ValueError: a score that is negative or not finite, or only zeros.
    """
    weights = _scores(scores)
    weights = weights / weights.max()
    return float(weights.sum() ** 2 / weights.square().sum())


def sample_without_replacement(
    scores: Real[Tensor, "*batch n"] | Real[np.ndarray, "*batch n"], k: int, generator: torch.Generator | None = None
) -> Int64[Tensor, "*batch k"]:
    """k successive draws, each with probability proportional to the scores of what is left (Plackett-Luce).

    With independent exponential e_i the indices of the k least ``log e_i - log s_i`` are such draws, in their order
    (the Gumbel top-k trick). Logarithms in double precision do not underflow, so scores may span any range.

    Args:
        scores: (..., n), not negative, on any device; an example of score 0 is never drawn.
        k: how many, from 1 to the number of positive scores.
        generator: on the device of the scores; by default torch's own.

    Returns:
        Indices in the order they were drawn, (..., k); each row of a batch is a draw of its own.

    Raises:
        TypeError: scores that are no tensor or array.
        ValueError: a score that is negative or not finite, or `k` out of range.

    Source: Efraimidis and Spirakis, Weighted Random Sampling with a Reservoir, 2006; Kool et al., Stochastic Beams
    and Where to Find Them, 2019 (arXiv 1903.06059), section 2.
    """
    weights = _scores(scores)
    _check_count("k", k, 1)
    most = int((weights > 0).sum(-1).min())
    if k > most:
        raise ValueError(f"k={k}: only {most} scores are positive, and nothing else can be drawn")
    return _first(weights.log(), k, generator, ordered=True)


def _first(logarithms: Tensor, k: int, generator: torch.Generator | None, ordered: bool) -> Tensor:
    arrivals = torch.empty_like(logarithms).exponential_(generator=generator).log_().sub_(logarithms)
    return arrivals.topk(k, largest=False, sorted=ordered).indices


def _power(losses: Numbers, floor: float, temperature: float, sign: int) -> Tensor:
    _check_positive("floor", floor)
    _check_positive("temperature", temperature)
    return _checked("losses", losses).clamp(min=floor) ** (sign / temperature)


def _scores(scores: Tensor | np.ndarray) -> Tensor:
    found = _checked("scores", scores)
    if not (found > 0).any():
        raise ValueError("scores: all are zero, and nothing could be drawn")
    return found


def _checked(name: str, values: Tensor | np.ndarray) -> Tensor:
    """The values in double precision."""
    if not isinstance(values, (Tensor, np.ndarray)):
        raise TypeError(f"{name}: a {type(values).__name__} was given; a tensor or array of numbers is accepted")
    found = torch.as_tensor(values).detach().to(torch.float64)
    if found.ndim == 0 or not found.numel():
        raise ValueError(f"{name}: shape {tuple(found.shape)} was given; at least one number an example is accepted")
    if not bool(torch.isfinite(found).all()) or bool((found < 0).any()):
        raise ValueError(f"{name}: some are negative, infinite or NaN; finite numbers of at least 0 are accepted")
    return found


def _check_positive(name: str, value: float) -> None:
    if not _is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name}={value!r}: give a finite number above 0")


class CurriculumSampler(DistributedSampler[int]):
    """A sampler whose epochs have sizes of their own and draw examples by score: three lines in a loop you have.

    Epoch t shows ``k = floor(sizes[t] n)`` examples in random order, drawn as by `sample_without_replacement`. What it
    draws depends on the scores, `seed` and t alone.

    It works under a plain loop, distributed data parallel and Lightning Fabric alike. Where several processes train
    together, all of them draw the same k examples, k being rounded down to a multiple of their number, and each shows
    its own part of them: the parts are disjoint, of one length, and cover the draw. So give all processes the same
    scores (broadcast them, if each computes its own). It is a `torch.utils.data.DistributedSampler`, so Fabric's
    ``setup_dataloaders`` leaves it in place and sets the epoch at each pass. What shards any sampler by itself (as
    Accelerate does) needs ``num_replicas=1, rank=0`` here.

    Args:
        dataset: what the indices are for; only its length is used.
        scores: one an example, not negative, such as `easy_scores` of the losses of a model that is trained; higher
            ones are drawn first, and an example of score 0 never.
        sizes: a fraction of the data set for each epoch, such as `cycle_sizes`.
        seed: a whole number, at least 0.
        num_replicas: processes that train together; by default those of `torch.distributed` once it is initialised,
            else 1.
        rank: which of them this one is, from 0; by default as `torch.distributed` says, else 0.

    Raises:
        TypeError: scores that are no tensor or array.
        ValueError: scores that do not fit the data set, are negative, not finite or all zero; no sizes, or one that is
            no fraction, shows no example, or asks for more than have a positive score; another number out of range.

    Example:
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
        >>> dataset, model = TensorDataset(x, x.sum(1).gt(0).long()), nn.Linear(8, 2)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> losses = per_sample_loss(model, DataLoader(dataset, 32))  # of a model that is trained, usually
        >>> sampler = CurriculumSampler(dataset, easy_scores(losses), cycle_sizes(budget=3))  # added
        >>> loader = DataLoader(dataset, batch_size=8, sampler=sampler)  # added: sampler=
        >>> for epoch in range(sampler.epochs):
        ...     sampler.set_epoch(epoch)  # added
        ...     for inputs, targets in loader:
        ...         optimizer.zero_grad()
        ...         functional.cross_entropy(model(inputs), targets).backward()
        ...         optimizer.step()
        ...     print(epoch, len(sampler), len(loader))
        0 16 2
        1 32 4
        2 64 8
        3 32 4
        4 16 2
        5 32 4
    """

    def __init__(
        self,
        dataset: Sized,
        scores: Numbers,
        sizes: Sequence[float],
        *,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        # The parent's own arguments are not: it has one length for all epochs, and asks for the processes at once.
        self._length = len(dataset)
        self.sizes = tuple(sizes)
        if not self.sizes:
            raise ValueError("sizes: there are none; give the size of each epoch, such as cycle_sizes(30)")
        for epoch, size in enumerate(self.sizes):
            if not _is_number(size) or not 0 < size <= 1:
                raise ValueError(f"sizes[{epoch}]={size!r}: give a fraction of the data set, above 0 and at most 1")
        _check_count("seed", seed, 0)
        self.seed, self.epoch = seed, 0
        if num_replicas is not None:
            _check_count("num_replicas", num_replicas, 1)
        if rank is not None:
            _check_count("rank", rank, 0)
        self._replicas, self._rank = num_replicas, rank
        if self.rank >= self.num_replicas:
            raise ValueError(f"rank={self.rank}: with num_replicas={self.num_replicas} it is below that")
        self.update_scores(scores)

    def update_scores(self, scores: Numbers) -> None:
        """Draw by other scores from the next epoch on: self-taught, if they come from the model that is trained.

        Args:
            scores: one an example, in all processes the same.

        Raises:
            TypeError: scores that are no tensor or array.
            ValueError: as for the class.
        """
        found = _scores(scores).cpu()
        if found.shape != (self._length,):
            raise ValueError(f"scores: shape {tuple(found.shape)} was given; the data set has {self._length} examples")
        positive = int((found > 0).sum())
        for epoch, size in enumerate(self.sizes):
            if (shown := self._shown(size)) < 1:
                raise ValueError(
                    f"sizes[{epoch}]={size!r} of {self._length} examples leaves none to show"
                    + f" in {self.num_replicas} processes" * (self.num_replicas > 1)
                )
            if shown > positive:
                raise ValueError(
                    f"scores: {positive} are positive, and sizes[{epoch}]={size!r} asks for {shown} examples"
                )
        self.scores, self._logarithms = found, found.log()
        self._drawable = found.nonzero().flatten()

    @property
    def epochs(self) -> int:
        """How many epochs the schedule has."""
        return len(self.sizes)

    @property
    def num_replicas(self) -> int:  # type: ignore[override]
        """How many processes train together."""
        return _processes()[0] if self._replicas is None else self._replicas

    @property
    def rank(self) -> int:  # type: ignore[override]
        """Which of them this one is."""
        return _processes()[1] if self._rank is None else self._rank

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch, from 0; its size is the sampler's length from now on.

        Args:
            epoch: below `epochs`.

        Raises:
            ValueError: the schedule has no such epoch.
        """
        _check_count("epoch", epoch, 0)
        if epoch >= self.epochs:
            raise ValueError(f"epoch={epoch}: the schedule has {self.epochs} epochs, counted from 0")
        self.epoch = epoch

    def indices(self) -> Int64[Tensor, " shown"]:
        """The examples this process shows in the current epoch, in their order."""
        shown = self._shown(self.sizes[self.epoch])
        state = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]))
        if shown == len(self._drawable):
            drawn = self._drawable
        else:
            drawn = _first(self._logarithms, shown, generator, ordered=False)
        return drawn[torch.randperm(shown, generator=generator)[self.rank :: self.num_replicas]]

    def __iter__(self) -> Iterator[int]:
        for part in self.indices().split(2**16):
            yield from part.tolist()

    def __len__(self) -> int:
        return self._shown(self.sizes[self.epoch]) // self.num_replicas

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on at the start of the current epoch."""
        return {"epoch": self.epoch, "seed": self.seed, "sizes": list(self.sizes), "scores": self.scores.clone()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where a sampler of the same data set was. (Fabric counts its own passes, from 0, after this.)

        Args:
            state_dict: as `state_dict` gave it.

        Raises:
            KeyError: an entry is missing.
            ValueError: as for the class; the sampler is then left as it was.
        """
        other = CurriculumSampler(
            range(self._length),
            state_dict["scores"],
            state_dict["sizes"],
            seed=state_dict["seed"],
            num_replicas=self._replicas,
            rank=self._rank,
        )
        other.set_epoch(state_dict["epoch"])
        self.__dict__.update(other.__dict__)

    def _shown(self, size: float) -> int:
        # A product such as 0.29 * 100 may fall just short of the whole number it stands for.
        return math.floor(size * self._length + 1e-9) // self.num_replicas * self.num_replicas


def _processes() -> tuple[int, int]:
    """How many processes train together now, and which of them this is."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size(), torch.distributed.get_rank()
    return 1, 0


# ---- what alternation does -----------------------------------------------------------------------------------------


def cycle_moments(
    phases: Sequence[tuple[Float[Tensor, "_ features"], Float[Tensor, " _"], int]], learning_rate: float
) -> tuple[Float64[Tensor, "phases features"], Float64[Tensor, "phases features features"]]:
    """Where gradient descent settles that alternates between data sets, for linear regression: mean and covariance.

    A step draws one example of its phase's data and sets ``w <- w - learning_rate * x (x.w - y)``. With h = (w, 1)
    that is ``h <- A_i h``, so ``E[h h^T] <- mean_i A_i E[h h^T] A_i^T``: a phase is a power of a linear map, a cycle
    the product of its phases, and its fixed point (the solution of a discrete Lyapunov equation, the noise that
    depends on the weights included) holds both moments. Few examples with small residuals have a mean of their own
    but little spread; all examples have the right mean and more spread.

    Args:
        phases: inputs (n, features), targets (n,) and number of steps of each phase, in the order of a cycle.
        learning_rate: above 0, small enough that the second moment converges.

    Returns:
        Mean (phases, features) and covariance (phases, features, features) of the weights at the end of each phase,
        after infinitely many cycles.

    Raises:
        ValueError: no phases, a number out of range, inputs and targets that do not fit, or a `learning_rate` at
            which the moments grow without end.
    """
    if not phases:
        raise ValueError("phases: there are none; give inputs, targets and steps of each")
    _check_positive("learning_rate", learning_rate)
    maps = []
    for number, (inputs, targets, steps) in enumerate(phases):
        _check_count(f"phases[{number}]: steps", steps, 1)
        if inputs.ndim != 2 or targets.shape != inputs.shape[:1] or inputs.shape[1] != phases[0][0].shape[1]:
            raise ValueError(
                f"phases[{number}]: inputs {tuple(inputs.shape)} and targets {tuple(targets.shape)} were given; "
                "(n, features) and (n,), of the same features in all phases, are accepted"
            )
        x, y = inputs.double(), targets.double()
        size = x.shape[1] + 1
        step = torch.eye(size, dtype=x.dtype).expand(len(x), size, size).clone()
        step[:, :-1, :-1] -= learning_rate * x[:, :, None] * x[:, None, :]
        step[:, :-1, -1] += learning_rate * x * y[:, None]
        on_moments = torch.einsum("nij,nkl->ikjl", step, step).reshape(size**2, size**2) / len(x)
        maps.append(torch.linalg.matrix_power(on_moments, steps))
    cycle = torch.eye(len(maps[0]), dtype=torch.float64)
    for phase in maps:
        cycle = phase @ cycle
    growth = float(torch.linalg.eigvals(cycle[:-1, :-1]).abs().max())
    if not growth < 1:
        raise ValueError(f"learning_rate={learning_rate!r}: the second moment grows {growth:.3g}-fold in a cycle")
    # The last row of every map is (0, ..., 0, 1): the moment of the constant with itself stays 1.
    moments = torch.ones(len(cycle), dtype=torch.float64)
    moments[:-1] = torch.linalg.solve(torch.eye(len(cycle) - 1) - cycle[:-1, :-1], cycle[:-1, -1])
    means, covariances = [], []
    for phase in maps:
        moments = phase @ moments
        second = moments.reshape(size, size)
        means.append(second[:-1, -1])
        covariances.append(second[:-1, :-1] - torch.outer(second[:-1, -1], second[:-1, -1]))
    return torch.stack(means), torch.stack(covariances)
