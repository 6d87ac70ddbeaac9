"""Where results are kept: a folder in which a trial is there whole or not at all.

Layout::

    format                                       what wrote it
    trials/STUDY/MEASUREMENT/SLOT-CODE-READS/    trial.json, rows.parquet, files/
    cached/FUNCTION/KEY/                         entry.json and the encoded value
    code/KEY.json                                the definitions a code key stands for, to say what changed
    checkpoints/KEY/                             the latest checkpoint of an unfinished trial
    incoming/                                    being written; renamed into place when complete
    locks/STUDY.lock                             held by the run that writes

Only the process that drives a run writes here, and only by renaming complete folders into place.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from platformdirs import user_data_path

from etude.errors import EtudeError

FORMAT = "etude store 1"
ROWS = "rows.parquet"


class StoreError(EtudeError):
    """The store cannot be used, or an entry in it is not what was written."""


@dataclass(frozen=True)
class Problem:
    """An entry of the store that is not whole."""

    path: Path
    what: str


@dataclass(frozen=True)
class Stored:
    """A trial found in the store: where, and its description (trial.json)."""

    path: Path
    about: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """How long the trial ran."""
        return float(self.about["seconds"])

    def rows(self) -> bytes:
        """The recorded table as Parquet bytes, checked against its checksum.

        Raises:
            StoreError: the file is not the one that was written.
        """
        return self._checked(ROWS)

    def files(self) -> dict[str, Path]:
        """The saved values: name to path, each checked against its checksum."""
        found = {}
        for name in self.about["files"]:
            if name.startswith("files/"):
                self._checked(name)
                found[name.removeprefix("files/")] = self.path / name
        return found

    def _checked(self, name: str) -> bytes:
        try:
            data = (self.path / name).read_bytes()
        except OSError as error:
            raise StoreError(f"{self.path / name}: {error.strerror}. {_REMEDY}") from None
        if _digest(data) != self.about["files"].get(name):
            raise StoreError(f"{self.path / name} was changed or cut off after it was written. {_REMEDY}")
        return data


_REMEDY = "`etude store check --remove` removes such entries; the next run measures them again."


def default_path() -> Path:
    """`ETUDE_STORE`, or the user's data folder."""
    named = os.environ.get("ETUDE_STORE")
    return Path(named).expanduser() if named else user_data_path("etude", appauthor=False) / "store"


class Store:
    """A folder of results.

    Args:
        path: the folder; made on the first write. By default `ETUDE_STORE` or the user's data folder.

    Raises:
        StoreError: the path is a file, or a folder of something else.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path).expanduser().resolve() if path is not None else default_path()
        marker = self.path / "format"
        if self.path.exists():
            if not self.path.is_dir():
                raise StoreError(f"store: {self.path} is a file. Name a folder with --store or ETUDE_STORE.")
            # Another run may be making this store right now: the marker comes first, so look for it after the rest.
            others = [entry.name for entry in self.path.iterdir() if not entry.name.startswith(".format.")]
            if marker.exists():
                written = marker.read_text().strip()
                if written != FORMAT:
                    raise StoreError(
                        f"store: {self.path} was written as '{written}', this version reads '{FORMAT}'. "
                        "Name another folder."
                    )
            elif others:
                raise StoreError(f"store: {self.path} holds other things. Name a new or empty folder.")

    # ---- writing ---------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the folders and sweep what a killed run left half-written.

        Raises:
            StoreError: the folder cannot be written.
        """
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            marker = self.path / "format"
            if not marker.exists():
                _write(marker, FORMAT.encode())
            for folder in ("trials", "cached", "code", "checkpoints", "incoming", "locks"):
                (self.path / folder).mkdir(exist_ok=True)

    @contextlib.contextmanager
    def lock(self, study: str, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
        """Hold the study's lock; a live holder is waited for, a dead one's lock is taken over.

        The operating system frees the lock of a process that died, so there is nothing to time out.

        Args:
            study: whose trials are going to be written.
            waiting: told who holds the lock, once, if there is someone.
        """
        self.prepare()
        path = self.path / "locks" / f"{study}.lock"
        holder = path.with_suffix(".json")
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if waiting is not None:
                waiting(_holder(holder))
            lock.acquire()
        try:
            with self._writing():
                _write(holder, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
                for leftover in (self.path / "incoming").glob(f"{study}.*"):
                    shutil.rmtree(leftover, ignore_errors=True)
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def put_trial(
        self, address: TrialAddress, about: Mapping[str, Any], rows: bytes, files: Mapping[str, bytes]
    ) -> Stored:
        """Keep a finished trial.

        Raises:
            StoreError: it could not be written; nothing half-written is left.
        """
        content = {ROWS: rows} | {f"files/{name}": data for name, data in files.items()}
        about = dict(about) | {"files": {name: _digest(data) for name, data in content.items()}}
        target = self.path / "trials" / address.folder(about["reads"])
        self._place(target, content | {"trial.json": _sealed(about)}, address.study, durable=True)
        return Stored(target, about)

    def put_cached(self, function: str, key: str, files: Mapping[str, bytes], study: str) -> None:
        """Keep the result of a cached function."""
        entry = {"function": function, "files": {name: _digest(data) for name, data in files.items()}}
        self._place(self._cached(function, key), dict(files) | {"entry.json": _sealed(entry)}, study)

    def put_checkpoint(self, key: str, files: Mapping[str, bytes], study: str) -> None:
        """Replace the checkpoint of an unfinished trial."""
        entry = {"files": {name: _digest(data) for name, data in files.items()}}
        self._place(self.path / "checkpoints" / key, dict(files) | {"entry.json": _sealed(entry)}, study, replace=True)

    def put_code(self, key: str, parts: Mapping[str, str]) -> None:
        """Keep which definitions a code key stands for."""
        path = self.path / "code" / f"{key}.json"
        if not path.exists():
            with self._writing():
                _write(path, _json(dict(parts)))

    def changed(self, old: str, new: str) -> list[str]:
        """The definitions, as ``module:name``, in which two code keys differ; none where that is not known."""
        try:
            before, after = (json.loads((self.path / "code" / f"{key}.json").read_bytes()) for key in (old, new))
        except (OSError, ValueError):
            return []
        return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))

    def drop_checkpoint(self, key: str) -> None:
        """Forget the checkpoint of a trial that is finished."""
        shutil.rmtree(self.path / "checkpoints" / key, ignore_errors=True)

    def _place(
        self, target: Path, files: Mapping[str, bytes], study: str, *, replace: bool = False, durable: bool = False
    ) -> None:
        staging = self.path / "incoming" / f"{study}.{uuid.uuid4().hex}"
        with self._writing():
            try:
                for name, data in files.items():
                    path = staging / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _write(path, data, durable)
                target.parent.mkdir(parents=True, exist_ok=True)
                if replace and target.exists():
                    target.rename(staging.with_suffix(".old"))
                try:
                    staging.rename(target)
                except OSError as error:
                    # Another study's run kept the same cached value first, or a broken entry stands in the way.
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    if self._whole(target) is not None:
                        shutil.rmtree(target)
                        staging.rename(target)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
                shutil.rmtree(staging.with_suffix(".old"), ignore_errors=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                why = "the disk is full. Free some space and give the same command again; what was finished is kept"
            elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
                why = "it cannot be written. Name another folder with --store or ETUDE_STORE"
            else:
                why = f"{error.strerror or error} ({error.filename or self.path})"
            raise StoreError(f"store: {self.path}: {why}.") from error

    # ---- reading ---------------------------------------------------------------------------------------------------

    def find_trial(
        self, address: TrialAddress, values: Callable[[str], Any], notice: Callable[[str], None]
    ) -> Stored | None:
        """The trial at this address whose recorded reads equal `values(field)`, if it is there whole.

        Args:
            address: cell, seed, device and code.
            values: the configuration's value of a field, as plain data; AttributeError for a field that is gone.
            notice: told of an entry that was cut off or edited; such an entry counts as absent.
        """
        return next(self._matching(address, f"{address.slot}-{address.code[:16]}-*", values, notice), None)

    def stale_trials(
        self, address: TrialAddress, values: Callable[[str], Any], notice: Callable[[str], None]
    ) -> list[Stored]:
        """Trials of the same cell, seed and read values that other code measured, newest first."""
        found = [
            stored
            for stored in self._matching(address, f"{address.slot}-*", values, notice)
            if stored.about["code"] != address.code
        ]
        return sorted(found, key=lambda stored: str(stored.about["finished"]), reverse=True)

    def _matching(
        self, address: TrialAddress, pattern: str, values: Callable[[str], Any], notice: Callable[[str], None]
    ) -> Iterator[Stored]:
        folder = self.path / "trials" / address.study / address.measurement
        for path in sorted(folder.glob(pattern)):
            if (what := self._whole(path)) is not None:
                notice(f"{path}: {what}; it counts as not measured")
                continue
            about = _unsealed(path / "trial.json")
            if all(_same(value, values, name) for name, value in about["reads"].items()):
                yield Stored(path, about)

    def get_cached(self, function: str, key: str) -> dict[str, bytes] | None:
        """The files of a cached result, or None; a broken entry counts as absent and is written anew."""
        return _load(self._cached(function, key))

    def get_checkpoint(self, key: str) -> dict[str, bytes] | None:
        """The files of a trial's checkpoint, or None."""
        return _load(self.path / "checkpoints" / key)

    def _cached(self, function: str, key: str) -> Path:
        return self.path / "cached" / function.replace(":", ".") / key

    # ---- keeping house ---------------------------------------------------------------------------------------------

    def entries(self) -> Iterator[Path]:
        """Every finished trial and cached result."""
        yield from sorted((self.path / "trials").glob("*/*/*"))
        yield from sorted((self.path / "cached").glob("*/*"))

    def size(self) -> dict[str, int]:
        """Bytes by kind: one number per study's trials, cached function, and the checkpoints."""
        sizes: dict[str, int] = {}
        for folder in [*(self.path / "trials").glob("*"), *(self.path / "cached").glob("*"), self.path / "checkpoints"]:
            files = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
            if files:
                sizes[folder.relative_to(self.path).as_posix()] = sum(files)
        return sizes

    def check(self) -> list[Problem]:
        """Every entry that is cut off, edited or incomplete, by reading all of them."""
        return [Problem(path, what) for path in self.entries() if (what := self._whole(path)) is not None]

    def remove(self, path: Path) -> None:
        """Remove one entry.

        Raises:
            ValueError: it is not an entry of this store.
        """
        if self.path not in path.resolve().parents:
            raise ValueError(f"path: {path} is not in the store {self.path}")
        with self._writing():
            shutil.rmtree(path)

    def _whole(self, path: Path) -> str | None:
        """What is wrong with an entry, or None."""
        name = "trial.json" if (path / "trial.json").exists() else "entry.json"
        try:
            listed: dict[str, str] = _unsealed(path / name)["files"]
        except (OSError, ValueError, KeyError, TypeError):
            return f"{name} was changed, cut off or never written"
        for file, digest in listed.items():
            try:
                data = (path / file).read_bytes()
            except OSError:
                return f"{file} is missing"
            if _digest(data) != digest:
                return f"{file} was changed or cut off"
        return None


@dataclass(frozen=True)
class TrialAddress:
    """What is known of a trial before it runs: study, measurement, cell, seed, device and code."""

    study: str
    measurement: str
    cell: Mapping[str, Any]
    seed: int
    device: str
    code: str

    @property
    def slot(self) -> str:
        """Hash of cell, seed and kind of device."""
        return _digest(_json({"cell": self.cell, "seed": self.seed, "device": self.device}))[:16]

    def folder(self, reads: Mapping[str, Any]) -> Path:
        """Where the trial is kept, given the Config fields it read and their values."""
        return Path(self.study, self.measurement, f"{self.slot}-{self.code[:16]}-{_digest(_json(dict(reads)))[:16]}")


def _same(value: Any, values: Callable[[str], Any], name: str) -> bool:
    try:
        now = values(name)
    except AttributeError:  # the field is gone
        return False
    return _json(now) == _json(value)


def _load(path: Path) -> dict[str, bytes] | None:
    try:
        listed = _unsealed(path / "entry.json")["files"]
        files = {name: (path / name).read_bytes() for name in listed}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return files if all(_digest(files[name]) == digest for name, digest in listed.items()) else None


def _holder(path: Path) -> str:
    try:
        about = json.loads(path.read_text())
        return f"process {about['pid']} on {about['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"


def _write(path: Path, data: bytes, durable: bool = False) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=True).encode()


def _sealed(about: Mapping[str, Any]) -> bytes:
    return _json(dict(about) | {"seal": _digest(_json(dict(about)))})


def _unsealed(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(path.read_bytes())
    if about.pop("seal", None) != _digest(_json(about)):
        raise ValueError("changed")
    return about


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
