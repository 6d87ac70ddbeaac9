"""What a network has learned: representations, how those of two networks compare, and what in an input they rely on."""

from etude.interpretability.attribution import Attribution, attribute, diffroar, diffroar_intervals, from_captum, input_gradient, kept_entries, leakage, pointing_accuracy, predictive_power, rank_features, unmask
from etude.interpretability.interaction_graph import GraphModules, SmallestSet, edges_needed, fourier_terms, interaction_modules, subspace_overlaps
from etude.interpretability.jacobian import jacobians, stream_vector_jacobian_products, vector_jacobian_products
from etude.interpretability.local_interaction import InteractionBasis, InteractionEdges, ablate_directions, ablate_edges, interaction_basis, interaction_edges, neuron_basis, pca_basis, random_basis
from etude.interpretability.matching import RunningMutualInformation, SoftMatch, Stitch, UnitClusters, UnitMatch, match_units, mutual_information, percentile_edges, soft_match_units, sparse_stitch, stitch_path, unit_clusters
from etude.interpretability.moments import CrossMoments, Moments, RunningCrossMoments, RunningMoments
from etude.interpretability.nulls import random_features, shuffled, untrained
from etude.interpretability.prototypes import DecoderManipulation, FaithfulnessReport, PostHocPrototypes, faithfulness_report, manipulate_decoder, nearest_image_distance
from etude.interpretability.sections import Section, split_module
from etude.interpretability.similarity import cka_from_grams, cka_matrix, cka_pairs, error_consistency, gram, linear_cka, rsa
from etude.interpretability.units import flatten_units, unit_cross_moments, unit_moments

__all__ = [
    "Attribution",
    "CrossMoments",
    "DecoderManipulation",
    "FaithfulnessReport",
    "GraphModules",
    "InteractionBasis",
    "InteractionEdges",
    "Moments",
    "PostHocPrototypes",
    "RunningCrossMoments",
    "RunningMoments",
    "RunningMutualInformation",
    "Section",
    "SmallestSet",
    "SoftMatch",
    "Stitch",
    "UnitClusters",
    "UnitMatch",
    "ablate_directions",
    "ablate_edges",
    "attribute",
    "cka_from_grams",
    "cka_matrix",
    "cka_pairs",
    "diffroar",
    "diffroar_intervals",
    "edges_needed",
    "error_consistency",
    "faithfulness_report",
    "flatten_units",
    "fourier_terms",
    "from_captum",
    "gram",
    "input_gradient",
    "interaction_basis",
    "interaction_edges",
    "interaction_modules",
    "jacobians",
    "kept_entries",
    "leakage",
    "linear_cka",
    "manipulate_decoder",
    "match_units",
    "mutual_information",
    "nearest_image_distance",
    "neuron_basis",
    "pca_basis",
    "percentile_edges",
    "pointing_accuracy",
    "predictive_power",
    "random_basis",
    "random_features",
    "rank_features",
    "rsa",
    "shuffled",
    "soft_match_units",
    "sparse_stitch",
    "split_module",
    "stitch_path",
    "stream_vector_jacobian_products",
    "subspace_overlaps",
    "unit_clusters",
    "unit_cross_moments",
    "unit_moments",
    "unmask",
    "untrained",
    "vector_jacobian_products",
]
