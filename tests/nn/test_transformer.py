"""The transformer: equal to torch's attention, the same with and without maps, blind to what it must not see."""

import pytest
import torch
from torch import nn

from etude.nn import Attention, Transformer, attention_mask, rotate, sinusoidal_positions

WIDTH, LENGTH = 16, 9


def inputs(batch=3, length=LENGTH, width=WIDTH, seed=0):
    return torch.randn(batch, length, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(**options):
    options = {"layers": 2, "heads": 2, "context": 12, "generator": torch.Generator().manual_seed(1)} | options
    model = Transformer(WIDTH, **options).double()
    with torch.no_grad():  # the small initial weights hardly attend to anything in particular
        for parameter in model.parameters():
            parameter.mul_(10 if parameter.ndim > 1 else 1)
    return model


VARIANTS = [
    {},
    {"positions": "rotary"},
    {"positions": "sinusoidal"},
    {"positions": None},
    {"hidden": 0, "norm": False, "bias": False, "scale": 1.0, "project": False, "heads": 1},
    {"visibility": "bidirectional"},
    {"visibility": "prefix"},
    {"layers": 1},
]


def prefix_of(options):
    return {"prefix": torch.tensor([2, 5, 9])} if options.get("visibility") == "prefix" else {}


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_maps_change_nothing_and_are_distributions(options):
    model, x = network(**options), inputs()
    more = prefix_of(options)
    hidden, maps = model(x, maps=True, **more)
    assert torch.allclose(hidden, model(x, **more), atol=1e-12)
    assert len(maps) == options.get("layers", 2)
    for weights in maps:
        assert weights.shape == (3, options.get("heads", 2), LENGTH, LENGTH)
        assert torch.allclose(weights.sum(-1), torch.ones((), dtype=torch.float64))
        mask = attention_mask(options.get("visibility", "causal"), LENGTH, **more)
        if mask is not None:
            assert (weights.masked_select(~mask.expand_as(weights)) == 0).all()


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("last", [None, 1, 4])
def test_an_edit_changes_the_scores_of_its_layer(options, last):
    model, x = network(**options), inputs()
    more = prefix_of(options) | {"last": last}
    final = options.get("layers", 2) - 1
    plain = model(x, **more)
    assert torch.allclose(model(x, edit={final: lambda scores: scores}, **more), plain, atol=1e-12)
    even = {final: lambda scores: scores.where(scores == -torch.inf, 0)}
    hidden, maps = model(x, maps=True, edit=even, **more)
    assert torch.allclose(model(x, edit=even, **more), hidden, atol=1e-12)
    assert not torch.allclose(hidden, plain)
    seen = (maps[final] > 0).double()
    assert torch.allclose(maps[final], seen / seen.sum(-1, keepdim=True))
    for weights, untouched in zip(maps[:final], model(x, maps=True, **more)[1]):
        assert torch.equal(weights, untouched)
    with pytest.raises(ValueError, match="edit of layers"):
        model(x, edit={final + 1: lambda scores: scores})


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("last", [1, 4, LENGTH])
@pytest.mark.parametrize("maps", [False, True])
def test_the_last_positions_alone_are_those_of_the_whole(options, last, maps):
    model, x = network(**options), inputs()
    more = prefix_of(options)
    whole, part = model(x, **more), model(x, last=last, maps=maps, **more)
    if maps:
        part, found = part
        assert found[-1].shape[-2:] == (last, LENGTH)
        assert torch.allclose(found[-1], model(x, maps=True, **more)[1][-1][:, :, -last:], atol=1e-12)
    assert torch.allclose(part, whole[:, -last:], atol=1e-12)


def sees(model, x, **more):
    """Which input position each output position depends on."""
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x, **more)[0, :, 0], x)[:, 0]
    return jacobian.abs().sum(-1) > 1e-12


def test_causal_networks_see_the_past_alone():
    assert torch.equal(sees(network(), inputs(1)), torch.ones(LENGTH, LENGTH).tril().bool())


def test_bidirectional_networks_see_everything():
    assert sees(network(visibility="bidirectional"), inputs(1)).all()


@pytest.mark.parametrize("prefix", [4, torch.tensor([4])])
def test_a_prefix_sees_itself_and_no_more(prefix):
    expected = torch.ones(LENGTH, LENGTH).tril().bool()
    expected[:4, :4] = True
    assert torch.equal(sees(network(visibility="prefix"), inputs(1), prefix=prefix), expected)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_torchs(causal):
    ours, x = Attention(WIDTH, 4).double(), inputs()
    theirs = nn.MultiheadAttention(WIDTH, 4, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.project.weight,
            "out_proj.bias": ours.project.bias,
        }
    )
    mask = attention_mask("causal", LENGTH) if causal else None
    expected, weights = theirs(x, x, x, attn_mask=None if mask is None else ~mask, average_attn_weights=False)
    assert torch.allclose(ours(x, mask, causal=causal)[0], expected, atol=1e-12)
    assert torch.allclose(ours(x, mask, maps=True)[1], weights, atol=1e-12)


def test_rotation_keeps_lengths_and_depends_on_distance_alone():
    q, k = inputs(1, 1), inputs(1, 1, seed=2)
    assert torch.allclose(rotate(q, start=5).norm(), q.norm())
    assert torch.equal(rotate(q), q)
    products = [(rotate(q, start=p) * rotate(k, start=p + 3)).sum() for p in (0, 4, 100)]
    assert torch.allclose(products[0], products[1])
    assert torch.allclose(products[0], products[2], atol=1e-4)  # angles are computed in single precision
    assert not torch.allclose(products[0], (rotate(q) * rotate(k, start=4)).sum())


def test_rotary_networks_do_not_know_where_a_sequence_starts():
    model, x = network(positions="rotary", context=None, visibility="bidirectional"), inputs(1)
    shifted = [rotate(x, start=start) @ rotate(x, start=start).transpose(-1, -2) for start in (0, 7)]
    assert torch.allclose(*shifted, atol=1e-5)
    assert model(x).shape == x.shape


def test_sinusoidal_positions_are_sines_then_cosines():
    table = sinusoidal_positions(50, 8, longest=30)
    place = torch.arange(50.0)
    assert torch.allclose(table[:, 0], place.sin())
    assert torch.allclose(table[:, 4], place.cos())
    assert torch.allclose(table[:, 3], (place / 30).sin(), atol=1e-6)
    assert torch.allclose(table.square().sum(1), torch.tensor(4.0))


def test_positions_matter_only_where_they_are_given():
    order = torch.tensor([2, 0, 1, 3, 4, 5, 6, 7, 8])
    blind, sighted, x = network(positions=None, layers=1), network(layers=1), inputs()
    assert torch.allclose(blind(x)[:, -1], blind(x[:, order])[:, -1])
    assert not torch.allclose(sighted(x)[:, -1], sighted(x[:, order])[:, -1])


def test_initial_weights_come_from_the_generator():
    one, same, other = (Transformer(8, 1, context=3, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, same.get_parameter(name))
        if parameter.ndim > 1:
            assert not torch.equal(parameter, other.get_parameter(name))
    writers = Transformer(64, 8, context=3, generator=torch.Generator().manual_seed(0)).blocks[3].down.weight
    assert writers.std().item() == pytest.approx(0.02 / 4, rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_any_dtype(dtype):
    model = Transformer(8, 2, heads=2, positions="rotary").to(dtype)
    hidden, maps = model(torch.ones(2, 5, 8, dtype=dtype), maps=True)
    assert hidden.dtype == maps[0].dtype == dtype


def test_dropout_acts_in_training_only():
    model, x = network(dropout=0.5), inputs()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Transformer(8, 1, heads=3, context=4), "heads=3"),
        (lambda: Transformer(6, 1, heads=2, positions="rotary"), "rotary positions need an even width"),
        (lambda: Transformer(8, 0, context=4), "layers=0"),
        (lambda: Transformer(8, 1), "context=None"),
        (lambda: Transformer(8, 1, context=0), "context=0"),
        (lambda: Transformer(8, 1, context=4, dropout=1.0), "dropout=1.0"),
        (lambda: Transformer(8, 1, context=4, visibility="past"), "visibility='past'"),
        (lambda: Transformer(8, 1, positions="absolute"), "positions='absolute'"),
        (lambda: Transformer(7, 1, positions="sinusoidal", context=4), "width=7"),
        (lambda: Transformer(8, 1, context=4)(torch.ones(1, 5, 8)), "x has 5 positions"),
        (lambda: Transformer(8, 1, context=4)(torch.ones(1, 3, 8), last=4), "last=4"),
        (lambda: Transformer(8, 1, context=4)(torch.ones(1, 3, 8), prefix=1), "prefix=1"),
        (lambda: Transformer(8, 1, context=4, visibility="prefix")(torch.ones(1, 3, 8)), "prefix=None"),
    ],
)
def test_bad_arguments_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()
