"""The rivals of Align With Purpose: what each of them computes, and that bad numbers are refused."""

import itertools
import math

import pytest
import torch
from torch.nn.functional import ctc_loss, kl_div, log_softmax

from etude.training import delay_penalised_ctc_loss, peak_first_loss, trim_tail


def log_probs(frames=8, batch=2, vocabulary=4, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return log_softmax(torch.randn(frames, batch, vocabulary, generator=draws, dtype=torch.float64), -1)


ARGS = torch.tensor([[1, 2], [2, 0]]), [8, 6], [2, 1]


def test_the_delay_penalty_weighs_every_alignment_by_its_bonus():
    """Against the sum over all alignments of exp(log-probability + bonus of its blanks)."""
    given = log_probs(5, 1, 3)
    given[2, 0] = log_softmax(torch.tensor([8.0, 0.0, 0.0], dtype=torch.float64), -1)  # the blank is nearly certain
    bonus = [0.0, 0.3, 0.0, 0.3, 0.6]
    total = 0.0
    for path in itertools.product(range(3), repeat=5):
        if [label for label, _ in itertools.groupby(path) if label] == [1, 2]:
            total += math.exp(sum(float(given[t, 0, v]) + bonus[t] * (v == 0) for t, v in enumerate(path)))
    loss = delay_penalised_ctc_loss(given, torch.tensor([[1, 2]]), [5], [2], weight=0.3)
    assert float(loss) == pytest.approx(-math.log(total) / 2)


def test_without_weight_it_is_torchs_loss_and_gradient():
    raw = torch.randn(8, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    ours = delay_penalised_ctc_loss(log_softmax(raw, -1), *ARGS, weight=0.0)
    torchs = ctc_loss(log_softmax(raw, -1), *ARGS)
    assert float(ours) == pytest.approx(float(torchs))
    one, two = (torch.autograd.grad(loss, raw)[0] for loss in (ours, torchs))
    assert torch.allclose(one, two)


def test_the_delay_penaltys_gradient_agrees_with_finite_differences():
    raw = torch.randn(8, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    value = 0.3
    assert torch.autograd.gradcheck(
        lambda raw: delay_penalised_ctc_loss(log_softmax(raw, -1), *ARGS, weight=value), raw
    )


def test_the_delay_penalty_prefers_early_alignments():
    raw = torch.zeros(6, 1, 3, dtype=torch.float64, requires_grad=True)
    slopes = []
    for weight in (0.0, 0.5):
        loss = delay_penalised_ctc_loss(log_softmax(raw, -1), torch.tensor([[1]]), [6], [1], weight=weight)
        (gradient,) = torch.autograd.grad(loss, raw)
        slopes.append(float(gradient[0, 0, 1] - gradient[-1, 0, 1]))
    assert slopes[0] == pytest.approx(0, abs=1e-12)
    assert slopes[1] < -0.01


def test_a_great_delay_penalty_over_many_frames_is_finite():
    raw = torch.randn(300, 2, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    loss = delay_penalised_ctc_loss(log_softmax(raw, -1), ARGS[0], [300, 200], [2, 1], weight=3.0)
    (gradient,) = torch.autograd.grad(loss, raw)
    assert gradient.isfinite().all()


def test_the_delay_penalty_for_another_blank():
    given = log_probs(5, 1, 3)
    swapped = delay_penalised_ctc_loss(given[..., [2, 1, 0]], torch.tensor([[1, 0]]), [5], [2], weight=0.3, blank=2)
    assert float(swapped) == pytest.approx(
        float(delay_penalised_ctc_loss(given, torch.tensor([[1, 2]]), [5], [2], weight=0.3))
    )


def test_peak_first_is_the_divergence_from_the_next_frame():
    given = log_probs().requires_grad_()
    loss = peak_first_loss(given, [8, 5])
    pairs = [(t, 0) for t in range(7)] + [(t, 1) for t in range(4)]
    expected = sum(kl_div(given[t, b], given[t + 1, b], reduction="sum", log_target=True) for t, b in pairs) / 11
    assert float(loss) == pytest.approx(float(expected))
    (gradient,) = torch.autograd.grad(loss, given)
    assert not gradient[7].any()  # the next frame is a fixed target, and the last has none
    assert not gradient[4:, 1].any()
    constant = log_probs(1).expand(8, -1, -1)
    assert float(peak_first_loss(constant, [8, 8])) == pytest.approx(0)


def test_trim_tail_cuts_uniformly_and_leaves_enough():
    lengths = torch.full((60_000,), 20)
    cut = lengths - trim_tail(lengths, 5, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(cut)
    assert len(counts) == 6
    assert (counts.float() / 10_000 - 1).abs().max() < 0.06
    kept = trim_tail(torch.tensor([9, 9, 3]), 8, at_least=torch.tensor([7, 9, 5]))
    assert (kept >= torch.tensor([7, 9, 3])).all()
    assert torch.equal(trim_tail(lengths[:5], 0), lengths[:5])


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: delay_penalised_ctc_loss(log_probs(), *ARGS, weight=-1.0), "weight"),
        (lambda: delay_penalised_ctc_loss(log_probs(), *ARGS, weight=1.0, boundary=0.0), "boundary"),
        (lambda: peak_first_loss(log_probs(1), [1, 1]), "log_probs"),
        (lambda: peak_first_loss(log_probs(), [8]), "input_lengths"),
        (lambda: trim_tail(torch.tensor([4]), -1), "longest"),
    ],
)
def test_numbers_out_of_range_are_refused(make, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        make()
