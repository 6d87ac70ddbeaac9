"""Logic, program search and systems that combine them with language models.

`etude.reasoning.logic` holds formulas, their notations and provers. `Linc` and its siblings answer questions of
entailment; `HypothesisSearch`, `ProgramOnly` and `Direct` solve induction tasks. All take any language model.
"""

from typing import TYPE_CHECKING, Any

from etude.reasoning.hypothesis_search import (
    Attempt,
    Budget,
    Candidate,
    Direct,
    HypothesisSearch,
    ProgramOnly,
    Proposer,
    Solution,
    Spending,
    behaviour_clusters,
    coverage_curve,
    pass_at_k,
)
from etude.reasoning.induction_prompts import LanguageModelProposer
from etude.reasoning.semantic_parsing import (
    Answer,
    ChainOfThought,
    LabelOnly,
    Linc,
    Scratchpad,
    Shot,
    Voter,
    label_of,
    translation,
    translation_grammar,
    vote,
    worked_examples,
)

__all__ = [
    "Answer",
    "Attempt",
    "Budget",
    "Candidate",
    "ChainOfThought",
    "Direct",
    "HypothesisSearch",
    "LabelOnly",
    "LanguageModelProposer",
    "Linc",
    "ProblemReader",
    "ProgramOnly",
    "Proposer",
    "Scratchpad",
    "SentenceParser",
    "Shot",
    "Solution",
    "Spending",
    "Voter",
    "behaviour_clusters",
    "coverage_curve",
    "encode_problems",
    "fit_parser",
    "fit_reader",
    "label_of",
    "pass_at_k",
    "translation",
    "translation_grammar",
    "vote",
    "worked_examples",
]
if TYPE_CHECKING:
    from etude.reasoning.rule_reading import ProblemReader, SentenceParser, encode_problems, fit_parser, fit_reader


def __getattr__(name: str) -> Any:
    # Trained readers need torch, which takes its time to load; whoever only proves or prompts does without.
    if name in ("ProblemReader", "SentenceParser", "encode_problems", "fit_parser", "fit_reader"):
        from etude.reasoning import rule_reading

        return getattr(rule_reading, name)
    raise AttributeError(f"module 'etude.reasoning' has no attribute {name!r}")
