"""The studio's API: what outlives a dead worker, a cancelled job and a restart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio's extra is absent: pip install 'flawsmith[studio]'")

from api_page import OURS, Page, square
from fastapi.testclient import TestClient

from flawsmith.studio.jobs import Queue


def worker_of(page: Page) -> subprocess.Popen[str]:
    queue = page.client.app.app.state.studio.queue  # type: ignore[attr-defined]
    assert queue._worker is not None
    return queue._worker


def test_the_worker_may_die_and_a_batch_may_be_cancelled(page: Page) -> None:
    long = {"data_set": page.data_set, "method": "procedural", "count": 5000}
    for ended in ("failed", "cancelled"):
        job = page.post("/api/batch", **long)
        told = page.wait(job, ("running",))
        while not told["done"]:
            told = page.wait(job, ("running",))
        assert told["total"] == 5000
        if ended == "failed":
            os.kill(worker_of(page).pid, signal.SIGKILL)
        else:
            page.client.delete(f"/api/jobs/{job['id']}", headers=OURS)
        told = page.wait(job)
        assert told["status"] == ended
        assert ("worker process ended" in told["error"]) == (ended == "failed")
        assert page.get(f"/api/sets/{job['id']}")["rows"]  # what was finished is kept
        assert page.wait(page.make(count=1))["status"] == "done"  # and the studio goes on


def test_a_worker_that_dies_before_it_takes_a_job_is_told_likewise(tmp_path: Path) -> None:
    def dead() -> subprocess.Popen[str]:
        worker = subprocess.Popen([sys.executable], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        worker.kill()
        worker.wait()
        return worker

    queue = Queue(tmp_path, dead)
    job = queue.add("make", "one", {})
    for _ in range(100):
        if job.status == "failed":
            break
        time.sleep(0.05)
    queue.close()
    assert job.status == "failed" and "worker process ended" in job.error


def test_a_waiting_job_that_is_cancelled_never_begins(page: Page) -> None:
    first = page.post("/api/batch", data_set=page.data_set, method="procedural", count=5000)
    second = page.make()
    page.client.delete(f"/api/jobs/{second['id']}", headers=OURS)
    page.wait(first, ("running",))
    page.client.delete(f"/api/jobs/{first['id']}", headers=OURS)
    assert page.wait(first)["status"] == page.wait(second)["status"] == "cancelled"
    assert not (page.out / "made" / second["id"]).exists()


def test_a_restart_loses_nothing(open_page: Callable[..., TestClient], tmp_path: Path) -> None:
    with open_page(tmp_path) as client:
        page = Page(client, tmp_path)
        page.paint(square())
        done = page.wait(page.make(count=1))
        client.put(f"/api/sets/{done['id']}/0/keep", headers=OURS)
        batch = page.post("/api/batch", data_set=page.data_set, method="procedural", count=8)
        page.wait(batch, ("running", "done"))
    with open_page(tmp_path) as client:
        page = Page(client, tmp_path)
        assert page.get(f"/api/sets/{done['id']}")["rows"][0]["decision"] == "keep"
        assert np.frombuffer(client.get(f"/api/masks/{page.data_set}/{page.good}").content, np.uint8).sum() == 16 * 24
        assert page.wait(batch)["status"] == "done"  # it went on where it was
        assert len((tmp_path / "made" / batch["id"] / "manifest.jsonl").read_text().splitlines()) == 8


def test_the_server_needs_no_torch() -> None:
    code = "import flawsmith.studio.app, flawsmith.studio.serve, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
