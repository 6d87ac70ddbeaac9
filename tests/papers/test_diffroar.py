"""The study at smoke: every claim is judged, every figure drawn, and arms differ in what they are said to."""

import math

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from etude.data import Blocks
from etude.papers import diffroar
from etude.papers.diffroar import (
    ARMS,
    Protocol,
    build,
    drawn_weights,
    fit,
    maximum_margin,
    rank_correlation,
    stacked_network,
    study,
)
from study_at_smoke import judged, legend_of, untested


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    return study.run("smoke", engine="inline", store=tmp_path_factory.mktemp("store"), progress=False)


def test_every_claim_is_judged_without_an_error(evidence):
    assert not untested(judged(study, evidence))


@pytest.mark.parametrize("draw", study.figures, ids=lambda draw: draw.__name__)
def test_figures_are_drawn_and_labelled(evidence, draw):
    if draw is diffroar.where_gradients_lie:
        figure, axes = plt.subplots()
        draw(evidence, axes)
        assert axes.get_xticklabels()[0].get_text() == "image\n(random)"
        assert len(axes.get_xticklabels()) == 5
        plt.close(figure)
    else:
        assert len(legend_of(draw, evidence)) >= 2


def test_exact_checks_hold(evidence):
    errors = evidence["differences"].frame.set_index("check")["error"]
    assert errors["linear network"] == 0
    assert errors.max() < 1e-6
    rows = evidence["retrain"].at(kind="retrained").frame
    chance, reverse = (
        rows[(rows.method == method) & (rows.fraction == 0.05) & (rows.input == "image")].set_index("side").accuracy
        for method in ("chance", "chance reversed")
    )
    assert chance["top"] == reverse["bottom"]
    assert chance["bottom"] == reverse["top"]


def test_every_ranking_is_retrained_on_alike(evidence):
    rows = evidence["retrain"].at(kind="retrained").frame
    counts = rows.groupby(["method", "input", "fraction", "side"]).size()
    assert (counts == 1).all()
    assert counts.groupby("method").size().to_dict() == {"standard": 8, "robust": 8, "chance": 4, "chance reversed": 2}
    leaked = evidence["leak"].frame
    assert set(zip(leaked.placement, leaked.training)) == set(ARMS)
    assert leaked.leakage.between(0, 1).all()


def test_stacked_networks_are_networks_side_by_side():
    generator = torch.Generator().manual_seed(0)
    draws = [drawn_weights(4, 7, generator) for _ in range(3)]
    x = torch.randn(3, 5, 4, generator=generator)
    found = stacked_network([torch.stack(parts) for parts in zip(*draws)], x)
    for (first, first_bias, second, second_bias), inputs, scores in zip(draws, x, found):
        expected = (inputs @ first + first_bias).relu() @ second + second_bias
        assert torch.allclose(scores, expected[:, 0], atol=1e-6)
        assert first.abs().max() <= 4**-0.5
        assert second.abs().max() <= 7**-0.5


def test_the_margin_is_that_of_the_network_and_grows():
    """Of points +-u in one of two places the largest margin is known: neurons (u, u) and (-u, -u) give 1 / sqrt(8)."""
    x = torch.eye(2).repeat_interleave(2, 0) * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None]
    y = torch.tensor([1.0, -1.0, 1.0, -1.0])
    blocks = Blocks(x, y, x != 0)
    first, second, margins = maximum_margin(lambda: blocks, 2000, 400, torch.Generator().manual_seed(0))
    score = (x @ first).relu() @ second
    margin = (y * score).min() / (first.norm(dim=0) * second.abs()).sum()
    assert margin <= 8**-0.5 + 1e-6
    assert margins[0] < margins[100] <= 8**-0.5 + 1e-6
    assert math.isclose(margins[-1], float(margin), rel_tol=0.05)


def test_a_constant_has_no_rank_correlation():
    assert rank_correlation(pd.Series([0.0, 1.0, 2.0]), pd.Series([0.0, 0.0, 0.0])) == 0
    assert rank_correlation(pd.Series([0.0, 1.0, 2.0]), pd.Series([0.1, 0.2, 0.9])) == pytest.approx(1)


def test_training_depends_on_its_seeds_alone():
    x, y = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3

    def trained(order):
        model = build("cnn", (1, 8, 8), 3, 8, torch.Generator().manual_seed(1))
        fit(model, x, y, order, epochs=2, batch=8, learning_rate=1e-2)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    one = trained(1)
    torch.manual_seed(5)
    assert torch.equal(one, trained(1))
    assert not torch.equal(one, trained(2))


@pytest.mark.parametrize("network", ["mlp", "cnn", "resnet"])
def test_networks_read_images_of_one_block_and_of_two(network):
    for shape in ((1, 28, 28), (1, 56, 28), (3, 32, 32), (1, 16, 8)):
        model = build(network, shape, 10, 8, torch.Generator().manual_seed(0))
        assert model(torch.rand(2, *shape)).shape == (2, 10)


def test_the_papers_protocol_is_complete_and_its_path_runs_small(tmp_path):
    paper = study.presets["paper"]
    assert (paper.data, paper.network, paper.hidden, paper.blocks) == ("cifar10", "resnet", 25_000, "mnist")
    small = study.presets["smoke"]
    sizes = {name: getattr(small, name) for name in Protocol.model_fields if name not in ("network", "block_networks")}
    config = paper.updated(**{**sizes, "width": 4, "train": 60, "test": 20, "of": ("logit", "loss")})
    evidence = study.run(config, engine="inline", only="retrain", store=tmp_path, progress=False)
    assert not evidence.failures
    assert set(evidence["retrain"].frame.method) >= {"standard", "standard, loss", "robust, loss"}
