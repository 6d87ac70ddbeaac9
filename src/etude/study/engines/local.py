"""Worker processes of this machine, started once and handed one trial after another."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import IO, Any

from etude.study.engines.trial import Blobs, Event, Task, environment_variables

_HEADER = struct.Struct("<I")


def send(stream: IO[bytes], header: Mapping[str, Any], blobs: Blobs) -> None:
    """Write one message: the header's length, the header as JSON, and the bytes it lists."""
    text = json.dumps({**header, "blobs": [[name, len(data)] for name, data in blobs.items()]}).encode()
    stream.write(_HEADER.pack(len(text)) + text)
    for data in blobs.values():
        stream.write(data)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, bytes]] | None:
    """Read one message, or None at the end of the stream."""
    head = stream.read(_HEADER.size)
    if len(head) < _HEADER.size:
        return None
    header = json.loads(stream.read(_HEADER.unpack(head)[0]))
    blobs = {}
    for name, size in header.pop("blobs"):
        blobs[name] = stream.read(size)
        if len(blobs[name]) < size:
            return None
    return header, blobs


class _Worker:
    """One process and the thread that listens to it."""

    def __init__(self, threads: int, events: queue.Queue[tuple[_Worker, dict[str, Any] | None, Blobs]]) -> None:
        self.threads = threads
        self.task: Task | None = None
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "etude.study.engines.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=os.environ | environment_variables(threads) | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            start_new_session=True,  # Ctrl-C is for the driver, which then ends its workers
        )
        threading.Thread(target=self._listen, args=(events,), daemon=True).start()

    def _listen(self, events: queue.Queue[tuple[_Worker, dict[str, Any] | None, Blobs]]) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(OSError, ValueError):  # the pipe closed under the thread: the worker is gone
            while (message := receive(self.process.stdout)) is not None:
                events.put((self, *message))
        events.put((self, None, {}))

    def send(self, header: Mapping[str, Any], blobs: Blobs) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it died; the listening thread reports that
            send(self.process.stdin, header, blobs)

    def tail(self) -> str:
        """The end of what the worker printed."""
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), 4000, max(0, size - 4000)).decode(errors="replace")

    def end(self) -> None:
        if self.process.poll() is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except (ProcessLookupError, AttributeError):
                self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # unsent bytes for a process that is gone
                if stream is not None:
                    stream.close()
        self.log.close()


class Local:
    """As many trials at a time as the cores allow, each in a process with its own number of threads.

    Args:
        workers: how many trials at a time; None for the number of cores over the threads of each trial.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._limit = workers
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._memory = _total_memory()
        self._workers: list[_Worker] = []
        self._events: queue.Queue[tuple[_Worker, dict[str, Any] | None, Blobs]] = queue.Queue()

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.end()
        self._workers = []

    def attach(self, handle: Callable[[Event], None]) -> None:
        """See `Engine`."""
        self._handle = handle

    @property
    def _running(self) -> list[Task]:
        return [worker.task for worker in self._workers if worker.task is not None]

    def room(self, task: Task) -> bool:
        """See `Engine`."""
        running = self._running
        if not running:
            return True
        if task.exclusive or any(other.exclusive for other in running):
            return False
        if self._limit is not None:
            if len(running) >= self._limit:
                return False
        elif sum(other.threads for other in running) + task.threads > self._cores:
            return False
        needed = sum(other.memory or 0 for other in running) + (task.memory or 0)
        return needed <= self._memory

    def start(self, task: Task) -> None:
        """See `Engine`."""
        idle = [worker for worker in self._workers if worker.task is None]
        worker = next((worker for worker in idle if worker.threads == task.threads), None)
        if worker is None:
            for other in idle:  # of another thread count: nothing may compete with the new one
                other.end()
                self._workers.remove(other)
            worker = _Worker(task.threads, self._events)
            self._workers.append(worker)
        worker.task = task
        worker.send({"kind": "task", "task": task.header()}, {})

    def wait(self) -> None:
        """See `Engine`."""
        worker, header, blobs = self._events.get()
        task = worker.task
        if header is None:
            if worker not in self._workers:
                return
            self._workers.remove(worker)
            code = worker.process.wait()
            log = worker.tail()
            worker.end()
            if task is not None:
                self._handle(Event(task, {"kind": "died", "error": _death(code), "log": log}))
            return
        assert task is not None
        event = Event(task, header, blobs, token=worker)
        if event.kind in ("done", "failed", "unavailable", "refused"):
            worker.task = None
            if event.kind == "failed":
                event.header = {**header, "log": header["log"] + worker.tail()}
        self._handle(event)

    def answer(self, event: Event, header: Mapping[str, Any], blobs: Blobs) -> None:
        """See `Engine`."""
        event.token.send({"kind": "answer", **header}, blobs)


def _death(code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (often: the machine ran out of memory)" if name == "SIGKILL" else ""
        return f"the worker process was ended by {name}{hint}"
    return f"the worker process ended with code {code}"


def _total_memory() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return float("inf")  # the system does not say
