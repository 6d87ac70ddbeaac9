"""Data sets: where they are, that they are the right ones, and how they are divided.

``images("fashion-mnist")`` finds a named set of labelled images, or takes your own; ``omniglot()`` finds drawings of
many characters, ``spoken_digits()`` recordings, ``texts("wikitext-2")`` a text; ``modular_addition(113, ...)`` makes
sums; ``available()`` says which sets are at hand. Importing this package imports neither torch nor any reader of files:
they come with the first set loaded.
"""

from etude.data import image_sets as _image_sets  # its loaders enter their names on import
from etude.data.characters import Characters, omniglot
from etude.data.image_data import ImageData, Part, images
from etude.data.locate import DataStatus, available
from etude.data.modular_addition import AdditionCheckpoint, ModularAddition, addition_checkpoint, modular_addition
from etude.data.speech import SpokenDigits, Utterances, connected_digits, dial_tones, spoken_digits
from etude.data.text import BytePairs, texts

__all__ = [
    "AdditionCheckpoint",
    "BytePairs",
    "Characters",
    "DataStatus",
    "ImageData",
    "ModularAddition",
    "Part",
    "SpokenDigits",
    "Utterances",
    "addition_checkpoint",
    "available",
    "connected_digits",
    "dial_tones",
    "images",
    "modular_addition",
    "omniglot",
    "spoken_digits",
    "texts",
]
del _image_sets
