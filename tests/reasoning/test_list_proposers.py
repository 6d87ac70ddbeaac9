"""Networks that propose for ListWorld: tokens round trip, sampling equals the forward pass, and nothing looks ahead."""

import random

import pytest
import torch

from etude.data import ListWorld
from etude.data.induction import PRIMITIVES, ListProgram
from etude.reasoning import Attempt, Direct, HypothesisSearch, ProgramOnly, Proposer
from etude.reasoning.list_proposers import (
    BEGIN,
    END,
    PAD,
    PROGRAM_LENGTH,
    REPAIR,
    ROLES,
    RULE,
    TOKENS,
    ListNetwork,
    ListProposer,
    hints,
    list_examples,
    parse_program,
    program_tokens,
    train_list_network,
)
from etude.sandbox import LEVELS, Sandbox, probe

WORLD = ListWorld(test_lengths=(9, 12))
MADE = WORLD.sample(40, random.Random(0))
EXAMPLES = list_examples(MADE, random.Random(1))


def network(width=16, layers=1, seed=0):
    return ListNetwork(width, torch.Generator().manual_seed(seed), layers).eval()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_programs_go_through_tokens():
    for made in MADE:
        tokens = program_tokens(made.program.steps)
        assert parse_program(tokens) == made.program
        assert parse_program([*tokens, PAD, PAD]) == made.program
        assert len(tokens) <= PROGRAM_LENGTH
        assert parse_program(tokens[:-1]) is None


@pytest.mark.parametrize(
    "tokens", [[END], [5, END], [BEGIN, END], [TOKENS - 1, 3, END], [TOKENS - 1, 3, END, 4, END], []]
)
def test_what_is_no_program_is_none(tokens):
    assert parse_program(tokens) is None  # the last primitive has two constants


def test_examples_are_the_tasks():
    for row, made in enumerate(MADE):
        answer = EXAMPLES.answer[row].tolist()
        assert answer[: answer.index(END)] == made.task.test[0][1]
        assert parse_program(EXAMPLES.program[row].tolist()) == made.program
        x, y = made.task.train[2]
        assert [t for t in EXAMPLES.pairs[row, 2, 0].tolist() if t != PAD] == x
        assert [t for t in EXAMPLES.pairs[row, 2, 1].tolist() if t != PAD] == y
        assert parse_program(EXAMPLES.wrong[row].tolist()) is not None
    assert TOKENS <= 127  # a token is a byte


def test_hints_are_rules_and_wrong_programs():
    rows = torch.arange(40)
    drawn = hints("implement", EXAMPLES, rows, generator())
    repairs = drawn[:, 0] == REPAIR
    assert 0 < repairs.sum() < 40
    assert torch.equal(drawn[repairs, 1:], EXAMPLES.wrong[repairs].long())
    assert (drawn[~repairs, 0] == RULE).all()
    assert torch.equal(drawn[~repairs, 1:5], EXAMPLES.rule[~repairs].long())
    assert all(hints(role, EXAMPLES, rows, generator()) is None for role in ROLES if role != "implement")


def test_sampling_and_the_forward_pass_agree():
    """The most probable sequence, token by token with caches, is what the whole-sequence logits say."""
    model = network(layers=2)
    memory = model.encode(EXAMPLES.pairs[:6].long(), EXAMPLES.query[:6].long())
    drawn = model.sample(memory, 1, 8, 0.0, generator())[:, 0]
    again = model(memory, drawn).argmax(-1)
    for one, other in zip(drawn.tolist(), again.tolist()):
        length = one.index(END) + 1 if END in one else len(one)
        assert one[:length] == other[:length]


def test_samples_follow_the_softmax():
    model = network()
    memory = model.encode(EXAMPLES.pairs[:1].long())
    n = 20_000
    drawn = model.sample(memory, n, 1, 0.7, generator())[0, :, 0]
    logits = model(memory, torch.zeros(1, 1, dtype=torch.long))[0, 0]
    expected = (logits / 0.7).softmax(-1)
    share = torch.bincount(drawn, minlength=TOKENS) / n
    # six standard errors of each share
    assert ((share - expected).abs() < 6 * (expected * (1 - expected) / n).sqrt() + 1e-9).all()


def test_the_decoder_does_not_look_ahead():
    model = network(layers=2)
    memory = model.encode(EXAMPLES.pairs[:4].long())
    target = EXAMPLES.program[:4].long()
    changed = target.clone()
    changed[:, 5:] = 7
    assert torch.allclose(model(memory, target)[:, :6], model(memory, changed)[:, :6], atol=1e-6)
    assert not torch.allclose(model(memory, target)[:, 6:], model(memory, changed)[:, 6:])


def test_a_network_fits_a_few_tasks():
    weights = train_list_network("program", EXAMPLES, 32, layers=1, steps=2, batch=8, seed=3)
    again = train_list_network("program", EXAMPLES, 32, layers=1, steps=2, batch=8, seed=3)
    other = train_list_network("program", EXAMPLES, 32, layers=1, steps=2, batch=8, seed=4)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert not all(torch.equal(weights[name], other[name]) for name in weights)


@pytest.mark.parametrize("role", ROLES)
def test_every_weight_learns(role):
    before = network(16, 1, 5).state_dict()
    after = train_list_network(role, EXAMPLES, 16, layers=1, steps=3, batch=16, seed=5)
    still = {name for name in after if torch.equal(before[name], after[name])}
    assert not still


def test_bad_training_is_refused():
    with pytest.raises(ValueError, match="role='poet'"):
        train_list_network("poet", EXAMPLES, 16, steps=1)
    with pytest.raises(ValueError, match="steps=0"):
        train_list_network("program", EXAMPLES, 16, steps=0)


# ---- as a proposer -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proposer():
    return ListProposer({role: network(seed=number) for number, role in enumerate(ROLES)})


def test_it_is_a_proposer(proposer):
    assert isinstance(proposer, Proposer)


def test_what_is_proposed_has_the_asked_number(proposer):
    problem = MADE[0].task.problem
    rules = proposer.hypotheses(problem, 7, temperature=1.0, seed=0)
    assert len(rules) == 7
    words = ["sort the numbers, then reverse the list", "keep even numbers"]
    drawn = proposer.programs(problem, words, 5, temperature=0.7, seed=0)
    assert [len(each) for each in drawn] == [5, 5]
    assert proposer.programs(problem, words, 5, temperature=0.7, seed=0) == drawn
    attempts = [Attempt(drawn[0][0], None, ""), Attempt("never written", None, "")]
    assert len(proposer.repairs(problem, attempts, temperature=0.7, seed=0)) == 2
    assert len(proposer.answers(problem, 3, temperature=0.0, seed=0)) == 3
    assert proposer.usage.completion_tokens > 0


def test_a_description_names_its_steps():
    words = [primitive.words for primitive in PRIMITIVES.values()]
    assert len(set(words)) == len(words)
    assert not any(", then " in each for each in words)
    program = ListProgram((("sort", ()), ("take", (2,))))
    assert program.description == "sort the numbers, then keep the beginning"


def test_solvers_take_it():
    if all(probe(level).missing for level in LEVELS):
        pytest.skip(str(probe("subprocess")))
    made = ListProposer({role: network(seed=number) for number, role in enumerate(ROLES)})
    oracle = MADE[0].program

    class Oracle(ListProposer):
        """Knows the rule, and one program of eight."""

        def hypotheses(self, problem, n, *, temperature, seed):
            return [oracle.description] * n

        def programs(self, problem, hypotheses, n, *, temperature, seed):
            drawn = super().programs(problem, hypotheses, n, temperature=temperature, seed=seed)
            return [[*each[:-1], oracle.source] for each in drawn]

    known = Oracle(made.networks)
    with Sandbox() as sandbox:
        for solver in (
            HypothesisSearch(known, filter="rank", exhaustive=True, sandbox=sandbox, together=True),
            HypothesisSearch(known, filter="summarise", sandbox=sandbox),
            ProgramOnly(known, n_programs=8, sandbox=sandbox, together=True),
        ):
            solution = solver.solve(MADE[0].task.problem)
            assert solution.verified
            assert MADE[0].task.solved_by(solution.predictions)
        assert not Direct(made).solve(MADE[0].task.problem).verified
