"""The study at smoke: every claim is judged, every figure drawn, the paper's own protocol run on a scripted model."""

import numpy as np
import pytest

from etude.data import available, recorded_comparisons
from etude.language import Recorded, WideDeep
from etude.papers.wide_deep_evaluators import ARMS, JUDGES, Protocol, StandIn, llmbar, study, votes_of
from study_at_smoke import judged, legend_of, untested

AT_HAND = next(status.present for status in available() if status.name == "llm-judgments")
NEEDS_DATA = ["width", "width_curves", "depth", "live", "panel"]
RECORDED = pytest.mark.skipif(not AT_HAND, reason="the recorded judgments are not at hand")


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    only = None if AT_HAND else [name for name in study.measurements if name not in NEEDS_DATA]
    return study.run("smoke", engine="inline", only=only, store=tmp_path_factory.mktemp("store"), progress=False)


def test_every_claim_is_judged_without_an_error(evidence):
    verdicts = judged(study, evidence)
    assert verdicts["exchange-negates-the-margin"].status == "holds"
    if AT_HAND:
        assert untested(verdicts) == []


@RECORDED
@pytest.mark.parametrize("draw", study.figures, ids=lambda draw: draw.__name__)
def test_figures_are_drawn_and_labelled(evidence, draw):
    assert len(legend_of(draw, evidence)) >= 2


@RECORDED
def test_width_is_the_one_computed_when_the_study_was_planned(evidence):
    """Single judgments, then the majority of eight ways of prompting in both orders, in percent."""
    rows = evidence["width"].frame.assign(natural=lambda frame: frame["set"] == "Natural")
    means = 100 * rows.groupby(["natural", "judge"])[["single", "majority"]].mean()
    for natural, judge, expected in (
        (True, "ChatGPT-0301", (82.4, 88.0)),
        (True, "LLaMA2", (77.2, 85.5)),
        (True, "Falcon", (70.8, 85.0)),
        (False, "ChatGPT-0301", (37.5, 32.3)),
        (False, "LLaMA2", (34.6, 31.7)),
    ):
        # Unreadable replies may be left out or counted as wrong: less than a point either way.
        assert np.allclose(means.loc[(natural, judge)], expected, atol=0.6), (natural, judge)


@RECORDED
def test_votes_are_the_recorded_winners():
    rows = llmbar().query("set == 'Manual' and judge == 'PaLM2'")
    votes, gold, items = votes_of(rows)
    assert votes.shape == (46, 12)  # PaLM 2 was not asked with examples
    assert set(np.unique(votes)) <= {-1, 0, 1}
    one = rows[rows["item"] == items[3]].query("strategy == 'CoT'")
    assert set(one["winner"] - 1) <= set(votes[3]) | {-2}
    assert gold[3] == one["gold"].iloc[0] - 1


def test_arms_see_what_they_are_said_to_see(evidence):
    rows = evidence["roles"]
    assert {arm for arm, _ in rows.split("arm")} == set(ARMS)
    assert len(rows) == 2 * 2 * len(ARMS)  # seeds, worlds
    assert rows.frame["accuracy"].between(0, 1).all()


@RECORDED
def test_the_jury_of_the_paper_runs_on_a_recording(tmp_path, evidence):
    """What a model once answered is enough to run the whole protocol again, and nothing else is asked."""
    jury = evidence["panel"].at(jury="wide and deep")
    assert set(jury.frame["calls"]) == {9}  # the roles, two of them, both orders, two layers
    fair = evidence["panel"].at(jury="FairEval").frame["calls"]
    assert set(fair) == {10}

    recording = tmp_path / "replies.jsonl"
    config = Protocol(**{**study.presets["smoke"].model_dump(), "seeds": 1})
    comparisons = recorded_comparisons("FairEval")[: config.panel_items]
    first = WideDeep(Recorded(recording, StandIn()), 2, "auto", seed=7).judge_many(comparisons)
    again = WideDeep(Recorded(recording), 2, "auto", seed=7).judge_many(comparisons)
    assert first == again


def test_presets_measure_what_the_claims_ask_for():
    assert {"smoke", "laptop", "extended", "paper"} <= study.presets.keys()
    laptop = study.presets["laptop"]
    assert (laptop.train, laptop.test, laptop.live, laptop.seeds) == (3_000, 2_000, 200, 5)
    assert laptop.draws >= 100_000
    assert 4 * laptop.exchanged >= 2_000
    assert study.presets["paper"].model.startswith("endpoint:")
    assert len(JUDGES) == 6
