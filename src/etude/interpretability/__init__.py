"""What a network has learned: representations, how those of two networks compare, and what in an input they rely on."""

from etude.interpretability.attribution import (
    Attribution,
    attribute,
    diffroar,
    diffroar_intervals,
    from_captum,
    input_gradient,
    kept_entries,
    leakage,
    pointing_accuracy,
    predictive_power,
    rank_features,
    unmask,
)
from etude.interpretability.similarity import (
    cka_from_grams,
    cka_matrix,
    cka_pairs,
    error_consistency,
    gram,
    linear_cka,
    rsa,
)

__all__ = [
    "Attribution",
    "attribute",
    "cka_from_grams",
    "cka_matrix",
    "cka_pairs",
    "diffroar",
    "diffroar_intervals",
    "error_consistency",
    "from_captum",
    "gram",
    "input_gradient",
    "kept_entries",
    "leakage",
    "linear_cka",
    "pointing_accuracy",
    "predictive_power",
    "rank_features",
    "rsa",
    "unmask",
]
