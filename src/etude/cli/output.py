"""How commands print: plain text, JSON, and what rich draws."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def as_json(value: Any) -> str:
    """JSON text of dataclasses, mappings, sequences and scalars; a number that is not finite becomes null."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    return str(value)


def width() -> int:
    """Columns to write to: the terminal's, or 100 where there is none."""
    return min(shutil.get_terminal_size((100, 24)).columns, 120)


def bold(text: str) -> str:
    """Bold on a terminal, plain elsewhere."""
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def columns(rows: Iterable[Sequence[str]], indent: int = 2) -> str:
    """Rows of words under each other; the last column is wrapped to the width."""
    rows = [list(row) for row in rows]
    if not rows:
        return ""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        start = " " * indent + "".join(f"{cell:<{size}}  " for cell, size in zip(row, widths))
        lines.append(paragraph(row[-1], start).rstrip())
    return "\n".join(lines)


def paragraph(text: str, start: str = "", hanging: int | None = None) -> str:
    """Text wrapped to the width, its first line behind `start` and the others `hanging` columns in."""
    hanging = len(start) if hanging is None else hanging
    room = max(width(), hanging + 30)
    first, later = start, " " * hanging
    lines = textwrap.wrap(
        text, room, initial_indent=first, subsequent_indent=later, break_on_hyphens=False, break_long_words=False
    )
    return "\n".join(lines) or start


def draw(renderable: Any) -> None:
    """Print what rich draws: with colour on a terminal, as plain text elsewhere."""
    from rich.console import Console

    if sys.stdout.isatty():
        Console(highlight=False).print(renderable)
        return
    console = Console(width=width(), highlight=False, no_color=True, force_terminal=False)
    with console.capture() as captured:
        console.print(renderable)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def note(text: str) -> None:
    """Say something beside the result, on the standard error."""
    print(text, file=sys.stderr)


def size(count: float) -> str:
    """A number of bytes as people write it."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        units.pop(0)
    return f"{count:.0f} {units[0]}" if units[0] == "bytes" or count >= 100 else f"{count:.1f} {units[0]}"


def nearby(path: Path) -> str:
    """A path as seen from here where it lies below, else whole."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
