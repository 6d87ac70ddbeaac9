"""The examples in the docstrings run, and shapes are what the annotations say."""

import doctest

import numpy as np
import pytest
import torch
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped

from etude.theory import (
    dual_activation,
    empirical_ntk,
    finite_width,
    nngp,
    ntk,
    report_card,
    ridgeless,
    singular_kernel,
)


@pytest.mark.parametrize("module", [dual_activation, finite_width, singular_kernel], ids=lambda module: module.__name__)
def test_examples(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


def test_example_of_the_report_card():
    finder = doctest.DocTestFinder()
    runner = doctest.DocTestRunner()
    for example in finder.find(report_card, globs={"report_card": report_card}):
        runner.run(example)
    assert runner.tries
    assert not runner.failures


def test_shapes_are_as_annotated():
    checked = [jaxtyped(typechecker=beartype)(f) for f in (nngp, ridgeless, empirical_ntk)]
    X = np.eye(3)
    activation = dual_activation.ErfActivation()
    assert checked[0](X, X, activation, 2).shape == (3, 3)
    assert checked[0](X, X, activation, [1, 2]).shape == (2, 3, 3)
    assert checked[1](X, np.ones((3, 2))).shape == (3, 2)
    assert checked[2](torch.nn.Linear(3, 2), torch.ones(4, 3), torch.ones(2, 3)).shape == (4, 2, 2, 2)
    with pytest.raises(TypeCheckError):
        checked[1](X, np.ones(4))
    assert ntk(X, X, activation, 1).dtype == np.float64
