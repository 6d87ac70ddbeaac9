"""What can be written after `etude`: the commands' options, and a study's own from the fields of its Config."""

from __future__ import annotations

import argparse
import ast
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from etude.errors import EtudeError, suggest

if TYPE_CHECKING:
    from etude.study.catalogue import Entry, Field
    from etude.study.definition import Config

C = TypeVar("C", bound="Config")

_METAVAR = {"int": "INT", "float": "FLOAT", "str": "TEXT", "Path": "PATH", "bool": "BOOL"}


class UsageError(EtudeError):
    """The command line cannot be understood."""


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of exiting, and never guesses from the beginning of an option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}. See `{self.prog} --help`.")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read a command line.

    Returns:
        The options; `command` is the function to call (``"module:name"`` below `etude.cli`), and for `run` and `judge`
        `entry` is the study and `fields` the text given for each field of its Config.

    Raises:
        UsageError: an unknown command, option or choice (naming the nearest one), or a missing argument.
        UnknownStudy, BrokenStudy: the study of `run` or `judge`.
    """
    entry = None
    if len(arguments) > 1 and arguments[0] in ("run", "judge") and not arguments[1].startswith("-"):
        from etude.study.catalogue import find

        entry = find(arguments[1])
    parser, commands = _parser(entry, arguments[1] if entry else "STUDY")
    if not arguments:
        parser.print_help(sys.stderr)
        raise UsageError("Name a command.")
    if not arguments[0].startswith("-") and arguments[0] not in commands:
        raise UsageError(f"There is no command '{arguments[0]}'.{suggest(arguments[0], commands)} See `etude --help`.")
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        _refuse(unknown, commands.get(options.name, parser))
    if not hasattr(options, "command"):
        raise UsageError(f"etude {options.name} needs one of its commands. See `etude {options.name} --help`.")
    if entry:
        options.entry = entry
        options.fields = {
            field.name: text
            for field in entry.fields
            if (text := getattr(options, _destination(field), None)) is not None
        }
        _check_choices(entry.fields, options.fields)
    elif options.name in ("run", "judge"):
        raise UsageError(f"Name the study first: etude {options.name} STUDY [options].")
    return options


def _refuse(unknown: list[str], command: argparse.ArgumentParser) -> NoReturn:
    given = next((word for word in unknown if word.startswith("-")), unknown[0])
    name = given.partition("=")[0]
    known = [option for option in command._option_string_actions if option.startswith("--") and "_" not in option]
    kind = "option" if given.startswith("-") else "argument"
    raise UsageError(f"There is no {kind} {name} here.{suggest(name, known)} See `{command.prog} --help`.")


# The commands --------------------------------------------------------------------------------------------------------


def _parser(entry: Entry | None, given: str) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    from etude import __version__

    parser = _Parser(
        prog="etude",
        description="Papers that run: studies whose claims are measured across seeds and judged with an interval.",
        epilog="A study is a name from `etude list`, or a file: etude run ./mine.py",
    )
    parser.add_argument("--version", action="version", version=f"etude {__version__}")
    subparsers = parser.add_subparsers(dest="name", metavar="COMMAND")
    commands: dict[str, argparse.ArgumentParser] = {}

    def command(name: str, function: str, text: str, add: Callable[..., Any] = subparsers.add_parser) -> Any:
        made = add(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if function:
            made.set_defaults(command=function)
        commands.setdefault(name, made)
        return made

    json = {"action": "store_true", "help": "print JSON and nothing else"}
    store = {"metavar": "DIR", "help": "the folder of results (default: ETUDE_STORE or the user's data folder)"}

    made = command("list", "describe:list_studies", "name every study and its question")
    made.add_argument("--topic", help="only the studies of this topic")
    made.add_argument("--json", **json)

    made = command("show", "describe:show", "describe one study: paper, presets, measurements, claims, verdicts")
    made.add_argument("study", metavar="STUDY")
    made.add_argument("--json", **json)

    made = command("run", "study:run", "measure what is not measured yet, judge the claims and write a report")
    _study_options(made, entry, given, store)
    made.add_argument("--engine", default="local", help="local: this machine (default); ray: a cluster; inline: here")
    made.add_argument("--only", nargs="+", metavar="MEASUREMENT", help="run these measurements alone")
    made.add_argument("--workers", type=_count, metavar="N", help="trials at a time (default: as the cores allow)")
    made.add_argument("--until-decided", action="store_true", help="add seeds (5, 10, 20) while a claim is undecided")
    taken = set(made._option_string_actions)
    _config_options(made, entry, taken)

    made = command("judge", "study:judge", "judge what the store holds, without running anything")
    _study_options(made, entry, given, store)
    _config_options(made, entry, taken)

    made = command(
        "refresh", "study:refresh", "re-run one trial per cell of what older code measured, carry over the rest"
    )
    made.add_argument("studies", nargs="*", metavar="STUDY", help="default: every study")
    made.add_argument("--preset", metavar="PRESET", help="default: every preset")
    made.add_argument("--store", **store)
    made.add_argument("--json", **json)

    made = command("verify", "study:verify", "re-run a seed of the recorded studies and compare with the ledger")
    made.add_argument("studies", nargs="*", metavar="STUDY", help="default: every study in the ledger")
    made.add_argument("--store", **store)
    made.add_argument("--json", **json)

    made = command("doctor", "doctor:doctor", "say what is installed, what is missing and how to get it")
    made.add_argument("--store", **store)
    made.add_argument("--json", **json)

    made = command("store", "", "look after the folder of results")
    actions = made.add_subparsers(metavar="COMMAND")
    for name, text in {
        "size": "how much room each study takes",
        "prune": "remove the trials that older code measured",
        "check": "read every entry and name those that are cut off, edited or incomplete",
    }.items():
        made = command(name, f"keep:{name}", text, actions.add_parser)
        made.add_argument("--store", **store)
        made.add_argument("--json", **json)
        if name == "prune":
            made.add_argument("--cached", action="store_true", help="remove all cached results too")
            made.add_argument("--dry-run", action="store_true", help="only say what would be freed")
        if name == "check":
            made.add_argument("--remove", action="store_true", help="remove the entries that are not whole")

    made = command("ledger", "", "record verdicts for everyone to see")
    actions = made.add_subparsers(metavar="COMMAND")
    made = command("record", "keep:record", "put a preset's verdicts into the ledger", actions.add_parser)
    made.add_argument("study", metavar="STUDY")
    made.add_argument("--preset", metavar="PRESET", help="default: laptop")
    made.add_argument("--store", **store)
    told = "write the scoreboard into the README, and the studies' pages"
    made = command("scoreboard", "keep:scoreboard", told, actions.add_parser)
    made.add_argument("--readme", metavar="FILE", default="README.md", help="default: README.md")
    made.add_argument("--pages", metavar="DIR", default="docs/studies", help="default: docs/studies")
    top = {name: commands[name] for name in subparsers.choices}
    return parser, top


def _study_options(parser: argparse.ArgumentParser, entry: Entry | None, given: str, store: dict[str, Any]) -> None:
    """The options `run` and `judge` share."""
    if entry:
        parser.prog, parser.description = f"{parser.prog} {given}", f"{entry.question} {parser.description}".strip()
    parser.usage = f"{parser.prog}{'' if entry else ' STUDY'} [options]".replace("%", "%%")
    presets = list(entry.presets) if entry else ["smoke", "laptop", "extended", "paper"]
    default = "laptop" if "laptop" in presets or not presets else presets[0]
    add = parser.add_argument
    add("study", metavar="STUDY", help="a name from `etude list`, or a file")
    add("--preset", metavar="PRESET", help=f"one of {', '.join(presets)} (default: {default})")
    add("--seeds", type=_count, metavar="N", help="seeds of each cell (default: as the preset says)")
    add("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    add("--store", **store)
    add(
        "--alpha",
        type=_probability,
        default=0.05,
        metavar="A",
        help="chance of a wrong decision a claim is allowed (default: 0.05)",
    )
    add("--report", metavar="PATH", help="where the report goes (default: reports/STUDY-PRESET.html)")
    add("--no-report", action="store_true", help="write no report")
    add("--json", action="store_true", help="print JSON and nothing else")


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9_]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number between 0 and 1")
    return value


# A study's own options -----------------------------------------------------------------------------------------------


def _config_options(parser: argparse.ArgumentParser, entry: Entry | None, taken: set[str]) -> None:
    """One option a field of the study's Config, `seeds` aside, which every study has.

    A field with the name of an option in `taken` gets the prefix ``config-``, for `judge` as for `run`.
    """
    if entry is None:
        parser.epilog = f"`{parser.prog} STUDY --help` shows the study's own options too."
        return
    group = parser.add_argument_group(f"configuration of {entry.name}", "each replaces the preset's value")
    for field in entry.fields:
        if field.name == "seeds":
            continue
        name = field.name.replace("_", "-")
        name = f"config-{name}" if f"--{name}" in taken else name
        options: dict[str, Any] = {"dest": _destination(field), "default": None, "help": _help(field, entry)}
        if _is_sequence(field.annotation):
            options |= {"nargs": "*"}
        if field.choices:
            options |= {"metavar": "{" + ",".join(field.choices) + "}"}
        else:
            words = re.findall(r"\w+", field.annotation)
            options |= {"metavar": next((_METAVAR[word] for word in words if word in _METAVAR), "VALUE")}
        if field.annotation == "bool":
            group.add_argument(*_spellings(name), nargs="?", const="true", **options)
            options = {"dest": options["dest"], "default": None, "help": argparse.SUPPRESS}
            group.add_argument(*_spellings(f"no-{name}"), action="store_const", const="false", **options)
        else:
            group.add_argument(*_spellings(name), **options)


def _spellings(name: str) -> list[str]:
    return list(dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}")))


def _destination(field: Field) -> str:
    return f"field {field.name}"  # the blank keeps it apart from every option of ours


def _is_sequence(annotation: str) -> bool:
    return re.match(r"(typing\.)?(tuple|list|set|frozenset|Sequence)\b", annotation, re.IGNORECASE) is not None


def _help(field: Field, entry: Entry) -> str:
    """The field's docstring, its default and the presets that give something else."""
    default = "required" if field.default is None else f"default {field.default}"
    values = "; ".join(
        [default, *(f"{name} {given[field.name]}" for name, given in entry.presets.items() if field.name in given)]
    )
    return f"{field.help} ({values})".strip().replace("%", "%%")


def _check_choices(fields: Sequence[Field], given: Mapping[str, Any]) -> None:
    """Refuse what no `Literal` accepts before anything is imported."""
    for field in fields:
        if field.choices is None or field.name not in given:
            continue
        texts = given[field.name] if isinstance(given[field.name], list) else [given[field.name]]
        for text in texts:
            # A union may accept more than its Literal: the Config decides.
            if text not in field.choices and "|" not in field.annotation and "Union" not in field.annotation:
                accepted = ", ".join(field.choices)
                hint = suggest(text, field.choices)
                raise UsageError(f"--{field.name.replace('_', '-')}: '{text}' is none of {accepted}.{hint}")


def configured(base: C, texts: Mapping[str, str | list[str]]) -> C:
    """A configuration with the fields that a command line gives.

    Args:
        base: the preset to start from.
        texts: what was written for each field; a list of words where the field is a sequence.

    Raises:
        UsageError: a value that the field's type does not accept, naming the field, the value and what is accepted.
    """
    from pydantic import TypeAdapter, ValidationError

    from etude.study.definition import ConfigError

    changes = {}
    for name, text in texts.items():
        kind: Any = type(base).model_fields[name].annotation
        try:
            # Not strict: a word is all that a command line can give for a number.
            changes[name] = TypeAdapter(kind).validate_python(_typed(text, kind), strict=False)
        except ValidationError as error:
            shown = " ".join(text) if isinstance(text, list) else text
            problem = error.errors(include_url=False)[0]["msg"]
            raise UsageError(f"--{name.replace('_', '-')} {shown}: {problem}.") from None
    try:
        return base.updated(**changes)
    except ConfigError as error:
        raise UsageError(str(error)) from None


def _typed(text: Any, kind: Any) -> Any:
    """A word as the value that pydantic can take further: members of Literals, None and bracketed Python literals."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _typed(text, arguments[0])
    if isinstance(text, list) and origin in (Union, types.UnionType):
        if text in (["none"], ["None"]) and type(None) in arguments:
            return None
        return _typed(text, next((arm for arm in arguments if arm is not type(None)), kind))
    if isinstance(text, list):
        kinds = arguments[:1] * len(text) if len(arguments) < 2 or arguments[1] is ... else arguments
        return [_typed(word, item) for word, item in zip(text, kinds)] if len(kinds) == len(text) else text
    if origin is Literal:
        return next((member for member in arguments if str(member) == text), text)
    if origin in (Union, types.UnionType):
        if text.lower() == "none" and type(None) in arguments:
            return None
        literals = [_typed(text, arm) for arm in arguments if get_origin(arm) is Literal]
        return next((value for value in literals if value != text), text)
    if origin is not None and text[:1] in ("(", "[", "{"):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text
    return text
