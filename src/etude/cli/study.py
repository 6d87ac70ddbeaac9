"""`etude run`, `judge`, `refresh` and `verify`: the commands that load a study."""

from __future__ import annotations

import argparse
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.cli import DIFFERS, DONE, TRIAL_FAILED
from etude.cli.options import configured
from etude.cli.output import as_json, columns, draw, nearby, note
from etude.errors import Unavailable
from etude.study.catalogue import Entry, catalogue, find, load

if TYPE_CHECKING:
    from etude.study.definition import Config, Study
    from etude.study.evidence import Evidence
    from etude.study.rules import Verdict


def run(options: argparse.Namespace) -> int:
    """Measure, judge, print the claims and write the report."""
    study = load(options.entry)
    config = _config(study, options)
    only = [name.replace("-", "_") for name in options.only] if options.only else None
    evidence = study.run(
        config,
        seeds=options.seeds,
        engine=options.engine,
        only=only,
        store=options.store,
        preset=options.preset or study.default,
        workers=options.workers,
        device=options.device,
        until_decided=options.until_decided,
        alpha=options.alpha,
        progress=True,  # bars in a terminal, lines in a log
    )
    return _judged(study, evidence, options)


def judge(options: argparse.Namespace) -> int:
    """Judge the evidence that is in the store, and say what it lacks."""
    study = load(options.entry)
    evidence = study.stored(
        _config(study, options),
        seeds=options.seeds,
        store=options.store,
        preset=options.preset or study.default,
        device=options.device,
    )
    return _judged(study, evidence, options)


def _config(study: Study[Any], options: argparse.Namespace) -> Config | str:
    """The preset's name, or the preset with the fields given on the command line."""
    preset = options.preset or study.default
    base, _ = study.resolve(preset)
    return configured(base, options.fields) if options.fields else preset


def _judged(study: Study[Any], evidence: Evidence[Any], options: argparse.Namespace) -> int:
    """Judge evidence, print or write what was asked for, and return the exit code."""
    from etude.study import report

    verdicts = study.judge(evidence, alpha=options.alpha)
    missing = _missing(evidence)
    path = None
    if not options.no_report and evidence.trials:
        name = f"{study.name}-{evidence.preset or 'custom'}.html"
        path = report.write(study, evidence, verdicts, Path(options.report or Path("reports", name)).expanduser())
    if options.json:
        print(as_json(_result(study, evidence, verdicts, missing, path)))
    else:
        draw(report.claims_table(study, evidence, verdicts))
        if path:
            print(f"\nreport: {nearby(path)}")
    for line in _remarks(evidence, verdicts):
        note(line)
    if missing and options.name == "judge":
        note(f"To measure what is missing: {_run_command(options)}")
    return TRIAL_FAILED if evidence.failures else DONE


def _missing(evidence: Evidence[Any]) -> dict[str, int]:
    """How many planned trials of each measurement the evidence lacks for another reason than a failure."""
    have = Counter(trial.measurement for trial in evidence.trials)
    have.update(failure.measurement for failure in evidence.failures)
    lacking = {name: planned - have[name] for name, planned in evidence.planned.items()}
    return {name: count for name, count in lacking.items() if count > 0}


def _remarks(evidence: Evidence[Any], verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Why something was not measured, where no verdict says so, and each measurement's first failure with its log."""
    said = "\n".join(verdict.why for verdict in verdicts)
    yield from (reason for reason in evidence.unavailable.values() if reason.rstrip(".") not in said)
    told = set()
    for failure in evidence.failures:
        cell = "".join(f", {name}={value}" for name, value in failure.cell.items())
        yield f"failed: {failure.measurement} (seed {failure.seed}{cell}): {failure.error}"
        if failure.log and failure.measurement not in told:
            yield textwrap.indent(failure.log.rstrip(), "    ")
        told.add(failure.measurement)


def _run_command(options: argparse.Namespace) -> str:
    words = ["etude", "run", options.study]
    for option in ("preset", "seeds", "store"):
        value = getattr(options, option)
        words += [f"--{option}", str(value)] if value is not None else []
    for name, text in options.fields.items():
        words += [f"--{name.replace('_', '-')}", *([text] if isinstance(text, str) else text)]
    return shlex.join(words)


def _result(
    study: Study[Any], evidence: Evidence[Any], verdicts: Sequence[Verdict], missing: dict[str, int], path: Path | None
) -> dict[str, Any]:
    return {
        "study": study.name,
        "preset": evidence.preset,
        "config": evidence.config.model_dump(mode="json"),
        "verdicts": [verdict.to_json() for verdict in verdicts],
        "trials": {
            "planned": dict(evidence.planned),
            "measured": sum(not trial.reused for trial in evidence.trials),
            "reused": sum(trial.reused for trial in evidence.trials),
            "missing": missing,
        },
        "unavailable": dict(evidence.unavailable),
        "failures": evidence.failures,
        "report": path,
    }


def refresh(options: argparse.Namespace) -> int:
    """At every preset, re-run one trial per cell of what is stale and carry over what is bit-identical."""
    from etude.study import running

    results = []
    entries = [find(name) for name in options.studies]
    entries = entries or [entry for entry in catalogue().values() if not entry.problem]
    for entry, study in _loaded(entries, tolerant=not options.studies):
        for preset in [options.preset] if options.preset else study.presets:
            refreshed = running.refresh(study, preset, store=options.store)
            results += [{"study": entry.name, "preset": preset, **vars(each)} for each in refreshed]
    if options.json:
        print(as_json(results))
    elif not results:
        print("Nothing is stale.")
    else:
        rows = [("study", "preset", "measurement", "cell", "trials", "outcome")]
        for each in results:
            outcome = f"{each['outcome']}. {each['why']}" if each["why"] else each["outcome"]
            place = (each["study"], each["preset"], each["measurement"], _cell(each["cell"]))
            rows.append((*place, str(each["trials"]), outcome))
        print(columns(rows, indent=0))
    return DONE


def verify(options: argparse.Namespace) -> int:
    """Re-run a seed of each recorded study and compare; 1 when a verdict differs."""
    from etude.study import ledger

    names = options.studies or [entry.name for entry in ledger.entries()]
    results = []
    for entry, study in _loaded([find(name) for name in names], tolerant=not options.studies):
        results += [{"study": entry.name, **vars(each)} for each in ledger.verify(study, store=options.store)]
    if options.json:
        print(as_json(results))
    elif not results:
        print("The ledger holds nothing to compare with.")
    else:
        rows = [("study", "claim", "ledger", "now", "")]
        for each in results:
            told = f"differs. {each['why']}" if each["differs"] else _likeness(each)
            rows.append((each["study"], each["claim"], each["recorded"], each["measured"] or "not judged", told))
        print(columns(rows, indent=0))
    return DIFFERS if any(each["differs"] for each in results) else DONE


def _likeness(compared: dict[str, Any]) -> str:
    """How like the recorded rows the measured ones of an equal verdict are."""
    if compared["measured"] is None:
        return str(compared["why"])
    if compared["identical"]:
        return "bit-identical"
    difference = compared["difference"]
    return "not bit-identical" if difference is None else f"largest relative difference {difference:.1e}"


def _loaded(entries: Sequence[Entry], tolerant: bool) -> Iterator[tuple[Entry, Study[Any]]]:
    """The studies; where `tolerant`, those that need what is not installed are left out with a remark."""
    for entry in entries:
        try:
            study = load(entry)
        except Unavailable as error:
            if not tolerant:
                raise
            note(f"{entry.name} is left out. {error}")
        else:
            yield entry, study


def _cell(cell: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in cell.items())
