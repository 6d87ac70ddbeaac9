"""The pointer network: its probabilities, what it cannot see, and that it learns to copy."""

import pytest
import torch

from distributed import run_distributed
from etude.nn import PointerGenerator, pointer_loss


@pytest.fixture
def model():
    return PointerGenerator(9, 4, 6, 5, width=16, layers=2, heads=2, generator=torch.Generator().manual_seed(0))


SOURCE = torch.tensor([[3, 4, 5, 0, 0, 0], [6, 7, 8, 2, 1, 3]])
TARGET = torch.tensor([[1, 4, 2, 0, 0], [5, 9, 3, 1, 0]])


def test_words_and_copies_share_one_distribution(model):
    scores = model(SOURCE, TARGET)
    assert scores.shape == (2, 5, 4 + 6)
    assert torch.allclose(scores.exp().sum(-1), torch.ones(2, 5), atol=1e-5)
    assert (scores[0, :, 4 + 3 :] == -torch.inf).all()  # padding is never copied
    assert scores[1].isfinite().all()


def test_a_target_sees_only_what_is_before_it(model):
    before = model(SOURCE, TARGET)
    changed = TARGET.clone()
    changed[:, 2] = 3
    after = model(SOURCE, changed)
    assert torch.allclose(before[:, :3], after[:, :3], atol=1e-6)
    assert not torch.allclose(before[:, 3], after[:, 3], atol=1e-6)


def test_the_loss_counts_up_to_the_first_end(model):
    scores = model(SOURCE, TARGET)
    parts = [scores[0, place, TARGET[0, place]] for place in range(4)]
    parts += [scores[1, place, TARGET[1, place]] for place in range(5)]
    assert torch.allclose(pointer_loss(model(SOURCE, TARGET), TARGET), -torch.stack(parts).mean(), atol=1e-6)


def test_greedy_writing_takes_the_most_probable_word_each_time(model):
    written = model.write(SOURCE)
    scores = model(SOURCE, written)
    for row, choices in zip(scores, written.tolist()):
        ended = False
        for place, choice in enumerate(choices):
            assert choice == (0 if ended else int(row[place].argmax()))
            ended |= choice == 0


def test_it_learns_to_copy_words_it_has_never_seen():
    """Reversal: trained on words 1 to 5, it reverses 6 to 8, as it need not know what it copies."""
    generator = torch.Generator().manual_seed(0)
    model = PointerGenerator(9, 2, 3, 4, width=32, layers=2, heads=2, generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    target = torch.tensor([[2 + 2, 2 + 1, 2 + 0, 0]])
    for _ in range(60):
        source = torch.randint(1, 6, (32, 3), generator=generator)
        loss = pointer_loss(model(source, target.expand(32, -1)), target.expand(32, -1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model.write(torch.tensor([[6, 7, 8], [8, 8, 6]])).tolist() == target.expand(2, -1).tolist()


def test_bad_input_is_refused_by_name(model):
    with pytest.raises(ValueError, match="target_words=0"):
        PointerGenerator(9, 0, 6, 5)
    with pytest.raises(ValueError, match="temperature=-1"):
        model.write(SOURCE, temperature=-1)


def test_draws_follow_the_generator(model):
    one, same, other = (
        model.write(SOURCE.repeat(20, 1), temperature=1.0, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_it_trains_under_fabric():
    fabric_package = pytest.importorskip("lightning_fabric")
    fabric = fabric_package.Fabric(accelerator="cpu", devices=1)
    model = PointerGenerator(9, 4, 6, 5, width=16, layers=1, heads=2, generator=torch.Generator().manual_seed(0))
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    losses = []
    for _ in range(5):
        loss = pointer_loss(model(SOURCE, TARGET), TARGET)
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_two_processes_make_the_step_of_one(tmp_path):
    run_distributed(
        f"""
        from etude.nn import PointerGenerator, pointer_loss
        source = torch.tensor({SOURCE.tolist()})
        target = torch.tensor([[1, 4, 2, 3, 0], [5, 9, 3, 1, 0]])
        model = PointerGenerator(9, 4, 6, 5, width=16, layers=1, heads=2, generator=torch.Generator().manual_seed(0))
        wrapped = DistributedDataParallel(model)
        pointer_loss(wrapped(source[rank : rank + 1], target[rank : rank + 1]), target[rank : rank + 1]).backward()
        alone = PointerGenerator(9, 4, 6, 5, width=16, layers=1, heads=2, generator=torch.Generator().manual_seed(0))
        pointer_loss(alone(source, target), target).backward()
        for one, other in zip(model.parameters(), alone.parameters()):
            assert torch.allclose(one.grad, other.grad, atol=1e-6)
        """,
        tmp_path,
    )
