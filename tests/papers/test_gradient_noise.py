"""The study at smoke: every claim is judged, every figure drawn, and arms differ in one thing only."""

import math

import pandas as pd
import pytest
import torch
from torch import nn

from etude.papers.gradient_noise import Networks, Protocol, arms, batches, network, study, weight_at_take_off
from etude.training import Constant, GradientNoise, PowerDecay, accumulated_variance
from study_at_smoke import judged, legend_of, untested


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    return study.run("smoke", engine="inline", store=tmp_path_factory.mktemp("store"), progress=False)


def test_every_claim_is_judged_without_an_error(evidence):
    verdicts = judged(study, evidence)
    assert not untested(verdicts)
    assert verdicts["noise-has-the-stated-law"].status == "holds"
    largest = verdicts["zero-weights-stay-without-noise"].estimates[0]
    assert largest.value == 0


@pytest.mark.parametrize("draw", study.figures, ids=lambda draw: draw.__name__)
def test_figures_are_drawn_and_labelled(evidence, draw):
    assert len(legend_of(draw, evidence)) >= 3


def test_arms_of_a_seed_start_from_the_same_numbers(evidence):
    """Without noise nothing differs before the first step; larger weights are larger by the random walk."""
    first = evidence["train"].at(initialization="simple", step=0).frame.set_index(["seed", "arm"])["weight"].unstack()
    assert (first["noise"] == first["none"]).all()
    assert (first["noise"] == first["constant noise"]).all()
    config = evidence.config
    walk = accumulated_variance(PowerDecay(config.eta, 0.55), config.walk, config.learning_rate)
    assert (first["larger weights"] / first["noise"]).to_list() == pytest.approx([math.sqrt(1 + walk / 0.01)] * 2)


def test_constant_noise_has_the_falling_noises_total_variance():
    config = Protocol()
    plan = {arm.name: arm for arm in arms(config, "simple")}
    totals = [
        accumulated_variance(plan[name].variance, config.simple_steps, config.learning_rate)
        for name in ("noise", "constant noise", "none", "larger weights")
    ]
    assert totals[0] == pytest.approx(totals[1], rel=1e-9)
    assert totals[2:] == [0, 0]
    assert plan["larger weights"].deviation == pytest.approx(0.142, abs=5e-4)


def test_networks_trained_as_one_are_what_they_are_alone():
    x, y = torch.randn(30, 6), torch.randint(3, (30,))
    variances, seeds, steps = [PowerDecay(0.01, 0.55), Constant(0.0)], [3, 4], 3
    models = [network([6, 5, 5, 3], None, torch.Generator().manual_seed(n)) for n in range(2)]
    together = Networks(models, lambda step: 0.1 / (1 + step), variances, 0.5, seeds)
    counted = list(together.learn([x], y, steps, batches(y, 7, torch.Generator().manual_seed(0), networks=2)))
    assert counted == [0, 1, 2, 3]
    for place in range(2):
        alone = network([6, 5, 5, 3], None, torch.Generator().manual_seed(place))
        sgd, draws = torch.optim.SGD(alone.parameters(), lr=0.1), torch.Generator().manual_seed(0)
        GradientNoise(sgd, variances[place], clip_norm=0.5, seed=seeds[place])
        for step in range(steps):
            index = torch.randint(30, (2, 7), generator=draws)[place]
            sgd.zero_grad()
            nn.functional.cross_entropy(alone(x[index]), y[index]).backward()
            sgd.param_groups[0]["lr"] = 0.1 / (1 + step)
            sgd.step()
        for name, value in alone.named_parameters():
            torch.testing.assert_close(together.parameters[name][place], value, rtol=1e-4, atol=1e-5)
        accuracy = (alone(x).argmax(1) == y).double().mean()
        assert together.accuracy([x], y)[place] == pytest.approx(float(accuracy))


def test_networks_that_share_their_batches_learn_alike():
    x, y = torch.randn(30, 6), torch.randint(3, (30,))
    models = [network([6, 5, 3], None, torch.Generator().manual_seed(0)) for _ in range(2)]
    shared = Networks(models, Constant(0.1), [Constant(0.0)] * 2, 1.0, [0, 0])
    for _ in shared.learn([x], y, 3, batches(y, 7, torch.Generator().manual_seed(0))):
        pass
    for value in shared.parameters.values():
        torch.testing.assert_close(value[0], value[1])


def test_where_a_run_takes_off():
    run = pd.DataFrame({"step": [0, 10, 20], "validation_accuracy": [0.1, 0.1, 0.3], "weight": [0.10, 0.15, 0.2]})
    assert weight_at_take_off(run) == 0.15
    assert math.isnan(weight_at_take_off(run.head(2)))


def test_the_papers_protocol_runs_small(tmp_path):
    """MNIST's sizes aside: its network, a start of each kind."""
    config = study.presets["paper"].model_copy(
        update={"data": "digits", "simple_steps": 2, "he_steps": 2, "zero_steps": 2, "zero_runs": 2, "walk": 2}
        | {"seeds": 1, "stories": 40, "epochs": 1}
    )
    evidence = study.run(config, engine="inline", store=tmp_path, progress=False)
    assert not evidence.failures
    assert set(evidence["train"].frame["step"]) == {0, 2}
