"""Tables, units and evidence."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from etude.errors import Unavailable
from etude.study.evidence import Evidence, Failure, Quantity, Table, TrialInfo, near, saved_key
from etude.study.rules import Untested
from etude.study.serialization import encode


@pytest.fixture
def table() -> Table:
    rows = [
        {"weights": weights, "density": density, "seed": seed, "accuracy": seed + density, "right": seed > 0}
        for weights in ("ticket", "control")
        for density in (1.0, 0.8, 0.64)
        for seed in (2, 0, 1)
    ]
    return Table(pd.DataFrame(rows))


def quantity(values, units=None, name="seed") -> Quantity:
    return Quantity(values, index=pd.Index(range(len(values)) if units is None else units, name=name))


def trial(measurement: str, seed: int) -> TrialInfo:
    return TrialInfo(measurement, {}, seed, "key", 1.0, False, False, {})


def test_at_narrows(table):
    assert len(table.at(weights="ticket")) == 9
    assert len(table.at(weights="ticket", density=near(0.81, 0.02))) == 3
    assert len(table.at(density=[1.0, near(0.65, 0.02)])) == 12
    assert len(table.at(seed={0, 1}, right=True)) == 6
    assert len(table.at(seed=range(2))) == len(table.at(seed=np.array([0, 1]))) == 12
    missing = Table(table.frame.assign(accuracy=np.where(table.frame.seed == 0, np.nan, 1.0)))
    assert len(missing.at(accuracy=None)) == len(missing.at(accuracy=math.nan)) == 6


def test_near_includes_its_ends():
    rows = Table(pd.DataFrame({"x": [0.5, 1.0, 1.5, 1.75], "seed": range(4)}))
    assert rows.at(x=near(1.0, 0.5)).frame["x"].tolist() == [0.5, 1.0, 1.5]


def test_nothing_found_is_unavailable(table):
    with pytest.raises(Unavailable, match=r"density = near\(.*0.7.*present: 0.64, 0.8, 1\)"):
        table.at(weights="ticket", density=near(0.7, 0.01))
    with pytest.raises(Unavailable, match=r"weights = 'tickets' among 18 rows.*Did you mean 'ticket'"):
        table.at(weights="tickets")
    with pytest.raises(Unavailable, match="one of 7, 8"):
        table.at(seed=[7, 8])


@pytest.mark.parametrize(
    "ask",
    [
        lambda t: t.at(wieghts="ticket"),
        lambda t: t.per("wieghts"),
        lambda t: t.split("wieghts"),
        lambda t: t.per("seed")["wieghts"],
        lambda t: t.per("seed").mean("wieghts"),
        lambda t: t.curve("wieghts", "accuracy"),
    ],
)
def test_an_unknown_column_is_named_with_its_neighbour(table, ask):
    with pytest.raises(KeyError, match=r"no column 'wieghts'. Did you mean 'weights'?"):
        ask(table)


def test_near_wants_numbers(table):
    with pytest.raises(TypeError, match="weights: near"):
        table.at(weights=near(1, 0.1))
    for value, within in ((1, -0.1), (math.nan, 1), (1, math.inf)):
        with pytest.raises(ValueError, match="within >= 0"):
            near(value, within)


def test_one_number_a_unit(table):
    dense = table.at(weights="ticket", density=1.0)
    assert isinstance(dense["accuracy"], Quantity)
    assert dense["accuracy"].to_dict() == {0: 1.0, 1: 2.0, 2: 3.0}
    pd.testing.assert_series_equal(dense["accuracy"], dense.per("seed")["accuracy"])
    by_two = table.at(weights="ticket").per("seed", "density")["accuracy"]
    assert by_two.index.names == ["seed", "density"]
    assert by_two[(2, 0.64)] == 2.64


def test_several_rows_a_unit_are_an_error_that_says_what_varies(table):
    with pytest.raises(ValueError, match=r"3 rows for seed = 2; these columns still vary: density\. "):
        table.at(weights="ticket")["accuracy"]
    twice = Table(pd.DataFrame({"seed": [0, 0], "x": [1, 1]}))
    with pytest.raises(ValueError, match="2 rows for seed = 0"):
        twice["x"]


def test_reductions_are_explicit(table):
    rows = table.at(weights="ticket").per("seed")
    assert rows.mean("accuracy").to_dict() == pytest.approx({s: s + (1 + 0.8 + 0.64) / 3 for s in range(3)})
    slope = rows.apply(lambda f: np.polyfit(f["density"], f["accuracy"], 1)[0])
    assert isinstance(slope, Quantity)
    assert slope.to_numpy() == pytest.approx(np.ones(3))
    nested = table.per("weights", "seed").mean("accuracy")
    assert nested.index.names == ["weights", "seed"]
    assert len(nested - nested) == 6
    with pytest.raises(TypeError, match="one number a unit"):
        rows.apply(lambda f: f["accuracy"])


def test_a_recorded_nan_is_not_averaged_away():
    table = Table(pd.DataFrame({"seed": [0, 0, 1, 1], "step": [1, 2, 1, 2], "loss": [1.0, np.nan, 2.0, 4.0]}))
    assert math.isnan(table.per("seed").mean("loss")[0])
    assert table.per("seed").mean("loss")[1] == 3.0
    x, y = table.curve("step", "loss")
    assert (x.tolist(), y[0], math.isnan(y[1])) == ([1, 2], 1.5, True)


def test_a_unit_must_be_named_and_there(table):
    with pytest.raises(ValueError, match="no column was named"):
        table.per()
    with pytest.raises(ValueError, match="some rows have no item"):
        Table(pd.DataFrame({"item": [1, None], "x": [1, 2]})).per("item")
    with pytest.raises(TypeError, match="DataFrame"):
        Table([1, 2])


def test_split_and_curve(table):
    assert [value for value, _ in table.split("weights")] == ["ticket", "control"]
    assert [value for value, _ in table.split("density")] == [0.64, 0.8, 1.0]
    assert sum(len(rows) for _, rows in table.split("seed")) == len(table)
    x, y = table.at(weights="ticket").curve("density", "accuracy")
    assert x.tolist() == [0.64, 0.8, 1.0]
    assert y == pytest.approx(x + 1)


def test_a_curve_weighs_seeds_alike():
    uneven = Table(pd.DataFrame({"seed": [0, 0, 0, 1], "x": 1, "y": [0.0, 0.0, 0.0, 1.0]}))
    assert uneven.curve("x", "y")[1].tolist() == [0.5]


def test_a_table_is_immutable_and_displays_itself(table):
    frame = table.frame
    frame["extra"] = 1
    assert "extra" not in table.frame
    assert "18 rows, 5 columns" in repr(table)
    assert "&lt;b&gt;" in Table(pd.DataFrame({"x": ["<b>"]}))._repr_html_()


def test_quantities_pair_by_unit():
    a, b = quantity([1.0, 2.0, 3.0]), quantity([30.0, 20.0, 10.0], [2, 1, 0])
    assert (b - a).to_dict() == {0: 9.0, 1: 18.0, 2: 27.0}
    assert (a < b).all()
    assert isinstance(np.log(a / b), Quantity)
    assert isinstance(a > 1, Quantity)
    assert np.maximum(a, b).to_dict() == {0: 10.0, 1: 20.0, 2: 30.0}
    assert (2 * a + 1).tolist() == [3.0, 5.0, 7.0]
    assert (~(a > 1)).tolist() == [True, False, False]


@pytest.mark.parametrize(
    "combine",
    [
        lambda a, b: a - b,
        lambda a, b: b / a,
        lambda a, b: a < b,
        lambda a, b: b == a,
        lambda a, b: pd.Series(a) * b,
        lambda a, b: b**a,
        lambda a, b: np.log(a) - b,
        lambda a, b: np.maximum(a, b),
        lambda a, b: np.subtract(pd.Series(a), b),
        lambda a, b: (a > 1) & (b > 1),
    ],
)
def test_a_unit_without_partner_is_an_error(combine):
    with pytest.raises(ValueError, match=r"seed without a partner, only on the (left|right): 2, 3"):
        combine(quantity([1.0, 2.0, 3.0, 4.0]), quantity([1.0, 2.0]))


def test_different_or_repeated_units_do_not_pair():
    a = quantity([1.0, 2.0])
    with pytest.raises(ValueError, match="one number a seed on the left, one a item on the right"):
        a - quantity([1.0, 2.0], name="item")
    with pytest.raises(ValueError, match="seed occurs more than once on the right: 1"):
        a - quantity([1.0, 2.0, 2.0], [0, 1, 1])


def evidence(**fields) -> Evidence:
    frame = pd.DataFrame({"seed": [0, 1], "x": [1.0, 2.0]})
    return Evidence("a-study", "laptop", None, {"prune": frame}, planned={"prune": 2}, **fields)


def test_evidence_finds_a_measurement_by_name_or_object():
    assert len(evidence()["prune"]) == len(evidence()[SimpleNamespace(name="prune")]) == 2
    with pytest.raises(KeyError, match=r"no measurement 'prine'. Did you mean 'prune'"):
        evidence()["prine"]
    with pytest.raises(TypeError, match="a int was given"):
        evidence()[0]


def test_absent_is_not_failed():
    some = evidence(
        unavailable={"live": str(Unavailable("the model m. x is not installed", "pip install it"))},
        failures=(Failure("prune", {}, 1, "ValueError: shapes\nmore", "log"),),
    )
    with pytest.raises(Unavailable) as caught:
        some["live"]
    assert str(caught.value) == "the model m. x is not installed. pip install it."
    assert caught.value.remedy == "pip install it"
    with pytest.raises(Untested, match=r"^1 of 2 trials failed: ValueError: shapes$"):
        some["prune"]
    with pytest.raises(Untested):
        some.saved("prune", "mask")
    empty = Evidence("s", None, None, {"a": pd.DataFrame()}, planned={"a": 1, "b": 1})
    for name in ("a", "b"):
        with pytest.raises(Unavailable, match=f"'{name}' has recorded nothing"):
            empty[name]


def test_saved_values_come_back(tmp_path):
    files = {}
    mask = {"weights": np.arange(6.0).reshape(2, 3), "rounds": 3}
    key = saved_key("prune", {"rate": 0.2, "data": "digits"}, 1, "mask")
    assert key == "prune/data=digits/rate=0.2/1/mask"
    for name, data in encode(mask).items():
        (tmp_path / name).write_bytes(data)
        files[f"{key}/{name}"] = tmp_path / name
    (tmp_path / "drawing.svg").write_bytes(b"<svg/>")
    files[saved_key("prune", {}, 0, "drawing.svg")] = tmp_path / "drawing.svg"
    some = evidence(files=files)
    back = some.saved("prune", "mask", seed=1, data="digits", rate=0.2)
    assert back["rounds"] == 3
    np.testing.assert_array_equal(back["weights"], mask["weights"])
    assert some.saved("prune", "drawing.svg") == b"<svg/>"
    with pytest.raises(KeyError, match=r"nothing is saved as 'prune/0/drawing.png'. Did you mean"):
        some.saved("prune", "drawing.png")


def test_evidence_displays_itself():
    some = evidence(unavailable={"live": "no <model>"}, trials=(trial("prune", 0), trial("prune", 1)))
    lines = repr(some).splitlines()
    assert lines[0] == "Evidence of 'a-study' at preset 'laptop'"
    assert lines[2].split() == ["prune", "2", "2", "2", "of", "2"]
    assert lines[-1] == "live is unavailable: no <model>"
    assert "no &lt;model&gt;" in some._repr_html_()
