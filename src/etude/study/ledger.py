"""The ledger: the verdicts recorded at shipped presets, a pair of files (JSON and SVG) a study.

The files lie in `etude/ledger` and ship with the package. The scoreboard and each study's page are made from them.
Reading them imports neither torch nor a study. An entry knows which code its verdicts came from, so that it can tell
when that code has changed, and it keeps the rows of measurements with several seeds, so that one seed can be measured
again anywhere and the claims judged with it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.errors import EtudeError, suggest
from etude.study.rules import Verdict

if TYPE_CHECKING:
    import pandas as pd

    from etude.study.definition import Study
    from etude.study.evidence import Evidence

FORMAT = 1
LARGEST = 20_000
"""Measurements with more recorded values than this are kept as one digest a seed."""

_FOLDER = Path(__file__).resolve().parent.parent / "ledger"


class LedgerError(EtudeError, ValueError):
    """Evidence that the ledger does not take, or an entry that cannot be read or compared with."""


@dataclass(frozen=True)
class LedgerEntry:
    """What the ledger holds for one study.

    Attributes:
        name: the study's name.
        path: the JSON file.
        preset, config, seeds: what the verdicts were measured with.
        alpha: the chance of a wrong decision each claim was allowed.
        looks: how many times the run could have been judged before it ended.
        verdicts: one a claim.
        claims: statement, reported value, deviation, address and code key of each claim.
        measurements: address, code key, volatile columns, digests and perhaps columns of each measurement.
        unavailable: measurements that could not be had, with the reason.
        paper, topic, figure: of the study; `figure` is the caption of the SVG beside the file, or None.
        date: the day it was recorded (UTC), as ISO text.
        environment: versions, machine and threads.
        seconds: of all trials together.
    """

    name: str
    path: Path
    preset: str
    config: Mapping[str, Any]
    seeds: int
    alpha: float
    looks: int
    verdicts: tuple[Verdict, ...]
    claims: Mapping[str, Mapping[str, Any]]
    measurements: Mapping[str, Mapping[str, Any]]
    unavailable: Mapping[str, str]
    paper: Mapping[str, Any]
    topic: str
    figure: str | None
    date: str
    environment: Mapping[str, Any]
    seconds: float

    @property
    def stale(self) -> list[str]:
        """The measurements whose code is no longer the code that was measured."""
        from etude.study.code_key import code_key

        return _changed(self.measurements, code_key)

    @property
    def stale_claims(self) -> list[str]:
        """The claims whose rule is no longer the rule that was judged."""
        measured = [about["address"] for about in self.measurements.values()]
        return _changed(self.claims, lambda address: _rule_key(address, measured))


@dataclass(frozen=True)
class Comparison:
    """A recorded verdict beside the one that comes of measuring one seed again.

    Attributes:
        claim: the claim's id.
        recorded: the status in the ledger.
        measured: the status with the seed's rows measured again; None where it cannot be judged here.
        differs: whether the two statuses differ; False where there is nothing to compare with.
        identical: whether all rows of the seed, without volatile columns, are bit-identical to the recorded ones.
        difference: the largest relative difference between numbers of the seed's rows; 0 where they are identical,
            infinite where they differ in shape or text, None where only digests are there to compare.
        why: what the new verdict rests on, or why there is none.
    """

    claim: str
    recorded: str
    measured: str | None
    differs: bool
    identical: bool
    difference: float | None
    why: str


# -- writing -----------------------------------------------------------------------------------------------------------


def record(
    study: Study[Any],
    evidence: Evidence[Any],
    verdicts: Sequence[Verdict],
    folder: Path | str | None = None,
    *,
    alpha: float = 0.05,
) -> Path:
    """Put a study's verdicts into the ledger, replacing what it holds for that study.

    Args:
        study: the study.
        evidence: whole evidence at a shipped preset other than `smoke`.
        verdicts: what the study's claims came to, one a claim.
        folder: where the ledger is; by default the installed package's.
        alpha: the level the verdicts were judged at.

    Returns:
        The JSON file; the first figure lies beside it as SVG.

    Raises:
        LedgerError: evidence of another study, of a smoke run or of a customised configuration, evidence with failed
            or missing trials, or verdicts that are not one for each claim.
    """
    from etude.study import report
    from etude.study.code_key import code_key
    from etude.study.definition import plain

    preset = _recordable(study, evidence, verdicts)
    path = _file(study.name, folder)
    figure = None
    for draw in study.figures[:1]:
        try:
            svg = report.figure_svg(draw, evidence)
        except EtudeError:  # what it draws was not available here; the verdicts stand without it
            path.with_suffix(".svg").unlink(missing_ok=True)
        else:
            figure = report.figure_caption(draw)
            report.write_atomically(path.with_suffix(".svg"), svg)
    paper = study.paper
    measured = [each for each in study.measurements.values() if each.name in evidence.tables]
    claims = {
        claim.name: {
            "statement": claim.statement,
            "reported": claim.reported,
            "deviation": claim.deviation,
            "address": (address := f"{study.module}:{claim.rule.__name__}"),
            "code": _rule_key(address, [measurement.address for measurement in measured]),
        }
        for claim in study.claims.values()
    }
    data = {
        "format": FORMAT,
        "study": study.name,
        "topic": study.topic,
        "paper": {name: getattr(paper, name) for name in ("title", "authors", "year", "arxiv", "venue")},
        "preset": preset,
        "config": plain(evidence.config),
        "seeds": evidence.config.seeds,
        "alpha": alpha,
        "looks": evidence.looks,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(sum(trial.seconds for trial in evidence.trials), 1),
        "figure": figure,
        "verdicts": [verdict.to_json() for verdict in verdicts],
        "claims": claims,
        "unavailable": dict(evidence.unavailable),
        "environment": json.loads(json.dumps(dict(evidence.environment), default=str)),
        "measurements": {
            measurement.name: {
                "address": measurement.address,
                "code": code_key(measurement.address),
                "volatile": list(measurement.volatile),
                **_kept(evidence.tables[measurement.name], measurement.volatile),
            }
            for measurement in measured
        },
    }
    return report.write_atomically(path, _pretty(data) + "\n")


def _recordable(study: Study[Any], evidence: Evidence[Any], verdicts: Sequence[Verdict]) -> str:
    """The shipped preset the evidence belongs to; refuses what the ledger must not hold."""
    if evidence.study != study.name:
        raise LedgerError(f"evidence: it is the study {evidence.study}'s, not {study.name}'s")
    if evidence.preset == "smoke":
        raise LedgerError("evidence: a smoke run is no evidence. Run the preset 'laptop', 'extended' or 'paper'")
    equal = [name for name, config in study.presets.items() if config == evidence.config and name != "smoke"]
    preset = evidence.preset if evidence.preset in equal else next(iter(equal), None)
    if preset is None:
        raise LedgerError(
            "evidence: its configuration is customised. The ledger holds only shipped presets: "
            + ", ".join(name for name in study.presets if name != "smoke")
        )
    if evidence.failures:
        first = evidence.failures[0]
        raise LedgerError(
            f"evidence: {len(evidence.failures)} trials failed, the first in {first.measurement} at seed "
            f"{first.seed}: {first.error}. Mend them and run the study again"
        )
    present: dict[str, int] = {}
    for trial in evidence.trials:
        present[trial.measurement] = present.get(trial.measurement, 0) + 1
    for name, measurement in study.measurements.items():
        if not measurement.runs_at(preset):
            continue
        planned, found = evidence.planned.get(name, 0), present.get(name, 0)
        # What cannot be had on this machine is planned and not found; what the store merely lacks says so.
        absent = found == 0 and name in evidence.unavailable and "not in the store" not in evidence.unavailable[name]
        if planned == 0 or (found < planned and not absent):
            raise LedgerError(
                f"evidence: it is partial, {found} of {planned or 'its'} trials of {name} are there. "
                f"Measure the rest with: etude run {study.name} --preset {preset}"
            )
    judged = [verdict.claim for verdict in verdicts]
    if sorted(judged) != sorted(study.claims):
        raise LedgerError(
            f"verdicts: one for each claim is needed ({', '.join(study.claims)}), got {', '.join(judged)}"
        )
    return preset


def _rule_key(address: str, measured: Iterable[str]) -> str:
    """Hash of the code a claim reaches, without what its measurements reach: those have keys of their own."""
    from etude.study.code_key import code_parts

    parts = code_parts(address)
    elsewhere = {reached for measurement in measured for reached in code_parts(measurement)}
    own = sorted((name, part) for name, part in parts.items() if name not in elsewhere)
    return hashlib.sha256(json.dumps(own).encode()).hexdigest()


def _changed(described: Mapping[str, Mapping[str, Any]], key: Callable[[str], str]) -> list[str]:
    changed = []
    for name, about in described.items():
        try:
            now = key(about["address"])
        except (ValueError, SyntaxError):  # renamed, removed or broken
            now = ""
        if now != about["code"]:
            changed.append(name)
    return changed


def _kept(table: pd.DataFrame, volatile: Iterable[str]) -> dict[str, Any]:
    """A digest for every seed and, where several seeds are not too many values, the columns themselves."""
    digests = {str(seed): _digest(rows, volatile) for seed, rows in table.groupby("seed", sort=True)}
    if len(digests) < 2 or table.size > LARGEST:
        return {"digests": digests}
    columns = {
        str(name): {"type": str(column.dtype), "values": [_to_json(value, column.dtype) for value in column.tolist()]}
        for name, column in table.items()
    }
    return {"digests": digests, "columns": columns}


def _digest(rows: pd.DataFrame, volatile: Iterable[str]) -> str:
    stable = rows.drop(columns=list(volatile), errors="ignore")
    values = [
        [str(name), [_to_json(value, stable[name].dtype) for value in stable[name].tolist()]]
        for name in sorted(stable.columns)
    ]
    return hashlib.sha256(json.dumps(values, separators=(",", ":")).encode()).hexdigest()[:32]


def _to_json(value: Any, kind: object) -> Any:
    """A cell of a table as JSON; what is missing becomes null, non-finite numbers their names."""
    import pandas as pd

    if isinstance(value, float) and not math.isfinite(value):
        # pandas marks missing text by a NaN too: only among numbers is it one
        return str(value) if str(kind).lower().startswith("float") else None
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _table(columns: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    frame = {}
    for name, column in columns.items():
        values = column["values"]
        if column["type"].startswith(("float", "Float")):
            values = [None if value is None else float(value) for value in values]
        frame[name] = pd.Series(values, dtype=column["type"])
    return pd.DataFrame(frame)


def _pretty(value: Any, indent: str = "") -> str:
    """JSON with one entry a line, lists of plain values on one line: changes show as few lines."""
    inner = indent + " "
    if isinstance(value, Mapping) and value:
        lines = [
            f"{inner}{json.dumps(str(key), ensure_ascii=False)}: {_pretty(item, inner)}" for key, item in value.items()
        ]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (Mapping, list)) for item in value):
        return "[\n" + ",\n".join(inner + _pretty(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


# -- reading -----------------------------------------------------------------------------------------------------------


def read(name: str, folder: Path | str | None = None) -> LedgerEntry | None:
    """The ledger's entry for a study, or None when it holds none.

    Args:
        name: the study's name, such as ``"lottery-ticket"``.
        folder: where the ledger is; by default the installed package's.

    Raises:
        LedgerError: the file is not what `record` writes.
    """
    path = _file(name, folder)
    return _read(path) if path.is_file() else None


def entries(folder: Path | str | None = None) -> list[LedgerEntry]:
    """Every entry of the ledger, by name.

    Raises:
        LedgerError: a file is not what `record` writes.
    """
    return [_read(path) for path in sorted(_folder(folder).glob("*.json"))]


def _read(path: Path) -> LedgerEntry:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise LedgerError(f"{path} has the format {data['format']!r}; this version reads {FORMAT}. Record it again")
        return LedgerEntry(
            name=data["study"],
            path=path,
            preset=data["preset"],
            config=data["config"],
            seeds=data["seeds"],
            alpha=data["alpha"],
            looks=data["looks"],
            verdicts=tuple(Verdict.from_json(verdict) for verdict in data["verdicts"]),
            claims=data["claims"],
            measurements=data["measurements"],
            unavailable=data["unavailable"],
            paper=data["paper"],
            topic=data["topic"],
            figure=data["figure"],
            date=data["date"],
            environment=data["environment"],
            seconds=data["seconds"],
        )
    except LedgerError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"{path} is no ledger entry ({type(error).__name__}: {error}). Record it again") from error


def _folder(folder: Path | str | None) -> Path:
    return _FOLDER if folder is None else Path(folder)


def _file(name: str, folder: Path | str | None) -> Path:
    return _folder(folder) / f"{name.replace('-', '_')}.json"


def _known(name: str, folder: Path | str | None) -> LedgerEntry:
    entry = read(name, folder)
    if entry is None:
        names = [path.stem.replace("_", "-") for path in _folder(folder).glob("*.json")]
        raise LedgerError(f"name: the ledger holds nothing for '{name}'.{suggest(name, names)}")
    return entry


# -- measuring again ---------------------------------------------------------------------------------------------------


def verify(
    study: Study[Any],
    store: Path | str | None = None,
    seed: int = 0,
    *,
    folder: Path | str | None = None,
    engine: str = "local",
    progress: bool | None = None,
) -> list[Comparison]:
    """Measure one seed again, put its rows in the place of the recorded ones, and judge every claim anew.

    Args:
        study: a study with an entry in the ledger.
        store: where the new trials are kept; what it already holds is not measured again. By default a temporary
            folder, so that everything is.
        seed: which seed; measurements of a single seed are always measured again. Seeds below it are run too.
        folder: where the ledger is; by default the installed package's.
        engine: as for `Study.run`.
        progress: as for `Study.run`.

    Returns:
        One comparison a recorded claim.

    Raises:
        LedgerError: the ledger holds nothing for the study, the preset has changed since, or the seed was not recorded.
    """
    from etude.study.definition import plain

    entry = _known(study.name, folder)
    if not 0 <= seed < entry.seeds:
        raise LedgerError(f"seed={seed}: {study.name} was recorded with the seeds 0 to {entry.seeds - 1}")
    config = study.presets.get(entry.preset)
    # A Reference brings its code's key, which staleness looks after; here only the settings count.
    if config is None or _settings(plain(config)) != _settings(entry.config):
        raise LedgerError(f"study: its preset '{entry.preset}' is not the one that was recorded. Record it again")
    with tempfile.TemporaryDirectory(prefix="etude-verify-") as fresh:
        measured = study.run(
            config, seeds=seed + 1, preset=entry.preset, store=store or fresh, engine=engine, progress=progress
        )
        tables: dict[str, pd.DataFrame] = {}
        unavailable = dict(measured.unavailable)
        differences: list[float | None] = []
        for name, about in entry.measurements.items():
            if name not in measured.tables:
                continue
            rows = measured.tables[name]
            seeds = list(about["digests"])
            which = str(seed) if str(seed) in seeds else seeds[0]
            rows = rows[rows["seed"] == int(which)].reset_index(drop=True)
            same = _digest(rows, about["volatile"]) == about["digests"][which]
            if "columns" in about:
                recorded = _table(about["columns"])
                old = recorded[recorded["seed"] == int(which)].reset_index(drop=True)
                differences.append(0.0 if same else _difference(old, rows, about["volatile"]))
                tables[name] = _replaced(recorded, rows, int(which))
            else:
                differences.append(0.0 if same else None)
                if len(seeds) == 1:
                    tables[name] = rows
                else:
                    unavailable[name] = f"the ledger keeps only digests of {name}, which has more than {LARGEST} values"
        whole = replace(
            measured,
            preset=entry.preset,
            config=config,
            tables=tables,
            unavailable=unavailable,
            looks=entry.looks,
        )
        now = {verdict.claim: verdict for verdict in study.judge(whole, alpha=entry.alpha)}
    difference = None if None in differences else max((d for d in differences if d is not None), default=None)
    identical = bool(differences) and all(each == 0.0 for each in differences)
    broken = bool(measured.failures)
    return [_compared(old, now.get(old.claim), broken, identical, difference) for old in entry.verdicts]


def _compared(old: Verdict, new: Verdict | None, broken: bool, identical: bool, difference: float | None) -> Comparison:
    if new is None:
        return Comparison(old.claim, old.status, None, False, identical, difference, "the study has no such claim now")
    # What is not at hand here says nothing about the verdict; a trial or rule that breaks does.
    absent = new.status == "untested" != old.status and not new.error and not broken
    measured = None if absent else new.status
    differs = measured is not None and measured != old.status
    return Comparison(old.claim, old.status, measured, differs, identical, difference, new.why)


def _settings(config: Any) -> Any:
    if isinstance(config, Mapping):
        return {name: _settings(value) for name, value in config.items() if name != "code"}
    return [_settings(value) for value in config] if isinstance(config, (list, tuple)) else config


def _replaced(recorded: pd.DataFrame, rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    import pandas as pd

    pieces = [rows if value == seed else recorded[recorded["seed"] == value] for value in recorded["seed"].unique()]
    together: pd.DataFrame = pd.concat(pieces, ignore_index=True)
    return together


def _difference(old: pd.DataFrame, new: pd.DataFrame, volatile: Iterable[str]) -> float:
    """The largest |a - b| / max(|a|, |b|) between the numbers of two tables; infinite where anything else differs."""
    import numpy as np
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    old, new = (table.drop(columns=list(volatile), errors="ignore") for table in (old, new))
    if set(old.columns) != set(new.columns) or len(old) != len(new):
        return math.inf
    largest = 0.0
    for name in old.columns:
        if is_numeric_dtype(old[name]) and is_numeric_dtype(new[name]) and not is_bool_dtype(old[name]):
            a, b = (table[name].to_numpy(dtype=float, na_value=np.nan) for table in (old, new))
            unequal = ~((a == b) | (np.isnan(a) & np.isnan(b)))
            if not np.isfinite(a[unequal]).all() or not np.isfinite(b[unequal]).all():
                return math.inf
            scale = np.maximum(np.abs(a), np.abs(b))[unequal]
            largest = max(largest, float((np.abs(a - b)[unequal] / scale).max(initial=0.0)))
        elif old[name].astype(str).tolist() != new[name].astype(str).tolist():
            return math.inf
    return largest


# -- pages made from the ledger ----------------------------------------------------------------------------------------


def scoreboard(folder: Path | str | None = None, *, pages: str = "docs/studies") -> str:
    """All recorded verdicts as a Markdown table, and how many of them chance alone would make wrong.

    A shipped study without an entry is listed as not recorded. Claims are shown in the study's order, one symbol each.

    Args:
        folder: where the ledger is; by default the installed package's.
        pages: where each study's page lies; empty for no links.
    """
    from etude.study.catalogue import catalogue
    from etude.study.report import SYMBOLS, summary

    recorded = {entry.name: entry for entry in entries(folder)}
    papers = {name: entry for name, entry in catalogue().items() if entry.module.startswith("etude.papers.")}
    rows = []
    for name in sorted({*recorded, *(papers if folder is None else ())}):
        label = f"[{name}]({pages}/{name}.md)" if pages and name in recorded else name
        entry = recorded.get(name)
        if entry is None:
            paper = papers[name]
            cite = {"authors": paper.authors, "year": paper.year, "arxiv": paper.arxiv, "title": paper.title}
            rows.append([label, _citation(cite), paper.topic, "", "not recorded yet", "", "", ""])
            continue
        marks = " ".join(SYMBOLS[verdict.status] for verdict in entry.verdicts)
        stale = [*entry.stale, *entry.stale_claims]
        date = f"{entry.date}, stale: {', '.join(stale)}" if stale else entry.date
        minutes = f"{entry.seconds / 60:.1f}"
        rows.append([label, _citation(entry.paper), entry.topic, entry.preset, marks, str(entry.seeds), minutes, date])
    table = _markdown(["Study", "Paper", "Topic", "Preset", "Claims", "Seeds", "Minutes", "Recorded"], rows)
    verdicts = [verdict for entry in recorded.values() for verdict in entry.verdicts]
    counts = summary(verdicts)
    key = ", ".join(f"{SYMBOLS[status]} {status} ({count})" for status, count in counts.items())
    return f"{table}\n\n{key}.\n\n{_chance(recorded.values())}\n"


def expected_errors(recorded: Iterable[LedgerEntry]) -> tuple[int, float]:
    """How many decided verdicts rest on an interval, and how many of those chance alone would make wrong at most.

    Returns:
        The number of verdicts that hold or fail by an estimate with an interval, and the sum of their alphas.
    """
    alphas = [
        entry.alpha
        for entry in recorded
        for verdict in entry.verdicts
        if verdict.status in ("holds", "fails")
        and any(part.n is not None and part.region is not None for part in verdict.estimates)
    ]
    return len(alphas), math.fsum(alphas)


def _chance(recorded: Iterable[LedgerEntry]) -> str:
    count, wrong = expected_errors(recorded)
    if not count:
        return "No decided verdict rests on an interval."
    return (
        f"{count} decided verdict{'s rest' if count != 1 else ' rests'} on an interval; "
        f"chance alone would be expected to make at most {wrong:.2g} of them wrong. "
        "The others were decided exactly or not at all."
    )


def page(name: str, folder: Path | str | None = None, *, figure: str | None = None) -> str:
    """A study's page for the documentation, in Markdown.

    Args:
        name: the study's name.
        folder: where the ledger is; by default the installed package's.
        figure: address of the figure as seen from the page; by default the SVG's file name.

    Raises:
        LedgerError: the ledger holds nothing for the study.
    """
    from etude.study.catalogue import find
    from etude.study.report import SYMBOLS, estimate_text, label_text, reason, rule_text, title

    entry = _known(name, folder)
    try:
        described = find(name)
        question, description = described.question, described.description
    except EtudeError:  # recorded elsewhere, or no longer shipped
        question, description = title(name), ""
    rows = []
    for verdict in entry.verdicts:
        claim = entry.claims.get(verdict.claim, {})
        parts = []
        for part in verdict.estimates:
            label = f"{label_text(part)}: " if part.label else ""
            rule = f", rule: {rule_text(part)}" if part.relation else ""
            parts.append(f"{label}{estimate_text(part)}{rule}")
        if why := reason(verdict):
            parts.append(why)
        deviation = claim.get("deviation", "")
        statement = f"{claim.get('statement', verdict.claim)}{f' (Deviation: {deviation})' if deviation else ''}"
        mark = f"{SYMBOLS[verdict.status]} {verdict.status}"
        rows.append([mark, _text(statement), _text(claim.get("reported", "")), _text("; ".join(parts))])
    blocks = [f"# {_text(question)}", _citation(entry.paper, full=True)]
    if description:
        blocks.append(description)
    blocks.append(f"## Claims\n\n{_markdown(['Verdict', 'Claim', 'Paper', 'Measured'], rows)}")
    level = f"{100 * (1 - entry.alpha):.3g} %"
    if stale := [*entry.stale, *entry.stale_claims]:
        blocks.append(f"**Stale**: the code of {', '.join(stale)} has changed since these verdicts were recorded.")
    blocks.append(
        f"Each claim is judged so that chance decides it wrongly at most once in {1 / entry.alpha:.3g} times "
        f"(intervals of {level} or more)."
    )
    if entry.figure is not None:
        blocks.append(f"![{_text(entry.figure)}]({figure or entry.path.with_suffix('.svg').name})")
    if entry.unavailable:
        lines = [f"- {_text(what)}: {_text(why)}" for what, why in entry.unavailable.items()]
        blocks.append("## Not measured\n\n" + "\n".join(lines))
    settings = [[f"`{field}`", json.dumps(value, ensure_ascii=False)] for field, value in entry.config.items()]
    blocks.append(f"## Configuration\n\nPreset `{entry.preset}`.\n\n{_markdown(['Field', 'Value'], settings)}")
    machine = ", ".join(f"{key} {value}" for key, value in entry.environment.items())
    blocks.append(
        f"## Run it\n\n```\netude run {entry.name} --preset {entry.preset}\n```\n\n"
        f"Recorded on {entry.date}: {entry.seeds} seeds, {entry.seconds / 60:.1f} minutes of compute "
        f"({_text(machine)})."
    )
    return "\n\n".join(blocks) + "\n"


def _citation(paper: Mapping[str, Any], full: bool = False) -> str:
    title, authors, year = (_text(str(paper.get(name) or "")) for name in ("title", "authors", "year"))
    venue, arxiv = _text(str(paper.get("venue") or "")), _text(str(paper.get("arxiv") or ""))
    if full:
        where = " ".join(filter(None, (venue, year)))
        link = f" [arXiv {arxiv}](https://arxiv.org/abs/{arxiv})" if arxiv else ""
        return f"*{title}*. {authors}, {where}.{link}"
    words = f"{title} ({year})" if year else title
    return f"[{words}](https://arxiv.org/abs/{arxiv})" if arxiv else words


def _text(text: str) -> str:
    """Text on one line, with what Markdown or HTML would read as markup made harmless."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    for character in ("\\", "[", "]", "*", "|"):
        text = text.replace(character, "\\" + character)
    return text


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    # Links are made by the callers; a bar inside a cell would end it.
    body = [line(" ".join(cell.replace("\\|", "|").replace("|", "\\|").split()) for cell in row) for row in rows]
    return "\n".join([line(head), line("---" for _ in head), *body])
