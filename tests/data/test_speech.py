"""Connected digits: every token is where it is said to be; and recordings that are absent are named."""

import io
import wave

import numpy as np
import pytest
import torch

from etude.data import SpokenDigits, available, connected_digits, dial_tones, spoken_digits
from etude.data.speech import LOUDNESS, TAKES, _decode
from etude.errors import MissingData


def made_up(speakers=3, takes=4, seed=0):
    """Recordings of different lengths whose every sample tells where it is from."""
    lengths = torch.randint(40, 90, (speakers, 10, takes), generator=torch.Generator().manual_seed(seed))
    starts = (lengths.flatten().cumsum(0) - lengths.flatten()).view_as(lengths)
    samples = torch.arange(1.0, float(lengths.sum()) + 1)
    return SpokenDigits(samples, starts, lengths, 100, ("a", "b", "c")[:speakers])


def utterances(n=200, seed=0, **options):
    return connected_digits(
        made_up(), n, generator=torch.Generator().manual_seed(seed), **{"takes": range(4), **options}
    )


def test_every_token_is_one_recording_at_its_time_and_the_rest_is_silence():
    recordings, made = made_up(), utterances()
    for item in range(len(made.counts)):
        heard = torch.zeros(made.waveforms.shape[1], dtype=torch.bool)
        for place in range(int(made.counts[item])):
            digit, who = int(made.digits[item, place]), int(made.speakers[item])
            begin, end = (round(float(times[item, place]) * 100) for times in (made.begins, made.ends))
            part = made.waveforms[item, begin:end]
            start = int(part[0]) - 1
            (take,) = (recordings.starts[who, digit] == start).nonzero().flatten().tolist()
            assert end - begin == int(recordings.lengths[who, digit, take])
            assert torch.equal(part, recordings.samples[start : start + end - begin])
            assert not heard[begin:end].any()
            heard[begin:end] = True
        assert not made.waveforms[item, ~heard].any()


def test_silences_and_numbers_of_digits_are_as_asked():
    made = utterances(n=2000, digits=(2, 4), gap=(0.1, 0.5))
    assert set(made.counts.tolist()) == {2, 3, 4}
    exists = torch.arange(4) < made.counts[:, None]
    before = made.begins - torch.nn.functional.pad(made.ends, (1, 0))[:, :-1]
    silences = before[exists]
    assert float(silences.min()) == pytest.approx(0.1)
    assert 0.48 <= float(silences.max()) <= 0.5
    after = made.samples / 100 - made.ends.gather(1, made.counts[:, None] - 1).squeeze(1)
    assert float(after.min()) >= 0.1 - 1e-5
    assert (made.digits[~exists] == -1).all()


def test_takes_and_speakers_are_those_allowed():
    recordings = made_up()
    made = utterances(takes=[1], speakers=[2])
    allowed = recordings.samples[
        torch.cat([torch.arange(s, s + n) for s, n in zip(recordings.starts[2, :, 1], recordings.lengths[2, :, 1])])
    ]
    assert torch.isin(made.waveforms[made.waveforms > 0], allowed).all()
    assert not set(TAKES["train"]) & {*TAKES["validation"], *TAKES["test"]}
    assert not set(TAKES["validation"]) & set(TAKES["test"])


def test_noise_is_as_loud_as_asked_within_the_utterance():
    made, quiet = utterances(snr=10), utterances()
    noise = made.waveforms - quiet.waveforms
    inside = torch.arange(noise.shape[1]) < made.samples[:, None]
    assert float(noise[inside].std()) == pytest.approx(LOUDNESS * 10**-0.5, rel=0.02)
    assert not made.waveforms[~inside].any()


def test_the_generator_decides_everything():
    assert torch.equal(utterances(snr=5).waveforms, utterances(snr=5).waveforms)
    assert not torch.equal(utterances().digits, utterances(seed=1).digits)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"takes": [4]}, "takes"),
        ({"takes": []}, "takes"),
        ({"speakers": [3]}, "speakers"),
        ({"digits": (0, 2)}, "digits"),
        ({"digits": (4, 2)}, "digits"),
        ({"gap": (0.3, 0.1)}, "gap"),
    ],
)
def test_what_is_not_there_is_refused_by_name(options, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        utterances(**options)


def recording(samples, channels=1):
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(np.asarray(samples, "<i2").tobytes())
    return stream.getvalue()


def test_recordings_are_decoded_at_one_loudness():
    signal, rate = _decode(recording([100, -200, 300, 0]))
    assert rate == 8000
    assert np.allclose(signal / signal[0], [1, -2, 3, 0])
    assert np.sqrt(np.mean(signal**2)) == pytest.approx(LOUDNESS)
    with pytest.raises(ValueError, match=r"^content: 2 channels"):
        _decode(recording([1, 2, 3, 4], channels=2))


def test_absent_recordings_are_named_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("ETUDE_DATA", str(tmp_path))
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    spoken_digits.cache_clear()
    with pytest.raises(MissingData, match=r"free-spoken-digits holds recordings\.parquet"):
        spoken_digits()


def test_the_recordings_are_those_of_the_set():
    if not next(status.present for status in available() if status.name == "free-spoken-digits"):
        pytest.skip("the Free Spoken Digit Dataset is not at hand")
    recordings = spoken_digits()
    assert recordings.starts.shape == recordings.lengths.shape == (6, 10, 50)
    assert recordings.speakers == ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    assert recordings.rate == 8000
    assert int(recordings.lengths.sum()) == len(recordings.samples)
    assert recordings.samples.isfinite().all()


def test_dial_tones_are_two_tones_of_known_frequency_in_the_layout_of_the_recordings():
    tones = dial_tones()
    assert tones.starts.shape == tones.lengths.shape == (6, 10, 50)
    assert int((tones.starts + tones.lengths).max()) == len(tones.samples)
    start, length = int(tones.starts[5, 0, 49]), int(tones.lengths[5, 0, 49])
    wave = tones.samples[start : start + length] * torch.hann_window(length)
    power = torch.fft.rfft(wave, 80_000).abs()  # a bin each 0.1 Hz
    peaks = [int(power[lowest : lowest + 3000].argmax()) + lowest for lowest in (8_000, 12_000)]
    assert peaks == pytest.approx([10 * 941 * 1.015, 10 * 1336 * 1.015], abs=15)
    assert float(tones.samples.square().mean().sqrt()) == pytest.approx(LOUDNESS, rel=0.01)
