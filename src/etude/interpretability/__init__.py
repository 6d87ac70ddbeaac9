"""What a network has learned: representations, and how those of two networks compare."""

from etude.interpretability.matching import (
    RunningMutualInformation,
    SoftMatch,
    Stitch,
    UnitClusters,
    UnitMatch,
    match_units,
    mutual_information,
    percentile_edges,
    soft_match_units,
    sparse_stitch,
    stitch_path,
    unit_clusters,
)
from etude.interpretability.moments import CrossMoments, Moments, RunningCrossMoments, RunningMoments
from etude.interpretability.nulls import random_features, shuffled, untrained
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
from etude.interpretability.units import flatten_units, unit_cross_moments, unit_moments

__all__ = [
    "CrossMoments",
    "DecoderManipulation",
    "FaithfulnessReport",
    "Moments",
    "PostHocPrototypes",
    "RunningCrossMoments",
    "RunningMoments",
    "RunningMutualInformation",
    "SoftMatch",
    "Stitch",
    "UnitClusters",
    "UnitMatch",
    "cka_from_grams",
    "cka_matrix",
    "cka_pairs",
    "error_consistency",
    "faithfulness_report",
    "flatten_units",
    "gram",
    "linear_cka",
    "manipulate_decoder",
    "match_units",
    "mutual_information",
    "nearest_image_distance",
    "percentile_edges",
    "random_features",
    "rsa",
    "shuffled",
    "soft_match_units",
    "sparse_stitch",
    "stitch_path",
    "unit_clusters",
    "unit_cross_moments",
    "unit_moments",
    "untrained",
]
