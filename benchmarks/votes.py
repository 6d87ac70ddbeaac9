"""Votes on recorded judgments of language models: how fast, and how right each way of putting them together is.

The judgments are LLMBar's: six models, eight ways of prompting, both orders. *Mean* counts every judgment alike, *vote*
lets each model decide by its own majority first, *Dawid-Skene* (crowd-kit's) estimates how each errs without labels,
*weighted* learns each one's weight from the half of the items that it is not measured on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measuring import Row, installed, medians
from etude.data import Comparison, recorded_judgments
from etude.errors import MissingData
from etude.language import (
    Recorded,
    WideDeep,
    accuracy_weights,
    cohen_kappa,
    dawid_skene,
    majority_vote,
    vote_table,
)
from etude.papers.wide_deep_evaluators import ADVERSARIAL, STRATEGIES, StandIn

JUDGMENTS = 100_000


def run(quick: bool) -> list[Row]:
    repetitions = 2 if quick else 9
    try:
        frame = recorded_judgments()
    except MissingData as missing:
        print(f"{missing} The rows of recorded judgments are left out")
        return replay(quick)
    return [*speed(frame, repetitions), *rightness(frame, repetitions), *replay(quick)]


def speed(frame: pd.DataFrame, repetitions: int) -> list[Row]:
    """As many judgments as the aim speaks of: the recording once, and its first part again under other names."""
    again = frame.iloc[: JUDGMENTS - len(frame)].assign(item=lambda rows: rows["item"] + " again")
    many = pd.concat([frame, again], ignore_index=True)
    many = many.assign(by=many["judge"] + many["strategy"] + many["swapped"].astype(str) + many["layer"].astype(str))
    items, judges, labels = many["item"].to_numpy(), many["by"].to_numpy(), many["winner"].to_numpy()

    def ours() -> np.ndarray:
        return majority_vote(vote_table(items, judges, labels).votes, ties="first")

    def recording() -> np.ndarray:
        recorded_judgments.cache_clear()
        read = recorded_judgments()
        by = read["judge"] + read["strategy"] + read["swapped"].astype(str) + read["layer"].astype(str)
        return majority_vote(vote_table(read["item"].to_numpy(), by.to_numpy(), read["winner"].to_numpy()).votes)

    sides: dict[str, Callable[[], object]] = {"ours": ours, "recording": recording}
    if installed("crowdkit"):
        from crowdkit.aggregation import MajorityVote

        cast = many[many["winner"] >= 0]
        listed = pd.DataFrame({"task": cast["item"], "worker": cast["by"], "label": cast["winner"]})
        sides["crowd-kit"] = lambda: MajorityVote().fit_predict(listed)
    seconds = medians(sides, repetitions)
    rows = [
        Row(f"majority of {len(many):,} recorded judgments", seconds["ours"], None, aim="< 1 s"),
        Row("recording read, cleaned and put to the vote", seconds["recording"], None, aim="< 1 s"),
    ]
    if "crowd-kit" in seconds:
        name = f"majority of {len(many):,} judgments, crowd-kit's MajorityVote / ours"
        rows.append(Row(name, seconds["ours"], seconds["crowd-kit"], aim=">= 1x", inverse=True))
    return rows


def rightness(frame: pd.DataFrame, repetitions: int) -> list[Row]:
    frame = frame[frame["last"] & frame["strategy"].isin(STRATEGIES)]
    rows = []
    for group, sets in (("Natural", ["Natural"]), ("adversarial", list(ADVERSARIAL))):
        part = frame[frame["set"].isin(sets)]
        wide = part.pivot(index=["item", "gold"], columns=["judge", "strategy", "swapped"], values="winner")
        gold = wide.index.get_level_values("gold").to_numpy() - 1
        votes = np.where(wide > 0, wide - 1, -1).astype(int)
        models = wide.columns.get_level_values("judge").to_numpy()
        ways: dict[str, Callable[[], np.ndarray]] = {
            "mean": lambda votes=votes: majority_vote(votes),
            "vote": lambda votes=votes, models=models: by_model(votes, models),
            "weighted": lambda votes=votes, gold=gold: weighted(votes, gold),
        }
        if installed("crowdkit"):
            ways["Dawid-Skene"] = lambda votes=votes: dawid_skene(votes).labels
        found = {name: way() for name, way in ways.items()}
        seconds = medians(ways, repetitions)
        for name in list(ways)[1:]:
            labels = found[name]
            rows += [
                Row(f"{group}, {name} / mean: accuracy", (labels == gold).mean(), (found["mean"] == gold).mean(), ""),
                Row(f"{group}, {name} / mean: kappa", cohen_kappa(labels, gold), cohen_kappa(found["mean"], gold), ""),
                Row(f"{group}, {name} / mean: time", seconds[name], seconds["mean"]),
            ]
    return rows


def by_model(votes: np.ndarray, models: np.ndarray) -> np.ndarray:
    """The majority of the models' majorities; the mean of all where that is a tie."""
    each = [majority_vote(votes[:, models == model], ties="none") for model in dict.fromkeys(models)]
    found = majority_vote(np.stack(each, 1), ties="none")
    return np.where(found < 0, majority_vote(votes), found)


def weighted(votes: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Each half of the items judged with the weights learnt on the other."""
    half = np.random.default_rng(0).permutation(len(gold)) % 2 == 0
    found = np.empty_like(gold)
    for mine in (half, ~half):
        found[mine] = majority_vote(votes[mine], weights=accuracy_weights(votes[~mine], gold[~mine]))
    return found


def replay(quick: bool) -> list[Row]:
    """A jury of six roles and two layers whose every reply is on file: what it costs besides its models."""
    comparisons = [Comparison(f"Question {i}?", f"this {i}", f"that {i}") for i in range(5 if quick else 40)]
    roles = ["accuracy", "completeness", "clarity", "style", "depth", "relevance"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "replies.jsonl"
        WideDeep(Recorded(file, StandIn()), 2, roles).judge_many(comparisons)
        seconds = medians(
            {
                "replayed": lambda: WideDeep(Recorded(file), 2, roles).judge_many(comparisons),
                "answered": lambda: WideDeep(StandIn(), 2, roles).judge_many(comparisons),
            },
            2 if quick else 5,
        )
    calls = 24 * len(comparisons)
    name = "a jury's call, replayed from a recording / answered at once"
    return [Row(name, seconds["replayed"] / calls, seconds["answered"] / calls)]
