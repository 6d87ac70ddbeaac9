"""Language models: back ends, prompting and judges."""

from etude.language.endpoint import Endpoint
from etude.language.local import LocalModel, model_file
from etude.language.model import Completion, LanguageModel, Message, Prompt, Sampling, Usage
from etude.language.recorded import Recorded, Stored
from etude.language.specification import language_model

__all__ = [
    "Completion",
    "Endpoint",
    "LanguageModel",
    "LocalModel",
    "Message",
    "Prompt",
    "Recorded",
    "Sampling",
    "Stored",
    "Usage",
    "language_model",
    "model_file",
]
