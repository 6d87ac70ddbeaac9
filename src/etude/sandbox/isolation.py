"""Processes that run programs, and which isolation this machine really gives them."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from etude.errors import Unavailable
from etude.sandbox.limits import Limits, Outcome, Result, check_data
from etude.sandbox.server import NOBODY

Name = Literal["bwrap", "subprocess"]
LEVELS: tuple[Name, ...] = ("bwrap", "subprocess")
"""Strongest first."""

PRELOAD = """
array base64 bisect calendar cmath collections copy ctypes dataclasses datetime decimal encodings.idna enum fractions
functools hashlib heapq itertools json math numbers operator pprint queue random re socket statistics string struct
subprocess textwrap threading time typing unicodedata
""".split()  # noqa: SIM905 - a list one reads
PACKAGES = ("numpy", "scipy.ndimage")
"""What every program finds imported."""

_START_SECONDS = 60.0
_GRACE_SECONDS = 5.0
_REMEDY = (
    "Install bubblewrap (Debian, Ubuntu, Fedora: the package bubblewrap), allow user namespaces, and see `etude doctor`"
)


class Lost(Unavailable):
    """The process that runs programs is gone, does not start, or does not answer."""

    def __init__(self, what: str) -> None:
        super().__init__(what, "`etude doctor` says which levels of isolation this machine gives")


@dataclass(frozen=True)
class Isolation:
    """What a level keeps programs from on this machine, as found by trying.

    Attributes:
        level: ``"bwrap"`` or ``"subprocess"``.
        network: a program could not connect to a listening socket.
        files: a program could not read a file of the caller's that anybody may read.
        processes: a program saw no process but its own.
        filter: dangerous system calls are refused (libseccomp is at hand).
        missing: why the level is not reached, or ""; then the rest is False.
    """

    level: str
    network: bool = False
    files: bool = False
    processes: bool = False
    filter: bool = False
    missing: str = ""

    def __str__(self) -> str:
        if self.missing:
            return f"{self.level}: not reached ({self.missing})"
        facts = {"no network": self.network, "files hidden": self.files, "processes hidden": self.processes}
        facts["system calls filtered"] = self.filter
        kept = [name for name, kept in facts.items() if kept]
        lacks = [name for name, kept in facts.items() if not kept]
        return f"{self.level}: {', '.join([*kept, 'limits'])}" + (f"; not: {', '.join(lacks)}" if lacks else "")


class Worker:
    """One fork server, which runs one program at a time."""

    def __init__(self, level: Name) -> None:
        self.level = level
        self.filter = False
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def start(self) -> None:
        """Start the server and wait until it is ready.

        Raises:
            Lost: it did not start; the message says why.
        """
        ours, theirs = socket.socketpair()
        self._folder = tempfile.mkdtemp(prefix="etude-sandbox-")
        if os.geteuid() == 0:
            os.chown(self._folder, NOBODY, NOBODY)  # the user a program becomes
        with theirs, tempfile.TemporaryFile() as said:
            command = _command(self.level, theirs.fileno())
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    pass_fds=[theirs.fileno()],
                    env=_ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                shutil.rmtree(self._folder, ignore_errors=True)
                raise Lost(str(error)) from error
            theirs.close()
            self._socket, self._owner = ours, os.getpid()
            try:
                _, data = self._frame(time.monotonic() + _START_SECONDS)
                self.filter = bool(json.loads(data)["filter"])
            except Lost as error:
                self.stop()
                said.seek(0)
                lines = said.read(10_000).decode(errors="replace").strip().splitlines()
                raise Lost(lines[-1] if lines else error.what) from error

    @property
    def pid(self) -> int:
        """The process to whose end the server's is tied; 0 when none runs."""
        return self._process.pid if self._process else 0

    def stop(self) -> None:
        """End the server and whatever runs in it."""
        process, self._process = self._process, None
        if process is None:
            return
        self._socket.close()  # the server leaves when its caller is gone; the one outside the jail is killed
        if self._owner == os.getpid():  # and not one that a fork of the caller merely knows of
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
            shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, source: str, entry: str, texts: Sequence[str], limits: Limits) -> list[Result]:
        """Run a program on inputs given as JSON texts; the arguments have been checked."""
        body = json.dumps({"source": source, "entry": entry, "inputs": list(texts)}).encode()
        request = {
            "cpu": limits.cpu_seconds,
            "wall": limits.wall_seconds,
            "memory": limits.memory_mb << 20,
            "output": limits.output_kb << 10,
            "file": limits.file_kb << 10,
            "processes": limits.processes,
            "depth": limits.depth,
            "size": len(body),
        }
        for attempt in range(2):  # a server that died while idle is replaced; a program is never run twice
            if self._owner != os.getpid():
                self.stop()
            if self._process is None:
                self.start()
            head = json.dumps({**request, "folder": self._folder}).encode()
            try:
                self._socket.settimeout(_GRACE_SECONDS)
                self._socket.sendall(struct.pack("!I", len(head)) + head + body)
                break
            except OSError as error:
                self.stop()
                if attempt:
                    raise Lost("the server does not take programs") from error
        began = time.monotonic()
        data, most = bytearray(), limits.output_kb << 10
        try:
            while True:
                kind, part = self._frame(began + limits.wall_seconds + _GRACE_SECONDS)
                if kind == b"E":
                    break
                data += part
                if len(data) > most:
                    raise Lost("the server sends more than it may")
            end = json.loads(part)
        except (Lost, ValueError):
            self.stop()
            end = {"end": "lost", "seconds": time.monotonic() - began}
        else:
            try:
                _empty(self._folder)
            except OSError:  # then the next program gets a new server and a new directory
                self.stop()
        return _results(bytes(data), end, len(texts), limits, self.level)

    def _frame(self, deadline: float) -> tuple[bytes, bytes]:
        kind = self._exactly(5, deadline)
        (size,) = struct.unpack("!I", kind[1:])
        if kind[:1] not in (b"D", b"E") or size > 1 << 20:
            raise Lost("the server does not keep to the protocol")
        return kind[:1], self._exactly(size, deadline)

    def _exactly(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                part = self._socket.recv(size - len(data))
            except OSError as error:
                raise Lost(f"the server does not answer ({error})") from error
            if not part:
                raise Lost("the server ended")
            data += part
        return bytes(data)


def _empty(folder: str) -> None:
    """Remove what a program left in its working directory, without following its links."""
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "HOME": "/tmp",
    **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "VECLIB")},
}


def _command(level: Name, control: int) -> list[str]:
    """How the server is started."""
    packages = {name.partition(".")[0]: _package(name.partition(".")[0]) for name in PACKAGES}
    paths = list(dict.fromkeys(str(folder.parent) for folder in packages.values()))
    settings = {"control": control, "jail": level == "bwrap", "paths": paths, "preload": [*PRELOAD, *PACKAGES]}
    interpreter = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    program = Path(__file__).with_name("server.py").read_text(encoding="utf-8")
    python = [interpreter, "-I", "-S", "-B", "-c", program, json.dumps(settings)]
    if level == "subprocess":
        return python
    jail = [
        shutil.which("bwrap") or "bwrap",
        "--unshare-all",
        "--uid",
        "65534",
        "--gid",
        "65534",
        "--hostname",
        "sandbox",
        "--clearenv",
    ]
    jail += ["--new-session", "--as-pid-1", "--cap-drop", "ALL"]
    jail += itertools.chain.from_iterable(("--cap-add", f"CAP_SYS_{name}") for name in ("ADMIN", "CHROOT"))
    jail += itertools.chain.from_iterable(("--setenv", name, value) for name, value in _ENVIRONMENT.items())
    library = os.path.join(sys.base_prefix, "lib")
    for folder in dict.fromkeys(("/usr/lib", "/usr/lib64", "/lib", "/lib64", library)):
        jail += ["--ro-bind-try", folder, folder]
    # Of what others installed for this interpreter, only the packages that programs may use are seen.
    for folder in dict.fromkeys((*map(sysconfig.get_path, ("purelib", "platlib")), *_site_folders(library))):
        if folder.startswith((f"{library}/", "/usr/lib/")):
            jail += ["--tmpfs", folder]
    for name, place in packages.items():
        for part in (place, place.with_name(f"{name}.libs")):
            jail += ["--ro-bind-try", str(part), str(part)]
    jail += ["--ro-bind", interpreter, interpreter, "--dir", "/tmp", "--dir", "/jail", "--chdir", "/"]
    for folder in ("/", *(jail[i + 1] for i, word in enumerate(jail) if word == "--tmpfs")):
        jail += ["--remount-ro", folder]
    return [*jail, *python]


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise Lost(f"the package {name} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def _site_folders(library: str) -> list[str]:
    """Where packages are installed for the interpreter itself and by the system."""
    places = [*Path(library).glob("python3*/site-packages"), *Path(library).glob("python3*/dist-packages")]
    places += Path("/usr/lib").glob("python3*/dist-packages")
    return [str(place) for place in places if place.is_dir()]


def _results(data: bytes, end: dict[str, Any], count: int, limits: Limits, level: str) -> list[Result]:
    """What a program wrote and how it ended, as one result an input. The data may have been written by anyone."""
    seconds = float(end["seconds"])
    lines = data.split(b"\n")[:-1][:count]  # what follows the last line's end was cut off
    results = [_read(line, seconds, limits, level) for line in lines]
    outcome: Outcome
    if end["end"] in ("timeout", "abandoned"):
        outcome, why = "timeout", f"no answer within {limits.cpu_seconds:g} s of processor time "
        why += f"and {limits.wall_seconds:g} s in all"
    elif end["end"] == "output":
        outcome, why = "output", f"the answers take more than {limits.output_kb} kB"
    elif end["end"] == "lost":
        outcome, why = "crashed", "the process that runs programs was lost and is replaced"
    elif end["signal"]:
        outcome, why = "crashed", f"the process was ended by signal {end['signal']} before it answered"
    else:
        outcome, why = "crashed", f"the process ended with code {end['code']} before it answered"
    return results + [Result(outcome, None, why, seconds, level)] * (count - len(results))


def _read(line: bytes, seconds: float, limits: Limits, level: str) -> Result:
    def refuse(why: str) -> Result:
        return Result("refused", None, f"what the program wrote is no answer ({why})", seconds, level)

    try:
        content = json.loads(line)
        check_data(content, limits.depth + 1, "answer")
    except (ValueError, TypeError, RecursionError) as error:
        return refuse(str(error)[:200])
    if not isinstance(content, list) or len(content) != 2 or content[0] not in ("value", "error", "memory", "refused"):
        return refuse("not in the form of one")
    outcome, value = content
    if outcome == "value":
        return Result("value", value, "", seconds, level)
    if not isinstance(value, str):
        return refuse("its error is no text")
    return Result(outcome, None, value[:4000], seconds, level)


PROBE = """
import os, socket
def probe(found):
    def tried(action):
        try:
            return bool(action())
        except OSError:
            return False
    def connect():
        with socket.create_connection(("127.0.0.1", found["port"]), timeout=2):
            return True
    def signal():
        os.kill(found["pid"], 0)
        return True
    def listed():
        return any(name.isdigit() and int(name) != os.getpid() for name in os.listdir("/proc"))
    def fork():
        child = os.fork()
        if child == 0:
            os._exit(0)
        return os.waitpid(child, 0)
    return {
        "network": tried(connect),
        "files": tried(lambda: open(found["file"]).read() == found["secret"]),
        "processes": tried(signal) or tried(listed) or os.getppid() > 0,
        "fork": tried(fork),
    }
"""


@functools.cache
def probe(level: Name) -> Isolation:
    """What a level really gives here, found by a program that tries to connect, to read a file and to see processes.

    Args:
        level: ``"bwrap"`` or ``"subprocess"``.

    Returns:
        What was found, kept for the life of this process.
    """
    if not hasattr(os, "fork"):
        return Isolation(level, missing=f"{sys.platform} has no fork")
    if level == "bwrap" and not shutil.which("bwrap"):
        return Isolation(level, missing="bwrap is not installed")
    worker = Worker(level)
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            tempfile.NamedTemporaryFile("w", prefix="etude-probe-", suffix=".txt") as file,
        ):
            secret = os.urandom(8).hex()
            file.write(secret)
            file.flush()
            os.chmod(file.name, 0o644)
            port = listener.getsockname()[1]
            found = {"port": port, "file": file.name, "secret": secret, "pid": os.getpid()}
            (result,) = worker.run(PROBE, "probe", [json.dumps(found)], Limits(wall_seconds=20, cpu_seconds=10))
            connected = bool(select.select([listener], [], [], 0)[0])
    except (Lost, OSError) as error:
        return Isolation(level, missing=getattr(error, "what", str(error))[:300])
    finally:
        worker.stop()
    if not result.ok:
        return Isolation(level, missing=f"the program that tries it failed: {result.error[-300:]}")
    reached = {name: bool(result.value[name]) for name in ("network", "files", "processes")}
    reached["network"] |= connected
    kept = {name: not each for name, each in reached.items()}
    if level == "bwrap" and not all(kept.values()):
        seen = ", ".join(name for name, each in kept.items() if not each)
        return Isolation(level, missing=f"a program in it still reaches: {seen}")
    if result.value["fork"]:
        return Isolation(
            level, missing="it may start others beyond its limit: install libseccomp, or be another user than root"
        )
    return Isolation(level, kept["network"], kept["files"], kept["processes"], worker.filter)


def isolation(level: str = "best", minimum: str = "subprocess") -> Isolation:
    """The level to run at.

    Args:
        level: a name in `LEVELS`, or ``"best"`` for the strongest this machine gives.
        minimum: the weakest level that will do.

    Raises:
        ValueError: `level` or `minimum` is no level, or `level` is weaker than `minimum`.
        Unavailable: the machine does not give it; the message says why and what to do.
    """
    for name, given, accepted in (("level", level, ("best", *LEVELS)), ("minimum", minimum, LEVELS)):
        if given not in accepted:
            raise ValueError(f"{name}: {given!r} was given; one of {', '.join(map(repr, accepted))} is accepted")
    allowed = LEVELS[: LEVELS.index(minimum) + 1]
    if level != "best" and level not in allowed:
        raise ValueError(f"level: {level!r} was given, which is weaker than minimum={minimum!r}")
    tried = [probe(each) for each in LEVELS if each in allowed and level in ("best", each)]
    for each in tried:
        if not each.missing:
            return each
    wanted = minimum if level == "best" else level
    raise Unavailable(f"The sandbox does not reach the level {wanted!r}: {'; '.join(map(str, tried))}", _REMEDY)
