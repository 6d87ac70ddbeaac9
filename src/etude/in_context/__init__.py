"""In-context learning: tasks, probes of attention heads and learning curves, and exact references to compare with."""

from etude.in_context.languages import (
    Automata,
    LanguagePrompts,
    RandomAutomata,
    bayes_predictive,
    enumerate_automata,
    support_accuracy,
    total_variation,
)
from etude.in_context.ngram import InContextNGram, successor_counts
from etude.in_context.probes import (
    Transition,
    chance_corrected,
    head_score,
    ngram_followers,
    previous_position,
    transition,
)

__all__ = [
    "Automata",
    "InContextNGram",
    "LanguagePrompts",
    "RandomAutomata",
    "Transition",
    "bayes_predictive",
    "chance_corrected",
    "enumerate_automata",
    "head_score",
    "ngram_followers",
    "previous_position",
    "successor_counts",
    "support_accuracy",
    "total_variation",
    "transition",
]
