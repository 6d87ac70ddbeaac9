"""Programs in, data out: what comes back, how each limit shows, and what is refused before any work is done."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.cli import main
from etude.errors import Unavailable
from etude.sandbox import LEVELS, Limits, Sandbox, probe, same
from etude.sandbox.limits import check_data

HERE = [level for level in LEVELS if not probe(level).missing]


@pytest.fixture(scope="module", params=LEVELS)
def sandbox(request):
    if request.param not in HERE:
        pytest.skip(str(probe(request.param)))
    with Sandbox(Limits(cpu_seconds=5, wall_seconds=20), level=request.param) as made:
        yield made


def outcome(sandbox, body, value=1, **limits):
    (result,) = sandbox.run(f"def f(x):\n    {body}", "f", [value], limits=Limits(**limits) if limits else None)
    return result


# ---- values --------------------------------------------------------------------------------------------------------


def test_each_input_has_its_result(sandbox):
    results = sandbox.run("def double(x):\n    return [2 * each for each in x]", "double", [[1, 2], [], (3,)])
    assert [result.value for result in results] == [[2, 4], [], [6]]
    assert all(result.ok and result.error == "" and result.level == sandbox.level for result in results)


DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    # half a surrogate pair is no text in JSON
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(value=DATA)
def test_data_come_back_as_they_went_in(value):
    (result,) = shared().run("def f(x):\n    return x", "f", [value])
    assert same(result.value, value)
    assert repr(result.value) == repr(value)


def shared(made=[]):  # noqa: B006 - one sandbox for all examples
    if not made:
        made.append(Sandbox(Limits(depth=100), level=HERE[0]))
    return made[0]


def test_arrays_and_tuples_become_lists_and_numbers_of_numpy_numbers(sandbox):
    body = "import numpy as np; return (np.arange(4).reshape(2, 2), np.float64(0.5), np.bool_(True), np.str_('a'))"
    assert outcome(sandbox, body).value == [[[0, 1], [2, 3]], 0.5, True, "a"]


def test_libraries_are_there(sandbox):
    body = "import scipy.ndimage as n, numpy as np, math, collections, re; return n.label(np.eye(2, dtype=int))[1]"
    assert outcome(sandbox, body).value == 2


@pytest.mark.parametrize(
    "value",
    [
        "float('nan')",
        "[float('inf')]",
        "{1: 2}",
        "{1}",
        "b'x'",
        "object()",
        "lambda: 1",
        "1j",
        "type('L', (list,), {})()",
    ],
)
def test_what_is_no_data_is_refused(sandbox, value):
    result = outcome(sandbox, f"return {value}")
    assert result.outcome == "refused"
    assert result.value is None
    assert result.error


def test_nothing_is_shared_between_programs(sandbox):
    outcome(sandbox, "import math; math.pi = 3; open('note', 'w').write('x')")
    assert outcome(sandbox, "import math, os; return [math.pi, os.listdir('.')]").value == [math.pi, []]


def test_inputs_share_their_program(sandbox):
    source = "seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)"
    assert [result.value for result in sandbox.run(source, "f", [7, 7, 7])] == [1, 2, 3]


# ---- what goes wrong -----------------------------------------------------------------------------------------------


def test_an_error_shows_the_program_alone(sandbox):
    source = "def inner(x):\n    return x['a']\n\ndef f(x):\n    return inner(x)"
    (result,) = sandbox.run(source, "f", [[1]])
    assert result.outcome == "error"
    assert result.error.splitlines() == [
        "  line 5, in f: return inner(x)",
        "  line 2, in inner: return x['a']",
        "TypeError: list indices must be integers or slices, not str",
    ]


def test_an_error_of_one_input_leaves_the_others(sandbox):
    results = sandbox.run("def f(x):\n    return 1 / x", "f", [1, 0, 2])
    assert [result.outcome for result in results] == ["value", "error", "value"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def g(x): return x", "defines no f"),
        ("f = 3", "no function"),
        ("def f(x: return x", "SyntaxError"),
        ("raise KeyError('f')", "KeyError"),
        ("import absent", "absent"),
        ("import sys\nsys.exit()\ndef f(x): return x", "SystemExit"),
    ],
)
def test_a_program_that_does_not_load_is_an_error_for_each_input(sandbox, source, words):
    results = sandbox.run(source, "f", [1, 2])
    assert [result.outcome for result in results] == ["error", "error"]
    assert words in results[0].error


def test_a_long_traceback_is_cut(sandbox):
    result = outcome(sandbox, "return f(x)")
    assert "RecursionError" in result.error
    assert len(result.error.splitlines()) < 15


@pytest.mark.parametrize(
    ("body", "limits", "expected"),
    [
        ("while True: pass", dict(cpu_seconds=1, wall_seconds=60), "timeout"),
        ("import time; time.sleep(60)", dict(wall_seconds=0.3), "timeout"),
        ("return bytearray(1 << 30)", dict(memory_mb=64), "memory"),
        ("return 'x' * 100_000", dict(output_kb=50), "output"),
        ("import os; os._exit(7)", {}, "crashed"),
        ("import ctypes; ctypes.string_at(0)", {}, "crashed"),
        ("v = []\n    for _ in range(30): v = [v]\n    return v", dict(depth=10), "refused"),
        ("open('large', 'wb').write(bytes(100_000))", dict(file_kb=50), "error"),
        ("import os; os.fork()", {}, "error"),
    ],
    ids=["processor", "clock", "memory", "output", "exit", "fault", "depth", "file", "processes"],
)
def test_every_limit_has_its_outcome(sandbox, body, limits, expected):
    result = outcome(sandbox, body, **limits)
    assert result.outcome == expected
    assert result.error
    assert outcome(sandbox, "return x").ok


def test_answers_given_before_the_limit_are_kept(sandbox):
    source = "def f(x):\n    while x: pass\n    return x"
    results = sandbox.run(source, "f", [0, 1, 0], limits=Limits(wall_seconds=0.3))
    assert [result.outcome for result in results] == ["value", "timeout", "timeout"]


@pytest.mark.parametrize("source", ["#" * 3000, "x = '\ud800'"], ids=["long", "half a surrogate pair"])
def test_a_program_that_is_too_long_or_no_text_is_refused(sandbox, source):
    (result,) = sandbox.run(source, "f", [1], limits=Limits(source_kb=2))
    assert result.outcome == "refused"


def test_more_processes_can_be_allowed():
    if "bwrap" not in HERE or not probe("bwrap").filter:
        pytest.skip(str(probe("bwrap")))
    body = "import threading; t = threading.Thread(target=lambda: None); t.start(); t.join(); return 1"
    with Sandbox(level="bwrap") as sandbox:
        assert outcome(sandbox, body, processes=4).value == 1
        assert outcome(sandbox, body).outcome == "error"


# ---- processes -----------------------------------------------------------------------------------------------------


def test_threads_may_share_a_sandbox(sandbox):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: sandbox.run("def f(x):\n    return x * x", "f", [n])[0].value, range(20)))
    assert found == [n * n for n in range(20)]


def test_several_programs_at_a_time(sandbox):
    sources = [f"def f(x):\n    return x + {n % 5}" for n in range(12)]
    with Sandbox(level=sandbox.level, workers=2) as pair:
        expected = [[10 + n % 5, 20 + n % 5] for n in range(12)]
        for made in (pair, sandbox):
            assert [[r.value for r in results] for results in made.run_each(sources, "f", [10, 20])] == expected


def test_a_lost_server_is_replaced(sandbox):
    outcome(sandbox, "return x")
    os.kill(sandbox._workers[0].pid, signal.SIGKILL)
    time.sleep(0.1)
    assert outcome(sandbox, "return x", 5).value == 5


def test_a_fork_of_the_caller_leaves_its_servers_alone(sandbox):
    outcome(sandbox, "return x")
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        try:
            good = outcome(sandbox, "return x", 8).value == 8
            sandbox._workers[0].stop()
        finally:
            os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    before = sandbox._workers[0].pid
    assert outcome(sandbox, "open('x', 'w'); return x", 9).value == 9
    assert sandbox._workers[0].pid == before


def test_an_interrupted_call_leaves_no_half_answer(sandbox, monkeypatch):
    worker = sandbox._workers[0]
    outcome(sandbox, "return x")
    with monkeypatch.context() as patch:
        patch.setattr(worker, "_frame", lambda deadline: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            outcome(sandbox, "return x")
    assert outcome(sandbox, "return x", 6).value == 6


def test_nothing_is_left_when_the_caller_is_killed(sandbox, tmp_path):
    if not Path("/proc/self/comm").exists():
        pytest.skip("processes are looked up in /proc")
    tag = f"left{os.getpid() % 10**6}"
    body = f"import ctypes, os; ctypes.CDLL(None).prctl(15, b'{tag}', 0, 0, 0)\\n    while True: pass"
    program = f"""
from etude.sandbox import Limits, Sandbox
long = Limits(cpu_seconds=600, wall_seconds=600)
Sandbox(level={sandbox.level!r}).run("def f(x):\\n    {body}", "f", [1], limits=long)
"""
    caller = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )

    def running():
        return [p for p in Path("/proc").glob("[0-9]*/comm") if p.read_text(errors="ignore").strip() == tag]

    try:
        assert eventually(lambda: quietly(running))
    finally:
        caller.kill()
        caller.wait()
    assert eventually(lambda: quietly(running) == [])


def quietly(look):
    try:
        return look()
    except OSError:  # a process ended while it was looked at
        return None


def eventually(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_a_closed_sandbox_says_so():
    sandbox = Sandbox(level=HERE[-1])
    sandbox.close()
    sandbox.close()
    with pytest.raises(ValueError, match="closed"):
        sandbox.run("def f(x): return x", "f", [1])


def test_a_program_that_cannot_be_confined_is_not_run(tmp_path):
    with Sandbox(level="subprocess") as sandbox:
        outcome(sandbox, "return x")
        shutil.rmtree(sandbox._workers[0]._folder)
        tmp_path.chmod(0o777)
        result = outcome(sandbox, f"open({str(tmp_path / 'ran')!r}, 'w')")
        assert result.outcome == "refused"
        assert "not run" in result.error
        assert not (tmp_path / "ran").exists()
        assert outcome(sandbox, "return x").ok


# ---- levels --------------------------------------------------------------------------------------------------------


def test_the_level_is_what_was_found_by_trying(sandbox):
    found = probe(sandbox.level)
    assert sandbox.isolation == found
    assert found.level in str(found)
    if sandbox.level == "bwrap":
        assert found.network
        assert found.files
        assert found.processes


def test_a_level_that_is_not_reached_is_refused_with_the_remedy(monkeypatch):
    probe.cache_clear()
    monkeypatch.setattr("etude.sandbox.isolation.shutil.which", lambda name: None)
    try:
        with pytest.raises(Unavailable, match=r"bwrap is not installed.*Install bubblewrap"):
            Sandbox(minimum="bwrap")
        with pytest.raises(Unavailable, match="bwrap"):
            Sandbox(level="bwrap")
        assert Sandbox().level == "subprocess"
    finally:
        probe.cache_clear()


def test_a_bubblewrap_that_fails_is_named(monkeypatch, tmp_path):
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'setting up uid map: Permission denied' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = probe.__wrapped__("bwrap")
    assert "uid map: Permission denied" in found.missing
    assert not found.network


def test_the_doctor_says_which_levels_are_reached(capsys):
    assert main(["doctor", "--json"]) == 0
    found = {level["level"]: level for level in json.loads(capsys.readouterr().out)["sandbox"]}
    assert list(found) == list(LEVELS)
    for level in LEVELS:
        assert found[level]["reached"] is (level in HERE)
        assert found[level]["text"] == str(probe(level))
    assert main(["doctor"]) == 0
    assert HERE[0] in capsys.readouterr().out


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (dict(source=3), TypeError, "source"),
        (dict(entry=3), TypeError, "entry"),
        (dict(entry="a b"), ValueError, "entry"),
        (dict(inputs=[]), ValueError, "inputs: none"),
        (dict(inputs="text"), TypeError, "inputs"),
        (dict(inputs={1: 2}), TypeError, "inputs"),
        (dict(inputs=[1, {2}]), TypeError, r"inputs\[1\]: a set"),
        (dict(inputs=[float("nan")]), ValueError, r"inputs\[0\]: nan"),
        (dict(inputs=[np.int64(1)]), TypeError, "int64"),
        (dict(inputs=[{1: 2}]), TypeError, "key"),
        (dict(inputs=["\ud800"]), ValueError, "surrogate"),
        (dict(limits=3), TypeError, "limits"),
    ],
)
def test_bad_arguments_are_named(sandbox, arguments, error, words):
    given = {"source": "def f(x): return x", "entry": "f", "inputs": [1], **arguments}
    with pytest.raises(error, match=words):
        sandbox.run(**given)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (dict(limits={}), TypeError, "limits"),
        (dict(level="docker"), ValueError, "level: 'docker'"),
        (dict(minimum="none"), ValueError, "minimum: 'none'"),
        (dict(level="subprocess", minimum="bwrap"), ValueError, "weaker"),
        (dict(workers=0), ValueError, "workers"),
        (dict(workers=1.5), TypeError, "workers"),
    ],
)
def test_bad_sandboxes_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        Sandbox(**arguments)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("cpu_seconds", 0, ValueError),
        ("cpu_seconds", float("nan"), ValueError),
        ("wall_seconds", -1, ValueError),
        ("wall_seconds", "5", TypeError),
        ("memory_mb", 0, ValueError),
        ("memory_mb", 1.5, TypeError),
        ("output_kb", True, TypeError),
        ("file_kb", -1, ValueError),
        ("processes", 0, ValueError),
        ("depth", 201, ValueError),
        ("source_kb", 0, ValueError),
    ],
)
def test_limits_out_of_range_are_named(name, value, error):
    with pytest.raises(error, match=name):
        Limits(**{name: value})


def test_equality_of_data():
    assert same([1, {"a": (2, 3)}], [1.0, {"a": [2, 3]}])
    assert not same([True], [1])
    assert not same(0, False)
    assert not same([1, 2], [1])
    assert not same({"a": 1}, {"a": 1, "b": 2})
    assert not same("1", 1)
    assert not same(None, 0)


def test_subclasses_are_no_data():
    for value in (type("I", (int,), {})(1), type("S", (str,), {})("a"), type("L", (list,), {})()):
        with pytest.raises(TypeError, match="value"):
            check_data(value, 5, "value")
