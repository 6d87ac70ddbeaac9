"""Alignments against brute force, properties by what they promise, the loss by its gradient, and bad input."""

import doctest
import itertools

import jiwer
import pytest
import torch
from lightning_fabric import Fabric
from scipy.stats import chisquare
from torch import nn
from torch.nn.functional import ctc_loss, log_softmax

from distributed import run_distributed
from etude.training import (
    AfterStep,
    AlignWithPurpose,
    ComposedProperty,
    EarlierEmission,
    FewerWordErrors,
    LaterEmission,
    alignment_scores,
    check_ctc,
    check_emissions,
    collapse_alignments,
    collapses_to,
    ctc,
    sample_alignments,
    viterbi_align,
)

T, V = 6, 4
EVERY = torch.cartesian_prod(*[torch.arange(V)] * T)  # all 4^6 alignments


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def distributions(frames=T, batch=1, vocabulary=V, seed=0, dtype=torch.float64):
    return log_softmax(2 * torch.randn(frames, batch, vocabulary, generator=seeded(seed), dtype=dtype), -1)


def collapsed(path, blank=0):
    """A text, symbol by symbol."""
    return [label for label, _ in itertools.groupby(path) if label != blank]


def runs(frames=20, paths=2000, vocabulary=4, seed=0):
    """Random alignments of labels that last a few frames, with their lengths."""
    draws = seeded(seed)
    labels = torch.randint(vocabulary, (1, paths, frames), generator=draws)
    held = torch.rand(labels.shape, generator=draws) < 0.5
    held[..., 0] = False
    source = torch.where(held, 0, torch.arange(frames)).cummax(-1).values
    return labels.gather(-1, source), torch.randint(1, frames + 1, (paths,), generator=draws)


# ---- alignments ----------------------------------------------------------------------------------------------------


def test_collapse_agrees_with_grouping_symbol_by_symbol():
    paths, lengths = runs(paths=300)
    tokens = collapse_alignments(paths, lengths)
    for path, length, labels, count, first, last, index in zip(
        paths[0].tolist(), lengths.tolist(), *(t[0] for t in tokens)
    ):
        text = collapsed(path[:length])
        assert labels[: int(count)].tolist() == text
        assert int(count) == len(text)
        assert (labels[int(count) :] == -1).all()
        for place, label in enumerate(text):
            frames = [t for t in range(length) if index[t] == place]
            assert frames == list(range(int(first[place]), int(last[place]) + 1))
            assert {path[t] for t in frames} == {label}
        assert all(path[t] == 0 for t in range(length) if index[t] == -1)


def test_a_blank_other_than_zero():
    path = torch.tensor([[3, 0, 0, 3, 0, 2]])
    tokens = collapse_alignments(path, torch.tensor([6]), blank=3)
    assert tokens.labels[0, :3].tolist() == [0, 0, 2]
    assert tokens.first[0, :3].tolist() == [1, 4, 5]


@pytest.mark.parametrize("target", [[], [1], [2, 2], [1, 2, 1], [3, 3, 3]])
def test_the_ctc_loss_is_the_sum_over_perfect_alignments(target):
    log_probs = distributions()
    targets = torch.tensor([[*target, 0, 0, 0][:3]])
    lengths, counts = torch.tensor([T]), torch.tensor([len(target)])
    perfect = collapses_to(EVERY[:, None], lengths, targets, counts)[:, 0]
    assert perfect.tolist() == [collapsed(path) == target for path in EVERY.tolist()]
    probability = alignment_scores(log_probs, EVERY[:, None], lengths, score="probability")[perfect].sum()
    loss = ctc_loss(log_probs, targets, lengths, counts, reduction="sum")
    assert float(probability) == pytest.approx(float((-loss).exp()), rel=1e-9)


def test_all_alignments_sum_to_one():
    scores = alignment_scores(distributions(), EVERY[:, None], [T], score="probability")
    assert float(scores.sum()) == pytest.approx(1)


def test_samples_have_the_networks_frequencies():
    log_probs = distributions(vocabulary=3, batch=2)
    log_probs[2, 0] = torch.tensor([-torch.inf, 0.0, -torch.inf])  # certain
    drawn = sample_alignments(log_probs, [T, T - 2], 20_000, generator=seeded())
    assert drawn.shape == (20_000, 2, T)
    assert (drawn[:, 0, 2] == 1).all()
    assert (drawn[:, 1, T - 2 :] == 0).all()
    for t, b in [(0, 0), (5, 0), (3, 1)]:
        counts = torch.bincount(drawn[:, b, t], minlength=3)
        assert chisquare(counts, 20_000 * log_probs[t, b].exp()).pvalue > 1e-4
    # frames are independent of each other
    joint = torch.bincount(3 * drawn[:, 0, 0] + drawn[:, 0, 1], minlength=9)
    expected = log_probs[0, 0].exp()[:, None] * log_probs[1, 0].exp()
    assert chisquare(joint, 20_000 * expected.flatten()).pvalue > 1e-4


def test_temperature_sharpens():
    log_probs = distributions(dtype=torch.float32)
    cold = sample_alignments(log_probs, [T], 100, temperature=1e-3, generator=seeded())
    assert (cold == log_probs.argmax(-1).T).all()
    flat = sample_alignments(log_probs, [T], 20_000, temperature=1e6, generator=seeded())
    assert chisquare(torch.bincount(flat[:, 0, 0], minlength=V)).pvalue > 1e-4


def test_labels_without_probability_are_never_drawn():
    log_probs = torch.full((50, 4, 5), -torch.inf)
    log_probs[..., 1], log_probs[..., 3] = torch.tensor(1e-6).log(), torch.tensor(1 - 1e-6).log()
    drawn = sample_alignments(log_probs, [50] * 4, 2000, generator=seeded())
    assert set(drawn.unique().tolist()) <= {1, 3}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    log_probs = distributions(dtype=torch.float64).to(dtype)
    drawn = sample_alignments(log_probs, [T], 3, generator=seeded())
    exact = alignment_scores(log_probs.double(), drawn, [T])
    assert torch.allclose(alignment_scores(log_probs, drawn, [T]).double(), exact, rtol=1e-5)


def test_mean_scores_are_over_an_utterances_own_frames():
    log_probs = distributions(batch=2)
    paths = sample_alignments(log_probs, [T, 4], 3, generator=seeded())
    total = alignment_scores(log_probs, paths, [T, 4])
    assert torch.allclose(
        alignment_scores(log_probs, paths, [T, 4], score="mean_log_probability"), total / torch.tensor([T, 4])
    )
    assert torch.allclose(total[:, 1], alignment_scores(log_probs[:4, 1:], paths[:, 1:, :4], [4])[:, 0])


@pytest.mark.parametrize("target", [[1], [2, 2], [1, 2, 1], []])
def test_the_forced_alignment_is_the_most_probable_perfect_one(target):
    log_probs = distributions(batch=2, seed=3)
    targets = torch.tensor([[*target, 0, 0, 0][:3]] * 2)
    lengths, counts = torch.tensor([T, T - 1]), torch.tensor([len(target)] * 2)
    found = viterbi_align(log_probs, targets, lengths, counts)
    assert collapses_to(found, lengths, targets, counts).all()
    assert found[1, -1] == 0
    for item, length in enumerate(lengths.tolist()):
        every = torch.cartesian_prod(*[torch.arange(V)] * length)
        perfect = [path for path in every.tolist() if collapsed(path) == target]
        scores = alignment_scores(log_probs[:length, item : item + 1], torch.tensor(perfect)[:, None], [length])
        assert found[item, :length].tolist() == perfect[int(scores.argmax())]


# ---- properties ----------------------------------------------------------------------------------------------------


def removals(path, length):
    """The results of removing each frame that may be removed, one by one."""
    places = [t for t in range(length) if (path[t] == 0 if t == 0 else path[t] == path[t - 1])]
    return [[*path[:t], *path[t + 1 : length], 0, *path[length:]] for t in places]


@pytest.mark.parametrize("k", [1, 3])
def test_earlier_emission_keeps_the_text_and_delays_no_token(k):
    paths, lengths = runs()
    better = EarlierEmission(k, generator=seeded(1))(paths, lengths)
    before, after = collapse_alignments(paths, lengths), collapse_alignments(better, lengths)
    assert torch.equal(before.labels, after.labels)
    sooner = (before.first - after.first)[before.labels >= 0]
    assert int(sooner.min()) == 0
    assert int(sooner.max()) == k
    beyond = torch.arange(paths.shape[-1]) >= lengths[:, None]
    assert (better == paths)[beyond.expand_as(paths)].all()


def test_earlier_emission_is_one_of_the_possible_removals():
    paths, lengths = runs(paths=400, seed=2)
    better = EarlierEmission(generator=seeded(1))(paths, lengths)
    for path, length, new in zip(paths[0].tolist(), lengths.tolist(), better[0].tolist()):
        assert new in (removals(path, length) or [path])


def test_every_candidate_is_as_probable_as_another_and_the_last_is_chosen_too():
    path = torch.tensor([0, 1, 1, 2, 0, 0, 3, 3, 3])  # candidates: frames 0, 2, 5, 7 and 8; the last two agree
    draws = 20_000
    drawn = EarlierEmission(generator=seeded())(path.expand(1, draws, -1), torch.full((draws,), 9))[0]
    results = removals(path.tolist(), 9)
    counts = [
        int((drawn == torch.tensor(result)).all(1).sum()) for result in [results[0], results[1], results[2], results[3]]
    ]
    assert sum(counts) == draws
    assert chisquare(counts, [draws * share / 5 for share in (1, 1, 1, 2)]).pvalue > 1e-4


@pytest.mark.parametrize(
    ("path", "length", "expected"),
    [
        ([1, 2, 3, 1], 4, [1, 2, 3, 1]),  # none
        ([1, 2, 2, 3], 4, [1, 2, 3, 0]),  # exactly one, where the authors' code fails
        ([0, 0, 0, 0], 4, [0, 0, 0, 0]),  # all blank
        ([1, 0, 1, 1], 4, [1, 0, 1, 0]),  # a doubled letter stays doubled
        ([1, 2, 2, 2], 2, [1, 2, 2, 2]),  # the repeats lie beyond the length
        ([0], 1, [0]),
    ],
)
def test_edge_cases_of_earlier_emission(path, length, expected):
    better = EarlierEmission(generator=seeded())(torch.tensor([[path]]), torch.tensor([length]))
    assert better[0, 0].tolist() == expected


def test_later_emission_is_the_mirror_image():
    paths, lengths = runs()
    later = LaterEmission(generator=seeded(1))(paths, lengths)
    before, after = collapse_alignments(paths, lengths), collapse_alignments(later, lengths)
    assert torch.equal(before.labels, after.labels)
    delayed = (after.last - before.last)[before.labels >= 0]
    assert set(delayed.unique().tolist()) == {0, 1}
    for path, length, new in zip(paths[0, :200].tolist(), lengths.tolist(), later[0].tolist()):
        possible = [[*reversed(r[:length]), *path[length:]] for r in removals([*reversed(path[:length])], length)]
        assert new in (possible or [path])


def test_another_blank_is_shifted_in():
    better = EarlierEmission(blank=2, generator=seeded())(torch.tensor([[[2, 1, 0, 1]]]), torch.tensor([4]))
    assert better[0, 0].tolist() == [1, 0, 1, 2]


SPACE, LETTERS = 1, " -abc"  # label 0 is the blank, 1 the space


def written(labels):
    return "".join({1: " ", 2: "a", 3: "b", 4: "c"}[int(label)] for label in labels if label >= 0)


def texts_and_targets(paths=1500, frames=24, symbols=9, seed=0):
    draws = seeded(seed)
    alignments, lengths = runs(frames, paths, vocabulary=5, seed=seed)
    targets = torch.randint(1, 5, (paths, symbols), generator=draws)
    targets[:, 0] = 2  # no empty reference
    counts = torch.randint(1, symbols + 1, (paths,), generator=draws)
    return alignments, lengths, targets, counts


def word_errors(reference, text):
    result = jiwer.process_words(reference, text)
    return result.substitutions + result.insertions + result.deletions


def test_fewer_word_errors_puts_exactly_one_word_right():
    alignments, lengths, targets, counts = texts_and_targets()
    better = FewerWordErrors(SPACE, generator=seeded(1))(alignments, lengths, targets, counts)
    before, after = (collapse_alignments(each, lengths).labels[0] for each in (alignments, better))
    changed = (better != alignments).any(-1)[0]
    assert 100 < int(changed.sum()) < len(changed)
    for item in range(len(changed)):
        reference = written(targets[item, : counts[item]])
        errors = [word_errors(reference, written(text[item])) for text in (before, after)]
        assert errors[0] - errors[1] == int(changed[item])
    assert torch.equal((before >= 0).sum(1), (after >= 0).sum(1))


def distance(one, two):
    """Edit distance by its recursion."""
    if not one or not two:
        return len(one) + len(two)
    exchanged = distance(one[:-1], two[:-1]) + (one[-1] != two[-1])
    return min(exchanged, distance(one[:-1], two) + 1, distance(one, two[:-1]) + 1)


def repairs(path, reference):
    """All alignments that the rule may return, by brute force over pairs of words on least-cost alignments."""
    spoken = [[*frames] for label, frames in itertools.groupby(range(len(path)), lambda t: path[t]) if label != 0]
    letters = [(path[frames[0]], frames) for frames in spoken]
    words = [[*w] for space, w in itertools.groupby(letters, lambda letter: letter[0] == SPACE) if not space]
    meant = [[*w] for space, w in itertools.groupby(reference, lambda label: label == SPACE) if not space]
    said = [[label for label, _ in word] for word in words]
    results = []
    for (i, word), (j, right) in itertools.product(enumerate(words), enumerate(meant)):
        apart = sum(a != b for a, b in zip(said[i], right))
        rest = distance(said[:i], meant[:j]) + distance(said[i + 1 :], meant[j + 1 :])
        if len(word) == len(right) and 0 < apart <= 2 and rest + 1 == distance(said, meant):
            new = list(path)
            for (_, frames), label in zip(word, right):
                for t in frames:
                    new[t] = label
            if len(collapsed(new)) == len(letters):
                results.append(new)
    return results


def test_a_repair_is_one_of_those_found_by_brute_force():
    alignments, lengths, targets, counts = texts_and_targets(paths=400, frames=14, symbols=6)
    better = FewerWordErrors(SPACE, generator=seeded(1))(alignments, lengths, targets, counts)
    changed = 0
    for item, length in enumerate(lengths.tolist()):
        path = alignments[0, item, :length].tolist()
        possible = repairs(path, targets[item, : counts[item]].tolist())
        assert better[0, item, :length].tolist() in (possible or [path])
        changed += bool(possible)
    assert changed > 40


@pytest.mark.parametrize(
    ("path", "target", "expected"),
    [
        ([2, 2, 0, 3, 1, 4], "ac c", [2, 2, 0, 4, 1, 4]),  # b -> c at its frame
        ([2, 3, 3, 1, 1, 4], "cc c", None),  # c and c would merge
        ([2, 0, 3, 1, 1, 4], "cc c", [4, 0, 4, 1, 1, 4]),  # a blank keeps them apart
        ([2, 3, 4, 0, 0, 0], "cab", None),  # three letters differ
        ([2, 3, 0, 0, 0, 0], "abc", None),  # an insertion is needed
        ([0, 0, 0, 0, 0, 0], "ab", None),  # nothing said
        ([1, 2, 1, 1, 3, 1], "  a  c", [1, 2, 1, 1, 4, 1]),  # spaces before, after and repeated
        ([2, 1, 3, 0, 0, 0], "a b", None),  # nothing wrong
    ],
)
def test_edge_cases_of_fewer_word_errors(path, target, expected):
    labels = torch.tensor([["  abc".index(c, 1) if c == " " else "  abc".index(c) for c in target]])
    rule = FewerWordErrors(SPACE, generator=seeded())
    better = rule(torch.tensor([[path]]), torch.tensor([6]), labels, torch.tensor([labels.shape[1]]))
    assert better[0, 0].tolist() == (expected or path)


def test_composed_properties_act_one_after_the_other():
    alignments, lengths, targets, counts = texts_and_targets(paths=50)
    both = ComposedProperty(FewerWordErrors(SPACE, generator=seeded(1)), EarlierEmission(generator=seeded(2)))
    repaired = FewerWordErrors(SPACE, generator=seeded(1))(alignments, lengths, targets, counts)
    expected = EarlierEmission(generator=seeded(2))(repaired, lengths)
    assert torch.equal(both(alignments, lengths, targets, counts), expected)


# ---- the loss ------------------------------------------------------------------------------------------------------


def batch(dtype=torch.float64, frames=12, items=3):
    log_probs = distributions(frames, items, 5, dtype=dtype)
    targets = torch.tensor([[1, 2, 3], [4, 4, 1], [2, 1, 0]])
    return log_probs, targets, torch.tensor([12, 10, 7]), torch.tensor([3, 3, 2])


@pytest.mark.parametrize("score", ["mean_log_probability", "log_probability", "probability"])
@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_gradients_agree_with_finite_differences(score, margin, monkeypatch):
    raw = torch.randn(12, 3, 5, generator=seeded(), dtype=torch.float64, requires_grad=True)
    _, targets, lengths, counts = batch()
    fixed = sample_alignments(distributions(12, 3, 5, seed=5), lengths, 5, generator=seeded())
    awp = AlignWithPurpose(
        lambda a, frames, *_: EarlierEmission(generator=seeded(3))(a, frames),  # the same choice every time
        5,
        weight=0.7,
        margin=margin,
        score=score,
    )
    monkeypatch.setattr(ctc, "sample_alignments", lambda *_, **__: fixed)

    def loss(raw):
        return awp(log_softmax(raw, -1), targets, lengths, counts)

    assert torch.autograd.gradcheck(loss, raw, eps=1e-6, atol=1e-7)
    assert float(loss(raw).detach()) > 0


def test_the_loss_is_the_mean_hinge_times_the_weight():
    log_probs, targets, lengths, counts = batch()
    awp = AlignWithPurpose(
        EarlierEmission(generator=seeded(2)), 5, weight=0.5, samples=7, margin=0.1, generator=seeded(1)
    )
    generator, choices = seeded(1), seeded(2)
    value = awp(log_probs, targets, lengths, counts)
    EarlierEmission(generator=choices)(*probe())  # trying the property when it was made drew from its generator
    sampled = sample_alignments(log_probs, lengths, 7, generator=generator)
    improved = EarlierEmission(generator=choices)(sampled, lengths)
    total = 0.0
    for i, b in itertools.product(range(7), range(3)):
        one, two = (
            sum(float(log_probs[t, b, path[i, b, t]]) for t in range(int(lengths[b]))) / int(lengths[b])
            for path in (sampled, improved)
        )
        if not torch.equal(sampled[i, b], improved[i, b]):
            total += max(0.0, one - two + 0.1)
    assert float(value) == pytest.approx(0.5 * total / 21)
    changed = (sampled != improved).any(-1)
    assert float(awp.diagnostics["changed"]) == pytest.approx(float(changed.float().mean()))


def probe():
    """The alignments that a property is tried on: only their number of paths matters here."""
    return torch.zeros(8, 16, 24, dtype=torch.long), torch.arange(24, 8, -1)


@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_the_identity_adds_nothing_to_the_ctc_gradient(margin):
    log_probs, targets, lengths, counts = batch()
    raw = log_probs.clone().requires_grad_()
    awp = AlignWithPurpose(lambda a, *_: a.clone(), 5, weight=3.0, margin=margin)
    extra = awp(raw.log_softmax(-1), targets, lengths, counts)
    (gradient,) = torch.autograd.grad(extra, raw)
    assert not extra.detach().any()
    assert not gradient.any()


def test_descent_on_the_loss_alone_makes_early_alignments_more_probable():
    raw = torch.zeros(10, 1, 3, dtype=torch.float64)
    raw[2, 0, 1] = raw[6, 0, 2] = 3.0
    raw[..., 0] += 1.0
    raw.requires_grad_()
    args = torch.tensor([[1, 2]]), torch.tensor([10]), torch.tensor([2])
    awp = AlignWithPurpose(EarlierEmission(generator=seeded(1)), 3, weight=1.0, samples=2000, generator=seeded(2))
    loss = awp(log_softmax(raw, -1), *args)
    (gradient,) = torch.autograd.grad(loss, raw)
    assert gradient[1, 0, 1] < 0 < gradient[2, 0, 1]
    assert gradient[5, 0, 2] < 0 < gradient[6, 0, 2]


def test_a_schedule_decides_when_the_loss_begins():
    log_probs, *rest = batch()
    awp = AlignWithPurpose(EarlierEmission(), 5, weight=AfterStep(3, 0.5), margin=1.0, generator=seeded())
    values = [float(awp(log_probs, *rest, step=step)) for step in range(5)]
    assert values[:3] == [0, 0, 0]
    assert min(values[3:]) > 0


def test_trying_a_property_leaves_torchs_random_numbers_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    AlignWithPurpose(EarlierEmission(), 5, weight=1.0)
    assert torch.equal(torch.rand(3), expected)


# ---- bad input -----------------------------------------------------------------------------------------------------


def in_place(alignments, *_):
    alignments[..., 0] = 1
    return alignments


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda a, *_: a[..., :-1], r"property: it returned \(8, 16, 23\)"),
        (lambda a, *_: a.float(), "property: it returned .*float32"),
        (lambda a, *_: a.tolist(), "property: it returned list"),
        (lambda a, *_: a + 4, "property: it returned a label outside 0 to 4"),
        (lambda a, *_: a.roll(1, -1), "property: it changed a frame beyond"),
        (lambda a, lengths, *_: a.where(a != 1, 2), "property: it changes the collapsed text"),
        (in_place, "property: it changes the alignments it is given"),
        (FewerWordErrors(1), "property: it changes the collapsed text"),
        ("earlier", "property='earlier'"),
    ],
)
def test_a_property_that_does_not_keep_its_promises_is_refused_when_made(rule, message):
    with pytest.raises(ValueError, match=message):
        AlignWithPurpose(rule, 5, weight=1.0)


def test_a_property_may_say_that_it_changes_the_text():
    AlignWithPurpose(FewerWordErrors(1), 5, weight=1.0, preserves_text=False)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"vocabulary": 1}, "vocabulary"),
        ({"weight": -1.0}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"samples": 0}, "samples"),
        ({"samples": 2.5}, "samples"),
        ({"margin": -0.1}, "margin"),
        ({"score": "likelihood"}, "score"),
        ({"temperature": 0.0}, "temperature"),
        ({"blank": 5}, "blank"),
    ],
)
def test_arguments_out_of_range_are_refused(change, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        AlignWithPurpose(EarlierEmission(), **{"vocabulary": 5, "weight": 1.0, **change})


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: EarlierEmission(0), "k"),
        (lambda: LaterEmission(True), "k"),
        (lambda: FewerWordErrors(0), "space"),
        (lambda: FewerWordErrors(1, max_changes=0), "max_changes"),
        (lambda: ComposedProperty(), "properties"),
        (lambda: sample_alignments(distributions(), [T], 0), "n"),
        (lambda: sample_alignments(distributions(), [T], 1, temperature=-1.0), "temperature"),
        (lambda: sample_alignments(distributions(), [T, T], 1), "input_lengths"),
    ],
)
def test_parts_refuse_arguments_out_of_range(make, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        make()


def spoiled(**change):
    log_probs, targets, lengths, counts = batch()
    return {"log_probs": log_probs, "targets": targets, "input_lengths": lengths, "target_lengths": counts, **change}


BAD = [
    (spoiled(log_probs=torch.zeros(12, 3)), "log_probs"),
    (spoiled(log_probs=torch.zeros(12, 3, 5)), r"log_probs: probabilities do not sum to 1 at \(frame, item\) \(0, 0\)"),
    (spoiled(log_probs=batch()[0].index_fill(1, torch.tensor(1), torch.nan)), r"log_probs: .*finite .*\(0, 1\)"),
    (spoiled(targets=torch.tensor([1, 2, 3])), "targets"),
    (spoiled(targets=torch.tensor([[1, 2, 3], [4, 5, 1], [2, 1, 0]])), r"targets: .*\(1, 1\)"),
    (spoiled(targets=torch.tensor([[1, 2, 3], [4, 0, 1], [2, 1, 0]])), r"targets: .*\(1, 1\) is the blank"),
    (spoiled(input_lengths=torch.tensor([13, 10, 7])), "input_lengths: item 0"),
    (spoiled(input_lengths=torch.tensor([12, 0, 7])), "input_lengths: item 1"),
    (spoiled(input_lengths=torch.tensor([12.0, 10.0, 7.0])), "input_lengths"),
    (spoiled(target_lengths=torch.tensor([3, 3, 4])), "target_lengths: item 2"),
    (spoiled(target_lengths=[3, 3]), "target_lengths"),
    (spoiled(input_lengths=torch.tensor([12, 3, 7])), "targets: item 1 has more symbols"),  # 4 4 1 needs four frames
    (spoiled(input_lengths=torch.tensor([2, 10, 7])), "targets: item 0 has more symbols"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_a_batch_that_spoils_the_loss_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        check_ctc(**arguments)
    awp = AlignWithPurpose(EarlierEmission(), 5, weight=AfterStep(1000, 1.0))
    with pytest.raises(ValueError, match=f"^{message}"):  # in the first step, long before the loss begins
        awp(*arguments.values(), step=0)


def test_infeasible_targets_are_found_in_later_batches_too():
    awp = AlignWithPurpose(EarlierEmission(), 5, weight=1.0)
    awp(*batch())
    with pytest.raises(ValueError, match="targets: item 1"):
        awp(*spoiled(input_lengths=torch.tensor([12, 3, 7])).values())


def test_another_vocabulary_and_a_missing_step_are_refused():
    with pytest.raises(ValueError, match=r"^log_probs: 5 labels"):
        AlignWithPurpose(EarlierEmission(), 6, weight=1.0)(*batch())
    with pytest.raises(ValueError, match=r"^step"):
        AlignWithPurpose(EarlierEmission(), 5, weight=AfterStep(3))(*batch())


def test_a_network_that_emits_only_blanks_is_refused_when_the_loss_begins():
    log_probs, *rest = batch()
    dead = log_softmax(log_probs + 100 * (torch.arange(5) == 0), -1)
    check_emissions(log_probs, rest[1])
    with pytest.raises(ValueError, match=r"^log_probs: the most probable label is the blank \(0\) in every frame"):
        check_emissions(dead, rest[1])
    awp = AlignWithPurpose(EarlierEmission(), 5, weight=AfterStep(1, 1.0))
    assert float(awp(dead, *rest, step=0)) == 0
    with pytest.raises(ValueError, match=r"^log_probs: the most probable"):
        awp(dead, *rest, step=1)


# ---- in loops that are not ours ------------------------------------------------------------------------------------


def test_documented_examples_run():
    assert doctest.testmod(ctc).attempted > 5
    assert doctest.testmod(ctc).failed == 0


class Handwriting(nn.Module):
    """Somebody's network: a recurrent one, pen movements to letters."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(3, 16, batch_first=True)
        self.head = nn.Linear(16, 6)

    def forward(self, strokes):
        return self.head(self.rnn(strokes)[0]).transpose(0, 1).log_softmax(-1)


def strokes(seed=0):
    draws = seeded(seed)
    return (
        torch.randn(4, 15, 3, generator=draws),
        torch.randint(1, 6, (4, 3), generator=draws),
        [15, 15, 12, 9],
        [3, 2, 3, 1],
    )


def sharpened(model):
    """An untrained network prefers one label everywhere; let it emit something."""
    with torch.no_grad():
        model.head.weight.mul_(10)
        model.head.bias.zero_()
    return model


def no_faster_than(alignments, lengths, targets, target_lengths):
    """A property of a user's own: lengthen the first token by a frame, if a blank follows it."""
    better = alignments.clone()
    later = alignments[..., 1:]
    first = collapse_alignments(alignments, lengths).last[..., :1].clamp(min=0, max=alignments.shape[-1] - 3)
    follows, beyond = (later.gather(-1, first + step) for step in (0, 1))
    label = alignments.gather(-1, first)
    safe = (follows == 0) & (beyond != label) & (first + 1 < lengths[:, None] - 1)
    return better.scatter(-1, first + 1, torch.where(safe & (label != 0), label, follows))


@pytest.mark.parametrize("rule", [EarlierEmission(), no_faster_than])
def test_in_a_plain_loop(rule):
    torch.manual_seed(0)
    model = sharpened(Handwriting())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y, frames, counts = strokes()
    awp = AlignWithPurpose(rule, 6, weight=AfterStep(2, 1.0), margin=0.5)
    for step in range(4):
        log_probs = model(x)
        loss = ctc_loss(log_probs, y, frames, counts)
        extra = awp(log_probs, y, frames, counts, step=step)
        assert bool(extra > 0) == (step >= 2)
        optimizer.zero_grad()
        (loss + extra).backward()
        optimizer.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_in_lightning_fabric(precision):
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    fabric.seed_everything(0)
    model = sharpened(Handwriting())
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    x, y, frames, counts = strokes()
    awp = fabric.to_device(AlignWithPurpose(EarlierEmission(), 6, weight=1.0, margin=0.5))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(2):
        log_probs = model(x).float()
        loss = ctc_loss(log_probs, y, frames, counts) + awp(log_probs, y, frames, counts)
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_under_distributed_data_parallel(tmp_path):
    run_distributed(
        """
        from safetensors.torch import save_file
        from torch.nn.functional import ctc_loss
        from etude.training import AlignWithPurpose, EarlierEmission

        torch.manual_seed(0)
        model = DistributedDataParallel(nn.Linear(3, 6))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        draws = torch.Generator().manual_seed(rank)  # another half of the batch and other samples in each process
        awp = AlignWithPurpose(EarlierEmission(generator=draws), 6, weight=1.0, margin=0.5, generator=draws)
        for _ in range(3):
            x, y = torch.randn(15, 4, 3, generator=draws), torch.randint(1, 6, (4, 3), generator=draws)
            log_probs = (3 * model(x)).log_softmax(-1)
            loss = ctc_loss(log_probs, y, [15] * 4, [3] * 4) + awp(log_probs, y, [15] * 4, [3] * 4)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert awp.diagnostics["changed"] > 0
        save_file(dict(model.module.state_dict()), f"weights-{rank}.safetensors")
        """,
        tmp_path,
    )
    from safetensors.torch import load_file

    one, two = (load_file(tmp_path / f"weights-{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
