"""Prompts of random languages beside a generator in plain Python, and n-gram heads beside attention.

The generator is that of the paper's benchmark, RegBench, in the way its authors wrote it: a loop over states that draws
with numpy, a loop over symbols, and pythomata's minimisation where that package is installed (the row says so).
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measuring import Row, alone, installed, medians
from etude.in_context import InContextNGram, RandomAutomata
from etude.nn import Attention, NGramMixer, ngram_attention

SYMBOLS, STATES, STRINGS, LENGTH = 18, (4, 12), (1, 49), 500
MINIMISING = installed("pythomata")


def loop(count: int, generator: np.random.Generator) -> list[list[int]]:
    """Prompts one after the other, without the distributions that ours come with."""
    made = []
    for _ in range(count):
        states = int(generator.integers(STATES[0], STATES[1] + 1))
        alphabet = generator.choice(SYMBOLS, size=int(generator.integers(4, SYMBOLS + 1)), replace=False)
        table: dict[int, dict[str, int]] = {}
        for state in range(states):
            degree = int(generator.integers(1, 4))
            symbols = generator.choice(alphabet, size=degree, replace=False)
            following = generator.choice([s for s in range(states) if s != state], size=degree, replace=False)
            table[state] = {str(symbol): int(after) for symbol, after in zip(symbols, following)}
        start = 0
        if MINIMISING:
            from pythomata import SimpleDFA

            numbers = set(range(states))
            smallest = SimpleDFA(numbers, set(map(str, alphabet)), 0, numbers, table).minimize().trim()
            table, start = smallest._transition_function, smallest._initial_state
        prompt: list[int] = []
        while len(prompt) < LENGTH:
            prompt.append(SYMBOLS)
            state = start
            for _ in range(int(generator.integers(STRINGS[0], STRINGS[1] + 1))):
                symbol = generator.choice(list(table[state]))
                prompt.append(int(symbol))
                state = table[state][symbol]
        made.append(prompt[:LENGTH])
    return made


def back_off(prompts: list[list[int]], longest: int) -> list[list[list[float]]]:
    """The same predictions with a dictionary an order, one prompt and position after the other."""
    made = []
    for prompt in prompts:
        tables: list[dict[tuple[int, ...], list[int]]] = [{} for _ in range(longest + 1)]
        rows = []
        for place, token in enumerate(prompt):
            row = [1] * SYMBOLS
            for order, counts in enumerate(tables):
                if token < SYMBOLS and place >= order:
                    counts.setdefault(tuple(prompt[place - order : place]), [0] * SYMBOLS)[token] += 1
                row = counts.get(tuple(prompt[place - order + 1 : place + 1]) if order else (), row)
            total = sum(row)
            rows.append([count / total for count in row])
        made.append(rows)
    return made


class Dense(nn.Module):
    """The same layer with its attention as a matrix."""

    def __init__(self, width: int, order: int) -> None:
        super().__init__()
        self.order = order
        self.current, self.followers = nn.Linear(width, width), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        return self.current(x) + self.followers(ngram_attention(tokens, self.order) @ x)


def step(kind: str, positions: int, width: int = 64, batch: int = 8) -> None:
    """One layer forwards and back."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(20, (batch, positions), generator=generator)
    x = torch.randn(batch, positions, width, generator=generator, requires_grad=True)
    if kind == "attention":
        out = Attention(width)(x, causal=True)[0]
    else:
        out = {"head": NGramMixer, "matrix": Dense}[kind](width, 2)(x, tokens)
    out.square().mean().backward()


def run(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    family, source = RandomAutomata(SYMBOLS, STATES), torch.Generator().manual_seed(0)
    count, repetitions = (32, 3) if quick else (256, 7)
    prompts = family.sample(count, source).prompts(LENGTH, source, strings=STRINGS)
    listed = prompts.tokens.tolist()

    def batch() -> None:
        assert family.sample(count, source).prompts(LENGTH, source, strings=STRINGS).distribution.shape[1] == LENGTH

    def one_by_one() -> None:
        loop(count // 8, np.random.default_rng(0))

    def trigrams() -> None:
        InContextNGram(2)(prompts.tokens, SYMBOLS)

    seconds = medians({"ours": batch, "loop": one_by_one}, repetitions)

    def with_dictionaries() -> None:
        back_off(listed, 2)

    counting = medians({"ours": trigrams, "dictionaries": with_dictionaries}, repetitions)
    how = "with" if MINIMISING else "without"
    rows = [
        Row(
            f"a prompt of a new language, speed-up over a Python loop ({how} pythomata's minimisation)",
            seconds["ours"] / count,
            seconds["loop"] / (count // 8),
            aim=">= 10",
            inverse=True,
        ),
        Row(
            "3-gram predictions at all positions / dictionaries", counting["ours"], counting["dictionaries"], aim="< 1"
        ),
    ]
    for positions in (128,) if quick else (512, 2048):
        times = medians({kind: partial(step, kind, positions) for kind in ("head", "matrix", "attention")}, 5)
        rows += [
            Row(
                f"n-gram head of {positions} positions / softmax attention",
                times["head"],
                times["attention"],
                aim="< 1",
            ),
            Row(f"n-gram head of {positions} positions / with its matrix", times["head"], times["matrix"], aim="< 1"),
        ]
    if not quick:
        memory = {kind: alone("benchmarks.languages:step", kind, 2048).megabytes for kind in ("head", "matrix")}
        rows.append(Row("n-gram head of 2048 positions, memory / with its matrix", *memory.values(), unit="MB"))
    return rows
