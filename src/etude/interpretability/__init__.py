"""What a network has learned: representations, and how those of two networks compare."""

from etude.interpretability.moments import CrossMoments, Moments, RunningCrossMoments, RunningMoments
from etude.interpretability.nulls import random_features, shuffled, untrained
from etude.interpretability.similarity import (
    cka_from_grams,
    cka_matrix,
    cka_pairs,
    error_consistency,
    gram,
    linear_cka,
    rsa,
)
from etude.interpretability.units import flatten_units, unit_cross_moments, unit_moments

__all__ = [
    "CrossMoments",
    "Moments",
    "RunningCrossMoments",
    "RunningMoments",
    "cka_from_grams",
    "cka_matrix",
    "cka_pairs",
    "error_consistency",
    "flatten_units",
    "gram",
    "linear_cka",
    "random_features",
    "rsa",
    "shuffled",
    "unit_cross_moments",
    "unit_moments",
    "untrained",
]
