import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from etude.papers import wide_deep_ntk
from etude.papers.wide_deep_ntk import study

mpl.use("agg")


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    return study.run("smoke", store=tmp_path_factory.mktemp("store"))


def test_every_measurement_runs_and_every_claim_is_judged(evidence):
    assert not evidence.failures
    assert not evidence.unavailable
    verdicts = study.judge(evidence)
    assert len(verdicts) == 7
    for verdict in verdicts:
        assert not verdict.error, verdict.why
        assert verdict.status != "untested", verdict.why


def test_exact_claims_hold_already_at_smoke(evidence):
    assert evidence[wide_deep_ntk.dual_activations].frame.error.max() < 1e-10
    assert evidence[wide_deep_ntk.singularity].frame.residual.max() < 1e-6


def test_figures_draw(evidence):
    for draw in (
        wide_deep_ntk.agreement_on_the_arc,
        wide_deep_ntk.accuracy_by_task,
        wide_deep_ntk.regression_by_depth,
    ):
        axes = Figure().subplots()
        draw(evidence, axes)
        assert axes.lines


def test_the_nine_networks_of_the_paper():
    cells = wide_deep_ntk.published_networks.over(study.presets["paper"])
    assert len(cells) == 9
    for cell in cells:
        phi = wide_deep_ntk.activation_of(cell["activation"], cell["parameter"])
        if cell["parameter"] != 1.0 and cell["activation"] != "erf":  # those match only about
            assert phi.alpha == pytest.approx(cell["coordinates"] - 1, rel=1e-3)


def test_activations_of_the_taxonomy_are_in_their_regimes():
    assert wide_deep_ntk.MAJORITY.regime() == "majority"
    assert wide_deep_ntk.NEAREST.regime() == "nearest"
    np.testing.assert_allclose(wide_deep_ntk.MAJORITY.squares, [0.2, 0.2, 0.2, 0.4])
