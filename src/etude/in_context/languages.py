"""Languages of random finite automata: a new one in every prompt, and the exact distribution of every next symbol.

An automaton here is deterministic and partial. Every state accepts, state 0 is the start, and from each state it goes
on with one of the symbols that lead somewhere, all equally likely. A prompt is a row of strings of one automaton;
their lengths are drawn without regard to it. Automata come in batches and are drawn, minimised and walked all at once.

Source: Akyürek, Wang, Kim and Andreas, ICML 2024 (arXiv 2401.12973), section 3 and its benchmark RegBench.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = [
    "Automata",
    "LanguagePrompts",
    "RandomAutomata",
    "bayes_predictive",
    "enumerate_automata",
    "support_accuracy",
    "total_variation",
]

IGNORED = -100
"""The target where there is none, which `torch.nn.functional.cross_entropy` leaves out by itself."""


@dataclass(frozen=True, eq=False)
class LanguagePrompts:
    """Strings of one automaton each, and what is to be predicted at every position.

    The separator's number is the number of symbols. A prompt begins with it, and it stands between strings. How long a
    string is has nothing to do with the automaton, so where a separator comes next nothing is to be predicted; where a
    symbol does, its distribution is `distribution`.

    Attributes:
        tokens: what is read, (prompts, length).
        targets: the next token, -100 where that is a separator.
        states: the automaton's state after reading a position.
        support: which symbols can come next, (prompts, length, symbols).
    """

    tokens: Int[Tensor, "prompts length"]
    targets: Int[Tensor, "prompts length"]
    states: Int[Tensor, "prompts length"]
    support: Bool[Tensor, "prompts length symbols"]

    @property
    def distribution(self) -> Float[Tensor, "prompts length symbols"]:
        """The probability of each next symbol, given the automaton and what was read."""
        return self.support / self.support.sum(-1, keepdim=True)

    @property
    def scored(self) -> Bool[Tensor, "prompts length"]:
        """Where something is to be predicted."""
        return self.targets != IGNORED


@dataclass(frozen=True, eq=False)
class Automata:
    """A batch of automata.

    Args:
        transitions: for each automaton, state and symbol the next state, or -1 where the symbol cannot come. Automata
            of fewer states than there is room for leave the last ones without transitions.

    Raises:
        ValueError: a state out of range, or one that can be reached and has no way out (a start state without one
            makes an automaton without reachable states).
    """

    transitions: Int[Tensor, "automata states symbols"]

    def __post_init__(self) -> None:
        table = self.transitions
        if table.ndim != 3 or table.dtype.is_floating_point or 0 in table.shape:
            raise ValueError(f"transitions of shape {tuple(table.shape)} and type {table.dtype}: give integers of "
                             "(automata, states, symbols), at least one of each")  # fmt: skip
        states = table.shape[1]
        if bool(((table < -1) | (table >= states)).any()):
            raise ValueError(f"transitions: an entry is out of range; give -1 or a state from 0 to {states - 1}")
        dead = self.reachable() & (table < 0).all(-1)
        if bool(dead.any()):
            which, state = dead.nonzero()[0].tolist()
            raise ValueError(f"transitions: state {state} of automaton {which} can be reached and has no way out; "
                             "give every reachable state at least one transition")  # fmt: skip

    @classmethod
    def _of(cls, transitions: Int[Tensor, "automata states symbols"]) -> Automata:
        """Automata known to be right, made without a look at the values."""
        made = object.__new__(cls)
        object.__setattr__(made, "transitions", transitions)
        return made

    def __len__(self) -> int:
        return len(self.transitions)

    def __getitem__(self, which: slice | Tensor) -> Automata:
        return Automata._of(self.transitions[which])

    def to(self, device: torch.device | str) -> Automata:
        """The same automata on a device."""
        return Automata._of(self.transitions.to(device))

    @property
    def symbols(self) -> int:
        """How many symbols there are, whether an automaton uses them or not."""
        return self.transitions.shape[2]

    def reachable(self) -> Bool[Tensor, "automata states"]:
        """Which states some string leads to."""
        automata, states, _ = self.transitions.shape
        target = self.transitions.clamp(min=0).flatten(1)
        found = torch.zeros(automata, states, dtype=torch.bool, device=target.device)
        found[:, 0] = True
        for _ in range(states - 1):  # a state that can be reached is at most so many symbols away
            leads = (found[:, :, None] & (self.transitions >= 0)).flatten(1)
            found = found | (torch.zeros_like(found, dtype=torch.int64).scatter_add_(1, target, leads.long()) > 0)
        return found

    def minimise(self) -> Automata:
        """The smallest automata of the same languages, their states numbered in the order in which strings reach them.

        Two states are one if the same strings can follow; as all successors are equally likely, these then are equally
        likely too. Numbering is breadth first from the start, symbols in their order, so two automata have the same
        language exactly if their minimal transitions are equal.

        Source: Moore, 1956: classes are refined by the classes of the successors until nothing changes.
        """
        table = self.transitions
        automata, states, symbols = table.shape
        kind = torch.zeros(automata, states, dtype=torch.int64, device=table.device)
        for _ in range(states):
            after = kind.gather(1, table.clamp(min=0).flatten(1)).view_as(table).masked_fill(table < 0, -1)
            same = (after[:, :, None] == after[:, None]).all(-1)
            refined = same.int().argmax(-1)  # a class is named by its first state; the start's is 0
            if torch.equal(refined, kind):  # nothing new was told apart
                break
            kind = refined
        merged = kind.gather(1, table.clamp(min=0).flatten(1)).view_as(table).masked_fill(table < 0, -1)

        # Breadth first, all automata at once: `order` lists the states as they are found, `number` is its inverse.
        each = torch.arange(automata, device=table.device)
        order = torch.zeros(automata, states + 1, dtype=torch.int64, device=table.device)  # the last column is a bin
        number = torch.full((automata, states), -1, dtype=torch.int64, device=table.device)
        number[:, 0] = 0
        count = torch.ones(automata, dtype=torch.int64, device=table.device)
        earlier = torch.ones(symbols, symbols, dtype=torch.bool, device=table.device).tril(-1)
        for place in range(states):
            row = merged[each, order[:, place]]
            known = number.gather(1, row.clamp(min=0)) >= 0
            twice = ((row[:, :, None] == row[:, None]) & earlier).any(-1)
            new = (row >= 0) & ~known & ~twice & (place < count)[:, None]
            given = count[:, None] + new.cumsum(1) - 1
            order.scatter_(1, given.where(new, states), row)
            number.scatter_reduce_(1, row.clamp(min=0), given.where(new, -1), "amax")
            count = count + new.sum(1)
        found = torch.arange(states, device=table.device) < count[:, None]
        kept = merged.gather(1, order[:, :states, None].expand(-1, -1, symbols))
        kept = kept.masked_fill(~found[:, :, None], -1)
        renamed = number.gather(1, kept.clamp(min=0).flatten(1)).view_as(kept)
        return Automata._of(renamed.masked_fill(kept < 0, -1))

    def fingerprint(self) -> Int[Tensor, " automata"]:
        """A number an automaton: equal for equal transitions, and hardly ever for others (64 bits).

        Of minimal automata it tells languages apart; the room for further states makes no difference.
        """
        _, states, symbols = self.transitions.shape
        # Multiplying by odd numbers that look random, without sign or overflow checks: the usual multilinear hash.
        factor = torch.arange(1, states * symbols + 1, device=self.transitions.device)
        for _ in range(2):
            factor = (factor ^ (factor >> 31)) * 0x7FB5D329728EA185
            factor = (factor ^ (factor >> 27)) | 1
        return ((self.transitions.flatten(1) + 1) * factor).sum(1)

    def distinct(self) -> Automata:
        """Without those whose transitions occur earlier in the batch, in their order."""
        _, inverse = self.transitions.flatten(1).unique(dim=0, return_inverse=True)
        place = torch.arange(len(self), device=inverse.device)
        first = torch.full_like(place, len(self)).scatter_reduce_(0, inverse, place, "amin")
        return self[first[first < len(self)].sort().values]

    def walk(self, tokens: Int[Tensor, "automata *prompts positions"]) -> Int[Tensor, "automata *prompts positions"]:
        """The state after each token, -1 from the first one on that the automaton cannot have written.

        Args:
            tokens: symbols, and separators (the number of symbols), which lead back to the start.

        Raises:
            ValueError: a token out of range.
        """
        automata, states, symbols = self.transitions.shape
        if len(tokens) != automata:
            raise ValueError(f"tokens: {len(tokens)} rows for {automata} automata; give one each")
        if bool(((tokens < 0) | (tokens > symbols)).any()):
            raise ValueError(f"tokens: one is out of range; give symbols from 0 to {symbols - 1}, or the separator "
                             f"{symbols}")  # fmt: skip
        # A state more, from which nothing leads away, and a symbol more, which leads from the others to the start.
        table = torch.full((automata, states + 1, symbols + 1), states, device=tokens.device)
        table[:, :states, :symbols] = self.transitions.where(self.transitions >= 0, states)
        table[:, :states, symbols] = 0
        table = table.flatten()
        shape = (automata, *(1,) * (tokens.ndim - 2))
        base = (states + 1) * torch.arange(automata, device=tokens.device).view(shape)
        state = torch.zeros(tokens.shape[:-1], dtype=torch.int64, device=tokens.device)
        found = []
        for token in tokens.unbind(-1):
            state = table[(base + state) * (symbols + 1) + token]
            found.append(state)
        walked = torch.stack(found, dim=-1)
        return walked.masked_fill(walked == states, -1)

    def prompts(
        self, length: int, generator: torch.Generator, *, strings: tuple[int, int] = (1, 49)
    ) -> LanguagePrompts:
        """A prompt of each automaton: strings drawn until the length is full, the last one cut there.

        Args:
            length: positions to read, at least 1.
            generator: draws lengths and symbols; on the device of the automata.
            strings: the least and the greatest length of a string, drawn uniformly.

        Returns:
            One prompt an automaton. There is no loop but over positions.

        Raises:
            ValueError: a number out of range.
        """
        low, high = _range("strings", strings, 1)
        if length < 1:
            raise ValueError(f"length={length}: give a number of at least 1")
        automata, states, symbols = self.transitions.shape
        device = self.transitions.device

        def draw(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        # A separator in front, then one behind every string.
        lengths = (low + draw(automata, length // (low + 1) + 1) * (high + 1 - low)).long().clamp(max=high)
        ends = (lengths + 1).cumsum(1).clamp(max=length + 1)
        starts = torch.zeros(automata, length + 2, dtype=torch.bool, device=device).scatter_(1, ends, True)
        starts[:, 0] = True
        starts = starts[:, : length + 1]

        # Each state's symbols in front of the others, so that a random rank below the degree is a random symbol.
        allowed = self.transitions >= 0
        symbol = allowed.int().argsort(dim=2, descending=True, stable=True)
        base = states * torch.arange(automata, device=device)
        following = (self.transitions.gather(2, symbol) + base[:, None, None]).flatten()
        degree = allowed.sum(2).flatten().float()
        chance, begins = draw(length + 1, automata), starts.t().contiguous()
        row, rows, edges = base, [], []
        for place in range(length + 1):
            rank = (chance[place] * degree[row]).long()
            edge = row * symbols + rank
            row = torch.where(begins[place], base, following[edge])
            rows.append(row)
            edges.append(edge)
        taken = torch.stack(edges, dim=1)
        tokens = symbol.flatten()[taken].masked_fill(starts, symbols)
        state = torch.stack(rows[:length], dim=1)
        targets = tokens[:, 1:].masked_fill(starts[:, 1:], IGNORED)
        support = allowed.flatten(0, 1)[state]
        return LanguagePrompts(tokens[:, :length].contiguous(), targets, state - base[:, None], support)


@dataclass(frozen=True)
class RandomAutomata:
    """The distribution of random automata.

    The number of states and the alphabet's size are drawn uniformly, then the alphabet; for each state a number of
    symbols, as many of the alphabet, and for each of these another state, all different. What no string reaches is
    dropped and states that cannot be told apart are merged, which is where a state gets to lead to itself.

    Args:
        symbols: how many there are in all.
        states: the least and the greatest number of states, before minimisation.
        out_degree: the least and the greatest number of symbols that lead from a state. The paper's text says 1 to 4,
            its code draws 1 to 3.
        alphabet: the least and the greatest number of symbols that an automaton uses; by default from 4, or all if
            there are fewer, to all.

    Raises:
        ValueError: a range that is empty or out of bounds, or more transitions from a state than symbols of the
            alphabet or other states.

    Example:
        Endless batches of languages that were never seen, and none of them held out::

            family, generator = RandomAutomata(symbols=10, states=(4, 8)), torch.Generator().manual_seed(0)
            held_out = family.sample(1_000, generator).distinct()
            prompts = family.sample(32, generator, exclude=held_out).prompts(160, generator, strings=(5, 19))
            loss = nn.functional.cross_entropy(model(prompts.tokens).mT, prompts.targets)
            off = total_variation(model(prompts.tokens).softmax(-1), prompts.distribution)[prompts.scored].mean()
    """

    symbols: int = 18
    states: tuple[int, int] = (4, 12)
    out_degree: tuple[int, int] = (1, 3)
    alphabet: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.symbols < 1:
            raise ValueError(f"symbols={self.symbols}: give a number of at least 1")
        least_states, _ = _range("states", self.states, 2)
        fewest, most = _range("alphabet", self._alphabet, 1)
        if most > self.symbols:
            raise ValueError(f"alphabet={self.alphabet}: give at most the {self.symbols} symbols there are")
        _, degree = _range("out_degree", self.out_degree, 1)
        if degree > min(fewest, least_states - 1):
            raise ValueError(
                f"out_degree={self.out_degree}: give at most {min(fewest, least_states - 1)}, as an alphabet can have "
                f"{fewest} symbols and an automaton {least_states} states, of which a state leads to others only"
            )

    @property
    def _alphabet(self) -> tuple[int, int]:
        return (min(4, self.symbols), self.symbols) if self.alphabet is None else self.alphabet

    def sample(self, count: int, generator: torch.Generator, *, exclude: Automata | None = None) -> Automata:
        """Minimal automata, on the device of the generator.

        Args:
            count: how many, at least 1.
            generator: draws them.
            exclude: minimal automata whose languages are drawn anew until none of them is left: what is held out.

        Raises:
            ValueError: a count below 1, or excluded automata of other symbols.
            RuntimeError: a hundred draws in a row gave excluded automata.
        """
        if count < 1:
            raise ValueError(f"count={count}: give a number of at least 1")
        made = self._draw(count, generator)
        if exclude is None:
            return made
        if exclude.symbols != self.symbols:
            raise ValueError(f"exclude: automata of {exclude.symbols} symbols; give some of {self.symbols}")
        held = exclude.fingerprint()
        for _ in range(100):
            again = torch.isin(made.fingerprint(), held)
            missing = int(again.sum())
            if not missing:
                return made
            transitions = made.transitions.clone()
            transitions[again] = self._draw(missing, generator).transitions
            made = Automata._of(transitions)
        raise RuntimeError("exclude: a hundred draws in a row were excluded; exclude fewer, or widen the distribution")

    def oracle_accuracy(self, automata: Automata, prompts: LanguagePrompts) -> Float[Tensor, "prompts length"]:
        """The `support_accuracy` of one who is told every state, and what the alphabet is: a ceiling for any learner.

        Once the prompt has gone on from a state, what it went on with is a right guess there. A state it has not left
        yet says nothing, as its symbols were drawn without regard to the others': a guess is right with a chance of
        its out-degree over the alphabet's size. (For the size stands the number of symbols that the automaton uses or
        the least there can be, which errs upwards. What little can be concluded from that no two states were merged
        is left out.)

        Args:
            automata: drawn from this distribution.
            prompts: of these automata.
        """
        table = automata.transitions
        least, _ = self._alphabet
        here = torch.nn.functional.one_hot(prompts.states, table.shape[1])
        left = (here * prompts.scored[:, :, None]).cumsum(1) - here * prompts.scored[:, :, None]
        known = (left * here).sum(-1) > 0
        size = (table >= 0).any(1).sum(1).clamp(min=least)
        return torch.where(known, 1.0, prompts.support.sum(-1) / size[:, None])

    def _draw(self, count: int, generator: torch.Generator) -> Automata:
        device, states = generator.device, self.states[1]

        def whole(bounds: tuple[int, int], *shape: int) -> Tensor:
            return torch.randint(bounds[0], bounds[1] + 1, shape, generator=generator, device=device)

        def order(allowed: Tensor) -> Tensor:
            """A random permutation of the last axis with what is allowed in front."""
            chance = torch.rand(allowed.shape, generator=generator, device=device)
            return chance.masked_fill(~allowed, 2).argsort(-1)

        used = torch.arange(states, device=device) < whole(self.states, count, 1)
        size, alphabet = whole(self._alphabet, count, 1), torch.empty(count, self.symbols, device=device)
        alphabet = order(torch.ones_like(alphabet, dtype=torch.bool)).argsort(-1) < size
        most = self.out_degree[1]
        degree = whole(self.out_degree, count, states, 1)
        symbol = order(alphabet[:, None].expand(-1, states, -1))[..., :most]
        others = used[:, None] & ~torch.eye(states, dtype=torch.bool, device=device)
        target = order(others)[..., :most]
        drawn = torch.arange(most, device=device) < degree
        transitions = torch.full((count, states, self.symbols), -1, dtype=torch.int64, device=device)
        # Symbols of a state differ, so nothing is written twice; what was not drawn is written as no transition.
        transitions.scatter_(2, symbol, target.masked_fill(~(drawn & used[:, :, None]), -1))
        return Automata._of(transitions).minimise()


def enumerate_automata(states: int, symbols: int) -> Automata:
    """All languages of automata with so many states or fewer, each once, as minimal automata.

    Args:
        states: at least 1. There are ``((states + 1)^symbols - 1)^states`` tables to go through.
        symbols: at least 1.

    Raises:
        ValueError: a number below 1, or more than a million tables.
    """
    for name, value in {"states": states, "symbols": symbols}.items():
        if value < 1:
            raise ValueError(f"{name}={value}: give a number of at least 1")
    tables = ((states + 1) ** symbols - 1) ** states
    if tables > 1_000_000:
        raise ValueError(f"states={states}, symbols={symbols}: {tables:,} tables are more than the million accepted")
    rows = torch.tensor(list(itertools.product(range(-1, states), repeat=symbols)))[1:]  # the first leads nowhere
    which = torch.cartesian_prod(*[torch.arange(len(rows))] * states).view(-1, states)
    return Automata._of(rows[which]).minimise().distinct()


def bayes_predictive(
    tokens: Int[Tensor, "prompts positions"],
    automata: Automata,
    prior: Float[Tensor, " automata"] | None = None,
) -> Float[Tensor, "prompts positions symbols"]:
    """The next symbol's distribution under the posterior over a finite class: no predictor has a smaller expected loss.

    ``p(x | tokens) = sum_k w_k p_k(x | state_k)`` with ``w_k`` in proportion to the prior times the product of one over
    the number of successors of each state gone through, and 0 for an automaton that has no such string.

    Args:
        tokens: prompts as `Automata.prompts` makes them.
        automata: the class, such as all of `enumerate_automata`.
        prior: probability of each; equal when left out.

    Returns:
        Distributions of the symbol that comes next if no separator does, in double precision.

    Raises:
        ValueError: a prior that is no distribution, or a prompt that no automaton of the class can have written.
    """
    count = len(automata)
    if prior is None:
        prior = torch.full((count,), 1 / count, dtype=torch.float64, device=tokens.device)
    if prior.shape != (count,) or bool((prior < 0).any()) or abs(float(prior.sum()) - 1) > 1e-6:
        raise ValueError(f"prior: give {count} probabilities, one an automaton, that sum to 1")
    states = automata.walk(tokens.expand(count, *tokens.shape))
    possible = (states >= 0).permute(1, 2, 0)
    each = torch.arange(count, device=tokens.device)
    table = automata.transitions
    degree = (table >= 0).sum(-1)
    now = states.clamp(min=0).permute(1, 2, 0)  # (prompts, positions, automata)
    spent = -degree[each, now].double().log()
    # The first position is a separator, and so may be others: what is read there says nothing of the automaton.
    read = (tokens[:, 1:] < automata.symbols).double()[:, :, None] * spent[:, :-1]
    log_weight = prior.double().log() + torch.nn.functional.pad(read.cumsum(1), (0, 0, 1, 0))
    log_weight = log_weight.masked_fill(~possible, -torch.inf)
    impossible = ~possible.any(-1).all(-1)
    if bool(impossible.any()):
        raise ValueError(f"tokens: prompt {int(impossible.nonzero()[0])} is of no automaton of the class")
    weight = log_weight.softmax(-1)
    likely = (table >= 0).double() / degree[:, :, None].clamp(min=1)
    predicted = [torch.einsum("pk,pkx->px", weight[:, t], likely[each, now[:, t]]) for t in range(tokens.shape[1])]
    return torch.stack(predicted, dim=1)


def support_accuracy(
    predicted: Float[Tensor, "*positions symbols"], support: Bool[Tensor, "*positions symbols"]
) -> Float[Tensor, "*positions"]:
    """1 where the likeliest symbol is one that can come next, else 0: the paper's greedy accuracy.

    Args:
        predicted: probabilities, or logits.
        support: which symbols can come next.
    """
    return support.gather(-1, predicted.argmax(-1, keepdim=True)).squeeze(-1).to(predicted.dtype)


def total_variation(
    first: Float[Tensor, "*positions symbols"], second: Float[Tensor, "*positions symbols"]
) -> Float[Tensor, "*positions"]:
    """``1/2 sum_x |p(x) - q(x)|``, from 0 for equal distributions to 1 for those without a symbol in common.

    Args:
        first: a distribution a position.
        second: another.

    Raises:
        ValueError: probabilities that are negative or do not sum to 1.
    """
    for name, value in {"first": first, "second": second}.items():
        if bool((value < 0).any()) or bool(((value.sum(-1) - 1).abs() > 1e-3).any()):
            raise ValueError(f"{name}: give probabilities, at least 0 and with the sum 1 at every position")
    return (first - second).abs().sum(-1) / 2


def _range(name: str, bounds: tuple[int, int], least: int) -> tuple[int, int]:
    low, high = bounds
    if not least <= low <= high:
        raise ValueError(f"{name}={bounds}: give the least and the greatest, at least {least} and in this order")
    return low, high
