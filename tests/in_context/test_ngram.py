"""In-context n-grams against one that goes through the prompt with a dictionary."""

import pytest
import torch

from etude.in_context import InContextNGram, RandomAutomata, successor_counts

SYMBOLS = 4


@pytest.fixture(scope="module")
def tokens():
    automata = RandomAutomata(symbols=SYMBOLS, states=(3, 5), out_degree=(1, 2)).sample(6, torch.Generator())
    return automata.prompts(50, torch.Generator(), strings=(2, 9)).tokens


def counts_by_hand(prompt, order):
    """After each position: how often each symbol followed its context, a string's start being part of a context."""
    table, counted = {}, []
    for place, token in enumerate(prompt):
        begin = max(i for i in range(place + 1) if prompt[i] == SYMBOLS)
        if order and token != SYMBOLS:
            before = max(i for i in range(place) if prompt[i] == SYMBOLS)
            context = tuple(prompt[max(before, place - order) : place])
            table.setdefault(context, [0] * SYMBOLS)[token] += 1
        elif token != SYMBOLS:
            table.setdefault((), [0] * SYMBOLS)[token] += 1
        now = tuple(prompt[max(begin, place - order + 1) : place + 1]) if order else ()
        counted.append(list(table.get(now, [0] * SYMBOLS)))
    return counted


@pytest.mark.parametrize("order", range(5))
def test_counts(tokens, order):
    expected = [counts_by_hand(prompt, order) for prompt in tokens.tolist()]
    assert successor_counts(tokens, order, SYMBOLS).tolist() == expected


@pytest.mark.parametrize("smoothing", ["back-off", "uniform-support", "add-one"])
@pytest.mark.parametrize("order", range(4))
def test_distributions(tokens, order, smoothing):
    found = InContextNGram(order, smoothing)(tokens, SYMBOLS, dtype=torch.float64)
    for prompt, given in zip(tokens.tolist(), found):
        counts = [counts_by_hand(prompt, n) for n in range(order + 1)]
        for place in range(len(prompt)):
            seen = [count > 0 for count in counts[0][place]]
            if not any(seen):
                weight = [1] * SYMBOLS
            elif smoothing == "add-one":
                weight = [count + 1 if known else 0 for count, known in zip(counts[order][place], seen)]
            else:
                weight = next(at[place] for at in reversed(counts) if sum(at[place]))
                weight = [int(count > 0) for count in weight] if smoothing == "uniform-support" else weight
            expected = torch.tensor(weight, dtype=torch.float64)
            assert (given[place] - expected / expected.sum()).abs().max() <= 1e-12


def test_the_future_changes_nothing(tokens):
    for smoothing in ("back-off", "uniform-support", "add-one"):
        model = InContextNGram(2, smoothing)
        whole = model(tokens, SYMBOLS, dtype=torch.float64)
        assert torch.equal(whole[:, :30], model(tokens[:, :30], SYMBOLS, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: InContextNGram(-1), "order=-1"),
        (lambda: InContextNGram(True), "order=True"),
        (lambda: InContextNGram(2, "kneser"), "smoothing='kneser': give 'back-off', 'uniform-support' or 'add-one'"),
        (lambda: InContextNGram(3)(torch.tensor([[4, 0]]), 4), "order=3: give a whole number from 1 to 2"),
        (lambda: successor_counts(torch.tensor([[5]]), 1, 4), "symbols from 0 to 3, or the separator 4"),
    ],
)
def test_bad_arguments_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()
