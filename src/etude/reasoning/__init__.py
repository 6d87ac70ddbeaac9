"""Logic, program search and systems that combine them with language models.

`etude.reasoning.logic` holds formulas, their notations and provers; what is here uses them.
"""

from typing import TYPE_CHECKING, Any

from etude.reasoning.semantic_parsing import (
    Answer,
    ChainOfThought,
    Direct,
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

if TYPE_CHECKING:
    from etude.reasoning.rule_reading import (
        ProblemReader,
        SentenceParser,
        encode_problems,
        fit_parser,
        fit_reader,
    )


def __getattr__(name: str) -> Any:
    # Trained readers need torch, which takes its time to load; whoever only proves or prompts does without.
    if name in ("ProblemReader", "SentenceParser", "encode_problems", "fit_parser", "fit_reader"):
        from etude.reasoning import rule_reading

        return getattr(rule_reading, name)
    raise AttributeError(f"module 'etude.reasoning' has no attribute {name!r}")


__all__ = [
    "Answer",
    "ChainOfThought",
    "Direct",
    "Linc",
    "ProblemReader",
    "Scratchpad",
    "SentenceParser",
    "Shot",
    "Voter",
    "encode_problems",
    "fit_parser",
    "fit_reader",
    "label_of",
    "translation",
    "translation_grammar",
    "vote",
    "worked_examples",
]
