"""The study at smoke: every claim is judged, every figure drawn, and networks of a seed differ in one thing only."""

import numpy as np
import pytest
import torch

from etude.data import available
from etude.papers.icl_languages import ORDERS, Protocol, Reader, languages, sequence_model, study, training
from etude.study.lab import Lab
from study_at_smoke import judged, legend_of, untested

TEXT = next(status.present for status in available() if status.name == "wikitext-2")


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    only = None if TEXT else [name for name in study.measurements if name != "text"]
    return study.run("smoke", engine="inline", only=only, store=tmp_path_factory.mktemp("store"), progress=False)


def test_every_claim_is_judged_without_an_error(evidence):
    verdicts = judged(study, evidence)
    assert untested(verdicts) == ([] if TEXT else ["heads-help-with-text"])
    assert verdicts["the-layer-counts"].status == "holds"


@pytest.mark.parametrize("draw", study.figures, ids=lambda draw: draw.__name__)
def test_figures_are_drawn_and_labelled(evidence, draw):
    labels = legend_of(draw, evidence)
    assert "told states" in labels
    assert len(labels) >= 4


def test_references_are_in_the_order_that_theory_gives(evidence):
    whole = evidence["references"].at(position=-1)
    ceiling = whole.at(predictor="told states")["accuracy"]
    for predictor in ("symbols seen", "1-gram", "2-gram", "3-gram", "4-gram"):
        assert (whole.at(predictor=predictor)["accuracy"] < ceiling).all()


def test_networks_of_a_size_differ_by_less_than_a_hundredth(evidence):
    if not TEXT:
        pytest.skip("WikiText-2 is not at hand")
    one, other = (evidence["text"].at(heads=heads)["parameters"] for heads in (True, False))
    assert np.allclose(one, other, rtol=0.01)


class Nothing:
    """What a trial is connected to, with nobody at the other end."""

    def progress(self, label, done, total):
        pass


def lab(seed=0):
    return Lab(seed, cell={}, device="cpu", exchange=Nothing())


def test_languages_learnt_from_are_none_of_those_held_out():
    config = Protocol(symbols=4, states=(4, 4), held_out=100, batch=64, length=30)
    made = languages(lab(), config)
    again = languages(lab(), config)
    assert len(made.held_out.distinct()) == 100
    for _ in range(3):
        tokens, targets = made.draw()
        assert tokens.shape == targets.shape == (64, 30)
        assert torch.equal(tokens, again.draw()[0])
    assert not torch.equal(tokens, made.draw()[0])


def test_prompts_can_be_drawn_once_and_for_all():
    made = languages(lab(), Protocol(training_prompts=5, batch=40, held_out=4, length=30))
    assert len(made.draw()[0].unique(dim=0)) <= 5


@pytest.mark.parametrize("network", ["transformer", "lstm", "gru", "linear recurrence"])
def test_every_network_of_the_larger_presets_learns_from_every_step(network):
    made = languages(lab(), Protocol(symbols=6, batch=4, held_out=4, length=30))
    body = sequence_model(network, 16, 1, torch.Generator().manual_seed(0))
    model = Reader(7, 6, 16, body, torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in model.named_parameters()}
    assert list(training(model, made.draw, 3, 1e-2)) == [1, 2, 3]
    unmoved = [name for name, value in model.named_parameters() if torch.equal(before[name], value)]
    assert not unmoved


def test_presets_measure_what_the_claims_ask_for():
    assert {"smoke", "laptop", "extended", "paper"} <= study.presets.keys()
    for config in study.presets.values():
        assert {"transformer", "lstm"} <= set(config.networks)
        assert config.length > 100
    assert list(ORDERS.values()) == [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3)]
    assert study.presets["paper"].training_prompts == 40_000
