"""The spine: studies, trials, evidence, claims and verdicts; everything a study file needs.

Importing this package imports none of its dependencies: names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from etude.errors import EtudeError, MissingData, MissingExtra, Unavailable
    from etude.study.definition import Claim, Config, Measurement, Paper, Reference, Study, grid
    from etude.study.evidence import Evidence, Quantity, Table, near
    from etude.study.lab import Lab
    from etude.study.rules import Rule, Verdict, all_of, any_of, count_of, outside, within
    from etude.study.statistics import Estimate, bootstrap, exact, mean, proportion, ratio

_HOME = {
    "etude.errors": ("EtudeError", "MissingData", "MissingExtra", "Unavailable"),
    "etude.study.definition": ("Claim", "Config", "Measurement", "Paper", "Reference", "Study", "grid"),
    "etude.study.evidence": ("Evidence", "Quantity", "Table", "near"),
    "etude.study.lab": ("Lab",),
    "etude.study.rules": ("Rule", "Verdict", "all_of", "any_of", "count_of", "outside", "within"),
    "etude.study.statistics": ("Estimate", "bootstrap", "exact", "mean", "proportion", "ratio"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Axes",
    "Claim",
    "Config",
    "Estimate",
    "EtudeError",
    "Evidence",
    "Lab",
    "Measurement",
    "MissingData",
    "MissingExtra",
    "Paper",
    "Quantity",
    "Reference",
    "Rule",
    "Study",
    "Table",
    "Unavailable",
    "Verdict",
    "all_of",
    "any_of",
    "bootstrap",
    "count_of",
    "exact",
    "grid",
    "mean",
    "near",
    "outside",
    "proportion",
    "ratio",
    "within",
]


def __getattr__(name: str) -> Any:
    if name == "Axes":  # only ever an annotation: a worker, which draws nothing, need not load matplotlib
        return Any
    if name not in _MODULE:
        raise AttributeError(f"module 'etude.study' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
