"""Attempts to escape from a sandbox or to abuse it, each with a criterion of success that is checked from outside.

`check` runs them against a sandbox. Nothing is left to what the program says of itself where it can be seen otherwise:
whether a file exists, a socket was reached, a process is left, a secret came out. What can only be seen inside (a
system call succeeded, so much memory was had) is what the program returns: then it *boasts*. After each attempt the
sandbox must still work, and every result must be plain data.

An attempt that succeeds does no harm: it writes into a folder made for it and signals only étude's own processes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.sandbox.isolation import Isolation
from etude.sandbox.limits import Limits, Result, check_data, same
from etude.sandbox.sandbox import Sandbox

BOAST = "the attack went through"
ATTACK_LIMITS = Limits(cpu_seconds=1, wall_seconds=1.0, memory_mb=128, output_kb=64, file_kb=256)
"""What an attacking program may use."""


@dataclass(frozen=True)
class Attack:
    """One attempt.

    Attributes:
        name: its name.
        aim: what it tries, as a phrase.
        source: the program; ``attack(found)`` is called with what is told to the attacker: paths, ports and so on.
        criterion: which of `CRITERIA` says that it succeeded.
        prevented_by: it must not succeed where any of these is given: ``"limits"`` (every level gives them) or a fact
            of `Isolation`: ``"network"``, ``"files"``, ``"processes"``, ``"filter"``.
        first: a program, ``prepare(found)``, that runs before, with a secret in what it is told.
    """

    name: str
    aim: str
    source: str
    criterion: str
    prevented_by: tuple[str, ...] = ("limits",)
    first: str = ""

    def prevented(self, isolation: Isolation) -> bool:
        """Whether a sandbox with this isolation promises to prevent it."""
        return any(fact == "limits" or getattr(isolation, fact) for fact in self.prevented_by)


@dataclass(frozen=True)
class Attempt:
    """What came of an attack.

    Attributes:
        attack: the attack.
        succeeded: whether it did.
        evidence: how that was seen, or "".
        prevented: whether the sandbox promises to prevent it.
        outcomes: outcomes of its results.
        seconds: how long the call took, as its caller saw it.
    """

    attack: Attack
    succeeded: bool
    evidence: str
    prevented: bool
    outcomes: tuple[str, ...]
    seconds: float


@dataclass
class Scene:
    """The world outside, prepared so that an escape can be seen."""

    folder: Path
    secret: str
    tag: str = field(default_factory=lambda: f"att{secrets.token_hex(6)}")
    results: list[Result] = field(default_factory=list)
    pids: tuple[int, ...] = ()
    sockets: dict[str, socket.socket] = field(default_factory=dict)

    def told(self, victim: int) -> dict[str, Any]:
        """What an attacker is told; the secret is not in it."""
        return {
            "file": str(self.folder / "secret.txt"),
            "deletable": str(self.folder / "deletable.txt"),
            "marker": str(self.folder / "marker"),
            "scratch": str(self.folder),
            "home": str(Path.home()),
            "project": str(Path(__file__)),
            "library": os.__file__,
            "port": self.sockets["tcp"].getsockname()[1],
            "udp": self.sockets["udp"].getsockname()[1],
            "unix": str(self.folder / "unix"),
            "abstract": f"{self.tag}-unix",
            "caller": os.getpid(),
            "victim": victim,
            "tag": self.tag,
            "boast": BOAST,
        }


@contextlib.contextmanager
def inheritance() -> Iterator[str]:
    """A secret where what a careless program starts would inherit it: in a variable, and in an open file."""
    secret = f"ETUDE-SECRET-{secrets.token_hex(8)}"
    with tempfile.TemporaryFile() as file:
        file.write(secret.encode())
        file.flush()
        os.set_inheritable(file.fileno(), True)
        os.environ["ETUDE_ATTACK_SECRET"] = secret
        try:
            yield secret
        finally:
            del os.environ["ETUDE_ATTACK_SECRET"]


@contextlib.contextmanager
def scene(secret: str) -> Iterator[Scene]:
    """A folder that anybody may write to, with the secret in a file that anybody may read, and listening sockets.

    Args:
        secret: the secret.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="etude-attack-")))
        folder.chmod(0o777)
        made = Scene(folder, secret)
        (folder / "secret.txt").write_text(secret)
        (folder / "secret.txt").chmod(0o644)
        (folder / "deletable.txt").touch()
        for name, family, kind, address in (
            ("tcp", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            ("udp", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            ("unix", socket.AF_UNIX, socket.SOCK_STREAM, str(folder / "unix")),
            ("abstract", socket.AF_UNIX, socket.SOCK_STREAM, f"\0{made.tag}-unix"),
        ):
            if name == "abstract" and not sys.platform.startswith("linux"):
                continue
            made.sockets[name] = stack.enter_context(socket.socket(family, kind))
            made.sockets[name].bind(address)
            if kind == socket.SOCK_STREAM:
                made.sockets[name].listen()
        (folder / "unix").chmod(0o777)
        yield made


# ---- criteria ------------------------------------------------------------------------------------------------------


def _written(scene: Scene) -> str:
    return "\n".join(f"{result.value!r}\n{result.error}" for result in scene.results)


def secret_came_out(scene: Scene) -> str:
    """The secret is in something that came out."""
    return "the secret came out" if scene.secret in _written(scene) else ""


def users_came_out(scene: Scene) -> str:
    """A line of the list of users is in something that came out."""
    try:
        lines = Path("/etc/passwd").read_text().splitlines()
    except OSError:
        return ""
    return next((f"came out: {line}" for line in lines if len(line) > 10 and line in _written(scene)), "")


def home_came_out(scene: Scene) -> str:
    """The names of what is in the home directory came out."""
    try:
        names = sorted(os.listdir(Path.home()))
    except OSError:
        return ""
    return "came out: what is in the home directory" if names and [*names] in [r.value for r in scene.results] else ""


def project_came_out(scene: Scene) -> str:
    """The text of this file came out."""
    return "came out: this file" if Path(__file__).read_text()[:60] in "".join(map(_text, scene.results)) else ""


def environment_came_out(scene: Scene) -> str:
    """Part of the caller's environment came out."""
    try:
        parts = Path("/proc/self/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    written = _written(scene)
    return next((f"came out: {part.partition('=')[0]}" for part in parts if len(part) > 12 and part in written), "")


def marker_was_written(scene: Scene) -> str:
    """There is a file outside that the program made."""
    return "it wrote a file outside" if (scene.folder / "marker").exists() else ""


def file_was_deleted(scene: Scene) -> str:
    """A file outside is gone."""
    return "" if (scene.folder / "deletable.txt").exists() else "it deleted a file outside"


def socket_was_reached(scene: Scene) -> str:
    """One of the caller's sockets heard something."""
    heard = select.select(list(scene.sockets.values()), [], [], 0.05)[0]
    return "a socket outside was reached" if heard else ""


def process_survived(scene: Scene) -> str:
    """A process of the program is left after the call."""
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if comm.read_text().strip() == scene.tag:
                return f"process {comm.parent.name} is left"
    return marker_was_written(scene)


def boasted(scene: Scene) -> str:
    """The program says that it went through."""
    return BOAST if BOAST in [result.value for result in scene.results] else ""


def server_was_lost(scene: Scene) -> str:
    """A process of the sandbox, or of another one beside it, ended."""
    return (
        "a process outside ended" if any("lost" in r.error for r in scene.results) or _gone(scene) else boasted(scene)
    )


def secret_was_matched(scene: Scene) -> str:
    """An answer that was not the expected one passed for it."""
    expected = [scene.secret]
    passed = any(result.ok and same(result.value, expected) for result in scene.results)
    return "a wrong answer passed" if passed else ""


def nothing_more(scene: Scene) -> str:
    """Only what is asked after every attack: results are data, and the sandbox still works."""
    return ""


def _gone(scene: Scene) -> bool:
    return any(not Path(f"/proc/{pid}").exists() for pid in scene.pids) if Path("/proc/self").exists() else False


def _text(result: Result) -> str:
    return result.value if isinstance(result.value, str) else ""


CRITERIA: dict[str, Callable[[Scene], str]] = {
    criterion.__name__: criterion
    for criterion in (
        secret_came_out,
        users_came_out,
        home_came_out,
        project_came_out,
        environment_came_out,
        marker_was_written,
        file_was_deleted,
        socket_was_reached,
        process_survived,
        boasted,
        server_was_lost,
        secret_was_matched,
        nothing_more,
    )
}


# ---- the attacks ---------------------------------------------------------------------------------------------------

TOOLS = '''
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def name_me(found):
    """So that this process can be recognised from outside."""
    if sys.platform.startswith("linux"):
        libc.prctl(15, found["tag"].encode(), 0, 0, 0)
def quietly(action):
    try:
        return action()
    except BaseException as error:
        return repr(error)
PATTERN = "ETUDE-SEC" + "RET-"
def walk_objects():
    """Every text that the garbage collector or a frame leads to."""
    import gc
    seen, found = set(), []
    todo = list(gc.get_objects()) + [sys._getframe(), sys.modules]
    frame = sys._getframe()
    while frame:
        todo += [frame.f_locals, frame.f_globals]
        frame = frame.f_back
    while todo and len(seen) < 400_000:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, (str, bytes)):
            text = each if isinstance(each, str) else each.decode("latin-1")
            if PATTERN in text:
                start = text.index(PATTERN)
                found.append(text[start:start + 40])
        else:
            todo += gc.get_referents(each)
    return found
def scan(pid):
    """The secret in the memory of a process, if that can be read."""
    import re
    hits = set()
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            if " rw" not in line:
                continue
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if end - start > 1 << 26:
                continue
            try:
                memory.seek(start)
                content = memory.read(end - start)
            except (OSError, ValueError, OverflowError):
                continue
            hits |= set(re.findall(PATTERN.encode() + b"[0-9a-f]{16}", content))
    return b" ".join(hits).decode()
'''


def _attack(name: str, aim: str, body: str, criterion: Callable[[Scene], str], *by: str, first: str = "") -> Attack:
    """An attack whose function's body is given."""
    lines = "\n".join(f"    {line}" for line in body.strip("\n").splitlines())
    source = f"{TOOLS}\ndef attack(found):\n    name_me(found)\n{lines}\n"
    return Attack(name, aim, source, criterion.__name__, by or ("limits",), first)


ATTACKS: tuple[Attack, ...] = (
    # ---- files
    _attack("read-passwd", "read the list of users", "return open('/etc/passwd').read()", users_came_out, "files"),
    _attack("read-file", "read a file by its path", "return open(found['file']).read()", secret_came_out, "files"),
    _attack("read-home", "list the home directory", "return sorted(os.listdir(found['home']))", home_came_out, "files"),
    _attack("read-project", "read étude's source", "return open(found['project']).read()", project_came_out, "files"),
    _attack(
        "symlink",
        "read a file through a symbolic link",
        "os.symlink(found['file'], 'link')\nreturn open('link').read()",
        secret_came_out,
        "files",
    ),
    _attack(
        "hard-link",
        "read a file through a hard link",
        "os.link(found['file'], 'hard')\nreturn open('hard').read()",
        secret_came_out,
        "files",
    ),
    _attack(
        "climb",
        "leave the root directory by way of its parent",
        "return open('../' * 40 + found['file']).read()",
        secret_came_out,
        "files",
    ),
    _attack(
        "proc-root",
        "read a file through the root of another process",
        """
for pid in ("self", 1, os.getppid(), found["caller"]):
    text = quietly(lambda: open(f"/proc/{pid}/root{found['file']}").read())
    if text.startswith(PATTERN):
        return text
""",
        secret_came_out,
        "files",
    ),
    _attack("write-outside", "write a file outside", "open(found['marker'], 'w').close()", marker_was_written, "files"),
    _attack("delete-outside", "delete a file outside", "os.unlink(found['deletable'])", file_was_deleted, "files"),
    _attack(
        "change-library",
        "open a file of the standard library for writing",
        "open(found['library'], 'r+b').close()\nreturn found['boast']",
        boasted,
        "files",
    ),
    _attack(
        "fill-disk",
        "write 64 files of 256 kB",
        """
for number in range(64):
    with open(f"part-{number}", "wb") as file:
        file.write(bytes(256 << 10))
return found["boast"]
""",
        boasted,
        "files",
    ),
    _attack(
        "large-file",
        "write a file of 8 MB",
        """
with open("large", "wb") as file:
    file.write(bytes(8 << 20))
return found["boast"]
""",
        boasted,
    ),
    _attack(
        "leave-a-file",
        "leave a file for the next program",
        """
for folder in (".", "/tmp", "/dev/shm", "/var/tmp", found["scratch"]):
    text = quietly(lambda: open(f"{folder}/note-{found['tag']}").read())
    quietly(lambda: os.unlink(f"{folder}/note-{found['tag']}"))
    if text.startswith(PATTERN):
        return text
""",
        secret_came_out,
        "files",
        first="""
def prepare(found):
    for folder in (".", "/tmp", "/dev/shm", "/var/tmp", found["scratch"]):
        try:
            with open(f"{folder}/note-{found['tag']}", "w") as file:
                file.write(found["secret"])
            os.chmod(f"{folder}/note-{found['tag']}", 0o666)
        except OSError:
            pass
""",
    ),
    _attack(
        "devices",
        "open the memory, a disk or the terminal",
        """
for path in ("/dev/mem", "/dev/kmem", "/dev/port", "/dev/sda", "/dev/vda", "/dev/nvme0n1", "/dev/tty", "/dev/kmsg"):
    if isinstance(quietly(lambda: os.open(path, os.O_RDWR)), int):
        return found["boast"]
""",
        boasted,
    ),
    _attack(
        "make-device",
        "make the device of the kernel's memory",
        "os.mknod('memory', 0o20666, os.makedev(1, 1))\nos.open('memory', os.O_RDONLY)\nreturn found['boast']",
        boasted,
    ),
    _attack(
        "kernel-settings",
        "change a setting of the kernel",
        "open('/proc/sys/kernel/hostname', 'w').write('taken')\nreturn found['boast']",
        boasted,
    ),
    # ---- what a program inherits
    _attack("environment", "read the environment", "return dict(os.environ)", secret_came_out),
    _attack(
        "c-environment",
        "read the environment of the process's start",
        """
pointer, texts = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ"), []
while pointer and pointer[len(texts)]:
    texts.append(pointer[len(texts)].decode("latin-1"))
return texts + [quietly(lambda: open("/proc/self/environ").read())]
""",
        secret_came_out,
    ),
    _attack(
        "descriptors",
        "read every descriptor that is open",
        "return [quietly(lambda: os.pread(number, 100, 0).decode('latin-1')) for number in range(300)]",
        secret_came_out,
    ),
    _attack(
        "control-socket",
        "find a socket that leads to the caller and write to it",
        """
import stat
for number in range(3000):
    mode = quietly(lambda: os.fstat(number).st_mode)
    if isinstance(mode, int) and stat.S_ISSOCK(mode):
        os.write(number, b"E" + bytes(4))
        return found["boast"]
""",
        boasted,
    ),
    _attack(
        "server-object",
        "reach the server's socket through the frames of the stack",
        """
frame = sys._getframe()
while frame:
    for each in frame.f_locals.values():
        server = getattr(each, "server", None)
        if server is not None:
            server.control.sendall(b"E" + bytes(4))
            return found["boast"]
    frame = frame.f_back
""",
        boasted,
    ),
    _attack(
        "import-project",
        "import étude",
        "import etude\nreturn found['boast']",
        boasted,
    ),
    # ---- network
    _attack(
        "connect",
        "connect to a port",
        "import socket\nsocket.socket().connect(('127.0.0.1', found['port']))",
        socket_was_reached,
        "network",
    ),
    _attack(
        "datagram",
        "send a datagram",
        "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', found['udp']))",
        socket_was_reached,
        "network",
    ),
    _attack(
        "http",
        "ask for a page",
        """
import http.client
http.client.HTTPConnection("127.0.0.1", found["port"], timeout=0.3).request("GET", "/")
""",
        socket_was_reached,
        "network",
    ),
    _attack(
        "unix-socket",
        "connect to a socket in the file system",
        "import socket\nsocket.socket(socket.AF_UNIX).connect(found['unix'])",
        socket_was_reached,
        "network",
    ),
    _attack(
        "abstract-socket",
        "connect to a socket without a file",
        "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0' + found['abstract'])",
        socket_was_reached,
        "network",
    ),
    _attack(
        "socket-by-ctypes",
        "connect by the C library",
        """
import struct
number = libc.socket(2, 1, 0)
address = struct.pack("=HH4s8x", 2, int.from_bytes(found["port"].to_bytes(2, "big"), "little"), bytes([127, 0, 0, 1]))
libc.connect(number, address, 16)
""",
        socket_was_reached,
        "network",
    ),
    # ---- other processes
    _attack(
        "fork-bomb",
        "fork for ever",
        """
made = 0
try:
    while True:
        if os.fork() == 0:
            made = 0
        else:
            made += 1
except OSError:
    return found["boast"] if made else "no"
""",
        process_survived,
    ),
    _attack(
        "one-fork",
        "fork once",
        """
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
return found["boast"]
""",
        boasted,
    ),
    _attack(
        "thread-bomb",
        "start 200 threads",
        """
import threading, time
for _ in range(200):
    threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
return found["boast"]
""",
        boasted,
    ),
    _attack(
        "shell",
        "run a shell",
        "import subprocess\nsubprocess.run(['/bin/sh', '-c', f'echo > {found[\"marker\"]}'], check=False)",
        marker_was_written,
    ),
    _attack(
        "c-system",
        "run a shell by the C library",
        "libc.system(f'echo > {found[\"marker\"]}'.encode())",
        marker_was_written,
    ),
    _attack(
        "spawn",
        "start a program by posix_spawn",
        "os.waitpid(os.posix_spawn('/bin/sh', ['sh', '-c', f'echo > {found[\"marker\"]}'], {}), 0)",
        marker_was_written,
    ),
    _attack(
        "exec",
        "become a shell",
        "os.execv('/bin/sh', ['sh', '-c', f'echo > {found[\"marker\"]}'])",
        marker_was_written,
        "files",
        "filter",
    ),
    _attack(
        "daemon",
        "fork twice, leave the session and live on",
        """
import time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        name_me(found)
        time.sleep(3)
        open(found["marker"], "w").close()
    os._exit(0)
return "gone"
""",
        process_survived,
    ),
    _attack(
        "kill-parent",
        "kill the server and a server beside it",
        """
for pid in {os.getppid(), found["victim"]} - {0, 1}:
    quietly(lambda: os.kill(pid, 9))
    libc.kill(pid, 9)
""",
        server_was_lost,
        "processes",
        "filter",
    ),
    _attack(
        "stop-parent",
        "stop the server, so that it watches no clock",
        """
import time
if os.getppid() > 1:
    os.kill(os.getppid(), 19)
time.sleep(60)
""",
        server_was_lost,
        "processes",
        "filter",
    ),
    _attack(
        "signal-caller",
        "find the caller and send it a signal that does nothing",
        "os.kill(found['caller'], 0)\nreturn found['boast']",
        boasted,
        "processes",
        "filter",
    ),
    _attack(
        "kill-group",
        "kill its own process group and session",
        "for group in {0, os.getpgid(0), os.getsid(0)} - {1}:\n    quietly(lambda: os.killpg(group, 9))",
        server_was_lost,
    ),
    _attack(
        "ptrace",
        "trace the server, a server beside it, the caller",
        """
for pid in {os.getppid(), found["victim"], found["caller"]} - {0, 1}:
    if libc.ptrace(0x4206, pid, 0, 0) == 0:
        libc.ptrace(17, pid, 0, 0)
        return found["boast"]
""",
        server_was_lost,
        "processes",
        "filter",
    ),
    _attack(
        "limits-of-parent",
        "change the limits of the server",
        """
import resource
if os.getppid() > 1:
    resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0))
    return found["boast"]
""",
        boasted,
        "processes",
        "filter",
    ),
    _attack(
        "priority-of-parent",
        "slow the server down",
        "if os.getppid() > 1:\n    os.setpriority(os.PRIO_PROCESS, os.getppid(), 5)\n    return found['boast']",
        boasted,
        "processes",
        "filter",
    ),
    _attack(
        "memory-of-parent",
        "read the memory of the server",
        "return scan(os.getppid())",
        secret_came_out,
    ),
    _attack(
        "memory-of-caller",
        "read the memory of the caller, where expected answers are",
        "return scan(found['caller'])",
        secret_came_out,
        "processes",
    ),
    _attack(
        "environment-of-caller",
        "read the environment of the caller",
        "return open(f\"/proc/{found['caller']}/environ\").read()",
        environment_came_out,
        "processes",
    ),
    # ---- time and memory
    _attack("endless-loop", "never return", "while True:\n    pass", process_survived),
    _attack("long-sum", "never return from C", "return sum(range(10 ** 15))", process_survived),
    _attack("large-power", "compute a number of a billion digits", "return 10 ** 10 ** 9 % 7", process_survived),
    _attack(
        "regular-expression",
        "backtrace for ever",
        "import re\nreturn bool(re.match('(a+)+$', 'a' * 60 + 'b'))",
        process_survived,
    ),
    _attack(
        "sleep",
        "sleep past the limit, ignoring every signal that can be ignored",
        """
import signal, time
for number in range(1, 65):
    quietly(lambda: signal.signal(number, signal.SIG_IGN))
time.sleep(60)
""",
        process_survived,
    ),
    _attack(
        "catch-everything",
        "catch whatever would end it",
        """
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
""",
        process_survived,
    ),
    _attack(
        "stop-itself",
        "stop, and so use no time",
        "os.kill(os.getpid(), 19)\nimport time\ntime.sleep(60)",
        process_survived,
    ),
    _attack(
        "close-pipe", "close the pipe of answers and go on", "os.close(3)\nwhile True:\n    pass", process_survived
    ),
    _attack("memory-bomb", "take 8 GB", "return found['boast'] if bytearray(8 << 30) else 0", boasted),
    _attack(
        "many-objects",
        "take 1 GB in small parts",
        "kept = [bytes(1 << 16) for _ in range(1 << 14)]\nreturn found['boast']",
        boasted,
    ),
    _attack(
        "map-memory",
        "map 8 GB",
        "import mmap\nmmap.mmap(-1, 8 << 30)\nreturn found['boast']",
        boasted,
    ),
    _attack(
        "shared-memory",
        "keep 512 MB in segments of shared memory",
        """
libc.shmat.restype = ctypes.c_void_p
segments = []
try:
    for _ in range(32):
        segment = libc.shmget(0, 16 << 20, 0o1600)
        address = libc.shmat(segment, None, 0)
        if segment < 0 or address in (None, ctypes.c_void_p(-1).value):
            return "no"
        segments.append(segment)
        ctypes.memset(address, 1, 16 << 20)
        libc.shmdt(ctypes.c_void_p(address))
    return found["boast"]
finally:
    for segment in segments:
        libc.shmctl(segment, 0, None)
""",
        boasted,
        "filter",
    ),
    _attack(
        "memory-files",
        "keep 512 MB in files without a name",
        """
kept = []
for _ in range(512):
    number = os.memfd_create("x")
    kept.append(number)
    os.write(number, bytes(1 << 20))
return found["boast"] if sum(os.fstat(number).st_size for number in kept) >= 512 << 20 else "no"
""",
        boasted,
    ),
    _attack(
        "raise-limits",
        "raise its own limits",
        """
import resource
for name in ("RLIMIT_CPU", "RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_NPROC"):
    number = getattr(resource, name)
    soft, hard = resource.getrlimit(number)
    try:
        resource.setrlimit(number, (hard + 1, hard + 1) if hard >= 0 else (hard, hard))
        return found["boast"]
    except (ValueError, OSError):
        pass
""",
        boasted,
    ),
    # ---- privileges and odd corners of the kernel
    _attack("set-user", "become root", "os.setuid(0)\nreturn found['boast'] if os.geteuid() == 0 else 0", boasted),
    _attack("chroot", "change the root directory", "os.chroot('/tmp')\nreturn found['boast']", boasted),
    _attack(
        "mount",
        "mount a file system",
        "return found['boast'] if libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None) == 0 else 0",
        boasted,
    ),
    _attack(
        "user-namespace",
        "become root in a namespace of its own",
        "return found['boast'] if libc.unshare(0x10000000) == 0 else 0",
        boasted,
        "files",
        "filter",
    ),
    _attack(
        "host-name",
        "rename the machine",
        "return found['boast'] if libc.sethostname(b'sandbox', 7) == 0 else 0",
        boasted,
    ),
    _attack(
        "clock",
        "set the clock",
        "import time\ntime.clock_settime(time.CLOCK_REALTIME, time.time())\nreturn found['boast']",
        boasted,
    ),
    _attack(
        "bpf",
        "load a program into the kernel",
        """
code = ctypes.create_string_buffer(bytes.fromhex("b700000000000000" + "9500000000000000"))
text = ctypes.create_string_buffer(b"GPL")
import struct
attributes = struct.pack("IIQQ", 1, 2, ctypes.addressof(code), ctypes.addressof(text)) + bytes(104)
return found["boast"] if libc.syscall(280 if os.uname().machine == "aarch64" else 321, 5, attributes, 128) >= 0 else 0
""",
        boasted,
        "filter",
    ),
    _attack(
        "io-uring",
        "ask the kernel for a queue of system calls",
        "return found['boast'] if libc.syscall(425, 4, bytes(120)) >= 0 else 0",
        boasted,
        "filter",
    ),
    _attack(
        "page-faults",
        "handle its own page faults",
        "return found['boast'] if libc.syscall(282 if os.uname().machine == 'aarch64' else 323, 1) >= 0 else 0",
        boasted,
        "filter",
    ),
    _attack(
        "key-ring",
        "leave a key for the next program",
        """
add = 217 if os.uname().machine == "aarch64" else 248
buffer = ctypes.create_string_buffer(64)
key = libc.syscall(add + 2, 10, -4, b"user", found["tag"].encode(), 0)
size = libc.syscall(add + 2, 11, key, buffer, 64)
return buffer.raw[:max(size, 0)].decode("latin-1")
""",
        secret_came_out,
        "filter",
        first="""
def prepare(found):
    add = 217 if os.uname().machine == "aarch64" else 248
    key = libc.syscall(add, b"user", found["tag"].encode(), found["secret"].encode(), len(found["secret"]), -4)
    libc.syscall(add + 2, 5, key, 0x3F3F3F3F)
""",
    ),
    # ---- answers that are more than data
    _attack(
        "reduce",
        "return an object that does something when it is unpickled",
        """
class Trap:
    def __reduce__(self):
        return open, (found["marker"], "w")
return Trap()
""",
        marker_was_written,
    ),
    _attack(
        "pickle",
        "write a pickle where the answer goes",
        """
import pickle
class Trap:
    def __reduce__(self):
        return open, (found["marker"], "w")
os.write(3, pickle.dumps(Trap()) + b"\\n")
""",
        marker_was_written,
    ),
    _attack(
        "equal-to-all",
        "return a value that equals every value",
        """
class Anything(list):
    def __eq__(self, other):
        return True
    __hash__ = None
return Anything(["x"])
""",
        secret_was_matched,
    ),
    _attack(
        "change-checker",
        "replace equality and the encoder of answers",
        """
import builtins, json, operator
operator.eq = lambda one, other: True
builtins.all = builtins.any = lambda each: True
json.dumps = lambda value, **options: '["value", true]'
json.encoder.JSONEncoder.iterencode = lambda *_: iter(['["value", true]'])
for module in list(sys.modules.values()):
    for name in ("same", "equal", "check"):
        if hasattr(module, name):
            quietly(lambda: setattr(module, name, lambda *_: True))
return True
""",
        secret_was_matched,
    ),
    _attack(
        "forged-answers",
        "write more answers than there are inputs, and an end",
        """
for _ in range(50):
    os.write(3, b'["value", "forged"]\\n["verified", true]\\nE\\x00\\x00\\x00\\x02{}')
os._exit(0)
""",
        nothing_more,
    ),
    _attack(
        "frames",
        "search objects and frames for the expected answer",
        "return walk_objects()",
        secret_came_out,
    ),
    _attack(
        "trace",
        "watch the code that runs after it, and look at its variables",
        """
kept = []
def watch(frame, event, argument):
    kept.extend(repr(value) for value in frame.f_locals.values() if PATTERN in repr(value))
    os.write(3, repr(kept).encode()[:1000])
    return watch
sys.settrace(watch)
frame = sys._getframe()
while frame:
    frame.f_trace = watch
    frame = frame.f_back
""",
        secret_came_out,
    ),
    _attack(
        "former-program",
        "find what the program before was given",
        "return [walk_objects(), quietly(lambda: scan('self'))]",
        secret_came_out,
        first="def prepare(found):\n    global kept\n    kept = [found['secret'] + str(n) for n in range(1000)]\n",
    ),
    _attack(
        "poison",
        "change modules for the next program",
        "return getattr(os, 'poison', '') or (len([]) and found['boast'])",
        boasted,
        first="""
def prepare(found):
    import builtins, json
    os.poison = found["boast"]
    builtins.len = lambda each: 1
""",
    ),
    _attack("not-a-number", "return NaN and infinities", "return [float('nan'), float('inf')]", nothing_more),
    _attack("large-integer", "return a number of 100,000 digits", "return 10 ** 100_000", nothing_more),
    _attack(
        "long-number",
        "write a number of 60,000 digits",
        "os.write(3, b'[\"value\", ' + b'9' * 60_000 + b']\\n')\nos._exit(0)",
        nothing_more,
    ),
    _attack(
        "nested-answer",
        "return a list in a list, many times",
        "value = []\nfor _ in range(100_000):\n    value = [value]\nreturn value",
        nothing_more,
    ),
    _attack(
        "nested-text",
        "write 30,000 brackets where the answer goes",
        "os.write(3, b'[\"value\", ' + b'[' * 30_000 + b']' * 30_000 + b']\\n')\nos._exit(0)",
        nothing_more,
    ),
    _attack(
        "bytes",
        "write bytes that are no text",
        "os.write(3, bytes(range(256)) * 20 + b'\\n')\nos._exit(0)",
        nothing_more,
    ),
    _attack("endless-answer", "write answers for ever", "while True:\n    os.write(3, b'x' * 4096)", process_survived),
    _attack(
        "endless-output",
        "print for ever",
        "while True:\n    print('x' * 4096)\n    print('x' * 4096, file=sys.stderr)",
        process_survived,
    ),
    _attack(
        "recursion",
        "overflow the stack of C",
        "sys.setrecursionlimit(10 ** 9)\ndef deeper():\n    return deeper()\nreturn deeper()",
        nothing_more,
    ),
    _attack("fault", "read from address zero", "return ctypes.string_at(0)", nothing_more),
    _attack("abort", "abort", "os.abort()", nothing_more),
    _attack("leave", "leave without an answer", "os._exit(0)", nothing_more),
    _attack("raise-exit", "raise SystemExit", "raise SystemExit(0)", nothing_more),
    _attack(
        "odd-error",
        "raise an error that cannot be printed",
        """
class Odd(BaseException):
    def __str__(self):
        raise Odd
    __repr__ = __str__
raise Odd
""",
        nothing_more,
    ),
)
"""Every attack, by what it is after."""


# ---- trying them ---------------------------------------------------------------------------------------------------


def check(sandbox: Sandbox, attacks: Sequence[Attack] = ATTACKS) -> list[Attempt]:
    """Try attacks on a sandbox.

    The sandbox's processes are started anew for it, so that they could inherit what is laid out for them. Takes about
    20 s for all attacks, since some have to be waited for.

    Args:
        sandbox: what is attacked; it must have one worker, for one program to follow another in the same server.
        attacks: which.

    Returns:
        What came of each. At ``level="bwrap"`` with a filter of system calls none should succeed; at a weaker level
        `Attempt.prevented` says which are expected not to.

    Raises:
        ValueError: the sandbox has several workers.
    """
    if len(sandbox._workers) != 1:
        raise ValueError(f"sandbox: one with {len(sandbox._workers)} workers was given; workers=1 is accepted")
    with Sandbox(level=sandbox.level) as other, inheritance() as secret:
        sandbox._workers[0].stop()
        return [_attempt(sandbox, other, attack, secret) for attack in attacks]


def _attempt(sandbox: Sandbox, other: Sandbox, attack: Attack, secret: str) -> Attempt:
    with scene(secret) as here:
        (worker,), (victim,) = sandbox._workers, other._workers
        _works(sandbox)
        _works(other)
        here.pids = worker.pid, victim.pid
        told = here.told(victim.pid)
        if attack.first:
            sandbox.run(TOOLS + attack.first, "prepare", [{**told, "secret": secret}], limits=ATTACK_LIMITS)
        began = time.monotonic()
        try:
            here.results = sandbox.run(attack.source, "attack", [told, told], limits=ATTACK_LIMITS)
            evidence = ""
        except Exception as error:
            evidence = f"the call raised {error!r}"
        seconds = time.monotonic() - began
        evidence = evidence or CRITERIA[attack.criterion](here) or _unsound(here.results)
        evidence = evidence or ("" if _works(sandbox) and _works(other) else "the sandbox does not work any more")
        outcomes = tuple(result.outcome for result in here.results)
        return Attempt(attack, bool(evidence), evidence, attack.prevented(sandbox.isolation), outcomes, seconds)


def _unsound(results: list[Result]) -> str:
    """Why the results are not one plain value or error for each of the two inputs, or ""."""
    if len(results) != 2:
        return f"there are {len(results)} results of two inputs"
    for result in results:
        try:
            check_data(result.value, ATTACK_LIMITS.depth, "value")
        except (TypeError, ValueError) as error:
            return str(error)
        if type(result.error) is not str or (result.error == "") is not result.ok:
            return "an error has no text"
    return ""


def _works(sandbox: Sandbox) -> bool:
    number = secrets.randbelow(1 << 30)
    (result,) = sandbox.run("def echo(x):\n    return [x, len([1, 2])]", "echo", [number])
    return same(result.value, [number, 2])
