"""The command `etude`: list, show, run, judge, refresh, verify, doctor, store and ledger.

Exit codes: 0 done (a claim that fails is a result, not an error); 1 `verify` found a difference from the ledger, or
`store check` a broken entry; 2 something was given or is set up wrongly; 3 interrupted, to be resumed by the same
command; 4 a trial failed; 70 a fault in étude itself, with its traceback.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from etude.errors import EtudeError

DONE, DIFFERS, WRONG, INTERRUPTED, TRIAL_FAILED, FAULT, PIPE_CLOSED = 0, 1, 2, 3, 4, 70, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after `etude`; those of this process by default.

    Returns:
        The exit code. Nothing is raised but `SystemExit` by `--help` and `--version`.
    """
    from etude.cli.options import parse

    try:
        code = _run(parse(sys.argv[1:] if arguments is None else list(arguments)))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `etude list | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        _debug()
        return _say("Interrupted. What was finished is kept; the same command goes on from there.", INTERRUPTED)
    except EtudeError as error:
        _debug()
        return _say(str(error), INTERRUPTED if _is_interruption(error) else WRONG)
    except Exception:
        traceback.print_exc()
        return _say("This is a fault in étude, or in the study's own code above.", FAULT)


def _run(options: object) -> int:
    """Call the command's function, whose module is only now imported."""
    import importlib

    module, _, name = options.command.partition(":")  # type: ignore[attr-defined]
    code: int = getattr(importlib.import_module(f"etude.cli.{module}"), name)(options)
    return code


def _is_interruption(error: EtudeError) -> bool:
    running = sys.modules.get("etude.study.running")
    return running is not None and isinstance(error, running.Interrupted)


def _debug() -> None:
    if os.environ.get("ETUDE_DEBUG", "0") not in ("", "0"):
        traceback.print_exc()


def _say(message: str, code: int) -> int:
    print(f"etude: {message}", file=sys.stderr)
    return code
