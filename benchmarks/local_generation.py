"""Language models: a local one beside xllamacpp called bare, replies replayed, and requests made at once."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.measuring import Row, installed, medians
from etude.errors import MissingExtra
from etude.language import (
    Completion,
    Endpoint,
    LanguageModel,
    LocalModel,
    Message,
    Recorded,
    Sampling,
    Usage,
    model_file,
)
from etude.language.model import Reply

SHARED = " ".join(f"Item {i} is heavier than item {i + 3} and costs {i * 7} coins." for i in range(12))
LATENCY = 0.05


def run(quick: bool) -> list[Row]:
    rows = []
    if installed("xllamacpp"):
        try:
            rows += _local(model_file(), quick)
        except MissingExtra as missing:
            print(missing)
    rows += _replay(quick)
    if installed("openai"):
        rows += _concurrency(quick)
    return rows


def _local(path: Path, quick: bool) -> list[Row]:
    model, bare = LocalModel(path, context=2048, threads=1), _bare(path)
    tokens, repetitions = (16, 2) if quick else (128, 7)

    def ours(prompts: list[str], n: int, length: int) -> Callable[[], float]:
        def generate() -> float:
            start, before = time.perf_counter(), model.usage
            model.generate(prompts, n=n, max_tokens=length, temperature=0.8, seed=1)
            return (time.perf_counter() - start) / (model.usage - before).completion_tokens

        return generate

    def theirs(prompts: list[str], n: int, length: int) -> Callable[[], float]:
        def generate() -> float:
            start, sampled = time.perf_counter(), 0
            for prompt in prompts:
                for seed in range(n):
                    request = {"max_tokens": length, "temperature": 0.8, "seed": seed}
                    answer = bare({**request, "messages": [{"role": "user", "content": prompt}]})
                    sampled += answer["usage"]["completion_tokens"]
            return (time.perf_counter() - start) / sampled

        return generate

    rows = []
    for name, prompts, n, length in (
        (f"a reply of {tokens} tokens, beside xllamacpp bare (a token)", ["Tell me a story."], 1, tokens),
        (f"8 replies of {tokens // 2} tokens to one prompt (a token)", ["Tell me another story."], 8, tokens // 2),
        (
            f"8 prompts that share 220 tokens, replies of {tokens // 4} (a token)",
            [f"{SHARED} Tell a story about item {i}." for i in range(8)],
            1,
            tokens // 4,
        ),
    ):
        seconds = medians({"ours": ours(prompts, n, length), "bare": theirs(prompts, n, length)}, repetitions)
        rows.append(Row(name, seconds["ours"], seconds["bare"], aim="< 1.1"))
    return rows


def _bare(path: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.verbosity = 2048, 1, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    return xllamacpp.Server(params).handle_chat_completions


class _Instant(LanguageModel):
    """Answers at once."""

    def _generate(
        self, prompts: Sequence[Sequence[Message]], n: int, sampling: Sampling
    ) -> Iterator[tuple[int, Reply]]:
        for i in range(len(prompts)):
            yield i, Reply([Completion("yes " * 40, 40)], Usage(1, 200, 40))


def _replay(quick: bool) -> list[Row]:
    prompts = [f"{SHARED} Question {i}" for i in range(100 if quick else 2000)]

    def rate(work: Callable[[], Any]) -> float:
        start = time.perf_counter()
        work()
        return len(prompts) / (time.perf_counter() - start)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "replies.jsonl"
        live = Recorded(path, _Instant("instant"))
        recorded = rate(lambda: live.generate(prompts, seed=0))
        opened = rate(lambda: Recorded(path))
        replay = Recorded(path)
        replayed = rate(lambda: replay.generate(prompts, seed=0))
    return [
        Row("replies recorded a second, each safe on disk", recorded, None, "/s"),
        Row("replies read a second when a recording is opened", opened, None, "/s"),
        Row("replies replayed a second", replayed, None, "/s"),
    ]


class _Slow(BaseHTTPRequestHandler):
    """Answers after a while, as a model far away does."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(LATENCY)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        part = b'data: {"choices": [{"index": 0, "delta": {"content": "yes"}, "finish_reason": "stop"}]}\n\n'
        end = b'data: {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}\n\ndata: [DONE]\n\n'
        self.wfile.write(part + end)

    def log_message(self, *arguments: Any) -> None:
        pass


def _concurrency(quick: bool) -> list[Row]:
    prompts = [str(i) for i in range(16 if quick else 64)]
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/v1"
    models = {n: Endpoint("slow", address, concurrency=n) for n in (1, 8)}
    sides = {str(n): lambda model=model: model.generate(prompts) for n, model in models.items()}
    seconds = medians(sides, 2 if quick else 3)
    server.shutdown()
    name = f"an endpoint that takes {LATENCY * 1e3:.0f} ms, 8 requests at once beside 1 (speed-up)"
    return [Row(name, seconds["8"], seconds["1"], aim=">= 5", inverse=True)]
