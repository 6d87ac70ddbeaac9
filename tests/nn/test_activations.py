"""Taps keep what layers put out in the owner's own pass, whatever wraps the network, and refuse what is ambiguous."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from etude.nn import ActivationTap, activations


class UsersNet(nn.Module):
    """A network that is not ours: a shared activation, a layer it may skip, nested parts."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.act = nn.ReLU()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 8))
        self.spare = nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x, spare=False):
        x = self.body(self.act(self.norm(self.stem(x))))
        return self.head(self.act(self.spare(x) if spare else x))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return UsersNet()


@pytest.fixture
def x():
    return torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def test_the_default_is_what_owns_weights_and_runs_in_the_order_of_running(net, x):
    found = activations(net, x)
    assert list(found) == ["stem", "body.1", "body.3", "head"]
    assert list(activations(net, x, spare=True)) == ["stem", "body.1", "body.3", "spare", "head"]
    assert found["stem"].shape == (5, 3, 4, 4)
    assert torch.equal(found["stem"], net.stem(x))


def test_names_and_functions_choose(net, x):
    assert list(activations(net, x, layers=["head", "body"])) == ["body", "head"]
    assert list(activations(net, x, layers=lambda name, module: isinstance(module, nn.BatchNorm2d))) == ["norm"]
    whole = activations(net, x, layers=[""])
    assert whole[""].shape == (5, 2)


def test_a_tap_changes_neither_outputs_nor_gradients_and_adds_no_pass(net, x):
    import copy

    plain = copy.deepcopy(net)
    plain(x).sum().backward()
    with ActivationTap(net) as tap:
        net(x).sum().backward()
        assert all(value.requires_grad for value in tap.activations.values())
    for (name, one), other in zip(net.named_parameters(), plain.parameters()):
        assert (one.grad is None and other.grad is None) or torch.equal(one.grad, other.grad), name
    assert torch.equal(net.norm.running_mean, plain.norm.running_mean)
    assert int(net.norm.num_batches_tracked) == 1


def test_gradients_flow_through_what_is_kept_unless_detached(net, x):
    activations(net, x)["stem"].square().sum().backward()
    assert net.stem.weight.grad.any()
    assert not activations(net, x, detach=True)["stem"].requires_grad


def test_each_pass_replaces_the_last_and_removal_ends_it(net, x):
    tap = ActivationTap(net, ["head"])
    net(x)
    net(x[:2])
    assert len(tap.activations["head"]) == 2
    tap.enabled = False
    net(x)
    assert len(tap.activations["head"]) == 2
    tap.enabled = True
    tap.remove()
    net(x)
    assert len(tap.activations["head"]) == 2
    tap.clear()
    with pytest.raises(RuntimeError, match="has not run"):
        _ = tap.activations


def test_an_evaluation_leaves_no_trace_where_only_gradients_are_seen(net, x):
    tap = ActivationTap(net, ["head"], only_with_grad=True)
    net(x)
    with torch.no_grad():
        net(x[:2])
    assert len(tap.activations["head"]) == 5


def test_a_pass_that_breaks_off_has_no_activations(net, x):
    tap = ActivationTap(net)
    with pytest.raises(RuntimeError):
        net(x[:, :, :3])
    with pytest.raises(RuntimeError, match="broke off"):
        _ = tap.activations


class TestSequences:
    def test_tuples_keep_their_first_tensor_and_samples_come_first(self):
        x = torch.randn(7, 5, 4)  # time, batch, features
        for layer in (nn.RNN(4, 3), nn.LSTM(4, 3), nn.GRU(4, 3)):
            net = nn.Sequential(layer)
            assert torch.equal(activations(net, x)["0"], layer(x)[0].transpose(0, 1))
        attention = nn.MultiheadAttention(4, 2, batch_first=True)
        found = activations(attention, x, x, x, layers=[""])
        assert found[""].shape == (7, 5, 4)

    def test_packed_sequences_are_padded(self):
        packed = pack_padded_sequence(torch.randn(3, 6, 4), torch.tensor([6, 4, 2]), batch_first=True)
        found = activations(nn.Sequential(nn.GRU(4, 2, batch_first=True)), packed)["0"]
        assert found.shape == (3, 6, 2)
        assert not found[2, 2:].any()

    def test_a_transformer_layer_and_a_mapping(self):
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        class Wrapped(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = layer

            def forward(self, x):
                return {"hidden": self.layer(x), "other": 1}

        net = Wrapped()
        found = activations(net, torch.randn(3, 5, 8), layers=["", "layer"])
        assert torch.equal(found[""], found["layer"])


class TestWrappers:
    def test_compiled_networks_have_the_names_of_those_inside(self, net, x):
        tap = ActivationTap(torch.compile(net, backend="eager"), ["stem"])
        assert tap.layers == ("stem",)

    def test_fabric(self, net, x):
        fabric = pytest.importorskip("lightning_fabric").Fabric(accelerator="cpu", devices=1)
        model = fabric.setup(net)
        with ActivationTap(model) as tap:
            model(x)
            assert list(tap.activations) == ["stem", "body.1", "body.3", "head"]


class Shares(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.layer(self.layer(x)))


def test_ambiguous_and_overwritten_activations_are_refused():
    with pytest.raises(ValueError, match="'layer' ran 2 times"):
        activations(Shares(), torch.randn(2, 3))
    overwritten = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True))
    with pytest.raises(ValueError, match="'0' was changed in place"):
        activations(overwritten, torch.randn(2, 3))


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (["body.2", "stam"], ValueError, "no layer 'stam'. Did you mean 'stem'"),
        (["zzzzz"], ValueError, "Its layers are stem"),
        (["stem", "stem"], ValueError, "'stem' is named twice"),
        ([], ValueError, "the list is empty"),
        ("stem", TypeError, "one string"),
        (lambda name, module: False, ValueError, "chose no layer"),
    ],
)
def test_layers_that_are_not_there_are_refused_at_once(net, layers, error, message):
    with pytest.raises(error, match=message):
        ActivationTap(net, layers)


def test_a_named_layer_that_does_not_run_is_an_error(net, x):
    with pytest.raises(ValueError, match="'spare' did not run"):
        activations(net, x, layers=["spare"])


def test_no_module_and_no_weights_are_refused():
    with pytest.raises(TypeError, match="model: a list"):
        ActivationTap([])
    with pytest.raises(ValueError, match="no layers with weights"):
        ActivationTap(nn.ReLU())
