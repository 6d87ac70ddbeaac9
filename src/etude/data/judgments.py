"""Comparisons of two responses, and what language models were recorded to say of them."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from etude.data.locate import SOURCES, Source, listing, locate
from etude.errors import suggest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SETS", "Comparison", "recorded_comparisons", "recorded_judgments"]

LLM_JUDGMENTS = Source(
    "llm-judgments",
    files=listing(
        """
        08b8fcf7b787fa0361ea0ef15a7685e0edff37c1c9043803636cc63ba4a4ed66 1350568 judgments.parquet
        8bf0f1267a6b633a42f77984cd43f3cbae0530d8dcd34cf6f98c209b92a97d6f 71850 llmbar-adversarial-gptinst.json.gz
        2f2dbbb3cf47b3e20e5dda4822e71a6ab8256f6facc609a30399530e14fc986d 12508 llmbar-adversarial-gptout.json.gz
        00759cb1ee22391773ccc767420a8f321c397668e97f15eb8893292556a343c8 28323 llmbar-adversarial-manual.json.gz
        723778ebabea26aff4d070d45fc4b16383a14b2bce689cea58fc5a91f7f16f10 45289 llmbar-adversarial-neighbor.json.gz
        dafcee0daa7675e5b3beaf969b6e1ac0fb0dc2dc8dd4671c810ac2034a63b212 32178 llmbar-natural.json.gz
        e1bfb9557766c4a4f54127fb1e0a644d2ac2a9e4d2e394888164ae730fce2328 56502 processed-faireval.json.gz
        357e65e74c80f44f5defd695c0e0325a5c6d8feb32139bc91b313ff119421247 106590 processed-llmeval2.json.gz
        a74640b715206f13fe7bbf96cdd1db067311105113857aae982694e1d3230ddd 132005 processed-mt-bench.json.gz
        """
    ),
)
SOURCES[LLM_JUDGMENTS.name] = LLM_JUDGMENTS

SETS = {
    "Natural": "llmbar-natural.json.gz",
    "Neighbor": "llmbar-adversarial-neighbor.json.gz",
    "GPTInst": "llmbar-adversarial-gptinst.json.gz",
    "GPTOut": "llmbar-adversarial-gptout.json.gz",
    "Manual": "llmbar-adversarial-manual.json.gz",
    "FairEval": "processed-faireval.json.gz",
    "LLMEval^2": "processed-llmeval2.json.gz",
    "MT-Bench": "processed-mt-bench.json.gz",
}
"""The sets of comparisons. The five of LLMBar come first; of these all but Natural were made to mislead judges."""

Preference = Literal[0, 1, 2]


@dataclass(frozen=True)
class Comparison:
    """A question and two responses to it.

    Attributes:
        question: what was asked.
        a: the first response.
        b: the second response.
        label: which is better, 1 (`a`), 2 (`b`) or 0 (neither); None where it is not known.
        task: what kind of question it is, in a few words, if a judge is to be told.

    Raises:
        TypeError: a text that is none.
        ValueError: another label, or an empty question.
    """

    question: str
    a: str
    b: str
    label: Preference | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        for name in ("question", "a", "b"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name}: a {type(getattr(self, name)).__name__} was given; a text is accepted")
        if not self.question.strip():
            raise ValueError("question: it is empty; a text is accepted")
        if self.label is not None and (isinstance(self.label, bool) or self.label not in (0, 1, 2)):
            raise ValueError(f"label: {self.label!r} was given; 1 (a), 2 (b), 0 (neither) and None are accepted")

    def exchanged(self) -> Comparison:
        """The same comparison with the responses, and the label, exchanged."""
        label = self.label and 3 - self.label
        return Comparison(self.question, self.b, self.a, label, self.task)  # type: ignore[arg-type]


def recorded_comparisons(name: str) -> list[Comparison]:
    """The comparisons of a set whose judgments were recorded, in the order of their numbers.

    Args:
        name: one of `SETS`: the five of LLMBar (Zeng et al., ICLR 2024), or the parts of FairEval (66 comparisons),
            LLMEval^2 (200) and MT-Bench (200) that its authors processed: English, and without ties.

    Raises:
        ValueError: an unknown name.
        MissingData: the set is not at hand.
    """
    if name not in SETS:
        raise ValueError(f"name={name!r}: there is no such set.{suggest(name, SETS)} Give one of {', '.join(SETS)}")
    with gzip.open(locate(LLM_JUDGMENTS).paths[SETS[name]], "rt", encoding="utf-8") as file:
        return [
            Comparison(entry["input"], entry["output_1"], entry["output_2"], int(entry["label"]))  # type: ignore[arg-type]
            for entry in json.load(file)
        ]


@lru_cache(maxsize=1)
def recorded_judgments() -> pd.DataFrame:
    """What six language models said of the comparisons, under up to 15 ways of prompting and in both orders.

    The recording holds every step of a way of prompting, 102,990 rows. Its column of winners is one of winners only in
    66,204 of them; the other 36,786 hold what was written on the way (metrics, references, single scores, why a reply
    ended) and are dropped. Of the winners, 273 are "None", a reply that could not be read: these stay, as -1. The
    recorded winner is that of the responses as numbered in the set, in both orders.

    In the ways that rate each response by itself ("Rating", which asks in one order only) the authors wrote equal
    scores as winner 2 in one and 1 in the other "order", and unreadable scores as 1 and 2; here these are 0 and -1.

    Returns:
        A row a judgment (treat it as a constant): ``set`` and ``item`` (text, "Natural/3"), ``judge``, ``strategy``,
        ``swapped`` (response 2 was shown first), ``layer`` (2 for the second look of "Swap" and "Swap_CoT", which is
        taken only where the first looks of the two orders disagree), ``last`` (nothing came after it), ``winner``
        (1, 2, 0 for a tie, -1 for an unreadable reply) and ``gold`` (1 or 2).

    Raises:
        MissingData: the recording is not at hand.

    Source: Zeng, Yu, Gao, Meng, Goyal and Chen, ICLR 2024 (arXiv 2310.07641), their folder Dataset.
    """
    import numpy as np
    import pandas as pd

    raw = pd.read_parquet(locate(LLM_JUDGMENTS).paths["judgments.parquet"])
    raw = raw[raw["order"].str.startswith("swap")].reset_index(drop=True)
    name = raw["subset"].str.rpartition("/")[2]
    looks = raw["strategy"].isin(["Swap", "Swap_CoT"])
    of_item = ["subset", "item", "judge", "strategy"]
    swapped = raw["order"] == "swap = True"
    winner = raw["winner"].map({"1": 1, "2": 2, "None": -1})
    unequal = winner.groupby([raw[key] for key in of_item]).transform("nunique") > 1
    rated = raw["strategy"].str.startswith("Rating") & unequal
    # Written as 2 and then 1: equal scores; as 1 and then 2: scores that could not be read.
    first = winner.where(~swapped, 3 - winner)
    return pd.DataFrame(
        {
            "set": name,
            "item": name + "/" + raw["item"].astype(str),
            "judge": raw["judge"],
            "strategy": raw["strategy"],
            "swapped": swapped,
            "layer": np.where(looks, raw["sample"] + 1, 1),
            "last": raw["sample"] == raw.groupby(of_item)["sample"].transform("max"),
            "winner": winner.mask(rated, first.map({2: 0, 1: -1})).astype("int64"),
            "gold": raw["label"].astype("int64"),
        }
    )
