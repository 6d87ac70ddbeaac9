"""Logic, program search and systems that combine them with language models."""

__all__: list[str] = []
