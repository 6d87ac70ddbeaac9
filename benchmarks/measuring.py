"""How a benchmark measures: interleaved repetitions, medians, and memory in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: what was compared with what.
        ours: étude's value, in `unit`.
        peer: the value it stands beside, in the same unit; None where there is nothing to compare with.
        unit: ``"s"``, ``"MB"`` or any other.
        aim: what the ratio (or `ours`, where there is no peer) should be, such as ``"< 1.02"``; "" for none.
        subtract: report the ratio minus one, as a share added to the peer's time.
        inverse: report peer / ours, a speed-up.
    """

    name: str
    ours: float
    peer: float | None
    unit: str = "s"
    aim: str = ""
    subtract: bool = False
    inverse: bool = False

    @property
    def ratio(self) -> float | None:
        """What the aim speaks of, where there is a peer."""
        if self.peer is None:
            return None
        return self.peer / self.ours if self.inverse else self.ours / self.peer - self.subtract

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached; None where there is none."""
        if not self.aim:
            return None
        sign, bound = re.fullmatch(r"(<|>=) ([\d.]+)( %| s| MB|x)?", self.aim).group(1, 2)  # type: ignore[union-attr]
        value = self.ours if self.ratio is None else self.ratio * (100 if self.aim.endswith("%") else 1)
        return value < float(bound) if sign == "<" else value >= float(bound)

    def cells(self) -> tuple[str, ...]:
        """Name, ours, peer, ratio, aim and whether it is met, as text."""
        ratio = self.ratio
        shown = "-" if ratio is None else f"{ratio:+.2%}" if self.subtract else f"{ratio:.3g}"
        peer = "-" if self.peer is None else amount(self.peer, self.unit)
        verdict = {True: "met", False: "missed", None: ""}[self.met]
        return self.name, amount(self.ours, self.unit), peer, shown, self.aim, verdict


def installed(package: str) -> bool:
    """Whether a peer is there (the extra ``peers`` has most); where it is not, say that its rows are left out."""
    found = importlib.util.find_spec(package) is not None
    if not found:
        print(f"{package} is not installed: its rows are left out")
    return found


def amount(value: float, unit: str) -> str:
    """A number with its unit; seconds below one as milli- or microseconds."""
    if unit == "s" and abs(value) < 1:
        return f"{value * 1e3:.3g} ms" if abs(value) >= 1e-3 else f"{value * 1e6:.3g} us"
    return f"{value:.3g} {unit}" if abs(value) < 1000 else f"{value:,.0f} {unit}"


def medians(sides: Mapping[str, Callable[[], Any]], repetitions: int, *, warm: bool = True) -> dict[str, float]:
    """Median seconds of each side, the sides taking turns so that a busy minute falls on all of them.

    Args:
        sides: name to what is timed; one that returns a float has timed itself.
        repetitions: turns of each side.
        warm: let each side run once before, untimed.
    """
    if warm:
        for run in sides.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repetitions):
        order = list(sides) if turn % 2 == 0 else list(reversed(sides))
        for name in order:
            start = time.perf_counter()
            own = sides[name]()
            seconds[name].append(own if isinstance(own, float) else time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


@dataclass(frozen=True)
class Alone:
    """A call in a process of its own: its seconds, and by how much it raised the process's peak memory."""

    seconds: float
    megabytes: float
    result: Any


def alone(function: str, *arguments: Any) -> Alone:
    """Call ``"module:name"`` in a new process; a result other than a number or text does not come back."""
    command = [sys.executable, "-m", "benchmarks.measuring", function, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{function} in a process of its own failed:\n{done.stderr}")
    return Alone(**json.loads(done.stdout.splitlines()[-1]))


def _peak() -> float:
    """Peak memory of this process so far in MB.

    Linux carries ru_maxrss over from the process that started this one, so /proc is asked where there is one.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024  # type: ignore[union-attr]
    except OSError:
        import resource

        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _main() -> None:
    import importlib

    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(module), name)
    before, start = _peak(), time.perf_counter()
    result = function(*json.loads(sys.argv[2]))
    seconds, megabytes = time.perf_counter() - start, _peak() - before
    result = result if isinstance(result, (int, float, str)) else None
    print(json.dumps({"seconds": seconds, "megabytes": megabytes, "result": result}))


if __name__ == "__main__":
    _main()
