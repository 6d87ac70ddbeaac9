"""What a network has learned: representations, and how those of two networks compare."""

from etude.interpretability.prototypes import (
    DecoderManipulation,
    FaithfulnessReport,
    PostHocPrototypes,
    faithfulness_report,
    manipulate_decoder,
    nearest_image_distance,
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
    "DecoderManipulation",
    "FaithfulnessReport",
    "PostHocPrototypes",
    "cka_from_grams",
    "cka_matrix",
    "cka_pairs",
    "error_consistency",
    "faithfulness_report",
    "gram",
    "linear_cka",
    "manipulate_decoder",
    "nearest_image_distance",
    "rsa",
]
