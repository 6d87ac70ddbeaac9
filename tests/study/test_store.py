"""Addresses of trials, whole-or-nothing entries, and keeping house."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from etude.study.store import Store, StoreError, TrialAddress

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
configs = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)


def address(cell=(), seed=0, code="c" * 64, device="cpu"):
    return TrialAddress("study", "measure", dict(cell), seed, device, code)


def about(**changes):
    return {"cell": {}, "seed": 0, "code": "c" * 64, "reads": {}, "seconds": 1.0, "finished": "2026-01-01"} | changes


def refuse(text):
    raise AssertionError(text)


def reading(config):
    def value(name):
        if name not in config:
            raise AttributeError(name)
        return config[name]

    return value


@given(configs, configs)
def test_no_two_configurations_share_an_address_and_order_does_not_matter(one, other):
    folders = address().folder(one), address().folder(other)
    assert (folders[0] == folders[1]) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))
    assert address().folder(dict(reversed(one.items()))) == folders[0]


@given(st.lists(st.tuples(st.dictionaries(st.sampled_from("xyz"), scalars), st.integers(0, 99)), unique_by=repr))
def test_no_two_cells_or_seeds_share_a_slot(pairs):
    distinct = {json.dumps([cell, seed], sort_keys=True) for cell, seed in pairs}
    assert len({address(cell, seed).slot for cell, seed in pairs}) == len(distinct)


@given(st.booleans(), st.integers(0, 3), st.sampled_from(["cpu", "cuda"]))
def test_code_seed_and_device_are_part_of_the_address(other_code, seed, device):
    changed = address(seed=seed, code=("d" if other_code else "c") * 64, device=device)
    assert (changed.folder({}) == address().folder({})) == (not other_code and seed == 0 and device == "cpu")


@settings(max_examples=30, deadline=None)
@given(configs, configs)
def test_a_trial_is_found_exactly_where_the_fields_it_read_agree(tmp_path_factory, reads, config):
    store = Store(tmp_path_factory.mktemp("store") / "s")
    with store.lock("study"):
        store.put_trial(address(), about(reads=reads), b"rows", {})
    agrees = all(name in config and json.dumps(config[name]) == json.dumps(reads[name]) for name in reads)
    found = store.find_trial(address(), reading(config), refuse)
    assert (found is not None) == agrees
    if found is not None:
        assert found.rows() == b"rows"


def test_a_trial_of_other_code_is_stale_and_not_found(tmp_path):
    store = Store(tmp_path / "s")
    with store.lock("study"):
        store.put_trial(address(code="a" * 64), about(code="a" * 64), b"old", {})
    now = address(code="b" * 64)
    assert store.find_trial(now, reading({}), refuse) is None
    assert [trial.rows() for trial in store.stale_trials(now, reading({}), refuse)] == [b"old"]


def test_rows_changed_behind_the_stores_back_are_refused(tmp_path):
    store = Store(tmp_path / "s")
    with store.lock("study"):
        trial = store.put_trial(address(), about(), b"rows", {"note.txt": b"text"})
    (trial.path / "rows.parquet").write_bytes(b"r0ws")
    with pytest.raises(StoreError, match=r"rows\.parquet was changed or cut off"):
        trial.rows()
    (trial.path / "files" / "note.txt").unlink()
    with pytest.raises(StoreError, match=r"note\.txt"):
        trial.files()
    told = []
    assert store.find_trial(address(), reading({}), told.append) is None
    assert "counts as not measured" in told[0]


def test_cached_values_and_checkpoints_come_back_until_they_are_damaged(tmp_path):
    store = Store(tmp_path / "s")
    with store.lock("study"):
        store.put_cached("module:function", "k", {"value.json": b"1"}, "study")
        store.put_cached("module:function", "k", {"value.json": b"2"}, "study")  # the first one stays
        store.put_checkpoint("t", {"value.json": b"1"}, "study")
        store.put_checkpoint("t", {"value.json": b"2"}, "study")  # the last one stays
    assert store.get_cached("module:function", "k") == {"value.json": b"1"}
    assert store.get_checkpoint("t") == {"value.json": b"2"}
    (path,) = (tmp_path / "s").glob("cached/*/k")
    (path / "value.json").write_bytes(b"3")
    assert store.get_cached("module:function", "k") is None
    with store.lock("study"):
        store.put_cached("module:function", "k", {"value.json": b"4"}, "study")
        store.drop_checkpoint("t")
    assert store.get_cached("module:function", "k") == {"value.json": b"4"}
    assert store.get_checkpoint("t") is None
    assert store.check() == []
    assert set(store.size()) == {"cached/module.function"}


def test_only_entries_of_the_store_can_be_removed(tmp_path):
    store = Store(tmp_path / "s")
    with store.lock("study"):
        trial = store.put_trial(address(), about(), b"rows", {})
    with pytest.raises(ValueError, match="is not in the store"):
        store.remove(tmp_path)
    store.remove(trial.path)
    assert list(store.entries()) == []


HOLD = """
import sys, time
from etude.study.store import Store
with Store(sys.argv[1]).lock("study"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_live_lock_is_waited_for_and_a_dead_one_taken_over(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "s"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    told = []

    def die(who):
        told.append(who)
        holder.kill()  # only now: so it was alive when it was found
        holder.wait()

    with Store(tmp_path / "s").lock("study", waiting=die):
        assert told == [f"process {holder.pid} on {os.uname().nodename}"]
    started = time.monotonic()
    with Store(tmp_path / "s").lock("study", waiting=told.append):
        assert len(told) == 1
    assert time.monotonic() - started < 30


def test_what_a_killed_run_left_half_written_is_swept(tmp_path):
    store = Store(tmp_path / "s")
    store.prepare()
    (store.path / "incoming" / "study.123").mkdir()
    (store.path / "incoming" / "other.456").mkdir()
    with store.lock("study"):
        assert [path.name for path in (store.path / "incoming").iterdir()] == ["other.456"]


def test_a_store_of_another_format_is_refused(tmp_path):
    (tmp_path / "format").write_text("etude store 0")
    with pytest.raises(StoreError, match="was written as 'etude store 0'"):
        Store(tmp_path)


def test_a_store_can_be_opened_at_every_moment_of_its_making(tmp_path, monkeypatch):
    """Two runs that start together share a store that neither has finished making."""
    opened = []

    def opening(original):
        def call(self, *arguments, **options):
            made = original(self, *arguments, **options)
            opened.append(Store(tmp_path / "s").path)
            return made

        return call

    for name in ("mkdir", "replace", "write_bytes"):
        monkeypatch.setattr(Path, name, opening(getattr(Path, name)))
    Store(tmp_path / "s").prepare()
    assert len(opened) >= 8
