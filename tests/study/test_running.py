"""Whole runs: what is measured, what is reused, what becomes of faults."""

import contextlib
import itertools
import json
import random
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from etude.errors import EtudeError, MissingExtra
from etude.study import store as store_module
from etude.study.definition import ConfigError
from etude.study.running import Interrupted, refresh
from etude.study.store import Store, StoreError
from study_files import BODY, HEAD


def run(study, store, config="smoke", **options):
    return study.run(config, store=store, **{"engine": "inline", "progress": False} | options)


def reused(evidence):
    return [trial.reused for trial in evidence.trials]


def test_rows_carry_cell_and_seed_and_cells_share_their_random_numbers(write_study, store):
    evidence = run(write_study(), store)
    frame = evidence["draw"].frame
    assert list(frame.columns) == ["value", "arm", "seed"]
    assert sorted(zip(frame.arm, frame.seed)) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    a, b = (frame[frame.arm == arm].sort_values("seed").value.to_numpy() for arm in "ab")
    np.testing.assert_array_equal(a, b)
    assert a[0] != a[1]


def test_seed_zero_of_every_cell_comes_first(write_study, store):
    assert [trial.seed for trial in run(write_study(), store).trials] == [0, 0, 1, 1]


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_engines_give_the_same_evidence_bit_for_bit(write_study, tmp_path, engine):
    study = write_study()
    one = run(study, tmp_path / "one", engine="inline")
    other = run(study, tmp_path / "other", engine=engine, workers=2)
    pd.testing.assert_frame_equal(one["draw"].frame, other["draw"].frame, check_exact=True)


def test_running_in_this_process_leaves_it_as_it_was(write_study, store):
    def state():
        drawn = torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002
        return drawn, torch.get_num_threads(), torch.get_default_dtype()

    def seeded():
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)

    seeded()
    expected = state()
    seeded()
    run(write_study(), store)
    assert state() == expected


def test_a_trial_is_not_moved_by_what_the_one_before_did_to_global_state(write_study, store):
    body = """
    @study.measure()
    def draw(lab, config):
        lab.record(value=float(torch.rand(1)), numpy=float(np.random.rand()), dtype=str(torch.get_default_dtype()))
        torch.set_default_dtype(torch.float64)
        torch.rand(lab.seed)
    """
    study = write_study(body, head=HEAD.replace("import numpy as np", "import torch, numpy as np"))
    together = run(study, store, engine="local", seeds=3, workers=1)["draw"].frame
    alone = run(study, store.with_name("other"), engine="local", seeds=3, workers=3)["draw"].frame
    pd.testing.assert_frame_equal(together, alone, check_exact=True)
    assert set(together.dtype) == {"torch.float32"}


def test_a_second_run_reuses_everything_and_a_larger_one_only_adds(write_study, store):
    study = write_study()
    assert reused(run(study, store)) == [False] * 4
    assert reused(run(study, store)) == [True] * 4
    more = run(study, store, seeds=3)
    assert sorted(reused(more)) == [False] * 2 + [True] * 4


def test_only_the_fields_a_trial_read_are_part_of_its_key(write_study, store):
    study = write_study()
    run(study, store)
    small = study.presets["smoke"]
    assert all(reused(run(study, store, small.updated(other="y"))))
    shifted = run(study, store, small.updated(shift=1.0))
    # Arm a does not look at the shift.
    assert [(trial.cell["arm"], trial.reused) for trial in shifted.trials] == [("a", True), ("b", False)] * 2
    assert not any(reused(run(study, store, small.updated(size=4))))


@pytest.mark.parametrize(
    ("old", "new", "stale"),
    [
        ('"""The second arm is higher."""', '"""Reworded."""', False),
        ("> 0\n", "> 1\n", False),
        ("size=config.size)", "size=config.size)  # a comment", False),
        ("x.mean()", "np.median(x)", True),
        ("def draw(lab, config, *, arm):", "def draw(lab: Lab, config: Config, *, arm: str) -> None:", False),
    ],
)
def test_what_makes_a_trial_stale(write_study, store, old, new, stale):
    run(write_study(name="edited"), store)
    assert old in BODY
    study = write_study(BODY.replace(old, new), name="edited")
    with pytest.warns(UserWarning, match="stale") if stale else contextlib.nullcontext():
        assert reused(run(study, store)) == [not stale] * 4


@pytest.mark.filterwarnings("error")
def test_refresh_carries_trials_over_a_change_without_effect_and_only_those(write_study, store):
    run(write_study(name="refreshed"), store)
    same = write_study(BODY.replace("x.mean()", "np.mean(x)"), name="refreshed")
    outcomes = refresh(same, "smoke", store=store, engine="inline", progress=False)
    assert [(r.outcome, r.trials) for r in outcomes] == [("carried", 2), ("carried", 2)]
    evidence = run(same, store)  # warns of nothing: warnings are errors in this test
    assert all(reused(evidence))
    assert [trial.spot_checked for trial in evidence.trials] == [False, False, True, True]
    warnings.simplefilter("ignore")
    other = write_study(BODY.replace("x.mean()", "x.sum()"), name="refreshed")
    assert {r.outcome for r in refresh(other, "smoke", store=store, engine="inline", progress=False)} == {"changed"}
    assert reused(run(other, store)) == [True, True, False, False]  # seed 0 was measured by the check


def test_stale_trials_are_named_with_what_changed(write_study, store):
    helped = BODY.replace("x.mean()", "centre(x)") + "\n\ndef centre(x):\n    return x.mean()\n"
    run(write_study(helped, name="named"), store)
    study = write_study(helped.replace("return x.mean()", "return np.median(x)"), name="named")
    with pytest.warns(
        UserWarning, match=r"4 stored trials of draw: stale \(named:centre changed\).*etude refresh named"
    ):
        run(study, store)


def test_the_key_of_a_referenced_object_counts(write_study, store, tmp_path):
    body = """
    @study.measure()
    def use(lab, config):
        lab.record(value=config.model.resolve()(2))
    """
    head = HEAD.replace('    other: str = "x"\n', '    model: Reference = Reference("users_model:double")\n')
    module = tmp_path / "users_model.py"
    module.write_text("def double(x):\n    return 2 * x\n")
    sys.path.insert(0, str(tmp_path))
    study = write_study(body, head=head, name="with_reference")
    assert run(study, store)["use"].frame.value.tolist() == [4, 4]
    assert all(reused(run(study, store)))
    module.write_text("def double(x):\n    return x + x + 0\n")
    assert not any(reused(run(study, store)))
    with pytest.raises(ConfigError, match="doubel"):
        study.presets["smoke"].updated(model="users_model:doubel")


# ---- faults: each is told, and loses nothing that was finished -------------------------------------------------------

FAULTY = '''
@study.measure(over=lambda c: grid(way=("fine", "raises", "silent", "not a number", "absent")))
def behave(lab, config, *, way):
    if way == "raises":
        raise RuntimeError("broken on purpose")
    if way == "absent":
        raise MissingData("the set is not here", "Put it there")
    if way != "silent":
        lab.record(value=np.nan if way == "not a number" else float(lab.seed))


@study.measure()
def sound(lab, config):
    lab.record(value=1.0 + lab.seed / 100)


@study.claim(reported="")
def from_the_faulty(e):
    """Faulty."""
    return mean(e[behave].at(way="fine")["value"]) > 0


@study.claim(reported="")
def from_the_sound(e):
    """Sound."""
    return mean(e[sound]["value"]) > 0


@study.claim(reported="", when=lambda c: "too small" if c.size < 100 else True)
def from_the_large(e):
    """Large."""
    return mean(e[sound]["value"]) > 0


@study.claim(reported="")
def with_a_fault(e):
    """Wrong."""
    return mean(e[sound]["valu"]) > 0
'''


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_faults_are_told_and_the_other_claims_are_judged(write_study, store, engine):
    study = write_study(FAULTY)
    evidence = run(study, store, seeds=3, engine=engine)
    assert sorted((f.cell["way"], f.error.partition(":")[0]) for f in evidence.failures) == sorted(
        [("raises", "RuntimeError")] * 3 + [("silent", "it recorded nothing")] * 3
    )
    assert "broken on purpose" in next(f.log for f in evidence.failures if f.cell["way"] == "raises")
    verdicts = {verdict.claim: verdict for verdict in study.judge(evidence)}
    assert verdicts["from-the-faulty"].status == "untested"
    assert "6 of 15 trials failed" in verdicts["from-the-faulty"].why
    assert verdicts["from-the-sound"].status == "holds"
    assert (verdicts["from-the-large"].status, verdicts["from-the-large"].why) == ("untested", "too small")
    assert verdicts["with-a-fault"].error
    assert "value" in verdicts["with-a-fault"].why


def test_what_is_not_a_number_leaves_its_claim_undecided(write_study, store):
    study = write_study('''
    @study.measure()
    def nothing(lab, config):
        lab.record(value=float("nan"))

    @study.claim(reported="")
    def something(e):
        """Something."""
        return mean(e[nothing]["value"]) > 0
    ''')
    (verdict,) = study.judge(run(study, store, seeds=3))
    assert verdict.status == "undecided"
    assert "not finite" in verdict.why


def test_unavailable_measurements_leave_their_claims_untested_with_the_remedy(write_study, store):
    study = write_study('''
    @study.measure()
    def absent(lab, config):
        raise MissingData("the set is not here", "Put it there")

    @study.measure(since="extended")
    def later(lab, config):
        lab.record(value=1.0)

    @study.claim(reported="")
    def first(e):
        """First."""
        return mean(e[absent]["value"]) > 0

    @study.claim(reported="")
    def second(e):
        """Second."""
        return mean(e[later]["value"]) > 0
    ''')
    evidence = run(study, store, "laptop")
    first, second = study.judge(evidence)
    assert (first.status, second.status) == ("untested", "untested")
    assert "Put it there" in first.why
    assert "--preset extended" in second.why
    assert not evidence.failures


DYING = """
@study.measure()
def die(lab, config):
    mark = Path(os.environ["MARKS"]) / f"died-{lab.seed}"
    if lab.seed == 1 and (config.other == "always" or not mark.exists()):
        mark.write_text("x")
        os.kill(os.getpid(), 9)
    lab.record(value=1.0 + lab.seed)
"""


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_worker_that_dies_is_replaced_once_and_then_reported(write_study, store, tmp_path, monkeypatch, engine):
    monkeypatch.setenv("MARKS", str(tmp_path))
    study = write_study(DYING)
    with pytest.warns(UserWarning, match="tried once more"):
        evidence = run(study, store, engine=engine, seeds=3, workers=2)
    assert evidence["die"].frame.value.tolist() == [1.0, 2.0, 3.0]
    always = study.presets["smoke"].updated(other="always", seeds=3)
    with pytest.warns(UserWarning, match="tried once more"):
        evidence = run(study, store, always, engine=engine, workers=2)
    (failure,) = evidence.failures
    assert failure.seed == 1
    assert "SIGKILL" in failure.error or "died" in failure.error
    assert [trial.seed for trial in evidence.trials] == [0, 2]


def test_workers_refuse_code_that_is_not_the_drivers(write_study, store):
    study = write_study(name="swapped")
    plan_key = study.measurements["draw"].address
    path = Path(study.path)
    import etude.study.running as running

    original = running.code_key
    try:
        running.code_key = lambda target: "0" * 64 if target == plan_key else original(target)
        evidence = run(study, store, engine="local")
    finally:
        running.code_key = original
    assert path.exists()
    assert len(evidence.failures) == 4
    assert "not the code the run was started with" in evidence.failures[0].error
    assert list((store / "trials").rglob("trial.json")) == []


def test_a_full_disk_is_named_and_keeps_what_was_finished(write_study, store, monkeypatch):
    study = write_study()
    real, calls = store_module._write, itertools.count()

    def write(path, data, durable=False):
        if durable and next(calls) >= 3:  # the second trial's files
            raise OSError(28, "No space left on device")
        real(path, data, durable)

    monkeypatch.setattr(store_module, "_write", write)
    with pytest.raises(StoreError, match="disk is full"):
        run(study, store)
    monkeypatch.undo()
    assert list((store / "incoming").iterdir()) == []
    assert Store(store).check() == []
    assert sorted(reused(run(study, store))) == [False] * 3 + [True]


def test_a_store_that_cannot_be_written_is_refused_before_any_work(write_study, tmp_path, monkeypatch):
    study = write_study()
    occupied = tmp_path / "file"
    occupied.write_text("x")
    with pytest.raises(StoreError, match="is a file"):
        run(study, occupied)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="holds other things"):
        run(study, other)
    monkeypatch.setattr(Path, "mkdir", lambda *a, **k: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    with pytest.raises(StoreError, match="cannot be written"):
        run(study, tmp_path / "readonly")


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("rows.parquet", lambda data: data[:-10]),
        ("rows.parquet", lambda data: b""),
        ("trial.json", lambda data: data[: len(data) // 2]),
        ("trial.json", lambda data: data.replace(b'"seed": 0', b'"seed": 7')),
    ],
)
def test_damaged_entries_are_named_and_measured_again(write_study, store, file, damage):
    study = write_study()
    first = run(study, store)
    victim = next(
        path for path in (store / "trials").rglob(file) if b'"seed": 0' in (path.parent / "trial.json").read_bytes()
    )
    victim.write_bytes(damage(victim.read_bytes()))
    (problem,) = Store(store).check()
    assert problem.path == victim.parent
    with pytest.warns(UserWarning, match=victim.parent.name):
        again = run(study, store)
    assert reused(again).count(False) == 1
    pd.testing.assert_frame_equal(first["draw"].frame, again["draw"].frame, check_exact=True)
    assert Store(store).check() == []


def test_a_missing_extra_is_told_before_any_work(write_study, store):
    head = HEAD.replace('topic="testing",', 'topic="testing", extras=("cluster",),')
    study = write_study(head=head)
    import etude.study.running as running

    real = running.importlib.metadata.version

    def version(name):
        if name == "ray":
            raise running.importlib.metadata.PackageNotFoundError(name)
        return real(name)

    running.importlib.metadata.version = version
    try:
        with pytest.raises(MissingExtra, match=r"etude\[cluster\]"):
            run(study, store)
    finally:
        running.importlib.metadata.version = real
    assert not store.exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"config": "laptob"}, "Did you mean 'laptop'"),
        ({"only": "drew"}, "Did you mean 'draw'"),
        ({"engine": "rai"}, "Did you mean 'ray'"),
        ({"workers": 0}, "at least 1"),
    ],
)
def test_bad_options_are_refused_before_any_work(write_study, store, options, told):
    with pytest.raises(EtudeError, match=told):
        run(write_study(), store, **options)
    assert not list(store.glob("trials/*"))


# ---- interruptions ---------------------------------------------------------------------------------------------------

SLOW = """
@study.measure(over=lambda c: grid(arm=("a", "b")))
def draw(lab, config, *, arm):
    with open(os.environ["MARKS"], "a") as marks:
        marks.write(f"{arm}{lab.seed}\\n")
    time.sleep(0.05)
    shared = lab.cached(expensive)(seed=lab.seed)
    lab.record(value=shared + float(lab.generator("numbers", "numpy").normal()))
    lab.save("note.txt", arm * 100_000)


def expensive(seed):
    return 10.0 * seed
"""

DRIVE = """
import sys
from etude.study.engines.trial import import_study
study = import_study(sys.argv[1], sys.argv[2])
study.run("laptop", store=sys.argv[3], workers=2, progress=False, seeds=3)
"""


def test_a_killed_run_loses_and_repeats_nothing_that_was_finished(write_study, tmp_path, monkeypatch):
    """SIGKILL at random moments; the slow suite does it fifty times."""
    _kill_often(write_study, tmp_path, monkeypatch, times=6)


@pytest.mark.slow
def test_a_run_killed_fifty_times_ends_with_the_same_evidence(write_study, tmp_path, monkeypatch):
    _kill_often(write_study, tmp_path, monkeypatch, times=50)


def _kill_often(write_study, tmp_path, monkeypatch, times):
    """Kill a run at random moments, go on from what it left, and take a new store whenever a run got through."""
    marks = tmp_path / "marks"
    monkeypatch.setenv("MARKS", str(marks))
    study = write_study(SLOW)

    def drive(store):
        command = [sys.executable, "-c", DRIVE, study.module, str(study.path), str(store)]
        return subprocess.Popen(command, start_new_session=True)

    start = time.monotonic()
    assert drive(tmp_path / "undisturbed").wait() == 0
    duration = time.monotonic() - start
    expected = run(study, tmp_path / "undisturbed", "laptop", seeds=3)["draw"].frame
    rng = np.random.default_rng(0)
    killed = number = 0
    while killed < times:
        store = tmp_path / f"store-{number}"
        before = {path.name for path in Store(store).entries()}
        finished = {
            f"{about['cell']['arm']}{about['seed']}"
            for about in (json.loads(path.read_bytes()) for path in store.glob("trials/*/*/*/trial.json"))
        }
        marks.write_text("")
        process = drive(store)
        try:
            assert process.wait(timeout=float(rng.uniform(0, duration))) == 0
            number += 1
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        assert before <= {path.name for path in Store(store).entries()}
        assert Store(store).check() == []
        assert not finished & set(marks.read_text().split())
    for left in range(number + 1):
        evidence = run(study, tmp_path / f"store-{left}", "laptop", seeds=3)
        pd.testing.assert_frame_equal(evidence["draw"].frame, expected, check_exact=True)


def test_ctrl_c_leaves_a_resumable_run_and_says_so(write_study, store, monkeypatch):
    study = write_study()
    monkeypatch.setattr("etude.study.engines.trial.perform", _interrupting(itertools.count(), after=2), raising=True)
    with pytest.raises(Interrupted, match="2 of 4 trials are finished"):
        run(study, store)
    monkeypatch.undo()
    assert sorted(reused(run(study, store))) == [False, False, True, True]


def _interrupting(counter, after):
    from etude.study.engines.trial import perform

    def interrupted(task, exchange):
        if next(counter) >= after:
            raise KeyboardInterrupt
        return perform(task, exchange)

    return interrupted


def test_two_runs_at_once_wait_for_each_other_and_compute_everything_once(write_study, tmp_path, monkeypatch):
    marks = tmp_path / "marks"
    monkeypatch.setenv("MARKS", str(marks))
    marks.write_text("")
    study = write_study(SLOW)
    command = [sys.executable, "-c", DRIVE, study.module, str(study.path), str(tmp_path / "store")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert sorted(marks.read_text().split()) == [f"{arm}{seed}" for arm in "ab" for seed in range(3)]


# ---- shared work -----------------------------------------------------------------------------------------------------

SHARING = """
@study.measure(over=lambda c: grid(arm=("a", "b", "c")))
def share(lab, config, *, arm):
    lab.record(value=float(lab.cached(train)(size=config.size, seed=lab.seed)["w"].sum()))
    lab.checkpoint.save({"step": 1})


def train(size, seed):
    with open(os.environ["MARKS"], "a") as marks:
        marks.write(f"{seed}\\n")
    time.sleep(0.2)
    return {"w": np.full(size, seed, dtype=np.float32)}
"""


@pytest.mark.parametrize("engine", ["inline", "local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_cached_function_runs_once_however_many_ask_at_once(write_study, store, tmp_path, monkeypatch, engine):
    marks = tmp_path / "marks"
    monkeypatch.setenv("MARKS", str(marks))
    study = write_study(SHARING)
    evidence = run(study, store, engine=engine, workers=3)
    assert sorted(marks.read_text().split()) == ["0", "1"]
    assert sorted(evidence["share"].frame.value) == [0.0] * 3 + [3.0] * 3
    assert list((store / "checkpoints").iterdir()) == []


def test_a_trial_goes_on_from_its_checkpoint(write_study, store):
    study = write_study("""
    @study.measure(seeds=1)
    def climb(lab, config):
        state = lab.checkpoint.load() or {"step": 0, "x": np.zeros(2)}
        for step in range(state["step"], 4):
            state = {"step": step + 1, "x": state["x"] + 1}
            lab.checkpoint.save(state)
            if step == 1 and config.other == "x" and not (marker := Path(__file__).with_suffix(".mark")).exists():
                marker.write_text("x")
                raise RuntimeError("stopped half-way")
        lab.record(value=float(state["x"][0]), first=float(step))
    """)
    assert len(run(study, store).failures) == 1
    assert len(list((store / "checkpoints").iterdir())) == 1
    assert run(study, store)["climb"].frame.value.tolist() == [4.0]
    assert list((store / "checkpoints").iterdir()) == []


def test_saved_values_come_back(write_study, store):
    study = write_study("""
    @study.measure(over=lambda c: grid(arm=("a", "b")))
    def keep(lab, config, *, arm):
        lab.record(value=1.0)
        lab.save("picture.svg", f"<svg>{arm}</svg>")
        lab.save("weights", {"w": np.arange(3.0), "table": pd.DataFrame({"x": [1, 2]})})
    """)
    evidence = run(study, store)
    assert evidence.saved("keep", "picture.svg", arm="b") == b"<svg>b</svg>"
    weights = evidence.saved("keep", "weights", seed=1, arm="a")
    np.testing.assert_array_equal(weights["w"], np.arange(3.0))
    assert weights["table"].x.tolist() == [1, 2]


def test_until_decided_stops_at_the_first_look_that_decides(write_study, tmp_path):
    study = write_study()
    clear = study.presets["laptop"].updated(shift=5.0)
    evidence = run(study, tmp_path / "clear", clear, until_decided=True)
    assert evidence.config.seeds == 5
    body = BODY.replace("config.shift if arm", "lab.generator('noise', 'numpy').normal() if arm")
    unclear = run(write_study(body), tmp_path / "unclear", "laptop", until_decided=True)
    assert unclear.config.seeds in (10, 20)
    (verdict,) = study.judge(evidence)
    assert verdict.estimates[0].alpha == pytest.approx(0.05 / 3)
    noisy = write_study(BODY.replace("(config.shift if", "(config.shift + lab.generator('n', 'numpy').normal() if"))
    clear = noisy.presets["laptop"].updated(shift=5.0)
    assert run(noisy, tmp_path / "noisy", clear, until_decided=True).config.seeds == 5
    assert run(noisy, tmp_path / "noisy", clear, until_decided=True, alpha=1e-8).config.seeds in (10, 20)
    with pytest.raises(ValueError, match="alpha=1"):
        run(study, tmp_path / "never", clear, until_decided=True, alpha=1)
    assert not (tmp_path / "never").exists()


@pytest.mark.slow
def test_ray_gives_the_same_evidence_as_this_process(write_study, tmp_path):
    study = write_study()
    one = run(study, tmp_path / "one", engine="inline")
    other = run(study, tmp_path / "other", engine="ray", workers=2)
    pd.testing.assert_frame_equal(one["draw"].frame, other["draw"].frame, check_exact=True)
