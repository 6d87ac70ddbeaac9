"""Where trials run: worker processes of this machine, a Ray cluster, or this very process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from etude.errors import EtudeError, suggest

if TYPE_CHECKING:
    from etude.study.engines.trial import Engine

ENGINES = ("local", "ray", "inline")


def engine(name: str, workers: int | None) -> Callable[[], Engine]:
    """What makes the engine of that name.

    Args:
        name: ``"local"``, ``"ray"`` or ``"inline"``.
        workers: how many trials at a time; None for as many as the cores allow.

    Raises:
        EtudeError: another name.
        MissingExtra: Ray is not installed.
    """
    if workers is not None and workers < 1:
        raise EtudeError(f"workers={workers}: give at least 1")
    if name == "local":
        from etude.study.engines.local import Local

        return lambda: Local(workers)
    if name == "ray":
        from etude.study.engines.ray import Ray, require

        require()
        return lambda: Ray(workers)
    if name == "inline":
        from etude.study.engines.trial import Inline

        return Inline
    raise EtudeError(f"engine: there is no engine '{name}'.{suggest(name, ENGINES)} Engines: {', '.join(ENGINES)}.")
