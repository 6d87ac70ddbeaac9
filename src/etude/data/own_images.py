"""A user's own images: a folder with a subfolder a class, an ``.npz`` file, or arrays."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from etude.data.image_data import Raw
from etude.errors import MissingData

ENDINGS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
GREY, COLOUR = frozenset({"1", "L"}), frozenset({"P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})


def read_path(path: Path) -> tuple[Raw, tuple[str, ...], str]:
    """Read a folder of class folders, or an ``.npz`` file.

    Returns:
        The images, the names of the classes, and where they are.

    Raises:
        MissingData: there is nothing at that path.
        ValueError: what is there is not as `etude.data.images` describes.
    """
    if path.is_dir():
        raw, classes = _read_folder(path)
        return raw, classes, f"the folder {path}"
    if not path.is_file():
        raise MissingData(
            f"{path} does not exist", "Give a folder with one subfolder of images a class, or an .npz file"
        )
    if path.suffix != ".npz":
        raise ValueError(f"source {path} is neither a folder nor an .npz file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if lacking := {"x", "y"} - set(archive.files):
                raise ValueError(f"it holds {sorted(archive.files)} and lacks {sorted(lacking)}")
            raw = check_arrays(archive["x"], archive["y"])
    except (ValueError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"source {path} cannot be used: {error}") from error
    return raw, class_names(raw), f"the file {path}"


def check_arrays(x: Any, y: Any) -> Raw:
    """Check a user's arrays or tensors.

    Returns:
        The same images as uint8 or float32, and the labels as int64.

    Raises:
        TypeError: a wrong kind of number.
        ValueError: a wrong shape, numbers that are not finite, or labels that are not 0 .. K-1.
    """
    x, y = _array("x", x), _array("y", y)
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise TypeError(f"x must hold uint8 (0 to 255) or floating numbers, not {x.dtype}")
    if not np.issubdtype(y.dtype, np.integer):
        raise TypeError(f"y must hold integers, not {y.dtype}")
    if x.ndim not in (2, 3, 4):
        raise ValueError(f"x must have shape (n, h, w), (n, channels, h, w) or (n, length), not {x.shape}")
    if x.ndim == 4 and x.shape[1] not in (1, 3):
        hint = " (are the channels last? x.transpose(0, 3, 1, 2) puts them second)" if x.shape[3] in (1, 3) else ""
        raise ValueError(f"x must have 1 or 3 channels, as (n, channels, h, w), not {x.shape}{hint}")
    if y.shape != x.shape[:1]:
        raise ValueError(f"y must have one label an example, shape ({x.shape[0]},), not {y.shape}")
    if not x.size:
        raise ValueError(f"x must not be empty, as with its shape {x.shape}")
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):  # what is too large for float32 is named below
            x = x.astype(np.float32)
    if not np.isfinite(x).all():
        where = np.argwhere(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))[0, 0]
        raise ValueError(f"x must be finite in float32; example {where} is not")
    if (low := int(y.min())) < 0:
        raise ValueError(f"y must hold classes 0 .. K-1, not {low}")
    empty = np.setdiff1d(np.arange(min(int(y.max()), len(y)) + 1), y)
    if empty.size:
        raise ValueError(f"y must hold every class 0 .. {y.max()} at least once; class {empty[0]} is empty")
    return Raw(x, y.astype(np.int64))


def class_names(raw: Raw) -> tuple[str, ...]:
    """Names for classes that have none: their numbers."""
    return tuple(map(str, range(int(raw.y.max()) + 1)))


def _array(argument: str, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a tensor, without importing torch to ask
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{argument} must be an array or a tensor, not {type(value).__name__}")
    return value


def _read_folder(root: Path) -> tuple[Raw, tuple[str, ...]]:
    from PIL import Image, UnidentifiedImageError

    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise ValueError(f"source {root} must hold one subfolder of images a class, and holds no subfolder")
    pictures: list[tuple[Path, np.ndarray, int]] = []
    for label, folder in enumerate(folders):
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
        if not paths:
            raise ValueError(f"class '{folder.name}' is empty: {folder} holds no image ({', '.join(sorted(ENDINGS))})")
        for path in paths:
            try:
                with Image.open(path) as image:
                    if image.mode not in GREY | COLOUR:
                        raise ValueError(
                            f"{path} has pixels of kind '{image.mode}'; 8-bit grey and colour are accepted"
                        )
                    pixels = np.asarray(image.convert("L" if image.mode in GREY else "RGB"))
            except (UnidentifiedImageError, OSError, SyntaxError) as error:
                raise ValueError(f"{path} cannot be read as an image ({error})") from error
            if pictures and pixels.shape[:2] != pictures[0][1].shape[:2]:
                raise ValueError(
                    f"all images must have the same size: {pictures[0][0]} has {_size(pictures[0][1])},"
                    f" {path} has {_size(pixels)} (height x width)"
                )
            pictures.append((path, pixels, label))
    y = np.array([label for _, _, label in pictures])
    if all(pixels.ndim == 2 for _, pixels, _ in pictures):
        return Raw(np.stack([pixels for _, pixels, _ in pictures]), y), tuple(folder.name for folder in folders)
    # One colour image makes all of them colour: grey is then three equal channels.
    colours = [pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2) for _, pixels, _ in pictures]
    return Raw(np.stack(colours).transpose(0, 3, 1, 2), y), tuple(folder.name for folder in folders)


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[0]}x{pixels.shape[1]}"
