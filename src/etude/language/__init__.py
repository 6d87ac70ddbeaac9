"""Language models: back ends, prompting and judges."""

from etude.language.model import Completion, LanguageModel, Message, Prompt, Sampling, Usage
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
    "Completion",
    "DawidSkene",
    "LanguageModel",
    "McNemar",
    "Message",
    "Prompt",
    "Sampling",
    "Usage",
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
