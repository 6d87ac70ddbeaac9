"""The study at smoke: every claim is judged, every figure drawn, and what is recorded is what it says."""

import math

import pytest
import torch

from etude.in_context import (
    BayesPredictor,
    Conjunctions,
    NearestNeighbour,
    NearestNeighbourRule,
    Parities,
    ParitySolver,
    Prompts,
)
from etude.nn import Recurrent, Transformer
from etude.papers.icl_functions import by_hand, by_point, ceiling, functions, listable, network, study
from study_at_smoke import judged, legend_of, untested

CLAIMS = {
    "conjunctions-are-learnt-nearly-optimally",
    "parity-is-not-learnt",
    "classes-are-of-unequal-difficulty",
    "teaching-makes-learning-immediate",
    "one-model-learns-from-both-kinds-of-prompts",
    "one-posterior-explains-both",
    "an-lstm-matches-on-conjunctions-alone",
    "references-are-exact",
    "labels-carry-what-is-learnt",
}


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    return study.run("smoke", engine="inline", store=tmp_path_factory.mktemp("store"), progress=False)


def test_every_claim_is_judged_without_an_error(evidence):
    verdicts = judged(study, evidence)
    assert verdicts.keys() == CLAIMS
    assert not untested(verdicts)
    assert verdicts["references-are-exact"].status == "holds"


@pytest.mark.parametrize("draw", study.figures, ids=lambda draw: draw.__name__)
def test_figures_are_drawn_beside_the_ceiling(evidence, draw):
    assert any("Bayes (ceiling)" in text for text in legend_of(draw, evidence))


def test_a_teaching_prefix_makes_the_posterior_certain(evidence):
    taught = evidence["train"].at(prompts="taught", learner="Bayes").frame
    assert set(taught.task) == {"conjunctions", "monotone conjunctions"}
    assert (taught.accuracy.dropna() == 1).all()
    assert sorted(taught.point.unique()) == list(range(5))


def test_no_learner_has_less_regret_than_the_ceiling(evidence):
    for measurement in ("train", "other_classes"):
        frame = evidence[measurement].frame
        assert (frame.regret.dropna() >= 0).all()
        assert (frame[frame.learner == "Bayes"].regret.dropna() == 0).all()
    assert set(frame.task) == {
        "disjunctions", "sparse disjunctions", "DNF", "CNF", "majorities", "thresholds", "parities"
    }  # fmt: skip


def test_cells_of_a_seed_are_tested_on_the_same_prompts(evidence):
    rows = evidence["train"].at(task="conjunctions", prompts="ordinary", learner="one neighbour").frame
    groups = rows.groupby(["seed", "point"]).accuracy
    assert (groups.size() == 3).all()
    assert (groups.nunique(dropna=False) == 1).all()


def test_repeated_points_are_left_out_and_the_rest_counted_by_hand():
    x = torch.tensor([[[1.0, 1], [1, 1], [1, -1]], [[-1.0, 1], [1, 1], [-1, -1]]])
    prompts = Prompts(x, torch.tensor([[1.0, 1, -1], [1, -1, 1]]), torch.zeros(2, 0), torch.zeros(2))
    logits, expected = torch.tensor([[2.0, -1, 3], [1, 1, 1]]), torch.tensor([[0.5, 1, -0.5], [0.25, -1, 1]])
    table = by_point(prompts, {"model": logits}, expected, torch.tensor([[0, 1, 2], [0, 1, 2]]))
    assert table.accuracy.tolist() == [1, 0, 0.5]
    assert table.regret.tolist() == [0, 1, 0.25]
    late = by_point(prompts, {"model": logits}, None, torch.tensor([[2], [1]]))
    assert late.accuracy.tolist() == [0]
    assert math.isnan(late.regret.item())


def test_ceilings_are_exact_or_absent():
    config = study.presets["extended"]
    for name in ("conjunctions", "halfspaces", "sparse parities", "monotone conjunctions", "thresholds", "majorities"):
        assert listable(functions(config, name))  # the tables are not made here: they take seconds
    assert isinstance(ceiling(Conjunctions(3)), BayesPredictor)
    assert isinstance(ceiling(NearestNeighbourRule(4)), NearestNeighbour)
    assert isinstance(ceiling(Parities(30)), ParitySolver)
    assert ceiling(functions(config, "DNF")) is None
    assert ceiling(Conjunctions(28)) is None


def test_brute_force_knows_the_first_point():
    task = Conjunctions(2)
    # At (+1, +1): of 3 x 3 functions, those without a negation are true there.
    expected, total = 0.0, 0.0
    for w in [(a, b) for a in (0, 1, -1) for b in (0, 1, -1)]:
        size, true = abs(w[0]) + abs(w[1]), min(w) >= 0
        weight = 0.15**size * 0.7 ** (2 - size) * (0.7 + 0.3 * 2**size * true)
        expected, total = expected + weight * (1 if true else -1), total + weight
    assert by_hand(task, [[1, 1]], [1.0]) == pytest.approx([expected / total])


def test_the_papers_network_is_built_and_runs():
    config = study.presets["paper"]
    task = functions(config, "conjunctions")
    generator = torch.Generator().manual_seed(0)
    model = network(config, "transformer", task.bits, config.points, generator)
    assert isinstance(model.sequence, Transformer)
    assert (len(model.sequence.blocks), model.width) == (12, 256)
    assert model.sequence.blocks[0].attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.01)
    prompts = task.prompts(2, config.points, generator, taught=0.5)
    assert model(prompts.x, prompts.y).shape == (2, 70)
    assert isinstance(network(config, "lstm", task.bits, 70, generator).sequence, Recurrent)


def test_regret_is_untested_where_functions_cannot_be_listed():
    untested = {
        name for name, claim in study.claims.items() if claim.when and claim.when(study.presets["paper"]) is not True
    }
    assert untested == {
        "conjunctions-are-learnt-nearly-optimally", "classes-are-of-unequal-difficulty", "one-posterior-explains-both"
    }  # fmt: skip


def test_the_papers_path_runs_small(tmp_path):
    config = study.presets["paper"].updated(
        steps=2, taught_steps=2, tests=6, batch=2, width=16, layers=2, heads=2, lstm_width=8, seeds=1
    )
    evidence = study.run(config, engine="inline", only="train", store=tmp_path, progress=False)
    assert not evidence.failures
    frame = evidence["train"].frame
    assert frame[(frame.task == "conjunctions") & (frame.learner == "Bayes")].empty
    assert (frame[(frame.task == "sparse parities") & (frame.learner == "Bayes")].regret.dropna() == 0).all()
