"""The one-layer transformer is its equations, and a chain of its parts."""

import pytest
import torch

from etude.nn import one_layer_transformer


def test_it_is_its_equations():
    model = one_layer_transformer(6, 3, width=4, heads=2, hidden=5, generator=torch.Generator().manual_seed(0)).double()
    tokens = torch.tensor([[0, 1, 5], [2, 2, 5]])
    state = model.state_dict()
    x = state["embed.tokens.weight"][tokens] + state["embed.positions"]
    q, k, v = (x @ state["attention.attention.qkv.weight"].T).chunk(3, -1)
    heads = []
    for part in (slice(0, 2), slice(2, 4)):
        weights = (q[:, -1:, part] @ k[..., part].mT / 2**0.5).softmax(-1)
        heads.append((weights @ v[..., part])[:, 0])
    after = x[:, -1] + torch.cat(heads, -1) @ state["attention.attention.project.weight"].T
    hidden = torch.relu(after @ state["hidden.up.weight"].T)
    before = after + hidden @ state["hidden.down.weight"].T
    expected = before @ state["read_out.weight"].T
    assert torch.allclose(model(tokens), expected)
    embed, *sections = model
    value = embed(tokens)
    for section in sections:
        value = section(value)
    assert torch.equal(value, model(tokens))


def test_weights_come_from_the_generator():
    one, other, third = (one_layer_transformer(5, 2, width=8, hidden=8, generator=g) for g in map(seeded, (0, 0, 1)))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))
    assert not torch.equal(one.read_out.weight, third.read_out.weight)
    assert not one.read_out.bias.any()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="hidden=0"):
        one_layer_transformer(5, 2, hidden=0)
    with pytest.raises(ValueError, match="heads=3"):
        one_layer_transformer(5, 2, width=8, heads=3)
