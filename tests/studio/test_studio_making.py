"""The studio's API: from a painted mask or a batch to images that are kept, reviewed and exported."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio's extra is absent: pip install 'flawsmith[studio]'")

from api_page import OURS, SIZE, Page, square
from fastapi.testclient import TestClient

import fakes
from flawsmith import datasets, images
from flawsmith.errors import FlawsmithError
from flawsmith.studio import serve
from flawsmith.studio.store import deflate


def test_paint_make_keep_and_export(page: Page, data: Path) -> None:
    assert page.paint(square()).json()["pixels"] == 16 * 24
    job = page.wait(page.make())
    assert job["status"] == "done", job["error"]
    made = page.get(f"/api/sets/{job['id']}")
    assert [row["title"] for row in made["rows"]] == ["seed 0", "seed 1"][: len(made["rows"])] and made["rows"]
    normal = images.read_image(data / next(one["name"] for one in page.images if one["key"] == page.good))
    for row in made["rows"]:
        assert row["normal"] == page.good
        answers = [page.client.get(f"/api/sets/{job['id']}/{row['index']}/{what}") for what in ("image", "mask")]
        paths = [fakes.write(page.out / "t" / f"{n}.png", answer.content) for n, answer in enumerate(answers)]
        image, label = images.read_image(paths[0]), images.read_mask(paths[1])
        assert (image[~label] == normal[~label]).all() and label.any() and not (label & ~square()).any()
        for small in ("thumbnail", "closeup"):
            assert page.client.get(f"/api/sets/{job['id']}/{row['index']}/{small}").content[8:12] == b"WEBP"
    kept = made["rows"][0]["index"]
    assert page.client.put(f"/api/sets/{job['id']}/{kept}/keep", headers=OURS).json() == {"decision": "keep"}
    export = page.wait(page.post("/api/export", format="flawsmith"))
    assert export["status"] == "done" and export["result"]["images"] == 1, export
    archive = zipfile.ZipFile(io.BytesIO(page.client.get(f"/api/exports/{export['id']}").content))
    archive.extractall(page.out / "t" / "unpacked")
    records = datasets.read("mvtec_ad", page.out / "t" / "unpacked")
    assert [record.defect_type for record in records] == ["dent"] and records[0].load().mask.any()
    line = json.loads((page.out / "t" / "unpacked" / "manifest.jsonl").read_text())
    assert line["normal"]["sha"] == images.file_sha(data / line["normal"]["file"])
    page.client.put(f"/api/sets/{job['id']}/{kept}/open", headers=OURS)
    assert page.client.post("/api/export", json={}, headers=OURS).status_code == 400


def test_the_same_seed_makes_the_same_image_again(page: Page) -> None:
    page.paint(square())
    both = [page.wait(page.make(seed=5, count=1)) for _ in range(2)]
    contents = [page.client.get(f"/api/sets/{job['id']}/0/image").content for job in both]
    assert contents[0] == contents[1]


def test_a_reference_is_imitated_and_named(page: Page) -> None:
    refused = page.client.post(
        "/api/make", json={"data_set": page.data_set, "image": page.good, "method": "copypaste"}, headers=OURS
    )
    assert refused.status_code == 400 and "choose a reference" in refused.json()["error"]
    job = page.wait(page.make(method="copypaste", reference=page.defect, defect_type="crack", family="reference"))
    assert job["status"] == "done" and job["result"]["kept"], job
    lines = (page.out / "made" / job["id"] / "manifest.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["reference"]["file"].startswith("test/")


def test_the_mask_of_a_reference_is_painted_pixel_for_pixel_and_imitated(page: Page, tmp_path: Path) -> None:
    address = f"/api/masks/{page.data_set}/{page.defect}?of=references"

    def loaded() -> np.ndarray:
        return np.frombuffer(page.client.get(address).content, np.uint8).reshape(SIZE).astype(bool)

    record = page.client.app.app.state.studio.record(page.data_set, page.defect)  # type: ignore[attr-defined]
    assert (loaded() == record.load().mask).all()  # before anything is painted: the data set's own
    painted = square()
    painted[32:36, 40:44] = False
    saved = page.client.put(address, content=deflate(painted), headers={**OURS, "X-Revision": ""})
    assert saved.status_code == 200 and saved.json()["pixels"] == painted.sum()
    file = page.out / "references" / page.data_set / f"{page.defect}.png"
    assert (images.read_mask(file) == painted).all() and (loaded() == painted).all()
    of_the_image = page.client.get(f"/api/masks/{page.data_set}/{page.defect}").content
    assert not np.frombuffer(of_the_image, np.uint8).any()  # where a defect may come is another mask
    told = page.client.app.app.state.studio.reference(page.data_set, page.defect)  # type: ignore[attr-defined]
    assert (images.read_mask(told["mask"]) == painted).all()  # what the worker imitates
    page.paint(np.ones(SIZE, bool))
    job = page.wait(page.make(method="copypaste", reference=page.defect, count=1))
    assert job["status"] == "done" and job["result"]["kept"], job
    batch = {"data_set": page.data_set, "method": "copypaste", "defect_type": "crack", "count": 2}
    job = page.wait(page.post("/api/batch", **batch, reference=page.defect))
    lines = (page.out / "made" / job["id"] / "manifest.jsonl").read_text().splitlines()
    assert {json.loads(line)["reference"]["file"] for line in lines} == {record.image.name}
    page.client.put(address, content=deflate(np.zeros(SIZE, bool)), headers={**OURS, "X-Revision": "*"})
    assert not file.exists() and (loaded() == record.load().mask).all()
    bare = page.client.post(  # an image that nobody marked a defect in
        "/api/make",
        json={"data_set": page.data_set, "image": page.good, "method": "copypaste", "reference": page.good},
        headers=OURS,
    )
    assert bare.status_code == 400 and "paint its mask" in bare.json()["error"]


def test_a_batch_is_flawsmith_generate_and_is_reviewed_and_reported(page: Page, tmp_path: Path) -> None:
    job = page.post("/api/batch", data_set=page.data_set, method="procedural", defect_type="scratch", count=3)
    job = page.wait(job)
    assert job["status"] == "done" and (page.out / "made" / job["id"] / "generate.json").is_file(), job
    rows = page.get(f"/api/sets/{job['id']}")["rows"]
    assert rows and all(row["normal"] for row in rows)
    told = page.wait(page.post(f"/api/report/{job['id']}"))
    assert told["status"] == "done", told
    assert b"<!doctype html>" in page.client.get(f"/api/exports/{told['id']}").content[:200]


def test_dials_change_what_is_drawn_and_painted(page: Page) -> None:
    image = {"data_set": page.data_set, "image": page.good, "family": "blob", "seed": 3}

    def drawn(**dials: Any) -> np.ndarray:
        content = page.client.post("/api/family", json={**image, "dials": dials}, headers=OURS).content
        return np.frombuffer(content, np.uint8).reshape(SIZE).astype(bool)

    small, large = (drawn(size=[share, share]).sum() for share in (0.02, 0.08))
    assert 3 < large / small < 5  # four times the share
    page.paint(square())
    jobs = [page.make(count=1, dials={"severity": [level, level]}) for level in (0.1, 0.9)]
    faint, strong = (page.wait(job) for job in jobs)
    assert faint["request"]["dials"] == {"severity": [0.1, 0.1]}
    seen = [page.get(f"/api/sets/{job['id']}")["rows"][0]["scores"]["visibility"] for job in (faint, strong)]
    assert seen[0] < seen[1]


def test_dials_of_a_batch_are_those_of_the_command(page: Page) -> None:
    dials = {"defects": [2, 2], "untouched": 0.5, "gate": "off", "place": "edge", "severity": 0.8}
    asked = {"data_set": page.data_set, "method": "procedural", "defect_type": "scratch", "count": 2}
    job = page.wait(page.post("/api/batch", **asked, dials=dials))
    assert job["status"] == "done", job["error"]
    out = page.out / "made" / job["id"]
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert {line["severity"] for line in lines} == {0.8} and {len(line["instances"]["defects"]) for line in lines} == {
        2
    }
    told = json.loads((out / "generate.json").read_text())
    assert "gate" not in told and told["mask_options"] == {"place": "edge"}  # off; a batch's default is normal
    assert len(list((out / "train" / "good").iterdir())) == 2  # as many as painted ones
    for wrong in ({"defects": [0, 2]}, {"untouched": 1}, {"roi": "/etc"}, {"size": [0.5, 0.1]}, {"gate": "loud"}):
        answer = page.client.post("/api/batch", json={**asked, "dials": wrong}, headers=OURS)
        assert answer.status_code == 400, (wrong, answer.text)
    one = {**asked, "image": page.good, "dials": {"untouched": 0.5}}  # asked of a batch only
    assert page.client.post("/api/make", json=one, headers=OURS).status_code == 400


def test_a_batch_mixes_types_and_combines_several_in_one_image(page: Page) -> None:
    asked = {"data_set": page.data_set, "method": "procedural", "count": 4, "dials": {"gate": "off"}}
    job = page.wait(page.post("/api/batch", **asked, mix="combined=1, stain=1", combine="scratch=1, stain=2"))
    assert job["status"] == "done", job["error"]
    lines = [json.loads(x) for x in (page.out / "made" / job["id"] / "manifest.jsonl").read_text().splitlines()]
    assert sorted(line["defect_type"] for line in lines) == ["combined", "combined", "stain", "stain"]
    several = [line["instances"]["defects"] for line in lines if line["defect_type"] == "combined"]
    assert all([one["defect_type"] for one in found] == ["scratch", "stain", "stain"] for found in several)
    wrong = ({"mix": "stain"}, {"mix": "stain=-1"}, {"combine": "stain=2"}, {"combine": "stain=1,scratch=0.5"},
             {"mix": "stain=1", "defect_type": "stain"}, {"combine": "stain=1,stain=2"})  # fmt: skip
    for one in wrong:
        answer = page.client.post("/api/batch", json={**asked, **one}, headers=OURS)
        assert answer.status_code == 400, (one, answer.text)


def labels(page: Page, job: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(image, label) of the first image of a made set."""
    found = [page.client.get(f"/api/sets/{job['id']}/0/{what}").content for what in ("image", "mask")]
    paths = [fakes.write(page.out / "t" / f"{what}.png", one) for what, one in zip("im", found, strict=True)]
    return images.read_image(paths[0]), images.read_mask(paths[1])


def test_several_painted_or_drawn_defects_of_one_image(page: Page, data: Path) -> None:
    normal = images.read_image(data / next(one["name"] for one in page.images if one["key"] == page.good))
    painted = np.zeros(SIZE, bool)
    boxes = (np.s_[20:32, 30:44], np.s_[40:52, 50:66], np.s_[34:38, 34:40])
    for box in boxes:
        painted[box] = True
    page.paint(painted)
    together, apart, again = (
        page.wait(page.make(method="procedural", defect_type="stain", count=1, seed=4, parts=parts))
        for parts in (False, True, True)
    )
    image, label = labels(page, apart)
    assert all(label[box].any() for box in boxes) and not (label & ~painted).any()
    assert (image[~label] == normal[~label]).all()
    assert (labels(page, again)[0] == image).all() and (labels(page, together)[0] != image).any()
    line = json.loads((page.out / "made" / apart["id"] / "manifest.jsonl").read_text().splitlines()[0])
    areas = [one["area"] for one in line["info"]["defects"]]
    assert len(areas) == 3 and sum(areas) == label.sum() and len({one["seed"] for one in line["info"]["defects"]}) == 3
    drawn = page.wait(page.make(family="box", count=1, dials={"defects": [4, 4], "size": [0.05, 0.05]}))
    image, label = labels(page, drawn)
    line = json.loads((page.out / "made" / drawn["id"] / "manifest.jsonl").read_text().splitlines()[0])
    assert sum(one["area"] for one in line["info"]["defects"]) == label.sum()  # clear of each other
    assert len(line["info"]["defects"]) == 4 and (image[~label] == normal[~label]).all()


def test_defects_keep_to_a_region_and_to_a_heat_map(page: Page, tmp_path: Path) -> None:
    left = np.zeros(SIZE, bool)
    left[:, : SIZE[1] // 2] = True
    page.paint(left)
    roi = page.post(f"/api/places/{page.data_set}/{page.good}")
    assert (roi["width"], roi["height"]) == (96, 72)
    page.paint(np.zeros(SIZE, bool))
    refused = page.client.post(f"/api/places/{page.data_set}/{page.good}", headers=OURS)
    assert refused.status_code == 400 and "Nothing is painted" in refused.json()["error"]
    low = np.zeros((36, 48), np.uint8)  # of another size: it is fitted
    low[24:] = 255
    content = fakes.save(tmp_path / "heat.png", low).read_bytes()
    heat = page.client.post("/api/places", content=content, headers=OURS).json()
    image = {"data_set": page.data_set, "image": page.good, "family": "blob"}
    for seed in range(4):
        asked = {**image, "seed": seed, "roi": roi["id"], "heat": heat["id"], "dials": {"size": [0.01, 0.01]}}
        answer = page.client.post("/api/family", json=asked, headers=OURS)
        mask = np.frombuffer(answer.content, np.uint8).reshape(SIZE).astype(bool)
        assert not (mask & ~left).any() and np.argwhere(mask)[:, 0].mean() > 40
    job = page.wait(page.make(family="blob", roi=roi["id"], heat=heat["id"], dials={"size": [0.01, 0.01]}))
    label = labels(page, job)[1]
    assert job["status"] == "done" and not (label & ~left).any() and np.argwhere(label)[:, 0].mean() > 40
    batch = {"data_set": page.data_set, "method": "procedural", "defect_type": "stain", "count": 2}
    job = page.wait(page.post("/api/batch", **batch, family="blob", roi=roi["id"], heat=heat["id"]))
    assert job["status"] == "done", job
    for path in (page.out / "made" / job["id"] / "ground_truth" / "stain").iterdir():
        assert not (images.read_mask(path) & ~left).any()
    small = page.client.post("/api/places", content=content, headers=OURS).json()["id"]  # 48 x 36: no region of 96 x 72
    for path, more in (("family", {}), ("make", {"method": "perlin"})):
        answer = page.client.post(f"/api/{path}", json={**image, **more, "roi": small}, headers=OURS)
        assert answer.status_code == 400 and "the image 96 x 72" in answer.json()["error"]
    for wrong in (b"", b"no image", fakes.save(tmp_path / "black.png", np.zeros((8, 8), np.uint8)).read_bytes()):
        assert page.client.post("/api/places", content=wrong, headers=OURS).status_code == 400
    for odd in ("/etc/passwd", "0" * 12, "../x"):
        asked = {**image, "method": "perlin", "roi": odd}
        assert page.client.post("/api/make", json=asked, headers=OURS).status_code in (400, 422)


def test_vision_models_are_those_that_the_studio_was_started_with(
    open_page: Callable[..., TestClient], tmp_path: Path
) -> None:
    folder = fakes.write(tmp_path / "vision" / "config.json", "{}").parent
    with open_page(tmp_path / "out", features=[folder]) as client:
        page = Page(client, tmp_path / "out")
        assert page.get("/api/state")["features"] == ["vision"]
        asked = {"data_set": page.data_set, "method": "perlin", "count": 1}
        job = page.post("/api/batch", **asked, features="vision")
        told = client.app.app.state.studio.queue.get(job["id"])  # type: ignore[attr-defined]
        assert told.settings["config"]["features"] == str(folder)
        client.delete(f"/api/jobs/{job['id']}", headers=OURS)
        refused = client.post("/api/batch", json={**asked, "features": str(folder)}, headers=OURS)
        assert refused.status_code == 400 and refused.json()["error"].startswith("Vision model")
    with pytest.raises(FlawsmithError, match="holds no vision model"):
        serve.Server(tmp_path / "other", [], [], "127.0.0.1", 0, None, [tmp_path])
