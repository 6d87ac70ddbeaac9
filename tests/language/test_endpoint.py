"""Endpoints: against llama.cpp's own server, and against one that does everything wrong."""

import io
import json
import logging
import math
import threading
import time
import traceback
import warnings

import numpy as np
import pytest

pytest.importorskip("openai")

from etude.errors import Unavailable
from etude.language import Endpoint, Recorded
from etude.language import endpoint as module
from tests.language.misbehaving import (
    answers,
    breaks_off,
    dies,
    echoes_key,
    fine,
    misbehaving,
    never_begins,
    refuses,
    says_key,
    stalls,
    streams,
    trickles,
)

KEY = 'sk-very/secret"key+123'


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("ETUDE_LLM_API_KEY", KEY)
    monkeypatch.delenv("ETUDE_LLM_BASE_URL", raising=False)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(module, "_FIRST_DELAY", 0.01)


def at(server, **settings) -> Endpoint:
    return Endpoint("m", server.address, **{"stall_timeout": 5, "connect_timeout": 5, **settings})


# ---- a server that behaves -------------------------------------------------------------------------------------------


def test_replies_of_several_prompts_and_samples():
    with misbehaving(fine) as server:
        model = at(server, price=(2.0, 10.0))
        replies = model.generate(["a", "b", "c"], n=2, temperature=0.3, top_p=0.8, max_tokens=9, stop=["."], seed=5)
        assert [[reply.text for reply in row] for row in replies] == [["a!", "a!"], ["b!", "b!"], ["c!", "c!"]]
        assert replies[0][0].n_tokens is None  # the server counts both samples together
        assert (model.usage.calls, model.usage.prompt_tokens, model.usage.completion_tokens) == (3, 21, 9)
        assert model.usage.cost == pytest.approx((21 * 2 + 9 * 10) / 1e6)
        asked = next(body for body in server.requests if body["messages"][0]["content"] == "a")
        wanted = {"model": "m", "temperature": 0.3, "top_p": 0.8, "max_tokens": 9, "stop": ["."], "seed": 5, "n": 2}
        assert wanted.items() <= asked.items()
        assert model.generate(["a"])[0][0].n_tokens == 3


def test_cost_is_unknown_without_a_price():
    with misbehaving(fine) as server:
        model = at(server)
        model.generate(["a"])
        assert model.usage.cost is None


def test_a_server_that_does_not_count_is_warned_of():
    def uncounted(request):
        request.stream()
        request.part("a", finish="stop")
        request.event("[DONE]")

    with misbehaving(uncounted) as server:
        model = at(server, price=(1.0, 1.0))
        with pytest.warns(UserWarning, match="does not say how many tokens"):
            model.generate(["a"])
        assert model.usage.cost is None


def test_logprobs_are_summed_and_choices_read_from_the_first_token():
    def scored(request):
        request.stream()
        top = [("A", -1.0), (" A", -3.0), ("B", -2.0), ("Ax", -0.5), ("", -1.0)]
        entry = {"token": "A", "logprob": -1.0, "top_logprobs": [{"token": t, "logprob": p} for t, p in top]}
        request.part("A", logprobs={"content": [entry]})
        request.part("!", finish="length", logprobs={"content": [{**entry, "logprob": -0.25}]})
        request.end()

    with misbehaving(scored) as server:
        model = at(server)
        ((reply,),) = model.generate(["a"], logprobs=True)
        assert (reply.logprob, reply.finish) == (-1.25, "length")
        a, b, c = np.exp([np.logaddexp(-1, -3), -2, -3])  # C is not listed: it has at most what the last has
        chosen = model.choose("A, B or C?", ["A", "B", "C"])
        assert np.exp(chosen) == pytest.approx(np.array([a, b, c]) / (a + b + c))
        with pytest.raises(Unavailable, match="none of the options is among"):
            model.choose("?", ["X", "Y"])


def test_samples_are_asked_one_by_one_where_the_server_wants_it():
    def single(request):
        if request.body["n"] > 1:
            refuses(400, "Field 'n': Value must be between 1 <= value <= 1, but got 3")(request)
        else:
            fine(request)

    with misbehaving(single) as server:
        model = at(server)
        assert len(model.generate(["a"], n=3, seed=1)[0]) == 3
        seeds = [body["seed"] for body in server.requests]
        assert [body["n"] for body in server.requests] == [3, 1, 1, 1]
        assert seeds[1] == 1
        assert len(set(seeds[1:])) == 3


def test_a_server_that_gives_fewer_samples_is_asked_for_the_rest():
    def one(request):
        request.body["n"] = 1
        fine(request)

    with misbehaving(one) as server:
        assert len(at(server).generate(["a"], n=3)[0]) == 3


def test_the_newer_name_of_max_tokens_is_learnt():
    def newer(request):
        if "max_tokens" in request.body:
            refuses(400, "'max_tokens' is not supported. Use 'max_completion_tokens' instead.")(request)
        else:
            fine(request)

    with misbehaving(newer) as server:
        model = at(server)
        model.generate(["a"])
        model.generate(["a"])
        assert len(server.requests) == 3


def test_scores_come_from_an_echo():
    def echo(request):
        words = request.body["prompt"].split(" ")
        tokens = [words[0], *(" " + word for word in words[1:]), " more"]
        offsets = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
        logprobs = {"tokens": tokens, "token_logprobs": [None, *(-float(len(t)) for t in tokens[1:])]}
        choice = {"text": "".join(tokens), "index": 0, "logprobs": {**logprobs, "text_offset": offsets}}
        usage = {"prompt_tokens": len(words), "completion_tokens": 1}
        answers(200, {"choices": [choice], "usage": usage})(request)

    with misbehaving(echo) as server:
        model = at(server)
        assert model.score("a b", [" cc ddd", " e"]) == [-7.0, -2.0]
        assert model.usage.prompt_tokens == 7
        with pytest.raises(ValueError, match="straddles the end of the prompt"):
            model.score("a b", ["x"])
        with pytest.raises(Unavailable, match="plain texts only"):
            model.score([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}], [" c"])


def test_embeddings_are_put_in_order():
    def embeds(request):
        data = [{"index": i, "embedding": [float(i), 1.0]} for i in reversed(range(len(request.body["input"])))]
        answers(200, {"data": data, "usage": {"prompt_tokens": 4}})(request)

    with misbehaving(embeds) as server:
        vectors = at(server).embed([f"text {i}" for i in range(300)])
        assert vectors.shape == (300, 2)
        assert vectors[:, 0].tolist() == [*range(256), *range(44)]
        assert [len(body["input"]) for body in server.requests] == [256, 44]


def test_a_grammar_is_sent_only_to_a_server_that_follows_it():
    def follows(request):
        request.stream()
        request.part("zebra" if "zebra" in request.body["grammar"] else "yes", finish="stop")
        request.end()

    with misbehaving(follows) as server:
        model = at(server)
        assert model.generate(["a", "b"], grammar='root ::= "yes"')[0][0].text == "yes"
        assert model.usage.calls == 3  # the question whether it follows grammars is counted
    with misbehaving(fine) as server, pytest.raises(Unavailable, match="does not follow GBNF grammars"):
        at(server).generate(["a"], grammar='root ::= "yes"')


# ---- a server that does not ------------------------------------------------------------------------------------------

PASSING = {
    "stalls": stalls,
    "never begins": never_begins,
    "dies": dies,
    "breaks off": breaks_off,
    "500": refuses(500),
    "503 of a proxy": answers(503, "<html>busy</html>", Content_Type="text/html"),
    "429": refuses(429),
    "malformed JSON": streams('{"choices": [{'),
    "no stream": answers(200, {"choices": [{"message": {"content": "hello"}}]}),
    "empty stream": streams("[DONE]"),
    "a page": answers(200, "<html>log in</html>", Content_Type="text/html"),
    "wrong schema": streams({"choices": "none"}),
    "no delta": streams({"choices": [{"index": 0}]}),
    "no text": streams({"choices": [{"index": 0, "delta": {"content": 3}}]}),
    "a list": streams([1, 2]),
    "error in the stream": streams({"error": {"message": "overloaded"}}),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_tried_again(name):
    with misbehaving(PASSING[name], fine) as server:
        model = at(server, stall_timeout=0.3)
        assert model.generate(["a"])[0][0].text == "a!"
        assert len(server.requests) == 2
        assert model.usage.calls == 1


@pytest.mark.parametrize("name", PASSING)
def test_what_does_not_pass_is_a_clear_error(name):
    with misbehaving(PASSING[name]) as server:
        with pytest.raises(Unavailable, match=r"^m behind http://127.0.0.1:\d+/v1 ") as raised:
            at(server, stall_timeout=0.2, retries=1).generate(["a"])
        assert len(server.requests) == 2
        assert raised.value.remedy


def test_a_reply_that_does_not_follow_the_schema_is_tried_again():
    follows = streams({"choices": [{"index": 0, "delta": {"content": "3"}, "finish_reason": "stop"}]}, "[DONE]")
    with misbehaving(fine, follows) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert at(server).generate(["a"], schema={"type": "integer"})[0][0].text == "3"
        sent = server.requests[0]["response_format"]["json_schema"]
        assert sent["schema"] == {"type": "integer"}


@pytest.mark.parametrize("header", [{"Retry_After": "1"}, {"retry_after_ms": "700"}])
def test_retry_after_is_honoured(header):
    with misbehaving(answers(429, {"error": {"message": "slow down"}}, **header), fine) as server:
        assert at(server).generate(["a"])[0][0].text == "a!"
        first, second = server.times
        assert second - first >= 0.69


@pytest.mark.parametrize(
    ("behaviour", "error", "told"),
    [
        (refuses(401, "bad key"), Unavailable, "refuses the key .* ETUDE_LLM_API_KEY"),
        (refuses(403, "not you"), Unavailable, "refuses the key"),
        (refuses(404, "no such model"), Unavailable, "no such model.*model's name"),
        (refuses(501, "not built in"), Unavailable, "not built in"),
        (refuses(400, "temperature is too hot", param="temperature"), ValueError, "^temperature: .* too hot"),
        (refuses(400, "maximum context length is 10 tokens, you gave 12"), ValueError, "^prompt: .* 10 tokens"),
        (refuses(422, "grammar is odd"), ValueError, "^grammar: "),
        (refuses(429, "pay first", code="insufficient_quota"), Unavailable, "pay first"),
        (answers(429, {"error": {"message": "tomorrow"}}, Retry_After="86400"), Unavailable, "after 86400 s"),
    ],
)
def test_what_does_not_pass_is_not_tried_again(behaviour, error, told):
    with misbehaving(behaviour) as server:
        with pytest.raises(error, match=told):
            at(server).generate(["a"])
        assert len(server.requests) == 1


def test_a_reply_that_never_ends_is_given_up_and_not_tried_again():
    with misbehaving(trickles) as server:
        with pytest.raises(Unavailable, match=r"takes more than timeout=0\.3 s"):
            at(server, timeout=0.3).generate(["a"])
        assert len(server.requests) == 1


def test_nobody_there():
    with misbehaving(fine) as server:
        address = server.address
    with pytest.raises(Unavailable, match="cannot be reached"):
        Endpoint("m", address, retries=0).generate(["a"])


def test_delays_double_and_vary(monkeypatch):
    monkeypatch.setattr(module, "_FIRST_DELAY", 0.1)
    with misbehaving(refuses(500)) as server:
        with pytest.raises(Unavailable):
            at(server, retries=3).generate(["a"])
        gaps = np.diff(server.times)
        assert len(gaps) == 3
        assert all(gap >= 0.75 * 0.1 * 2**i for i, gap in enumerate(gaps))


def test_what_was_paid_for_before_an_error_is_recorded(tmp_path):
    gate = threading.Event()

    def mixed(request):
        if request.body["messages"][0]["content"] == "bad":
            gate.wait(10)
            refuses(401)(request)
        else:
            fine(request)
            gate.set()

    prompts = ["good", "bad", *(f"later {i}" for i in range(20))]
    with misbehaving(mixed) as server:
        live = Recorded(tmp_path / "replies", at(server, concurrency=2))
        with pytest.raises(Unavailable, match="refuses the key"):
            live.generate(prompts, seed=0)
        answered = len(server.requests) - 1
        assert live.usage.calls == len(live) == answered >= 1
        assert answered < 21  # nothing new was begun after the error
        assert Recorded(tmp_path / "replies").generate(["good"], seed=0)[0][0].text == "good!"


def test_no_more_are_under_way_than_allowed():
    lock, together, most = threading.Lock(), [0], [0]

    def slow(request):
        with lock:
            together[0] += 1
            most[0] = max(most[0], together[0])
        time.sleep(0.05)
        with lock:
            together[0] -= 1
        fine(request)

    with misbehaving(slow) as server:
        replies = at(server, concurrency=4).generate([str(i) for i in range(12)])
        assert [row[0].text for row in replies] == [f"{i}!" for i in range(12)]
        assert 1 < most[0] <= 4


class Clock:
    """A clock that waiting moves."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def is_set(self):
        return False

    def wait(self, seconds):
        self.now += seconds
        return False


def test_no_minute_sees_more_than_the_rate_limit(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    limiter = module._Limiter(3, 1000)
    starts = [(limiter.wait(tokens, clock).at, tokens) for tokens in [10] * 7 + [600] * 3 + [5000, 10]]
    for at, _ in starts:
        inside = [tokens for other, tokens in starts if at - 60 < other <= at]
        assert len(inside) <= 3
        assert sum(inside) <= 1000 or len(inside) == 1
    assert starts[2][0] == 0  # nothing waits without need
    entry = module._Limiter(None, 1000)
    first = entry.wait(900, clock)
    first.tokens = 20  # it took less than feared
    before = clock.now
    entry.wait(900, clock)
    assert clock.now == before


# ---- the key ---------------------------------------------------------------------------------------------------------

FORMS = (KEY, json.dumps(KEY)[1:-1], "sk-very%2Fsecret")


def said(error: BaseException) -> str:
    """Everything an error and what it carries can say."""
    told, seen = [], set()

    def visit(value, depth=0):
        if id(value) in seen or depth > 6:
            return
        seen.add(id(value))
        told.append(f"{value!r} {value}")
        if isinstance(value, BaseException):
            for each in (*value.args, value.__cause__, value.__context__, vars(value)):
                visit(each, depth + 1)
        elif isinstance(value, dict):
            for each in value.values():
                visit(each, depth + 1)
        elif hasattr(value, "headers"):
            told.append(str(dict(value.headers)))

    visit(error)
    return "\n".join([*told, *traceback.format_exception(error)])


ECHOES = [*(echoes_key(status) for status in (400, 401, 404, 429, 500)), dies, stalls]
ECHOES += [answers(500, "not JSON: " + KEY), streams({"error": {"message": f"your key {KEY}"}}), streams("{" + KEY)]


@pytest.mark.parametrize("behaviour", ECHOES)
def test_the_key_is_in_no_error_and_no_log(behaviour, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    stream = io.StringIO()
    root = logging.getLogger()
    handler = logging.StreamHandler(stream)
    root.addHandler(handler)
    try:
        with misbehaving(behaviour) as server:
            model = at(server, stall_timeout=0.2, retries=1)
            with pytest.raises((Unavailable, ValueError)) as raised:
                model.generate(["a"])
            assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    finally:
        root.removeHandler(handler)
    told = said(raised.value) + caplog.text + stream.getvalue() + "".join(capfd.readouterr()) + repr(model)
    assert not [form for form in FORMS if form in told]
    assert raised.value.__context__ is None
    assert raised.value.__cause__ is None


def test_the_key_is_in_no_recording_even_if_the_server_replies_with_it(tmp_path):
    with misbehaving(says_key) as server:
        live = Recorded(tmp_path / "replies", at(server))
        assert live.generate(["a"], seed=0)[0][0].text == "[key]"
        assert "sk-" not in (tmp_path / "replies").read_text(encoding="utf-8")
        assert "sk-" not in repr(live) + repr(live.model) + str(vars(live.model))


# ---- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "arguments"),
    [
        ("model=''", {"model": ""}),
        ("concurrency=0", {"concurrency": 0}),
        ("retries=-1", {"retries": -1}),
        ("timeout=0", {"timeout": 0}),
        ("stall_timeout=-1", {"stall_timeout": -1}),
        ("requests_per_minute=0", {"requests_per_minute": 0}),
        ("price=", {"price": (1.0, math.nan)}),
        ("price=", {"price": (1.0,)}),
        ("base_url='ftp://x'", {"base_url": "ftp://x"}),
        ("base_url='example.org'", {"base_url": "example.org"}),
    ],
)
def test_bad_settings_are_refused_by_name(named, arguments):
    with pytest.raises(ValueError, match=named):
        Endpoint(**{"model": "m", "base_url": "http://127.0.0.1:1/v1", **arguments})


@pytest.mark.parametrize("address", [f"https://me:{KEY[:7]}@example.org/v1", f"https://example.org/v1?key={KEY[:7]}"])
def test_an_address_with_credentials_is_refused_without_being_repeated(address):
    with pytest.raises(ValueError, match="carries credentials") as raised:
        Endpoint("m", address)
    assert KEY[:7] not in said(raised.value)


def test_no_address_and_no_key(monkeypatch):
    with pytest.raises(Unavailable, match="ETUDE_LLM_BASE_URL"):
        Endpoint("m")
    monkeypatch.setenv("ETUDE_LLM_BASE_URL", "https://example.org/v1/")
    assert repr(Endpoint("m")) == "Endpoint('m', 'https://example.org/v1')"
    monkeypatch.delenv("ETUDE_LLM_API_KEY")
    with pytest.raises(Unavailable, match="ETUDE_LLM_API_KEY"):
        Endpoint("m")
    with pytest.raises(Unavailable, match="MY_KEY"):
        Endpoint("m", key_variable="MY_KEY")
    Endpoint("m", "http://localhost:8080/v1")  # a server on this machine may need none
