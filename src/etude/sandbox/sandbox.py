"""The sandbox: programs in, data out."""

from __future__ import annotations

import json
import queue
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from etude.sandbox.isolation import Isolation, Worker, isolation
from etude.sandbox.limits import Limits, Result, check_data


class Sandbox:
    """Runs Python that a model wrote, and takes back nothing but data.

    Each program runs in a process of its own, which ends with the call; no two share anything. ::

        from etude.sandbox import Sandbox

        with Sandbox() as sandbox:
            for result in sandbox.run("def double(x):\\n    return [2 * each for each in x]", "double", [[1, 2], [3]]):
                print(result.outcome, result.value)

    Levels, strongest first:

    - ``"bwrap"``: bubblewrap and, inside, a process namespace for each program. A program has no network, sees no
      process but its own and no file but the interpreter's libraries (read-only) and a small directory that vanishes
      with it. With libseccomp installed, system calls that it has no use for are refused.
    - ``"subprocess"``: limits of the kernel, an empty environment, no open files, a session of its own. It stops
      programs that run wild, not programs that spy: they may read what the user who runs them may read. A machine
      with libseccomp keeps them from the network and from other processes, too.

    The level is what a program that tries it found (`probe`), and is part of each result. A sandbox may be shared by
    threads. The limits hold for a program with all its inputs together.

    Args:
        limits: what a program may use.
        level: ``"best"``, ``"bwrap"`` or ``"subprocess"``.
        minimum: the weakest level that will do: with ``minimum="bwrap"`` there is no sandbox rather than a weaker one.
        workers: programs at a time, at least 1.

    Attributes:
        level: the name of the level reached.
        isolation: what it keeps programs from here.

    Raises:
        ValueError: an unknown `level` or `minimum`, or `workers` < 1.
        TypeError: `limits` are none, or `workers` is no whole number.
        etude.errors.Unavailable: the machine does not give the level; the message says what to do.
    """

    def __init__(
        self, limits: Limits | None = None, *, level: str = "best", minimum: str = "subprocess", workers: int = 1
    ) -> None:
        if limits is not None and not isinstance(limits, Limits):
            raise TypeError(f"limits: a {type(limits).__name__} was given; Limits(...) is accepted")
        if isinstance(workers, bool) or not isinstance(workers, int):
            raise TypeError(f"workers: {workers!r} was given; a whole number is accepted")
        if workers < 1:
            raise ValueError(f"workers: {workers} was given; at least 1 is accepted")
        self.limits = limits or Limits()
        self.isolation: Isolation = isolation(level, minimum)
        self.level: str = self.isolation.level
        self._workers = [Worker(self.level) for _ in range(workers)]  # type: ignore[arg-type]
        self._idle: queue.LifoQueue[Worker] = queue.LifoQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._finalizer = weakref.finalize(self, _stop, self._workers)

    def run(self, source: str, entry: str, inputs: Sequence[Any], *, limits: Limits | None = None) -> list[Result]:
        """Run a program on inputs, one after the other.

        Args:
            source: the program, Python source that defines `entry`.
            entry: the name of the function that is called with each input.
            inputs: JSON values (tuples count as lists), at least one; each call gets a copy of its own.
            limits: other limits for this call.

        Returns:
            One result an input. What the program does is never an exception here.

        Raises:
            TypeError: `source` or `entry` is no text, an input is no JSON value.
            ValueError: `entry` is no name, an input holds NaN or is nested too deeply, there is none; or the sandbox
                is closed.
            etude.errors.Unavailable: its processes cannot be started any more.
        """
        limits = self.limits if limits is None else limits
        texts = _texts(entry, inputs, limits)
        if not isinstance(source, str):
            raise TypeError(f"source: a {type(source).__name__} was given; Python source as text is accepted")
        try:
            too_long = len(source.encode()) > limits.source_kb << 10
        except UnicodeEncodeError:
            return [Result("refused", None, "the program is not valid Unicode", 0.0, self.level)] * len(texts)
        if too_long:
            why = f"the program is longer than {limits.source_kb} kB"
            return [Result("refused", None, why, 0.0, self.level)] * len(texts)
        with self._worker() as worker:
            return worker.run(source, entry, texts, limits)

    def run_each(
        self,
        sources: Sequence[str],
        entry: str,
        inputs: Sequence[Any],
        *,
        limits: Limits | None = None,
        together: bool = False,
    ) -> list[list[Result]]:
        """Run several programs on the same inputs, as many at a time as there are workers.

        Args:
            sources: the programs; equal ones are run once.
            entry: as for `run`.
            inputs: as for `run`.
            limits: as for `run`.
            together: run them in one process, one after the other, which is some ten times as fast. Only for programs
                that need not be kept from each other, such as samples of one small vocabulary: one could change what
                the next one finds. Those that get no answer this way, and all that follow them, run by themselves.

        Returns:
            For each program one result an input.

        Raises:
            TypeError: as for `run`.
            ValueError: as for `run`.
        """
        distinct = list(dict.fromkeys(sources))
        if together:
            found = self._bundle(distinct, entry, inputs, self.limits if limits is None else limits)
        elif len(self._workers) == 1:
            found = [self.run(source, entry, inputs, limits=limits) for source in distinct]
        else:
            with ThreadPoolExecutor(len(self._workers)) as pool:
                found = list(pool.map(lambda source: self.run(source, entry, inputs, limits=limits), distinct))
        results = dict(zip(distinct, found))
        return [results[source] for source in sources]

    def _bundle(self, sources: list[str], entry: str, inputs: Sequence[Any], limits: Limits) -> list[list[Result]]:
        """One process for many programs; whatever it did not answer is asked again, a process a program."""
        texts = _texts(entry, inputs, limits)
        requests = [{"source": source, "entry": entry, "inputs": texts} for source in sources]
        kilobytes = min(limits.output_kb * len(sources), 1 << 14)
        wider = replace(limits, depth=limits.depth + 2, output_kb=kilobytes)
        answers = self.run(_BUNDLE, "bundle", requests, limits=wider) if requests else []
        found = []
        for source, answer in zip(sources, answers):
            fits = len(source.encode(errors="replace")) <= limits.source_kb << 10
            if fits and answer.ok and _is_bundle(answer.value, len(texts)):
                seconds = answer.seconds / len(sources)
                found.append(
                    [
                        Result(*(("value", value, "") if good else ("error", None, value)), seconds, self.level)
                        for good, value in answer.value
                    ]
                )
            else:
                found.append(self.run(source, entry, inputs, limits=limits))
        return found

    def close(self) -> None:
        """End the processes that run programs; closing twice does no harm."""
        self._finalizer()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Sandbox {self.isolation}>"

    @contextmanager
    def _worker(self) -> Iterator[Worker]:
        if not self._finalizer.alive:
            raise ValueError("the sandbox is closed")
        worker = self._idle.get()
        try:
            yield worker
        except BaseException:  # an interrupted call leaves half an answer behind
            worker.stop()
            raise
        finally:
            self._idle.put(worker)


_BUNDLE = """
import json
def bundle(request):
    program, answers = {"__name__": "program"}, []
    try:
        exec(compile(request["source"], "<program>", "exec"), program)
        function = program[request["entry"]]
    except Exception as error:
        return [[False, f"{type(error).__name__}: {error}"[:800]] for _ in request["inputs"]]
    for text in request["inputs"]:
        try:
            answers.append([True, function(json.loads(text))])
        except MemoryError:
            raise
        except Exception as error:
            answers.append([False, f"{type(error).__name__}: {error}"[:800]])
    return answers
"""


def _is_bundle(value: Any, count: int) -> bool:
    """Whether a value has the form of a bundle's answers to so many inputs."""
    if not isinstance(value, list) or len(value) != count:
        return False
    return all(
        isinstance(each, list) and len(each) == 2 and (each[0] is True or type(each[1]) is str) for each in value
    )


def _stop(workers: list[Worker]) -> None:
    for worker in workers:
        worker.stop()


def _texts(entry: str, inputs: Sequence[Any], limits: Limits) -> list[str]:
    """The inputs as JSON, once everything about them has been checked."""
    if not isinstance(limits, Limits):
        raise TypeError(f"limits: a {type(limits).__name__} was given; Limits(...) is accepted")
    if not isinstance(entry, str):
        raise TypeError(f"entry: a {type(entry).__name__} was given; the name of a function is accepted")
    if not entry.isidentifier():
        raise ValueError(f"entry: {entry!r} was given; the name of a function is accepted")
    if isinstance(inputs, (str, bytes)) or not isinstance(inputs, Sequence):
        raise TypeError(f"inputs: a {type(inputs).__name__} was given; a list of JSON values is accepted")
    if not inputs:
        raise ValueError("inputs: none was given; at least one is accepted")
    for number, value in enumerate(inputs):
        check_data(value, 100, f"inputs[{number}]")
    return [json.dumps(value) for value in inputs]
