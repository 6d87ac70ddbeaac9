import numpy as np
import pytest
from scipy import stats

from etude.data.synthetic import dirichlet_task, minority_arc


def test_bayes_rule_of_two_coordinates_is_the_threshold():
    # 0.4 (2 p_2) > 0.6 (2 p_1) on the simplex, that is p_1 < 0.4
    sample = dirichlet_task(2000, (1, 2), (2, 1), np.random.default_rng(0))
    share = sample.points[:, 0] / sample.points.sum(axis=1)
    np.testing.assert_array_equal(sample.bayes > 0, share < 0.4)


def test_bayes_rule_compares_dirichlet_densities():
    a, b = (0.5, 0.5, 2.5), (2.5, 0.1, 0.5)
    sample = dirichlet_task(300, a, b, np.random.default_rng(1), prior=0.3)
    simplex = sample.points / sample.points.sum(axis=1, keepdims=True)
    inner = (simplex > 1e-12).all(axis=1)
    plus, minus = (stats.dirichlet(c).logpdf(simplex[inner].T) for c in (a, b))
    np.testing.assert_array_equal(sample.bayes[inner] > 0, np.log(0.3) + plus > np.log(0.7) + minus)


def test_points_lie_on_the_sphere_and_labels_follow_the_prior():
    sample = dirichlet_task(20_000, (1, 2), (2, 1), np.random.default_rng(2))
    np.testing.assert_allclose(np.linalg.norm(sample.points, axis=1), 1)
    assert (sample.labels > 0).mean() == pytest.approx(0.4, abs=0.02)
    assert (sample.labels == sample.bayes).mean() == pytest.approx(0.76, abs=0.02)


def test_the_arc():
    sample = minority_arc(20_000, np.random.default_rng(0), share=0.2, noise=0.1)
    angle = np.arctan2(sample.points[:, 1], sample.points[:, 0])
    assert angle.min() > 0
    assert angle.max() < np.pi / 2
    np.testing.assert_array_equal(sample.bayes > 0, np.abs(angle - np.pi / 4) < 0.1 * np.pi / 2)
    assert (sample.bayes > 0).mean() == pytest.approx(0.2, abs=0.02)
    assert (sample.labels != sample.bayes).mean() == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: dirichlet_task(0, (1, 2), (2, 1), g), "n must"),
        (lambda g: dirichlet_task(5, (1, 2), (2, 1, 1), g), "equally many"),
        (lambda g: dirichlet_task(5, (1,), (2,), g), "equally many"),
        (lambda g: dirichlet_task(5, (1, 0), (2, 1), g), "positive"),
        (lambda g: dirichlet_task(5, (1, 2), (2, 1), g, prior=1.0), "prior"),
        (lambda g: minority_arc(5, g, share=0.0), "share"),
        (lambda g: minority_arc(5, g, noise=0.5), "noise"),
        (lambda g: minority_arc(-1, g), "n must"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0))
