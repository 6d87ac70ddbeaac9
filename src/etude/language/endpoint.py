"""Language models behind an address: any server that speaks the OpenAI protocol."""

from __future__ import annotations

import collections
import email.utils
import json
import math
import os
import random
import re
import threading
import time
import urllib.parse
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from etude.errors import MissingExtra, Unavailable
from etude.language.model import Completion, LanguageModel, Message, Reply, Sampling, Usage, normalised, seed_of_sample

BASE_URL, API_KEY = "ETUDE_LLM_BASE_URL", "ETUDE_LLM_API_KEY"
_FIRST_DELAY, _LONGEST_DELAY, _LONGEST_RETRY_AFTER = 0.5, 30.0, 120.0
_TOP_LOGPROBS = 20
_TEXTS_A_REQUEST = 256
_HERE = ("localhost", "127.0.0.1", "::1")
_TRANSPORTS = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")

T = TypeVar("T")


class Endpoint(LanguageModel):
    """A model behind an OpenAI-compatible address, asked through the `openai` client.

    Several prompts are asked at once. Replies are streamed, so that a server that stalls is noticed. What may pass (no
    connection, time-outs, status 408, 409, 429 and 5xx, replies that break off or are none) is tried again after 0.5,
    1, 2, ... seconds, each shortened by up to a quarter at random, or after the server's Retry-After if it is at most
    120 s. The key is read from the environment when a request is made, and is in no log, error, recording or repr.

    Args:
        model: what the server calls the model.
        base_url: the server's address, such as ``"https://api.openai.com/v1"``; by default what ETUDE_LLM_BASE_URL
            says. It must carry no credentials.
        key_variable: name of the environment variable that holds the key. A server on this machine may need none.
        price: currency units per million (prompt, completion) tokens, from which `Usage.cost` is computed.
        concurrency: the most requests under way at once.
        requests_per_minute: start no more requests than this in any 60 seconds; None for no limit.
        tokens_per_minute: likewise for tokens. A request is counted with its longest possible reply, and its prompt by
            the bytes, until its reply says what it took.
        retries: tries after the first.
        connect_timeout: seconds until a connection must stand.
        stall_timeout: seconds without a byte after which a request is given up.
        timeout: seconds that one request may take in all.

    Raises:
        ValueError: an argument outside its range; an address that is none or carries credentials.
        MissingExtra: openai is not installed.
        Unavailable: no address or no key is given.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        key_variable: str = API_KEY,
        price: tuple[float, float] | None = None,
        concurrency: int = 8,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        retries: int = 5,
        connect_timeout: float = 10.0,
        stall_timeout: float = 60.0,
        timeout: float = 600.0,
    ) -> None:
        if not isinstance(model, str) or not model.strip():
            raise ValueError(f"model={model!r}: give the name by which the server knows the model")
        for name, count, least in (("concurrency", concurrency, 1), ("retries", retries, 0)):
            if not isinstance(count, int) or count < least:
                raise ValueError(f"{name}={count!r}: give an integer of at least {least}")
        positive = {"connect_timeout": connect_timeout, "stall_timeout": stall_timeout, "timeout": timeout}
        limits = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        for name, value in (positive | {name: value for name, value in limits.items() if value is not None}).items():
            if not isinstance(value, (int, float)) or not value > 0:
                raise ValueError(f"{name}={value!r}: give a number above 0")
        if price is not None and (len(price) != 2 or not all(0 <= each < math.inf for each in price)):
            raise ValueError(f"price={price!r}: give two numbers of at least 0, per million prompt and reply tokens")
        super().__init__(model)
        self.base_url = _address(base_url if base_url is not None else os.environ.get(BASE_URL, ""))
        self.key_variable = key_variable
        self.concurrency = concurrency
        self._price = price
        self._retries = retries
        self._timeout = timeout
        self._limiter = _Limiter(requests_per_minute, tokens_per_minute)
        self._n_at_once = True  # until the server says that it draws one sample a request
        self._length_field = "max_tokens"  # until the server says that it wants the newer name
        self._follows_grammars: bool | None = None
        self._key()
        openai = _openai()
        self._client = openai.OpenAI(
            api_key=self._key,  # a function, asked at each request
            base_url=self.base_url,
            max_retries=0,  # a reply that breaks off halfway is tried again here, and the rate limit counts each try
            timeout=openai.Timeout(stall_timeout, connect=connect_timeout),
        )

    def __repr__(self) -> str:
        return f"Endpoint({self.name!r}, {self.base_url!r})"

    def _key(self) -> str:
        key = os.environ.get(self.key_variable, "").strip()
        if not key and urllib.parse.urlsplit(self.base_url).hostname not in _HERE:
            raise Unavailable(
                f"no key for {self.base_url}", f"Put it into the environment variable {self.key_variable}"
            )
        return key or "none"

    # ---- what a language model does --------------------------------------------------------------------------------

    def _generate(
        self, prompts: Sequence[Sequence[Message]], n: int, sampling: Sampling
    ) -> Iterator[tuple[int, Reply]]:
        if sampling.grammar is not None:
            self._check_grammars()
        stop = threading.Event()
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="endpoint")
        failure: BaseException | None = None
        try:
            asked = {pool.submit(self._replied, messages, n, sampling, stop): i for i, messages in enumerate(prompts)}
            for done in as_completed(asked):
                if done.cancelled():
                    continue
                error = done.exception()
                if error is None:
                    yield asked[done], done.result()
                elif failure is None:
                    failure = error
                    for each in asked:  # what has not begun need not; what has been paid for is waited for
                        each.cancel()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
        if failure is not None:
            raise failure

    def _replied(self, messages: Sequence[Message], n: int, sampling: Sampling, stop: threading.Event) -> Reply:
        """n samples of one prompt, in one request where the server allows it."""
        completions: list[Completion] = []
        usage = Usage(calls=1)
        while len(completions) < n:
            several = n - len(completions) if self._n_at_once else 1
            try:
                drawn, used = self._chat(messages, several, sampling, len(completions), stop)
            except _OneAtATime:
                self._n_at_once = False
                continue
            completions += drawn[: n - len(completions)]
            usage += used
        return Reply(completions, usage)

    def _chat(
        self, messages: Sequence[Message], n: int, sampling: Sampling, drawn: int, stop: threading.Event
    ) -> tuple[list[Completion], Usage]:
        request: dict[str, Any] = {
            "messages": list(messages),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "n": n,
        }
        if sampling.stop:
            request["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            request["seed"] = seed_of_sample(sampling.seed, drawn)
        if sampling.logprobs:
            request["logprobs"] = True
        if sampling.schema is not None:
            schema = {"name": "reply", "schema": dict(sampling.schema), "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        if sampling.grammar is not None:
            request["extra_body"] = {"grammar": sampling.grammar}
        expected = sum(len(message["content"].encode()) for message in messages) // 4 + n * sampling.max_tokens

        def send() -> tuple[list[Completion], Usage]:
            start = time.perf_counter()
            length = {self._length_field: sampling.max_tokens}
            choices, counted = self._streamed({**request, **length}, stop)
            usage = self._usage(counted, time.perf_counter() - start)
            alone = usage.completion_tokens if len(choices) == 1 and counted else None
            completions = [choice.completion(alone, sampling.logprobs, self._scrub) for choice in choices]
            if sampling.schema is not None:
                _check_json(completions)
            return completions, usage

        return self._tried(send, expected, stop, of=lambda result: result[1])

    def _streamed(self, request: Mapping[str, Any], stop: threading.Event) -> tuple[list[_Choice], Any]:
        """The choices of a streamed reply, each with a reason why it ended, and the server's count of tokens."""
        deadline = time.monotonic() + self._timeout
        choices: dict[int, _Choice] = collections.defaultdict(_Choice)
        counted = None
        with self._client.chat.completions.create(
            model=self.name, stream=True, stream_options={"include_usage": True}, **request
        ) as stream:
            for chunk in stream:
                if stop.is_set():
                    raise _Stopped
                if time.monotonic() > deadline:
                    raise _TooLong(f"takes more than timeout={self._timeout:g} s")
                parts = getattr(chunk, "choices", None)
                if not isinstance(parts, list):
                    raise _Malformed("sends what is no part of a chat reply")
                for part in parts:
                    choices[getattr(part, "index", 0) or 0].add(part)
                counted = getattr(chunk, "usage", None) or counted
        if not choices:
            raise _Malformed("sends no reply")
        if not all(choice.finish for choice in choices.values()):
            raise _Malformed("breaks off in the middle of a reply")
        return [choices[index] for index in sorted(choices)], counted

    def _score(self, prompt: Sequence[Message], continuations: Sequence[str]) -> Reply:
        """By the older completions interface, which can echo a prompt with its log-probabilities."""
        if len(prompt) != 1 or prompt[0]["role"] != "user":
            raise Unavailable(
                f"{self.name} behind {self.base_url} scores plain texts only, and this prompt is a conversation",
                "Give one text, or score with a local model",
            )
        text = prompt[0]["content"]
        scores, usage = [], Usage(calls=1)
        for continuation in continuations:
            request = {"prompt": text + continuation, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0.0}

            def send(request: dict[str, Any] = request) -> tuple[Any, Usage]:
                start = time.perf_counter()
                answer = self._client.completions.create(model=self.name, **request)
                return answer, self._usage(getattr(answer, "usage", None), time.perf_counter() - start)

            expected = len(request["prompt"].encode()) // 4 + 1
            answer, used = self._tried(send, expected, threading.Event(), of=lambda result: result[1])
            usage += used
            scores.append(self._echoed(answer, text, continuation))
        return Reply(scores, usage)

    def _echoed(self, answer: Any, text: str, continuation: str) -> float:
        choice = next(iter(getattr(answer, "choices", None) or []), None)
        logprobs = getattr(choice, "logprobs", None)
        offsets, values = getattr(logprobs, "text_offset", None), getattr(logprobs, "token_logprobs", None)
        if not (offsets and values and len(offsets) == len(values) and choice.text.startswith(text + continuation)):
            raise Unavailable(
                f"{self.base_url} does not echo a prompt with its log-probabilities, so {self.name} cannot score",
                "Score with a local model, or use choose() for short options",
            )
        if len(text) not in offsets:
            raise ValueError(
                f"continuations: a token of {self.name} straddles the end of the prompt and {continuation!r:.40}; "
                "begin the continuation with a space, or end the prompt with a line break"
            )
        inside = [p for at, p in zip(offsets, values) if len(text) <= at < len(text) + len(continuation)]
        return float(sum(inside))

    def _choose(self, prompt: Sequence[Message], options: Sequence[str]) -> Reply:
        """From the likeliest first tokens of a reply. An option outside the list gets what its last entry has.

        That is the most the option can have. A token counts for an option that begins with it, and for no other.
        """
        request = {
            "messages": list(prompt),
            "temperature": 1.0,
            "logprobs": True,
            "top_logprobs": _TOP_LOGPROBS,
        }

        def send() -> tuple[list[tuple[str, float]], Usage]:
            start = time.perf_counter()
            stop = threading.Event()
            (choice, *_), counted = self._streamed({**request, self._length_field: 1}, stop)
            return choice.top, self._usage(counted, time.perf_counter() - start)

        expected = sum(len(message["content"].encode()) for message in prompt) // 4 + 1
        top, usage = self._tried(send, expected, threading.Event(), of=lambda result: result[1])
        if not top:
            raise Unavailable(
                f"{self.base_url} gives no log-probabilities for {self.name}", "Choose with a local model, or generate"
            )
        shares: dict[str, list[float]] = {option: [] for option in options}
        for token, logprob in top:
            begins = [option for option in options if token.strip() and option.startswith(token.strip())]
            if len(begins) == 1:
                shares[begins[0]].append(logprob)
        if not any(shares.values()):
            raise Unavailable(
                f"none of the options is among the {len(top)} likeliest first tokens of {self.name}",
                "Ask in the prompt for one of the options and nothing else",
            )
        least = min(logprob for _, logprob in top)
        return Reply(normalised([float(np.logaddexp.reduce(shares[o] or [least])) for o in options]), usage)

    def _embed(self, texts: Sequence[str]) -> Reply:
        vectors: list[Any] = []
        usage = Usage(calls=1)
        for first in range(0, len(texts), _TEXTS_A_REQUEST):
            part = list(texts[first : first + _TEXTS_A_REQUEST])

            def send(part: list[str] = part) -> tuple[list[Any], Usage]:
                start = time.perf_counter()
                answer = self._client.embeddings.create(model=self.name, input=part, encoding_format="float")
                found = {getattr(item, "index", None): item.embedding for item in getattr(answer, "data", None) or []}
                if found.keys() != set(range(len(part))):
                    raise _Malformed(f"sends {len(found)} vectors for {len(part)} texts")
                used = self._usage(getattr(answer, "usage", None), time.perf_counter() - start)
                return [found[i] for i in range(len(part))], used

            expected = sum(len(text.encode()) for text in part) // 4
            got, used = self._tried(send, expected, threading.Event(), of=lambda result: result[1])
            vectors += got
            usage += used
        return Reply(np.array(vectors, dtype=np.float32), usage)

    def _check_grammars(self) -> None:
        """Whether the server follows GBNF grammars, found once by one that allows a single word."""
        if self._follows_grammars is None:
            probe = Sampling(temperature=0.0, max_tokens=8, grammar='root ::= "zebra"')
            reply = self._replied([Message(role="user", content="Say hello.")], 1, probe, threading.Event())
            self.usage += reply.usage
            self._follows_grammars = reply.value[0].text == "zebra"
        if not self._follows_grammars:
            raise Unavailable(f"{self.base_url} does not follow GBNF grammars", "Give a schema=, or use a local model")

    # ---- requests --------------------------------------------------------------------------------------------------

    def _usage(self, counted: Any, seconds: float) -> Usage:
        """As `Usage` without the call, which is counted once a prompt."""
        read, sampled = getattr(counted, "prompt_tokens", None), getattr(counted, "completion_tokens", 0) or 0
        if not isinstance(read, int):
            warnings.warn(f"{self.base_url} does not say how many tokens a request took", stacklevel=2)
            return Usage(seconds=seconds, cost=None)
        cost = None if self._price is None else (read * self._price[0] + sampled * self._price[1]) / 1e6
        return Usage(0, read, sampled, seconds, cost)

    def _tried(self, send: Callable[[], T], tokens: int, stop: threading.Event, of: Callable[[T], Usage]) -> T:
        """What a request brings, after as many tries as it takes or are allowed."""
        for attempt in range(self._retries + 1):
            entry = self._limiter.wait(tokens, stop)
            try:
                result = send()
            except Exception as error:
                failure = self._failure(error)
                if failure is None:
                    raise
            else:
                entry.tokens = of(result).tokens or tokens
                return result
            if not failure.passing or attempt == self._retries:
                break
            delay = failure.after
            if delay is None:
                delay = min(_FIRST_DELAY * 2**attempt, _LONGEST_DELAY) * random.uniform(0.75, 1)
            if stop.wait(delay):
                break
        # Outside the handler: the client's exceptions hold the request with its headers, and must not be this one's
        # context.
        raise failure.error

    def _failure(self, error: Exception) -> _Failure | None:
        """What went wrong, in words without the key; None for an error of this program."""
        who = f"{self.name} behind {self.base_url}"
        if isinstance(error, _Stopped):
            return _Failure(Unavailable(f"{who} was not waited for", "Ask again"), passing=False)
        if isinstance(error, (_Malformed, json.JSONDecodeError, UnicodeDecodeError)):
            what = str(error) if isinstance(error, _Malformed) else "sends what is no JSON"
            remedy = "Ask again later, or check that the address is right"
            return _Failure(Unavailable(f"{who} {what}", remedy), passing=not isinstance(error, _TooLong))
        if type(error).__module__.partition(".")[0] not in _TRANSPORTS:
            return None
        status = getattr(error, "status_code", None)
        if status is None:
            what = self._scrub(str(error)) or type(error).__name__
            timed_out = "Timeout" in type(error).__name__
            what = "does not answer in time" if timed_out else f"cannot be reached or breaks off: {what}"
            return _Failure(Unavailable(f"{who} {what}", "Check the connection and the address, and ask again"))
        body = getattr(error, "body", None)
        told = body if isinstance(body, Mapping) else {}
        message = self._scrub(str(told.get("message") or error))[:500]
        if status == 400 and self._length_field == "max_tokens" and "max_completion_tokens" in message:
            self._length_field = "max_completion_tokens"
            return _Failure(Unavailable(f"{who} refuses: {message}", "Ask again"), after=0.0)
        if status == 400 and (told.get("param") == "n" or re.search(r"(field|parameter)?\s*['\"`]n['\"`]", message)):
            return _Failure(_OneAtATime(f"n: {who} draws one sample a request: {message}"), passing=False)
        if status in (400, 413, 422):
            return _Failure(ValueError(f"{_argument(message, told)}: {who} refuses: {message}"), passing=False)
        if status in (401, 403):
            remedy = f"Put a key that it accepts into the environment variable {self.key_variable}"
            return _Failure(Unavailable(f"{who} refuses the key ({status}: {message})", remedy), passing=False)
        if status in (404, 405, 501):
            remedy = "Check the model's name, what it can do, and the address, which usually ends in /v1"
            return _Failure(Unavailable(f"{who} does not offer this ({status}: {message})", remedy), passing=False)
        wait = _retry_after(getattr(error, "response", None))
        spent = told.get("code") == "insufficient_quota"
        passing = (status in (408, 409, 429) or status >= 500) and not spent and (wait or 0) <= _LONGEST_RETRY_AFTER
        remedy = "Ask again later" if wait is None else f"Ask again after {wait:.0f} s"
        return _Failure(Unavailable(f"{who} answers {status}: {message}", remedy), passing, wait)

    def _scrub(self, text: str) -> str:
        """A server's words without the key, should it say it back."""
        key = os.environ.get(self.key_variable, "").strip()
        for form in {key, urllib.parse.quote(key, safe=""), json.dumps(key)[1:-1]} if key else ():
            text = text.replace(form, "[key]")
        return text


@dataclass
class _Choice:
    """One sample of a reply as its parts arrive."""

    text: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[tuple[str, float]] = field(default_factory=list)
    finish: str | None = None

    def add(self, part: Any) -> None:
        delta = getattr(part, "delta", None)
        content = getattr(delta, "content", None)
        if delta is None or not (content is None or isinstance(content, str)):
            raise _Malformed("sends what is no part of a chat reply")
        self.text.append(content or "")
        for token in getattr(getattr(part, "logprobs", None), "content", None) or []:
            if not self.logprobs:
                self.top = [(each.token, each.logprob) for each in token.top_logprobs or []]
            self.logprobs.append(token.logprob)
        self.finish = getattr(part, "finish_reason", None) or self.finish

    def completion(self, n_tokens: int | None, wanted: bool, scrub: Callable[[str], str]) -> Completion:
        logprob = float(sum(self.logprobs)) if wanted and self.logprobs else None
        n_tokens = n_tokens if n_tokens is not None else len(self.logprobs) or None
        return Completion(scrub("".join(self.text)), n_tokens, logprob, "length" if self.finish == "length" else "stop")


@dataclass
class _Failure:
    error: Exception
    passing: bool = True
    after: float | None = None


class _Malformed(Exception):
    """An answer that is none; says what the server does."""


class _TooLong(_Malformed):
    """A reply that would take as long again."""


class _Stopped(Exception):
    """Nobody waits for the reply any more."""


class _OneAtATime(ValueError):
    """The server refuses n > 1."""


@dataclass
class _Entry:
    at: float
    tokens: float


class _Limiter:
    """Starts requests so that no 60 seconds see more of them, or of tokens, than allowed."""

    def __init__(self, requests: float | None, tokens: float | None) -> None:
        self._requests, self._tokens = requests or math.inf, tokens or math.inf
        self._recent: collections.deque[_Entry] = collections.deque()
        self._lock = threading.Lock()

    def wait(self, tokens: float, stop: threading.Event) -> _Entry:
        """Wait for a place, take it, and return it, so that the tokens can be corrected afterwards."""
        while True:
            with self._lock:
                now = time.monotonic()
                while self._recent and self._recent[0].at <= now - 60:
                    self._recent.popleft()
                # A request larger than the limit itself goes alone.
                used = sum(entry.tokens for entry in self._recent)
                if not self._recent or (len(self._recent) < self._requests and used + tokens <= self._tokens):
                    entry = _Entry(now, tokens)
                    if math.isfinite(min(self._requests, self._tokens)):
                        self._recent.append(entry)
                    return entry
                delay = self._recent[0].at + 60 - now
            if stop.wait(min(delay, 1.0)):
                return _Entry(0.0, 0.0)


def _check_json(completions: Sequence[Completion]) -> None:
    for completion in completions:
        if completion.finish == "stop":
            try:
                json.loads(completion.text)
            except ValueError:
                raise _Malformed("does not follow the schema") from None


def _argument(message: str, told: Mapping[str, Any]) -> str:
    """Which of our arguments a server complains of."""
    if "exceed_context" in str(told.get("type")) or "context" in message:
        return "prompt"
    return next((name for name in ("grammar", "schema") if name in message), str(told.get("param") or "request"))


def _retry_after(response: Any) -> float | None:
    """Seconds that a response asks to wait, or None."""
    headers = getattr(response, "headers", None) or {}
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            value = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= value < math.inf:
            return value
    try:
        return max(0.0, email.utils.parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _address(base_url: str) -> str:
    if not base_url.strip():
        raise Unavailable(
            "no endpoint is configured",
            f"Give base_url=, or set the environment variable {BASE_URL}, for example to https://api.openai.com/v1",
        )
    parts = urllib.parse.urlsplit(base_url.strip())
    if parts.username or parts.password or parts.query or parts.fragment:
        # What was given is not repeated: it may hold the key.
        raise ValueError("base_url carries credentials or a query: give the address alone, and the key by environment")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base_url={base_url!r}: give an address such as https://api.openai.com/v1")
    return base_url.strip().rstrip("/")


def _openai() -> Any:
    try:
        import openai
    except ImportError:
        raise MissingExtra("openai is not installed", 'pip install "etude[llm]"') from None
    return openai
