"""Logic, program search and systems that combine them with language models.

`etude.reasoning.logic` holds formulas, their notations and provers.
"""

__all__: list[str] = []
