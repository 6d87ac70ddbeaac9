import math

import numpy as np
import pytest
import torch
from numpy.polynomial import hermite_e
from torch.nn import functional

from etude.theory import (
    ErfActivation,
    HermiteActivation,
    ReLUActivation,
    SineActivation,
    dual_by_quadrature,
    optimal_activation,
    sine_activation,
)

CLOSED_FORMS = [
    ReLUActivation(),
    ErfActivation(),
    SineActivation(1.0),
    sine_activation(8.0),
    optimal_activation(0.5),
    optimal_activation(1),
    optimal_activation(2),
    optimal_activation(8),
    HermiteActivation([0.3, -0.2, 0.5, 0.1]),
]
named = pytest.mark.parametrize("phi", CLOSED_FORMS, ids=lambda phi: phi.name)


@named
def test_dual_equals_the_integral_over_the_plane(phi):
    xi = np.linspace(-1, 1, 21)
    assert np.abs(dual_by_quadrature(phi, xi) - phi.dual(xi)).max() < 1e-10


@named
def test_normalised_to_unit_second_moment(phi):
    assert phi.dual(1.0) == pytest.approx(1.0, abs=1e-14)


@named
def test_mean_and_slopes_are_those_of_the_dual(phi):
    assert phi.dual(0.0) == pytest.approx(phi.A**2, abs=1e-15)
    assert phi.dual_derivative(0.0) == pytest.approx(phi.B**2, abs=1e-15)
    assert phi.dual_derivative(1.0) == pytest.approx(phi.B_prime, rel=1e-12)


@named
def test_derivative_is_the_slope_of_the_dual(phi):
    xi, h = np.linspace(-0.9, 0.9, 13), 1e-6
    slope = (phi.dual(xi + h) - phi.dual(xi - h)) / (2 * h)
    np.testing.assert_allclose(phi.dual_derivative(xi), slope, atol=1e-8)
    np.testing.assert_allclose(phi.derivative_at_gap(1 - xi), slope, atol=1e-8)


@named
def test_elasticity_and_reduced_dual(phi):
    xi = np.array([-0.7, -0.1, 0.2, 0.6, 0.95])
    np.testing.assert_allclose(phi.reduced(xi) * xi**phi.order, phi.dual(xi), rtol=1e-12)
    np.testing.assert_allclose(phi.elasticity(xi), xi * phi.dual_derivative(xi) / phi.dual(xi), rtol=1e-10)


@named
def test_gap_is_one_minus_the_dual_and_keeps_its_digits(phi):
    u = np.array([0.01, 0.2, 0.24, 0.26, 0.7, 1.0, 1.4, 2.0])
    np.testing.assert_allclose(phi.gap(u), 1 - phi.dual(1 - u), atol=1e-14)
    tiny = np.array([1e-30, 1e-22])
    np.testing.assert_allclose(phi.gap(tiny) / tiny, phi.B_prime, rtol=1e-10)
    assert phi.gap(0.0) == 0.0


def test_gap_of_relu_has_the_root_that_a_kink_leaves():
    # 1 - k = u - (2 sqrt(2) / (3 pi)) u^1.5 + O(u^2.5)
    u = np.array([1e-4, 1e-6, 1e-8])
    root = (u - ReLUActivation().gap(u)) / u**1.5
    np.testing.assert_allclose(root, 2 * math.sqrt(2) / (3 * math.pi), rtol=1e-4)


@named
def test_arrays_and_tensors_agree(phi):
    x = np.linspace(-3, 3, 7)
    np.testing.assert_allclose(phi(torch.from_numpy(x)).numpy(), phi(x), rtol=1e-12)


def test_hermite_polynomials_are_the_normalised_ones():
    x = np.linspace(-2, 2, 9)
    expected = hermite_e.hermeval(x, np.eye(8)[7]) / math.sqrt(math.factorial(7))
    np.testing.assert_allclose(HermiteActivation(np.eye(8)[7])(x), expected, rtol=1e-12)


def test_activations_of_the_paper():
    one, two = optimal_activation(1), optimal_activation(2)
    np.testing.assert_allclose(one.squares, [0, 0.5, 0, 0, 0, 0, 0, 0.5], atol=1e-14)
    np.testing.assert_allclose(two.squares, [0, 0.5, 0, 0.5], atol=1e-14)
    assert optimal_activation(5).B_prime == pytest.approx(2)
    assert ErfActivation().alpha == pytest.approx(0.888, abs=5e-4)
    for alpha, a in ((2, 2.676), (4, 6.13539), (8, 13.8258)):
        assert sine_activation(alpha).a == pytest.approx(a, abs=1e-4)


@pytest.mark.parametrize("d", [0.25, 0.5, 1, 1.7, 2, 3.3, 8, 40])
def test_optimal_activation_has_the_exponent_asked_for(d):
    assert optimal_activation(d).alpha == pytest.approx(d, rel=1e-10)


@pytest.mark.parametrize("alpha", [1.01, 2, 30, 200])
def test_sine_activation_has_the_exponent_asked_for(alpha):
    assert sine_activation(alpha).alpha == pytest.approx(alpha, rel=1e-9)


def test_regimes():
    assert optimal_activation(2).regime() == "singular"
    assert HermiteActivation([0, 0, 1]).regime() == "nearest"
    assert math.isinf(HermiteActivation([0, 0, 1]).alpha)
    assert ReLUActivation().regime() == "majority"
    assert math.isnan(ReLUActivation().alpha)
    assert HermiteActivation([1, 0.2]).regime() == "ordered"


@pytest.mark.parametrize(
    ("phi", "closed"),
    [(torch.relu, ReLUActivation()), (torch.erf, ErfActivation()), (torch.sin, SineActivation(1.0))],
)
def test_expansion_of_a_function_agrees_with_its_closed_form(phi, closed):
    expanded = HermiteActivation.from_callable(phi)
    xi = np.linspace(-1, 1, 41)
    assert np.abs(expanded.dual(xi) - closed.dual(xi)).max() <= expanded.dual_error + 1e-14
    np.testing.assert_allclose([expanded.A, expanded.B], [closed.A, closed.B], atol=1e-10)
    assert expanded.B_prime == pytest.approx(closed.B_prime, rel=1e-6)  # though ReLU's series is cut at degree 64
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(expanded(x), closed(x))


@pytest.mark.parametrize("phi", [functional.gelu, functional.silu, torch.tanh, functional.selu])
def test_expansion_error_is_within_its_bound(phi):
    expanded = HermiteActivation.from_callable(phi)
    xi = np.linspace(-1, 1, 21)
    assert np.abs(expanded.dual(xi) - dual_by_quadrature(expanded, xi)).max() <= expanded.dual_error + 1e-12


def test_rounding_is_not_taken_for_a_mean():
    assert HermiteActivation.from_callable(torch.tanh).A == 0.0
    assert HermiteActivation.from_callable(functional.selu).regime() == "singular"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HermiteActivation([]), "coeffs"),
        (lambda: HermiteActivation([[1.0, 2.0]]), "coeffs"),
        (lambda: HermiteActivation([0, math.nan]), "coeffs"),
        (lambda: HermiteActivation([2.0, 0.0]), "zero variance"),
        (lambda: HermiteActivation([0.0, 3.0]), "linear"),
        (lambda: HermiteActivation.from_callable(torch.tanh, degree=1), "degree"),
        (lambda: HermiteActivation.from_callable(lambda x: 2 * x), "linear"),
        (lambda: HermiteActivation.from_callable(torch.ones_like), "zero variance"),
        (lambda: HermiteActivation.from_callable(torch.zeros_like), "vanish"),
        (lambda: HermiteActivation.from_callable(torch.sign), "continuous"),
        (lambda: HermiteActivation.from_callable(torch.log), "finite"),
        (lambda: HermiteActivation.from_callable(torch.sum), "shape"),
        (lambda: optimal_activation(0), "d must"),
        (lambda: optimal_activation(math.nan), "d must"),
        (lambda: sine_activation(1.0), "alpha must"),
        (lambda: SineActivation(-1.0), "a must"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
