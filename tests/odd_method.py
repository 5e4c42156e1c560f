"""A method of a user's own whose worker processes come to grief, for tests of those who wait for them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from flawsmith import compose
from flawsmith.errors import FlawsmithError
from flawsmith.methods import base
from flawsmith.records import Request


class StrangeError(Exception):
    """Pickle would call it with what `args` holds: one argument too few."""

    def __init__(self, times: int, what: str) -> None:
        super().__init__(f"{times} times a {what}")


class Grief(base.Synthesizer):
    """Darkens in one of three ways; at a seed that `bad` divides it fails, as `how` says."""

    name = "grief"
    imitates = False

    class Options(base.Options):
        how: str = Field(
            "raise",
            description="raise, odd (what cannot be sent), strange (what cannot be put together again), exit (of a "
            "worker) or once (the next does not exit)",
        )
        bad: int = Field(7, ge=1, description="every such seed")
        note: str = Field("", description="file that says that a worker has ended")

    def paint(
        self,
        normal: np.ndarray,
        mask: np.ndarray,
        request: Request,
        area: compose.Window,
        rng: np.random.Generator,
        options: Any,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if request.seed % options.bad == 0:
            if options.how == "raise":
                raise FlawsmithError(f"No grief for seed {request.seed}.")
            if options.how == "odd":
                raise ValueError("an odd grief", lambda: None)
            if options.how == "strange":
                raise StrangeError(3, "strange grief")
            ended = Path(options.note).exists()
            worker = multiprocessing.parent_process() is not None or Path(sys.argv[0]).name == "default_worker.py"
            if worker and not (options.how == "once" and ended):  # the latter is what Ray starts
                Path(options.note).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return normal // (2 + request.seed % 3), {}
