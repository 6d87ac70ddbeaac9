"""Data sets: where they are, that they are the right ones, and how they are divided.

``images("fashion-mnist")`` finds a named set of labelled images, or takes your own; ``omniglot()`` finds drawings of
many characters, ``spoken_digits()`` recordings, ``texts("wikitext-2")`` a text, ``recorded_judgments()`` what language
models said of pairs of responses; ``available()`` says which sets are at hand. Importing this package imports neither
torch nor any reader of files: they come with the first set loaded.
"""

from etude.data import image_sets as _image_sets  # its loaders enter their names on import
from etude.data.block_images import Blocks, block_images, signal_blocks, square_patch
from etude.data.characters import Characters, omniglot
from etude.data.elastic import elastic_deform
from etude.data.image_data import ImageData, Part, images
from etude.data.induction import (
    InductionProblem,
    InductionTask,
    ListWorld,
    arc,
    list_functions,
    one_dimensional_arc,
    recorded_programs,
)
from etude.data.judgments import Comparison, recorded_comparisons, recorded_judgments
from etude.data.locate import DataStatus, available
from etude.data.logic_problems import (
    LincLabels,
    Translation,
    folio,
    linc_labels,
    linc_translations,
    logic_lm_problems,
    logic_translations,
)
from etude.data.modular_addition import AdditionCheckpoint, ModularAddition, addition_checkpoint, modular_addition
from etude.data.response_world import ResponseWorld, WorldComparisons
from etude.data.rule_worlds import LogicProblem, RuleWorld
from etude.data.speech import SpokenDigits, Utterances, connected_digits, dial_tones, spoken_digits
from etude.data.text import BytePairs, texts

__all__ = [
    "AdditionCheckpoint",
    "Blocks",
    "BytePairs",
    "Characters",
    "Comparison",
    "DataStatus",
    "ImageData",
    "InductionProblem",
    "InductionTask",
    "LincLabels",
    "ListWorld",
    "LogicProblem",
    "ModularAddition",
    "Part",
    "ResponseWorld",
    "RuleWorld",
    "SpokenDigits",
    "Translation",
    "Utterances",
    "WorldComparisons",
    "addition_checkpoint",
    "arc",
    "available",
    "block_images",
    "connected_digits",
    "dial_tones",
    "elastic_deform",
    "folio",
    "images",
    "linc_labels",
    "linc_translations",
    "list_functions",
    "logic_lm_problems",
    "logic_translations",
    "modular_addition",
    "omniglot",
    "one_dimensional_arc",
    "recorded_comparisons",
    "recorded_judgments",
    "recorded_programs",
    "signal_blocks",
    "spoken_digits",
    "square_patch",
    "texts",
]
del _image_sets
