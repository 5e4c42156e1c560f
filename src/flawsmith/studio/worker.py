"""The process that holds the model: reads jobs as lines of JSON, answers with progress and results.

    python -m flawsmith.studio.worker

It ends with its parent, when its standard input ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, TextIO

EVERY = 0.1  # seconds between two lines of progress


def main() -> None:
    """Work until standard input ends. What libraries print goes to stderr, so that it breaks no line of ours."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with contextlib.suppress(OSError):
        os.nice(5)  # the page stays quick
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            jobs.put(json.loads(line))
        os._exit(0)  # the parent is gone

    threading.Thread(target=read, daemon=True).start()
    from flawsmith.studio.work import Work

    work = Work()
    while True:
        _answer(work, jobs.get(), answers)


def _answer(work: Any, job: dict[str, Any], answers: TextIO) -> None:
    from flawsmith.errors import FlawsmithError, out_of_memory

    last = 0.0

    def say(**told: Any) -> None:
        answers.write(json.dumps(told) + "\n")
        answers.flush()

    def progress(what: str, done: int, total: int, facts: Mapping[str, Any]) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY or done >= total:
            last = time.monotonic()
            plain = {key: value for key, value in facts.items() if isinstance(value, (int, float, str))}
            say(event="progress", what=what, done=done, total=total, facts=plain)

    try:
        say(event="done", result=work.perform(job, progress))
    except Exception as error:
        if out_of_memory(error):
            told = "Not enough memory: close other programs, or take smaller images."
        elif isinstance(error, FlawsmithError):
            told = str(error)
        else:
            told = f"Unexpected {type(error).__name__}: {error}. This is a fault of flawsmith."
        say(event="failed", error=told)


if __name__ == "__main__":
    main()
