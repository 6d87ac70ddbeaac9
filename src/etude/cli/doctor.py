"""`etude doctor`: what is installed, what this machine has, what is missing and how to get it."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from etude import __version__
from etude.cli.output import as_json, bold, columns, size

_OWN = "etude"


def doctor(options: argparse.Namespace) -> int:
    """Print versions, machine, store, extras and data sets. Nothing of it imports torch."""
    from etude.data import available
    from etude.sandbox import LEVELS, probe
    from etude.study.store import Store, StoreError, default_path

    required, extras = _requirements()
    try:
        store, problem = Store(options.store).path, ""
    except StoreError as error:
        store, problem = Path(options.store) if options.store else default_path(), str(error)
    found: dict[str, Any] = {
        "etude": __version__,
        "folder": Path(__file__).parent.parent,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "cores": _cores(),
        "memory": _memory(),
        "accelerators": _accelerators(),
        "packages": {name: _version(name) for name in required},
        "extras": {extra: {name: _version(name) for name in names} for extra, names in extras.items()},
        "store": store,
        "store_problem": problem,
        "free": _free(store),
        "language_models": _language_models(),
        "sandbox": [{**vars(level), "reached": not level.missing, "text": str(level)} for level in map(probe, LEVELS)],
        "data": [vars(status) for status in available()],
    }
    print(as_json(found) if options.json else "\n\n".join(_blocks(found)))
    return 0


def _blocks(found: dict[str, Any]) -> Iterator[str]:
    memory = size(found["memory"]) if found["memory"] else "unknown"
    free = f" ({size(found['free'])} free)" if found["free"] is not None else ""
    installed = ", ".join(f"{name} {version}" for name, version in found["packages"].items() if version)
    lacking = [name for name, version in found["packages"].items() if version is None]
    yield columns(
        [
            ("étude", f"{found['etude']} in {found['folder']}"),
            ("Python", f"{found['python']} on {found['system']}"),
            ("packages", installed or "unknown: étude runs from a folder and is not installed"),
            *([("missing", f"pip install {' '.join(lacking)}")] if lacking else []),
            ("machine", f"{found['cores']} cores, {memory} of memory"),
            ("accelerators", ", ".join(found["accelerators"]) or "none found"),
            *(("sandbox" if number == 0 else "", text) for number, text in enumerate(_sandboxes(found["sandbox"]))),
            ("store", found["store_problem"] or f"{found['store']}{free}"),
        ],
        indent=0,
    )
    rows = []
    for extra, packages in found["extras"].items():
        missing = [name for name, version in packages.items() if version is None]
        state = f'lacks {", ".join(missing)}: pip install "etude[{extra}]"' if missing else "installed"
        rows.append((extra, state))
    if rows:
        yield f"{bold('Extras')}\n{columns(rows)}"
    yield f"{bold('Language models')}\n{columns(list(found['language_models'].items()))}"
    rows = []
    for each in found["data"]:
        needs = each["needs"].rstrip(".")
        rows.append((each["name"], each["where"] if each["present"] else f"missing: {needs}."))
    yield f"{bold('Data sets')}\n{columns(rows)}"


def _language_models() -> dict[str, str]:
    """What a study's ``model`` can be here, and whether it is ready. No address is asked and no model loaded."""
    from etude.errors import MissingExtra
    from etude.language.endpoint import API_KEY, BASE_URL
    from etude.language.local import model_file

    here = "" if _version("xllamacpp") else 'lacks xllamacpp: pip install "etude[llm]"'
    try:
        embedded = here or str(model_file())
    except MissingExtra as missing:
        embedded = str(missing)
    lacks = [name for name in (BASE_URL, API_KEY) if not os.environ.get(name)]
    endpoint = f"set {' and '.join(lacks)}" if lacks else f"configured by {BASE_URL} and {API_KEY}"
    return {
        "local": embedded,
        "local:PATH": here or "any GGUF file",
        "endpoint:NAME": endpoint if _version("openai") else 'lacks openai: pip install "etude[llm]"',
        "recorded:PATH": "any recording",
    }


def _sandboxes(levels: list[dict[str, Any]]) -> list[str]:
    """The strongest level of isolation reached, after the reasons why those above it are not."""
    reached = [level["reached"] for level in levels]
    return [level["text"] for level in levels[: reached.index(True) + 1 if any(reached) else None]]


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """Names of the required distributions, and of those each extra adds, as the installed package declares them."""
    try:
        lines = metadata.requires(_OWN) or []
    except metadata.PackageNotFoundError:  # run from a source folder that was never installed
        return [], {}
    required: list[str] = []
    extras: dict[str, list[str]] = {}
    for line in lines:
        requirement, _, marker = line.partition(";")
        match = re.match(r"[A-Za-z0-9._-]+", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
        if match and match.group() != _OWN:
            (extras.setdefault(extra.group(1), []) if extra else required).append(match.group())
    return required, extras


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int | None:
    """Bytes of memory this process may use: the machine's, or a container's limit below it."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no limit is written "max"
        return total


def _accelerators() -> list[str]:
    """The accelerators that can be seen without loading torch."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return ["Apple GPU"]
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ["nvidia-smi is installed but does not answer"]
    return [line.strip() for line in answer.splitlines() if line.strip()]


def _free(path: Path) -> int | None:
    """Bytes free where the store is or would be made."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return None
