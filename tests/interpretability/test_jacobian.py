"""Products with Jacobians are those of autograd, sample by sample and whatever the chunk; what cannot be is refused."""

import pytest
import torch
from torch import nn

from etude.interpretability import jacobians, stream_vector_jacobian_products, vector_jacobian_products
from etude.nn import Attention


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).double()


@pytest.fixture
def x():
    return torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def one_by_one(function, x):
    """The Jacobian of each sample alone, by torch.autograd."""
    return torch.stack([torch.autograd.functional.jacobian(lambda row: function(row[None])[0], row) for row in x])


@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 100])
def test_jacobians_are_those_of_single_samples(model, x, chunk):
    found = jacobians(model, x, chunk=chunk)
    assert found.shape == (6, 3, 5)
    assert torch.allclose(found, one_by_one(model, x), atol=1e-14)


def test_finite_differences(model, x):
    step, direction = 1e-6, torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    slope = (model(x + step * direction) - model(x - step * direction)) / (2 * step)
    assert torch.allclose(jacobians(model, x) @ direction, slope, atol=1e-7)


def test_vectors_may_be_shared_or_each_samples_own(model, x):
    generator = torch.Generator().manual_seed(3)
    shared = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    own = torch.randn(4, 6, 3, dtype=torch.float64, generator=generator)
    whole = one_by_one(model, x)
    assert torch.allclose(vector_jacobian_products(model, x, shared), torch.einsum("ro,noi->rni", shared, whole))
    assert torch.allclose(vector_jacobian_products(model, x, own, chunk=3), torch.einsum("rno,noi->rni", own, whole))


def test_sequences_and_attention():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attention = Attention(4, 2).double()
    x = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def last(x):
        return attention(x, causal=True, last=1)[0]

    found = jacobians(last, x, chunk=3)
    assert found.shape == (3, 1, 4, 5, 4)
    assert torch.allclose(found, one_by_one(last, x), atol=1e-12)


def test_a_stream_holds_a_chunk_at_a_time_and_no_graph(model, x):
    chunks = list(stream_vector_jacobian_products(model, x, torch.eye(3, dtype=torch.float64), chunk=2))
    assert [len(chunk) for chunk in chunks] == [2, 1]
    assert not any(chunk.requires_grad for chunk in chunks)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_input_gradients_of_logits_as_in_the_docstring(model, x):
    start = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(start)[:, 1].sum(), start)
    assert torch.allclose(vector_jacobian_products(model, x, torch.eye(3)[:2])[1], expected)


@pytest.mark.parametrize(
    ("function", "error", "match"),
    [
        (lambda x: x.argmax(1, keepdim=True), TypeError, "int64"),
        (lambda x: x.detach() * 2, ValueError, "not differentiable"),
        (lambda x: x.sum(0, keepdim=True), ValueError, "rows"),
    ],
)
def test_functions_without_a_jacobian_are_refused(x, function, error, match):
    with pytest.raises(error, match=match):
        vector_jacobian_products(function, x, torch.ones(1, 5))


def test_bad_arguments_are_refused_by_name(model, x):
    with pytest.raises(ValueError, match=r"vectors: shape \(2, 4\)"):
        vector_jacobian_products(model, x, torch.ones(2, 4))
    with pytest.raises(ValueError, match="chunk=0"):
        vector_jacobian_products(model, x, torch.ones(2, 3), chunk=0)
    with pytest.raises(TypeError, match="x: a tensor of"):
        vector_jacobian_products(model, torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 3))
