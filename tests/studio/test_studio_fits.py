"""The studio's API: fits, evaluations and checks have the command's settings, and what they find is told."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the studio's extra is absent: pip install 'flawsmith[studio]'")

from api_page import HOSTS, OURS, SIZE, Page, square
from fastapi.testclient import TestClient

import fakes
from flawsmith.studio.app import create


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
