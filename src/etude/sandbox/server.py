"""The fork server: the one process that stays inside the jail, and forks a child for each program.

Read as text and started as ``python -I -S -c``; importing it does nothing. It imports the libraries once, so a program
starts in the time of a fork. A child reads its program itself and answers through a pipe of its own, so the server
never holds what belongs to a program: nothing of one is in memory when the next one is forked. What comes out of the
pipe was written by a process that runs foreign code, and is passed on as bytes for the caller to judge.

Frames to the server are ``length, JSON`` with the limits of a call, followed by the program for the child; frames from
it are ``kind, length, bytes``: D for what the program wrote, E for how it ended.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback

NEW_MOUNTS, NEW_IPC, NEW_PIDS = 0x00020000, 0x08000000, 0x20000000
SET_DEATH_SIGNAL, SET_DUMPABLE, NO_NEW_PRIVILEGES, SUBREAPER = 1, 4, 38, 36
READ_ONLY, NO_SETUID, NO_DEVICES, NO_PROGRAMS, BIND, RECURSIVE = 1, 2, 4, 8, 4096, 16384
ALLOW, DENY, NOT_EQUAL = 0x7FFF0000, 0x00050000, 1
PERMISSION, NO_SUCH_CALL = 1, 38
NOBODY = 65534

DENIED = """
ptrace process_vm_readv process_vm_writev kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_getfd
pidfd_send_signal kcmp process_madvise process_mrelease setpriority ioprio_set sched_setaffinity sched_setscheduler
sched_setparam sched_setattr migrate_pages move_pages setpgid setsid execve execveat
socket connect bind listen shmget shmat msgget semget mq_open memfd_create memfd_secret add_key request_key keyctl
unshare setns mount umount2 pivot_root chroot open_tree move_mount fsopen fsmount fspick fsconfig mount_setattr
setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset personality
sethostname setdomainname clock_settime settimeofday adjtimex clock_adjtime
bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register io_setup
fanotify_init inotify_init inotify_init1 init_module finit_module delete_module kexec_load kexec_file_load reboot
swapon swapoff acct quotactl syslog vhangup iopl ioperm modify_ldt name_to_handle_at open_by_handle_at lookup_dcookie
""".split()  # noqa: SIM905 - a list one reads
"""System calls that fail with "not permitted" where libseccomp is at hand; those of a fork too, with one process."""


class Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp``: a condition on an argument of a system call."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def system(result, what):
    """The result of a C function that says -1 when it failed."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


class Server:
    """The loop: a request, a fork, the answer."""

    def __init__(self, settings):
        self.control = socket.socket(fileno=settings["control"])
        self.jail = settings["jail"]
        self.linux = sys.platform.startswith("linux")
        self.libc = ctypes.CDLL(None, use_errno=True)
        known = len(sys.path)
        sys.path += settings["paths"]
        for name in settings["preload"]:
            importlib.import_module(name)
        del sys.path[known:]  # the parts of a package already imported are found without it
        if self.linux:
            # Nobody may trace the server or read its memory, not even a process of the same user.
            self.libc.prctl(SET_DUMPABLE, 0, 0, 0, 0)
            self.libc.prctl(SUBREAPER, 1, 0, 0, 0)
        if self.jail:
            self.enter_jail()
        self.filters = {forks: self.build_filter(forks) for forks in (False, True)} if self.linux else {}
        self.buffer = bytearray(1 << 16)
        os.dup2(0, 1)
        os.dup2(0, 2)
        self.floor = self.address_space()

    def enter_jail(self):
        """Make the root of the file system one that is not the root of its mounts.

        In such a place the kernel makes no user namespace, so a program cannot get privileges in one of its own.
        """
        here = ctypes.c_char_p(b"/")
        system(self.libc.mount(here, b"/jail", None, BIND | RECURSIVE, None), "mount")
        os.chroot("/jail")
        os.chdir("/")
        self.own_pids = os.pidfd_open(os.getpid())
        self.fresh_pids()

    def fresh_pids(self):
        """Let the next fork be the first process of a pid namespace of its own."""
        system(self.libc.setns(self.own_pids, NEW_PIDS), "setns")
        system(self.libc.unshare(NEW_PIDS), "unshare")

    def address_space(self):
        """Bytes of address space that this process has: the least limit under which a page can still be had."""
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        low, high = 0, 1 << 46 if hard == resource.RLIM_INFINITY else hard
        while high - low > 1 << 20:
            middle = (low + high) // 2
            resource.setrlimit(resource.RLIMIT_AS, (middle, hard))
            try:
                mmap.mmap(-1, mmap.PAGESIZE).close()
                high = middle
            except (OSError, MemoryError):
                low = middle
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        return high

    def build_filter(self, forks):
        """A filter of system calls, made by libseccomp; None where that is not installed."""
        try:
            library = ctypes.CDLL("libseccomp.so.2")
        except OSError:
            return None
        library.seccomp_init.restype = ctypes.c_void_p
        library.seccomp_load.argtypes = [ctypes.c_void_p]
        add = library.seccomp_rule_add_array
        add.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Comparison)]
        context = library.seccomp_init(ALLOW)
        number = library.seccomp_syscall_resolve_name
        rules = [(name, DENY | PERMISSION) for name in DENIED]
        if not forks:
            # The C library tries clone3 first and, told that there is no such call, clone.
            rules += [("fork", DENY | PERMISSION), ("vfork", DENY | PERMISSION), ("clone", DENY | PERMISSION)]
            rules += [("clone3", DENY | NO_SUCH_CALL)]
        for name, action in rules:
            add(context, action, number(name.encode()), 0, None)
        other = Comparison(0, NOT_EQUAL, 0, 0)  # limits of any process but the caller itself
        add(context, DENY | PERMISSION, number(b"prlimit64"), 1, ctypes.byref(other))
        return library, context

    def send(self, kind, data):
        """One frame to the caller."""
        self.control.sendall(kind + struct.pack("!I", len(data)))
        self.control.sendall(data)

    def receive(self, size):
        """So many bytes from the caller; leaves when there is no caller any more."""
        data = bytearray()
        while len(data) < size:
            part = self.control.recv(size - len(data))
            if not part:
                os._exit(0)
            data += part
        return bytes(data)

    def serve(self):
        """Answer requests until the caller is gone."""
        gc.collect()
        gc.freeze()  # the collector of a child need not touch, and so copy, what the server made
        self.send(b"E", json.dumps({"filter": bool(self.filters.get(False))}).encode())
        while True:
            (size,) = struct.unpack("!I", self.receive(4))
            self.call(json.loads(self.receive(size)))

    def call(self, limits):
        """Fork a child for one program, pass on what it writes, and say how it ended."""
        reading, writing = os.pipe()
        began = time.monotonic()
        deadline = began + limits["wall"]
        child = os.fork()
        if child == 0:
            try:
                os.close(reading)
                Child(self, writing, limits).work()
            finally:
                os._exit(70)
        os.close(writing)
        end = self.relay(reading, deadline, limits["output"])
        os.close(reading)
        self.kill(child)
        _, status, usage = os.wait4(child, 0)
        self.kill_orphans()
        self.buffer[:] = bytes(len(self.buffer))
        if self.jail:
            self.fresh_pids()
        used = usage.ru_utime + usage.ru_stime
        signalled = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if end == "closed" and signalled in (signal.SIGKILL, signal.SIGXCPU) and used >= 0.8 * limits["cpu"]:
            end = "timeout"
        code = None if signalled else os.WEXITSTATUS(status)
        ended = {"end": end, "signal": signalled, "code": code, "seconds": time.monotonic() - began, "cpu": used}
        self.send(b"E", json.dumps(ended).encode())

    def relay(self, reading, deadline, most):
        """Pass on what the child writes until it closes the pipe, or a limit is reached."""
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        poll.register(self.control, select.POLLHUP | select.POLLRDHUP if self.linux else select.POLLHUP)
        view = memoryview(self.buffer)
        while (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left * 1000):
                if descriptor != reading:
                    return "abandoned"
                size = os.readv(reading, [self.buffer])
                if size == 0:
                    return "closed"
                most -= size
                if most < 0:
                    return "output"
                self.control.sendall(b"D" + struct.pack("!I", size))
                self.control.sendall(view[:size])
        return "timeout"

    def kill(self, child):
        """End the child. In a jail that ends all its descendants; elsewhere its process group goes with it."""
        if not self.jail:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it may have left before it had a group
                os.killpg(child, signal.SIGKILL)
        os.kill(child, signal.SIGKILL)  # until it is waited for, its number is its own

    def kill_orphans(self):
        """Outside a jail, end what the child left behind: a process without parent becomes the server's."""
        if self.jail or not self.linux:
            return
        while True:
            try:
                with open(f"/proc/self/task/{os.getpid()}/children") as file:
                    orphans = [int(word) for word in file.read().split()]
            except OSError:
                return
            if not orphans:
                return
            for orphan in orphans:
                os.kill(orphan, signal.SIGKILL)
                os.waitpid(orphan, 0)


class Child:
    """The process of one program."""

    def __init__(self, server, writing, limits):
        self.server, self.limits = server, limits
        request = json.loads(server.receive(limits["size"]))
        self.source, self.entry, self.inputs = request["source"], request["entry"], request["inputs"]
        os.dup2(writing, 3)
        server.control.detach()
        os.closerange(4, 1 << 16)
        try:
            self.confine()
        except (OSError, ValueError) as error:
            for _ in self.inputs:
                self.write(["refused", f"it was not run, since it could not be confined: {error}"])
            os._exit(0)

    def confine(self):
        """Give up, for good, what a program must not have."""
        libc, limits = self.server.libc, self.limits
        if self.server.jail:
            system(libc.unshare(NEW_MOUNTS | NEW_IPC), "unshare")
            options = f"size={limits['file']},nr_inodes=64,mode=700".encode()
            flags = NO_SETUID | NO_DEVICES | NO_PROGRAMS
            system(libc.mount(b"tmpfs", b"/tmp", b"tmpfs", flags, options), "mount")
            os.chdir("/tmp")
            header, nothing = struct.pack("Ii", 0x20080522, 0), bytes(24)
            system(libc.capset(header, nothing), "capset")
        else:
            os.setsid()
            os.chdir(self.limits["folder"])
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
            if self.server.linux:  # a change of user would undo it
                libc.prctl(SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        for name, value in self.ceilings().items():
            _, hard = resource.getrlimit(getattr(resource, name))
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(getattr(resource, name), (value, value))
        if self.server.linux:
            libc.prctl(SET_DUMPABLE, 0, 0, 0, 0)
            system(libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0), "prctl")
            rules = self.server.filters[limits["processes"] > 1]
            if rules and rules[0].seccomp_load(rules[1]) != 0:
                raise OSError("seccomp_load failed")

    def ceilings(self):
        """The limits the kernel keeps."""
        limits = self.limits
        running = 1 if self.server.jail else 0  # the server is counted too where its user is the program's
        return {
            "RLIMIT_CPU": -int(-limits["cpu"] // 1),
            "RLIMIT_AS": self.server.floor + limits["memory"],
            "RLIMIT_FSIZE": limits["file"],
            "RLIMIT_NOFILE": 24,
            "RLIMIT_CORE": 0,
            "RLIMIT_NPROC": running + limits["processes"],
        }

    def work(self):
        """Run the program on each input and write what it gives, one line of JSON an input."""
        try:
            program = {"__name__": "program", "__builtins__": __builtins__}
            exec(compile(self.source, "<program>", "exec", dont_inherit=True), program)
            if self.entry not in program:
                raise NameError(f"the program defines no {self.entry}")
            function = program[self.entry]
            if not callable(function):
                raise TypeError(f"{self.entry} is no function")
        except BaseException as error:
            line = self.failure(error)
            for _ in self.inputs:
                self.write(line)
            os._exit(0)
        for text in self.inputs:
            try:
                line = ["value", plain(function(json.loads(text)), self.limits["depth"])]
                encoded = json.dumps(line, allow_nan=False)
            except NotData as error:
                encoded = json.dumps(["refused", str(error)])
            except BaseException as error:
                encoded = json.dumps(self.failure(error))
            self.write(encoded)
        os._exit(0)

    def write(self, line):
        """Write one line, all of it."""
        data = (line if isinstance(line, str) else json.dumps(line)).encode() + b"\n"
        while data:
            data = data[os.write(3, data) :]

    def failure(self, error):
        """What went wrong, with those frames of the traceback that are the program's."""
        if isinstance(error, MemoryError):
            return ["memory", "MemoryError"]
        lines, rows = [], self.source.splitlines()
        for frame in traceback.extract_tb(error.__traceback__)[-200:]:
            if frame.filename == "<program>":
                text = rows[frame.lineno - 1].strip()[:120] if 0 < (frame.lineno or 0) <= len(rows) else ""
                lines.append(f"  line {frame.lineno}, in {frame.name}: {text}")
        if len(lines) > 8:
            lines[4:-4] = [f"  ... {len(lines) - 8} more"]
        last = "".join(traceback.format_exception_only(type(error), error)).strip()[-800:]
        return ["error", "\n".join([*lines, last])]


class NotData(Exception):
    """A value that JSON cannot hold."""


def plain(value, depth):
    """The value as JSON data: arrays become lists, numpy's numbers Python's; anything else is refused."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        if value != value or value in (float("inf"), float("-inf")):
            raise NotData(f"{value} is no JSON number")
        return value
    if depth <= 0:
        raise NotData("the value is nested too deeply")
    if kind in (list, tuple):
        return [plain(each, depth - 1) for each in value]
    if kind is dict:
        for key in value:
            if type(key) is not str:
                raise NotData(f"a key is a {type(key).__name__}; JSON has keys of text")
        return {key: plain(each, depth - 1) for key, each in value.items()}
    numpy = sys.modules.get("numpy")
    if numpy is not None and (kind is numpy.ndarray or isinstance(value, numpy.generic)):
        return plain(value.tolist(), depth) if type(value.tolist()) is not kind else refuse(kind)
    return refuse(kind)


def refuse(kind):
    """Say that a type is no data."""
    raise NotData(f"a {kind.__name__} is no JSON value")


if __name__ == "__main__":
    Server(json.loads(sys.argv[1])).serve()
