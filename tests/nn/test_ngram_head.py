"""N-gram heads against counting by hand: what followed, by how much, never from ahead, and in any user's loop."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from etude.nn import NGramHeads, NGramMixer, Recurrent, Transformer, ngram_attention, ngram_mean, ngram_sum
from tests.distributed import run_distributed

SYMBOLS, LENGTH = 4, 30


def tokens(batch=3, length=LENGTH, symbols=SYMBOLS, seed=0):
    return torch.randint(symbols, (batch, length), generator=torch.Generator().manual_seed(seed))


def context(sequence, place, order, separator):
    """The last tokens up to a place; None where there are too few of them."""
    last = sequence[max(place - order + 1, 0) : place + 1]
    if separator in last:
        return tuple(last[len(last) - 1 - last[::-1].index(separator) :])
    return tuple(last) if len(last) == order else None


def by_hand(sequences, order, include_current, separator):
    """The attention matrix from the definition, with three loops."""
    weights = torch.zeros(len(sequences), LENGTH, LENGTH, dtype=torch.float64)
    for matrix, sequence in zip(weights, sequences.tolist()):
        for i in range(LENGTH):
            here = context(sequence, i, order, separator)
            for j in range(i if include_current else i - 1):
                if here is not None and here == context(sequence, j, order, separator):
                    matrix[i, j + 1] = 1
    return weights / weights.sum(-1, keepdim=True).clamp(min=1)


VARIANTS = [(order, current, sep) for order in (1, 2, 3, 7) for current in (True, False) for sep in (None, 2)]


@pytest.mark.parametrize(("order", "include_current", "separator"), VARIANTS)
def test_heads_look_where_the_definition_says(order, include_current, separator):
    options = {"include_current": include_current, "separator": separator}
    read, expected = tokens(), by_hand(tokens(), order, include_current, separator)
    assert torch.equal(ngram_attention(read, order, dtype=torch.float64, **options), expected)
    values = torch.randn(3, LENGTH, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(ngram_mean(values, read, order, **options), expected @ values, atol=1e-12, rtol=0)
    total, number = ngram_sum(values, read, order, **options)
    assert torch.equal(number, (expected > 0).sum(-1))
    assert torch.allclose(total, (expected > 0).double() @ values, atol=1e-12, rtol=0)


def test_successors_are_counted_to_rounding():
    """Attention times one-hot tokens is the share of each successor, counted with a dictionary."""
    read = tokens(5, LENGTH)
    shares = ngram_mean(functional.one_hot(read, SYMBOLS).double(), read, 2)
    for row, sequence in enumerate(read.tolist()):
        counts: dict[tuple[int, ...], list[int]] = {}
        for i in range(1, LENGTH):
            if i >= 2:
                counts.setdefault(tuple(sequence[i - 2 : i]), [0] * SYMBOLS)[sequence[i]] += 1
            seen = torch.tensor(counts.get(tuple(sequence[i - 1 : i + 1]), [0] * SYMBOLS), dtype=torch.float64)
            assert (shares[row, i] - seen / seen.sum().clamp(min=1)).abs().max() <= 1e-12


def test_any_vocabulary_and_any_order_are_compared_exactly():
    read = tokens(2, symbols=2)
    large = read * (2**40) + 7
    for order in (1, 4, 20):
        assert torch.equal(ngram_attention(read, order), ngram_attention(large, order))


@pytest.mark.parametrize("separator", [None, 1])
def test_a_changed_token_changes_nothing_before_it(separator):
    body = NGramHeads(Recurrent(8), 8, (1, 2, 3), separator=separator).double()
    embed = nn.Embedding(SYMBOLS, 8).double()
    read = tokens()
    before = body(embed(read), read)
    for place in (0, 7, LENGTH - 1):
        other = read.clone()
        other[:, place] = (other[:, place] + 1) % SYMBOLS
        after = body(embed(other), other)
        assert torch.allclose(before[:, :place], after[:, :place], atol=1e-12, rtol=0)  # but for rounding
        assert not torch.allclose(before[:, place], after[:, place])


def test_gradients():
    values = torch.randn(2, 9, 3, dtype=torch.float64, requires_grad=True)
    for options in ({}, {"include_current": False}, {"separator": 0}):
        assert torch.autograd.gradcheck(lambda x, o=options: ngram_mean(x, tokens(2, 9), 1, **o), values)


def test_the_mixer_is_its_equation():
    mixer, x, read = NGramMixer(6, 2).double(), torch.randn(3, LENGTH, 6, dtype=torch.float64), tokens()
    expected = mixer.current(x) + ngram_attention(read, 2, dtype=torch.float64) @ x @ mixer.followers.weight.T
    assert torch.allclose(mixer(x, read), expected)


def test_initial_weights_come_from_the_generator():
    one, same, other = (NGramMixer(8, 1, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(one.followers.weight, same.followers.weight)
    assert not torch.equal(one.followers.weight, other.followers.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_dtype(dtype):
    values = torch.ones(2, LENGTH, 3, dtype=dtype)
    seen = ngram_mean(values, tokens(2), 1)
    assert seen.dtype == dtype
    assert set(seen.unique().tolist()) == {0.0, 1.0}
    assert ngram_attention(tokens(2), 1, dtype=dtype).dtype == dtype


def test_options_reach_the_body():
    body = NGramHeads(Transformer(8, 2, context=LENGTH), 8, (1,))
    _, maps = body(torch.randn(3, LENGTH, 8), tokens(), maps=True)
    assert len(maps) == 2


class UserModel(nn.Module):
    """As in the example: an embedding, an LSTM with heads in front of it, a read-out."""

    def __init__(self):
        super().__init__()
        self.embed, self.read_out = nn.Embedding(20, 16), nn.Linear(16, 20)
        self.body = NGramHeads(Recurrent(16, layers=2), 16, orders=(1, 2, 3))

    def forward(self, read):
        return self.read_out(self.body(self.embed(read), read))


def learn(model, optimizer, backward, read):
    loss = functional.cross_entropy(model(read[:, :-1]).mT, read[:, 1:])
    optimizer.zero_grad()
    backward(loss)
    optimizer.step()
    return loss.item()


def test_in_a_users_loop_every_weight_is_learnt():
    model = UserModel()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    learn(model, torch.optim.SGD(model.parameters(), lr=0.1), torch.Tensor.backward, tokens(4, 25, 3))
    assert all(not torch.equal(start[name], value) for name, value in model.named_parameters())


def test_under_fabric():
    fabric = pytest.importorskip("lightning_fabric").Fabric(accelerator="cpu", devices=1)
    torch.manual_seed(0)
    plain = UserModel()
    torch.manual_seed(0)
    model, optimizer = fabric.setup(made := UserModel(), torch.optim.SGD(made.parameters(), lr=0.1))
    read = tokens(4)
    theirs = learn(model, optimizer, fabric.backward, read)
    ours = learn(plain, torch.optim.SGD(plain.parameters(), lr=0.1), torch.Tensor.backward, read)
    assert theirs == ours
    for name, value in plain.state_dict().items():
        assert torch.equal(value, made.state_dict()[name])


def test_under_distributed_data_parallel(tmp_path):
    run_distributed(
        """
        from etude.nn import NGramHeads, Recurrent
        from torch.nn import functional

        torch.manual_seed(0)
        embed, body = nn.Embedding(5, 8), NGramHeads(Recurrent(8), 8, (1, 2))

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.body = embed, body

            def forward(self, read):
                return self.body(self.embed(read), read)

        model, read = Model(), torch.randint(5, (4, 12))
        model(read).square().mean().backward()
        alone = {name: p.grad.clone() for name, p in model.named_parameters()}
        model.zero_grad()
        shared = DistributedDataParallel(model)
        shared(read[2 * rank : 2 * rank + 2]).square().mean().backward()
        for name, p in model.named_parameters():
            assert torch.allclose(p.grad, alone[name], atol=1e-6), name
        """,
        tmp_path,
    )


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ngram_attention(tokens(), 0), "order=0"),
        (lambda: ngram_attention(tokens(), LENGTH + 1), f"order={LENGTH + 1}: give a whole number from 1 to {LENGTH}"),
        (lambda: ngram_mean(torch.ones(3, LENGTH, 2), tokens(), 1.5), "order=1.5"),
        (lambda: ngram_mean(torch.ones(3, LENGTH - 1, 2), tokens(), 1), "do not fit"),
        (lambda: NGramMixer(0, 1), "width=0"),
        (lambda: NGramMixer(4, 0), "order=0"),
        (lambda: NGramHeads(Recurrent(4), 4, ()), "orders"),
    ],
)
def test_bad_arguments_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()
