"""Language models: back ends, prompting and judges."""

from typing import TYPE_CHECKING, Any

from etude.data.judgments import Comparison
from etude.language.endpoint import Endpoint
from etude.language.judge_bias import (
    Depth,
    Interval,
    PositionBias,
    bradley_terry,
    depth_curve,
    position_bias,
    verbosity_bias,
    width_curve,
    winners_of,
)
from etude.language.juries import (
    Assignment,
    Judge,
    LogprobJudge,
    PromptedJudge,
    Review,
    Verdict,
    WideDeep,
    baseline,
)
from etude.language.local import LocalModel, model_file
from etude.language.model import Completion, LanguageModel, Message, Prompt, Sampling, Usage
from etude.language.recorded import Recorded, Stored
from etude.language.specification import language_model
from etude.language.voting import (
    DawidSkene,
    McNemar,
    VoteTable,
    accuracy_weights,
    adaptive_vote,
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

if TYPE_CHECKING:
    from etude.language.aspect_judges import AspectJudges, fit_judges, hashed, preference_loss


def __getattr__(name: str) -> Any:
    # Trained judges need torch, which takes its time to load; whoever only prompts or counts votes does without.
    if name in ("AspectJudges", "fit_judges", "hashed", "preference_loss"):
        from etude.language import aspect_judges

        return getattr(aspect_judges, name)
    raise AttributeError(f"module 'etude.language' has no attribute {name!r}")


__all__ = [
    "AspectJudges",
    "Assignment",
    "Comparison",
    "Completion",
    "DawidSkene",
    "Depth",
    "Endpoint",
    "Interval",
    "Judge",
    "LanguageModel",
    "LocalModel",
    "LogprobJudge",
    "McNemar",
    "Message",
    "PositionBias",
    "Prompt",
    "PromptedJudge",
    "Recorded",
    "Review",
    "Sampling",
    "Stored",
    "Usage",
    "Verdict",
    "VoteTable",
    "WideDeep",
    "accuracy_weights",
    "adaptive_vote",
    "baseline",
    "bradley_terry",
    "cohen_kappa",
    "dawid_skene",
    "depth_curve",
    "effective_judges",
    "fit_judges",
    "hashed",
    "krippendorff_alpha",
    "language_model",
    "majority_accuracy",
    "majority_chances",
    "majority_curve",
    "majority_vote",
    "mcnemar",
    "mean_correlation",
    "model_file",
    "position_bias",
    "preference_loss",
    "verbosity_bias",
    "vote_table",
    "width_curve",
    "winners_of",
]
