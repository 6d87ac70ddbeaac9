"""Results come back from their files as they were, whole or not at all."""

import math
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import save_file

from etude.interpretability import CrossMoments, SmallestSet, UnitMatch, match_units, soft_match_units, sparse_stitch
from etude.savable import Savable


@dataclass(frozen=True)
class Part(Savable):
    numbers: torch.Tensor
    share: float


@dataclass(frozen=True)
class Whole(Savable):
    name: str
    parts: tuple[Part, ...]
    table: dict[int, float]
    missing: None
    flags: list[bool]
    limit: float


def moments():
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(50, 4, generator=draws)
    return CrossMoments.of(x, x[:, [2, 0, 3, 1]] + 0.1 * torch.randn(50, 4, generator=draws))


def test_what_is_saved_is_loaded(tmp_path):
    shared = torch.arange(6.0).view(2, 3)
    whole = Whole("a", (Part(shared, 0.5), Part(shared.T, math.nan)), {3: 0.25, 1: 1.0}, None, [True], math.inf)
    whole.save(tmp_path / "whole.safetensors")
    again = Whole.load(tmp_path / "whole.safetensors")
    assert (again.name, again.missing, again.flags, again.limit) == ("a", None, [True], math.inf)
    assert again.table == whole.table
    assert list(again.table) == [3, 1]
    assert isinstance(again.parts, tuple)
    assert torch.equal(again.parts[1].numbers, shared.T)
    assert math.isnan(again.parts[1].share)
    assert [path.name for path in tmp_path.iterdir()] == ["whole.safetensors"]


@pytest.mark.parametrize("of", [match_units, soft_match_units, lambda m: sparse_stitch(m, 0.1), lambda m: m])
def test_results_of_matching_are_saved(of, tmp_path):
    found = of(moments())
    found.save(tmp_path / "found")
    again = type(found).load(tmp_path / "found")
    assert repr(again) == repr(found)
    held = vars(again)
    assert all(torch.equal(held[name], value) for name, value in vars(found).items() if isinstance(value, torch.Tensor))


def test_a_file_of_something_else_is_refused(tmp_path):
    match_units(moments()).save(tmp_path / "match")
    assert isinstance(UnitMatch.load(tmp_path / "match"), UnitMatch)
    with pytest.raises(ValueError, match=r"match holds UnitMatch; a file that SmallestSet.save wrote is accepted"):
        SmallestSet.load(tmp_path / "match")
    save_file({"x": torch.zeros(2)}, tmp_path / "tensors")
    with pytest.raises(ValueError, match="holds tensors alone"):
        UnitMatch.load(tmp_path / "tensors")
    (tmp_path / "text").write_text("not a result")
    with pytest.raises(ValueError, match="is no safetensors file"):
        UnitMatch.load(tmp_path / "text")


def test_what_cannot_be_saved_is_named_and_leaves_nothing(tmp_path):
    with pytest.raises(TypeError, match="share: a object cannot be saved"):
        Part(torch.zeros(1), object()).save(tmp_path / "part")
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_keeps_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "part"
    Part(torch.zeros(1), 1.0).save(path)

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space"):
        Part(torch.ones(1), 2.0).save(path)
    assert Part.load(path).share == 1.0
    assert list(tmp_path.iterdir()) == [path]
