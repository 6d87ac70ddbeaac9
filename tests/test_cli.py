import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import hypothesis.strategies as st
import pytest
from hypothesis import given

from etude import __version__
from etude.cli import main
from etude.cli.options import UsageError, configured, parse
from etude.study import Config


class Written(Config):
    count: int = 0
    scale: float = 1.0
    mirrored: bool = False
    limit: float | None = None
    sizes: tuple[int, ...] = ()
    data: Literal["digits", "mnist"] = "digits"


MINE = '''\
"""Is the mean of a larger sample nearer to zero?

Draw samples of two sizes.
"""
import time
from typing import Literal

import numpy as np

from etude.study import Config, Evidence, Lab, MissingData, Paper, Rule, Study, grid, mean


class Protocol(Config):
    kind: Literal["normal", "uniform"] = "normal"
    """What is drawn, 100 % of it."""
    sizes: tuple[int, ...] = (10, 1_000)
    scale: float = 1.0
    mirrored: bool = False
    fail_at: int = -1
    pause: float = 0.0
    workers: int = 1


study = Study(
    paper=Paper("Ars conjectandi", "Bernoulli", 1713, "1713.00001"),
    topic="statistics",
    presets={"smoke": Protocol(seeds=2), "laptop": Protocol(), "extended": Protocol(seeds=10, scale=2.0)},
)


@study.measure(over=lambda c: grid(size=c.sizes))
def sample_means(lab: Lab, config: Protocol, *, size: int) -> None:
    """Distances of sample means from zero."""
    if lab.seed == config.fail_at:
        raise ValueError("as it was told to")
    time.sleep(config.pause)
    draw = lab.generator("draw", "numpy")
    lab.record(distance=abs(float(np.mean(draw.normal(scale=config.scale, size=size)))))


@study.measure(seeds=1)
def absent(lab: Lab, config: Protocol) -> None:
    """A measurement whose data nobody has."""
    raise MissingData("The set nobody-has is not here", "Look elsewhere")


@study.claim(reported="the square root law", deviation="two sizes only")
def larger_samples_are_nearer(e: Evidence[Protocol]) -> Rule:
    """The mean of the larger sample is nearer to zero."""
    t = e[sample_means]
    return mean(t.at(size=10)["distance"] - t.at(size=1_000)["distance"]) > 0


@study.claim(reported="nothing")
def needs_data(e: Evidence[Protocol]) -> Rule:
    """It needs the data."""
    return mean(e[absent]["x"]) > 0
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the study mine.py, a store of its own and an import system that forgets it afterwards."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ETUDE_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("mine", None)


def etude(*words, **options):
    """Run the real program."""
    command = [sys.executable, "-m", "etude", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def run_inline(*words):
    return main(["run", "./mine.py", "--engine", "inline", *words])


def imported_by(*words):
    """Which heavy packages a command imports."""
    script = (
        "import sys; from etude.cli import main\n"
        f"try: main({list(words)!r})\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'pandas', 'pydantic', 'rich') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return json.loads(done.stderr.splitlines()[-1].replace("'", '"'))


# Describing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["list"], ["show", "./mine.py"], ["run", "./mine.py", "--help"], ["--version"]])
def test_describing_imports_nothing_heavy(folder, words):
    assert imported_by(*words) == []


def test_doctor_does_not_import_torch(folder):
    assert "torch" not in imported_by("doctor", "--json")


def test_doctor_says_which_language_models_are_ready(monkeypatch, capsys):
    monkeypatch.setenv("ETUDE_LLM_BASE_URL", "https://example.org/v1")
    monkeypatch.setenv("ETUDE_LLM_API_KEY", "sk-secret")
    assert main(["doctor", "--json"]) == 0
    told = capsys.readouterr().out
    assert "sk-secret" not in told
    models = json.loads(told)["language_models"]
    assert set(models) == {"local", "local:PATH", "endpoint:NAME", "recorded:PATH"}
    assert models["local"].endswith(".gguf") or "pip install" in models["local"]
    assert models["endpoint:NAME"].startswith("configured by") or "pip install" in models["endpoint:NAME"]
    monkeypatch.delenv("ETUDE_LLM_API_KEY")
    main(["doctor"])
    told = capsys.readouterr().out
    assert "Language models" in told
    assert "set ETUDE_LLM_API_KEY" in told or "lacks openai" in told


def test_list_names_studies_and_files_that_are_none(folder, monkeypatch, capsys):
    (folder / "broken.py").write_text("x = (")
    monkeypatch.setenv("ETUDE_STUDIES", str(folder))
    assert main(["list"]) == 0
    told = capsys.readouterr().out
    assert "Is the mean of a larger sample nearer to zero?" in told
    assert "broken.py: line 1" in " ".join(told.split())  # lines are wrapped where the path happens to end
    assert "\033" not in told
    assert main(["list", "--topic", "statistics", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listed if not entry["problem"]] == ["mine"]
    assert "broken" in [entry["name"] for entry in listed]
    assert main(["list", "--topic", "statistic"]) == 2
    assert "Did you mean 'statistics'?" in capsys.readouterr().err


def test_show_tells_presets_measurements_and_claims(folder, capsys):
    assert main(["show", "./mine.py"]) == 0
    told = capsys.readouterr().out
    for part in ("Ars conjectandi", "1713", "extended", "sample_means", "larger-samples-are-nearer", "two sizes only"):
        assert part in told
    assert main(["show", "./mine.py", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["presets"]["extended"] == {"seeds": "10", "scale": "2.0"}
    assert shown["ledger"] is None


def test_help_of_a_study_names_its_fields_with_defaults_and_presets(folder, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", "./mine.py", "--help"])
    assert stop.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "--kind {normal,uniform}" in told
    assert "What is drawn, 100 % of it. (default 'normal')" in told
    assert "--sizes [INT ...]" in told
    assert "default 1.0; extended 2.0" in told
    assert "--config-workers INT" in told


def test_output_that_nobody_reads_is_no_fault(folder):
    program = f"{sys.executable} -m etude list --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert done.returncode in (0, 141)
    assert "Traceback" not in done.stderr


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"etude {__version__}\n"


# Refusing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Name a command."),
        (["rnu"], "Did you mean 'run'?"),
        (["--jsn"], "no option --jsn"),
        (["run"], "STUDY"),
        (["run", "--preset", "smoke"], "STUDY"),
        (["run", "mine"], "Did you mean './mine.py'?"),
        (["run", "./absent.py"], "no study file ./absent.py"),
        (["run", "./mine.py", "--szies", "3"], "Did you mean '--sizes'?"),
        (["run", "./mine.py", "--kind", "nromal"], "Did you mean 'normal'?"),
        (["run", "./mine.py", "--scale", "much"], "--scale much: Input should be a valid number"),
        (["run", "./mine.py", "--sizes", "1", "x"], "--sizes 1 x: Input should be a valid integer"),
        (["run", "./mine.py", "--mirrored", "perhaps"], "--mirrored perhaps: Input should be a valid boolean"),
        (["run", "./mine.py", "--seeds", "0"], "'0' is no whole number from 1 on"),
        (["run", "./mine.py", "--alpha", "2"], "'2' is no number between 0 and 1"),
        (["run", "./mine.py", "--preset", "smok"], "Did you mean 'smoke'?"),
        (["run", "./mine.py", "--only", "sample-mean"], "Did you mean 'sample_means'?"),
        (["run", "./mine.py", "--engine", "lokal"], "lokal"),
        (["store"], "etude store"),
        (["store", "size", "--store", "mine.py"], "mine.py is a file"),
        (["ledger", "scoreboard"], "README.md"),
    ],
)
def test_what_is_given_wrongly_is_told_in_one_line_with_exit_code_2(folder, capsys, words, told):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error
    assert not (folder / "store").exists()


def test_the_debug_variable_shows_the_traceback(folder, capsys, monkeypatch):
    monkeypatch.setenv("ETUDE_DEBUG", "1")
    assert main(["run", "mine"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_fault_is_told_apart_from_a_difference(folder, capsys, monkeypatch):
    monkeypatch.setattr("etude.cli.describe.list_studies", lambda options: 1 / 0)
    assert main(["list"]) == 70
    assert "ZeroDivisionError" in capsys.readouterr().err


# Configurations from words -------------------------------------------------------------------------------------------


def test_words_become_values_of_the_declared_types():
    from etude.study import Config

    class Kinds(Config):
        numbers: tuple[int, ...] = ()
        pairs: tuple[tuple[int, int], ...] = ()
        names: list[str] = []  # noqa: RUF012 - a pydantic field
        level: Literal[1, 2] | None = 1
        levels: tuple[Literal[1, 2], ...] = ()
        limit: float | None = 1.0
        flag: bool = False
        text: str = ""
        sizes: dict[str, int] = {}  # noqa: RUF012 - a pydantic field

    words = {
        "numbers": ["1", "2_000"],
        "pairs": ["(1, 2)", "[3, 4]"],
        "names": ["none", "(1, 2)"],
        "level": "2",
        "levels": ["2", "1"],
        "limit": "none",
        "flag": "true",
        "text": "none",
        "sizes": "{'a': 1}",
    }
    assert configured(Kinds(), words) == Kinds(
        numbers=(1, 2_000),
        pairs=((1, 2), (3, 4)),
        names=["none", "(1, 2)"],
        level=2,
        levels=(2, 1),
        limit=None,
        flag=True,
        text="none",
        sizes={"a": 1},
    )
    assert configured(Kinds(), {"level": "none", "limit": "1e-3", "numbers": []}) == Kinds(level=None, limit=1e-3)
    with pytest.raises(UsageError, match="--levels 3"):
        configured(Kinds(), {"levels": ["3"]})


@given(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.integers()),
    st.sampled_from(["digits", "mnist"]),
)
def test_what_is_written_as_text_means_the_value(count, scale, mirrored, limit, sizes, data):
    meant = Written(count=count, scale=scale, mirrored=mirrored, limit=limit, sizes=tuple(sizes), data=data)
    fields = {name: getattr(meant, name) for name in ("count", "scale", "mirrored", "limit", "data")}
    texts = {name: repr(value) if isinstance(value, float) else str(value) for name, value in fields.items()}
    assert configured(Written(), texts | {"sizes": [str(size) for size in sizes]}) == meant


def test_a_field_is_given_in_either_spelling(folder):
    options = parse(
        ["run", "./mine.py", "--fail_at", "3", "--config-workers", "2", "--workers", "4", "--sizes", "1", "2"]
    )
    assert options.fields == {"fail_at": "3", "workers": "2", "sizes": ["1", "2"]}
    assert options.workers == 4


@pytest.mark.parametrize(
    ("words", "value"), [(["--mirrored"], "true"), (["--no-mirrored"], "false"), (["--mirrored", "false"], "false")]
)
def test_a_flag_is_given_in_three_ways(folder, words, value):
    assert parse(["run", "./mine.py", *words]).fields == {"mirrored": value}


# Running and judging -------------------------------------------------------------------------------------------------


def test_a_run_is_judged_and_reported_and_can_be_judged_again(folder, capsys):
    assert run_inline("--preset", "smoke", "--json") == 0
    ran = json.loads(capsys.readouterr().out)
    assert (ran["study"], ran["preset"], ran["config"]["seeds"]) == ("mine", "smoke", 2)
    assert ran["trials"]["measured"] == 4
    assert [verdict["claim"] for verdict in ran["verdicts"]] == ["larger-samples-are-nearer", "needs-data"]
    assert "nobody-has" in ran["unavailable"]["absent"]
    assert Path(ran["report"]).read_text().startswith("<!doctype html>")

    assert main(["judge", "./mine.py", "--preset", "smoke", "--json", "--no-report"]) == 0
    judged = json.loads(capsys.readouterr().out)
    assert judged["trials"]["reused"] == 4
    assert judged["report"] is None
    assert judged["verdicts"][0] == ran["verdicts"][0]


def test_the_terminal_is_told_the_claims_and_where_the_report_is(folder, capsys):
    assert run_inline("--report", "out/mine.html", "--seeds", "3", "--sizes", "10", "1000") == 0
    told = capsys.readouterr()
    assert "larger-samples-are-nearer" in told.out
    assert "report: out/mine.html" in told.out
    assert "\033" not in told.out
    assert "nobody-has" in told.out
    assert (folder / "out" / "mine.html").is_file()


def test_judge_says_what_is_missing_and_measures_nothing(folder, capsys):
    assert main(["judge", "./mine.py", "--scale", "3.0"]) == 0
    told = capsys.readouterr()
    assert "etude run ./mine.py --scale 3.0" in told.err
    assert not list(folder.glob("reports/*"))
    assert not list(folder.glob("store/trials/**/rows.parquet"))


def test_a_failed_trial_gives_exit_code_4_and_its_log(folder, capsys):
    assert run_inline("--preset", "smoke", "--fail-at", "1") == 4
    told = capsys.readouterr()
    assert "as it was told to" in told.err
    assert "mine.py" in told.err
    assert "untested" in told.out


def test_only_takes_either_spelling(folder, capsys):
    assert run_inline("--preset", "smoke", "--only", "sample-means", "--json") == 0
    assert json.loads(capsys.readouterr().out)["trials"]["measured"] == 4


def test_the_program_runs_a_strangers_study_with_worker_processes(folder):
    done = etude("run", "./mine.py", "--preset", "smoke", "--no-report")
    assert done.returncode == 0, done.stderr
    assert "larger-samples-are-nearer" in done.stdout
    assert "\033" not in done.stdout


def test_an_interrupted_run_says_how_to_go_on_with_exit_code_3(folder):
    command = [sys.executable, "-m", "etude", "run", "./mine.py", "--pause", "30", "--no-report", "--workers", "1"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background may ignore it
    ) as process:
        deadline = time.monotonic() + 60
        while (
            process.poll() is None and time.monotonic() < deadline and not (folder / "store/locks/mine.json").exists()
        ):
            time.sleep(0.05)
        time.sleep(1.0)
        os.kill(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 3, error
    assert "same command" in error
    assert "Traceback" not in error


def test_refresh_carries_results_over_a_change_that_changes_nothing(folder, capsys):
    assert run_inline("--preset", "smoke", "--no-report") == 0
    capsys.readouterr()
    assert main(["refresh", "./mine.py", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    changed = MINE.replace("time.sleep(config.pause)", "time.sleep(config.pause + 0.0)")
    (folder / "mine.py").write_text(changed)
    done = etude("refresh", "./mine.py", "--preset", "smoke", "--json")
    assert done.returncode == 0, done.stderr
    outcomes = [(each["measurement"], each["outcome"]) for each in json.loads(done.stdout)]
    assert outcomes == [("sample_means", "carried")] * 2


# Keeping -------------------------------------------------------------------------------------------------------------


def test_store_tells_its_size_and_finds_and_removes_what_is_damaged(folder, capsys):
    assert run_inline("--preset", "smoke", "--no-report") == 0
    capsys.readouterr()
    assert main(["store", "size", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"]["trials/mine"] > 0
    assert main(["store", "check"]) == 0
    rows = next((folder / "store").glob("trials/**/rows.parquet"))
    rows.write_bytes(rows.read_bytes()[:-1])
    capsys.readouterr()
    assert main(["store", "check", "--json"]) == 1
    assert [problem["path"] for problem in json.loads(capsys.readouterr().out)] == [str(rows.parent)]
    assert main(["store", "check", "--remove"]) == 0
    assert main(["store", "check"]) == 0
    assert not rows.exists()


def test_prune_removes_what_older_code_measured_and_nothing_else(folder, capsys, monkeypatch):
    assert run_inline("--preset", "smoke", "--no-report") == 0
    before = set((folder / "store" / "trials").glob("*/*/*"))
    assert len(before) == 4
    capsys.readouterr()
    assert main(["store", "prune"]) == 0
    assert "Left alone, as no study here has the name: mine." in capsys.readouterr().err
    monkeypatch.setenv("ETUDE_STUDIES", str(folder))
    assert etude("store", "prune").returncode == 0  # in a process that has not seen the study yet
    assert set((folder / "store" / "trials").glob("*/*/*")) == before
    (folder / "mine.py").write_text(MINE.replace("time.sleep(config.pause)", "time.sleep(config.pause + 0.0)"))
    capsys.readouterr()
    assert main(["store", "prune", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"]["trials/mine"] > 0
    assert set((folder / "store" / "trials").glob("*/*/*")) == before
    assert main(["store", "prune"]) == 0
    assert not list((folder / "store" / "trials").glob("*/*/*"))


def test_the_scoreboard_is_put_between_its_markers(folder, capsys):
    readme = folder / "README.md"
    readme.write_text("before\n<!-- scoreboard -->\nold\n<!-- /scoreboard -->\nafter\n")
    assert main(["ledger", "scoreboard"]) == 0
    text = readme.read_text()
    assert text.startswith("before\n<!-- scoreboard -->\n")
    assert text.endswith("<!-- /scoreboard -->\nafter\n")
    assert "old\n" not in text
    assert main(["ledger", "scoreboard"]) == 0
    assert readme.read_text() == text
    readme.write_text("no markers")
    assert main(["ledger", "scoreboard"]) == 2
    assert readme.read_text() == "no markers"


def test_a_recorded_study_is_shown_and_verified_with_its_verdicts(folder, capsys, monkeypatch):
    monkeypatch.setattr("etude.study.ledger._FOLDER", folder / "ledger")
    assert main(["verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["verify", "./mine.py"]) == 2
    assert "ledger holds nothing" in capsys.readouterr().err
    assert run_inline("--no-report", "--json") == 0
    ran = {verdict["claim"]: verdict["status"] for verdict in json.loads(capsys.readouterr().out)["verdicts"]}
    assert main(["ledger", "record", "./mine.py"]) == 0
    assert capsys.readouterr().out == "recorded: ledger/mine.json\n"
    assert main(["show", "./mine.py", "--json"]) == 0
    recorded = json.loads(capsys.readouterr().out)["ledger"]
    assert (recorded["preset"], recorded["stale"], recorded["verdicts"]) == ("laptop", [], ran)
    assert main(["verify", "./mine.py", "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert {each["claim"]: each["recorded"] for each in compared} == ran
    assert all(each["identical"] for each in compared if each["claim"] == "larger-samples-are-nearer")


@pytest.mark.parametrize(("measured", "code"), [("holds", 0), ("fails", 1)])
def test_verify_exits_with_1_only_when_a_verdict_differs(folder, capsys, monkeypatch, measured, code):
    from etude.study import ledger

    comparison = ledger.Comparison("a-claim", "holds", measured, measured != "holds", False, 0.5, "as measured")
    monkeypatch.setattr(ledger, "verify", lambda study, **options: [comparison])
    assert main(["verify", "./mine.py"]) == code
    assert "a-claim" in capsys.readouterr().out
