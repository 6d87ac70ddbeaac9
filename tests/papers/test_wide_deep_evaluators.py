"""The study at smoke: every claim is judged, every figure drawn, the paper's own protocol run on a scripted model."""

import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

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


class Server(BaseHTTPRequestHandler):
    """An endpoint that prefers the response shown first, and now and then says nothing that could be read."""

    asked: ClassVar[list[str]] = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        self.asked.append(text)
        proposing = "most important viewpoints" in text
        reply = "$\nAccuracy\nDepth\n&" if proposing else "The first.\nScore of response 1: 8\nScore of response 2: 3"
        reply = "No." if len(self.asked) % 7 == 0 else reply
        choices = [{"index": k, "delta": {"role": "assistant", "content": reply}} for k in range(body.get("n", 1))]
        ends = [{"index": k, "delta": {}, "finish_reason": "stop"} for k in range(body.get("n", 1))]
        usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for part in ({"choices": choices}, {"choices": ends}, {"choices": [], "usage": usage}):
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": body["model"], **part}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_):
        pass


@RECORDED
@pytest.mark.skipif(importlib.util.find_spec("openai") is None, reason="openai is not installed")
def test_the_jury_of_the_paper_runs_on_an_endpoint(tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("ETUDE_LLM_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("ETUDE_LLM_API_KEY", "a key for nobody")
    small = {"model": "endpoint:judge", "panel_sets": ("FairEval", "Manual"), "panel_items": 2, "panel_roles": 2}
    monkeypatch.setattr(study, "presets", {"paper": Protocol(**{**study.presets["paper"].model_dump(), **small})})
    evidence = study.run("paper", engine="inline", only=["panel"], store=tmp_path / "store", progress=False)
    server.shutdown()
    server.server_close()
    assert not evidence.failures
    rows = evidence["panel"].frame
    assert set(rows["jury"]) == {"wide and deep", "single", "swap", "FairEval", "vote", "wide"}
    assert len(rows) == 2 * 2 * 6
    # Whatever prefers a position is brought to a tie by asking in both orders, and only by that.
    winners = rows.groupby("jury")["winner"].agg(lambda given: set(given))
    assert winners["wide and deep"] == winners["FairEval"] == winners["swap"] == {0}
    assert winners["single"] == winners["vote"] == {1}
    assert rows.loc[rows["jury"] == "wide and deep", "flips"].eq(1).all()
    verdicts = {verdict.claim: verdict for verdict in study.judge(evidence)}
    assert not verdicts["wide-and-deep-juries-agree-more-with-people"].error
    assert "a key for nobody" not in repr(evidence) + repr(rows.to_dict())


def test_presets_measure_what_the_claims_ask_for():
    assert {"smoke", "laptop", "extended", "paper"} <= study.presets.keys()
    laptop = study.presets["laptop"]
    assert (laptop.train, laptop.test, laptop.live, laptop.seeds) == (3_000, 2_000, 200, 5)
    assert laptop.draws >= 100_000
    assert 4 * laptop.exchanged >= 2_000
    assert study.presets["paper"].model.startswith("endpoint:")
    assert len(JUDGES) == 6
