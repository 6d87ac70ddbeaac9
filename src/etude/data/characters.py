"""Omniglot: handwritten characters of many alphabets, twenty drawings of each (Lake, Salakhutdinov and Tenenbaum 2015).

Many classes with few examples: the opposite of the sets in `etude.data.image_sets`, and divided by alphabet, not by
example, so it has a loader and a container of its own.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from etude.data.locate import SOURCES, Source, listing, locate
from etude.errors import suggest

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor

__all__ = ["Characters", "omniglot"]

_ADDRESS = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
_PIXELS, _DRAWINGS = 105, 20

_SOURCES = {
    "small": Source(
        "omniglot-small",
        files=listing(
            """
            f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4 1319022 images_background_small1.zip
            3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f 1580917 images_background_small2.zip
            """
        ),
        address=_ADDRESS,
        folder="omniglot",
    ),
    "all": Source(
        "omniglot",
        files=listing(
            """
            ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640 9464212 images_background.zip
            1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee 6462886 images_evaluation.zip
            """
        ),
        address=_ADDRESS,
    ),
}
SOURCES |= {source.name: source for source in _SOURCES.values()}


@dataclass(frozen=True, eq=False)
class Characters:
    """Drawings of characters, by class.

    Attributes:
        name: the set.
        drawings: ink is 1 and paper 0, float32.
        alphabets: the alphabet of each class.
        groups: classes with the same number are turned or mirrored versions of one character.
        source: a sentence that says where the data came from.
    """

    name: str
    drawings: Float[Tensor, "classes drawings 1 size size"]
    alphabets: tuple[str, ...]
    groups: Int64[Tensor, " classes"]
    source: str

    def __len__(self) -> int:
        return len(self.alphabets)

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over drawings, alphabets and groups: equal data, equal checksum."""
        digest = hashlib.sha256(f"{self.alphabets} {tuple(self.drawings.shape)}".encode())
        for tensor in (self.drawings, self.groups):
            digest.update(np.ascontiguousarray(tensor.numpy()).data)
        return digest.hexdigest()

    def of(self, alphabets: Collection[str]) -> Int64[Tensor, " chosen"]:
        """The numbers of the classes of some alphabets.

        Args:
            alphabets: their names.

        Raises:
            ValueError: an alphabet that is not here, or none at all.
        """
        import torch

        known = sorted(set(self.alphabets))
        wrong = [name for name in alphabets if name not in known]
        if wrong or not alphabets:
            named = f"alphabets: {wrong[0]!r} is not among" if wrong else "alphabets: none was given; there are"
            raise ValueError(f"{named} {', '.join(known)}.{suggest(wrong[0], known) if wrong else ''}")
        return torch.tensor([number for number, own in enumerate(self.alphabets) if own in alphabets])

    def turned_and_mirrored(self) -> Characters:
        """Eight times as many classes: each turned by 0, 90, 180 and 270 degrees, as it is and mirrored.

        The versions of a class follow each other and have its group, so that they can be kept on one side of a
        division. Those of a symmetric character look alike and are classes of their own all the same.

        Source: Chan et al., NeurIPS 2022 (arXiv 2205.05055), appendix on the data.
        """
        import torch

        sides = (self.drawings, self.drawings.flip(-1))
        versions = [side.rot90(turns, (-2, -1)) for side in sides for turns in range(4)]
        return Characters(
            f"{self.name}, turned and mirrored",
            torch.stack(versions, dim=1).flatten(0, 1),
            tuple(name for name in self.alphabets for _ in versions),
            self.groups.repeat_interleave(len(versions)),
            self.source,
        )


def omniglot(part: Literal["small", "all"] = "small", *, size: int = 28) -> Characters:
    """Load Omniglot's drawings, classes in the order of alphabet and number.

    Args:
        part: ``"small"`` for the two small background sets together (8 alphabets, 242 characters: they share two
            alphabets, which count once), ``"all"`` for the background and the evaluation set (50 alphabets, 1,623
            characters).
        size: width and height in pixels, 1 to 105, the originals' size; smaller ones are averages over areas.

    Raises:
        ValueError: an unknown part, or a size out of range.
        MissingData: the set is not on this machine and cannot be fetched, or a file is not the right one.
    """
    if part not in _SOURCES:
        raise ValueError(f"part={part!r}: give 'small' or 'all'")
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _PIXELS:
        raise ValueError(f"size={size!r}: give a whole number from 1 to {_PIXELS}")
    import torch
    from torch.nn.functional import adaptive_avg_pool2d

    located = locate(_SOURCES[part])
    alphabets, pixels = _read(tuple(located.paths.values()))
    drawings = torch.from_numpy(pixels)
    if size < _PIXELS:
        # A chunk at a time, as the full set at the original size takes 1.4 GB in single precision.
        drawings = torch.cat([adaptive_avg_pool2d(part.float(), size) for part in drawings.split(100)])
    groups = torch.arange(len(alphabets))
    return Characters(_SOURCES[part].name, drawings.float()[:, :, None], alphabets, groups, located.where)


@lru_cache(maxsize=1)
def _read(archives: tuple[Path, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """The alphabet of each character and its drawings, uint8 with ink 1, (characters, 20, 105, 105)."""
    from PIL import Image

    found: dict[tuple[str, str], dict[str, bytes]] = {}
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".png") and not name.startswith("__"):  # a folder of one system's leavings
                    _, alphabet, character, file = name.split("/")
                    found.setdefault((alphabet, character), {})[file] = archive.read(name)
    pixels = np.empty((len(found), _DRAWINGS, _PIXELS, _PIXELS), np.uint8)
    for own, key in zip(pixels, sorted(found)):
        for drawing, file in zip(own, sorted(found[key]), strict=True):
            with Image.open(io.BytesIO(found[key][file]), formats=("PNG",)) as image:
                drawing[:] = ~np.asarray(image.convert("1"))
    return tuple(alphabet for alphabet, _ in sorted(found)), pixels
