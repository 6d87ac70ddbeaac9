"""Logic, program search and systems that combine them with language models."""
