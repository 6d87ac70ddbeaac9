"""What a study is made of: paper, configuration, measurements, claims and figures."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import core_schema

from etude.errors import EtudeError, Unavailable, suggest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pydantic._internal._model_construction import ModelMetaclass

    from etude.study.evidence import Evidence
    from etude.study.lab import Lab
    from etude.study.report import Verdicts
    from etude.study.rules import Rule

else:
    ModelMetaclass = type(BaseModel)

T = TypeVar("T")
C = TypeVar("C", bound="Config")
Since = Literal["laptop", "extended", "paper"]
Scalar = str | int | float | bool | None

_FROM: dict[str, tuple[str, ...]] = {  # at which presets a measurement runs, by its `since`
    "laptop": (),
    "extended": ("smoke", "extended", "paper"),
    "paper": ("smoke", "paper"),
}


class ConfigError(EtudeError, ValueError):
    """A configuration field is unknown or its value is not of the declared kind."""


class _Explained(ModelMetaclass):
    """Turns pydantic's report into one sentence that names the field and what is accepted."""

    def __call__(cls, **values: Any) -> Any:
        try:
            return super().__call__(**values)
        except ValidationError as error:
            raise ConfigError(_describe(cast(type[BaseModel], cls), error)) from None


class Config(BaseModel, metaclass=_Explained):
    """The settings of a study: frozen, strictly typed, with no room for unknown fields.

    A study subclasses it; the docstring below a field is that field's help on the command line.

    Raises:
        ConfigError: an unknown field (naming the nearest one) or an ill-typed value.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, validate_default=True
    )

    seeds: int = Field(default=5, ge=1)
    """How many seeds each cell is measured with."""

    def updated(self: C, **changes: Any) -> C:
        """A copy with some fields changed, validated again."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | changes)


def _unknown(model: type[BaseModel], name: str) -> str:
    fields = list(model.model_fields)
    return f"{model.__name__} has no field '{name}'.{suggest(name, fields)} Its fields are: {', '.join(fields)}."


def _describe(model: type[BaseModel], error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(_unknown(model, where))
        else:
            lines.append(f"{model.__name__}.{where} = {problem.get('input')!r}: {problem['msg']}.")
    return " ".join(lines)


def plain(value: Any) -> Any:
    """A configuration value as plain JSON data; a `Reference` brings the key of the code it points to."""
    if isinstance(value, Reference):
        from etude.study.code_key import code_key

        return {"reference": value.address, "code": code_key(value.address)}
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=repr)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Path):  # a changed file or folder is another value, though its name is the same
        files = sorted(value.rglob("*")) if value.is_dir() else [value] if value.exists() else []
        stamps = [(str(file), stat.st_size, stat.st_mtime_ns) for file in files if (stat := file.stat())]
        return {"path": str(value), "files": stamps and hashlib.sha256(repr(stamps).encode()).hexdigest()}
    raise ConfigError(
        f"A configuration field holds a {type(value).__name__}, which cannot be part of a trial's key. "
        "Use numbers, strings, tuples, nested models or a Reference."
    )


def watched(config: C, reads: set[str]) -> C:
    """The same configuration, adding to `reads` the name of every field that is looked at.

    Whatever looks at the whole (a dump, a comparison, a hash) counts as reading every field.
    """
    kind = type(config)
    fields = frozenset(kind.model_fields)
    whole = {"__dict__", "__iter__", "updated", "model_copy", "model_dump", "model_dump_json", "model_fields_set"}

    def __getattribute__(self: Any, name: str) -> Any:
        if name in fields:
            reads.add(name)
        elif name in whole:
            reads.update(fields)
        return kind.__getattribute__(self, name)

    def __eq__(self: Any, other: object) -> bool:
        reads.update(fields)
        return isinstance(other, kind) and all(getattr(self, name) == getattr(other, name) for name in fields)

    watcher = type(
        kind.__name__,
        (kind,),
        {
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
            "__getattribute__": __getattribute__,
            "__eq__": __eq__,
            "__hash__": kind.__hash__,
            "model_config": ConfigDict(use_attribute_docstrings=False),
        },
    )
    copy = watcher.model_construct(**{name: getattr(config, name) for name in fields})  # type: ignore[attr-defined]
    reads.clear()
    return cast(C, copy)


class Reference(Generic[T]):
    """A user's own model, data or function, named in a configuration as ``package.module:name``.

    It is checked without running any of its code, resolved when a trial asks for it, and its code is part of the
    trial's key.

    Args:
        address: ``package.module:name``.

    Raises:
        ValueError: not of that form, no such module, or no such name in it.
    """

    def __init__(self, address: str) -> None:
        from etude.study.code_key import code_key

        if not isinstance(address, str) or address.count(":") != 1:
            raise ValueError(f"a reference is written 'package.module:name', not {address!r}")
        code_key(address)  # refuses what does not exist
        self.address = address

    def resolve(self) -> T:
        """Import the module and return the named object."""
        module, _, name = self.address.partition(":")
        __import__(module)
        return cast(T, getattr(sys.modules[module], name))

    def __repr__(self) -> str:
        return f"Reference({self.address!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and other.address == self.address

    def __hash__(self) -> int:
        return hash(self.address)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        def check(value: Any) -> Reference[Any]:
            return value if isinstance(value, Reference) else Reference(value)

        return core_schema.no_info_plain_validator_function(
            check, serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.address)
        )


@dataclass(frozen=True)
class Paper:
    """The paper a study is about."""

    title: str
    authors: str
    year: int
    arxiv: str
    venue: str = ""

    @property
    def url(self) -> str:
        """Address of the abstract."""
        return f"https://arxiv.org/abs/{self.arxiv}"


def grid(**axes: Sequence[Any]) -> list[dict[str, Any]]:
    """Every combination of the axes' values, the last axis varying fastest: the cells of a measurement."""
    return [dict(zip(axes, values)) for values in itertools.product(*axes.values())]


@dataclass(frozen=True, eq=False)
class Measurement(Generic[C]):
    """A function that records rows, run once per cell and seed."""

    name: str
    function: Callable[..., None]
    address: str
    over: Callable[[C], list[dict[str, Any]]] | None = None
    seeds: int | None = None
    since: Since = "laptop"
    threads: int = 1
    memory: int | None = None
    gpus: int = 0
    exclusive: bool = False
    volatile: tuple[str, ...] = ()

    def __call__(self, lab: Lab, config: C, **cell: Any) -> None:
        """Run the function itself, with no store and no key."""
        self.function(lab, config, **cell)

    @property
    def doc(self) -> str:
        """The function's docstring."""
        return inspect.getdoc(self.function) or ""

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the cell's keywords."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)

    def runs_at(self, preset: str | None) -> bool:
        """Whether this measurement is part of the preset; a configuration of no preset counts as `laptop`."""
        return self.since == "laptop" or preset in _FROM[self.since]

    def cells(self, config: C) -> list[dict[str, Scalar]]:
        """The cells for a configuration.

        Raises:
            ValueError: a cell whose keywords are not the function's, whose values are not scalars, or one given twice.
        """
        cells = [{}] if self.over is None else [dict(cell) for cell in self.over(config)]
        for cell in cells:
            if set(cell) != set(self.axes):
                raise ValueError(
                    f"measurement {self.name}: a cell has the keys {sorted(cell)}, but the function takes "
                    f"{sorted(self.axes)} (keyword-only, after the star)"
                )
            for key, value in cell.items():
                if not (value is None or isinstance(value, (str, int, float, bool))):
                    raise ValueError(
                        f"measurement {self.name}: cell value {key}={value!r} is a {type(value).__name__}; "
                        "cells hold strings, numbers and booleans"
                    )
        if len({repr(sorted(cell.items())) for cell in cells}) < len(cells):
            raise ValueError(f"measurement {self.name}: `over` gives the same cell twice")
        return cells


@dataclass(frozen=True, eq=False)
class Claim(Generic[C]):
    """A statement with the rule that decides it."""

    name: str
    statement: str
    reported: str
    rule: Callable[[Evidence[C]], Rule]
    deviation: str = ""
    when: Callable[[C], bool | str] | None = None

    def __call__(self, evidence: Evidence[C]) -> Rule:
        """The rule for this evidence, without regard to `when`."""
        return self.rule(evidence)


@dataclass(eq=False)
class Study(Generic[C]):
    """One paper's experiment: presets, measurements, claims and figures.

    Args:
        paper: what is studied.
        topic: the field, one lower-case word or two.
        presets: named configurations, all of one class. `laptop` is the default one; a study ships `smoke`,
            `laptop`, `extended` and `paper`.
        extras: étude's optional dependencies that the study needs.

    Raises:
        ValueError: no presets, or presets of several classes.
    """

    paper: Paper
    topic: str
    presets: Mapping[str, C]
    extras: tuple[str, ...] = ()
    measurements: dict[str, Measurement[C]] = field(default_factory=dict, init=False)
    claims: dict[str, Claim[C]] = field(default_factory=dict, init=False)
    figures: list[Callable[..., None]] = field(default_factory=list, init=False)

    def __init__(self, *, paper: Paper, topic: str, presets: Mapping[str, C], extras: tuple[str, ...] = ()) -> None:
        if not presets:
            raise ValueError("presets: a study needs at least one, named 'laptop'")
        if len({type(config) for config in presets.values()}) > 1:
            raise ValueError("presets: all must be of one Config class")
        self.paper, self.topic, self.presets, self.extras = paper, topic, dict(presets), tuple(extras)
        self.measurements, self.claims, self.figures = {}, {}, []
        home = sys._getframe(1).f_globals
        self.path = Path(home["__file__"]).resolve() if home.get("__file__") else None
        self.module: str = home["__name__"]
        if self.module == "__main__" and self.path is not None:
            self.module = self.path.stem
        self._home = home

    @property
    def name(self) -> str:
        """The study's name on the command line: the file's stem, with dashes."""
        return self.module.rpartition(".")[2].replace("_", "-")

    @property
    def doc(self) -> str:
        """The study file's docstring."""
        return inspect.cleandoc(self._home.get("__doc__") or "")

    @property
    def question(self) -> str:
        """The docstring's first line."""
        return self.doc.partition("\n")[0]

    @property
    def default(self) -> str:
        """The preset used where none is named."""
        return "laptop" if "laptop" in self.presets else next(iter(self.presets))

    def measure(
        self,
        *,
        over: Callable[[C], list[dict[str, Any]]] | None = None,
        seeds: int | None = None,
        since: Since = "laptop",
        threads: int = 1,
        memory: str | None = None,
        gpus: int = 0,
        exclusive: bool = False,
        volatile: Sequence[str] = (),
    ) -> Callable[[Callable[..., None]], Measurement[C]]:
        """Declare a measurement: ``def name(lab, config, *, cell keywords) -> None``.

        Args:
            over: the cells, given the configuration; by default one cell without keywords.
            seeds: how many seeds instead of the configuration's (1 where the replication is in the rows).
            since: the smallest preset it belongs to; `smoke` runs every measurement.
            threads: processor threads of a trial.
            memory: what a trial needs, such as ``"2GB"``.
            gpus: GPUs a trial needs.
            exclusive: nothing else of the run is on the machine meanwhile (for timing).
            volatile: recorded columns, such as seconds, that may differ between identical trials.

        Raises:
            ValueError: an option out of range, or a cell keyword that shadows a name of the module.
        """
        if since not in _FROM:
            raise ValueError(f"since={since!r}: give 'laptop', 'extended' or 'paper'")
        if threads < 1 or gpus < 0 or (seeds is not None and seeds < 1):
            raise ValueError(
                f"threads={threads}, gpus={gpus}, seeds={seeds}: threads and seeds at least 1, gpus at least 0"
            )
        size = _bytes(memory)

        def declare(function: Callable[..., None]) -> Measurement[C]:
            name = function.__name__
            self._unique(name, self.measurements)
            measurement = Measurement[C](
                name,
                function,
                f"{self.module}:{name}",
                over,
                seeds,
                since,
                threads,
                size,
                gpus,
                exclusive,
                tuple(volatile),
            )
            positional = [
                p for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD
            ]
            if len(positional) != 2:
                raise ValueError(f"measurement {name}: its signature is (lab, config, *, cell keywords)")
            for axis in measurement.axes:
                if axis in function.__globals__ or axis == "seed":
                    raise ValueError(
                        f"measurement {name}: the cell keyword '{axis}' shadows a name of the module or 'seed'; "
                        "rename it (plural function, singular cell)"
                    )
            self.measurements[name] = measurement
            return measurement

        return declare

    def claim(
        self, *, reported: str, deviation: str = "", when: Callable[[C], bool | str] | None = None
    ) -> Callable[[Callable[[Evidence[C]], Rule]], Claim[C]]:
        """Declare a claim: ``def name(evidence) -> Rule`` with the statement as its docstring.

        Args:
            reported: the paper's value.
            deviation: how this measurement departs from the paper's.
            when: given the configuration, whether it can decide the claim; a string is the reason why not.

        Raises:
            ValueError: no docstring, or a name used twice.
        """

        def declare(function: Callable[[Evidence[C]], Rule]) -> Claim[C]:
            name = function.__name__.replace("_", "-")
            self._unique(name, self.claims)
            statement = " ".join((inspect.getdoc(function) or "").split())
            if not statement:
                raise ValueError(f"claim {name}: its docstring is its statement; write one")
            claim = Claim(name, statement, reported, function, deviation, when)
            self.claims[name] = claim
            return claim

        return declare

    def figure(self, function: Callable[[Evidence[C], Axes], None]) -> Callable[[Evidence[C], Axes], None]:
        """Declare a figure: ``def name(evidence, axes) -> None``, drawn in the order of declaration."""
        self.figures.append(function)
        return function

    def _unique(self, name: str, taken: Mapping[str, object]) -> None:
        if name in taken:
            raise ValueError(f"study {self.name}: the name '{name}' is used twice")

    def resolve(self, config: C | str | None = None, *, seeds: int | None = None) -> tuple[C, str | None]:
        """The configuration meant, and the shipped preset it equals (None for a customised one).

        Raises:
            ConfigError: an unknown preset.
            TypeError: a configuration of another class.
        """
        kind = type(next(iter(self.presets.values())))
        if config is None:
            config = self.default
        if isinstance(config, str):
            if config not in self.presets:
                raise ConfigError(
                    f"study {self.name} has no preset '{config}'.{suggest(config, self.presets)} "
                    f"Its presets are: {', '.join(self.presets)}."
                )
            label, chosen = config, self.presets[config]
        elif type(config) is kind:
            label, chosen = None, config
        else:
            raise TypeError(f"config: a preset's name or a {kind.__name__}, not a {type(config).__name__}")
        if seeds is not None and seeds != chosen.seeds:
            label, chosen = None, chosen.updated(seeds=seeds)
        if label is None:
            label = next((name for name, preset in self.presets.items() if preset == chosen), None)
        return chosen, label

    def run(
        self,
        config: C | str | None = None,
        *,
        seeds: int | None = None,
        engine: str = "local",
        only: str | Sequence[str] | None = None,
        store: Path | str | None = None,
        preset: str | None = None,
        workers: int | None = None,
        device: str = "cpu",
        until_decided: bool = False,
        alpha: float = 0.05,
        progress: bool | None = None,
    ) -> Evidence[C]:
        """Measure what the store does not hold yet and return all the evidence.

        Args:
            config: a preset's name or a configuration; the default preset if left out.
            seeds: instead of the configuration's.
            engine: ``"local"`` (worker processes), ``"ray"`` (a cluster) or ``"inline"`` (this process, for debugging).
            only: measurements to run; the others are left out.
            store: the folder results are kept in; by default `ETUDE_STORE` or the user's data folder.
            preset: which preset's measurements to run where `config` is a customised configuration.
            workers: how many trials at a time; by default as many as the machine's cores allow.
            device: ``"cpu"`` or a CUDA device for the trials.
            until_decided: add seeds (5, 10, 20) until no claim is undecided, each look at a third of alpha.
            alpha: with `until_decided`, the chance of a wrong decision that each claim is allowed, in (0, 1); give
                `judge` the same.
            progress: show progress; by default where there is a terminal or a notebook.

        Returns:
            The evidence, with what was unavailable and what failed.

        Raises:
            ConfigError: the configuration or a measurement's name is wrong.
            ValueError: alpha out of range.
            MissingExtra: an optional dependency of the study is not installed.
            Interrupted: Ctrl-C; what was finished is kept.
        """
        from etude.study import running
        from etude.study.statistics import check_alpha

        check_alpha(alpha)
        return running.run(
            self,
            config,
            seeds=seeds,
            engine=engine,
            only=only,
            store=store,
            preset=preset,
            workers=workers,
            device=device,
            until_decided=until_decided,
            alpha=alpha,
            progress=progress,
        )

    def stored(
        self,
        config: C | str | None = None,
        *,
        seeds: int | None = None,
        store: Path | str | None = None,
        preset: str | None = None,
        device: str = "cpu",
    ) -> Evidence[C]:
        """The evidence that the store holds for a configuration; nothing is run."""
        from etude.study import running

        return running.stored(self, config, seeds=seeds, store=store, preset=preset, device=device)

    def judge(self, evidence: Evidence[C], *, alpha: float = 0.05) -> Verdicts:
        """Judge every claim.

        Args:
            evidence: what `run` or `stored` returned.
            alpha: the chance of a wrong decision that each claim is allowed, in (0, 1); evidence that was looked at
                several times (`until_decided`) is judged at a share of it.

        Returns:
            One verdict a claim, in the order of declaration.

        Raises:
            ValueError: alpha out of range.
        """
        from etude.study.report import Verdicts
        from etude.study.rules import Untested, Verdict
        from etude.study.statistics import check_alpha

        check_alpha(alpha)
        verdicts = []
        for claim in self.claims.values():
            decidable = True if claim.when is None else claim.when(evidence.config)
            if decidable is not True:
                why = decidable if isinstance(decidable, str) else "this configuration cannot decide it"
                verdicts.append(Verdict(claim.name, "untested", (), why))
                continue
            try:
                verdicts.append(claim.rule(evidence).judge(claim.name, alpha / evidence.looks))
            except (Unavailable, Untested) as reason:
                verdicts.append(Verdict(claim.name, "untested", (), str(reason)))
            except Exception as error:  # a rule with a fault must not hide the other verdicts
                why = f"the rule raised {type(error).__name__}: {error}"
                verdicts.append(Verdict(claim.name, "untested", (), why, error=True))
        return Verdicts(verdicts, study=self, evidence=evidence)

    def __repr__(self) -> str:
        return f"<Study {self.name}: {len(self.measurements)} measurements, {len(self.claims)} claims>"


def _bytes(memory: str | None) -> int | None:
    if memory is None:
        return None
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    number, unit = memory[:-2].strip(), memory[-2:].upper()
    try:
        return int(float(number) * units[unit])
    except (KeyError, ValueError):
        raise ValueError(f"memory={memory!r}: write a number and a unit, such as '500MB' or '2GB'") from None
