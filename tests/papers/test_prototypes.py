"""The study at smoke: every claim is judged, figures show what they say, and networks of a seed differ in one thing."""

import matplotlib.pyplot as plt
import pytest
import torch

from etude.interpretability import PostHocPrototypes
from etude.nn import Explanation, PrototypeClassifier
from etude.papers.prototypes import CONDITIONS, ROWS, Plain, Protocol, Terms, fit, network, objective, pictures, study
from etude.study.lab import Lab
from study_at_smoke import judged, legend_of, untested

SMOKE = study.presets["smoke"]


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    return study.run("smoke", engine="inline", store=tmp_path_factory.mktemp("store"), progress=False)


class Nothing:
    """What a trial is connected to, with nobody at the other end."""

    def progress(self, label, done, total):
        pass


def lab(seed=0):
    return Lab(seed, cell={}, device="cpu", exchange=Nothing())


def test_every_claim_is_judged_without_an_error(evidence):
    verdicts = judged(study, evidence)
    assert not untested(verdicts)
    assert verdicts["explanation-is-the-computation"].status == "holds"
    assert verdicts["gradients"].status == "holds"


def test_no_decoder_changes_a_decision(evidence):
    rows = evidence["learn"].at(condition="full")
    assert (rows["changed_logits"] == 0).all()
    assert (rows["changed_predictions"] == 0).all()


FIGURES = {draw.__name__: draw for draw in study.figures}


@pytest.mark.parametrize(("name", "entries"), [("what_the_terms_do", 6), ("accuracy_by_condition", 2)])
def test_figures_are_drawn_and_labelled(evidence, name, entries):
    assert len(legend_of(FIGURES[name], evidence)) == entries


def test_pictures_are_shown(evidence):
    figure, (mosaic, explanation) = plt.subplots(2)
    FIGURES["decoded_prototypes"](evidence, mosaic)
    FIGURES["one_explanation"](evidence, explanation)
    figure.canvas.draw()
    assert mosaic.images[0].get_array().shape == (30 * len(ROWS), 30 * SMOKE.prototypes)
    assert [label.get_text() for label in mosaic.get_yticklabels()] == [label for _, _, label in ROWS]
    assert len(explanation.child_axes) == 4
    plt.close(figure)


def test_saved_explanations_are_those_of_the_network(evidence):
    saved = Explanation(**evidence.saved("learn", "explanation", condition="full", seed=1))
    assert torch.allclose(saved.contributions.sum(1), saved.logits, rtol=1e-4, atol=1e-4)
    assert saved.inputs.shape == (1, 1, 28, 28)
    assert saved.pictures.shape == (SMOKE.prototypes, 1, 28, 28)


def test_networks_of_a_seed_start_from_the_same_filters():
    made = {name: network(lab(), SMOKE, name, 10) for name in CONDITIONS}
    first = dict(made["full"].encoder.named_parameters())
    for name, model in made.items():
        assert all(torch.equal(value, first[key]) for key, value in model.encoder.named_parameters()), name
        assert isinstance(model, PrototypeClassifier if CONDITIONS[name].prototypes else Plain)
        assert (model.decoder is None) == (name == "plain")
    other = network(lab(1), SMOKE, "full", 10)
    assert not torch.equal(other.encoder[0].weight, first["0.weight"])
    assert torch.equal(made["plain"].head.weight, made["plain with autoencoder"].head.weight)


def test_an_objective_without_a_term_ignores_it():
    x, y = torch.rand(8, 1, 28, 28), torch.arange(8)
    model = network(lab(), SMOKE, "full", 10)
    output = model(x)
    r1, r2 = output.squared_distances.amin(0).mean(), output.squared_distances.amin(1).mean()
    loss = {name: objective(model, terms, x, y).item() for name, terms in CONDITIONS.items() if terms.prototypes}
    assert loss["full"] - loss["no R1"] == pytest.approx(r1.item(), abs=1e-3)
    assert loss["full"] - loss["no R2"] == pytest.approx(r2.item(), abs=1e-3)
    assert loss["full"] - loss["no R1, no R2"] == pytest.approx((r1 + r2).item(), abs=1e-3)
    plain, both = (network(lab(), SMOKE, name, 10) for name in ("plain", "plain with autoencoder"))
    with_error, without = objective(both, Terms(False, 1.0), x, y), objective(plain, Terms(False, 0.0), x, y)
    error = (both.decoder(both.encoder(x)) - x).square().sum() / 8
    assert (with_error - without).item() == pytest.approx(error.item(), rel=1e-4)


def test_a_network_ends_with_the_weights_of_its_best_epoch():
    config = SMOKE.model_copy(update={"train": 200, "epochs": 3, "learning_rate": 0.01, "decay": False})
    data, model = pictures(config), network(lab(), config, "full", 10)
    epoch, accuracy = fit(lab(), config, model, CONDITIONS["full"], data)
    x, y = data.validation.x, data.validation.y
    assert (model(x).logits.argmax(1) == y).double().mean().item() == pytest.approx(accuracy)
    shorter = config.model_copy(update={"epochs": epoch})
    again = network(lab(), shorter, "full", 10)
    assert fit(lab(), shorter, again, CONDITIONS["full"], data) == (epoch, accuracy)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))


def test_the_baseline_is_explained_afterwards_with_its_own_logits():
    model, x = network(lab(), SMOKE, "plain", 10), torch.rand(40, 1, 28, 28)
    made = PostHocPrototypes(model.encoder, model.head, [x], 10, code_shape=(10, 2, 2))
    assert torch.equal(made(x), model.classify(model.encode(x)))


def test_presets_measure_what_the_claims_ask_for():
    assert {"smoke", "laptop", "extended", "paper"} <= study.presets.keys()
    laptop, paper = study.presets["laptop"], study.presets["paper"]
    assert laptop.prototypes == paper.prototypes == 15
    assert laptop.seeds >= 5
    assert (paper.data, paper.epochs, paper.batch, paper.deviation, paper.learning_rate) == (
        "mnist",
        1500,
        250,
        0.01,
        2e-3,
    )


def test_the_papers_configuration_runs_small(tmp_path):
    small = {"data": "digits", "train": 300, "validation": 50, "test": 60, "epochs": 1, "repaint_steps": 1, "seeds": 1}
    config = Protocol(**{**study.presets["paper"].model_dump(), **small})
    evidence = study.run(config, engine="inline", only="learn", store=tmp_path, progress=False)
    assert not evidence.failures
    assert len(evidence["learn"].frame) == len(CONDITIONS)
