"""Sums are right and divided once; the recorded networks are those whose accuracies their authors wrote down."""

import pytest
import torch

from etude.data import addition_checkpoint, available, modular_addition
from etude.errors import MissingData
from etude.nn import one_layer_transformer

HERE = next(status.present for status in available() if status.name == "rib-checkpoints")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_pair_is_there_once_with_its_sum():
    data = modular_addition(7, 0.3, seeded())
    assert data.tokens.shape == (49, 3)
    assert len({tuple(row) for row in data.tokens.tolist()}) == 49
    assert (data.tokens[:, 2] == 7).all()
    assert torch.equal(data.sums, (data.tokens[:, 0] + data.tokens[:, 1]) % 7)
    assert len(data.train) == 14
    assert torch.equal(torch.cat([data.train, data.test]).sort().values, torch.arange(49))
    assert torch.equal(data.train, modular_addition(7, 0.3, seeded()).train)
    assert not torch.equal(data.train, modular_addition(7, 0.3, seeded(1)).train)


@pytest.mark.parametrize(
    ("modulus", "fraction", "match"), [(1, 0.5, "modulus=1"), (5, 1.0, "fraction"), (5, 0.01, "f")]
)
def test_numbers_out_of_range_are_refused(modulus, fraction, match):
    with pytest.raises(ValueError, match=match):
        modular_addition(modulus, fraction, seeded())


@pytest.mark.skipif(not HERE, reason="the recorded networks are not at hand")
@pytest.mark.parametrize("number", range(5))
def test_recorded_networks_have_their_recorded_accuracy(number):
    found = addition_checkpoint(number)
    model = one_layer_transformer(114, 3)
    model.load_state_dict(found.weights)
    data = found.data
    with torch.no_grad():
        right = model(data.tokens[data.test]).argmax(1) == data.sums[data.test]
    assert float(right.double().mean()) == pytest.approx(found.accuracy, abs=1e-9)
    for basis, needed in found.edges_needed.items():
        for count, scores in zip(needed, found.scores[basis]):
            assert scores[count] >= found.accuracy - 0.001
            assert scores[count - 1] < found.accuracy - 0.001


def test_recorded_networks_are_named_when_absent(monkeypatch, tmp_path):
    monkeypatch.setenv("ETUDE_DATA", str(tmp_path))
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path))
    addition_checkpoint.cache_clear()
    with pytest.raises(MissingData, match=r"rib-checkpoints.*ETUDE_DATA"):
        addition_checkpoint(0)
    with pytest.raises(ValueError, match="number=5"):
        addition_checkpoint(5)
    addition_checkpoint.cache_clear()
