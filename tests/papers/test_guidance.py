"""The study at smoke: every claim is judged, every figure drawn, and arms differ in their guide only."""

import inspect
import math

import pytest
import torch

from etude.papers.guidance import ARMS, SYMBOLS, Copier, PatchTransformer, Protocol, copying, deep_fcn, spread, study
from study_at_smoke import judged, legend_of, untested


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    return study.run("smoke", engine="inline", store=tmp_path_factory.mktemp("store"), progress=False)


def test_every_claim_is_judged_without_an_error(evidence):
    verdicts = judged(study, evidence)
    assert not untested(verdicts)
    assert verdicts["cka-is-exact"].status == "holds"


@pytest.mark.parametrize("draw", study.figures, ids=lambda draw: draw.__name__)
def test_figures_are_drawn_and_labelled(evidence, draw):
    assert len(legend_of(draw, evidence)) >= 2


def test_every_arm_is_trained_once_a_seed_at_the_unguided_networks_rate(evidence):
    frame = evidence["classify"].frame
    assert (frame.groupby(["seed", "arm"]).size().unstack() == 1).all().all()
    assert set(frame.arm) == set(ARMS)
    assert (frame.groupby("seed").rate.nunique() == 1).all()
    guided = frame[frame.arm != "none"]
    assert guided.similarity.between(0, 1).all()
    assert frame[frame.arm == "none"].similarity.isna().all()
    assert (evidence["copy_strings"].frame.groupby(["seed", "arm"]).size().unstack() == 1).all().all()


def test_guides_run_at_each_step_give_what_stored_similarities_give(evidence, tmp_path):
    config = study.presets["smoke"].updated(store=False, seeds=1)
    live = study.run(config, engine="inline", only=["classify", "copy_strings"], store=tmp_path, progress=False)
    assert not live.failures
    for measurement in ("classify", "copy_strings"):
        stored = evidence[measurement].frame.query("seed == 0").set_index("arm")
        again = live[measurement].frame.set_index("arm")
        assert (stored.rate == again.rate).all()
        assert math.isclose(stored.accuracy["none"], again.accuracy["none"])
    stored, again = evidence["classify"].at(seed=0).frame, live["classify"].frame
    # Half precision and the order of sums differ, so that trajectories drift apart; the first steps do not.
    assert (stored.similarity - again.similarity).abs().max() < 0.05


def test_the_papers_protocol_is_complete_and_its_path_runs_small(tmp_path):
    paper = study.presets["paper"]
    assert (paper.first, paper.depth, paper.width, paper.longest) == (2048, 47, 1024, 40)
    small = study.presets["smoke"]
    sizes = {name: getattr(small, name) for name in Protocol.model_fields}
    config = paper.updated(**{**sizes, "store": paper.store, "train": paper.train, "seeds": 1})
    evidence = study.run(config, engine="inline", only="classify", store=tmp_path, progress=False)
    assert not evidence.failures


class TestCopying:
    def test_targets_are_the_string_at_the_blanks_after_the_token(self):
        tokens, targets = copying(200, 2, 5, torch.Generator().manual_seed(0))
        assert tokens.shape == targets.shape == (200, 11)
        lengths = set()
        for line, wanted in zip(tokens.tolist(), targets.tolist()):
            length = line.index(SYMBOLS + 1)
            lengths.add(length)
            string = line[:length]
            assert all(symbol < SYMBOLS for symbol in string)
            assert line[length + 1 :] == [SYMBOLS] * (10 - length)
            assert wanted == [-100] * (length + 1) + string + [-100] * (10 - 2 * length)
        assert lengths == {2, 3, 4, 5}

    def test_all_symbols_occur_alike_zero_included(self):
        _, targets = copying(5_000, 5, 5, torch.Generator().manual_seed(1))
        shares = torch.bincount(targets[targets >= 0], minlength=SYMBOLS) / 25_000
        assert shares == pytest.approx(torch.full((SYMBOLS,), 0.1), abs=0.01)


class TestNetworks:
    def test_the_deep_network_has_the_layers_it_says(self):
        net = deep_fcn(12, 8, 5, 6, 3)
        linear = [layer for layer in net if isinstance(layer, torch.nn.Linear)]
        shapes = [(layer.in_features, layer.out_features) for layer in linear]
        assert shapes == [(12, 8), (8, 6), *[(6, 6)] * 4, (6, 3)]
        assert sum(isinstance(layer, torch.nn.BatchNorm1d) for layer in net) == 6

    def test_copiers_see_no_later_symbol(self):
        for recurrent in (True, False):
            net = Copier(16, 9, recurrent).eval()
            one, other = torch.zeros(1, 9, dtype=torch.int64), torch.zeros(1, 9, dtype=torch.int64)
            other[0, 5] = 3
            differ = (net(one) - net(other)).abs().sum(1)[0] > 1e-6
            assert differ.tolist() == [False] * 5 + [True] * (9 - 5) or not recurrent
            assert not differ[:5].any()
            assert differ[5]

    def test_the_patch_transformer_ignores_no_patch(self):
        net, x = PatchTransformer(3, 8, 5), torch.randn(2, 3, 8, 8, requires_grad=True)
        net(x).sum().backward()
        assert (x.grad.abs().sum((0, 1)) > 0).all()

    def test_spread_names_reach_from_first_to_last(self):
        assert spread(list("abcdefg"), 3) == ["a", "d", "g"]


def test_smoke_and_laptop_measure_all_that_claims_read():
    assert inspect.getdoc(inspect.getmodule(Protocol))
    for config in study.presets.values():
        assert config.guided_steps < config.steps
        assert config.batch <= (config.train or 10**6)
