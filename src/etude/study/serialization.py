"""Values as hashes and as files: what `lab.cached` keys by and keeps, and what `lab.save` and checkpoints write.

`fingerprint` and `encode` describe a value by the same tree of JSON data. Lists, texts and numbers are written out in
it. Arrays, tensors and tables stand in files beside it (safetensors, ``.npy``, Parquet), or for a fingerprint as hashes
of their bytes. Nothing is pickled, and nothing read back can run code beyond importing the dataclasses it names.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import functools
import hashlib
import importlib
import inspect
import io
import json
import math
import re
import sys
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
import safetensors

from etude.study.code_key import address, code_key

Node = Any
"""JSON data: None, bool, int, float, str, a list of nodes, or an object whose first key tells its kind."""

VALUE, TENSORS = "value.json", "tensors.safetensors"
FORMAT = 1

ACCEPTED = (
    "numbers, strings, bytes, None, tuples, lists, dicts and sets of them, dataclasses, pydantic models, NumPy arrays, "
    "torch tensors and pandas tables"
)

# The names that safetensors gives to what it can hold. Other arrays become .npy files.
_SAFE = {
    **{"bool": "BOOL", "float16": "F16", "float32": "F32", "float64": "F64", "bfloat16": "BF16"},
    **{"int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64"},
    **{"uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64"},
    **{"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"},
}
_NAMES = {safe: name for name, safe in _SAFE.items()}
_ITEM_SIZE = {safe: 1 if safe == "BOOL" else int(re.sub(r"^[A-Z]+|_.*", "", safe)) // 8 for safe in _NAMES}


def fingerprint(value: Any, name: str = "argument") -> str:
    """Hash of a value: equal for equal values, in every process and on every machine.

    The order of dict entries and set elements does not count; the types of numbers do (1, 1.0 and True differ), as do
    the dtype and shape of arrays and the row and column order of tables. The device of a tensor does not. Functions and
    classes are hashed by their `code_key`, data sets by their property ``checksum``.

    Args:
        value: a nesting of numbers, strings, bytes, None, tuples, lists, dicts, sets, dataclasses, pydantic models,
            NumPy arrays and scalars, torch tensors, pandas tables, functions and classes of modules (also in a
            `functools.partial`), and objects with a text ``checksum``.
        name: what errors call the value.

    Returns:
        64 hexadecimal digits (SHA-256).

    Raises:
        TypeError: a value of another kind; the message says where in the value.
        ValueError: a value that contains itself.
    """
    return hashlib.sha256(_dump(_Hashes().node(value, name))).hexdigest()


def encode(value: Any) -> dict[str, bytes]:
    """A value as files.

    Args:
        value: as for `fingerprint`, without functions, and dataclasses and models only of classes defined at the top
            level of a module. Tensors are kept without device, gradient and shared storage.

    Returns:
        File name -> content: ``value.json``, and where needed ``tensors.safetensors``, ``array-N.npy`` and
        ``table-N.parquet``.

    Raises:
        TypeError: a value of another kind; the message says where in the value.
        ValueError: a value that contains itself.
    """
    files = _Files()
    content = {"format": FORMAT, "value": files.node(value, "value")}
    written = files.written()
    content["files"] = {file: hashlib.sha256(data).hexdigest() for file, data in written.items()}
    return {VALUE: _dump(content | {"sha256": hashlib.sha256(_dump(content)).hexdigest()}, sort_keys=False), **written}


def decode(files: Mapping[str, bytes]) -> Any:
    """The value that `encode` wrote.

    Args:
        files: file name -> content.

    Returns:
        An equal value: the same types, dict order, dtypes and shapes; tensors on the processor.

    Raises:
        ValueError: a file is missing or damaged, or names a class that is not there any more; the message names the
            file.
    """
    if VALUE not in files:
        raise ValueError(f"{VALUE} is missing")
    try:
        content = json.loads(files[VALUE])
        checksum = content.pop("sha256")
        if content["format"] != FORMAT:
            raise ValueError(f"{VALUE} is of format {content['format']!r}; this version reads format {FORMAT}")
        if checksum != hashlib.sha256(_dump(content)).hexdigest():
            raise KeyError("sha256")
        node, hashes = content["value"], dict(content["files"])
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{VALUE} is damaged") from error
    for file, expected in hashes.items():
        if file not in files:
            raise ValueError(f"{file} is missing")
        if hashlib.sha256(files[file]).hexdigest() != expected:
            raise ValueError(f"{file} is damaged: its content is not what was written")
    try:
        return _Reading({file: files[file] for file in hashes}).value(node)
    except _Damaged:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{VALUE} is damaged: it does not describe a value") from error


def _dump(node: Node, sort_keys: bool = True) -> bytes:
    return json.dumps(node, sort_keys=sort_keys, separators=(",", ":"), allow_nan=False).encode()


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Elements:
    """An array, a NumPy scalar or a tensor (`kind`), with its bytes in C order.

    `dtype` is a name known to `_SAFE` or one that only says which it is; those arrays go by `array`.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes
    array: np.ndarray[Any, Any] | None


class _Walk:
    """Describes a value as a tree of nodes; what is too large for the tree goes to the methods of a subclass."""

    def __init__(self) -> None:
        self.inside: set[int] = set()

    def elements(self, elements: _Elements, where: str) -> Node:
        raise NotImplementedError

    def frame(self, frame: Any, where: str) -> Node:
        raise NotImplementedError

    def other(self, value: Any, where: str) -> Node:
        raise NotImplementedError

    def entries(self, pairs: list[tuple[Node, Node]]) -> list[tuple[Node, Node]]:
        """The entries of a dict in the order to write them."""
        return pairs

    def check_class(self, value: Any, where: str) -> None:
        """Refuse an object that could not be read back."""

    def node(self, value: Any, where: str) -> Node:
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            # Python limits how many decimal digits it reads; hexadecimal has no limit.
            return value if abs(value) < 2**63 else {"int": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if kind is bytes:
            return {"bytes": base64.b64encode(value).decode()}
        if id(value) in self.inside:
            raise ValueError(f"{where} contains itself")
        self.inside.add(id(value))
        try:
            return self.compound(value, kind, where)
        finally:
            self.inside.discard(id(value))

    def compound(self, value: Any, kind: Any, where: str) -> Node:
        torch, pandas, pydantic = (sys.modules.get(name) for name in ("torch", "pandas", "pydantic"))
        if kind is list:
            return [self.node(item, f"{where}[{index}]") for index, item in enumerate(value)]
        if kind is tuple or (torch is not None and kind is torch.Size):
            return {"tuple": [self.node(item, f"{where}[{index}]") for index, item in enumerate(value)]}
        if kind is dict or kind is OrderedDict:  # the latter for state_dict()
            for key in value:
                if type(key) not in (str, int, float, bool):
                    raise TypeError(f"{where} has the key {key!r}; keys may be strings, numbers and booleans")
            pairs = [(self.node(key, where), self.node(item, f"{where}[{key!r}]")) for key, item in value.items()]
            return {"dict": [list(pair) for pair in self.entries(pairs)]}
        if kind is set or kind is frozenset:
            for item in value:
                if item is not None and type(item) not in (str, int, float, bool, bytes):
                    raise TypeError(f"{where} holds a {type(item).__name__}; sets may hold numbers, strings and bytes")
            return {kind.__name__: sorted((self.node(item, where) for item in value), key=_dump)}
        if isinstance(value, np.generic | np.ndarray):
            return self.numpy(value, where)
        if torch is not None and isinstance(value, torch.Tensor):
            return self.elements(_tensor_elements(torch, value, where), where)
        if torch is not None and isinstance(value, torch.nn.Module):
            raise TypeError(
                f"{where} is a {kind.__name__}, a torch module; pass its state_dict() or build it inside the function"
            )
        if pandas is not None and isinstance(value, pandas.DataFrame):
            return {"table": self.frame(value, where)}
        if pandas is not None and isinstance(value, pandas.Series):
            name = self.node(value.name, f"{where}.name")
            return {"series": self.frame(pandas.DataFrame({"values": value}, copy=False), where), "name": name}
        names: list[str] | None = None
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
        elif pydantic is not None and isinstance(value, pydantic.BaseModel):
            names = [*kind.model_fields, *(value.model_extra or ())]
        if names is None:
            return self.other(value, where)
        self.check_class(value, where)
        if missing := [name for name in names if not hasattr(value, name)]:
            raise TypeError(f"{where}.{missing[0]} of the {kind.__name__} was never set")
        fields = {name: self.node(getattr(value, name), f"{where}.{name}") for name in names}
        return {"object": f"{kind.__module__}:{kind.__qualname__}", "fields": fields}

    def numpy(self, value: Any, where: str) -> Node:
        if isinstance(value, np.str_ | np.bytes_):  # as an array they would lose null characters at the end
            return {"numpy": type(value).__name__, "of": self.node(value[:], where)}
        array = np.asarray(value)
        if type(value) not in (np.ndarray, np.memmap) and not isinstance(value, np.generic):
            raise TypeError(f"{where} is a {type(value).__name__}; pass a plain array")
        if array.dtype.hasobject or array.dtype.isbuiltin == 2:
            raise TypeError(f"{where} is an array of dtype {array.dtype}; pass one of numbers, text or times")
        array = np.ascontiguousarray(array).reshape(array.shape)
        descr = np.lib.format.dtype_to_descr(array.dtype)
        name = array.dtype.name if array.dtype.name in _SAFE and array.dtype.isnative else json.dumps(descr)
        kind = "scalar" if isinstance(value, np.generic) else "array"
        return self.elements(_Elements(kind, name, array.shape, array.tobytes(), array), where)


def _tensor_elements(torch: Any, tensor: Any, where: str) -> _Elements:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise TypeError(f"{where} is a sparse, quantized or meta tensor; pass a dense one")
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    dtype = str(tensor.dtype).removeprefix("torch.")
    array = None
    if dtype in _SAFE:
        # Only fresh memory can always be viewed as bytes: a contiguous tensor may have any stride along an axis of
        # length 0 or 1.
        fresh = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.reshape(-1))
        data = fresh.view(torch.uint8).numpy().tobytes()
    elif tensor.dtype.is_complex and dtype != "complex32":
        array = tensor.numpy()
        data = array.tobytes()
    else:
        raise TypeError(f"{where} is a tensor of dtype {dtype}, which cannot be kept; convert it")
    return _Elements("tensor", dtype, tuple(tensor.shape), data, array)


def _refused(value: Any, where: str, accepted: str) -> TypeError:
    remedy = ""
    if isinstance(value, PurePath):
        remedy = " A path says nothing of what the file holds: pass its content, a checksum, or str(path)."
    elif isinstance(value, enum.Enum):
        remedy = " Pass its value."
    elif isinstance(value, tuple | list | dict | str | int | float):
        remedy = " Convert it to the plain type, or make it a dataclass."
    return TypeError(f"{where} is a {type(value).__name__}; accepted are {accepted}.{remedy}")


class _Hashes(_Walk):
    """For `fingerprint`: contents as hashes, entries sorted."""

    def elements(self, elements: _Elements, where: str) -> Node:
        return {
            elements.kind: elements.dtype,
            "shape": elements.shape,
            "data": hashlib.sha256(elements.data).hexdigest(),
        }

    def compound(self, value: Any, kind: Any, where: str) -> Node:
        # A data set is a checksum even if it is a dataclass of arrays; a *field* of that name is one field of several.
        if isinstance(inspect.getattr_static(kind, "checksum", None), property | functools.cached_property):
            return self.data_set(value, where)
        return super().compound(value, kind, where)

    def data_set(self, value: Any, where: str) -> Node:
        checksum = value.checksum
        if not isinstance(checksum, str):
            raise TypeError(f"{where}.checksum is a {type(checksum).__name__}; it must be a string")
        return {"data set": f"{type(value).__module__}:{type(value).__qualname__}", "checksum": checksum}

    def entries(self, pairs: list[tuple[Node, Node]]) -> list[tuple[Node, Node]]:
        return sorted(pairs, key=lambda pair: _dump(pair[0]))

    def frame(self, frame: Any, where: str) -> Node:
        index = frame.index.to_frame(index=False)
        axes = [list(frame.index.names), list(frame.columns.names), list(frame.columns)]
        columns = [
            self.column(part.iloc[:, position], f"{where}[{part.columns[position]!r}]")
            for part in (index, frame)
            for position in range(part.shape[1])
        ]
        return {"axes": self.node(axes, f"{where}.columns"), "rows": len(frame), "columns": columns}

    def column(self, column: Any, where: str) -> Node:
        pandas = sys.modules["pandas"]
        values: Node
        if isinstance(column.dtype, pandas.CategoricalDtype):
            categories = self.column(column.cat.categories.to_series(), f"{where}.categories")
            codes = self.numpy(column.cat.codes.to_numpy(), where)
            return {"codes": codes, "categories": categories, "ordered": bool(column.cat.ordered)}
        if isinstance(column.dtype, pandas.DatetimeTZDtype):
            values = self.numpy(column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(), where)
        elif isinstance(column.dtype, np.dtype) and not column.dtype.hasobject:
            array = column.to_numpy()
            if array.dtype.kind == "f":  # a table knows one NaN only: Parquet keeps neither its sign nor its payload
                array = np.where(np.isnan(array), array.dtype.type(np.nan), array)
            values = self.numpy(array, where)
        else:
            values = [
                {"missing": type(cell).__name__}
                if cell is pandas.NA or cell is pandas.NaT
                else self.node(cell, f"{where}[{row}]")
                for row, cell in enumerate(column)
            ]
        return {"dtype": str(column.dtype), "values": values}

    def other(self, value: Any, where: str) -> Node:
        if isinstance(value, functools.partial):
            return {
                "partial": self.node(value.func, f"{where}.func"),
                "args": self.node(value.args, f"{where}.args"),
                "keywords": self.node(value.keywords, f"{where}.keywords"),
            }
        if isinstance(value, type | FunctionType | BuiltinFunctionType):
            try:
                return {"code": code_key(address(value))}
            except (TypeError, ValueError) as error:
                raise TypeError(f"{where}: {error}") from error
        definition = sys.modules.get("etude.study.definition")
        if definition is not None and isinstance(value, definition.Reference):
            return {"reference": value.address, "code": code_key(value.address)}
        if isinstance(getattr(value, "checksum", None), str):
            return self.data_set(value, where)
        raise _refused(value, where, f"{ACCEPTED}, functions of modules, and data sets with a text `checksum`")


class _Files(_Walk):
    """For `encode`: contents as files."""

    def __init__(self) -> None:
        super().__init__()
        self.safe: list[_Elements] = []
        self.more: dict[str, bytes] = {}

    def written(self) -> dict[str, bytes]:
        return ({TENSORS: _safetensors(self.safe)} if self.safe else {}) | self.more

    def add(self, pattern: str, data: bytes) -> str:
        name = pattern.replace("N", str(sum(file.endswith(pattern[-4:]) for file in self.more)))
        self.more[name] = data
        return name

    def elements(self, elements: _Elements, where: str) -> Node:
        if elements.dtype in _SAFE:
            self.safe.append(elements)
            return {elements.kind: str(len(self.safe) - 1), "in": TENSORS}
        buffer = io.BytesIO()
        assert elements.array is not None
        np.lib.format.write_array(buffer, elements.array, allow_pickle=False)
        return {elements.kind: "", "in": self.add("array-N.npy", buffer.getvalue())}

    def frame(self, frame: Any, where: str) -> Node:
        import pyarrow
        import pyarrow.parquet

        buffer = io.BytesIO()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what is announced as lossy is refused below
                pyarrow.parquet.write_table(pyarrow.Table.from_pandas(frame), buffer)
            back = _read_table(buffer.getvalue())
        except (pyarrow.ArrowException, ValueError, TypeError, KeyError, OverflowError) as error:
            raise TypeError(f"{where} is a table that Parquet cannot keep: {error}") from error
        for part, same in {
            "labels": back.columns.equals(frame.columns) and back.columns.names == frame.columns.names,
            "index": back.index.equals(frame.index) and back.index.names == frame.index.names,
        }.items():
            if not same:
                raise TypeError(f"{where} is a table whose {part} Parquet cannot keep; use texts, one type throughout")
        for label in frame.columns:
            if not back[label].equals(frame[label]):
                raise TypeError(
                    f"{where}[{label!r}] is a column of {frame[label].dtype} that Parquet cannot keep exactly"
                )
        return self.add("table-N.parquet", buffer.getvalue())

    def check_class(self, value: Any, where: str) -> None:
        kind = type(value)
        found = getattr(sys.modules.get(kind.__module__), kind.__qualname__, None)
        if found not in kind.__mro__:
            raise TypeError(
                f"{where} is a {kind.__qualname__}, which is not defined at the top level of a module and so could not "
                "be read back"
            )

    def other(self, value: Any, where: str) -> Node:
        raise _refused(value, where, ACCEPTED)


def _safetensors(elements: list[_Elements]) -> bytes:
    # The package's own writers take either NumPy's arrays or torch's, never both in one file.
    header: dict[str, Any] = {}
    blocks: list[bytes] = []
    offset = 0
    # The widest elements first, so that every array starts at a multiple of its element size.
    for index, one in sorted(enumerate(elements), key=lambda item: -_ITEM_SIZE[_SAFE[item[1].dtype]]):
        place = [offset, offset + len(one.data)]
        header[str(index)] = {"dtype": _SAFE[one.dtype], "shape": one.shape, "data_offsets": place}
        blocks.append(one.data)
        offset = place[1]
    text = _dump(header, sort_keys=False)
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *blocks])


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def _read_table(data: bytes) -> Any:
    import pyarrow
    import pyarrow.parquet

    return pyarrow.parquet.read_table(pyarrow.BufferReader(data)).to_pandas()


class _Reading:
    """Builds values from nodes and the files beside them."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.safe: dict[str, dict[str, Any]] | None = None

    def value(self, node: Node) -> Any:
        if node is None or isinstance(node, bool | int | float | str):
            return node
        if isinstance(node, list):
            return [self.value(item) for item in node]
        kind = next(iter(node), None)
        content = node[kind]
        if kind == "int":
            return int(content, 16)
        if kind == "float":
            return float(content)
        if kind == "bytes":
            return base64.b64decode(content, validate=True)
        if kind == "tuple":
            return tuple(self.value(item) for item in content)
        if kind == "dict":
            return {self.value(key): self.value(item) for key, item in content}
        if kind in ("set", "frozenset"):
            items = (self.value(item) for item in content)
            return set(items) if kind == "set" else frozenset(items)
        if kind == "numpy":
            return {"str_": np.str_, "bytes_": np.bytes_}[content](self.value(node["of"]))
        if kind in ("array", "scalar", "tensor"):
            return self.elements(kind, content, node["in"])
        if kind == "table":
            return self.table(content)
        if kind == "series":
            return self.table(content)["values"].rename(self.value(node["name"]))
        if kind == "object":
            return self.instance(content, {name: self.value(item) for name, item in node["fields"].items()})
        raise KeyError(kind)

    def elements(self, kind: str, name: str, file: str) -> Any:
        if file == TENSORS:
            stored = self.tensors()[name]
            dtype, shape, data = _NAMES[stored["dtype"]], stored["shape"], stored["data"]
            if kind == "tensor":
                import torch

                # An empty buffer is refused by frombuffer.
                flat = torch.frombuffer(data, dtype=getattr(torch, dtype)) if data else torch.empty(0)
                return flat.to(getattr(torch, dtype)).reshape(shape)
            array = np.frombuffer(data, dtype=dtype).reshape(shape)
        else:
            try:
                array = np.lib.format.read_array(io.BytesIO(self.files[file]), allow_pickle=False)
            except (ValueError, EOFError) as error:
                raise _Damaged(f"{file} is damaged: {error}") from error
            if kind == "tensor":
                import torch

                return torch.from_numpy(array)
        return array[()] if kind == "scalar" else array

    def tensors(self) -> dict[str, dict[str, Any]]:
        if self.safe is None:
            try:
                deserialize: Any = safetensors.deserialize
                self.safe = dict(deserialize(self.files[TENSORS]))
            except safetensors.SafetensorError as error:
                raise _Damaged(f"{TENSORS} is damaged: {error}") from error
        return self.safe

    def table(self, file: str) -> Any:
        try:
            return _read_table(self.files[file])
        except (ValueError, OSError) as error:  # pyarrow's errors are of these kinds
            raise _Damaged(f"{file} is damaged: {error}") from error

    def instance(self, label: str, fields: dict[str, Any]) -> Any:
        module, _, name = label.partition(":")
        try:
            kind: Any = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise _Damaged(f"{VALUE} names the class {label}, which is not there: {error}") from error
        extra: dict[str, Any] = {}
        of_dataclass = isinstance(kind, type) and dataclasses.is_dataclass(kind)
        if of_dataclass:
            names = {field.name for field in dataclasses.fields(kind)}
        elif hasattr(kind, "model_construct"):
            names = set(kind.model_fields)
            if kind.model_config.get("extra") == "allow":
                extra = {name: fields.pop(name) for name in fields.keys() - names}
        else:
            raise _Damaged(f"{VALUE} names {label}, which is neither a dataclass nor a pydantic model")
        if fields.keys() != names:
            different = ", ".join(sorted(fields.keys() ^ names))
            raise _Damaged(f"{VALUE} holds a {label} whose fields have changed since: {different}")
        # No __init__ and no validation: the object passed them when it was made.
        made = object.__new__(kind) if of_dataclass else kind.model_construct(**extra)
        for name, item in fields.items():
            object.__setattr__(made, name, item)  # also if the class is frozen
        return made


class _Damaged(ValueError):
    """A message that names the file already."""
