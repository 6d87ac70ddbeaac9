"""The study at smoke: every claim is judged, every figure drawn; what is trained and tested is what the study says."""

import pytest
import torch

from etude.data import available
from etude.errors import Unavailable
from etude.papers import icl_data
from etude.papers.icl_data import BETWEEN, DATA, Protocol, components, divided, study
from study_at_smoke import judged, legend_of, untested

HERE = next(status for status in available() if status.name == "omniglot-small").present


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    return study.run("smoke", engine="inline", store=tmp_path_factory.mktemp("store"), progress=False)


def test_every_claim_is_judged_without_an_error(evidence):
    verdicts = judged(study, evidence)
    assert untested(verdicts) == ([] if HERE else ["varied-drawings-favour-the-context"])
    assert verdicts["frequencies-and-ceiling-are-exact"].status == "holds"


@pytest.mark.parametrize("draw", study.figures, ids=lambda draw: draw.__name__)
def test_figures_are_drawn_and_labelled_and_show_what_is_possible(evidence, draw):
    if draw is icl_data.characters_curves and not HERE:
        pytest.skip("Omniglot is not on this machine")
    legend = legend_of(draw, evidence)
    assert any("chance" in text for text in legend)
    assert any(word in text for text in legend for word in ("matcher", "possible", "prototype"))


def test_every_network_is_trained_on_its_own_data_from_the_same_start(evidence):
    start = evidence["learn"].at(stage="training", step=0, seed=0).frame.set_index("data")
    assert set(start.index) == {*DATA}
    for same in ("never bursty", "half bursty", "permuted labels", "Zipf 1"):  # items, weights and tests are paired
        assert start.in_context[same] == start.in_context["usual"]
    ends = evidence["learn"].at(stage="trained")
    assert set(ends.frame.step) == {evidence.config.steps}
    assert ends.frame.original_ceiling.to_numpy() == pytest.approx(0.95)
    assert (ends.at(data=["usual", "noisy items"]).frame.in_context_matcher == 1).all()
    assert (ends.at(data=["usual", "noisy items"]).frame.in_weights_prototype == 1).all()


def test_the_data_between_those_of_the_claims_run_too(tmp_path):
    config = study.presets["smoke"].updated(between=True, recurrent_rates=(1e-3,), seeds=1, steps=1, tested=8)
    evidence = study.run(config, engine="inline", store=tmp_path, progress=False)
    assert not evidence.failures
    assert set(evidence["learn"].frame.data) == {*DATA, *BETWEEN}
    assert set(evidence["recur"].frame.cell) == set(icl_data.CELLS)


def test_recurrent_networks_are_tested_after_as_many_and_three_times_as_many_steps(evidence):
    rows = evidence["recur"].at(cell="lstm", stage="trained").frame
    assert set(rows.step) == {6, 18}
    assert set(rows.rate) == set(evidence.config.recurrent_rates)
    best = icl_data.best_recurrent(evidence, 3)
    assert best[0] == rows[(rows.seed == 0) & (rows.step == 18)].in_context.max()


@pytest.mark.skipif(not HERE, reason="Omniglot is not on this machine")
def test_the_held_out_alphabet_has_no_part_in_training_or_components(monkeypatch):
    trained, aside = divided("small")
    assert trained.shape == (1_800, 20, 1, 28, 28)
    assert aside.shape == (17, 20, 1, 28, 28)
    known, new = components("small", 16)
    assert known.square().mean().item() == pytest.approx(1, rel=1e-4)
    flat = known.flatten(0, 1).double()
    covariance = torch.cov(flat.T)
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-3 * covariance.max()
    monkeypatch.setattr(icl_data, "divided", lambda part: (trained, aside + 1))
    again, moved = components("small", 16)
    assert torch.equal(again, known)
    assert not torch.allclose(moved, new)


@pytest.mark.skipif(not HERE, reason="Omniglot is not on this machine")
def test_the_papers_code_path_runs_small(tmp_path):
    small = {"steps": 1, "evaluate_every": 1, "batch": 2, "tested": 8, "layers": 2, "omniglot": "small", "seeds": 1}
    config = study.presets["paper"].updated(**small, recurrent_rates=(1e-3,))
    evidence = study.run(config, engine="inline", only="characters", store=tmp_path, progress=False)
    assert not evidence.failures
    assert set(evidence["characters"].frame.drawings) == {1, 20}


@pytest.mark.skipif(not HERE, reason="Omniglot is not on this machine")
def test_more_classes_than_there_are_characters_are_unavailable_not_failed(tmp_path):
    config = study.presets["smoke"].updated(items="characters", between=True, seeds=1, steps=1, tested=8)
    evidence = study.run(config, engine="inline", only="learn", store=tmp_path, progress=False)
    assert not evidence.failures
    with pytest.raises(Unavailable, match=r"12,800 classes.*1,800.*Use --omniglot all"):
        evidence["learn"]


def test_presets_measure_what_the_claims_ask_for():
    assert {"smoke", "laptop", "extended", "paper"} <= study.presets.keys()
    for config in study.presets.values():
        assert len(config.recurrent_rates) >= 3
        assert not config.labels or all(
            own.classes * own.multiplicity % config.labels == 0 for own in (DATA | BETWEEN).values()
        )
    paper = study.presets["paper"]
    assert (paper.layout, paper.layers, paper.steps, paper.pixels, paper.labels) == (
        "interleaved", 12, 500_000, True, 0
    )  # fmt: skip
    assert Protocol().seeds >= 5
