import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from etude.theory import (
    ErfActivation,
    HermiteActivation,
    KernelTable,
    ReLUActivation,
    SineActivation,
    empirical_ntk,
    finite_width_ntk,
    limit_kernel,
    log_nngp,
    nngp,
    ntk,
    optimal_activation,
    ridgeless,
)
from etude.theory.ntk import gap_blocks, on_sphere

SINGULAR = [optimal_activation(0.5), optimal_activation(1), optimal_activation(4), SineActivation(2.0), ErfActivation()]
OTHERS = [ReLUActivation(), HermiteActivation([0.4, 0.5, 0.6]), HermiteActivation([0, 0, 1, 1])]


def sphere(n, dimension, seed):
    x = np.random.default_rng(seed).normal(size=(n, dimension))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("phi", SINGULAR + OTHERS, ids=lambda phi: phi.name)
@pytest.mark.parametrize("depth", [1, 2, 7])
def test_recursions_are_those_of_the_definition(phi, depth):
    X, Z = sphere(6, 3, 0), sphere(5, 3, 1)
    for i, x in enumerate(X):
        for j, z in enumerate(Z):
            s = k = x @ z
            for _ in range(depth):
                s, k = phi.dual(s), phi.dual(s) + k * phi.dual_derivative(s)
            assert nngp(X, Z, phi, depth)[i, j] == pytest.approx(s, rel=1e-9, abs=1e-14)
            assert ntk(X, Z, phi, depth)[i, j] == pytest.approx(k, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("phi", SINGULAR + OTHERS, ids=lambda phi: phi.name)
def test_diagonals(phi):
    X = sphere(4, 3, 0)
    np.testing.assert_array_equal(nngp(X, X, phi, 12).diagonal(), 1.0)
    np.testing.assert_allclose(ntk(X, X, phi, 12).diagonal(), (phi.B_prime ** np.arange(13)).sum(), rtol=1e-12)


def test_several_depths_in_one_pass():
    X = sphere(5, 3, 0)
    kernels = ntk(X, X, ReLUActivation(), [1, 4, 9])
    for kernel, depth in zip(kernels, [1, 4, 9], strict=True):
        np.testing.assert_array_equal(kernel, ntk(X, X, ReLUActivation(), depth))


@pytest.mark.parametrize("phi", SINGULAR + OTHERS, ids=lambda phi: phi.name)
def test_logarithms_agree_with_the_plain_kernel(phi):
    X, Z = sphere(30, 3, 0), sphere(20, 3, 1)
    log_abs, sign = log_nngp(X, Z, phi, 5)
    np.testing.assert_allclose(sign * np.exp(log_abs), nngp(X, Z, phi, 5), rtol=1e-8)


def test_log_kernel_where_the_plain_one_underflows():
    angle = np.array([0.2, 0.5, 1.0])
    X, Z = np.array([[1.0, 0.0]]), np.column_stack([np.cos(angle), np.sin(angle)])
    square = HermiteActivation([0, 0, 1])
    assert not nngp(X, Z, square, 30).any()
    log_abs, sign = log_nngp(X, Z, square, 30)
    np.testing.assert_allclose(log_abs[0], 2.0**30 * np.log(np.cos(angle)), rtol=1e-9)
    np.testing.assert_array_equal(sign, 1.0)


def test_distances_of_near_points_keep_their_digits():
    delta = np.array([1e-3, 1e-6, 1e-9, 1e-12])
    angle = 0.7
    X, Z = np.array([[np.cos(angle), np.sin(angle)]]), np.column_stack([np.cos(angle + delta), np.sin(angle + delta)])
    ((_, u),) = gap_blocks(X, Z)
    np.testing.assert_allclose(u[0], 0.5 * np.square(X - Z).sum(axis=1), rtol=1e-9)
    np.testing.assert_allclose(u[0][:3], 2 * np.sin(delta[:3] / 2) ** 2, rtol=1e-6)


def test_blocks_do_not_change_distances():
    X, Z = sphere(40, 4, 0), sphere(30, 4, 1)
    whole = next(u for _, u in gap_blocks(X, Z, 40))
    np.testing.assert_allclose(np.concatenate([u for _, u in gap_blocks(X, Z, 7)]), whole, rtol=1e-14)


@pytest.mark.parametrize("phi", SINGULAR, ids=lambda phi: phi.name)
def test_limit_kernel_solves_schroeders_equation(phi):
    psi = KernelTable(phi)
    u = np.concatenate([np.geomspace(1e-30, 0.99, 3000), np.linspace(1.01, 1.9, 50)])
    before, sign_before = psi(u)
    after, sign_after = psi(phi.gap(u))
    np.testing.assert_allclose(
        sign_after * np.exp(after), phi.B**2 * sign_before * np.exp(before), rtol=1e-6, atol=1e-12
    )


@pytest.mark.parametrize("phi", SINGULAR, ids=lambda phi: phi.name)
def test_limit_kernel_has_slope_minus_alpha_at_short_distances(phi):
    r = np.geomspace(1e-5, 1e-2, 100)
    slope = np.polyfit(np.log(r), KernelTable(phi)(r**2 / 2)[0], 1)[0]
    assert slope == pytest.approx(-phi.alpha, rel=1e-3)


def test_limit_kernel_is_the_limit():
    X, Z, phi = sphere(20, 3, 0), sphere(20, 3, 1), optimal_activation(2)
    np.testing.assert_allclose(limit_kernel(X, Z, phi), nngp(X, Z, phi, 80) / phi.B**160, rtol=1e-6)
    assert np.isinf(limit_kernel(X, X, phi).diagonal()).all()


def test_limit_kernel_of_the_tangent_kernel_is_the_same():
    X, Z, phi, depth = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]]), optimal_activation(1), 900
    scaled = ntk(X, Z, phi, depth) / phi.B ** (2 * depth) / (depth + 1)
    assert scaled[0, 0] == pytest.approx(limit_kernel(X, Z, phi)[0, 0], rel=0.01)


@pytest.mark.parametrize("phi", SINGULAR + OTHERS, ids=lambda phi: phi.name)
@pytest.mark.parametrize("kernel", ["nngp", "ntk"])
def test_table_agrees_with_the_recursion(phi, kernel):
    X = np.concatenate([sphere(40, 3, 0), sphere(1, 3, 0) + 1e-7])
    Z = sphere(30, 3, 1)
    log_abs, sign = KernelTable(phi, 6, kernel)(np.concatenate([u for _, u in gap_blocks(on_sphere(X, "X", True), Z)]))
    expected = (nngp if kernel == "nngp" else ntk)(X, Z, phi, 6, normalize=True)
    np.testing.assert_allclose(sign * np.exp(log_abs), expected, rtol=1e-7, atol=1e-12)


def test_table_beyond_its_ends_goes_on_as_the_power_law():
    phi = optimal_activation(2)
    psi = KernelTable(phi)
    log_abs, _ = psi(np.array([1e-40, 4e-40]))
    assert log_abs[0] - log_abs[1] == pytest.approx(math.log(4), rel=1e-3)


def test_ridgeless_is_the_pseudo_inverse():
    features = np.random.default_rng(0).normal(size=(12, 4))
    targets = np.random.default_rng(1).normal(size=(12, 2))
    K = features @ features.T
    np.testing.assert_allclose(ridgeless(K, targets), np.linalg.pinv(K) @ targets, atol=1e-10)
    K += np.eye(12)
    np.testing.assert_allclose(ridgeless(K, targets[:, 0]), np.linalg.solve(K, targets[:, 0]), atol=1e-10)


def test_empirical_kernel_of_a_linear_model_is_the_gram_matrix():
    X = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    kernel = empirical_ntk(nn.Linear(3, 1), X, chunk_size=2)
    np.testing.assert_allclose(kernel, (X @ X.T + 1).numpy(), rtol=1e-5)


def test_empirical_kernel_equals_gradients_one_by_one():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    net[0].bias.requires_grad_(False)
    X, Z = torch.randn(5, 3), torch.randn(4, 3)
    trained = [p for p in net.parameters() if p.requires_grad]

    def gradient(x, output):
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(net(x)[output], trained)])

    kernel = empirical_ntk(net, X, Z, chunk_size=3)
    assert kernel.shape == (5, 4, 2, 2)
    for i, j, c, d in [(0, 0, 0, 0), (4, 3, 1, 0), (2, 1, 0, 1)]:
        assert kernel[i, j, c, d] == pytest.approx(float(gradient(X[i], c) @ gradient(Z[j], d)), rel=1e-4)


class Wide(nn.Module):
    """The network that `finite_width_ntk` draws."""

    def __init__(self, phi, inputs, depth, width, generator):
        super().__init__()
        self.phi, self.scale = phi, 1 / math.sqrt(width)
        sizes = [inputs] + [width] * depth
        self.weights = nn.ParameterList(
            [torch.randn(after, before, generator=generator) for before, after in itertools.pairwise(sizes)]
        )
        self.last = nn.Parameter(torch.randn(width, generator=generator))

    def forward(self, x):
        for weight in self.weights:
            x = self.phi(x @ weight.T) * self.scale
        return x @ self.last


def test_finite_width_kernel_is_the_empirical_kernel_of_that_network():
    X, phi = sphere(6, 3, 0), optimal_activation(2)
    net = Wide(phi, 3, 2, 16, torch.Generator().manual_seed(5))
    kernel = finite_width_ntk(X, phi, 2, 16, torch.Generator().manual_seed(5))
    np.testing.assert_allclose(kernel, empirical_ntk(net, torch.from_numpy(X).float()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("phi", [ErfActivation(), ReLUActivation(), SineActivation(1.0)], ids=lambda phi: phi.name)
def test_wide_networks_have_the_tangent_kernel_of_the_recursion(phi):
    X, generator = sphere(5, 3, 0), torch.Generator().manual_seed(0)
    kernels = np.stack([finite_width_ntk(X, phi, 2, 512, generator) for _ in range(60)])
    error = np.abs(kernels.mean(axis=0) - ntk(X, X, phi, 2))
    assert (error < 5 * kernels.std(axis=0) / math.sqrt(60) + 0.02).all()
    assert error.max() < 0.1 * ntk(X, X, phi, 2).max()


GOOD = sphere(3, 3, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nngp(GOOD, GOOD, ErfActivation(), 0), "depth"),
        (lambda: nngp(GOOD, GOOD, ErfActivation(), 1.5), "depth"),
        (lambda: ntk(GOOD, GOOD, ErfActivation(), [2, 2]), "increasing"),
        (lambda: ntk(GOOD, GOOD, ErfActivation(), []), "increasing"),
        (lambda: nngp(1.1 * GOOD, GOOD, ErfActivation(), 1), "X must lie on the unit sphere.*normalize=True"),
        (lambda: nngp(GOOD, 1.1 * GOOD, ErfActivation(), 1), "Z must lie on the unit sphere"),
        (lambda: nngp(GOOD * np.nan, GOOD, ErfActivation(), 1), "finite"),
        (lambda: nngp(GOOD[:, :1], GOOD, ErfActivation(), 1), "2 features"),
        (lambda: nngp(GOOD[0], GOOD, ErfActivation(), 1), "shape"),
        (lambda: nngp(GOOD[:0], GOOD, ErfActivation(), 1), "at least one sample"),
        (lambda: nngp(0 * GOOD, GOOD, ErfActivation(), 1, normalize=True), "norm zero"),
        (lambda: nngp(GOOD, sphere(2, 4, 0), ErfActivation(), 1), "same number of features"),
        (lambda: limit_kernel(GOOD, GOOD, ReLUActivation()), "ReLU.*majority"),
        (lambda: KernelTable(ErfActivation(), 3, "rbf"), "kernel"),
        (lambda: KernelTable(ErfActivation(), -1), "depth"),
        (lambda: empirical_ntk(nn.Linear(3, 1), torch.ones(2, 3), chunk_size=0), "chunk_size"),
        (lambda: empirical_ntk(nn.Tanh(), torch.ones(2, 3)), "requires_grad"),
        (lambda: finite_width_ntk(GOOD, torch.tanh, 1, 0, torch.Generator()), "width"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_tensors_are_taken_and_rows_normalised():
    X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    normalised = (X / X.norm(dim=1, keepdim=True)).double().numpy()
    np.testing.assert_allclose(
        nngp(X, X, ErfActivation(), 2, normalize=True),
        nngp(normalised, normalised, ErfActivation(), 2, normalize=True),
        atol=1e-6,
    )
