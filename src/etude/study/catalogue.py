"""Which studies there are and what they say of themselves, read from their files without importing them.

A study is a Python file with `study = Study(...)` at its top level. Shipped studies lie in `etude/papers`; others are
found through the entry-point group `etude.studies` (value ``"package.module"``), through the folders named in the
environment variable `ETUDE_STUDIES`, or by their path. Nothing is imported to describe a study, so listing is quick
and a study whose dependencies are missing is described all the same.
"""

from __future__ import annotations

import ast
import functools
import gc
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.errors import BrokenStudy, EtudeError, MissingExtra, suggest

if TYPE_CHECKING:
    from etude.study.definition import Study

_PACKAGE = Path(__file__).resolve().parent.parent
_PAPERS = _PACKAGE / "papers"
_GROUP = "etude.studies"


class UnknownStudy(EtudeError):
    """No study has the name that was given."""


@dataclass(frozen=True)
class Field:
    """One field of a study's Config.

    Attributes:
        name: the field.
        annotation: its type, as written.
        default: source text of its default; None where a value must be given.
        help: its docstring.
        choices: what a `Literal` accepts, as text; None where the type is no `Literal`.
    """

    name: str
    annotation: str
    default: str | None
    help: str
    choices: tuple[str, ...] | None


@dataclass(frozen=True)
class Described:
    """A measurement or claim: its name and docstring; for a claim also what the paper reports and how we deviate."""

    name: str
    text: str
    reported: str = ""
    deviation: str = ""


@dataclass(frozen=True)
class Entry:
    """One study, as its file describes it.

    Attributes:
        name: how it is called at the command line (``"lottery-ticket"``).
        module: under which name it is imported.
        path: its file.
        title, authors, year, arxiv, venue: of the paper.
        topic: the group it is listed in.
        question: first line of its docstring.
        description: the rest of its docstring.
        presets: source text of the fields each preset gives. A preset that is no call has its whole text under ``""``.
        fields: the fields of its Config, `seeds` included.
        measurements: what it measures.
        claims: what it judges.
        extras: the optional dependencies it needs.
        problem: why the file is no study; empty for a sound one.
    """

    name: str
    module: str
    path: Path
    title: str = ""
    authors: str = ""
    year: int | None = None
    arxiv: str = ""
    venue: str = ""
    topic: str = ""
    question: str = ""
    description: str = ""
    presets: dict[str, dict[str, str]] = field(default_factory=dict)
    fields: tuple[Field, ...] = ()
    measurements: tuple[Described, ...] = ()
    claims: tuple[Described, ...] = ()
    extras: tuple[str, ...] = ()
    problem: str = ""


def catalogue(*, heads: bool = False) -> dict[str, Entry]:
    """Every study of this installation by name: the shipped ones, then those of `ETUDE_STUDIES`, then entry points.

    Args:
        heads: read each file only down to its first measurement, which takes a third of the time. Measurements and
            claims are left out, and a file that is broken further down goes unnoticed.

    A file that is no study is in it too, with its `problem`. Where two have one name the first keeps it, and the other
    is listed under its name and file, with the clash as its problem.
    """
    collecting = gc.isenabled()
    gc.disable()  # syntax trees are many small objects and no cycles: collecting meanwhile costs a third of the time
    try:
        found: dict[str, Entry] = {}
        for module, path in _sources():
            entry = read(path, module, head=heads)
            if entry.name in found:
                problem = f"its name is already taken by {found[entry.name].path}"
                entry = replace(entry, name=f"{entry.name} ({path})", problem=problem)
            found[entry.name] = entry
        return found
    finally:
        if collecting:
            gc.enable()


def find(name_or_path: str) -> Entry:
    """The study of a name (``"lottery-ticket"``) or of a file (``"./mine.py"``).

    Args:
        name_or_path: what ends in ``.py`` or holds a path separator is a file; anything else is a name.

    Raises:
        UnknownStudy: there is no such study or file.
        BrokenStudy: the file is no study.
    """
    if name_or_path.endswith(".py") or os.sep in name_or_path:
        path = Path(name_or_path).expanduser().resolve()
        if not path.is_file():
            raise UnknownStudy(f"There is no study file {name_or_path}.")
        entry = read(path, f"etude.papers.{path.stem}" if path.parent == _PAPERS else path.stem)
    else:
        name = name_or_path.replace("_", "-")
        shipped = _PAPERS / f"{name.replace('-', '_')}.py"
        # The usual case reads one file rather than all of them.
        known = {name: read(shipped, f"etude.papers.{shipped.stem}")} if shipped.is_file() else catalogue()
        if name not in known:
            file = Path(f"{name_or_path}.py")
            hint = f" Did you mean './{file}'?" if file.is_file() else suggest(name, known)
            raise UnknownStudy(f"There is no study '{name_or_path}'.{hint} `etude list` names them all.")
        entry = known[name]
    if entry.problem:
        raise BrokenStudy(f"{entry.path} is no study that can be run: {entry.problem}.")
    return entry


def load(entry: Entry) -> Study[Any]:
    """Import a study.

    A file outside any package is imported under its stem, with its folder on `sys.path`, so that it can import what
    lies beside it and so that worker processes find it.

    Raises:
        MissingExtra: it needs an optional dependency that is not installed.
        BrokenStudy: the import fails, or the module's `study` is no `Study`.
    """
    from etude.study.engines.trial import import_study

    outside = entry.module == entry.path.stem
    if outside and not entry.module.isidentifier():
        raise BrokenStudy(f"{entry.path} cannot be imported: '{entry.module}' is no Python name. Rename the file.")
    try:
        study: Study[Any] = import_study(entry.module, str(entry.path) if outside else None)
    except ModuleNotFoundError as error:
        if entry.extras and not (error.name or "").startswith("etude"):
            extras = ",".join(entry.extras)
            raise MissingExtra(
                f"The study {entry.name} needs the module {error.name}, which is not installed",
                f'Install it with: pip install "etude[{extras}]"',
            ) from error
        raise BrokenStudy(f"{entry.path} cannot be imported: {type(error).__name__}: {error}") from error
    except EtudeError:
        raise
    except Exception as error:
        raise BrokenStudy(f"{entry.path} cannot be imported: {type(error).__name__}: {error}") from error
    return study


def read(path: Path, module: str, *, head: bool = False) -> Entry:
    """What the study file at `path`, imported as `module`, says of itself; its `problem` where that is nothing.

    Args:
        path: the file.
        module: the name it is imported under.
        head: read it only down to its first measurement, without the configuration's fields.
    """
    entry = Entry(name=path.stem.replace("_", "-"), module=module, path=path)
    try:
        source = path.read_bytes()
        tree = ast.parse(source.partition(b"\n@study.")[0] if head else source)
    except SyntaxError as error:
        return replace(entry, problem=f"line {error.lineno}: {error.msg}")
    except (OSError, ValueError) as error:
        return replace(entry, problem=str(error))
    constants = _constants(tree)
    call = constants.get("study")
    if not isinstance(call, ast.Call) or _called(call) != "Study":
        return replace(entry, problem="it has no `study = Study(...)` at its top level")

    keywords = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    paper = _arguments(_resolve(keywords.get("paper"), constants), ("title", "authors", "year", "arxiv", "venue"))
    cited = {name: _literal(value, constants) for name, value in paper.items()}
    year = cited.get("year")
    docstring = (ast.get_docstring(tree) or "").strip()
    question, _, description = docstring.partition("\n")
    presets = _preset_nodes(keywords.get("presets"), constants)
    extras = _literal(keywords.get("extras"), constants)
    measurements, claims = _decorated(tree, constants)
    return replace(
        entry,
        title=_text(cited.get("title")),
        authors=_text(cited.get("authors")),
        year=year if isinstance(year, int) else None,
        arxiv=_text(cited.get("arxiv")),
        venue=_text(cited.get("venue")),
        topic=_text(_literal(keywords.get("topic"), constants)),
        question=question.strip(),
        description=description.strip(),
        presets={name: _given(node, constants) for name, node in presets.items()},
        fields=() if head else _config_fields(tree, presets),
        measurements=measurements,
        claims=claims,
        extras=tuple(map(str, extras)) if isinstance(extras, tuple | list) else (str(extras),) if extras else (),
    )


# Where studies are ---------------------------------------------------------------------------------------------------


def _sources() -> Iterator[tuple[str, Path]]:
    """(module, file) of every study file there is."""
    for path in _study_files(_PAPERS):
        yield f"etude.papers.{path.stem}", path
    for folder in filter(None, os.environ.get("ETUDE_STUDIES", "").split(os.pathsep)):
        for path in _study_files(Path(folder).expanduser().resolve()):
            yield path.stem, path
    from importlib.metadata import entry_points  # costs more than all the rest of this module's imports

    for point in sorted(entry_points(group=_GROUP), key=lambda point: point.value):
        module = point.value.partition(":")[0].strip()
        yield module, _located(module) or Path(module.replace(".", os.sep) + ".py")


def _study_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))


def _located(module: str) -> Path | None:
    """The source file of a module, found without importing the packages it lies in."""
    within: list[str] | None = None
    spec = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        for finder in sys.meta_path:
            find_spec = getattr(finder, "find_spec", None)
            spec = find_spec(name, within) if find_spec else None
            if spec:
                break
        if spec is None:
            return None
        within = list(spec.submodule_search_locations or ())
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


# What a file says ----------------------------------------------------------------------------------------------------


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """The expressions bound to names at the top level of a module; the last binding counts."""
    bound: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            bound.update((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            bound[node.target.id] = node.value
    return bound


def _resolve(node: ast.expr | None, constants: dict[str, ast.expr]) -> ast.expr | None:
    """A name's expression where it is a constant of the module; any other expression as it is."""
    for _ in range(8):  # a chain of names, and no endless one
        if not isinstance(node, ast.Name) or node.id not in constants:
            break
        node = constants[node.id]
    return node


def _called(call: ast.Call) -> str:
    """What is called, without its prefix: ``Study`` for ``Study(...)``, ``spine.Study(...)``, ``Study[C](...)``."""
    function = call.func.value if isinstance(call.func, ast.Subscript) else call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _literal(node: ast.expr | None, constants: dict[str, ast.expr]) -> Any:
    """The value of a literal, or of a constant that is one; the source text of anything else; None for nothing."""
    resolved = _resolve(node, constants)
    if resolved is None:
        return None
    try:
        return ast.literal_eval(resolved)
    except (ValueError, TypeError):
        return ast.unparse(resolved)


def _text(value: Any) -> str:
    return "" if value is None else ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _source(node: ast.expr, constants: dict[str, ast.expr]) -> str:
    """Source text of a value; that of the literal where it names one."""
    resolved = _resolve(node, constants) or node
    try:
        ast.literal_eval(resolved)
    except (ValueError, TypeError):
        resolved = node
    return ast.unparse(resolved)


def _arguments(node: ast.expr | None, names: tuple[str, ...]) -> dict[str, ast.expr]:
    """The arguments of a call by name, given the names of its positional ones."""
    if not isinstance(node, ast.Call):
        return {}
    return dict(zip(names, node.args)) | {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}


def _preset_nodes(node: ast.expr | None, constants: dict[str, ast.expr]) -> dict[str, ast.expr]:
    """The expression of each preset, from a dictionary display or a call of `dict`."""
    node = _resolve(node, constants)
    if isinstance(node, ast.Dict):
        pairs = [(_text(_literal(key, constants)), value) for key, value in zip(node.keys, node.values) if key]
    elif isinstance(node, ast.Call) and _called(node) == "dict":
        pairs = [(keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg]
    else:
        pairs = []
    return {name: _resolve(value, constants) or value for name, value in pairs}


def _given(node: ast.expr, constants: dict[str, ast.expr]) -> dict[str, str]:
    """Source text of the fields a preset gives: ``Config(...)``, or ``preset.updated(...)`` on top of that preset's."""
    if not isinstance(node, ast.Call) or node.args or any(keyword.arg is None for keyword in node.keywords):
        return {"": ast.unparse(node)}
    given = {keyword.arg: _source(keyword.value, constants) for keyword in node.keywords if keyword.arg}
    if isinstance(node.func, ast.Attribute) and node.func.attr == "updated":
        base = _resolve(node.func.value, constants) or node.func.value
        below = _given(base, constants)
        return {"": ast.unparse(node)} if "" in below else below | given
    return given


def _decorated(tree: ast.Module, constants: dict[str, ast.expr]) -> tuple[tuple[Described, ...], tuple[Described, ...]]:
    """The functions decorated as measurements and as claims of `study`."""
    measurements, claims = [], []
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            function = decorator.func if isinstance(decorator, ast.Call) else decorator
            if not (isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name)):
                continue
            kind = function.attr if function.value.id == "study" else ""
            text = " ".join((ast.get_docstring(node) or "").split())
            if kind == "measure":
                measurements.append(Described(node.name, text))
            elif kind == "claim":
                told = {name: _text(_literal(value, constants)) for name, value in _arguments(decorator, ()).items()}
                name = node.name.replace("_", "-")
                claims.append(Described(name, text, told.get("reported", ""), told.get("deviation", "")))
    return tuple(measurements), tuple(claims)


# The fields of a Config ----------------------------------------------------------------------------------------------


def _config_fields(tree: ast.Module, presets: dict[str, ast.expr]) -> tuple[Field, ...]:
    """The fields of the class the presets are made of; inherited ones first."""
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    used = [_called(node) for node in presets.values() if isinstance(node, ast.Call)]
    name = next((name for name in used if name in classes or name in _imports(tree)), None)
    return tuple((_class_fields(tree, name) if name else _library_config()).values())


def _class_fields(tree: ast.Module, name: str, before: float = math.inf) -> dict[str, Field]:
    """The fields of the class a name means at a line of a module, defined above it or imported."""
    above = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.lineno < before]
    node = next((node for node in reversed(above) if node.name == name), None)
    if node is None:
        module, _, original = _imports(tree).get(name, "").rpartition(".")
        if module in ("etude.study", "etude.study.definition") and original == "Config":
            return _library_config()
        path = _located(module) if module else None
        try:
            return _class_fields(ast.parse(path.read_bytes()), original) if path else {}
        except (OSError, SyntaxError, ValueError):  # importing the study will say what is wrong with that module
            return {}
    fields: dict[str, Field] = {}
    for base in reversed(node.bases):
        base = base.value if isinstance(base, ast.Subscript) else base
        if isinstance(base, ast.Name):
            fields |= _class_fields(tree, base.id, node.lineno)
        elif isinstance(base, ast.Attribute) and base.attr == "Config":  # `spine.Config`
            fields |= _library_config()
    return fields | _own_fields(node, _constants(tree))


@functools.cache
def _library_config() -> dict[str, Field]:
    """The fields every study's Config inherits."""
    tree = ast.parse((_PACKAGE / "study" / "definition.py").read_bytes())
    node = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config")
    return _own_fields(node, _constants(tree))


def _own_fields(node: ast.ClassDef, constants: dict[str, ast.expr]) -> dict[str, Field]:
    fields = {}
    for statement, following in zip(node.body, [*node.body[1:], None]):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        name = statement.target.id
        annotation = ast.unparse(statement.annotation).strip("'\"")
        if name.startswith("_") or name == "model_config" or "ClassVar" in annotation:
            continue
        default, text = statement.value, ""
        if isinstance(default, ast.Call) and _called(default) == "Field":  # pydantic's
            given = _arguments(default, ("default",))
            text = _text(_literal(given.get("description"), constants))
            default = given.get("default", given.get("default_factory"))
        if isinstance(default, ast.Constant) and default.value is ...:
            default = None
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = str(following.value.value)
        fields[name] = Field(
            name=name,
            annotation=annotation,
            default=None if default is None else _source(default, constants),
            help=" ".join(text.split()),
            choices=_choices(_resolve(statement.annotation, constants), constants),
        )
    return fields


def _choices(annotation: ast.expr | None, constants: dict[str, ast.expr]) -> tuple[str, ...] | None:
    """What the `Literal` in an annotation accepts."""
    for node in ast.walk(annotation) if annotation else ():
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal"):
            members = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            return tuple(str(_literal(member, constants)) for member in members)
    return None


def _imports(tree: ast.Module) -> dict[str, str]:
    """The dotted origin of each name a module imports from another."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
    }
