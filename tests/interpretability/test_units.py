"""Units of a layer over a loader are those of the whole data at once; nulls keep what they say and destroy the rest."""

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from etude.interpretability import (
    CrossMoments,
    Moments,
    flatten_units,
    random_features,
    shuffled,
    unit_cross_moments,
    unit_moments,
    untrained,
)
from etude.nn import activations, stream_activations


class UsersNet(nn.Module):
    """A network that is not ours."""

    def __init__(self, width=6, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv1, self.norm = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, 4, 3, stride=2, padding=1)
            self.drop, self.head, self.spare = nn.Dropout(0.5), nn.Linear(4 * 16, 3), nn.Linear(3, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv1(x)))
        return self.head(self.drop(torch.relu(self.conv2(x)).flatten(1)))


@pytest.fixture
def x():
    return torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_loader_is_gone_through_once_in_evaluation_mode_and_left_as_it_was(x):
    net = UsersNet().train()
    net.norm.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = list(stream_activations(net, x.split(16), ["conv1", "head"]))
    assert [len(batch["head"]) for batch in found] == [16, 16, 16, 2]
    assert net.training
    assert not net.norm.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not found[0]["head"].requires_grad
    whole = activations(net.eval(), x, layers=["head"])["head"]
    assert torch.allclose(torch.cat([batch["head"] for batch in found]), whole, atol=1e-6)
    assert not net._forward_hooks


def test_batches_may_be_tensors_pairs_mappings_or_what_the_user_runs(x):
    net = UsersNet().eval()
    expected = net(x)
    labels = torch.zeros(50, dtype=torch.long)
    loaders = [x.split(25), DataLoader(TensorDataset(x, labels), batch_size=20), [{"x": x}]]
    for loader in loaders:
        found = torch.cat([batch["head"] for batch in stream_activations(net, loader, ["head"])])
        assert torch.allclose(found, expected, atol=1e-6)
    (twice,) = stream_activations(net, [x], ["head"], forward=lambda model, batch: model(2 * batch))
    assert torch.allclose(twice["head"], net(2 * x), atol=1e-5)


def test_several_networks_see_the_same_batches(x):
    nets = {"a": UsersNet(seed=0), "b": UsersNet(seed=1)}
    (found,) = stream_activations(nets, [x], ["a.head", "b.conv1"])
    assert torch.equal(found["a.head"], nets["a"].eval()(x))
    assert list(found) == ["a.head", "b.conv1"]
    with pytest.raises(ValueError, match="own module"):
        stream_activations({"a": nets["a"], "b": nets["a"]}, [x])


def test_flattened_places_are_samples():
    image = torch.arange(24.0).reshape(2, 3, 2, 2)
    rows = flatten_units(image)
    assert rows.shape == (8, 3)
    assert rows[1].tolist() == [1, 5, 9]
    assert torch.equal(flatten_units(image, places=torch.tensor([1, 3])), rows[[1, 3, 5, 7]])
    sequence = torch.rand(2, 5, 3)
    assert torch.equal(flatten_units(sequence), sequence.reshape(10, 3))
    assert torch.equal(flatten_units(sequence, axis=1), sequence.mT.reshape(6, 5))
    assert torch.equal(flatten_units(sequence[:, 0]), sequence[:, 0])
    with pytest.raises(ValueError, match="axis=4"):
        flatten_units(image, axis=4)
    with pytest.raises(ValueError, match="axis=0"):
        flatten_units(image, axis=0)
    with pytest.raises(ValueError, match="places: 9"):
        flatten_units(image, places=torch.tensor([9]))
    with pytest.raises(ValueError, match="activation"):
        flatten_units(torch.ones(3))


def test_moments_of_layers_are_those_of_all_data_at_once(x):
    net = UsersNet().eval()
    found = unit_moments(net, x.split(16), precision=torch.float64)
    assert list(found) == ["conv1", "conv2", "head"]
    conv = flatten_units(net.conv1(x).detach())
    assert found["conv1"].count == 50 * 64
    assert torch.allclose(found["conv1"].correlation(), Moments.of(conv.double()).correlation(), atol=1e-6)
    few = unit_moments(net, x.split(16), ["conv1"], places=5, generator=generator())
    assert few["conv1"].count == 50 * 5


def test_two_networks_are_compared_on_the_same_samples(x):
    net, other = UsersNet(seed=0).eval(), UsersNet(width=9, seed=1).eval()
    found = unit_cross_moments(net, "conv1", other, "conv1", x.split(16))
    expected = CrossMoments.of(*(flatten_units(model.conv1(x).detach()) for model in (net, other)))
    assert torch.allclose(found.correlation(), expected.correlation(), atol=1e-5)
    own = unit_cross_moments(net, "conv1", net, "conv1", x.split(16), within=False)
    assert torch.allclose(own.correlation().diagonal(), torch.ones(6, dtype=torch.float64), atol=1e-5)
    some = unit_cross_moments(net, "conv1", net, "conv1", x.split(16), places=3, generator=generator())
    assert torch.allclose(some.correlation().diagonal(), torch.ones(6, dtype=torch.float64), atol=1e-5)


def test_under_fabric_it_is_the_same(x):
    fabric = Fabric(accelerator="cpu", devices=1)
    net = UsersNet()
    loader = fabric.setup_dataloaders(DataLoader(TensorDataset(x), batch_size=10))
    found = unit_moments(fabric.setup(net), loader, ["conv1"])
    assert torch.equal(found["conv1"].mean, unit_moments(net, x.split(10), ["conv1"])["conv1"].mean)


def test_what_cannot_be_collected_is_refused_by_name(x):
    net = UsersNet()
    with pytest.raises(ValueError, match="Did you mean 'conv1'"):
        unit_moments(net, [x], ["conv11"])
    with pytest.raises(ValueError, match="'spare' did not run"):
        unit_moments(net, [x], ["spare"])
    with pytest.raises(TypeError, match=r"x.split"):
        stream_activations(net, x)
    with pytest.raises(ValueError, match="no batches"):
        unit_moments(net, [])
    with pytest.raises(ValueError, match="places=0"):
        unit_moments(net, [x], places=0)
    with pytest.raises(ValueError, match="'conv1' gives 3200 samples a batch and 'conv2' gives 800"):
        unit_cross_moments(net, "conv1", net, "conv2", [x])
    sizes = lambda model, batch: model(batch if model is net else batch[:20])  # noqa: E731
    with pytest.raises(ValueError, match="gives 50 samples a batch and 'head' gives 20"):
        unit_cross_moments(net, "head", UsersNet(seed=1), "head", [x], forward=sizes)


def test_shuffling_keeps_each_unit_and_loses_what_they_share():
    column = torch.randn(2_000, 1, generator=generator())
    x = torch.cat([column, column + 0.1, -column], 1)
    apart = shuffled(x, generator=generator(1))
    assert torch.equal(apart.sort(0).values, x.sort(0).values)
    off = Moments.of(apart.double()).correlation() - torch.eye(3)
    assert off.abs().max() < 0.1
    together = shuffled(x, generator=generator(1), together=True)
    assert torch.allclose(together[:, 0] + 0.1, together[:, 1])
    assert CrossMoments.of(x.double(), together.double()).correlation().abs().max() < 0.1
    with pytest.raises(ValueError, match="x: "):
        shuffled(torch.ones(3))


def test_an_untrained_network_is_new_and_the_trained_one_stays():
    net = UsersNet()
    state = torch.random.get_rng_state()
    one, two = untrained(net, generator=generator(0)), untrained(net, generator=generator(0))
    other = untrained(net, generator=generator(1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one.conv1.weight, two.conv1.weight)
    assert not torch.equal(one.conv1.weight, other.conv1.weight)
    assert not torch.equal(one.conv1.weight, net.conv1.weight)
    net.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="the module itself"):
        untrained(net)


def test_random_features_have_the_weights_in_another_order():
    net = UsersNet()
    scrambled = random_features(net, generator=generator())
    for (name, one), other in zip(net.named_parameters(), scrambled.parameters()):
        assert torch.equal(one.flatten().sort().values, other.flatten().sort().values), name
    assert not torch.equal(net.conv2.weight, scrambled.conv2.weight)
