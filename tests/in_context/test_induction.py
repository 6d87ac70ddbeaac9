"""Probes and models of induction heads agree with written-out formulas, limits and heads made by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from etude.in_context import (
    AttentionOnlyClassifier,
    GaussianItems,
    ItemLabelTask,
    MinimalInductionHead,
    NestedLogitLoss,
    encode,
    even_attention,
    head_score,
    hidden_positions,
    in_context_accuracy,
    induction_scores,
    interleave,
    label_to_item,
    target_to_labels,
)
from etude.nn import Transformer
from tests.distributed import run_distributed

PAIRS, TOKENS = 8, 17


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sequences(n=30, dim=63, shots=1, classes=64, labels=32):
    items = GaussianItems(classes, dim, generator=seeded(1))
    batch = ItemLabelTask(items, labels, shots=shots).in_context(n, seeded(2))
    return batch, torch.randn(labels, dim, generator=seeded(3)) / dim**0.5


# ---- probes and interventions --------------------------------------------------------------------------------------


def test_targets_of_both_heads_by_hand():
    first = label_to_item(2)
    assert first.nonzero().tolist() == [[0, 1, 0], [0, 3, 2]]
    second = target_to_labels(torch.tensor([[True, False], [True, True]]))
    assert second.nonzero().tolist() == [[0, 0, 1], [1, 0, 1], [1, 0, 3]]


@pytest.mark.parametrize("shots", [1, 2])
@pytest.mark.parametrize("queries", [1, TOKENS])
def test_scores_of_even_and_of_perfect_attention(shots, queries):
    batch, _ = sequences(shots=shots)
    even = torch.ones(len(batch), 1, TOKENS, TOKENS).tril()
    even /= even.sum(-1, keepdim=True)
    first = torch.eye(TOKENS).expand(len(batch), 1, -1, -1).clone()
    first[:, :, 1::2] = one_hot(torch.arange(0, 2 * PAIRS, 2), TOKENS).float()
    last = torch.zeros(len(batch), 1, TOKENS, TOKENS)
    last[:, 0, -1, 1::2] = batch.matches / shots
    # Two heads a layer: each gets a score of its own.
    scores = induction_scores((torch.cat([even, first], 1), torch.cat([even, last], 1)[:, :, -queries:]), batch)
    labels_see_item = sum(1 / (2 * m + 2) for m in range(PAIRS)) / PAIRS
    assert scores.item_label.tolist() == pytest.approx([labels_see_item, 1])
    assert scores.target_item_label.tolist() == pytest.approx([shots / TOKENS, 1])
    assert scores.target_label.tolist() == pytest.approx([PAIRS / TOKENS, 1])


def test_scores_of_a_users_own_attention():
    batch, vectors = sequences(dim=15)
    tokens = interleave(batch.items, vectors[batch.labels])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.MultiheadAttention(15, 3, batch_first=True) for _ in range(2)]
    mask = ~torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
    maps = []
    for layer in layers:
        read, weights = layer(tokens, tokens, tokens, attn_mask=mask, average_attn_weights=False)
        tokens = tokens + read
        maps.append(weights)
    scores = induction_scores(maps, batch)
    right = [maps[1][row, :, -1, 2 * int(batch.matches[row].nonzero()) + 1] for row in range(len(batch))]
    assert torch.allclose(scores.target_item_label, torch.stack(right).mean(0))
    assert torch.allclose(scores.target_label, maps[1][:, :, -1, 1::2].sum(-1).mean(0))


def test_interventions_spread_or_hide_and_touch_nothing_else():
    body = Transformer(12, 2, 3, positions=None, hidden=0, norm=False, scale=1.0, generator=seeded())
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.mul_(20)
    x = torch.randn(4, TOKENS, 12, generator=seeded(1))
    _, maps = body(x, maps=True)
    labels = label_to_item(PAIRS).any(-1)
    _, spread = body(x, maps=True, edit={0: even_attention(labels)})
    for query in range(TOKENS):
        expected = torch.ones(query + 1) / (query + 1)
        seen = spread[0][:, :, query, : query + 1]
        assert torch.allclose(seen, expected.expand_as(seen) if query % 2 else maps[0][:, :, query, : query + 1])
    target = target_to_labels(torch.ones(1, PAIRS, dtype=torch.bool))
    _, hidden = body(x, maps=True, last=1, edit={1: hidden_positions(target[:, None])})
    left = maps[1][:, :, -1:, 0::2]
    assert torch.equal(hidden[0], maps[0])
    assert (hidden[1][..., 1::2] == 0).all()
    assert torch.allclose(hidden[1][..., 0::2], left / left.sum(-1, keepdim=True), atol=1e-6)


# ---- the network ---------------------------------------------------------------------------------------------------


def by_hand(model, tokens):
    """One sequence through the equations of the docstring, a sum at a time."""
    x = list(tokens)
    for block in model.attention.blocks:
        q, k, v = block.attention.qkv.weight.chunk(3)
        read = []
        for j in range(len(x)):
            weights = torch.stack([(k @ x[i]) @ (q @ x[j]) for i in range(j + 1)]).softmax(0)
            read.append(sum(weight * (v @ x[i]) for i, weight in enumerate(weights)))
        x = [old + new for old, new in zip(x, read)]
    return model.classifier(x[-1])


def test_the_network_is_the_equations():
    batch, vectors = sequences(n=2, dim=6)
    tokens = encode(batch, vectors, positions=20, generator=seeded()).double()
    model = AttentionOnlyClassifier(6, positions=20, labels=32, width=10, generator=seeded()).double()
    logits = model(tokens)
    assert logits.shape == (2, 32)
    for row in range(2):
        assert torch.allclose(logits[row], by_hand(model, tokens[row]))
    with_maps, maps = model(tokens, maps=True)
    assert torch.allclose(with_maps, logits)
    assert [tuple(layer.shape) for layer in maps] == [(2, 1, TOKENS, TOKENS), (2, 1, 1, TOKENS)]


def test_initial_weights_have_the_papers_variances():
    model = AttentionOnlyClassifier(63, positions=65, labels=32, generator=seeded())
    for block in model.attention.blocks:
        assert block.attention.qkv.weight.std().item() == pytest.approx(63**-0.5, rel=0.02)
        assert block.attention.project is None
    first, read_out = model.classifier[0], model.classifier[-1]
    assert first.weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.02)
    assert first.bias.std().item() == pytest.approx(128**-0.5, rel=0.2)
    assert read_out.weight.std().item() == pytest.approx(128**-0.5, rel=0.04)
    assert read_out.bias is None
    again = AttentionOnlyClassifier(63, positions=65, labels=32, generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))


def test_an_induction_head_made_by_hand_is_seen_answers_and_is_broken():
    """Layer 1 writes what stood before into the part of positions; layer 2 looks there for the target's content."""
    content, positions = 63, 65
    batch, vectors = sequences(n=200)
    tokens = encode(batch, vectors, positions=positions, generator=seeded())
    model = AttentionOnlyClassifier(content, positions=positions, labels=32)
    here, there = torch.arange(positions - 1), torch.arange(1, positions)
    with torch.no_grad():
        for block in model.attention.blocks:
            block.attention.qkv.weight.zero_()
        one, two = (block.attention.qkv.weight.view(3, 128, 128) for block in model.attention.blocks)
        one[0, there, there] = one[1, there, here] = 8.0  # a position asks for the one before it
        what = torch.arange(content)
        one[2, what, positions + what] = 1.0
        two[0, what, positions + what] = two[1, what, what] = 12.0
        two[2, positions + what, positions + what] = 1.0
        # The read-out compares with what the target adds to the label: nearest label vector.
        model.classifier = nn.Sequential(nn.Linear(128, 32, bias=False))
        model.classifier[0].weight.zero_()
        model.classifier[0].weight[:, positions:] = vectors
    logits, maps = model(tokens, maps=True)
    scores = induction_scores(maps, batch)
    assert scores.item_label.item() > 0.99
    # The first token sees itself alone: where it is of the target's class it competes with its label.
    later = ~batch.matches[:, 0]
    assert head_score(maps[1][later], target_to_labels(batch.matches[later])).item() > 0.99
    assert in_context_accuracy(logits, batch) > 0.9
    labels = label_to_item(PAIRS).any(-1)
    seen = target_to_labels(torch.ones(1, PAIRS, dtype=torch.bool))
    for edit in ({0: even_attention(labels)}, {1: hidden_positions(seen[:, None])}):
        assert in_context_accuracy(model(tokens, edit=edit), batch) < 0.5


# ---- the minimal induction head ------------------------------------------------------------------------------------


def test_the_minimal_head_is_its_equations():
    batch, vectors = sequences(n=2, dim=6)
    contents = interleave(batch.items, vectors[batch.labels]).double()
    model = MinimalInductionHead(6, labels=32, width=10, generator=seeded()).double()
    with torch.no_grad():
        model.beta1.fill_(1.5)
        model.alpha.fill_(-2.5)
        model.beta2.fill_(0.7)
    logits, maps = model(contents, maps=True)
    assert torch.equal(model(contents), logits)
    for row, c in enumerate(contents):
        scores = []
        for i in range(TOKENS - 1):
            weights = torch.tensor([1.5 * (j == i - 1) for j in range(i)], dtype=torch.float64).softmax(0)
            buffer = sum((w * c[j] for j, w in enumerate(weights)), torch.zeros(6, dtype=torch.float64))
            scores.append(-2.5 * buffer @ c[-1] + 0.7 * (i % 2))
            assert torch.allclose(maps[0][row, 0, i, :i], weights)
        weights = torch.stack(scores).softmax(0)
        found = sum(w * c[i] for i, w in enumerate(weights))
        assert torch.allclose(maps[1][row, 0, 0, :-1], weights)
        assert torch.allclose(logits[row], model.classifier(torch.cat([c[-1], found])))


def test_large_numbers_make_the_minimal_head_an_induction_head():
    batch, vectors = sequences(n=100)
    contents = interleave(batch.items, vectors[batch.labels])
    model = MinimalInductionHead(63, labels=32, generator=seeded(), start=30.0)
    _, maps = model(contents, maps=True)
    scores = induction_scores(maps, batch)
    assert scores.item_label.item() == pytest.approx(1)
    assert scores.target_item_label.item() > 0.99
    with torch.no_grad():
        model.alpha.zero_()  # labels are still told apart from items, but not from each other
    scores = induction_scores(model(contents, maps=True)[1], batch)
    assert scores.target_label.item() == pytest.approx(1)
    assert scores.target_item_label.item() == pytest.approx(1 / PAIRS)


def test_only_the_numbers_asked_for_are_trained():
    names = {name for name, _ in MinimalInductionHead(4, labels=3, parameters=("beta1", "alpha")).named_parameters()}
    assert {"beta1", "alpha"} < names
    assert "beta2" not in names
    head = MinimalInductionHead(4, labels=3, generator=seeded())
    loss = head(torch.randn(5, 7, 4, generator=seeded(1))).square().sum()
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())


# ---- nested logits -------------------------------------------------------------------------------------------------


def points(n=20):
    return 3 * torch.randn(3, n, generator=seeded(), dtype=torch.float64)


@pytest.mark.parametrize(("pairs", "labels"), [(8, 8), (8, 9), (8, 32), (2, 2), (3, 40)])
def test_the_loss_is_its_equations_and_the_gradient_that_of_the_loss(pairs, labels):
    beta1, alpha, xi = points().requires_grad_()
    loss = NestedLogitLoss(pairs, labels)
    a = beta1.exp() / (beta1.exp() + pairs - 1)
    head = (alpha * a).exp()
    q, r = head / (head + 2 * pairs - 1), 1 / (head + 2 * pairs - 1)
    right, wrong = (xi * q).exp(), (pairs - 1) * (xi * r).exp()
    total = right + wrong + labels - pairs
    value = loss(beta1, alpha, xi)
    assert torch.allclose(value, -(right / total).log())
    expected = torch.stack(torch.autograd.grad(value.sum(), (beta1, alpha, xi)), -1)
    with torch.no_grad():
        assert torch.allclose(loss.gradient(beta1, alpha, xi), expected, atol=1e-12)
        found = loss.predictions(beta1, alpha, xi)
        assert torch.allclose(found.item_label, a)
        assert torch.allclose(found.target_item_label, q)
        assert torch.allclose(found.correct, right / total)
        assert torch.allclose(found.context_label, (right + wrong) / total)


@pytest.mark.parametrize("pairs", [2, 3, 8])
@pytest.mark.parametrize("extra", [0, 1, 24])
def test_the_origin_is_critical_only_if_all_labels_are_in_the_context(pairs, extra):
    labels = pairs + extra
    zero = torch.zeros((), dtype=torch.float64)
    gradient = NestedLogitLoss(pairs, labels).gradient(zero, zero, zero)
    assert gradient[:2].tolist() == [0, 0]
    assert gradient[2].item() == pytest.approx(-(1 - pairs / labels) / (2 * pairs), abs=1e-15)


def test_chance_plateau_and_floor_of_the_loss():
    zero, large = torch.zeros((), dtype=torch.float64), torch.tensor(1e4, dtype=torch.float64)
    loss = NestedLogitLoss(8, 32)
    assert loss(zero, zero, zero).item() == pytest.approx(math.log(32))
    assert loss(zero, zero, large).item() == pytest.approx(math.log(8))
    assert loss(large, large, large).item() == pytest.approx(0, abs=1e-12)
    alone = NestedLogitLoss(8, 32, competing=0)
    assert alone.predictions(zero, zero, zero).item_label.item() == 1
    assert torch.isfinite(alone.gradient(zero, large, large)).all()


@pytest.mark.parametrize("labels", [8, 32])
def test_the_flow_follows_the_gradient_downhill(labels):
    loss = NestedLogitLoss(8, labels)
    times = torch.linspace(0, 400, 4001, dtype=torch.float64)
    path = loss.flow(times, start=(0.1, 0.1, 0.1))
    assert path[0].tolist() == pytest.approx([0.1, 0.1, 0.1])
    assert (loss(*path.T).diff() <= 1e-9).all()
    slope = (path[2:] - path[:-2]) / 0.2
    assert torch.allclose(slope, -loss.gradient(*path.T)[1:-1], atol=2e-3)
    later = loss.flow(times[2000:], start=(0.1, 0.1, 0.1))
    assert torch.allclose(later, path[2000:], atol=1e-6)


def test_from_the_origin_the_flow_leaves_only_with_more_labels_than_pairs():
    times = torch.tensor([0.0, 1000.0])
    assert (NestedLogitLoss(8, 8).flow(times) == 0).all()
    assert NestedLogitLoss(8, 32).flow(times)[-1, 2] > 1


# ---- in loops of one's own -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("minimal", [False, True])
def test_a_plain_loop_and_fabric_train_alike(minimal):
    from lightning_fabric import Fabric

    def train(setup):
        task = ItemLabelTask(GaussianItems(32, 7, generator=seeded()), 8, pairs=4, p_novel=1)
        vectors, generator = torch.randn(8, 7, generator=seeded(1)), seeded(2)
        model = (
            MinimalInductionHead(7, labels=8, width=16, generator=seeded(3))
            if minimal
            else AttentionOnlyClassifier(7, positions=9, labels=8, width=16, generator=seeded(3))
        )
        model, descent, backward = setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
        for _ in range(10):
            batch = task.train(32, generator)
            tokens = (
                interleave(batch.items, vectors[batch.labels])
                if minimal
                else encode(batch, vectors, positions=9, generator=generator)
            )
            loss = cross_entropy(model(tokens), batch.target)
            descent.zero_grad()
            backward(loss)
            descent.step()
        return loss.item()

    fabric = Fabric(accelerator="cpu", devices=1)
    plain = train(lambda model, descent: (model, descent, lambda loss: loss.backward()))
    assert plain == pytest.approx(train(lambda model, descent: (*fabric.setup(model, descent), fabric.backward)))


DISTRIBUTED = """
from etude.in_context import AttentionOnlyClassifier, MinimalInductionHead

draws = torch.Generator().manual_seed(4)
tokens, targets = torch.randn(8, 9, 16, generator=draws).double(), torch.randint(8, (8,), generator=draws)
models = [AttentionOnlyClassifier(7, positions=9, labels=8, generator=torch.Generator().manual_seed(3)),
          MinimalInductionHead(16, labels=8, generator=torch.Generator().manual_seed(3))]
weights = []
for own in models:
    model = wrapped(own.double())
    descent = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        loss = nn.functional.cross_entropy(model(tokens[rank::world]), targets[rank::world])
        descent.zero_grad()
        loss.backward()
        descent.step()
    weights += [parameter.detach() for parameter in own.parameters()]
"""


def test_two_processes_train_as_one_does_on_both_batches(tmp_path):
    save = f"""if rank == 0: torch.save(weights, {str(tmp_path / "together.pt")!r})"""
    run_distributed("\n".join(["wrapped = DistributedDataParallel", DISTRIBUTED, save]), tmp_path)
    alone = {"torch": torch, "nn": nn, "wrapped": lambda model: model, "rank": 0, "world": 1}
    exec(DISTRIBUTED, alone)
    together = torch.load(tmp_path / "together.pt", weights_only=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(alone["weights"], together))


# ---- bad arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: label_to_item(0), "pairs=0"),
        (lambda: AttentionOnlyClassifier(0, positions=4, labels=3), "content=0"),
        (lambda: AttentionOnlyClassifier(4, positions=-1, labels=3), "positions=-1"),
        (lambda: AttentionOnlyClassifier(4, positions=4, labels=1), "labels=1: give a number of at least 2"),
        (lambda: AttentionOnlyClassifier(4, positions=5, labels=3, heads=2), "heads=2"),
        (lambda: AttentionOnlyClassifier(4, positions=5, labels=3, layers=0), "layers=0"),
        (lambda: AttentionOnlyClassifier(4, positions=5, labels=3, width=0), "width=0"),
        (lambda: MinimalInductionHead(4, labels=1), "labels=1"),
        (lambda: MinimalInductionHead(4, labels=3, parameters=("beta3",)), "parameters=.*beta3"),
        (lambda: MinimalInductionHead(4, labels=3)(torch.zeros(2, 8, 4)), "contents of 8 tokens"),
        (lambda: NestedLogitLoss(1, 4), "pairs=1: give a number of at least 2"),
        (lambda: NestedLogitLoss(8, 7), "labels=7: give a number of at least 8"),
        (lambda: NestedLogitLoss(8, 8, competing=-1), "competing=-1"),
        (lambda: NestedLogitLoss(8, 8).flow(torch.tensor([1.0, 0.5])), "times"),
        (lambda: NestedLogitLoss(8, 8).flow(torch.tensor([-1.0, 0.5])), "times"),
        (lambda: induction_scores([torch.zeros(2, 1, 17, 17)], sequences(2)[0]), "maps of 1 layers"),
        (lambda: induction_scores([torch.zeros(2, 1, 9, 9)] * 2, sequences(2)[0]), "maps of 9 positions.* 17"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
