"""What a trial is handed: its seed, its random streams, and where to put what it finds."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar, overload

import numpy as np
import pandas as pd

from etude.study.code_key import address, code_key
from etude.study.serialization import decode, encode, fingerprint

if TYPE_CHECKING:
    import torch

P = ParamSpec("P")
R = TypeVar("R")
Files = Mapping[str, bytes]


class Exchange(Protocol):
    """How a trial talks to the process that drives the run."""

    def load_cached(self, function: str, key: str) -> Files | None:
        """A stored result, or None: then the caller computes it and must publish or abandon it."""

    def publish_cached(self, function: str, key: str, files: Files) -> None:
        """Store a result that `load_cached` did not find."""

    def abandon_cached(self, function: str, key: str) -> None:
        """Say that the result will not come: the function raised."""

    def load_checkpoint(self) -> Files | None:
        """The trial's last checkpoint."""

    def save_checkpoint(self, files: Files) -> None:
        """Replace the trial's checkpoint."""

    def progress(self, label: str, done: int, total: int | None) -> None:
        """Say how far a tracked loop is."""


class Checkpoint:
    """The state of an unfinished trial, kept so that a killed run goes on where it was."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def load(self) -> Any:
        """What was last saved, or None at the start."""
        files = self._exchange.load_checkpoint()
        return None if files is None else decode(files)

    def save(self, tree: Any) -> None:
        """Keep numbers, strings, arrays, tensors, tables and nestings of them, replacing what was kept before."""
        self._exchange.save_checkpoint(encode(tree))


class Lab:
    """The bench of one trial: one measurement at one cell with one seed.

    Attributes:
        seed: the trial's seed, an integer from 0.
        device: the torch device the trial should use.
        checkpoint: `load()` and `save(tree)` for long trials.
    """

    def __init__(self, seed: int, *, cell: Mapping[str, Any], device: str, exchange: Exchange) -> None:
        self.seed = seed
        self.checkpoint = Checkpoint(exchange)
        self._cell = dict(cell)
        self._device = device
        self._exchange = exchange
        self._tables: list[pd.DataFrame] = []
        self._rows: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}

    @property
    def device(self) -> torch.device:
        """The torch device the trial should use."""
        import torch

        return torch.device(self._device)

    # ---- randomness ------------------------------------------------------------------------------------------------

    def _entropy(self, stream: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{stream}".encode()).digest()[:8], "little") >> 1

    @overload
    def generator(self, stream: str, library: Literal["torch"] = ...) -> torch.Generator: ...
    @overload
    def generator(self, stream: str, library: Literal["numpy"]) -> np.random.Generator: ...
    @overload
    def generator(self, stream: str, library: Literal["python"]) -> random.Random: ...

    def generator(self, stream: str, library: str = "torch") -> Any:
        """A fresh random generator derived from the seed and the stream's name alone.

        The same name gives the same numbers wherever and in whatever order it is asked for, in every cell, so cells
        are paired. A torch generator is on the processor: draw there and move, and GPUs agree with processors.

        Args:
            stream: what the numbers are for, such as ``"split"``.
            library: ``"torch"``, ``"numpy"`` or ``"python"``.

        Raises:
            ValueError: another library.
        """
        entropy = self._entropy(stream)
        if library == "torch":
            import torch

            return torch.Generator().manual_seed(entropy)
        if library == "numpy":
            return np.random.default_rng(entropy)
        if library == "python":
            return random.Random(entropy)
        raise ValueError(f"library={library!r}: give 'torch', 'numpy' or 'python'")

    @contextlib.contextmanager
    def seeded(self, stream: str) -> Iterator[None]:
        """Seed the global generators of torch, numpy and Python inside the block, and restore them after it."""
        import torch

        entropy = self._entropy(stream)
        python, array = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global generator is what is seeded
        with torch.random.fork_rng():
            torch.manual_seed(entropy)
            random.seed(entropy)
            np.random.seed(entropy % 2**32)  # noqa: NPY002
            try:
                yield
            finally:
                random.setstate(python)
                np.random.set_state(array)  # noqa: NPY002

    # ---- evidence --------------------------------------------------------------------------------------------------

    def record(self, table: pd.DataFrame | None = None, /, **row: Any) -> None:
        """Record one row, or every row of a table with the given constants added.

        Values are numbers, strings, booleans or None (a tensor or array of one number is taken as that number). The
        cell's keywords and the seed are added by themselves.

        Raises:
            TypeError: a value that is no scalar, named by its column.
            ValueError: nothing to record, or a column named like a cell keyword or `seed`.
        """
        row = {name: _scalar(name, value) for name, value in row.items()}
        columns = [*row] if table is None else [*row, *map(str, table.columns)]
        taken = {*self._cell, "seed"} & set(columns)
        if taken:
            raise ValueError(
                f"record: column {sorted(taken)[0]!r} is a keyword of the cell or the seed; it is added by itself"
            )
        if not columns:
            raise ValueError("record: give at least one column")
        if table is None:
            self._rows.append(row)
            return
        self._flush()
        table = table.reset_index(drop=True).rename(columns=str)
        for name in table.columns:
            if table[name].dtype == object or isinstance(table[name].dtype, pd.CategoricalDtype):
                table[name] = pd.Series([_scalar(name, value) for value in table[name]], index=table.index)
        self._tables.append(table.assign(**row))

    def _flush(self) -> None:
        if self._rows:
            self._tables.append(pd.DataFrame(self._rows))
            self._rows = []

    def table(self) -> pd.DataFrame | None:
        """Everything recorded so far with the cell and the seed as columns, or None."""
        self._flush()
        if not self._tables:
            return None
        table = pd.concat(self._tables, ignore_index=True)
        return table.assign(**dict(self._cell.items()), seed=self.seed)

    def save(self, name: str, value: Any) -> None:
        """Keep what is no row: text and bytes as a file of that name, other values as `lab.cached` stores them.

        Args:
            name: a file name without folders, such as ``"mask-3"`` or ``"drawing.svg"``.
            value: text, bytes, or a nesting of numbers, strings, arrays, tensors, tables and dataclasses.

        Raises:
            ValueError: a name with folders, or used twice.
            TypeError: a value that cannot be stored.
        """
        if not name or name != name.strip() or set(name) & set('/\\:*?"<>|') or name.startswith("."):
            raise ValueError(f"save: {name!r} is no plain file name")
        if name in self.files or any(file.startswith(f"{name}/") for file in self.files):
            raise ValueError(f"save: {name!r} was saved before in this trial")
        if isinstance(value, str):
            self.files[name] = value.encode()
        elif isinstance(value, bytes):
            self.files[name] = value
        else:
            self.files.update({f"{name}/{file}": data for file, data in encode(value).items()})

    # ---- work that outlives the trial --------------------------------------------------------------------------------

    def cached(self, function: Callable[P, R]) -> Callable[P, R]:
        """The same function with stored results, keyed by its code and its arguments.

        A result is computed once and shared by every trial that asks for it, in this run and in later ones. The
        function must depend on nothing but its arguments: hand it a seed, never a generator.

        Args:
            function: a function of a module (no lambda, no local function). Its arguments may be numbers, strings,
                nestings of them, dataclasses, arrays, tensors, tables, functions of modules and data sets with a
                checksum; its result the same, without functions.

        Raises:
            TypeError: an argument of another kind, named.
        """
        name = address(function)
        code = code_key(name)
        signature = inspect.signature(function)

        @functools.wraps(function)
        def stored(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = [f"{argument}={fingerprint(value, argument)}" for argument, value in bound.arguments.items()]
            # A tensor's device is no part of its fingerprint, and kinds of device round differently.
            parts = [code, self._device.partition(":")[0], *given]
            key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
            files = self._exchange.load_cached(name, key)
            if files is None:
                try:
                    files = encode(function(*args, **kwargs))
                except BaseException:
                    self._exchange.abandon_cached(name, key)
                    raise
                self._exchange.publish_cached(name, key, files)
            return decode(files)  # type: ignore[no-any-return]

        return stored

    def track(self, iterable: Iterable[R], label: str = "") -> Iterator[R]:
        """Iterate with progress shown: the label, how far it is and the time left."""
        total = len(iterable) if isinstance(iterable, Sized) else None
        told = 0.0
        for done, item in enumerate(iterable):
            if time.monotonic() - told > 0.2:  # a courtesy to the terminal; nothing computed depends on it
                self._exchange.progress(label, done, total)
                told = time.monotonic()
            yield item
        if total:
            self._exchange.progress(label, total, total)


def _scalar(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic) or getattr(value, "ndim", None) == 0:
        item = value.item()
        if isinstance(item, (bool, int, float, str)):
            return item
    raise TypeError(
        f"record: column {name!r} holds a {type(value).__name__}; rows hold numbers, strings and booleans "
        "(use lab.save for anything else)"
    )
