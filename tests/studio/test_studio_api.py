"""The studio's API: the whole job by real worker processes, what outlives a restart, and what strangers get."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio's extra is absent: pip install 'flawsmith[studio]'")
from fastapi.testclient import TestClient

import fakes
from flawsmith import datasets, images
from flawsmith.errors import FlawsmithError
from flawsmith.studio import serve
from flawsmith.studio.app import create
from flawsmith.studio.jobs import Queue
from flawsmith.studio.store import deflate, inflate

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


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.mvtec_tree(tmp_path_factory.mktemp("data"), good=4, defects={"crack": 6, "hole": 6}, size=SIZE)


@pytest.fixture(scope="module")
def open_page(data: Path) -> Callable[..., TestClient]:
    def start(out: Path, **more: Any) -> TestClient:
        return TestClient(create(out, [f"mvtec_ad:{data}"], [], HOSTS, **more), raise_server_exceptions=False)

    return start


@pytest.fixture(scope="module")
def page(open_page: Callable[..., TestClient], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    out = tmp_path_factory.mktemp("studio")
    with open_page(out) as client:
        yield Page(client, out)


def square() -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[30:46, 36:60] = True
    return mask


# -- the whole job ---------------------------------------------------------------------------------------------------


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


def test_an_evaluation_is_started_and_seen_in_words_plots_and_a_table(page: Page) -> None:
    pytest.importorskip("torch", reason="an evaluation needs flawsmith[diffusion]")
    batch = {"data_set": page.data_set, "method": "copypaste", "defect_type": "crack", "count": 3}
    made = page.wait(page.post("/api/batch", **batch, dials={"gate": "off"}))
    asked = {"set": made["id"], "metrics": ["copies"]}
    for wrong, status in (({"metrics": []}, 422), ({"metrics": ["x"]}, 422), ({"set": "0" * 12}, 400),
                          ({"features": "/etc"}, 400)):  # fmt: skip
        assert page.client.post("/api/evaluate", json={**asked, **wrong}, headers=OURS).status_code == status
    job = page.wait(page.post("/api/evaluate", **asked))
    assert job["status"] == "done" and job["result"]["values"], job
    listed = page.get("/api/results")
    assert [one["name"] for one in listed] == [f"evaluate {made['title']}"]
    told = page.get(f"/api/results/{listed[0]['id']}")
    kept = json.loads((page.out / "results" / job["id"] / "results.json").read_text())
    row = next(one for one in told["rows"] if one["key"].startswith("near_copies/"))
    means = {one["type"]: one["value"] for one in kept["values"] if one["key"] == row["key"]}
    assert row["value"] == pytest.approx(means["mean"]) and row["better"] == "less" and row["meaning"]
    assert not told["compared"] and told["plots"] == []
    report = page.wait(page.post(f"/api/results/{listed[0]['id']}/report"))
    assert b"near_copies" in page.client.get(f"/api/exports/{report['id']}").content


def test_results_that_were_put_beside_show_verdicts_and_plots_in_the_pages_colours(page: Page) -> None:
    pytest.importorskip("matplotlib", reason="plots need flawsmith[report]")
    keys = [("pixel_AUPRO/net/last", arm, 0.3 + 0.1 * place + 0.01 * seed, seed)
            for place, arm in enumerate(("real", "copypaste")) for seed in range(2)]  # fmt: skip
    values = [
        {"key": key, "value": value, "type": "all", "method": arm, "seed": seed} for key, arm, value, seed in keys
    ]
    content = {"values": values, "verdicts": ["copypaste is ahead of real."], "notes": ["two seeds"]}
    fakes.write(page.out / "mine" / "results.json", json.dumps(content))
    id_ = next(one["id"] for one in page.get("/api/results") if one["name"] == "mine")
    told = page.get(f"/api/results/{id_}")
    assert told["verdicts"] == content["verdicts"] and told["notes"] == ["two seeds"] and told["compared"]
    assert [(row["arm"], row["value"], row["seeds"]) for row in told["rows"]] == [
        ("real", pytest.approx(0.305), 2), ("copypaste", pytest.approx(0.405), 2)]  # fmt: skip
    assert len(told["plots"]) == 1 and "the best mean is copypaste" in told["plots"][0]["told"]
    light, dark = (page.client.get(f"/api/results/{id_}/plots/0?theme={theme}") for theme in ("light", "dark"))
    assert light.headers["content-type"].startswith("image/svg+xml") and light.text != dark.text
    for one, ink in ((light, "#1b2330"), (dark, "#e7ebf1")):
        assert ink in one.text and "var(" not in one.text
    for path in (f"{id_}/plots/1", "../mine", "0" * 12, f"{id_}/plots/-1"):
        assert page.client.get(f"/api/results/{path}").status_code in (400, 404)
    fakes.write(page.out / "mine" / "results.json", "{")
    damaged = page.client.get(f"/api/results/{id_}")
    assert damaged.status_code == 400 and "results.json is no results" in damaged.json()["error"]
    (page.out / "mine" / "results.json").unlink()


def test_a_fit_shows_its_loss_and_previews_and_becomes_a_method(tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="a fit needs flawsmith[diffusion]")
    own = fakes.mvtec_tree(tmp_path / "data", good=2, defects={"crack": 3}, size=SIZE, test_good=0)
    with TestClient(create(tmp_path / "out", [f"mvtec_ad:{own}"], [], HOSTS)) as client:
        page = Page(client, tmp_path / "out")
        job = page.post("/api/fit", data_set=page.data_set, method="inpaint", name="tiny", steps=2)
        seen: set[tuple[int, int]] = set()  # points of the curve and previews, while it runs
        while (told := next(one for one in page.get("/api/jobs") if one["id"] == job["id"]))["status"] == "running" or (
            told["status"] == "queued"
        ):
            seen.add((len(told["curves"].get("widget/crack", {}).get("loss", ())), len(told["previews"])))
            time.sleep(0.05)
        assert told["status"] == "done" and told["result"] == {"learned": ["widget/crack"]}, told
        assert any(points and sheets for points, sheets in seen), seen  # before it is over
        folder = tmp_path / "out" / "runs" / "tiny" / "train" / "widget-crack"
        logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert told["curves"]["widget/crack"]["loss"][-1] == [2, logged[-1]["loss"]]
        assert told["previews"] == ["widget-crack/000001.png", "widget-crack/000002.png"]
        for name in told["previews"]:
            content = client.get(f"/api/jobs/{job['id']}/previews/{name}").content
            assert content == (folder / "previews" / Path(name).name).read_bytes()
        for odd in ("widget-crack/000003.png", "../../../card.json", "%2e%2e/%2e%2e/card.json"):
            assert client.get(f"/api/jobs/{job['id']}/previews/{odd}").status_code in (400, 404)
        offered = client.app.app.state.studio.offered  # type: ignore[attr-defined]
        assert "run: tiny" in offered.missing()  # described when the page asks next, by a process that imports torch


@pytest.mark.parametrize("method", ["inpaint", "anomalyxfusion", "anomalycontrol"])
def test_settings_of_a_fit_are_those_of_the_command(page: Page, method: str) -> None:
    pytest.importorskip("diffusers", reason="a fit needs flawsmith[diffusion]")
    from flawsmith.config import TrainConfig
    from flawsmith.methods import METHODS
    from flawsmith.registry import resolve
    from flawsmith.studio.offered import describe
    from flawsmith.training.settings import settings_of

    described = describe(method)
    schema = described["fit"]
    told = settings_of(TrainConfig(method=method, data="", out=Path()), resolve(method, METHODS, "Method"))
    for name, field in schema.items():
        if hasattr(told.fit, name):
            assert field["default"] == getattr(told.fit, name) and field["description"], name
    assert not {"steps", "seed", "preview_every"} & schema.keys() and schema["batch_size"]["minimum"] == 1
    assert ("preset" in schema) == ("tokens" in schema) == (method != "inpaint")
    page.client.app.app.state.studio.offered._known[method] = described  # type: ignore[attr-defined]
    asked = {"data_set": page.data_set, "method": method, "name": "x"}
    for wrong, status in (({"settings": {"nonsense": 1}}, 400), ({"settings": {"steps": 9}}, 400), ({"shots": 0}, 422)):
        assert page.client.post("/api/fit", json={**asked, **wrong}, headers=OURS).status_code == status


@pytest.mark.slow
@pytest.mark.parametrize("method", ["anomalyxfusion", "anomalycontrol"])
def test_the_papers_methods_are_fitted_to_their_end_and_paint(page: Page, method: str) -> None:
    """Two steps of the shipped backbone; settings out of the schema that the page draws its form from."""
    pytest.importorskip("diffusers", reason="a fit needs flawsmith[diffusion]")
    small = {"batch_size": 1, "tokens": 2, "patience": 0, "mask_steps": 0, "warmup": 1}
    asked = {"data_set": page.data_set, "method": method, "name": method, "steps": 2, "shots": 2}
    failed = page.wait(page.post("/api/fit", **{**asked, "name": "wrong"}, settings={"batch_size": 0}))
    assert failed["status"] == "failed" and "batch_size" in failed["error"]
    job = page.wait(page.post("/api/fit", **asked, settings=small))
    assert job["status"] == "done" and job["result"]["learned"] == ["widget/crack", "widget/hole"], job
    card = json.loads((page.out / "runs" / method / "card.json").read_text())
    assert card["method"] == method and all(len(one["support"]) == 2 for one in card["learned"].values())
    assert job["previews"] and any(curve["loss"][-1][0] == 2 for curve in job["curves"].values() if curve.get("loss"))
    page.paint(square())
    made = page.make(method=f"run: {method}", defect_type="crack", reference=page.defect, count=1, options={"steps": 1})
    told = page.wait(made)
    assert told["status"] == "done" and told["result"]["kept"] + len(told["result"]["refused"]) == 1, told


def test_a_check_tells_its_findings(page: Page) -> None:
    job = page.wait(page.post(f"/api/check/{page.data_set}"))
    assert job["status"] == "done" and job["result"]["rows"] and isinstance(job["result"]["findings"], list)


# -- masks -----------------------------------------------------------------------------------------------------------


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


# -- what outlives what ----------------------------------------------------------------------------------------------


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


# -- strangers -------------------------------------------------------------------------------------------------------


def test_other_hosts_pages_and_forms_get_nothing(page: Page) -> None:
    ask = page.client.request
    for headers, status in (
        ({"Host": "evil.example"}, 421),  # a name that was pointed at this machine
        ({"Host": "testserver.evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
    ):
        assert ask("GET", "/api/state", headers=headers).status_code == status, headers
        assert ask("GET", f"/api/data/{page.data_set}/{page.good}", headers=headers).status_code == status
        assert ask("POST", "/api/make", json={}, headers={**OURS, **headers}).status_code == status
    for method, path in (("POST", "/api/make"), ("DELETE", "/api/jobs/000000000000"), ("PUT", "/api/uploads/a/b.png")):
        assert ask(method, path, headers={"Content-Type": "text/plain"}).status_code == 403  # as a form would send it
    assert ask("GET", "/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}).status_code == 200
    safe = ask("GET", "/").headers
    assert "default-src 'self'" in safe["content-security-policy"] and safe["x-content-type-options"] == "nosniff"


def test_with_a_token_nothing_is_answered_without_it(open_page: Callable[..., TestClient], tmp_path: Path) -> None:
    with open_page(tmp_path, token="s3cret") as client:
        for path, headers in itertools.product(
            ("/", "/api/state", "/static/main.js"), ({}, {"Cookie": "flawsmith_token=x"})
        ):
            assert client.get(path, headers=headers).status_code == 401
        assert client.get("/?token=wrong").status_code == 401
        assert client.get("/api/state", headers={"Authorization": "Bearer s3cret"}).status_code == 200
        first = client.get("/?token=s3cret")
        assert first.status_code == 200 and "HttpOnly; SameSite=Strict" in first.headers["set-cookie"]
        assert client.get("/api/state").status_code == 200  # by the cookie


@pytest.mark.parametrize(
    "odd", ["..", "../../etc/passwd", "%2e%2e%2fetc%2fpasswd", "..%5c..%5cx", "0" * 12, "", "\0", "a" * 5000]
)
def test_no_path_leads_out(page: Page, odd: str) -> None:
    for path in (f"/api/data/{odd}/x", f"/api/data/{page.data_set}/{odd}", f"/api/sets/{odd}", f"/api/exports/{odd}",
                 f"/api/sets/{odd}/0/image", f"/api/masks/{page.data_set}/{odd}", f"/static/{odd}"):  # fmt: skip
        try:
            answer = page.client.get(path)
        except Exception as error:  # the client itself refuses such an address
            assert type(error).__name__ == "InvalidURL"
            continue
        assert answer.status_code in (200, 400, 404, 405, 422) and b"root:" not in answer.content
        if answer.status_code == 200:
            assert path.rstrip("/").count("/") < 4 and odd in ("", "..")


def test_uploads_are_images_in_their_own_folder(page: Page, tmp_path: Path) -> None:
    image = fakes.save(tmp_path / "a.png", fakes.photo(1)).read_bytes()
    before = {path for path in page.out.parent.rglob("*") if "studio" not in path.parts[-1]}
    for name, path, content in (
        ("..", "x.png", image), ("a", "../x.png", image), ("a", "%2e%2e/%2e%2e/x.png", image),
        ("a", ".hidden.png", image),
        ("a", "x.py", image), ("a", "x.png", b"no image"), ("a", "x.png", b""), ("a", "a/b/c/d/e/f/g/h/i.png", image),
        ("C:", "x.png", image), ("a", "x\n.png", image),
    ):  # fmt: skip
        try:
            answer = page.client.put(f"/api/uploads/{name}/{path}", content=content, headers=OURS)
        except Exception as error:
            assert type(error).__name__ == "InvalidURL"
            continue
        assert answer.status_code in (400, 404, 405), (name, path, answer.status_code)
    assert {path for path in page.out.parent.rglob("*") if "studio" not in path.parts[-1]} >= before
    assert not [p for p in (page.out / "uploads").rglob("*") if p.is_file()]
    huge = page.client.put("/api/uploads/a/x.png", content=b"", headers={**OURS, "Content-Length": str(10**10)})
    assert huge.status_code == 413
    for number in range(2):
        own = fakes.save(tmp_path / f"{number}.png", fakes.photo(number)).read_bytes()
        assert page.client.put(f"/api/uploads/new one/good/{number}.png", content=own, headers=OURS).status_code == 200
    id_ = page.post("/api/uploads/new one")["id"]
    assert len(page.get(f"/api/data/{id_}")["images"]) == 2


def test_options_that_could_name_a_file_are_not_offered(page: Page) -> None:
    offered = page.get("/api/state")["methods"]
    assert "textures" not in offered["perlin"]["options"] and "beta" in offered["perlin"]["options"]
    asked = {"data_set": page.data_set, "image": page.good, "method": "perlin"}
    for changes in (
        {"options": {"textures": "/etc"}}, {"options": {"beta": [5, 9]}}, {"options": {"nonsense": 1}},
        {"method": "os:system"}, {"method": "/etc"}, {"family": "/etc/passwd"}, {"family": "learned"},
        {"count": 1000}, {"seed": -1}, {"defect_type": "../x"}, {"extra": 1}, {"image": "../x"},
    ):  # fmt: skip
        answer = page.client.post("/api/make", json={**asked, **changes}, headers=OURS)
        assert answer.status_code in (400, 422), (changes, answer.text)


def test_no_request_breaks_the_server_or_what_it_says_of_itself(page: Page) -> None:
    """Every route that is described, with requests that keep to its schema and others, drawn by schemathesis.

    Half of them name a data set and an image that are there: behind them lies most of the code.
    """
    schemathesis = pytest.importorskip("schemathesis", reason="draws the requests: pip install schemathesis")
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
    from schemathesis import GenerationMode, checks
    from schemathesis.specs.openapi import checks as of_openapi

    chosen = [
        checks.not_a_server_error,
        of_openapi.status_code_conformance,
        of_openapi.content_type_conformance,
        of_openapi.response_schema_conformance,
    ]
    there = {"data_set": page.data_set, "key": page.good, "image": page.good, "method": "perlin"}
    raw = [b"", b"[]", b'{"a":' * 2000, b'\xff{"data_set":1e999}', b'{"data_set":1e999}']
    answers: Counter[int] = Counter()
    modes = st.sampled_from([GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    described = schemathesis.openapi.from_asgi("/api/openapi.json", page.client.app)
    for operation in (found.ok() for found in described.get_all_operations()):
        if operation.path in ("/api/methods", "/api/fit"):  # they import torch
            continue

        @settings(
            max_examples=12, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        @given(case=modes.flatmap(lambda mode, op=operation: op.as_strategy(generation_mode=mode)), known=st.booleans())
        def try_it(case: Any, known: bool) -> None:
            for given_ in (case.path_parameters, case.body):
                if known and isinstance(given_, dict):
                    given_.update({name: value for name, value in there.items() if name in given_})
            answer = case.call(headers=OURS)
            answers[answer.status_code] += 1
            case.validate_response(answer, checks=chosen)

        try_it()
        for body in raw if operation.method in ("post", "put") else ():
            path = operation.path.format(
                **dict.fromkeys(("name", "path", "id_", "index", "what", "word", "set_"), "-1"), **there
            )
            answer = page.client.request(operation.method, path, content=body, headers=OURS)
            assert answer.status_code < 500, (operation.path, body, answer.text)
    assert answers.total() > 200 and answers[200] > 20, answers
    for job in page.get("/api/jobs"):
        if job["status"] in ("queued", "running"):
            page.client.delete(f"/api/jobs/{job['id']}", headers=OURS)
    assert page.get("/api/state")["version"]
