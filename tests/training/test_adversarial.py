"""Projected gradient ascent against closed forms and a peer; its ball, bounds and modes; three lines in any loop."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, softplus

from etude.training import ProjectedGradient
from tests.distributed import run_distributed


class UsersModel(nn.Module):
    """Batch normalisation, dropout and a forward pass of her own."""

    def __init__(self):
        super().__init__()
        self.inner, self.norm, self.drop = nn.Linear(12, 16), nn.BatchNorm1d(16), nn.Dropout(0.5)
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        return self.out(self.drop(self.norm(self.inner(x.flatten(1))).relu()))


def batch(n=10, shape=(3, 2, 2), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, *shape, generator=generator), torch.randint(3, (n,), generator=generator)


# ---- closed forms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("random_start", [False, True])
def test_the_worst_case_of_a_linear_model_is_found(norm, random_start):
    """For loss softplus(-y w.x) it is x - y r w / |w|_2, or x - y r sign(w)."""
    generator = torch.Generator().manual_seed(1)
    w, x = torch.randn(6, generator=generator).double(), torch.randn(8, 6, generator=generator).double()
    y = torch.tensor([1.0, -1.0] * 4).double()
    attack = ProjectedGradient(norm, radius=0.7, steps=60, step_size=0.1, random_start=random_start, bounds=None)
    found = attack(lambda x: x @ w, x, y, loss=lambda score, y: softplus(-y * score))
    direction = w / w.norm() if norm == "l2" else w.sign()
    assert torch.allclose(found, x - 0.7 * y[:, None] * direction, atol=1e-8 if norm == "linf" else 1e-3)


def test_one_step_is_the_step_of_steepest_ascent():
    model, (x, y) = UsersModel().eval(), batch()
    start = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(start), y, reduction="sum"), start)
    for norm, step in {
        "linf": gradient.sign(),
        "l2": gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None],
    }.items():
        attack = ProjectedGradient(norm, radius=1, steps=1, step_size=0.1, random_start=False, bounds=None)
        assert torch.allclose(attack(model, x, y), x + 0.1 * step, atol=1e-6)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
def test_results_lie_in_the_ball_and_the_bounds_and_raise_the_loss(norm, bounds):
    torch.manual_seed(0)
    model, (x, y) = UsersModel().eval(), batch(50)
    attack = ProjectedGradient(norm, radius=0.3, steps=5, step_size=0.2, bounds=bounds)
    found = attack(model, x, y)
    size = (found - x).flatten(1).norm(p=2 if norm == "l2" else math.inf, dim=1)
    assert (size <= 0.3 * (1 + 1e-5)).all()
    assert size.max() > 0.25
    assert bounds is None or (found.min() >= 0 and found.max() <= 1)
    assert cross_entropy(model(found), y) > cross_entropy(model(x), y)
    assert not found.requires_grad


def test_a_random_start_is_uniform_in_the_ball():
    """Of a uniform point of the unit ball in d dimensions, |u|^d is uniform in [0, 1]; constants move nothing."""
    x = torch.zeros(4000, 3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    flat = nn.Linear(3, 2).double()
    nn.init.zeros_(flat.weight)
    attack = ProjectedGradient("l2", radius=2, steps=1, bounds=None, generator=generator)
    radius = attack(flat, x, torch.zeros(4000, dtype=torch.int64)).norm(dim=1) / 2
    assert abs(float((radius**3).mean()) - 0.5) < 0.02
    assert abs(float((radius**3).std()) - 12**-0.5) < 0.02
    again = ProjectedGradient("linf", radius=2, steps=1, bounds=None, generator=generator)
    moved = again(flat, x, torch.zeros(4000, dtype=torch.int64))
    assert abs(float(moved.std()) - 4 / 12**0.5) < 0.03


def test_the_generator_decides_the_start():
    model, (x, y) = UsersModel(), batch()
    one, two, other = (
        ProjectedGradient(radius=0.5, generator=torch.Generator().manual_seed(seed))(model, x, y) for seed in (3, 3, 4)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_zero_radius_changes_nothing():
    x, y = batch()
    assert torch.equal(ProjectedGradient(radius=0.0)(UsersModel(), x, y), x)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_same_as_foolbox(norm):
    foolbox = pytest.importorskip("foolbox")
    torch.manual_seed(0)
    model, (x, y) = UsersModel().eval(), batch(40)
    radius, steps, relative = (0.4, 6, 0.3) if norm == "l2" else (0.05, 6, 0.3)
    ours = ProjectedGradient(norm, radius=radius, steps=steps, step_size=relative * radius, random_start=False)
    kind = foolbox.attacks.L2ProjectedGradientDescentAttack if norm == "l2" else foolbox.attacks.LinfPGD
    theirs = kind(rel_stepsize=relative, steps=steps, random_start=False)
    _, expected, _ = theirs(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=radius)
    assert torch.allclose(ours(model, x, y), expected, atol=2e-6)


# ---- the user's model is left alone --------------------------------------------------------------------------------


def test_modes_statistics_and_gradients_are_left_as_they_were():
    model, (x, y) = UsersModel(), batch()
    model.drop.eval()
    before = copy.deepcopy(model.state_dict())
    ProjectedGradient(radius=0.5)(model, x, y)
    assert model.training
    assert model.norm.training
    assert not model.drop.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():  # works where gradients are off, too
        assert not torch.equal(ProjectedGradient(radius=0.5)(model, x, y), x)


def test_modes_come_back_after_an_error():
    def broken(outputs, y):
        raise RuntimeError("no loss")

    model, (x, y) = UsersModel(), batch()
    with pytest.raises(RuntimeError, match="no loss"):
        ProjectedGradient(radius=0.5)(model, x, y, loss=broken)
    assert model.training
    assert model.drop.training


def test_other_types_are_kept():
    model, (x, y) = UsersModel().double(), batch()
    assert ProjectedGradient(radius=0.5)(model, x.double(), y).dtype == torch.float64
    x, y = batch()
    assert ProjectedGradient("linf", radius=0.1)(UsersModel().bfloat16(), x.bfloat16(), y).dtype == torch.bfloat16


# ---- three lines in any loop ---------------------------------------------------------------------------------------


def adversarially_trained(model, optimizer, backward, batches):
    attack = ProjectedGradient(radius=0.3, generator=torch.Generator().manual_seed(7))
    for x, y in batches:
        x = attack(model, x, y)
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        backward(loss)
        optimizer.step()


def test_in_a_plain_loop_and_under_fabric():
    fabric = pytest.importorskip("lightning_fabric").Fabric(accelerator="cpu", devices=1)
    torch.manual_seed(0)
    model = UsersModel()
    plain, batches = copy.deepcopy(model), [batch(seed=seed) for seed in range(3)]
    torch.manual_seed(1)
    adversarially_trained(plain, torch.optim.SGD(plain.parameters(), lr=0.1), torch.Tensor.backward, batches)
    wrapped, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    torch.manual_seed(1)
    adversarially_trained(wrapped, optimizer, fabric.backward, batches)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(plain.parameters(), model.parameters()))


def test_under_distributed_data_parallel(tmp_path):
    body = """
    from etude.training import ProjectedGradient

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = torch.rand(2, 10, 6), torch.randint(3, (2, 10))
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)

    attack = ProjectedGradient(radius=0.3, random_start=False)
    for _ in range(3):
        changed = attack(wrapped, x[rank], y[rank])
        loss = nn.functional.cross_entropy(wrapped(changed), y[rank])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(model.state_dict(), f"rank{rank}.pt")
    """
    run_distributed(body, tmp_path)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = torch.rand(2, 10, 6), torch.randint(3, (2, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attack = ProjectedGradient(radius=0.3, random_start=False)
    for _ in range(3):
        loss = sum(cross_entropy(model(attack(model, x[r], y[r])), y[r]) for r in range(2)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.allclose(value, ranks[0][name], atol=1e-6), name
        assert torch.equal(ranks[0][name], ranks[1][name]), name


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "l1"}, "norm='l1'"),
        ({"radius": -1.0}, "radius=-1.0"),
        ({"radius": math.inf}, "radius=inf"),
        ({"steps": 0}, "steps=0"),
        ({"step_size": 0.0}, "step_size=0.0"),
        ({"bounds": (1.0, 0.0)}, "bounds="),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProjectedGradient(**{"radius": 1.0, **arguments})


def test_bad_inputs_are_refused():
    model, (x, y) = UsersModel(), batch()
    with pytest.raises(ValueError, match=r"bounds=\(0.0, 1.0\): x holds numbers from .* to 2"):
        ProjectedGradient(radius=1.0)(model, x + (x == x.max()) * (2 - x), y)
    with pytest.raises(ValueError, match=r"x: .* not finite"):
        ProjectedGradient(radius=1.0)(model, x / 0, y)
    with pytest.raises(TypeError, match=r"x: a tensor of torch.int64"):
        ProjectedGradient(radius=1.0)(model, y, y)
    with pytest.raises(ValueError, match=r"model: .*not? .*differentiable"):
        ProjectedGradient(radius=1.0)(lambda x: (x > 0.5).float().flatten(1), x, y)
