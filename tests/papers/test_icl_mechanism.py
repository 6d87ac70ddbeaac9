"""The study at smoke: every claim is judged, every figure drawn, and the networks of a seed see the same world."""

import pandas as pd
import pytest
import torch

from etude.papers import icl_mechanism
from etude.papers.icl_mechanism import BETWEEN, COMPARED, DATA, Bench, Protocol, cells, rise, study
from etude.study import Evidence
from etude.study.lab import Lab
from study_at_smoke import judged, legend_of, untested


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    return study.run("smoke", engine="inline", store=tmp_path_factory.mktemp("store"), progress=False)


def test_every_claim_is_judged_without_an_error(evidence):
    verdicts = judged(study, evidence)
    assert len(verdicts) == 8
    assert not untested(verdicts)
    assert verdicts["the-origin-is-critical-only-without-curriculum"].status == "holds"


@pytest.mark.parametrize("draw", study.figures, ids=lambda draw: draw.__name__)
def test_figures_are_drawn_and_labelled(evidence, draw):
    assert len(legend_of(draw, evidence)) >= 4


def test_every_network_is_trained_on_the_data_its_claims_ask_for(evidence):
    trained = {(cell["network"], cell["data"]) for cell in cells(Protocol())}
    assert trained == {("two numbers", "new classes")} | {
        (network, data) for network in ("attention", "three numbers") for data in DATA
    }
    assert {cell["data"] for cell in cells(Protocol(between=True))} == {*DATA, *BETWEEN}
    assert set(COMPARED) < set(DATA)
    assert len(evidence["learn"].at(stage="trained", edit="none").frame) == 2 * len(cells(Protocol()))
    edits = evidence["learn"].at(stage="trained", network="attention").frame.groupby(["seed", "data"])["edit"].agg(set)
    assert (edits == {"none", "layer 1", "layer 2"}).all()


def test_a_rise_is_measured_from_chance_to_one():
    """Up to 1/8 at once, there until step 400, then linearly to 1 at step 450."""
    values = [1 / 8] * 9 + [1.0] * 3
    rows = pd.DataFrame({"step": range(0, 600, 50), "in_context": values, "seed": 0, "stage": "training"})
    tables = {"learn": rows.assign(network="attention", data="new classes")}
    evidence = Evidence("icl-mechanism", "laptop", Protocol(seeds=1), tables)
    found = {part: rise(evidence, "in_context", part)[0] for part in ("onset", "middle", "end", "width")}
    assert found == pytest.approx({"onset": 410, "middle": 425, "end": 440, "width": 30})


def test_labs_of_a_seed_give_both_networks_the_same_world_and_other_seeds_another():
    benches = [
        Bench(network, DATA["many classes"], Lab(seed, cell={}, device="cpu", exchange=None))
        for network, seed in (("attention", 0), ("three numbers", 0), ("attention", 1))
    ]
    batches = [bench.task.train(4, bench.training) for bench in benches]
    assert torch.equal(batches[0].items, batches[1].items)
    assert torch.equal(benches[0].label_vectors, benches[1].label_vectors)
    assert not torch.equal(batches[0].items, batches[2].items)
    assert not torch.equal(benches[0].task.items.means, benches[2].task.items.means)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_step_shrinks_weights_by_what_was_asked_whatever_the_rate(name):
    lab = Lab(0, cell={}, device="cpu", exchange=None)
    bench = Bench("three numbers", DATA["few classes"], lab)
    with torch.no_grad():
        bench.model.beta1.fill_(3.0)
    before = {key: value.clone() for key, value in bench.model.named_parameters()}
    descent = bench.descent(Protocol(optimizer=name, shrink=0.01))
    for parameter in bench.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    descent.step()
    for key, value in bench.model.named_parameters():
        assert torch.allclose(value, 0.99 * before[key], atol=1e-7)


def test_the_papers_protocol_runs_when_it_is_made_small(tmp_path):
    paper = study.presets["paper"]
    assert paper.optimizer == "sgd"
    assert paper.learning_rate == 0.01
    small = paper.model_copy(update={"steps": 2, "evaluate_every": 1, "tested": 16, "seeds": 1})
    evidence = study.run(small, engine="inline", store=tmp_path, progress=False)
    assert not evidence.failures
    assert set(evidence["learn"].frame["data"]) == {*DATA, *BETWEEN}


def test_sizes_are_the_papers():
    assert (icl_mechanism.PAIRS, icl_mechanism.CONTENT, icl_mechanism.POSITIONS, icl_mechanism.BATCH) == (
        8,
        63,
        65,
        128,
    )
    assert DATA["new classes"].labels == 32
