"""Trained judges: equal to a dense network one by one, symmetric, independent, and usable in anybody's loop."""

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch.nn.functional import cross_entropy

from etude.data import ResponseWorld
from etude.language import AspectJudges, Assignment, Comparison, Review, WideDeep, fit_judges, hashed, preference_loss
from etude.language.aspect_judges import _code
from tests.distributed import run_distributed

QUESTIONS = ["which one ?", "what colour is it ?", "why ?"]
TEXTS = ["It is red .", "blue", "because it is so , and so it is"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def judges(n=3, **given):
    made = AspectJudges(
        [f"aspect {i}" for i in range(n)], buckets=64, width=4, hidden=5, generator=generator(), **given
    )
    with torch.no_grad():
        made.bias.normal_(generator=generator(1))
        made.position.normal_(generator=generator(2))
    return made


def test_features_are_those_counted_one_by_one():
    found = hashed(64, QUESTIONS, TEXTS)
    for row, question, text in zip(found, QUESTIONS, TEXTS):
        words = text.lower().split()
        codes = [_code(word) * 3 for word in question.split()] + [_code(word) * 5 for word in words]
        for i, one in enumerate(words):
            codes += [_code(one) * 1_000_003 + _code(other) * 7_919 for other in words[i + 1 : i + 5]]
        expected = sorted(code % 2**64 % 63 + 1 for code in codes)
        assert sorted(row[row > 0].tolist()) == expected
        assert (row[len(expected) :] == 0).all()
    assert found.shape[1] == int((found > 0).sum(1).max())


def test_scores_are_those_of_a_dense_network_for_each_judge():
    model, rows = judges(), hashed(64, QUESTIONS, TEXTS)
    counts = torch.zeros(3, 64).scatter_add_(1, rows, (rows > 0).float())
    for j in range(3):
        hidden = (counts @ model.table[:, j] @ model.into[j] + model.bias[j]).tanh()
        assert torch.allclose(model.scores(rows)[:, j], (hidden @ model.out[j])[:, 0], atol=1e-6)


def test_filling_up_changes_nothing_and_each_may_have_features_of_its_own():
    model, rows = judges(), hashed(64, QUESTIONS, TEXTS)
    wider = torch.nn.functional.pad(rows, (0, 7))
    assert torch.equal(model.scores(rows), model.scores(wider))
    own = torch.stack([rows, rows.flip(0), rows.roll(1, 0)])
    scores = model.scores(own)
    for j in range(3):
        assert torch.allclose(scores[:, j], model.scores(own[j])[:, j], atol=1e-6)


def test_exchange_negates_all_but_the_liking_for_a_position():
    model, rows = judges(), hashed(64, QUESTIONS, TEXTS)
    there, back = model(rows, rows.flip(0)), model(rows.flip(0), rows)
    assert torch.allclose(there - model.position, -(back - model.position), atol=1e-6)


def test_loss_is_the_cross_entropy_with_ties_halved():
    margins = torch.randn(6, 2, generator=generator())
    better = torch.tensor([[1, 2], [2, 0], [0, 1], [1, 1], [2, 2], [0, 0]])
    logits = torch.stack([margins, torch.zeros_like(margins)], -1)
    target = torch.stack([better == 1, better == 2], -1).float() + (better == 0).float()[..., None] / 2
    expected = cross_entropy(logits.flatten(0, 1), target.flatten(0, 1), reduction="none").view(6, 2).mean(0)
    assert torch.allclose(preference_loss(margins, better), expected, atol=1e-6)


def test_gradients_are_those_of_finite_differences():
    model, rows = judges().double(), hashed(64, QUESTIONS, TEXTS)
    better = torch.tensor([[1, 2, 0], [2, 0, 1], [0, 1, 2]])

    def loss(*parameters):
        named = dict(zip(dict(model.named_parameters()), parameters))
        margins = torch.func.functional_call(model, named, (rows, rows.roll(1, 0)))
        return preference_loss(margins, better).sum()

    assert torch.autograd.gradcheck(loss, tuple(model.parameters()), atol=1e-6)


def drawn(n, seed=0):
    made = ResponseWorld().sample(n, np.random.default_rng(seed))
    questions = [comparison.question for comparison in made.comparisons]
    sides = [hashed(64, questions, [getattr(c, side) for c in made.comparisons]) for side in ("a", "b")]
    return made, (*sides, torch.from_numpy(made.aspects[:, :3]))


def test_judges_trained_side_by_side_are_those_trained_alone():
    train, held_out = drawn(40)[1], drawn(20, 1)[1]
    together = judges()
    losses = fit_judges(together, train, held_out, epochs=3, batch=8, lr=1e-2, generator=generator())
    for j in range(3):
        alone = judges()
        for name, value in alone.named_parameters():
            axis = 1 if name == "table" else 0
            value.data = value.data.narrow(axis, j, 1).clone()
        alone.aspects = (f"aspect {j}",)
        parts = [(first, second, better[:, j : j + 1]) for first, second, better in (train, held_out)]
        lost = fit_judges(alone, *parts, epochs=3, batch=8, lr=1e-2, generator=generator())
        assert torch.allclose(losses[:, j], lost[:, 0], atol=1e-5)
        assert torch.allclose(together.table[:, j], alone.table[:, 0], atol=1e-5)


def test_each_judge_is_left_with_the_weights_of_its_least_validation_loss():
    train, held_out = drawn(40)[1], drawn(20, 1)[1]
    model = judges()
    losses = fit_judges(model, train, held_out, epochs=12, batch=8, lr=5e-2, generator=generator())
    with torch.no_grad():
        left = preference_loss(model(*held_out[:2]), held_out[2])
    assert torch.allclose(left, losses.min(0).values, atol=1e-5)
    assert losses.shape == (12, 3)


# ---- as judges of a jury ---------------------------------------------------------------------------------------------


def test_reviews_are_the_margins():
    made, (first, second, _) = drawn(10)
    model = judges()
    shares = torch.sigmoid(model(first, second).double())
    there = model.reviews([Assignment(c, "aspect 1", 0) for c in made.comparisons])
    for share, review in zip(shares[:, 1].tolist(), there):
        assert review.score_a == pytest.approx(1 + 9 * share, abs=1e-5)
        assert review.score_a + review.score_b == pytest.approx(11)


def test_a_conforming_judge_moves_towards_the_others():
    comparison = Comparison("which ?", "this one", "that one")
    others = (Review(10, 1, "", 0, "aspect 1"), Review(7, 4, "", 1, "aspect 2"))
    heard = (1 + (9 + 3) / 2 / 9) / 2
    for order in (0, 1):
        plain, swayed, gone = (
            judges(conformity=c).reviews([Assignment(comparison, "aspect 0", order, 2, (), (), others)])[0]
            for c in (0.0, 0.3, 1.0)
        )
        assert gone.score_a == pytest.approx(1 + 9 * heard)
        assert swayed.score_a == pytest.approx(0.7 * plain.score_a + 0.3 * gone.score_a)


@pytest.mark.parametrize("connect", ["full", "window"])
def test_in_double_precision_exchange_negates_the_margin_of_a_jury(connect):
    model = judges(conformity=0.4).double()
    jury = WideDeep(model, 3, model.aspects, connect=connect)
    made = drawn(30)[0].comparisons
    there, back = jury.judge_many(made), jury.judge_many([comparison.exchanged() for comparison in made])
    assert max(abs(one.margin + other.margin) for one, other in zip(there, back)) < 1e-12
    assert any(verdict.p_position_flip > 0 for verdict in there)


# ---- loops of others -------------------------------------------------------------------------------------------------


def test_the_documented_loop_learns():
    made, (first, second, better) = drawn(60)
    model = AspectJudges(["x", "y", "z"], buckets=64, generator=generator())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = preference_loss(model(first, second), better).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert WideDeep(model, 1, ["x", "z"]).judge(made.comparisons[0]).calls == 4


def test_under_lightning_fabric():
    _, (first, second, better) = drawn(20)
    fabric = Fabric(accelerator="cpu", devices=1)
    model = judges()
    wrapped, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    fabric.backward(preference_loss(wrapped(first, second), better).sum())
    plain = judges()
    preference_loss(plain(first, second), better).sum().backward()
    assert torch.allclose(model.table.grad, plain.table.grad)
    optimizer.step()


def test_gradients_of_two_processes_are_those_of_one(tmp_path):
    run_distributed(
        f"""
        import numpy as np
        from etude.data import ResponseWorld
        from etude.language import AspectJudges, hashed, preference_loss

        made = ResponseWorld().sample(20, np.random.default_rng(0))
        questions = [c.question for c in made.comparisons]
        first, second = (hashed(64, questions, [getattr(c, side) for c in made.comparisons]) for side in ("a", "b"))
        model = AspectJudges(["x", "y", "z"], buckets=64, width=4, hidden=5, generator=torch.Generator().manual_seed(0))
        mine = slice(10 * rank, 10 * rank + 10)
        better = torch.from_numpy(made.aspects[:, :3])
        wrapped = DistributedDataParallel(model)
        preference_loss(wrapped(first[mine], second[mine]), better[mine]).sum().backward()
        if rank == 0:
            torch.save(model.table.grad, r"{tmp_path}/grad.pt")
        """,
        tmp_path,
    )
    _, (first, second, better) = drawn(20)
    model = AspectJudges(["x", "y", "z"], buckets=64, width=4, hidden=5, generator=generator())
    preference_loss(model(first, second), better).sum().backward()
    assert torch.allclose(torch.load(tmp_path / "grad.pt", weights_only=True), model.table.grad, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AspectJudges([]), "aspects"),
        (lambda: AspectJudges("xy"), "aspects"),
        (lambda: AspectJudges(["x", "x"]), "aspects"),
        (lambda: AspectJudges(["x"], buckets=1), "buckets"),
        (lambda: AspectJudges(["x"], conformity=2), "conformity"),
        (lambda: AspectJudges(["x"], scale=(3, 3)), "scale"),
        (lambda: judges().reviews([Assignment(Comparison("?", "a", "b"), "style", 0)]), "role: 'style'"),
        (lambda: hashed(64, ["?"], []), "questions, responses: 1 and 0"),
        (lambda: hashed(1, ["?"], ["x"]), "buckets: 1"),
        (lambda: fit_judges(judges(2), *[drawn(4)[1]] * 2, epochs=1, batch=2, lr=0.1, generator=None), "train: 3"),
        (lambda: fit_judges(judges(), *[drawn(4)[1]] * 2, epochs=0, batch=2, lr=0.1, generator=None), "epochs"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_name(make, words):
    with pytest.raises(ValueError, match=words):
        make()
