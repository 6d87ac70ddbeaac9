"""What every language model shares: its arguments are checked and its use is counted."""

import math

import numpy as np
import pytest

from etude.errors import Unavailable
from etude.language import Completion, Sampling, Usage
from etude.language.model import Reply, normalised
from tests.language.scripted import ScriptedModel


def echo() -> ScriptedModel:
    return ScriptedModel(lambda prompt, k: f"{prompt} {k}")


def test_replies_come_back_by_prompt_and_sample():
    model = echo()
    replies = model.generate(["a b", "c"], n=2)
    assert [[reply.text for reply in row] for row in replies] == [["a b 0", "a b 1"], ["c 0", "c 1"]]
    assert model.usage == Usage(calls=2, prompt_tokens=3, completion_tokens=3 + 3 + 2 + 2)
    assert model.paid == model.usage
    assert model.generate([]) == []


def test_replies_in_any_order_are_put_in_the_order_of_the_prompts():
    class Backwards(ScriptedModel):
        def _generate(self, prompts, n, sampling):
            yield from reversed(list(super()._generate(prompts, n, sampling)))

    model = Backwards(lambda prompt, k: prompt)
    assert [row[0].text for row in model.generate(["a", "b", "c"])] == ["a", "b", "c"]


def test_conversations_reach_the_back_end_as_they_are():
    model = echo()
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    model.generate([messages])
    assert list(model.prompts[0]) == messages


def test_usage_adds_subtracts_and_knows_no_cost_it_was_not_told():
    one, two = Usage(1, 10, 5, 0.5, 0.1), Usage(2, 20, 5, 1.0, 0.3)
    assert two - one + one == two
    assert (one + two).tokens == 40
    assert (one + Usage(1, cost=None)).cost is None


def test_replayed_answers_count_as_used_but_not_as_paid():
    class Half(ScriptedModel):
        def _generate(self, prompts, n, sampling):
            for i, reply in super()._generate(prompts, n, sampling):
                yield i, Reply(reply.value, reply.usage, replayed=i % 2 == 0)

    model = Half(lambda prompt, k: "yes")
    model.generate(["a", "b", "c"])
    assert (model.usage.calls, model.replayed.calls, model.paid.calls) == (3, 2, 1)


def test_replies_yielded_before_an_error_are_accounted():
    class Fails(ScriptedModel):
        def _generate(self, prompts, n, sampling):
            yield from super()._generate(prompts, n, sampling)
            raise Unavailable("the line is dead", "Wait")

    model = Fails(lambda prompt, k: "yes")
    with pytest.raises(Unavailable):
        model.generate(["a", "b"])
    assert model.usage.calls == 2


def test_choices_are_the_scores_normalised():
    model = ScriptedModel(lambda prompt, k: "", score=lambda prompt, text: {"A": -1.0, "B": -3.0}[text])
    chosen = model.choose("A or B?", ["A", "B"])
    assert np.exp(chosen).sum() == pytest.approx(1)
    assert chosen[0] - chosen[1] == pytest.approx(2)
    assert model.score("A or B?", ["B", "A"]) == [-3.0, -1.0]


def test_normalised_by_hand():
    assert np.exp(normalised([math.log(3), math.log(1)])) == pytest.approx([0.75, 0.25])
    assert normalised([0.0, -math.inf]) == [0.0, -math.inf]


@pytest.mark.parametrize(
    ("error", "named", "arguments"),
    [
        (TypeError, "prompts is a str", {"prompts": "hello"}),
        (TypeError, "prompts is a dict", {"prompts": {"role": "user", "content": "a"}}),
        (ValueError, r"prompts\[1\] is empty", {"prompts": ["a", " "]}),
        (ValueError, r"prompts\[0\] is empty", {"prompts": [[]]}),
        (TypeError, r"prompts\[0\] is a int", {"prompts": [3]}),
        (ValueError, r"prompts\[0\]\[0\]: role='robot'", {"prompts": [[{"role": "robot", "content": "a"}]]}),
        (ValueError, "keys 'role' and 'content'", {"prompts": [[{"role": "user", "text": "a"}]]}),
        (TypeError, "content is a int", {"prompts": [[{"role": "user", "content": 3}]]}),
        (ValueError, "n=0", {"n": 0}),
        (ValueError, "n=True", {"n": True}),
        (ValueError, "temperature=-1", {"temperature": -1}),
        (ValueError, "temperature=nan", {"temperature": math.nan}),
        (ValueError, "top_p=0", {"top_p": 0}),
        (ValueError, "top_p=1.5", {"top_p": 1.5}),
        (ValueError, "max_tokens=0", {"max_tokens": 0}),
        (TypeError, "stop='x'", {"stop": "x"}),
        (ValueError, "stop=", {"stop": [""]}),
        (ValueError, "seed=-1", {"seed": -1}),
        (ValueError, "seed=2147483648", {"seed": 2**31}),
        (ValueError, "grammar=", {"grammar": " "}),
        (TypeError, "schema is a str", {"schema": "{}"}),
        (ValueError, "grammar and schema", {"grammar": 'root ::= "a"', "schema": {}}),
    ],
)
def test_bad_requests_are_refused_by_name_before_the_model_is_asked(error, named, arguments):
    model = echo()
    with pytest.raises(error, match=named):
        model.generate(**{"prompts": ["a"], **arguments})
    assert not model.samplings


@pytest.mark.parametrize(
    ("error", "named", "call"),
    [
        (TypeError, "continuations is a str", lambda m: m.score("a", "b")),
        (ValueError, "continuations is empty", lambda m: m.score("a", [])),
        (ValueError, r"continuations\[0\] is empty", lambda m: m.score("a", [""])),
        (TypeError, r"texts\[0\] is a int", lambda m: m.embed([1])),
        (ValueError, "at least two, all different", lambda m: m.choose("a", ["A"])),
        (ValueError, "at least two, all different", lambda m: m.choose("a", ["A", "A"])),
        (ValueError, "prompt is empty", lambda m: m.score("", ["a"])),
        (TypeError, "sampling is a dict", lambda m: m.sample(["a"], {})),
        (Unavailable, "offers no embeddings", lambda m: m.embed(["a"])),
    ],
)
def test_bad_scoring_is_refused_by_name(error, named, call):
    with pytest.raises(error, match=named):
        call(echo())


def test_a_sampling_of_lists_equals_one_of_tuples():
    assert Sampling(stop=["a"]) == Sampling(stop=("a",))
    assert Completion("a") == Completion("a", None, None, "stop")
