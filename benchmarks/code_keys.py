"""Computing the keys of all measurements of a study, in a process that has computed none before."""

from __future__ import annotations

import gc
import statistics
import time

from benchmarks.measuring import Row, alone
from etude.study.catalogue import catalogue, find, load


def run(quick: bool) -> list[Row]:
    rows = []
    for name, entry in catalogue().items():
        if not entry.problem:
            seconds = [alone("benchmarks.code_keys:keys", name).result for _ in range(2 if quick else 3)]
            rows.append(Row(f"keys of {name}", statistics.median(seconds), None, aim="< 0.05 s"))
    return rows


def keys(name: str) -> float:
    """Seconds to compute the keys of a study's measurements."""
    from etude.study.code_key import code_key

    study = load(find(name))
    gc.collect()  # the imports left a collection of all of torch's objects due, which is no part of the keys
    start = time.perf_counter()
    for measurement in study.measurements.values():
        code_key(measurement.address)
    return time.perf_counter() - start
