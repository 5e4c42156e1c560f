"""Requests to the studio, and its own files, damaged at random by a seed; what it accepts, its worker's code does."""

from __future__ import annotations

import copy
import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import damage

import fakes
from flawsmith.errors import FlawsmithError

OURS = {"X-Flawsmith": "1"}
# a worker that says of every job that it is done: the server is tried here, the work below
# values that a page might send, by the name of their field
LIKELY: dict[str, list[Any]] = {
    "method": ["perlin", "cutpaste", "nsa", "copypaste", "procedural", "analogy", "inpaint", "run: x"],
    "family": ["", "blob", "box", "polygon", "crack", "spots", "component", "reference", "varied", "whole", "learned"],
    "defect_type": ["", "dent", "ä", "a b", "CON", "x" * 80, "-", "crack"],
    "prompt": ["", "a\u2028b", "<b>", "%s {x}", "🔥" * 150, "a\nb"],
    "seed": [0, 1, 2**53 - 1],
    "count": [1, 16],
    "reference": [""],
    "category": ["", "widget", "gadget", "."],
    "name": ["a", "A b-c_1", "x" * 40],
    "format": ["flawsmith", "coco", "yolo", "yolo-seg", "voc", "labelme"],
    "box": [[0, 0, 48, 64], [0, 0, 1, 1], [10, 10, 12, 60], [47, 63, 48, 64], [5, 5, 5, 9], [-1, 0, 9, 9]],
    "options": [{}, {"beta": [0.1, 0.1]}, {"min_visibility": 0}, {"min_share": 1}, {"tolerance": 255}, {"x": 1}],
}
QUEUED = ("/api/make", "/api/batch", "/api/export")
IDLE = 'import sys\nfor line in sys.stdin: print(\'{"event": "done", "result": {}}\', flush=True)'
SIZE = (48, 64)


def idle_worker() -> Popen[str]:
    return Popen([sys.executable, "-c", IDLE], stdin=PIPE, stdout=PIPE, text=True, encoding="utf-8")


def open_studio(out: Path, data: Path) -> Any:
    """A test client of a studio with `data`, whose worker does nothing."""
    from fastapi.testclient import TestClient

    from flawsmith.studio import jobs
    from flawsmith.studio.app import create

    usual, jobs.start_worker = jobs.start_worker, idle_worker
    try:
        app = create(out, [f"mvtec_ad:{data}"], [], frozenset({"testserver"}))
    finally:
        jobs.start_worker = usual
    return TestClient(app, raise_server_exceptions=False)


def requests_of(client: Any) -> list[tuple[str, str, Any]]:
    """(method, address, body) of sound requests of every kind that takes a body."""
    from flawsmith.studio.store import deflate

    set_ = client.get("/api/state").json()["data_sets"][0]["id"]
    listed = client.get(f"/api/data/{set_}").json()["images"]
    good = next(one["key"] for one in listed if one["good"])
    defect = next(one["key"] for one in listed if one["has_mask"])
    make = {"data_set": set_, "image": good, "method": "perlin", "defect_type": "dent", "count": 1, "seed": 3,
            "family": "blob", "prompt": "a dent", "options": {"beta": [0.2, 0.4]}}  # fmt: skip
    batch = {"data_set": set_, "method": "cutpaste", "category": "widget", "count": 1, "family": "box", "options": {}}
    fit = {"data_set": set_, "method": "inpaint", "category": "widget", "name": "mine", "steps": 1, "seed": 0}
    mask = deflate(fakes.defect_mask("hole", 2, SIZE))
    return [
        ("post", "/api/make", make),
        ("post", "/api/make", {**make, "method": "copypaste", "family": "reference", "reference": defect}),
        ("post", "/api/wand", {"data_set": set_, "image": good, "box": [4, 4, 30, 40]}),
        ("post", "/api/family", {"data_set": set_, "image": good, "family": "scratch", "seed": 1, "reference": defect}),
        ("post", "/api/batch", batch),
        ("post", "/api/fit", fit),
        ("post", "/api/export", {"set": "", "format": "coco"}),
        ("put", f"/api/masks/{set_}/{good}", mask),
    ]  # fmt: skip


def ask(root: Path, cases: int, seed: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """So many damaged requests: how many were refused and accepted, and the faults."""
    data = fakes.mvtec_tree(root / "data", good=3, defects={"crack": 3, "hole": 3}, size=SIZE)
    told: dict[str, Any] = {"cases": cases, "refused": 0, "accepted": 0, "faults": []}
    rng = random.Random(f"{seed} requests")
    with open_studio(root / "studio", data) as client:
        sound = requests_of(client)
        before = sorted(str(path) for path in root.rglob("*") if "studio" not in path.relative_to(root).parts)
        for number in range(cases):
            method, address, body = rng.choice(sound)
            raw = isinstance(body, bytes)
            content = damage.bytes_of(rng, body) if raw else _damaged(rng, body)
            kind = {} if raw else {"Content-Type": "application/json"}
            answer = client.request(method, address, content=content, headers={**OURS, **kind})
            told["accepted" if answer.status_code < 400 else "refused"] += 1
            fault = "" if answer.status_code < 500 else f"answered {answer.status_code}"
            queued = answer.status_code == 200 and address in QUEUED
            if queued:
                fault = done(client, answer.json()["id"])
            if fault:
                told["faults"].append(f"{fault}: request {number} of seed {seed}: {method} {address} {content[:400]!r}")
                tell(told["faults"][-1])
        after = sorted(str(path) for path in root.rglob("*") if "studio" not in path.relative_to(root).parts)
        if after != before:
            told["faults"].append(f"wrote outside: {set(after) ^ set(before)}")
    return told


def _damaged(rng: random.Random, body: dict[str, Any]) -> bytes:
    """Half of the bodies hold likely values in odd company, the others odd ones."""
    if rng.random() < 0.5:
        return damage.json_of(rng, json.dumps(body).encode())
    changed = {name: rng.choice(LIKELY[name]) for name in body if name in LIKELY and rng.random() < 0.4}
    return json.dumps({**body, **changed}).encode()


def done(client: Any, id_: str) -> str:
    """Do an accepted job with the worker's own code; what is wrong with how it ended."""
    from flawsmith.studio.work import Work

    job = client.app.app.state.studio.queue.get(id_)
    settings = copy.deepcopy(job.settings)
    settings["count"] = 1
    if job.kind == "fit":
        return ""  # trains; its settings are those of `flawsmith train`, tried there
    if "config" in settings:
        settings["config"]["n"] = min(2, settings["config"]["n"])
    try:
        Work().perform({"id": job.id, "kind": job.kind, **settings}, lambda *_: None)
    except FlawsmithError as error:
        return "" if "\n" not in str(error) else f"says more than a sentence: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def restart(root: Path, cases: int, seed: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """A studio's own files damaged, so many times: it must start, answer, and keep its other files."""
    data = fakes.mvtec_tree(root / "data", good=3, defects={"crack": 3, "hole": 3}, size=SIZE)
    whole = root / "whole"
    with open_studio(whole, data) as client:
        _, address, mask = requests_of(client)[-1]
        assert client.put(address, content=mask, headers={**OURS, "X-Revision": "*"}).status_code == 200
        made = client.post("/api/make", json=requests_of(client)[0][2], headers=OURS).json()["id"]
        assert done(client, made) == ""
        assert client.put(f"/api/sets/{made}/0/keep", headers=OURS).status_code == 200
        asked = ["/api/state", "/api/jobs", "/api/sets", address, f"/api/sets/{made}", f"/api/sets/{made}/0/image",
                 f"/api/sets/{made}/0/mask", f"/api/sets/{made}/0/closeup"]  # fmt: skip
    told: dict[str, Any] = {"cases": cases, "refused": 0, "accepted": 0, "faults": []}
    rng = random.Random(f"{seed} restarts")
    ways = {".json": "json", ".jsonl": "lines", ".png": "bytes", ".txt": "text"}
    for number in range(cases):
        out = root / "out"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(whole, out)
        file = rng.choice(sorted(path for path in out.rglob("*") if path.suffix in ways))
        file.write_bytes(damage.WAYS[ways[file.suffix]](rng, file.read_bytes()))
        fault = ""
        try:
            with open_studio(out, data) as client:
                codes = [client.get(path).status_code for path in asked]
                told["refused" if any(code >= 400 for code in codes) else "accepted"] += 1
                fault = "" if max(codes) < 500 else f"answered {codes}"
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        if fault:
            told["faults"].append(f"{fault}: restart {number} of seed {seed}: {file.relative_to(out)}")
            tell(told["faults"][-1])
    return told
