"""The local interaction basis against its theory: invariance, linear networks, brute force, sums of attributions."""

from itertools import pairwise

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from distributed import run_distributed
from etude.interpretability import (
    InteractionBasis,
    InteractionEdges,
    ablate_directions,
    ablate_edges,
    interaction_basis,
    interaction_edges,
    jacobians,
    neuron_basis,
    pca_basis,
    random_basis,
    split_module,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rectified(widths=(6, 8, 8, 4), seed=0, activation=nn.ReLU):
    """Sections of a random network, the last one linear."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = [nn.Sequential(nn.Linear(*pair), activation()) for pair in pairwise(widths[:-1])]
        return [*parts, nn.Linear(*widths[-2:])]


def linear(widths=(6, 8, 8, 4), seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return [nn.Linear(*pair) for pair in pairwise(widths)]


@pytest.fixture
def x():
    return torch.randn(500, 6, dtype=torch.float64, generator=seeded(1)) + 1


class Mapped(nn.Module):
    """A section with a matrix before and one behind it."""

    def __init__(self, section, before=None, behind=None):
        super().__init__()
        self.section = section
        self.register_buffer("before", before)
        self.register_buffer("behind", behind)

    def forward(self, x):
        out = self.section(x if self.before is None else x @ self.before)
        return out if self.behind is None else out @ self.behind


def change(one, other):
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(one, other))


# ---- theory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_edges_and_importances_do_not_depend_on_how_a_layer_is_parametrised(x, layer, seed):
    sections = rectified(seed=seed)
    matrix = torch.randn(8, 8, dtype=torch.float64, generator=seeded(seed))
    changed = list(sections)
    changed[layer - 1] = Mapped(sections[layer - 1], behind=matrix)
    changed[layer] = Mapped(sections[layer], before=torch.linalg.inv(matrix))

    bases = [interaction_basis(each, x) for each in (sections, changed)]
    edges = [interaction_edges(each, basis, x).weights for each, basis in zip((sections, changed), bases)]
    assert change(*(basis.importance for basis in bases)) < 1e-9
    assert change(*edges) < 1e-9
    moved = interaction_edges(changed, bases[0].mapped(layer, matrix), x).weights
    assert change(edges[0], moved) < 1e-9

    components = [pca_basis(each, x) for each in (sections, changed)]
    edges = [interaction_edges(each, basis, x).weights for each, basis in zip((sections, changed), components)]
    assert change(*edges) > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_an_ill_conditioned_layer_gets_no_directions_from_rounding(x, seed):
    sections = rectified(seed=seed)  # the last hidden layer has as many directions as there are outputs
    left, right = (torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=seeded(s))).Q for s in (seed, 9))
    matrix = left * torch.logspace(0, 4, 8, dtype=torch.float64) @ right
    changed = [*sections[:1], Mapped(sections[1], behind=matrix), Mapped(sections[2], before=torch.linalg.inv(matrix))]
    one, other = (interaction_basis(each, x) for each in (sections, changed))
    assert one.directions == other.directions
    assert one.directions[2] == 4
    assert change(one.importance, other.importance) < 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_in_a_linear_network_edges_are_diagonal_and_importances_equal(x, seed):
    sections = linear(seed=seed)
    basis = interaction_basis(sections, x, rotate_output=True)
    edges = interaction_edges(sections, basis, x).weights
    assert all(float((w - torch.diag(w.diagonal())).sum() / w.sum()) < 1e-12 for w in edges)
    assert all(torch.allclose(one, basis.importance[0], rtol=1e-9) for one in basis.importance)
    # ... to the variances of the network's output along its principal components
    with torch.no_grad():
        out = x
        for section in sections:
            out = section.double()(out)
    variances = torch.linalg.eigvalsh(torch.cov(out.T, correction=0)).flip(0)
    assert torch.allclose(basis.importance[0], variances, rtol=1e-9)


def test_the_basis_is_what_its_equations_say(x):
    sections = [section.double() for section in rectified()]
    basis = interaction_basis(sections, x)
    with torch.no_grad():
        values = [x]
        for section in sections:
            values.append(section(values[-1]))
    after = torch.eye(4, dtype=torch.float64)
    for layer in (2, 1, 0):
        jacobian = torch.einsum("noi,ok->nki", jacobians(sections[layer], values[layer]), after)
        sensitivity = torch.einsum("nki,nkj->ij", jacobian, jacobian) / len(x)
        to_basis, importance = basis.to_basis[layer], basis.importance[layer]
        covariance = torch.cov(values[layer].T, correction=0)
        # coordinates are uncorrelated with the importances as variances, and their sensitivity is the identity
        assert torch.allclose(to_basis.T @ covariance @ to_basis, torch.diag(importance), atol=1e-10)
        from_basis = basis.from_basis[layer]
        assert torch.allclose(from_basis @ sensitivity @ from_basis.T, torch.eye(len(importance)).double(), atol=1e-8)
        assert torch.allclose(from_basis @ to_basis, torch.eye(len(importance)).double(), atol=1e-8)
        after = to_basis


def test_batches_of_a_loader_give_what_one_tensor_does(x):
    sections = rectified()
    labels = torch.zeros(len(x))
    loader = DataLoader(TensorDataset(x.float(), labels), batch_size=64, shuffle=True)
    one, other = (interaction_basis(sections, inputs) for inputs in (x.float(), loader))
    assert change(one.importance, other.importance) < 1e-9
    edges = interaction_edges(sections, one, x.float()), interaction_edges(sections, one, loader, chunk=2)
    assert change(edges[0].weights, edges[1].weights) < 1e-9


def test_random_sources_are_unbiased(x):
    sections = rectified()
    exact = interaction_basis(sections, x)
    drawn = interaction_basis(sections, x, sources=400, generator=seeded())
    assert drawn.directions == exact.directions
    assert change(exact.importance[:-1], drawn.importance[:-1]) < 0.15
    again = interaction_basis(sections, x, sources=400, generator=seeded())
    assert torch.equal(drawn.importance[0], again.importance[0])


def test_dead_and_ignored_directions_are_dropped(x):
    first, second, last = rectified()
    with torch.no_grad():
        first[0].weight[0].zero_()  # a constant unit
        second[0].weight[:, 1].zero_()  # a unit nobody reads
        last.weight[:, 3].zero_()
    basis = interaction_basis([first, second, last], x)
    assert basis.directions[1] <= 6
    assert basis.directions[2] == 4  # as many as there are outputs
    assert float(basis.to_basis[1][0].abs().max()) < 1e-9


# ---- edges -----------------------------------------------------------------------------------------------------------


def test_edges_are_mean_squares_of_gradient_times_coordinate(x):
    sections = [section.double() for section in rectified()]
    basis = pca_basis(sections, x)
    edges = interaction_edges(sections, basis, x)

    def coordinates(z):
        return basis.transform(1, sections[0](basis.inverse(0, z)))

    z = basis.transform(0, x)
    expected = (jacobians(coordinates, z) * z[:, None]).square().mean(0)
    assert torch.allclose(edges.weights[0], expected, rtol=1e-9)


def test_integrated_attributions_add_up(x):
    # With one output direction alone and one input direction alone an edge is the squared change from the mean.
    sections = [nn.Sequential(nn.Linear(6, 5), nn.Tanh()).double()]
    basis = pca_basis(sections, x)
    points = [interaction_edges(sections, basis, x, integration="gauss-legendre", points=n) for n in (8, 16)]
    assert change(points[0].weights, points[1].weights) < 1e-4
    narrow = InteractionBasis(
        "one", (basis.to_basis[0][:, :1], basis.to_basis[1]), (basis.from_basis[0][:1], basis.from_basis[1]),
        basis.importance, basis.mean, 500,
    )  # fmt: skip
    found = interaction_edges(sections, narrow, x, integration="gauss-legendre", points=16).weights[0][:, 0]
    with torch.no_grad():
        moved = narrow.inverse(0, narrow.transform(0, x))
        expected = (sections[0](moved) - sections[0](narrow.mean[0])).square().mean(0)
    assert torch.allclose(found, expected, rtol=1e-6)


def test_for_a_linear_section_the_integral_is_the_gradient(x):
    sections = linear()
    basis = pca_basis(sections, x)
    one, other = (
        interaction_edges(sections, basis, x, **how) for how in ({}, {"integration": "gauss-legendre", "points": 3})
    )
    assert change(one.weights, other.weights) < 1e-12


class Mixer(nn.Module):
    """Positions see each other; the last one alone goes out."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.linear = nn.Linear(12, 5)

    def forward(self, x):
        return torch.tanh(self.linear(x.flatten(1)))[:, None]


def test_sequences_sum_over_the_positions_before_and_average_over_those_behind():
    x = torch.randn(200, 3, 4, dtype=torch.float64, generator=seeded())
    sections = [Mixer().double(), nn.Linear(5, 2).double()]
    basis = interaction_basis(sections, x)
    assert basis.samples == 600
    edges = interaction_edges(sections, basis, x)

    def coordinates(z):
        return basis.transform(1, sections[0](basis.inverse(0, z)))

    z = basis.transform(0, x)
    attribution = (jacobians(coordinates, z)[:, 0] * z[:, None]).sum(2)
    assert torch.allclose(edges.weights[0], attribution.square().mean(0), rtol=1e-8)
    everything = edges.mask(0, edges.weights[0].numel())
    with torch.no_grad():
        whole = sections[1](sections[0](x))
    assert torch.allclose(ablate_edges(sections, basis, x, 0, everything), whole, atol=1e-8)


def test_the_largest_edges_are_kept():
    edges = InteractionEdges((torch.tensor([[3.0, 1.0], [1.0, 2.0]]),), "PCA")
    assert edges.mask(0, 0).sum() == 0
    assert edges.mask(0, 3).tolist() == [[True, True], [False, True]]
    with pytest.raises(ValueError, match="count=5"):
        edges.mask(0, 5)


# ---- ablation --------------------------------------------------------------------------------------------------------


def network(sections, x):
    with torch.no_grad():
        for section in sections:
            x = section(x)
    return x


@pytest.mark.parametrize("make", [interaction_basis, pca_basis, neuron_basis, random_basis])
def test_nothing_ablated_leaves_the_network_as_it_is(x, make):
    sections = [section.double() for section in rectified()]
    basis = make(sections, x)
    edges = interaction_edges(sections, basis, x)
    whole = network(sections, x)
    for layer in range(3):
        kept = ablate_directions(sections, basis, x, layer, basis.directions[layer])
        assert torch.allclose(kept, whole, atol=1e-6)
        everything = edges.mask(layer, edges.weights[layer].numel())
        assert torch.allclose(ablate_edges(sections, basis, x, layer, everything), whole, atol=1e-6)


def test_everything_ablated_leaves_the_mean(x):
    sections = [section.double() for section in rectified()]
    basis = pca_basis(sections, x)
    at_mean = network(sections[1:], basis.mean[1][None]).expand(500, -1)
    assert torch.allclose(ablate_directions(sections, basis, x, 1, 0), at_mean)
    nothing = torch.zeros(basis.directions[2], basis.directions[1], dtype=torch.bool)
    assert torch.allclose(ablate_edges(sections, basis, x, 1, nothing), at_mean)


@pytest.mark.parametrize("layer", [1, 2])
def test_each_direction_sees_the_inputs_its_row_of_the_mask_names(x, layer):
    sections = [section.double() for section in rectified()]
    basis = pca_basis(sections, x)
    edges = interaction_edges(sections, basis, x)
    mask = edges.mask(layer, 7)
    z = basis.transform(layer, network(sections[:layer], x))
    columns = []
    for row, seen in enumerate(mask):
        after = basis.transform(layer + 1, network([sections[layer]], basis.inverse(layer, z * seen)))
        columns.append(after[:, row])
    expected = network(sections[layer + 1 :], basis.inverse(layer + 1, torch.stack(columns, 1)))
    assert torch.allclose(ablate_edges(sections, basis, x, layer, mask), expected)
    if layer == 2:  # the product for a linear layer is what running it for each row gives
        wrapped = [*sections[:2], nn.Sequential(sections[2])]
        assert torch.allclose(ablate_edges(wrapped, basis, x, layer, mask), expected)


# ---- the user's own model --------------------------------------------------------------------------------------------


class UsersNet(nn.Module):
    """A network that is not ours, with functions between its layers."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.embed, self.drop = nn.Linear(6, 9), nn.Dropout(0.5)
            self.body, self.head = nn.Sequential(nn.Linear(9, 9), nn.Tanh()), nn.Linear(9, 3)

    def forward(self, x):
        return self.head(self.body(torch.relu(self.drop(self.embed(x)))))


def test_the_lines_of_the_docstring_on_a_users_model(x, tmp_path):
    model = UsersNet().train()
    images, loader = x.float(), DataLoader(TensorDataset(x.float(), torch.zeros(500)), batch_size=100)
    first, *sections = split_module(model, ["embed", "body"], images[:8])
    assert model.training
    hidden = [first(batch).detach() for batch, _ in loader]
    basis = interaction_basis(sections, hidden)
    edges = interaction_edges(sections, basis, hidden)
    logits = ablate_edges(sections, basis, hidden, 0, edges.mask(0, edges.weights[0].numel()))
    assert model.training
    assert torch.allclose(logits, model.eval()(images), atol=1e-4)
    assert all(not module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())

    basis.save(tmp_path / "basis.safetensors")
    edges.save(tmp_path / "edges.safetensors")
    again = InteractionBasis.load(tmp_path / "basis.safetensors")
    assert (again.kind, again.samples, again.directions) == (basis.kind, 500, basis.directions)
    assert torch.equal(again.to_basis[0], basis.to_basis[0])
    assert torch.equal(InteractionEdges.load(tmp_path / "edges.safetensors").weights[1], edges.weights[1])
    assert "interaction basis from 500 samples" in str(basis)
    assert "carrying 99 %" in str(edges)


def test_results_are_drawn(x):
    plt = pytest.importorskip("matplotlib.pyplot")
    sections = rectified()
    basis = interaction_basis(sections, x)
    for result in (basis, interaction_edges(sections, basis, x)):
        figure, axes = plt.subplots()
        result.plot(axes)
        assert axes.get_xlabel()
        plt.close(figure)


def test_a_model_under_fabric_gives_the_same(x):
    images = x.float()
    found = []
    for model in (UsersNet(), Fabric(accelerator="cpu", devices=1).setup(UsersNet())):
        first, *sections = split_module(model, ["embed", "body"], images[:8])
        with torch.no_grad():
            found.append(interaction_basis(sections, first.eval()(images)).importance)
    assert change(*found) < 1e-12


def test_a_model_under_distributed_data_parallel_gives_the_same(tmp_path):
    body = """
    from etude.interpretability import interaction_basis, split_module
    torch.manual_seed(0)
    own = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    x = torch.randn(100, 4)
    found = []
    for model in (own, DistributedDataParallel(own)):
        sections = split_module(model, ["1", "3"], x[:4])
        found.append(interaction_basis(sections, x).importance)
    assert all(torch.equal(a, b) for a, b in zip(*found))
    print("same", flush=True)
    """
    assert run_distributed(body, tmp_path).count("same") == 2


def test_sections_are_refused_where_information_goes_around():
    class Skips(UsersNet):
        def forward(self, x):
            hidden = torch.relu(self.embed(x))
            return self.head(hidden + self.body(hidden))

    images = torch.randn(8, 6, generator=seeded())
    with pytest.raises(ValueError, match="connection around a layer"):
        split_module(Skips(), ["body"], images)
    assert len(split_module(Skips(), ["embed", "head"], images)) == 3


@pytest.mark.parametrize(
    ("layers", "match"),
    [(["bdy"], "Did you mean 'body'"), (["body", "embed"], "they run as embed, body"), ([], "at least one name")],
)
def test_layers_to_split_at_are_checked(layers, match):
    with pytest.raises(ValueError, match=match):
        split_module(UsersNet(), layers, torch.ones(4, 6))


def test_a_layer_that_does_not_run_and_a_string_are_refused():
    model = UsersNet()
    model.spare = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="'spare' does not run"):
        split_module(model, ["embed", "spare"], torch.ones(4, 6))
    with pytest.raises(TypeError, match="one string"):
        split_module(model, "embed", torch.ones(4, 6))


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_sections_that_do_not_chain_are_named(x):
    with pytest.raises(ValueError, match=r"sections\[1\]: it does not take what sections\[0\] puts out"):
        interaction_basis([nn.Linear(6, 8), nn.Linear(7, 2)], x)
    with pytest.raises(ValueError, match=r"sections\[0\]: it puts out \(500,\)|sections\[0\]: it puts out"):
        interaction_basis([lambda x: x.sum(1)], x)
    with pytest.raises(TypeError, match=r"sections\[0\]: a int"):
        interaction_basis([3], x)


def test_sections_without_gradients_are_named(x):
    with pytest.raises(ValueError, match=r"sections\[1\]: its output is not differentiable"):
        interaction_basis([nn.Linear(6, 8), lambda x: x.detach().sign()], x)
    with pytest.raises(TypeError, match=r"sections\[0\]: it puts out a tensor of torch.int64"):
        interaction_basis([lambda x: x.long()], x)


def test_few_samples_are_warned_of_with_the_rank(x):
    with pytest.warns(UserWarning, match="samples, of effective rank 3") as caught:
        interaction_basis(rectified(), x[:4])
    assert "node layer 0 has 6 units and only 4" in str(caught[0].message)
    interaction_basis(rectified(), x[:4], truncation=1e-10)


def test_numbers_that_are_not_finite_are_refused(x):
    with pytest.raises(ValueError, match="inputs: activations of node layer 0"):
        interaction_basis(rectified(), x.index_fill(0, torch.tensor([3]), torch.nan))
    with pytest.raises(ValueError, match=r"sections\[0\]: activations of node layer 1"):
        interaction_basis([nn.Sequential(nn.Linear(6, 8), Log()), nn.Linear(8, 2)], x)


def test_a_layer_that_is_constant_or_ignored_is_named(x):
    with pytest.raises(ValueError, match="node layer 1 does not vary"):
        interaction_basis([Silent(), nn.Linear(6, 2)], x)
    last = nn.Linear(6, 2)
    nn.init.zeros_(last.weight)
    with pytest.raises(ValueError, match="nothing behind node layer 0 depends on it"):
        interaction_basis([last], x)


class Silent(nn.Module):
    def forward(self, x):
        return 0 * x + 1


class Log(nn.Module):
    def forward(self, x):
        return x.log()


@pytest.mark.parametrize(
    ("keywords", "match"), [({"truncation": 0}, "truncation=0"), ({"sources": 0}, "sources=0"), ({"chunk": 0}, "chunk")]
)
def test_numbers_out_of_range_are_refused(x, keywords, match):
    with pytest.raises(ValueError, match=match):
        interaction_basis(rectified(), x, **keywords)


def test_other_bad_input_is_refused_by_name(x):
    sections = rectified()
    basis = pca_basis(sections, x)
    with pytest.raises(TypeError, match="several times"):
        interaction_basis(sections, iter([x]))
    with pytest.raises(TypeError, match="inputs: a tensor of"):
        interaction_basis(sections, x.long())
    with pytest.raises(ValueError, match="no samples"):
        interaction_basis(sections, [])
    with pytest.raises(ValueError, match="sections: none"):
        interaction_basis([], x)
    with pytest.raises(ValueError, match="points=3"):
        interaction_edges(sections, basis, x, points=3)
    with pytest.raises(ValueError, match="integration='trapezoid'"):
        interaction_edges(sections, basis, x, integration="trapezoid")
    with pytest.raises(ValueError, match="basis: it has 4 node layers; 3"):
        interaction_edges(sections[1:], basis, x)
    with pytest.raises(ValueError, match="layer=3"):
        ablate_directions([s.double() for s in sections], basis, x, 3, 1)
    with pytest.raises(ValueError, match="keep=99"):
        ablate_directions(sections, basis, x, 0, 99)
    with pytest.raises(ValueError, match=r"mask: torch\.float32"):
        ablate_edges(sections, basis, x, 0, torch.ones(8, 6))
