"""The study at smoke: every claim is judged, figures are drawn, arms differ in one thing only, and paper's path runs.

Smoke is of made-up dial tones, so that it needs no recordings.
"""

import pandas as pd
import pytest
import torch

from etude.papers import align_with_purpose
from etude.papers.align_with_purpose import STRENGTHS, front_area, network, study, tones, train
from study_at_smoke import judged, legend_of

pytest.importorskip("jiwer")
pytest.importorskip("fast_ctc_decode")


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    return study.run("smoke", engine="inline", store=tmp_path_factory.mktemp("store"), progress=False)


def test_every_claim_is_judged_without_an_error(evidence):
    verdicts = judged(study, evidence)
    statuses = [verdict.status for verdict in verdicts.values()]
    assert statuses == ["holds"] * 3 + ["untested"] * 4  # the exact ones, and those that so few steps cannot decide


@pytest.mark.parametrize(
    "name",
    [
        "emissions_come_earlier_at_little_cost",
        "direction_of_the_rule_decides",
        "word_rule_lowers_word_errors",
        "trade_off_is_no_worse_than_peak_first",
    ],
)
def test_the_rules_that_smoke_cannot_decide_run_too(evidence, name):
    verdict = getattr(align_with_purpose, name)(evidence).judge("claim", 0.05)
    assert not verdict.error
    assert len(verdict.estimates) >= 2


@pytest.mark.parametrize("draw", study.figures, ids=lambda draw: draw.__name__)
def test_figures_are_drawn_and_labelled(evidence, draw):
    assert len(legend_of(draw, evidence)) >= 3


def test_each_arm_is_measured_once_a_seed_and_test(evidence):
    latency = evidence["latency"].frame.groupby(["arm", "test"]).size()
    assert latency.to_dict() == {
        (arm, test): 5 for arm in ("ctc", "earlier", "later") for test in ("test", "new speaker")
    }
    assert evidence["spelling"].frame.groupby("arm").size().to_dict() == {"ctc": 2, "words": 2}
    fronts = evidence["fronts"].frame.groupby(["method", "strength"]).size()
    assert set(fronts.index) == {(m, float(s)) for m, values in STRENGTHS.items() for s in (0, *values)}
    at_zero = evidence["fronts"].at(strength=0).frame
    assert at_zero.groupby("seed")["delay"].nunique(dropna=False).eq(1).all()  # one network, whatever the method


def made(part, n=32, spelled=False):
    return tones(part, n, spelled=spelled, snr=20.0, speaker=2, generator=torch.Generator().manual_seed(5))


def test_parts_and_speakers_are_kept_apart(monkeypatch):
    seen = []

    def spy(recordings, n, *, takes, speakers, **others):
        seen.append({(speaker, take) for speaker in speakers for take in takes})

    monkeypatch.setattr(align_with_purpose, "digit_corpus", spy)
    for part in ("train", "validation", "test", "new speaker"):
        made(part)
    assert all(seen[a].isdisjoint(seen[b]) for a in range(4) for b in range(a))
    assert [{speaker for speaker, _ in part} for part in seen] == [{0, 1, 3, 4, 5}] * 3 + [{2}]


def test_training_depends_on_its_arguments_alone_and_arms_share_their_order():
    corpus = made("train", 160)
    size = (8, 1)
    start = dict(network(corpus, size, torch.Generator().manual_seed(0)).state_dict())

    def weights(arm, strength=0.0, seed=1):
        torch.manual_seed(torch.seed())
        return train(corpus, size, "cpu", start, arm, strength, 1, 1e-3, seed)["output.weight"]

    ctc = weights("ctc")
    assert torch.equal(ctc, weights("ctc"))
    assert not torch.equal(ctc, weights("ctc", seed=2))
    for arm in ("earlier", "peak first", "delay penalty"):
        assert torch.allclose(ctc, weights(arm, 0.0), atol=1e-5)  # without its preference an arm is CTC alone
        assert not torch.allclose(ctc, weights(arm, 20.0), atol=1e-5)
    # TrimTail also cuts features that fill no frame of the network, so it is compared with itself.
    assert not torch.allclose(weights("trim tail", 0.0), weights("trim tail", 20.0), atol=1e-5)


def test_the_area_under_a_front_by_hand():
    # 10 ms earlier at 1 point, 30 at 3, 40 at 9 (beyond the budget): 10 budgets of 0, 20 of -10, 21 of -30
    rows = pd.DataFrame({"delay": [50.0, 40.0, 20.0, 10.0], "error": [0.05, 0.06 - 1e-9, 0.08 - 1e-9, 0.14]})
    assert front_area(rows) == pytest.approx((20 * -10 + 21 * -30) / 51)


def test_the_papers_preset_runs_small(tmp_path):
    paper = study.presets["paper"]
    assert (paper.width, paper.blocks, paper.utterances) == (512, 12, 280_000)
    sizes = {"utterances": 32, "test_utterances": 4, "epochs": 1, "purpose_epochs": 1, "width": 32, "paths": 100}
    made_up = study.presets["smoke"].corpus
    small = paper.updated(corpus=made_up, learning_rate=1e-6, seeds=1, **sizes)
    evidence = study.run(small, engine="inline", only="latency", store=tmp_path, progress=False)
    assert not evidence.failures
