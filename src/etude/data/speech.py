"""Spoken digits, and connected utterances of them whose every token's time is known exactly."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from etude.data.locate import SOURCES, Source, listing, locate

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int
    from torch import Tensor

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LOW_TONES = (941.0, 697.0, 697.0, 697.0, 770.0, 770.0, 770.0, 852.0, 852.0, 852.0)
HIGH_TONES = (1336.0, 1209.0, 1336.0, 1477.0, 1209.0, 1336.0, 1477.0, 1209.0, 1336.0, 1477.0)
"""The tones of a key in Hz (recommendation ITU-T Q.23)."""
TAKES = {"test": range(5), "validation": range(5, 10), "train": range(10, 50)}
"""Takes 0 to 4 of every speaker and digit are the set's customary test part."""

SPOKEN_DIGITS = Source(
    "free-spoken-digits",
    files=listing("10d7bd359e362978d059eeebd7073c82d033723a3c46b23fc3eda0b2e03f1a47 14872624 recordings.parquet"),
)
SOURCES[SPOKEN_DIGITS.name] = SPOKEN_DIGITS


@dataclass(frozen=True, eq=False)
class SpokenDigits:
    """Recordings of single digits, one after the other in one tensor.

    Attributes:
        samples: all recordings, float32, each at a root mean square of 0.1.
        starts: where a recording begins, (speakers, 10, takes).
        lengths: its samples, (speakers, 10, takes).
        rate: samples a second.
        speakers: their names.
    """

    samples: Float[Tensor, " total"]
    starts: Int[Tensor, "speakers 10 takes"]
    lengths: Int[Tensor, "speakers 10 takes"]
    rate: int
    speakers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Utterances:
    """Connected digits.

    Attributes:
        waveforms: zeros behind the end of shorter ones, (n, samples).
        samples: length of each, (n,).
        digits: what is said, -1 behind the last, (n, most).
        counts: how many digits, (n,).
        begins: when each digit's recording begins, in seconds, 0 behind the last, (n, most).
        ends: when it ends.
        speakers: who speaks, (n,).
    """

    waveforms: Float[Tensor, "n samples"]
    samples: Int[Tensor, " n"]
    digits: Int[Tensor, "n most"]
    counts: Int[Tensor, " n"]
    begins: Float[Tensor, "n most"]
    ends: Float[Tensor, "n most"]
    speakers: Int[Tensor, " n"]


@lru_cache(maxsize=1)
def spoken_digits() -> SpokenDigits:
    """The Free Spoken Digit Dataset: 3,000 recordings at 8 kHz of 6 speakers, 10 digits and 50 takes (Jackson et al.).

    Treat the tensors as constants: they are read once.

    Raises:
        MissingData: the recordings are not at hand.
    """
    import pyarrow.parquet
    import torch

    table = pyarrow.parquet.read_table(locate(SPOKEN_DIGITS).paths["recordings.parquet"])
    speakers = tuple(sorted(set(table["speaker"].to_pylist())))
    places = np.array([speakers.index(name) for name in table["speaker"].to_pylist()])
    order = np.lexsort((table["take"].to_numpy(), table["digit"].to_numpy(), places))
    recordings = [_decode(content) for content in table["wav"].to_pylist()]
    (rate,) = {rate for _, rate in recordings}
    signals = [recordings[row][0] for row in order]
    lengths = torch.tensor([len(signal) for signal in signals])
    shape = (len(speakers), 10, len(signals) // (10 * len(speakers)))
    return SpokenDigits(
        torch.from_numpy(np.concatenate(signals)),
        (lengths.cumsum(0) - lengths).view(shape),
        lengths.view(shape),
        rate,
        speakers,
    )


@lru_cache(maxsize=1)
def dial_tones() -> SpokenDigits:
    """A made-up stand-in for recordings: the two tones of a telephone's keys, of 6 "speakers" at 50 takes of 10 digits.

    A speaker is a deviation of both tones of up to 1.5 %, a take a length of 0.1 to 0.3 seconds and a phase of each
    tone. Like `spoken_digits` in everything else. Treat the tensors as constants: they are made once.
    """
    import torch

    draws, rate, shape = torch.Generator().manual_seed(0), 8_000, (6, 10, 50)
    low, high = (torch.tensor(tones) for tones in (LOW_TONES, HIGH_TONES))
    tones = torch.stack([low, high]) * (1 + torch.linspace(-0.015, 0.015, shape[0])[:, None, None])
    lengths = torch.randint(rate // 10, 3 * rate // 10, shape, generator=draws)
    phases = 2 * torch.pi * torch.rand(2, *shape, generator=draws)
    starts = lengths.flatten().cumsum(0) - lengths.flatten()
    which = torch.repeat_interleave(lengths.flatten())
    time = (torch.arange(len(which)) - starts[which]) / rate
    frequencies = tones.movedim(1, 0)[..., None].expand(2, *shape).flatten(1)
    waves = [(2 * torch.pi * f[which] * time + p[which]).sin() for f, p in zip(frequencies, phases.flatten(1))]
    names = tuple(f"speaker {number}" for number in range(shape[0]))
    return SpokenDigits(LOUDNESS * (waves[0] + waves[1]), starts.view(shape), lengths, rate, names)


def connected_digits(
    recordings: SpokenDigits,
    n: int,
    *,
    takes: Sequence[int],
    generator: torch.Generator,
    speakers: Sequence[int] | None = None,
    digits: tuple[int, int] = (3, 6),
    gap: tuple[float, float] = (0.05, 0.3),
    snr: float | None = None,
) -> Utterances:
    """Utterances of one speaker each: digits drawn uniformly, with silences of random length before, between and after.

    Args:
        recordings: what they are made of.
        n: utterances.
        takes: the takes to draw from.
        generator: where everything random comes from; on the processor.
        speakers: numbers of the speakers to draw from; by default all.
        digits: least and greatest number of digits; each as probable as another.
        gap: least and greatest silence in seconds.
        snr: white noise is added to all of the utterance, whose power is so many decibels below the speech's; none
            when left out.

    Raises:
        ValueError: a take or speaker that is not there, or numbers out of order.
    """
    import torch

    who = range(len(recordings.speakers)) if speakers is None else speakers
    for name, given, size in (
        ("speakers", who, len(recordings.speakers)),
        ("takes", takes, recordings.starts.shape[2]),
    ):
        if not len(given) or min(given) < 0 or max(given) >= size:
            raise ValueError(f"{name}={list(given)!r}: give some of the numbers 0 to {size - 1}")
    if not 1 <= digits[0] <= digits[1]:
        raise ValueError(f"digits={digits!r}: give a least number of at least 1 and a greatest")
    if not 0 <= gap[0] <= gap[1]:
        raise ValueError(f"gap={gap!r}: give a least number of seconds of at least 0 and a greatest")

    def draw(choices: Sequence[int], *shape: int) -> Tensor:
        return torch.tensor(list(choices))[torch.randint(len(choices), shape, generator=generator)]

    most, rate = digits[1], recordings.rate
    speaker, count = draw(who, n), draw(range(digits[0], most + 1), n)
    said, take = draw(range(10), n, most), draw(takes, n, most)
    exists = torch.arange(most) < count[:, None]
    source = recordings.starts[speaker[:, None], said, take]
    length = recordings.lengths[speaker[:, None], said, take] * exists
    silence = (gap[0] + (gap[1] - gap[0]) * torch.rand(n, most + 1, generator=generator)) * rate
    silence = silence.long()
    begin = (silence[:, :-1] + length).cumsum(1) - length
    last = (begin + length).gather(1, count[:, None] - 1)
    total = (last + silence[:, -1:]).squeeze(1)

    waveforms = torch.zeros(n, int(total.max()) + 1)  # the last column takes what is beyond a recording
    reach = torch.arange(int(length.max()))
    for place in range(most):
        inside = reach < length[:, place, None]
        heard = recordings.samples[(source[:, place, None] + reach).clamp(max=len(recordings.samples) - 1)]
        at = torch.where(inside, begin[:, place, None] + reach, waveforms.shape[1] - 1)
        waveforms.scatter_(1, at, heard)
    waveforms = waveforms[:, :-1]
    if snr is not None:
        noise = torch.randn(waveforms.shape, generator=generator) * LOUDNESS * 10 ** (-snr / 20)
        waveforms = waveforms + noise * (torch.arange(waveforms.shape[1]) < total[:, None])
    return Utterances(
        waveforms,
        total,
        said.masked_fill(~exists, -1),
        count,
        (begin / rate) * exists,
        ((begin + length) / rate) * exists,
        speaker,
    )


LOUDNESS = 0.1
"""Root mean square of every recording: speakers and sessions differ in level, and noise is relative to it."""


def _decode(content: bytes) -> tuple[np.ndarray, int]:
    """The samples and the rate of a WAV file of one channel of 16-bit integers."""
    with wave.open(io.BytesIO(content)) as file:
        if (file.getnchannels(), file.getsampwidth()) != (1, 2):
            raise ValueError(
                f"content: {file.getnchannels()} channels of {8 * file.getsampwidth()} bits; one of 16 is read"
            )
        signal = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32)
        return signal * np.float32(LOUDNESS / np.sqrt(np.mean(signal.astype(np.float64) ** 2))), file.getframerate()
