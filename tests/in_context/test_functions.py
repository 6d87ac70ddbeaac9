"""Classes of functions: labels against a plain reading of each definition, samplers against their own listing."""

import itertools
import math

import pytest
import torch

from etude.in_context import (
    CNF,
    DNF,
    Conjunctions,
    Disjunctions,
    FunctionClass,
    IntegerHalfspaces,
    LinearFunctions,
    Majorities,
    NearestNeighbourRule,
    Parities,
    SparseDisjunctions,
    Thresholds,
    unseen,
)

NORMAL_FORMS = [
    Conjunctions(5),
    Conjunctions(5, negated=False),
    Disjunctions(5),
    SparseDisjunctions(5, size=2),
    DNF(3, terms=2),
    CNF(3, clauses=2),
]
LISTED = [*NORMAL_FORMS, Majorities(5), Thresholds(4), IntegerHalfspaces(3), Parities(5), Parities(5, size=2)]


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def cube(bits):
    return torch.tensor(list(itertools.product([-1.0, 1.0], repeat=bits)))


def literals_true(term, x):
    return [xi * wi > 0 for wi, xi in zip(term, x) if wi]


def plainly(task, parameters, x):
    """The definition, one function and one point at a time."""
    match task:
        case Conjunctions():
            return all(literals_true(parameters[0], x))
        case Disjunctions() | SparseDisjunctions():
            return any(literals_true(parameters[0], x))
        case DNF():
            return any(all(literals_true(term, x)) for term in parameters)
        case CNF():
            return all(any(literals_true(clause, x)) for clause in parameters)
        case Parities():
            return sum(xi > 0 for wi, xi in zip(parameters, x) if wi) % 2 == 1
        case _:
            return sum(wi * xi for wi, xi in zip(parameters, x)) > parameters[-1]


@pytest.mark.parametrize("task", LISTED, ids=str)
def test_labels_are_those_of_the_definition(task):
    parameters, _ = task.enumerate()
    chosen = parameters[torch.randperm(len(parameters), generator=draws())[:60]]
    x = cube(task.bits)
    expected = [[1.0 if plainly(task, w.tolist(), point.tolist()) else -1.0 for point in x] for w in chosen]
    assert task.labels(chosen, x).tolist() == expected
    each = task.labels(chosen, x.expand(len(chosen), -1, -1))  # each at its own inputs, here the same ones
    assert each.tolist() == expected


@pytest.mark.parametrize("task", LISTED, ids=str)
def test_functions_are_drawn_with_the_listed_probabilities(task):
    parameters, prior = task.enumerate()
    assert len(parameters) == task.count() == len(set(map(str, parameters.tolist())))
    assert prior.sum().item() == pytest.approx(1)
    n = 40_000
    place = {str(row): i for i, row in enumerate((parameters + 0).tolist())}
    drawn = torch.tensor([place[str(row)] for row in (task.parameters(n, draws()) + 0).tolist()])  # no -0
    found = torch.bincount(drawn, minlength=len(prior)).double()
    statistic = ((found - n * prior) ** 2 / (n * prior)).sum().item()  # chi squared, five deviations allowed
    freedom = len(prior) - 1
    rare = (1 / (n * prior)).sum().item()  # what cells with few expected draws add to the variance
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom + rare)


@pytest.mark.parametrize("task", NORMAL_FORMS, ids=str)
def test_inputs_are_drawn_with_the_ratio_that_bayes_uses(task):
    functions = task.parameters(6, draws(1))
    x = cube(task.bits)
    ratio = task.input_ratio(functions, x)
    assert torch.allclose(ratio.mean(1), torch.ones(6, dtype=torch.float64))  # a distribution for every function
    n = 20_000
    drawn = task.inputs(functions, n, draws(2))
    codes = ((drawn > 0) * 2 ** torch.arange(task.bits - 1, -1, -1)).sum(-1)
    found = torch.stack([torch.bincount(row, minlength=len(x)) for row in codes]).double() / n
    p = ratio / len(x)
    assert ((found - p).abs() < 5 * (p * (1 - p) / n).sqrt()).all()


@pytest.mark.parametrize("task", [*LISTED, NearestNeighbourRule(5, free=3), LinearFunctions(4)], ids=str)
def test_prompts_are_reproducible_endless_and_consistent(task):
    one, again, other = (task.prompts(7, 9, draws(seed), noise=0) for seed in (3, 3, 4))
    assert torch.equal(one.x, again.x)
    assert torch.equal(one.y, again.y)
    assert not torch.equal(one.x, other.x)
    generator = draws(3)
    assert not torch.equal(task.prompts(7, 9, generator).x, task.prompts(7, 9, generator).x)
    assert torch.equal(one.y, task.labels(one.parameters, one.x))
    assert one.prefix.tolist() == [0] * 7
    if not isinstance(task, LinearFunctions):
        assert one.x.abs().unique().tolist() == one.y.abs().unique().tolist() == [1]
    pool = task.prompts_of(one.parameters[[2, 2]], 9, draws(5))
    assert torch.equal(pool.y, task.labels(one.parameters[[2, 2]], pool.x))


def test_forced_inputs_give_the_label_they_are_there_for():
    for task, label in [
        (Conjunctions(6, forced=1), 1),
        (DNF(6, forced=1), 1),
        (Disjunctions(6, forced=1), -1),
        (CNF(6, forced=1), -1),
    ]:
        assert (task.prompts(50, 8, draws()).y == label).all()


def test_the_empty_conjunction_is_true_and_the_empty_disjunction_false():
    assert (Conjunctions(4, relevant=0).prompts(3, 5, draws()).y == 1).all()
    assert (Disjunctions(4, relevant=0).prompts(3, 5, draws()).y == -1).all()


def test_conjunctions_of_negations_are_disjunctions():
    functions = Conjunctions(5).parameters(40, draws())
    x = cube(5)
    assert torch.equal(Disjunctions(5).labels(functions, x), -Conjunctions(5).labels(-functions, x))
    functions = DNF(5).parameters(40, draws())
    assert torch.equal(CNF(5).labels(functions, x), -DNF(5).labels(-functions, x))


@pytest.mark.parametrize(
    "task",
    [Conjunctions(4), Conjunctions(4, negated=False), Disjunctions(4), Disjunctions(4, negated=False),
     SparseDisjunctions(5, size=2), Parities(5), Parities(5, size=2)],
    ids=str,
)  # fmt: skip
def test_a_teaching_sequence_leaves_one_function(task):
    functions, _ = task.enumerate()
    lessons, lengths = task.teaching(functions)
    table = task.labels(functions, cube(task.bits))
    code = 2 ** torch.arange(task.bits - 1, -1, -1)
    for own, lesson, length in zip(table, lessons, lengths):
        at = ((lesson[:length] > 0) * code).sum(-1)
        assert (table[:, at] == own[at]).all(1).sum() == 1


def test_lengths_of_teaching_sequences_are_those_of_the_paper():
    size = 3
    function = torch.tensor([[[1.0, 0, 1, 1, 0]]])
    for task, length in [
        (Conjunctions(5, negated=False), size + 1),
        (Conjunctions(5), size + 2),
        (Disjunctions(5, negated=False), size + 1),
    ]:
        lesson, found = task.teaching(function)
        assert found.tolist() == [length]
        assert task.labels(function, lesson[:, :length])[0].sum() == (1 if "Conj" in str(task) else -1) * (
            length - 2 * size
        )
    terms = torch.tensor([[[1.0, 0, 1], [0, 1, 0], [0, 0, 0]]])
    lesson, length = DNF(3, negated=False).teaching(terms)
    assert length.tolist() == [3 + 2 + 1]
    assert lesson[0, :6].tolist() == [[1, -1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, -1], [-1, -1, -1]]


def test_prompts_begin_with_their_lesson_as_often_as_asked():
    task = Conjunctions(6)
    prompts = task.prompts(4000, 12, draws(), taught=0.25)
    lessons, lengths = task.teaching(prompts.parameters)
    taught = prompts.prefix > 0
    assert abs(taught.double().mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 4000)
    assert torch.equal(prompts.prefix[taught], lengths[taught])
    assert all(
        torch.equal(x[:n], lesson[:n]) for x, lesson, n in zip(prompts.x[taught], lessons[taught], lengths[taught])
    )
    assert torch.equal(prompts.y, task.labels(prompts.parameters, prompts.x))


def test_labels_are_flipped_as_often_as_asked():
    task = Parities(6)
    prompts = task.prompts(1000, 20, draws(), noise=0.1)
    flipped = (prompts.y != task.labels(prompts.parameters, prompts.x)).double().mean()
    assert abs(flipped - 0.1) < 5 * math.sqrt(0.09 / 20_000)
    prompts = LinearFunctions(3).prompts(1000, 20, draws(), noise=0.5)
    error = prompts.y - LinearFunctions(3).labels(prompts.parameters, prompts.x)
    assert abs(error.square().mean() - 0.25) < 5 * 0.25 * math.sqrt(2 / 20_000)


def test_labels_of_the_nearest_neighbour_rule_follow_a_plain_loop():
    task = NearestNeighbourRule(6, free=4)
    prompts = task.prompts(40, 12, draws())
    for x, y, free in zip(prompts.x.tolist(), prompts.y.tolist(), prompts.parameters.tolist()):
        labels = []
        for k, point in enumerate(x):
            agree = [sum(a == b for a, b in zip(point, earlier)) for earlier in x[:k]]
            if k < 4 and 6 not in agree:
                labels.append(free[k])
            else:
                labels.append(labels[agree.index(max(agree))])
        assert y == labels


def test_unseen_points_are_those_without_an_equal_before():
    x = torch.tensor([[[1.0, 1], [1, -1], [1, 1], [-1, 1], [1, -1]]])
    assert unseen(x).tolist() == [[True, True, False, True, False]]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Conjunctions(0), "bits=0: give a whole number of at least 1"),
        (lambda: Conjunctions(4.0), "bits=4.0"),
        (lambda: Conjunctions(4, relevant=1.5), "relevant=1.5: give a number in"),
        (lambda: Disjunctions(4, forced=-0.1), "forced=-0.1"),
        (lambda: Majorities(4, relevant=math.nan), "relevant=nan"),
        (lambda: DNF(4, terms=0), "terms=0"),
        (lambda: CNF(4, clauses=0), "clauses=0"),
        (lambda: SparseDisjunctions(3, size=4), "size=4: give a whole number from 1 to 3"),
        (lambda: Parities(3, size=0), "size=0: give a whole number from 1 to 3"),
        (lambda: IntegerHalfspaces(3, largest=0), "largest=0"),
        (lambda: Thresholds(True), "bits=True"),
        (lambda: NearestNeighbourRule(3, free=0), "free=0"),
        (lambda: LinearFunctions(-1), "dims=-1"),
        (lambda: Parities(3).prompts(0, 4, draws()), "batch=0"),
        (lambda: Parities(3).prompts(2, 0, draws()), "points=0"),
        (lambda: Parities(3).prompts(2, 4, draws(), noise=0.6), r"noise=0.6: give a number in \[0, 0.5\]"),
        (lambda: LinearFunctions(3).prompts(2, 4, draws(), noise=-1), "noise=-1: give a number of at least 0"),
        (lambda: Parities(3).prompts(2, 4, draws(), taught=2), "taught=2"),
        (lambda: Parities(5).prompts(2, 4, draws(), taught=1), "points=4: teaching sequences of .* up to 5"),
        (lambda: Majorities(3).prompts(2, 4, draws(), taught=1), "taught: no teaching sequence is known"),
        (lambda: DNF(3).prompts(2, 40, draws(), taught=1), "taught: no teaching sequence is known"),
        (lambda: NearestNeighbourRule(3, free=4).prompts(2, 4, draws()), "points=4: give .* at least 5"),
        (lambda: LinearFunctions(3).enumerate(), "cannot be enumerated"),
    ],
)
def test_bad_input_is_refused_by_name(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_class_of_ones_own_needs_three_functions():
    class FirstBit(FunctionClass):
        def parameters(self, batch, generator):
            return torch.zeros(batch, 0)

        def inputs(self, parameters, points, generator):
            return Parities(3).inputs(parameters, points, generator)

        def labels(self, parameters, x):
            return x.expand(len(parameters), -1, -1)[..., 0]

    prompts = FirstBit().prompts(4, 5, draws())
    assert torch.equal(prompts.y, prompts.x[..., 0])
