"""Recurrent sequence models: the parallel recurrence is the loop, and nothing looks ahead."""

import pytest
import torch

from etude.nn import GatedLinearRecurrence, Recurrent, linear_recurrence


@pytest.mark.parametrize("positions", [1, 2, 7, 8, 33])
def test_the_parallel_recurrence_is_the_loop(positions):
    draws = torch.Generator().manual_seed(0)
    decay = torch.rand(3, positions, 5, generator=draws, dtype=torch.float64)
    update = torch.randn(3, positions, 5, generator=draws, dtype=torch.float64)
    state, expected = torch.zeros(3, 5, dtype=torch.float64), []
    for step in range(positions):
        state = decay[:, step] * state + update[:, step]
        expected.append(state)
    assert torch.allclose(linear_recurrence(decay, update), torch.stack(expected, 1), atol=1e-12)


def test_gradients_of_the_parallel_recurrence():
    draws = torch.Generator().manual_seed(0)
    decay = torch.rand(2, 6, 3, generator=draws, dtype=torch.float64, requires_grad=True)
    update = torch.randn(2, 6, 3, generator=draws, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(linear_recurrence, (decay, update))


MODELS = [
    lambda generator=None: Recurrent(8, 2, "lstm", generator=generator),
    lambda generator=None: Recurrent(8, 1, "gru", units=5, generator=generator),
    lambda generator=None: Recurrent(8, 1, "tanh", generator=generator),
    lambda generator=None: GatedLinearRecurrence(8, 2, generator=generator),
    lambda generator=None: GatedLinearRecurrence(8, 1, units=5, hidden=0, generator=generator),
]


@pytest.mark.parametrize("make", MODELS)
def test_no_position_sees_a_later_one(make):
    model = make().double()
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x)[0, :, 0], x)[:, 0].abs().sum(-1)
    assert torch.equal(jacobian > 0, torch.ones(6, 6).tril().bool())


@pytest.mark.parametrize("make", MODELS)
def test_initial_weights_come_from_the_generator(make):
    x = torch.randn(2, 4, 8)
    one, same, other = (make(torch.Generator().manual_seed(seed))(x) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape == x.shape


def test_units_remember_for_different_times():
    model = GatedLinearRecurrence(8, 1, units=4)
    assert torch.allclose(model.layers[0].gates.bias[:4].detach(), torch.tensor([1.0, 2.0, 3.0, 4.0]))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Recurrent(8, 1, "mamba"), "cell='mamba'"),
        (lambda: Recurrent(8, 0), "layers=0"),
        (lambda: Recurrent(8, 1, units=0), "units=0"),
        (lambda: GatedLinearRecurrence(0), "width=0"),
    ],
)
def test_bad_arguments_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()
