"""Automata against strings enumerated one by one, another library, and what theory says of predictors."""

import itertools

import pytest
import torch

from etude.in_context import (
    Automata,
    InContextNGram,
    RandomAutomata,
    bayes_predictive,
    enumerate_automata,
    support_accuracy,
    total_variation,
)

SMALL = RandomAutomata(symbols=5, states=(3, 6), out_degree=(1, 2), alphabet=(3, 5))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_tables(count, states=5, symbols=3, seed=0):
    """Complete at random, with mergeable and unreachable states among them, and a way out of every state."""
    table = torch.randint(-1, states, (count, states, symbols), generator=seeded(seed))
    table[:, :, 0] = table[:, :, 0].clamp(min=0)
    return table


def accepted(table, longest, start=0):
    """The strings of a transition table, by going along each of them."""
    found, front = set(), {(): start}
    for _ in range(longest):
        front = {
            (*string, symbol): table[state][symbol]
            for string, state in front.items()
            for symbol in range(len(table[0]))
            if table[state][symbol] >= 0
        }
        found |= front.keys()
    return frozenset(found)


# ---- minimal automata ------------------------------------------------------------------------------------------------


def test_the_minimal_automaton_has_the_same_strings_and_no_state_too_many():
    tables = random_tables(60)
    assert any(len(row) > len({tuple(state) for state in row}) for row in tables.tolist())
    for table, minimal in zip(tables.tolist(), Automata(tables).minimise().transitions.tolist()):
        assert accepted(table, 6) == accepted(minimal, 6)
        states = [state for state, row in enumerate(minimal) if max(row) >= 0]
        assert states == list(range(len(states)))
        assert len({accepted(minimal, len(minimal), start) for start in states}) == len(states)
        found = [0]  # breadth first, each state once, in its number's order
        for state in states:
            found = list(dict.fromkeys(found + [following for following in minimal[state] if following >= 0]))
        assert found == states


def test_another_library_agrees():
    library = pytest.importorskip("automata.fa.dfa")

    def theirs(table):
        transitions = {
            state: {str(symbol): following for symbol, following in enumerate(row) if following >= 0}
            for state, row in enumerate(table)
        }
        return library.DFA(
            states=set(transitions),
            input_symbols=set(map(str, range(len(table[0])))),
            transitions=transitions,
            initial_state=0,
            final_states=set(transitions),
            allow_partial=True,
        )

    tables = random_tables(30, seed=1)
    minimal = Automata(tables).minimise()
    for table, ours in zip(tables.tolist(), minimal.transitions.tolist()):
        rows = [row for row in ours if max(row) >= 0]
        given = theirs(table)
        assert theirs(rows) == given  # of languages
        assert len(given.minify().to_partial().states) == len(rows)


def test_how_states_are_numbered_makes_no_difference():
    tables = random_tables(40)
    order = torch.stack([torch.cat([torch.zeros(1).long(), 1 + torch.randperm(4, generator=seeded(i))])
                         for i in range(40)])  # fmt: skip
    inverse = order.argsort(1)
    moved = tables.gather(1, order[:, :, None].expand_as(tables))
    moved = inverse.gather(1, moved.clamp(min=0).flatten(1)).view_as(moved).masked_fill(moved < 0, -1)
    one, other = Automata(tables).minimise(), Automata(moved).minimise()
    assert torch.equal(one.transitions, other.transitions)
    assert torch.equal(one.fingerprint(), other.fingerprint())
    assert torch.equal(one.minimise().transitions, one.transitions)


def test_fingerprints_and_distinct_tell_languages_apart():
    minimal = Automata(random_tables(400, states=2, symbols=2)).minimise()
    languages = [accepted(table, 5) for table in minimal.transitions.tolist()]
    assert len(set(minimal.fingerprint().tolist())) == len(set(languages)) < 400
    kept = minimal.distinct()
    assert [accepted(table, 5) for table in kept.transitions.tolist()] == list(dict.fromkeys(languages))
    wider = torch.nn.functional.pad(minimal.transitions, (0, 0, 0, 3), value=-1)
    assert torch.equal(Automata(wider).fingerprint(), minimal.fingerprint())


def test_every_language_is_enumerated_once():
    found = enumerate_automata(2, 2)
    tables = itertools.product(itertools.product((-1, 0, 1), repeat=2), repeat=2)
    live = [rows for rows in tables if all(max(row) >= 0 for row in rows)]
    expected = {accepted(rows, 5) for rows in live}
    assert {accepted(table, 5) for table in found.transitions.tolist()} == expected
    assert len(found) == len(expected)


# ---- random automata -------------------------------------------------------------------------------------------------


def test_random_automata_keep_to_their_ranges():
    table = SMALL.sample(3_000, seeded()).transitions
    degree = (table >= 0).sum(2)
    live = degree > 0
    assert table.shape == (3_000, 6, 5)
    assert degree[live].unique().tolist() == [1, 2]
    assert 1 < (table >= 0).any(1).sum(1).max() <= 5
    assert live.sum(1).max() == 6
    assert torch.equal(Automata(table).minimise().transitions, table)


def test_states_degrees_and_alphabets_are_drawn_uniformly():
    """With every state leading to all symbols of the alphabet, and to all others, nothing merges into the unknown."""
    count = 20_000
    table = RandomAutomata(symbols=3, states=(4, 4), out_degree=(1, 3), alphabet=(3, 3)).sample(count, seeded())
    degree = (table.transitions[:, 0] >= 0).sum(1)
    for value in (1, 2, 3):  # the start state is never dropped, and merging leaves degrees alone
        assert (degree == value).float().mean().item() == pytest.approx(1 / 3, abs=0.015)
    size = (RandomAutomata(symbols=4, states=(6, 6), out_degree=(2, 2), alphabet=(2, 4)).sample(count, seeded())
            .transitions >= 0).any(1).sum(1)  # fmt: skip
    assert (size == 2).float().mean().item() == pytest.approx(1 / 3, abs=0.02)


def test_the_seed_decides_and_the_stream_is_endless():
    generator = seeded(3)
    first, second = SMALL.sample(50, generator), SMALL.sample(50, generator)
    assert torch.equal(first.transitions, SMALL.sample(50, seeded(3)).transitions)
    assert not torch.equal(first.transitions, second.transitions)
    one, same = (first.prompts(40, seeded(4)) for _ in range(2))
    assert torch.equal(one.tokens, same.tokens)
    assert not torch.equal(one.tokens, first.prompts(40, seeded(5)).tokens)


def test_what_is_held_out_is_never_drawn():
    family = RandomAutomata(symbols=2, states=(2, 3), out_degree=(1, 1), alphabet=(2, 2))
    held = family.sample(1_000, seeded()).distinct()[:3]
    drawn = family.sample(5_000, seeded(1), exclude=held)
    kept = {accepted(table, 5) for table in drawn.distinct().transitions.tolist()}
    assert not kept & {accepted(table, 5) for table in held.transitions.tolist()}
    with pytest.raises(RuntimeError, match="exclude"):
        family.sample(10, seeded(), exclude=family.sample(1_000, seeded()).distinct())


# ---- prompts ---------------------------------------------------------------------------------------------------------


def test_prompts_are_strings_of_their_automata_with_lengths_in_range():
    automata = SMALL.sample(200, seeded())
    prompts = automata.prompts(60, seeded(1), strings=(2, 7))
    assert prompts.tokens.shape == prompts.targets.shape == (200, 60)
    assert torch.equal(automata.walk(prompts.tokens), prompts.states)
    for tokens, table in zip(prompts.tokens.tolist(), automata.transitions.tolist()):
        assert tokens[0] == 5
        strings = "".join(map(str, tokens[1:])).split("5")
        assert all(2 <= len(string) <= 7 for string in strings[:-1])
        assert len(strings[-1]) <= 7
        for string in strings:
            state = 0
            for symbol in map(int, string):
                state = table[state][symbol]
                assert state >= 0


def test_targets_are_the_next_symbols_and_their_support_the_automatons():
    automata = SMALL.sample(100, seeded())
    prompts = automata.prompts(50, seeded(1), strings=(1, 6))
    shown, after = prompts.scored[:, :-1], prompts.tokens[:, 1:]
    assert torch.equal(prompts.targets[:, :-1][shown], after[shown])
    assert bool((after[~shown] == 5).all())
    chosen = prompts.support.gather(2, prompts.targets.clamp(min=0)[:, :, None])[..., 0]
    assert bool(chosen[prompts.scored].all())
    expected = automata.transitions[torch.arange(100)[:, None], prompts.states] >= 0
    assert torch.equal(prompts.support, expected)
    assert torch.allclose(prompts.distribution.sum(-1), torch.ones(100, 50))


def test_symbols_are_drawn_from_the_stated_distribution():
    table = torch.tensor([[[1, 2, -1], [0, 1, 2], [-1, -1, 0]]])
    prompts = Automata(table.expand(2_000, -1, -1)).prompts(50, seeded(), strings=(5, 5))
    for state in range(3):
        here = (prompts.states == state) & prompts.scored
        shares = torch.bincount(prompts.targets[here], minlength=3) / here.sum()
        assert torch.allclose(shares, prompts.distribution[here][0], atol=0.01)


def test_lengths_of_strings_are_uniform():
    table = torch.zeros(4_000, 1, 1, dtype=torch.int64)
    tokens = Automata(table).prompts(12, seeded(), strings=(1, 4)).tokens
    first = (tokens[:, 1:] == 1).int().argmax(1)
    assert torch.allclose(torch.bincount(first, minlength=5)[1:] / 4_000, torch.full((4,), 0.25), atol=0.025)


def test_strings_that_an_automaton_does_not_have_are_seen():
    automata = Automata(torch.tensor([[[1, -1], [-1, 0]]]))
    walked = automata.walk(torch.tensor([[2, 0, 1, 0, 2, 1, 0, 2]]))
    assert walked.tolist() == [[0, 1, 0, 1, 0, -1, -1, -1]]


# ---- the exact reference ---------------------------------------------------------------------------------------------


def test_the_posterior_is_bayes_rule():
    automata = enumerate_automata(2, 2)
    prior = torch.rand(len(automata), dtype=torch.float64, generator=seeded())
    prior /= prior.sum()
    tokens = automata.prompts(9, seeded(1), strings=(1, 4)).tokens[:12]
    found = bayes_predictive(tokens, automata, prior)
    for row, prompt in enumerate(tokens.tolist()):
        weight, place = prior.clone(), [0] * len(automata)
        for position, token in enumerate(prompt):
            for k, table in enumerate(automata.transitions.tolist()):
                degree = sum(following >= 0 for following in table[place[k]])
                if token == 2:
                    place[k] = 0
                elif weight[k] > 0:
                    after = table[place[k]][token]
                    weight[k] = weight[k] / degree if after >= 0 else 0
                    place[k] = max(after, 0)
            expected = torch.zeros(2, dtype=torch.float64)
            for k, table in enumerate(automata.transitions):
                allowed = (table[place[k]] >= 0).double()
                expected += weight[k] * allowed / allowed.sum()
            assert torch.allclose(found[row, position], expected / weight.sum(), atol=1e-12)


def test_the_posterior_of_a_known_automaton_is_the_automaton():
    automata = SMALL.sample(1, seeded())
    prompts = automata.prompts(40, seeded(1))
    assert torch.allclose(bayes_predictive(prompts.tokens, automata).float(), prompts.distribution)


def test_no_predictor_loses_less_than_the_posterior():
    automata = enumerate_automata(2, 2)
    which = torch.randint(len(automata), (4_000,), generator=seeded())
    prompts = automata[which].prompts(20, seeded(1), strings=(3, 8))

    def loss(predicted):
        return torch.nn.functional.nll_loss(predicted.double().clamp(min=1e-9).log().mT, prompts.targets)

    best, truth = loss(bayes_predictive(prompts.tokens, automata)), loss(prompts.distribution)
    others = [loss(InContextNGram(n, "add-one")(prompts.tokens, 2)) for n in (0, 1, 2, 3)]
    assert truth < best < min(others)


def test_the_oracle_is_right_about_states_that_were_left_before():
    automata = SMALL.sample(40, seeded())
    prompts = automata.prompts(30, seeded(1), strings=(2, 6))
    found = SMALL.oracle_accuracy(automata, prompts)
    for row, table in enumerate(automata.transitions.tolist()):
        used = {symbol for state in table for symbol, following in enumerate(state) if following >= 0}
        left = set()
        for place in range(30):
            state = int(prompts.states[row, place])
            guess = sum(following >= 0 for following in table[state]) / max(len(used), 3)
            assert found[row, place].item() == pytest.approx(1 if state in left else guess)
            left |= {state} if prompts.scored[row, place] else set()


def test_no_predictor_is_right_more_often_than_the_oracle():
    """One that is told states, and where one is new guesses any symbol of the alphabet, is right as often."""
    family = RandomAutomata(symbols=4, states=(5, 5), out_degree=(2, 2), alphabet=(4, 4))
    automata = family.sample(4_000, seeded())
    prompts = automata.prompts(20, seeded(1), strings=(4, 9))
    oracle = family.oracle_accuracy(automata, prompts)
    guess = prompts.support.gather(2, torch.randint(4, (4_000, 20, 1), generator=seeded(2)))[..., 0].float()
    told = torch.where(oracle == 1, oracle, guess)
    assert told.mean().item() == pytest.approx(oracle.mean().item(), abs=0.01)
    for order in range(4):
        predicted = InContextNGram(order)(prompts.tokens, 4)
        assert bool((support_accuracy(predicted, prompts.support).mean(0) <= oracle.mean(0) + 0.02).all())


# ---- metrics ---------------------------------------------------------------------------------------------------------


def test_metrics_are_bounded_and_exact_at_the_ends():
    first, second = torch.rand(2, 500, 6, generator=seeded()).softmax(-1)
    off = total_variation(first, second)
    assert bool(((off >= 0) & (off <= 1)).all())
    assert torch.equal(off, total_variation(second, first))
    assert bool((total_variation(first, first) == 0).all())
    one, other = torch.tensor([0.5, 0.5, 0, 0]), torch.tensor([0, 0, 0.3, 0.7])
    assert total_variation(one, other) == 1
    likeliest = torch.tensor([[0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])
    assert support_accuracy(likeliest, torch.tensor([[True, False, True], [True, True, False]])).tolist() == [0, 1]


TWO = Automata(torch.tensor([[[1, 0], [0, -1]]]))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Automata(torch.zeros(2, 2, dtype=torch.int64)), "transitions of shape"),
        (lambda: Automata(torch.zeros(1, 2, 2)), "transitions of shape"),
        (lambda: Automata(torch.zeros(1, 0, 2, dtype=torch.int64)), "transitions of shape"),
        (lambda: Automata(torch.tensor([[[2, 0], [0, 0]]])), "give -1 or a state from 0 to 1"),
        (lambda: Automata(torch.tensor([[[-2, 0], [0, 0]]])), "give -1 or a state from 0 to 1"),
        (lambda: Automata(torch.tensor([[[-1, -1], [0, 0]]])), "state 0 of automaton 0 can be reached and has no way"),
        (lambda: Automata(torch.tensor([[[0, 1], [-1, -1]]])), "state 1 of automaton 0 can be reached"),
        (lambda: RandomAutomata(symbols=0), "symbols=0"),
        (lambda: RandomAutomata(states=(1, 4)), "states=.*at least 2"),
        (lambda: RandomAutomata(states=(6, 4)), "states=.*in this order"),
        (lambda: RandomAutomata(out_degree=(0, 2)), "out_degree=.*at least 1"),
        (lambda: RandomAutomata(out_degree=(1, 4)), "out_degree=.*at most 3"),
        (lambda: RandomAutomata(symbols=6, alphabet=(2, 6)), "out_degree=.*at most 2, as an alphabet"),
        (lambda: RandomAutomata(symbols=6, alphabet=(4, 7)), "alphabet=.*at most the 6"),
        (lambda: SMALL.sample(0, seeded()), "count=0"),
        (lambda: SMALL.sample(2, seeded(), exclude=TWO), "exclude: automata of 2 symbols; give some of 5"),
        (lambda: TWO.prompts(0, seeded()), "length=0"),
        (lambda: TWO.prompts(4, seeded(), strings=(0, 3)), "strings=.*at least 1"),
        (lambda: TWO.walk(torch.tensor([[3]])), "symbols from 0 to 1, or the separator 2"),
        (lambda: TWO.walk(torch.tensor([[0], [1]])), "2 rows for 1 automata"),
        (lambda: enumerate_automata(0, 2), "states=0"),
        (lambda: enumerate_automata(4, 4), "more than the million"),
        (lambda: bayes_predictive(torch.tensor([[2, 0]]), TWO, torch.tensor([0.5])), "prior"),
        (lambda: bayes_predictive(torch.tensor([[2, 0, 1]]), TWO), "prompt 0 is of no automaton"),
        (lambda: total_variation(torch.ones(2), torch.ones(2) / 2), "first: give probabilities"),
        (lambda: total_variation(torch.ones(2) / 2, torch.tensor([1.5, -0.5])), "second: give probabilities"),
    ],
)
def test_bad_arguments_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()


def test_the_documented_loop_runs():
    from torch import nn

    from etude.nn import NGramHeads, Recurrent

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.read_out = nn.Embedding(11, 16), nn.Linear(16, 10)
            self.body = NGramHeads(Recurrent(16), 16, (1, 2))

        def forward(self, tokens):
            return self.read_out(self.body(self.embed(tokens), tokens))

    model = Model()
    family, generator = RandomAutomata(symbols=10, states=(4, 8)), torch.Generator().manual_seed(0)
    held_out = family.sample(100, generator).distinct()
    prompts = family.sample(8, generator, exclude=held_out).prompts(40, generator, strings=(5, 19))
    nn.functional.cross_entropy(model(prompts.tokens).mT, prompts.targets).backward()
    off = total_variation(model(prompts.tokens).softmax(-1), prompts.distribution)[prompts.scored].mean()
    assert 0 < float(off.detach()) < 1
