"""Matches against brute force, the lasso against scikit-learn, planted clusters, information in closed form."""

import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from sklearn.linear_model import Lasso
from torch import nn

from distributed import run_distributed
from etude.interpretability import (
    CrossMoments,
    Moments,
    RunningMutualInformation,
    linear_cka,
    match_units,
    mutual_information,
    percentile_edges,
    shuffled,
    soft_match_units,
    sparse_stitch,
    stitch_path,
    unit_clusters,
    unit_cross_moments,
)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=draws(seed))


def correlated(n=3_000, p=6, seed=0):
    """Rectified units that share what drives them."""
    return (randn(n, p, seed=seed) @ randn(p, p, seed=seed + 1) + 0.3).relu()


# ---- one to one ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_a_permutation_with_positive_scales_is_found_with_correlation_one(seed):
    x = correlated(seed=seed)
    order = torch.randperm(6, generator=draws(seed))
    y = x[:, order] * (torch.rand(6, dtype=torch.float64, generator=draws(seed)) + 0.1) - 3
    for method in ("matching", "semi-matching"):
        match = match_units(CrossMoments.of(x, y), method=method)
        assert torch.equal(order[match.partners], match.units)
        assert torch.allclose(match.score, torch.ones(6, dtype=torch.float64), atol=1e-12)
        assert match.gap.abs().max() < 1e-12
    flipped = match_units(CrossMoments.of(x, -y), by="absolute")
    assert torch.equal(order[flipped.partners], flipped.units)
    assert match_units(CrossMoments.of(x, -y)).score.mean() < 0.9


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(6, 6), (4, 6), (6, 4)])
def test_the_assignment_is_the_best_of_all(shape, seed):
    values = torch.rand(shape, dtype=torch.float64, generator=draws(seed)) * 2 - 1
    match = match_units(values)
    small = values if shape[0] <= shape[1] else values.T
    rows = torch.arange(len(small))
    best = max(small[rows, list(chosen)].sum() for chosen in itertools.permutations(range(small.shape[1]), len(small)))
    assert float(match.score.sum()) == pytest.approx(float(best), abs=1e-12)
    assert len(match.units) == min(shape)
    assert len(match.partners.unique()) == min(shape)
    assert torch.equal(match.score, values[match.units, match.partners])


def test_the_semi_matching_is_each_rows_greatest_and_never_worse():
    values = torch.rand(9, 7, dtype=torch.float64, generator=draws()) * 2 - 1
    semi, match = match_units(values, method="semi-matching"), match_units(values)
    assert torch.equal(semi.score, values.max(1).values)
    assert torch.equal(semi.gap, torch.zeros(9, dtype=torch.float64))
    assert (match.gap >= 0).all()
    assert torch.equal(match.best, semi.score[match.units])


def test_a_layer_is_matched_with_itself_without_the_identity():
    x = torch.cat([correlated(), correlated() + 0.1 * randn(3_000, 6, seed=9)], 1)
    match = match_units(Moments.of(x).correlation().fill_diagonal_(-1))
    assert match.partners.tolist() == [*range(6, 12), *range(6)]


def test_scores_on_other_data_are_those_of_the_same_pairs_and_without_bias():
    x, y = randn(100, 8, seed=1), randn(100, 8, seed=2)
    one, other = CrossMoments.of(x[:50], y[:50]), CrossMoments.of(x[50:], y[50:])
    match = match_units(one)
    held_out = match.on(other)
    assert torch.equal(held_out.partners, match.partners)
    assert torch.equal(held_out.score, other.correlation()[match.units, match.partners])
    assert match.score.mean() > 0.15  # of units that have nothing in common
    assert held_out.score.mean().abs() < 0.12


def test_constant_units_are_reported_and_left_out():
    x, y = correlated(), correlated(p=5, seed=3)
    x[:, 2], y[:, [0, 4]] = 0.0, 0.7
    for method in ("matching", "semi-matching"):
        match = match_units(CrossMoments.of(x, y), method=method)
        assert [side.tolist() for side in match.constant] == [[2], [0, 4]]
        assert 2 not in match.units
        assert not {0, 4} & set(match.partners.tolist())
        assert torch.isfinite(match.score).all()
        assert "constant: 1 and 2" in repr(match)
    soft = soft_match_units(CrossMoments.of(x, y))
    assert float(soft.plan.sum()) == pytest.approx(1)
    assert not soft.plan[2].any()
    x[:] = 1.0
    with pytest.raises(ValueError, match="none of the 6 units of the one side varies"):
        match_units(CrossMoments.of(x, y))


def test_soft_matching_of_equal_widths_is_the_matching_and_of_others_the_transport(monkeypatch):
    values = torch.rand(5, 5, dtype=torch.float64, generator=draws())
    assert soft_match_units(values).score == pytest.approx(float(match_units(values).score.mean()), abs=1e-12)
    wide = torch.rand(4, 6, dtype=torch.float64, generator=draws(1))
    soft = soft_match_units(wide)
    assert torch.allclose(soft.plan.sum(1), torch.full((4,), 1 / 4, dtype=torch.float64))
    assert torch.allclose(soft.plan.sum(0), torch.full((6,), 1 / 6, dtype=torch.float64))
    assert soft_match_units(wide.T).score == pytest.approx(soft.score, abs=1e-9)
    assert soft.on(torch.ones(4, 6, dtype=torch.float64)).score == pytest.approx(1)
    assert "4 x 6" in repr(soft)
    monkeypatch.setattr("etude.interpretability.matching._COPIES", 0)  # the linear program
    programmed = soft_match_units(wide)
    assert programmed.score == pytest.approx(soft.score, abs=1e-9)
    assert torch.allclose(programmed.plan.sum(1), torch.full((4,), 1 / 4, dtype=torch.float64))


def test_a_rotation_keeps_cka_and_breaks_the_matching():
    x = randn(4_000, 16)
    q = torch.linalg.qr(randn(16, 16, seed=5)).Q
    moments = CrossMoments.of(x, x @ q)
    assert moments.linear_cka() == pytest.approx(1, abs=0.02)
    assert float(linear_cka(x, x @ q)) == pytest.approx(moments.linear_cka(), abs=1e-10)
    assert match_units(moments, by="absolute").score.mean() < 0.7


def test_a_match_can_be_drawn():
    figure, axes = plt.subplots()
    match_units(CrossMoments.of(correlated(), correlated(seed=4))).plot(axes, label="pair")
    scores = axes.lines[0].get_ydata()
    assert (np.diff(scores) <= 0).all()
    assert len(axes.lines) == 2
    plt.close(figure)


def test_clusters_can_be_drawn():
    (x, y), _ = planted()
    figure, axes = plt.subplots()
    unit_clusters(CrossMoments.of(x, y), 3, generator=draws()).plot(axes, ("a", "b"))
    assert [bar.get_height() for bar in axes.patches] == [4, 4, 4, -4, -4, -4]
    plt.close(figure)


def test_shares_active_units_and_correlations_can_be_drawn():
    found = CrossMoments.of(correlated(), correlated(seed=4))
    figure, (shares, active, correlations) = plt.subplots(1, 3)
    soft_match_units(found).plot(shares)
    stitch = sparse_stitch(found, 0.01)
    stitch.plot(active)
    found.plot(correlations)
    assert np.allclose(shares.images[0].get_array(), soft_match_units(found).plan)
    assert sum(bar.get_height() for bar in active.patches) == len(stitch.targets())
    assert np.allclose(correlations.images[0].get_array(), found.correlation())
    plt.close(figure)


# ---- one from a few --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [1e-3, 0.03, 0.2])
def test_the_lasso_is_scikit_learns(penalty):
    x, y = correlated(2_000, 8), correlated(2_000, 5, seed=3)
    y = y + x[:, :5]
    stitch = sparse_stitch(CrossMoments.of(x, y), penalty, tolerance=1e-12)
    scaled = (x - x.mean(0)) / x.std(0, correction=0)
    for j in range(5):
        target = (y[:, j] - y[:, j].mean()) / y[:, j].std(correction=0)
        peer = Lasso(alpha=penalty, tol=1e-12, max_iter=100_000).fit(scaled.numpy(), target.numpy())
        assert np.allclose(stitch.weights[:, j], peer.coef_, atol=1e-6)
    predicted = stitch(x)
    unexplained = ((y - predicted) ** 2).mean(0) / y.var(0, correction=0)
    assert torch.allclose(stitch.fraction_unexplained(CrossMoments.of(x, y)), unexplained, rtol=1e-9)


def test_the_fraction_unexplained_on_other_data_is_that_of_the_predictions():
    x, y = correlated(2_000, 4), correlated(2_000, 3, seed=3) + 1
    stitch = sparse_stitch(CrossMoments.of(x[:900], y[:900]), 0.05)
    x, y = x[900:], y[900:] + 0.2
    expected = ((y - stitch(x)) ** 2).mean(0) / y.var(0, correction=0)
    assert torch.allclose(stitch.fraction_unexplained(CrossMoments.of(x, y)), expected, rtol=1e-9)


def test_without_penalty_it_is_least_squares_and_with_the_greatest_nothing():
    x = correlated(2_000, 6)
    y = correlated(2_000, 3, seed=3) + x[:, :3]
    moments = CrossMoments.of(x, y)
    free, middle, none = stitch_path(moments, [0, 0.05, 1])
    design = torch.cat([x, torch.ones(2_000, 1, dtype=torch.float64)], 1)
    fitted = design @ torch.linalg.lstsq(design, y).solution
    assert torch.allclose(free(x), fitted, atol=1e-9)
    assert (none.weights == 0).all()
    assert torch.allclose(none.fraction_unexplained(moments), torch.ones(3, dtype=torch.float64))
    losses = [stitch.fraction_unexplained(moments).mean() for stitch in (free, middle, none)]
    assert losses[0] < losses[1] < losses[2]
    active = [stitch.n_active().double().mean() for stitch in (free, middle, none)]
    assert active[0] > active[1] > active[2] == 0
    assert (free.n_active(10.0) == 0).all()
    assert middle.excess <= 1e-7
    assert "6 -> 3 units" in repr(free)


def test_the_path_in_any_order_is_the_same_as_one_by_one():
    moments = CrossMoments.of(correlated(2_000, 80, seed=7), correlated(2_000, 9, seed=9))  # more than one block
    path = stitch_path(moments, [0.01, 0.3, 0.05], tolerance=1e-12)
    for stitch in path:
        assert torch.allclose(
            stitch.weights, sparse_stitch(moments, stitch.penalty, tolerance=1e-12).weights, atol=1e-6
        )
    assert [stitch.penalty for stitch in path] == [0.01, 0.3, 0.05]


def test_nearly_equal_units_do_not_keep_it_from_the_optimum():
    x = correlated(3_000, 12)
    x = torch.cat([x, x + 1e-3 * randn(3_000, 12, seed=4), x[:, :2]], 1)  # nearly the same, and exactly
    y = correlated(3_000, 5, seed=6) + x[:, :5]
    moments = CrossMoments.of(x, y)
    gram, target = moments.x.correlation(), moments.correlation()
    for penalty in (1e-4, 1e-2, 0.2):
        stitch = sparse_stitch(moments, penalty, tolerance=1e-9)
        slope = target - gram @ stitch.weights
        assert stitch.excess <= 1e-9
        assert slope.abs().max() <= penalty + 1e-4  # of a minimum: no slope above the penalty, and equal to it where
        active = stitch.weights.abs() > 1e-3  # the weight is not zero
        assert torch.allclose(slope[active], penalty * stitch.weights[active].sign(), atol=1e-4)


def test_a_planted_mixture_of_two_units_is_found():
    x = randn(5_000, 10)
    y = torch.stack([x[:, 1] - 2 * x[:, 7], x[:, 3]], 1)
    stitch = sparse_stitch(CrossMoments.of(x, y), 0.05)
    assert stitch.n_active().tolist() == [2, 1]
    assert stitch.weights[:, 0].abs().topk(2).indices.tolist() == [7, 1]


def test_rotated_units_predict_as_well():
    x, y = correlated(2_000, 6), correlated(2_000, 4, seed=3)
    joint = Moments.of(torch.cat([x, y], 1))
    q = torch.linalg.qr(randn(6, 6, seed=5)).Q
    rotated = joint.mapped(torch.block_diag(q, torch.eye(4, dtype=torch.float64)))
    sides = slice(0, 6), slice(6, 10)
    before, after = (
        sparse_stitch(m.between(*sides), 0).fraction_unexplained(m.between(*sides)) for m in (joint, rotated)
    )
    assert torch.allclose(before, after, rtol=1e-9)


def test_constant_units_predict_nothing_and_are_no_targets():
    x, y = correlated(2_000, 5), correlated(2_000, 4, seed=3)
    x[:, 1], y[:, 2] = 0.0, 1.0
    moments = CrossMoments.of(x, y)
    for penalty in (0, 0.01):
        stitch = sparse_stitch(moments, penalty)
        assert stitch.targets().tolist() == [0, 1, 3]
        assert stitch.fraction_unexplained(moments).isfinite().all()
        assert len(stitch.n_active()) == 3
        assert stitch.weights[1].abs().max() < 1e-12
        assert torch.allclose(stitch(x)[:, 2], torch.ones(2_000, dtype=torch.float64))
    y[:, 0] = 1.0
    assert len(stitch.fraction_unexplained(CrossMoments.of(x, y))) == 2  # what does not vary cannot be explained


# ---- many with many --------------------------------------------------------------------------------------------------


def planted(groups=3, each=4, n=3_000, noise=0.3):
    """Units of two sides that follow the same few causes, and the cause of each."""
    causes = randn(n, groups)
    cause = torch.arange(groups).repeat_interleave(each)
    return tuple(causes[:, cause] + noise * randn(n, groups * each, seed=seed) for seed in (1, 2)), cause


def test_planted_clusters_are_found():
    (x, y), cause = planted()
    y = -y  # by absolute correlation the sign does not count
    clusters = unit_clusters(CrossMoments.of(x, y), 3, generator=draws())
    both = torch.cat([cause, cause])
    for group in range(3):
        assert len(clusters.labels[both == group].unique()) == 1
    assert clusters.composition().tolist() == [[4, 4]] * 3
    assert clusters.mixing() == 1
    one, other = clusters.members(int(clusters.labels[0]))
    assert one.tolist() == other.tolist() == [0, 1, 2, 3]
    assert "24 units in 3 clusters" in repr(clusters)


def test_sides_with_nothing_in_common_do_not_mix_and_chance_would():
    (x, y), _ = planted()
    moments = CrossMoments.of(x, shuffled(y, generator=draws(4), together=True))
    clusters = unit_clusters(moments, 6, generator=draws())
    assert clusters.mixing() == 0
    null = clusters.mixing_null(draws=200, generator=draws())
    assert null.shape == (200,)
    assert null.mean() > 0.5
    assert clusters.composition().sum(0).tolist() == [12, 12]


def test_clusters_leave_constant_units_out():
    (x, y), _ = planted()
    x[:, 0] = 2.0
    clusters = unit_clusters(CrossMoments.of(x, y), 3, generator=draws())
    assert clusters.labels[0] == -1
    assert clusters.composition().sum(0).tolist() == [11, 12]
    again = unit_clusters(CrossMoments.of(x, y), 3, generator=draws())
    assert torch.equal(again.labels, clusters.labels)


# ---- mutual information ----------------------------------------------------------------------------------------------


def test_information_of_a_unit_with_itself_is_its_entropy():
    x = randn(10_000, 2)
    found = mutual_information(x, x, bins=10, zero_mass=False, bias=None)
    assert torch.allclose(found.diagonal(), torch.full((2,), math.log(10), dtype=torch.float64), atol=1e-6)
    rectified = x.relu()
    share = (rectified == 0).double().mean(0)
    entropy = -share * share.log() - (1 - share) * ((1 - share) / 5).log()
    assert torch.allclose(mutual_information(rectified, rectified, bins=5, bias=None).diagonal(), entropy, atol=1e-4)


def test_information_is_the_sum_over_the_histogram():
    x, y = correlated(1_000, 3), correlated(1_000, 2, seed=5)
    found = mutual_information(x, y, bins=4, bias=None)
    x_edges, y_edges = percentile_edges(x, 4), percentile_edges(y, 4)
    for i, j in itertools.product(range(3), range(2)):
        counts = np.zeros((5, 5))
        for a, b in zip(x[:, i].tolist(), y[:, j].tolist()):
            row = 4 if a == 0 else sum(a > edge for edge in x_edges[i].tolist())
            column = 4 if b == 0 else sum(b > edge for edge in y_edges[j].tolist())
            counts[row, column] += 1
        joint = counts / counts.sum()
        expected = joint * np.log(joint / np.outer(joint.sum(1), joint.sum(0)), where=joint > 0, out=np.zeros((5, 5)))
        assert float(found[i, j]) == pytest.approx(expected.sum(), abs=1e-12)


def test_the_correction_is_miller_and_madows_and_takes_the_bias_away():
    x, y = randn(400, 40, seed=1), randn(400, 40, seed=2)
    plain = mutual_information(x, y, bins=5, zero_mass=False, bias=None)
    corrected = mutual_information(x, y, bins=5, zero_mass=False)
    assert torch.allclose(plain - corrected, torch.full((40, 40), 16 / 800, dtype=torch.float64))  # all 25 cells filled
    assert plain.mean() > 0.015
    assert corrected.mean().abs() < 0.002
    own = mutual_information(x, x, bins=5, zero_mass=False).diagonal()
    assert torch.allclose(own, torch.full((40,), math.log(5) + 4 / 800, dtype=torch.float64))  # entropy's correction


def test_information_in_batches_is_that_of_all_and_constant_units_have_none():
    x, y = correlated(3_000, 3), correlated(3_000, 2, seed=5)
    x[:, 1] = 0.0
    running = RunningMutualInformation(percentile_edges(x), percentile_edges(y))
    for one, other in zip(x.split(700), y.split(700)):
        running.update(one, other)
    assert torch.allclose(running.nats(), mutual_information(x, y), atol=1e-12)
    assert torch.allclose(mutual_information(x, y, bias=None)[1], torch.zeros(2, dtype=torch.float64), atol=1e-12)


# ---- a user's own models ---------------------------------------------------------------------------------------------


class UsersNet(nn.Module):
    def __init__(self, seed):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv1, self.conv2, self.head = nn.Conv2d(1, 5, 3), nn.Conv2d(5, 7, 3), nn.Linear(7 * 16, 3)

    def forward(self, x):
        return self.head(torch.relu(self.conv2(torch.relu(self.conv1(x)))).flatten(1))


def permuted(net, order):
    """The same function with the channels of its first convolution in another order."""
    other = UsersNet(0)
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        other.conv1.weight.copy_(net.conv1.weight[order])
        other.conv1.bias.copy_(net.conv1.bias[order])
        other.conv2.weight.copy_(net.conv2.weight[:, order])
    return other


@pytest.mark.parametrize("wrap", [lambda net: net, Fabric(accelerator="cpu", devices=1).setup], ids=["plain", "fabric"])
def test_the_units_of_a_permuted_network_are_found_in_a_users_loop(wrap):
    model, order = UsersNet(0), torch.tensor([3, 1, 4, 0, 2])
    other = permuted(model, order)
    images = torch.randn(60, 1, 8, 8, generator=draws())
    loader, held_out = images[:40].split(16), images[40:].split(16)
    first, second = (
        unit_cross_moments(wrap(model), "conv1", wrap(other), "conv1", part) for part in (loader, held_out)
    )
    match = match_units(first).on(second)
    assert torch.equal(order[match.partners], match.units)
    assert torch.allclose(match.score, torch.ones(5, dtype=torch.float64), atol=1e-5)
    (stitch,) = stitch_path(first, [0.1])
    assert torch.allclose(stitch.weights[order], 0.9 * torch.eye(5, dtype=torch.float64), atol=1e-5)
    assert stitch.fraction_unexplained(second).max() < 0.05


def test_processes_with_their_own_shards_find_the_same_match(tmp_path):
    run_distributed(
        """
        from etude.interpretability import match_units, unit_cross_moments

        torch.manual_seed(0)
        model, other = (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)) for _ in range(2))
        images = torch.randn(80, 4)
        wrapped = DistributedDataParallel(model)
        shard = unit_cross_moments(wrapped, "1", other, "1", images[rank::2].split(8)).all_reduce()
        whole = unit_cross_moments(model, "1", other, "1", images.split(8))
        assert torch.allclose(shard.correlation(), whole.correlation(), atol=1e-5)
        assert torch.equal(match_units(shard).partners, match_units(whole).partners)
        """,
        tmp_path,
    )


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_by_name():
    x, y = correlated(50, 4), correlated(50, 3, seed=2)
    moments, lean = CrossMoments.of(x, y), CrossMoments.of(x, y, within=False)
    for call, expected in [
        (lambda: match_units(moments, method="soft"), "soft_match_units"),
        (lambda: match_units(moments, by="squared"), "by='squared'"),
        (lambda: match_units(torch.full((2, 2), torch.nan)), "moments"),
        (lambda: match_units(torch.ones(3)), "moments"),
        (lambda: sparse_stitch(moments, -0.1), "penalties"),
        (lambda: stitch_path(moments, []), "penalties"),
        (lambda: sparse_stitch(moments, 0.1, tolerance=0), "tolerance"),
        (lambda: sparse_stitch(CrossMoments.of(x[:4], y[:4]), 0.1), "4 samples of 4 units.*at least 5"),
        (lambda: sparse_stitch(lean, 0.1), "only the variances"),
        (lambda: unit_clusters(lean, 2), "only the variances"),
        (lambda: unit_clusters(moments, 1), "n_clusters=1"),
        (lambda: unit_clusters(moments, 8), "give 2 to 7"),
        (lambda: unit_clusters(moments, 2).mixing(0.6), "least=0.6"),
        (lambda: unit_clusters(moments, 2).mixing_null(draws=0), "draws=0"),
        (lambda: mutual_information(x, y, bins=1), "bins=1"),
        (lambda: mutual_information(x, y, bias="bits"), "bias='bits'"),
        (lambda: mutual_information(x, y[:3]), "as many samples"),
        (lambda: RunningMutualInformation(percentile_edges(x), percentile_edges(y)).nats(), "no samples"),
        (lambda: percentile_edges(x[:0]), "not empty"),
    ]:
        with pytest.raises(ValueError, match=expected):
            call()
