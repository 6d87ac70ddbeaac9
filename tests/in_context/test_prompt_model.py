"""The prompt model: what it reads, what it must not see, and that it lives in anyone's training loop."""

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn.functional import soft_margin_loss

from distributed import run_distributed
from etude.in_context import (
    Conjunctions,
    LinearFunctions,
    NearestNeighbourRule,
    PromptModel,
    head_score,
    nearest_neighbour_labels,
)
from etude.nn import GatedLinearRecurrence, Recurrent, Transformer

POINTS = 6


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def transformer():
    return Transformer(16, layers=2, heads=2, context=2 * POINTS - 1, generator=draws(1))


def model(sequence=None):
    return PromptModel(sequence or transformer(), dims=4, width=16, generator=draws(2))


SEQUENCES = {
    "transformer": transformer,
    "lstm": lambda: Recurrent(16, generator=draws(1)),
    "linear": lambda: GatedLinearRecurrence(16, 2, generator=draws(1)),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_logit_depends_on_the_pairs_before_and_its_own_input_alone(name):
    network = model(SEQUENCES[name]()).double()
    prompts = Conjunctions(4).prompts(5, POINTS, draws())
    x, y = prompts.x.double().requires_grad_(), prompts.y.double().requires_grad_()
    logits = network(x, y)
    assert logits.shape == (5, POINTS)
    for k in range(POINTS):
        to_x, to_y = torch.autograd.grad(logits[:, k].sum(), (x, y), retain_graph=True, allow_unused=True)
        seen_x, seen_y = (to_x != 0).any(-1), to_y != 0
        assert seen_x[:, : k + 1].all()
        assert not seen_x[:, k + 1 :].any()
        assert seen_y[:, :k].all()
        assert not seen_y[:, k:].any()


def test_tokens_take_turns_and_labels_are_in_the_first_coordinate():
    class Keep(nn.Module):
        def forward(self, tokens):
            self.tokens = tokens
            return tokens

    keep = Keep()
    network = model(keep)
    prompts = Conjunctions(4).prompts(2, 3, draws())
    logits = network(prompts.x, prompts.y)
    read = lambda vector: 4 * (network.read_in.weight @ vector + network.read_in.bias)  # noqa: E731
    assert keep.tokens.shape == (2, 5, 16)
    assert torch.allclose(keep.tokens[1, 2], read(prompts.x[1, 1]))
    assert torch.allclose(keep.tokens[1, 3], read(torch.tensor([prompts.y[1, 1], 0, 0, 0])))
    assert torch.allclose(logits[1, 2], network.read_out(keep.tokens[1, 4])[0])


def test_maps_are_those_of_the_sequence_model_and_change_no_logit():
    network = model()
    prompts = Conjunctions(4).prompts(3, POINTS, draws())
    logits, maps = network(prompts.x, prompts.y, maps=True)
    assert torch.allclose(logits, network(prompts.x, prompts.y), atol=1e-6)
    assert [layer.shape for layer in maps] == [(3, 2, 11, 11)] * 2


def test_shapes_that_do_not_fit_are_refused():
    x, y = torch.ones(2, POINTS, 4), torch.ones(2, POINTS)
    with pytest.raises(ValueError, match="3 dimensions; the model reads 4"):
        model()(x[..., :3], y)
    with pytest.raises(ValueError, match=r"y of shape \(2, 5\)"):
        model()(x, y[:, 1:])
    with pytest.raises(ValueError, match="dims=0"):
        PromptModel(transformer(), dims=0, width=16)
    with pytest.raises(ValueError, match="width=0"):
        PromptModel(transformer(), dims=4, width=0)


def train(network, optimizer, backward, steps=12):
    task, generator, losses = Conjunctions(bits=4), draws(), []
    for _ in range(steps):
        prompts = task.prompts(8, POINTS, generator)
        loss = soft_margin_loss(network(prompts.x, prompts.y), prompts.y)
        optimizer.zero_grad()
        backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return losses


class OwnModel(nn.Module):
    """A user's own model of prompts, which owes this library nothing."""

    def __init__(self):
        super().__init__()
        self.recurrent, self.read_out = nn.GRU(5, 8, batch_first=True), nn.Linear(8, 1)

    def forward(self, x, y):
        shifted = nn.functional.pad(y[:, :-1], (1, 0))
        return self.read_out(self.recurrent(torch.cat([x, shifted[..., None]], -1))[0])[..., 0]


def test_prompts_train_a_model_in_a_plain_loop():
    torch.manual_seed(0)
    for network in (OwnModel(), model(), model(Recurrent(16))):
        before = [parameter.detach().clone() for parameter in network.parameters()]
        train(network, torch.optim.Adam(network.parameters(), 1e-2), torch.Tensor.backward)
        assert all(not torch.equal(old, new) for old, new in zip(before, network.parameters()))


def test_fabric_trains_the_same_as_a_plain_loop():
    plain = model()
    losses = train(plain, torch.optim.Adam(plain.parameters(), 1e-2), torch.Tensor.backward)
    fabric = Fabric(accelerator="cpu", devices=1)
    network = model()
    network, optimizer = fabric.setup(network, torch.optim.Adam(network.parameters(), 1e-2))
    assert train(network, optimizer, fabric.backward) == losses


def test_two_processes_train_the_same_as_one(tmp_path):
    run_distributed(
        """
        from torch.nn.functional import soft_margin_loss
        from etude.in_context import Conjunctions, PromptModel
        from etude.nn import Transformer

        generator = torch.Generator().manual_seed(0)
        own = PromptModel(Transformer(16, 1, 2, context=11, generator=generator), 4, 16, generator=generator)
        model = DistributedDataParallel(own)
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        task = Conjunctions(bits=4)
        for _ in range(4):
            prompts = task.prompts(8, 6, generator)
            mine = slice(4 * rank, 4 * rank + 4)
            optimizer.zero_grad()
            soft_margin_loss(model(prompts.x[mine], prompts.y[mine]), prompts.y[mine]).backward()
            optimizer.step()
        torch.save(own.state_dict(), f"rank{rank}.pt")
        dist.barrier()
        del model  # it holds the process group, which must not outlive the interpreter
        """,
        tmp_path,
    )
    generator = draws()
    network = PromptModel(Transformer(16, 1, 2, context=11, generator=generator), 4, 16, generator=generator)
    optimizer, task = torch.optim.SGD(network.parameters(), 0.5), Conjunctions(bits=4)
    for _ in range(4):
        prompts = task.prompts(8, 6, generator)
        optimizer.zero_grad()
        soft_margin_loss(network(prompts.x, prompts.y), prompts.y).backward()
        optimizer.step()
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    for name, value in network.state_dict().items():
        assert torch.equal(first[name], second[name])
        assert torch.allclose(value, first[name], atol=1e-6)


def test_real_labels_are_read_too():
    prompts = LinearFunctions(4).prompts(3, POINTS, draws())
    y = prompts.y.clone().requires_grad_()
    model()(prompts.x, y).sum().backward()
    assert (y.grad[:, :-1] != 0).all()


def test_nearest_neighbour_targets_are_the_labels_of_the_most_similar_points():
    x = torch.tensor([[[1.0, 1, 1], [1, 1, -1], [-1, -1, -1], [1, 1, 1], [1, -1, -1]]])
    targets = nearest_neighbour_labels(x, start=2)
    assert targets.shape == (1, 9, 9)
    found = {(q, p) for q, p in targets[0].nonzero().tolist()}
    # x_2 is nearest to x_1, x_3 equals x_0, and x_4 is as near to x_1 as to x_2; label k is at position 2 k + 1.
    assert found == {(4, 3), (6, 1), (8, 3), (8, 5)}
    even = torch.ones(9, 9).tril()
    even = (even / even.sum(-1, keepdim=True)).expand(1, 1, 9, 9)
    assert head_score(even, targets).item() == pytest.approx((1 / 5 + 1 / 7 + 2 / 9) / 3)
    with pytest.raises(ValueError, match="start=5: give a number from 1 to 4"):
        nearest_neighbour_labels(x, start=5)


def test_targets_of_the_nearest_neighbour_rule_carry_its_label():
    prompts = NearestNeighbourRule(8, free=3).prompts(30, 9, draws())
    targets = nearest_neighbour_labels(prompts.x, start=3)
    tokens = torch.zeros(30, 17)
    tokens[:, 1::2] = prompts.y[:, :-1]
    first = targets.int().argmax(-1)  # of equally near points the earliest counts
    assert torch.equal(tokens.gather(1, first)[:, 6::2], prompts.y[:, 3:])
