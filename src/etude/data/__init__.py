"""Data sets: where they are, that they are the right ones, and how they are divided.

``images("fashion-mnist")`` finds a named set of labelled images, or takes your own; ``texts("wikitext-2")`` finds a
text; ``available()`` says which sets are at hand. Importing this package imports neither torch nor any reader of
files: they come with the first set loaded.
"""

from etude.data import image_sets as _image_sets  # its loaders enter their names on import
from etude.data.image_data import ImageData, Part, images
from etude.data.locate import DataStatus, available
from etude.data.text import BytePairs, texts

__all__ = ["BytePairs", "DataStatus", "ImageData", "Part", "available", "images", "texts"]
del _image_sets
