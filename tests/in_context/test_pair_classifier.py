"""The classifier reads what it should, from any sequence model, in any loop; bad arguments are named."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from etude.in_context import ExemplarItems, GaussianItems, ItemLabelTask, PairClassifier, interleave
from etude.nn import Recurrent, Transformer, convolutional
from tests.distributed import run_distributed


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def task(classes=12, dim=6):
    return ItemLabelTask(GaussianItems(classes, dim, generator=seeded(9)), pairs=4, shots=2, distinct="classes")


def bodies(width=8):
    options = {"positions": None, "generator": seeded(1)}
    return {
        "transformer": Transformer(width, 2, 2, **options),
        "lstm": Recurrent(width, 2, "lstm", generator=seeded(1)),
        "tanh": Recurrent(width, 1, "tanh", generator=seeded(1)),
        "own": nn.Sequential(nn.Linear(width, width), nn.Tanh()),
    }


class Whole(nn.Module):
    """A transformer that is not known to be one: it computes every position."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize("layout", ["interleaved", "joined"])
@pytest.mark.parametrize("body", bodies())
def test_logits_are_what_the_equation_says(body, layout):
    inside = bodies()[body]
    model = PairClassifier(
        nn.Linear(6, 8), inside, width=8, labels=12, pairs=5, layout=layout, scale=0.5, generator=seeded()
    )
    batch = task().train(7, seeded())
    items, labels = model.embed(batch.items), model.label_vectors.weight[batch.labels]
    if layout == "interleaved":
        tokens = interleave(items, labels)
    else:
        tokens = torch.cat([items[:, :-1] + labels, items[:, -1:]], 1)
    frequency = 30.0 ** -torch.linspace(0, 1, 4)
    angle = torch.arange(tokens.shape[1])[:, None] * frequency
    tokens = tokens + 0.5 * torch.cat([angle.sin(), angle.cos()], 1)
    expected = inside(tokens)[:, -1] @ model.read_out.weight.T + model.read_out.bias
    assert torch.allclose(model(batch.items, batch.labels), expected, atol=1e-5)


@pytest.mark.parametrize("layout", ["interleaved", "joined"])
def test_computing_the_last_position_alone_changes_nothing(layout):
    body = bodies()["transformer"]
    short, whole = (
        PairClassifier(nn.Linear(6, 8), inside, width=8, labels=12, layout=layout, generator=seeded())
        for inside in (body, Whole(body))
    )
    whole.load_state_dict({name.replace("body.", "body.body."): value for name, value in short.state_dict().items()})
    batch = task().train(9, seeded())
    assert torch.allclose(short(batch.items, batch.labels), whole(batch.items, batch.labels), atol=1e-6)


@pytest.mark.parametrize("layout", ["interleaved", "joined"])
def test_without_positions_the_order_of_pairs_says_nothing_only_where_they_are_joined(layout):
    body = bodies()["transformer"].double()
    model = PairClassifier(nn.Linear(6, 8), body, width=8, labels=12, layout=layout, generator=seeded()).double()
    model.places.zero_()
    body.blocks[0] = body.blocks[1]
    if len(body.blocks) == 2:
        body.blocks = body.blocks[:1]
    batch = task().train(5, seeded())
    order = torch.tensor([2, 0, 3, 1])
    items = torch.cat([batch.items[:, :-1][:, order], batch.items[:, -1:]], 1).double()
    moved = model(items, batch.labels[:, order])
    same = torch.allclose(moved, model(batch.items.double(), batch.labels), atol=1e-12)
    # One layer at the last position sums over what it sees, so no order matters; what belongs together is then told
    # by nothing but the joined token.
    assert same
    apart = model(batch.items.double(), batch.labels[:, order])
    assert torch.allclose(apart, moved, atol=1e-12) == (layout == "interleaved")


def test_images_are_embedded_one_by_one():
    drawings = torch.rand(12, 3, 1, 8, 8, generator=seeded())
    own = ItemLabelTask(ExemplarItems(drawings), pairs=4, shots=2, distinct="classes")
    embed = convolutional(1, 8, [(4,), (4,)], outputs=8, average=True, generator=seeded())
    model = PairClassifier(embed, bodies()["lstm"], width=8, labels=12, pairs=4, generator=seeded())
    batch = own.train(5, seeded())
    logits = model(batch.items, batch.labels)
    assert logits.shape == (5, 12)
    alone = model(batch.items[2:3], batch.labels[2:3])
    assert torch.allclose(alone[0], logits[2], atol=1e-6)


def test_the_same_generator_draws_the_same_weights_and_every_parameter_learns():
    one, two = (
        PairClassifier(nn.Linear(6, 8), bodies()["transformer"], width=8, labels=12, generator=seeded(3))
        for _ in range(2)
    )
    assert torch.equal(one.label_vectors.weight, two.label_vectors.weight)
    assert torch.equal(one.read_out.weight, two.read_out.weight)
    batch = task().train(5, seeded())
    cross_entropy(one(batch.items, batch.labels), batch.target).backward()
    assert all(parameter.grad is not None for parameter in one.parameters())


def test_a_plain_loop_and_fabric_train_alike():
    from lightning_fabric import Fabric

    def train(setup):
        generator, body = seeded(2), bodies()["transformer"]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            embed = nn.Linear(6, 8)
        model = PairClassifier(embed, body, width=8, labels=12, generator=seeded())
        model, descent, backward = setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
        own = task()
        for _ in range(10):
            batch = own.train(16, generator)
            loss = cross_entropy(model(batch.items, batch.labels), batch.target)
            descent.zero_grad()
            backward(loss)
            descent.step()
        return loss.item()

    fabric = Fabric(accelerator="cpu", devices=1)
    plain = train(lambda model, descent: (model, descent, lambda loss: loss.backward()))
    assert plain == pytest.approx(train(lambda model, descent: (*fabric.setup(model, descent), fabric.backward)))


def test_processes_keep_one_model(tmp_path):
    run_distributed(
        f"""
        from etude.in_context import GaussianItems, ItemLabelTask, PairClassifier
        from etude.nn import Transformer

        items = GaussianItems(12, 6, generator=torch.Generator().manual_seed(0))
        task = ItemLabelTask(items, pairs=4, shots=2, distinct="classes")
        generator = torch.Generator().manual_seed(10 + rank)
        torch.manual_seed(0)
        body = Transformer(8, 2, 2, positions=None)
        model = DistributedDataParallel(PairClassifier(nn.Linear(6, 8), body, width=8, labels=12))
        descent = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            batch = task.train(16, generator)
            loss = nn.functional.cross_entropy(model(batch.items, batch.labels), batch.target)
            descent.zero_grad()
            loss.backward()
            descent.step()
        torch.save([model.module.label_vectors.weight, batch.labels], {str(tmp_path)!r} + f"/{{rank}}.pt")
        """,
        tmp_path,
    )
    (weight, labels), (other, others) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(weight, other)
    assert not torch.equal(labels, others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": 0}, "labels=0"),
        ({"pairs": 0}, "pairs=0"),
        ({"width": 7}, "width=7: give an even"),
        ({"layout": "stacked"}, "layout='stacked': give 'interleaved' or 'joined'"),
        ({"scale": 0.0}, r"scale=0\.0"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        PairClassifier(nn.Identity(), nn.Identity(), **({"width": 8, "labels": 4} | options))


def test_sequences_that_do_not_fit_are_refused():
    model = PairClassifier(nn.Linear(6, 8), bodies()["own"], width=8, labels=12, pairs=3)
    batch = task().train(5, seeded())
    with pytest.raises(ValueError, match="items of 5 and labels of 4 places"):
        model(batch.items, batch.labels)
    with pytest.raises(ValueError, match="items of 3 and labels of 3 places"):
        model(batch.items[:, :3], batch.labels[:, :3])
