"""The queue: one job at a time, in a worker process of its own that may die without the server dying."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from flawsmith import images, inputs
from flawsmith.errors import FlawsmithError
from flawsmith.studio.store import ID

Status = Literal["queued", "running", "done", "failed", "cancelled"]
MOST_WAITING = 200
REMEMBERED = 500  # finished jobs
POINTS = 400  # of a fit's curve that are kept
CURVES = ("loss", "held_out")  # what a fit tells of its steps


@dataclass
class Job:
    """One thing to do. `settings` is what the worker gets; `result` what it answered."""

    id: str
    kind: str
    title: str
    settings: dict[str, Any]
    status: Status = "queued"
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    what: str = ""
    done: int = 0
    total: int = 0
    # of a fit: by what is learned ("widget/crack") and by CURVES the points (step, value)
    curves: dict[str, dict[str, list[tuple[int, float]]]] = field(default_factory=dict)
    begun: tuple[float, int] | None = None  # clock and `done` when the first progress of this part of the work came

    def told(self) -> dict[str, Any]:
        """For the page: without what only the worker needs, with the seconds left where they can be known."""
        left = None
        if self.status == "running" and self.begun is not None and self.done > self.begun[1]:
            spent = time.monotonic() - self.begun[0]
            left = round(spent * (self.total - self.done) / (self.done - self.begun[1]))
        fields = {key: value for key, value in asdict(self).items() if key not in ("begun", "settings")}
        told = {**fields, "seconds_left": left, "request": self.settings.get("request", {})}
        return {**told, "previews": list(self.previews())}

    def previews(self) -> dict[str, Path]:
        """What a fit has painted so far to be looked at, "widget-crack/000050.png" -> the file."""
        if self.kind != "fit":
            return {}
        folder = Path(self.settings["config"]["out"]) / "train"
        found = sorted(folder.glob("*/previews/*.png"))
        return {f"{path.parts[-3]}/{path.name}": path for path in found if not images.PARTIAL.fullmatch(path.name)}


ROW = TypeAdapter(Job)


class Queue:
    """Jobs in order. They stand in `out/jobs.json`; one that a stopped server was at is queued again."""

    def __init__(self, out: Path, worker: Callable[[], subprocess.Popen[str]] | None = None) -> None:
        self.path = out / "jobs.json"
        self.jobs: dict[str, Job] = {}
        self._changed = threading.Condition()
        self._start = worker or start_worker
        self._worker: subprocess.Popen[str] | None = None
        self._closing = False
        self._load()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _load(self) -> None:
        try:
            rows = inputs.parse_json(self.path.read_text(encoding="utf-8"), list)
        except (OSError, ValueError):
            return
        for row in rows:
            try:
                job = _row(row)
            except ValueError:
                continue  # damaged, or another version's
            job.begun = None
            if job.status == "running":
                job.status = "queued"
            self.jobs[job.id] = job

    def _save(self) -> None:
        finished = [id_ for id_, job in self.jobs.items() if job.status not in ("queued", "running")]
        for id_ in finished[: max(0, len(finished) - REMEMBERED)]:
            del self.jobs[id_]
        rows = [asdict(job) for job in self.jobs.values()]
        images.write_bytes(self.path, (json.dumps(rows) + "\n").encode())

    # -- from the server -----------------------------------------------------------------------------------------------

    def add(self, kind: str, title: str, settings: dict[str, Any], id_: str = "") -> Job:
        """Raises FlawsmithError when too many wait."""
        with self._changed:
            if sum(job.status == "queued" for job in self.jobs.values()) >= MOST_WAITING:
                raise FlawsmithError(f"{MOST_WAITING} jobs are waiting already: let some finish, or cancel them.")
            job = Job(id_ or new_id(), kind, title, settings)
            self.jobs[job.id] = job
            self._save()
            self._changed.notify_all()
            return job

    def get(self, id_: str) -> Job:
        if id_ not in self.jobs:
            raise FlawsmithError(f"No job {id_[:40]!r}.")
        return self.jobs[id_]

    def cancel(self, id_: str) -> None:
        """A waiting job never begins; the worker of a running one is ended, and what was finished stays."""
        with self._changed:
            job = self.get(id_)
            if job.status == "running" and self._worker is not None:
                self._worker.kill()
            if job.status in ("queued", "running"):
                job.status = "cancelled"
                self._save()

    def listed(self) -> list[dict[str, Any]]:
        return [job.told() for job in list(self.jobs.values())]

    def close(self) -> None:
        """End the worker; what it was at is queued again by the next server on the same folder."""
        with self._changed:
            self._closing = True
            if self._worker is not None:
                self._worker.kill()
            self._changed.notify_all()
        self._thread.join(5)

    # -- the worker ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                job = next((job for job in self.jobs.values() if job.status == "queued"), None)
                if self._closing:
                    return
                if job is None:
                    self._changed.wait()
                    continue
                job.status, job.begun, job.done, job.total = "running", None, 0, 0
                if self._worker is None or self._worker.poll() is not None:
                    self._worker = self._start()
                worker = self._worker
                self._save()
            self._follow(job, worker)

    def _follow(self, job: Job, worker: subprocess.Popen[str]) -> None:
        """Hand a job to the worker and listen until it is done, or the worker is gone."""
        assert worker.stdin is not None and worker.stdout is not None
        status: Status = "failed"
        try:
            worker.stdin.write(json.dumps({"id": job.id, "kind": job.kind, **job.settings}) + "\n")
            worker.stdin.flush()
            for line in worker.stdout:
                told = json.loads(line)
                if told["event"] == "progress":
                    self._progress(job, told)
                    continue
                status = told["event"]
                job.result, job.error = told.get("result", {}), told.get("error", "")
                break
            else:
                job.error = _ended(worker)
        except BrokenPipeError:  # before it took the job
            job.error = _ended(worker)
        except (OSError, ValueError) as error:
            job.error = f"The worker process cannot be reached ({error}); the studio goes on with a new one."
        with self._changed:
            if self._closing:
                return
            if job.status == "running":
                job.status = status
            if job.status == "cancelled":
                job.error = ""
            self._save()

    def _progress(self, job: Job, told: dict[str, Any]) -> None:
        if told["done"] < job.done or job.begun is None:  # the next part counts from the beginning
            job.begun = time.monotonic(), told["done"]
        job.what, job.done, job.total = told["what"], told["done"], told["total"]
        for name in CURVES:
            value = told.get("facts", {}).get(name)
            if isinstance(value, (int, float)):
                curve = job.curves.setdefault(job.what, {}).setdefault(name, [])
                curve.append((job.done, float(value)))
                if len(curve) > POINTS:
                    del curve[1:-1:2]


def _ended(worker: subprocess.Popen[str]) -> str:
    return (
        f"The worker process ended (code {worker.wait()}), most likely for want of memory. "
        "The studio goes on with a new one; what was finished is kept."
    )


def _row(row: Any) -> Job:
    """A row of jobs.json. Raises ValueError for one that is no job of ours."""
    json.dumps(row, allow_nan=False)  # what the page could not be told
    job = ROW.validate_python(row)
    asked = job.settings.get("request", {})
    if not ID.fullmatch(job.id) or not isinstance(asked, dict) or not isinstance(asked.get("data_set", ""), str):
        raise ValueError("its id or what was asked for is none")
    return job


def new_id() -> str:
    return secrets.token_hex(6)


def start_worker() -> subprocess.Popen[str]:
    """The worker: jobs as lines of JSON on its stdin, what becomes of them on its stdout."""
    return subprocess.Popen(
        [sys.executable, "-m", "flawsmith.studio.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
