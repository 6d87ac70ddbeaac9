"""Comparisons, and recorded judgments against the counts that their authors published with them."""

from pathlib import Path

import pandas as pd
import pytest

from etude.data import Comparison, available, recorded_comparisons, recorded_judgments
from etude.data.judgments import SETS

AT_HAND = next(status.present for status in available() if status.name == "llm-judgments")
RECORDED = pytest.mark.skipif(not AT_HAND, reason="the recorded judgments are not at hand")


@RECORDED
def test_counts_are_those_published_with_the_data():
    """How often each judge is right in either order, and agrees with itself: 349 files of statistics, 1,047 counts.

    The authors count a reply that could not be read as wrong, and two of them as equal. Ways that rate each response
    by itself are compared by what the ties stand for: right in one of two orders.
    """
    published = pd.read_csv(Path(__file__).with_name("llmbar_statistics.csv"))
    published["set"] = published["subset"].str.rpartition("/")[2]
    published = published.set_index(["set", "judge", "strategy"])[["correct", "correct_swapped", "equal"]]
    frame = recorded_judgments()
    frame = frame[frame["last"]]
    wide = frame.pivot(index=["set", "judge", "strategy", "item", "gold"], columns="swapped", values="winner")
    wide = wide.reset_index("gold")
    ours = pd.DataFrame(
        {
            "correct": wide[False] == wide["gold"],
            "correct_swapped": wide[True] == wide["gold"],
            "equal": wide[False] == wide[True],
        }
    )
    ours = ours.groupby(level=["set", "judge", "strategy"]).sum()
    assert len(published) == 349
    asked_twice = ~published.index.get_level_values("strategy").str.startswith("Rating")
    joined = published.join(ours.add_suffix("_ours"))
    assert (joined.filter(like="_ours").to_numpy() == published.to_numpy())[asked_twice].all()
    rated = joined[~asked_twice]
    tied = (rated["correct"] + rated["correct_swapped"]) - 2 * rated["correct_ours"]
    assert (tied + rated["equal"] == wide.groupby(level=[0, 1, 2]).size()[rated.index]).all()


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
