"""A Ray cluster: trials as remote tasks, with one actor that carries messages to the driver."""

from __future__ import annotations

import asyncio
import importlib
import os
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from etude.errors import MissingExtra
from etude.study.engines.trial import Asking, Blobs, Event, Task, environment_variables, perform


def require() -> None:
    """Refuse early where Ray is not installed.

    Raises:
        MissingExtra: Ray is not installed.
    """
    try:
        import ray  # noqa: F401
    except ImportError:
        raise MissingExtra("the engine 'ray' needs Ray", 'Install it with: pip install "etude[cluster]"') from None


def _ray() -> Any:
    """The package, imported where it is needed: it is large, and optional."""
    return importlib.import_module("ray")


class _Broker:
    """Lives in the cluster: holds what trials say until the driver takes it, and the driver's answers."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[tuple[int, str, dict[str, Any], Blobs]] = asyncio.Queue()
        self._answers: dict[str, asyncio.Future[tuple[Mapping[str, Any], Blobs]]] = {}

    async def ask(self, task: int, header: dict[str, Any], blobs: Blobs) -> tuple[Mapping[str, Any], Blobs]:
        token = uuid.uuid4().hex
        self._answers[token] = asyncio.get_running_loop().create_future()
        await self._messages.put((task, token, header, blobs))
        try:
            return await self._answers[token]
        finally:
            del self._answers[token]

    async def tell(self, task: int, header: dict[str, Any]) -> None:
        await self._messages.put((task, "", header, {}))

    async def take(self) -> list[tuple[int, str, dict[str, Any], Blobs]]:
        messages = [await self._messages.get()]
        while not self._messages.empty():
            messages.append(self._messages.get_nowait())
        return messages

    async def answer(self, token: str, header: Mapping[str, Any], blobs: Blobs) -> None:
        if token in self._answers and not self._answers[token].done():
            self._answers[token].set_result((header, blobs))


def _trial(description: dict[str, Any], broker: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The remote function: performs one trial on whatever node it landed."""
    ray = _ray()
    task = Task(**description)

    def ask(header: dict[str, Any], blobs: Blobs) -> tuple[Mapping[str, Any], Blobs]:
        answer: tuple[Mapping[str, Any], Blobs] = ray.get(broker.ask.remote(task.id, header, blobs))
        return answer

    return perform(task, Asking(ask, lambda header: broker.tell.remote(task.id, header)))


class Ray:
    """Trials on a Ray cluster: the one `RAY_ADDRESS` names, or one started on this machine.

    Args:
        workers: how many trials at a time; None for as many as the cluster has room for.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._limit = workers

    def __enter__(self) -> Ray:
        ray = _ray()

        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        self._ours = not ray.is_initialized()
        if self._ours:
            ray.init(logging_level="ERROR", log_to_driver=False, include_dashboard=False)
        self._broker = ray.remote(_Broker).options(num_cpus=0, max_concurrency=1000).remote()
        self._remote = ray.remote(_trial)
        self._tasks: dict[int, Task] = {}
        self._results: dict[Any, int] = {}
        self._inbox = self._broker.take.remote()
        return self

    def __exit__(self, *exception: object) -> None:
        ray = _ray()

        for result in self._results:
            ray.cancel(result, force=True)
        ray.kill(self._broker)
        if self._ours:
            ray.shutdown()

    def attach(self, handle: Callable[[Event], None]) -> None:
        """See `Engine`."""
        self._handle = handle

    def room(self, task: Task) -> bool:
        """See `Engine`."""
        ray = _ray()

        running = list(self._tasks.values())
        if not running:
            return True
        if task.exclusive or any(other.exclusive for other in running):
            return False
        # A few more than there is room for, so that no node waits for the driver, yet the order stays balanced.
        limit = self._limit or 2 * int(ray.cluster_resources().get("CPU", 1))
        return len(running) < limit

    def start(self, task: Task) -> None:
        """See `Engine`."""
        options: dict[str, Any] = {
            "num_cpus": task.threads,
            "num_gpus": task.gpus,
            "max_retries": 0,
            "runtime_env": {"env_vars": environment_variables(task.threads)},
        }
        if task.memory is not None:
            options["memory"] = task.memory
        self._tasks[task.id] = task
        self._results[self._remote.options(**options).remote(task.header(), self._broker)] = task.id

    def wait(self) -> None:
        """See `Engine`."""
        ray = _ray()

        ready, _ = ray.wait([self._inbox, *self._results], num_returns=1)
        if self._inbox in ready:
            messages = ray.get(self._inbox)
            self._inbox = self._broker.take.remote()
            for id, token, header, blobs in messages:
                if id in self._tasks:
                    self._handle(Event(self._tasks[id], header, blobs, token))
            return
        for result in ready:
            task = self._tasks.pop(self._results.pop(result))
            try:
                header, blobs = ray.get(result)
            except ray.exceptions.RayError as error:
                first = str(error).strip().partition("\n")[0]
                header, blobs = {"kind": "died", "error": f"the worker died: {first}", "log": str(error)}, {}
            self._handle(Event(task, header, blobs))

    def answer(self, event: Event, header: Mapping[str, Any], blobs: Blobs) -> None:
        """See `Engine`."""
        self._broker.answer.remote(event.token, dict(header), dict(blobs))
