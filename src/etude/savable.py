"""Results of methods as files: a dataclass of tensors, numbers and text goes to one safetensors file and comes back."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Self

from torch import Tensor

__all__ = ["Savable"]


class Savable:
    """Base of dataclasses that can be saved: fields of tensors, numbers, text, None, each other, and nests of them.

    Nothing is pickled: tensors are stored as they are, on the processor, and the rest as JSON in the file's header. ::

        found = match_units(moments)
        found.save("match.safetensors")
        again = UnitMatch.load("match.safetensors")
    """

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to a safetensors file, which is there whole or not at all.

        Args:
            path: of the file.

        Raises:
            TypeError: a field that cannot be written, named.
        """
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        described = _described(self, "", tensors)
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            save_file(tensors, temporary, metadata={"etude": json.dumps(described)})
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read what `save` wrote, onto the processor.

        Args:
            path: of the file.

        Raises:
            ValueError: the file holds something else, named.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                described = json.loads((file.metadata() or {}).get("etude", "null"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a handle, no mapping)
        except SafetensorError as error:
            raise ValueError(f"path: {path} is no safetensors file ({error})") from error
        held = described.get("class", "no result of a method") if isinstance(described, dict) else "tensors alone"
        known = {each.__name__: each for each in (cls, *_descendants(cls))}
        if held not in known:
            raise ValueError(f"path: {path} holds {held}; a file that {cls.__name__}.save wrote is accepted")
        found: Self = _restored(described, tensors)
        return found


def _descendants(cls: type) -> Iterator[type]:
    for each in cls.__subclasses__():
        yield each
        yield from _descendants(each)


def _described(value: Any, where: str, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON; tensors go to a mapping and stand there by name."""
    match value:
        case Tensor():
            tensors[where] = value.detach().cpu().contiguous().clone()  # clone: shared storage is refused
            return {"tensor": where}
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"float": repr(value)}
        case tuple() | list():
            return {"items": [_described(v, f"{where}.{n}", tensors) for n, v in enumerate(value)],
                    "tuple": isinstance(value, tuple)}  # fmt: skip
        case Mapping():
            pairs = [[_described(k, where, tensors), _described(v, f"{where}.{k}", tensors)] for k, v in value.items()]
            return {"pairs": pairs}
        case Savable():
            fields = {
                field.name: _described(getattr(value, field.name), f"{where}.{field.name}".lstrip("."), tensors)
                for field in dataclasses.fields(value)  # type: ignore[arg-type]
            }
            return {"class": type(value).__name__, "fields": fields}
    raise TypeError(f"{where}: a {type(value).__name__} cannot be saved; tensors, numbers, text and nests of them can")


def _restored(described: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(described, dict):
        return described
    if "tensor" in described:
        return tensors[described["tensor"]]
    if "float" in described:
        return float(described["float"])
    if "items" in described:
        items = [_restored(item, tensors) for item in described["items"]]
        return tuple(items) if described["tuple"] else items
    if "pairs" in described:
        return {_restored(key, tensors): _restored(value, tensors) for key, value in described["pairs"]}
    known = {each.__name__: each for each in _descendants(Savable)}
    return known[described["class"]](**{k: _restored(v, tensors) for k, v in described["fields"].items()})
