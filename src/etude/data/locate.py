"""Where a data set is: the user's folders, the system, the user's cache, and last its official address.

Each set is a `Source`: files with their SHA-256. A file is looked for in this order, and the first one found is
verified and used:

1. ``<set>/<file>`` below each folder that ``ETUDE_DATA`` names (several are separated as in ``PATH``);
2. the folders a system package installs to;
3. the user's cache (``$ETUDE_CACHE/data``, or the system's usual cache folder);
4. the official address, from which it is fetched into the cache.

A file that is found but is not the right one is an error, never skipped: what a study reads must not depend on which
of two copies was damaged. A verified file is remembered by path, size and time of last change, so that it is read
once for its checksum and not before every trial.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from etude.errors import MissingData


@dataclass(frozen=True)
class File:
    """One file of a data set.

    Attributes:
        name: its name inside the set's folder.
        size: its length in bytes.
        sha256: the SHA-256 of its bytes, in hexadecimal.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """What a data set is made of and where it can come from.

    Attributes:
        name: the name a user gives.
        files: its files; none for a set that an installed package ships or makes.
        address: the address its files are fetched from, up to and with the last slash; "" when there is none.
        folder: its folder below those of ``ETUDE_DATA`` and in the cache; the name when left out.
        system_folder: where a system package installs the files.
        system_package: the name of that package.
        package: the importable Python package that ships or makes the set.
        requirement: what to install for it.
    """

    name: str
    files: tuple[File, ...] = ()
    address: str = ""
    folder: str = ""
    system_folder: str = ""
    system_package: str = ""
    package: str = ""
    requirement: str = ""

    def places(self) -> list[tuple[Path, str]]:
        """The folders to look into, in order, each with the words that describe it."""
        folder = self.folder or self.name
        roots = [Path(root).expanduser() for root in os.environ.get("ETUDE_DATA", "").split(os.pathsep) if root]
        places = [(root / folder, "named by ETUDE_DATA") for root in roots]
        if self.system_folder:
            places.append((Path(self.system_folder), f"the system package {self.system_package}"))
        return [*places, (cache_folder() / "data" / folder, f"fetched from {self.address or 'no address'}")]

    def remedy(self) -> str:
        """What a user who lacks the set can do, as a sentence without a full stop."""
        if self.package:
            return f"Install it: pip install {self.requirement}"
        names = ", ".join(file.name for file in self.files)
        ways = [f"point ETUDE_DATA to a folder whose subfolder {self.folder or self.name} holds {names}"]
        if self.system_package:
            ways.append(f"install the system package {self.system_package}")
        if self.address:
            ways.append(f"connect to the network, to fetch it from {self.address}")
        sentence = ", or ".join(ways)
        return sentence[0].upper() + sentence[1:]


@dataclass(frozen=True)
class Located:
    """A data set that is on this machine and verified.

    Attributes:
        paths: file name -> path, for each file of the set.
        where: a human sentence that says where they are.
    """

    paths: dict[str, Path]
    where: str


@dataclass(frozen=True)
class DataStatus:
    """Whether a data set is at hand.

    Attributes:
        name: the name to load it by.
        present: all of it is on this machine (files by name and length, a package by being installed).
        where: where it is, or "".
        needs: what to do about it when it is not present, or "".
    """

    name: str
    present: bool
    where: str
    needs: str


def listing(text: str) -> tuple[File, ...]:
    """A set's files, written one a line as ``sha256 size name``."""
    lines = (line.split() for line in text.strip().splitlines())
    return tuple(File(name, int(size), sha256) for sha256, size, name in lines)


SOURCES: dict[str, Source] = {}
"""Every known set by name; a loader enters its own."""


def cache_folder() -> Path:
    """The folder for what étude fetches and remembers: ``ETUDE_CACHE`` if set, else the system's cache folder."""
    if named := os.environ.get("ETUDE_CACHE"):
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("etude"))


def available() -> list[DataStatus]:
    """Which data sets are on this machine, without reading, verifying or fetching any.

    Returns:
        One status a known set, by name.
    """
    return [_status(SOURCES[name]) for name in sorted(SOURCES)]


def locate(source: Source) -> Located:
    """Find a set's files, verify them, and fetch those that are not here.

    Args:
        source: the set.

    Returns:
        The verified paths and where they are.

    Raises:
        MissingData: a file is nowhere and cannot be fetched, or what was found or fetched is not that file.
    """
    found = {file.name: _find(source, file) or _fetch(source, file) for file in source.files}
    for file in source.files:
        _verify(source, file, found[file.name][0])
    wheres = dict.fromkeys(f"{path.parent} ({words})" for path, words in found.values())
    return Located({name: path for name, (path, _) in found.items()}, " and ".join(wheres))


def _status(source: Source) -> DataStatus:
    if source.package:
        if importlib.util.find_spec(source.package) is None:
            return DataStatus(source.name, False, "", source.remedy())
        return DataStatus(source.name, True, f"the package {source.requirement}", "")
    found = [(file, _find(source, file)) for file in source.files]
    lacking = [file.name for file, place in found if place is None or os.path.getsize(place[0]) != file.size]
    if lacking:
        return DataStatus(source.name, False, "", f"lacks {', '.join(lacking)}. {source.remedy()}")
    wheres = dict.fromkeys(f"{place[0].parent} ({place[1]})" for _, place in found if place)
    return DataStatus(source.name, True, " and ".join(wheres), "")


def _find(source: Source, file: File) -> tuple[Path, str] | None:
    places = ((folder / file.name, words) for folder, words in source.places())
    return next(((path, words) for path, words in places if os.path.isfile(path)), None)


def _verify(source: Source, file: File, path: Path) -> None:
    origin = f"the original from {source.address}{file.name}" if source.address else "the original"
    remedy = f"Replace it with {origin}"
    if path.is_relative_to(cache_folder()):
        remedy = f"Delete it, and it is fetched again from {source.address}{file.name}"
    try:
        if (size := path.stat().st_size) != file.size:
            raise MissingData(f"{source.name}: {path} has {size} bytes where {file.size} are expected", remedy)
        mark = _mark(file, path)
        if os.path.exists(mark):
            return
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise MissingData(f"{source.name}: {path} cannot be read ({error})", remedy) from error
    if digest != file.sha256:
        raise MissingData(f"{source.name}: {path} has SHA-256 {digest} where {file.sha256} is expected", remedy)
    _remember(mark)


def _mark(file: File, path: Path) -> Path:
    """The empty file whose existence says that ``path``, as it is now, was verified."""
    status = path.stat()
    facts = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0{file.sha256}"
    return cache_folder() / "verified" / hashlib.sha256(facts.encode()).hexdigest()


def _remember(mark: Path) -> None:
    # Only a saving of time: where the cache cannot be written, the file is verified again next time.
    with contextlib.suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def _fetch(source: Source, file: File) -> tuple[Path, str]:
    folder, words = source.places()[-1]
    looked = ", ".join(str(place) for place, _ in source.places())
    missing = f"{source.name}: {file.name} is not on this machine (looked in {looked})"
    if not source.address:
        raise MissingData(f"{missing}, and there is no address to fetch it from", source.remedy())
    import pooch  # slow to import, and not needed while every set is at hand

    path = folder / file.name
    try:
        with _only_one(folder):
            if not path.exists():  # another process may have fetched it while this one waited
                # pooch writes to a temporary file beside the final one and renames it after the checksum is right
                pooch.retrieve(
                    source.address + file.name,
                    known_hash=f"sha256:{file.sha256}",
                    fname=file.name,
                    path=folder,
                    downloader=pooch.HTTPDownloader(timeout=30),
                )
    except (OSError, ValueError) as error:  # no network, an HTTP error, a full disk; or a wrong checksum
        what = f"{missing}, and fetching {source.address}{file.name} failed ({error})"
        raise MissingData(what, source.remedy()) from error
    return path, words


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Let one process at a time fetch into a folder; the lock of a process that ended is free."""
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        yield
