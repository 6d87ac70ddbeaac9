"""The prototype network beside loops over its equations, its gradients, its use in a user's own loop, and bad input."""

import doctest

import matplotlib.pyplot as plt
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from etude.nn import PrototypeClassifier, convolutional_autoencoder, prototype, prototype_loss, squared_distances
from tests.distributed import run_distributed


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def small(seed=0, prototypes=4, classes=3, decoder=True, **options):
    """A user's own networks: six features, codes of five numbers."""
    torch.manual_seed(seed)
    encoder, back = nn.Sequential(nn.Linear(6, 5), nn.Tanh()).double(), nn.Linear(5, 6).double()
    generator = torch.Generator().manual_seed(seed)
    options = {"code_shape": (5,), "generator": generator, **options}
    return PrototypeClassifier(encoder, back if decoder else None, prototypes, classes, **options)


# ---- the exact architecture ----------------------------------------------------------------------------------------


def test_the_papers_autoencoder_has_its_sizes():
    encoder, decoder, code_shape = convolutional_autoencoder(generator=torch.Generator().manual_seed(0))
    x = torch.rand(2, 1, 28, 28)
    sides = []
    for layer in encoder:
        x = layer(x)
        sides.append(x.shape[2])
    assert sides == [14, 14, 7, 7, 4, 4, 2, 2]
    assert x.shape[1:] == code_shape == (10, 2, 2)
    assert bool((x >= 0).all())
    sides = []
    for layer in decoder:
        x = layer(x)
        sides.append(x.shape[2])
    assert sides == [4, 4, 7, 7, 14, 14, 28, 28]
    assert bool(((x > 0) & (x < 1)).all())
    macs = 9 * (14**2 * 32 + 7**2 * 32 * 32 + 4**2 * 32 * 32 + 2**2 * 32 * 10)
    assert macs == pytest.approx(667_000, rel=0.01)  # 56 + 452 + 147 + 12 thousand
    filters = [p.detach().flatten() for network in (encoder, decoder) for p in network.parameters() if p.ndim > 1]
    assert torch.cat(filters).std().item() == pytest.approx(0.01, rel=0.03)
    assert all(p.eq(0).all() for network in (encoder, decoder) for p in network.parameters() if p.ndim == 1)


@pytest.mark.parametrize("size", [4, 5, 7, 28])
def test_padding_is_that_of_tensorflow(size):
    """Output o of ``SAME`` reads inputs 2 o - before .. 2 o - before + 2, before = 0 for even sides and 1 for odd."""
    layer = convolutional_autoencoder(1, size, (1,)).encoder[0].double()
    nn.init.normal_(layer.weight)
    x, before = draw(1, 1, size, size), size % 2
    padded = torch.zeros(size + 3, size + 3, dtype=torch.float64)
    padded[before : before + size, before : before + size] = x[0, 0]
    windows = padded.unfold(0, 3, 2).unfold(1, 3, 2)[: -(-size // 2), : -(-size // 2)]
    expected = (windows * layer.weight[0, 0]).sum((2, 3))
    assert torch.allclose(layer(x)[0, 0], expected, atol=1e-12)


@pytest.mark.parametrize("size", [4, 7, 14, 28])
def test_the_decoders_layers_are_transposes_of_the_encoders(size):
    """<C x, y> = <x, C' y> for the convolution C and its transpose with the same filters."""
    encoder, decoder, _ = convolutional_autoencoder(2, size, (3,))
    down, up = encoder[0].double(), decoder[0].double()
    nn.init.normal_(down.weight)
    up.weight = down.weight
    x = draw(1, 2, size, size)
    y = draw(*down(x).shape, seed=1)
    assert (down(x) * y).sum().item() == pytest.approx((x * up(y)).sum().item(), abs=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels=0"),
        ({"size": 0}, "size=0"),
        ({"maps": ()}, "maps: none"),
        ({"maps": (4, 0)}, r"maps\[1\]=0"),
        ({"deviation": 0.0}, "deviation=0.0"),
    ],
)
def test_an_impossible_autoencoder_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        convolutional_autoencoder(**options)


# ---- the equations -------------------------------------------------------------------------------------------------


def test_distances_are_never_negative_and_zero_for_equal_rows():
    a = 1e4 + 1e-3 * draw(50, 7)  # where the expanded square fails
    distances = squared_distances(a, a)
    assert bool((distances >= 0).all())
    assert bool((distances.diagonal() == 0).all())
    assert torch.allclose(squared_distances(a, draw(3, 7, seed=1)), torch.cdist(a, draw(3, 7, seed=1)) ** 2)
    half = squared_distances(a.bfloat16(), a.bfloat16())
    assert half.dtype == torch.float32
    with pytest.raises(ValueError, match="a, b: shapes"):
        squared_distances(a, draw(3, 6))


@pytest.mark.parametrize("decoder", [True, False])
def test_logits_and_loss_are_the_equations(decoder):
    model, x, y = small(decoder=decoder), draw(9, 6), torch.arange(9) % 3
    output = model(x)
    codes, p = model.encoder(x).detach(), model.prototypes.detach()
    d = [[sum((codes[i, q] - p[j, q]) ** 2 for q in range(5)) for j in range(4)] for i in range(9)]
    logits = [[sum(d[i][j] * float(model.weight[j, k].detach()) for j in range(4)) for k in range(3)] for i in range(9)]
    assert torch.allclose(output.logits, torch.tensor(logits, dtype=torch.float64), atol=1e-12)
    weights = {"classification": 3, "reconstruction": 0.5, "prototype_to_data": 0.25, "data_to_prototype": 2}
    terms = prototype_loss(output, x, y, **weights)
    entropy = -sum(output.logits.detach().log_softmax(1)[i, y[i]] for i in range(9)) / 9
    error = sum((model.decoder(codes[i]) - x[i]).square().sum().item() for i in range(9)) / 9 if decoder else 0.0
    r1 = sum(min(d[i][j] for i in range(9)) for j in range(4)) / 4
    r2 = sum(min(d[i][j] for j in range(4)) for i in range(9)) / 9
    expected = (3 * entropy + 0.5 * error + 0.25 * r1 + 2 * r2, entropy, error, r1, r2)
    for term, value in zip(terms, expected):
        assert term.item() == pytest.approx(float(value), abs=1e-12)
    assert (output.reconstruction is None) == (not decoder)


def test_the_order_of_prototypes_does_not_matter():
    model, x = small(), draw(9, 6)
    before = model(x).logits
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        model.prototypes.copy_(model.prototypes[order].clone())
        model.weight.copy_(model.weight[order].clone())
    assert torch.allclose(model(x).logits, before, atol=1e-12)


def test_gradients_are_finite_differences():
    model, x, y = small(), draw(7, 6), torch.arange(7) % 3
    names = [name for name, _ in model.named_parameters()]

    def loss(*values):
        output = torch.func.functional_call(model, dict(zip(names, values)), (x,))
        return tuple(prototype_loss(output, x, y))

    assert torch.autograd.gradcheck(loss, tuple(p.detach().requires_grad_() for p in model.parameters()))


# ---- prototypes and explanations -----------------------------------------------------------------------------------


def test_contributions_sum_to_the_logits_and_margins_to_the_margin(tmp_path):
    model, x = small(), draw(6, 6)
    explanation = model.explain(x, k=2)
    assert torch.allclose(explanation.contributions.sum(1), model(x).logits, atol=1e-12)
    top = explanation.logits.topk(2, dim=1).values
    assert torch.allclose(explanation.margins().sum(1), top[:, 0] - top[:, 1], atol=1e-12)
    sorted_distances = explanation.squared_distances.gather(1, explanation.nearest)
    assert torch.equal(sorted_distances, explanation.squared_distances.sort(1).values[:, :2])
    assert torch.equal(explanation.classes, model.weight.argmin(1))
    assert torch.equal(explanation.pictures, model.decoder(model.prototypes))
    frame = explanation.frame()
    assert len(frame) == 6 * 4
    assert frame.groupby("input").margin.sum().to_numpy() == pytest.approx((top[:, 0] - top[:, 1]).detach().numpy())
    text = repr(explanation)
    assert "input 4: class" in text
    assert text.endswith("...")
    assert text.count("prototype ") == 5 * 2
    explanation.save(tmp_path / "why.safetensors")
    assert torch.equal(load_file(tmp_path / "why.safetensors")["contributions"], explanation.contributions)
    with pytest.raises(ValueError, match="pictures"):
        explanation.plot(plt.figure().subplots())
    with pytest.raises(ValueError, match="k=5"):
        model.explain(x, k=5)


def test_an_explanation_of_an_image_is_drawn():
    encoder, decoder, code_shape = convolutional_autoencoder(maps=(4, 4))
    model = PrototypeClassifier(encoder, decoder, 4, 3, code_shape=code_shape)
    figure, axes = plt.subplots()
    model.explain(torch.rand(2, 1, 28, 28)).plot(axes, index=1, classes=["a", "b", "c"])
    figure.canvas.draw()
    assert len(axes.child_axes) == 1 + 3
    assert axes.child_axes[0].get_title() == "input"
    assert "logit" in axes.get_xlabel()
    plt.close(figure)


@pytest.mark.parametrize("size", [1, 3, 40])
def test_nearest_examples_are_those_of_all_at_once(size):
    model, x, y = small(), draw(40, 6), torch.arange(40)
    x[30] = x[3]  # a tie: the earlier one comes first
    nearest = model.nearest_examples(zip(x.split(size), y.split(size)), k=3)
    distances = squared_distances(model.prototypes, model.encoder(x))
    indices = distances.sort(dim=1, stable=True).indices[:, :3]
    assert torch.equal(nearest.indices, indices)
    assert torch.equal(nearest.labels, y[indices])
    assert torch.equal(nearest.examples, x[indices])
    assert torch.allclose(nearest.squared_distances, distances.gather(1, indices))
    assert model.nearest_examples([x]).labels is None


def test_projected_prototypes_are_codes_of_examples():
    model, x = small(), draw(40, 6)
    nearest = model.project_prototypes(x.split(7))
    assert torch.allclose(model.prototypes, model.encoder(x[nearest.indices[:, 0]]), atol=1e-12)
    assert bool((nearest.squared_distances > 0).all())
    again = model.project_prototypes(x.split(7))
    assert torch.equal(again.indices, nearest.indices)
    assert bool((again.squared_distances == 0).all())


def test_evaluation_leaves_every_module_in_its_mode():
    encoder = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))
    model = PrototypeClassifier(encoder, nn.Linear(5, 6), 4, 3, code_shape=(5,))
    model.train()
    encoder[2].eval()
    statistics = encoder[1].running_mean.clone()
    model.explain(torch.rand(8, 6))
    model.nearest_examples([torch.rand(8, 6)])
    assert [module.training for module in (model, encoder, encoder[1], encoder[2])] == [True, True, True, False]
    assert torch.equal(encoder[1].running_mean, statistics)


def test_prototypes_start_where_asked():
    x = draw(60, 6)
    model = small(init="samples", examples=x)
    distances = squared_distances(model.prototypes, model.encoder(x))
    assert bool((distances.amin(1) < 1e-20).all())
    assert len(distances.argmin(1).unique()) == 4
    model = small(init="kmeans", examples=x)
    codes = model.encoder(x).detach()
    owner = squared_distances(codes, model.prototypes).argmin(1)
    centres = torch.stack([codes[owner == j].mean(0) for j in range(4)])
    assert torch.allclose(model.prototypes, centres, atol=1e-6)
    start = small()
    assert bool(((start.prototypes >= 0) & (start.prototypes <= 1)).all())
    assert torch.equal(start.weight, small().weight)


# ---- in a user's own loop ------------------------------------------------------------------------------------------


def learn(model, optimizer, backward, batches):
    for x, y in batches:
        terms = prototype_loss(model(x), x, y)
        optimizer.zero_grad()
        backward(terms.total)
        optimizer.step()


def some_batches(count=4):
    return [(draw(8, 6, seed=i), torch.arange(8) % 3) for i in range(count)]


def test_docstrings_run():
    assert doctest.testmod(prototype, globs={**vars(prototype), "nn": nn, "torch": torch}).failed == 0


def test_a_plain_loop_lowers_the_loss():
    model, batches = small(), some_batches(1) * 100
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, y = batches[0]
    before = prototype_loss(model(x), x, y)
    learn(model, optimizer, lambda loss: loss.backward(), batches)
    after = prototype_loss(model(x), x, y)
    assert after.total < before.total
    assert after.classification < before.classification


def test_under_fabric():
    fabric = pytest.importorskip("lightning_fabric").Fabric(accelerator="cpu", devices=1)
    plain, mine = small(), small()
    learn(plain, torch.optim.SGD(plain.parameters(), lr=0.01), lambda loss: loss.backward(), some_batches())
    model, optimizer = fabric.setup(mine, torch.optim.SGD(mine.parameters(), lr=0.01))
    learn(model, optimizer, fabric.backward, some_batches())
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), mine.parameters()))


def test_under_distributed_data_parallel(tmp_path):
    run_distributed(
        """
        from etude.nn import PrototypeClassifier, prototype_loss
        torch.manual_seed(0)
        model = PrototypeClassifier(nn.Linear(6, 5), nn.Linear(5, 6), 4, 3, code_shape=(5,))
        copy = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        x, y = torch.randn(2, 8, 6), torch.randint(3, (2, 8))
        for _ in range(3):
            optimizer.zero_grad()
            prototype_loss(copy(x[rank]), x[rank], y[rank]).total.backward()
            optimizer.step()
        torch.save(model.state_dict(), f"rank{rank}.pt")
        """,
        tmp_path,
    )
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    torch.manual_seed(0)
    model = PrototypeClassifier(nn.Linear(6, 5), nn.Linear(5, 6), 4, 3, code_shape=(5,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(2, 8, 6), torch.randint(3, (2, 8))
    for _ in range(3):
        optimizer.zero_grad()
        (sum(prototype_loss(model(x[r]), x[r], y[r]).total for r in range(2)) / 2).backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.allclose(value, ranks[0][name], atol=1e-6), name
        assert torch.equal(ranks[0][name], ranks[1][name]), name


# ---- what is refused -----------------------------------------------------------------------------------------------


def identity(shape, decoder=None, **options):
    return PrototypeClassifier(nn.Identity(), decoder, 3, 2, code_shape=shape, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small(prototypes=0), "n_prototypes=0"),
        (lambda: small(prototypes=2.0), "n_prototypes=2.0"),
        (lambda: small(classes=1), "n_classes=1"),
        (lambda: small(init="zeros"), "init='zeros'"),
        (lambda: small(init="kmeans"), "examples: init='kmeans' starts"),
        (lambda: small(examples=draw(9, 6)), "examples: init='uniform' needs none"),
        (lambda: small(init="samples", examples=draw(3, 6)), "examples: 3 were given; at least n_prototypes=4"),
        (lambda: small(code_shape=(7,)), r"decoder: it takes no codes of code_shape=\(7,\)"),
        (lambda: identity((4,))(draw(2, 2, 2)), r"encoder: its codes have shape \(2, 2\).*code_shape=\(4,\)"),
        (lambda: identity((4,), nn.Sigmoid())(2 * torch.ones(2, 4)), "x: values from 2 to 2, but the decoder ends"),
        (lambda: identity((4,), nn.Sigmoid())(torch.full((2, 4), torch.nan)), "x: values from nan"),
        (lambda: identity((4,)).decode_prototypes(), "decoder: there is none.*nearest_examples"),
        (lambda: identity((4,)).nearest_examples([torch.rand(5, 4)], k=0), "k=0"),
        (lambda: identity((4,)).nearest_examples([torch.rand(5, 4)], k=6), "loader: it gives 5 examples"),
        (lambda: identity((4,)).project_prototypes([]), "loader: it gives 0 examples"),
    ],
)
def test_bad_models_and_inputs_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classification": -1.0}, "classification=-1.0"),
        ({"reconstruction": -1.0}, "reconstruction=-1.0"),
        ({"prototype_to_data": float("nan")}, "prototype_to_data=nan"),
        ({"data_to_prototype": float("inf")}, "data_to_prototype=inf"),
        ({"y": torch.tensor([0, 1, 3])}, "y: labels from 0 to 3; 0 to 2 are accepted"),
        ({"y": torch.tensor([0, -1, 2])}, "y: labels from -1 to 2"),
        ({"y": torch.tensor([0, 1])}, "x, y: 3 inputs and 2 labels"),
        ({"x": draw(3, 1, 6)}, r"x: shape \(3, 1, 6\), the decoder's images have \(3, 6\)"),
    ],
)
def test_bad_losses_are_refused_by_name(change, message):
    x = draw(3, 6)
    arguments = {"x": x, "y": torch.tensor([0, 1, 2]), **change}
    with pytest.raises(ValueError, match=message):
        prototype_loss(small()(x), **arguments)


def test_a_loader_of_something_else_is_refused():
    with pytest.raises(TypeError, match="loader: it gives a dict"):
        small().nearest_examples([{"x": draw(3, 6)}])


def test_fewer_prototypes_than_classes_are_warned_of():
    with pytest.warns(UserWarning, match="n_prototypes=2: fewer than the 3 classes"):
        small(prototypes=2)
