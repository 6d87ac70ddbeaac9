"""The program of a worker process: reads tasks from standard input, answers on standard output."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Mapping
from typing import Any

from etude.study.engines.local import receive, send
from etude.study.engines.trial import Asking, Blobs, Task, perform


def main() -> None:
    """Serve tasks until the driver closes the pipe."""
    incoming = os.fdopen(os.dup(0), "rb")
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a study prints goes to the log, not into the messages
    tasks: queue.Queue[Task] = queue.Queue()
    answers: queue.Queue[tuple[dict[str, Any], dict[str, bytes]]] = queue.Queue()

    def listen() -> None:
        while (message := receive(incoming)) is not None:
            header, blobs = message
            if header["kind"] == "task":
                tasks.put(Task(**header["task"]))
            else:
                answers.put((header, blobs))
        os._exit(0)  # the driver is gone, whatever the trial is doing

    def ask(header: dict[str, Any], blobs: Blobs) -> tuple[Mapping[str, Any], Blobs]:
        send(outgoing, header, blobs)
        return answers.get()

    threading.Thread(target=listen, daemon=True).start()
    exchange = Asking(ask, lambda header: send(outgoing, header, {}))
    while True:
        header, blobs = perform(tasks.get(), exchange)
        sys.stdout.flush()
        sys.stderr.flush()
        send(outgoing, header, blobs)


if __name__ == "__main__":
    main()
