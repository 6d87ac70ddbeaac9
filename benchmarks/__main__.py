"""``python -m benchmarks [--only NAME ...] [--quick] [--write]``."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import platform
from pathlib import Path

from benchmarks.measuring import ROOT, Row

BENCHMARKS = sorted(
    path.stem
    for path in Path(__file__).parent.glob("*.py")
    if "\ndef run(quick: bool)" in path.read_text(encoding="utf-8")
)
HEAD = ("what", "ours", "peer", "ratio", "aim", "")


def main() -> None:
    """Run the benchmarks and print one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, its ratios mean little")
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results.md")
    options = parser.parse_args()
    if options.write and (options.quick or options.only):
        parser.error("--write keeps a whole run at full size: leave out --quick and --only")
    rows: list[Row] = []
    for name in options.only or BENCHMARKS:
        print(f"{name} ...", flush=True)
        rows += importlib.import_module(f"benchmarks.{name}").run(options.quick)
    table = markdown(rows)
    print("\n" + table)
    if options.write:
        Path(ROOT, "benchmarks", "results.md").write_text(f"{_PREFACE}\n{machine()}\n\n{table}", encoding="utf-8")


_PREFACE = """# Benchmarks

`python -m benchmarks --write` made this table: medians of repetitions in which the two sides took turns, in one run on
one machine. The ratio is ours over the peer's, except where the name speaks of a speed-up (peer over ours) or of an
overhead (the share added).
"""


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
