"""Answering with logic: a language model translates, a prover deduces, samples vote; and the model alone, three ways.

The four ways share one prompt frame, one way of sampling and one vote: `Linc` (formulas, decided by a prover),
`Scratchpad` (the same formulas, decided by the model), `ChainOfThought` (words, then a label) and `LabelOnly`.

Example:
    With the small model that comes with the extra ``llm``, or any endpoint::

        from etude.language import language_model
        linc = Linc(language_model("local"), worked_examples(4), k=10)
        answer = linc.answer(LogicProblem(("All cats are animals.", "Tom is a cat."), "Tom is an animal."))
        answer.label, answer.votes, answer.errors

Source: Olausson et al., EMNLP 2023 (arXiv 2310.15164), sections 2 and 3.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from etude.data.rule_worlds import LABELS, Label, LogicProblem
from etude.language.model import LanguageModel
from etude.language.voting import majority_vote
from etude.reasoning.logic import Formula, Proof, Verdict, closure, entails, parse, signature
from etude.reasoning.logic.entailment import EngineName

Vote: TypeAlias = str
"""``"True"``, ``"False"``, ``"Uncertain"`` or ``"Error"``."""
STOP = "</EVALUATE>"


@dataclass(frozen=True)
class Shot:
    """A worked example for the prompt.

    Attributes:
        problem: the problem, with its label.
        formulas: one a premise, and the conclusion's, in the NLTK notation.
        rationale: the deduction in words.

    Raises:
        ValueError: the problem has no label, or not one formula a sentence.
    """

    problem: LogicProblem
    formulas: tuple[str, ...]
    rationale: str

    def __post_init__(self) -> None:
        if self.problem.label is None:
            raise ValueError("problem: it has no label; a worked example needs one")
        if len(self.formulas) != len(self.problem.premises) + 1:
            raise ValueError(
                f"formulas: {len(self.formulas)} were given for {len(self.problem.premises)} premises and a "
                "conclusion; one a sentence is accepted"
            )


@dataclass(frozen=True)
class Answer:
    """What the samples of a model come to.

    Attributes:
        label: the label with most votes, of labels that tie the one voted for first; None if every sample failed.
        votes: one a sample, ``"Error"`` where it gave no label.
        parses: the formulas of each sample (premises, then the conclusion), None where they were not read.
        errors: why a sample failed, "" where it did not.
        texts: what the model wrote.
        tie: whether another label had as many votes.
        proofs: the prover's answer to each sample, None where it was not asked.
    """

    label: Label | None
    votes: tuple[Vote, ...]
    parses: tuple[tuple[Formula, ...] | None, ...]
    errors: tuple[str, ...]
    texts: tuple[str, ...]
    tie: bool = False
    proofs: tuple[Proof | None, ...] = ()


@dataclass(frozen=True)
class Reading:
    """One sample, read.

    Attributes:
        vote: its label, or ``"Error"``.
        formulas: its formulas, where there are any.
        error: why there is no label.
        proof: the prover's answer.
    """

    vote: Vote
    formulas: tuple[Formula, ...] | None = None
    error: str = ""
    proof: Proof | None = None


class Voter(ABC):
    """A language model asked k times about a problem, its answers put to the vote.

    Args:
        model: any language model.
        shots: worked examples for the prompt; none is accepted.
        k: samples a problem, at least 1.
        temperature: of sampling, at least 0.
        top_p: of sampling, in (0, 1].
        max_tokens: of one sample.
        seed: of sampling.

    Raises:
        TypeError: `model` is no language model, or a shot no `Shot`.
        ValueError: `k` is below 1, or `temperature`, `top_p` or `max_tokens` outside its range.
    """

    instructions: str

    def __init__(
        self,
        model: LanguageModel,
        shots: Sequence[Shot] = (),
        k: int = 10,
        temperature: float = 0.8,
        top_p: float = 0.95,
        *,
        max_tokens: int = 1024,
        seed: int = 0,
    ) -> None:
        if not isinstance(model, LanguageModel):
            raise TypeError(f"model: a {type(model).__name__} was given; a LanguageModel is accepted")
        for number, shot in enumerate(shots):
            if not isinstance(shot, Shot):
                raise TypeError(f"shots[{number}]: a {type(shot).__name__} was given; a Shot is accepted")
        for name, count in (("k", k), ("max_tokens", max_tokens)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ValueError(f"{name}: {count!r} was given; an integer of at least 1 is accepted")
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature: {temperature!r} was given; a number of at least 0 is accepted")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p: {top_p!r} was given; a number above 0 and up to 1 is accepted")
        self.model, self.shots, self.k = model, tuple(shots), k
        self.temperature, self.top_p, self.max_tokens, self.seed = temperature, top_p, max_tokens, seed

    def answer(self, problem: LogicProblem) -> Answer:
        """Ask about one problem.

        Args:
            problem: the problem.

        Raises:
            Unavailable: the model cannot be reached.
        """
        return self.answers([problem])[0]

    def answers(self, problems: Sequence[LogicProblem]) -> list[Answer]:
        """Ask about several problems, which an endpoint answers at the same time.

        Args:
            problems: the problems.

        Raises:
            Unavailable: the model cannot be reached.
        """
        completions = self._generated(problems)
        return [self._answer([completion.text for completion in row]) for row in completions]

    def prompt(self, problem: LogicProblem) -> str:
        """What the model is asked: instructions, worked examples and the problem.

        Args:
            problem: the problem.
        """
        examples = [f"{_framed(shot.problem)}{self._worked(shot)}\n{STOP}\n" for shot in self.shots]
        return "\n".join([f"{self.instructions}\n", *examples, _framed(problem)])

    def read(self, text: str) -> Reading:
        """What one sample says.

        Args:
            text: what the model wrote.
        """
        return self._read(text.partition(STOP)[0])

    def _generated(self, problems: Sequence[LogicProblem], grammars: Sequence[str | None] = ()) -> list[list[object]]:
        options = {
            "n": self.k,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "stop": (STOP,),
            "seed": self.seed,
        }
        if not any(grammars):
            return self.model.generate([self.prompt(problem) for problem in problems], **options)
        return [
            self.model.generate([self.prompt(problem)], grammar=grammar, **options)[0]
            for problem, grammar in zip(problems, grammars)
        ]

    def _answer(self, texts: Sequence[str]) -> Answer:
        readings = [self.read(text) for text in texts]
        votes = tuple(reading.vote for reading in readings)
        label, tie = vote(votes)
        return Answer(
            label,
            votes,
            tuple(reading.formulas for reading in readings),
            tuple(reading.error for reading in readings),
            tuple(texts),
            tie,
            tuple(reading.proof for reading in readings),
        )

    @abstractmethod
    def _worked(self, shot: Shot) -> str:
        """What the model should have written for a worked example."""

    @abstractmethod
    def _read(self, text: str) -> Reading:
        """What one sample says."""


def vote(votes: Sequence[Vote]) -> tuple[Label | None, bool]:
    """The label with most votes, errors abstaining, and whether another had as many.

    Args:
        votes: labels and ``"Error"``.

    Returns:
        The label, of those that tie the one voted for first (None without a vote), and whether there was a tie.
    """
    row = np.array([[LABELS.index(vote) if vote in LABELS else -1 for vote in votes]])
    first, alone = (int(majority_vote(row, ties=ties)[0]) for ties in ("first", "none"))
    return (None, False) if first < 0 else (LABELS[first], alone < 0)


class Linc(Voter):
    """Logical Inference via Neurosymbolic Computation: the model writes formulas, a prover decides, samples vote.

    A sample that has no formulas, a symbol at two arities or in two roles, inconsistent premises or no proof in time
    is an error and does not vote. Free variables are read as universally quantified, as Prover9 reads them.

    Args:
        model: as for `Voter`, and so are `shots`, `k`, `temperature`, `top_p`, `max_tokens` and `seed`.
        shots: see `Voter`.
        k: see `Voter`.
        temperature: see `Voter`.
        top_p: see `Voter`.
        engine: the prover, as for `entails`.
        grammar: ``"nltk"`` to let the model write nothing but the problem's sentences, each with a formula that can be
            read; a GBNF grammar of your own; or None.
        seed: see `Voter`.
        max_tokens: see `Voter`.
        timeout: seconds for one sample's proof.
        check_consistency: as for `entails`; without it, inconsistent premises count as True, as in the paper.

    Raises:
        TypeError, ValueError: as for `Voter`; an unknown engine.
    """

    instructions = (
        "Translate every premise and the conclusion into first-order logic, so that a theorem prover can decide "
        "whether the conclusion is true, false or uncertain. Repeat each sentence after TEXT: and write its formula "
        "after FOL:, in the notation of NLTK: all x.(...), exists x.(...), -, &, |, ->, <->. A name means the same "
        "in every formula, and a predicate always has as many arguments."
    )

    def __init__(
        self,
        model: LanguageModel,
        shots: Sequence[Shot] = (),
        k: int = 10,
        temperature: float = 0.8,
        top_p: float = 0.95,
        engine: EngineName = "auto",
        grammar: str | None = None,
        seed: int = 0,
        *,
        max_tokens: int = 1024,
        timeout: float = 10.0,
        check_consistency: bool = True,
    ) -> None:
        super().__init__(model, shots, k, temperature, top_p, max_tokens=max_tokens, seed=seed)
        entails([], "P | -P", engine=engine, timeout=timeout)  # an unknown or absent engine is told before any sample
        self.engine, self.grammar, self.timeout = engine, grammar, timeout
        self.check_consistency = check_consistency

    def answers(self, problems: Sequence[LogicProblem]) -> list[Answer]:
        """Ask about several problems. Arguments as for `Voter.answers`."""
        if self.grammar is None:
            return super().answers(problems)
        grammars = [
            translation_grammar((*p.premises, p.conclusion)) if self.grammar == "nltk" else self.grammar
            for p in problems
        ]
        rows = self._generated(problems, grammars)
        return [self._answer([completion.text for completion in row]) for row in rows]

    def _worked(self, shot: Shot) -> str:
        return _translated(shot)

    def _read(self, text: str) -> Reading:
        try:
            formulas = translation(text)
        except ValueError as error:
            return Reading("Error", None, str(error))
        try:
            signature(formulas)
            *premises, conclusion = formulas
            proof = entails(
                premises,
                conclusion,
                engine=self.engine,
                timeout=self.timeout,
                check_consistency=self.check_consistency,
            )
        except ValueError as error:
            return Reading("Error", formulas, str(error))
        label = label_of(proof)
        why = proof.why or f"the premises {proof.premises_used} contradict each other"
        return Reading(label or "Error", formulas, "" if label else why, proof)


class Scratchpad(Voter):
    """The model writes the formulas and then the label itself: what the prover adds is the difference to `Linc`.

    Arguments as for `Voter`.
    """

    instructions = (
        "Translate every premise and the conclusion into first-order logic in the notation of NLTK, each sentence "
        "after TEXT: and its formula after FOL:. Then decide with their help whether the conclusion follows from the "
        "premises (True), its negation does (False) or neither (Uncertain), and write that word after ANSWER:."
    )

    def _worked(self, shot: Shot) -> str:
        return f"{_translated(shot)}\nANSWER:\t{shot.problem.label}"

    def _read(self, text: str) -> Reading:
        try:
            formulas = translation(text)
        except ValueError:
            formulas = None  # the label counts, whatever was written before it
        return _labelled(text, formulas)


class ChainOfThought(Voter):
    """The model reasons in words and then writes the label. Arguments as for `Voter`."""

    instructions = (
        "Decide whether the conclusion follows from the premises (True), its negation does (False) or neither "
        "(Uncertain). Reason step by step, then write that word after ANSWER:."
    )

    def _worked(self, shot: Shot) -> str:
        return f"{shot.rationale}\nANSWER:\t{shot.problem.label}"

    def _read(self, text: str) -> Reading:
        return _labelled(text)


class LabelOnly(Voter):
    """The model writes the label and nothing else. Arguments as for `Voter`."""

    instructions = (
        "Decide whether the conclusion follows from the premises (True), its negation does (False) or neither "
        "(Uncertain). Write that word and nothing else."
    )

    def _worked(self, shot: Shot) -> str:
        return str(shot.problem.label)

    def _read(self, text: str) -> Reading:
        return _labelled(f"ANSWER:{text}")


def translation(text: str) -> tuple[Formula, ...]:
    """The formulas after ``FOL:`` in what a model wrote, the conclusion's last, their free variables bound.

    Args:
        text: lines ``TEXT:`` and ``FOL:``; others are passed over.

    Raises:
        ValueError: fewer than two formulas, or one that cannot be read, named by its number.
    """
    lines = [line.partition("FOL:")[2].strip() for line in text.splitlines() if "FOL:" in line]
    if len(lines) < 2:
        raise ValueError(f"text: it has {len(lines)} lines with FOL:; a premise and a conclusion are needed")
    formulas = []
    for number, line in enumerate(lines):
        try:
            formulas.append(closure(parse(line)))
        except ValueError as error:
            raise ValueError(f"formula {number}: {error}") from None
    return tuple(formulas)


def label_of(proof: Proof) -> Label | None:
    """The label of a verdict; None for inconsistent premises and for what the prover did not decide.

    Args:
        proof: what `entails` returned.
    """
    found: dict[Verdict, Label] = {
        Verdict.TRUE: "True",
        Verdict.FALSE: "False",
        Verdict.UNCERTAIN: "Uncertain",
    }
    return found.get(proof.verdict)


def translation_grammar(sentences: Sequence[str] | None = None) -> str:
    """A GBNF grammar of closed formulas in the NLTK notation, of bounded length.

    Variables are bound where they stand, so nothing that it derives has a free variable. One-place predicates begin
    with a capital letter, two-place ones with a small one and end with an underscore, and constants have capitals
    alone, so that no symbol has two arities or two roles. Words have at most 20 letters, a formula at most two
    quantifiers and four atoms.

    Args:
        sentences: the problem's sentences, which are written out with a formula each; None for a single formula.
    """
    rules = [] if sentences is None else [_written_out(sentences)]
    if sentences is None:
        rules.append("root ::= formula")
    rules += [
        'formula ::= body0 | "all x.(" body1 ")" | "exists x.(" body1 ")" | "all x.(all y.(" body2 "))"'
        ' | "all x.(" side1 " -> exists y.(" side2 "))"',
    ]
    for scope, term in (("0", "constant"), ("1", '(constant | "x")'), ("2", '(constant | "x" | "y")')):
        rules += [
            f"body{scope} ::= side{scope} (connective side{scope})?",
            f'side{scope} ::= literal{scope} | "(" literal{scope} joint literal{scope} ")"',
            f'literal{scope} ::= "-"? atom{scope}',
            f'atom{scope} ::= unary "(" {term} ")" | binary "(" {term} ", " {term} ")"',
        ]
    rules += [
        'connective ::= " -> " | " & " | " | " | " <-> "',
        'joint ::= " & " | " | "',
        "unary ::= [A-Z] [a-z]{1,19}",
        'binary ::= [a-z]{2,19} "_"',
        "constant ::= [A-Z]{2,20}",
    ]
    return "\n".join(rules)


def worked_examples(n: int = 8) -> tuple[Shot, ...]:
    """Worked examples in the manner of FOLIO, written for this library.

    Args:
        n: how many, 0 to 8.

    Raises:
        ValueError: another number.
    """
    if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= len(_EXAMPLES):
        raise ValueError(f"n: {n!r} was given; an integer from 0 to {len(_EXAMPLES)} is accepted")
    return tuple(
        Shot(LogicProblem(tuple(text for text, _ in lines[:-1]), lines[-1][0], label), tuple(f for _, f in lines), why)
        for label, lines, why in _EXAMPLES[:n]
    )


def _framed(problem: LogicProblem) -> str:
    premises = "\n".join(problem.premises)
    return f"<PREMISES>\n{premises}\n</PREMISES>\n<CONCLUSION>\n{problem.conclusion}\n</CONCLUSION>\n<EVALUATE>\n"


def _translated(shot: Shot) -> str:
    sentences = (*shot.problem.premises, shot.problem.conclusion)
    return "\n".join(f"TEXT:\t{text}\nFOL:\t{formula}" for text, formula in zip(sentences, shot.formulas))


def _labelled(text: str, formulas: tuple[Formula, ...] | None = None) -> Reading:
    said = text.rpartition("ANSWER:")[2].strip() if "ANSWER:" in text else ""
    if said in LABELS:
        return Reading(said, formulas)
    return Reading("Error", formulas, f"no label after ANSWER: but {said[:60]!r}")


def _written_out(sentences: Sequence[str]) -> str:
    quoted = [sentence.replace("\\", "\\\\").replace('"', '\\"') for sentence in sentences]
    return "root ::= " + " ".join(f'"TEXT:\\t{text}\\nFOL:\\t" formula "\\n"' for text in quoted)


_EXAMPLES: tuple[tuple[Label, tuple[tuple[str, str], ...], str], ...] = (
    (
        "True",
        (
            (
                "Every lighthouse on the coast is painted white or striped.",
                "all x.(Lighthouse(x) -> (White(x) | Striped(x)))",
            ),
            ("No striped lighthouse is open to visitors.", "all x.((Lighthouse(x) & Striped(x)) -> -Open(x))"),
            ("Northpoint is a lighthouse.", "Lighthouse(Northpoint)"),
            ("Northpoint is open to visitors.", "Open(Northpoint)"),
            ("Northpoint is painted white.", "White(Northpoint)"),
        ),
        "Northpoint is a lighthouse, so it is white or striped. If it were striped it would not be open, but it is "
        "open. So it is not striped, and it must be white.",
    ),
    (
        "False",
        (
            (
                "If a bakery sells rye bread, then it has a stone oven.",
                "all x.((Bakery(x) & Sells(x, RyeBread)) -> Has(x, StoneOven))",
            ),
            ("Anyone with a stone oven burns wood.", "all x.(Has(x, StoneOven) -> BurnsWood(x))"),
            ("Miller's is a bakery that sells rye bread.", "Bakery(Millers) & Sells(Millers, RyeBread)"),
            ("Miller's does not burn wood.", "-BurnsWood(Millers)"),
        ),
        "Miller's is a bakery that sells rye bread, so it has a stone oven. Whoever has a stone oven burns wood. So "
        "Miller's burns wood, and the conclusion says that it does not.",
    ),
    (
        "Uncertain",
        (
            ("All members of the choir can read music.", "all x.(Choir(x) -> ReadsMusic(x))"),
            ("Some people who can read music play the harp.", "exists x.(ReadsMusic(x) & PlaysHarp(x))"),
            ("Petra is a member of the choir.", "Choir(Petra)"),
            ("Petra plays the harp.", "PlaysHarp(Petra)"),
        ),
        "Petra is in the choir, so she can read music. Some who can read music play the harp, but nothing says that "
        "Petra is one of them, nor that she is not.",
    ),
    (
        "True",
        (
            (
                "A train is either on time or late, but not both.",
                "all x.(Train(x) -> ((OnTime(x) & -Late(x)) | (-OnTime(x) & Late(x))))",
            ),
            ("If a train is late, its passengers get a voucher.", "all x.((Train(x) & Late(x)) -> Voucher(x))"),
            ("The night express is a train and is not on time.", "Train(NightExpress) & -OnTime(NightExpress)"),
            ("The passengers of the night express get a voucher.", "Voucher(NightExpress)"),
        ),
        "The night express is a train and is not on time, so it is late. Passengers of a late train get a voucher.",
    ),
    (
        "False",
        (
            ("No amphibian has feathers.", "all x.(Amphibian(x) -> -Feathers(x))"),
            ("Every newt is an amphibian.", "all x.(Newt(x) -> Amphibian(x))"),
            ("Olm is a newt.", "Newt(Olm)"),
            ("Some newt has feathers.", "exists x.(Newt(x) & Feathers(x))"),
        ),
        "Every newt is an amphibian and no amphibian has feathers, so no newt has feathers. The conclusion says that "
        "one has.",
    ),
    (
        "Uncertain",
        (
            ("If it rains, the market moves indoors.", "Rain -> Indoors"),
            ("If the market moves indoors, the cellist plays.", "Indoors -> CellistPlays"),
            ("The cellist plays.", "CellistPlays"),
            ("It rains.", "Rain"),
        ),
        "The cellist plays. Rain would explain it, but she may play for another reason: nothing says that she plays "
        "only then. It may rain or not.",
    ),
    (
        "True",
        (
            (
                "Every author in the anthology was translated by someone.",
                "all x.(InAnthology(x) -> exists y.Translated(y, x))",
            ),
            (
                "Whoever translates a poet is mentioned in the preface.",
                "all x.all y.((Translated(x, y) & Poet(y)) -> InPreface(x))",
            ),
            ("Vesna is a poet in the anthology.", "Poet(Vesna) & InAnthology(Vesna)"),
            ("Someone is mentioned in the preface.", "exists x.InPreface(x)"),
        ),
        "Vesna is in the anthology, so someone translated her. She is a poet, so whoever translated her is mentioned "
        "in the preface. So someone is.",
    ),
    (
        "False",
        (
            ("Ida is older than Jon.", "Older(Ida, Jon)"),
            ("Jon is older than Kim.", "Older(Jon, Kim)"),
            (
                "If one person is older than a second, and the second than a third, the first is older than the third.",
                "all x.all y.all z.((Older(x, y) & Older(y, z)) -> Older(x, z))",
            ),
            ("Nobody is older than someone who is older than them.", "all x.all y.(Older(x, y) -> -Older(y, x))"),
            ("Kim is older than Ida.", "Older(Kim, Ida)"),
        ),
        "Ida is older than Jon and Jon older than Kim, so Ida is older than Kim. Then Kim is not older than Ida.",
    ),
)

__all__ = [
    "Answer",
    "ChainOfThought",
    "LabelOnly",
    "Linc",
    "Reading",
    "Scratchpad",
    "Shot",
    "Voter",
    "label_of",
    "translation",
    "translation_grammar",
    "vote",
    "worked_examples",
]
