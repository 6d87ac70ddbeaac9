"""The study at smoke: every claim judged, figures drawn, and the paper's own protocol run with a scripted model."""

import numpy as np
import pandas as pd
import pytest

from etude.data import LincLabels, LogicProblem, Translation
from etude.language import specification
from etude.papers import linc
from etude.papers.linc import Protocol, study
from etude.study import Table
from language.scripted import ScriptedModel
from study_at_smoke import judged, legend_of

NEEDS_OUTPUTS = ["published-verdicts-replay", "voting-helps-formulas-more", "errors-are-complementary"]
NEEDS_A_MODEL = ["linc-beats-chain-of-thought-on-proofwriter"]
MAY_BE_ABSENT = ["e-equals-enumeration", "recorded-programs-replay", "a-grammar-removes-syntax-errors"]


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pooch.retrieve", unreachable)
        return study.run("smoke", engine="inline", store=tmp_path_factory.mktemp("store"), progress=False)


def unreachable(*_, **__):
    raise OSError("no network")


def test_every_claim_is_judged_without_an_error(evidence):
    verdicts = judged(study, evidence)
    assert verdicts["verdicts-equal-enumeration"].status == "holds"
    untested = {claim for claim, verdict in verdicts.items() if verdict.status == "untested"}
    assert set(NEEDS_A_MODEL) <= untested <= {*NEEDS_OUTPUTS, *NEEDS_A_MODEL, *MAY_BE_ABSENT}


def test_accuracy_by_depth_is_drawn(evidence):
    (draw,) = (figure for figure in study.figures if figure.__name__ == "accuracy_by_depth")
    assert legend_of(draw, evidence)[:3] == ["parser and prover", "classifier of text", "classifier of formulas"]


def outputs(monkeypatch):
    """Recorded outputs made up so that every number is known."""
    generator = np.random.default_rng(0)
    gold = [["True", "False", "Uncertain"][n % 3] for n in range(12)]
    text = "FOL: all x.(A(x) -> B(x))\nFOL: {}\nFOL: B(T)"
    facts = {"True": "A(T)", "False": "-B(T)", "Uncertain": "C(T)"}

    def labels(model, problems, mode):
        wrong = 0.2 if mode == "linc" else 0.4
        rows = [[g if generator.random() > wrong else "Error" for _ in range(5)] for g in gold]
        return LincLabels(rows, gold)

    def texts(model, problems):
        problem = [LogicProblem(("-",), "-", g, name=f"{n}") for n, g in enumerate(gold)]
        return [Translation(p, text.format(facts[p.label]), p.label, s) for p in problem for s in range(3)]

    monkeypatch.setattr(linc, "linc_labels", labels)
    monkeypatch.setattr(linc, "linc_translations", texts)


def test_recorded_outputs_are_replayed_and_counted(monkeypatch, tmp_path):
    outputs(monkeypatch)
    evidence = study.run("smoke", engine="inline", only=["replay", "votes"], store=tmp_path, progress=False)
    assert not evidence.failures
    replay = evidence["replay"].frame
    assert (replay.ours == replay.theirs).all()
    assert linc.replayed(evidence["replay"].at(model="gpt-4", problems="folio"), "ours") == 1
    for claim in (linc.published_verdicts_replay, linc.voting_helps_formulas_more, linc.errors_are_complementary):
        assert not claim(evidence).judge("claim", 0.05).error
    (draw,) = (figure for figure in study.figures if figure.__name__ == "gain_of_voting")
    assert legend_of(draw, evidence) == ["LINC", "chain of thought"]


def test_gains_and_precision_are_what_they_say():
    table = Table(
        pd.DataFrame(
            {
                "item": [0, 1],
                "gold": [0, 2],
                "linc_majority": [0, 0],
                "linc_single": [0.6, 0.2],
                "cot_majority": [0, 2],
                "cot_single": [0.8, 0.9],
            }
        )
    )
    assert linc.gains(table).tolist() == pytest.approx([0.4 - 0.2, -0.2 - 0.1])
    assert linc.precision(table, "linc") == 0.5
    assert linc.precision(table, "cot") == 1.0


def test_the_papers_own_protocol_runs_to_the_end(monkeypatch, tmp_path):
    """Four modes on both sets of problems with a model that answers by the book."""
    problems = [
        LogicProblem(("Tom is a cat.", "All cats are animals."), f"Tom is an animal {n}.", "True", name=f"{n}")
        for n in range(4)
    ]
    monkeypatch.setattr(linc, "provable_folio", lambda: problems)
    monkeypatch.setattr(linc, "logic_lm_problems", lambda name: problems)
    fol = "FOL:\tCat(Tom)\nFOL:\tall x.(Cat(x) -> Animal(x))\nFOL:\tAnimal(Tom)"

    def reply(prompt, k):
        if "Translate" in prompt:
            return f"{fol}\nANSWER:\tUncertain"
        return f"Hm.\nANSWER:\t{'True' if k == 0 else 'False'}" if "step by step" in prompt else "True"

    asked = []
    monkeypatch.setattr(specification, "language_model", lambda spec: asked.append(spec) or ScriptedModel(reply))
    config = study.presets["paper"].model_copy(update={"seeds": 1, "samples": 3, "shots": 2})
    evidence = study.run(config, engine="inline", only="protocol", store=tmp_path, progress=False)
    assert not evidence.failures
    assert set(asked) == {"endpoint:gpt-4-0613"}
    right = evidence["protocol"].frame.groupby("mode").right.mean()
    assert right.to_dict() == {"linc": 1.0, "direct": 1.0, "scratchpad": 0.0, "chain of thought": 0.0}
    rule = linc.linc_beats_chain_of_thought_on_proofwriter(evidence)
    assert rule.judge("claim", 0.05).status == "holds"


def test_without_a_model_the_protocol_says_what_to_give(tmp_path):
    evidence = study.run("smoke", engine="inline", only="protocol", store=tmp_path, progress=False)
    verdicts = {verdict.claim: verdict for verdict in study.judge(evidence)}
    assert "--model endpoint:NAME" in verdicts[NEEDS_A_MODEL[0]].why


def test_renaming_keeps_the_shape():
    formula = linc.parse("all x.((P0(x) & P1(a,b)) -> -P2)")
    assert str(linc.renamed(formula, linc.OTHER_NAMES)) == "∀x ((Q9(x) ∧ Q8(t, s)) → ¬Q7)"


def test_faults_are_told_apart():
    assert linc.faults("all x.(Cold(x)") == {"error": True, "clash": False}
    assert linc.faults("Cold(x)") == {"error": True, "clash": False}
    assert linc.faults("Cold(KARIN) & Cold(KARIN, OTTO)") == {"error": False, "clash": True}
    assert linc.faults("all x.Cold(x)") == {"error": False, "clash": False}
    assert linc.plain("all x.(Old(x) -> -chase_(x, DOG))") == linc.to_nltk(
        linc.parse("all x.(Old(x) -> -Chase(x,Dog))")
    )
    assert linc.plain("what?") == ""


def test_presets_keep_what_claims_need():
    assert {"smoke", "laptop", "extended", "paper"} <= study.presets.keys()
    for name, config in study.presets.items():
        assert config.problems_per_depth % 3 == 0
        assert bool(config.model) == (name == "paper")
    assert isinstance(study.presets["laptop"], Protocol)
