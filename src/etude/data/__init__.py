"""Data sets: where they are, that they are the right ones, and how they are divided.

``images("fashion-mnist")`` finds a named set of labelled images, or takes your own; ``omniglot()`` finds drawings of
many characters, ``spoken_digits()`` recordings, ``texts("wikitext-2")`` a text; ``available()`` says which sets are at
hand. Importing this package imports neither torch nor any reader of files: they come with the first set loaded.
"""

from etude.data import image_sets as _image_sets  # its loaders enter their names on import
from etude.data.block_images import Blocks, block_images, signal_blocks, square_patch
from etude.data.characters import Characters, omniglot
from etude.data.image_data import ImageData, Part, images
from etude.data.locate import DataStatus, available
from etude.data.speech import SpokenDigits, Utterances, connected_digits, dial_tones, spoken_digits
from etude.data.text import BytePairs, texts

__all__ = [
    "Blocks",
    "BytePairs",
    "Characters",
    "DataStatus",
    "ImageData",
    "Part",
    "SpokenDigits",
    "Utterances",
    "available",
    "block_images",
    "connected_digits",
    "dial_tones",
    "images",
    "omniglot",
    "signal_blocks",
    "spoken_digits",
    "square_patch",
    "texts",
]
del _image_sets
