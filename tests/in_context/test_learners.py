"""Learners against brute force, and against each other where theory says that they agree."""

import math

import pytest
import torch
from torch.nn.functional import soft_margin_loss

from etude.in_context import (
    CNF,
    DNF,
    Averaging,
    BayesPredictor,
    Conjunctions,
    Disjunctions,
    EliminationLearner,
    IntegerHalfspaces,
    LinearFunctions,
    Majorities,
    MajorityVote,
    NearestNeighbour,
    NearestNeighbourRule,
    Parities,
    ParitySolver,
    PerPromptNetwork,
    RidgeRegression,
    SparseDisjunctions,
    Thresholds,
    excess_error,
    predicted,
)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def posterior_by_hand(task, x, y):
    """E[y_k | ...] of one prompt, function by function in Python's own numbers."""
    functions, prior = task.enumerate()
    table = task.labels(functions, x).tolist()
    ratio = task.input_ratio(functions, x)
    ratio = [[1.0] * len(x)] * len(table) if ratio is None else ratio.tolist()
    weights, expected = prior.tolist(), []
    for k in range(len(x)):
        weights = [w * r[k] for w, r in zip(weights, ratio)]
        expected.append(math.fsum(w * f[k] for w, f in zip(weights, table)) / math.fsum(weights))
        weights = [w if f[k] == y[k] else 0.0 for w, f in zip(weights, table)]
    return expected


@pytest.mark.parametrize(
    "task",
    [Conjunctions(4), Disjunctions(4), SparseDisjunctions(5, size=2), DNF(2, terms=2), CNF(2, clauses=3),
     Majorities(5), Thresholds(3), IntegerHalfspaces(3, largest=2), Parities(5), Parities(6, size=2)],
    ids=str,
)  # fmt: skip
def test_bayes_is_the_posterior_computed_function_by_function(task):
    prompts = task.prompts(6, 9, draws())
    expected = torch.tensor([posterior_by_hand(task, x, y.tolist()) for x, y in zip(prompts.x, prompts.y)])
    assert torch.allclose(BayesPredictor(task)(prompts.x, prompts.y), expected.double(), atol=1e-6)
    hand = torch.tensor(posterior_by_hand(task, prompts.x[0], prompts.y[0].tolist()), dtype=torch.float64)
    assert torch.allclose(BayesPredictor(task)(prompts.x[:1], prompts.y[:1])[0], hand, atol=1e-12, rtol=0)


def test_bayes_is_calibrated_and_no_learner_is_right_more_often():
    task = Conjunctions(6)
    prompts = task.prompts(4000, 12, draws())
    expected = BayesPredictor(task)(prompts.x, prompts.y)
    residual = (prompts.y - expected) / (1 - expected.square()).mean().sqrt()
    assert abs(residual.mean()) < 5 / math.sqrt(len(residual))
    assert abs((residual * expected.sign()).mean()) < 5 / math.sqrt(len(residual))
    for learner in (EliminationLearner(), NearestNeighbour(), NearestNeighbour(3), Averaging(), MajorityVote()):
        scores = learner(prompts.x, prompts.y)
        regret = excess_error(scores, expected)
        assert (regret >= 0).all()
        counted = (predicted(expected) == prompts.y).double() - (predicted(scores) == prompts.y).double()
        difference = (counted - regret).mean(1)
        assert abs(difference.mean()) < 5 * difference.std() / math.sqrt(len(difference))
        assert regret.mean() > 0.01  # the inputs' distribution tells what these learners do not use


def test_after_a_teaching_sequence_bayes_is_certain():
    for task in (Conjunctions(5), Conjunctions(6, negated=False), Parities(6, size=2), Disjunctions(5)):
        prompts = task.prompts(50, 12, draws(), taught=1)
        after = torch.arange(12) >= prompts.prefix[:, None]
        expected = BayesPredictor(task)(prompts.x, prompts.y)
        assert torch.allclose(expected[after], prompts.y[after].double())


def test_inputs_alone_give_away_what_summing_over_labels_leaves():
    task = Conjunctions(3)
    functions, prior = task.enumerate()
    prompts = task.prompts(5, 6, draws())
    for x, found in zip(prompts.x, BayesPredictor(task).inputs_alone(prompts.x)):
        joint = prior * task.input_ratio(functions, x).prod(1)
        assert found.item() == pytest.approx(((joint * task.labels(functions, x)[:, -1]).sum() / joint.sum()).item())
    even = Parities(4, size=2)  # uniform inputs, half of whose functions are true at a point of two ones
    x = torch.tensor([[[1.0, 1, 1, 1], [1, 1, -1, -1]]])
    assert BayesPredictor(even).inputs_alone(x).item() == pytest.approx(4 / 6 - 2 / 6)


def test_blocks_of_prompts_change_nothing(monkeypatch):
    task = Conjunctions(4)
    prompts = task.prompts(11, 8, draws())
    whole = BayesPredictor(task)(prompts.x, prompts.y)
    monkeypatch.setattr("etude.in_context.learners._PAIRS", 200)
    assert torch.equal(BayesPredictor(task)(prompts.x, prompts.y), whole)
    assert torch.equal(BayesPredictor(task).to("cpu")(prompts.x, prompts.y), whole)


def test_labels_no_function_gives_are_refused_with_their_place():
    x = torch.tensor([[[1.0, 1]] * 3] * 2)
    with pytest.raises(ValueError, match=r"y: no function of .* the first 3 labels of prompt 1"):
        BayesPredictor(Parities(2))(x, torch.tensor([[1.0, 1, 1], [1, 1, -1]]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BayesPredictor(Conjunctions(20)), r"task: 3,486,784,401 functions at 1,048,576 inputs .* memory="),
        (lambda: BayesPredictor(Parities(4), memory=255), "256 bytes, more than memory=255"),
        (lambda: BayesPredictor(Parities(4), memory=0), "memory=0"),
        (lambda: BayesPredictor(LinearFunctions(4)), "task: .* cannot be enumerated"),
        (lambda: BayesPredictor(NearestNeighbourRule(4)), "task: .* cannot be enumerated"),
        (lambda: BayesPredictor(Parities(4))(torch.ones(1, 2, 3), torch.ones(1, 2)), "3 bits; the functions have 4"),
        (lambda: BayesPredictor(Parities(2))(torch.zeros(1, 2, 2), torch.ones(1, 2)), "x: .* other than -1 and"),
        (lambda: EliminationLearner("parities"), "of='parities': give 'conjunctions' or"),
        (lambda: NearestNeighbour(0), "k=0"),
        (lambda: RidgeRegression(-1.0), "noise=-1.0"),
        (lambda: PerPromptNetwork(last=0), "last=0"),
        (lambda: PerPromptNetwork(learning_rate=0), "learning_rate=0"),
        (lambda: PerPromptNetwork(last=3)(torch.ones(2, 3, 4), torch.ones(2, 3)), "last=3: give less than the 3"),
        *(
            (lambda learner=learner: learner(torch.ones(2, 3, 4), torch.zeros(2, 3)), r"y: there are labels in \[0, 0]")
            for learner in (ParitySolver(), NearestNeighbour(), Averaging(), MajorityVote(), EliminationLearner())
        ),
        (lambda: Averaging()(torch.ones(2, 3, 4), torch.ones(2, 4)), r"y of shape \(2, 4\) does not fit"),
    ],
)
def test_bad_input_is_refused_by_name(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_elimination_is_the_plain_algorithm_and_one_sided():
    for of, task, sign in (("conjunctions", Conjunctions(6), 1), ("disjunctions", Disjunctions(6), -1)):
        prompts = task.prompts(200, 14, draws())
        scores = EliminationLearner(of)(prompts.x, prompts.y)
        for x, y, score in zip(prompts.x[:30].tolist(), prompts.y.tolist(), scores.tolist()):
            literals = {(i, s) for i in range(6) for s in (-1, 1)}
            for k, point in enumerate(x):
                true = all(sign * point[i] == s for i, s in literals)
                assert score[k] == (sign if true else -sign)
                if y[k] == sign:
                    literals = {(i, s) for i, s in literals if sign * point[i] == s}
        assert (prompts.y[scores == sign] == sign).all()


def test_gaussian_elimination_is_bayes_on_parities_of_any_set():
    task = Parities(7)
    prompts = task.prompts(200, 14, draws())
    assert torch.allclose(
        ParitySolver()(prompts.x, prompts.y).double(), BayesPredictor(task)(prompts.x, prompts.y), atol=1e-12
    )


def test_nearest_neighbour_is_exact_on_its_own_rule_and_agrees_with_scikit_learn():
    task = NearestNeighbourRule(8, free=4)
    prompts = task.prompts(50, 16, draws())
    assert torch.equal(predicted(NearestNeighbour()(prompts.x, prompts.y))[:, 4:], prompts.y[:, 4:])
    from sklearn.neighbors import KNeighborsClassifier

    x = torch.randn(5, 12, 6, generator=draws())  # real inputs have no ties
    y = 2.0 * (torch.rand(5, 12, generator=draws(1)) < 0.5) - 1
    scores = NearestNeighbour(3)(x, y)
    for b in range(5):
        for k in range(3, 12):
            theirs = KNeighborsClassifier(3, metric="cosine").fit(x[b, :k], y[b, :k]).predict(x[b, k : k + 1])
            assert theirs[0] == predicted(scores)[b, k]


def test_averages_are_those_of_the_points_before():
    prompts = Majorities(5).prompts(4, 6, draws())
    averaging, vote = Averaging()(prompts.x, prompts.y), MajorityVote()(prompts.x, prompts.y)
    assert (averaging[:, 0] == 0).all()
    for k in range(1, 6):
        w = (prompts.y[:, :k, None] * prompts.x[:, :k]).mean(1)
        assert torch.allclose(averaging[:, k], (w * prompts.x[:, k]).sum(-1))
        assert torch.allclose(vote[:, k], prompts.y[:, :k].mean(1))


def test_ridge_regression_is_the_posterior_mean_and_recovers_noiseless_weights():
    task = LinearFunctions(3)
    prompts = task.prompts(8, 7, draws(), noise=0.5)
    x, y = prompts.x.double(), prompts.y.double()
    scores = RidgeRegression(0.5)(x, y)
    for k in range(7):
        # The Gaussian posterior from the joint covariance of the labels, with no normal equations.
        kernel = x[:, :k] @ x[:, :k].mT + 0.25 * torch.eye(k, dtype=torch.float64)
        cross = (x[:, k : k + 1] @ x[:, :k].mT)[:, 0]
        expected = (cross * torch.linalg.solve(kernel, y[:, :k])).sum(-1) if k else torch.zeros(8, dtype=torch.float64)
        assert torch.allclose(scores[:, k], expected, atol=1e-9)
    exact = task.prompts(8, 7, draws(1))
    x, y = exact.x.double(), exact.y.double()
    found = RidgeRegression()(x, y)
    assert torch.allclose(found[:, 3:], y[:, 3:], atol=1e-6)
    least_norm = torch.linalg.lstsq(x[:, :2], y[:, :2, None], driver="gelsd").solution[..., 0]
    assert torch.allclose(found[:, 2], (least_norm * x[:, 2]).sum(-1), atol=1e-6)


def test_networks_of_all_prompts_are_those_trained_one_by_one():
    prompts = Parities(5, size=2).prompts(3, 9, draws())
    learner = PerPromptNetwork(last=2, units=6, steps=7)
    scores = learner(prompts.x, prompts.y)
    assert (scores[:, :-2] == 0).all()
    generator, layers = draws(), []
    for inputs, outputs in ((5, 6), (6, 6), (6, 1)):
        for shape in ((inputs, outputs), (1, outputs)):
            layers.append((2 * torch.rand(6, *shape, generator=generator) - 1) / math.sqrt(inputs))
    for prompt in range(3):
        for place in range(2):
            own = [layer[2 * prompt + place].clone().requires_grad_() for layer in layers]

            def network(x, own=own):
                for weight, bias in zip(own[:-2:2], own[1:-2:2]):
                    x = (x @ weight + bias).relu()
                return (x @ own[-2] + own[-1])[:, 0]

            seen = 7 + place
            x, y = prompts.x[prompt], prompts.y[prompt]
            descent = torch.optim.Adam(own, lr=5e-3)
            for _ in range(7):
                descent.zero_grad()
                soft_margin_loss(network(x[:seen]), y[:seen]).backward()
                descent.step()
            assert torch.allclose(network(x[seen : seen + 1])[0], scores[prompt, seen], atol=1e-5)


@pytest.mark.parametrize(
    "learner",
    [BayesPredictor(Conjunctions(4)), EliminationLearner(), ParitySolver(), NearestNeighbour(3), Averaging(),
     MajorityVote(), RidgeRegression(1.0), PerPromptNetwork(last=5, units=4, steps=3)],
    ids=lambda learner: type(learner).__name__,
)  # fmt: skip
def test_no_learner_sees_a_label_before_it_predicts_it(learner):
    task = Conjunctions(4)
    prompts = task.prompts(20, 8, draws())
    other = task.prompts_of(prompts.parameters, 8, draws(1))
    x, y = torch.cat([prompts.x[:, :5], other.x[:, 5:]], 1), torch.cat([prompts.y[:, :5], other.y[:, 5:]], 1)
    one, two = learner(prompts.x, prompts.y), learner(x, y)
    assert torch.allclose(one[:, :5], two[:, :5], atol=1e-6)
    if not isinstance(learner, (BayesPredictor, ParitySolver)):  # these refuse or misread labels of no function
        y[:, 7] *= -1
        assert torch.allclose(learner(x, y), two, atol=1e-6)


def test_zero_counts_as_minus_one_and_regret_is_what_was_expected():
    assert predicted(torch.tensor([[-2.0, 0.0, 0.1]])).tolist() == [[-1, -1, 1]]
    expected = torch.tensor([[0.5, -0.25, 0.0, 0.75]])
    assert excess_error(torch.tensor([[-1.0, 1.0, 1.0, 2.0]]), expected).tolist() == [[0.5, 0.25, 0, 0]]
