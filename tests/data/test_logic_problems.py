"""Recorded problems and translations: what is refused, what is missing, and (where at hand) what they hold."""

from collections import Counter

import pytest

from etude.data import folio, linc_labels, linc_translations, logic_lm_problems, logic_translations
from etude.errors import MissingData


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: folio("test"), "part: 'test'"),
        (lambda: logic_lm_problems("AR-LSAT"), "name: 'AR-LSAT'"),
        (lambda: logic_translations("gpt-5", "FOLIO"), "model: 'gpt-5'"),
        (lambda: logic_translations("gpt-4", "folio"), "problems: 'folio'"),
        (lambda: linc_labels("gpt-4", "folio", "direct"), "mode: 'direct'"),
        (lambda: linc_labels("gpt-4", "ProntoQA", "cot"), "problems: 'ProntoQA'"),
    ],
)
def test_unknown_names_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_absent_outputs_say_where_they_are_published(monkeypatch, tmp_path):
    monkeypatch.setenv("ETUDE_DATA", str(tmp_path))
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pooch.retrieve", unreachable)
    with pytest.raises(MissingData, match=r"linc-outputs.*benlipkin/linc"):
        linc_labels("gpt-4", "folio", "linc")
    with pytest.raises(MissingData, match="folio"):
        folio()


def unreachable(*_, **__):
    raise OSError("no network")


def at_hand(load):
    try:
        return load()
    except MissingData as error:
        pytest.skip(str(error)[:100])


def test_translations_as_recorded():
    texts = at_hand(lambda: logic_translations("gpt-4", "ProofWriter"))
    assert Counter(text.problem.label for text in texts) == {"True": 200, "False": 200, "Uncertain": 200}
    assert texts[0].problem.conclusion == "Charlie is kind."
    assert texts[0].problem.premises[-1] == "If Dave is smart and Dave is kind then Dave is quiet."
    assert "Query:" in texts[0].text
    assert len(logic_lm_problems("ProntoQA")) == 500
    assert len(folio()) == 204
    assert len(folio()[0][1]) == len(folio()[0][0].premises) + 1


def test_linc_outputs_reproduce_the_published_accuracies(monkeypatch, tmp_path):
    monkeypatch.setattr("pooch.retrieve", unreachable)
    labels = at_hand(lambda: linc_labels("gpt-4", "folio", "linc"))
    assert (len(labels.labels), len(labels.labels[0])) == (182, 10)
    assert Counter(labels.gold) == {"True": 63, "False": 54, "Uncertain": 65}
    texts = at_hand(lambda: linc_translations("gpt-4", "proofwriter"))
    assert len(texts) == 360 * 5
    with pytest.raises(ValueError, match="not recorded"):
        linc_translations("gpt-3.5", "proofwriter")
