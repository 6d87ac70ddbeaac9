"""Which language model to use, said in one text that fits a configuration or a command line."""

from __future__ import annotations

from etude.errors import Unavailable, suggest
from etude.language.endpoint import Endpoint
from etude.language.local import DEFAULT, LocalModel
from etude.language.model import LanguageModel
from etude.language.recorded import Recorded

KINDS = ("local", "endpoint", "recorded")


def language_model(spec: str) -> LanguageModel:
    """The model that a specification names.

    Args:
        spec: one of

            - ``"local"``: the embedded smollm2-135m-instruct, which works offline;
            - ``"local:/path/model.gguf"``: another GGUF model, run in this process;
            - ``"endpoint:gpt-4o"``: a model behind the OpenAI-compatible address ETUDE_LLM_BASE_URL, with the key
              ETUDE_LLM_API_KEY;
            - ``"recorded:/path/replies.jsonl"``: replies recorded by `Recorded`, and no others.

    Raises:
        TypeError: no text.
        ValueError: another kind of model; a path that is missing or no model.
        Unavailable: no model is named; the endpoint has no address or no key; the recording is not there.
        MissingExtra: a package is not installed.
    """
    if not isinstance(spec, str):
        raise TypeError(f"spec is a {type(spec).__name__}: give a text such as 'local' or 'endpoint:gpt-4o'")
    kind, _, name = spec.strip().partition(":")
    name = name.strip()
    if not kind:
        raise Unavailable(
            "no language model is configured",
            "Give 'local' (the embedded model), 'local:/path/model.gguf', 'endpoint:NAME' or 'recorded:/path'",
        )
    if kind not in KINDS:
        given = ", ".join(map(repr, KINDS))
        raise ValueError(f"spec={spec!r}: unknown back end {kind!r}; give one of {given}.{suggest(kind, KINDS)}")
    if kind == "local":
        return LocalModel(name or DEFAULT)
    if not name:
        raise ValueError(f"spec={spec!r}: say which, as in {kind}:{'gpt-4o' if kind == 'endpoint' else '/path'}")
    return Endpoint(name) if kind == "endpoint" else Recorded(name)
