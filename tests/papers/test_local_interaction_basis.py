"""The study at smoke: claims are judged, figures drawn, bases of a network measured alike, and paper's path runs."""

import pytest
import torch

from etude.data import addition_checkpoint, available
from etude.papers import local_interaction_basis as lib
from etude.papers.local_interaction_basis import BASES, LAYERS, Protocol, study
from study_at_smoke import judged, legend_of, untested

HERE = next(status.present for status in available() if status.name == "rib-checkpoints")
OF_RECORDED = {
    "recorded-results-are-reproduced",
    "first-layer-edges-sparser",
    "all-layers-edges-sparser",
    "same-number-of-directions",
}


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    return study.run("smoke", engine="inline", store=tmp_path_factory.mktemp("store"), progress=False)


def test_every_claim_is_judged_without_an_error(evidence):
    verdicts = judged(study, evidence)
    absent = set() if HERE else OF_RECORDED
    assert set(untested(verdicts)) == {"networks-trained-here-are-sparser-too"} | absent
    assert verdicts["reparametrisation-invariant"].status == "holds"
    assert verdicts["linear-network-diagonal"].status == "holds"


def test_the_rule_that_smoke_cannot_decide_runs_too(evidence):
    verdict = lib.networks_trained_here_are_sparser_too(evidence).judge("claim", 0.05)
    assert not verdict.error
    assert len(verdict.estimates) == 7


@pytest.mark.parametrize("draw", study.figures, ids=lambda draw: draw.__name__)
def test_figures_are_drawn_and_labelled(evidence, draw):
    if not HERE and draw is not lib.edges_of_image_networks:
        pytest.skip("the recorded networks are not at hand")
    assert len(legend_of(draw, evidence)) >= 2


def test_every_basis_is_measured_on_the_same_network(evidence):
    rows = evidence["trained_on_images"].frame
    whole = rows[rows["layer"] == -1]
    assert whole.groupby("basis").size().to_dict() == dict.fromkeys(BASES, 2)
    assert whole.groupby("seed")["accuracy"].nunique().eq(1).all()
    needed = rows[rows["edges"].notna() & (rows["layer"] >= 0)]
    assert (needed["edges"] <= needed["bisected"]).all()
    tried = rows[rows["kept"].notna()]
    for (seed, basis, layer), row in needed.set_index(["seed", "basis", "layer"]).iterrows():
        of_it = tried[(tried["seed"] == seed) & (tried["basis"] == basis) & (tried["layer"] == layer)]
        enough = of_it[of_it["ablated_accuracy"] >= row["accuracy"] - lib.IMAGE_TOLERANCE]
        assert enough["kept"].min() == row["edges"]


@pytest.mark.skipif(not HERE, reason="the recorded networks are not at hand")
def test_what_was_recorded_stands_beside_what_is_measured(evidence):
    rows = evidence["recorded"].at(basis="PCA, recorded", layer=0)
    assert rows.per("checkpoint")["edges"].to_list() == [167]
    both = evidence["recorded"].at(basis="any").per("checkpoint")
    assert both["accuracy"].to_list() == pytest.approx(both["recorded_accuracy"].to_list(), abs=1e-9)


def test_without_the_recorded_networks_their_claims_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("ETUDE_DATA", str(tmp_path))
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path))
    addition_checkpoint.cache_clear()
    found = study.run("smoke", engine="inline", only=["recorded"], store=tmp_path / "store", progress=False)
    addition_checkpoint.cache_clear()
    assert not found.failures
    verdicts = {verdict.claim: verdict for verdict in study.judge(found)}
    for claim in OF_RECORDED:
        assert verdicts[claim].status == "untested"
        assert "ETUDE_DATA" in verdicts[claim].why


def test_the_networks_trained_here_learn_from_the_sums_of_their_seed():
    model, data = lib.sum_network(7, 0.5, 8, 3)
    again, same = lib.sum_network(7, 0.5, 8, 3)
    assert torch.equal(data.train, same.train)
    before = model.state_dict()
    after = lib.train_on_sums(7, 0.5, 8, 3, 1e-3, 3, "cpu")
    assert all(torch.equal(before[name], value) for name, value in again.state_dict().items())
    assert all(not torch.equal(before[name], after[name]) for name in before if not name.endswith("qkv.bias"))


def test_presets_measure_what_the_claims_ask_for():
    assert {"smoke", "laptop", "extended", "paper"} <= study.presets.keys()
    assert study.presets["laptop"] == Protocol()
    for name in ("laptop", "extended", "paper"):
        assert study.presets[name].checkpoints == 5
        assert study.presets[name].pairs is None
    assert len(LAYERS) == 3
    paper = study.presets["paper"]
    assert (paper.modulus, paper.fraction, paper.width, paper.steps) == (113, 0.3, 128, 60_000)
