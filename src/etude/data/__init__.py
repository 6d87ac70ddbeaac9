"""Data sets: where they are, that they are the right ones, and how they are divided.

``images("fashion-mnist")`` finds a named set of labelled images, or takes your own; ``omniglot()`` finds drawings of
many characters; ``available()`` says which sets are at hand. Importing this package imports neither torch nor any
reader of files: they come with the first set loaded.
"""

from etude.data import image_sets as _image_sets  # its loaders enter their names on import
from etude.data.characters import Characters, omniglot
from etude.data.image_data import ImageData, Part, images
from etude.data.locate import DataStatus, available

__all__ = ["Characters", "DataStatus", "ImageData", "Part", "available", "images", "omniglot"]
del _image_sets
