"""What the hash of code depends on, and what it does not depend on."""

import ast
import functools
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.study import code_key as module_under_test
from etude.study.code_key import address, code_key, code_parts, register_path

BASE = {
    "__init__.py": "from .helpers import scale as rescaled\n",
    "study.py": '''
        """A study."""
        from typing import ClassVar

        import numpy as np
        from etude.study import Config, Lab, Study, exact

        from . import helpers, rescaled
        from .nets import Wide

        class Protocol(Config):
            """Settings."""
            steps: int = 5
            """How many steps."""

            @property
            def half(self) -> int:
                return self.steps // 2

        study = Study(paper=None, topic="x", presets={"laptop": Protocol(steps=3)})
        RATE = 0.5

        @study.measure(over=lambda c: [{"width": 3}])
        def train(lab: Lab, config: Protocol, *, width: int = 4) -> None:
            """Train it."""
            # a comment
            net = Wide(width)
            lab.record(y=rescaled(net.run(RATE)) + helpers.TABLE["a"])

        @study.measure()
        def other(lab: Lab, config: Protocol) -> None:
            lab.record(y=RATE + 1)

        @study.claim(reported="1")
        def small(e):
            """It is small."""
            return exact(e[train]["y"].max()) < 1
    ''',
    "helpers.py": '''
        import functools

        FACTOR = 2.0
        TABLE = {"a": 1}
        UNUSED = {"a": 1}

        def noted(function):
            @functools.wraps(function)
            def inner(*args):
                return function(*args)
            return inner

        @noted
        def scale(x, by=1.0):
            """Scale it."""
            return x * FACTOR * by

        def unreached(x):
            return x
    ''',
    "nets.py": """
        class Base:
            depth = 1

        class Wide(Base):
            def __init__(self, width: int) -> None:
                self.width = width

            def run(self, rate: float) -> float:
                return self.width * rate
    """,
}


class Package:
    """A package of source files, never imported."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder / name, name
        self.folder.mkdir()

    def write(self, files: dict[str, str]) -> None:
        for file, text in files.items():
            path = self.folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))

    def edit(self, file: str, old: str, new: str) -> None:
        text = (self.folder / file).read_text()
        assert old in text
        (self.folder / file).write_text(text.replace(old, new))

    def key(self, target: str = "study:train") -> str:
        return code_key(f"{self.name}.{target}")

    def parts(self, target: str = "study:train") -> set[str]:
        return {part.removeprefix(self.name + ".") for part in code_parts(f"{self.name}.{target}")}


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    count = 0

    def new(files: dict[str, str] | None = None) -> Package:
        nonlocal count
        count += 1
        package = Package(tmp_path, f"keyed_{tmp_path.name.replace('-', '_')}_{count}")
        package.write({"__init__.py": ""} | (files or {}))
        return package

    return new


@pytest.fixture
def package(make):
    return make(BASE)


def single(make, source: str, target: str = "target") -> set[str]:
    """The names in module `m` that a target reaches."""
    return {part.removeprefix("m:") for part in make({"m.py": source}).parts(f"m:{target}")}


# What is reached ------------------------------------------------------------------------------------------------------


def test_reaches_exactly_what_the_measurement_uses(package):
    assert package.parts() == {
        *("study:train", "study:RATE", "study:Protocol()", "nets:Wide", "nets:Base"),
        *("helpers:scale", "helpers:FACTOR", "helpers:noted", "helpers:TABLE"),
    }
    assert not any(name.startswith(package.name) for name in sys.modules)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("study.py", '"""Train it."""', '"""Train it well."""'),
        ("study.py", '"""Train it."""', ""),
        ("study.py", "# a comment", "# another\n\n"),
        ("study.py", "width: int = 4", "width: float = 4"),
        ("study.py", "-> int:", "-> float:"),
        ("study.py", ".max()) < 1", ".max()) < 2"),
        ("study.py", "RATE + 1", "RATE + 2"),
        ("study.py", '{"width": 3}', '{"width": 4}'),
        ("study.py", "steps=3", "steps=4"),
        ("study.py", "steps: int = 5", "steps: int = 6"),
        ("study.py", "How many steps.", "How many."),
        ("study.py", "RATE = 0.5", "RATE: float = (0.5)"),
        ("helpers.py", "Scale it.", "Scale."),
        ("helpers.py", "return x\n", "return x + 1\n"),
        ("helpers.py", 'UNUSED = {"a": 1}', 'UNUSED = {"a": 2}'),
        ("nets.py", "width: int", "width: float"),
    ],
)
def test_edits_without_effect_keep_the_key(package, file, old, new):
    before = package.key()
    package.edit(file, old, new)
    assert package.key() == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("study.py", "RATE = 0.5", "RATE = 0.6"),
        ("study.py", "width: int = 4", "width: int = 5"),
        ("study.py", "self.steps // 2", "self.steps // 3"),
        ("study.py", "net.run(RATE)", "net.run(-RATE)"),
        ("study.py", "from .nets import Wide", "from torch.nn import Wide"),
        ("study.py", "import helpers, rescaled", "import helpers\nfrom math import sqrt as rescaled"),
        ("helpers.py", "x * FACTOR", "x / FACTOR"),
        ("helpers.py", "FACTOR = 2.0", "FACTOR = 2"),
        ("helpers.py", "FACTOR = 2.0", "FACTOR = 2.0\nFACTOR += 1"),
        ("helpers.py", "by=1.0", "by=2.0"),
        ("helpers.py", "by=1.0", "*, by=1.0"),
        ("helpers.py", "@noted\n", ""),
        ("helpers.py", "return function(*args)", "return -function(*args)"),
        ("helpers.py", '{"a": 1}\nUNUSED', '{"a": 2}\nUNUSED'),
        ("helpers.py", "def unreached", 'TABLE["a"] = 3\ndef unreached'),
        ("helpers.py", "def unreached", "TABLE.update(a=3)\ndef unreached"),
        ("helpers.py", "def unreached", 'del TABLE["a"]\ndef unreached'),
        ("helpers.py", "def unreached", "if FACTOR > 1:\n    TABLE = {}\ndef unreached"),
        ("helpers.py", "def unreached", "for letter in 'ab':\n    TABLE[letter] = 3\ndef unreached"),
        ("nets.py", "depth = 1", "depth = 2"),
        ("nets.py", "class Wide(Base)", "class Wide"),
        ("nets.py", "self.width * rate", "self.width + rate"),
        ("__init__.py", "import scale as", "import unreached as"),
    ],
)
def test_edits_with_effect_change_the_key(package, file, old, new):
    before = package.key()
    package.edit(file, old, new)
    assert package.key() != before


def test_order_of_definitions_does_not_matter_and_order_of_statements_does(make):
    constants = ["A = 1\n", "def f():\n    return A\n", "def target():\n    return f() + B\n", "B = 2\n"]
    package = make({"m.py": "".join(constants)})
    before = package.key("m:target")
    package.write({"m.py": "".join(reversed(constants))})
    assert package.key("m:target") == before
    package.write({"m.py": "A = 1\nA *= 2\nA += 1\ndef target(): return A"})
    before = package.key("m:target")
    package.write({"m.py": "A = 1\nA += 1\nA *= 2\ndef target(): return A"})
    assert package.key("m:target") != before


@pytest.mark.parametrize(
    ("body", "reached"),
    [
        ("def target(f): return f", set()),
        ("def target(*f): return f", set()),
        ("def target(**f): return f", set()),
        ("def target(a=f): return a", {"f"}),
        ("def target(f=f): return f", {"f"}),
        ("def target():\n f = 1\n return f", set()),
        ("def target():\n for f in g: pass\n return f", {"g"}),
        ("def target():\n with g as f: return f", {"g"}),
        ("def target():\n try: pass\n except g as f: return f", {"g"}),
        ("def target():\n import f\n return f", set()),
        ("def target():\n def f(): return g\n return f", {"g"}),
        ("def target():\n f: int\n return f", set()),
        ("def target(x):\n match x:\n  case [g.y, *f]: return f", {"g"}),
        ("def target(x):\n match x:\n  case {'a': f, **g}: return f, g", set()),
        ("def target(): return [f for f in g]", {"g"}),
        ("def target(): return [f for x in g for f in x]", {"g"}),
        ("def target(): return {f: 1 for f, _ in g}", {"g"}),
        ("def target(): return [f for g in f]", {"f"}),
        ("def target(): return [g for g in g]", {"g"}),
        ("def target():\n if (f := 1): return f", set()),
        ("def target():\n [f := x for x in g]\n return f", {"g"}),
        ("def target(): return lambda f: f(g)", {"g"}),
        ("def target():\n f = 1\n def inner(): return f\n return inner", set()),
        ("def target():\n f = 1\n def inner():\n  nonlocal f\n  f = 2\n return inner", set()),
        ("def target():\n f = 1\n def inner():\n  global f\n  return f\n return inner", {"f"}),
        ("def target():\n global f\n f = 1", {"f"}),
        ("class target:\n f = 1\n def run(self): return f", {"f"}),
        ("class target:\n x = f\n y = [g for _ in x]", {"f", "g"}),
        ("class target:\n f = 1\n y = [1 for _ in f]", {"f"}),  # the class body may fall back to the module
        ("class target:\n f = 1\n y = [f for _ in '']", {"f"}),
        ("class target:\n def f(self): return self.g", set()),
        ("def target(x): return x.f", set()),
        ("def target(x): return dict(f=x)", set()),
        ("def target(x: f) -> g:\n y: f = 1\n return y", set()),
        ("async def target():\n async for f in g: pass", {"g"}),
        ("def target(): return f'{f} {1:{g}}'", {"f", "g"}),
        ("@f\ndef target(): pass", {"f"}),
        ("@f.measure\ndef target(): pass", {"f"}),
        ("@study.measure(over=f)\ndef target(): pass", set()),
        ("class target(f, metaclass=g): pass", {"f", "g"}),
        ("def target(): return target2()\ndef target2(): return target()", {"target2"}),
    ],
)
def test_scopes(make, body, reached):
    source = f"def f(): pass\ndef g(): pass\nstudy = f()\n{body}\n"
    assert single(make, source) == {"target"} | reached


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type parameters came with Python 3.12")
def test_type_parameters_are_local(make):
    assert single(make, "def f(): pass\ndef target[f](x: f): return f\n") == {"target"}


@pytest.mark.parametrize(
    "statement",
    [
        "X['a'] = late()",
        "X.append(late())",
        "X.items.append(late())",
        "X += late()",
        "X.attribute = late()",
        "change(X, late())",
        "Y = X.pop(late())",
        "fill(late())",
        "@put\ndef late2(): return late()",
        "@X.register\ndef late2(): return late()",
        "try:\n    X = late()\nexcept ImportError:\n    X = 2",
        "with late() as X: pass",
        "if late(): X = 1",
        "(X := late())",
        "X, Y = late()",
        "def X(): return late()",
        "if True:\n    def X(): return late()",
    ],
)
def test_statements_that_change_a_reached_name_count(make, statement):
    source = f"""
def late(): return 1
def change(x, y): x.a = y
def fill(x): return put(x)
def put(x):
    X['b'] = x
X = {{}}
{statement}
def target(): return X
"""
    assert {"target", "X", "late"} <= single(make, source)


def test_statements_that_only_read_a_reached_name_do_not_count(make):
    source = """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import nothing
        def main(): return X
        X = {}
        Y = sorted(X) + [X.get("a")]
        def reads(): return X
        Z = reads()
        def target(): return X
        if __name__ == "__main__":
            main(X)
    """
    assert single(make, source) == {"target", "X"}


def test_global_settings_of_other_packages_count(make):
    package = make(
        {"m.py": "import torch\ntorch.set_default_dtype(torch.float64)\ndef target(): return torch.zeros(3)\n"}
    )
    assert package.parts("m:target") == {"m:target", "m:torch"}
    before = package.key("m:target")
    package.edit("m.py", "float64", "float32")
    assert package.key("m:target") != before


# Modules --------------------------------------------------------------------------------------------------------------

LIBRARY = {
    "lib/__init__.py": "from .a import one\nfrom . import b as bee\n",
    "lib/a.py": "def one(): return 1\ndef two(): return 2\n",
    "lib/b.py": "from .a import two\ndef three(): return two()\nY = 4\n",
    "plain/c.py": "def four(): return 4\n",
}
WHOLE_A = {"lib.a:*", "lib.a:one", "lib.a:two"}
WHOLE_B = {"lib.b:*", "lib.b:three", "lib.b:Y", "lib.a:two"}


@pytest.mark.parametrize(
    ("source", "reached"),
    [
        ("from .lib import one\ndef target(): return one()", {"lib.a:one"}),
        ("from .lib.a import one as uno\ndef target(): return uno()", {"lib.a:one"}),
        ("from . import lib\ndef target(): return lib.one()", {"lib.a:one"}),
        ("from . import lib\ndef target(): return lib.a.two()", {"lib.a:two"}),
        ("from . import lib\ndef target(): return lib.bee.three()", {"lib.b:three", "lib.a:two"}),
        ("import PKG.lib.a\ndef target(): return PKG.lib.a.two()", {"lib.a:two"}),
        ("import PKG.lib.a as x\ndef target(): return x.two()", {"lib.a:two"}),
        ("def target():\n from .lib import a\n return a.two()", {"lib.a:two"}),
        ("def target():\n import PKG.lib.a\n return PKG.lib.a.two()", {"lib.a:two"}),
        ("def target():\n from .lib.b import Y as y\n return y", {"lib.b:Y"}),
        ("from .plain.c import four\ndef target(): return four()", {"plain.c:four"}),
        ("from .plain import c\ndef target(): return c.four()", {"plain.c:four"}),
        ("from .lib import a\ndef target(n): return getattr(a, n)", WHOLE_A),
        ("from .lib import a\ndef target(n): return vars(a)", WHOLE_A),
        ("from .lib import a\ndef target(n): return n(a)", WHOLE_A),
        ("from .lib import a\ndef target(n): return a.__dict__", WHOLE_A),
        ("from .lib import a\ndef target(n): return a.__name__", set()),
        ("from .lib import a\ndef target(n): return a.missing", WHOLE_A),
        ("from .lib.a import *\ndef target(): return one()", WHOLE_A),
        ("from .lib.a import *\ndef target(): return len('')", set()),
        ("from .lib import bee\ndef target(n): return getattr(bee, n)", WHOLE_B),
        ("import importlib\ndef target(): return importlib.import_module('PKG.lib.a')", WHOLE_A),
        ("from importlib import import_module as i\ndef target(): return i('.lib.a', __package__)", WHOLE_A),
        ("def target():\n import importlib as i\n return i.import_module('PKG.lib.a').one()", WHOLE_A),
        ("def target(): return __import__('PKG.lib.a')", WHOLE_A),
        ("def target(): return __import__('math')", set()),
        ("import sys\ndef target(): return sys.modules['PKG.lib.a']", WHOLE_A),
        ("import sys\ndef target(): return sys.modules.get('torch')", set()),
        ("import torch\ndef target(n): return getattr(torch, n)", set()),
        ("X = 1\ndef target(): return globals()['X']", {"m:*", "m:X"}),
        ("import sys\nX = 1\ndef target(): return sys.modules[__name__]", {"m:*", "m:X"}),
        ("X = 1\ndef target(): return eval('X')", {"m:*", "m:X"}),
        (
            "try:\n from .lib.a import one\nexcept ImportError:\n one = None\ndef target(): return one",
            {"m:one", "lib.a:one"},
        ),
    ],
)
def test_imports_are_followed(make, source, reached):
    package = make(LIBRARY)
    package.write({"m.py": source.replace("PKG", package.name)})
    assert package.parts("m:target") == {"m:target"} | reached


def test_a_package_used_as_an_object_counts_with_all_its_modules(make):
    package = make(LIBRARY | {"m.py": "from . import lib\ndef target(n): return getattr(lib, n)\n"})
    assert package.parts("m:target") == {"m:target", "lib:*"} | WHOLE_A | WHOLE_B


@pytest.mark.parametrize(
    "source",
    [
        "import importlib\ndef target(n): return importlib.import_module(n)",
        "from importlib import import_module\ndef target(n): return map(import_module, n)",
        "def target(n): return __import__('PKG.' + n)",
    ],
)
def test_an_import_of_a_computed_name_counts_all_own_code_but_the_spine(make, source):
    package = make(LIBRARY)
    package.write({"m.py": source.replace("PKG", package.name)})
    parts = package.parts("m:target")
    assert WHOLE_A | WHOLE_B | {"m:*", "etude.errors:*", "etude.errors:suggest"} <= parts
    assert not any(part.startswith(("etude.study", "etude.cli")) for part in parts)


def test_cycles_between_modules_end(make):
    package = make(
        {
            "a.py": "from . import b\nfrom .b import g\ndef f(n): return n and b.g(n - 1)\n",
            "b.py": "from . import a\ndef g(n): return n and a.f(n - 1)\n",
            "c.py": "from .c import lost\ndef target(): return lost\n",
        }
    )
    assert package.parts("a:f") == package.parts("b:g") == {"a:f", "b:g"}
    assert package.key("a:f") != package.key("b:g")
    assert "c:target" in package.parts("c:target")


def test_a_target_may_be_named_by_its_re_export(package):
    package.write({"front.py": "from .study import train\n"})
    assert package.parts("front:train") == package.parts("study:train")


def test_the_spine_is_replaced_by_the_protocol_number(package, monkeypatch):
    before = package.key()
    assert not any(part.startswith("etude.") for part in package.parts())
    monkeypatch.setattr(module_under_test, "TRIAL_PROTOCOL", module_under_test.TRIAL_PROTOCOL + 1)
    assert package.key() != before


def test_functions_of_other_packages_are_known_by_name():
    assert code_parts("torch.nn.functional:relu").keys() == {"torch.nn.functional:relu"}
    assert code_key("torch.nn.functional:relu") != code_key("torch.nn.functional:gelu")


# Classes known from annotations ---------------------------------------------------------------------------------------


def test_the_config_of_a_measurement_counts_with_methods_and_constants_only(make):
    source = """
        from typing import ClassVar
        from pydantic import BaseModel, field_validator
        def late(): return 1
        def default(): return 2
        class Inner:
            size: int = default()
            def area(self): return self.size * 2
        class Parent(BaseModel):
            def inherited(self): return late()
        class Protocol(Parent):
            steps: int = default()
            inner: Inner = Inner()
            WIDTHS: ClassVar = (1, 2)
            @field_validator("steps")
            def positive(cls, value): return value
        def target(lab, config: ANNOTATION): return config.steps
    """
    for annotation in ("Protocol", "'Protocol'", "Protocol | None", "'list[Protocol]'"):
        package = make({"m.py": source.replace("ANNOTATION", annotation)})
        assert package.parts("m:target") == {"m:target", "m:Protocol()", "m:Parent()", "m:Inner()", "m:late"}
    before = package.key("m:target")
    for old, new in [("= default()", "= 3"), ("steps: int", "steps: float")]:
        package.edit("m.py", old, new)
        assert package.key("m:target") == before
    for old, new in [("return value", "return -value"), ("(1, 2)", "(1, 3)"), ("size * 2", "size * 3")]:
        package.edit("m.py", old, new)
        assert package.key("m:target") != before
        before = package.key("m:target")


def test_fields_of_a_dataclass_keep_name_order_and_kind(make):
    source = "class C:\n    a: int\n    b: int = 1\ndef target(): return C(1)\n"
    package = make({"m.py": source})
    before = package.key("m:target")
    package.write({"m.py": source.replace("a: int", "a: 'float'")})
    assert package.key("m:target") == before
    for old, new in [
        ("    a: int\n    b: int = 1", "    b: int = 1\n    a: int"),
        ("a: int", "c: int"),
        ("    a: int\n", ""),
        ("b: int = 1", "b: ClassVar[int] = 1"),
        ("b: int = 1", "b: InitVar[int] = 1"),
        ("b: int = 1", "b = 1"),
    ]:
        package.write({"m.py": source.replace(old, new)})
        assert package.key("m:target") != before


# The normal form ------------------------------------------------------------------------------------------------------

SAME = [
    ("return 1", "return (  1 )  # one"),
    ("return 'a' 'b'", 'return "ab"'),
    ("return f'a' f'b{x}' 'c'", "return f'ab{x}c'"),
    ("return f'{x:}'", "return f'{x}'"),
    ("pass", "'''Nothing.'''"),
    ("x = 1\n    'about x'", "x: int = 1"),
    ("return u'a'", "return 'a'"),
    ("return 0x10", "return 16"),
]
DIFFERENT = [
    "return 1", "return 1.0", "return True", "return '1'", "return b'1'", "return -1", "return 1j", "return None",
    "return ...", "return x, y", "return [x, y]", "return {x, y}", "return {x: y}", "return {**x}", "return f(x, y)",
    "return f(x)(y)", "return f(*x)", "return f(**x)", "return f(x=y)", "return x.y", "return x[y]", "return x[y:]",
    "return x[:y]", "return x[::y]", "return x + y", "return x - y", "return y + x", "return x and y", "return x or y",
    "return x < y", "return x <= y", "return x < y < 1", "return x if y else 1", "return not x", "return lambda: x",
    "return lambda x: x", "return lambda *x: x", "return lambda *, x: x", "return lambda x, /: x",
    "return (x for x in y)",
    "return [x for x in y]", "return {x for x in y}", "return [x for x in y if x]", "return f'{x}'", "return f'{x!r}'",
    "return f'{x:3}'", "return f'{x}' + y", "yield x", "yield from x", "await x", "x = y", "x += y", "x: y = 1",
    "del x",
    "assert x", "assert x, y", "raise x", "raise x from y", "while x: y", "for x in y: pass", "while x:\n  break",
    "while x:\n  continue", "with x: pass", "with x as y: pass", "try: x()\n except y: pass", "try: x()\n finally: y()",
    "global x", "import x", "import x as y", "from x import y", "from .x import y", "x()\n y()", "y()\n x()", "pass",
    "if x: y()", "if x: pass\n else: y()", "match x:\n  case y: pass", "match x:\n  case [y]: pass", "return",
    "(x := y)",
    "return 'x\\ny'", "return ('x', 'y')", "return 'x', 'y)'", "return x, (y, 1)", "return (x, y), 1",
]  # fmt: skip


def normal_form(body: str) -> str:
    reader = module_under_test._Reader("", walrus=True)
    for node in ast.parse(f"async def target(a, *b, c=1):\n {body}\n").body:
        reader.read(node)
    return "\n".join(reader.tokens)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_spellings_of_the_same_code_have_one_form(one, other):
    assert normal_form(one.replace("\n    ", "\n ")) == normal_form(other.replace("\n    ", "\n "))


def test_different_code_has_different_forms():
    forms = {body: normal_form(body) for body in DIFFERENT}
    assert len(set(forms.values())) == len(forms)


def test_the_form_is_fixed_across_versions_of_python():
    # Written down once: a new Python that changed it would make every stored trial stale.
    assert normal_form("return f'{a:{c}} b' + b[0] if not c else {**a}").split("\n") == [
        *("(AsyncFunctionDef target", "/a*b/c**", "kw_defaults[", "0x1", "]", "body[", "(Return", "value", "(IfExp"),
        *("test", "(UnaryOp", "op", "(Not", ")", "operand", ".c", ")", "body", "(BinOp", "left", "(f", "''"),
        *(
            "(Formatted -1",
            ".a",
            "(f",
            "''",
            "(Formatted -1",
            ".c",
            ")",
            "''",
            ")",
            ")",
            "' b'",
            ")",
            "op",
            "(Add",
            ")",
        ),
        *("right", "(Subscript", ".b", "0x0", ")", ")", "orelse", "(Dict", "keys[", "None", "]", "values[", ".a", "]"),
        *(")", ")", ")", "]", ")"),
    ]


def test_the_key_does_not_depend_on_the_process(package):
    program = f"from etude.study.code_key import code_key; print(code_key({package.name + '.study:train'!r}))"
    paths = os.pathsep.join([str(package.folder.parent), str(Path(module_under_test.__file__).parents[2])])
    keys = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": paths},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert keys == {package.key()}


# Hypothesis -----------------------------------------------------------------------------------------------------------


@st.composite
def call_graphs(draw):
    size = draw(st.integers(2, 7))
    return [draw(st.lists(st.integers(0, size - 1), max_size=3, unique=True)) for _ in range(size)]


def written(graph: list[list[int]], names: list[str], values: list[int], order: list[int]) -> str:
    blocks = [
        f"C{names[i]} = {values[i]}\ndef {names[i]}(x):\n    return x + C{names[i]}"
        + "".join(f" + {names[j]}(x)" for j in calls)
        + "\n"
        for i, calls in enumerate(graph)
    ]
    return "".join(blocks[i] for i in order)


@settings(deadline=None, max_examples=60)
@given(graph=call_graphs(), data=st.data())
def test_the_key_follows_the_reached_functions_and_nothing_else(tmp_path_factory, graph, data):
    size = len(graph)
    reached, queue = {0}, [0]
    while queue:
        for called in graph[queue.pop()]:
            if called not in reached:
                reached.add(called)
                queue.append(called)
    names, values, order = [f"f{i}" for i in range(size)], list(range(size)), list(range(size))
    path = tmp_path_factory.mktemp("graph") / "graph.py"

    def key(names, values, order):
        path.write_text(written(graph, names, values, order))
        register_path("keyed_graph", path)
        return code_key("keyed_graph:f0")

    before = key(names, values, order)
    other_names = [name if i in reached else f"other{name}" for i, name in enumerate(names)]
    other_values = [value if i in reached else data.draw(st.integers()) for i, value in enumerate(values)]
    assert key(other_names, other_values, data.draw(st.permutations(order))) == before
    changed = data.draw(st.sampled_from(sorted(reached)))
    values[changed] = data.draw(st.integers(100, 10**30))
    assert key(names, values, order) != before


# Registered files -----------------------------------------------------------------------------------------------------


def test_a_file_outside_any_package_counts_with_its_folder(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom beside import f\nimport kit.tools\nimport json\n"
        "def target(): return f() + kit.tools.g() + torch.ones(json)\n"
    )
    (tmp_path / "beside.py").write_text("def f(): return 1\n")
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "__init__.py").write_text("")
    (tmp_path / "kit" / "tools.py").write_text("from .more import X\ndef g(): return X\n")
    (tmp_path / "kit" / "more.py").write_text("X = 1\n")
    (tmp_path / "json").mkdir()  # a folder of data, not the package of that name
    register_path("keyed_mine", tmp_path / "mine.py")
    assert code_parts("keyed_mine:target").keys() == {"keyed_mine:target", "beside:f", "kit.tools:g", "kit.more:X"}
    assert code_parts("kit.tools:g").keys() == {"kit.tools:g", "kit.more:X"}
    before = code_key("keyed_mine:target")
    (tmp_path / "kit" / "more.py").write_text("X = 2\n")
    assert code_key("keyed_mine:target") != before


def test_register_path_refuses_what_is_no_file(tmp_path):
    with pytest.raises(ValueError, match="must be a Python file"):
        register_path("keyed_nothing", tmp_path)


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("study:trian", "has no 'trian'. Did you mean 'train'"),
        ("studi:train", "no source file of module .* Did you mean 'study'"),
        ("missing.study:train", "no source file"),
    ],
)
def test_a_missing_target_is_an_error_that_suggests(package, target, message):
    with pytest.raises(ValueError, match=message):
        package.key(target)


@pytest.mark.parametrize("target", ["", "a.b", "a:", ":b", "a:b.c", "a:b-c"])
def test_a_malformed_target_is_an_error(target):
    with pytest.raises(ValueError, match=r"must be 'package\.module:name'"):
        code_key(target)


@pytest.mark.parametrize("text", ["def f(:\n", "x = '\0'\n"])
def test_a_syntax_error_names_the_file(package, text):
    (package.folder / "helpers.py").write_text(text)
    with pytest.raises(SyntaxError, match=r"helpers\.py"):
        package.key()


# Addresses ------------------------------------------------------------------------------------------------------------


class Outer:
    class Inner:
        pass

    def method(self):
        pass

    @classmethod
    def build(cls):
        pass


@functools.cache
def kept():
    pass


def plain():
    pass


@functools.wraps(plain)
def imitation():
    pass


def test_address():
    assert address(plain) == f"{__name__}:plain"
    assert address(Outer) == f"{__name__}:Outer"
    assert address(kept.__wrapped__) == f"{__name__}:kept"
    assert address(len) == "builtins:len"


@pytest.mark.parametrize(
    "function",
    [
        lambda: 0,
        Outer.Inner,
        Outer.method,
        Outer().method,
        Outer.build,
        functools.partial(plain),
        imitation,
        3,
        "plain",
    ],
)
def test_address_refuses_what_has_none(function):
    with pytest.raises(TypeError, match="top level of a module"):
        address(function)


def test_address_refuses_local_definitions():
    def local():
        pass

    with pytest.raises(TypeError, match="top level of a module"):
        address(local)
