"""Interaction edges by batched vector-Jacobian products against a loop of single ones, and the memory of chunks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.measuring import Row, alone, medians
from etude.interpretability import InteractionBasis, interaction_edges, jacobians, pca_basis

WIDTHS = (100, 100, 10)  # behind the first layer of the authors' MNIST network
SAMPLES, QUICK_SAMPLES = 256, 64


def setting(samples: int) -> tuple[list[nn.Module], Tensor, InteractionBasis]:
    """Sections in double precision, so that both sides compute the same numbers, with activations and a basis."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sections = [nn.Sequential(nn.Linear(100, 100), nn.ReLU()), nn.Linear(100, 10)]
    for section in sections:
        section.double().requires_grad_(False)
    x = torch.randn(samples, 100, dtype=torch.float64).relu()
    return sections, x, pca_basis(sections, x, truncation=1e-12)


def by_output(sections: list[nn.Module], x: Tensor, basis: InteractionBasis) -> list[Tensor]:
    """Row by row: one backward pass an output direction over the whole batch, as in the authors' program."""
    edges = []
    for layer, section in enumerate(sections):
        z = basis.transform(layer, x).requires_grad_()
        out = basis.transform(layer + 1, section(basis.inverse(layer, z)))
        rows = []
        for direction in range(out.shape[1]):
            (gradient,) = torch.autograd.grad(out[:, direction].sum(), z, retain_graph=True)
            rows.append((gradient * z.detach()).square().mean(0))
        edges.append(torch.stack(rows))
        x = section(x)
    return edges


def one_by_one(sections: list[nn.Module], x: Tensor, basis: InteractionBasis) -> list[Tensor]:
    """One vector-Jacobian product an output direction and sample."""
    return [torch.stack(each).mean(0) for each in zip(*(by_output(sections, row, basis) for row in x.split(1)))]


def edge_memory(samples: int) -> float:
    """How much edges need; run in a process of its own."""
    sections, x, basis = setting(samples)
    return float(interaction_edges(sections, basis, x).weights[0].sum())


def whole_memory(samples: int) -> float:
    """How much the Jacobian of all samples needs."""
    sections, x, basis = setting(samples)

    def coordinates(z: Tensor) -> Tensor:
        return basis.transform(1, sections[0](basis.inverse(0, z)))

    z = basis.transform(0, x)
    return float((jacobians(coordinates, z, chunk=100) * z[:, None]).square().mean(0).sum())


def run(quick: bool) -> list[Row]:
    samples, repetitions = (QUICK_SAMPLES, 3) if quick else (SAMPLES, 9)
    sections, x, basis = setting(samples)
    ours = interaction_edges(sections, basis, x).weights
    for peer in (by_output, one_by_one):
        for mine, theirs in zip(ours, peer(sections, x, basis)):
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-15)
    seconds = medians(
        {
            "batched": lambda: interaction_edges(sections, basis, x),
            "by output": lambda: by_output(sections, x, basis),
            "one by one": lambda: one_by_one(sections, x, basis),
        },
        repetitions,
    )
    few, many = (2_000, 4_000) if quick else (8_000, 16_000)
    edge, double, whole = (
        alone(f"benchmarks.interaction_edges:{name}", count)
        for name, count in (("edge_memory", few), ("edge_memory", many), ("whole_memory", few))
    )
    same = abs(edge.result - whole.result) <= 1e-8 * abs(whole.result) if not quick else True
    assert same, (edge.result, whole.result)
    return [
        Row(f"edges of {samples} samples, batched / single products", seconds["batched"], seconds["one by one"],
            aim=">= 5x", inverse=True),
        Row(f"edges of {samples} samples, batched / a backward pass an output", seconds["batched"],
            seconds["by output"], inverse=True),
        Row(f"memory of edges, {few} samples, chunks / whole Jacobian", edge.megabytes, whole.megabytes, "MB"),
        Row(f"memory of edges, {many} / {few} samples", double.megabytes, edge.megabytes, "MB"),
    ]  # fmt: skip
