"""The studio's API: masks are saved pixel for pixel, and one tab does not overwrite another's."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio's extra is absent: pip install 'flawsmith[studio]'")


from api_page import OURS, SIZE, Page, square

import fakes
from flawsmith import images
from flawsmith.studio.store import deflate, inflate


def test_a_painted_mask_is_saved_pixel_for_pixel(page: Page) -> None:
    mask = np.random.default_rng(0).random(SIZE) < 0.5
    assert page.paint(mask).status_code == 200
    answer = page.client.get(f"/api/masks/{page.data_set}/{page.good}")
    assert answer.headers["x-size"] == "96x72"
    assert (np.frombuffer(answer.content, np.uint8).reshape(SIZE) == mask).all()
    assert (images.read_mask(page.out / "masks" / page.data_set / f"{page.good}.png") == mask).all()
    page.paint(np.zeros(SIZE, bool))
    assert not (page.out / "masks" / page.data_set / f"{page.good}.png").exists()


def test_masks_of_other_sizes_and_bombs_are_refused(page: Page) -> None:
    for content in (deflate(np.zeros((72, 97), bool)), gzip.compress(bytes(50_000_000)), b"no gzip", b"",
                    gzip.compress(bytes([2]) * (72 * 96)), deflate(square())[:-4]):  # fmt: skip
        path = f"/api/masks/{page.data_set}/{page.good}"
        answer = page.client.put(path, content=content, headers={**OURS, "X-Revision": "*"})
        assert answer.status_code == 400, answer.text


def test_a_mask_goes_there_and_back(tmp_path: Path) -> None:
    mask = np.random.default_rng(1).random((31, 17)) < 0.3
    assert (inflate(deflate(mask), (31, 17)) == mask).all()


def test_two_tabs_do_not_overwrite_each_other(page: Page) -> None:
    first = page.paint(square()).json()["revision"]
    other = ~square()
    assert page.paint(other, first).status_code == 200  # one tab, over what it saw
    refused = page.paint(square(), first)  # the other, over the same
    assert refused.status_code == 409 and "another tab" in refused.json()["error"]
    assert (images.read_mask(page.out / "masks" / page.data_set / f"{page.good}.png") == other).all()


def test_masks_are_drawn_proposed_and_imported(page: Page, tmp_path: Path) -> None:
    image = {"data_set": page.data_set, "image": page.good}
    drawn = page.client.post("/api/family", json={**image, "family": "scratch", "seed": 3}, headers=OURS)
    assert drawn.status_code == 200 and 0 < np.frombuffer(drawn.content, np.uint8).sum() < 72 * 96 / 2
    box = page.client.post("/api/wand", json={**image, "box": [20, 20, 50, 60]}, headers=OURS)
    found = np.frombuffer(box.content, np.uint8).reshape(SIZE).astype(bool)
    assert found.any() and not found[:20].any() and not found[:, 60:].any()
    assert page.client.post("/api/wand", json={**image, "box": [20, 20, 500, 60]}, headers=OURS).status_code == 400
    file = fakes.save(tmp_path / "own.png", square())
    path = f"/api/masks/{page.data_set}/{page.good}/import"
    taken = page.client.post(path, content=file.read_bytes(), headers=OURS)
    assert (np.frombuffer(taken.content, np.uint8).reshape(SIZE) == square()).all()
    wrong = fakes.save(tmp_path / "wrong.png", square()[:40])
    answers = [page.client.post(path, content=c, headers=OURS) for c in (wrong.read_bytes(), b"no image", b"")]
    assert [answer.status_code for answer in answers] == [400, 400, 400] and "96 x 40" in answers[0].text
