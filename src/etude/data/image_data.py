"""Labelled images, divided into train, validation and test by a rule that no seed changes."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from etude.data.locate import SOURCES, Source, locate
from etude.errors import MissingExtra, suggest

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int64
    from torch import Tensor

DATA_PROTOCOL = 1
"""Raised by hand whenever a loader would return something else than before.

The loaders are found by name at run time, so that a new set changes nothing for the studies there are; this constant
stands for their code in a trial's key. The content of each set is fixed by a test.
"""


@dataclass(frozen=True, eq=False)
class Part:
    """Examples with their labels; also a map-style data set, so that a ``DataLoader`` takes it as it is.

    Attributes:
        x: the images, float32, shape (n, channels, height, width), or (n, 1, length) for signals.
        y: their classes, int64, shape (n,), in 0 .. K-1.
    """

    x: Float[Tensor, "n channels *size"]
    y: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]


@dataclass(frozen=True, eq=False)
class ImageData:
    """A set of labelled images in three disjoint parts.

    Treat the tensors as constants: ``checksum`` is computed once, when it is first asked for.

    Attributes:
        name: what was asked for.
        train: what to learn from.
        validation: what to choose by: when to stop, which variant to keep.
        test: what to report.
        classes: the name of each class, in the order of the labels.
        source: a sentence that says where the data came from.
    """

    name: str
    train: Part
    validation: Part
    test: Part
    classes: tuple[str, ...]
    source: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example, (channels, height, width), or (1, length) for signals; (features,) when flat."""
        return tuple(self.train.x.shape[1:])

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over the numbers, labels and shapes of all parts and the class names: equal data, equal checksum.

        It does not depend on the device, the folder or the way the data were divided, only on what is in the parts.
        """
        digest = hashlib.sha256(f"{DATA_PROTOCOL} {self.classes}".encode())
        for part in self._parts().values():
            for tensor in (part.x, part.y):
                array = np.ascontiguousarray(tensor.cpu().numpy())
                digest.update(f"{array.dtype.str} {array.shape}".encode())
                digest.update(array.data if array.size else b"")
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> ImageData:
        """The same data with all tensors on a device (shared, not copied, where they are already there)."""
        return self._map(lambda part: Part(part.x.to(device), part.y.to(device)))

    def flat(self) -> ImageData:
        """The same data with one vector an example: x of shape (n, features)."""
        return self._map(lambda part: Part(part.x.flatten(1), part.y))

    def standardized(self) -> ImageData:
        """The same data with each channel shifted and scaled to mean 0 and variance 1 over the training part.

        Flat data are standardized feature by feature.

        Raises:
            ValueError: a channel is constant over the training part.
        """
        import torch

        x = self.train.x
        axes = [axis for axis in range(x.ndim) if axis != 1]
        deviation, mean = torch.std_mean(x.double(), dim=axes, correction=0, keepdim=True)
        if not bool((deviation > 0).all()):
            raise ValueError(f"{self.name}: a channel is constant over the training part and cannot be standardized")
        return self._map(lambda part: Part((part.x - mean.float()) / deviation.float(), part.y))

    def subset(self, *, train: int | None = None, validation: int | None = None, test: int | None = None) -> ImageData:
        """The same data with smaller parts, each with its classes in the same proportions (to one example).

        Args:
            train, validation, test: how many examples to keep in that part, at least 1; all of them when left out.

        Raises:
            TypeError: a number is no integer.
            ValueError: a number is below 1 or above the part's size.
        """
        wanted = {"train": train, "validation": validation, "test": test}
        parts: dict[str, Any] = {}
        for name, part in self._parts().items():
            if (count := wanted[name]) is not None:
                _check_count(name, count, 1, len(part))
                keep = _divide(part.y.cpu().numpy(), count, np.arange(len(part)))[1]
                parts[name] = Part(part.x[keep], part.y[keep])
        return replace(self, **parts)

    def _parts(self) -> dict[str, Part]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def _map(self, change: Callable[[Part], Part]) -> ImageData:
        return replace(self, train=change(self.train), validation=change(self.validation), test=change(self.test))

    def __repr__(self) -> str:
        sizes = "/".join(f"{len(part):,}" for part in self._parts().values())
        shape = "x".join(map(str, self.shape))
        return f"ImageData({self.name}: {sizes} examples of {shape} in {len(self.classes)} classes, from {self.source})"


@dataclass(frozen=True, eq=False)
class Raw:
    """What a loader returns: everything in the set's own order, not yet divided.

    Attributes:
        x: images, uint8 (0 to 255, scaled to [0, 1] later) or floating (used as they are), shape (n, h, w) for grey
            images, (n, channels, h, w), or (n, length) for signals.
        y: labels, shape (n,).
        x_test, y_test: the published test part; None where there is none, and it is then divided from ``x``.
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None


@dataclass(frozen=True)
class _Entry:
    source: Source
    classes: tuple[str, ...]
    validation: int
    test: int | None
    load: Callable[[dict[str, Path]], Raw]


_ENTRIES: dict[str, _Entry] = {}


def image_set(
    source: Source, *, classes: Sequence[str], validation: int, test: int | None = None
) -> Callable[[Callable[[dict[str, Path]], Raw]], Callable[[dict[str, Path]], Raw]]:
    """Make a loader known to `images` under its source's name.

    Args:
        source: the set's files, or the package it comes from.
        classes: the names of its classes, in the order of the labels.
        validation: how many of its training examples are held out unless the user says otherwise.
        test: how many examples make the test part, for a set published without one.

    Returns:
        A decorator for a function from (file name -> verified path) to `Raw`.
    """

    def enter(load: Callable[[dict[str, Path]], Raw]) -> Callable[[dict[str, Path]], Raw]:
        SOURCES[source.name] = source
        _ENTRIES[source.name] = _Entry(source, tuple(classes), validation, test, load)
        return load

    return enter


def images(
    source: str | os.PathLike[str] | tuple[Any, Any],
    *,
    validation: int | None = None,
    test: int | None = None,
    split: int = 0,
) -> ImageData:
    """Load labelled images and divide them.

    The division is by class proportions and fixed: it depends on the labels, ``validation``, ``test`` and ``split``
    and on nothing else, no seed, no machine. A published test part is kept as published, in its order. Where there is
    none, ``test`` examples are divided off first, the same ones for every ``validation`` and ``split``. Training and
    validation examples come in a fixed shuffled order.

    =================  =====================================================================  ======================
    name               what it is                                                             train/validation/test
    =================  =====================================================================  ======================
    ``digits``         handwritten digits, 1x8x8, shipped with scikit-learn                   1,197/240/360
    ``mnist1d``        1-D digits, 1x40, made by the package ``mnist1d`` (arXiv 2011.14439)   3,500/500/1,000
    ``fashion-mnist``  pictures of clothes, 1x28x28 (arXiv 1708.07747)                        55,000/5,000/10,000
    ``mnist``          handwritten digits, 1x28x28 (LeCun et al., 1998)                       55,000/5,000/10,000
    ``mnist-10k``      MNIST's test digits alone, divided anew: not comparable with MNIST     7,000/1,000/2,000
    ``cifar10``        photographs, 3x32x32 (Krizhevsky, 2009)                                45,000/5,000/10,000
    ``cifar10-jpeg``   the same photographs re-encoded as JPEG: near, but not the same data   45,000/5,000/10,000
    =================  =====================================================================  ======================

    Args:
        source: a name from the table; or your own images: a folder with one subfolder of image files a class, the
            path of an ``.npz`` file with arrays ``x`` and ``y``, or a pair ``(x, y)`` of arrays or tensors. Here x is
            uint8 (0 to 255) or floating and finite, of shape (n, height, width), (n, channels, height, width) with 1
            or 3 channels, or (n, length), and y holds integers 0 .. K-1, each of them at least once. A string is taken
            for a path when it ends in ``.npz`` or has a path separator, as in ``./pictures``.
        validation: how many examples to hold out of the training part; None for the set's usual number (your own
            data: a tenth of all), 0 for none.
        test: for data without a published test part, how many examples to hold out for it; None for the set's usual
            number (your own data: a fifth of all).
        split: which of the fixed divisions into train and validation, 0, 1, 2 ...

    Returns:
        The data. ``x`` is float32 and in [0, 1]; ``mnist1d`` (about -5 to 5) and your own floating arrays keep their
        range.

    Raises:
        TypeError: an argument or array of a wrong type.
        ValueError: an unknown name, a number out of range, or data of your own that are not as described.
        MissingData: the set or path is not on this machine and cannot be fetched, or a file is not the right one.
        MissingExtra: a package the set comes from is not installed.
    """
    _check_count("split", split)
    for argument, count in (("validation", validation), ("test", test)):
        if count is not None:
            _check_count(argument, count)
    if isinstance(source, str) and not _is_path(source):
        found = _named(source)
    elif isinstance(source, str | os.PathLike):
        from etude.data.own_images import read_path

        path = Path(source).expanduser()
        found = _own(path.stem, *read_path(path))
    elif isinstance(source, tuple) and len(source) == 2:
        from etude.data.own_images import check_arrays, class_names

        raw = check_arrays(*source)
        found = _own("arrays", raw, class_names(raw), "arrays in memory")
    else:
        raise TypeError(f"source must be a name, a path or a pair (x, y), not {type(source).__name__}")
    return _divided(found, found.validation if validation is None else validation, test, split)


@dataclass(frozen=True)
class _Found:
    """What `images` was asked for, read but not yet divided, with its usual sizes."""

    name: str
    raw: Raw
    classes: tuple[str, ...]
    where: str
    validation: int
    test: int | None


def _own(name: str, raw: Raw, classes: tuple[str, ...], where: str) -> _Found:
    return _Found(name, raw, classes, where, validation=round(len(raw.y) / 10), test=round(len(raw.y) / 5))


def _named(name: str) -> _Found:
    if name not in _ENTRIES:
        raise ValueError(
            f"source '{name}' is no known set of images ({', '.join(sorted(_ENTRIES))}).{suggest(name, _ENTRIES)}"
            " A path of your own is written with a separator, as in './pictures'."
        )
    entry = _ENTRIES[name]
    if entry.source.package:
        try:
            raw, where = entry.load({}), f"the installed package {entry.source.requirement}"
        except ImportError as error:
            what = f"the data set {name} comes with the package {entry.source.requirement}, which cannot be imported"
            raise MissingExtra(f"{what} ({error})", entry.source.remedy()) from error
    else:
        located = locate(entry.source)
        state = tuple((file, path, path.stat().st_mtime_ns) for file, path in located.paths.items())
        raw, where = _read(entry.load, state), located.where
    return _Found(name, raw, entry.classes, where, entry.validation, entry.test)


@lru_cache(maxsize=1)
def _read(load: Callable[[dict[str, Path]], Raw], state: tuple[tuple[str, Path, int], ...]) -> Raw:
    # A process that runs trial after trial on one set decodes it once. Nothing that is handed out shares this memory.
    return load({file: path for file, path, _ in state})


def _divided(found: _Found, validation: int, test: int | None, split: int) -> ImageData:
    raw, train = found.raw, np.arange(len(found.raw.y))
    if raw.x_test is not None and raw.y_test is not None:
        if test is not None:
            raise ValueError(
                f"test cannot be chosen: {found.name} is published with a test part of {len(raw.y_test):,}"
            )
        test_part = _part(raw.x_test, raw.y_test)
    else:
        train, held = _hold_out("test", raw.y, train, (found.test or 0) if test is None else test, [0])
        test_part = _part(raw.x[held], raw.y[held])
    train, held = _hold_out("validation", raw.y, train, validation, [1, split])
    return ImageData(
        name=found.name,
        train=_part(raw.x[train], raw.y[train]),
        validation=_part(raw.x[held], raw.y[held]),
        test=test_part,
        classes=found.classes,
        source=found.where,
    )


def _hold_out(
    argument: str, y: np.ndarray, among: np.ndarray, count: int, seed: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Divide indices ``among`` into the rest and ``count`` held out."""
    _check_count(argument, count, 0, len(among) - 1)
    # A bit generator's raw stream is promised never to change; a generator's permutation() is not.
    order = np.argsort(np.random.PCG64(seed).random_raw(len(among)), kind="stable")
    rest, taken = _divide(y[among], count, order)
    emptied = np.setdiff1d(y[among], y[among][rest])
    if emptied.size:
        raise ValueError(f"{argument}={count} leaves no training example of class {emptied[0]}")
    return among[rest], among[taken]


def _divide(y: np.ndarray, count: int, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take ``count`` examples, from each class in proportion to its size, the first ones in ``order``.

    Whole shares are taken first; what remains goes to the classes with the largest remainders, lower classes first.

    Returns:
        The indices of the rest and of those taken, both in the order given.
    """
    sizes = np.bincount(y)
    shares, remainders = np.divmod(count * sizes, max(len(y), 1))
    shares[np.argsort(-remainders, kind="stable")[: count - shares.sum()]] += 1
    labels = y[order]
    rank = np.empty(len(y), dtype=np.int64)  # of each example among those of its class
    rank[np.argsort(labels, kind="stable")] = np.arange(len(y)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    taken = rank < shares[labels]
    return order[~taken], order[taken]


def _part(x: np.ndarray, y: np.ndarray) -> Part:
    import torch

    with warnings.catch_warnings():
        # torch warns that an array is read-only, as those that view a file's bytes are; it is copied at once
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        numbers = torch.from_numpy(x)
    pixels = numbers.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if numbers.dtype == torch.uint8:
        pixels /= 255
    return Part(pixels if pixels.ndim == 4 else pixels.unsqueeze(1), torch.from_numpy(y.astype(np.int64)))


def _is_path(source: str) -> bool:
    return source.endswith(".npz") or os.sep in source or "/" in source


def _check_count(argument: str, count: object, low: int = 0, high: int | None = None) -> None:
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{argument} must be an integer, not {type(count).__name__}")
    if count < low or (high is not None and count > high):
        allowed = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{argument} must be {allowed}, not {count}")
