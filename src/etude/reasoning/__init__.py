"""Logic, program search and systems that combine them with language models.

`HypothesisSearch`, `ProgramOnly` and `Direct` solve induction tasks with a language model or any `Proposer`.
"""

from etude.reasoning.hypothesis_search import Attempt, Budget, Candidate, Direct, HypothesisSearch, ProgramOnly, Proposer, Solution, Spending, behaviour_clusters, coverage_curve, pass_at_k
from etude.reasoning.induction_prompts import LanguageModelProposer

__all__ = [
    "Attempt",
    "Budget",
    "Candidate",
    "Direct",
    "HypothesisSearch",
    "LanguageModelProposer",
    "ProgramOnly",
    "Proposer",
    "Solution",
    "Spending",
    "behaviour_clusters",
    "coverage_curve",
    "pass_at_k",
]
