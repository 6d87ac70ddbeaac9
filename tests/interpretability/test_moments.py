"""Moments in one pass are those of two passes, however the samples come; constant units are said to be so."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distributed import run_distributed
from etude.interpretability import CrossMoments, Moments, RunningCrossMoments, RunningMoments, linear_cka


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def data(n=500, p=5, q=4, seed=0, dtype=torch.float64):
    generator = draws(seed)
    x = torch.randn(n, p, dtype=torch.float64, generator=generator) @ torch.randn(
        p, p, dtype=torch.float64, generator=generator
    )
    y = x[:, :q] ** 2 + torch.randn(n, q, dtype=torch.float64, generator=generator)
    return x.to(dtype), y.to(dtype)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=6), st.integers(0, 10**6), st.floats(-1e4, 1e4))
def test_chunks_of_any_size_give_what_numpy_gives_at_once(sizes, seed, offset):
    sizes = [*sizes, 2]
    x, y = data(sum(sizes), seed=seed)
    x = x + offset
    running, alone = RunningCrossMoments(), RunningMoments()
    for one, other in zip(x.split(sizes), y.split(sizes)):
        running.update(one, other)
        alone.update(one)
    found = running.moments()
    expected = np.cov(x.numpy().T, y.numpy().T, bias=True)
    scale = np.abs(expected).max() + 1
    assert np.allclose(found.covariance(), expected[:5, 5:], rtol=1e-9, atol=1e-10 * scale)
    assert np.allclose(found.x.covariance(), expected[:5, :5], rtol=1e-9, atol=1e-10 * scale)
    assert np.allclose(alone.moments().covariance(), expected[:5, :5], rtol=1e-9, atol=1e-10 * scale)
    assert np.allclose(found.y.mean, y.mean(0), rtol=1e-12, atol=1e-12)
    assert found.count == len(x)


def test_merging_is_what_one_pass_gives_and_has_no_order():
    x, y = data(900)
    parts = [CrossMoments.of(one, other) for one, other in zip(x.split([7, 600, 293]), y.split([7, 600, 293]))]
    whole = CrossMoments.of(x, y)
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        merged = parts[order[0]].merge(parts[order[1]]).merge(parts[order[2]])
        assert torch.allclose(merged.cross, whole.cross, rtol=1e-10, atol=1e-10)
        assert torch.allclose(merged.x.scatter, whole.x.scatter, rtol=1e-10, atol=1e-10)
        assert torch.allclose(merged.y.mean, whole.y.mean, rtol=1e-12)
        assert merged.count == 900


@pytest.mark.parametrize(
    ("dtype", "precision", "tolerance"),
    [
        (torch.float64, None, 1e-13),
        (torch.float32, torch.float64, 1e-13),
        (torch.float32, None, 2e-6),
        (torch.float16, None, 2e-6),
        (torch.bfloat16, None, 2e-6),
    ],
)
def test_every_floating_type_gives_the_correlation_of_its_numbers(dtype, precision, tolerance):
    x, y = data(20_000, dtype=dtype)
    running = RunningCrossMoments(precision=precision)
    for one, other in zip(x.split(333), y.split(333)):
        running.update(one, other)
    found = running.moments()
    expected = np.corrcoef(x.double().numpy().T, y.double().numpy().T)
    assert found.correlation().dtype == torch.float64
    assert np.abs(found.correlation().numpy() - expected[:5, 5:]).max() < tolerance
    assert np.abs(found.x.correlation().numpy() - expected[:5, :5]).max() < tolerance


def test_a_mean_far_above_the_spread_costs_no_digits():
    x, y = data(5_000)
    found = CrossMoments.of(x + 1e6, y - 1e6)
    assert torch.allclose(found.correlation(), CrossMoments.of(x, y).correlation(), atol=1e-8)
    drifting = x + torch.linspace(0, 1e4, 5_000, dtype=torch.float64)[:, None]
    running = RunningMoments()
    for part in drifting.split(100):
        running.update(part)
    assert np.allclose(running.moments().covariance(), np.cov(drifting.numpy().T, bias=True), rtol=1e-10)


def test_two_types_side_by_side():
    x, y = data()
    running = RunningCrossMoments().update(x.float(), y)
    assert torch.allclose(running.moments().correlation(), CrossMoments.of(x, y).correlation(), atol=1e-6)


def test_variances_alone_are_enough_for_correlations_between_the_groups():
    x, y = data()
    full, lean = CrossMoments.of(x, y), CrossMoments.of(x, y, within=False)
    assert torch.allclose(full.correlation(), lean.correlation(), rtol=1e-13, atol=1e-13)
    assert lean.x.scatter.shape == (5,)
    with pytest.raises(ValueError, match="only the variances"):
        lean.x.correlation()
    with pytest.raises(ValueError, match="only the variances"):
        lean.linear_cka()


def test_groups_maps_and_second_moments_are_those_of_the_samples():
    x, y = data()
    joint = Moments.of(torch.cat([x, y], 1))
    pair = joint.between(slice(0, 5), slice(5, 9))
    assert torch.allclose(pair.cross, CrossMoments.of(x, y).cross)
    assert torch.allclose(pair.T.correlation(), pair.correlation().T)
    chosen = torch.tensor([3, 0])
    assert torch.allclose(joint.select(chosen).covariance(), Moments.of(x[:, chosen]).covariance())
    a = torch.randn(3, 9, dtype=torch.float64, generator=draws(3))
    mapped = Moments.of(torch.cat([x, y], 1) @ a.T)
    assert torch.allclose(joint.mapped(a).covariance(), mapped.covariance())
    assert torch.allclose(joint.mapped(a).mean, mapped.mean)
    assert torch.allclose(Moments.of(x).second_moment(), x.T @ x / len(x))
    assert pair.linear_cka() == pytest.approx(float(linear_cka(x, y)), abs=1e-12)


def test_constant_units_are_named_and_make_no_nan():
    x, _ = data(1_000, dtype=torch.float32)
    x[:, 1], x[:, 3] = 0.1, 0.0
    running = RunningMoments()
    for part in x.split(77):
        running.update(part)
    found = running.moments()
    assert found.constant().tolist() == [False, True, False, True, False]
    correlation = found.correlation()
    assert torch.isfinite(correlation).all()
    assert (correlation[[1, 3]] == 0).all()
    assert torch.allclose(correlation.diagonal()[[0, 2, 4]], torch.ones(3, dtype=torch.float64))


def test_what_is_no_batch_is_refused_by_name():
    running = RunningCrossMoments()
    with pytest.raises(ValueError, match="no samples"):
        running.moments()
    running.update(*data(10))
    with pytest.raises(ValueError, match="x, y: 3 and 2 samples"):
        running.update(data(3)[0], data(2)[1])
    with pytest.raises(ValueError, match="y: 5 units were given; 4 are accepted"):
        running.update(data(3)[0], data(3)[0])
    with pytest.raises(TypeError, match="x: a tensor of torch"):
        running.update(torch.ones(3, 5, dtype=torch.int64), data(3)[1])
    with pytest.raises(TypeError, match="complex"):
        RunningMoments().update(torch.ones(3, 5, dtype=torch.complex64))
    with pytest.raises(ValueError, match="flatten_units"):
        RunningMoments().update(torch.ones(3, 5, 2))
    with pytest.raises(ValueError, match="precision"):
        RunningMoments(precision=torch.float16)
    with pytest.raises(ValueError, match="unit 2"):
        RunningMoments().update(torch.tensor([[1.0, 2.0, torch.nan]])).moments()
    with pytest.raises(ValueError, match="other"):
        Moments.of(data()[0]).merge(Moments.of(data()[1]))
    with pytest.raises(ValueError, match=r"\(outputs, 5\)"):
        Moments.of(data()[0]).mapped(torch.eye(3))


def test_shards_of_several_processes_add_up(tmp_path):
    run_distributed(
        """
        from safetensors.torch import save_file
        from etude.interpretability import RunningCrossMoments

        x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 5
        y = x[:, :2].sin()
        shard = slice(0, 17) if rank == 0 else slice(17, 60)
        found = RunningCrossMoments().update(x[shard], y[shard]).moments().all_reduce()
        whole = RunningCrossMoments().update(x, y).moments()
        assert found.count == 60
        assert torch.allclose(found.cross, whole.cross, rtol=1e-10)
        assert torch.allclose(found.x.scatter, whole.x.scatter, rtol=1e-10)
        assert torch.allclose(found.y.mean, whole.y.mean, rtol=1e-12)
        save_file({"done": torch.ones(1)}, f"done-{rank}.safetensors")
        """,
        tmp_path,
    )
    assert len(list(tmp_path.glob("done-*.safetensors"))) == 2
