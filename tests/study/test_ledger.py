"""The ledger: what it takes, what it keeps, when it is stale, and what a seed measured again says."""

import dataclasses
import json
import math
import subprocess
import sys

import pandas as pd
import pytest

from etude.study import ledger
from etude.study.ledger import LedgerError
from etude.study.rules import Part, Verdict
from study_files import BODY, HEAD

SEVERAL = """
@study.measure(over=lambda c: grid(arm=("a", "b")), volatile=("seconds",))
def draw(lab, config, *, arm):
    x = lab.generator("numbers", "numpy").normal(size=config.size)
    lab.record(value=float(x.mean()) + (1.0 if arm == "b" else 0.0), note=arm * 2, seconds=time.perf_counter())


@study.measure(seeds=1)
def items(lab, config):
    lab.record(pd.DataFrame({"item": range(6), "right": [True] * 5 + [False]}))


@study.claim(reported="b is higher", deviation="smaller | shorter")
def b_is_higher(e):
    \"\"\"The second arm is higher <b>.\"\"\"
    return mean(e[draw].at(arm="b")["value"] - e[draw].at(arm="a")["value"] + 0 * e[draw].at(arm="a")["value"]) > 0.5


@study.claim(reported="all right")
def most_are_right(e):
    \"\"\"Most items are right.\"\"\"
    return exact(float(e[items].frame["right"].mean())) > 0.8


@study.figure
def values(e, axes):
    \"\"\"Values by arm.\"\"\"
    for arm, rows in e[draw].split("arm"):
        axes.plot(rows["value"], label=arm)
"""


def run(study, store, config="laptop", **options):
    return study.run(config, store=store, **{"engine": "inline", "progress": False} | options)


@pytest.fixture
def study(write_study):
    return write_study(SEVERAL)


@pytest.fixture
def recorded(study, store, tmp_path):
    evidence = run(study, store)
    folder = tmp_path / "ledger"
    path = ledger.record(study, evidence, study.judge(evidence), folder)
    return evidence, folder, path


def verify(study, folder, **options):
    return ledger.verify(study, folder=folder, engine="inline", progress=False, **options)


def test_what_is_recorded_is_read_again(study, recorded):
    evidence, folder, path = recorded
    entry = ledger.read(study.name, folder)
    assert path == entry.path == folder / f"{study.name.replace('-', '_')}.json"
    assert list(entry.verdicts) == list(study.judge(evidence))
    assert (entry.preset, entry.seeds, entry.config["size"]) == ("laptop", 5, 10)
    assert entry.paper["arxiv"] == "2001.00001"
    assert entry.figure == "Values by arm."
    assert path.with_suffix(".svg").read_text().startswith("<svg")
    assert entry.stale == entry.stale_claims == []
    assert [each.name for each in ledger.entries(folder)] == [study.name]


def test_columns_come_back_exactly(recorded, study):
    evidence, folder, _ = recorded
    kept = ledger.read(study.name, folder).measurements
    pd.testing.assert_frame_equal(
        ledger._table(kept["draw"]["columns"]), evidence.tables["draw"], check_exact=True, check_column_type=False
    )
    assert "columns" not in kept["items"]  # one seed: a digest is enough, all of it is measured again
    assert list(kept["draw"]["digests"]) == ["0", "1", "2", "3", "4"]


def test_numbers_json_lacks_come_back():
    frame = pd.DataFrame(
        {
            "x": [math.nan, math.inf, -math.inf, 0.1],
            "s": ["a", None, "nan", "ü"],
            "n": pd.array([1, None, 3, 4], dtype="Int64"),
            "b": [True, False, True, True],
            "seed": [0, 0, 1, 1],
        }
    )
    kept = json.loads(ledger._pretty(ledger._kept(frame, ())))
    pd.testing.assert_frame_equal(ledger._table(kept["columns"]), frame, check_exact=True)


def test_large_tables_are_kept_as_digests(monkeypatch, study, store, tmp_path):
    monkeypatch.setattr(ledger, "LARGEST", 10)
    evidence = run(study, store)
    folder = tmp_path / "ledger"
    ledger.record(study, evidence, study.judge(evidence), folder)
    assert "columns" not in ledger.read(study.name, folder).measurements["draw"]
    higher, right = verify(study, folder)
    assert (higher.measured, higher.differs, higher.identical) == (None, False, True)
    assert "digests" in higher.why
    assert right.measured == "holds"


def test_recording_twice_gives_the_same_file(study, recorded):
    evidence, folder, path = recorded
    before = path.read_text(), path.with_suffix(".svg").read_text()
    ledger.record(study, evidence, study.judge(evidence), folder)
    assert (path.read_text(), path.with_suffix(".svg").read_text()) == before
    assert sorted(each.name for each in folder.iterdir()) == sorted([path.name, path.with_suffix(".svg").name])


def test_only_whole_evidence_at_a_shipped_preset_is_taken(study, store, tmp_path):
    evidence = run(study, store)
    verdicts = study.judge(evidence)

    def refused(match, evidence=evidence, verdicts=verdicts):
        with pytest.raises(LedgerError, match=match):
            ledger.record(study, evidence, verdicts, tmp_path / "ledger")
        assert not (tmp_path / "ledger").exists()

    refused("smoke", run(study, store, "smoke"))
    refused("customised.*laptop", run(study, store, seeds=4))
    refused("customised", run(study, store, study.presets["laptop"].updated(shift=0.5)))
    refused("partial.*items", run(study, store, only="draw"))
    refused("partial, 9 of 10", dataclasses.replace(evidence, trials=evidence.trials[1:]))
    refused("not another's|another", dataclasses.replace(evidence, study="another"))
    refused("one for each claim", verdicts=verdicts[:1])


def test_evidence_that_the_store_lacks_is_partial(study, store, tmp_path):
    evidence = study.stored("laptop", store=store)
    with pytest.raises(LedgerError, match="partial, 0 of 10 trials of draw"):
        ledger.record(study, evidence, study.judge(evidence), tmp_path)


def test_evidence_with_failed_trials_is_refused(write_study, store, tmp_path):
    study = write_study(BODY.replace("    x = lab", "    if lab.seed == 1: raise ValueError('boom')\n    x = lab"))
    evidence = run(study, store)
    with pytest.raises(LedgerError, match=r"2 trials failed.*seed 1.*boom"):
        ledger.record(study, evidence, study.judge(evidence), tmp_path)


def test_what_cannot_be_had_here_is_recorded_as_untested(write_study, store, tmp_path):
    study = write_study(
        SEVERAL.replace("    lab.record(pd", "    raise Unavailable('no items', 'Fetch them')\n    lab.record(pd")
    )
    evidence = run(study, store)
    ledger.record(study, evidence, study.judge(evidence), tmp_path)
    entry = ledger.read(study.name, tmp_path)
    assert [verdict.status for verdict in entry.verdicts] == ["holds", "untested"]
    assert "Fetch them" in entry.unavailable["items"]
    assert "Fetch them" in ledger.page(study.name, tmp_path)


def test_changed_code_makes_only_what_it_touches_stale(write_study, recorded, study):
    _, folder, _ = recorded
    name = study.name.replace("-", "_")
    write_study(SEVERAL.replace("x.mean()", "np.median(x)"), name)
    entry = ledger.read(study.name, folder)
    assert (entry.stale, entry.stale_claims) == (["draw"], [])
    assert "stale: draw" in ledger.scoreboard(folder)
    assert "**Stale**" in ledger.page(study.name, folder)
    write_study(SEVERAL.replace("> 0.8", "> 0.7").replace("Most items", "Nearly all items"), name)
    assert (entry.stale, entry.stale_claims) == ([], ["most-are-right"])
    write_study(SEVERAL.replace("def items", "def things").replace("e[items]", "e[things]"), name)
    assert entry.stale == ["items"]


def test_a_seed_measured_again_is_bit_identical(study, recorded):
    _, folder, _ = recorded
    for seed in (0, 2):
        results = verify(study, folder, seed=seed)
        assert [result.claim for result in results] == ["b-is-higher", "most-are-right"]
        assert [(r.recorded, r.measured, r.differs, r.identical, r.difference) for r in results] == [
            ("holds", "holds", False, True, 0.0)
        ] * 2


def test_a_seed_that_comes_out_otherwise_shows_in_the_verdict(write_study, recorded, study):
    _, folder, _ = recorded
    name = study.name.replace("-", "_")
    slightly = write_study(SEVERAL.replace("float(x.mean())", "float(x.mean()) * (1 + 1e-9)"), name)
    result = verify(slightly, folder)[0]
    assert (result.differs, result.identical) == (False, False)
    assert 0 < result.difference < 1e-8
    far = write_study(SEVERAL.replace("float(x.mean())", "float(x.mean()) + 40.0 * (arm == 'b')"), name)
    result = verify(far, folder)[0]
    assert (result.recorded, result.measured, result.differs) == ("holds", "undecided", True)
    assert result.difference > 0.5
    renamed = write_study(SEVERAL.replace("note=arm", "remark=arm"), name)
    assert verify(renamed, folder)[0].difference == math.inf


def test_a_trial_that_fails_now_differs_and_one_that_cannot_run_here_does_not(write_study, recorded, study):
    _, folder, _ = recorded
    name = study.name.replace("-", "_")
    broken = write_study(SEVERAL.replace("    lab.record(pd", "    raise ValueError('boom')\n    lab.record(pd"), name)
    assert [result.differs for result in verify(broken, folder)] == [False, True]
    absent = write_study(
        SEVERAL.replace("    lab.record(pd", "    raise Unavailable('no', 'Get')\n    lab.record(pd"), name
    )
    right = verify(absent, folder)[1]
    assert (right.measured, right.differs) == (None, False)


def test_what_cannot_be_compared_is_an_error(write_study, study, recorded, tmp_path):
    _, folder, _ = recorded
    with pytest.raises(LedgerError, match=r"seed=5.*0 to 4"):
        verify(study, folder, seed=5)
    with pytest.raises(LedgerError, match="holds nothing"):
        verify(study, tmp_path / "elsewhere")
    other = write_study(
        SEVERAL, study.name.replace("-", "_"), HEAD.replace('"laptop": Config()', '"laptop": Config(size=9)')
    )
    with pytest.raises(LedgerError, match="preset 'laptop' is not the one"):
        verify(other, folder)


def test_an_absent_entry_is_none_and_a_broken_one_is_named(tmp_path, recorded):
    _, folder, path = recorded
    assert ledger.read("nothing", folder) is None
    with pytest.raises(LedgerError, match="Did you mean"):
        ledger.page(path.stem.replace("_", "-") + "x", folder)
    path.write_text(path.read_text()[:-40])
    with pytest.raises(LedgerError, match=r"no ledger entry.*Record it again"):
        ledger.entries(folder)
    path.write_text('{"format": 99}')
    with pytest.raises(LedgerError, match="format 99"):
        ledger.entries(folder)


def part(n=5, region=((0.0, math.inf),), status="holds"):
    return Part("", 1.0, 0.5, 1.5, 0.05, n, "Student t", region, "> 0", status)


def test_chance_counts_decided_verdicts_that_rest_on_an_interval(recorded, study):
    _, folder, _ = recorded
    entry = ledger.read(study.name, folder)
    verdicts = (
        Verdict("interval", "holds", (part(),), ""),
        Verdict("composite", "fails", (part(None), part()), ""),
        Verdict("exact", "holds", (part(None),), ""),
        Verdict("shown", "holds", (part(None), part(region=None, status=None)), ""),
        Verdict("open", "undecided", (part(),), ""),
        Verdict("absent", "untested", (), ""),
    )
    one = dataclasses.replace(entry, verdicts=verdicts)
    other = dataclasses.replace(entry, verdicts=verdicts[:1], alpha=0.01)
    count, wrong = ledger.expected_errors([one, other])
    assert count == 3
    assert wrong == pytest.approx(2 * 0.05 + 0.01)
    assert ledger.expected_errors([]) == (0, 0.0)


def test_scoreboard_and_page_show_every_claim_and_survive_hostile_text(recorded, study):
    _, folder, _ = recorded
    board = ledger.scoreboard(folder)
    head, rule, row = board.splitlines()[:3]
    assert head.count("|") == rule.count("|") == row.count("|")
    assert f"[{study.name}](docs/studies/{study.name}.md)" in row
    assert "| ✓ ✓ | 5 |" in row
    assert "✓ holds (2), ✗ fails (0)" in board
    assert "1 decided verdict rests on an interval" in board
    assert "at most 0.05 of them" in board
    page = ledger.page(study.name, folder)
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert "smaller \\| shorter" in page
    assert "<b>" not in page
    assert all(line.replace("\\|", "").count("|") == 5 for line in table[:4])
    assert f"etude run {study.name} --preset laptop" in page
    assert f"![Values by arm.]({study.name.replace('-', '_')}.svg)" in page


def test_reading_imports_neither_torch_nor_the_study(recorded, study):
    _, folder, _ = recorded
    code = (
        "import sys; from etude.study import ledger; "
        f"ledger.read({study.name!r}, {str(folder)!r}); ledger.scoreboard({str(folder)!r}); ledger.scoreboard(); "
        "print([m for m in sys.modules if m == 'torch' or m.startswith('etude.papers.') or m == sys.argv[1]])"
    )
    command = [sys.executable, "-c", code, study.module]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
