"""The report on prototypes beside loops over its definitions; the decoder that shows what one likes; bad input."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from etude.interpretability import (
    FaithfulnessReport,
    PostHocPrototypes,
    faithfulness_report,
    manipulate_decoder,
    nearest_image_distance,
)
from etude.nn import PrototypeClassifier, convolutional_autoencoder, squared_distances


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return PrototypeClassifier(nn.Linear(6, 5), nn.Linear(5, 6), 4, 3, code_shape=(5,)).double()


@pytest.fixture
def data():
    return draw(60, 6), torch.arange(60) % 3


def chunks(data, size):
    return list(zip(*(part.split(size) for part in data)))


@pytest.mark.parametrize("size", [7, 60])
def test_the_report_is_its_definitions(model, data, size):
    report = faithfulness_report(model, chunks(data, size), neighbours=5, pairs=20)
    x, y = data
    model.requires_grad_(False)
    codes, p, classes = model.encoder(x), model.prototypes, model.weight.argmin(1)
    d = squared_distances(codes, p)
    votes = [torch.bincount(y[d[:, j].argsort()[:5]], minlength=3).argmax().item() for j in range(4)]
    assert report.prototypes["vote"].tolist() == votes
    assert report.label_agreement == np.mean([votes[j] == classes[j] for j in range(4)])
    assert report.classes_covered == len(set(classes.tolist()))
    assert report.spread == pytest.approx(float(d.amin(1).mean() / codes.var(0, correction=0).sum()), abs=1e-9)
    shares = [(d.argmin(1) == j).double().mean().item() for j in range(4)]
    assert report.prototypes["share"].tolist() == pytest.approx(shares, abs=1e-6)
    entropy = -sum(s * math.log(s) for s in shares if s)
    assert report.effective_prototypes == pytest.approx(math.exp(entropy), rel=1e-5)
    predicted = model(x).logits.argmax(1)
    assert report.accuracy == pytest.approx((predicted == y).double().mean().item())
    assert report.nearest_decides == pytest.approx((classes[d.argmin(1)] == predicted).double().mean().item())
    between = torch.cdist(x, x).fill_diagonal_(math.inf)
    unit = between[:20].amin(1).median()
    realism = torch.cdist(model.decoder(p), x).amin(1) / unit
    assert report.prototypes["realism"].tolist() == pytest.approx(realism.tolist(), rel=1e-6)
    assert report.realism == pytest.approx(float(realism.mean()), rel=1e-6)
    assert report.mean_image == pytest.approx(float(torch.cdist(x.mean(0)[None], x).min() / unit), rel=1e-6)
    assert report.examples == 60


def test_a_report_is_printed_drawn_and_saved(model, data, tmp_path):
    report = faithfulness_report(model, [data])
    assert "label agreement" in repr(report)
    assert list(report.frame()) == ["class", "vote", "share", "realism"]
    report.save(tmp_path / "report.safetensors")
    saved = FaithfulnessReport.load(tmp_path / "report.safetensors")
    assert saved.numbers() == report.numbers()
    assert saved.frame().equals(report.frame())
    figure, axes = plt.subplots()
    report.plot(axes)
    assert len(axes.patches) == 4
    plt.close(figure)


def test_unused_prototypes_count_for_nothing(model, data):
    with torch.no_grad():
        model.prototypes[1:] = 1e3
    report = faithfulness_report(model, [data])
    assert report.effective_prototypes == pytest.approx(1)
    with torch.no_grad():
        model.prototypes[0] = model.encoder(data[0]).mean(0)
    assert faithfulness_report(model, [data]).spread == pytest.approx(1)


def test_without_a_decoder_there_is_no_realism(data):
    model = PrototypeClassifier(nn.Linear(6, 5), None, 4, 3, code_shape=(5,)).double()
    report = faithfulness_report(model, [data])
    assert math.isnan(report.realism)
    assert math.isnan(report.mean_image)


def test_images_are_at_distance_zero_from_themselves():
    x = draw(30, 1, 4, 4)
    assert torch.equal(nearest_image_distance(x[:3], x.split(11)), torch.zeros(3, dtype=torch.float64))
    distances = nearest_image_distance(x[:1] + 1, [x], pairs=7)
    unit = torch.cdist(x[:7].flatten(1), x.flatten(1)).fill_diagonal_(math.inf).amin(1).median()
    assert distances.item() == pytest.approx(((x[:1] + 1 - x).flatten(1).norm(dim=1).min() / unit).item(), rel=1e-6)


def test_prototypes_found_afterwards_are_the_centres_of_the_codes(data):
    torch.manual_seed(0)
    encoder, head = nn.Linear(6, 5).double(), nn.Linear(5, 3).double()
    made = PostHocPrototypes(encoder, head, chunks(data, 13), 4, code_shape=(5,))
    codes = encoder(data[0])
    owner = squared_distances(codes, made.prototypes).argmin(1)
    centres = torch.stack([codes[owner == j].mean(0) for j in range(4)])
    assert torch.allclose(made.prototypes, centres, atol=1e-6)
    assert torch.equal(made.prototype_classes(), head(made.prototypes).argmax(1))
    assert torch.equal(made(data[0]), head(codes))
    report = faithfulness_report(made, [data])
    assert report.spread < 1
    assert report.accuracy == pytest.approx((head(codes).argmax(1) == data[1]).double().mean().item())


def test_a_decoder_can_be_made_to_show_anything_while_nothing_is_decided_otherwise():
    generator = torch.Generator().manual_seed(0)
    encoder, decoder, code_shape = convolutional_autoencoder(maps=(8, 4), deviation=None, generator=generator)
    model = PrototypeClassifier(encoder, decoder, 4, 3, code_shape=code_shape, generator=generator)
    x = torch.rand(40, 1, 28, 28, generator=generator)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = manipulate_decoder(model, x[0], x, prototype=2, steps=20, batch=8, generator=generator)
    assert found.changed_predictions == found.changed_logits == 0
    figure, axes = plt.subplots()
    found.plot(axes)
    assert axes.images[0].get_array().shape == (28, 28)
    plt.close(figure)
    shown = found.decoder(model.prototypes[2].unflatten(0, code_shape)[None])[0]
    assert torch.allclose(shown, found.shown)
    assert found.error == pytest.approx(float(((shown - x[0]).square().sum() / x[0].square().sum()).detach()), rel=1e-5)
    with torch.no_grad():
        output = model(x)
    assert found.reconstruction[0] == pytest.approx(float((output.reconstruction - x).square().sum() / 40), rel=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert any(not torch.equal(a, b) for a, b in zip(found.decoder.parameters(), model.decoder.parameters()))
    assert "0 predictions and 0 logits changed" in repr(found)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m, x, y: faithfulness_report(m, [(x, y)], neighbours=0), "neighbours=0"),
        (lambda m, x, y: faithfulness_report(m, [(x, y)], pairs=0), "pairs=0"),
        (lambda m, x, y: faithfulness_report(m, [x]), "loader: it gives no labels"),
        (lambda m, x, y: faithfulness_report(m, [(x, y)], neighbours=61), "loader: it gives 60 examples"),
        (lambda m, x, y: nearest_image_distance(x, [x[:1]]), "loader: give at least two images"),
        (lambda m, x, y: nearest_image_distance(x, [x[:1]] * 2), "loader: give at least two images that differ"),
        (lambda m, x, y: nearest_image_distance(x, []), "loader: give at least two images"),
        (lambda m, x, y: PostHocPrototypes(m.encoder, m, [x], 0, code_shape=(5,)), "n_prototypes=0"),
        (lambda m, x, y: PostHocPrototypes(m.encoder, m, [x], 61, code_shape=(5,)), "loader: it gives 60 examples"),
        (lambda m, x, y: manipulate_decoder(m, x[0], x, prototype=4), "prototype=4: give a number from 0 to 3"),
        (lambda m, x, y: manipulate_decoder(m, x[0], x, steps=0), "steps=0"),
        (lambda m, x, y: manipulate_decoder(m, x[0], x, batch=0), "batch=0"),
        (lambda m, x, y: manipulate_decoder(m, x[:2], x), r"picture: shape \(2, 6\); the decoder shows \(6,\)"),
    ],
)
def test_bad_input_is_refused_by_name(model, data, make, message):
    with pytest.raises(ValueError, match=message):
        make(model, *data)


def test_no_decoder_no_manipulation(data):
    model = PrototypeClassifier(nn.Linear(6, 5), None, 4, 3, code_shape=(5,)).double()
    with pytest.raises(ValueError, match="model: it has no decoder"):
        manipulate_decoder(model, data[0][0], data[0])


def test_what_can_be_read_only_once_is_refused(model, data):
    with pytest.raises(TypeError, match="loader: an iterator"):
        faithfulness_report(model, iter([data]))
    with pytest.raises(TypeError, match="loader: an iterator"):
        nearest_image_distance(data[0], iter([data]))
