"""What changes how a network learns, and plain training to compare it with."""

from etude.training.classification import Run, evaluate, fit
from etude.training.curriculum import (
    CurriculumSampler,
    constant_sizes,
    cycle_moments,
    cycle_sizes,
    easy_scores,
    effective_sample_size,
    exponential_scores,
    growing_sizes,
    hard_scores,
    per_sample_loss,
    random_scores,
    sample_without_replacement,
    shrinking_sizes,
)
from etude.training.gradient_noise import GradientNoise, accumulated_variance
from etude.training.guidance import Guidance, GuideGrams, pair_evenly
from etude.training.schedules import AfterStep, Constant, FirstSteps, LinearDecay, PowerDecay

__all__ = [
    "AfterStep",
    "Constant",
    "CurriculumSampler",
    "FirstSteps",
    "GradientNoise",
    "Guidance",
    "GuideGrams",
    "LinearDecay",
    "PowerDecay",
    "Run",
    "accumulated_variance",
    "constant_sizes",
    "cycle_moments",
    "cycle_sizes",
    "easy_scores",
    "effective_sample_size",
    "evaluate",
    "exponential_scores",
    "fit",
    "growing_sizes",
    "hard_scores",
    "pair_evenly",
    "per_sample_loss",
    "random_scores",
    "sample_without_replacement",
    "shrinking_sizes",
]
