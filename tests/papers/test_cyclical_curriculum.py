"""The study at smoke: every claim is judged, every figure drawn, and arms see as many examples as each other."""

import numpy as np
import pytest
import torch

from etude.data import images
from etude.nn import glorot_initialise_
from etude.papers.cyclical_curriculum import (
    BATCH,
    Protocol,
    greatest,
    learn,
    network,
    selected,
    study,
    with_wrong_labels,
)
from etude.training import CurriculumSampler, constant_sizes, cycle_sizes
from study_at_smoke import judged, legend_of, untested


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    return study.run("smoke", engine="inline", store=tmp_path_factory.mktemp("store"), progress=False)


def test_every_claim_is_judged_without_an_error(evidence):
    verdicts = judged(study, evidence)
    assert not untested(verdicts)
    assert verdicts["sizes-follow-the-cycle"].status == "holds"
    assert verdicts["draws-are-successive"].status == "holds"


@pytest.mark.parametrize("draw", study.figures, ids=lambda draw: draw.__name__)
def test_figures_are_drawn_and_labelled(evidence, draw):
    assert len(legend_of(draw, evidence)) >= 2


def test_arms_are_evaluated_after_as_many_examples(evidence):
    frame = evidence["train"].frame
    points = frame[frame.point]
    ends = np.floor(300 * np.cumsum(cycle_sizes(3)))
    for _, rows in points.groupby(["seed", "labels", "arm"]):
        assert len(rows) == len(ends)
        assert (rows.seen >= ends).all()
        assert (rows.seen < ends + BATCH).all()
    cycle = points[points.arm.isin(["easy cycle", "random cycle"])]
    assert cycle.end.all()
    assert set(points[points.labels == "noisy"].arm) == {"ordinary", "easy cycle"}


def test_test_accuracy_is_read_where_validation_chose(evidence):
    """It is known there in all arms, and in those whose maximum is asked for everywhere."""
    rows = evidence["train"].at(labels="right").frame
    for arm in ("ordinary", "easy cycle"):
        assert rows[rows.arm == arm].accuracy.notna().all()
        found = rows[(rows.arm == arm) & rows.point & (rows.seed == 1)].reset_index(drop=True)
        assert selected(evidence, arm)[1] == 100 * found.accuracy[int(np.argmax(found.validation))]
        own = rows[(rows.arm == arm) & rows.end & (rows.seed == 1)]
        assert greatest(evidence, arm)[1] == 100 * own.accuracy.max()
        assert len(own) == (3 if arm == "ordinary" else 6)
    for arm in ("random cycle", "static easy"):
        assert selected(evidence, arm).notna().all()


def test_the_network_is_the_papers():
    model = network(3, 32, 10, torch.Generator().manual_seed(0))
    assert sum(parameter.numel() for parameter in model.parameters()) == 66_890
    statistics = sum(b.numel() for name, b in model.named_buffers() if "running" in name)
    assert 66_890 + statistics == 67_210
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    same = network(3, 32, 10, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters()))


def test_wrong_labels_are_as_many_as_asked_and_all_wrong():
    part = images("digits").train
    noisy = with_wrong_labels(part, 0.3, torch.Generator().manual_seed(0))
    assert int((noisy.y != part.y).sum()) == round(0.3 * len(part.y))
    assert set(noisy.y.tolist()) == set(range(10))
    moved = (noisy.y - part.y)[noisy.y != part.y] % 10
    assert set(moved.tolist()) == set(range(1, 10))


def test_training_takes_each_example_the_sampler_names():
    """One epoch of one batch is one step of Adam on all examples, whatever their order."""
    data = images("digits").subset(train=100, validation=20, test=20)

    def linear():
        layer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        return glorot_initialise_(layer, torch.Generator().manual_seed(0))

    ours, plain = linear(), linear()
    sampler = CurriculumSampler(range(100), torch.rand(100) + 0.1, constant_sizes(1))
    curve = learn(ours, data, sampler, [100], 0.01, audit=True)
    assert curve[["seen", "point", "end"]].to_numpy().tolist() == [[100, True, True]]
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    torch.nn.functional.cross_entropy(plain(data.train.x), data.train.y).backward()
    optimizer.step()
    for one, other in zip(ours.parameters(), plain.parameters()):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("preset", ["extended", "paper"])
def test_larger_presets_run_small(preset, tmp_path):
    small = {"data": "digits", "train": 200, "validation": 50, "test": 360, "budget": 1.0, "seeds": 1}
    config = study.presets[preset].model_copy(update=small)
    evidence = study.run(config, engine="inline", only="train", store=tmp_path, progress=False)
    assert not evidence.failures
    arms = evidence["train"].at(labels="right").frame.arm.unique()
    assert set(arms) == {"ordinary", *config.arms}
    assert len(arms) == 7


def test_presets_keep_the_papers_numbers():
    paper = study.presets["paper"]
    assert (paper.data, paper.budget, paper.floor) == ("cifar10", 30, 1e-7)
    assert paper.learning_rate == paper.scored_learning_rate == 1e-3
    assert len(cycle_sizes(paper.budget)) == 54
    assert sum(cycle_sizes(Protocol().budget)) == Protocol().budget  # whole cycles, so that all arms end together


def test_the_ordinary_arm_alone_decides_the_scores(tmp_path):
    """More arms beside it change nothing of an arm."""
    config = replace_arms(study.presets["smoke"], ("easy cycle",))
    one = study.run(config, engine="inline", only="train", store=tmp_path, progress=False, seeds=1)
    both = replace_arms(study.presets["smoke"], ("hard cycle", "easy cycle"))
    other = study.run(both, engine="inline", only="train", store=tmp_path, progress=False, seeds=1)
    columns = ["seen", "validation", "accuracy"]
    first, second = (e["train"].at(labels="right", arm="easy cycle").frame[columns] for e in (one, other))
    assert np.array_equal(first.to_numpy(), second.to_numpy(), equal_nan=True)


def replace_arms(config, arms):
    return config.model_copy(update={"arms": arms})
