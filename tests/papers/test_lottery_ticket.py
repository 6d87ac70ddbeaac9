"""The study at smoke: every claim is judged, every figure drawn, and controls differ from tickets in one thing only."""

import numpy as np
import pytest
import torch

from etude.compression import Mask, reinitialise
from etude.data import images
from etude.papers import lottery_ticket
from etude.papers.lottery_ticket import Protocol, build, study, train
from study_at_smoke import judged, legend_of, untested


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    return study.run("smoke", engine="inline", store=tmp_path_factory.mktemp("store"), progress=False)


def test_every_claim_is_judged_without_an_error(evidence):
    verdicts = judged(study, evidence)
    assert untested(verdicts) == ["tickets-do-not-lose-accuracy"]
    assert verdicts["masks-are-kept-exactly"].status == "holds"


def test_the_rule_that_digits_cannot_decide_runs_too(evidence):
    assert lottery_ticket.tickets_do_not_lose_accuracy(evidence).judge("claim", 0.05).error is False


@pytest.mark.parametrize("draw", study.figures, ids=lambda draw: draw.__name__)
def test_figures_are_drawn_and_labelled(evidence, draw):
    assert len(legend_of(draw, evidence)) >= 3


def test_controls_have_exactly_the_tickets_densities(evidence):
    frame = evidence["prune"].frame
    counts = frame.groupby(["seed", "weights"]).size().unstack()
    assert (counts == {"ticket": 4, "reinitialised": 5, "random positions": 1, "one shot": 1}).all().all()
    tickets = set(frame[frame.weights == "ticket"].density)
    assert set(frame.density) == tickets
    smallest = frame[frame.density == min(tickets)]
    assert set(smallest.weights) == {"ticket", "reinitialised", "random positions", "one shot"}


def test_a_tickets_mask_is_kept(evidence):
    mask = evidence.saved("prune", "smallest-ticket", seed=1)
    assert isinstance(mask, Mask)
    assert mask.density() == evidence["prune"].frame.density.min()


def test_both_scopes_prune_to_one_density(evidence):
    last = evidence["unequal_layers"].at(n=2)
    layer, together = last.at(scope="layer").frame, last.at(scope="global").frame
    assert np.allclose(layer.density, 0.05, atol=0.001)
    assert np.allclose(layer.density, together.density, atol=0.001)
    assert np.allclose(layer.first_layer, layer.last_layer, atol=0.03)
    first = evidence["unequal_layers"].at(n=0)  # the dense network is the same
    assert (first.at(scope="layer")["accuracy"] == first.at(scope="global")["accuracy"]).all()


def test_training_depends_on_its_arguments_alone():
    data = images("digits")
    model = build("lenet-300-100", data, torch.Generator().manual_seed(0))
    start, full = dict(model.state_dict()), Mask.full(model)
    options = {"steps": 3, "evaluate_every": 2}
    one = train("lenet-300-100", data, start, full, order=1, **options)
    torch.manual_seed(123)
    again = train("lenet-300-100", data, start, full, order=1, **options)
    other = train("lenet-300-100", data, start, full, order=2, **options)
    fresh = reinitialise(start, full, torch.Generator().manual_seed(1))
    redrawn = train("lenet-300-100", data, fresh, full, order=1, **options)
    assert all(torch.equal(one.weights[name], again.weights[name]) for name in start)
    assert not torch.equal(one.weights["fc1.weight"], other.weights["fc1.weight"])
    assert not torch.equal(one.weights["fc1.weight"], redrawn.weights["fc1.weight"])


@pytest.mark.parametrize("network", ["conv-2", "conv-4", "conv-6"])
def test_convolutional_networks_are_pruned_at_the_papers_rates(network, tmp_path):
    config = Protocol(data="digits", network=network, steps=1, levels=(1,), seeds=1)
    evidence = study.run(config, engine="inline", only="prune", store=tmp_path, progress=False)
    assert not evidence.failures
    kept = evidence.saved("prune", "smallest-ticket").per_layer()
    for name, density in kept.items():
        rate = (
            0.1 if name.startswith("output") else 0.2 if name.startswith("fc") else 0.15 if network == "conv-6" else 0.1
        )
        assert density == pytest.approx(1 - rate, abs=0.001)
    statuses = {verdict.claim: verdict.status for verdict in study.judge(evidence)}
    assert statuses["tickets-learn-faster"] == "untested"


def test_presets_measure_what_the_claims_ask_for():
    assert {"smoke", "demo", "laptop", "extended", "paper"} <= study.presets.keys()
    for config in study.presets.values():
        assert {7, 9, 12} <= set(config.levels)
        assert list(config.levels) == sorted(set(config.levels))
    assert study.presets["paper"].steps == 50_000
