"""Random streams, records and saved values of a trial."""

import random

import numpy as np
import pandas as pd
import pytest
import torch

from etude.study.lab import Lab


class Memory:
    """An exchange that keeps everything in this process."""

    def __init__(self):
        self.cached, self.checkpoint, self.abandoned = {}, None, []

    def load_cached(self, function, key):
        return self.cached.get((function, key))

    def publish_cached(self, function, key, files):
        self.cached[function, key] = files

    def abandon_cached(self, function, key):
        self.abandoned.append(function)

    def load_checkpoint(self):
        return self.checkpoint

    def save_checkpoint(self, files):
        self.checkpoint = files

    def progress(self, label, done, total):
        """Nobody looks."""


def lab(seed=0, **cell):
    return Lab(seed, cell=cell, device="cpu", exchange=Memory())


CALLS = []


def doubled(x, scale=2.0):
    CALLS.append(x)
    if isinstance(x, str):
        raise RuntimeError("no number")
    return {"y": x * scale}


@pytest.mark.parametrize(
    ("library", "draw"),
    [
        ("torch", lambda g: torch.rand(3, generator=g).tolist()),
        ("numpy", lambda g: g.random(3).tolist()),
        ("python", lambda g: [g.random() for _ in range(3)]),
    ],
)
def test_streams_depend_on_seed_and_name_alone(library, draw):
    one = draw(lab(3).generator("split", library))
    other = lab(3, arm="a")
    other.generator("something else", library)
    assert draw(other.generator("split", library)) == one
    assert draw(other.generator("split", library)) == one
    assert draw(lab(4).generator("split", library)) != one
    assert draw(lab(3).generator("splits", library)) != one


def test_an_unknown_library_is_refused():
    with pytest.raises(ValueError, match="'torch', 'numpy' or 'python'"):
        lab().generator("x", "jax")


def test_seeded_seeds_all_global_generators_and_restores_them():
    def draw():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()  # noqa: NPY002

    torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002
    expected = draw()
    torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002
    with lab(1).seeded("x"):
        inside = draw()
    assert draw() == expected
    with lab(1).seeded("x"):
        assert draw() == inside
    assert inside != expected


def test_rows_and_tables_become_one_frame():
    bench = lab(2, arm="a")
    bench.record(x=1, y=torch.tensor(0.5), z=np.float32(2.0), name=None)
    bench.record(pd.DataFrame({"x": [2, 3]}), y=1.5)
    frame = bench.table()
    assert frame.x.tolist() == [1, 2, 3]
    assert frame.y.tolist() == [0.5, 1.5, 1.5]
    assert (frame.arm == "a").all()
    assert (frame.seed == 2).all()


@pytest.mark.parametrize("value", [[1], {"a": 1}, torch.zeros(2), np.zeros(1), object(), 1j])
def test_values_that_are_no_scalars_are_refused_by_column(value):
    with pytest.raises(TypeError, match="column 'loss'"):
        lab().record(loss=value)
    with pytest.raises(TypeError, match="column 'loss'"):
        lab().record(pd.DataFrame({"loss": pd.Series([value, value], dtype=object)}))


@pytest.mark.parametrize("column", ["seed", "arm"])
def test_columns_of_the_cell_cannot_be_recorded(column):
    with pytest.raises(ValueError, match=f"'{column}'"):
        lab(arm="a").record(**{column: 1})


def test_an_empty_record_is_refused():
    with pytest.raises(ValueError, match="at least one column"):
        lab().record()


def test_cached_computes_once_for_equal_arguments_however_they_are_given():
    CALLS.clear()
    bench = lab()
    call = bench.cached(doubled)
    results = [
        call(np.arange(3.0)),
        call(x=np.arange(3.0)),
        call(np.arange(3.0), 2.0),
        call(scale=2.0, x=np.arange(3.0)),
    ]
    assert len(CALLS) == 1
    for result in results:
        np.testing.assert_array_equal(result["y"], [0.0, 2.0, 4.0])
    call(np.arange(3.0), 3.0)
    call(np.arange(4.0))
    assert len(CALLS) == 3


def test_cached_refuses_what_it_cannot_key_by_name():
    with pytest.raises(TypeError, match="x"):
        lab().cached(doubled)(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match="lambda"):
        lab().cached(lambda x: x)


def test_a_cached_function_that_raises_gives_its_place_up():
    bench = lab()
    with pytest.raises(RuntimeError, match="no number"):
        bench.cached(doubled)("text")
    assert len(bench._exchange.abandoned) == 1
    assert bench._exchange.cached == {}


def test_checkpoints_come_back():
    bench = lab()
    assert bench.checkpoint.load() is None
    bench.checkpoint.save({"step": 3, "weights": torch.arange(2.0)})
    state = bench.checkpoint.load()
    assert state["step"] == 3
    assert torch.equal(state["weights"], torch.arange(2.0))


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a\\b", " x"])
def test_names_that_are_no_plain_files_are_refused(name):
    with pytest.raises(ValueError, match="plain file name"):
        lab().save(name, "text")


def test_a_name_is_saved_once():
    bench = lab()
    bench.save("weights", {"w": torch.zeros(1)})
    with pytest.raises(ValueError, match="saved before"):
        bench.save("weights", "text")


def test_track_yields_everything():
    assert list(lab().track(range(5), "steps")) == list(range(5))
    assert list(lab().track(iter("ab"), "letters")) == ["a", "b"]


def test_results_of_another_kind_of_device_are_not_shared():
    CALLS.clear()
    exchange = Memory()
    for device in ("cpu", "cuda:0", "cuda:1"):
        Lab(0, cell={}, device=device, exchange=exchange).cached(doubled)(1.0)
    assert len(CALLS) == 2
