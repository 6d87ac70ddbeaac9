"""The study at smoke: every claim is judged, every figure drawn, and pairs share nothing but what they say."""

import numpy as np
import pytest
import torch

from etude.data import images
from etude.papers.convergent_learning import PAIRS, Protocol, few_units, network, rise, study, train
from study_at_smoke import judged, legend_of, untested


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    return study.run("smoke", engine="inline", store=tmp_path_factory.mktemp("store"), progress=False)


def test_every_claim_is_judged_without_an_error(evidence):
    verdicts = judged(study, evidence)
    assert not untested(verdicts)
    assert verdicts["exact-recovery"].status == "holds"


@pytest.mark.parametrize("draw", study.figures, ids=lambda draw: draw.__name__)
def test_figures_are_drawn_and_labelled(evidence, draw):
    assert len(legend_of(draw, evidence)) >= 2


def test_every_unit_has_a_row_or_is_counted_as_constant(evidence):
    frame = evidence["pairs"].frame.query("kind == 'unit'")
    assert set(frame["pair"]) == set(PAIRS)
    assert list(frame["layer"].unique()) == ["conv1", "conv2", "conv3", "fc1"]
    assert np.isfinite(frame[["score", "best", "in_sample", "gap", "cka"]]).all().all()
    assert (frame["gap"] >= 0).all()
    trained = frame.query("pair == 'trained' and layer == 'conv1' and seed == 0")
    assert len(trained) >= 8 * (1 - 2 * trained["constant"].iloc[0])
    shuffled = frame.query("pair == 'samples in random order'")
    assert shuffled["score"].abs().mean() < 0.15


def test_rotations_keep_what_is_explained(evidence):
    rows = evidence["pairs"].at(kind="rotation").frame
    assert len(rows) == 2 * 2
    assert (rows["change"] < 1e-6).all()


def test_training_depends_on_its_seeds_alone():
    data, shape = images("digits").subset(train=200), (((4,), (4,), (4,)), (8,), 1)
    one = train(data, *shape, weights=1, order=2, labels=None)
    torch.manual_seed(5)
    again = train(data, *shape, weights=1, order=2, labels=None)
    others = [
        train(data, *shape, weights=weights, order=order, labels=labels)
        for weights, order, labels in [(3, 2, None), (1, 3, None), (1, 2, 4)]
    ]
    assert all(torch.equal(one.weights[name], again.weights[name]) for name in one.weights)
    assert not any(torch.equal(one.weights["conv1.weight"], other.weights["conv1.weight"]) for other in others)
    start = network(data, *shape[:2], 1).state_dict()
    assert not torch.equal(start["conv1.weight"], one.weights["conv1.weight"])


def test_the_smallest_penalty_with_few_units_is_taken(evidence):
    rows = evidence["pairs"].at(kind="stitch", layer="conv1", seed=0).frame
    made = rows.assign(
        penalty=[0.0, *range(1, len(rows))], active=list(range(len(rows), 0, -1)), width=20.0, unexplained=1.0
    )
    made.loc[made["active"] == 4, "unexplained"] = 1.5
    assert few_units(made)["active"] == 4
    assert rise(made) == pytest.approx(0.5)
    assert np.isnan(rise(made.assign(width=1.0)))


def test_the_papers_architecture_runs_small(tmp_path):
    shape = ((6,), (8,), (10, 10, 8))
    assert [len(block) for block in study.presets["paper"].blocks] == [len(block) for block in shape]
    config = Protocol(
        data="digits", blocks=shape, hidden=(12, 12), train_images=256, statistics=100, places=4, clusters=3,
        rotations=1, epochs=1, seeds=1,
    )  # fmt: skip
    evidence = study.run(config, engine="inline", only="pairs", store=tmp_path, progress=False)
    assert not evidence.failures
    assert list(evidence["pairs"].at(kind="unit").frame["layer"].unique()) == [f"conv{n}" for n in range(1, 6)] + [
        "fc1",
        "fc2",
    ]


def test_presets_have_what_the_claims_ask_for():
    assert {"smoke", "laptop", "extended", "paper"} <= study.presets.keys()
    for config in study.presets.values():
        assert sum(map(len, config.blocks)) >= 3
        assert config.hidden
