"""The studio in a browser, with a real server and worker: the whole job, and what goes wrong on the way."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the studio's extra is absent: pip install 'flawsmith[studio]'")

from studio_page import Page

import fakes
from browsing import console, requests, violations


def test_from_opening_to_a_kept_defect_in_at_most_five_clicks(studio: Page) -> None:
    assert studio.at("tour").is_displayed() and "Pick an image" in studio.at("tour").text
    studio.click("draw")
    assert studio.saved() > 0
    studio.click("make")
    studio.until(lambda: studio.at("results").is_displayed(), "results are shown")
    studio.until(lambda: studio.at("facts").text, "a result is compared")
    studio.click("keep")
    studio.until(lambda: studio.at("facts").text.startswith("Kept"), "it is kept")
    assert studio.clicks <= 5 and not studio.at("tour").is_displayed()
    assert console(studio.browser) == []
    assert all(address.startswith((studio.server.address, "blob:")) for address in requests(studio.browser))


def test_dials_that_are_set_stand_in_the_request(studio: Page) -> None:
    studio.browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    for css, value in (("#dials [aria-label='severity from']", "0.7"), ("#dials select[data-option=place]", "edge"),
                       ("#dials [aria-label='defects from']", "2")):  # fmt: skip
        field = studio.all(css)[0]
        studio.browser.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))", field, value
        )
    studio.open()  # a reload keeps them
    studio.set("batch-count", "2")
    studio.set("batch-mix", "stain=1, scratch=1")
    studio.browser.execute_script("document.getElementById('batch').click()")
    studio.job("done", "2 x procedural")
    told = studio.browser.execute_async_script("fetch('/api/jobs').then((answer) => answer.json()).then(arguments[0])")[
        -1
    ]["request"]
    assert told["dials"] == {"severity": [0.7, 0.7], "place": "edge", "defects": [2, 2]}
    assert (told["mix"], told["combine"], told["defect_type"]) == ("stain=1, scratch=1", "", "")
    studio.browser.execute_script("localStorage.clear()")


def test_an_evaluation_is_shown_in_words_plots_and_a_table(studio: Page) -> None:
    keys = [("pixel_AUPRO/net/last", arm, 0.3 + 0.1 * place + 0.01 * seed, seed)
            for place, arm in enumerate(("real", "copypaste", "procedural")) for seed in range(2)]  # fmt: skip
    values = [
        {"key": key, "value": value, "type": "all", "method": arm, "seed": seed} for key, arm, value, seed in keys
    ]
    content = {"values": values, "verdicts": ["procedural is ahead of real by 20.0 points."], "notes": []}
    fakes.write(studio.server.out / "mine" / "results.json", json.dumps(content))
    tab = studio.at("tab-paint")
    tab.send_keys("\ue014" * 3)  # by keyboard: three tabs to the right
    studio.until(lambda: studio.texts("#verdicts li") == content["verdicts"], "the verdict is told")
    assert len(studio.all("#values tbody tr")) == 3 and "0.405" in studio.at("values").text
    loaded = "const plot = document.querySelector('#judged img'); return plot && plot.complete && plot.naturalWidth"
    studio.until(lambda: studio.browser.execute_script(loaded), "the plot is drawn")
    light = studio.browser.execute_script("return document.querySelector('#judged img').src")
    assert violations(studio.browser) == []
    studio.click("theme")
    studio.until(
        lambda: studio.browser.execute_script("return document.querySelector('#judged img').src") != light,
        "the plot takes the page's colours",
    )
    assert violations(studio.browser) == [] and console(studio.browser) == []
    (studio.server.out / "mine" / "results.json").unlink()


def test_a_batch_goes_on_through_a_reload_and_is_cancelled(studio: Page) -> None:
    studio.browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    studio.set("batch-count", "9000")
    studio.click("batch")
    studio.job("running", "9000 x procedural")
    studio.open()
    assert studio.at("tab-queue").get_attribute("aria-selected") == "true"  # where the user was
    studio.until(lambda: "left" in studio.job("running", "9000 x procedural"), "the time left is told")
    studio.press("9000 x procedural", "Cancel")
    assert "Cancel" not in studio.job("cancelled", "9000 x procedural").replace("cancelled", "")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker in /proc")
def test_a_dead_worker_is_told_and_replaced(studio: Page) -> None:
    studio.browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    studio.set("batch-count", "8000")
    studio.click("batch")
    studio.job("running", "8000 x procedural")
    os.kill(studio.server.worker(), signal.SIGKILL)
    assert "The worker process ended" in studio.job("failed", "8000 x procedural")
    studio.click("tab-paint")
    studio.click("make")
    studio.until(lambda: studio.at("results").is_displayed(), "the next job is done")


def test_review_by_keys_and_download(studio: Page) -> None:
    studio.browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    studio.set("batch-count", "6")
    studio.click("batch")
    studio.job("done", "6 x procedural")
    studio.press("6 x procedural", "Look")
    studio.until(lambda: len(studio.all("#tiles button")) >= 4, "the set is shown")
    studio.browser.execute_script("document.querySelector('#tiles button').focus()")
    studio.keys("k", "x", "k")
    studio.until(lambda: "2 kept, 1 dropped" in studio.at("review-count").text, "three are decided")
    studio.set("review-shown", "drop")
    assert len(studio.all("#tiles button")) == 1
    studio.set("format", "coco")
    studio.click("export")
    link = studio.until(lambda: studio.all("#exported a"), "the export is done")[0]
    link.click()
    downloads = studio.browser.downloads
    studio.until(lambda: list(downloads.glob("flawsmith-*.zip")), "it is downloaded")
    studio.open()
    studio.until(lambda: len(studio.all("#tiles button")) >= 4, "the set is shown")
    assert "2 kept, 1 dropped" in studio.at("review-count").text


def test_a_picked_folder_becomes_a_data_set(studio: Page, tmp_path: Path) -> None:
    folder = fakes.folder_tree(tmp_path / "own parts", good=2, defects={}, suffix=".jpg")
    (folder / "good" / "copy.jpg").write_bytes((folder / "good" / "IMG_0.jpg").read_bytes())
    studio.click("tab-data")
    studio.at("folder").send_keys(str(folder))
    studio.until(lambda: "own parts" in studio.texts("#data-set option"), "it is listed")
    studio.until(lambda: len(studio.all("#images button")) == 3, "its images are shown")
    studio.click("tab-data")
    studio.click("check")
    studio.until(lambda: "Checking" not in studio.at("findings").text and studio.at("findings").text, "it is checked")
    found = next(row for row in studio.all("#findings tr") if "copy" in row.text)
    studio.until(
        lambda: studio.browser.execute_script("return arguments[0].querySelector('img')?.naturalWidth", found),
        "the copy is shown",
    )


def test_axe_finds_nothing_serious_in_the_studio(studio: Page) -> None:
    studio.browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    found = violations(studio.browser)
    studio.click("make")
    studio.until(lambda: studio.at("results").is_displayed(), "results are shown")
    found += violations(studio.browser)
    for tab, css in (("review", "#tiles button"), ("queue", "#jobs li"), ("evaluate", "#evaluation"), ("data", "#fit")):
        studio.click(f"tab-{tab}")
        studio.until(lambda css=css: [one for one in studio.all(css) if one.is_displayed()], f"{tab} is shown")
        found += violations(studio.browser)
    studio.click("keys")
    assert found + violations(studio.browser) == []


def test_a_restart_of_the_server_loses_nothing(studio: Page) -> None:
    studio.empty()
    studio.drag((-60, -150), (60, -150))
    painted, count = studio.mask()
    assert studio.saved() == count
    studio.server.stop()
    studio.until(lambda: "no answer" in studio.at("waiting").text, "the page notices")
    studio.server.start()
    studio.until(lambda: "no answer" not in studio.at("waiting").text, "and again")
    studio.open()
    assert studio.mask() == (painted, count)
