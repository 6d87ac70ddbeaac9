"""`etude list` and `etude show`: what the study files say of themselves. Nothing is imported but what reads them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from etude.cli.options import UsageError
from etude.cli.output import as_json, bold, columns, paragraph
from etude.errors import suggest
from etude.study.catalogue import Entry, catalogue, find


def list_studies(options: argparse.Namespace) -> int:
    """Print the name and question of every study, by topic; files that are no study are named below."""
    every = list(catalogue(heads=not options.json).values())
    sound = sorted((entry for entry in every if not entry.problem), key=lambda entry: (entry.topic, entry.name))
    broken = [entry for entry in every if entry.problem]
    if options.topic is not None:
        topics = sorted({entry.topic for entry in sound})
        sound = [entry for entry in sound if entry.topic == options.topic]
        if not sound:
            hint = suggest(options.topic, topics)
            raise UsageError(f"No study has the topic '{options.topic}'.{hint} Topics: {', '.join(topics) or 'none'}.")
    if options.json:
        print(as_json([_summary(entry) for entry in sound + broken]))
        return 0
    blocks = []
    for topic, entries in groupby(sound, key=lambda entry: entry.topic):
        blocks.append(f"{bold(topic)}\n{columns((entry.name, entry.question) for entry in entries)}")
    if broken:
        rows = columns((entry.name, f"{entry.path}: {entry.problem}") for entry in broken)
        blocks.append(f"{bold('not usable')}\n{rows}")
    print("\n\n".join(blocks) or "There is no study.")
    return 0


def _summary(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "topic": entry.topic,
        "question": entry.question,
        "title": entry.title,
        "authors": entry.authors,
        "year": entry.year,
        "arxiv": entry.arxiv,
        "venue": entry.venue,
        "path": entry.path,
        "claims": len(entry.claims),
        "problem": entry.problem,
    }


def show(options: argparse.Namespace) -> int:
    """Print all a study's file says, and the verdicts the ledger holds for it."""
    entry = find(options.study)
    recorded = _recorded(entry.name)
    if options.json:
        print(as_json({**as_dict(entry), "ledger": recorded}))
    else:
        print("\n\n".join(_blocks(entry, options.study, recorded)))
    return 0


def as_dict(entry: Entry) -> dict[str, Any]:
    """All of an entry but the problem it does not have."""
    return {name: value for name, value in vars(entry).items() if name != "problem"}


def _blocks(entry: Entry, given: str, recorded: dict[str, Any] | None) -> Iterator[str]:
    yield f"{bold(entry.name)}  {entry.topic}\n{paragraph(entry.question)}"
    yield from (paragraph(" ".join(text.split())) for text in entry.description.split("\n\n") if text.strip())
    published = " ".join(str(part) for part in (entry.venue, entry.year) if part)
    facts = [("paper", ". ".join(filter(None, (entry.title, entry.authors, published))))]
    if entry.arxiv:
        facts.append(("", f"https://arxiv.org/abs/{entry.arxiv}"))
    facts.append(("file", str(entry.path)))
    if entry.extras:
        facts.append(("needs", f'pip install "etude[{",".join(entry.extras)}]"'))
    yield columns(facts, indent=0)
    yield f"{bold('Presets')}\n{_presets(entry)}"
    yield f"{bold('Measurements')}\n{columns((each.name, each.text) for each in entry.measurements)}"
    yield f"{bold('Claims')}\n" + "\n".join(_claims(entry, (recorded or {}).get("verdicts", {})))
    if recorded:
        changed = f"; changed since: {', '.join(recorded['stale'])}" if recorded["stale"] else ""
        yield paragraph(f"Verdicts of the ledger, {recorded['date']}, preset {recorded['preset']}{changed}.")
    yield f"`etude run {given} --help` names every option."


def _presets(entry: Entry) -> str:
    """A table of the Config's fields by preset, with the value each preset has in the end."""
    rows = [["", *entry.presets]]
    for field in entry.fields:
        default = field.default or "?"
        given = (preset.get(field.name, "?" if "" in preset else default) for preset in entry.presets.values())
        rows.append([field.name, *given])
    text = columns(rows)
    whole = [f"  {name} = {given['']}" for name, given in entry.presets.items() if "" in given]
    return "\n".join([text, *whole])


def _claims(entry: Entry, verdicts: dict[str, str]) -> Iterator[str]:
    for claim in entry.claims:
        verdict = f"  {verdicts[claim.name]}" if claim.name in verdicts else ""
        facts = [("paper", claim.reported), ("differs", claim.deviation)]
        yield f"  {bold(claim.name)}{verdict}"
        yield paragraph(claim.text, "    ")
        yield columns([fact for fact in facts if fact[1]], indent=4)


def _recorded(name: str) -> dict[str, Any] | None:
    """The ledger's verdicts for a study, or None."""
    from etude.study import ledger

    found = ledger.read(name)
    if found is None:
        return None
    return {
        "preset": found.preset,
        "date": found.date,
        "stale": [*found.stale, *found.stale_claims],
        "verdicts": {verdict.claim: verdict.status for verdict in found.verdicts},
    }
