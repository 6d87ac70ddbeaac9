"""Speech as a network hears it: mel filters, log-mel features, and a small streaming encoder."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from etude.nn.initialization import glorot_normal_

__all__ = ["LogMel", "StreamingConvNet", "mel_filters"]


def mel_filters(
    filters: int, bins: int, rate: float, *, lowest: float = 20.0, highest: float | None = None
) -> Float[Tensor, "{filters} {bins}"]:
    """Triangular filters that are equally wide and spaced on the mel scale, ``mel(f) = 2595 log10(1 + f / 700)``.

    Each rises from 0 at its left neighbour's centre to 1 at its own and falls to 0 at the right one's, so that between
    the first and the last centre they sum to 1.

    Args:
        filters: how many, at least 1.
        bins: frequencies of the spectrum, from 0 to half the rate.
        rate: samples a second.
        lowest: where the first filter begins, in Hz.
        highest: where the last one ends, in Hz; by default half the rate.

    Returns:
        (filters, bins).

    Raises:
        ValueError: frequencies out of order, or a filter so narrow that no bin falls into it.
    """
    highest = rate / 2 if highest is None else highest
    if not 0 <= lowest < highest <= rate / 2:
        raise ValueError(f"lowest={lowest!r}, highest={highest!r}: give 0 <= lowest < highest <= {rate / 2:g} Hz")

    def mel(frequency: Tensor) -> Tensor:
        return 2595 * torch.log10(1 + frequency / 700)

    low, high = mel(torch.tensor([lowest, highest], dtype=torch.float64))
    edges = torch.linspace(float(low), float(high), filters + 2, dtype=torch.float64)
    at = mel(torch.linspace(0, rate / 2, bins, dtype=torch.float64))
    rise = (at - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - at) / (edges[2:] - edges[1:-1])[:, None]
    triangles = torch.minimum(rise, fall).clamp(min=0)
    if empty := (triangles.sum(1) == 0).nonzero().flatten().tolist():
        raise ValueError(f"filters={filters}: no frequency of {bins} falls into filter {empty[0]}; give fewer filters")
    return triangles.float()


class LogMel(nn.Module):
    """Log-mel features: the logarithm of the power of short windows, summed over mel filters.

    Frame i is computed from the samples from ``i * hop`` to ``i * hop + window`` (weighted by a Hann window), without
    padding, so that it looks ahead no further than the window.

    Args:
        rate: samples a second.
        filters: mel filters.
        window: length of a window in seconds.
        hop: time between windows in seconds.
        floor: added to the power before the logarithm is taken, above 0.

    Raises:
        ValueError: a length below one sample, or as for `mel_filters`.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self, rate: int, filters: int = 40, *, window: float = 0.025, hop: float = 0.01, floor: float = 1e-6
    ) -> None:
        super().__init__()
        self.hop, length = round(hop * rate), round(window * rate)
        if self.hop < 1 or length < 2:
            raise ValueError(
                f"window={window!r}, hop={hop!r}: give seconds of at least 2 samples and 1 at {rate} a second"
            )
        self.size, self.floor = 2 ** math.ceil(math.log2(length)), floor
        self.register_buffer("window", torch.hann_window(length, periodic=False), persistent=False)
        self.register_buffer("filters", mel_filters(filters, self.size // 2 + 1, rate), persistent=False)

    def forward(self, waveforms: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch frames filters"]:
        """Features of a batch.

        Args:
            waveforms: (B, samples), zeros behind shorter ones.

        Returns:
            (B, `frames`, filters).
        """
        length = len(self.window)
        # torch.stft centres a window in its frame of `size` samples: with so much in front the first begins at 0.
        before = (self.size - length) // 2
        padded = nn.functional.pad(waveforms, (before, self.size - length - before))
        spectrum = torch.stft(padded, self.size, self.hop, length, self.window, center=False, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return (self.filters @ power + self.floor).log().transpose(1, 2)

    def frames(self, samples: Tensor) -> Tensor:
        """How many frames so many samples give.

        Args:
            samples: numbers of samples, each at least a window.
        """
        return (samples - len(self.window)) // self.hop + 1


class StreamingConvNet(nn.Module):
    """A convolutional encoder for speech that looks a bounded time ahead.

    Two causal convolutions halve the frame rate each; residual blocks of layer normalisation, convolution and ReLU
    follow, each of which sees `ahead` frames of the lower rate to the right; a linear layer gives log-probabilities. An
    output frame covers four input frames, and depends on none later than its own last one plus ``4 * blocks * ahead``.
    Inputs are standardised by ``mean`` and ``deviation``, which `standardise_by` sets and the state dictionary holds.

    Args:
        features: input features a frame.
        outputs: labels, the blank included.
        width: channels.
        blocks: residual blocks.
        kernel: frames that a block's convolution sees.
        ahead: how many of them lie ahead.
        generator: where the initial weights come from (Gaussian Glorot, biases zero); by default torch's own.

    Raises:
        ValueError: `ahead` is not in 0 to ``kernel - 1``.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        features: int,
        outputs: int,
        *,
        width: int = 64,
        blocks: int = 5,
        kernel: int = 7,
        ahead: int = 2,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= ahead < kernel:
            raise ValueError(f"ahead={ahead!r}: give a number of frames from 0 to {kernel - 1}")
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.context = (kernel - 1 - ahead, ahead)
        self.halvings = nn.ModuleList([nn.Conv1d(features, width, 4, stride=2), nn.Conv1d(width, width, 4, stride=2)])
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, kernel) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks + 1))
        self.output = nn.Linear(width, outputs)
        for layer in [*self.halvings, *self.convolutions, self.output]:
            glorot_normal_(layer.weight, generator)
            nn.init.zeros_(layer.bias)

    def standardise_by(self, frames: Float[Tensor, "frames features"]) -> None:
        """Shift and scale inputs so that these have mean 0 and variance 1 in each feature.

        Args:
            frames: of training utterances, without what is behind their ends.
        """
        self.deviation, self.mean = torch.std_mean(frames, 0)

    def forward(self, x: Float[Tensor, "batch frames features"]) -> Float[Tensor, "quarter batch outputs"]:
        """Log-probabilities, laid out as `torch.nn.functional.ctc_loss` takes them.

        Args:
            x: (B, T, features).

        Returns:
            (T // 4, B, outputs).
        """
        x = ((x - self.mean) / self.deviation).transpose(1, 2)
        for halving in self.halvings:
            x = halving(nn.functional.pad(x, (2, 0))).relu()
        for convolution, norm in zip(self.convolutions, self.norms):
            normed = norm(x.transpose(1, 2)).transpose(1, 2)
            x = x + convolution(nn.functional.pad(normed, self.context)).relu()
        return self.output(self.norms[-1](x.permute(2, 0, 1))).log_softmax(-1)
