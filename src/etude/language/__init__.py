"""Language models: back ends, prompting and judges."""

from etude.language.model import Completion, LanguageModel, Message, Prompt, Sampling, Usage

__all__ = ["Completion", "LanguageModel", "Message", "Prompt", "Sampling", "Usage"]
