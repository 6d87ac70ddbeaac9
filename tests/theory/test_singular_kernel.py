import math

import numpy as np
import pytest
from scipy.stats import ortho_group
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from etude.theory import (
    HermiteActivation,
    ReLUActivation,
    SingularKernelClassifier,
    intrinsic_dimension,
    limit_kernel,
    ntk,
    optimal_activation,
)

SQUARE = HermiteActivation([0, 0, 1])


def task(n, dimension, seed, classes=2):
    generator = np.random.default_rng(seed)
    x = np.abs(generator.normal(size=(n, dimension)))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, generator.integers(classes, size=n)


def expected_failures(estimator):
    return {"check_estimators_dtypes": "its data have a row of zeros, which has no direction to be normalised to"}


# The data of these checks lie anywhere, hence normalize=True.
@parametrize_with_checks(
    [SingularKernelClassifier(normalize=True), SingularKernelClassifier(normalize=True, depth=20)],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.mark.parametrize("d", [0.5, 1, 2])
def test_prediction_is_the_vote(d):
    (X, y), (Z, _) = task(60, 3, 0), task(40, 3, 1)
    votes = limit_kernel(Z, X, optimal_activation(d))
    model = SingularKernelClassifier(alpha=d).fit(X, y)
    shares = votes @ (2 * y - 1) / votes.sum(axis=1)
    np.testing.assert_allclose(model.decision_function(Z), shares, atol=1e-6)
    np.testing.assert_array_equal(model.predict(Z), shares > 0)


def test_finite_depth_is_ridgeless_regression():
    (X, y), (Z, _) = task(40, 4, 0), task(30, 4, 1)
    phi = optimal_activation(3)
    output = ntk(Z, X, phi, 4) @ np.linalg.solve(ntk(X, X, phi, 4), 2 * y - 1)
    model = SingularKernelClassifier(activation=phi, depth=4, kernel="ntk").fit(X, y)
    scores = model.decision_function(Z)
    np.testing.assert_allclose(scores / np.abs(scores).max(), output * (scores / output / np.abs(scores).max()))
    np.testing.assert_array_equal(model.predict(Z), output > 0)


@pytest.mark.parametrize("d", [1, 2])
def test_a_deep_network_is_its_limit(d):
    (X, y), (Z, _) = task(150, d + 1, 0), task(100, d + 1, 1)
    deep = SingularKernelClassifier(activation=optimal_activation(d), depth=300).fit(X, y)
    limit = SingularKernelClassifier(alpha=d).fit(X, y)
    np.testing.assert_allclose(deep.decision_function(Z), limit.decision_function(Z), atol=1e-6)


def test_other_regimes_become_nearest_neighbour_and_majority():
    (X, y), (Z, _) = task(101, 3, 0), task(80, 3, 1)
    nearest = KNeighborsClassifier(1).fit(X, y).predict(Z)
    for depth in (40, math.inf):
        model = SingularKernelClassifier(activation=SQUARE, depth=depth).fit(X, y)
        np.testing.assert_array_equal(model.predict(Z), nearest)
    mean = HermiteActivation(np.sqrt([0.2, 0.2, 0.2, 0.4]))
    for depth in (300, math.inf):
        model = SingularKernelClassifier(activation=mean, depth=depth).fit(X, y)
        assert set(model.predict(Z)) == {int(y.mean() > 0.5)}


def test_training_points_keep_their_labels():
    X, y = task(80, 3, 0, classes=3)
    for model in (SingularKernelClassifier(), SingularKernelClassifier(activation=SQUARE),
                  SingularKernelClassifier(activation=ReLUActivation())):  # fmt: skip
        np.testing.assert_array_equal(model.fit(X, y).predict(X), y)


def test_rotation_changes_nothing():
    (X, y), (Z, _) = task(60, 4, 0), task(40, 4, 1)
    rotation = ortho_group.rvs(4, random_state=0)
    scores = SingularKernelClassifier(alpha=3).fit(X, y).decision_function(Z)
    rotated = SingularKernelClassifier(alpha=3).fit(X @ rotation, y).decision_function(Z @ rotation)
    np.testing.assert_allclose(rotated, scores, atol=1e-8)


def test_order_and_names_of_labels_change_nothing():
    (X, y), (Z, _) = task(60, 3, 0, classes=3), task(40, 3, 1)
    predicted = SingularKernelClassifier().fit(X, y).predict(Z)
    order = np.random.default_rng(2).permutation(60)
    np.testing.assert_array_equal(SingularKernelClassifier().fit(X[order], y[order]).predict(Z), predicted)
    names = np.array(["c", "a", "b"])
    np.testing.assert_array_equal(SingularKernelClassifier().fit(X, names[y]).predict(Z), names[predicted])


@pytest.mark.parametrize("depth", [5, math.inf])
def test_repeated_points_count_once(depth):
    (X, y), (Z, _) = task(50, 3, 0), task(40, 3, 1)
    once = SingularKernelClassifier(alpha=2, depth=depth).fit(X, y)
    twice = SingularKernelClassifier(alpha=2, depth=depth).fit(np.concatenate([X, X[:20]]), np.concatenate([y, y[:20]]))
    np.testing.assert_array_equal(twice.decision_function(Z), once.decision_function(Z))


def test_one_hot_votes_of_two_classes_are_the_binary_vote():
    (X, y), (Z, _) = task(60, 3, 0), task(40, 3, 1)
    binary = SingularKernelClassifier(alpha=2).fit(X, y).decision_function(Z)
    # A third class of one far point: its weight is all that the first two lose.
    far = -np.eye(3)[:1]
    three = SingularKernelClassifier(alpha=2).fit(np.concatenate([X, far]), np.append(y, 2)).decision_function(Z)
    weights = np.abs(limit_kernel(Z, np.concatenate([X, far]), optimal_activation(2)))
    share = weights[:, :-1].sum(axis=1) / weights.sum(axis=1)
    np.testing.assert_allclose((three[:, 1] - three[:, 0]) / 2, binary * share, atol=1e-6)


@pytest.mark.parametrize("depth", [5, math.inf])
def test_chunks_change_nothing(depth):
    (X, y), (Z, _) = task(50, 3, 0), task(40, 3, 1)
    whole = SingularKernelClassifier(alpha=2, depth=depth, chunk_size=1000).fit(X, y).decision_function(Z)
    parts = SingularKernelClassifier(alpha=2, depth=depth, chunk_size=7).fit(X, y).decision_function(Z)
    np.testing.assert_allclose(parts, whole, atol=1e-9)


def test_radius_leaves_out_what_is_farther():
    (X, y), (Z, _) = task(60, 3, 0), task(40, 3, 1)
    votes = limit_kernel(Z, X, optimal_activation(1))
    distance = np.linalg.norm(Z[:, None] - X, axis=2)
    votes[(distance > 0.3) & (distance > distance.min(axis=1, keepdims=True))] = 0.0
    model = SingularKernelClassifier(alpha=1, radius=0.3).fit(X, y)
    np.testing.assert_allclose(model.decision_function(Z), votes @ (2 * y - 1) / votes.sum(axis=1), atol=1e-6)
    alone = SingularKernelClassifier(alpha=1, radius=1e-9).fit(X, y)
    np.testing.assert_array_equal(alone.predict(Z), KNeighborsClassifier(1).fit(X, y).predict(Z))


def test_no_depth_underflows():
    (X, y), (Z, _) = task(50, 6, 0), task(40, 6, 1)
    model = SingularKernelClassifier(alpha=5, depth=600).fit(X, y)
    np.testing.assert_allclose(
        model.decision_function(Z), SingularKernelClassifier(alpha=5).fit(X, y).decision_function(Z), atol=1e-6
    )


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_intrinsic_dimension_is_that_of_the_set_not_of_the_space(dimension):
    generator = np.random.default_rng(0)
    basis = np.linalg.qr(generator.normal(size=(10, dimension)))[0]
    points = generator.uniform(size=(4000, dimension)) @ basis.T
    assert intrinsic_dimension(points) == pytest.approx(dimension, rel=0.1)
    assert intrinsic_dimension(np.repeat(points, 2, axis=0)) == intrinsic_dimension(points)


def test_automatic_exponent_is_the_intrinsic_dimension():
    angle = np.random.default_rng(0).uniform(0, 1.5, 300)
    X = np.column_stack([np.cos(angle), np.sin(angle), np.zeros(300)])
    assert SingularKernelClassifier().fit(X, angle > 1).alpha_ == 1.0


X, Y = task(10, 3, 0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (SingularKernelClassifier(alpha=0), "alpha"),
        (SingularKernelClassifier(alpha=-1.0), "alpha"),
        (SingularKernelClassifier(alpha="d"), "alpha"),
        (SingularKernelClassifier(alpha=1, activation=SQUARE), "alpha must stay 'auto'"),
        (SingularKernelClassifier(activation=np.tanh), "from_callable"),
        (SingularKernelClassifier(depth=0), "depth"),
        (SingularKernelClassifier(depth=2.5), "depth"),
        (SingularKernelClassifier(kernel="rbf"), "kernel"),
        (SingularKernelClassifier(radius=0), "radius"),
        (SingularKernelClassifier(radius=1, depth=3), "radius"),
        (SingularKernelClassifier(chunk_size=0), "chunk_size"),
        (SingularKernelClassifier(activation=HermiteActivation([1, 0.2])), "depth must be finite"),
    ],
)
def test_bad_parameters_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y)


def test_bad_data_are_refused():
    with pytest.raises(ValueError, match="unit sphere"):
        SingularKernelClassifier().fit(2 * X, Y)
    with pytest.raises(ValueError, match="class"):
        SingularKernelClassifier().fit(X, np.ones(10))
    with pytest.raises(ValueError, match="NaN"):
        SingularKernelClassifier().fit(np.where(np.eye(10, 3), np.nan, X), Y)
    with pytest.raises(ValueError, match="rows 2 and 10 are the same point, labelled 'a' and 'b'"):
        SingularKernelClassifier().fit(np.concatenate([X, X[2:3]]), np.array([*"abababababb"]))
    with pytest.raises(ValueError, match="3 distinct points"):
        intrinsic_dimension(np.ones((5, 2)))
    with pytest.raises(ValueError, match="grid"):
        intrinsic_dimension(np.arange(100.0)[:, None])
    with pytest.raises(ValueError, match="discard"):
        intrinsic_dimension(X, discard=1)
    with pytest.raises(ValueError, match="finite"):
        intrinsic_dimension(X * np.nan)
