"""Driving a study: plan its trials, reuse what is stored, run the rest, gather the evidence."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from etude.errors import EtudeError, MissingExtra, suggest
from etude.study.code_key import code_key, code_parts
from etude.study.definition import Config, ConfigError, Measurement, Study, plain
from etude.study.engines import engine as choose_engine
from etude.study.engines.trial import Engine, Event, Task, environment
from etude.study.evidence import Evidence, Failure, TrialInfo, saved_key
from etude.study.progress import Display, display
from etude.study.statistics import LOOKS
from etude.study.store import Store, Stored, TrialAddress

C = TypeVar("C", bound=Config)
_ATTEMPTS = 2  # a trial whose worker died is tried once more: the death may have been the machine's doing


class Interrupted(EtudeError):
    """The run was stopped by Ctrl-C; what was finished is kept."""


@dataclass(frozen=True)
class Trial:
    """One planned trial."""

    measurement: Measurement[Any]
    cell: Mapping[str, Any]
    seed: int
    address: TrialAddress


@dataclass(frozen=True)
class Refreshed:
    """What became of one stale cell: `carried` over, `changed` (to be measured again), or `failed`."""

    measurement: str
    cell: Mapping[str, Any]
    trials: int
    outcome: str
    why: str = ""


class Plan:
    """The trials of a study at a configuration, and what the store holds of them."""

    def __init__(
        self,
        study: Study[C],
        config: C,
        preset: str | None,
        store: Store,
        *,
        only: str | Sequence[str] | None = None,
        device: str = "cpu",
        notice: Callable[[str], None],
    ) -> None:
        self.study, self.config, self.preset, self.store, self.notice = study, config, preset, store, notice
        self.trials: list[Trial] = []
        self.left_out: dict[str, str] = {}
        self._values: dict[str, Any] = {}
        chosen = _chosen(study, only)
        for measurement in study.measurements.values():
            if measurement.name not in chosen:
                self.left_out[measurement.name] = f"{measurement.name} was left out by --only. Run the study without it"
                continue
            if not measurement.runs_at(preset):
                self.left_out[measurement.name] = (
                    f"{measurement.name} is measured from the preset '{measurement.since}' on. "
                    f"Run it with --preset {measurement.since}"
                )
                continue
            code = code_key(measurement.address)
            for cell in measurement.cells(config):
                for seed in range(measurement.seeds or config.seeds):
                    where = TrialAddress(study.name, measurement.name, cell, seed, device.partition(":")[0], code)
                    self.trials.append(Trial(measurement, cell, seed, where))
        # Seed 0 of every cell first, so that an interrupted run is balanced; timed trials last, when all is quiet.
        self.trials.sort(key=lambda trial: (trial.measurement.exclusive, trial.seed))
        self.device = device

    def value(self, name: str) -> Any:
        """A field of the configuration as plain data."""
        if name not in self._values:
            self._values[name] = plain(getattr(self.config, name))
        return self._values[name]

    def find(self, trial: Trial) -> Stored | None:
        """The stored trial, if there is one."""
        return self.store.find_trial(trial.address, self.value, self.notice)

    def keep_code(self) -> None:
        """Note in the store which definitions the measurements' code keys stand for."""
        for code, address in {trial.address.code: trial.measurement.address for trial in self.trials}.items():
            self.store.put_code(code, code_parts(address))

    def tell_stale(self, missing: Iterable[Trial]) -> None:
        """Say which stored trials other code measured, and what of the code changed."""
        stale: dict[str, list[str]] = {}
        for trial in missing:
            for old in self.store.stale_trials(trial.address, self.value, self.notice)[:1]:
                changed = self.store.changed(old.about["code"], trial.address.code)
                stale.setdefault(trial.measurement.name, []).append(", ".join(changed))
        for name, changes in stale.items():
            why = f" ({changes[0]} changed)" if changes[0] else ""
            count = f"{len(changes)} stored trial{'s' if len(changes) > 1 else ''} of {name}"
            self.notice(
                f"{count}: stale{why}, measured again. If nothing that matters changed, stop and give: "
                f"etude refresh {self.study.name}"
            )

    def task(self, id: int, trial: Trial) -> Task:
        """The trial as a worker gets it."""
        measurement, study = trial.measurement, self.study
        if study.path is None:
            raise EtudeError(f"study {study.name}: write it to a file; a worker cannot read what was typed")
        return Task(
            id=id,
            study=study.name,
            module=study.module,
            path=None if "." in study.module else str(study.path),
            measurement=measurement.name,
            cell=trial.cell,
            seed=trial.seed,
            config=self.config.model_dump(mode="json"),
            code=trial.address.code,
            device=self.device,
            threads=measurement.threads,
            memory=measurement.memory,
            gpus=measurement.gpus,
            exclusive=measurement.exclusive,
        )


class Driver:
    """Runs trials on an engine and keeps what they find; the only writer of the store."""

    def __init__(self, plan: Plan, engine: Engine, show: Display) -> None:
        self.plan, self.engine, self.show = plan, engine, show
        self.found: dict[int, Stored] = {}
        self.fresh: set[int] = set()
        self.failures: dict[int, Failure] = {}
        self.unavailable: dict[int, str] = {}
        self._attempts: dict[int, int] = {}
        self._running: dict[int, Task] = {}
        self._owner: dict[tuple[str, str], int] = {}
        self._waiting: dict[tuple[str, str], list[Event]] = {}
        self._queue: list[Task] = []

    def run(self, trials: Mapping[int, Trial]) -> None:
        """Run the given trials (by their index in the plan).

        Raises:
            StoreError: a result could not be kept.
        """
        self.engine.attach(self._handle)
        self._queue = [self.plan.task(index, trial) for index, trial in trials.items()]
        while self._queue or self._running:
            while self._queue and self.engine.room(self._queue[0]):
                task = self._queue.pop(0)
                self._running[task.id] = task
                self._attempts[task.id] = self._attempts.get(task.id, 0) + 1
                self.show.started(task)
                self.engine.start(task)
            self.engine.wait()

    def _handle(self, event: Event) -> None:
        getattr(self, "_on_" + event.kind.replace("-", "_"))(event)

    # ---- what trials say while they run ------------------------------------------------------------------------------

    def _on_progress(self, event: Event) -> None:
        self.show.progress(event.task, event.header["label"], event.header["done"], event.header["total"])

    def _on_load_cached(self, event: Event) -> None:
        entry = (event.header["function"], event.header["key"])
        files = self.plan.store.get_cached(*entry)
        if files is not None:
            self.engine.answer(event, {"found": True}, files)
        elif entry in self._owner:  # another trial is computing it: wait for that one
            self._waiting.setdefault(entry, []).append(event)
        else:
            self._owner[entry] = event.task.id
            self.engine.answer(event, {"found": False}, {})

    def _on_publish_cached(self, event: Event) -> None:
        entry = (event.header["function"], event.header["key"])
        self.plan.store.put_cached(*entry, event.blobs, self.plan.study.name)
        self._owner.pop(entry, None)
        self.engine.answer(event, {"kept": True}, {})
        for other in self._waiting.pop(entry, []):
            self.engine.answer(other, {"found": True}, event.blobs)

    def _on_abandon_cached(self, event: Event) -> None:
        self._hand_on((event.header["function"], event.header["key"]))

    def _hand_on(self, entry: tuple[str, str]) -> None:
        """The owner of a result will not deliver: the next that waits computes it."""
        self._owner.pop(entry, None)
        waiting = [event for event in self._waiting.pop(entry, []) if event.task.id in self._running]
        if waiting:
            self._owner[entry] = waiting[0].task.id
            self._waiting[entry] = waiting[1:]
            self.engine.answer(waiting[0], {"found": False}, {})

    def _on_load_checkpoint(self, event: Event) -> None:
        files = self.plan.store.get_checkpoint(self._checkpoint(event.task))
        self.engine.answer(event, {"found": files is not None}, files or {})

    def _on_save_checkpoint(self, event: Event) -> None:
        self.plan.store.put_checkpoint(self._checkpoint(event.task), event.blobs, self.plan.study.name)
        self.engine.answer(event, {"kept": True}, {})

    def _checkpoint(self, task: Task) -> str:
        # The fields a trial will have read are not known before it ends, so all of them but `seeds` count here.
        config = {name: self.plan.value(name) for name in type(self.plan.config).model_fields if name != "seeds"}
        parts = [task.study, task.measurement, task.cell, task.seed, task.code, task.device, config]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    # ---- how trials end ----------------------------------------------------------------------------------------------

    def _end(self, task: Task) -> Trial:
        self._running.pop(task.id, None)
        for entry in [entry for entry, owner in self._owner.items() if owner == task.id]:
            self._hand_on(entry)
        return self.plan.trials[task.id]

    def _on_done(self, event: Event) -> None:
        trial = self._end(event.task)
        header, measurement = event.header, trial.measurement
        about = {
            "study": event.task.study,
            "measurement": measurement.name,
            "cell": dict(trial.cell),
            "seed": trial.seed,
            "device": trial.address.device,
            "code": trial.address.code,
            "reads": header["reads"],
            "seconds": header["seconds"],
            "environment": header["environment"],
            "spot_checked": False,
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        files = {name.removeprefix("files/"): data for name, data in event.blobs.items() if name != "rows"}
        self.found[event.task.id] = self.plan.store.put_trial(trial.address, about, event.blobs["rows"], files)
        self.fresh.add(event.task.id)
        self.plan.store.drop_checkpoint(self._checkpoint(event.task))
        self.show.finished(event.task, header["seconds"])

    def _on_unavailable(self, event: Event) -> None:
        self._end(event.task)
        self.unavailable[event.task.id] = f"{event.header['what']}. {event.header['remedy']}."
        self.show.skipped(event.task, self.unavailable[event.task.id])

    def _on_failed(self, event: Event) -> None:
        trial = self._end(event.task)
        error = str(event.header["error"])
        self.failures[event.task.id] = Failure(
            trial.measurement.name, dict(trial.cell), trial.seed, error, str(event.header["log"])
        )
        self.show.failed(event.task, error)

    _on_refused = _on_failed

    def _on_died(self, event: Event) -> None:
        if self._attempts[event.task.id] < _ATTEMPTS:
            self._end(event.task)
            self.show.notice(f"{_label(event.task)}: {event.header['error']}; it is tried once more")
            self._queue.insert(0, event.task)
        else:
            self._on_failed(event)


def run(
    study: Study[C], config: C | str | None, *, seeds: int | None, until_decided: bool, alpha: float, **options: Any
) -> Evidence[C]:
    """See `Study.run`."""
    if not until_decided:
        return _run(study, config, seeds, **options)
    if seeds is not None:
        raise ConfigError(f"seeds={seeds}: --until-decided looks after {LOOKS} seeds; leave out --seeds")
    for count in LOOKS:
        evidence = replace(_run(study, config, count, **options), looks=len(LOOKS))
        if not any(verdict.status == "undecided" for verdict in study.judge(evidence, alpha=alpha)):
            break
    return evidence


def _run(
    study: Study[C],
    config: C | str | None,
    seeds: int | None,
    *,
    engine: str,
    only: str | Sequence[str] | None,
    store: Path | str | None,
    preset: str | None,
    workers: int | None,
    device: str,
    progress: bool | None,
) -> Evidence[C]:
    chosen, label = study.resolve(config, seeds=seeds)
    _require(study.extras)
    make = choose_engine(engine, workers)
    kept = Store(store)
    with display(progress) as show:
        plan = Plan(study, chosen, preset or label, kept, only=only, device=device, notice=show.notice)
        with kept.lock(study.name, waiting=lambda holder: show.notice(f"waiting for {holder}, which runs this study")):
            found = {index: stored for index, trial in enumerate(plan.trials) if (stored := plan.find(trial))}
            missing = {index: trial for index, trial in enumerate(plan.trials) if index not in found}
            plan.keep_code()
            plan.tell_stale(missing.values())
            show.begin(len(plan.trials), len(found))
            if not missing:
                return gather(plan, found, label)
            with make() as ready:
                driver = Driver(plan, ready, show)
                driver.found.update(found)
                try:
                    driver.run(missing)
                except KeyboardInterrupt:
                    raise Interrupted(
                        f"Stopped. {len(driver.found)} of {len(plan.trials)} trials are finished and kept in "
                        f"{kept.path}. Give the same command again to go on"
                    ) from None
        return gather(plan, driver.found, label, driver)


def stored(
    study: Study[C],
    config: C | str | None,
    *,
    seeds: int | None = None,
    store: Path | str | None = None,
    preset: str | None = None,
    device: str = "cpu",
) -> Evidence[C]:
    """See `Study.stored`."""
    chosen, label = study.resolve(config, seeds=seeds)
    with display(False) as show:
        plan = Plan(study, chosen, preset or label, Store(store), device=device, notice=show.notice)
        found = {index: kept for index, trial in enumerate(plan.trials) if (kept := plan.find(trial))}
        return gather(plan, found, label)


def gather(plan: Plan, found: Mapping[int, Stored], preset: str | None, driver: Driver | None = None) -> Evidence[Any]:
    """Evidence from stored trials: one table a measurement, in the order of the plan."""
    tables: dict[str, list[pd.DataFrame]] = {}
    infos: list[TrialInfo] = []
    files: dict[str, Path] = {}
    planned: dict[str, int] = {}
    absent: dict[str, int] = {}
    for index, trial in enumerate(plan.trials):
        name = trial.measurement.name
        planned[name] = planned.get(name, 0) + 1
        kept = found.get(index)
        if kept is None:
            absent[name] = absent.get(name, 0) + 1
            continue
        tables.setdefault(name, []).append(pd.read_parquet(io.BytesIO(kept.rows())))
        for file, path in kept.files().items():
            saved, _, inner = file.partition("/")
            key = saved_key(name, trial.cell, trial.seed, saved)
            files[f"{key}/{inner}" if inner else key] = path
        infos.append(
            TrialInfo(
                name,
                dict(trial.cell),
                trial.seed,
                kept.path.name,
                kept.seconds,
                reused=driver is None or index not in driver.fresh,
                spot_checked=bool(kept.about["spot_checked"]),
                environment=kept.about["environment"],
            )
        )
    unavailable = dict(plan.left_out)
    failures: list[Failure] = []
    if driver is not None:
        for index, why in sorted(driver.unavailable.items()):
            unavailable.setdefault(plan.trials[index].measurement.name, why)
        failures = [failure for _, failure in sorted(driver.failures.items())]
    failed = {failure.measurement for failure in failures}
    for name, count in absent.items():
        if name not in unavailable and name not in failed:
            missing = f"{count} of {planned[name]} trials of {name} are not in the store"
            unavailable[name] = f"{missing}. Measure them with: etude run {plan.study.name}"
    order = sorted(tables, key=list(plan.study.measurements).index)
    return Evidence(
        study=plan.study.name,
        preset=preset,
        config=plan.config,
        tables={name: pd.concat(tables[name], ignore_index=True) for name in order},
        unavailable=unavailable,
        failures=tuple(failures),
        trials=tuple(infos),
        planned=planned,
        environment=_together([info.environment for info in infos]) or environment(),
        files=files,
    )


def _together(environments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One environment for all trials; where they differ, every value that occurred."""
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for one in environments for name in one):
        values = list(dict.fromkeys(one.get(name) for one in environments))
        merged[name] = values[0] if len(values) == 1 else " and ".join(map(str, values))
    return merged


def refresh(
    study: Study[C],
    config: C | str | None = None,
    *,
    store: Path | str | None = None,
    engine: str = "local",
    device: str = "cpu",
    progress: bool | None = None,
) -> list[Refreshed]:
    """Carry stored trials over a change of code that changes no result.

    For every cell whose trials were measured by other code, the lowest stale seed is measured again. If its rows
    (without the volatile columns) and files are bit-identical, the cell's other trials are kept under the new code,
    marked as spot-checked; otherwise they stay stale and the next run measures them.

    Returns:
        One entry a stale cell.
    """
    chosen, label = study.resolve(config)
    kept = Store(store)
    results: list[Refreshed] = []
    with display(progress) as show, kept.lock(study.name):
        plan = Plan(study, chosen, label, kept, device=device, notice=show.notice)
        stale: dict[tuple[str, str], dict[int, Stored]] = {}
        for index, trial in enumerate(plan.trials):
            if plan.find(trial) is None and (old := kept.stale_trials(trial.address, plan.value, show.notice)):
                stale.setdefault((trial.measurement.name, _cell(trial.cell)), {})[index] = old[0]
        checks = {min(cell): plan.trials[min(cell)] for cell in stale.values()}
        if not checks:
            return []
        plan.keep_code()
        show.begin(len(checks), 0)
        with choose_engine(engine, None)() as ready:
            driver = Driver(plan, ready, show)
            driver.run(checks)
        for cell in stale.values():
            index = min(cell)
            trial = plan.trials[index]
            name, new = trial.measurement.name, driver.found.get(index)
            if new is None:
                why = driver.failures[index].error if index in driver.failures else driver.unavailable.get(index, "")
                results.append(Refreshed(name, trial.cell, len(cell), "failed", why))
            elif not identical(cell[index], new, trial.measurement.volatile):
                results.append(Refreshed(name, trial.cell, len(cell), "changed"))
            else:
                for other, measured in cell.items():
                    if other != index:
                        about = {key: value for key, value in measured.about.items() if key != "files"}
                        about |= {"code": trial.address.code, "spot_checked": True}
                        files = {file: path.read_bytes() for file, path in measured.files().items()}
                        kept.put_trial(plan.trials[other].address, about, measured.rows(), files)
                results.append(Refreshed(name, trial.cell, len(cell), "carried"))
    return results


def identical(one: Stored, other: Stored, volatile: Sequence[str]) -> bool:
    """Whether two trials recorded the same, bit for bit, leaving volatile columns out."""
    tables = [
        pd.read_parquet(io.BytesIO(trial.rows())).drop(columns=list(volatile), errors="ignore")
        for trial in (one, other)
    ]
    contents = [{name: path.read_bytes() for name, path in trial.files().items()} for trial in (one, other)]
    return tables[0].equals(tables[1]) and contents[0] == contents[1]


def _chosen(study: Study[Any], only: str | Sequence[str] | None) -> set[str]:
    if only is None:
        return set(study.measurements)
    names = [only] if isinstance(only, str) else list(only)
    for name in names:
        if name not in study.measurements:
            raise ConfigError(
                f"only: study {study.name} has no measurement '{name}'.{suggest(name, study.measurements)} "
                f"Its measurements are: {', '.join(study.measurements)}."
            )
    return set(names)


def _require(extras: Sequence[str]) -> None:
    """Raise MissingExtra, before any work, where a package of an extra is not installed."""
    from packaging.requirements import Requirement

    requirements = [Requirement(text) for text in importlib.metadata.requires("etude") or []]
    for extra in extras:
        of_extra = [
            r
            for r in requirements
            if r.marker and not r.marker.evaluate({"extra": ""}) and r.marker.evaluate({"extra": extra})
        ]
        for requirement in of_extra:
            try:
                importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                raise MissingExtra(
                    f"the study needs {requirement.name}, which is not installed",
                    f'Install it with: pip install "etude[{extra}]"',
                ) from None


def _cell(cell: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in cell.items()) or "-"


def _label(task: Task) -> str:
    cell = "" if not task.cell else f" ({_cell(task.cell)})"
    return f"{task.measurement}{cell} seed {task.seed}"
