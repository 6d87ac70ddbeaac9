"""A server that speaks the OpenAI protocol as badly as a test wants it to."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[["Answering"], None]


class Answering(BaseHTTPRequestHandler):
    """One request, and the ways to answer it."""

    body: dict[str, Any]
    server: Misbehaving

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = self.server.taken(self)
        behaviours = self.server.behaviours
        behaviours[min(number, len(behaviours) - 1)](self)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""

    def status(self, code: int, text: str, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()

    def event(self, data: Any) -> None:
        text = data if isinstance(data, str) else json.dumps(data)
        self.wfile.write(f"data: {text}\n\n".encode())
        self.wfile.flush()

    def part(self, text: str, index: int = 0, finish: str | None = None, logprobs: Any = None) -> None:
        choice = {"index": index, "delta": {"content": text}, "finish_reason": finish, "logprobs": logprobs}
        self.event({"object": "chat.completion.chunk", "choices": [choice]})

    def end(self, prompt: int = 7, completion: int = 3) -> None:
        self.event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}})
        self.event("[DONE]")


class Misbehaving(ThreadingHTTPServer):
    """Answers request k by behaviour k, and the last behaviour for ever; keeps what it was asked."""

    daemon_threads = True

    def __init__(self, *behaviours: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.behaviours = behaviours
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.released = threading.Event()  # lets a stalling behaviour end with the test

    def taken(self, request: Answering) -> int:
        with self.lock:
            self.requests.append(request.body)
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
            self.times.append(time.monotonic())
            return len(self.requests) - 1

    def handle_error(self, *arguments: Any) -> None:
        """A client that hangs up is what some tests are about."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextlib.contextmanager
def misbehaving(*behaviours: Behaviour) -> Iterator[Misbehaving]:
    server = Misbehaving(*behaviours)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()


# ---- behaviours ----------------------------------------------------------------------------------------------------


def fine(request: Answering) -> None:
    """Echo the last message, once a sample."""
    request.stream()
    for index in range(request.body.get("n", 1)):
        request.part(request.body["messages"][-1]["content"], index)
        request.part("!", index, finish="stop")
    request.end()


def answers(code: int, body: Any, **headers: str) -> Behaviour:
    text = body if isinstance(body, str) else json.dumps(body)
    return lambda request: request.status(code, text, **headers)


def refuses(status: int, message: str = "no", **fields: Any) -> Behaviour:
    return answers(status, {"error": {"message": message, **fields}})


def stalls(request: Answering) -> None:
    """Begin a reply and say no more."""
    request.stream()
    request.part("half a")
    request.server.released.wait(30)


def never_begins(request: Answering) -> None:
    request.server.released.wait(30)


def trickles(request: Answering) -> None:
    """Never stall, never end."""
    request.stream()
    while not request.server.released.wait(0.02):
        request.part("and ")


def dies(request: Answering) -> None:
    """Begin a reply and hang up."""
    request.stream()
    request.part("half a")
    request.connection.shutdown(2)


def breaks_off(request: Answering) -> None:
    """End the stream politely in the middle of a reply."""
    request.stream()
    request.part("half a")
    request.end()


def streams(*events: Any) -> Behaviour:
    def behaviour(request: Answering) -> None:
        request.stream()
        for event in events:
            request.event(event)

    return behaviour


def echoes_key(code: int) -> Behaviour:
    """Say the key back in an error."""
    return lambda request: refuses(code, f"bad header {request.headers['Authorization']}")(request)


def says_key(request: Answering) -> None:
    """Say the key back in a reply."""
    request.stream()
    key = request.headers["Authorization"].removeprefix("Bearer ")
    request.part(key[:5])
    request.part(key[5:], finish="stop")
    request.end()
