"""Evidence: what a run measured, as tables whose numbers stay tied to their unit.

A measurement's `Table` holds one row a record. `Table.per` names the unit (the seed, an item, a seed and an item)
and gives one number a unit: a `Quantity`. Two quantities pair by unit when they meet in arithmetic. Several rows a
unit, or a unit without its partner, is an error and never an average.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from etude.errors import Unavailable, suggest
from etude.study.rules import Untested, format_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from etude.study.definition import Config, Measurement

    _Series = pd.Series[Any]
else:
    _Series = pd.Series

C = TypeVar("C", bound="Config")

_SHOWN = 8


@dataclass(frozen=True)
class near:
    """A condition for `Table.at`: ``abs(x - value) <= within``.

    Args:
        value: the number looked for.
        within: the greatest distance accepted, at least 0.

    Raises:
        ValueError: if `within` is negative, or a number is not finite.
    """

    value: float
    within: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and math.isfinite(self.within) and self.within >= 0):
            raise ValueError(f"near: {self} was given; finite numbers with within >= 0 are accepted")


class Quantity(_Series):
    """One value a unit: a pandas Series indexed by the unit.

    Arithmetic, comparisons and numpy functions between two quantities (or a quantity and a Series) pair them by
    unit. Everything else is pandas.

    Raises:
        ValueError: if the two are indexed by different units, a unit has no partner, or a unit occurs twice.
    """

    @property
    def _constructor(self) -> Callable[..., Quantity]:
        return Quantity

    # The stubs call this final, though pandas itself documents it as the place to hook into numpy functions.
    def __array_ufunc__(  # type: ignore[override, misc]
        self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any
    ) -> Any:
        paired = [_paired(self, value) if isinstance(value, pd.Series) else value for value in inputs]
        return super().__array_ufunc__(ufunc, method, *paired, **kwargs)


def _operator(name: str) -> Callable[[Quantity, Any], Any]:
    inherited = getattr(pd.Series, name)

    def operate(self: Quantity, other: Any) -> Any:
        return inherited(self, _paired(self, other) if isinstance(other, pd.Series) else other)

    operate.__name__ = name
    return operate


# Reflected operators too: Series - Quantity would otherwise fill units without a partner with NaN.
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor"):
    setattr(Quantity, f"__{_name}__", _operator(f"__{_name}__"))
    setattr(Quantity, f"__r{_name}__", _operator(f"__r{_name}__"))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Quantity, f"__{_name}__", _operator(f"__{_name}__"))


def _paired(left: pd.Series[Any], right: pd.Series[Any]) -> pd.Series[Any]:
    """`right` in the order of `left`'s units, once both are known to have the same ones."""
    if left is right or left.index is right.index:
        return right
    if list(left.index.names) != list(right.index.names):
        raise ValueError(
            f"quantities of different units cannot be paired: one number a {_unit(left.index.names)} on the left, "
            f"one a {_unit(right.index.names)} on the right"
        )
    for side, index in (("left", left.index), ("right", right.index)):
        if not index.is_unique:
            twice = _listed(index[index.duplicated()].unique())
            raise ValueError(f"{_unit(index.names)} occurs more than once on the {side}: {twice}")
    alone = {"left": left.index.difference(right.index), "right": right.index.difference(left.index)}
    if any(len(index) for index in alone.values()):
        where = "; ".join(f"only on the {side}: {_listed(index)}" for side, index in alone.items() if len(index))
        raise ValueError(f"{_unit(left.index.names)} without a partner, {where}")
    return right.reindex(left.index)


class Table:
    """Rows of a measurement; an immutable view on a pandas frame.

    Args:
        frame: one row a record, with the cell's keywords and the seed as columns.

    Raises:
        TypeError: if `frame` is not a DataFrame.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        if not isinstance(frame, pd.DataFrame):
            raise TypeError(f"frame: a {type(frame).__name__} was given; a pandas DataFrame is accepted")
        self._frame = frame

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a pandas frame of their own: columns added to it do not reach this table."""
        return self._frame.copy(deep=False)

    def at(self, **where: Any) -> Table:
        """The rows that meet every condition.

        Args:
            where: for each named column a value it equals, a collection of accepted values, or `near`; None or NaN
                stands for a missing value.

        Raises:
            KeyError: if there is no such column.
            TypeError: if `near` is asked of a column that holds no numbers.
            Unavailable: if no row is left.
        """
        self._require(*where)
        frame = self._frame
        for column, condition in where.items():
            kept = frame[_meets(frame[column], condition)]
            if kept.empty:
                present = _present(frame[column], condition)
                raise Unavailable(
                    f"no row with {column} = {_condition(condition)} among {len(frame)} rows (present: {present})",
                    "Measure it with another preset or configuration, or correct the condition",
                )
            frame = kept
        return Table(frame)

    def per(self, *unit: str) -> Rows:
        """The rows grouped by unit, to be read as one value a unit.

        Args:
            unit: columns that together name a unit, such as "seed" or "seed", "item".

        Raises:
            KeyError: if there is no such column.
            ValueError: if no column is named, or a row lacks its unit.
        """
        if not unit:
            raise ValueError("per: no column was named; name the columns of the unit, such as per('seed')")
        self._require(*unit)
        for column in unit:
            if self._frame[column].isna().any():
                raise ValueError(f"per: some rows have no {column}; narrow the table with at(...) first")
        return Rows(self, unit)

    def __getitem__(self, column: str) -> Quantity:
        """One value a seed: ``table.per("seed")[column]``."""
        return self.per("seed")[column]

    def split(self, column: str) -> list[tuple[Any, Table]]:
        """A table for each value of a column: numbers in ascending order, other values as they first appear.

        Raises:
            KeyError: if there is no such column.
        """
        self._require(column)
        values = self._frame[column]
        ascending = is_numeric_dtype(values) and not is_bool_dtype(values)
        groups = self._frame.groupby(column, sort=ascending, dropna=False)
        return [(value, Table(rows)) for value, rows in groups]

    def curve(self, x: str, y: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """The mean of y at each x, for a figure: rows of a seed first, then seeds.

        Args:
            x: column of the horizontal axis.
            y: column to average; a missing value makes the mean there NaN.

        Returns:
            The distinct x in ascending order and the mean y, both of shape (points,).

        Raises:
            KeyError: if there is no such column.
        """
        self._require(x, y)
        if "seed" in self._frame and x != "seed":
            means = self._frame.groupby([x, "seed"])[y].agg(_mean).groupby(level=0).agg(_mean)
        else:
            means = self._frame.groupby(x)[y].agg(_mean)
        return means.index.to_numpy(), means.to_numpy(dtype=np.float64)

    def __len__(self) -> int:
        return len(self._frame)

    def __repr__(self) -> str:
        return f"{self._frame.to_string(max_rows=10, index=False)}\n{self._size()}"

    def _repr_html_(self) -> str:
        return f"{self._frame.to_html(max_rows=10, index=False)}<p>{self._size()}</p>"

    def _size(self) -> str:
        return f"{len(self._frame)} rows, {self._frame.shape[1]} columns"

    def _require(self, *columns: str) -> None:
        known = list(map(str, self._frame.columns))
        for column in columns:
            if column not in self._frame.columns:
                hint = suggest(str(column), known)
                raise KeyError(f"no column '{column}'.{hint} The columns are: {', '.join(known)}")


class Rows:
    """The rows of a table grouped by unit (`Table.per`): read a column, or reduce to one number a unit."""

    def __init__(self, table: Table, unit: tuple[str, ...]) -> None:
        self._table, self._unit = table, unit

    def __getitem__(self, column: str) -> Quantity:
        """The column as one value a unit.

        Raises:
            KeyError: if there is no such column.
            ValueError: if a unit has several rows; the message names it and the columns that still vary.
        """
        self._table._require(column)
        frame = self._table._frame
        several = frame[frame.duplicated(list(self._unit), keep=False)]
        if not several.empty:
            first = several.iloc[0]
            rows = several[(several[list(self._unit)] == first[list(self._unit)]).all(axis=1)]
            name = ", ".join(f"{key} = {first[key]}" for key in self._unit)
            vary = [key for key in rows.columns if key != column and rows[key].nunique(dropna=False) > 1]
            raise ValueError(
                f"{len(rows)} rows for {name}"
                + (f"; these columns still vary: {', '.join(vary)}. " if vary else ". ")
                + f"Narrow the table with at(...), name more columns in per(...), or reduce with .mean('{column}')"
            )
        return Quantity(frame.set_index(list(self._unit))[column].sort_index())

    def mean(self, column: str) -> Quantity:
        """The mean of a column over the rows of each unit; a missing value makes the unit's mean NaN.

        Raises:
            KeyError: if there is no such column.
        """
        self._table._require(column)
        return self.apply(lambda rows: _mean(rows[column])).rename(column)

    def apply(self, function: Callable[[pd.DataFrame], float]) -> Quantity:
        """A number computed from the rows of each unit.

        Args:
            function: takes the unit's rows as a frame and returns one number.

        Raises:
            TypeError: if the function returns something else.
        """
        numbers, units = [], []
        for unit, rows in self._table._frame.groupby(list(self._unit), sort=True):
            number = function(rows)
            if not np.isscalar(number) or isinstance(number, (str, bytes)):
                raise TypeError(f"function: it returned a {type(number).__name__}; one number a unit is accepted")
            numbers.append(number)
            units.append(unit)
        index = pd.MultiIndex.from_tuples(units, names=self._unit)
        return Quantity(numbers, index=index.get_level_values(0) if len(self._unit) == 1 else index)


@dataclass(frozen=True)
class Failure:
    """A trial that raised.

    Args:
        measurement: its measurement.
        cell: its cell's keywords.
        seed: its seed.
        error: the exception's type and message.
        log: the traceback and what the trial printed.
    """

    measurement: str
    cell: dict[str, Any]
    seed: int
    error: str
    log: str


@dataclass(frozen=True)
class TrialInfo:
    """Where a trial's rows come from.

    Args:
        measurement: its measurement.
        cell: its cell's keywords.
        seed: its seed.
        key: the key it is stored under.
        seconds: how long it ran.
        reused: True if it was in the store.
        spot_checked: True if it was carried over because another trial of its cell came out bit-identical.
        environment: versions and hardware it ran with.
    """

    measurement: str
    cell: dict[str, Any]
    seed: int
    key: str
    seconds: float
    reused: bool
    spot_checked: bool
    environment: dict[str, Any]


@dataclass(frozen=True, eq=False, repr=False)
class Evidence(Generic[C]):
    """What a run of a study measured.

    Args:
        study: the study's name.
        preset: the preset's name, None for a configuration of the user's own.
        config: the configuration.
        tables: one frame a measurement, one row a record.
        unavailable: measurements that could not run here, with what is missing and the remedy.
        failures: trials that raised.
        trials: trials that succeeded.
        planned: number of trials planned for each measurement.
        environment: versions and hardware of the run.
        files: what was saved, by `saved_key`; a value of several files has one entry a file, "KEY/FILE".
        looks: how many times its run may be judged before it ends; each time, a claim has alpha / looks.
    """

    study: str
    preset: str | None
    config: C
    tables: Mapping[str, pd.DataFrame]
    unavailable: Mapping[str, str] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    trials: tuple[TrialInfo, ...] = ()
    planned: Mapping[str, int] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    looks: int = 1

    def __getitem__(self, measurement: Measurement[C] | str) -> Table:
        """The rows of a measurement.

        Raises:
            KeyError: if the study has no such measurement.
            Unavailable: if it could not run here, or nothing was recorded.
            Untested: if some of its trials failed.
        """
        name = self._whole(measurement)
        frame = self.tables.get(name)
        if frame is None or frame.empty:
            raise Unavailable(
                f"the measurement '{name}' has recorded nothing", "Run the study with this measurement included"
            )
        return Table(frame)

    def saved(self, measurement: Measurement[C] | str, name: str, *, seed: int = 0, **cell: Any) -> Any:
        """A value that a trial kept with `lab.save`.

        Args:
            measurement: the trial's measurement.
            name: the name it was saved under.
            seed: the trial's seed.
            cell: the trial's cell keywords, all of them.

        Returns:
            The value; text and bytes come back as bytes.

        Raises:
            KeyError: if nothing of that name was saved there.
            Unavailable: if the measurement could not run here.
            Untested: if some of its trials failed.
        """
        from etude.study.serialization import decode

        key = saved_key(self._whole(measurement), cell, seed, name)
        if key in self.files:
            return self.files[key].read_bytes()
        parts = {
            file.removeprefix(f"{key}/"): path.read_bytes()
            for file, path in self.files.items()
            if file.startswith(f"{key}/")
        }
        if not parts:
            hint = suggest(key, self.files)
            raise KeyError(f"nothing is saved as '{key}'.{hint} {len(self.files)} files are saved in this run")
        return decode(parts)

    def _whole(self, measurement: Measurement[C] | str) -> str:
        """The measurement's name, once it is known that nothing of it is missing."""
        name = measurement if isinstance(measurement, str) else getattr(measurement, "name", None)
        if not isinstance(name, str):
            raise TypeError(
                f"measurement: a {type(measurement).__name__} was given; a measurement or its name is accepted"
            )
        failed = [failure for failure in self.failures if failure.measurement == name]
        if failed:
            total = self.planned.get(name, len(failed) + sum(trial.measurement == name for trial in self.trials))
            error = failed[0].error.strip().partition("\n")[0]
            raise Untested(f"{len(failed)} of {total} trials failed: {error}")
        if name in self.unavailable:
            what, _, remedy = self.unavailable[name].rstrip(".").rpartition(". ")
            raise Unavailable(what or remedy, remedy if what else f"Then run '{name}' again")
        if name not in self.tables and name not in self.planned:
            known = self._names()
            raise KeyError(f"no measurement '{name}'.{suggest(name, known)} There are: {', '.join(known) or 'none'}")
        return name

    def _names(self) -> list[str]:
        failed = [failure.measurement for failure in self.failures]
        return list(dict.fromkeys([*self.planned, *self.tables, *self.unavailable, *failed]))

    def _overview(self) -> tuple[str, list[list[str]], list[str]]:
        """A heading, a table of the measurements (header first) and notes on what is not there."""
        preset = f"preset '{self.preset}'" if self.preset else "a configuration of its own"
        lines, notes = [["measurement", "rows", "seeds", "trials"]], []
        for name in self._names():
            frame = self.tables.get(name, pd.DataFrame())
            done = sum(trial.measurement == name for trial in self.trials)
            failed = [failure for failure in self.failures if failure.measurement == name]
            seeds = str(frame["seed"].nunique()) if "seed" in frame else "-"
            planned = f"{done} of {self.planned[name]}" if name in self.planned else str(done)
            lines.append([name, str(len(frame)), seeds, planned])
            if name in self.unavailable:
                notes.append(f"{name} is unavailable: {self.unavailable[name]}")
            if failed:
                notes.append(f"{name}: {len(failed)} failed, first with {failed[0].error.strip().splitlines()[0]}")
        return f"Evidence of '{self.study}' at {preset}", lines, notes

    def __repr__(self) -> str:
        heading, lines, notes = self._overview()
        widths = [max(map(len, column)) for column in zip(*lines)]
        rows = [
            "  ".join([line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:]))])
            for line in lines
        ]
        return "\n".join([heading, *rows, *notes])

    def _repr_html_(self) -> str:
        heading, lines, notes = self._overview()
        head, *body = (
            "<tr>" + "".join(f"<{cell}>{html.escape(text)}</{cell}>" for text in line) + "</tr>"
            for line, cell in zip(lines, ["th"] + ["td"] * len(lines))
        )
        return (
            f"<p>{html.escape(heading)}</p><table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"
            + "".join(f"<p>{html.escape(note)}</p>" for note in notes)
        )


def saved_key(measurement: str, cell: Mapping[str, Any], seed: int, name: str) -> str:
    """The name under which `Evidence.files` holds a saved value: "prune/rate=0.2/3/mask".

    Args:
        measurement: the trial's measurement.
        cell: its cell's keywords, in any order.
        seed: its seed.
        name: the name it was saved under.
    """
    return "/".join([measurement, *(f"{key}={cell[key]}" for key in sorted(cell)), str(seed), name])


def _meets(values: pd.Series[Any], condition: Any) -> pd.Series[bool]:
    if isinstance(condition, near):
        if not is_numeric_dtype(values):
            raise TypeError(
                f"{values.name}: near(...) was given for a column of {values.dtype}, which holds no numbers"
            )
        return (values - condition.value).abs() <= condition.within
    if _is_collection(condition):
        members = list(condition)
        kept = values.isin([member for member in members if not isinstance(member, near)])
        for member in members:
            if isinstance(member, near):
                kept |= _meets(values, member)
        return kept
    if condition is None or (isinstance(condition, float) and math.isnan(condition)):
        return values.isna()
    return cast("pd.Series[bool]", values == condition)


def _is_collection(condition: Any) -> bool:
    return isinstance(condition, (Collection, np.ndarray, pd.Series)) and not isinstance(condition, (str, bytes))


def _condition(condition: Any) -> str:
    if _is_collection(condition):
        return f"one of {_listed(condition)}"
    return repr(condition)


def _present(values: pd.Series[Any], condition: Any) -> str:
    """The values a column does hold, those nearest to what was asked for first in line."""
    distinct = values.drop_duplicates()
    if isinstance(condition, near):
        nearest = (distinct - condition.value).abs().sort_values().index[:_SHOWN]
        shown = ", ".join(format_number(float(value), 6) for value in sorted(distinct.loc[nearest]))
        return shown + (f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else "")
    hint = suggest(condition, map(str, distinct)) if isinstance(condition, str) else ""
    return _listed(distinct) + ("." + hint.rstrip("?.") + "?" if hint else "")


def _listed(values: Iterable[Any]) -> str:
    items = [repr(value.item() if isinstance(value, np.generic) else value) for value in values]
    return ", ".join(items[:_SHOWN]) + (f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")


def _unit(names: Iterable[Any]) -> str:
    return " and ".join("row" if name is None else str(name) for name in names)


def _mean(values: pd.Series[Any]) -> float:
    # pandas would leave missing values out; a mean over what happens to be there is not the mean.
    return float(np.mean(cast("pd.Series[float]", values).to_numpy(dtype=np.float64)))
