"""One interface to every language model: generate, score, choose and embed, each call accounted for.

A back end subclasses `LanguageModel` and fills in `_generate`, `_score` and `_embed`. What is given to a model is
checked here, once, before any back end sees it.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import numpy as np
from jaxtyping import Float

from etude.errors import Unavailable

ROLES = ("system", "user", "assistant")


class Message(TypedDict):
    """One turn of a conversation: who speaks, and what is said."""

    role: Literal["system", "user", "assistant"]
    content: str


Prompt = str | Sequence[Message]
"""A text, which is one message of the user, or a conversation."""


@dataclass(frozen=True)
class Completion:
    """One sampled reply.

    Attributes:
        text: the reply, without the stop text that ended it.
        n_tokens: tokens sampled for it, the one that ended it included; None where a server does not say.
        logprob: log-probability of the sampled tokens under the model itself (temperature 1, no grammar, no top-p);
            None where it was not asked for or the back end has none.
        finish: ``"stop"`` where the model or a stop text ended it, ``"length"`` where `max_tokens` did.
    """

    text: str
    n_tokens: int | None = None
    logprob: float | None = None
    finish: Literal["stop", "length"] = "stop"


@dataclass(frozen=True)
class Sampling:
    """How replies are drawn.

    Attributes:
        temperature: what logits are divided by, at least 0; 0 takes the most probable token.
        top_p: sample from the smallest set of tokens with this probability, in (0, 1].
        max_tokens: the most tokens of one reply, at least 1.
        stop: texts that end a reply.
        seed: an integer in [0, 2**31) that makes a local model's replies a function of prompt and sampling (an endpoint
            may ignore it); None for fresh ones each time.
        grammar: a GBNF grammar that replies must follow.
        schema: a JSON schema that replies must follow.
        logprobs: also compute the log-probability of each reply, which costs some time.

    Raises:
        TypeError, ValueError: a value of another kind or range, named.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int | None = None
    grammar: str | None = None
    schema: Mapping[str, Any] | None = None
    logprobs: bool = False

    def __post_init__(self) -> None:
        if not _is_number(self.temperature) or not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature!r}: give a number of at least 0")
        if not _is_number(self.top_p) or not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p!r}: give a number in (0, 1]")
        _check_count("max_tokens", self.max_tokens)
        if isinstance(self.stop, str) or not isinstance(self.stop, Sequence):
            raise TypeError(f"stop={self.stop!r}: give a tuple of texts")
        if not all(isinstance(text, str) and text for text in self.stop):
            raise ValueError(f"stop={self.stop!r}: each must be a text that is not empty")
        object.__setattr__(self, "stop", tuple(self.stop))
        if self.seed is not None and (not _is_integer(self.seed) or not 0 <= self.seed < 2**31):
            raise ValueError(f"seed={self.seed!r}: give None or an integer from 0 to 2**31 - 1")
        if self.grammar is not None and not (isinstance(self.grammar, str) and self.grammar.strip()):
            raise ValueError(f"grammar={self.grammar!r}: give the text of a GBNF grammar with a rule 'root', or None")
        if self.schema is not None and not isinstance(self.schema, Mapping):
            raise TypeError(f"schema is a {type(self.schema).__name__}: give a JSON schema as a dict, or None")
        if self.grammar is not None and self.schema is not None:
            raise ValueError("grammar and schema are both given: a reply can follow only one")
        # One way to write each number, so that equal requests have equal keys.
        for name, kind in (("temperature", float), ("top_p", float), ("max_tokens", int)):
            object.__setattr__(self, name, kind(getattr(self, name)))
        if self.seed is not None:
            object.__setattr__(self, "seed", int(self.seed))


@dataclass(frozen=True)
class Usage:
    """What calls took. Two of them add and subtract: ``model.usage - before`` is what was used since.

    Attributes:
        calls: requests answered. Generating n samples for one prompt, scoring one prompt's continuations and embedding
            one list of texts are one each.
        prompt_tokens: tokens read.
        completion_tokens: tokens sampled.
        seconds: time spent waiting, summed over requests (of which several may have run at once).
        cost: in the currency of the price that was given; None where a price is not known.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cost: float | None = 0.0

    @property
    def tokens(self) -> int:
        """Tokens read and sampled."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return self._combined(other, 1)

    def __sub__(self, other: Usage) -> Usage:
        return self._combined(other, -1)

    def _combined(self, other: Usage, sign: int) -> Usage:
        return Usage(
            self.calls + sign * other.calls,
            self.prompt_tokens + sign * other.prompt_tokens,
            self.completion_tokens + sign * other.completion_tokens,
            self.seconds + sign * other.seconds,
            None if self.cost is None or other.cost is None else self.cost + sign * other.cost,
        )


@dataclass(frozen=True)
class Reply:
    """What a back end answers to one request.

    Attributes:
        value: completions (`generate`), log-probabilities (`score`, `choose`) or vectors (`embed`).
        usage: what it took, or had taken when it was recorded.
        replayed: whether it comes from a recording.
    """

    value: Any
    usage: Usage
    replayed: bool = False


class LanguageModel(ABC):
    """A language model, wherever it runs.

    A back end implements `_generate`, and `_score` and `_embed` if it can, and is handed arguments that were checked.

    Args:
        name: what recordings and reports call the model.

    Attributes:
        name: what recordings and reports call the model.
        usage: `Usage` of everything asked so far, replayed answers included, so that a budget of tokens runs out at the
            same call whether answers are fresh or replayed.
        replayed: the part of `usage` that was replayed from a recording.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.usage = Usage()
        self.replayed = Usage()

    @property
    def paid(self) -> Usage:
        """The part of `usage` that this object really spent."""
        return self.usage - self.replayed

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 256,
        stop: Sequence[str] = (),
        seed: int | None = None,
        grammar: str | None = None,
        schema: Mapping[str, Any] | None = None,
        logprobs: bool = False,
    ) -> list[list[Completion]]:
        """Sample n replies to each prompt.

        Args:
            prompts: texts or conversations. If a conversation ends with a message of the assistant, the reply continues
                it (an endpoint may not support that).
            n: replies to each prompt, at least 1.
            temperature: as in `Sampling`, and so are `top_p`, `max_tokens`, `stop`, `seed`, `grammar`, `schema` and
                `logprobs`.
            top_p: see `Sampling`.
            max_tokens: see `Sampling`.
            stop: see `Sampling`.
            seed: see `Sampling`. Equal prompts with one seed get equal replies; the n replies to one prompt differ.
            grammar: see `Sampling`.
            schema: see `Sampling`.
            logprobs: see `Sampling`.

        Returns:
            For each prompt its n completions.

        Raises:
            TypeError, ValueError: an argument of another kind or range; a grammar that does not compile; a prompt
                longer than the model's context.
            Unavailable: the model cannot be reached.
        """
        sampling = Sampling(temperature, top_p, max_tokens, _as_tuple(stop), seed, grammar, schema, logprobs)
        return self.sample(prompts, sampling, n=n)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, n: int = 1) -> list[list[Completion]]:
        """`generate` with its sampling arguments in one object.

        Args:
            prompts: as for `generate`.
            sampling: how replies are drawn.
            n: as for `generate`.
        """
        if isinstance(prompts, (str, Mapping)) or not isinstance(prompts, Sequence):
            raise TypeError(f"prompts is a {type(prompts).__name__}: give a list of prompts")
        checked = [conversation(prompt, f"prompts[{i}]") for i, prompt in enumerate(prompts)]
        _check_count("n", n)
        if not isinstance(sampling, Sampling):
            raise TypeError(f"sampling is a {type(sampling).__name__}: give a Sampling")
        found: dict[int, list[Completion]] = {}
        for index, reply in self._generate(checked, n, sampling):
            found[index] = self._accounted(reply)
        return [found[index] for index in range(len(checked))]

    def score(self, prompt: Prompt, continuations: Sequence[str]) -> list[float]:
        """Log-probability of each continuation as the beginning of the reply to a prompt.

            log p(c | prompt) = sum_t log p(c_t | prompt, c_1, ..., c_{t-1}),

        over the tokens of c, without the token that ends a reply. It is the model's own probability: temperature 1, no
        grammar.

        Args:
            prompt: a text or a conversation, as for `generate`.
            continuations: texts that are not empty.

        Returns:
            One number, at most 0, a continuation.

        Raises:
            TypeError, ValueError: an argument of another kind.
            Unavailable: the back end offers no log-probabilities of given text.
        """
        messages = conversation(prompt, "prompt")
        return self._accounted(self._score(messages, _texts("continuations", continuations)))

    def choose(self, prompt: Prompt, options: Sequence[str]) -> list[float]:
        """Log-probabilities of a few short replies, normalised over them: what a judge that answers A or B prefers.

        Args:
            prompt: a text or a conversation that asks for one of the options.
            options: at least two different short texts, such as ``["A", "B"]``.

        Returns:
            One log-probability an option; their exponentials sum to 1.

        Raises:
            TypeError, ValueError: an argument of another kind.
            Unavailable: the back end offers no log-probabilities.
        """
        messages = conversation(prompt, "prompt")
        checked = _texts("options", options)
        if len(checked) < 2 or len(set(checked)) < len(checked):
            raise ValueError(f"options={list(options)!r}: give at least two, all different")
        return self._accounted(self._choose(messages, checked))

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "texts dim"]:
        """One vector a text, as long as the model makes it.

        Args:
            texts: texts that are not empty.

        Returns:
            float32 [texts, dim].

        Raises:
            TypeError, ValueError: an argument of another kind.
            Unavailable: the back end has no embeddings.
        """
        return self._accounted(self._embed(_texts("texts", texts)))

    # ---- what a back end fills in ------------------------------------------------------------------------------------

    @abstractmethod
    def _generate(
        self, prompts: Sequence[Sequence[Message]], n: int, sampling: Sampling
    ) -> Iterator[tuple[int, Reply]]:
        """Yield (number of the prompt, reply with its n completions) as they come, in any order.

        An error is raised after every reply that was completed has been yielded: none that was paid for is lost.
        """

    def _score(self, prompt: Sequence[Message], continuations: Sequence[str]) -> Reply:
        """The reply whose value is one log-probability a continuation."""
        raise Unavailable(f"{self.name} offers no log-probabilities of given texts", "Use a local model for scoring")

    def _choose(self, prompt: Sequence[Message], options: Sequence[str]) -> Reply:
        """The reply whose value is one normalised log-probability an option."""
        scored = self._score(prompt, options)
        return Reply(normalised(scored.value), scored.usage, scored.replayed)

    def _embed(self, texts: Sequence[str]) -> Reply:
        """The reply whose value is float32 [texts, dim]."""
        raise Unavailable(f"{self.name} offers no embeddings", "Use a local model, or an endpoint that has them")

    def _accounted(self, reply: Reply) -> Any:
        self.usage += reply.usage
        if reply.replayed:
            self.replayed += reply.usage
        return reply.value


def conversation(prompt: Prompt, name: str = "prompt") -> tuple[Message, ...]:
    """A prompt as messages.

    Args:
        prompt: a text, or messages.
        name: what errors call the prompt.

    Raises:
        TypeError: neither a text nor a sequence of messages.
        ValueError: an empty text or conversation, another role, or keys other than role and content.
    """
    if isinstance(prompt, str):
        if not prompt.strip():
            raise ValueError(f"{name} is empty: give a text or messages")
        return (Message(role="user", content=prompt),)
    if isinstance(prompt, Mapping) or not isinstance(prompt, Sequence):
        raise TypeError(f"{name} is a {type(prompt).__name__}: give a text or a list of messages")
    if not prompt:
        raise ValueError(f"{name} is empty: give a text or messages")
    for i, message in enumerate(prompt):
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            raise ValueError(f"{name}[{i}]={message!r:.80}: a message has the keys 'role' and 'content'")
        if message["role"] not in ROLES:
            raise ValueError(f"{name}[{i}]: role={message['role']!r}: give one of {', '.join(map(repr, ROLES))}")
        if not isinstance(message["content"], str):
            raise TypeError(f"{name}[{i}]: content is a {type(message['content']).__name__}: give a text")
    return tuple(Message(role=message["role"], content=message["content"]) for message in prompt)


def seed_of_sample(seed: int, sample: int) -> int:
    """The seed of one of n samples: the seed itself for the first, unrelated ones for the others.

    Numbers counted up from the seed would make sample 1 of seed 0 the same as sample 0 of seed 1.

    Args:
        seed: the seed of the request, in [0, 2**31).
        sample: number of the sample, from 0.
    """
    if sample == 0:
        return int(seed)
    return int.from_bytes(hashlib.sha256(f"{seed}/{sample}".encode()).digest()[:4], "little") >> 1


def normalised(logprobs: Sequence[float]) -> list[float]:
    """Log-probabilities shifted so that their exponentials sum to 1.

    Args:
        logprobs: at least one of them finite.
    """
    total = float(np.logaddexp.reduce(np.asarray(logprobs, dtype=float)))
    return [float(value - total) for value in logprobs]


def _texts(name: str, texts: Sequence[str]) -> tuple[str, ...]:
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise TypeError(f"{name} is a {type(texts).__name__}: give a list of texts")
    if not texts:
        raise ValueError(f"{name} is empty: give at least one text")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{i}] is a {type(text).__name__}: give a text")
        if not text:
            raise ValueError(f"{name}[{i}] is empty")
    return tuple(texts)


def _as_tuple(stop: Sequence[str]) -> Any:
    return tuple(stop) if isinstance(stop, list) else stop


def _check_count(name: str, value: Any) -> None:
    if not _is_integer(value) or value < 1:
        raise ValueError(f"{name}={value!r}: give an integer of at least 1")


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
