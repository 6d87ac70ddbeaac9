"""A language model that answers as a test tells it to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from etude.language.model import Completion, LanguageModel, Message, Prompt, Reply, Sampling, Usage


class ScriptedModel(LanguageModel):
    """Reply k to a prompt is ``reply(prompt, k)``; a continuation's score is ``score(prompt, continuation)``.

    A prompt of one user message is handed over as its text, any other as its messages. Tokens are counted as words.
    What was asked is kept: `prompts` in the order asked, and `samplings`, one a call.
    """

    def __init__(
        self,
        reply: Callable[[Prompt, int], str],
        score: Callable[[Prompt, str], float] | None = None,
        name: str = "scripted",
    ) -> None:
        super().__init__(name)
        self.prompts: list[Prompt] = []
        self.samplings: list[Sampling] = []
        self._reply, self._scored = reply, score

    def _generate(
        self, prompts: Sequence[Sequence[Message]], n: int, sampling: Sampling
    ) -> Iterator[tuple[int, Reply]]:
        self.samplings.append(sampling)
        for i, messages in enumerate(prompts):
            prompt = _as_given(messages)
            self.prompts.append(prompt)
            texts = [self._reply(prompt, k) for k in range(n)]
            completions = [Completion(text, len(text.split())) for text in texts]
            yield i, Reply(completions, Usage(1, _words(messages), sum(len(text.split()) for text in texts)))

    def _score(self, prompt: Sequence[Message], continuations: Sequence[str]) -> Reply:
        given = _as_given(prompt)
        self.prompts.append(given)
        score = self._scored or (lambda _, text: math.log(0.5) * len(text))
        return Reply([score(given, text) for text in continuations], Usage(1, _words(prompt)))


def _as_given(messages: Sequence[Message]) -> Prompt:
    return messages[0]["content"] if len(messages) == 1 and messages[0]["role"] == "user" else messages


def _words(messages: Sequence[Message]) -> int:
    return sum(len(message["content"].split()) for message in messages)
