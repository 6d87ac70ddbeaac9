"""Schedules: their values at the edges, and what they refuse."""

import math

import pytest

from etude.training import AfterStep, Constant, FirstSteps, LinearDecay, PowerDecay


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Constant(0.5), {0: 0.5, 10**6: 0.5}),
        (FirstSteps(3, 2.0), {0: 2.0, 2: 2.0, 3: 0.0}),
        (FirstSteps(0), {0: 0.0}),
        (AfterStep(3, 2.0), {0: 0.0, 2: 0.0, 3: 2.0, 4: 2.0}),
        (LinearDecay(4, 2.0, 1.0), {0: 2.0, 2: 1.5, 4: 1.0, 9: 1.0}),
        (PowerDecay(0.3, 0.5), {0: 0.3, 3: 0.15, 99: 0.03}),
        (PowerDecay(0.3, 0.0), {0: 0.3, 99: 0.3}),
    ],
    ids=str,
)
def test_values(schedule, values):
    assert {step: schedule(step) for step in values} == pytest.approx(values, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Constant(math.nan), "value=nan"),
        (lambda: FirstSteps(-1), "steps=-1"),
        (lambda: FirstSteps(1.5), "steps=1.5"),
        (lambda: AfterStep(True), "start=True"),
        (lambda: LinearDecay(0), "steps=0"),
        (lambda: LinearDecay(1, end=math.inf), "end=inf"),
        (lambda: PowerDecay(1.0, -0.5), "power=-0.5"),
    ],
)
def test_bad_arguments_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()
