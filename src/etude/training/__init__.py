"""What changes how a network learns, and plain training to compare it with."""

from etude.training.classification import Run, evaluate, fit

__all__ = ["Run", "evaluate", "fit"]
