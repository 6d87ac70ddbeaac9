"""Formulas as text: read and written in the notations of NLTK, of logic books (Unicode) and of TPTP.

In every dialect negation and quantifiers bind tightest, then conjunction, disjunction, exclusive or, implication and
equivalence. What is printed has a parenthesis around every compound part, so it reads the same everywhere::

    nltk      all x.((Cold(x) & -Kind(x)) -> exists y.Likes(x,y))
    unicode   ∀x ((Cold(x) ∧ ¬Kind(x)) → ∃y Likes(x, y))
    tptp      ! [X] : (('Cold'(X) & ~ 'Kind'(X)) => ? [Y] : 'Likes'(X,Y))
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from etude.errors import MissingExtra
from etude.reasoning.logic.formulas import (
    VARIABLE,
    And,
    Atom,
    Equal,
    Exists,
    ForAll,
    Formula,
    Function,
    Iff,
    Implies,
    Not,
    Or,
    Term,
    Variable,
)

if TYPE_CHECKING:
    from lark import Lark

Dialect: TypeAlias = Literal["auto", "nltk", "unicode", "tptp"]

DEEPEST = 150
"""How many formulas may lie inside each other in a text; deeper ones are refused rather than exhaust the stack."""

_INFIX = r"""
start: equivalence
?equivalence: implication | equivalence IFF implication -> iff
IMPLICATION
?exclusive: disjunction | exclusive XOR disjunction -> xor
?disjunction: conjunction (OR conjunction)* -> either
?conjunction: unary (AND unary)* -> both
?unary: NOT unary -> negated
      | BINDER unary -> quantified
      | _OPEN equivalence _CLOSE
      | application -> atom
      | application EQUAL application -> equal
      | application UNEQUAL application -> unequal
application: name [_OPEN argument (_COMMA argument)* _CLOSE]
argument: NAME+ [_OPEN argument (_COMMA argument)* _CLOSE]
name: NAME
%import common.WS
%ignore WS
"""
_LEFT = "?implication: exclusive | implication IMPLIES exclusive -> implies"
_RIGHT = "?implication: exclusive | exclusive IMPLIES implication -> implies"
_SINGLE = "?implication: exclusive | exclusive IMPLIES exclusive -> implies"

# A quantifier with its variables is one word of the language, so that "x" in "all x." is never taken for a predicate.
# The first letter of what a group means (all or exists) is looked up in _UNIVERSAL.
_LISTED = r"\s*\w+((\s*,\s*|\s+)\w+)*\s*[.:]"
_BARE = r"\s*\w+(\s*,\s*\w+\b(?!\())*(\s*,)?"
_TERMINALS: dict[str, dict[str, str]] = {
    "nltk": {
        "BINDER": rf"(all|forall|exists|exist|some)\b(?=\s+\w)({_LISTED}|{_BARE})",
        "IFF": r"<->|<=>|iff\b",
        "IMPLIES": r"->|=>|implies\b",
        "XOR": r"<~>",
        "OR": r"\||or\b",
        "AND": r"&|\^|and\b",
        "NOT": r"-(?!>)|!(?!=)|not\b",
        "UNEQUAL": r"!=",
        "EQUAL": r"==?(?!>)",
        "NAME": r"\w+",
        "_OPEN": r"\(",
        "_CLOSE": r"\)",
        "_COMMA": r",",
    },
    "unicode": {
        "BINDER": rf"[∀∃]({_LISTED}|{_BARE})",
        "IFF": r"[↔⟷⇔≡]",
        "IMPLIES": r"[→⟶⇒⊃]",
        "XOR": r"[⊕⊻]",
        "OR": r"∨",
        "AND": r"∧",
        "NOT": r"¬",
        "UNEQUAL": r"≠",
        "EQUAL": r"=",
        "NAME": r"\w+",
        "_OPEN": r"\(",
        "_CLOSE": r"\)",
        "_COMMA": r",",
    },
    "auto": {
        "BINDER": rf"([∀∃]|((?i:all|for\s*all|every|there\s+exists|exists?|some)\b(?=\s+\w)))({_LISTED}|{_BARE})",
        "IFF": r"<-+>|<=+>|[↔⟷⇔≡]|(iff|IFF)\b",
        "IMPLIES": r"-+>|=+>|[→⟶⇒⊃]|(implies|IMPLIES)\b",
        "XOR": r"<~>|[⊕⊻]|(xor|XOR)\b",
        "OR": r"\|\|?|∨|\\/|(or|OR)\b",
        "AND": r"&&?|∧|\^|/\\|(and|AND)\b",
        "NOT": r"[-−–](?!>)|[¬~]|!(?!=)|(not|NOT)\b",
        "UNEQUAL": r"!=|≠",
        "EQUAL": r"==?(?!>)",
        "NAME": r"\w+(([-'’‘`/]|\.\s*)\w+)*['’]?|\"[^\"()]*\"|'[^'()]*'",
        "_OPEN": r"[\[(]",
        "_CLOSE": r"[\])]",
        "_COMMA": r",",
    },
}
_UNIVERSAL = re.compile(r"∀|all|for\s*all|every", re.IGNORECASE)
_PRIORITY = {"BINDER": 9, "IFF": 8, "XOR": 7, "IMPLIES": 7, "UNEQUAL": 6, "OR": 5, "AND": 5, "NOT": 4, "EQUAL": 4}

_TPTP = r"""
start: formula | ("fof" | "cnf") "(" _name "," WORD ["," formula] ")" "."
_name: WORD | QUOTED | NUMBER
?formula: unitary
        | unitary (OR unitary)+ -> either
        | unitary (AND unitary)+ -> both
        | unitary CONNECTIVE unitary -> joined
?unitary: "~" unitary -> negated
        | QUANTIFIER "[" CAPITAL ("," CAPITAL)* "]" ":" unitary -> quantified
        | "(" formula ")"
        | application -> atom
        | application "=" application -> equal
        | application "!=" application -> unequal
application: (WORD | QUOTED | NUMBER | CAPITAL) ["(" application ("," application)* ")"]
CONNECTIVE.3: "<=>" | "<~>" | "=>" | "<=" | "~|" | "~&"
QUANTIFIER.2: /[!?](?=\s*\[)/
OR: "|"
AND: "&"
WORD: /[a-z][A-Za-z0-9_]*/
CAPITAL: /[A-Z][A-Za-z0-9_]*/
NUMBER: /[0-9][A-Za-z0-9_]*/
QUOTED: /'([^'\\]|\\['\\])*'/
COMMENT: /%[^\n]*/
%import common.WS
%ignore WS
%ignore COMMENT
"""

_LOOKS_LIKE_TPTP = re.compile(
    r"[!?]\s*\[\s*[A-Z]\w*\s*[],]"
    r"|^\s*(fof|cnf)\s*\(\s*('[^']*'|\w+)\s*,\s*(axiom|hypothesis|definition|assumption|lemma|theorem|corollary"
    r"|conjecture|negated_conjecture|plain)\s*,"
)

Raw: TypeAlias = tuple[Any, ...]


def parse(text: str, dialect: Dialect = "auto") -> Formula:
    """Read one formula.

    ``auto`` reads what language models write: operators of both NLTK and Unicode, ``xor``, ``Exists``, ``for all``,
    square brackets, and names with spaces (in argument lists), hyphens, dots or apostrophes, which become words: "New
    York" is the constant New_York, "Well-known" the predicate Well_known. An implication chained without parentheses
    is refused there; ``nltk`` reads it from the left as NLTK does, ``unicode`` from the right. TPTP is recognised by
    ``fof(name, role,`` or by a quantifier with brackets. A quantifier's scope is the next formula: in
    ``all x.P(x) -> Q(x)`` the last x is free. Bound variables with a capital letter get a small one.

    Args:
        text: the formula; for TPTP, with or without ``fof(name, role, ...).`` around it.
        dialect: ``"auto"``, ``"nltk"``, ``"unicode"`` or ``"tptp"``.

    Returns:
        The formula. A name that no quantifier binds is a variable if it is one letter from u to z with digits or
        nothing after it (in TPTP: if it is capitalised), else a constant.

    Raises:
        TypeError: `text` is no string.
        ValueError: an unknown dialect, or a text that is no formula: the message shows where it ceases to be one.
        MissingExtra: lark is not installed.
    """
    if not isinstance(text, str):
        raise TypeError(f"text: a {type(text).__name__} was given; a string is accepted")
    if dialect not in ("auto", "nltk", "unicode", "tptp"):
        raise ValueError(f"dialect: {dialect!r} was given; 'auto', 'nltk', 'unicode' and 'tptp' are accepted")
    if not text.strip():
        raise ValueError("text: it is empty; a formula is accepted")
    return _parsed(text, dialect)


@functools.lru_cache(maxsize=4096)  # samples of a model repeat most of their lines
def _parsed(text: str, dialect: str) -> Formula:
    if dialect == "auto" and _LOOKS_LIKE_TPTP.search(text):
        dialect = "tptp"
    raw = _read(text, dialect)
    taken: set[str] = set()
    _collect_words(raw, taken, 0)
    return _resolve(raw, {}, taken, dialect)


def to_unicode(formula: Formula) -> str:
    """The formula in the notation of logic books: ``∀x (Cold(x) → ¬Kind(x))``; exclusive or is ``⊕``.

    Args:
        formula: any formula.

    Raises:
        ValueError: a free variable's name would be read as a constant, or a constant's as the variable around it.
    """
    return _print(formula, _UNICODE_WORDS, frozenset(), False)


def to_nltk(formula: Formula) -> str:
    """The formula as NLTK's logic package writes it: ``all x.(Cold(x) -> -Kind(x))``.

    Args:
        formula: any formula.

    Raises:
        ValueError: a free variable's name would be read as a constant, or a constant's as the variable around it.
    """
    return _print(formula, _NLTK_WORDS, frozenset(), False)


def to_tptp(formula: Formula) -> str:
    """The formula in TPTP's first-order form: ``! [X] : ('Cold'(X) => ~ 'Kind'(X))``.

    Args:
        formula: any formula.

    Raises:
        ValueError: a free variable's name would be read as a constant, or a variable's name is not ASCII.
    """
    return _print(formula, _TPTP_WORDS, frozenset(), False)


# ---- reading ---------------------------------------------------------------------------------------------------------


@functools.cache
def _parser(dialect: str) -> Lark:
    try:
        from lark import Lark
    except ImportError as error:
        raise MissingExtra("reading formulas needs lark", "Install it: pip install 'etude[reasoning]'") from error
    if dialect == "tptp":
        grammar = _TPTP
    else:
        implication = {"nltk": _LEFT, "unicode": _RIGHT, "auto": _SINGLE}[dialect]
        grammar = _INFIX.replace("IMPLICATION", implication)
        if dialect == "auto":  # a sentence may end with a full stop
            grammar = grammar.replace("start: equivalence", "start: equivalence [_STOP]") + "\n_STOP: /[.;]/"
        else:  # one word an argument
            grammar = grammar.replace("argument: NAME+", "argument: NAME")
        for name, pattern in _TERMINALS[dialect].items():
            escaped = pattern.replace("/", r"\/")
            grammar += f"\n{name}.{_PRIORITY.get(name, 1)}: /{escaped}/"
    return Lark(grammar, parser="lalr", transformer=_raw_builder(), maybe_placeholders=False)


def _raw_builder() -> Any:
    """What lark calls bottom-up: nested tuples, their scopes still unknown."""
    from lark import Token, Transformer, v_args

    def chain(kind: str, parts: tuple[Any, ...]) -> Raw:
        kept = tuple(part for part in parts if not isinstance(part, Token))
        return kept[0] if len(kept) == 1 else (kind, *kept)

    @v_args(inline=True)
    class Builder(Transformer[Any, Raw]):
        def start(self, *parts: Any) -> Raw:
            found = [part for part in parts if not isinstance(part, Token)]
            if not found:
                raise ValueError("text: it holds no formula")
            return found[-1]

        def either(self, *parts: Any) -> Raw:
            return chain("or", parts)

        def both(self, *parts: Any) -> Raw:
            return chain("and", parts)

        def iff(self, left: Raw, _: Any, right: Raw) -> Raw:
            return ("iff", left, right)

        def xor(self, left: Raw, _: Any, right: Raw) -> Raw:
            return ("not", ("iff", left, right))

        def implies(self, left: Raw, _: Any, right: Raw) -> Raw:
            return ("implies", left, right)

        def joined(self, left: Raw, connective: Any, right: Raw) -> Raw:
            match str(connective):
                case "<=>":
                    return ("iff", left, right)
                case "<~>":
                    return ("not", ("iff", left, right))
                case "=>":
                    return ("implies", left, right)
                case "<=":
                    return ("implies", right, left)
                case "~|":
                    return ("not", ("or", left, right))
            return ("not", ("and", left, right))

        def negated(self, *parts: Any) -> Raw:
            return ("not", parts[-1])

        def quantified(self, binder: Any, *parts: Any) -> Raw:
            *listed, body = parts
            kind = "all" if str(binder) == "!" or _UNIVERSAL.match(str(binder)) else "exists"
            if listed:
                names = [str(name) for name in listed]
            elif str(binder)[0] in "∀∃":
                names = re.findall(r"\w+", str(binder))
            else:
                word = re.match(r"(?i:for\s+all|there\s+exists|\w+)", str(binder))
                names = re.findall(r"\w+", str(binder)[word.end() :])  # type: ignore[union-attr]
            for name in reversed(names):
                body = (kind, name, body)
            return body

        def atom(self, application: Raw) -> Raw:
            return ("atom", application)

        def equal(self, left: Raw, *parts: Any) -> Raw:
            return ("equal", left, parts[-1])

        def unequal(self, left: Raw, *parts: Any) -> Raw:
            return ("not", ("equal", left, parts[-1]))

        def name(self, token: Any) -> Any:
            return token

        def application(self, word: Any, *arguments: Raw) -> Raw:
            return (word, arguments)

        def argument(self, *parts: Any) -> Raw:
            words = [part for part in parts if isinstance(part, Token)]
            token = words[0] if len(words) == 1 else Token(words[0].type, " ".join(words))
            return (token, tuple(part for part in parts if not isinstance(part, Token)))

    return Builder()


def _read(text: str, dialect: str) -> Raw:
    from lark import UnexpectedInput
    from lark.exceptions import VisitError

    try:
        return _parser(dialect).parse(text)  # type: ignore[return-value]
    except UnexpectedInput as error:
        column = getattr(error, "pos_in_stream", None)
        place = len(text) if column is None or column < 0 else column
        shown = f"{text[max(0, place - 40) : place]}⟨here⟩{text[place : place + 20]}"
        raise ValueError(f"text: no {'' if dialect == 'auto' else dialect + ' '}formula: {shown!r}") from None
    except VisitError as error:
        raise ValueError(str(error.orig_exc)) from None


def _word(token: Any) -> str:
    """A name as a word: quotes and apostrophes dropped, other signs as underscores."""
    text = str(token)
    if token.type == "QUOTED":
        text = re.sub(r"\\(['\\])", r"\1", text[1:-1])
    if text.isidentifier() or text.isalnum():
        return text
    return re.sub(r"\W+", "_", re.sub(r"['’‘`\"]", "", text).strip())


def _collect_words(raw: Raw, taken: set[str], depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"text: formulas lie more than {DEEPEST} deep inside each other; flatter ones are accepted")
    kind = raw[0]
    if kind == "atom":
        _collect_term_words(raw[1], taken, depth)
    elif kind == "equal":
        _collect_term_words(raw[1], taken, depth)
        _collect_term_words(raw[2], taken, depth)
    else:
        for part in raw[1:]:
            if isinstance(part, str):
                taken.add(part)
            else:
                _collect_words(part, taken, depth + 1)


def _collect_term_words(term: Raw, taken: set[str], depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"text: terms lie more than {DEEPEST} deep inside each other; flatter ones are accepted")
    taken.add(_word(term[0]))
    for argument in term[1]:
        _collect_term_words(argument, taken, depth + 1)


def _resolve(raw: Raw, scope: Mapping[str, Variable], taken: set[str], dialect: str) -> Formula:
    """Bind the names of a raw formula."""
    kind = raw[0]
    if kind == "atom":
        token, arguments = raw[1]
        return Atom(_word(token), tuple(_term(argument, scope, dialect) for argument in arguments))
    if kind == "equal":
        return Equal(_term(raw[1], scope, dialect), _term(raw[2], scope, dialect))
    if kind in ("all", "exists"):
        variable = _variable(raw[1], scope, taken, dialect)
        body = _resolve(raw[2], {**scope, raw[1]: variable}, taken, dialect)
        return ForAll(variable, body) if kind == "all" else Exists(variable, body)
    parts = tuple(_resolve(part, scope, taken, dialect) for part in raw[1:])
    match kind:
        case "not":
            return Not(parts[0])
        case "and":
            return And(parts)
        case "or":
            return Or(parts)
        case "implies":
            return Implies(*parts)
    return Iff(*parts)


def _variable(name: str, scope: Mapping[str, Variable], taken: set[str], dialect: str) -> Variable:
    if name[0].islower():
        return Variable(name)
    small = name[0].lower() + name[1:]
    if not small[0].islower():
        small = f"v{small}"
    if dialect == "tptp":
        return Variable(small)
    fresh, number = small, 0
    while fresh in taken or fresh in {variable.name for variable in scope.values()}:
        number += 1
        fresh = f"{small}_{number}"
    return Variable(fresh)


def _term(raw: Raw, scope: Mapping[str, Variable], dialect: str) -> Term:
    token, arguments = raw
    word = _word(token)
    if not arguments:
        if dialect == "tptp":
            if token.type == "CAPITAL":
                return Variable(word[0].lower() + word[1:])
        elif word in scope:
            return scope[word]
        elif VARIABLE.fullmatch(word):
            return Variable(word)
    return Function(word, tuple(_term(argument, scope, dialect) for argument in arguments))


# ---- writing ---------------------------------------------------------------------------------------------------------

_UNICODE_WORDS = {
    "not": "¬",
    "and": " ∧ ",
    "or": " ∨ ",
    "implies": " → ",
    "iff": " ↔ ",
    "xor": " ⊕ ",
    "unequal": " ≠ ",
    "all": "∀{} ",
    "exists": "∃{} ",
    "comma": ", ",
}
_NLTK_WORDS = {
    "not": "-",
    "and": " & ",
    "or": " | ",
    "implies": " -> ",
    "iff": " <-> ",
    "all": "all {}.",
    "exists": "exists {}.",
    "comma": ",",
}
_TPTP_WORDS = {
    "not": "~ ",
    "and": " & ",
    "or": " | ",
    "implies": " => ",
    "iff": " <=> ",
    "xor": " <~> ",
    "unequal": " != ",
    "all": "! [{}] : ",
    "exists": "? [{}] : ",
    "comma": ",",
}


def _print(formula: Formula, words: Mapping[str, str], bound: frozenset[str], inside: bool) -> str:
    """The text of a formula, in parentheses if it is `inside` another and not a single word of the language."""
    match formula:
        case Atom(predicate, arguments):
            return _symbol(predicate, words) + _arguments(arguments, words, bound)
        case Equal(left, right):
            text = f"{_print_term(left, words, bound)} = {_print_term(right, words, bound)}"
            return f"({text})" if inside else text
        case Not(Iff(left, right)) if "xor" in words:
            text = words["xor"].join(_print(part, words, bound, True) for part in (left, right))
            return f"({text})" if inside else text
        case Not(Equal(left, right)) if "unequal" in words:
            text = words["unequal"].join(_print_term(side, words, bound) for side in (left, right))
            return f"({text})" if inside else text
        case Not(body):
            return words["not"] + _print(body, words, bound, True)
        case ForAll(variable, body) | Exists(variable, body):
            head = words["all" if isinstance(formula, ForAll) else "exists"].format(_symbol(variable, words))
            return head + _print(body, words, bound | {variable.name}, True)
        case And(parts):
            text = words["and"].join(_print(part, words, bound, True) for part in parts)
        case Or(parts):
            text = words["or"].join(_print(part, words, bound, True) for part in parts)
        case Implies(left, right):
            text = words["implies"].join(_print(part, words, bound, True) for part in (left, right))
        case Iff(left, right):
            text = words["iff"].join(_print(part, words, bound, True) for part in (left, right))
        case _:
            raise TypeError(f"formula: a {type(formula).__name__} was given; a formula is accepted")
    return f"({text})" if inside else text


def _arguments(arguments: tuple[Term, ...], words: Mapping[str, str], bound: frozenset[str]) -> str:
    if not arguments:
        return ""
    return f"({words['comma'].join(_print_term(term, words, bound) for term in arguments)})"


def _print_term(term: Term, words: Mapping[str, str], bound: frozenset[str]) -> str:
    if isinstance(term, Variable):
        if words is not _TPTP_WORDS and term.name not in bound and not VARIABLE.fullmatch(term.name):
            raise ValueError(
                f"formula: its free variable {term.name} would be read as a constant; "
                "a letter from u to z (and digits) is accepted"
            )
        return _symbol(term, words)
    if words is not _TPTP_WORDS and not term.arguments and term.name in bound:
        raise ValueError(f"formula: the constant {term.name} would be read as the variable around it; rename one")
    return _symbol(term.name, words) + _arguments(term.arguments, words, bound)


def _symbol(symbol: str | Variable, words: Mapping[str, str]) -> str:
    name = symbol.name if isinstance(symbol, Variable) else symbol
    if words is not _TPTP_WORDS:
        return name
    if isinstance(symbol, Variable):
        if not name.isascii():
            raise ValueError(f"formula: the variable {name} is not ASCII, which TPTP asks for")
        return name[0].upper() + name[1:]
    # "fof" and "cnf" are words of the language.
    plain = re.fullmatch(r"[a-z][A-Za-z0-9_]*", name) and name not in ("fof", "cnf")
    return name if plain else f"'{name}'"
