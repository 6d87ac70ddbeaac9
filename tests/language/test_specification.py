"""One text says which model."""

import pytest

from etude.errors import Unavailable
from etude.language import Endpoint, Recorded, language_model
from tests.language.scripted import ScriptedModel


@pytest.fixture(autouse=True)
def unconfigured(monkeypatch):
    monkeypatch.delenv("ETUDE_LLM_BASE_URL", raising=False)
    monkeypatch.delenv("ETUDE_LLM_API_KEY", raising=False)


@pytest.mark.parametrize(
    ("spec", "error", "told"),
    [
        (None, TypeError, "spec is a NoneType"),
        ("", Unavailable, "no language model is configured.*'endpoint:NAME'"),
        (" ", Unavailable, "no language model is configured"),
        ("endpont:gpt-4o", ValueError, r"unknown back end 'endpont'.*Did you mean 'endpoint'\?"),
        ("openai", ValueError, "unknown back end 'openai'; give one of 'local', 'endpoint', 'recorded'"),
        ("endpoint:", ValueError, "say which, as in endpoint:gpt-4o"),
        ("recorded", ValueError, "say which, as in recorded:/path"),
        ("endpoint:gpt-4o", Unavailable, "no endpoint is configured.*ETUDE_LLM_BASE_URL"),
        ("recorded:nowhere.jsonl", Unavailable, "there is no recording nowhere.jsonl"),
        ("local:nowhere.gguf", ValueError, "no such file"),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(spec, error, told):
    with pytest.raises(error, match=told):
        language_model(spec)


def test_an_endpoint_needs_its_key(monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("ETUDE_LLM_BASE_URL", "https://example.org/v1")
    with pytest.raises(Unavailable, match=r"no key .* environment variable ETUDE_LLM_API_KEY"):
        language_model("endpoint:gpt-4o")
    monkeypatch.setenv("ETUDE_LLM_API_KEY", "secret")
    model = language_model("endpoint:org/model:tag")
    assert isinstance(model, Endpoint)
    assert model.name == "org/model:tag"
    assert "secret" not in repr(model)


def test_a_recording_is_replayed(tmp_path):
    path = tmp_path / "replies.jsonl"
    said = Recorded(path, ScriptedModel(lambda prompt, k: "yes")).generate(["a"], seed=0)
    model = language_model(f"recorded:{path}")
    assert model.generate(["a"], seed=0) == said
