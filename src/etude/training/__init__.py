"""What changes how a network learns, and plain training to compare it with."""

from etude.training.classification import Run, evaluate, fit
from etude.training.gradient_noise import GradientNoise, accumulated_variance
from etude.training.guidance import Guidance, GuideGrams, pair_evenly
from etude.training.schedules import AfterStep, Constant, FirstSteps, LinearDecay, PowerDecay

__all__ = [
    "AfterStep",
    "Constant",
    "FirstSteps",
    "GradientNoise",
    "Guidance",
    "GuideGrams",
    "LinearDecay",
    "PowerDecay",
    "Run",
    "accumulated_variance",
    "evaluate",
    "fit",
    "pair_evenly",
]
