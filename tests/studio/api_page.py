"""The studio's page without a browser: what it asks of the API, in words."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient

from flawsmith.studio.store import deflate

HOSTS = frozenset({"testserver"})
OURS = {"X-Flawsmith": "1"}
SIZE = (72, 96)


class Page:
    """What the page does, in words."""

    def __init__(self, client: TestClient, out: Path) -> None:
        self.client, self.out = client, out
        self.data_set = self.get("/api/state")["data_sets"][0]["id"]
        self.images = self.get(f"/api/data/{self.data_set}")["images"]
        self.good = next(one["key"] for one in self.images if one["good"])
        self.defect = next(one["key"] for one in self.images if one["has_mask"])

    def get(self, path: str) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, **json_: Any) -> Any:
        answer = self.client.post(path, json=json_, headers=OURS)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def paint(self, mask: np.ndarray, revision: str = "*") -> Any:
        headers = {**OURS, "X-Revision": revision}
        return self.client.put(f"/api/masks/{self.data_set}/{self.good}", content=deflate(mask), headers=headers)

    def make(self, **changes: Any) -> dict[str, Any]:
        asked = {"data_set": self.data_set, "image": self.good, "method": "perlin", "defect_type": "dent", "count": 2}
        return self.post("/api/make", **{**asked, **changes})

    def wait(self, job: dict[str, Any], until: tuple[str, ...] = ("done", "failed", "cancelled")) -> dict[str, Any]:
        for _ in range(3000):
            told = next(one for one in self.get("/api/jobs") if one["id"] == job["id"])
            if told["status"] in until:
                return told
            time.sleep(0.1)
        raise AssertionError(f"{job['title']} did not become {until}")


def square() -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[30:46, 36:60] = True
    return mask
