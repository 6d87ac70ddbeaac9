"""Plain training of a classifier, with early stopping by validation loss.

One loop over tensors, made to be cheap: on small networks most of a step is otherwise overhead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

Examples = tuple[Float[Tensor, "_ ..."], Int[Tensor, " _"]]  # as many labels as inputs, checked by `fit`

__all__ = ["Run", "evaluate", "fit"]


@dataclass(frozen=True)
class Run:
    """What a training run gave.

    Attributes:
        steps: iterations at which the validation set was evaluated.
        validation_loss: mean cross-entropy there, in nats.
        validation_accuracy: fraction right there.
        best_step: iteration of the least validation loss, the first one if several; 0 if no loss was finite.
        best_accuracy: test accuracy with the weights of that iteration.
        final_accuracy: test accuracy with the last weights.
        weights: the last state dictionary.
    """

    steps: Int[Tensor, " evaluations"]
    validation_loss: Float[Tensor, " evaluations"]
    validation_accuracy: Float[Tensor, " evaluations"]
    best_step: int
    best_accuracy: float
    final_accuracy: float
    weights: dict[str, Tensor]

    @property
    def censored(self) -> bool:
        """Whether the least validation loss is the last one, so that the true minimum may lie beyond."""
        return self.best_step == int(self.steps[-1])


@torch.no_grad()
def evaluate(model: nn.Module, examples: Examples, chunk: int = 1000) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy of a classifier, in evaluation mode.

    Args:
        model: (n, ...) -> logits (n, classes).
        examples: inputs and class numbers.
        chunk: examples at a time; about 1000 stay in a processor's cache.

    Returns:
        Loss and accuracy. The module's training mode is left as it was.
    """
    inputs, labels = examples
    training = model.training
    model.eval()
    loss, right = torch.zeros((), dtype=torch.float64), 0
    for x, y in zip(inputs.split(chunk), labels.split(chunk)):
        logits = model(x)
        loss += functional.cross_entropy(logits.float(), y, reduction="sum").double().cpu()
        right += int((logits.argmax(1) == y).sum())
    model.train(training)
    return float(loss) / len(labels), right / len(labels)


def fit(
    model: nn.Module,
    train: Examples,
    validation: Examples,
    test: Examples,
    *,
    steps: int,
    batch: int,
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    generator: torch.Generator,
    evaluate_every: int = 100,
    mask: Mapping[str, Bool[Tensor, "*shape"]] | None = None,
) -> Run:
    """Train a classifier in place with cross-entropy.

    Each epoch visits the training examples in a new order; what does not fill a batch at its end is left out, so that
    all iterations cost the same. The model ends with its last weights; test accuracy is measured there and at the
    least validation loss, and plays no part in the training.

    Args:
        model: (n, ...) -> logits (n, classes), on the device of the examples.
        train: inputs and class numbers to learn from.
        validation: decides which iteration is the best.
        test: measured twice.
        steps: iterations.
        batch: examples an iteration.
        optimizer: makes the optimizer from the parameters, such as ``partial(torch.optim.Adam, lr=1e-3, fused=True)``.
        generator: the order of the examples; on the processor.
        evaluate_every: iterations between evaluations; there is one at the end too.
        mask: by parameter name, true where a weight is trained; the others are held at exactly zero. Zero weights whose
            gradients are zeroed stay there under every optimizer whose update vanishes with gradient, weight and
            state (gradient descent, momentum, Adam, RMSprop, all with weight decay), and cost almost nothing. A
            `etude.compression.Mask` has one as its ``layers``.

    Returns:
        The curves, accuracies and last weights.

    Raises:
        ValueError: a number out of range, too few examples for a batch, inputs and labels of different lengths, or a
            mask that names no parameter or has another shape.
    """
    for name, value in {"steps": steps, "batch": batch, "evaluate_every": evaluate_every}.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r}: give a whole number of at least 1")
    for name, (inputs, labels) in {"train": train, "validation": validation, "test": test}.items():
        if len(inputs) != len(labels) or not len(labels):
            raise ValueError(f"{name}: {len(inputs)} inputs and {len(labels)} labels; give as many of both, at least 1")
    if batch > len(train[1]):
        raise ValueError(f"batch={batch}: there are only {len(train[1])} training examples")
    held = _held(model, mask or {})
    inputs, labels = train
    orders = _orders(len(labels), batch, generator)
    descent = optimizer(model.parameters())
    curve: list[tuple[int, float, float]] = []
    best_loss, best_step, best_weights = float("inf"), 0, _snapshot(model)

    model.train()
    with _denormals_flushed():
        for step in range(1, steps + 1):
            index = next(orders).to(labels.device)
            loss = functional.cross_entropy(model(inputs.index_select(0, index)), labels.index_select(0, index))
            descent.zero_grad()
            loss.backward()
            for parameter, kept in held:
                if parameter.grad is not None:
                    parameter.grad.mul_(kept)
            descent.step()
            if step % evaluate_every == 0 or step == steps:
                loss_now, accuracy = evaluate(model, validation)
                curve.append((step, loss_now, accuracy))
                if loss_now < best_loss:
                    best_loss, best_step, best_weights = loss_now, step, _snapshot(model)
        final_accuracy, weights = evaluate(model, test)[1], _snapshot(model)
        model.load_state_dict(best_weights)
        best_accuracy = evaluate(model, test)[1]
        model.load_state_dict(weights)
    at, losses, accuracies = zip(*curve)
    return Run(
        steps=torch.tensor(at),
        validation_loss=torch.tensor(losses, dtype=torch.float64),
        validation_accuracy=torch.tensor(accuracies, dtype=torch.float64),
        best_step=best_step,
        best_accuracy=best_accuracy,
        final_accuracy=final_accuracy,
        weights=weights,
    )


def _held(model: nn.Module, mask: Mapping[str, Tensor]) -> list[tuple[nn.Parameter, Tensor]]:
    """The masked parameters, their pruned weights set to zero, each with the factor for its gradient."""
    parameters = dict(model.named_parameters())
    held = []
    for name, kept in mask.items():
        if name not in parameters:
            raise ValueError(f"mask: the model has no parameter {name!r}; its parameters are {', '.join(parameters)}")
        parameter = parameters[name]
        if kept.shape != parameter.shape:
            raise ValueError(f"mask: {name!r} has shape {tuple(kept.shape)}, the parameter {tuple(parameter.shape)}")
        held.append((parameter, kept.to(parameter)))
    with torch.no_grad():
        for parameter, kept in held:
            parameter.masked_fill_(kept == 0, 0)
    return [(parameter, kept) for parameter, kept in held if not kept.all()]


def _orders(examples: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        order = torch.randperm(examples, generator=generator)
        yield from order[: examples - examples % batch].split(batch)


def _snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Treat numbers below about 1e-38 as zero.

    Inputs that are always zero leave Adam's moments shrinking for ever, and processors compute with denormal numbers
    many times slower: by mid-training a step would take half as long again. Adam's epsilon is 30 orders larger.
    """
    flushed = not (torch.tensor(1e-39) * 1).item()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)
