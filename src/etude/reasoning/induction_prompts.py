"""The prompts by which a language model proposes rules, programs, repairs and answers for an induction task."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from etude.language.model import LanguageModel, Message, Usage

if TYPE_CHECKING:
    from etude.data.induction import InductionProblem, InductionTask
    from etude.reasoning.hypothesis_search import Attempt

COLOURS = "0: black, 1: blue, 2: red, 3: green, 4: yellow, 5: grey, 6: fuchsia, 7: orange, 8: teal, 9: brown"
ABOUT = {
    "grid": (
        "You will be given pairs of input grids and output grids. A grid is a matrix of numbers that stand for colours "
        f"({COLOURS}). In every pair the output follows from the input by one single pattern. The pattern may involve "
        "counting or sorting objects, comparing shapes or numbers, lines, symmetry, rotation, scaling, containment, "
        "connecting points, or copying; black is the background. "
    ),
    "list": (
        "You will be given pairs of input lists and output lists of whole numbers. In every pair the output follows "
        "from the input by one single rule. "
    ),
    "string": (
        "You will be given pairs of inputs and outputs. In every pair the output follows from the input by one single "
        "rule. "
    ),
}
SIGNATURE = {
    "grid": "def transform_grid(input_grid: np.ndarray) -> np.ndarray:",
    "list": "def transform(numbers: list[int]) -> list[int]:",
    "string": "def transform(text):",
}


class TooLong(Exception):
    """A prompt does not fit into the model's context: the task counts as not solved."""


class LanguageModelProposer:
    """A language model behind prompts, as a `Proposer`.

    Args:
        lm: the model.
        shots: solved tasks with a description of their rule, shown before the task in the prompt for hypotheses.
        hypothesis_tokens: the most tokens of a hypothesis.
        program_tokens: the most tokens of a program.

    Attributes:
        usage: the model's.

    Source: Wang et al., ICLR 2024, appendix A; the wording is ours.
    """

    def __init__(
        self,
        lm: LanguageModel,
        *,
        shots: Sequence[tuple[InductionTask, str]] = (),
        hypothesis_tokens: int = 300,
        program_tokens: int = 1000,
    ) -> None:
        self.lm, self.shots = lm, tuple(shots)
        self.hypothesis_tokens, self.program_tokens = hypothesis_tokens, program_tokens

    @property
    def usage(self) -> Usage:
        """The model's."""
        return self.lm.usage

    def hypotheses(self, problem: InductionProblem, n: int, *, temperature: float, seed: int) -> list[str]:
        """Draw n rules in words."""
        system = (
            f"{ABOUT[problem.kind]}Find the pattern and describe it in words, so that somebody who sees only the input "
            "can make the output. Answer with one paragraph that starts with 'Rule:'."
        )
        turns = [_turn("system", system)]
        for task, rule in self.shots:
            turns += [_turn("user", pairs(task.problem)), _turn("assistant", f"Rule: {rule}")]
        turns.append(_turn("user", pairs(problem)))
        return [_after(text, "Rule:") for text in self._draw(turns, n, temperature, seed, self.hypothesis_tokens)]

    def summarise(self, problem: InductionProblem, hypotheses: list[str], n: int) -> list[str]:
        """Reduce rules to at most n, by one greedy reply."""
        listed = "\n".join(f"{number}. {text}" for number, text in enumerate(hypotheses, start=1))
        asked = (
            f"{pairs(problem)}\n\nThese rules were proposed:\n{listed}\n\nGroup them into {n} kinds, and write for "
            f"each kind one rule that can be understood by itself. Answer with a list numbered 1 to {n}."
        )
        turns = [_turn("system", ABOUT[problem.kind]), _turn("user", asked)]
        (text,) = self._draw(turns, 1, 0.0, 0, self.program_tokens)
        return [rule.strip() for rule in re.findall(r"^\s*\d+[.)]\s*(.+)$", text, re.M)][:n]

    def programs(
        self, problem: InductionProblem, hypotheses: Sequence[str | None], n: int, *, temperature: float, seed: int
    ) -> list[list[str]]:
        """Draw n programs for each hypothesis."""
        found = []
        for number, hypothesis in enumerate(hypotheses):
            turns = self._implement(problem, hypothesis)
            replies = self._draw(turns, n, temperature, seed + number, self.program_tokens)
            found.append([code(reply) for reply in replies])
        return found

    def repairs(
        self, problem: InductionProblem, attempts: Sequence[Attempt], *, temperature: float, seed: int
    ) -> list[str]:
        """Draw one corrected program for each attempt, of which the model sees the last only."""
        found = []
        for number, attempt in enumerate(attempts):
            turns = [
                *self._implement(problem, attempt.hypothesis),
                _turn("assistant", f"```python\n{attempt.source}\n```"),
                _turn("user", f"The program is not right. {attempt.feedback}\n\nWrite the corrected program."),
            ]
            (reply,) = self._draw(turns, 1, temperature, seed + number, self.program_tokens)
            found.append(code(reply))
        return found

    def answers(self, problem: InductionProblem, n: int, *, temperature: float, seed: int) -> list[list[Any]]:
        """Draw n times an output for each test input."""
        columns = []
        for number, value in enumerate(problem.inputs):
            asked = f"{pairs(problem)}\n\nInput: {json.dumps(value)}\nAnswer with the output alone, as JSON."
            turns = [_turn("system", ABOUT[problem.kind]), _turn("user", asked)]
            columns.append(
                [_json(text) for text in self._draw(turns, n, temperature, seed + number, self.program_tokens)]
            )
        return [list(row) for row in zip(*columns)]

    def _implement(self, problem: InductionProblem, hypothesis: str | None) -> list[Message]:
        hint = f"\n\nA hint, which may be wrong: {hypothesis}" if hypothesis else ""
        numpy = " Use numpy (as np) where it helps." if problem.kind == "grid" else ""
        asked = (
            f"{pairs(problem)}{hint}\n\nWrite a Python function that makes the output from the input, for these pairs "
            f"and for new inputs:\n{SIGNATURE[problem.kind]}\nAnswer with one code block.{numpy}"
        )
        return [_turn("system", ABOUT[problem.kind]), _turn("user", asked)]

    def _draw(self, turns: list[Message], n: int, temperature: float, seed: int, tokens: int) -> list[str]:
        # Seeds may run on where a search adds to them; a model takes those below 2**31.
        try:
            (replies,) = self.lm.generate([turns], n=n, temperature=temperature, max_tokens=tokens, seed=seed % 2**31)
        except ValueError as error:
            if "context" not in str(error):
                raise
            raise TooLong(str(error)) from error
        return [reply.text for reply in replies]


def pairs(problem: InductionProblem) -> str:
    """The training pairs as text.

    Args:
        problem: the task.
    """
    blocks = [
        f"Pair {number}\nInput:\n{shown(x)}\nOutput:\n{shown(y)}"
        for number, (x, y) in enumerate(problem.train, start=1)
    ]
    return "\n\n".join(blocks)


def shown(value: Any) -> str:
    """A value as a prompt shows it: a grid row by row, anything else as JSON.

    Args:
        value: JSON data.
    """
    if isinstance(value, list) and value and all(isinstance(row, list) for row in value):
        return "[" + "\n ".join(json.dumps(row) for row in value) + "]"
    return json.dumps(value)


def code(reply: str) -> str:
    """The program in a reply: its last code block, or all of it where there is none.

    Args:
        reply: what a model wrote.
    """
    blocks = re.findall(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", reply, re.S)
    return (blocks[-1] if blocks else reply).strip("\n")


def _turn(role: Any, content: str) -> Message:
    return Message(role=role, content=content)


def _after(text: str, mark: str) -> str:
    return text.rpartition(mark)[2].strip()


def _json(text: str) -> Any:
    """The last JSON array or text in a reply, None where there is none."""
    decoder = json.JSONDecoder()
    for start in [match.start() for match in re.finditer(r'[\["]', text)]:
        try:
            return decoder.raw_decode(text, start)[0]
        except ValueError:
            continue
    return None
