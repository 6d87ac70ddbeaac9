"""Mel filters by their properties, features against a direct Fourier transform, and how far the encoder looks ahead."""

import math

import pytest
import torch

from etude.nn import LogMel, StreamingConvNet, mel_filters


def test_filters_sum_to_one_between_the_first_and_the_last_centre():
    filters = mel_filters(20, 513, 16_000)
    assert filters.shape == (20, 513)
    assert (filters >= 0).all()
    assert (filters <= 1).all()
    first, last = (int(filters[row].argmax()) for row in (0, -1))
    assert torch.allclose(filters[:, first + 1 : last].sum(0), torch.ones(last - first - 1), atol=1e-5)
    assert not filters[:, 0].any()


def test_centres_are_equally_spaced_on_the_mel_scale():
    rate, bins = 16_000, 40_001
    filters = mel_filters(10, bins, rate, lowest=100, highest=7000)
    hertz = filters.argmax(1) * (rate / 2 / (bins - 1))
    mel = 2595 * torch.log10(1 + hertz / 700)
    low, high = (2595 * math.log10(1 + f / 700) for f in (100, 7000))
    assert torch.allclose(mel, torch.linspace(low, high, 12)[1:-1], atol=0.2)


@pytest.mark.parametrize(("lowest", "highest"), [(-1, 4000), (500, 400), (0, 9000)])
def test_frequencies_out_of_order_are_refused(lowest, highest):
    with pytest.raises(ValueError, match=r"^lowest"):
        mel_filters(10, 129, 8000, lowest=lowest, highest=highest)


def test_filters_too_narrow_for_the_spectrum_are_refused():
    with pytest.raises(ValueError, match=r"^filters=200"):
        mel_filters(200, 129, 8000)


def test_features_agree_with_a_direct_fourier_transform():
    rate = 8000
    log_mel = LogMel(rate, 20, window=0.025, hop=0.01)
    x = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    features = log_mel(x)
    assert features.shape == (2, int(log_mel.frames(torch.tensor(1000))), 20)
    n = torch.arange(200, dtype=torch.float64)
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi * n / 199)
    wave = torch.exp(-2j * math.pi * torch.arange(129)[:, None] * n / 256)
    for frame in (0, 1, features.shape[1] - 1):
        part = x[:, 80 * frame : 80 * frame + 200].double() * hann
        power = (wave @ part.T.to(torch.complex128)).abs() ** 2
        expected = (mel_filters(20, 129, rate).double() @ power + 1e-6).log().T
        assert torch.allclose(features[:, frame].double(), expected, atol=1e-3)


def test_a_tone_is_loudest_where_it_is():
    t = torch.arange(4000) / 8000
    features = LogMel(8000, 30)(torch.stack([torch.sin(2 * math.pi * f * t) for f in (440.0, 1760.0)]))
    filters = mel_filters(30, 129, 8000)
    for row, frequency in enumerate((440.0, 1760.0)):
        assert int(features[row].mean(0).argmax()) == int(filters[:, round(frequency / 8000 * 256)].argmax())


def test_a_window_below_two_samples_is_refused():
    with pytest.raises(ValueError, match=r"^window"):
        LogMel(8000, window=1e-4)


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_output_frame_sees_what_is_promised_and_no_more(ahead):
    model = StreamingConvNet(6, 5, width=8, blocks=2, kernel=4, ahead=ahead, generator=torch.Generator().manual_seed(0))
    x = torch.randn(1, 84, 6, requires_grad=True)
    out = model(x)
    assert out.shape == (21, 1, 5)
    assert torch.allclose(out.exp().sum(-1), torch.ones(21, 1))
    (gradient,) = torch.autograd.grad(out[10].square().sum(), x)
    reach = gradient[0].abs().sum(-1).nonzero().flatten()
    last = 4 * 10 + 3 + 4 * 2 * ahead
    assert int(reach.max()) == last
    left = 4 * 2 * (3 - ahead) + 2 * 2 + 2
    assert int(reach.min()) >= 4 * 10 - left


def test_a_window_that_lies_ahead_altogether_is_refused():
    with pytest.raises(ValueError, match=r"^ahead=7"):
        StreamingConvNet(40, 11, ahead=7)


def test_inputs_are_standardised_by_what_was_given():
    model = StreamingConvNet(6, 5, width=8, blocks=1)
    x = torch.randn(1, 40, 6)
    expected = model(x)
    model.standardise_by(torch.randn(1000, 6) * 3 + 7)
    assert torch.allclose(model(x * model.deviation + model.mean), expected, atol=1e-5)
    assert {"mean", "deviation"} <= model.state_dict().keys()
