"""The report: its page is whole, safe and repeatable; its measures and intervals are known by hand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import fakes
from flawsmith import images
from flawsmith.config import GenerateConfig
from flawsmith.errors import FlawsmithError
from flawsmith.evaluation.results import Value
from flawsmith.evaluation.results import write as write_results
from flawsmith.generation import run as generation
from flawsmith.report import generated, measures, metrics, plots, shown, thumbnails
from flawsmith.report import write as write_report

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated folder with 6 images, its data set beside it."""
    root = tmp_path_factory.mktemp("made")
    data = fakes.mvtec_tree(root / "data", good=4, defects={"crack": 6, "hole": 6}, size=(72, 96))
    (data / "LICENSE.txt").write_text("Do as you like & tell <nobody>.\n")
    config = GenerateConfig(method="copypaste", normal=f"mvtec_ad:{data}", out=root / "pasted", n=6)
    generation.run(config)
    return root / "pasted"


class Parts(HTMLParser):
    """Every element with its attributes, and the text of the script elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            about, before = self.scripts[-1]
            self.scripts[-1] = (about, before + data)

    def data(self) -> dict:
        return next(json.loads(text) for about, text in self.scripts if about.get("id") == "data")


def written(out: Path, *folders: Path, results: tuple[Path, ...] = ()) -> Parts:
    write_report([(folder.name, folder) for folder in folders], out, results)
    return Parts(out.read_text(encoding="utf-8"))


def test_a_page_needs_nothing_but_itself(made: Path, tmp_path: Path) -> None:
    parts = written(tmp_path / "page.html", made)
    for tag, attributes in parts.elements:
        for name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, name, value)
    policy = next(a["content"] for t, a in parts.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'")
    (own,) = (text for about, text in parts.scripts if not about)
    assert base64.b64encode(hashlib.sha256(own.encode()).digest()).decode() in policy
    assert "@import" not in (tmp_path / "page.html").read_text()


def test_every_kept_image_is_in_it_with_its_origin_and_nearest_real_defect(made: Path, tmp_path: Path) -> None:
    parts = written(tmp_path / "page.html", made)
    rows = parts.data()["rows"]
    lines = [json.loads(line) for line in (made / "manifest.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == [str(line["seed"]) for line in lines]
    strips = "\n".join(text for about, text in parts.scripts if "data-strips" in about).split("\n")
    pool = "\n".join(text for about, text in parts.scripts if "data-pool" in about).split("\n")
    assert len(strips) == sum(row["kept"] for row in rows)
    for row, line in zip(rows, lines, strict=True):
        if row["kept"]:
            assert all(base64.b64decode(part)[8:12] == b"WEBP" for part in strips[row["strip"]].split(" "))
            assert row["pair"] and base64.b64decode(pool[row["normal"]])[8:12] == b"WEBP"
            assert row["origin"]["photograph"] == line["normal"]["file"]
            assert row["reference"] >= 0 and -1 <= row["scores"]["likeness"] <= 1
            assert row["nearest"]["name"].startswith("test/")
    text = (tmp_path / "page.html").read_text()
    assert "Do as you like &amp; tell &lt;nobody&gt;." in text


@pytest.mark.parametrize("late", range(6))
def test_the_same_folder_gives_the_same_bytes_whichever_image_is_decoded_last(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    lines = [json.loads(line) for line in (made / "manifest.jsonl").read_text().splitlines()]
    decode = generated.Generated.pixels

    def pixels(run: generated.Generated, line: dict) -> tuple:
        if line["index"] == lines[late]["index"]:
            time.sleep(0.1)
        return decode(run, line)

    written(tmp_path / "a", made)
    monkeypatch.setattr(generated.Generated, "pixels", pixels)
    written(tmp_path / "b", made)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_captions_and_names_cannot_break_out(made: Path, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    copy = tmp_path / "<b>copy"
    for path in made.rglob("*"):
        if path.is_file():
            fakes.write(copy / path.relative_to(made), path.read_bytes())
    lines = [json.loads(line) for line in (copy / "manifest.jsonl").read_text().splitlines()]
    lines[0]["caption"] = evil
    lines[1] |= {"status": "rejected", "reason": evil}
    (copy / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    parts = written(tmp_path / "page.html", copy)
    assert len([1 for about, _ in parts.scripts if not about]) == 1
    assert not [1 for tag, attributes in parts.elements if "onerror" in attributes]
    rows = parts.data()["rows"]
    assert rows[0]["caption"] == evil and [row["reason"] for row in rows if not row["kept"]] == [evil]


def test_photographs_and_real_defects_that_are_gone_are_no_reason_to_stop(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in made.rglob("*"):
        if path.is_file():
            fakes.write(copy / path.relative_to(made), path.read_bytes())
    about = json.loads((copy / "generate.json").read_text())
    (copy / "generate.json").write_text(json.dumps({**about, "source": f"mvtec_ad:{tmp_path / 'gone'}"}))
    notes = write_report([("copy", copy)], tmp_path / "page.html")
    assert any("No real defects to compare with" in note for note in notes)
    rows = Parts((tmp_path / "page.html").read_text()).data()["rows"]
    assert rows and not any(row["pair"] or "nearest" in row for row in rows if row["kept"])


def test_results_bring_the_folder_they_judge_and_their_meaning(run: Run, made: Path, tmp_path: Path) -> None:
    values = [Value("KID/compact/window", 0.5 + seed, "all", "copied", seed, 5, 6) for seed in range(3)] + [
        Value("KID/compact/window", None, "all", "none", 0, reason="nothing <there>")
    ]
    about = {"command": "flawsmith evaluate", "config": {"generated": str(made)}, "verdicts": ["copied: helps: a lot"]}
    write_results(tmp_path / "results", values, about)
    code, said, err = run("report", tmp_path / "results", "--out", tmp_path / "page.html")
    assert code == 0, err
    text = (tmp_path / "page.html").read_text()
    assert "Report:" in said and 'data-word="helps"' in text and "not computed: nothing &lt;there&gt;" in text
    assert metrics.MEANING["KID"][0].replace("'", "&#39;") in text
    assert len(Parts(text).data()["rows"]) == 6


def test_what_cannot_be_reported_is_refused(run: Run, made: Path, tmp_path: Path) -> None:
    for arguments, said in (
        ((tmp_path,), "neither a generated folder"),
        ((made, "--out", made / "page.html"), "inside a generated folder"),
        ((made, "--out", tmp_path), "is a folder"),
        ((made, "--out", tmp_path / "p.html", "--real", "folder:" + str(tmp_path / "gone")), "gone"),
    ):
        code, _, err = run("report", *arguments)
        assert code == 2 and said in err, err
    fakes.write(tmp_path / "bad" / "results.json", "[]")
    with pytest.raises(FlawsmithError, match=r"results\.json is no results"):
        write_report([], tmp_path / "p.html", [tmp_path / "bad"])
    assert not (tmp_path / "p.html").exists()


def test_targets_are_divided_and_named_once(made: Path, tmp_path: Path) -> None:
    fakes.write(tmp_path / "results" / "results.json", json.dumps({"config": {"generated": str(made)}, "values": []}))
    assert generated.divide([tmp_path / "results" / "results.json", made]) == ([made], [tmp_path / "results"])


# -- measures --------------------------------------------------------------------------------------------------------


def test_measures_of_a_square_are_known() -> None:
    image, mask = np.full((128, 256, 3), 100, np.uint8), np.zeros((128, 256), bool)
    mask[32:64, 64:128] = True
    image[mask] = 60
    found = measures.measure(image, mask)
    assert found.area == pytest.approx(100 * 32 * 64 / (128 * 256))
    assert found.contrast == -40
    expected = np.zeros((measures.PLACES, measures.PLACES))
    expected[8:16, 8:16] = 1
    assert np.allclose(found.place, expected)


def test_a_defect_is_nearest_to_itself_however_turned() -> None:
    real = []
    for seed in range(6):
        image, mask = fakes.with_defect(fakes.photo(seed, (96, 96)), ("crack", "hole")[seed % 2], seed)
        real.append((image, mask))
    truth = [measures.measure(*pair) for pair in real]
    turned = [measures.measure(np.ascontiguousarray(np.rot90(i)[:, ::-1]), np.rot90(m)[:, ::-1]) for i, m in real]
    found = measures.nearest(turned, truth)
    assert [place for place, _ in found] == list(range(6))
    assert all(likeness > 0.9 for _, likeness in found)
    assert measures.nearest(turned, []) == []


def test_intervals_are_students() -> None:
    low, high = metrics.interval([1.0, 2.0, 3.0])
    assert low == pytest.approx(2 - 4.302652729911275 / 3**0.5) and high == pytest.approx(
        2 + 4.302652729911275 / 3**0.5
    )
    assert metrics.interval([1.0]) == (None, None)


def test_the_overall_row_is_the_mean_over_types_where_there_is_one() -> None:
    values = [Value("KID/x", number, kind) for kind, number in (("a", 1.0), ("all", 5.0), ("mean", 2.0))]
    values.append(Value("FID/x", 7.0, "all"))
    overall = metrics.Judged("n", {}, metrics.rows(values)).overall()
    assert [(row.key, row.value) for row in overall] == [("KID/x", 2.0), ("FID/x", 7.0)]


# -- weight ----------------------------------------------------------------------------------------------------------


def test_thumbnails_shrink_until_all_fit_and_only_then_are_left_out() -> None:
    weigh = [lambda level: level[0] * 10]
    assert thumbnails.choose(weigh, 10, 0, budget=10 * 2560) == (thumbnails.LEVELS[0], 10)
    assert thumbnails.choose(weigh, 10, 0, budget=10 * 1300) == ((128, 66), 10)
    assert thumbnails.choose(weigh, 10, 0, budget=5 * 640) == (thumbnails.LEVELS[-1], 5)


def test_a_page_that_would_be_too_heavy_shows_evenly_spaced_images(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails.choose, "__defaults__", (4000,))
    notes = write_report([("pasted", made)], tmp_path / "page.html")
    assert any("evenly spaced: all would not fit" in note for note in notes)
    rows = Parts((tmp_path / "page.html").read_text()).data()["rows"]
    assert 0 < sum(row["kept"] for row in rows) < 6


def test_a_thin_line_is_seen_in_a_small_mask() -> None:
    mask = np.zeros((2000, 2000), bool)
    mask[1000, :] = True
    text = thumbnails.whole(np.zeros((2000, 2000, 3), np.uint8), mask, None, (64, 90))
    import cv2

    shown = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert shown.shape == (64, 192) and shown[:, 64:128].max() > 100


def test_plots_use_the_pages_colours_and_say_what_they_show(made: Path) -> None:
    pytest.importorskip("matplotlib")
    run = generated.read("pasted", made)
    found = [measures.measure(*run.pixels(line)[:2]) for line in run.kept]
    truth = [measures.measure(s.image, s.mask) for s in (record.load() for record in run.real)]
    drawn = plots.distributions("x", found, truth)
    assert [plot.title for plot in drawn] == ["Size", "Contrast", "Spectrum", "Place, generated", "Place, real"]
    for plot in drawn:
        assert not set(plots.NAMES) & set(re.findall("#[0-9a-f]{6}", plot.svg)) and "var(--ink)" in plot.svg
        assert "<style" not in plot.svg and 'role="img"' in plot.named
    median = np.median([one.area for one in found])
    assert f"generated median {median:.3g}" in drawn[0].told


def test_without_matplotlib_the_page_says_so(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "available", lambda: False)
    notes = write_report([("pasted", made)], tmp_path / "page.html")
    assert plots.MISSING in notes and "<figure>" not in (tmp_path / "page.html").read_text().split("<script>")[0]


def test_a_large_photograph_costs_no_more_bytes_than_a_small_one(made: Path) -> None:
    run = generated.read("pasted", made)
    image, mask, normal = run.pixels(run.kept[0])
    assert normal is not None
    large = [images.resize(one, 1440, 1920) for one in (image, normal)]
    strips = shown.strips(large[0], images.resize_mask(mask, 1440, 1920), large[1], thumbnails.LEVELS[-1])
    assert sum(map(len, strips)) < 20_000


def test_what_a_gate_refused_is_told_and_shown(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "gated"
    for path in made.rglob("*"):
        if path.is_file():
            fakes.write(copy / path.relative_to(made), path.read_bytes())
    fakes.save(copy / "refused" / "00000-0.png", fakes.photo(1, (128, 260)))
    lines = [json.loads(line) for line in (copy / "manifest.jsonl").read_text().splitlines()]
    attempt = {"attempt": 0, "seed": 1, "check": "seam", "score": 2.0, "limit": 1.0, "reason": "seam: a visible edge"}
    lines[0] |= {"gate": "normal", "checks": {"seam": 0.3}, "changed": ["place"]}
    lines[0]["refused"] = [
        {**attempt, "thumbnail": "refused/00000-0.png"},
        {**attempt, "thumbnail": "refused/gone.png"},
    ]
    lines[1] |= {"gate": "normal", "checks": {}, "refused": []}
    (copy / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    parts = written(tmp_path / "page.html", copy)
    rows = parts.data()["rows"]
    assert rows[0]["gate"] == {"level": "normal", "seam": 0.3} and rows[1]["attempts"] == [] and rows[2]["gate"] == {}
    first, gone = rows[0]["attempts"]
    pool = "\n".join(text for about, text in parts.scripts if "data-pool" in about).split("\n")
    assert first["reason"] == attempt["reason"] and base64.b64decode(pool[first["id"]])[8:12] == b"WEBP"
    assert gone["id"] == -1
    assert "The quality gate refused these attempts" in (tmp_path / "page.html").read_text()
