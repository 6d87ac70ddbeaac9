"""Smaller networks: pruning, and what it leaves."""

from etude.compression.pruning import (
    Level,
    Mask,
    early_stop,
    iterative_magnitude_pruning,
    keep_sign,
    magnitude_mask,
    masked,
    perturb,
    prunable,
    random_mask,
    reinitialise,
    reinitialise_from_ticket,
    shuffle_within_layer,
    time_to_level,
)

__all__ = [
    "Level",
    "Mask",
    "early_stop",
    "iterative_magnitude_pruning",
    "keep_sign",
    "magnitude_mask",
    "masked",
    "perturb",
    "prunable",
    "random_mask",
    "reinitialise",
    "reinitialise_from_ticket",
    "shuffle_within_layer",
    "time_to_level",
]
