"""Replies that are kept: in files that replay them exactly, and in the store of a study."""

import json
import math
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from etude.errors import Unavailable
from etude.language import Completion, Recorded, Stored, Usage
from etude.language.model import Reply
from etude.language.recorded import request_key
from tests.language.scripted import ScriptedModel


class Talker(ScriptedModel):
    """Says something new each time, and embeds."""

    def __init__(self, name="talker"):
        super().__init__(lambda prompt, k: f"{prompt} {len(self.prompts)}.{k}", name=name)

    def _embed(self, texts):
        return Reply(np.array([[len(text), 0.1] for text in texts], dtype=np.float32), Usage(1, 3, cost=0.5))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "replies.jsonl"


def test_what_was_recorded_is_replayed_exactly_and_without_the_model(path):
    live = Recorded(path, Talker())
    asked = {"prompts": ["a", [{"role": "system", "content": "é"}, {"role": "user", "content": "b"}]], "n": 3}
    said = live.generate(**asked, seed=4)
    scores = live.score("a", ["x", "yz"])
    chosen = live.choose("a", ["x", "yz"])
    vectors = live.embed(["one", "three"])
    assert live.paid == live.usage == live.model.usage
    assert (live.usage.calls, live.usage.cost) == (5, 0.5)

    replay = Recorded(path)
    assert replay.name == "talker"
    assert replay.generate(**asked, seed=4) == said
    assert replay.score("a", ["x", "yz"]) == scores
    assert replay.choose("a", ["x", "yz"]) == chosen
    again = replay.embed(["one", "three"])
    assert again.dtype == vectors.dtype
    assert np.array_equal(again, vectors)
    assert replay.usage == replay.replayed == live.usage
    assert replay.paid == Usage()


def test_nothing_is_asked_twice(path):
    model = Talker()
    for _ in range(2):
        recorded = Recorded(path, model)
        recorded.generate(["a", "b", "a"], seed=0)
    assert model.prompts == ["a", "b"]
    assert (recorded.paid.calls, recorded.replayed.calls) == (0, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.5},
        {"top_p": 0.9},
        {"max_tokens": 5},
        {"stop": ["x"]},
        {"seed": 2},
        {"grammar": 'root ::= "a"'},
        {"schema": {"type": "integer"}},
        {"logprobs": True},
        {"n": 2},
        {"prompts": ["a "]},
        {"prompts": [[{"role": "system", "content": "a"}]]},
    ],
)
def test_a_request_that_differs_in_anything_is_a_miss_that_names_the_prompt(path, change):
    asked = {"prompts": ["a"], "seed": 1}
    Recorded(path, Talker()).generate(**asked)
    replay = Recorded(path)
    replay.generate(**asked)
    with pytest.raises(Unavailable, match=r"holds no reply of talker to 'a ?' .*model="):
        replay.generate(**{**asked, **change})


def test_numbers_of_either_kind_are_one_request(path):
    Recorded(path, Talker()).generate(["a"], temperature=1, top_p=1, seed=np.int64(3))
    assert Recorded(path).generate(["a"], temperature=1.0, top_p=np.float64(1.0), seed=3)


def test_requests_without_a_seed_are_fresh_each_time_and_replayed_in_turn(path):
    live = Recorded(path, Talker())
    said = [live.generate(["a", "a"]), live.generate(["a"])]
    assert len({reply[0].text for call in said for reply in call}) == 3
    replay = Recorded(path)
    assert [replay.generate(["a", "a"]), replay.generate(["a"])] == said
    with pytest.raises(Unavailable, match="time=3"):
        replay.generate(["a"])


def test_greedy_requests_need_no_seed(path):
    model = Talker()
    live = Recorded(path, model)
    assert live.generate(["a"], temperature=0) == live.generate(["a"], temperature=0)
    assert len(model.prompts) == 1


def test_replies_that_came_before_an_error_are_kept(path):
    class Dies(Talker):
        def _generate(self, prompts, n, sampling):
            yield from super()._generate(prompts[:2], n, sampling)
            raise Unavailable("the line is dead", "Wait")

    with pytest.raises(Unavailable, match="the line is dead"):
        Recorded(path, Dies()).generate(["a", "b", "c"], seed=0)
    model = Talker()
    Recorded(path, model).generate(["a", "b", "c"], seed=0)
    assert model.prompts == ["c"]


@pytest.mark.parametrize("cut", [1, 40])
def test_a_line_cut_off_by_a_crash_is_overlooked_and_rewritten(path, cut):
    live = Recorded(path, Talker())
    live.generate(["a"], seed=0)
    live.generate(["b"], seed=0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert len(Recorded(path)) == 1
    model = Talker()
    Recorded(path, model).generate(["a", "b"], seed=0)
    assert model.prompts == ["b"]
    assert len(Recorded(path)) == 2
    assert all(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def test_a_first_line_cut_off_is_rewritten_too(path):
    path.parent.mkdir()
    path.write_bytes(b'{"key": "')
    Recorded(path, Talker()).generate(["a"], seed=0)
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(Recorded(path)) == 1


WRITER = """
import sys
from etude.language import Recorded
from tests.language.scripted import ScriptedModel
model = Recorded(sys.argv[1], ScriptedModel(lambda prompt, k: prompt * 2000))
for i in range(40):
    model.generate([f"{sys.argv[2]}{i} "], seed=0)
"""


def test_processes_may_record_to_one_file(path):
    command = [sys.executable, "-c", WRITER, path]
    writers = [subprocess.Popen([*command, who]) for who in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(Recorded(path)) == 80


def test_what_another_process_recorded_meanwhile_is_found(path):
    one, two = Recorded(path, Talker()), Recorded(path, Talker())
    said = one.generate(["a"], seed=0)
    assert two.generate(["a"], seed=0) == said
    assert two.paid.calls == 0


def test_a_recording_of_several_models_wants_a_name(path):
    Recorded(path, Talker("one")).generate(["a"], seed=0)
    Recorded(path, Talker("two")).generate(["a"], seed=0)
    with pytest.raises(ValueError, match="holds 'one', 'two'; say whose"):
        Recorded(path)
    with pytest.raises(ValueError, match="name='three'"):
        Recorded(path, name="three")
    assert Recorded(path, name="two").generate(["a"], seed=0)


def test_files_that_are_no_recordings_are_refused(tmp_path, path):
    with pytest.raises(Unavailable, match="there is no recording"):
        Recorded(path)
    (tmp_path / "bad").write_text('{"a": 1}\n')
    with pytest.raises(ValueError, match="is no recording of replies: line 1"):
        Recorded(tmp_path / "bad")
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="holds no replies"):
        Recorded(tmp_path / "empty")


def test_keys_do_not_depend_on_order_and_do_on_everything_else():
    assert request_key({"a": 1, "b": [None, "é"]}) == request_key({"b": [None, "é"], "a": 1})
    assert request_key({"a": 1}) != request_key({"a": "1"})
    assert request_key({"a": "bc"}) != request_key({"ab": "c"})


def test_infinite_scores_survive(path):
    live = Recorded(path, ScriptedModel(lambda prompt, k: "", score=lambda prompt, text: -math.inf))
    live.score("a", ["b"])
    assert Recorded(path).score("a", ["b"]) == [-math.inf]


# ---- in a study's store --------------------------------------------------------------------------------------------

STUDY = '''
"""Does it answer?"""

from pathlib import Path

from etude.language import Stored
from etude.study import Config, Evidence, Lab, Paper, Rule, Study, mean
from tests.language.scripted import ScriptedModel


class Protocol(Config):
    model: str = "scripted"
    """The model."""
    log: str = ""
    """Where calls are noted."""


paper = Paper("A", "B", 2020, "0000.00000")
study = Study(paper=paper, topic="t", presets={"smoke": Protocol(seeds=2), "laptop": Protocol()})


class Noted(ScriptedModel):
    def __init__(self, log):
        super().__init__(lambda prompt, k: f"{prompt} {k}")
        self.log = log

    def _generate(self, prompts, n, sampling):
        for i, reply in super()._generate(prompts, n, sampling):
            if self.log.with_suffix(".dead").exists() and i == 2:
                raise RuntimeError("killed")
            with self.log.open("a") as file:
                print(prompts[i][0]["content"], sampling.seed, file=file)
            yield i, reply


@study.measure()
def ask(lab: Lab, config: Protocol) -> None:
    """Ask."""
    model = Stored(config.model, lab.cached, lambda spec: Noted(Path(config.log)))
    replies = model.generate(["a", "b", "c"], n=2, seed=lab.seed)
    assert model.generate(["b"], n=2, seed=lab.seed) == [replies[1]]
    chosen = model.choose("a", ["x", "y"])
    lab.record(text=" ".join(reply.text for row in replies for reply in row), paid=model.paid.calls, p=chosen[0])


@study.claim(reported="yes")
def answers(e: Evidence[Protocol]) -> Rule:
    """It answers."""
    return mean(e[ask]["p"]) < 0
'''


def test_a_study_that_is_interrupted_and_resumed_asks_nothing_twice(tmp_path, monkeypatch):
    (tmp_path / "asking.py").write_text(textwrap.dedent(STUDY))
    monkeypatch.syspath_prepend(tmp_path)
    from asking import ask, study

    log, dead = tmp_path / "calls.log", tmp_path / "calls.dead"
    settings = {"store": tmp_path / "store", "engine": "inline", "progress": False}
    config = study.presets["smoke"].model_copy(update={"log": str(log)})
    dead.touch()
    interrupted = study.run(config, **settings)
    assert [failure.error for failure in interrupted.failures]
    assert log.read_text().splitlines() == ["a 0", "b 0", "a 1", "b 1"]
    dead.unlink()
    evidence = study.run(config, **settings)
    assert not evidence.failures
    calls = ["a 0", "b 0", "a 1", "b 1", "c 0", "c 1"]
    assert log.read_text().splitlines() == calls
    assert list(evidence[ask]["text"]) == ["a 0 a 1 b 0 b 1 c 0 c 1"] * 2
    assert list(evidence[ask]["paid"]) == [2, 1]  # the choice has no seed: the second trial finds the first one's

    # A trial that is measured again for another reason finds all its replies, and needs no model.
    rewritten = STUDY.replace("lambda spec: Noted(Path(config.log))", "_no_model").replace(
        "class Noted", "def _no_model(spec):\n    raise AssertionError(spec)\n\n\nclass Noted"
    )
    (tmp_path / "asking_again.py").write_text(textwrap.dedent(rewritten))
    import asking_again

    again = asking_again.study.run(asking_again.Protocol(seeds=2, log=str(log)), **settings)
    assert not again.failures
    assert list(again[asking_again.ask]["paid"]) == [0, 0]
    assert log.read_text().splitlines() == calls


def test_stored_usage_says_what_the_replies_had_taken():
    kept = {}

    def cached(function):
        def stored(*arguments):
            key = json.dumps(arguments, default=list)
            if key not in kept:
                kept[key] = function(*arguments)
            return kept[key]

        return stored

    model = ScriptedModel(lambda prompt, k: "one two")
    first = Stored("scripted", cached, lambda spec: model)
    said = first.generate(["a b c"], temperature=0)
    assert said == [[Completion("one two", 2)]]
    assert first.paid == first.usage == Usage(1, 3, 2)
    second = Stored("scripted", cached, lambda spec: model)
    assert second.generate(["a b c"], temperature=0) == said
    assert second.replayed == second.usage == first.usage
