"""One trial: how it is described to a worker, how a worker performs it, and what comes back.

Everything that crosses between processes is a JSON header and named bytes, so no function or object travels.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import io
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from etude.errors import BrokenStudy, Unavailable

Blobs = Mapping[str, bytes]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Task:
    """A trial by name and value: all that a worker needs."""

    id: int
    study: str
    module: str
    path: str | None
    measurement: str
    cell: Mapping[str, Any]
    seed: int
    config: Mapping[str, Any]
    code: str
    device: str
    threads: int
    memory: int | None
    gpus: int
    exclusive: bool

    def header(self) -> dict[str, Any]:
        """As JSON data."""
        return dataclasses.asdict(self)


@dataclass
class Event:
    """Something a trial says, or that happened to it."""

    task: Task
    header: Mapping[str, Any]
    blobs: Blobs = field(default_factory=dict)
    token: Any = None  # where an answer goes; the engine's business

    @property
    def kind(self) -> str:
        """What it is about."""
        return str(self.header["kind"])


class Engine(Protocol):
    """Runs tasks and reports what they say. Entered before the first task, closed after the last."""

    def __enter__(self) -> Engine: ...

    def __exit__(self, *exception: object) -> None: ...

    def attach(self, handle: Callable[[Event], None]) -> None:
        """Who handles events; called on the driver's thread only."""

    def room(self, task: Task) -> bool:
        """Whether the task can be started now."""

    def start(self, task: Task) -> None:
        """Start a task there is room for."""

    def wait(self) -> None:
        """Wait for events and handle them."""

    def answer(self, event: Event, header: Mapping[str, Any], blobs: Blobs) -> None:
        """Answer an event that asked for something."""


def environment_variables(threads: int) -> dict[str, str]:
    """What a worker's environment needs so that equal trials give equal bits."""
    return {name: str(threads) for name in THREAD_VARIABLES} | {
        "PYTHONHASHSEED": "0",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "MPLBACKEND": "Agg",
    }


def import_study(module: str, path: str | None) -> Any:
    """The `study` object of a module, or of a file outside any package.

    Raises:
        BrokenStudy: the file is not on this machine, has the name of another module, or its `study` is no `Study`.
    """
    from etude.study.definition import Study

    if path is not None:
        from etude.study.code_key import register_path

        file = Path(path)
        if not file.is_file():
            raise BrokenStudy(f"The study file {path} is not on this machine. Install the study as a package there.")
        register_path(module, file)
        if str(file.parent) not in sys.path:
            sys.path.insert(0, str(file.parent))
    loaded = importlib.import_module(module)
    if path is not None and Path(loaded.__file__ or "").resolve() != Path(path).resolve():
        raise BrokenStudy(
            f"{path} cannot be imported: another module is called '{module}' "
            f"({loaded.__file__ or 'built in'}). Rename the file."
        )
    study = getattr(loaded, "study", None)
    if not isinstance(study, Study):
        raise BrokenStudy(f"{path or module}: `study` is a {type(study).__name__}, expected a Study.")
    return study


def environment() -> dict[str, Any]:
    """What a result may depend on besides its key: versions, machine and threads."""
    versions = {"python": platform.python_version()}
    for package in ("etude", "torch", "numpy", "scipy", "scikit-learn", "pandas"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    torch = sys.modules.get("torch")
    return versions | {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads() if torch is not None else int(os.environ.get("OMP_NUM_THREADS", "0")),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor()  # not Linux
    return platform.processor()


def perform(task: Task, exchange: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Run a trial and describe what became of it; raises nothing that the trial raised.

    Returns:
        A header whose `kind` is `done`, `unavailable`, `failed` or `refused`, and for `done` the rows and files.
    """
    try:
        return _perform(task, exchange)
    except Unavailable as reason:
        return {"kind": "unavailable", "what": reason.what, "remedy": reason.remedy}, {}
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        return {"kind": "failed", "error": told, "log": traceback.format_exc()}, {}


def _perform(task: Task, exchange: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    import json

    from etude.study.code_key import code_key
    from etude.study.definition import plain, watched
    from etude.study.lab import Lab

    study = import_study(task.module, task.path)
    measurement = study.measurements[task.measurement]
    code = code_key(measurement.address)
    if code != task.code:
        why = (
            f"this worker's code of {task.measurement} is not the code the run was started with "
            f"(key {code[:12]}, expected {task.code[:12]}). Bring both to the same version, or start the run again"
        )
        return {"kind": "refused", "error": why, "log": ""}, {}
    kind = type(next(iter(study.presets.values())))
    config = kind.model_validate_json(json.dumps(task.config))
    reads: set[str] = set()
    lab = Lab(task.seed, cell=task.cell, device=task.device, exchange=exchange)
    _settle(task, lab)
    start = time.perf_counter()
    measurement.function(lab, watched(config, reads), **task.cell)
    seconds = time.perf_counter() - start
    table = lab.table()
    if table is None:
        return {"kind": "failed", "error": "it recorded nothing: call lab.record at least once", "log": ""}, {}
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    header = {
        "kind": "done",
        "seconds": seconds,
        "reads": {name: plain(getattr(config, name)) for name in sorted(reads)},
        "environment": environment(),
    }
    return header, {"rows": buffer.getvalue()} | {f"files/{name}": data for name, data in lab.files.items()}


def _settle(task: Task, lab: Any) -> None:
    """Start from a known state, so that a study which draws from a global generator still repeats."""
    import random

    import numpy as np

    random.seed(lab._entropy("global"))
    np.random.seed(lab._entropy("global") % 2**32)  # noqa: NPY002
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(lab._entropy("global"))
        torch.set_num_threads(task.threads)
        torch.set_default_dtype(torch.float32)
        if task.device != "cpu":
            if not torch.cuda.is_available():
                raise Unavailable(f"device '{task.device}' is not on this machine", "Use --device cpu")
            torch.use_deterministic_algorithms(True, warn_only=True)


class Asking:
    """The exchange of a worker that can ask the driver and wait for its answer."""

    def __init__(
        self,
        ask: Callable[[dict[str, Any], Blobs], tuple[Mapping[str, Any], Blobs]],
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        self._ask, self._tell = ask, tell

    def load_cached(self, function: str, key: str) -> Blobs | None:
        """See `Exchange`."""
        header, blobs = self._ask({"kind": "load-cached", "function": function, "key": key}, {})
        return blobs if header["found"] else None

    def publish_cached(self, function: str, key: str, files: Blobs) -> None:
        """See `Exchange`."""
        self._ask({"kind": "publish-cached", "function": function, "key": key}, files)

    def abandon_cached(self, function: str, key: str) -> None:
        """See `Exchange`."""
        self._tell({"kind": "abandon-cached", "function": function, "key": key})

    def load_checkpoint(self) -> Blobs | None:
        """See `Exchange`."""
        header, blobs = self._ask({"kind": "load-checkpoint"}, {})
        return blobs if header["found"] else None

    def save_checkpoint(self, files: Blobs) -> None:
        """See `Exchange`."""
        self._ask({"kind": "save-checkpoint"}, files)

    def progress(self, label: str, done: int, total: int | None) -> None:
        """See `Exchange`."""
        self._tell({"kind": "progress", "label": label, "done": done, "total": total})


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave the process's random generators, threads and default type as they were."""
    import random

    import numpy as np

    python, array = random.getstate(), np.random.get_state()  # noqa: NPY002
    torch = sys.modules.get("torch")
    if torch is not None:
        threads, dtype, generator = torch.get_num_threads(), torch.get_default_dtype(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)  # noqa: NPY002
        if torch is not None:
            torch.set_num_threads(threads)
            torch.set_default_dtype(dtype)
            torch.set_rng_state(generator)


class Inline:
    """Runs each trial in this process, one after the other: for debugging and for small studies."""

    def __enter__(self) -> Inline:
        self._task: Task | None = None
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def attach(self, handle: Callable[[Event], None]) -> None:
        """See `Engine`."""
        self._handle = handle

    def room(self, task: Task) -> bool:
        """See `Engine`."""
        return self._task is None

    def start(self, task: Task) -> None:
        """See `Engine`."""
        self._task = task

    def wait(self) -> None:
        """See `Engine`."""
        task = self._task
        assert task is not None

        def ask(header: dict[str, Any], blobs: Blobs) -> tuple[Mapping[str, Any], Blobs]:
            event = Event(task, header, blobs)
            self._handle(event)
            return event.token  # type: ignore[no-any-return]

        try:
            with _undisturbed():
                header, blobs = perform(task, Asking(ask, lambda header: self._handle(Event(task, header))))
        finally:
            self._task = None
        self._handle(Event(task, header, blobs))

    def answer(self, event: Event, header: Mapping[str, Any], blobs: Blobs) -> None:
        """See `Engine`."""
        event.token = (header, blobs)
