"""Which code a result depends on, found by reading source and never by importing it.

A trial is reused as long as the code it ran is the same. *The code* is the measurement and every own definition that it
reaches by name: functions, classes and constants of the package that holds the measurement and of étude itself. What
cannot change a number does not count: comments, docstrings, annotations, layout, the order of definitions. PyTorch,
NumPy and other packages are known by name only; their versions belong to the environment of a run.

The hash is the same on every supported version of Python: this module writes the syntax tree down, not `ast.dump`.

What no reading of names can see does not count either: data files, `__doc__` used as a value, attributes set on a
module from outside, and entries that another module adds to a registry.
"""

from __future__ import annotations

import ast
import builtins
import gc
import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import invalidate_caches
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

from etude.errors import suggest

TRIAL_PROTOCOL = 1
"""Stands for the code in `LEFT_OUT`. Raise it when a change there alters what a trial computes or records."""

LEFT_OUT = ("etude.study", "etude.cli", "etude.web")

# Known by name only, even when a function of theirs is itself the target (an optimizer given to a cached function).
OPAQUE = sys.stdlib_module_names | {
    *("torch", "torchvision", "torchaudio", "numpy", "scipy", "sklearn", "pandas", "pyarrow", "einops", "jaxtyping"),
    *("transformers", "gymnasium", "mujoco", "minigrid", "z3", "lightning", "lightning_fabric", "jax", "flax"),
}

# Methods that change the list, dict or set they are called on.
_MUTATORS = frozenset(
    {"append", "extend", "insert", "add", "update", "setdefault", "register", "sort", "reverse"}
    | {"pop", "popitem", "remove", "discard", "clear"}
)
_IMPORTERS = frozenset({"importlib.import_module", "importlib.__import__", "builtins.__import__", "__import__"})
_SET_BY_IMPORT = frozenset({"__name__", "__file__", "__doc__", "__path__", "__package__", "__spec__", "__loader__"})
# Annotations that say what a dataclass does with a field, and so are more than a type.
_FIELD_MARKERS = ("ClassVar", "InitVar", "KW_ONLY")

_registered: dict[str, Path] = {}


def code_key(target: str) -> str:
    """Hash of a definition and of all own code it reaches.

    Args:
        target: ``"package.module:name"`` of a function or class defined at module level.

    Returns:
        64 hexadecimal digits: SHA-256 of `TRIAL_PROTOCOL`, the target and `code_parts`.

    Raises:
        ValueError: there is no such definition.
        SyntaxError: own code that is reached does not parse; the error names the file.
    """
    parts = code_parts(target)
    return _digest([f"protocol {TRIAL_PROTOCOL}", target, *(f"{name} {parts[name]}" for name in sorted(parts))])


def code_parts(target: str) -> dict[str, str]:
    """The own definitions that a definition reaches by name, itself included, each with the hash of its code.

    Own code is the top-level package of the target and étude without `LEFT_OUT`; for a file given to `register_path`,
    that file, what lies in its folder, and étude. The parameters' annotations of the target tell which classes it is
    handed (its Config): of those the methods count, and not the fields and defaults, whose values are known otherwise.

    Args:
        target: ``"package.module:name"`` of a function or class defined at module level.

    Returns:
        ``{"module:name": hash}``. ``"module:*"`` stands for the statements that bind nothing in a module that is used
        as a whole, ``"module:Name()"`` for the methods of a class known from an annotation.

    Raises:
        ValueError: there is no such definition.
        SyntaxError: own code that is reached does not parse; the error names the file.
    """
    module_name, colon, name = target.partition(":")
    if not (colon and module_name and name.isidentifier()):
        raise ValueError(f"target must be 'package.module:name', not {target!r}")
    collecting = gc.isenabled()
    gc.disable()  # syntax trees are many small objects and no garbage, and with torch loaded a collection takes long
    try:
        reached = _Reached(module_name)
        if reached.folder is None and module_name.partition(".")[0] in OPAQUE:
            return {target: _digest([target])}
        return reached.parts(module_name, name)
    finally:
        if collecting:
            gc.enable()


def address(function: Callable[..., Any]) -> str:
    """Where a function or class is defined, for `code_key` and for other processes.

    Args:
        function: a function or class defined at the top level of a module.

    Returns:
        ``"module:name"``.

    Raises:
        TypeError: it is a lambda, defined inside another definition, a bound method, or an object of another kind; or
            its module holds another function under its name.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    accepted = "give a function or class defined with def or class at the top level of a module"
    if not isinstance(function, type | FunctionType) and not inspect.isbuiltin(function):
        raise TypeError(f"{function!r} has no address: {accepted}")
    if not isinstance(module, str) or not isinstance(name, str) or not name.isidentifier():
        raise TypeError(f"{name or function!r} is not at the top level of a module: {accepted}")
    found = getattr(sys.modules.get(module), name, function)
    # While a decorator runs the name is not bound yet; afterwards it may hold what the decorator made of the function.
    if isinstance(found, type | FunctionType) and function not in _unwrapped(found):
        raise TypeError(
            f"{module}:{name} is another object than the one given, which has borrowed its name: {accepted}"
        )
    return f"{module}:{name}"


def register_path(module_name: str, path: Path) -> None:
    """Say where the source of a study file outside any package is; what lies in its folder becomes own code of it.

    Args:
        module_name: the name under which the file is loaded as a module.
        path: the file.

    Raises:
        ValueError: there is no such file.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise ValueError(f"path must be a Python file, and {path} is none")
    _registered[module_name] = path


def _unwrapped(function: Any) -> list[Any]:
    chain = [function]
    while (function := getattr(function, "__wrapped__", None)) is not None and function not in chain:
        chain.append(function)
    return chain


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# One statement: its normal form and the names it uses
# ---------------------------------------------------------------------------------------------------------------------

Chain = tuple[str, ...]
"""A dotted name: ``("nn", "mlp", "MLP")``."""


class _Import(NamedTuple):
    """What an imported name stands for: a module, or a name in it."""

    module: str
    name: str | None


class _Scope(NamedTuple):
    local: dict[str, set[_Import]]
    declared_global: set[str]
    of_class: bool


def _imports(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, _Import]]:
    """Yield the names an import binds; ``*`` for a star import."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            top = alias.name.partition(".")[0]
            yield alias.asname or top, _Import(alias.name if alias.asname else top, None)
        return
    source = node.module or ""
    if node.level:
        parents = package.split(".")
        source = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])]).strip(".")
    for alias in node.names:
        yield alias.asname or alias.name, _Import(source, alias.name) if source else _Import(alias.name, None)


def _bound(
    statements: Sequence[ast.AST], package: str, whole_expressions: bool
) -> tuple[dict[str, set[_Import]], set[str]]:
    """The names that statements bind in their own scope (with what imports bind them to), and those declared global.

    Only ``:=`` binds inside an expression, so expressions are looked into only if the file has one.
    """
    names: dict[str, set[_Import]] = {}
    declared: set[str] = set()
    nonlocal_: set[str] = set()
    queue: list[ast.AST] = list(statements)
    while queue:
        node = queue.pop()
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                names.setdefault(node.id, set())
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.setdefault(node.name, set())
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for name, imported in _imports(node, package):
                names.setdefault(name, set()).add(imported)
        elif isinstance(node, ast.Global):
            declared.update(node.names)
        elif isinstance(node, ast.Nonlocal):
            nonlocal_.update(node.names)
        elif isinstance(node, ast.Lambda):
            continue
        elif isinstance(node, ast.comprehension):
            queue += [node.iter, *node.ifs]
        elif isinstance(node, ast.AnnAssign):
            queue += [node.target, *([node.value] if node.value else [])]
        else:
            for attribute in ("name", "rest"):  # except ... as name, case [*name], case {**rest}
                if isinstance(captured := getattr(node, attribute, None), str):
                    names.setdefault(captured, set())
            for child in ast.iter_child_nodes(node):
                if whole_expressions or not isinstance(child, ast.expr) or _may_bind(child):
                    queue.append(child)
    for name in declared | nonlocal_:
        names.pop(name, None)
    return names, declared


def _may_bind(node: ast.expr) -> bool:
    return isinstance(getattr(node, "ctx", None), ast.Store | ast.Del)


def _chain(node: ast.AST) -> Chain | None:
    """``a.b.c`` as a chain; None for anything else."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    return (node.id, *reversed(attributes)) if isinstance(node, ast.Name) else None


def _registers_with_study(decorator: ast.expr) -> bool:
    """Whether it is ``@study.measure(...)`` and its like, which name a definition and change nothing in it."""
    chain = _chain(decorator.func if isinstance(decorator, ast.Call) else decorator)
    return chain is not None and chain[0] == "study" and chain[1:] in {("measure",), ("claim",), ("figure",)}


# Fields of syntax nodes that do not change what runs. A field that a newer Python adds is absent or empty elsewhere.
_IGNORED_FIELDS = {"annotation", "returns", "type_comment", "type_params", "type_ignores", "kind", "ctx"}
_fields: dict[type[ast.AST], tuple[str, ...]] = {}


class _Reader:
    """Writes statements down in a normal form and gathers the module-level names that they use.

    Args:
        package: the package that relative imports start from.
        walrus: whether the file has assignment expressions.
    """

    def __init__(self, package: str, walrus: bool) -> None:
        self.package = package
        self.walrus = walrus
        self.tokens: list[str] = []
        self.loads: set[Chain] = set()
        self.imported: set[tuple[Chain, _Import]] = set()
        self.mutates: set[str] = set()
        self.scopes: list[_Scope] = []

    def read(self, node: ast.AST) -> None:
        kind = type(node)
        special = _SPECIAL.get(kind)
        if special is not None:
            special(self, node)
            return
        fields = _fields.get(kind)
        if fields is None:
            fields = _fields[kind] = tuple(field for field in kind._fields if field not in _IGNORED_FIELDS)
        tokens = self.tokens
        tokens.append("(" + kind.__name__)
        for field in fields:
            value = getattr(node, field, None)
            if isinstance(value, ast.AST):
                tokens.append(field)
                self.read(value)
            elif isinstance(value, list):
                self.read_list(field, value)
            elif value is not None:
                tokens.append(f"{field}={value!a}")
        tokens.append(")")

    def read_list(self, field: str, nodes: Sequence[Any]) -> None:
        if nodes:
            self.tokens.append(field + "[")
            for node in nodes:
                if isinstance(node, ast.AST):
                    self.read(node)
                else:
                    self.tokens.append(ascii(node))
            self.tokens.append("]")

    # Names ---------------------------------------------------------------------------------------------------------

    def use(self, chain: Chain) -> bool:
        """Note the use of a dotted name; return whether it starts at a module-level name."""
        local = self.local(chain[0])
        if local is None or local.of_class:  # a class body falls back to the module until it has bound the name
            self.loads.add(chain)
        if local is not None:
            self.imported.update((chain, imported) for imported in local.local[chain[0]])
        return local is None

    def local(self, name: str) -> _Scope | None:
        """The scope that binds a name; None if it is the module."""
        for depth in range(len(self.scopes) - 1, -1, -1):
            scope = self.scopes[depth]
            if scope.of_class and depth < len(self.scopes) - 1:
                continue
            if name in scope.declared_global:
                return None
            if name in scope.local:
                return scope
        return None

    def name(self, node: ast.Name) -> None:
        self.tokens.append("." + node.id)
        if isinstance(node.ctx, ast.Load):
            self.use((node.id,))
        elif self.scopes and node.id in self.scopes[-1].declared_global:
            self.use((node.id,))
            self.mutates.add(node.id)

    def attribute(self, node: ast.Attribute) -> None:
        chain = _chain(node)
        if chain is None:
            self.tokens.append("(." + node.attr)
            self.read(node.value)
            self.tokens.append(")")
        else:
            self.tokens.append("." + ".".join(chain))
            if self.use(chain) and not isinstance(node.ctx, ast.Load):
                self.mutates.add(chain[0])

    def subscript(self, node: ast.Subscript) -> None:
        self.tokens.append("(Subscript")
        self.read(node.value)
        self.read(node.slice)
        self.tokens.append(")")
        if not isinstance(node.ctx, ast.Load):
            self.mutated(node.value)

    def augmented(self, node: ast.AugAssign) -> None:
        self.tokens.append(f"(AugAssign {type(node.op).__name__}")
        self.read(node.target)
        self.read(node.value)
        self.tokens.append(")")
        self.mutated(node.target)

    def call(self, node: ast.Call) -> None:
        self.tokens.append("(Call")
        self.read(node.func)
        self.read_list("args", node.args)
        self.read_list("keywords", node.keywords)
        self.tokens.append(")")
        if isinstance(node.func, ast.Attribute) and node.func.attr in _MUTATORS:
            self.mutated(node.func.value)

    def mutated(self, node: ast.AST) -> None:
        while isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        if isinstance(node, ast.Name) and self.local(node.id) is None:
            self.mutates.add(node.id)

    # Values and statements without effect --------------------------------------------------------------------------

    def constant(self, node: ast.Constant) -> None:
        value = node.value
        self.tokens.append(hex(value) if type(value) is int else f"{type(value).__name__} {value!a}")

    def joined(self, node: ast.JoinedStr) -> None:
        # Python versions cut the literal text of an f-string at different places.
        self.tokens.append("(f")
        text = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                text += str(part.value)
                continue
            self.tokens.append(ascii(text))
            text = ""
            self.read(part)
        self.tokens += [ascii(text), ")"]

    def formatted(self, node: ast.FormattedValue) -> None:
        self.tokens.append(f"(Formatted {node.conversion}")
        self.read(node.value)
        if isinstance(node.format_spec, ast.JoinedStr) and node.format_spec.values:
            self.read(node.format_spec)
        self.tokens.append(")")

    def expression(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring, or three dots
            self.tokens.append("(Expr")
            self.read(node.value)
            self.tokens.append(")")

    def annotated(self, node: ast.AnnAssign) -> None:
        in_class = bool(self.scopes) and self.scopes[-1].of_class
        if node.value is None and not in_class:
            return
        markers = [marker for marker in _FIELD_MARKERS if in_class and marker in _words(node.annotation)]
        # A plain assignment in a function or module, a field in a class.
        self.tokens.append(" ".join(["(Field" if in_class else "(Assign", *markers]))
        self.read_list("targets", [node.target])
        if node.value is not None:
            self.tokens.append("value")
            self.read(node.value)
        self.tokens.append(")")

    def nothing(self, node: ast.AST) -> None:
        pass

    # Scopes --------------------------------------------------------------------------------------------------------

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.tokens.append(f"({type(node).__name__} {node.name}")
        self.read_list("decorators", [item for item in node.decorator_list if not _registers_with_study(item)])
        self.parameters(node.args)
        self.body(node, [name.arg for name in _arguments(node.args)], node.body)

    def lambda_(self, node: ast.Lambda) -> None:
        self.tokens.append("(Lambda")
        self.parameters(node.args)
        self.body(node, [name.arg for name in _arguments(node.args)], [node.body])

    def parameters(self, arguments: ast.arguments) -> None:
        def names(nodes: Iterable[ast.arg | None]) -> str:
            return ",".join(node.arg for node in nodes if node)

        self.tokens.append(
            f"{names(arguments.posonlyargs)}/{names(arguments.args)}*{names([arguments.vararg])}"
            f"/{names(arguments.kwonlyargs)}**{names([arguments.kwarg])}"
        )
        self.read_list("defaults", arguments.defaults)
        self.read_list("kw_defaults", arguments.kw_defaults)

    def class_(self, node: ast.ClassDef) -> None:
        self.tokens.append("(ClassDef " + node.name)
        self.read_list("decorators", node.decorator_list)
        self.read_list("bases", node.bases)
        self.read_list("keywords", node.keywords)
        self.body(node, [], node.body, of_class=True)

    def body(self, node: ast.AST, arguments: list[str], body: Sequence[ast.AST], of_class: bool = False) -> None:
        local, declared = _bound(body, self.package, self.walrus)
        for name in arguments:
            local.setdefault(name, set())
        for parameter in getattr(node, "type_params", ()):
            local.setdefault(parameter.name, set())
        self.scopes.append(_Scope(local, declared, of_class))
        self.read_list("body", body)
        self.scopes.pop()
        self.tokens.append(")")

    def comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        self.tokens.append("(" + type(node).__name__)
        self.read(node.generators[0].iter)  # the only part that is evaluated in the scope around
        targets, _ = _bound([generator.target for generator in node.generators], self.package, self.walrus)
        self.scopes.append(_Scope(targets, set(), of_class=False))
        for index, generator in enumerate(node.generators):
            self.tokens.append("async for" if generator.is_async else "for")
            self.read(generator.target)
            if index:
                self.read(generator.iter)
            self.read_list("ifs", generator.ifs)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.read(part)
        self.scopes.pop()
        self.tokens.append(")")


_SPECIAL: dict[type[ast.AST], Callable[[_Reader, Any], None]] = {
    ast.Name: _Reader.name,
    ast.Attribute: _Reader.attribute,
    ast.Subscript: _Reader.subscript,
    ast.AugAssign: _Reader.augmented,
    ast.Call: _Reader.call,
    ast.Constant: _Reader.constant,
    ast.JoinedStr: _Reader.joined,
    ast.FormattedValue: _Reader.formatted,
    ast.Expr: _Reader.expression,
    ast.AnnAssign: _Reader.annotated,
    ast.Pass: _Reader.nothing,
    ast.FunctionDef: _Reader.function,
    ast.AsyncFunctionDef: _Reader.function,
    ast.Lambda: _Reader.lambda_,
    ast.ClassDef: _Reader.class_,
    ast.ListComp: _Reader.comprehension,
    ast.SetComp: _Reader.comprehension,
    ast.GeneratorExp: _Reader.comprehension,
    ast.DictComp: _Reader.comprehension,
}


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    several = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [*several, *(one for one in (arguments.vararg, arguments.kwarg) if one)]


def _annotation_chains(annotation: ast.AST | None) -> Iterator[Chain]:
    """Yield every dotted name in an annotation, also of a quoted one."""
    queue = [annotation] if annotation else []
    while queue:
        node = queue.pop()
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                queue.append(ast.parse(node.value, mode="eval").body)
            except SyntaxError:  # a string that is no type: Literal["..."], a jaxtyping shape
                continue
        elif chain := _chain(node):
            yield chain
        else:
            queue.extend(ast.iter_child_nodes(node))


def _words(annotation: ast.AST) -> set[str]:
    return {name for chain in _annotation_chains(annotation) for name in chain}


# ---------------------------------------------------------------------------------------------------------------------
# One module
# ---------------------------------------------------------------------------------------------------------------------


class _Unit:
    """A statement at the top level of a module, read when first needed."""

    def __init__(self, node: ast.stmt, package: str, walrus: bool) -> None:
        self.node = node
        self._reader = _Reader(package, walrus)
        self._digest: str | None = None

    def read(self) -> _Reader:
        """What the statement uses; its tokens are only kept as `digest`."""
        if self._digest is None:
            self._reader.read(self.node)
            self._digest = _digest(self._reader.tokens)
            self._reader.tokens = []
        return self._reader

    @property
    def digest(self) -> str:
        self.read()
        assert self._digest is not None
        return self._digest


class _Binding:
    """All that is known of a module-level name: the statements that bind or change it, and the imports among them."""

    def __init__(self) -> None:
        self.units: list[int] = []
        self.imports: set[_Import] = set()


class _Module:
    """The top level of one source file, by name.

    Args:
        name: the dotted name of the module.
        package: the package that its relative imports start from.
        tree: its syntax tree; an empty one for a namespace package.
        walrus: whether the file has assignment expressions.
    """

    def __init__(self, name: str, package: str, tree: ast.Module, walrus: bool) -> None:
        self.name = name
        self.package = package
        self.walrus = walrus
        self.units: list[_Unit] = []
        self.bindings: dict[str, _Binding] = {}
        self.unbound: list[int] = []  # statements that bind and change no name of the module
        self.stars: list[str] = []
        self._methods: dict[ast.ClassDef, _Unit] = {}
        for statement in _top_level(tree.body):
            self._add(statement)
        self._add_mutations()

    def binding(self, name: str) -> _Binding:
        return self.bindings.setdefault(name, _Binding())

    def _add(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for name, imported in _imports(statement, self.package):
                if name == "*":
                    self.stars.append(imported.module)
                else:
                    self.binding(name).imports.add(imported)
            return
        if isinstance(statement, ast.AnnAssign) and statement.value is None:
            return
        names, _ = _bound([statement], self.package, self.walrus)
        for name, imports in names.items():
            binding = self.binding(name)
            binding.units.append(len(self.units))
            binding.imports |= imports
        self.units.append(_Unit(statement, self.package, self.walrus))

    def _add_mutations(self) -> None:
        """Attach to each name the statements that change it while the module is imported."""
        for index, unit in enumerate(self.units):
            node = unit.node
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                at_import = _Reader(self.package, self.walrus)
                for item in node.decorator_list:
                    if not isinstance(node, ast.ClassDef) and _registers_with_study(item):
                        continue
                    at_import.read(item)
                    chain = _chain(item.func if isinstance(item, ast.Call) else item)
                    # @dispatch.register changes `dispatch`; @torch.no_grad() changes nothing of ours.
                    if chain and len(chain) > 1 and not (chain[0] in self.bindings and self.bindings[chain[0]].imports):
                        at_import.mutates.add(chain[0])
            else:
                at_import = unit.read()
            mutated = set(at_import.mutates)
            if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant):
                mutated |= {chain[0] for chain in at_import.loads}
            for chain in at_import.loads:
                mutated |= self._mutated_by_calling(chain[0], set())
            for name in mutated & self.bindings.keys():
                if index not in self.bindings[name].units:
                    self.bindings[name].units.append(index)
        for binding in self.bindings.values():
            binding.units.sort()
        bound = {index for binding in self.bindings.values() for index in binding.units}
        self.unbound = [
            index
            for index, unit in enumerate(self.units)
            if index not in bound
            and not (isinstance(unit.node, ast.Expr) and isinstance(unit.node.value, ast.Constant))
        ]

    def _mutated_by_calling(self, name: str, seen: set[str]) -> set[str]:
        if name in seen or name not in self.bindings:
            return set()
        seen.add(name)
        mutated: set[str] = set()
        for index in self.bindings[name].units:
            unit = self.units[index]
            if isinstance(unit.node, ast.FunctionDef | ast.AsyncFunctionDef) and unit.node.name == name:
                reader = unit.read()
                mutated |= reader.mutates
                for chain in reader.loads:
                    mutated |= self._mutated_by_calling(chain[0], seen)
        return mutated

    def definitions(self, name: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
        """The functions and classes that bind a name."""
        units = [self.units[index].node for index in self.bindings[name].units] if name in self.bindings else []
        return [
            node
            for unit in units
            for node in ast.walk(unit)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name
        ]

    def methods(self, node: ast.ClassDef) -> _Unit:
        """A class without its fields, bases and decorators: what is known of an object whose field values are known."""
        if node not in self._methods:
            kept = [statement for statement in node.body if not _is_field(statement)]
            methods = ast.ClassDef(name=node.name, bases=[], keywords=[], body=kept, decorator_list=[])
            self._methods[node] = _Unit(methods, self.package, self.walrus)
        return self._methods[node]


def _top_level(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield what an import runs: no script part, and what only a type checker reads in line with the rest."""
    for statement in statements:
        if isinstance(statement, ast.If):
            words = {name for chain in _annotation_chains(statement.test) for name in chain}
            if "TYPE_CHECKING" in words and not isinstance(statement.test, ast.UnaryOp | ast.BoolOp):
                yield from _top_level([*statement.body, *statement.orelse])
                continue
            if "__name__" in words and not statement.orelse:
                continue
        yield statement


def _is_field(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return True
    if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
        return False
    # Class constants and private attributes are no fields: nothing else notes their values.
    return not statement.target.id.startswith("_") and "ClassVar" not in _words(statement.annotation)


class _CacheEntry(NamedTuple):
    mtime_ns: int
    size: int
    module: _Module


_parsed: dict[tuple[str, str, str], _CacheEntry] = {}


def _parse(path: str, name: str, package: str) -> _Module:
    status = os.stat(path)
    entry = _parsed.get((path, name, package))
    if entry is None or (entry.mtime_ns, entry.size) != (status.st_mtime_ns, status.st_size):
        with open(path, "rb") as file:
            source = file.read()
        try:
            tree = ast.parse(source, filename=path)
        except (SyntaxError, ValueError) as error:  # ValueError: null bytes
            message = f"{path}: {getattr(error, 'msg', error)}"
            lineno, offset, text = (getattr(error, field, None) for field in ("lineno", "offset", "text"))
            raise SyntaxError(message, (path, lineno, offset, text)) from None
        module = _Module(name, package, tree, walrus=b":=" in source)
        entry = _parsed[path, name, package] = _CacheEntry(status.st_mtime_ns, status.st_size, module)
    return entry.module


# ---------------------------------------------------------------------------------------------------------------------
# All that is reached
# ---------------------------------------------------------------------------------------------------------------------


class _Hit(NamedTuple):
    """What a dotted name stands for: a name in an own module, or with name None the whole module."""

    module: _Module
    name: str | None


class _Reached:
    """The own code reached from one target.

    Args:
        target_module: dotted name of the module that holds the target.
    """

    def __init__(self, target_module: str) -> None:
        self.target_module = target_module
        self.tops: set[str] = {"etude"}
        self.located: dict[str, _Module | None] = {}
        self.roots: dict[str, ModuleSpec | None] = {}
        top = target_module.partition(".")[0]
        self.folder = _folder(target_module, top)
        if self.folder is None:
            self.tops.add(top)

    def parts(self, module_name: str, name: str) -> dict[str, str]:
        module = self.locate(module_name)
        if module is None:
            invalidate_caches()  # the file may be younger than the import system's listing of its folder
            self.located.clear()
            self.roots.clear()
            module = self.locate(module_name)
        if module is None:
            raise ValueError(
                f"target {module_name}:{name}: no source file of module {module_name!r} was found."
                f"{suggest(module_name.rpartition('.')[2], self.siblings(module_name))}"
            )
        hits, _ = self.resolve(module, (name,), set())
        if not hits or (hits == [_Hit(module, None)] and name not in module.bindings):
            raise ValueError(
                f"target {module_name}:{name}: module {module_name!r} has no {name!r}.{suggest(name, module.bindings)}"
            )
        found: dict[str, str] = {}
        todo: list[_Hit] = list(hits)
        seen: set[tuple[str, str | None]] = set()
        seen_classes: set[tuple[str, str]] = set()
        for hit in hits:
            self.add_parameter_classes(hit, found, todo, seen_classes)
        while todo:
            hit = todo.pop()
            if (hit.module.name, hit.name) in seen:
                continue
            seen.add((hit.module.name, hit.name))
            if hit.name is None:
                self.add_module(hit.module, found, todo)
            else:
                self.add_name(hit.module, hit.name, found, todo)
        return dict(sorted(found.items()))

    def add_name(self, module: _Module, name: str, found: dict[str, str], todo: list[_Hit]) -> None:
        binding = module.bindings[name]
        if binding.units:
            units = [module.units[index] for index in binding.units]
            found[f"{module.name}:{name}"] = self.hash_units(module, units, todo)
        for imported in binding.imports:
            todo += self.resolve_import(imported, (), {(module.name, name)})[0]

    def add_module(self, module: _Module, found: dict[str, str], todo: list[_Hit]) -> None:
        todo += [_Hit(module, name) for name in module.bindings]
        names = " ".join(sorted(module.bindings))
        rest = self.hash_units(module, [module.units[index] for index in module.unbound], todo)
        found[f"{module.name}:*"] = _digest([names, rest])
        for star in module.stars:
            todo += self.resolve_import(_Import(star, None), (), set())[0]
        todo += [_Hit(inner, None) for inner in self.inside(module)]

    def add_parameter_classes(
        self, hit: _Hit, found: dict[str, str], todo: list[_Hit], seen: set[tuple[str, str]]
    ) -> None:
        """Add the methods of the classes that the target's parameters are annotated with."""
        for node in hit.module.definitions(hit.name) if hit.name else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for argument in _arguments(node.args):
                    self.add_methods(hit.module, argument.annotation, found, todo, seen)

    def add_methods(
        self,
        module: _Module,
        annotation: ast.AST | None,
        found: dict[str, str],
        todo: list[_Hit],
        seen: set[tuple[str, str]],
    ) -> None:
        for chain in _annotation_chains(annotation):
            for owner, name in self.resolve(module, chain, set())[0]:
                if name is None or (owner.name, name) in seen:
                    continue
                seen.add((owner.name, name))
                classes = [node for node in owner.definitions(name) if isinstance(node, ast.ClassDef)]
                # A class of fields alone adds nothing: writing the annotation down then changes no key.
                units = [owner.methods(node) for node in classes if not all(map(_is_field, node.body))]
                if units:
                    found[f"{owner.name}:{name}()"] = self.hash_units(owner, units, todo)
                for node in classes:
                    # What it inherits, and the methods of objects that its fields hold.
                    fields = [statement for statement in node.body if isinstance(statement, ast.AnnAssign)]
                    for inner in [*node.bases, *(field.annotation for field in fields)]:
                        self.add_methods(owner, inner, found, todo, seen)

    def hash_units(self, module: _Module, units: Iterable[_Unit], todo: list[_Hit]) -> str:
        """Hash statements together with what their names stand for, and note what they reach."""
        lines: list[str] = []
        for unit in units:
            reader = unit.read()
            meanings: set[str] = set()
            for chain in reader.loads:
                self.note(module, unit, chain, self.resolve(module, chain, set()), meanings, todo)
            for chain, imported in reader.imported:
                self.note(module, unit, chain, self.resolve_import(imported, chain[1:], set()), meanings, todo)
            lines += [unit.digest, *sorted(meanings)]
        return _digest(lines)

    def note(
        self,
        module: _Module,
        unit: _Unit,
        chain: Chain,
        resolved: tuple[list[_Hit], list[str]],
        meanings: set[str],
        todo: list[_Hit],
    ) -> None:
        hits, opaque = resolved
        todo += hits
        meanings.update(f"{'.'.join(chain)} = {hit.module.name}:{hit.name or '*'}" for hit in hits)
        meanings.update(f"{'.'.join(chain)} = {name}" for name in opaque)
        if chain[0] in ("globals", "eval", "exec") and not hits:
            todo.append(_Hit(module, None))
        if any(name in _IMPORTERS for name in opaque):
            todo += self.imported_by_call(module, unit, chain)
        if "sys.modules" in opaque and chain[-1] in ("modules", "get"):
            todo += self.imported_by_call(module, unit, chain)

    # Where names lead ----------------------------------------------------------------------------------------------

    def resolve(self, module: _Module, chain: Chain, seen: set[tuple[str, str]]) -> tuple[list[_Hit], list[str]]:
        """What a dotted name used in a module stands for: own definitions, and the names of what is not own code."""
        name = chain[0]
        binding = module.bindings.get(name)
        if binding is None:
            hits: list[_Hit] = []
            opaque: list[str] = []
            for star in module.stars:
                if not self.own(star):
                    opaque += [] if hasattr(builtins, name) else [f"{star}.*"]
                elif (starred := self.locate(star)) and not self.left_out(star) and self.exports(starred, name, set()):
                    hits += [_Hit(starred, None)]
            if name == "__import__" and not hits:
                opaque.append("__import__")
            return hits, opaque
        seen = seen | {(module.name, name)}
        hits = [_Hit(module, name)] if binding.units else []
        opaque = []
        for imported in binding.imports:
            more_hits, more_opaque = self.resolve_import(imported, chain[1:], seen)
            hits += more_hits
            opaque += more_opaque
        return hits, opaque

    def resolve_import(
        self, imported: _Import, rest: Chain, seen: set[tuple[str, str]]
    ) -> tuple[list[_Hit], list[str]]:
        chain = rest if imported.name is None else (imported.name, *rest)
        module_name = imported.module
        while True:
            if not self.own(module_name) or self.left_out(module_name):
                # Two names suffice to tell `importlib.import_module`; what follows is in the statement's own text.
                return [], [".".join((module_name, *(chain[:1] if imported.name or module_name in _NOTED else ())))]
            module = self.locate(module_name)
            if module is None:
                return [], [".".join((module_name, *chain))]
            if not chain:
                return [_Hit(module, None)], []
            head = chain[0]
            if head in module.bindings and (module.name, head) not in seen:
                return self.resolve(module, chain, seen)
            submodule = f"{module_name}.{head}"
            if self.left_out(submodule) or self.locate(submodule) is not None:
                module_name, chain = submodule, chain[1:]
                continue
            if head in _SET_BY_IMPORT:
                return [], [submodule]
            if module.stars and (found := self.resolve(module, chain, seen))[0]:
                return found
            return [_Hit(module, None)], []

    def exports(self, module: _Module, name: str, seen: set[str]) -> bool:
        """Whether ``from module import *`` may bind a name."""
        if name in module.bindings or "__getattr__" in module.bindings:
            return True
        seen.add(module.name)
        inner = [self.locate(star) for star in module.stars if star not in seen and self.own(star)]
        return any(self.exports(one, name, seen) for one in inner if one is not None)

    def imported_by_call(self, module: _Module, unit: _Unit, chain: Chain) -> list[_Hit]:
        """What ``import_module(...)`` and ``sys.modules[...]`` in a statement may bring: all own code if it varies."""
        names: list[str | None] = []
        for node in ast.walk(unit.node):
            argument: ast.AST | None
            if isinstance(node, ast.Call) and _chain(node.func) == chain:
                argument = node.args[0] if node.args else None
            elif isinstance(node, ast.Subscript) and _chain(node.value) == chain:
                argument = node.slice
            else:
                continue
            if isinstance(argument, ast.Name) and argument.id == "__name__":
                names.append(module.name)
            elif isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                level = len(argument.value) - len(argument.value.lstrip("."))
                parents = module.package.split(".")
                prefix = parents[: len(parents) - level + 1] if level else []
                names.append(".".join([*prefix, *filter(None, [argument.value[level:]])]))
            else:
                names.append(None)
        uses = sum(_chain(node) == chain for node in ast.walk(unit.node))
        if None in names or len(names) < uses:
            return [_Hit(one, None) for one in self.everything()]
        return [hit for name in names if name for hit in self.resolve_import(_Import(name, None), (), set())[0]]

    # Files ---------------------------------------------------------------------------------------------------------

    def own(self, module_name: str) -> bool:
        if module_name == self.target_module:
            return True
        top = module_name.partition(".")[0]
        return top in self.tops or (self.folder is not None and self.root(top) is not None)

    @staticmethod
    def left_out(module_name: str) -> bool:
        return any(module_name == name or module_name.startswith(name + ".") for name in LEFT_OUT)

    def root(self, top: str) -> ModuleSpec | None:
        """Where the import system finds an own top-level module, without importing it."""
        if top not in self.roots:
            spec = None
            if self.folder is not None and top not in self.tops:
                spec = PathFinder.find_spec(top, [self.folder])
                if spec is not None and spec.origin is None and PathFinder.find_spec(top, None):
                    spec = None  # a plain folder is a package only where no real one has its name
            else:
                # The finders behind PathFinder know packages installed in editable mode.
                for finder in (PathFinder, *sys.meta_path):
                    find_spec = getattr(finder, "find_spec", None)
                    if find_spec is not None and (spec := find_spec(top, None)) is not None:
                        break
            self.roots[top] = spec
        return self.roots[top]

    def locate(self, module_name: str) -> _Module | None:
        """An own module, parsed; None if there is no source file of it."""
        if module_name not in self.located:
            self.located[module_name] = self.find(module_name)
        return self.located[module_name]

    def find(self, module_name: str) -> _Module | None:
        if module_name == self.target_module and module_name in _registered:
            return _parse(str(_registered[module_name]), module_name, "")
        top, *inner = module_name.split(".")
        spec = self.root(top)
        if spec is None:
            return None
        if not inner:
            if spec.origin is not None and spec.origin.endswith(".py"):
                return _parse(spec.origin, top, top if spec.submodule_search_locations is not None else "")
            return None if spec.submodule_search_locations is None else _namespace(top)
        found: _Module | None = None
        for location in spec.submodule_search_locations or ():
            base = os.path.join(location, *inner)
            if os.path.isfile(init := os.path.join(base, "__init__.py")):
                return _parse(init, module_name, module_name)
            if os.path.isfile(base + ".py"):
                return _parse(base + ".py", module_name, module_name.rpartition(".")[0])
            if os.path.isdir(base) and module_name.rpartition(".")[2] != "__pycache__":
                found = _namespace(module_name)
        return found

    def folders(self, module_name: str) -> list[str]:
        """The folders of a package."""
        top, *inner = module_name.split(".")
        spec = self.root(top) if self.own(module_name) else None
        locations = (spec.submodule_search_locations if spec else None) or ()
        return [folder for location in locations if os.path.isdir(folder := os.path.join(location, *inner))]

    def siblings(self, module_name: str) -> list[str]:
        parent = module_name.rpartition(".")[0]
        return [name for folder in (self.folders(parent) if parent else []) for name in _modules_in(folder)]

    def inside(self, module: _Module) -> list[_Module]:
        """The modules directly in a package, which one who holds the package can reach."""
        if module.name in _registered and module.name == self.target_module:
            return []
        names = [f"{module.name}.{name}" for folder in self.folders(module.name) for name in _modules_in(folder)]
        return [inner for name in names if not self.left_out(name) and (inner := self.locate(name)) is not None]

    def everything(self) -> list[_Module]:
        names = [*self.tops, self.target_module, *(_modules_in(self.folder) if self.folder else ())]
        return [module for name in names if (module := self.locate(name)) is not None]


def _folder(module_name: str, top: str) -> str | None:
    """The folder of the registered file that a module is, or lies beside."""
    if module_name in _registered:
        return str(_registered[module_name].parent)
    for folder in {str(path.parent) for path in _registered.values()} if top != "etude" else ():
        spec = PathFinder.find_spec(top, [folder])
        if spec is not None and spec.origin is not None:
            return folder
    return None


# Modules of which single functions bring in code; see `_Reached.note`.
_NOTED = frozenset({"importlib", "builtins", "sys"})


def _modules_in(folder: str) -> list[str]:
    names = [entry[:-3] for entry in os.listdir(folder) if entry.endswith(".py") and entry != "__init__.py"]
    packages = [entry for entry in os.listdir(folder) if os.path.isfile(os.path.join(folder, entry, "__init__.py"))]
    return sorted(name for name in names + packages if name.isidentifier())


def _namespace(name: str) -> _Module:
    return _Module(name, name, ast.Module(body=[], type_ignores=[]), walrus=False)
