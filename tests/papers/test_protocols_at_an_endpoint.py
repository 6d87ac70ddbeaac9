"""The papers' own protocols with a model behind a real address, from the preset `paper` to the judged evidence."""

import os

import pytest

from etude.data import available
from etude.papers import hypothesis_search, linc
from etude.sandbox import LEVELS, probe
from language.misbehaving import Answering, misbehaving, refuses

KEY = "sk-secret-of-the-tests"
AT_HAND = {status.name for status in available() if status.present}
REPLY = """FOL:\tCat(Tom)
FOL:\tall x.(Cat(x) -> Animal(x))
FOL:\tAnimal(Tom)
ANSWER:\tTrue
1. Every cell stays as it is.
```python
def transform_grid(grid):
    return grid
```"""
SMALL = {
    "linc": (linc.study, ["protocol"], {"recorded": 1, "samples": 2, "shots": 1}, {"folio", "logic-translations"}),
    "hypothesis-search": (
        hypothesis_search.study,
        ["ask"],
        {"asked": 1, "hypotheses": 2, "kept": 1, "programs": 1, "feedback": 1, "isolation": "subprocess"},
        {"arc", "arc-1d", "arc-hypotheses", "list-functions"},
    ),
}


def says(request: Answering) -> None:
    request.stream()
    for index in range(request.body.get("n", 1)):
        request.part(REPLY, index, finish="stop")
    request.end()


@pytest.mark.parametrize("name", SMALL)
def test_the_preset_paper_runs_against_a_server(name, tmp_path, monkeypatch):
    study, only, changed, needed = SMALL[name]
    if not needed <= AT_HAND:
        pytest.skip(f"not at hand: {', '.join(sorted(needed - AT_HAND))}")
    if name == "hypothesis-search" and all(probe(level).missing for level in LEVELS):
        pytest.skip("no level of isolation")
    config = study.presets["paper"].model_copy(update={**changed, "model": "endpoint:served", "seeds": 1})
    with misbehaving(refuses(429, "slow down"), says) as server:
        monkeypatch.setenv("ETUDE_LLM_BASE_URL", server.address)
        monkeypatch.setenv("ETUDE_LLM_API_KEY", KEY)
        evidence = study.run(config, engine="inline", only=only, store=tmp_path, progress=False)
        assert not evidence.failures
        assert not evidence.unavailable.keys() & set(only)
        assert len(evidence[only[0]].frame) > 0
        assert all(headers["authorization"] == f"Bearer {KEY}" for headers in server.headers)
        asked = len(server.requests)
    # Nothing is asked twice, so a run that has all replies needs no server and no key.
    monkeypatch.delenv("ETUDE_LLM_API_KEY")
    again = study.run(config, engine="inline", only=only, store=tmp_path, progress=False)
    assert again[only[0]].frame.equals(evidence[only[0]].frame)
    assert asked > 1
    for folder, _, files in os.walk(tmp_path):
        for file in files:
            with open(os.path.join(folder, file), "rb") as stream:
                assert KEY.encode() not in stream.read()
