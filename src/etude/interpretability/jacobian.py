"""Jacobians of a network's outputs, sample by sample: batched products v^T J, and J itself, in chunks.

Every function here takes a *batched* function f: (n, ...) -> (n, ...) that treats its samples one by one, as networks
do in evaluation mode, and differentiates by reverse mode: the forward pass runs once, and the products of all vectors
come from batched backward passes (`torch.func`). Memory is that of one chunk of products. Parameters need no gradients
and are given none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["jacobians", "stream_vector_jacobian_products", "vector_jacobian_products"]

_NUMBERS = {"cpu": 2**16}
"""Numbers in the products of a chunk, where its size is not given: what stays in a processor's cache."""
_NUMBERS_ELSEWHERE = 2**26
"""The same on a device that needs much work at once: half a gigabyte in double precision."""


def vector_jacobian_products(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "n ..."], vectors: Float[Tensor, "r ..."], *,
    chunk: int | None = None,
) -> Float[Tensor, "r n ..."]:  # fmt: skip
    """The products v^T df/dx of several vectors with the Jacobian of each sample.

    ::

        # how each image's first and second logit depend on its pixels
        gradients = vector_jacobian_products(model.eval(), images, torch.eye(10)[:2])

    Args:
        function: f, (n, *in) -> (n, *out); row k of its result depends on row k of `x` alone.
        x: where it is differentiated, (n, *in).
        vectors: v, (r, *out), the same for all samples, or (r, n, *out).
        chunk: vectors in a backward pass; by default so many that their products stay in a processor's cache.

    Returns:
        The products, (r, n, *in), in the type of `x`. They carry no graph.

    Raises:
        TypeError: `x` or what comes out are no floating point numbers.
        ValueError: a function that is not differentiable or has another number of rows, vectors of another shape, or a
            `chunk` below 1.
    """
    return torch.cat(list(stream_vector_jacobian_products(function, x, vectors, chunk=chunk)))


def stream_vector_jacobian_products(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "n ..."], vectors: Float[Tensor, "r ..."], *,
    chunk: int | None = None,
) -> Iterator[Float[Tensor, "_ n ..."]]:  # fmt: skip
    """`vector_jacobian_products` a chunk of vectors at a time, for sums that need not hold all of them.

    Args:
        function: f, as for `vector_jacobian_products`.
        x: where it is differentiated, (n, *in).
        vectors: v, (r, *out) or (r, n, *out).
        chunk: vectors in a backward pass.

    Yields:
        Products of consecutive vectors, (chunk, n, *in); the last chunk may be smaller.

    Raises:
        TypeError, ValueError: as `vector_jacobian_products` does.
    """
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1):
        raise ValueError(f"chunk={chunk!r}: give a whole number of at least 1, or None")
    if not x.is_floating_point():
        raise TypeError(f"x: a tensor of {x.dtype} was given; floating point numbers are accepted")
    check_differentiable(function, x[:1])
    # Without gradients outside, so that parameters record no second graph; `vjp` has gradients of its own.
    # Fused attention has no batched backward pass.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        output, pull_back = torch.func.vjp(function, x)
        if len(output) != len(x):
            raise ValueError(f"function: it makes {len(output)} rows of {len(x)}; as many are accepted")
        shared = vectors.shape[1:] == output.shape[1:]
        if not shared and vectors.shape[1:] != output.shape:
            raise ValueError(
                f"vectors: shape {tuple(vectors.shape)} was given; (r, {', '.join(map(str, output.shape[1:]))}) is "
                f"accepted, or (r, {', '.join(map(str, output.shape))}) with vectors of each sample's own"
            )
        numbers = _NUMBERS.get(x.device.type, _NUMBERS_ELSEWHERE)
        size = chunk or max(1, numbers // max(x.numel(), output.numel()))
        # What a backward pass gives out first is a tuple with one entry an argument of the function.
        batched = torch.func.vmap(lambda vector: pull_back(vector)[0])
        for some in vectors.to(output).split(size):
            yield batched(some[:, None].expand(-1, *output.shape) if shared else some).detach()


def jacobians(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "n ..."], *, chunk: int | None = None
) -> Float[Tensor, "n ..."]:
    """The Jacobian df/dx of each sample.

    It has n times outputs times inputs numbers. Where only sums over it are wanted, such as E[J^T J], take
    `stream_vector_jacobian_products`.

    Args:
        function: f, as for `vector_jacobian_products`.
        x: where it is differentiated, (n, *in).
        chunk: outputs in a backward pass.

    Returns:
        (n, *out, *in).

    Raises:
        TypeError, ValueError: as `vector_jacobian_products` does.
    """
    with torch.no_grad():
        shape = function(x[:1]).shape[1:]
    unit = torch.eye(shape.numel(), dtype=x.dtype, device=x.device).view(-1, *shape)
    return vector_jacobian_products(function, x, unit, chunk=chunk).movedim(0, 1).unflatten(1, tuple(shape) or (1,))


def check_differentiable(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "n ..."], name: str = "function"
) -> None:
    """Refuse a function whose output is no differentiable function of its input.

    Args:
        function: f.
        x: a sample or a few.
        name: what the error calls the function.

    Raises:
        TypeError: it puts out no tensor of floating point numbers.
        ValueError: no gradient flows from its output to its input.
    """
    with torch.enable_grad():
        start = x.detach().clone().requires_grad_()
        output = function(start)
        if not isinstance(output, Tensor) or not output.is_floating_point():
            kind = f"tensor of {output.dtype}" if isinstance(output, Tensor) else type(output).__name__
            raise TypeError(f"{name}: it puts out a {kind}; a tensor of floating point numbers is accepted")
        flows = output.requires_grad and torch.autograd.grad(output.sum(), start, allow_unused=True)[0] is not None
    if not flows:
        raise ValueError(f"{name}: its output is not differentiable with respect to its input; no gradient flows back")
