"""Gradient noise: its law and order, its place in a user's loop, stacked networks, resuming, and what it refuses."""

import copy
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from scipy import stats
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from distributed import run_distributed
from etude.training import Constant, FirstSteps, GradientNoise, LinearDecay, PowerDecay, accumulated_variance

LOUD = Constant(0.04)


def zeros(*shape, grad=0.0, **options):
    """A parameter of zeros whose gradient is a number everywhere."""
    parameter = nn.Parameter(torch.zeros(*shape, **options))
    parameter.grad = torch.full_like(parameter, grad)
    return parameter


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def batches(count=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(6, 5, generator=generator), torch.randint(3, (6,), generator=generator)) for _ in range(count)]


def train(model, optimizer, examples):
    for x, y in examples:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


# ---- the law -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 10, 1000])
def test_noise_is_normal_with_the_stated_variance(step):
    parameter = zeros(20_000)
    noise = GradientNoise(torch.optim.SGD([parameter], lr=1.0), PowerDecay(0.3, 0.55))
    noise.step = step
    noise._optimizer.step()
    sigma = math.sqrt(0.3) * (1 + step) ** (-0.55 / 2)
    drawn = parameter.grad.numpy() / sigma
    assert stats.kstest(drawn, "norm").pvalue > 1e-3
    assert 2 * min(stats.chi2.cdf((drawn**2).sum(), 20_000), stats.chi2.sf((drawn**2).sum(), 20_000)) > 1e-3
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.03
    assert torch.equal(parameter.detach(), -parameter.grad)  # the step used it


def test_steps_have_independent_noise():
    parameter = zeros(20_000)
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    GradientNoise(optimizer, Constant(1.0))
    draws = []
    for _ in range(3):
        parameter.grad.zero_()
        optimizer.step()
        draws.append(parameter.grad.clone())
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(3)
    assert correlation.abs().max() < 0.03


def test_noise_is_added_after_clipping_and_does_not_depend_on_it():
    """g -> g min(1, c / |g|) + noise, with the same noise whatever the gradient and the norm."""
    generator = torch.Generator().manual_seed(3)
    gradients = [torch.randn(40, 5, generator=generator), torch.randn(7, generator=generator)]
    seen = []
    for norm, factor in [(None, 1.0), (1.0, 1.0), (1.0, 100.0), (1e6, 1.0)]:
        parameters = [zeros(40, 5), zeros(7)]
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = factor * gradient
        total = torch.cat([parameter.grad.flatten() for parameter in parameters]).norm()
        scale = 1 if norm is None else min(1, norm / float(total))
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        GradientNoise(optimizer, LOUD, clip_norm=norm)
        expected = [scale * parameter.grad for parameter in parameters]
        optimizer.step()
        seen.append([parameter.grad - clipped for parameter, clipped in zip(parameters, expected)])
    for noise in seen[1:]:
        for here, there in zip(noise, seen[0]):
            torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-5)


def test_accumulated_variance_is_the_hurwitz_zeta_difference_and_the_plain_sum():
    for gamma in (0.3, 0.55, 1.7):
        for steps in (0, 1, 10, 5000):
            closed = 0.01 * 0.1**2 * float((mpmath.zeta(gamma) - mpmath.zeta(gamma, steps + 1)).real)
            assert accumulated_variance(PowerDecay(0.01, gamma), steps, 0.1) == pytest.approx(closed, abs=1e-12)
    rates = [0.5, 0.1, 0.2]
    expected = sum(r**2 * 0.3 / (1 + t) ** 0.55 for t, r in enumerate(rates))
    assert accumulated_variance(PowerDecay(0.3, 0.55), 3, rates) == pytest.approx(expected, rel=1e-12)
    assert accumulated_variance(FirstSteps(2, 0.3), 10, torch.full((10,), 2.0)) == pytest.approx(2.4)


def test_the_random_walk_of_gradient_descent_has_the_accumulated_variance():
    parameter = zeros(20_000)
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    GradientNoise(optimizer, PowerDecay(0.01, 0.55))
    for _ in range(200):
        parameter.grad.zero_()
        optimizer.step()
    ratio = float(parameter.detach().double().square().sum()) / accumulated_variance(PowerDecay(0.01, 0.55), 200, 0.1)
    assert 2 * min(stats.chi2.cdf(ratio, 20_000), stats.chi2.sf(ratio, 20_000)) > 1e-3


def test_signal_to_noise_is_the_ratio_of_standard_deviations():
    first, second = zeros(30, 4, grad=0.5), zeros(7, grad=-2.0)
    optimizer = torch.optim.SGD([{"params": [first]}, {"params": [second], "noise_scale": 0.5}], lr=0.1)
    noise = GradientNoise(optimizer, PowerDecay(0.04, 1.0))
    noise.step = 3
    assert [float(ratio) for ratio in noise.signal_to_noise()] == pytest.approx([5.0, 40.0])
    stack = zeros(2, 6, 3)
    stack.grad[0], stack.grad[1] = 1.0, 3.0
    noise = GradientNoise(torch.optim.SGD([stack], lr=0.1), [Constant(0.25), Constant(0.0)], seed=[0, 0])
    (ratios,) = noise.signal_to_noise()
    assert ratios.tolist() == [2.0, math.inf]


# ---- in a user's loop ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=0.01),
        lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
        lambda p: torch.optim.RMSprop(p, lr=0.01),
    ],
)
def test_any_optimizer_sees_the_clipped_and_noisy_gradient(make):
    """The same as doing it by hand in the loop, to the last bit."""
    hooked, by_hand = network(), network()
    optimizer = make(hooked.parameters())
    GradientNoise(optimizer, PowerDecay(0.01, 0.55), clip_norm=0.5, seed=7)
    train(hooked, optimizer, batches())

    optimizer, generator = make(by_hand.parameters()), torch.Generator().manual_seed(7)
    for t, (x, y) in enumerate(batches()):
        optimizer.zero_grad()
        nn.functional.cross_entropy(by_hand(x), y).backward()
        nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
        drawn = torch.empty(flat(by_hand).numel()).normal_(0, math.sqrt(0.01 / (1 + t) ** 0.55), generator=generator)
        for parameter, part in zip(by_hand.parameters(), drawn.split([p.numel() for p in by_hand.parameters()])):
            parameter.grad += part.view_as(parameter)
        optimizer.step()
    assert torch.equal(flat(hooked), flat(by_hand))


def test_one_injection_a_step_whatever_is_accumulated():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    noise = GradientNoise(optimizer, LOUD)
    for x, y in batches():
        nn.functional.cross_entropy(model(x), y).backward()
    accumulated = [parameter.grad.clone() for parameter in model.parameters()]
    optimizer.step()
    assert noise.step == 1
    drawn = torch.empty(flat(model).numel()).normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
    added = torch.cat([(p.grad - before).flatten() for p, before in zip(model.parameters(), accumulated)])
    torch.testing.assert_close(added, drawn, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("keyword", [True, False])
def test_a_closure_is_evaluated_before_the_noise(keyword):
    plain, closed = network(), network()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    GradientNoise(optimizer, LOUD, clip_norm=1.0)
    train(plain, optimizer, batches())
    optimizer = torch.optim.SGD(closed.parameters(), lr=0.1)
    noise = GradientNoise(optimizer, LOUD, clip_norm=1.0)
    for x, y in batches():

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(closed(x), y)
            loss.backward()
            return loss

        loss = optimizer.step(closure=closure) if keyword else optimizer.step(closure)
        assert loss.item() > 0
    assert noise.step == 4
    assert torch.equal(flat(plain), flat(closed))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("unscaled_by_hand", [True, False])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_noise_comes_after_the_gradient_scaler_has_unscaled(kind, unscaled_by_hand, fused):
    """With a scale that is a power of two the result is that of a run without a scaler."""
    plain, scaled = network(), network()
    optimizer = kind(plain.parameters(), lr=0.1, fused=fused)
    GradientNoise(optimizer, LOUD, clip_norm=0.5)
    train(plain, optimizer, batches())

    optimizer, scaler = kind(scaled.parameters(), lr=0.1, fused=fused), torch.amp.GradScaler("cpu", init_scale=1024.0)
    GradientNoise(optimizer, LOUD, clip_norm=0.5)
    for x, y in batches():
        optimizer.zero_grad()
        scaler.scale(nn.functional.cross_entropy(scaled(x), y)).backward()
        if unscaled_by_hand:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    torch.testing.assert_close(flat(plain), flat(scaled), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_whose_scaled_gradient_overflows_changes_nothing(fused):
    model = network()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused), torch.amp.GradScaler("cpu")
    noise = GradientNoise(optimizer, LOUD, clip_norm=1.0)
    before = flat(model)
    scaler.scale(model(torch.full((2, 5), math.inf)).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(flat(model), before)
    assert noise.step == int(fused)


@pytest.mark.parametrize("wrapped", [True, False])
def test_under_fabric_the_loop_gives_the_same_weights(wrapped):
    plain, mine = network(), network()
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    GradientNoise(optimizer, LOUD, clip_norm=1.0)
    train(plain, optimizer, batches())

    fabric = Fabric(accelerator="cpu", devices=1)
    optimizer = torch.optim.Adam(mine.parameters(), lr=0.01)
    if not wrapped:
        GradientNoise(optimizer, LOUD, clip_norm=1.0)
    model, optimizer = fabric.setup(mine, optimizer)
    if wrapped:
        GradientNoise(optimizer, LOUD, clip_norm=1.0)
    for x, y in batches():
        optimizer.zero_grad()
        fabric.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
    assert torch.equal(flat(plain), flat(mine))


def test_distributed_copies_stay_equal_and_learn_from_the_mean_gradient(tmp_path):
    run_distributed(
        """
        from etude.training import Constant, GradientNoise
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
        copy = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        GradientNoise(optimizer, Constant(0.04), clip_norm=1.0)
        generator = torch.Generator().manual_seed(1)
        for _ in range(4):
            x, y = torch.randn(6, 5, generator=generator), torch.randint(3, (6,), generator=generator)
            optimizer.zero_grad()
            nn.functional.cross_entropy(copy(x[rank::2]), y[rank::2]).backward()
            optimizer.step()
        torch.save(torch.cat([p.detach().flatten() for p in model.parameters()]), f"rank{rank}.pt")
        """,
        tmp_path,
    )
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert torch.equal(first, second)
    alone = network()
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    GradientNoise(optimizer, LOUD, clip_norm=1.0)
    train(alone, optimizer, batches())
    torch.testing.assert_close(first, flat(alone), rtol=1e-5, atol=1e-6)


def test_removing_it_leaves_the_optimizer_as_it_was():
    plain, noisy = network(), network()
    optimizer = torch.optim.SGD(noisy.parameters(), lr=0.1)
    GradientNoise(optimizer, LOUD, clip_norm=1e-3).remove()
    train(noisy, optimizer, batches())
    train(plain, torch.optim.SGD(plain.parameters(), lr=0.1), batches())
    assert torch.equal(flat(plain), flat(noisy))


def test_the_global_generator_is_left_alone():
    parameter = zeros(50)
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    GradientNoise(optimizer, LOUD)
    before = torch.get_rng_state()
    optimizer.step()
    assert torch.equal(before, torch.get_rng_state())


def test_groups_scale_the_noise_and_parameters_without_gradient_are_left():
    parts = {"default": zeros(2000), "half": zeros(2000), "none": zeros(2000)}
    idle = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD(
        [
            {"params": [parts["default"], idle]},
            {"params": [parts["half"]], "noise_scale": 0.5},
            {"params": [parts["none"]], "noise_scale": 0.0},
        ],
        lr=0.1,
    )
    GradientNoise(optimizer, LOUD)
    optimizer.step()
    drawn = torch.empty(6000).normal_(0, 0.2, generator=torch.Generator().manual_seed(0)).split(2000)
    assert torch.equal(parts["default"].grad, drawn[0])
    assert torch.equal(parts["half"].grad, 0.5 * drawn[1])
    assert not parts["none"].grad.any()
    assert idle.grad is None
    optimizer.param_groups[2]["noise_scale"] = 1.0  # changed in mid-training, like a learning rate
    optimizer.step()
    assert parts["none"].grad.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_get_noise_of_the_same_law(dtype):
    parameter = zeros(20_000, dtype=dtype)
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    GradientNoise(optimizer, Constant(4.0))
    optimizer.step()
    assert parameter.grad.dtype == dtype
    assert float(parameter.grad.double().std()) == pytest.approx(2.0, rel=0.03)
    if dtype == torch.float64:  # drawn as such, not rounded to single precision
        assert not torch.equal(parameter.grad, parameter.grad.float().double())


def test_it_follows_parameters_that_change_their_type_after_it_was_made():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    GradientNoise(optimizer, LOUD)
    train(model, optimizer, batches(1))
    train(model.double(), optimizer, [(x.double(), y) for x, y in batches(1)])
    assert model[0].weight.grad.dtype == torch.float64


# ---- resuming ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [5, [5, 6]])
def test_a_resumed_run_is_bit_identical(seed):
    def start():
        parameter = zeros(2, 30)
        optimizer = torch.optim.SGD([parameter], lr=0.1)
        return parameter, optimizer, GradientNoise(optimizer, PowerDecay(0.3, 0.55), seed=seed)

    def advance(parameter, optimizer):
        for _ in range(3):
            parameter.grad.zero_()
            optimizer.step()

    whole, optimizer, noise = start()
    advance(whole, optimizer)
    state, weights = copy.deepcopy(noise.state_dict()), whole.detach().clone()
    advance(whole, optimizer)

    resumed, optimizer, noise = start()
    resumed.data.copy_(weights)
    noise.load_state_dict(state)
    again = noise.state_dict()  # asked for before the generators are needed
    assert again["step"] == 3
    assert all(map(torch.equal, again["generators"], state["generators"]))
    advance(resumed, optimizer)
    assert torch.equal(resumed, whole)
    assert torch.equal(resumed.grad, whole.grad)


def test_the_state_is_one_of_as_many_networks():
    noise = GradientNoise(torch.optim.SGD([zeros(2, 3)], lr=0.1), seed=[0, 1])
    for state in ({"step": 1}, {"step": 1, "generators": [torch.Generator().get_state()]}):
        with pytest.raises(ValueError, match="2 seeds"):
            noise.load_state_dict(state)
    for step in (-1, 1.5, True):
        with pytest.raises(ValueError, match=f"state: its step is {step}"):
            noise.load_state_dict({"step": step, "generators": []})


# ---- stacked networks ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 4), st.integers(0, 2**31))
def test_a_stacked_network_is_perturbed_as_if_alone(networks, first):
    """Clipping, noise and its schedule of each are those of the network trained by itself."""
    seeds = [first, first + 1, first, first + 2][:networks]
    schedules = [PowerDecay(0.01, 0.55), Constant(0.04), Constant(0.0), PowerDecay(0.3, 0.2)][:networks]
    models = [network(seed) for seed in range(networks)]
    stacked, _ = stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")
    forward = vmap(lambda weights, x: functional_call(skeleton, weights, (x,)), in_dims=(0, None))
    optimizer = torch.optim.SGD(stacked.values(), lr=0.5)
    GradientNoise(optimizer, schedules, clip_norm=0.3, seed=seeds)
    for x, y in batches():
        optimizer.zero_grad()
        logits = forward(stacked, x)
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), y.repeat(networks), reduction="none")
        losses.unflatten(0, (networks, -1)).mean(1).sum().backward()
        optimizer.step()
    for place, model in enumerate(models):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        GradientNoise(optimizer, schedules[place], clip_norm=0.3, seed=seeds[place])
        train(model, optimizer, batches())
        together = torch.cat([value[place].detach().flatten() for value in stacked.values()])
        torch.testing.assert_close(together, flat(model), rtol=1e-4, atol=1e-5)


def test_a_diverged_network_leaves_the_others_alone():
    def gradients(poison):
        parameters = [zeros(3, 4, grad=2.0), zeros(3, grad=1.0)]
        parameters[0].grad[1] = poison
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        GradientNoise(optimizer, LOUD, clip_norm=1.0, seed=[0, 1, 2])
        optimizer.step()
        return [parameter.grad[[0, 2]] for parameter in parameters]

    for poison in (math.nan, math.inf):
        assert all(map(torch.equal, gradients(poison), gradients(2.0)))


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variance", "kind", "named"),
    [
        (Constant(-0.1), ValueError, "variance: -0.1 at step 0"),
        (lambda step: math.nan, ValueError, "variance: nan at step 0"),
        (lambda step: math.inf, ValueError, "variance: inf at step 0"),
        (LinearDecay(500, 0.1, -0.1), ValueError, "variance: -0.1 at step 1000"),
        (0.01, TypeError, "variance"),
        ([Constant(0.1)], ValueError, "variance"),
        ([], ValueError, "variance"),
    ],
)
def test_a_bad_variance_is_refused_before_training(variance, kind, named):
    parameter = zeros(3)
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    with pytest.raises(kind, match=named):
        GradientNoise(optimizer, variance)
    optimizer.step()  # and the optimizer is as it was
    assert not parameter.grad.any()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"clip_norm": 0.0}, "clip_norm=0.0"),
        ({"clip_norm": math.nan}, "clip_norm=nan"),
        ({"clip_norm": math.inf}, "clip_norm=inf"),
        ({"seed": []}, "seed"),
        ({"seed": [1, 2]}, "seed: 2 networks"),
        ({"seed": [1, 2, 3], "variance": [Constant(0.1)]}, "variance: 1 schedules .* 3 seeds"),
    ],
)
def test_bad_arguments_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        GradientNoise(torch.optim.SGD([zeros(3, 2)], lr=0.1), **options)


def test_what_is_no_optimizer_or_evaluates_several_times_is_refused():
    with pytest.raises(TypeError, match="optimizer: a Linear"):
        GradientNoise(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="LBFGS"):
        GradientNoise(torch.optim.LBFGS([zeros(3)]))


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_a_bad_scale_of_a_group_is_named(scale):
    with pytest.raises(ValueError, match="noise_scale"):
        GradientNoise(torch.optim.SGD([{"params": [zeros(3)], "noise_scale": scale}], lr=0.1))


def test_complex_parameters_and_sparse_gradients_are_refused():
    with pytest.raises(NotImplementedError, match="complex"):
        GradientNoise(torch.optim.SGD([nn.Parameter(torch.zeros(3, dtype=torch.complex64))], lr=0.1))
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
    GradientNoise(optimizer)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(NotImplementedError, match="sparse"):
        optimizer.step()


def test_a_step_without_gradients_is_an_error():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(3))], lr=0.1)
    GradientNoise(optimizer)
    with pytest.raises(RuntimeError, match=r"backward\(\)"):
        optimizer.step()


def test_a_schedule_that_turns_bad_leaves_the_gradient_alone():
    table = [0.1, 0.1, -0.1]
    parameter = zeros(3)
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    noise = GradientNoise(optimizer, lambda step: table[step])
    optimizer.step()
    optimizer.step()
    before = parameter.grad.clone()
    with pytest.raises(ValueError, match=r"variance: -0\.1 at step 2"):
        optimizer.step()
    assert torch.equal(parameter.grad, before)
    assert noise.step == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((Constant(-1.0), 3, 0.1), "variance"),
        ((Constant(1.0), -1, 0.1), "steps=-1"),
        ((Constant(1.0), 3, [0.1]), "learning_rate: 1"),
        ((Constant(1.0), 3, math.nan), "learning_rate"),
    ],
)
def test_accumulated_variance_names_bad_arguments(arguments, named):
    with pytest.raises(ValueError, match=named):
        accumulated_variance(*arguments)
