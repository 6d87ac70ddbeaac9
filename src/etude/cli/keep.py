"""`etude store` and `etude ledger`: looking after results, and recording verdicts."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from etude.cli import DIFFERS, DONE
from etude.cli.output import as_json, columns, nearby, note
from etude.cli.output import size as readable
from etude.errors import EtudeError

if TYPE_CHECKING:
    from etude.study.store import Store

_BEGIN, _END = "<!-- scoreboard -->", "<!-- /scoreboard -->"


def size(options: argparse.Namespace) -> int:
    """Print how much room each part of the store takes."""
    from etude.study.store import Store

    store = Store(options.store)
    sizes = store.size()
    if options.json:
        print(as_json({"path": store.path, "bytes": sizes}))
        return DONE
    rows = [(name, readable(count)) for name, count in sorted(sizes.items(), key=lambda item: -item[1])]
    print(columns([*rows, ("total", readable(sum(sizes.values())))], indent=0) + f"\n{store.path}")
    return DONE


def check(options: argparse.Namespace) -> int:
    """Print the entries that are not whole; 1 when there are some and they were left where they are."""
    from etude.study.store import Store

    store = Store(options.store)
    problems = store.check()
    if options.remove:
        for problem in problems:
            store.remove(problem.path)
    if options.json:
        print(as_json([{**vars(problem), "removed": options.remove} for problem in problems]))
    elif problems:
        print(columns([(problem.what, str(problem.path)) for problem in problems], indent=0))
        print("Removed." if options.remove else "`etude store check --remove` removes them; a run measures them again.")
    else:
        print("Every entry is whole.")
    return DIFFERS if problems and not options.remove else DONE


def prune(options: argparse.Namespace) -> int:
    """Remove the trials that other code measured than the studies have now and, with `--cached`, all cached results.

    Trials of studies that are not in the catalogue are left alone: nobody here can tell whether they are current.
    """
    from etude.study.catalogue import catalogue
    from etude.study.code_key import register_path
    from etude.study.store import Store

    store = Store(options.store)
    entries = [entry for entry in catalogue().values() if not entry.problem]
    modules = {entry.name: entry.module for entry in entries}
    for entry in entries:
        if "." not in entry.module:
            register_path(entry.module, entry.path)
    freed: dict[str, int] = {}
    studies = sorted(folder.name for folder in (store.path / "trials").glob("*"))
    for study in studies:
        if study not in modules:
            continue
        with contextlib.nullcontext() if options.dry_run else store.lock(study):
            for folder in (store.path / "trials" / study).glob("*"):
                address = f"{modules[study]}:{folder.name}"
                _remove(store, f"trials/{study}", _stale(folder, address), freed, options.dry_run)
    if options.cached:
        _remove(store, "cached", sorted((store.path / "cached").glob("*/*")), freed, options.dry_run)
    unknown = [study for study in studies if study not in modules]
    if options.json:
        print(as_json({"path": store.path, "bytes": freed, "removed": not options.dry_run, "left_alone": unknown}))
        return DONE
    if unknown:
        note(f"Left alone, as no study here has the name: {', '.join(unknown)}.")
    rows = [(name, readable(count)) for name, count in freed.items()]
    word = "would be freed" if options.dry_run else "freed"
    print(columns([*rows, (word, readable(sum(freed.values())))], indent=0))
    return DONE


def _stale(folder: Path, address: str) -> list[Path]:
    """The trials of a measurement that other code measured than it has now; none where it cannot be found."""
    from etude.study.code_key import code_key

    try:
        current = code_key(address)
    except (ValueError, SyntaxError):
        return []
    return [path for path in sorted(folder.iterdir()) if _code(path) != current]


def _code(trial: Path) -> str | None:
    """The key of the code that measured a trial; None where its description cannot be read."""
    try:
        code: str = json.loads((trial / "trial.json").read_bytes())["code"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return code


def _remove(store: Store, name: str, paths: list[Path], freed: dict[str, int], dry_run: bool) -> None:
    for path in paths:
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        freed[name] = freed.get(name, 0) + size
        if not dry_run:
            store.remove(path)


def record(options: argparse.Namespace) -> int:
    """Measure what the store lacks of a preset, judge the evidence and put the verdicts into the ledger."""
    from etude.study import ledger
    from etude.study.catalogue import find, load

    study = load(find(options.study))
    # Not only what is stored: the store does not tell what cannot be had here from what was never tried.
    evidence = study.run(options.preset or study.default, store=options.store)
    print(f"recorded: {nearby(ledger.record(study, evidence, study.judge(evidence)))}")
    return DONE


def scoreboard(options: argparse.Namespace) -> int:
    """Put the scoreboard between its two markers in the README, and write the page of each recorded study."""
    from etude.study import ledger, report

    path = Path(options.readme)
    if not path.is_file():
        raise EtudeError(f"There is no file {path}. Name the README with --readme.")
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise EtudeError(f"{path} has no place for the scoreboard: it needs the lines {_BEGIN} and {_END}.")
    pages = Path(options.pages)
    table = ledger.scoreboard(pages=os.path.relpath(pages, path.parent)).strip()
    written = [report.write_atomically(path, f"{before}{_BEGIN}\n{table}\n{_END}{after}")]
    for entry in ledger.entries():
        figure = os.path.relpath(entry.path.with_suffix(".svg"), pages)
        page = ledger.page(entry.name, figure=figure)
        written.append(report.write_atomically(pages / f"{entry.name}.md", page))
    for one in written:
        print(f"written: {nearby(one.absolute())}")
    return DONE
