"""``python -m benchmarks [--only NAME ...] [--quick] [--write]``."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import platform
import re
import sys
import traceback
from pathlib import Path

from benchmarks.measuring import ROOT, Row

BENCHMARKS = sorted(
    path.stem
    for path in Path(__file__).parent.glob("*.py")
    if "\ndef run(quick: bool)" in path.read_text(encoding="utf-8")
)
HEAD = ("what", "ours", "peer", "ratio", "aim", "")
RESULTS = Path(ROOT, "benchmarks", "results.md")


def main() -> None:
    """Run the benchmarks and print a table of each; one that fails is reported at the end and keeps no other back."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, its ratios mean little")
    parser.add_argument("--write", action="store_true", help="keep each table in benchmarks/results.md")
    options = parser.parse_args()
    if options.write and options.quick:
        parser.error("--write keeps measurements at full size: leave out --quick")
    failed = []
    for name in options.only or BENCHMARKS:
        print(f"\n{name}", flush=True)
        try:
            benchmark = importlib.import_module(f"benchmarks.{name}")
            table = markdown(benchmark.run(options.quick))
        except Exception:
            traceback.print_exc()
            failed.append(name)
            continue
        print(table, flush=True)
        if options.write:
            write(name, f"{(benchmark.__doc__ or '').strip()}\n\n{table}\n{machine()}\n")
    if failed:
        sys.exit(f"These ended in an error (above): {', '.join(failed)}.")


_PREFACE = """# Benchmarks

`python -m benchmarks --write` makes these tables: medians of repetitions in which the two sides took turns, each table
in one run on the machine named below it. The ratio is ours over the peer's, except where the name speaks of a speed-up
(peer over ours) or of an overhead (the share added).
"""


def write(name: str, text: str) -> None:
    """Put one benchmark's section in the file of results; the others stay as they are, deleted benchmarks go."""
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    sections = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", old, flags=re.DOTALL | re.MULTILINE))
    sections[name] = text
    kept = [f"## {each}\n\n{sections[each].strip()}\n" for each in BENCHMARKS if each in sections]
    RESULTS.write_text("\n".join([_PREFACE, *kept]), encoding="utf-8")


def markdown(rows: list[Row]) -> str:
    """The rows as a Markdown table whose columns line up in a terminal."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    text = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text) + "\n"


def machine() -> str:
    """Where and with what the table was made."""
    from etude.study.engines.trial import environment

    about = environment()
    packages = ("etude", "torch", "numpy", "scikit-learn")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    processor = f"{about['processor'] or platform.machine()}, {about['cores']} cores"
    return f"{processor}; {about['system']}; Python {about['python']}; {versions}."


if __name__ == "__main__":
    main()
