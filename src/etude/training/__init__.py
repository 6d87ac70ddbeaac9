"""What changes how a network learns, and plain training to compare it with."""

from etude.training.classification import Run, evaluate, fit
from etude.training.guidance import Guidance, GuideGrams, pair_evenly
from etude.training.schedules import AfterStep, Constant, FirstSteps, LinearDecay, PowerDecay

__all__ = [
    "AfterStep",
    "Constant",
    "FirstSteps",
    "Guidance",
    "GuideGrams",
    "LinearDecay",
    "PowerDecay",
    "Run",
    "evaluate",
    "fit",
    "pair_evenly",
]
