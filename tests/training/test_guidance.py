"""Guidance against its equation, in loops that are not ours, with every kind of guide; and what is refused."""

import copy

import pytest
import torch
from torch import nn

from etude.interpretability import linear_cka, rsa
from etude.nn import activations
from etude.training import AfterStep, FirstSteps, Guidance, GuideGrams, pair_evenly
from tests.distributed import run_distributed


class UsersModel(nn.Module):
    """A fully connected network as a user might have it: normalisation, dropout, a forward pass of her own."""

    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleList(nn.Linear(a, 12) for a in (16, 12, 12))
        self.norms = nn.ModuleList(nn.BatchNorm1d(12) for _ in range(3))
        self.dropout = nn.Dropout(0.2)
        self.classify = nn.Linear(12, 3)

    def forward(self, x):
        x = x.flatten(1)
        for linear, norm in zip(self.inner, self.norms):
            x = self.dropout(norm(linear(x)).relu())
        return self.classify(x)


def small_guide():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 2), nn.Flatten(), nn.Linear(4, 3)
    )


PAIRS = [("inner.0", "0"), ("inner.2", "3")]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return UsersModel()


@pytest.fixture
def guide():
    torch.manual_seed(1)
    return small_guide()


def batches(count, size=20):
    generator = torch.Generator().manual_seed(2)
    for _ in range(count):
        yield (
            torch.randn(size, 1, 4, 4, generator=generator),
            torch.randint(3, (size,), generator=generator),
        )


def expected(model, guide, x, pairs=PAIRS, measure=linear_cka):
    """The equation, with taps of its own; the guide in evaluation mode."""
    ours, theirs = activations(model, x), activations(copy.deepcopy(guide).eval(), x)
    return sum(1 - measure(ours[a], theirs[b]) for a, b in pairs)


# ---- the equation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"debiased": True}, {"similarity": rsa}])
def test_the_penalty_is_the_sum_of_dissimilarities(model, guide, options):
    (x, _), = batches(1)  # fmt: skip
    model.eval()  # no dropout: the same activations twice

    def measure(a, b):
        return options["similarity"](a, b) if "similarity" in options else linear_cka(a, b, **options)

    guidance = Guidance(model, guide, PAIRS, weight=0.7, **options)
    model(x)
    penalty = guidance(x)
    by_hand = 0.7 * expected(model, guide, x, measure=measure)
    assert penalty.detach() == pytest.approx(float(by_hand.detach()), abs=1e-6)
    assert guidance.similarities.keys() == set(PAIRS)
    gradient = torch.autograd.grad(penalty, model.inner[0].weight)[0]
    assert torch.allclose(gradient, torch.autograd.grad(by_hand, model.inner[0].weight)[0], atol=1e-6)


def test_the_loss_with_guidance_has_the_gradient_of_finite_differences(guide):
    torch.manual_seed(3)
    model, guide = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double(), nn.Linear(4, 5).double()
    x = torch.randn(8, 4, dtype=torch.float64)
    guidance = Guidance(model, guide, [("0", "")])

    def loss(weight):
        torch.func.functional_call(model, {"0.weight": weight}, x)
        return guidance(x)

    weight = model[0].weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, weight, eps=1e-6, atol=1e-6)


def test_every_layer_but_the_last_is_paired_by_default_and_many_may_go_to_one(model, guide):
    guidance = Guidance(model, guide)
    for x, _ in batches(1):
        model(x)
        guidance(x)
    assert guidance.pairs == (("inner.0", "0"), ("inner.2", "3"))
    back = Guidance(small_guide(), UsersModel())  # two layers guided by three
    for x, _ in batches(1):
        back._tap.model(x)
        back(x)
    assert back.pairs == (("0", "inner.0"), ("0", "inner.1"), ("3", "inner.2"))
    assert len(back.similarities) == 3


@pytest.mark.parametrize("n", [1, 2, 3, 9, 50])
@pytest.mark.parametrize("m", [1, 2, 4, 9])
def test_even_pairs_cover_both_ends_in_order(n, m):
    pairs = pair_evenly([f"t{i}" for i in range(n)], [f"g{i}" for i in range(m)])
    assert [guide for _, guide in pairs] == [f"g{i}" for i in range(m)]
    places = [int(name[1:]) for name, _ in pairs]
    assert places == sorted(places)
    assert places[0] == 0
    assert m == 1 or places[-1] == n - 1


# ---- the guide -----------------------------------------------------------------------------------------------------


def test_the_guide_stays_as_it_was_and_the_targets_pass_is_the_only_one(model, guide):
    guide[0].eval()  # modes are put back one by one
    before, modes = copy.deepcopy(guide.state_dict()), [module.training for module in guide.modules()]
    guidance = Guidance(model, guide, PAIRS)
    for x, y in batches(3):
        loss = nn.functional.cross_entropy(model(x), y) + guidance(x)
        loss.backward()
    assert all(torch.equal(value, before[name]) for name, value in guide.state_dict().items())
    assert all(p.grad is None for p in guide.parameters())
    assert [module.training for module in guide.modules()] == modes
    assert int(model.norms[0].num_batches_tracked) == 3


def test_stored_gram_matrices_are_the_guide_itself(model, guide):
    model.eval()
    images = torch.cat([x for x, _ in batches(3)])
    index = torch.tensor([3, 41, 7, 8, 59, 20])
    live = Guidance(model, guide, PAIRS)
    for dtype, error in ((torch.float32, 1e-5), (torch.float16, 1e-3)):
        stored = Guidance(model, GuideGrams.of(guide, images, chunk=7, dtype=dtype), PAIRS)
        model(images[index])
        value = stored(index)
        model(images[index])
        assert value.detach() == pytest.approx(float(live(images[index]).detach()), abs=error)
        stored.remove()


def test_controls_are_guides_too(model, guide):
    (x, _), = batches(1)  # fmt: skip
    model.eval()
    raw = Guidance(model, nn.Identity(), [("inner.0", ""), ("inner.2", "")])
    model(x)
    hidden = activations(model, x, detach=True)
    assert raw(x).detach() == pytest.approx(
        float(sum(1 - linear_cka(hidden[f"inner.{i}"], x) for i in (0, 2))), abs=1e-6
    )
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    permuted = Guidance(model, guide, PAIRS)
    model(x)
    theirs = activations(copy.deepcopy(guide).eval(), x)
    by_hand = sum(1 - linear_cka(hidden[a], theirs[b][order]) for a, b in PAIRS)
    assert permuted(x[order]).detach() == pytest.approx(float(by_hand.detach()), abs=1e-6)


@pytest.mark.parametrize("schedule", [FirstSteps(2), AfterStep(2), lambda step: 0.5 * step])
def test_the_weight_follows_the_step_and_unguided_steps_run_no_guide(model, guide, schedule):
    calls = []
    guide.register_forward_hook(lambda *_: calls.append(1))
    guidance = Guidance(model, guide, PAIRS, weight=schedule)
    for step, (x, _) in enumerate(batches(4)):
        model(x)
        penalty = guidance(x).detach()
        assert (float(penalty) == 0) == (schedule(step) == 0)
        assert not guidance._tap._outputs  # no activations outlive the step
        if schedule(step):
            total = schedule(step) * sum(1 - value for value in guidance.similarities.values())
            assert penalty == pytest.approx(float(total), rel=1e-6)
    assert guidance.step == 4
    assert len(calls) == sum(schedule(step) > 0 for step in range(4))


# ---- loops that are not ours ---------------------------------------------------------------------------------------


def test_three_lines_in_a_plain_loop(model, guide):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    guidance = Guidance(model, guide, weight=FirstSteps(20))  # one
    seen = []
    (x, y), = batches(1)  # fmt: skip
    for _ in range(25):
        loss = nn.functional.cross_entropy(model(x), y)
        loss = loss + guidance(x)  # two
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(float(sum(guidance.similarities.values())))
    guidance.remove()  # three
    assert seen[19] > seen[0]  # it descends on what it says it does, on one batch
    assert not model._forward_hooks
    assert not model.inner[0]._forward_hooks


def test_three_lines_under_fabric(model, guide):
    fabric = pytest.importorskip("lightning_fabric").Fabric(accelerator="cpu", devices=1)
    reference = copy.deepcopy(model)
    gradients = []
    for wrapped in (False, True):
        torch.manual_seed(5)  # for dropout
        if wrapped:
            target, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
        else:
            target, optimizer = reference, torch.optim.SGD(reference.parameters(), lr=0.1)
        guidance = Guidance(target, guide, PAIRS)  # one
        for x, y in batches(2):
            loss = nn.functional.cross_entropy(target(x), y)
            loss = loss + guidance(x)  # two
            optimizer.zero_grad()
            fabric.backward(loss) if wrapped else loss.backward()
            optimizer.step()
        guidance.remove()  # three
        gradients.append([p.detach().clone() for p in (model if wrapped else reference).parameters()])
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*gradients))


def test_three_lines_under_distributed_data_parallel(tmp_path):
    body = """
    from etude.training import Guidance

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    guide = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 2))
    x, y = torch.randn(2, 10, 6), torch.randint(3, (2, 10))
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)

    guidance = Guidance(wrapped, guide)
    for _ in range(3):
        loss = nn.functional.cross_entropy(wrapped(x[rank]), y[rank])
        loss = loss + guidance(x[rank])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    guidance.remove()
    torch.save(model.state_dict(), f"rank{rank}.pt")
    """
    run_distributed(body, tmp_path)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    guide = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 2))
    x, y = torch.randn(2, 10, 6), torch.randint(3, (2, 10))
    guidance = Guidance(model, guide)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):  # each process compares the samples of its own batch; gradients are averaged
        loss = sum(nn.functional.cross_entropy(model(x[r]), y[r]) + guidance(x[r]) for r in range(2)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.allclose(value, ranks[0][name], atol=1e-6), name
        assert torch.equal(ranks[0][name], ranks[1][name]), name


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m, g: Guidance(m, g, [("inner.O", "0")]), ValueError, "pairs, target: .*'inner.O'. Did you mean 'inn"),
        (lambda m, g: Guidance(m, g, [("inner.0", "conv")]), ValueError, "pairs, guide: the model has no layer 'conv'"),
        (lambda m, g: Guidance(m, g, []), ValueError, "pairs: the list is empty"),
        (lambda m, g: Guidance(m, g, ["inner.0"]), TypeError, "pairs: 'inner.0' was given"),
        (lambda m, g: Guidance(m, g, [("inner.0", "0")] * 2), ValueError, "pairs: a pair is there twice"),
        (lambda m, g: Guidance(m, g, "last"), ValueError, "pairs='last'"),
        (lambda m, g: Guidance(m, g, weight=-1.0), ValueError, "weight: -1.0"),
        (lambda m, g: Guidance(m, "resnet18"), TypeError, "guide: a str"),
        (lambda m, g: Guidance(m, g, debiased=True, similarity=rsa), ValueError, "similarity: debiased"),
        (lambda m, g: Guidance(m, nn.Identity()), ValueError, "pairs, guide: Identity has no layers with weights"),
        (lambda m, g: Guidance(m, GuideGrams({"0": torch.eye(5)}), [("inner.0", "1")]), ValueError, "layer '1'"),
        (lambda m, g: GuideGrams({}), ValueError, "grams: give at least one"),
        (lambda m, g: GuideGrams({"0": torch.ones(5, 4)}), ValueError, "grams: '0' is"),
        (lambda m, g: GuideGrams({"0": torch.eye(5) / 0}), ValueError, "grams: '0' is not finite"),
        (lambda m, g: GuideGrams.of(g, torch.ones(1, 1, 4, 4)), ValueError, "inputs: 1 were given"),
        (lambda m, g: GuideGrams.of(g, torch.ones(6, 1, 4, 4)), ValueError, "guide: .* the same for all inputs"),
        (lambda m, g: GuideGrams.of(g, torch.rand(6, 1, 4, 4), ["O"]), ValueError, "no layer 'O'"),
        (lambda m, g: pair_evenly([], ["0"]), ValueError, "target: no layers"),
    ],
)
def test_bad_arguments_are_refused_before_training(model, guide, make, error, message):
    with pytest.raises(error, match=message):
        make(model, guide)
    assert not any(module._forward_hooks for network in (model, guide) for module in network.modules())


@pytest.mark.parametrize(
    ("options", "ours", "theirs", "message"),
    [
        ({}, 8, 6, "inputs: the target's 'inner.0' has 8 samples, the guide's '0' 6"),
        ({"debiased": True}, 3, 3, "inputs: a batch of 3 .* at least 4"),
    ],
)
def test_batches_that_cannot_be_compared_are_refused(model, guide, options, ours, theirs, message):
    guidance = Guidance(model, guide, PAIRS, **options)
    model(torch.randn(ours, 1, 4, 4))
    with pytest.raises(ValueError, match=message):
        guidance(torch.randn(theirs, 1, 4, 4))


def test_a_batch_of_one_is_refused(guide):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Linear(4, 2))
    guidance = Guidance(model, guide, [("1", "0")])
    model(torch.randn(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"inputs: a batch of 1 .* at least 2"):
        guidance(torch.randn(1, 1, 4, 4))


def test_dead_and_broken_activations_are_named_at_the_first_call(model, guide):
    x = torch.randn(8, 1, 4, 4)
    guidance = Guidance(model, guide, PAIRS)
    model(x)
    with pytest.raises(ValueError, match="guide: the activations of '0' are the same for all samples"):
        guidance(torch.ones_like(x))
    with torch.no_grad():
        model.inner[2].weight.fill_(torch.nan)
    model(x)
    with pytest.raises(ValueError, match=r"target: the activations of 'inner\.2' are not finite"):
        guidance(x)


def test_calling_without_a_pass_of_the_target_is_an_error(model, guide):
    guidance = Guidance(model, guide, PAIRS)
    with pytest.raises(RuntimeError, match="model has not run"):
        guidance(torch.randn(8, 1, 4, 4))
    with torch.no_grad():
        model(torch.randn(8, 1, 4, 4))
    with pytest.raises(RuntimeError, match="with gradients recorded"):
        guidance(torch.randn(8, 1, 4, 4))
