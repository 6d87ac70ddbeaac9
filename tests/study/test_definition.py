"""Configurations, presets, measurements and claims: what is accepted and what is refused."""

from typing import Literal

import hypothesis.strategies as st
import pytest
from hypothesis import given

from etude.study import Config, Paper, Study, grid
from etude.study.definition import ConfigError, plain, watched

PAPER = Paper("A paper", "Somebody", 2020, "2001.00001")


class Settings(Config):
    steps: int = 100
    """Training steps."""
    rate: float = 0.1
    data: Literal["digits", "mnist"] = "digits"
    sizes: tuple[int, ...] = (1, 2)
    flag: bool = False
    limit: float | None = None

    @property
    def twice(self) -> int:
        return 2 * self.steps


def study(**presets):
    return Study(paper=PAPER, topic="testing", presets=presets or {"laptop": Settings()})


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"step": 3}, "no field 'step'. Did you mean 'steps'"),
        ({"steps": 1.5}, "Settings.steps = 1.5"),
        ({"steps": "3"}, "Settings.steps = '3'"),
        ({"steps": True}, "Settings.steps = True"),
        ({"data": "digit"}, "Settings.data = 'digit'"),
        ({"seeds": 0}, "Settings.seeds = 0"),
    ],
)
def test_unknown_and_ill_typed_fields_are_refused_by_name(values, told):
    with pytest.raises(ConfigError, match=told):
        Settings(**values)
    with pytest.raises(ConfigError, match=told):
        Settings().updated(**values)


def test_a_configuration_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Settings().steps = 3


@given(st.integers(1, 10**6), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.lists(st.integers()))
def test_a_configuration_survives_the_way_to_a_worker(steps, rate, flag, sizes):
    meant = Settings(steps=steps, rate=rate, flag=flag, sizes=tuple(sizes))
    assert Settings.model_validate_json(meant.model_dump_json()) == meant


def test_reads_are_noted_directly_and_through_properties():
    reads = set()
    config = watched(Settings(steps=5), reads)
    assert reads == set()
    assert isinstance(config, Settings)
    assert config.steps == 5
    assert reads == {"steps"}
    reads.clear()
    assert config.twice == 10
    assert reads == {"steps"}


@pytest.mark.parametrize("whole", [lambda c: c.model_dump(), hash, lambda c: c == Settings(), repr, dict, vars])
def test_looking_at_the_whole_counts_as_reading_every_field(whole):
    reads = set()
    whole(watched(Settings(), reads))
    assert reads == set(Settings.model_fields)


def test_plain_data_of_nested_and_unordered_values():
    class Inner(Config):
        names: frozenset[str] = frozenset("cab")

    class Outer(Config):
        inner: Inner = Inner()

    assert plain(Outer().inner) == {"seeds": 5, "names": ["a", "b", "c"]}


def test_presets_are_of_one_class_and_at_least_one():
    with pytest.raises(ValueError, match="at least one"):
        Study(paper=PAPER, topic="testing", presets={})
    with pytest.raises(ValueError, match="one Config class"):
        study(laptop=Settings(), smoke=Config())


def test_a_configuration_is_recognised_as_the_preset_it_equals():
    s = study(smoke=Settings(steps=1), laptop=Settings())
    assert s.resolve(None) == (Settings(), "laptop")
    assert s.resolve("smoke")[1] == "smoke"
    assert s.resolve(Settings(steps=1))[1] == "smoke"
    assert s.resolve("smoke", seeds=5)[1] == "smoke"
    assert s.resolve("smoke", seeds=6)[1] is None
    with pytest.raises(ConfigError, match="Did you mean 'smoke'"):
        s.resolve("smok")
    with pytest.raises(TypeError, match="a preset's name or a Settings"):
        s.resolve({"steps": 1})


def test_cells_have_the_functions_keywords_and_scalar_values():
    s = study()

    @s.measure(over=lambda c: grid(size=c.sizes, kind=("x", "y")))
    def good(lab, config, *, size, kind):
        """Measure."""

    assert good.cells(Settings()) == [dict(size=i, kind=k) for i in (1, 2) for k in "xy"]

    @s.measure(over=lambda c: grid(sise=(1,)))
    def misspelt(lab, config, *, size):
        """Measure."""

    with pytest.raises(ValueError, match=r"\['sise'\]"):
        misspelt.cells(Settings())

    @s.measure(over=lambda c: [dict(size=[1])])
    def no_scalar(lab, config, *, size):
        """Measure."""

    with pytest.raises(ValueError, match="is a list"):
        no_scalar.cells(Settings())

    @s.measure(over=lambda c: grid(size=(1, 1)))
    def twice(lab, config, *, size):
        """Measure."""

    with pytest.raises(ValueError, match="same cell twice"):
        twice.cells(Settings())


def test_declarations_that_cannot_work_are_refused():
    s = study()
    with pytest.raises(ValueError, match="shadows"):

        @s.measure(over=lambda c: grid(grid=(1,)))
        def one(lab, config, *, grid):
            """Measure."""

    with pytest.raises(ValueError, match="signature"):

        @s.measure()
        def two(lab):
            """Measure."""

    with pytest.raises(ValueError, match="2GB"):
        s.measure(memory="two gigabytes")
    with pytest.raises(ValueError, match="since"):
        s.measure(since="smoke")
    with pytest.raises(ValueError, match="docstring is its statement"):

        @s.claim(reported="1")
        def silent(e):
            return None

    for _ in range(2):

        def same(lab, config):
            """Measure."""

        if "same" in s.measurements:
            with pytest.raises(ValueError, match="used twice"):
                s.measure()(same)
        else:
            s.measure()(same)


@pytest.mark.parametrize(
    ("since", "presets"),
    [
        ("laptop", {"smoke", "demo", "laptop", "extended", "paper", None}),
        ("extended", {"smoke", "extended", "paper"}),
        ("paper", {"smoke", "paper"}),
    ],
)
def test_a_measurement_runs_at_smoke_and_from_its_preset_on(since, presets):
    s = study()

    @s.measure(since=since)
    def measured(lab, config):
        """Measure."""

    assert {p for p in ("smoke", "demo", "laptop", "extended", "paper", None) if measured.runs_at(p)} == presets
