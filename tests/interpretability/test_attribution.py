"""Gradients against differences, rankings and masks against brute force, and DiffROAR where its value is known."""

import copy
import weakref
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from etude.interpretability import (
    UnmaskedLoader,
    attribute,
    diffroar,
    diffroar_intervals,
    from_captum,
    input_gradient,
    kept_entries,
    leakage,
    pointing_accuracy,
    predictive_power,
    rank_features,
    unmask,
)
from tests.distributed import run_distributed


class UsersModel(nn.Module):
    """A convolution, batch normalisation and dropout, and a forward pass of her own."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        return self.out(self.drop(torch.tanh(self.norm(self.conv(x)))).flatten(1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return UsersModel()


def batch(n=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, 4, 4, generator=generator), torch.randint(3, (n,), generator=generator)


# ---- attributions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["logit", "loss", "probability"])
def test_gradients_are_central_differences(model, of):
    model, (x, y) = model.double(), batch()
    x = x.double()
    found = input_gradient(model, x, y, of=of, absolute=False)
    model.eval()

    def value(x):
        logits = model(x)
        if of == "loss":
            return nn.functional.cross_entropy(logits, y, reduction="none")
        return (logits if of == "logit" else logits.softmax(1)).gather(1, y[:, None])[:, 0]

    for place in range(x[0].numel()):
        step = torch.zeros(x[0].numel(), dtype=torch.float64)
        step[place] = 1e-5
        with torch.no_grad():
            difference = (value(x + step.view(2, 4, 4)) - value(x - step.view(2, 4, 4))) / 2e-5
        assert torch.allclose(found.flatten(1)[:, place], difference, rtol=1e-6, atol=1e-9)
    assert torch.equal(input_gradient(model, x, y, of=of), found.abs())


def test_a_linear_models_gradient_is_its_weights():
    model, (x, y) = nn.Sequential(nn.Flatten(), nn.Linear(32, 3)), batch()
    assert torch.equal(input_gradient(model, x, y, absolute=False), model[1].weight[y].view_as(x))


def test_two_opposite_logits_rank_alike_and_three_classes_need_not(model):
    x, y = batch()
    score = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.Tanh(), nn.Linear(8, 2))
    with torch.no_grad():
        score[3].weight[1], score[3].bias[1] = -score[3].weight[0], -score[3].bias[0]
    orders = {
        of: input_gradient(score.double(), x.double(), y % 2, of=of).flatten(1).argsort(1)
        for of in ("logit", "loss", "probability")
    }
    assert torch.equal(orders["logit"], orders["loss"])
    assert torch.equal(orders["logit"], orders["probability"])
    three = {of: input_gradient(model, x, y, of=of).flatten(1).argsort(1) for of in ("logit", "loss")}
    assert not torch.equal(three["logit"], three["loss"])


def test_the_model_is_left_as_it_was(model):
    x, y = batch()
    model.drop.eval()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        one = input_gradient(model, x, y)
    assert torch.equal(one, input_gradient(model, x, y))
    assert model.training
    assert not model.drop.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_many_inputs_a_chunk_at_a_time_and_the_predicted_class(model):
    x, y = batch(50)
    assert torch.allclose(attribute(model, x, y, chunk=7), input_gradient(model, x, y), atol=1e-6)
    predicted = model.eval()(x).argmax(1)
    found = attribute(model, x, method=partial(input_gradient, of="loss"))
    assert torch.equal(found, input_gradient(model, x, predicted, of="loss"))


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.parametrize("name", ["Saliency", "InputXGradient", "IntegratedGradients"])
def test_captums_methods_plug_in(model, name):
    captum = pytest.importorskip("captum.attr")
    x, y = batch()
    found = attribute(model, x, y, method=from_captum(getattr(captum, name)))
    gradient = input_gradient(model, x, y, absolute=False)
    assert found.shape == x.shape
    if name == "Saliency":
        assert torch.allclose(found, gradient.abs(), atol=1e-6)
    if name == "InputXGradient":
        assert torch.allclose(found, x * gradient, atol=1e-6)
    if name == "IntegratedGradients":  # completeness: they sum to the difference from the baseline
        model.eval()
        with torch.no_grad():
            change = (model(x) - model(torch.zeros_like(x))).gather(1, y[:, None])[:, 0]
        assert torch.allclose(found.flatten(1).sum(1).float(), change, atol=0.01)


def test_a_model_under_fabric_gives_the_same(model):
    fabric = pytest.importorskip("lightning_fabric").Fabric(accelerator="cpu", devices=1)
    x, y = batch()
    expected = attribute(model, x, y)
    assert torch.allclose(attribute(fabric.setup_module(model), x, y), expected)


def test_a_model_under_distributed_data_parallel_gives_the_same(tmp_path):
    body = """
    from etude.interpretability import attribute

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = torch.rand(2, 10, 6), torch.randint(3, (2, 10))
    wrapped = DistributedDataParallel(model)
    for _ in range(2):  # between steps of a training
        found = attribute(wrapped, x[rank], y[rank])
        assert torch.equal(found, attribute(model, x[rank], y[rank]))
        nn.functional.cross_entropy(wrapped(x[rank]), y[rank]).backward()
    """
    run_distributed(body, tmp_path)


# ---- ranking and masking -------------------------------------------------------------------------------------------


def test_rankings_are_by_magnitude():
    values = torch.tensor([[0.1, -3.0, 2.0, 0.0], [-1.0, 0.5, 0.25, 4.0]])
    assert rank_features(values).tolist() == [[1, 2, 0, 3], [3, 0, 1, 2]]


def test_pixels_are_ranked_by_the_sum_over_channels():
    values = torch.tensor([[[[1.0, -2.0]], [[2.5, 1.0]]]])  # pixels 3.5 and 3
    assert rank_features(values, "pixel").tolist() == [[0, 1]]
    assert rank_features(values)[0, :2].tolist() == [2, 1]


def test_ties_are_broken_by_the_generator_and_evenly():
    values = torch.zeros(3000, 4)
    values[:, 2] = 1
    ranking = rank_features(values, generator=torch.Generator().manual_seed(0))
    assert (ranking[:, 0] == 2).all()
    assert (ranking.sort(1).values == torch.arange(4)).all()
    for place in (0, 1, 3):
        assert abs((ranking[:, 1] == place).float().mean() - 1 / 3) < 0.05
    assert torch.equal(ranking, rank_features(values, generator=torch.Generator().manual_seed(0)))
    assert not torch.equal(ranking, rank_features(values, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("reduce", ["entry", "pixel"])
@pytest.mark.parametrize("keep", ["top", "bottom"])
@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.5, 1.0])
def test_masks_are_those_of_a_loop(reduce, keep, fraction):
    x, _ = batch()
    values = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    found = unmask(x, rank_features(values, reduce), fraction, keep, fill=9.0)
    for image, size, result in zip(x, values.abs(), found):
        size = (size.sum(0) if reduce == "pixel" else size).flatten()
        count = max(1, round(fraction * len(size)))
        chosen = set(sorted(range(len(size)), key=lambda i: size[i], reverse=keep == "top")[:count])
        for place, (before, after) in enumerate(zip(image.flatten(), result.flatten())):
            kept = (place % len(size)) in chosen
            assert after == (before if kept else 9.0)


def test_top_and_bottom_are_disjoint_halves_and_a_reversed_ranking_swaps_them():
    x, _ = batch()
    ranking = rank_features(torch.randn(x.shape))
    top, bottom = (kept_entries(ranking, 0.5, keep, x.shape[1:]) for keep in ("top", "bottom"))
    assert torch.equal(top, ~bottom)
    assert torch.equal(
        kept_entries(ranking.flip(1), 0.3, "top", (2, 4, 4)), kept_entries(ranking, 0.3, "bottom", (2, 4, 4))
    )


def test_the_fill_may_be_an_image():
    x, _ = batch()
    mean = x.mean(0)
    found = unmask(x, rank_features(x), 0.25, fill=mean)
    kept = found == x
    assert torch.equal(found, torch.where(kept, x, mean))


# ---- retraining ----------------------------------------------------------------------------------------------------


def one_of_many(n, seed, d=12):
    """x = y e_j: one coordinate tells the label."""
    generator = torch.Generator().manual_seed(seed)
    y, place = (torch.randint(high, (n,), generator=generator) for high in (2, d))
    return nn.functional.one_hot(place, d).float() * (2 * y - 1)[:, None], y


def make_model(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(12, 2)


def fit(model, x, y, seed):
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def test_predictive_power_is_the_accuracy_of_fresh_models():
    train, test = one_of_many(200, 0), one_of_many(100, 1)
    assert predictive_power(make_model, fit, train, test, range(3)).tolist() == [1, 1, 1]
    blank = [(torch.zeros_like(x), y) for x, y in (train, test)]
    share = max((test[1] == k).float().mean() for k in (0, 1)).item()
    assert all(
        min(abs(p - share), abs(p - 1 + share)) < 1e-6 for p in predictive_power(make_model, fit, *blank, [0, 1])
    )


def test_the_best_and_the_worst_ranking_of_a_task_with_known_features():
    train, test = one_of_many(200, 0), one_of_many(100, 1)
    best = (train[0].abs(), test[0].abs())
    worst = (-best[0] + 1, -best[1] + 1)
    table = diffroar(
        {"best": best, "worst": worst},
        train,
        test,
        fractions=[1 / 12, 0.5],
        make_model=make_model,
        fit=fit,
        seeds=[0, 1],
    )
    assert len(table) == 2 * 2 * 2 * 2
    assert (table.query("method == 'best' and side == 'top'").accuracy == 1).all()
    assert (table.query("method == 'best' and side == 'bottom'").accuracy < 0.7).all()
    found = diffroar_intervals(table).set_index(["method", "fraction"])["diffroar"]
    for fraction in (1 / 12, 0.5):
        assert found["best", fraction] == -found["worst", fraction] > 0.3


def test_a_reversed_ranking_has_the_opposite_sign_to_machine_precision():
    """In two calls, so that no retraining is shared."""
    train, test = one_of_many(100, 0), one_of_many(60, 1)
    values = [torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).abs() for x, _ in (train, test)]
    options = {"fractions": [0.25], "make_model": make_model, "fit": fit, "seeds": [4]}
    one = diffroar({"a": tuple(values)}, train, test, **options)
    two = diffroar({"a": tuple(1 / v for v in values)}, train, test, **options)
    assert diffroar_intervals(one).diffroar[0] == -diffroar_intervals(two).diffroar[0]


def test_retrainings_are_shared_where_masks_are_the_same():
    trained = []

    def counted(model, x, y, seed):
        trained.append(x)

    train, test = one_of_many(30, 0), one_of_many(20, 1)
    values = [torch.rand(x.shape) + 0.1 for x, _ in (train, test)]
    methods = {"a": tuple(values), "reversed": tuple(1 / v for v in values), "scaled": tuple(3 * v for v in values)}
    options = {"make_model": make_model, "fit": counted, "seeds": [0]}
    table = diffroar(methods, train, test, fractions=[0.25, 1.0], **options)
    assert len(table) == 12
    assert len(trained) == 3  # top, bottom, everything
    full = table[table.fraction == 1]
    assert full.accuracy.nunique() == 1
    trained.clear()
    table = diffroar(methods, train, test, fractions=[0.25], masks_alone=True, **options)
    assert len(trained) == 4
    assert set(table.input) == {"image", "mask"}
    assert set(trained[1].unique().tolist()) == {0, 1}
    assert (trained[1].sum(1) == 3).all()


def test_a_label_hidden_in_the_mask_is_found_by_training_on_masks_alone():
    """Images of noise; an attribution that points left for one class and right for the other."""
    generator = torch.Generator().manual_seed(0)
    parts = [(torch.randn(n, 12, generator=generator), torch.randint(2, (n,), generator=generator)) for n in (200, 100)]
    left = (torch.arange(12) < 6).float()
    values = tuple(torch.where(y[:, None] == 0, left, 1 - left) + 0.01 for _, y in parts)
    table = diffroar(
        {"telling": values}, *parts, fractions=[0.5], make_model=make_model, fit=fit, seeds=[0], masks_alone=True
    )
    assert (table[table.input == "mask"].accuracy == 1).all()


def test_intervals_are_students_of_paired_differences():
    top, bottom = np.array([0.8, 0.9, 0.7, 0.85]), np.array([0.6, 0.65, 0.6, 0.5])
    rows = [
        ("m", 0.1, side, "image", seed, a)
        for side, values in (("top", top), ("bottom", bottom))
        for seed, a in enumerate(values)
    ]
    table = pd.DataFrame(rows, columns=["method", "fraction", "side", "input", "seed", "accuracy"])
    found = diffroar_intervals(table, alpha=0.1).iloc[0]
    difference = top - bottom
    half = 2.353363 * difference.std(ddof=1) / 2  # t(0.95; 3)
    assert found.diffroar == pytest.approx(difference.mean())
    assert found.low == pytest.approx(difference.mean() - half, abs=1e-6)
    assert found.high == pytest.approx(difference.mean() + half, abs=1e-6)
    assert found.seeds == 4
    alone = diffroar_intervals(table[table.seed == 0]).iloc[0]
    assert np.isnan(alone.low)
    with pytest.raises(ValueError, match="lacks its top or its bottom"):
        diffroar_intervals(table.iloc[1:])
    with pytest.raises(ValueError, match="two rows of one side"):
        diffroar_intervals(pd.concat([table, table]))
    with pytest.raises(ValueError, match=r"alpha=1\.5"):
        diffroar_intervals(table, alpha=1.5)


# ---- known relevant places -----------------------------------------------------------------------------------------


def test_leakage_and_pointing():
    values = torch.tensor([[1.0, -3.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.5]])
    relevant = torch.tensor([[True, True, False, False], [True, False, False, True]])
    assert leakage(values, relevant).tolist() == pytest.approx([0, 2 / 3.5])
    assert pointing_accuracy(values, relevant).tolist() == pytest.approx([1, 1 / 3])
    assert pointing_accuracy(values, relevant, at="smallest").tolist() == pytest.approx([0, 1])


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_bad_attributions_are_refused(model):
    x, y = batch()
    for change, error, message in [
        ({"of": "score"}, ValueError, "of='score'"),
        ({"target": y + 3}, ValueError, "target: classes .* 0 to 2 are accepted"),
        ({"target": y - 3}, ValueError, "target: classes"),
        ({"target": y[:3]}, ValueError, "target: "),
        ({"x": x.long()}, TypeError, "x: a tensor of torch.int64"),
        ({"model": nn.Conv2d(2, 3, 3)}, ValueError, "model: outputs of shape"),
    ]:
        with pytest.raises(error, match=message):
            input_gradient(**{"model": model, "x": x, "target": y, **change})

    class Steps(nn.Module):
        def forward(self, x):
            return (x > 0).float().flatten(1)

    with pytest.raises(ValueError, match="model: its output is not differentiable"):
        input_gradient(Steps(), x, y)
    for method, message in [
        (lambda model, x, target: x.sum(1), r"method: an attribution of shape \(7, 4, 4\)"),
        (lambda model, x, target: x / 0, "method: an attribution is not finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            attribute(model, x, y, method=method)
    with pytest.raises(ValueError, match="chunk=0"):
        attribute(model, x, y, chunk=0)
    with pytest.raises(ValueError, match="target: 3 classes for 7 inputs"):
        attribute(model, x, y[:3])
    with pytest.raises(ValueError, match="target: classes"):
        attribute(model, x, y + 1)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan"), True])
def test_a_fraction_outside_its_range_is_refused(fraction):
    x, _ = batch()
    with pytest.raises(ValueError, match="fraction="):
        unmask(x, rank_features(x), fraction)


def test_bad_masks_are_refused():
    x, _ = batch()
    ranking = rank_features(x)
    for change, message in [
        ({"keep": "middle"}, "keep='middle'"),
        ({"fill": float("nan")}, "fill: it is not finite"),
        ({"fill": torch.zeros(3)}, r"fill: shape \(3,\)"),
        ({"ranking": ranking[:3]}, "ranking: 3 rows for 7 inputs"),
        ({"ranking": ranking[:, :5]}, "ranking: 5 places"),
    ]:
        with pytest.raises(ValueError, match=message):
            unmask(**{"x": x, "ranking": ranking, "fraction": 0.5, **change})
    with pytest.raises(ValueError, match="reduce='row'"):
        rank_features(x, "row")
    with pytest.raises(ValueError, match="has no channels"):
        rank_features(x.flatten(1), "pixel")
    with pytest.raises(ValueError, match=r"attribution: .*not finite"):
        rank_features(x / 0)
    mask = torch.ones(x.shape, dtype=torch.bool)
    with pytest.raises(ValueError, match="attribution: that of input 1 is zero everywhere"):
        leakage(x * (torch.arange(7) != 1)[:, None, None, None], mask)
    with pytest.raises(ValueError, match="relevant: shape"):
        pointing_accuracy(x, mask[:, :1])
    with pytest.raises(ValueError, match="at='middle'"):
        pointing_accuracy(x, mask, at="middle")


def test_a_model_that_is_handed_out_twice_is_refused():
    train, test = one_of_many(30, 0), one_of_many(20, 1)
    once = nn.Linear(12, 2)
    for make in (lambda seed: once, lambda seed: nn.Sequential(nn.Identity(), once)):
        with pytest.raises(ValueError, match=r"make_model: for seed 1 it hands out a network, or a layer, .*before"):
            predictive_power(make, fit, train, test, [0, 1])
    values = (train[0].abs(), test[0].abs())
    with pytest.raises(ValueError, match="make_model: for seed 0"):
        diffroar({"a": values}, train, test, fractions=[0.5], make_model=lambda s: once, fit=fit, seeds=[0])


def test_bad_evaluations_are_refused_before_anything_is_trained():
    def never(model, x, y, seed):
        raise AssertionError("trained")

    train, test = one_of_many(30, 0), one_of_many(20, 1)
    values = (train[0].abs(), test[0].abs())
    good = {"attributions": {"a": values}, "train": train, "test": test, "fractions": [0.5]}
    good |= {"make_model": make_model, "fit": never, "seeds": [0]}
    for change, message in [
        ({"attributions": {}}, "attributions: "),
        ({"attributions": {"a": (values[0], values[0])}}, r"attributions\['a'\]: .* for test inputs"),
        ({"fractions": [0.5, 0.0]}, "fractions: 0.0"),
        ({"fractions": [0.5, 0.5]}, "fractions: .*twice"),
        ({"seeds": []}, "seeds: "),
        ({"fill": float("inf")}, "fill: "),
        ({"test": (test[0], test[1][:3])}, "test: 20 inputs and 3 labels"),
        ({"attributions": {"a": values, "b": (values[0] / 0, values[1])}}, r"attributions.'b'.: .*train.* not finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            diffroar(**{**good, **change})
    with pytest.raises(ValueError, match="seeds: none"):
        predictive_power(make_model, never, train, test, [])


# ---- loaders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["top", "bottom"])
def test_a_loader_is_masked_as_its_tensors_are(model, keep):
    x, y = batch(23)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=5)
    masked = UnmaskedLoader(loader, model, 0.25, keep, fill=-1.0)
    whole = unmask(x, rank_features(attribute(model, x)), 0.25, keep, fill=-1.0)
    assert len(masked) == 5
    assert model.training
    for _ in range(2):
        parts, labels = zip(*masked)
        assert torch.equal(torch.cat(parts), whole)
        assert torch.equal(torch.cat(labels), y)


def test_a_masked_loader_holds_one_batch_at_a_time(model):
    alive = []

    def endless():
        while True:
            x, y = batch(3)
            alive.append(weakref.ref(x))
            yield x, y

    for count, _ in enumerate(UnmaskedLoader(endless(), model, 0.5)):
        assert sum(ref() is not None for ref in alive) <= 2
        if count == 20:
            break


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"loader": torch.zeros(3, 2)}, TypeError, "loader: a Tensor"),
        ({"loader": [torch.zeros(3, 2, 4, 4)]}, TypeError, r"pairs \(inputs, labels\)"),
        ({"fraction": 0.0}, ValueError, "fraction=0.0"),
        ({"keep": "middle"}, ValueError, "keep='middle'"),
        ({"reduce": "row"}, ValueError, "reduce='row'"),
    ],
)
def test_a_masked_loader_names_what_it_does_not_take(model, arguments, error, message):
    given = {"loader": [batch()], "model": model, "fraction": 0.5} | arguments
    with pytest.raises(error, match=message):
        list(UnmaskedLoader(**given))


def test_what_is_no_module_is_named():
    x, y = batch()
    with pytest.raises(TypeError, match="model: a function was given"):
        input_gradient(batch, x, y)
    with pytest.raises(TypeError, match="model: a function was given"):
        attribute(batch, x)
