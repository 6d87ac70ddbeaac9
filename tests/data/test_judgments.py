"""Comparisons, and recorded judgments against the counts that their authors published with them."""

import pandas as pd
import pytest

from etude.data import Comparison, available, recorded_comparisons, recorded_judgments
from etude.data.judgments import SETS

AT_HAND = next(status.present for status in available() if status.name == "llm-judgments")
RECORDED = pytest.mark.skipif(not AT_HAND, reason="the recorded judgments are not at hand")


# Summed over the 314 files of statistics that come with the data, of ways that show a judge both responses: how often
# it was right, right with the responses exchanged, and of one mind in both orders.
PUBLISHED = {
    "ChatGPT": (2407, 2405, 3280),
    "ChatGPT-0301": (2013, 2023, 2427),
    "Falcon": (2248, 2277, 1504),
    "GPT-4": (4201, 4237, 4655),
    "LLaMA2": (2488, 2495, 3496),
    "PaLM2": (2857, 2922, 3107),
}


@RECORDED
def test_counts_are_those_published_with_the_data():
    """The authors count a reply that could not be read as wrong, and two of them as equal."""
    frame = recorded_judgments()
    frame = frame[frame["last"] & ~frame["strategy"].str.startswith("Rating")]
    wide = frame.pivot(index=["set", "judge", "strategy", "item", "gold"], columns="swapped", values="winner")
    wide = wide.reset_index("gold")
    counts = pd.DataFrame(
        {
            "correct": wide[False] == wide["gold"],
            "exchanged": wide[True] == wide["gold"],
            "equal": wide[False] == wide[True],
        }
    )
    summed = counts.groupby(level="judge").sum()
    assert {judge: tuple(row) for judge, row in zip(summed.index, summed.to_numpy().tolist())} == PUBLISHED
    assert len(counts.groupby(level=["set", "judge", "strategy"]).size()) == 314


@RECORDED
def test_what_is_kept_and_what_is_not():
    frame = recorded_judgments()
    assert len(frame) == 66_204
    ratings = frame["strategy"].str.startswith("Rating")
    assert (frame["winner"][~ratings] == -1).sum() == 273
    assert set(frame["winner"][~ratings]) == {-1, 1, 2}
    assert set(frame["winner"][ratings]) <= {-1, 0, 1, 2}
    assert not frame.duplicated(["item", "judge", "strategy", "swapped", "layer"]).any()
    assert frame["gold"].isin([1, 2]).all()
    assert frame.groupby("judge").size().size == 6
    second = frame[frame["layer"] == 2]
    assert set(second["strategy"]) == {"Swap", "Swap_CoT"}
    keys = ["item", "judge", "strategy"]
    first = frame[frame["layer"] == 1].groupby(keys)["winner"].nunique()
    assert (first[pd.MultiIndex.from_frame(second[keys])] == 2).all()


@RECORDED
@pytest.mark.parametrize("name", SETS)
def test_gold_labels_of_judgments_are_those_of_the_comparisons(name):
    comparisons = recorded_comparisons(name)
    gold = recorded_judgments().query("set == @name").groupby("item")["gold"].agg(["min", "max"])
    assert len(gold) == len(comparisons)
    for number, comparison in enumerate(comparisons):
        assert gold.loc[f"{name}/{number}"].tolist() == [comparison.label] * 2


def test_an_unknown_set_is_refused_with_what_was_meant():
    with pytest.raises(ValueError, match="Did you mean 'Natural'"):
        recorded_comparisons("natural")


def test_exchange_is_its_own_inverse():
    comparison = Comparison("Which?", "left", "right", 1, "choice")
    assert comparison.exchanged() == Comparison("Which?", "right", "left", 2, "choice")
    assert comparison.exchanged().exchanged() == comparison
    assert Comparison("Which?", "l", "r", 0).exchanged().label == 0
    assert Comparison("Which?", "l", "r").exchanged().label is None


@pytest.mark.parametrize("label", [3, -1, 1.5, "1", True])
def test_other_labels_are_refused(label):
    with pytest.raises(ValueError, match="label"):
        Comparison("Which?", "l", "r", label)


def test_other_texts_are_refused():
    with pytest.raises(TypeError, match="b: a int"):
        Comparison("Which?", "l", 3)
    with pytest.raises(ValueError, match="question"):
        Comparison("  ", "l", "r")
