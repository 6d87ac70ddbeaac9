"""Values come back as they were, and different values have different fingerprints."""

import dataclasses
import enum
import functools
import hashlib
import json
import math
import subprocess
import sys
from collections import OrderedDict, namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pydantic
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from etude.study.code_key import code_key
from etude.study.serialization import decode, encode, fingerprint


@dataclasses.dataclass(frozen=True)
class Result:
    accuracy: float
    masks: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    steps: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass(slots=True)
class Slotted:
    x: object
    y: object = None


class Settings(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True)
    rate: float = 0.1
    layers: tuple[int, ...] = (3,)


class Open(pydantic.BaseModel, extra="allow"):
    x: int


class DataSet:
    def __init__(self, checksum: object) -> None:
        self.checksum = checksum


@dataclasses.dataclass
class ArraySet:
    images: object

    @property
    def checksum(self) -> str:
        return hashlib.sha256(bytes(self.images)).hexdigest()


def helper(x):
    return x


def other_helper(x):
    return -x


def same(a: object, b: object) -> bool:
    """Equality with types, dtypes and shapes, NaN equal to NaN and 0.0 unequal to -0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, set | frozenset):
        return sorted(map(repr, a)) == sorted(map(repr, b))
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, torch.Tensor):
        same_kind = a.dtype == b.dtype and a.shape == b.shape
        return same_kind and a.flatten().tolist().__repr__() == b.flatten().tolist().__repr__()
    if isinstance(a, Slotted):
        return same([a.x, a.y], [b.x, b.y])
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b)
        return True
    return a == b


def round_trip(value: object) -> object:
    return decode(encode(value))


# Strategies -----------------------------------------------------------------------------------------------------------

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters()), st.binary())
keys = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False), st.text())
dtypes = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(sizes=(16, 32, 64), endianness="?"),
    hnp.complex_number_dtypes(sizes=(64, 128)),
    hnp.datetime64_dtypes(),
    hnp.timedelta64_dtypes(),
    hnp.unicode_string_dtypes(),
    hnp.byte_string_dtypes(),
)
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
number_arrays = hnp.arrays(
    st.sampled_from(["?", "i1", "i2", "i4", "i8", "u1", "f2", "f4", "f8", "c8", "c16"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
tensors = number_arrays.map(lambda array: torch.from_numpy(np.array(array)))
columns = st.sampled_from(["int64", "float32", "bool", "str"]).flatmap(
    lambda kind: st.lists(
        {"int64": st.integers(-9, 9), "float32": st.floats(width=32), "bool": st.booleans()}.get(kind, st.text("ab")),
        min_size=3,
        max_size=3,
    ).map(lambda values: pd.Series(values, dtype=kind))
)
tables = st.dictionaries(st.text("abc", min_size=1), columns, min_size=1, max_size=3).map(pd.DataFrame)
leaves = st.one_of(scalars, arrays, arrays.filter(lambda a: a.ndim == 0).map(lambda a: a[()]), tensors, tables)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
        st.sets(scalars, max_size=3),
        st.frozensets(scalars, max_size=3),
        st.builds(Slotted, inner, inner),
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=150)
@given(values)
def test_round_trip(value):
    files = encode(value)
    back = decode(files)
    assert same(value, back)
    assert fingerprint(back) == fingerprint(value)
    assert encode(back) == files


@settings(deadline=None, max_examples=150)
@given(values, values)
def test_a_fingerprint_belongs_to_one_value(a, b):
    try:
        equal = same(a, b)
    except AssertionError:
        equal = False
    if not equal:
        # Dict order is the one difference that does not count.
        assert fingerprint(a) != fingerprint(b) or encode(sorted_dicts(a)) == encode(sorted_dicts(b))
    else:
        assert fingerprint(a) == fingerprint(b)


def sorted_dicts(value):
    if isinstance(value, dict):
        return {key: sorted_dicts(value[key]) for key in sorted(value, key=lambda key: (type(key).__name__, repr(key)))}
    if isinstance(value, list | tuple):
        return type(value)(map(sorted_dicts, value))
    if isinstance(value, Slotted):
        return Slotted(sorted_dicts(value.x), sorted_dicts(value.y))
    return value


@settings(deadline=None)
@given(st.dictionaries(keys, scalars, min_size=2, max_size=5), st.randoms())
def test_dict_order_is_kept_and_does_not_count_in_the_fingerprint(mapping, random):
    items = list(mapping.items())
    random.shuffle(items)
    assert fingerprint(dict(items)) == fingerprint(mapping)
    assert list(round_trip(dict(items))) == [key for key, _ in items]


NEIGHBOURS = [
    *(None, False, 0, 0.0, -0.0, "", "0", b"", b"0", (), [], {}, set(), frozenset()),
    *(True, 1, 1.0, "1", "True", "None", math.nan, math.inf, -math.inf, "nan", 2**63, -(2**63), 2**64, float(2**63)),
    *([1], (1,), [[1]], [[], [1]], [1, 1], {1: 1}, {"1": 1}, {1.0: 1}, {True: 1}, {1}, frozenset([1]), {1.0}),
    *([["int", 1]], {"int": "0x1"}, {"tuple": []}, {"dict": []}, {"float": "nan"}, {"object": "x:Y", "fields": {}}),
    *(
        np.float64(1),
        np.float32(1),
        np.int64(1),
        np.int32(1),
        np.bool_(True),
        np.array(1),
        np.array([1]),
        np.ones((1, 1)),
    ),
    *(np.array(1.0), np.array([1.0], ">f8"), np.array(["1"]), np.array([b"1"]), np.str_("1"), np.bytes_(b"1")),
    *(np.array([1], "M8[D]"), np.array([1], "M8[s]"), np.array([(1, 2)], [("a", "i4"), ("b", "i4")])),
    *(np.array([(1, 2)], [("a", "i4"), ("c", "i4")]), np.zeros((0, 2)), np.zeros((2, 0)), np.str_("1\0")),
    *(torch.tensor(1), torch.tensor([1]), torch.tensor(1.0), torch.tensor(True), torch.tensor(1, dtype=torch.bfloat16)),
    *(torch.tensor(1, dtype=torch.float16), torch.zeros(0, 2), torch.zeros(2, 0), torch.tensor(1j)),
    *(pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1]}), pd.DataFrame({"a": [1.0]}), pd.DataFrame({"a": ["1"]})),
    *(pd.DataFrame({"a": [1]}, index=[3]), pd.DataFrame({"a": [1]}, index=pd.Index([0], name="n")), pd.Series([1])),
    *(pd.Series([1], name="a"), pd.DataFrame(), pd.DataFrame({"a": []}), pd.DataFrame({"a": pd.Categorical(["1"])})),
    *(pd.DataFrame({"a": [1], "b": [2]}), pd.DataFrame({"b": [2], "a": [1]}), pd.DataFrame({"a": [True]})),
    *(Slotted(1), Slotted(1.0), Slotted(None, 1), Result(1.0), Settings(), Settings(rate=0.2)),
]


def test_near_values_differ():
    prints = [fingerprint(value) for value in NEIGHBOURS]
    twins = [(NEIGHBOURS[i], NEIGHBOURS[j]) for i, a in enumerate(prints) for j, b in enumerate(prints[:i]) if a == b]
    assert twins == []


def test_equal_values_agree():
    tensor = torch.arange(6.0).reshape(2, 3)
    for a, b in [
        (math.nan, -math.nan),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": 1}, OrderedDict(a=1)),
        ({3, 1, 2}, {1, 2, 3}),
        (tensor, tensor.T.contiguous().T),
        (tensor, tensor.clone().requires_grad_()),
        (tensor, torch.nn.Parameter(tensor)),
        (tensor[0], tensor[:1].flatten()),
        (torch.tensor([1j]).conj(), torch.tensor([complex(0, -1)])),
        (tensor.shape, (2, 3)),
        (np.arange(6).reshape(2, 3).T, np.array([[0, 3], [1, 4], [2, 5]])),
        (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1]}, index=[0])),
        (pd.DataFrame({"a": [math.nan]}), pd.DataFrame({"a": [-math.nan]})),
        (functools.partial(helper, a=1, b=2), functools.partial(helper, b=2, a=1)),
    ]:
        assert fingerprint(a) == fingerprint(b)


def test_fingerprints_are_the_same_in_every_process():
    expression = "fingerprint([{'b': 1, 'a': {'x', 'y', 'z'}}, 1.5, np.arange(3), frozenset('abc')])"
    program = f"import numpy as np; from etude.study.serialization import fingerprint; print({expression})"
    source = str(Path(sys.modules["etude"].__file__).parents[1])
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": source},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert printed == {eval(expression)}


# Tensors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32),
        *(torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
        *(torch.float8_e4m3fn, torch.float8_e5m2),
    ],
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_every_dtype_and_shape_comes_back(dtype, shape):
    tensor = (torch.arange(math.prod(shape)).reshape(shape) % 2).to(dtype)
    back = round_trip({"x": tensor})["x"]
    assert back.dtype == dtype
    assert back.shape == tensor.shape
    assert torch.equal(back.to(torch.complex128), tensor.to(torch.complex128))


def test_tensors_come_back_plain_and_apart():
    weight = torch.nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    shared = {"a": weight, "b": weight, "part": weight[1:, ::2], "turned": weight.T, "wide": weight[:1].expand(5, 4)}
    back = round_trip(shared)
    for name, tensor in shared.items():
        assert torch.equal(back[name], tensor)
        assert type(back[name]) is torch.Tensor
        assert not back[name].requires_grad
        assert back[name].is_contiguous()
    back["a"].zero_()
    assert torch.equal(back["b"], weight)


def test_arrays_remember_that_they_were_numpy_and_can_be_written_to():
    back = round_trip([np.arange(3.0), torch.arange(3.0), np.float32(2)])
    assert [type(item) for item in back] == [np.ndarray, torch.Tensor, np.float32]
    back[0][0] = back[1][0] = 7.0


def test_a_state_dict_is_kept():
    state = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).state_dict()
    back = round_trip(state)
    assert list(back) == list(state)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_files_are_what_other_tools_read():
    from safetensors.torch import load

    files = encode({"w": torch.ones(2, dtype=torch.bfloat16), "n": np.arange(3), "t": np.array(["2020"], "M8[Y]")})
    assert files.keys() == {"value.json", "tensors.safetensors", "array-0.npy"}
    assert {str(tensor.dtype) for tensor in load(files["tensors.safetensors"]).values()} == {
        "torch.bfloat16",
        "torch.int64",
    }


def test_numpy_alone_does_not_load_torch_or_pandas():
    program = (
        "import sys, numpy as np; from etude.study.serialization import *;"
        "assert decode(encode([np.arange(3), 'x', np.array(['2020'], 'M8[Y]')]))[0][2] == 2;"
        "from etude.study.code_key import code_key; code_key('etude.errors:suggest');"
        "assert not {'torch', 'pandas', 'pyarrow', 'pydantic'} & sys.modules.keys(), sys.modules.keys()"
    )
    folder = Path(sys.modules["etude"].__file__).parent
    # The package `etude.study` itself may import more; what is tested is these two modules.
    stub = f"import sys, types; p = types.ModuleType('etude.study'); p.__path__ = [{str(folder / 'study')!r}];"
    subprocess.run(
        [sys.executable, "-c", f"{stub} sys.modules['etude.study'] = p; {program}"],
        env={"PYTHONPATH": str(folder.parent)},
        check=True,
    )


# Tables ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame(),
        pd.DataFrame({"a": [1, 2], "b": ["x", None]}),
        pd.DataFrame({"a": [1.5, np.nan]}, index=pd.MultiIndex.from_tuples([(1, "x"), (2, "y")], names=["i", "j"])),
        pd.DataFrame({"a": [1]}).iloc[:0],
        pd.DataFrame({1: [1], 5: [2]}, index=pd.Index([3], name="seed")),
        pd.DataFrame({"a": pd.Categorical(["x", "y"], categories=["y", "x", "z"], ordered=True)}),
        pd.DataFrame(
            {"a": pd.array([1, None], dtype="Int64"), "b": pd.date_range("2020", periods=2, tz="Europe/Berlin")}
        ),
        pd.DataFrame(np.eye(2), columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
        pd.DataFrame({"a": np.ones(2, "float16")}, index=range(4, 8, 2)),
    ],
)
def test_tables_come_back(table):
    pd.testing.assert_frame_equal(round_trip([table])[0], table)
    assert fingerprint(round_trip(table)) == fingerprint(table)


def test_series_come_back():
    for series in (
        pd.Series([1, 2], name="x", index=pd.Index([4, 5], name="seed")),
        pd.Series(["a"]),
        pd.Series([1.0], name=3),
    ):
        pd.testing.assert_series_equal(round_trip(series), series)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), r"value\['t'\] is a table that Parquet cannot keep: .*Duplicate"),
        (pd.DataFrame({"a": [1, "x"]}), r"value\['t'\] is a table that Parquet cannot keep"),
        (pd.DataFrame({"a": [[1], [2]]}), r"value\['t'\]\['a'\] is a column of object"),
        (pd.DataFrame({1: [1], "b": [2]}), r"value\['t'\] is a table whose labels"),
        (pd.DataFrame({"a": [1]}, index=pd.Index([1], name=3)), r"value\['t'\] is a table whose index"),
    ],
)
def test_tables_that_would_come_back_changed_are_refused(table, message):
    with pytest.raises(TypeError, match=message):
        encode({"t": table})


# Objects --------------------------------------------------------------------------------------------------------------


def test_dataclasses_come_back_field_by_field():
    result = Result(0.5, {"w": torch.ones(2, dtype=torch.bool)})
    object.__setattr__(result, "steps", 7)
    back = round_trip((result, Slotted(1)))
    assert type(back[0]) is Result
    assert back[0].accuracy == 0.5
    assert back[0].steps == 7
    assert torch.equal(back[0].masks["w"], result.masks["w"])
    assert back[1] == Slotted(1)


def test_models_come_back():
    back = round_trip([Settings(rate=0.3, layers=(1, 2)), Open(x=1, y="z")])
    assert back == [Settings(rate=0.3, layers=(1, 2)), Open(x=1, y="z")]
    assert [type(item) for item in back] == [Settings, Open]
    assert back[1].y == "z"
    assert fingerprint(Open(x=1, y=2)) != fingerprint(Open(x=1, y=3))


def test_functions_count_by_their_code_and_are_not_stored():
    assert fingerprint(helper) != fingerprint(other_helper) != fingerprint(Result)
    assert code_key(f"{__name__}:helper")
    assert fingerprint([functools.partial(helper, 1)]) != fingerprint([functools.partial(helper, 2)])
    assert fingerprint(functools.partial(helper, x=1)) != fingerprint(functools.partial(other_helper, x=1))
    assert fingerprint(torch.nn.functional.relu) != fingerprint(torch.nn.functional.gelu)
    assert fingerprint(torch.optim.SGD) != fingerprint(torch.optim.Adam)
    with pytest.raises(TypeError, match=r"value\[0\] is a function; accepted are numbers"):
        encode([helper])
    with pytest.raises(TypeError, match=r"train: .*top level of a module"):
        fingerprint(lambda x: x, "train")


def test_data_sets_count_by_their_checksum():
    assert fingerprint(DataSet("a")) == fingerprint(DataSet("a")) != fingerprint(DataSet("b"))
    first, second = ArraySet(np.arange(3, dtype="u1")), ArraySet([0, 1, 2])
    assert fingerprint(first) == fingerprint(second) != fingerprint(ArraySet([0, 1]))
    assert np.array_equal(round_trip(first).images, first.images)


# Refusals -------------------------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Path("x"), r"data\.images\[3\] is a .*Path; .*pass its content"),
        (Colour.RED, r"data\.images\[3\] is a Colour; .*Pass its value"),
        (Number.ONE, r"data\.images\[3\] is a Number; .*Pass its value"),
        (Pair(1, 2), r"data\.images\[3\] is a Pair; .*make it a dataclass"),
        (1j, r"data\.images\[3\] is a complex; accepted"),
        (object(), r"data\.images\[3\] is a object; accepted"),
        (range(3), r"data\.images\[3\] is a range"),
        (torch.Generator(), r"data\.images\[3\] is a Generator"),
        (torch.nn.Linear(1, 1), r"data\.images\[3\] is a Linear, a torch module; pass its state_dict\(\)"),
        (torch.eye(2).to_sparse(), r"data\.images\[3\] is a sparse"),
        (torch.empty(2, device="meta"), r"data\.images\[3\] is a sparse, quantized or meta"),
        (np.array([object()]), r"data\.images\[3\] is an array of dtype object"),
        (np.ma.masked_array([1], [True]), r"data\.images\[3\] is a MaskedArray"),
        ({(1, 2): 3}, r"data\.images\[3\] has the key \(1, 2\)"),
        ({None: 3}, r"data\.images\[3\] has the key None"),
        ({"a": [{"b": 1j}]}, r"data\.images\[3\]\['a'\]\[0\]\['b'\] is a complex"),
        ({(1, 2)}, r"data\.images\[3\] holds a tuple"),
        (DataSet(3), r"data\.images\[3\] is a DataSet"),
        (pd.DataFrame({"a": [object()]}), r"data\.images\[3\]\['a'\]\[0\] is a object"),
    ],
)
def test_refusals_name_the_place(value, message):
    with pytest.raises(TypeError, match=message):
        fingerprint(ImageFolder([0, 0, 0, value]), "data")
    with pytest.raises(TypeError):
        encode(value)


@dataclasses.dataclass
class ImageFolder:
    images: list[object]


def test_values_that_contain_themselves_are_refused():
    loop: list[object] = []
    loop.append({"x": loop})
    for function in (fingerprint, encode):
        with pytest.raises(ValueError, match=r"\[0\]\['x'\] contains itself"):
            function(loop)
    again = [1]
    assert round_trip([again, again]) == [[1], [1]]


def test_classes_that_could_not_be_found_again_are_refused():
    @dataclasses.dataclass
    class Local:
        x: int = 1

    with pytest.raises(TypeError, match=r"value\[0\] is a .*Local.*not defined at the top level"):
        encode([Local()])
    incomplete = object.__new__(Slotted)
    incomplete.x = 1
    with pytest.raises(TypeError, match=r"value\.y of the Slotted was never set"):
        encode(incomplete)


# Damage ---------------------------------------------------------------------------------------------------------------

STORED = encode({"t": torch.ones(2), "c": np.array([1j]), "f": pd.DataFrame({"a": [1]}), "x": [1, 2.5, "s"]})


def test_a_missing_file_is_named():
    assert len(STORED) == 4
    for file in STORED:
        with pytest.raises(ValueError, match=f"{file} is missing"):
            decode({name: data for name, data in STORED.items() if name != file})


@settings(deadline=None)
@given(st.data())
def test_every_damage_is_noticed(data):
    file = data.draw(st.sampled_from(sorted(STORED)))
    content = bytearray(STORED[file])
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= data.draw(st.integers(1, 255))
    else:
        del content[place:]
    if file == "value.json":
        try:  # white space or another spelling of the same JSON is no damage
            if json.loads(bytes(content)) == json.loads(STORED[file]):
                return
        except ValueError:
            pass
    with pytest.raises(ValueError, match=file):
        decode(STORED | {file: bytes(content)})


def resealed(change) -> dict[str, bytes]:
    """The stored files with `value.json` changed and its checksum made to fit."""
    content = json.loads(encode(Slotted(torch.ones(2), (1,)))["value.json"])
    del content["sha256"]
    change(content)
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    content["sha256"] = hashlib.sha256(text).hexdigest()
    return encode(Slotted(torch.ones(2), (1,))) | {"value.json": json.dumps(content).encode()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=2), "value.json is of format 2"),
        (lambda c: c.update(value={"pickle": "x"}), "value.json is damaged: it does not describe a value"),
        (lambda c: c.update(value={}), "value.json is damaged: it does not describe a value"),
        (lambda c: c["value"].update(object="gone_module:X"), "value.json names the class gone_module:X"),
        (lambda c: c["value"].update(object="os:path"), "os:path, which is neither a dataclass nor"),
        (lambda c: c["value"].update(object="os:gone"), "os:gone, which is not there"),
        (lambda c: c["value"]["fields"].update(z=1), "whose fields have changed since: z"),
        (lambda c: c["value"]["fields"].pop("x"), "whose fields have changed since: x"),
        (lambda c: c["value"]["fields"]["x"].update({"in": "other.npy"}), "value.json is damaged"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    assert decode(resealed(lambda c: None)).y == (1,)
    with pytest.raises(ValueError, match=message):
        decode(resealed(change))


@pytest.mark.parametrize(
    "text", [b"", b"null", b"[]", b"3", b"{}", b"\xff", b'{"format":1}', b'{"sha256":"x","format":1}']
)
def test_a_value_file_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r"value\.json"):
        decode({"value.json": text})
