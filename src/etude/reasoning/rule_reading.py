"""Networks that read rule worlds: one that translates a sentence into logic, and one that answers without logic.

Both see a closed class of function words as they are. Every other word is open: the parser sees only that a word
stands there and may copy it, and the reader sees a number that is drawn anew for every word of a problem each time it
is read. So neither can learn anything about a particular word, and a test on other words asks for nothing new.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from etude.data.rule_worlds import LABELS, Label, LogicProblem
from etude.nn import PointerGenerator, Transformer, pointer_loss
from etude.reasoning.logic import Formula, parse, to_nltk

_FUNCTION_WORDS = (
    "<pad> <word> <s> if something anything then it and also is not are does do everything that all things the "
    ", . all exists - & -> ( ) x"
)
CLOSED = tuple(_FUNCTION_WORDS.split())
"""Function words and the signs of formulas; <s> is an s that a word was found to end with."""
SIGNS = ("<end>", "all x.(", "-", "&", "->", "(", ")", "x", ",")
"""What the parser writes besides copies of words."""
_PLACE = {word: place for place, word in enumerate(CLOSED)}
_PADDING, _WORD, _S = 0, 1, 2
WORDS_IN_A_PROBLEM = 24
"""The most open words that a reader can tell apart."""


def tokens(sentence: str) -> list[str]:
    """Lower-case words and signs of a sentence or of a formula; an open word's last s is a token of its own.

    Args:
        sentence: any text.
    """
    found = []
    for word in re.findall(r"->|\w+|[^\w\s]", sentence.lower()):
        if word in _PLACE or len(word) < 3 or not word.endswith("s"):
            found.append(word)
        else:
            found += [word[:-1], "<s>"]
    return found


# ---- from a sentence to a formula ------------------------------------------------------------------------------------


class SentenceParser(nn.Module):
    """Translates sentences of rule worlds one by one into formulas, copying their open words.

    Args:
        width: of the network's states.
        layers: its blocks.
        generator: where the initial weights are drawn from.
    """

    LONGEST, MOST_SIGNS = 24, 36

    def __init__(self, width: int = 64, layers: int = 2, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.network = PointerGenerator(
            len(CLOSED), len(SIGNS), self.LONGEST, self.MOST_SIGNS, width, layers, generator=generator
        )

    def encode(self, sentences: Sequence[str]) -> Int[Tensor, "sentences length"]:
        """What the network reads of each sentence.

        Args:
            sentences: the sentences.

        Raises:
            ValueError: a sentence longer than it reads.
        """
        rows = []
        for sentence in sentences:
            places = [_PLACE.get(token, _WORD) for token in tokens(sentence)]
            if len(places) > self.LONGEST:
                raise ValueError(
                    f"sentences: {sentence!r} has {len(places)} tokens; at most {self.LONGEST} are accepted"
                )
            rows.append(places + [_PADDING] * (self.LONGEST - len(places)))
        return torch.tensor(rows)

    def targets(self, sentences: Sequence[str], formulas: Sequence[Formula]) -> Int[Tensor, "sentences length"]:
        """What it should write: signs, and copies of the places where a formula's names stand.

        Args:
            sentences: the sentences.
            formulas: the formula of each, whose names are its words.
        """
        rows = []
        for sentence, formula in zip(sentences, formulas):
            words = tokens(sentence)
            row, used = [], dict[str, int]()
            for sign in re.findall(r"all x\.\(|->|\w+|[^\w\s]", to_nltk(formula)):
                if sign in SIGNS:
                    row.append(SIGNS.index(sign))
                    continue
                # A name that stands twice is copied from its next place, from the first again after the last.
                start = used.get(sign, -1) + 1
                name = sign.lower()
                place = words.index(name, start) if name in words[start:] else words.index(name)
                used[sign] = place
                row.append(len(SIGNS) + place)
            rows.append(row + [0] * (self.MOST_SIGNS - len(row)))
        return torch.tensor(rows)

    @torch.no_grad()
    def parse(
        self, sentences: Sequence[str], *, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> list[Formula | None]:
        """The formula of each sentence, None where what was written is none.

        Args:
            sentences: the sentences.
            temperature: as for `PointerGenerator.write`.
            generator: as for `PointerGenerator.write`.
        """
        # Sentences that differ in open words alone look the same to the network, so each form is read once.
        read = self.encode(sentences)
        forms, place = (
            (read, torch.arange(len(read))) if temperature else torch.unique(read, dim=0, return_inverse=True)
        )
        device = self.network.vocabulary.weight.device
        written = [
            row
            for part in forms.to(device).split(256)
            for row in self.network.write(part, temperature=temperature, generator=generator).tolist()
        ]
        return [_formula(tokens(sentence), written[form]) for sentence, form in zip(sentences, place.tolist())]


def _formula(words: list[str], written: list[int]) -> Formula | None:
    text = ""
    for choice in written:
        if choice == 0:
            break
        copied = choice - len(SIGNS)
        text += SIGNS[choice] if copied < 0 else words[copied].capitalize() if copied < len(words) else "?"
        text += " "
    try:
        return parse(text.replace("all x.( ", "all x.("), "nltk")
    except ValueError:
        return None


@dataclass(frozen=True)
class Fitted:
    """A trained network's weights and how its training went.

    Attributes:
        weights: its state.
        losses: the loss at each step.
    """

    weights: dict[str, Tensor]
    losses: Float[Tensor, " steps"]


def fit_parser(
    model: SentenceParser,
    sentences: Sequence[str],
    formulas: Sequence[Formula],
    *,
    steps: int,
    batch: int = 32,
    learning_rate: float = 5e-3,
    generator: torch.Generator,
) -> Fitted:
    """Train a parser on sentences and their formulas, with Adam and a learning rate that falls to 0 as a cosine.

    Args:
        model: the parser; it is trained in place.
        sentences: the sentences.
        formulas: the formula of each.
        steps: updates.
        batch: forms of sentences an update.
        learning_rate: at the start.
        generator: draws the batches.
    """
    device = model.network.vocabulary.weight.device
    source, target = model.encode(sentences).to(device), model.targets(sentences, formulas).to(device)
    # Sentences that differ in open words alone are one example to the network: frequent forms need no more of it.
    pairs = torch.unique(torch.cat([source, target], dim=1), dim=0)
    source, target = pairs.split([model.LONGEST, model.MOST_SIGNS], dim=1)
    target = target[:, : int((target != 0).any(0).nonzero().max()) + 2]

    def loss() -> Tensor:
        chosen = torch.randint(len(source), (batch,), generator=generator).to(device)
        return pointer_loss(model.network(source[chosen], target[chosen]), target[chosen])

    return _fitted(model, loss, steps, learning_rate)


# ---- from a problem to its answer ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ReadProblems:
    """Worlds and questions about them as a reader takes them.

    Attributes:
        premises: tokens (closed ones by number, open ones behind those in order of occurrence), 0 behind the end of a
            sentence.
        questions: the same of the conclusions; 0 where a world has fewer.
        labels: places in `LABELS`, -1 where there is no question or its label is not known.
    """

    premises: Int[Tensor, "worlds sentences length"]
    questions: Int[Tensor, "worlds questions words"]
    labels: Int[Tensor, "worlds questions"]

    def __len__(self) -> int:
        return len(self.premises)


def encode_problems(problems: Sequence[LogicProblem], formulas: Sequence[Sequence[str]] | None = None) -> ReadProblems:
    """Problems as tensors: their sentences, or their formulas in place of these.

    Args:
        problems: the problems; those in a row with the same premises are questions about one world.
        formulas: for each, one formula a premise and the conclusion's, in the NLTK notation; None to read sentences.

    Raises:
        ValueError: a world with more than 24 open words.
    """
    worlds: list[tuple[list[list[int]], list[list[int]], list[int]]] = []
    before: tuple[str, ...] = ()
    open_words: dict[str, int] = {}

    def numbers(text: str) -> list[int]:
        found = [
            _PLACE[token] if token in _PLACE else len(CLOSED) + open_words.setdefault(token, len(open_words))
            for token in tokens(text)
        ]
        if len(open_words) > WORDS_IN_A_PROBLEM:
            raise ValueError(
                f"problems: a world has more than {WORDS_IN_A_PROBLEM} open words (at {text!r}); so many are accepted"
            )
        return found

    for place, problem in enumerate(problems):
        texts = [*problem.premises, problem.conclusion] if formulas is None else list(formulas[place])
        if problem.premises != before:
            before, open_words = problem.premises, {}
            worlds.append(([numbers(text) for text in texts[:-1]], [], []))
        worlds[-1][1].append(numbers(texts[-1]))
        worlds[-1][2].append(-1 if problem.label is None else LABELS.index(problem.label))
    return ReadProblems(
        _padded([premises for premises, _, _ in worlds]),
        _padded([questions for _, questions, _ in worlds]),
        torch.nn.utils.rnn.pad_sequence([torch.tensor(labels) for _, _, labels in worlds], True, -1),
    )


def _padded(rows: list[list[list[int]]]) -> Tensor:
    most, longest = max(map(len, rows)), max(len(sentence) for row in rows for sentence in row)
    words = torch.zeros(len(rows), most, longest, dtype=torch.long)
    for i, row in enumerate(rows):
        for j, sentence in enumerate(row):
            words[i, j, : len(sentence)] = torch.tensor(sentence)
    return words


class ProblemReader(nn.Module):
    """Answers questions from words: each sentence becomes a vector, then blocks across sentences, then a softmax.

    A sentence is ``LayerNorm(sum_p u_p * e(w_p))``, with e the words' embeddings, u_p a learnt vector for the p-th
    place and * elementwise, followed by a hidden layer. Premises see each other, questions see the premises and the
    questions before them. The state of a question after the blocks decides.

    Args:
        width: of the states.
        layers: blocks over the sentences.
        heads: of each block's attention.
        longest: the most words in a sentence.
        generator: where the initial weights are drawn from.

    Source: the sentence vector is that of Sukhbaatar et al., NeurIPS 2015 (arXiv 1503.08895), section 4.1, learnt.
    """

    def __init__(
        self,
        width: int = 128,
        layers: int = 3,
        heads: int = 4,
        longest: int = 40,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(CLOSED) + WORDS_IN_A_PROBLEM, width, padding_idx=0)
        self.places = nn.Parameter(torch.randn(longest, width, generator=generator))
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.across = Transformer(
            width, layers, heads, visibility="prefix", positions=None, hidden=2 * width, generator=generator
        )
        self.asked = nn.Parameter(torch.randn(width, generator=generator))
        self.answer = nn.Linear(width, len(LABELS))
        with torch.no_grad():
            nn.init.normal_(self.embedding.weight, generator=generator)
            for layer in (self.up, self.down, self.answer):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
                nn.init.zeros_(layer.bias)
            self.embedding.weight[0] = 0

    def forward(
        self,
        premises: Int[Tensor, "worlds sentences length"],
        questions: Int[Tensor, "worlds questions width"],
    ) -> Float[Tensor, "worlds questions labels"]:
        """Logits of the labels.

        Args:
            premises: as in `ReadProblems`, the open words numbered in any way.
            questions: the same.
        """
        read = torch.cat([self._read(premises), self._read(questions) + self.asked], dim=1)
        return self.answer(self.across(read, prefix=premises.shape[1])[:, premises.shape[1] :])

    def _read(self, words: Tensor) -> Tensor:
        read = self.norm((self.embedding(words) * self.places[: words.shape[-1]]).sum(2))
        return read + self.down(gelu(self.up(read)))

    @torch.no_grad()
    def answers(self, problems: ReadProblems, *, generator: torch.Generator) -> list[Label]:
        """The most probable label of each question, world after world.

        Args:
            problems: the questions; every world has as many.
            generator: draws the numbers of open words.
        """
        device = self.answer.weight.device
        found: list[Label] = []
        for place in range(0, len(problems), 256):
            part = slice(place, place + 256)
            premises, questions = _renumbered(problems.premises[part], problems.questions[part], generator)
            best = self(premises.to(device), questions.to(device)).argmax(-1)
            found += [LABELS[label] for label in best.flatten().tolist()]
        return found


def _renumbered(premises: Tensor, questions: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The open words of each world under numbers drawn anew."""
    drawn = torch.rand(len(premises), WORDS_IN_A_PROBLEM, generator=generator).argsort(1) + len(CLOSED)
    closed = torch.arange(len(CLOSED)).expand(len(premises), -1)
    table = torch.cat([closed, drawn], dim=1)
    first, second = (table.gather(1, words.flatten(1)).view_as(words) for words in (premises, questions))
    return first, second


def fit_reader(
    model: ProblemReader,
    problems: ReadProblems,
    *,
    steps: int,
    batch: int = 32,
    learning_rate: float = 1e-3,
    generator: torch.Generator,
) -> Fitted:
    """Train a reader on questions and their labels, with Adam and a learning rate that falls to 0 as a cosine.

    Args:
        model: the reader; it is trained in place.
        problems: worlds with labelled questions.
        steps: updates.
        batch: worlds an update.
        learning_rate: at the start.
        generator: draws the batches, the order of questions and the numbers of open words.
    """
    device = model.answer.weight.device

    def loss() -> Tensor:
        chosen = torch.randint(len(problems), (batch,), generator=generator)
        order = torch.randperm(problems.questions.shape[1], generator=generator)
        premises, questions = _renumbered(problems.premises[chosen], problems.questions[chosen][:, order], generator)
        labels = problems.labels[chosen][:, order].to(device)
        logits = model(premises.to(device), questions.to(device))
        return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1)

    return _fitted(model, loss, steps, learning_rate)


def _fitted(model: nn.Module, loss: Callable[[], Tensor], steps: int, learning_rate: float) -> Fitted:
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        decay.step()
        losses.append(value.detach())
    model.eval()
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return Fitted(weights, torch.stack(losses))
