"""Replies kept: in a file that can be shared and replayed, and in a study's store."""

from __future__ import annotations

import base64
import collections
import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from etude.errors import Unavailable
from etude.language.model import Completion, LanguageModel, Message, Reply, Sampling, Usage


def request_key(request: Mapping[str, Any]) -> str:
    """Hash of a request: equal exactly for equal requests, in every process.

    Args:
        request: nested dicts, lists, texts, numbers and None; the order of a dict's entries does not count.

    Returns:
        64 hexadecimal digits (SHA-256).
    """
    text = json.dumps(request, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


class Keeping(LanguageModel):
    """A model whose replies are kept, and which is asked only for those that are not.

    A subclass says how one is looked up (`_find`) and kept (`_keep`), and which model is asked (`_asked`). A request
    without a seed at a temperature above 0 asks for fresh replies each time: the second such request of this object is
    another than the first, and is kept as another.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._times: collections.Counter[str] = collections.Counter()

    def _find(self, key: str, request: Mapping[str, Any]) -> Reply | None:
        raise NotImplementedError

    def _keep(self, key: str, request: Mapping[str, Any], reply: Reply) -> None:
        raise NotImplementedError

    def _asked(self, request: Mapping[str, Any]) -> LanguageModel:
        raise NotImplementedError

    def _generate(
        self, prompts: Sequence[Sequence[Message]], n: int, sampling: Sampling
    ) -> Iterator[tuple[int, Reply]]:
        fresh = sampling.seed is None and sampling.temperature > 0
        drawn = {field.name: getattr(sampling, field.name) for field in dataclasses.fields(sampling)}
        keys, missing = [], []
        for i, messages in enumerate(prompts):
            request = {"model": self.name, "call": "generate", "messages": list(messages), "n": n, **drawn}
            key, request = self._numbered(request) if fresh else (request_key(request), request)
            keys.append((key, request))
            reply = self._find(key, request)
            if reply is None:
                missing.append(i)
            else:
                yield i, reply
        # Equal requests are one: they would get equal replies.
        first: dict[str, list[int]] = collections.defaultdict(list)
        for i in missing:
            first[keys[i][0]].append(i)
        if not missing:
            return
        places = list(first.values())
        model = self._asked(keys[missing[0]][1])
        for number, reply in model._generate([prompts[same[0]] for same in places], n, sampling):
            model._accounted(reply)
            self._keep(*keys[places[number][0]], reply)
            for again, i in enumerate(places[number]):
                yield i, dataclasses.replace(reply, replayed=True) if again else reply

    def _numbered(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        times = self._times[request_key(request)]
        self._times[request_key(request)] += 1
        request = {**request, "time": times}
        return request_key(request), request

    def _score(self, prompt: Sequence[Message], continuations: Sequence[str]) -> Reply:
        request = {"call": "score", "messages": list(prompt), "continuations": list(continuations)}
        return self._kept(request, lambda model: model._score(prompt, continuations))

    def _choose(self, prompt: Sequence[Message], options: Sequence[str]) -> Reply:
        request = {"call": "choose", "messages": list(prompt), "options": list(options)}
        return self._kept(request, lambda model: model._choose(prompt, options))

    def _embed(self, texts: Sequence[str]) -> Reply:
        return self._kept({"call": "embed", "texts": list(texts)}, lambda model: model._embed(texts))

    def _kept(self, request: dict[str, Any], ask: Callable[[LanguageModel], Reply]) -> Reply:
        request = {"model": self.name, **request}
        key = request_key(request)
        reply = self._find(key, request)
        if reply is None:
            model = self._asked(request)
            reply = ask(model)
            model._accounted(reply)
            self._keep(key, request, reply)
        return reply


class Recorded(Keeping):
    """Replays the replies in a file, and records there what a model answers to requests the file lacks.

    The file holds one JSON object a line: the exact request (model, messages, every sampling parameter, n), its hash,
    the reply, and what it took. A line is appended as soon as its reply is there, so a process that is killed loses at
    most the replies still under way; a line cut off by that is overlooked and its request recorded anew. Several
    processes may record to one file. No key and no header is in it.

    Args:
        path: the file, made when the first reply is recorded.
        model: who answers what the file lacks; None to replay only.
        name: whose replies to replay where the file holds those of several models and `model` is None.

    Raises:
        Unavailable: no such file and no model; at a request that the file lacks, likewise.
        ValueError: a file that is no recording; replies of several models and no name; a name the file does not hold.
    """

    def __init__(
        self, path: str | os.PathLike[str], model: LanguageModel | None = None, *, name: str | None = None
    ) -> None:
        self.path = Path(path)
        self.model = model
        self._replies: dict[str, Reply] = {}
        self._names: set[str] = set()
        self._read = 0
        self._lock = threading.Lock()
        if not self.path.exists() and model is None:
            raise Unavailable(
                f"there is no recording {self.path}", "Check the path, or give model= to record one there"
            )
        self._read_on()
        if model is not None:
            if name not in (None, model.name):
                raise ValueError(f"name={name!r}: the model that is recorded is {model.name!r}")
            name = model.name
        elif name is None:
            if len(self._names) != 1:
                held = ", ".join(map(repr, sorted(self._names))) or "no replies"
                raise ValueError(f"name=None: {self.path} holds {held}; say whose to replay")
            (name,) = self._names
        elif name not in self._names:
            held = ", ".join(map(repr, sorted(self._names))) or "no replies"
            raise ValueError(f"name={name!r}: {self.path} holds {held}")
        super().__init__(name)

    def __repr__(self) -> str:
        return f"Recorded({str(self.path)!r}, {self.name!r}, {len(self)} replies)"

    def __len__(self) -> int:
        return len(self._replies)

    def _find(self, key: str, request: Mapping[str, Any]) -> Reply | None:
        reply = self._replies.get(key)
        if reply is None and self.model is not None:
            self._read_on()  # another process may have recorded it meanwhile
            reply = self._replies.get(key)
        return reply

    def _asked(self, request: Mapping[str, Any]) -> LanguageModel:
        if self.model is None:
            raise Unavailable(
                f"{self.path} holds no reply of {self.name} to {_beginning(request)} ({_way(request)})",
                "Ask exactly what was recorded, or give Recorded a model= that answers what the file lacks",
            )
        return self.model

    def _keep(self, key: str, request: Mapping[str, Any], reply: Reply) -> None:
        line = json.dumps({"key": key, "request": request, **_written(reply)}, ensure_ascii=False, default=_plain)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, FileLock(f"{self.path}.lock"), self.path.open("ab") as file:
            end = file.seek(0, os.SEEK_END)
            whole = self._whole(end)
            if whole < end:  # what a killed process left of its last line
                file.truncate(whole)
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._replies[key] = dataclasses.replace(reply, replayed=True)

    def _whole(self, end: int) -> int:
        """Where the last whole line ends."""
        with self.path.open("rb") as file:
            while end > 0:
                begin = max(0, end - 65536)
                file.seek(begin)
                at = file.read(end - begin).rfind(b"\n")
                if at >= 0:
                    return begin + at + 1
                end = begin
        return 0

    def _read_on(self) -> None:
        """Take in the whole lines that were added since the file was last read."""
        with self._lock:
            if not self.path.exists() or self.path.stat().st_size <= self._read:
                return
            with self.path.open("rb") as file:
                file.seek(self._read)
                for number, line in enumerate(file, 1):
                    if not line.endswith(b"\n"):
                        break
                    try:
                        entry = json.loads(line)
                        self._replies[entry["key"]] = _reply(entry)
                        self._names.add(entry["request"]["model"])
                    except (ValueError, KeyError, TypeError) as error:
                        where = f"line {number}" + (f" after byte {self._read}" if self._read else "")
                        raise ValueError(f"{self.path} is no recording of replies: {where}: {error}") from None
                    self._read += len(line)


_arrived: dict[str, dict[str, Any]] = {}


class _NotKept(Exception):
    """The store lacks a reply."""


def kept_reply(model: str, key: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to a request: what `lab.cached` is given, so its results are in a study's store.

    It is never computed here. `Stored` puts a reply that a model gave into its hands; without one it has nothing.

    Args:
        model: the specification of the model.
        key: hash of the request.
        request: the request itself.

    Returns:
        The reply as JSON data, as a line of a recording has it.
    """
    try:
        return _arrived.pop(key)
    except KeyError:
        raise _NotKept from None


class Stored(Keeping):
    """A model whose replies a study's store keeps: a run that is interrupted and resumed asks for none twice.

        model = Stored(config.model, lab.cached)
        replies = model.generate(prompts, n=10, temperature=0.8, seed=lab.seed)

    Each reply goes into the store as soon as it is there, keyed by the exact request and the specification alone, so
    that changing the code that asks loses none. The model behind is made only when the store lacks a reply: a stored
    study needs neither endpoint nor key. Give each trial's requests a seed made from ``lab.seed``, also for endpoints
    that ignore seeds: without one, every trial is handed the same replies.

    Args:
        spec: a specification as `language_model` takes it. It is part of the key, the endpoint's address is not.
        cached: the trial's ``lab.cached``.
        resolve: makes the model from the specification.
    """

    def __init__(
        self,
        spec: str,
        cached: Callable[[Callable[..., Any]], Callable[..., Any]],
        resolve: Callable[[str], LanguageModel] | None = None,
    ) -> None:
        super().__init__(spec)
        self._stored = cached(kept_reply)
        self._resolve = resolve
        self._model: LanguageModel | None = None

    def _find(self, key: str, request: Mapping[str, Any]) -> Reply | None:
        try:
            kept = self._stored(self.name, key, request)
        except _NotKept:
            return None
        return _reply(kept)

    def _keep(self, key: str, request: Mapping[str, Any], reply: Reply) -> None:
        _arrived[key] = _written(reply)
        try:
            self._stored(self.name, key, request)
        finally:
            _arrived.pop(key, None)  # where another trial was faster

    def _asked(self, request: Mapping[str, Any]) -> LanguageModel:
        if self._model is None:
            from etude.language.specification import language_model

            self._model = (self._resolve or language_model)(self.name)
        return self._model


def _written(reply: Reply) -> dict[str, Any]:
    usage = {field.name: getattr(reply.usage, field.name) for field in dataclasses.fields(Usage)}
    value = reply.value
    if isinstance(value, np.ndarray):
        raw = base64.b64encode(np.ascontiguousarray(value, dtype="<f4").tobytes()).decode()
        return {"vectors": raw, "shape": list(value.shape), "usage": usage}
    if value and isinstance(value[0], Completion):
        return {"completions": [dataclasses.asdict(completion) for completion in value], "usage": usage}
    return {"logprobs": [float(each) for each in value], "usage": usage}


def _reply(entry: Mapping[str, Any]) -> Reply:
    usage = Usage(**entry["usage"])
    if "completions" in entry:
        return Reply([Completion(**each) for each in entry["completions"]], usage, replayed=True)
    if "vectors" in entry:
        vectors = np.frombuffer(base64.b64decode(entry["vectors"]), dtype="<f4").reshape(entry["shape"])
        return Reply(vectors.astype(np.float32), usage, replayed=True)
    return Reply([float(each) for each in entry["logprobs"]], usage, replayed=True)


def _beginning(request: Mapping[str, Any]) -> str:
    said = request["messages"][-1]["content"] if "messages" in request else request["texts"][0]
    return repr(said if len(said) <= 60 else said[:60] + "...")


def _way(request: Mapping[str, Any]) -> str:
    left_out = ("model", "messages", "texts", "continuations", "options")
    return ", ".join(f"{name}={value!r:.40}" for name, value in request.items() if name not in left_out)


def _plain(value: Any) -> Any:
    """NumPy's numbers, tuples and mappings as JSON has them."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a request holds a {type(value).__name__}, which JSON has not")
