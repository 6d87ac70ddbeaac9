"""Inductive reasoning by search: hypotheses in words, programs, execution, repair; and what it is compared with.

A task gives a few inputs with their outputs. A proposer, which is a language model or any object with the methods of
`Proposer`, suggests rules h in words and programs f for them. Programs run in a sandbox; the likelihood of a program
is 1 if f(x_i) = y_i for every training pair and else 0, so the first program that reproduces all pairs is the answer,
and its output for the test input the prediction. Whatever is returned says whether it was verified in this way.

Source: Wang, Zelikman, Poesia, Pu, Haber and Goodman, ICLR 2024 (arXiv 2309.05660), section 2.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from etude.data.induction import InductionProblem, Kind
from etude.language.model import LanguageModel, Usage
from etude.reasoning.induction_prompts import LanguageModelProposer, TooLong, shown
from etude.sandbox import Result, Sandbox, same

Filter = Literal["summarise", "cluster", "rank"] | Callable[[InductionProblem, list[str]], list[str]] | None
FILTERS = ("summarise", "cluster", "rank")

ENTRIES: dict[Kind, str] = {"grid": "transform_grid", "list": "transform", "string": "transform"}
"""The name of the function that a program defines."""


@dataclass(frozen=True)
class Attempt:
    """A program that is not right, and what is known of its failure.

    Attributes:
        source: the program.
        hypothesis: the rule it implements, None without one.
        feedback: its error, or the first training pair it gets wrong.
    """

    source: str
    hypothesis: str | None
    feedback: str


@runtime_checkable
class Proposer(Protocol):
    """What proposes: a language model behind prompts (`LanguageModelProposer`), or networks trained for it.

    Attributes:
        usage: what was used so far; only its tokens are read.
    """

    usage: Usage

    def hypotheses(self, problem: InductionProblem, n: int, *, temperature: float, seed: int) -> list[str]:
        """Draw n rules in words."""

    def summarise(self, problem: InductionProblem, hypotheses: list[str], n: int) -> list[str]:
        """Reduce rules to at most n."""

    def programs(
        self, problem: InductionProblem, hypotheses: Sequence[str | None], n: int, *, temperature: float, seed: int
    ) -> list[list[str]]:
        """Draw n programs for each hypothesis, None standing for none."""

    def repairs(
        self, problem: InductionProblem, attempts: Sequence[Attempt], *, temperature: float, seed: int
    ) -> list[str]:
        """Draw one corrected program for each attempt."""

    def answers(self, problem: InductionProblem, n: int, *, temperature: float, seed: int) -> list[list[Any]]:
        """Draw n times an output for each test input, None for one that cannot be read."""


@dataclass(frozen=True)
class Budget:
    """What solving one task may take; whoever reaches it answers with what there is.

    Args:
        replies: samples drawn from the proposer (hypotheses, summaries, programs, repairs, answers).
        tokens: tokens it read and wrote.
        executions: programs run.

    Raises:
        ValueError: a budget that is not above 0.
    """

    replies: int | None = None
    tokens: int | None = None
    executions: int | None = None

    def __post_init__(self) -> None:
        for name in ("replies", "tokens", "executions"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value <= 0):
                raise ValueError(f"budget: {name}={value!r} was given; a whole number above 0, or None, is accepted")


@dataclass
class Spending:
    """What solving one task took.

    Attributes:
        replies: samples drawn.
        repairs: those of them that were repairs.
        tokens: tokens read and written.
        executions: programs run on the training inputs.
    """

    replies: int = 0
    repairs: int = 0
    tokens: int = 0
    executions: int = 0


@dataclass(frozen=True)
class Candidate:
    """A program that was tried.

    Attributes:
        source: the program.
        hypothesis: the rule it implements, None without one.
        hypothesis_number: which of the kept rules, 0 without any.
        results: one result a training input.
        passed: training pairs it gets right.
        round: 0, or the round of feedback that made it.
    """

    source: str
    hypothesis: str | None
    hypothesis_number: int
    results: tuple[Result, ...]
    passed: int
    round: int = 0

    @property
    def verified(self) -> bool:
        """Whether it reproduces every training pair."""
        return self.passed == len(self.results)

    @property
    def behaviour(self) -> str:
        """Its outputs and errors on the training inputs, as a text."""
        return _behaviour(self.results)


@dataclass(frozen=True)
class Solution:
    """What a solver came to.

    Attributes:
        status: ``"verified"``: the program reproduces all training pairs; ``"fall-back"``: the best there was;
            ``"none"``: no prediction.
        predictions: one output a test input (None where the program failed), or None.
        program: the program; None for direct answers or none.
        hypothesis: the rule it implements.
        train_passed: training pairs the program gets right.
        behaviours: how many different predictions the verified programs found make. More than 1 means that the
            training pairs do not settle the test.
        hypotheses: the rules kept by the filter, or all.
        trace: every program tried, in order.
        spending: what it took.
    """

    status: Literal["verified", "fall-back", "none"]
    predictions: list[Any] | None = None
    program: str | None = None
    hypothesis: str | None = None
    train_passed: int = 0
    behaviours: int = 0
    hypotheses: tuple[str, ...] = ()
    trace: tuple[Candidate, ...] = ()
    spending: Spending = field(default_factory=Spending)

    @property
    def verified(self) -> bool:
        """Whether the program reproduces all training pairs."""
        return self.status == "verified"


def executable(source: str, kind: Kind) -> str:
    """A program with what it may take for granted: ``np``, ``scipy.ndimage``, ``Counter``, ``math``.

    For grids the entry is wrapped: it gets an array, and its answer is cast to whole numbers.

    Args:
        source: what defines ``transform_grid`` (grids) or ``transform``.
        kind: of the task.

    Source: section 3.1, and the cast rule of the paper's scoring.
    """
    if kind != "grid":
        return f"import math, itertools, re; from collections import Counter, defaultdict\n{source}\n"
    head = "import math; import numpy as np; import scipy; import scipy.ndimage; from collections import Counter\n"
    tail = "\ndef called(grid):\n    return np.asarray(transform_grid(np.array(grid))).astype(int).tolist()\n"
    return head + source + tail


def run_programs(
    programs: Sequence[str], inputs: Sequence[Any], sandbox: Sandbox, *, kind: Kind = "list", together: bool = False
) -> list[list[Result]]:
    """Run programs on the same inputs.

    Args:
        programs: sources.
        inputs: inputs, at least one.
        sandbox: where they run.
        kind: of the task they are for.
        together: as for `Sandbox.run_each`.

    Returns:
        For each program one result an input.
    """
    entry = "called" if kind == "grid" else ENTRIES[kind]
    sources = [executable(program, kind) for program in programs]
    return sandbox.run_each(sources, entry, list(inputs), together=together)


def behaviour_clusters(
    programs: Sequence[str], inputs: Sequence[Any], sandbox: Sandbox, *, kind: Kind = "list", together: bool = False
) -> list[list[int]]:
    """Groups of programs that do the same on all inputs: equal outputs, or the same error.

    Args:
        programs: sources.
        inputs: inputs, at least one.
        sandbox: where they run.
        kind: of the task they are for.
        together: as for `Sandbox.run_each`.

    Returns:
        For each behaviour the numbers of the programs that have it, in the order of their first programs.
    """
    groups: dict[str, list[int]] = {}
    found = run_programs(programs, inputs, sandbox, kind=kind, together=together) if programs else []
    for number, results in enumerate(found):
        groups.setdefault(_behaviour(results), []).append(number)
    return list(groups.values())


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that k of n samples, drawn without replacement, have at least one of the c right ones.

        1 - C(n - c, k) / C(n, k),

    the unbiased estimate of the success of k fresh samples.

    Args:
        n: samples, at least 1.
        c: right ones, 0 to n.
        k: samples drawn, 1 to n.

    Raises:
        ValueError: an argument out of range.

    Source: Chen et al., Evaluating large language models trained on code, 2021 (arXiv 2107.03374), equation 1.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"n={n}, c={c}, k={k}: 0 <= c <= n and 1 <= k <= n are accepted")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def coverage_curve(right: Bool[np.ndarray, "tasks samples"]) -> Float[np.ndarray, " samples"]:
    """Share of tasks that k samples solve, for k from 1 to all: `pass_at_k` averaged over tasks.

    Args:
        right: whether each sample of each task is right, at least one of both.

    Raises:
        ValueError: no task or no sample.
    """
    if right.ndim != 2 or 0 in right.shape:
        raise ValueError(f"right: an array of shape {right.shape} was given; tasks by samples are accepted")
    n, counts = right.shape[1], Counter(right.sum(1).tolist())
    total = np.zeros(n)
    for c, tasks in counts.items():
        total += tasks * np.array([pass_at_k(n, c, k) for k in range(1, n + 1)])
    return total / len(right)


# ---- solvers -------------------------------------------------------------------------------------------------------


class _Exhausted(Exception):
    """The budget is used up."""


class _Run:
    """One task being solved: what was tried and what it took."""

    def __init__(self, solver: _Solver, problem: InductionProblem) -> None:
        if not isinstance(problem, InductionProblem):
            raise TypeError(
                f"problem: a {type(problem).__name__} was given; an InductionProblem is accepted, such as task.problem "
                "(the outputs of the test are not for the solver)"
            )
        if not problem.train or not problem.inputs:
            raise ValueError("problem: at least one training pair and one test input are needed")
        self.solver, self.problem, self.proposer = solver, problem, solver.proposer
        self.spending, self.trace = Spending(), list[Candidate]()
        self._tokens = self.proposer.usage.tokens

    def ask(self, wanted: int) -> int:
        """How many replies may be drawn; what is drawn is accounted for by `spent`."""
        budget = self.solver.budget
        self.spending.tokens = self.proposer.usage.tokens - self._tokens
        if budget.tokens is not None and self.spending.tokens >= budget.tokens:
            raise _Exhausted
        left = wanted if budget.replies is None else min(wanted, budget.replies - self.spending.replies)
        if left <= 0:
            raise _Exhausted
        self.spending.replies += left
        return left

    def try_out(self, proposed: Sequence[tuple[str, str | None, int]], round: int = 0) -> list[Candidate]:
        """Run programs (source, hypothesis, its number) on the training inputs."""
        budget, left = self.solver.budget, len(proposed)
        if budget.executions is not None:
            left = min(left, budget.executions - self.spending.executions)
        self.spending.executions += max(left, 0)
        proposed = proposed[: max(left, 0)]
        if not proposed:
            raise _Exhausted
        train = self.problem.train
        found = self.execute([source for source, _, _ in proposed], [x for x, _ in train])
        candidates = []
        for (source, hypothesis, number), results in zip(proposed, found):
            passed = sum(result.ok and same(result.value, y) for result, (_, y) in zip(results, train))
            candidates.append(Candidate(source, hypothesis, number, tuple(results), passed, round))
        self.trace += candidates
        return candidates

    def execute(self, programs: Sequence[str], inputs: Sequence[Any]) -> list[list[Result]]:
        """Run programs in the solver's sandbox."""
        kind, together = self.problem.kind, self.solver.together
        return run_programs(programs, inputs, self.solver.sandbox, kind=kind, together=together)

    def finish(self, hypotheses: Sequence[str] = ()) -> Solution:
        """The first verified program, or the one that gets most training pairs right, applied to the test."""
        self.spending.tokens = self.proposer.usage.tokens - self._tokens
        solution = Solution("none", hypotheses=tuple(hypotheses), trace=tuple(self.trace), spending=self.spending)
        if not self.trace:
            return solution
        verified = [candidate for candidate in self.trace if candidate.verified]
        # max takes the first of equals: among equally good programs that without an error, then the earliest
        best = verified[0] if verified else max(self.trace, key=lambda each: (each.passed, _without_error(each)))
        sources = list(dict.fromkeys([best.source, *(candidate.source for candidate in verified)]))
        tested = self.execute(sources, self.problem.inputs)
        return replace(
            solution,
            status="verified" if verified else "fall-back",
            predictions=[result.value if result.ok else None for result in tested[0]],
            program=best.source,
            hypothesis=best.hypothesis,
            train_passed=best.passed,
            behaviours=len(set(map(_behaviour, tested))) if verified else 0,
        )


class _Solver:
    """What all solvers share."""

    def __init__(
        self,
        lm: LanguageModel | Proposer,
        sandbox: Sandbox | None,
        budget: Budget | None,
        seed: int,
        together: bool = False,
    ) -> None:
        self.proposer: Proposer = LanguageModelProposer(lm) if isinstance(lm, LanguageModel) else lm
        if not isinstance(self.proposer, Proposer):
            raise TypeError(f"lm: a {type(lm).__name__} was given; a LanguageModel or a Proposer is accepted")
        if budget is not None and not isinstance(budget, Budget):
            raise TypeError(f"budget: a {type(budget).__name__} was given; Budget(...) is accepted")
        self.sandbox = Sandbox() if sandbox is None else sandbox
        self.budget, self.seed, self.together = budget or Budget(), seed, together


class HypothesisSearch(_Solver):
    """Hypotheses, a filter, programs for each hypothesis, repair from execution feedback. ::

        from etude.data import arc
        from etude.language import language_model
        from etude.reasoning import HypothesisSearch
        from etude.sandbox import Sandbox

        task = arc()["007bbfb7"]
        search = HypothesisSearch(language_model("endpoint:gpt-4o"), sandbox=Sandbox(minimum="bwrap"))
        solution = search.solve(task.problem)
        print(solution.status, solution.hypothesis, task.solved_by(solution.predictions))

    Programs are written for one hypothesis after the other until one reproduces all training pairs. If none does, the
    first program of each behaviour is repaired, each hypothesis's first one before any second one, in up to
    `max_feedback` rounds. If none passes then, the program with most training pairs right answers.

    Args:
        lm: a language model, or any `Proposer`.
        n_hypotheses: rules drawn.
        n_keep: rules kept by the filter.
        n_programs: programs drawn for each.
        max_feedback: rounds of repair, 0 for none.
        t_hypothesis: temperature of the rules.
        t_program: temperature of programs and repairs.
        filter: ``"summarise"``: the model reduces the rules to `n_keep`; ``"rank"``: the most frequent texts;
            ``"cluster"``: different texts in the order they were drawn; a function (problem, rules) -> rules, such as a
            person's choice; None: all of them.
        cluster: repair only the first program of each behaviour, or every program.
        exhaustive: draw all programs of all hypotheses before looking, for measurements of coverage.
        repair_at_once: programs repaired before the next look. 1 wastes no reply; more suits a batched proposer.
        sandbox: where programs run; by default one of the strongest level at hand.
        budget: what a task may take.
        seed: of the proposer's samples.
        together: as for `Sandbox.run_each`.

    Raises:
        ValueError: a count or temperature out of range, or another filter.
        TypeError: `lm` or `budget` of another kind.

    Source: section 2 and appendix A (filters, order of repairs, prompts).
    """

    def __init__(
        self,
        lm: LanguageModel | Proposer,
        *,
        n_hypotheses: int = 64,
        n_keep: int = 8,
        n_programs: int = 8,
        max_feedback: int = 3,
        t_hypothesis: float = 1.0,
        t_program: float = 0.7,
        filter: Filter = "summarise",
        cluster: bool = True,
        exhaustive: bool = False,
        repair_at_once: int = 1,
        sandbox: Sandbox | None = None,
        budget: Budget | None = None,
        seed: int = 0,
        together: bool = False,
    ) -> None:
        _check_counts(n_hypotheses=n_hypotheses, n_keep=n_keep, n_programs=n_programs, repair_at_once=repair_at_once)
        _check_temperatures(t_hypothesis=t_hypothesis, t_program=t_program)
        if isinstance(max_feedback, bool) or not isinstance(max_feedback, int) or max_feedback < 0:
            raise ValueError(f"max_feedback: {max_feedback!r} was given; a whole number of at least 0 is accepted")
        if not (filter is None or callable(filter) or filter in FILTERS):
            accepted = ", ".join(map(repr, FILTERS))
            raise ValueError(f"filter: {filter!r} was given; {accepted}, a function or None is accepted")
        super().__init__(lm, sandbox, budget, seed, together)
        self.n_hypotheses, self.n_keep, self.n_programs = n_hypotheses, n_keep, n_programs
        self.max_feedback, self.t_hypothesis, self.t_program = max_feedback, t_hypothesis, t_program
        self.filter, self.cluster, self.exhaustive, self.repair_at_once = filter, cluster, exhaustive, repair_at_once

    def solve(self, problem: InductionProblem) -> Solution:
        """Search for a program that reproduces the training pairs, and apply it to the test.

        Args:
            problem: the task without the outputs of its test (``task.problem``).

        Raises:
            TypeError: a task with its answers, or anything else, instead of a problem.
        """
        run = _Run(self, problem)
        kept: list[str] = []
        try:
            n = run.ask(self.n_hypotheses)
            drawn = self.proposer.hypotheses(problem, n, temperature=self.t_hypothesis, seed=self.seed)
            kept = self._filter(run, [text for text in drawn if text.strip()])
            if self._write(run, kept):
                return run.finish(kept)
            self._repair(run)
        except (_Exhausted, TooLong):
            return run.finish(kept)
        return run.finish(kept)

    def _filter(self, run: _Run, hypotheses: list[str]) -> list[str]:
        if callable(self.filter):
            return list(self.filter(run.problem, hypotheses))
        if self.filter is None or not hypotheses:
            return hypotheses
        if self.filter == "summarise":
            run.ask(1)
            return run.proposer.summarise(run.problem, hypotheses, self.n_keep)[: self.n_keep]
        counts = Counter(" ".join(text.split()).casefold() for text in hypotheses)
        first = {" ".join(text.split()).casefold(): text for text in reversed(hypotheses)}
        order = [key for key, _ in counts.most_common()] if self.filter == "rank" else list(counts)
        return [first[key] for key in order[: self.n_keep]]

    def _write(self, run: _Run, kept: list[str]) -> bool:
        """Draw programs for the hypotheses; whether one is verified."""
        at_once = max(len(kept), 1) if self.exhaustive else 1
        for start in range(0, len(kept), at_once):
            hypotheses = kept[start : start + at_once]
            n = run.ask(self.n_programs * len(hypotheses))
            each = -(-n // len(hypotheses))  # what the budget leaves, shared out
            sources = run.proposer.programs(
                run.problem, hypotheses, each, temperature=self.t_program, seed=self.seed + start
            )
            proposed = [
                (source, hypothesis, start + number)
                for number, (hypothesis, programs) in enumerate(zip(hypotheses, sources))
                for source in programs
            ]
            if any(candidate.verified for candidate in run.try_out(proposed[:n])):
                return True
        return False

    def _repair(self, run: _Run) -> None:
        """Rounds of feedback over the programs to repair, until one is verified."""
        chosen = run.trace
        if self.cluster:
            firsts: dict[str, Candidate] = {}
            for candidate in chosen:
                firsts.setdefault(candidate.behaviour, candidate)
            chosen = list(firsts.values())
        current = list(_interleaved(chosen))
        for round in range(1, self.max_feedback + 1):
            for start in range(0, len(current), self.repair_at_once):
                part = current[start : start + self.repair_at_once]
                n = run.ask(len(part))
                run.spending.repairs += n
                attempts = [Attempt(each.source, each.hypothesis, feedback(each, run.problem)) for each in part[:n]]
                sources = run.proposer.repairs(
                    run.problem, attempts, temperature=self.t_program, seed=self.seed + 1000 * round + start
                )
                proposed = [
                    (source, each.hypothesis, each.hypothesis_number) for source, each in zip(sources, part[:n])
                ]
                repaired = run.try_out(proposed, round)
                if any(candidate.verified for candidate in repaired):
                    return
                current[start : start + len(repaired)] = repaired


class ProgramOnly(_Solver):
    """Programs without hypotheses, verified on the training pairs: the strong simple baseline.

    Args:
        lm: a language model, or any `Proposer`.
        n_programs: programs drawn.
        t_program: their temperature.
        sandbox: as for `HypothesisSearch`.
        budget: as for `HypothesisSearch`.
        seed: as for `HypothesisSearch`.
        together: as for `Sandbox.run_each`.

    Raises:
        ValueError: a count or temperature out of range.
        TypeError: `lm` or `budget` of another kind.

    Source: section 3.1 ("program only").
    """

    def __init__(
        self,
        lm: LanguageModel | Proposer,
        *,
        n_programs: int = 64,
        t_program: float = 0.7,
        sandbox: Sandbox | None = None,
        budget: Budget | None = None,
        seed: int = 0,
        together: bool = False,
    ) -> None:
        _check_counts(n_programs=n_programs)
        _check_temperatures(t_program=t_program)
        super().__init__(lm, sandbox, budget, seed, together)
        self.n_programs, self.t_program = n_programs, t_program

    def solve(self, problem: InductionProblem) -> Solution:
        """As `HypothesisSearch.solve`.

        Args:
            problem: the task without the outputs of its test.
        """
        run = _Run(self, problem)
        try:
            n = run.ask(self.n_programs)
            (sources,) = self.proposer.programs(problem, [None], n, temperature=self.t_program, seed=self.seed)
            run.try_out([(source, None, 0) for source in sources])
        except (_Exhausted, TooLong):
            return run.finish()
        return run.finish()


class Direct(_Solver):
    """The output of the test asked for directly; of several answers the most frequent one.

    Args:
        lm: a language model, or any `Proposer`.
        n_answers: answers drawn.
        temperature: their temperature.
        budget: as for `HypothesisSearch`.
        seed: as for `HypothesisSearch`.
        sandbox: not used; taken so that solvers can be exchanged.

    Raises:
        ValueError: a count or temperature out of range.
        TypeError: `lm` or `budget` of another kind.

    Source: section 3.1 ("direct prompting", one answer at temperature 0.5).
    """

    def __init__(
        self,
        lm: LanguageModel | Proposer,
        *,
        n_answers: int = 1,
        temperature: float = 0.5,
        sandbox: Sandbox | None = None,
        budget: Budget | None = None,
        seed: int = 0,
    ) -> None:
        _check_counts(n_answers=n_answers)
        _check_temperatures(temperature=temperature)
        super().__init__(lm, sandbox, budget, seed)
        self.n_answers, self.temperature = n_answers, temperature

    def solve(self, problem: InductionProblem) -> Solution:
        """As `HypothesisSearch.solve`; the status is never ``"verified"``.

        Args:
            problem: the task without the outputs of its test.
        """
        run = _Run(self, problem)
        answers: list[list[Any]] = []
        with contextlib.suppress(_Exhausted, TooLong):
            n = run.ask(self.n_answers)
            answers = self.proposer.answers(problem, n, temperature=self.temperature, seed=self.seed)
        readable = [answer for answer in answers if len(answer) == len(problem.inputs) and None not in answer]
        solution = run.finish()
        if not readable:
            return solution
        (text, _), *_ = Counter(json.dumps(answer) for answer in readable).most_common(1)
        return replace(solution, status="fall-back", predictions=json.loads(text))


def feedback(candidate: Candidate, problem: InductionProblem) -> str:
    """What is told about a program that is not right: its error, or the first training pair it gets wrong.

    Args:
        candidate: the program with its results.
        problem: the task.

    Source: appendix A (feedback prompt).
    """
    for result, (x, y) in zip(candidate.results, problem.train):
        if not result.ok:
            return f"For the input\n{shown(x)}\nthe program failed:\n{result.error}"
        if not same(result.value, y):
            return f"For the input\n{shown(x)}\nthe output should be\n{shown(y)}\nbut it was\n{shown(result.value)}"
    return ""


def _behaviour(results: Iterable[Result]) -> str:
    return json.dumps([[result.outcome, result.value, result.error] for result in results], sort_keys=True)


def _without_error(candidate: Candidate) -> bool:
    return all(result.ok for result in candidate.results)


def _interleaved(candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    """One candidate of each hypothesis in turn."""
    queues: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        queues.setdefault(candidate.hypothesis_number, []).append(candidate)
    for place in range(max(map(len, queues.values()), default=0)):
        for queue in queues.values():
            if place < len(queue):
                yield queue[place]


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: {value!r} was given; a whole number of at least 1 is accepted")


def _check_temperatures(**temperatures: float) -> None:
    for name, value in temperatures.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ValueError(f"{name}: {value!r} was given; a number of at least 0 is accepted")
