"""A made-up world of questions with known answers, and responses to them with defects that are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from jaxtyping import Int

from etude.data.judgments import Comparison

DEFECTS = ("wrong fact", "missing part", "off topic", "bad grammar", "verbosity")
"""What can be wrong with a response; each has its own aspect of judging."""
WEIGHTS: Mapping[str, float] = MappingProxyType(dict(zip(DEFECTS, (2.0, 2.0, 2.0, 1.0, 1.0))))
"""How much each counts."""

_SYLLABLES = ("ba", "do", "fe", "gu", "ki", "lo", "mi", "na", "pe", "ru", "sa", "tu", "va", "zo")
_VALUES = {
    "colour": ("red", "blue", "green", "yellow", "white", "black", "purple", "brown"),
    "home": ("rivers", "forests", "deserts", "caves", "swamps", "mountains", "meadows", "lakes"),
    "food": ("leaves", "insects", "fish", "seeds", "berries", "roots", "snails", "moss"),
    "size": ("tiny", "small", "knee-high", "waist-high", "tall", "huge", "gigantic", "flat"),
}
_ASKED = {"colour": "which colour it has", "home": "where it lives", "food": "what it eats", "size": "how big it is"}
_SAID = {
    "colour": ("the {0} is {1} .", "a {0} has a {1} coat .", "you see that the {0} looks {1} ."),
    "home": ("the {0} lives in {1} .", "one finds a {0} in {1} .", "{1} are home to the {0} ."),
    "food": ("the {0} eats {1} .", "a {0} feeds on {1} .", "{1} are what the {0} likes ."),
    "size": ("the {0} is {1} .", "a {0} grows to be {1} .", "everybody calls the {0} {1} ."),
}
_FILLERS = (
    "this is a very good question and i am glad you asked it .",
    "there are many things that one could say about this .",
    "as was said before , it is as it was said before .",
    "in other words , and to put it differently , that is so .",
    "i hope that this helps , and do ask again whenever you like .",
    "it goes without saying , but it should be said all the same .",
)
_ELSEWHERE = (
    "the price of copper rose again last week .",
    "my neighbour plays the trumpet on sundays .",
    "a good soup needs salt and some patience .",
    "the train to the coast was late today .",
    "many people collect stamps from far away .",
    "the new bridge will be opened in spring .",
)
_SLIPS = {"is": "are", "are": "is", "lives": "live", "eats": "eat", "has": "have", "feeds": "feed", "finds": "find"}
_SLIPS |= {"grows": "grow", "calls": "call", "looks": "look", "likes": "like", "see": "sees"}


@dataclass(frozen=True, eq=False)
class WorldComparisons:
    """Comparisons whose every defect is known.

    Attributes:
        comparisons: questions, responses and which one is better on the whole.
        defects: 1 where the response (first or second) has the defect, 0 where not.
        aspects: which response is better in each aspect alone: 1, 2, or 0 for neither.
    """

    comparisons: list[Comparison]
    defects: Int[np.ndarray, "n 2 aspects"]
    aspects: Int[np.ndarray, "n aspects"]

    @property
    def labels(self) -> Int[np.ndarray, " n"]:
        """Which response is better on the whole: 1, 2, or 0 for neither."""
        return np.array([comparison.label for comparison in self.comparisons])


class ResponseWorld:
    """Animals that do not exist, each with a colour, a home, a food and a size.

    A question asks two of an animal's properties. A response answers both, in one of three wordings each, and has each
    defect of `DEFECTS` independently with the same chance: a wrong fact, one of the two parts missing, sentences about
    something else, grammar slips, empty phrases. The better response is that with the smaller weighted sum of defects,
    ``sum_d w_d x_d``. Only who knows the world's facts can see a wrong one.

    Args:
        animals: how many there are, from 2 to 150.
        chance: of each defect, in (0, 1).
        weights: how much each defect counts, positive.
        seed: decides names and facts.

    Attributes:
        names: of the animals.
        facts: for each property the number of each animal's value.

    Raises:
        ValueError: a number out of range, or a defect without its weight.
    """

    def __init__(
        self, *, animals: int = 24, chance: float = 0.4, weights: Mapping[str, float] = WEIGHTS, seed: int = 0
    ) -> None:
        if not 2 <= animals <= 150:
            raise ValueError(f"animals: {animals} was given; 2 to 150 are accepted")
        if not 0 < chance < 1:
            raise ValueError(f"chance: {chance} was given; a number between 0 and 1 is accepted")
        if set(weights) != set(DEFECTS) or min(weights.values()) <= 0:
            raise ValueError(f"weights: {dict(weights)} was given; a positive one for each of {', '.join(DEFECTS)}")
        draws = np.random.default_rng(seed)
        pairs = [first + second for first in _SYLLABLES for second in _SYLLABLES if first != second]
        self.names = [f"{pairs[number]}x" for number in draws.permutation(len(pairs))[:animals]]
        self.facts = {kind: draws.integers(0, len(values), animals) for kind, values in _VALUES.items()}
        self._chance = chance
        self._weights = np.array([weights[defect] for defect in DEFECTS])

    def sample(self, n: int, generator: np.random.Generator, *, ties: bool = False) -> WorldComparisons:
        """Draw comparisons.

        Args:
            n: how many, at least 1.
            generator: draws questions, defects and wordings.
            ties: also draw pairs of responses whose weighted sums are equal, with label 0.

        Raises:
            ValueError: n below 1.
        """
        if n < 1:
            raise ValueError(f"n: {n} was given; at least 1 is accepted")
        defects = (generator.random((n, 2, len(DEFECTS))) < self._chance).astype(np.int64)
        while not ties and (equal := self._better(defects) == 0).any():
            defects[equal] = generator.random((int(equal.sum()), 2, len(DEFECTS))) < self._chance
        labels = self._better(defects)
        animals = generator.integers(0, len(self.names), n)
        kinds = list(_VALUES)
        comparisons = []
        for animal, label, (of_a, of_b) in zip(animals, labels, defects):
            asked = [kinds[number] for number in generator.permutation(len(kinds))[:2]]
            question = f"tell me of the {self.names[animal]} {_ASKED[asked[0]]} and {_ASKED[asked[1]]} ."
            a, b = (self._response(int(animal), asked, of_one, generator) for of_one in (of_a, of_b))
            comparisons.append(Comparison(question, a, b, int(label)))  # type: ignore[arg-type]
        one, other = defects[:, 0], defects[:, 1]
        return WorldComparisons(comparisons, defects, np.where(one < other, 1, np.where(one > other, 2, 0)))

    def _better(self, defects: np.ndarray) -> np.ndarray:
        sums = defects @ self._weights
        return np.where(sums[:, 0] < sums[:, 1], 1, np.where(sums[:, 0] > sums[:, 1], 2, 0))

    def _response(self, animal: int, asked: list[str], has: np.ndarray, generator: np.random.Generator) -> str:
        wrong, missing, elsewhere, grammar, verbose = (bool(one) for one in has)
        told = [asked[int(generator.integers(2))]] if missing else asked
        false = told[int(generator.integers(len(told)))] if wrong else ""
        sentences = []
        for kind in told:
            value = int(self.facts[kind][animal])
            if kind == false:
                value = (value + int(generator.integers(1, len(_VALUES[kind])))) % len(_VALUES[kind])
            wording = _SAID[kind][int(generator.integers(len(_SAID[kind])))]
            sentences.append(wording.format(self.names[animal], _VALUES[kind][value]))
        if grammar:
            sentences = [" ".join(_SLIPS.get(word, word) for word in sentence.split()) for sentence in sentences]
        for extra, present in ((_ELSEWHERE, elsewhere), (_FILLERS, verbose)):
            if present:
                for number in generator.permutation(len(extra))[:2]:
                    sentences.insert(int(generator.integers(len(sentences) + 1)), extra[number])
        return " ".join(sentences)
