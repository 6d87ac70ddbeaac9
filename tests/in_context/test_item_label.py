"""Sequences have exactly the promised statistics, structure and labels; bad arguments are named."""

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn.functional import cross_entropy

from etude.in_context import (
    ExemplarItems,
    GaussianItems,
    ItemLabelSequences,
    ItemLabelTask,
    Marginal,
    context_label_accuracy,
    encode,
    in_context_accuracy,
    in_context_ceiling,
    in_weights_accuracy,
    interleave,
    nearest_exemplar,
)
from tests.distributed import run_distributed


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(classes=64, dim=15, noise=0.1):
    return GaussianItems(classes, dim, noise, generator=seeded(99))


def named(classes=12, exemplars=5, **options):
    """Items that say who they are: (class, exemplar)."""
    grid = torch.stack(torch.meshgrid(torch.arange(classes), torch.arange(exemplars), indexing="ij"), -1)
    return ExemplarItems(grid.float(), **options)


def agrees(counts, probabilities):
    """Chi-square test at one in ten thousand; the seeds are fixed, so it passes always or never."""
    expected = torch.as_tensor(probabilities, dtype=torch.float64)
    counts = torch.as_tensor(counts, dtype=torch.float64)
    assert (counts[expected == 0] == 0).all()
    counts, expected = counts[expected > 0], expected[expected > 0]
    return stats.chisquare(counts, expected / expected.sum() * counts.sum()).pvalue > 1e-4


# ---- marginals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.0, 1.0, 3.0])
def test_a_zipf_marginal_is_followed(exponent):
    marginal = Marginal.zipf(20, exponent)
    expected = torch.arange(1.0, 21).double() ** -exponent
    assert torch.allclose(marginal.probabilities, expected / expected.sum())
    assert agrees(marginal.sample((40_000,), seeded()).bincount(minlength=20), expected)


def test_three_classes_make_nearly_all_of_a_steep_marginal():
    assert Marginal.zipf(1600, 3).share_of_top(3) == pytest.approx(0.967, abs=1e-3)
    assert Marginal.zipf(10).share_of_top(3) == pytest.approx(0.3)


@pytest.mark.parametrize("few", [0, 256])
@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_draws_without_replacement_follow_successive_sampling(few, exponent, monkeypatch):
    """Both ways of drawing give p(a) p(b) / (1 - p(a)) p(c) / (1 - p(a) - p(b))."""
    monkeypatch.setattr("etude.in_context.item_label._FEW", few)
    monkeypatch.setattr(Marginal, "share_of_top", lambda self, k: 0.0)
    marginal = Marginal.zipf(5, exponent)
    rows = marginal.distinct(60_000, 3, seeded())
    p = marginal.probabilities
    expected = torch.zeros(5, 5, 5, dtype=torch.float64)
    for a in range(5):
        for b in set(range(5)) - {a}:
            for c in set(range(5)) - {a, b}:
                expected[a, b, c] = p[a] * p[b] / (1 - p[a]) * p[c] / (1 - p[a] - p[b])
    assert agrees((rows @ torch.tensor([25, 5, 1])).bincount(minlength=125), expected.flatten())


@pytest.mark.parametrize("exponent", [0.0, 1.5])
def test_draws_other_than_one_class_follow_the_marginal_without_it(exponent):
    marginal = Marginal.zipf(6, exponent)
    than = torch.arange(6).repeat_interleave(4000)
    drawn = marginal.sample_other(than, 3, seeded())
    for k in range(6):
        without = marginal.probabilities.clone()
        without[k] = 0
        assert agrees(drawn[than == k].flatten().bincount(minlength=6), without)


# ---- sequences -----------------------------------------------------------------------------------------------------


def occurrences(batch):
    return (batch.classes[:, :-1, None] == batch.classes[:, None, :-1]).sum(-1)


@pytest.mark.parametrize("shots", [1, 2, 4])
def test_a_bursty_sequence_repeats_every_class_and_labels_it_as_always(shots):
    batch = ItemLabelTask(gaussian(), 16, shots=shots).train(500, seeded())
    assert (occurrences(batch) == shots).all()
    assert (batch.matches.sum(1) == shots).all()
    assert torch.equal(batch.labels, batch.classes[:, :-1] % 16)
    assert torch.equal(batch.target, batch.classes[:, -1] % 16)
    assert batch.bursty.all()
    assert not batch.novel.any()
    distinct = [len(set(row)) for row in batch.labels.tolist()]
    assert distinct == [8 // shots] * 500


def test_targets_places_and_classes_are_even():
    batch = ItemLabelTask(gaussian(), 16).train(40_000, seeded())
    assert agrees(batch.matches.sum(0), torch.ones(8))
    assert agrees(batch.classes[:, -1].bincount(minlength=64), torch.ones(64))
    assert agrees(batch.classes[:, 0].bincount(minlength=64), torch.ones(64))


def test_a_skewed_marginal_is_kept_by_bursts_of_one_and_by_sequences_that_are_not_bursty():
    expected = torch.arange(1.0, 65) ** -1
    for options in ({"shots": 4, "ways": 1}, {"p_bursty": 0.0}):
        batch = ItemLabelTask(gaussian(), 16, zipf_exponent=1, **options).train(20_000, seeded())
        assert agrees(batch.classes[:, -1].bincount(minlength=64), expected)
        assert agrees(batch.classes[:, 0].bincount(minlength=64), expected)


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_distinct_labels_keep_the_frequencies_within_a_label(exponent):
    batch = ItemLabelTask(gaussian(8), 4, pairs=2, zipf_exponent=exponent).train(40_000, seeded())
    classes = batch.classes[:, 0]
    p = torch.arange(1.0, 9) ** -exponent
    for label in range(4):
        assert agrees(classes[classes % 4 == label].bincount(minlength=8)[label::4], p[label::4])


def test_fractions_of_bursty_and_novel_sequences():
    task = ItemLabelTask(gaussian(640), 16, shots=4, p_bursty=0.3, p_novel=0.25)
    batch = task.train(40_000, seeded())
    assert agrees([int(batch.novel.sum()), int((~batch.novel).sum())], [0.25, 0.75])
    rest = batch.bursty[~batch.novel]
    assert agrees([int(rest.sum()), int((~rest).sum())], [0.3, 0.7])
    assert batch.bursty[batch.novel].all()
    assert (occurrences(batch)[batch.bursty] == 4).all()
    assert torch.equal(batch.novel, batch.classes[:, -1] >= 640)
    iid = batch.matches[~batch.bursty]
    assert agrees([int(iid.sum()), int((~iid).sum())], [1 / 640, 639 / 640])


def test_bursts_with_fillers_as_three_plus_three_plus_two():
    task = ItemLabelTask(gaussian(1600), shots=3, ways=2)
    batch = task.train(2000, seeded())
    assert (batch.matches.sum(1) >= 3).all()
    counts = occurrences(batch).sort(1).values
    usual = torch.tensor([1, 1, 3, 3, 3, 3, 3, 3])
    assert (counts == usual).all(1).float().mean() > 0.98  # the two fillers are of classes of their own but for chance
    assert agrees(batch.matches.sum(0), torch.ones(8))


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_ways_may_coincide_if_nothing_is_to_be_distinct(exponent):
    task = ItemLabelTask(gaussian(10), shots=3, ways=2, distinct=None, zipf_exponent=exponent)
    p = Marginal.zipf(10, exponent).probabilities
    both = (occurrences(task.train(20_000, seeded())) >= 6).any(1).sum()
    same = float(p.square().sum())
    # Two ways of one class, or two of different classes and neither filler matters: fillers cannot make 3 to 6.
    assert agrees([int(both), 20_000 - int(both)], [same, 1 - same])


def test_multiplicity_draws_one_of_the_classs_labels_for_all_copies():
    task = ItemLabelTask(gaussian(50), shots=3, ways=2, multiplicity=4)
    assert task.labels == 200
    batch = task.train(20_000, seeded())
    assert torch.equal(batch.labels // 4, batch.classes[:, :-1])
    assert torch.equal(batch.target // 4, batch.classes[:, -1])
    assert agrees((batch.target % 4).bincount(minlength=4), torch.ones(4))
    right = (batch.labels == batch.target[:, None]) & batch.matches
    assert (right.sum(1) >= 3).all()


def test_classes_may_share_their_several_labels():
    task = ItemLabelTask(gaussian(60), 12, shots=3, ways=2, multiplicity=4)
    batch = task.train(20_000, seeded())
    owned = (4 * batch.classes[..., None] + torch.arange(4)) % 12
    assert (owned[:, :-1] == batch.labels[..., None]).any(2).all()
    assert (owned[:, -1] == batch.target[:, None]).any(1).all()
    assert agrees((batch.target % 4).bincount(minlength=4), torch.ones(4))
    usual = occurrences(batch) == 3
    assert (batch.labels[usual & batch.matches] == batch.target[:, None].expand(-1, 8)[usual & batch.matches]).all()
    # The ways own different labels: among six places of two ways no label is shared.
    ways = (occurrences(batch) >= 3) & ~batch.matches
    other = batch.labels[ways].div(4, rounding_mode="floor")
    assert (other != batch.target[:, None].expand(-1, 8)[ways] // 4).all()


def test_new_classes_have_labels_of_their_own_in_every_sequence():
    task = ItemLabelTask(gaussian(), 16, shots=2)
    batch = task.in_context(20_000, seeded())
    assert batch.novel.all()
    assert (occurrences(batch) == 2).all()
    assert (batch.classes >= 64).all()
    for row in batch.labels[:50].tolist():
        assert len(set(row)) == 4
    right = batch.labels == batch.target[:, None]
    assert torch.equal(right, batch.matches)
    assert agrees(batch.target.bincount(minlength=16), torch.ones(16))
    again = task.in_context(2, seeded(1))
    assert not torch.allclose(again.items[0], again.items[1])


def test_few_shots_of_two_held_out_classes_with_the_first_two_labels():
    items = named(12, 5, held_out=torch.tensor([3, 7, 11]))
    batch = ItemLabelTask(items, shots=3, ways=2).in_context(5000, seeded(), ways=2, shots=4, labels=2)
    assert set(batch.items[..., 0].unique().tolist()) == {3, 7, 11}
    assert (occurrences(batch) == 4).all()
    assert set(batch.labels.unique().tolist()) == {0, 1}
    assert (batch.labels.sum(1) == 4).all()
    assert torch.equal(batch.labels == batch.target[:, None], batch.matches)
    joint = batch.items[:, -1, 0].long() * 2 + batch.target
    assert agrees(joint.bincount()[[6, 7, 14, 15, 22, 23]], torch.ones(6))


def test_swapped_labels_are_one_further_everywhere():
    batch = ItemLabelTask(gaussian(), 16, shots=2).swapped(300, seeded())
    assert torch.equal(batch.labels, (batch.classes[:, :-1] + 1) % 16)
    assert torch.equal(batch.target, (batch.classes[:, -1] + 1) % 16)
    assert (batch.matches.sum(1) == 2).all()


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_the_in_weights_test_never_shows_the_targets_class(exponent):
    task = ItemLabelTask(gaussian(10, 4), 10, pairs=4, zipf_exponent=exponent)
    batch = task.in_weights(20_000, seeded())
    assert not batch.matches.any()
    p = task.marginal.probabilities
    assert agrees(batch.classes[:, -1].bincount(minlength=10), p)
    assert torch.equal(batch.target, batch.classes[:, -1])
    common = task.in_weights(20_000, seeded(), ranks=(1, 4))
    assert agrees(common.target.bincount(minlength=10)[1:4], p[1:4])
    assert set(common.target.unique().tolist()) == {1, 2, 3}


def test_permuted_labels_keep_their_counts():
    batch = ItemLabelTask(gaussian(), 16, shots=2).train(2000, seeded())
    permuted = batch.permuted_labels(seeded(1))
    assert torch.equal(permuted.labels.sort(1).values, batch.labels.sort(1).values)
    assert torch.equal(permuted.items, batch.items)
    right = (permuted.labels == batch.target[:, None]) & batch.matches
    assert agrees([int(right.sum()), 4000 - int(right.sum())], [0.25, 0.75])  # 2 of 8 places carry the label


# ---- items ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [False, True])
def test_gaussian_items_have_the_promised_moments(fresh):
    items = gaussian(64, 15, noise=0.5)
    task = ItemLabelTask(items, 16, shots=2)
    batch = task.in_context(4000, seeded()) if fresh else task.train(4000, seeded())
    if not fresh:
        centred = batch.items * (1 + 0.25) ** 0.5 - items.means[batch.classes]
        assert centred.var().item() == pytest.approx(0.25 / 15, rel=0.02)
    assert batch.items.square().sum(-1).mean().item() == pytest.approx(1, rel=0.04)
    same = (batch.items[:, :-1] * batch.items[:, -1:]).sum(-1)
    assert same[batch.matches].mean().item() == pytest.approx(1 / 1.25, rel=0.05)
    assert same[~batch.matches].mean().item() == pytest.approx(0, abs=0.02)


def test_items_without_noise_are_the_means():
    items = gaussian(noise=0.0)
    batch = ItemLabelTask(items, 16).train(10, seeded())
    assert torch.equal(batch.items, items.means[batch.classes])


def test_exemplars_do_not_come_twice_before_all_have_come():
    items = named(12, 5)
    batch = ItemLabelTask(items, shots=4, ways=2).train(5000, seeded())
    assert torch.equal(batch.items[..., 0].long(), batch.classes)
    usual = (batch.matches.sum(1) == 4) & (occurrences(batch) == 4).all(1)
    own = batch.items[:, :-1, 1][batch.matches & usual[:, None]].view(-1, 4)
    five = torch.cat([own, batch.items[usual, -1:, 1]], 1).long()
    assert (five.sort(1).values == torch.arange(5)).all()
    assert agrees((five[:, 0] * 5 + five[:, -1]).bincount(minlength=25), 1 - torch.eye(5).flatten())


def test_an_image_is_an_item_and_replacement_and_noise_are_as_asked():
    images = torch.zeros(6, 4, 1, 5, 5)
    task = ItemLabelTask(ExemplarItems(images, noise=0.5, replace=True), shots=4, ways=2)
    batch = task.train(500, seeded())
    assert batch.items.shape == (500, 9, 1, 5, 5)
    assert batch.items.std().item() == pytest.approx(0.5, rel=0.02)
    single = ItemLabelTask(named(12, 1, replace=True), shots=4, ways=2).train(20, seeded())
    assert (single.items[..., 1] == 0).all()
    drawn = ItemLabelTask(named(12, 4, replace=True), shots=4, ways=2).train(5000, seeded()).items[..., 1].long()
    assert agrees(drawn[:, 0].bincount(minlength=4), torch.ones(4))


# ---- encoding, references, accuracies ------------------------------------------------------------------------------


def test_tokens_are_one_hot_positions_in_a_row_and_contents():
    batch = ItemLabelTask(gaussian(dim=6), 16, pairs=3).train(20_000, seeded())
    vectors = torch.randn(16, 6, generator=seeded(1))
    tokens = encode(batch, vectors, positions=10, generator=seeded(2))
    place, content = tokens[..., :10], tokens[..., 10:]
    assert ((place == 0) | (place == 1)).all()
    assert (place.sum(-1) == 1).all()
    at = place.argmax(-1)
    assert (at.diff(dim=1) == 1).all()
    assert agrees(at[:, 0].bincount(minlength=4), torch.ones(4))
    assert torch.equal(content, interleave(batch.items, vectors[batch.labels]))
    assert torch.equal(content[:, 0::2], batch.items)
    assert torch.equal(content[:, 1], vectors[batch.labels[:, 0]])


def test_the_nearest_exemplar_is_the_brute_force_one_and_right_where_classes_are_apart():
    batch = ItemLabelTask(gaussian(dim=2, noise=2.0), 16).train(200, seeded())
    for row, label in enumerate(nearest_exemplar(batch).tolist()):
        distance = [float((x - batch.items[row, -1]).norm()) for x in batch.items[row, :-1]]
        assert label == int(batch.labels[row, distance.index(min(distance))])
    apart = ItemLabelTask(gaussian(dim=63, noise=0.1), 16, shots=2).in_context(2000, seeded())
    assert torch.equal(nearest_exemplar(apart), apart.target)


@pytest.mark.parametrize("held_out", [2, 3, 10])
def test_the_ceiling_is_reached_by_an_exact_matcher(held_out):
    items = named(held_out + 12, 1, held_out=torch.arange(held_out), replace=True)
    task = ItemLabelTask(items, shots=3, ways=2, distinct=None)
    batch = task.in_context(20_000, seeded(), ways=2, shots=4, labels=2)
    right = int((nearest_exemplar(batch) == batch.target).sum())
    ceiling = in_context_ceiling(held_out)
    assert ceiling == pytest.approx(1 - 1 / (2 * held_out))
    assert agrees([right, 20_000 - right], [ceiling, 1 - ceiling])
    assert in_context_ceiling(None) == 1


def test_the_ceiling_of_more_ways_by_enumeration():
    from itertools import product

    total = sum(1 / ways.count(ways[0]) for ways in product(range(4), repeat=3)) / 4**3
    assert in_context_ceiling(4, ways=3) == pytest.approx(total)


def test_accuracies_of_answers_worked_out_by_hand():
    no = torch.zeros(3, dtype=torch.bool)
    batch = ItemLabelSequences(
        torch.zeros(3, 3, 1), torch.tensor([[0, 1], [2, 3], [4, 5]]), torch.tensor([1, 2, 5]), torch.zeros(3, 3), no, no
    )
    logits = torch.zeros(3, 8)
    logits[0, 1], logits[1, 3], logits[2, 7], logits[2, 5] = 1, 1, 2, 1
    assert in_context_accuracy(logits, batch).item() == pytest.approx(1 / 3)
    assert in_context_accuracy(logits, batch, restrict=True).item() == pytest.approx(2 / 3)
    assert in_weights_accuracy(logits, batch).item() == pytest.approx(1 / 3)
    assert in_weights_accuracy(logits, batch, multiplicity=2).item() == pytest.approx(2 / 3)
    assert context_label_accuracy(logits, batch).item() == pytest.approx(2 / 3)


def test_the_same_seed_gives_the_same_sequences_and_the_next_call_others():
    task = ItemLabelTask(gaussian(), 16, shots=2, p_bursty=0.5, p_novel=0.5)
    generator = seeded()
    one, two, again = task.train(50, generator), task.train(50, generator), task.train(50, seeded())
    assert torch.equal(one.items, again.items)
    assert torch.equal(one.labels, again.labels)
    assert not torch.equal(one.labels, two.labels)


# ---- in a loop of one's own ----------------------------------------------------------------------------------------


class Own(nn.Module):
    """A network as a user may have it: pools the context weighted by likeness to the target."""

    def __init__(self, width, labels):
        super().__init__()
        self.map, self.out = nn.Linear(width, width), nn.Linear(width, labels)

    def forward(self, tokens):
        mapped = self.map(tokens)
        return self.out((mapped @ mapped[:, -1:].mT).softmax(1).mT.matmul(tokens)[:, 0])


def test_a_plain_loop_and_fabric_train_on_the_same_sequences():
    from lightning_fabric import Fabric

    def train(setup):
        items = gaussian(32, 7)
        task = ItemLabelTask(items, 8, pairs=4)
        vectors, generator = torch.randn(8, 7, generator=seeded(1)), seeded(2)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = Own(16, 8)
        model, descent, backward = setup(model, torch.optim.SGD(model.parameters(), lr=0.5))
        for _ in range(20):
            batch = task.train(32, generator)
            tokens = encode(batch, vectors, positions=9, generator=generator)
            loss = cross_entropy(model(tokens), batch.target)
            descent.zero_grad()
            backward(loss)
            descent.step()
        return loss.item()

    fabric = Fabric(accelerator="cpu", devices=1)
    plain = train(lambda model, descent: (model, descent, lambda loss: loss.backward()))
    assert plain == pytest.approx(train(lambda model, descent: (*fabric.setup(model, descent), fabric.backward)))


def test_processes_draw_sequences_of_their_own_and_keep_one_model(tmp_path):
    run_distributed(
        f"""
        from etude.in_context import GaussianItems, ItemLabelTask, encode

        items = GaussianItems(32, 7, generator=torch.Generator().manual_seed(0))
        task, vectors = ItemLabelTask(items, 8, pairs=4), torch.randn(8, 7, generator=torch.Generator().manual_seed(1))
        generator = torch.Generator().manual_seed(10 + rank)
        torch.manual_seed(0)
        model = DistributedDataParallel(nn.Sequential(nn.Flatten(), nn.Linear(9 * 16, 8)))
        descent = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            batch = task.train(16, generator)
            logits = model(encode(batch, vectors, positions=9, generator=generator))
            loss = nn.functional.cross_entropy(logits, batch.target)
            descent.zero_grad()
            loss.backward()
            descent.step()
        torch.save([model.module[1].weight, batch.labels], {str(tmp_path)!r} + f"/{{rank}}.pt")
        """,
        tmp_path,
    )
    (weight, labels), (other, others) = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(weight, other)
    assert not torch.equal(labels, others)


# ---- bad arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianItems(0, generator=seeded()), "classes=0"),
        (lambda: GaussianItems(4, noise=-1, generator=seeded()), "noise=-1"),
        (lambda: GaussianItems(4, noise=float("nan"), generator=seeded()), "noise=nan"),
        (lambda: Marginal.zipf(4, -1.0), "exponent=-1.0"),
        (lambda: Marginal(torch.zeros(3)), "weights"),
        (lambda: Marginal.zipf(4).share_of_top(-1), "k=-1: give 0 to 4"),
        (lambda: Marginal.zipf(4).distinct(2, 5, seeded()), "count=5: give 1 to 4"),
        (lambda: ItemLabelTask(gaussian(60), 16), "labels=16: give a divisor of the 60"),
        (lambda: ItemLabelTask(gaussian(8), 16), "labels=16.*at most 8"),
        (lambda: ItemLabelTask(gaussian(8), 16, multiplicity=3), "labels=16.*24"),
        (lambda: ItemLabelTask(gaussian(8), 4, multiplicity=3), "labels=4: give a multiple of multiplicity=3"),
        (lambda: ItemLabelTask(gaussian(), 16, shots=3), "shots=3: give a proper divisor of the 8 pairs"),
        (lambda: ItemLabelTask(gaussian(), 16, shots=8), "shots=8"),
        (lambda: ItemLabelTask(gaussian(), 16, shots=3, ways=3), "ways=3: 3 shots of 1 to 2 ways"),
        (lambda: ItemLabelTask(gaussian(), 4), "ways=8: there are only 4 labels"),
        (lambda: ItemLabelTask(gaussian(4), distinct="classes"), "ways=8: there are only 4 classes"),
        (lambda: ItemLabelTask(gaussian(), 4, distinct=None, p_novel=0.5), "ways=8: new classes have different labels"),
        (lambda: ItemLabelTask(gaussian(), 16, p_bursty=1.5), "p_bursty=1.5: give a probability"),
        (lambda: ItemLabelTask(gaussian(), 16, p_novel=-0.5), "p_novel=-0.5"),
        (lambda: ItemLabelTask(gaussian(), 16, pairs=0), "pairs=0"),
        (lambda: ItemLabelTask(gaussian(), 16, zipf_exponent=-0.5), "exponent=-0.5"),
        (lambda: ItemLabelTask(gaussian(), 16, distinct="items"), "distinct='items'"),
        (lambda: ItemLabelTask(named(12, 3), shots=3, ways=2), "shots=3: with the target that is 4.*3 exemplars"),
        (lambda: ItemLabelTask(named(12), shots=3, ways=2, p_novel=1), "holds out 0"),
        (lambda: ItemLabelTask(named(12), shots=3, ways=2).in_context(4, seeded()), "holds out 0"),
        (lambda: ItemLabelTask(gaussian(), 16).in_context(4, seeded(), ways=2, shots=5), "ways=2: 5 shots of 1 to 1"),
        (lambda: ItemLabelTask(gaussian(), 16).in_context(4, seeded(), labels=17), "labels=17: give 1 to 16"),
        (lambda: ItemLabelTask(gaussian(), 16).in_context(4, seeded(), labels=0), "labels=0: give 1 to 16"),
        (lambda: ItemLabelTask(gaussian(), 16).in_weights(4, seeded(), ranks=(3, 65)), r"ranks=\(3, 65\)"),
        (lambda: ItemLabelTask(gaussian(1, 3), pairs=1).in_weights(4, seeded()), "2 classes or more"),
        (lambda: ItemLabelTask(gaussian(), 16).train(0, seeded()), "n=0"),
        (lambda: named(held_out=torch.tensor([12])), "held_out: there are classes 0 to 11, not 12"),
        (lambda: named(held_out=torch.tensor([1, 1])), "held_out: a class is named twice"),
        (lambda: named(4, held_out=torch.arange(4)), "held_out: all 4"),
        (lambda: named(4, held_out=torch.tensor([0]), groups=torch.tensor([5, 5, 6, 6])), "groups: 5 has classes"),
        (lambda: named(4, groups=torch.arange(3)), "groups of shape"),
        (lambda: ExemplarItems(torch.full((3, 2, 4), torch.nan)), "exemplars: give finite"),
        (lambda: ExemplarItems(torch.zeros(3)), "exemplars"),
        (lambda: interleave(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)), "labels of shape"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_encoding_refuses_what_does_not_fit():
    batch = ItemLabelTask(gaussian(dim=6), 16).train(4, seeded())
    with pytest.raises(ValueError, match="positions=16: give at least 17"):
        encode(batch, torch.zeros(16, 6), positions=16, generator=seeded())
    with pytest.raises(ValueError, match="label_vectors of width 5"):
        encode(batch, torch.zeros(16, 5), positions=17, generator=seeded())
    with pytest.raises(ValueError, match=r"labels .* to .*: label_vectors has 0 to 2"):
        encode(batch, torch.zeros(3, 6), positions=17, generator=seeded())
