"""The search finds what an exhaustive one finds, modules those that are there, Fourier terms those put in."""

import sys

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from etude.errors import MissingExtra
from etude.interpretability import (
    GraphModules,
    InteractionEdges,
    edges_needed,
    fourier_terms,
    interaction_basis,
    interaction_edges,
    interaction_modules,
    pca_basis,
    subspace_overlaps,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- the search ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_a_monotone_score_gives_its_threshold(total):
    for threshold in range(total + 1):
        asked = []

        def score(count, threshold=threshold, asked=asked):
            asked.append(count)
            return 1.0 if count >= threshold else 0.5

        found = edges_needed(score, total, 0.1, base=1.0, neighbours=0)
        assert found.count == found.smallest == found.sustained == threshold
        assert found.monotone
        assert len(asked) == len(set(asked)) <= 2 * total.bit_length() + 3


def test_neighbours_show_where_a_score_is_not_monotone():
    good = {5, 8, *range(11, 200)}  # doubling meets 8, bisection ends there
    found = edges_needed(lambda count: float(count in good), 200, 0.5, base=1.0)
    assert (found.count, found.smallest, found.sustained) == (8, 5, 11)
    assert not found.monotone
    assert "5 are enough, and from 11 on" in str(found)
    narrow = edges_needed(lambda count: float(count in good), 200, 0.5, base=1.0, neighbours=0)
    assert (narrow.count, narrow.smallest, narrow.sustained) == (8, 8, 8)


def test_the_base_is_the_score_of_all_unless_given():
    assert edges_needed(lambda count: count / 10, 10, 0.25).count == 8
    with pytest.raises(ValueError, match=r"score: 0\.9 with all 10 edges"):
        edges_needed(lambda count: 0.09 * count, 10, 0.05, base=1.0)


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"tolerance": 0}, "tolerance=0"),
        ({"tolerance": float("nan")}, "tolerance=nan"),
        ({"total": 0}, "total=0"),
        ({"neighbours": -1}, "neighbours=-1"),
    ],
)
def test_the_search_refuses_numbers_out_of_range(keywords, match):
    with pytest.raises(ValueError, match=match):
        edges_needed(lambda count: 1.0, **{"total": 5, "tolerance": 0.1, **keywords})


# ---- modules ---------------------------------------------------------------------------------------------------------


def block_diagonal(seed=0, width=8, layers=4):
    """Sections whose two halves never meet."""
    generator = seeded(seed)
    sections = []
    for number in range(layers):
        linear = nn.Linear(width, width).double()
        with torch.no_grad():
            linear.weight.normal_(0, 2**0.5 / (width / 2) ** 0.5, generator=generator)
            linear.weight[: width // 2, width // 2 :] = 0
            linear.weight[width // 2 :, : width // 2] = 0
        sections.append(nn.Sequential(linear, nn.ReLU()) if number < layers - 1 else linear)
    return sections


def test_a_network_of_two_blocks_falls_into_its_blocks():
    pytest.importorskip("leidenalg")
    sections, x = block_diagonal(), torch.randn(2000, 8, dtype=torch.float64, generator=seeded(1))
    # Blocks are exact if the data's are: halves are made uncorrelated.
    x = torch.cat([part @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(part.T)).T) for part in x.split(4, 1)], 1)
    edges = interaction_edges(sections, interaction_basis(sections, x), x)
    largest = max(float(weights.max()) for weights in edges.weights)
    found = interaction_modules(edges, floor=1e-3 * largest, seed=0)
    again = interaction_modules(edges, floor=1e-3 * largest, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(found.labels, again.labels))
    assert found.modularity > 0.2
    assert "modules of" in str(found)


def test_planted_modules_are_found_and_loose_directions_left_out(tmp_path):
    pytest.importorskip("leidenalg")
    halves = torch.block_diag(torch.ones(3, 3), torch.ones(2, 2), torch.zeros(1, 1)) + 1e-6
    found = interaction_modules(InteractionEdges((halves, halves), "planted"), floor=1e-3)
    assert [labels.tolist() for labels in found.labels] == [[0, 0, 0, 1, 1, -1]] * 3
    figure, axes = plt.subplots()
    found.plot(axes)
    assert [(bar.get_y(), bar.get_height()) for bar in axes.patches] == [(0, 3)] * 3 + [(3, 2)] * 3
    plt.close(figure)
    found.save(tmp_path / "modules")
    assert torch.equal(GraphModules.load(tmp_path / "modules").labels[2], found.labels[2])


def test_modules_refuse_bad_numbers_and_name_the_package(monkeypatch):
    edges = InteractionEdges((torch.ones(2, 2),), "PCA")
    with pytest.raises(ValueError, match="floor=0"):
        interaction_modules(edges, floor=0)
    with pytest.raises(ValueError, match="resolution=-1"):
        interaction_modules(edges, floor=0.1, resolution=-1)
    if "leidenalg" in sys.modules or pytest.importorskip("leidenalg"):
        with pytest.raises(ValueError, match="no edge lies above"):
            interaction_modules(edges, floor=2)
    monkeypatch.setitem(sys.modules, "leidenalg", None)
    with pytest.raises(MissingExtra, match="pip install leidenalg"):
        interaction_modules(edges, floor=0.1)


# ---- Fourier terms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [7, 8, 11])
def test_single_terms_explain_everything(p):
    x, y = torch.meshgrid(torch.arange(p).double(), torch.arange(p).double(), indexing="ij")
    turn = 2 * torch.pi / p
    planted = {
        (2, 3, "sum"): torch.cos(turn * (2 * x + 3 * y) + 0.4) + 5,
        (1, -2, "sum"): torch.cos(turn * (x - 2 * y) - 1),
        (3, 1, "product"): torch.cos(turn * 3 * x + 0.2) * torch.cos(turn * y + 1),
        (0, 2, "product"): torch.cos(turn * 2 * y + 0.3),
        (3, 0, "product"): 3 * torch.cos(turn * 3 * x),
    }
    found = fourier_terms(torch.stack(list(planted.values()), -1))
    assert list(zip(found["a"], found["b"], found["form"])) == list(planted)
    assert found["share"].to_numpy() == pytest.approx(1)
    assert found["second"].to_numpy() == pytest.approx(0, abs=1e-12)


def test_shares_are_of_the_variance():
    p, turn = 9, 2 * torch.pi / 9
    x, y = torch.meshgrid(torch.arange(p).double(), torch.arange(p).double(), indexing="ij")
    mixture = 2 * torch.cos(turn * (x + y)) + torch.cos(turn * (2 * x - 3 * y))
    found = fourier_terms(torch.stack([mixture, torch.ones(p, p).double()], -1))
    assert found["share"].to_list() == pytest.approx([0.8, 0])
    assert found["second"].to_list() == pytest.approx([0.2, 0])


def test_the_share_is_the_best_of_brute_force():
    p, generator = 5, seeded()
    values = torch.randn(p, p, dtype=torch.float64, generator=generator)
    place, turn = torch.arange(p).double(), 2 * torch.pi / p
    phases = torch.linspace(0, 2 * torch.pi, 200, dtype=torch.float64)
    best, centred = 0.0, values - values.mean()
    for a in range(3):
        for b in range(-2, 3):
            for phase in phases:
                wave = torch.cos(turn * (a * place[:, None] + b * place) + phase)
                best = max(best, float((wave * centred).sum() ** 2 / wave.square().sum().clamp(min=1e-9)))
            rows = torch.cos(turn * a * place + phases[:, None])
            columns = torch.cos(turn * b * place + phases[:, None])
            sums = torch.einsum("ix,xy,jy->ij", rows, centred, columns).square()
            norms = torch.outer(rows.square().sum(1), columns.square().sum(1)).clamp(min=1e-9)
            best = max(best, float((sums / norms).max()))
    found = float(fourier_terms(values[..., None])["share"][0])
    assert found == pytest.approx(best / float(centred.square().sum()), rel=1e-3)
    with pytest.raises(ValueError, match=r"directions: shape \(3, 4, 1\)"):
        fourier_terms(torch.ones(3, 4, 1))


# ---- stability -------------------------------------------------------------------------------------------------------


def test_spans_of_distinct_importances_are_stable_and_those_of_equal_ones_are_not():
    sections = [nn.Linear(4, 2).double()]
    scales = torch.tensor([9.0, 3.0, 1.0, 1.0], dtype=torch.float64)
    x = torch.randn(400, 4, dtype=torch.float64, generator=seeded()) * scales
    rows = subspace_overlaps(sections, x, pca_basis, (1, 2, 3, 4), resamples=5, generator=seeded(1))
    overlap = rows.groupby("count")["overlap"].mean()
    assert len(rows) == 20
    assert overlap[1] > 0.99
    assert overlap[3] < min(overlap[1], overlap[2], overlap[4])
    assert overlap[4] == pytest.approx(1)
    same = subspace_overlaps(sections, x, lambda sections, _: pca_basis(sections, x), (1,), resamples=1)
    assert same["overlap"].to_list() == pytest.approx([1])


def test_resampling_needs_a_tensor():
    with pytest.raises(TypeError, match="inputs: a list"):
        subspace_overlaps([nn.Linear(2, 2)], [torch.ones(3, 2)], pca_basis, (1,))
    with pytest.raises(ValueError, match="resamples=0"):
        subspace_overlaps([nn.Linear(2, 2)], torch.ones(3, 2), pca_basis, (1,), resamples=0)
