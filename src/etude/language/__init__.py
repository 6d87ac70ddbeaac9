"""Language models: back ends, prompting and judges."""

from etude.language.voting import (
    DawidSkene,
    McNemar,
    VoteTable,
    accuracy_weights,
    cohen_kappa,
    dawid_skene,
    effective_judges,
    krippendorff_alpha,
    majority_accuracy,
    majority_chances,
    majority_curve,
    majority_vote,
    mcnemar,
    mean_correlation,
    vote_table,
)

__all__ = [
    "DawidSkene",
    "McNemar",
    "VoteTable",
    "accuracy_weights",
    "cohen_kappa",
    "dawid_skene",
    "effective_judges",
    "krippendorff_alpha",
    "majority_accuracy",
    "majority_chances",
    "majority_curve",
    "majority_vote",
    "mcnemar",
    "mean_correlation",
    "vote_table",
]
