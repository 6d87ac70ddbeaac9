"""Curricula: sizes against a simulation, draws against enumeration, and the sampler in loops that are not ours."""

import doctest
import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError, jaxtyped
from lightning_fabric import Fabric
from scipy import stats
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from distributed import run_distributed
from etude.training import (
    CurriculumSampler,
    constant_sizes,
    curriculum,
    cycle_moments,
    cycle_sizes,
    easy_scores,
    effective_sample_size,
    exponential_scores,
    growing_sizes,
    hard_scores,
    per_sample_loss,
    random_scores,
    sample_without_replacement,
    shrinking_sizes,
)


class Reader(nn.Module):
    """A user's own model."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Dropout(0.3))
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.body(x))


def examples(n=60):
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, torch.arange(n) % 3)


def test_examples_of_the_docstrings():
    result = doctest.testmod(curriculum)
    assert result.attempted
    assert not result.failed


# ---- sizes ---------------------------------------------------------------------------------------------------------


def simulated_cycle(budget, start, end, multiplier):
    """The recurrence as the paper's code has it, from one size to the next, in exact fractions."""
    start, end, multiplier, budget = (Fraction(str(value)) for value in (start, end, multiplier, budget))
    sizes = [start]
    while sum(sizes) < budget:
        last = sizes[-1]
        if last == start or (len(sizes) > 1 and sizes[-2] < last and last != end):
            sizes.append(min(last / multiplier, end))
        else:
            sizes.append(max(last * multiplier, start))
    return sizes


hundredths = st.integers(1, 100).map(lambda n: n / 100)


@given(
    st.integers(1, 60).map(lambda n: n / 4),
    hundredths,
    hundredths,
    st.integers(1, 19).map(lambda n: n / 20),
)
@settings(max_examples=200)
def test_cycles_are_the_papers_recurrence(budget, one, other, multiplier):
    start, end = min(one, other), max(one, other)
    expected = simulated_cycle(budget, start, end, multiplier)
    assert cycle_sizes(budget, start, end, multiplier) == tuple(map(float, expected))
    assert budget <= sum(expected) < Fraction(str(budget)) + Fraction(str(end))


def test_the_papers_schedules():
    assert cycle_sizes(3) == (0.25, 0.5, 1.0, 0.5, 0.25, 0.5)
    assert [len(cycle_sizes(budget)) for budget in (20, 30, 48)] == [36, 54, 86]
    assert sum(cycle_sizes(20)) == 20.25
    assert np.mean(cycle_sizes(20)[:4]) == 0.5625
    assert cycle_sizes(2, 0.4, 0.4) == (0.4,) * 5
    assert cycle_sizes(5, 0.3, 1.0, 0.7)[:7] == pytest.approx((0.3, 3 / 7, 30 / 49, 300 / 343, 1.0, 0.7, 0.49))


def test_one_way_and_constant_sizes():
    assert growing_sizes(4, repeats=2) == (0.25, 0.25, 0.5, 0.5, 1.0, 1.0, 1.0)
    assert growing_sizes(1.5, 0.3, 0.8) == (0.3, 0.6, 0.8)
    assert shrinking_sizes(2.5) == (1.0, 0.5, 0.25, 0.25, 0.25, 0.25)
    assert shrinking_sizes(4, 0.8, 0.3, 0.5, repeats=3) == (0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.3, 0.3)
    assert constant_sizes(3) == (1.0, 1.0, 1.0)
    assert constant_sizes(20, 0.5625) == (0.5625,) * 36
    assert constant_sizes(0.3, 0.1) == (0.1,) * 3  # in binary 3 * 0.1 is above 0.3


@pytest.mark.parametrize("make", [cycle_sizes, growing_sizes, shrinking_sizes])
@pytest.mark.parametrize(
    ("bad", "name"),
    [
        ({"budget": 0}, "budget"),
        ({"budget": math.inf}, "budget"),
        ({"budget": math.nan}, "budget"),
        ({"start": 0}, "start"),
        ({"start": 1.1}, "start"),
        ({"start": math.nan}, "start"),
        ({"end": 0.0}, "end"),
        ({"end": True}, "end"),
        ({"multiplier": 1}, "multiplier"),
        ({"multiplier": 0.0}, "multiplier"),
    ],
)
def test_sizes_refuse(make, bad, name):
    with pytest.raises(ValueError, match=f"^{name}="):
        make(**{"budget": 2, **bad})


def test_sizes_refuse_ends_in_the_wrong_order():
    with pytest.raises(ValueError, match=r"^start=0.5 is above end=0.3"):
        cycle_sizes(2, 0.5, 0.3)
    with pytest.raises(ValueError, match=r"^end=0.5 is above start=0.3"):
        shrinking_sizes(2, 0.3, 0.5)
    with pytest.raises(ValueError, match=r"^size=0"):
        constant_sizes(2, 0)
    for make in (growing_sizes, shrinking_sizes):
        with pytest.raises(ValueError, match=r"^repeats=0"):
            make(2, repeats=0)


# ---- scores --------------------------------------------------------------------------------------------------------


def test_losses_are_those_of_single_examples_in_evaluation_mode():
    model, data = Reader(), examples()
    model(data.tensors[0])  # batch statistics other than the initial ones
    losses = per_sample_loss(model, DataLoader(data, 7))
    assert model.training
    model.eval()
    expected = [nn.functional.cross_entropy(model(x[None]), y[None]).item() for x, y in data]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    assert not losses.requires_grad


def test_losses_of_tokens_are_summed():
    model = nn.Embedding(5, 4)
    words, tags = torch.arange(10).reshape(2, 5) % 5, torch.tensor([[0, 1, 2, 3, -100], [3, 2, -100, -100, -100]])

    def loss(outputs, targets):
        return nn.functional.cross_entropy(outputs.transpose(1, 2), targets, reduction="none")

    expected = [nn.functional.cross_entropy(model(w), t, reduction="sum").item() for w, t in zip(words, tags)]
    assert per_sample_loss(model, [(words, tags)], loss).tolist() == pytest.approx(expected)


def test_losses_in_half_precision_are_returned_in_single():
    model = nn.Linear(6, 3, dtype=torch.bfloat16)
    x, y = examples().tensors
    assert per_sample_loss(model, [(x.bfloat16(), y)]).dtype == torch.float32


def test_losses_refuse():
    model, data = Reader(), examples()
    with pytest.raises(ValueError, match=r"^batches: the loader shuffles"):
        per_sample_loss(model, DataLoader(data, 7, shuffle=True))
    with pytest.raises(ValueError, match=r"^batches: the loader leaves out"):
        per_sample_loss(model, DataLoader(data, 7, drop_last=True))
    with pytest.raises(ValueError, match=r"^batches: there are none"):
        per_sample_loss(model, [])
    with pytest.raises(ValueError, match=r"^loss: 60 examples .*reduction='none'"):
        per_sample_loss(model, [data.tensors], nn.functional.cross_entropy)
    assert model.training


def test_a_failing_model_is_left_in_its_mode():
    model = Reader()
    with pytest.raises(RuntimeError):
        per_sample_loss(model, [(torch.ones(3, 5), torch.zeros(3, dtype=torch.long))])
    assert model.training


def test_scores():
    losses = torch.tensor([0.0, 1e-7, 0.5, 2.0])
    assert easy_scores(losses).tolist() == pytest.approx([1000, 1000, 2, 0.5])
    assert easy_scores(losses, floor=0.5, temperature=2).tolist() == pytest.approx([2**0.5, 2**0.5, 2**0.5, 0.5**0.5])
    assert hard_scores(losses).tolist() == pytest.approx([1e-7, 1e-7, 0.5, 2.0])
    assert hard_scores(losses, floor=0.25, temperature=0.5).tolist() == pytest.approx([1 / 16, 1 / 16, 0.25, 4.0])
    assert random_scores(losses.numpy()).tolist() == [1.0] * 4
    assert exponential_scores(losses, 0.5).tolist() == pytest.approx((0.5 * np.exp(-0.5 * losses.numpy())).tolist())
    assert exponential_scores(torch.tensor([0.0, 100.0, 1000.0]), 5.0).tolist() == pytest.approx(
        [5.0, 5 * math.exp(-500), 5 * math.exp(-500)]
    )
    for scores in (easy_scores, hard_scores, random_scores, exponential_scores):
        assert scores(losses.half()).dtype == torch.float64


def test_effective_sample_size():
    assert effective_sample_size(torch.full((7,), 3)) == 7
    assert effective_sample_size(np.array([0.0, 5.0, 0.0])) == 1
    assert effective_sample_size(torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(36 / 14)
    assert effective_sample_size(torch.tensor([1e300, 1e300], dtype=torch.float64)) == 2


@pytest.mark.parametrize("scores", [easy_scores, hard_scores, random_scores, exponential_scores])
def test_scores_refuse(scores):
    with pytest.raises(TypeError, match=r"^losses: a list"):
        scores([1.0, 2.0])
    for bad in ([1.0, math.nan], [1.0, math.inf], [1.0, -1e-9]):
        with pytest.raises(ValueError, match=r"^losses: some are"):
            scores(torch.tensor(bad))
    with pytest.raises(ValueError, match=r"^losses: shape"):
        scores(torch.tensor(1.0))


def test_scores_refuse_numbers_out_of_range():
    losses = torch.ones(3)
    for call, name in [
        (lambda: easy_scores(losses, floor=0), "floor"),
        (lambda: hard_scores(losses, temperature=-1), "temperature"),
        (lambda: exponential_scores(losses, rate=math.inf), "rate"),
        (lambda: exponential_scores(1000 * losses, rate=5.0), "rate"),
    ]:
        with pytest.raises(ValueError, match=f"^{name}="):
            call()
    with pytest.raises(ValueError, match=r"^scores: all are zero"):
        effective_sample_size(torch.zeros(3))


# ---- draws ---------------------------------------------------------------------------------------------------------


def sequential_probabilities(scores, k):
    """The probability of every ordered draw, by taking one example after the other."""
    found = {}
    for order in itertools.permutations(range(len(scores)), k):
        left, probability = list(range(len(scores))), 1.0
        for index in order:
            probability *= scores[index] / sum(scores[i] for i in left)
            left.remove(index)
        found[order] = probability
    return found


@pytest.mark.parametrize("scores", [[1.0, 1.0, 1.0, 1.0], [8.0, 4.0, 2.0, 1.0], [1e-3, 1.0, 1e-2, 1e3]])
def test_draws_have_the_probabilities_of_successive_draws(scores):
    draws = sample_without_replacement(
        torch.tensor(scores).expand(40_000, 4), 2, torch.Generator().manual_seed(0)
    ).tolist()
    expected = sequential_probabilities(scores, 2)
    counts = dict.fromkeys(expected, 0)
    for order in draws:
        counts[tuple(order)] += 1
    common = [order for order, probability in expected.items() if probability * len(draws) >= 5]
    observed, awaited = [counts[order] for order in common], [expected[order] * len(draws) for order in common]
    observed.append(len(draws) - sum(observed) + 5)  # what is rare together, and 5 on both sides so that it is never 0
    awaited.append(len(draws) - sum(awaited) + 5)
    assert stats.chisquare(observed, awaited).pvalue > 1e-4


def test_the_sampler_draws_like_numpys_choice():
    """Inclusion probabilities, against the function the paper's code calls."""
    scores, runs = np.array([5.0, 3.0, 1.0, 0.5, 0.25, 0.25]), 4_000
    peer, generator = np.zeros(6), np.random.default_rng(0)
    for _ in range(runs):
        peer[generator.choice(6, 3, replace=False, p=scores / scores.sum())] += 1
    ours = np.zeros(6)
    sampler = CurriculumSampler(range(6), scores, (0.5,) * runs)
    for epoch in range(runs):
        sampler.set_epoch(epoch)
        ours[list(sampler)] += 1
    error = np.sqrt((peer + ours) / 2 * (1 - (peer + ours) / 2 / runs) * 2)
    assert (abs(ours - peer) < 4.5 * error).all()


def test_any_range_of_scores_and_no_zeros():
    scores = torch.tensor([0.0, 5e-324, 1e-200, 1.0, 1e300], dtype=torch.float64)
    for seed in range(20):
        assert sample_without_replacement(scores, 4, torch.Generator().manual_seed(seed)).tolist() == [4, 3, 2, 1]
    with pytest.raises(ValueError, match=r"^k=5: only 4 scores are positive"):
        sample_without_replacement(scores, 5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32])
def test_a_draw_depends_on_scores_and_generator_alone(dtype):
    scores = torch.arange(1, 9).to(dtype)
    drawn = sample_without_replacement(scores, 5, torch.Generator().manual_seed(3))
    assert drawn.dtype == torch.int64
    assert len(set(drawn.tolist())) == 5
    assert torch.equal(drawn, sample_without_replacement(scores.double(), 5, torch.Generator().manual_seed(3)))


def test_draws_refuse():
    for k in (0, -1, 1.0, True):
        with pytest.raises(ValueError, match=r"^k="):
            sample_without_replacement(torch.ones(3), k)
    with pytest.raises(ValueError, match=r"^scores: all are zero"):
        sample_without_replacement(torch.zeros(3), 1)
    with pytest.raises(ValueError, match=r"^scores: some are"):
        sample_without_replacement(torch.tensor([1.0, math.nan]), 1)
    with pytest.raises(TypeError, match=r"^scores: a list"):
        sample_without_replacement([1.0], 1)


def test_shapes_are_as_annotated():
    draw = jaxtyped(typechecker=beartype)(sample_without_replacement)
    assert draw(torch.ones(2, 5), 3).shape == (2, 3)
    easy = jaxtyped(typechecker=beartype)(easy_scores)
    assert easy(np.ones(4)).shape == (4,)
    with pytest.raises(TypeCheckError):
        easy(torch.ones(2, 2))


# ---- the sampler ---------------------------------------------------------------------------------------------------


def test_every_epoch_has_its_size_and_no_example_twice():
    data, scores = examples(), torch.linspace(1, 60, 60)
    sampler = CurriculumSampler(data, scores, cycle_sizes(3, 0.11, 0.83, 0.7))
    for epoch, size in enumerate(sampler.sizes):
        sampler.set_epoch(epoch)
        shown = list(sampler)
        assert len(shown) == len(set(shown)) == len(sampler) == math.floor(60 * size + 1e-9)
        assert all(type(index) is int for index in shown)
        assert shown == list(sampler)  # until the epoch changes


def test_a_size_of_so_many_hundredths_is_not_rounded_down():
    sampler = CurriculumSampler(range(100), np.ones(100), [0.29, 0.57, 1.0])
    lengths = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        lengths.append(len(sampler))
    assert lengths == [29, 57, 100]


def test_examples_come_in_random_order_and_zeros_never():
    scores = torch.zeros(100)
    scores[50:] = torch.logspace(-3, 3, 50)
    sampler = CurriculumSampler(range(100), scores, [0.5] * 200)
    first = []
    for epoch in range(200):
        sampler.set_epoch(epoch)
        shown = list(sampler)
        assert sorted(shown) == list(range(50, 100))  # all that can be drawn
        first.append(shown[0])
    assert stats.chisquare(np.bincount(np.array(first) - 50, minlength=50)).pvalue > 1e-4


def test_seeds_and_epochs_have_draws_of_their_own():
    draws = []
    for seed, epoch in itertools.product(range(3), range(3)):
        sampler = CurriculumSampler(range(40), np.ones(40), [0.5] * 3, seed=seed)
        sampler.set_epoch(epoch)
        draws.append(tuple(sampler))
    assert len(set(draws)) == 9


def test_resuming_and_rescoring():
    data = examples()
    sampler = CurriculumSampler(data, np.ones(60), cycle_sizes(3), seed=5)
    before = list(sampler)
    sampler.set_epoch(1)
    sampler.update_scores(torch.linspace(0.1, 9, 60))
    expected = list(sampler)
    other = CurriculumSampler(data, np.ones(60), [1.0])
    other.load_state_dict(sampler.state_dict())
    assert list(other) == expected
    assert (other.epoch, other.epochs, len(other)) == (1, 6, 30)
    other.set_epoch(0)
    assert list(other) != before  # drawn by the new scores
    with pytest.raises(ValueError, match=r"^scores: shape"):
        other.load_state_dict({**sampler.state_dict(), "scores": torch.ones(3)})
    with pytest.raises(ValueError, match=r"^epoch=6"):
        other.load_state_dict({**sampler.state_dict(), "epoch": 6})
    assert (other.epoch, other.epochs) == (0, 6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scores": torch.ones(59)}, ValueError, r"^scores: shape \(59,\).*60 examples"),
        ({"scores": torch.zeros(60)}, ValueError, r"^scores: all are zero"),
        ({"scores": torch.full((60,), torch.nan)}, ValueError, "^scores: some are"),
        ({"scores": -torch.ones(60)}, ValueError, "^scores: some are"),
        ({"scores": [1.0] * 60}, TypeError, "^scores: a list"),
        ({"scores": torch.arange(60) // 50}, ValueError, r"^scores: 10 are positive, and sizes\[0\]=0.25 asks for 15"),
        ({"sizes": ()}, ValueError, "^sizes: there are none"),
        ({"sizes": (0.5, 0.01)}, ValueError, r"^sizes\[1\]=0.01 of 60 examples leaves none"),
        ({"sizes": (0.5, 0.0)}, ValueError, r"^sizes\[1\]=0.0: give"),
        ({"sizes": (1.5,)}, ValueError, r"^sizes\[0\]=1.5: give"),
        ({"sizes": (math.nan,)}, ValueError, r"^sizes\[0\]=nan: give"),
        ({"sizes": (0.05,), "num_replicas": 4, "rank": 0}, ValueError, r"^sizes\[0\]=0.05 .*in 4 processes"),
        ({"seed": -1}, ValueError, "^seed=-1"),
        ({"num_replicas": 0}, ValueError, "^num_replicas=0"),
        ({"num_replicas": 2, "rank": 2}, ValueError, "^rank=2"),
        ({"rank": -1}, ValueError, "^rank=-1"),
    ],
)
def test_the_sampler_refuses_before_training(change, error, message):
    arguments = {"scores": torch.ones(60), "sizes": cycle_sizes(2)} | change
    with pytest.raises(error, match=message):
        CurriculumSampler(examples(), **arguments)


def test_the_sampler_refuses_epochs_it_does_not_have():
    sampler = CurriculumSampler(examples(), np.ones(60), cycle_sizes(2))
    for epoch in (sampler.epochs, -1, 0.5):
        with pytest.raises(ValueError, match=r"^epoch="):
            sampler.set_epoch(epoch)
    with pytest.raises(ValueError, match=r"^scores: 1 are positive"):
        sampler.update_scores(torch.eye(60)[0])
    assert len(list(sampler)) == 15  # as before


@given(st.integers(5, 40), st.integers(1, 4), st.integers(0, 10))
@settings(max_examples=60)
def test_processes_share_a_draw_out_among_them(n, world, seed):
    sizes, scores = (0.8, 1.0), np.linspace(1, 3, n)
    for epoch in range(2):
        parts = []
        for rank in range(world):
            sampler = CurriculumSampler(range(n), scores, sizes, seed=seed, num_replicas=world, rank=rank)
            sampler.set_epoch(epoch)
            parts.append(list(sampler))
            assert len(parts[-1]) == len(sampler)
        whole = list(itertools.chain(*parts))
        assert len({len(part) for part in parts}) == 1
        assert len(set(whole)) == len(whole) == math.floor(sizes[epoch] * n + 1e-9) // world * world


# ---- in loops that are not ours --------------------------------------------------------------------------------------


def test_three_lines_in_a_plain_loop():
    dataset, model = examples(), Reader()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = per_sample_loss(model, DataLoader(dataset, 32))
    seen = []

    sampler = CurriculumSampler(dataset, hard_scores(losses), cycle_sizes(budget=3))  # added
    loader = DataLoader(dataset, batch_size=10, sampler=sampler)  # added: sampler=
    for epoch in range(sampler.epochs):
        sampler.set_epoch(epoch)  # added
        assert len(loader) == math.ceil(60 * sampler.sizes[epoch] / 10)
        seen.append(0)
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            seen[-1] += len(y)
    assert seen == [15, 30, 60, 30, 15, 30]


def test_workers_load_the_same_examples():
    data = TensorDataset(torch.arange(60))
    sampler = CurriculumSampler(data, np.arange(1, 61), cycle_sizes(2))
    sampler.set_epoch(1)
    loaded = {
        workers: torch.cat([batch for (batch,) in DataLoader(data, 7, sampler=sampler, num_workers=workers)])
        for workers in (0, 2)
    }
    assert torch.equal(loaded[0], loaded[2])
    assert loaded[0].tolist() == list(sampler)


def test_three_lines_under_fabric():
    fabric = Fabric(accelerator="cpu", devices=1)
    dataset, model = examples(), Reader()
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    sampler = CurriculumSampler(dataset, random_scores(torch.ones(60)), cycle_sizes(budget=3))  # added
    loader = fabric.setup_dataloaders(DataLoader(dataset, batch_size=10, sampler=sampler))  # added: sampler=
    seen = []
    for _ in range(sampler.epochs):  # Fabric sets the epoch itself
        seen.append(0)
        for x, y in loader:
            optimizer.zero_grad()
            fabric.backward(nn.functional.cross_entropy(model(x), y))
            optimizer.step()
            seen[-1] += len(y)
    assert loader.sampler is sampler
    assert seen == [15, 30, 60, 30, 15, 30]


DISTRIBUTED = """
import json
from pathlib import Path
from lightning_fabric import Fabric
from torch.utils.data import DataLoader, TensorDataset
from etude.training import CurriculumSampler, cycle_sizes, easy_scores

torch.manual_seed(0)
x = torch.randn(61, 6)
dataset = TensorDataset(x, torch.arange(61) % 3, torch.arange(61))
early = CurriculumSampler(dataset, easy_scores(torch.linspace(0.01, 3, 61)), cycle_sizes(budget=3))
shown = {}

model = DistributedDataParallel(nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
sampler = CurriculumSampler(dataset, easy_scores(torch.linspace(0.01, 3, 61)), cycle_sizes(budget=3))
loader = DataLoader(dataset, batch_size=4, sampler=sampler)
shown["plain"] = []
for epoch in range(sampler.epochs):
    sampler.set_epoch(epoch)
    shown["plain"].append([])
    for inputs, targets, index in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        shown["plain"][-1] += index.tolist()
    assert len(shown["plain"][-1]) == len(sampler)
weights = torch.cat([parameter.flatten() for parameter in model.parameters()]).detach()
gathered = [torch.empty_like(weights) for _ in range(world)]
dist.all_gather(gathered, weights)
assert torch.equal(*gathered)

fabric = Fabric(accelerator="cpu", strategy="ddp", devices=world, num_nodes=1)
fabric.launch()
loader = fabric.setup_dataloaders(DataLoader(dataset, batch_size=4, sampler=early))
assert loader.sampler is early
shown["fabric"] = []
for _ in range(early.epochs):
    shown["fabric"].append([i for _, _, index in loader for i in index.tolist()])
Path(f"shown{rank}.json").write_text(json.dumps(shown))
dist.barrier()
"""


def test_three_lines_under_distributed_data_parallel(tmp_path):
    run_distributed(DISTRIBUTED, tmp_path)
    one, two = (json.loads((tmp_path / f"shown{rank}.json").read_text()) for rank in (0, 1))
    alone = CurriculumSampler(
        range(61), easy_scores(torch.linspace(0.01, 3, 61)), cycle_sizes(budget=3), num_replicas=1, rank=0
    )
    for kind in ("plain", "fabric"):
        for epoch, (first, second) in enumerate(zip(one[kind], two[kind], strict=True)):
            shown = math.floor(61 * alone.sizes[epoch]) // 2 * 2
            assert len(first) == len(second) == shown // 2
            assert len({*first, *second}) == shown
            alone.set_epoch(epoch)
            if shown == len(alone):  # an even number: the same draw as one process makes
                assert {*first, *second} == set(alone)
    assert one["plain"] == one["fabric"]


# ---- what alternation does -----------------------------------------------------------------------------------------


def regression(n=40, d=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x, x.sum(1) + torch.randn(n, generator=generator, dtype=torch.float64)


def test_moments_of_a_cycle_are_kept_by_it():
    """One cycle more, taken by averaging over every example one step at a time, changes neither moment."""
    phases, rate = [(*regression(5, seed=1), 2), (*regression(), 3)], 0.05
    means, covariances = cycle_moments(phases, rate)
    mean, second = means[-1], covariances[-1] + torch.outer(means[-1], means[-1])
    for number, (x, y, steps) in enumerate(phases):
        for _ in range(steps):
            shrink = torch.eye(3) - rate * x[:, :, None] * x[:, None, :]
            push = rate * x * y[:, None]
            crossed = torch.einsum("nij,j,nk->ik", shrink, mean, push) / len(x)
            second = (
                torch.einsum("nij,jk,nlk->il", shrink, second, shrink) / len(x)
                + crossed + crossed.T + torch.einsum("ni,nj->ij", push, push) / len(x)
            )  # fmt: skip
            mean = (torch.einsum("nij,j->ni", shrink, mean) + push).mean(0)
        torch.testing.assert_close(mean, means[number])
        torch.testing.assert_close(second - torch.outer(mean, mean), covariances[number])


def test_moments_of_one_phase_in_one_dimension():
    """x = 1: w <- (1 - r) w + r y has the mean of y and the variance r / (2 - r) Var y."""
    y = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)
    mean, covariance = cycle_moments([(torch.ones(3, 1), y, 4)], 0.3)
    assert mean.item() == pytest.approx(2)
    assert covariance.item() == pytest.approx(0.3 / 1.7 * y.var(correction=0).item())


def test_without_noise_descent_finds_the_solution():
    x, _ = regression()
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    means, covariances = cycle_moments([(x[:10], x[:10] @ weights, 3), (x, x @ weights, 7)], 0.05)
    torch.testing.assert_close(means, weights.expand(2, 3))
    assert covariances.abs().max() < 1e-12


def test_moments_refuse():
    x, y = regression()
    with pytest.raises(ValueError, match=r"^phases: there are none"):
        cycle_moments([], 0.1)
    with pytest.raises(ValueError, match=r"^phases\[1\]: inputs"):
        cycle_moments([(x, y, 1), (x, y[:3], 1)], 0.1)
    with pytest.raises(ValueError, match=r"^phases\[1\]: inputs"):
        cycle_moments([(x, y, 1), (x[:, :2], y, 1)], 0.1)
    with pytest.raises(ValueError, match=r"^phases\[0\]: steps=0"):
        cycle_moments([(x, y, 0)], 0.1)
    with pytest.raises(ValueError, match=r"^learning_rate=0"):
        cycle_moments([(x, y, 1)], 0)
    with pytest.raises(ValueError, match=r"^learning_rate=5: the second moment grows"):
        cycle_moments([(x, y, 1)], 5)
