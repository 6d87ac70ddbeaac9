"""The training loop against one written out by hand, its masks, and what it refuses."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from etude.compression import Mask, magnitude_mask
from etude.training import evaluate, fit


def data(n, seed):
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=draws), torch.randint(3, (n,), generator=draws)


TRAIN, VALIDATION, TEST = data(50, 0), data(20, 1), data(30, 2)


def network():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.0), nn.ReLU(), nn.Linear(8, 3))
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=draws)
    return model


def run(model, *, seed=4, **options):
    options = {"steps": 33, "batch": 8, "evaluate_every": 5} | options
    options.setdefault("optimizer", partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    return fit(model, TRAIN, VALIDATION, TEST, generator=torch.Generator().manual_seed(seed), **options)


def test_equals_the_loop_written_out():
    model, mine = network(), network()
    result = run(model)
    optimizer, draws, step, curve = torch.optim.SGD(mine.parameters(), lr=0.1, momentum=0.9), torch.Generator(), 0, {}
    draws.manual_seed(4)
    while step < 33:
        order = torch.randperm(50, generator=draws)
        for start in range(0, 48, 8):  # the last two examples of each order are left out
            if step == 33:
                break
            batch = order[start : start + 8]
            optimizer.zero_grad()
            cross_entropy(mine(TRAIN[0][batch]), TRAIN[1][batch]).backward()
            optimizer.step()
            step += 1
            if step % 5 == 0 or step == 33:
                mine.eval()
                with torch.no_grad():
                    curve[step] = cross_entropy(mine(VALIDATION[0]), VALIDATION[1]).item()
                    test = (mine(TEST[0]).argmax(1) == TEST[1]).float().mean().item()
                if curve[step] == min(curve.values()):
                    best = step, test
                mine.train()
    for name, value in mine.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value)
        assert torch.equal(result.weights[name], model.state_dict()[name])
    assert result.steps.tolist() == list(curve) == [5, 10, 15, 20, 25, 30, 33]
    assert result.validation_loss.tolist() == pytest.approx(list(curve.values()), rel=1e-5)
    assert (result.best_step, result.best_accuracy) == pytest.approx(best)
    assert result.final_accuracy == pytest.approx(test)
    assert model.training


def test_the_same_seed_gives_the_same_run_and_test_data_change_nothing():
    first, second = run(network()), fit(
        network(), TRAIN, VALIDATION, data(5, 9), steps=33, batch=8, evaluate_every=5,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9), generator=torch.Generator().manual_seed(4),
    )  # fmt: skip
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    assert torch.equal(first.validation_loss, second.validation_loss)
    other = run(network(), seed=5)
    assert not torch.equal(first.weights["0.weight"], other.weights["0.weight"])


def test_examples_of_an_epoch_are_visited_once():
    seen = []

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 3)

        def forward(self, x):
            if self.training:
                seen.extend(x[:, 0].int().tolist())
            return self.layer(x)

    examples = torch.arange(24.0).view(-1, 1), torch.zeros(24, dtype=torch.long)
    sgd = partial(torch.optim.SGD, lr=0.0)
    fit(Watch(), *[examples] * 3, steps=9, batch=8, optimizer=sgd, generator=torch.Generator(), evaluate_every=2)
    epochs = [seen[:24], seen[24:48], seen[48:]]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


OPTIMIZERS = [
    partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-2),
    partial(torch.optim.Adam, lr=1e-2, fused=True),
    partial(torch.optim.Adam, lr=1e-2, weight_decay=1e-2),
    partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1),
    partial(torch.optim.RMSprop, lr=1e-3, weight_decay=1e-2),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "adam-fused", "adam", "adamw", "rmsprop"])
def test_masked_weights_stay_exactly_zero_and_match_the_masked_network(optimizer):
    from etude.compression import masked

    model, peer = network(), network()
    mask = magnitude_mask(model, rate=0.6)
    result = run(model, steps=200, optimizer=optimizer, mask=mask.layers)
    for name, kept in mask.items():
        assert result.weights[name][~kept].eq(0).all()
        assert result.weights[name][kept].ne(0).any()
    with masked(peer, mask):
        run(peer, steps=200, optimizer=optimizer)
    for name, value in peer.state_dict().items():
        torch.testing.assert_close(result.weights[name], value, rtol=1e-4, atol=1e-5)


def test_a_full_mask_changes_nothing():
    plain, full = run(network()), run(network(), mask=Mask.full(network()).layers)
    assert all(torch.equal(plain.weights[name], full.weights[name]) for name in plain.weights)


def test_early_stopping_reports_the_best_weights_and_leaves_the_last():
    exploding = run(network(), optimizer=partial(torch.optim.SGD, lr=30.0), evaluate_every=1)
    assert exploding.best_step == exploding.steps[exploding.validation_loss.argmin()]
    assert exploding.best_step < 33
    assert not exploding.censored
    still = run(network(), optimizer=partial(torch.optim.SGD, lr=1e-3), steps=5, evaluate_every=5)
    assert still.censored
    assert still.best_accuracy == still.final_accuracy


def test_a_diverged_run_has_no_best_step():
    model = network()
    with torch.no_grad():
        model[4].weight.fill_(math.nan)
    result = run(model, steps=6)
    assert result.best_step == 0
    assert result.validation_loss.isnan().all()


def test_evaluate_in_chunks_equals_at_once_and_keeps_the_mode():
    model = network().train()
    loss, accuracy = evaluate(model, TEST, chunk=7)
    assert model.training
    model.eval()
    with torch.no_grad():
        logits = model(TEST[0])
    assert loss == pytest.approx(cross_entropy(logits, TEST[1]).item())
    assert accuracy == (logits.argmax(1) == TEST[1]).sum().item() / 30
    assert not (evaluate(model, TEST) and model.training)


@pytest.mark.parametrize("before", [False, True])
def test_the_processor_treats_denormal_numbers_as_before(before):
    def flushed():
        return not (torch.tensor(1e-39) * 1).item()

    original = flushed()
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormal numbers")
    try:
        torch.set_flush_denormal(before)
        run(network(), steps=2)
        assert flushed() == before
        with pytest.raises(RuntimeError):
            run(nn.Linear(5, 3), steps=2)
        assert flushed() == before
    finally:
        torch.set_flush_denormal(original)


def test_bfloat16():
    examples = [(x.bfloat16(), y) for x, y in (TRAIN, VALIDATION, TEST)]
    adam, draws = partial(torch.optim.Adam, lr=1e-3, fused=True), torch.Generator()
    result = fit(network().bfloat16(), *examples, steps=4, batch=8, optimizer=adam, generator=draws)
    assert result.weights["0.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"steps": 0}, "steps=0"),
        ({"batch": 51}, "batch=51: there are only 50"),
        ({"batch": 2.5}, r"batch=2\.5"),
        ({"evaluate_every": 0}, "evaluate_every=0"),
        ({"mask": {"1.wait": torch.ones(2)}}, r"mask: the model has no parameter '1\.wait'"),
        ({"mask": {"0.weight": torch.ones(2)}}, r"mask: '0\.weight' has shape \(2,\)"),
    ],
)
def test_refuses_bad_input_before_any_work(options, text):
    model = network()
    with pytest.raises(ValueError, match=text):
        run(model, **options)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), network().parameters()))


def test_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="validation: 20 inputs and 19 labels"):
        fit(
            network(), TRAIN, (VALIDATION[0], VALIDATION[1][1:]), TEST, steps=1, batch=1,
            optimizer=torch.optim.SGD, generator=torch.Generator(),
        )  # fmt: skip
