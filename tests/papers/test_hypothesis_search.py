"""The study at smoke, its arms' equal means, and the paper's protocol with a scripted model."""

import random

import pytest
import torch

from etude.data import available
from etude.language import specification
from etude.papers.hypothesis_search import Protocol, arms, examples, expressible, study, world
from etude.reasoning import Direct, ProgramOnly
from etude.reasoning.list_proposers import ROLES, ListNetwork, ListProposer
from etude.sandbox import LEVELS, Sandbox, probe
from language.scripted import ScriptedModel
from study_at_smoke import judged, legend_of, untested

AT_HAND = {status.name for status in available() if status.present}
DATA = {"arc", "arc-1d", "arc-hypotheses", "list-functions"} <= AT_HAND
pytestmark = pytest.mark.skipif(all(probe(level).missing for level in LEVELS), reason="no level of isolation")
JAIL = not probe("bwrap").missing


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    return study.run("smoke", engine="inline", store=tmp_path_factory.mktemp("store"), progress=False)


def test_every_claim_is_judged_without_an_error(evidence):
    verdicts = judged(study, evidence)
    few = {
        "a-small-language-model-is-too-weak",
        "recorded-programs-do-what-was-published",
        "verification-is-strong-evidence",
        "the-sandbox-contains-every-attack",
    }
    lacking = set() if DATA else {"hypotheses-make-programs-differ"}
    assert set(untested(verdicts)) == few | lacking
    assert verdicts["coverage-grows-with-samples"].status == "holds"


@pytest.mark.parametrize("draw", study.figures, ids=lambda draw: draw.__name__)
def test_figures_are_drawn_and_labelled(evidence, draw):
    assert len(legend_of(draw, evidence)) >= 2


def test_recorded_programs_have_their_published_outcome(evidence):
    if not DATA:
        pytest.skip("ARC or what was recorded is not at hand")
    rows = evidence["replay"].frame
    assert len(rows) == 12
    assert (rows["train"] == rows["published_train"]).sum() >= 11


def test_the_attacks_tried_are_contained(evidence):
    if not JAIL:
        pytest.skip(str(probe("bwrap")))
    assert evidence["attacks"].frame["contained"].all()


# ---- equal means ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["laptop", "extended", "paper"])
def test_the_two_networks_have_no_more_weights_than_one(preset):
    config = study.presets[preset]

    def weights(width):
        network = ListNetwork(width, torch.Generator().manual_seed(0), config.layers)
        return sum(parameter.numel() for parameter in network.parameters())

    assert 0.9 < 2 * weights(config.half_width) / weights(config.width) <= 1


def test_the_arms_draw_as_many_programs():
    config = Protocol()
    networks = ListProposer({role: ListNetwork(8, torch.Generator().manual_seed(0), 1) for role in ROLES})
    with Sandbox() as sandbox:
        solvers = arms(config, networks, sandbox)
    assert solvers["programs"].n_programs == solvers["direct"].n_answers == 64
    assert solvers["hypotheses"].n_keep * solvers["hypotheses"].n_programs == 64
    assert isinstance(solvers["programs at temperature 1"], ProgramOnly)
    assert isinstance(solvers["one direct answer"], Direct)
    assert solvers["repair of clusters"].cluster
    assert not solvers["repair of all"].cluster


def test_no_composition_to_be_solved_is_trained_on():
    held_out = world()
    assert len(examples(200).program) == 200
    trained = {each.program.composition for each in held_out.sample(400, random.Random(1))}
    asked = {each.program.composition for each in held_out.sample(50, random.Random(2), held_out=True, distinct=True)}
    assert len(asked) == 50
    assert not trained & asked


@pytest.mark.skipif("list-functions" not in AT_HAND, reason="the list functions are not at hand")
def test_what_the_steps_can_express():
    from etude.data import list_functions

    tasks = list_functions(train=5)
    assert expressible(tasks["c006_1"])  # sort
    assert expressible(tasks["c098_1"]) is False  # three steps: unique, sort, reverse
    assert not expressible(tasks["c009_1"])  # product


# ---- the paper's protocol ------------------------------------------------------------------------------------------


def test_the_protocol_of_the_paper_runs_with_a_model(monkeypatch, tmp_path):
    if not DATA:
        pytest.skip("ARC or what was recorded is not at hand")

    def reply(prompt, sample):
        text = prompt[-1]["content"]
        if "Group them" in text:
            return "1. copy\n2. turn"
        if "Write" in text:
            grid = "transform_grid" in str(prompt)
            name = "transform_grid(g)" if grid else "transform(x)"
            return f"```python\ndef {name}: return {'g' if grid else 'x'}\n```"
        return "[[1]]" if "Answer with the output" in text else "Rule: copy"

    monkeypatch.setattr(specification, "language_model", lambda name: ScriptedModel(reply))
    config = study.presets["smoke"].model_copy(update={"model": "endpoint:test", "asked": 1})
    evidence = study.run(config, engine="inline", only=["ask"], store=tmp_path, progress=False)
    assert not evidence.failures
    rows = evidence["ask"].frame
    assert len(rows) == 3 * 3
    chosen = rows[(rows["domain"] == "arc") & (rows["method"] == "hypotheses")]
    # six hypotheses, a summary, two hypotheses with three programs, one repair a behaviour
    assert (chosen["replies"] == 6 + 1 + 6 + 1).all()
    assert set(rows["method"]) == {"direct", "programs", "hypotheses"}


def test_a_small_model_is_asked_real_tasks(monkeypatch, tmp_path):
    if not DATA:
        pytest.skip("ARC or what was recorded is not at hand")

    def reply(prompt, sample):
        if "Write" not in prompt[-1]["content"]:
            return "[[1]]"
        return "def transform(x): return sorted(x)" if "numbers: list" in str(prompt) else "transform_grid = None"

    monkeypatch.setattr(specification, "language_model", lambda name: ScriptedModel(reply))
    config = study.presets["smoke"].model_copy(update={"small_tasks": 30})
    evidence = study.run(config, engine="inline", only=["ask_small"], store=tmp_path, progress=False)
    rows = evidence["ask_small"].frame
    assert (rows.groupby(["domain", "method"]).size() == 30).all()
    assert len(rows) == 2 * 3 * 30
    # Sorting solves one of these thirty list functions, with and without hypotheses.
    solved = rows[rows["solved"]]
    assert list(solved["task"].str.endswith("c006_1")) == [True, True]
    assert study.claims["a-small-language-model-is-too-weak"](evidence).judge("weak", 0.05).status == "holds"


def test_presets_are_what_they_say():
    assert {"smoke", "laptop", "extended", "paper"} <= study.presets.keys()
    assert study.presets["laptop"].seeds >= 5
    assert study.presets["paper"].model
