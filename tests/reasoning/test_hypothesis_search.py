"""The search's order, filters, budgets and honesty; estimates against enumeration; prompts of a language model."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data import InductionProblem, InductionTask
from etude.reasoning import (
    Budget,
    Direct,
    HypothesisSearch,
    LanguageModelProposer,
    ProgramOnly,
    behaviour_clusters,
    coverage_curve,
    pass_at_k,
)
from etude.reasoning.hypothesis_search import Candidate, executable, feedback, run_programs
from etude.reasoning.induction_prompts import code, pairs
from etude.sandbox import LEVELS, Limits, Result, Sandbox, probe
from language.scripted import ScriptedModel

TASK = InductionTask([([1, 2], [2, 4]), ([3], [6])], [([5, 6], [10, 12])], "list", "double")
DOUBLE = "def transform(x): return [2 * e for e in x]"
SQUARE = "def transform(x): return [e * e for e in x]"
SAME = "def transform(x): return x"
FIRST = "def transform(x): return [2, 4] if len(x) == 2 else x"
FAILS = "def transform(x): return x / 0"


@pytest.fixture(scope="module")
def sandbox():
    if all(probe(level).missing for level in LEVELS):
        pytest.skip(str(probe("subprocess")))
    with Sandbox(Limits(wall_seconds=20)) as made:
        yield made


def model(programs, hypotheses=("Rule: double", "Rule: square"), repairs=(SAME,), summary="1. double\n2. square"):
    """A model whose replies are told by what it is asked for; programs is a function of (hypothesis, sample)."""
    counts, drawn = itertools.count(), []

    def reply(prompt, sample):
        drawn.append(prompt)
        text = prompt[-1]["content"]
        if "The program is not right" in text:
            return f"```python\n{repairs[next(counts) % len(repairs)]}\n```"
        if "Group them" in text:
            return summary
        if "Write a Python function" in text:
            hint = text.partition("which may be wrong: ")[2].partition("\n")[0]
            return f"Here it is.\n```python\n{programs(hint, sample)}\n```"
        if "Answer with the output alone" in text:
            return "[10, 12]"
        return hypotheses[sample % len(hypotheses)]

    made = ScriptedModel(reply)
    made.drawn = drawn
    return made


def search(lm, sandbox, **options):
    return HypothesisSearch(lm, sandbox=sandbox, **{"n_hypotheses": 4, "n_keep": 2, "n_programs": 2, **options})


# ---- the search ----------------------------------------------------------------------------------------------------


def test_a_verified_program_answers(sandbox):
    lm = model(lambda hint, sample: DOUBLE if hint == "square" and sample == 1 else SAME)
    solution = search(lm, sandbox).solve(TASK.problem)
    assert solution.verified
    assert solution.status == "verified"
    assert solution.predictions == [[10, 12]]
    assert solution.hypothesis == "square"
    assert solution.train_passed == 2
    assert solution.behaviours == 1
    assert solution.hypotheses == ("double", "square")
    assert TASK.solved_by(solution.predictions)


def test_generation_stops_at_the_first_verified_program(sandbox):
    lm = model(lambda hint, sample: DOUBLE)
    solution = search(lm, sandbox).solve(TASK.problem)
    assert solution.hypothesis == "double"
    # four hypotheses, a summary, two programs of the first hypothesis
    assert solution.spending.replies == 4 + 1 + 2
    assert solution.spending.executions == 2
    assert solution.spending.tokens == lm.usage.tokens > 0


def test_an_exhaustive_search_draws_them_all(sandbox):
    solution = search(model(lambda hint, sample: DOUBLE), sandbox, exhaustive=True).solve(TASK.problem)
    assert len(solution.trace) == 4
    assert solution.spending.replies == 4 + 1 + 4


def test_what_nothing_verifies_falls_back_on_the_best(sandbox):
    lm = model(lambda hint, sample: [FAILS, FIRST][sample] if hint == "square" else [SAME, FAILS][sample])
    solution = search(lm, sandbox, max_feedback=0).solve(TASK.problem)
    assert solution.status == "fall-back"
    assert solution.program == FIRST
    assert solution.train_passed == 1
    assert solution.behaviours == 0
    assert solution.predictions == [[2, 4]]


def test_among_equals_one_without_an_error_falls_back(sandbox):
    lm = model(lambda hint, sample: [FAILS, SAME][sample])
    assert search(lm, sandbox, max_feedback=0).solve(TASK.problem).program == SAME


def test_repair_goes_round_the_hypotheses_and_uses_the_feedback(sandbox):
    programs = {"double": [SAME, SQUARE], "square": [FAILS, FIRST]}
    lm = model(lambda hint, sample: programs[hint][sample], repairs=(SAME, SAME, SAME, DOUBLE))
    solution = search(lm, sandbox, max_feedback=3).solve(TASK.problem)
    assert solution.verified
    asked = [prompt for prompt in lm.prompts if "not right" in str(prompt[-1])]
    # one of each hypothesis before a second one of any
    assert [code(prompt[-2]["content"]) for prompt in asked] == [
        SAME, FAILS, SQUARE, FIRST,
    ]  # fmt: skip
    assert "should be\n[2, 4]\nbut it was\n[1, 2]" in asked[0][-1]["content"]
    assert "TypeError" in asked[1][-1]["content"]
    assert solution.spending.repairs == 4


def test_only_one_program_of_each_behaviour_is_repaired(sandbox):
    lm = model(lambda hint, sample: SAME)
    clustered = search(lm, sandbox, max_feedback=1).solve(TASK.problem)
    every = search(model(lambda hint, sample: SAME), sandbox, max_feedback=1, cluster=False).solve(TASK.problem)
    assert clustered.spending.repairs == 1
    assert every.spending.repairs == 4


def test_rounds_end(sandbox):
    solution = search(model(lambda hint, sample: SAME), sandbox, max_feedback=3).solve(TASK.problem)
    assert solution.spending.repairs == 3
    assert [candidate.round for candidate in solution.trace] == [0, 0, 0, 0, 1, 2, 3]


def test_disagreement_of_verified_programs_is_reported(sandbox):
    other = "def transform(x): return [2 * e for e in x] if x[0] < 5 else []"
    lm = model(lambda hint, sample: [other, DOUBLE][sample])
    solution = ProgramOnly(lm, n_programs=2, sandbox=sandbox).solve(TASK.problem)
    assert solution.behaviours == 2
    assert solution.program == other


@pytest.mark.parametrize(
    ("filter", "kept"),
    [
        ("summarise", ("double", "square")),
        ("rank", ("square", "double")),
        ("cluster", ("double", "square")),
        (None, ("double", "square", "Square", "cube")),
        (lambda problem, rules: [rules[-1]], ("cube",)),
    ],
    ids=["summarise", "rank", "cluster", "none", "function"],
)
def test_filters(sandbox, filter, kept):
    rules = ("Rule: double", "Rule: square", "Rule: Square", "Rule: cube")
    lm = model(lambda hint, sample: SAME, hypotheses=rules)
    solution = search(lm, sandbox, filter=filter, max_feedback=0).solve(TASK.problem)
    assert solution.hypotheses == kept


def test_without_hypotheses_there_is_no_answer(sandbox):
    solution = search(model(None, hypotheses=("",), summary="nothing"), sandbox).solve(TASK.problem)
    assert solution.status == "none"
    assert solution.predictions is None
    assert not TASK.solved_by(solution.predictions)


# ---- what the solver may know --------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [HypothesisSearch, ProgramOnly, Direct])
def test_a_task_with_its_answers_is_refused(sandbox, solver):
    with pytest.raises(TypeError, match=r"task\.problem"):
        solver(model(None), sandbox=sandbox).solve(TASK)


def test_test_outputs_reach_neither_model_nor_programs(sandbox):
    secret = 918273645
    task = InductionTask([([1], [2])], [([7], [secret])], "list")
    peek = "def transform(x): import gc; return [o for o in gc.get_objects() if o == 918273645 - 0] and [1]"
    lm = model(lambda hint, sample: peek)
    solution = search(lm, sandbox, max_feedback=0).solve(task.problem)
    assert str(secret) not in str(lm.prompts)
    assert str(secret) not in str(solution.predictions)
    assert not solution.verified


# ---- budgets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replies", range(1, 14))
def test_no_more_replies_are_drawn_than_allowed(sandbox, replies):
    lm = model(lambda hint, sample: SAME)
    solution = search(lm, sandbox, budget=Budget(replies=replies)).solve(TASK.problem)
    assert solution.spending.replies <= replies
    assert len(lm.drawn) == solution.spending.replies


def test_executions_and_tokens_are_limited(sandbox):
    lm = model(lambda hint, sample: SAME)
    assert search(lm, sandbox, budget=Budget(executions=3)).solve(TASK.problem).spending.executions == 3
    one = search(model(lambda hint, sample: SAME), sandbox, budget=Budget(tokens=1)).solve(TASK.problem)
    assert one.spending.replies == 4
    assert one.status == "none"


def test_the_same_budget_binds_the_baselines(sandbox):
    lm = model(lambda hint, sample: SAME)
    assert ProgramOnly(lm, n_programs=9, sandbox=sandbox, budget=Budget(replies=5)).solve(TASK.problem).trace[4:]
    assert ProgramOnly(lm, n_programs=9, sandbox=sandbox, budget=Budget(replies=5)).solve(TASK.problem).trace[5:] == ()
    assert Direct(lm, n_answers=9, budget=Budget(replies=2)).solve(TASK.problem).spending.replies == 2


@pytest.mark.parametrize("name", ["replies", "tokens", "executions"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_budgets_are_above_zero(name, value):
    with pytest.raises(ValueError, match=name):
        Budget(**{name: value})


# ---- baselines -----------------------------------------------------------------------------------------------------


def test_program_only_verifies(sandbox):
    lm = model(lambda hint, sample: [SAME, DOUBLE, SQUARE][sample])
    solution = ProgramOnly(lm, n_programs=3, sandbox=sandbox).solve(TASK.problem)
    assert solution.verified
    assert solution.hypothesis is None
    assert solution.predictions == [[10, 12]]


def test_direct_answers_are_put_to_the_vote(sandbox):
    answers = iter(["[1]", "It is [10, 12].", "no list", "[10, 12]", "[3]"])
    lm = ScriptedModel(lambda prompt, sample: next(answers))
    solution = Direct(lm, n_answers=5).solve(TASK.problem)
    assert solution.predictions == [[10, 12]]
    assert solution.status == "fall-back"
    assert Direct(ScriptedModel(lambda prompt, sample: "?")).solve(TASK.problem).status == "none"


# ---- programs ------------------------------------------------------------------------------------------------------


def test_grids_are_arrays_and_answers_are_cast(sandbox):
    source = "def transform_grid(input_grid: np.ndarray) -> np.ndarray:\n    return ndimage_free(input_grid)\n"
    source += (
        "def ndimage_free(g):\n    return scipy.ndimage.rotate(g, 90).astype(float) + math.floor(0.5) * Counter()[1]"
    )
    ((result,),) = run_programs([source], [[[1, 2], [3, 4]]], sandbox, kind="grid")
    assert result.value == [[2, 4], [1, 3]]


def test_ragged_answers_are_errors(sandbox):
    ((result,),) = run_programs(["def transform_grid(g): return [[1], [2, 3]]"], [[[1]]], sandbox, kind="grid")
    assert result.outcome == "error"


@pytest.mark.parametrize("together", [False, True])
def test_programs_together_do_what_they_do_alone(sandbox, together):
    loop = "def transform(x):\n    while len(x) == 2: pass\n    return x"
    nan = "def transform(x): return float('nan')"
    exits = "import os\ndef transform(x): return os._exit(1)"
    sources = [DOUBLE, FAILS, "def other(x): return 1", "def transform(x: return", nan, SAME, exits, DOUBLE]
    found = run_programs(sources, [[1, 2], [3]], sandbox, together=together)
    assert [[each.outcome for each in results] for results in found] == [
        ["value"] * 2, ["error"] * 2, ["error"] * 2, ["error"] * 2, ["refused"] * 2, ["value"] * 2, ["crashed"] * 2,
        ["value"] * 2,
    ]  # fmt: skip
    assert found[0][0].value == [2, 4]
    slow = sandbox.run_each(
        [executable(loop, "list")], "transform", [[3], [1, 2]], limits=Limits(wall_seconds=0.4), together=together
    )
    assert [each.outcome for each in slow[0]] == ["value", "timeout"]


def test_behaviours_are_grouped(sandbox):
    sources = [SAME, "def transform(x): return list(x)", DOUBLE, FAILS, "def transform(y): return y / 0", SAME]
    assert behaviour_clusters(sources, [[1, 2], [0]], sandbox) == [[0, 1, 5], [2], [3], [4]]
    assert behaviour_clusters([], [[1]], sandbox) == []


def test_feedback_names_the_first_failure():
    results = (Result("value", [2, 4]), Result("error", error="  line 1, in f: x\nValueError: no"))
    assert "ValueError: no" in feedback(Candidate("", None, 0, results, 1), TASK.problem)
    right = (Result("value", [2, 4]), Result("value", [6]))
    assert feedback(Candidate("", None, 0, right, 2), TASK.problem) == ""


# ---- estimates -----------------------------------------------------------------------------------------------------


def test_pass_at_k_is_what_all_subsets_say():
    for n in range(1, 9):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            subsets = list(itertools.combinations(range(n), k))
            share = sum(any(each < c for each in subset) for subset in subsets) / len(subsets)
            assert pass_at_k(n, c, k) == pytest.approx(share, abs=1e-12)


@given(st.integers(1, 60), st.data())
def test_pass_at_k_rises_with_both(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    value = pass_at_k(n, c, k)
    assert 0 <= value <= 1
    assert pass_at_k(n, min(c + 1, n), k) >= value
    assert pass_at_k(n, c, min(k + 1, n)) >= value
    assert pass_at_k(n, c, 1) == pytest.approx(c / n)


def test_the_curve_is_the_mean_of_the_estimates():
    right = np.random.default_rng(0).random((30, 12)) < 0.2
    curve = coverage_curve(right)
    expected = [np.mean([pass_at_k(12, int(c), k) for c in right.sum(1)]) for k in range(1, 13)]
    assert curve == pytest.approx(expected)
    assert curve[-1] == pytest.approx(right.any(1).mean())
    assert (np.diff(curve) >= 0).all()


@pytest.mark.parametrize(("n", "c", "k"), [(5, 6, 1), (5, -1, 1), (5, 1, 0), (5, 1, 6), (0, 0, 1)])
def test_estimates_out_of_range_are_refused(n, c, k):
    with pytest.raises(ValueError, match="accepted"):
        pass_at_k(n, c, k)
    with pytest.raises(ValueError, match="right"):
        coverage_curve(np.zeros((0, 3), dtype=bool))


# ---- prompts -------------------------------------------------------------------------------------------------------


def test_prompts_hold_the_pairs_and_the_shots():
    lm = ScriptedModel(lambda prompt, sample: "Rule: x")
    shot = (InductionTask([([8], [80])], [([1], [10])], "list"), "ten times")
    LanguageModelProposer(lm, shots=[shot]).hypotheses(TASK.problem, 3, temperature=1.0, seed=2)
    (prompt,) = lm.prompts
    assert [message["role"] for message in prompt] == ["system", "user", "assistant", "user"]
    assert prompt[2]["content"] == "Rule: ten times"
    assert "[3]" in prompt[3]["content"]
    assert lm.samplings[0].max_tokens == 300
    grid = InductionProblem((([[1, 2], [3, 4]], [[1]]),), ([[1]],), "grid")
    assert "[[1, 2]\n [3, 4]]" in pairs(grid)


def test_code_is_found():
    assert code("a\n```python\nx = 1\n```\nb\n```\ny = 2\n```") == "y = 2"
    assert code("```py\nx = 1") == "x = 1"
    assert code("x = 1") == "x = 1"


@pytest.mark.parametrize("solver", [HypothesisSearch, ProgramOnly, Direct])
def test_a_prompt_that_does_not_fit_is_no_answer(sandbox, solver):
    def reply(prompt, sample):
        raise ValueError("prompt has 9000 tokens: the context is 8192 tokens")

    solution = solver(ScriptedModel(reply), sandbox=sandbox).solve(TASK.problem)
    assert solution.status == "none"

    def other(prompt, sample):
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        solver(ScriptedModel(other), sandbox=sandbox).solve(TASK.problem)


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (dict(n_hypotheses=0), ValueError, "n_hypotheses"),
        (dict(n_keep=1.5), ValueError, "n_keep"),
        (dict(n_programs=True), ValueError, "n_programs"),
        (dict(max_feedback=-1), ValueError, "max_feedback"),
        (dict(repair_at_once=0), ValueError, "repair_at_once"),
        (dict(t_hypothesis=-0.1), ValueError, "t_hypothesis"),
        (dict(t_program=float("nan")), ValueError, "t_program"),
        (dict(filter="best"), ValueError, "filter"),
        (dict(budget=3), TypeError, "budget"),
        (dict(lm="gpt"), TypeError, "lm: a str"),
    ],
)
def test_bad_arguments_are_named(sandbox, arguments, error, words):
    given = {"lm": model(None), "sandbox": sandbox, **arguments}
    with pytest.raises(error, match=words):
        HypothesisSearch(**given)


def test_programs_that_are_too_long_are_failures(sandbox):
    lm = model(lambda hint, sample: DOUBLE + "#" * 100_000)
    solution = ProgramOnly(lm, n_programs=1, sandbox=sandbox).solve(TASK.problem)
    assert solution.status == "fall-back"
    assert solution.trace[0].results[0].outcome == "refused"
