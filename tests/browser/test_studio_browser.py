"""The studio in a browser, with a real server and worker: the whole job, by pointer and by keyboard."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio's extra is absent: pip install 'flawsmith[studio]'")

import fakes
from browsing import console, requests, violations
from flawsmith import demo, images

LARGE = (2160, 3840)


class Server:
    """`flawsmith studio` as a process of its own."""

    def __init__(self, root: Path) -> None:
        self.out = root / "out"
        few = demo.few_defects(root / "demo")
        rows = np.arange(LARGE[0], dtype=np.uint8)[:, None, None]
        fakes.save(root / "large" / "0.png", np.broadcast_to(rows, (*LARGE, 3)), compress_level=1)
        self.sources = [f"mvtec_ad:{few}", f"folder:{root / 'large'}"]
        self.port = "0"
        self.process: subprocess.Popen[str] | None = None
        self.address = self.start()

    def start(self) -> str:
        words = [sys.executable, "-m", "flawsmith", "studio", "--out", self.out, "--port", self.port, "--no-browser"]
        words += [word for source in self.sources for word in ("--data", source)]
        self.process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = re.search(r"http://localhost:(\d+)/", self.process.stdout.readline())
        assert found is not None
        self.port = found[1]  # the same again after a restart, as the page expects it
        return found[0]

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)

    def worker(self) -> int:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        found = [int(pid) for file in children for pid in file.read_text().split()]
        return next(pid for pid in found if b"studio.worker" in Path(f"/proc/{pid}/cmdline").read_bytes())


@pytest.fixture(scope="module")
def server(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("studio"))
    yield running
    running.stop()


class Page:
    """The studio's page, and what a user does in it."""

    def __init__(self, browser: Any, server: Server) -> None:
        self.browser, self.server, self.clicks = browser, server, 0

    def open(self) -> Page:
        self.browser.get(self.server.address)
        self.until(lambda: self.browser.execute_script("return document.body.dataset.ready"), "the page is ready")
        return self

    def until(self, true: Callable[[], Any], what: str, seconds: float = 90) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = true()
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError(f"not in {seconds:g} s: {what}; {console(self.browser)}")

    def at(self, id_: str) -> Any:
        return self.browser.find_element("id", id_)

    def all(self, css: str) -> list[Any]:
        return list(self.browser.find_elements("css selector", css))

    def texts(self, css: str) -> list[str]:
        """At one moment: the page may rebuild its lists at the next."""
        script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)"
        return list(self.browser.execute_script(script, css))

    def click(self, id_: str) -> None:
        self.clicks += 1
        self.at(id_).click()

    def set(self, id_: str, value: str) -> None:
        script = "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        script += "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, {bubbles: true}))"
        self.browser.execute_script(script, id_, value)

    def saved(self) -> int:
        """Pixels, once what is painted is on the disk."""
        self.until(lambda: self.at("saved").text.startswith("Saved"), "the mask is saved")
        return int(self.at("saved").text.split()[1])

    def drag(self, *points: tuple[int, int]) -> None:
        """Over the image, from its middle."""
        from selenium.webdriver import ActionChains

        chain = ActionChains(self.browser, duration=10)
        chain.move_to_element_with_offset(self.at("overlay"), *points[0]).click_and_hold()
        for point in points[1:]:
            chain.move_to_element_with_offset(self.at("overlay"), *point)
        chain.release().perform()

    def keys(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def mask(self) -> tuple[str, int]:
        """(SHA-256 of the mask's bytes in the page, how many are 1)."""
        script = """const done = arguments[0]; import('/static/paint.js').then(async (m) => {
          const bytes = m.currentMask().bytes, sha = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
          done([[...sha].map((b) => b.toString(16).padStart(2, '0')).join(''), m.currentMask().pixels]); })"""
        found = self.browser.execute_async_script(script)
        return str(found[0]), int(found[1])

    def choose_data(self, name: str) -> None:
        script = "return [...document.querySelectorAll('#data-set option')].find((o) => o.text === arguments[0]).value"
        before = self.at("overlay").get_attribute("data-image")
        self.set("data-set", self.browser.execute_script(script, name))
        self.until(lambda: self.at("overlay").get_attribute("data-image") != before, f"{name} is open")

    def file(self) -> Path:
        """Where the open image's mask is saved."""
        data_set, overlay = self.at("data-set").get_attribute("value"), self.at("overlay")
        of, key = (overlay.get_attribute(f"data-{name}") for name in ("of", "image"))
        return self.server.out / of / data_set / f"{key}.png"

    def holds(self, count: int) -> np.ndarray:
        """What the file of the open mask holds, once it has so many pixels."""
        self.until(lambda: self.at("saved").text == f"Saved, {count} pixels", "it is saved")
        return images.read_mask(self.file())

    def empty(self) -> None:
        """Without a mask, and saved so."""
        if self.mask()[1]:
            self.click("clear")
            assert self.saved() == 0

    def job(self, status: str, title: str) -> str:
        """What the queue says of the newest job of such a title, once it has this status."""
        script = """const all = [...document.querySelectorAll('#jobs li')];
          const li = all.find((one) => one.textContent.includes(arguments[0]));
          return li && [li.dataset.status, li.textContent]"""

        def find() -> Any:
            found = self.browser.execute_script(script, title)
            return found[1] if found and found[0] == status else None

        return str(self.until(find, f"{title} is {status}"))

    def press(self, title: str, label: str) -> None:
        """A button of the newest job of such a title."""
        script = """const all = [...document.querySelectorAll('#jobs li')];
          const li = all.find((one) => one.textContent.includes(arguments[0]));
          [...li.querySelectorAll('button')].find((button) => button.textContent === arguments[1]).click()"""
        self.browser.execute_script(script, title, label)


@pytest.fixture
def studio(page: Any, server: Server) -> Page:
    page.get(f"{server.address}static/studio.css")  # of the same origin, without a script that would write it again
    page.execute_script("localStorage.clear()")
    for kind in ("browser", "performance"):
        page.get_log(kind)
    return Page(page, server).open()


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


def test_defects_keep_to_what_was_painted_and_every_part_is_one(studio: Page) -> None:
    studio.empty()
    studio.browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    studio.set("size", "120")
    studio.drag((-100, -100), (-60, -100))
    studio.saved()
    region = images.read_mask(studio.file())
    studio.click("roi-painted")
    studio.until(lambda: "painted" in studio.at("roi-said").text, "it is the region")
    studio.set("family", "blob")
    before = studio.mask()[0]
    studio.click("draw")
    studio.until(lambda: studio.mask()[0] != before, "a mask is drawn")
    drawn = studio.holds(studio.mask()[1])
    assert drawn.any() and not (drawn & ~region).any()
    studio.open()  # a reload keeps it
    assert "painted" in studio.at("roi-said").get_attribute("textContent")
    studio.browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    studio.click("roi-none")
    assert studio.at("roi-said").text == "the whole object"
    studio.click("clear")
    studio.set("size", "40")
    studio.drag((-80, 0), (-60, 0))
    studio.drag((60, 0), (80, 0))
    studio.saved()
    studio.click("parts")
    studio.set("count", "1")
    studio.click("make")
    studio.until(lambda: studio.at("results").is_displayed(), "results are shown")
    script = "fetch('/api/jobs').then((answer) => answer.json()).then(arguments[0])"
    job = studio.browser.execute_async_script(script)[-1]
    assert job["request"]["parts"] and job["request"]["roi"] == ""
    line = json.loads((studio.server.out / "made" / job["id"] / "manifest.jsonl").read_text().splitlines()[0])
    assert len(line["info"]["defects"]) == 2 and console(studio.browser) == []


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


def test_strokes_are_undone_and_redone_and_saved(studio: Page) -> None:
    studio.empty()
    studio.drag((-60, -150), (60, -150), (60, -120))
    first, count = studio.mask()
    assert count > 500 and studio.saved() == count
    studio.browser.find_element("css selector", "[data-tool=eraser]").click()
    studio.drag((0, -150), (20, -150))
    assert studio.mask()[1] < count
    studio.click("undo")
    assert studio.mask() == (first, count)
    studio.click("redo")
    erased = studio.mask()
    assert erased[1] < count and studio.saved() >= 0
    studio.until(lambda: images.read_mask(studio.file()).sum() == erased[1], "the file holds it")
    saved = images.read_mask(studio.file())
    assert hashlib.sha256(saved.astype(np.uint8).tobytes()).hexdigest() == erased[0]
    studio.open()  # a reload
    assert studio.mask() == erased


def test_a_mask_of_4k_is_saved_pixel_for_pixel(studio: Page) -> None:
    studio.choose_data("large")
    studio.empty()
    studio.browser.find_element("css selector", "[data-tool=polygon]").click()
    for point in ((-150, -90), (140, -60), (30, 100)):
        studio.drag(point)
    studio.keys("\ue007")  # Enter
    studio.browser.find_element("css selector", "[data-tool=brush]").click()
    studio.set("size", "173")
    studio.drag((-200, 90), (-120, 20), (220, 50))
    sha, count = studio.mask()
    assert count > 500_000
    saved = studio.holds(count)
    assert saved.shape == LARGE and saved.sum() == count
    assert hashlib.sha256(saved.astype(np.uint8).tobytes()).hexdigest() == sha


def test_the_mask_of_a_reference_is_painted_and_imported(studio: Page, tmp_path: Path) -> None:
    studio.set("method", "copypaste")
    image = studio.at("overlay").get_attribute("data-image")
    studio.click("reference-mask")
    studio.until(lambda: studio.at("of-reference").is_displayed(), "its mask is open")
    own = studio.mask()[1]
    assert own > 0 and not studio.at("draw").is_enabled()  # the data set's, to be corrected
    assert violations(studio.browser) == []
    studio.drag((-60, -90), (60, -90), (60, -60))
    sha, count = studio.mask()
    saved = studio.holds(count)
    assert count > own and hashlib.sha256(saved.astype(np.uint8).tobytes()).hexdigest() == sha
    painted = np.zeros_like(saved)
    painted[100:150, 90:150] = True
    studio.at("import").send_keys(str(fakes.save(tmp_path / "own.png", painted)))
    assert (studio.holds(50 * 60) == painted).all()
    studio.click("reference-done")
    studio.until(lambda: studio.at("overlay").get_attribute("data-image") == image, "the image is open again")
    assert not studio.at("of-reference").is_displayed()
    studio.click("make")
    studio.until(lambda: studio.at("results").is_displayed(), "results are shown")
    assert console(studio.browser) == []


def test_painting_by_keyboard_alone(studio: Page) -> None:
    studio.empty()
    studio.browser.execute_script("document.getElementById('overlay').focus()")
    from selenium.webdriver import ActionChains, Keys

    studio.keys("]", "]", Keys.ARROW_UP, Keys.ARROW_UP)
    chain = ActionChains(studio.browser).key_down(Keys.SPACE).send_keys(Keys.ARROW_RIGHT * 4).key_up(Keys.SPACE)
    chain.perform()
    one = studio.mask()[1]
    assert one > 500
    ActionChains(studio.browser).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform()
    assert studio.mask()[1] == 0
    ActionChains(studio.browser).key_down(Keys.CONTROL).send_keys("y").key_up(Keys.CONTROL).perform()
    assert studio.mask()[1] == one
    studio.keys("p")
    assert studio.browser.find_element("css selector", "[data-tool=polygon]").get_attribute("aria-pressed") == "true"
    studio.keys("m")
    studio.until(lambda: studio.at("results").is_displayed() and studio.at("facts").text, "results are shown")
    before = studio.at("facts").text
    studio.keys(Keys.ARROW_RIGHT)
    studio.until(lambda: studio.at("facts").text != before, "another result")
    studio.keys("x")
    studio.until(lambda: studio.at("facts").text.startswith("Dropped"), "it is dropped")
    for key, name in (("b", "blink"), ("c", "change"), ("z", "close-up")):
        was = studio.at(name).get_attribute("aria-pressed")
        studio.keys(key)
        assert studio.at(name).get_attribute("aria-pressed") != was
    studio.keys(Keys.ESCAPE)
    assert not studio.at("results").is_displayed() and console(studio.browser) == []


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


def test_another_tab_is_not_overwritten(studio: Page) -> None:
    studio.empty()
    first = studio.browser.current_window_handle
    studio.browser.switch_to.new_window("tab")
    other = Page(studio.browser, studio.server).open()
    other.drag((-60, -150), (60, -150))
    theirs = other.mask()
    other.saved()
    studio.browser.switch_to.window(first)
    studio.drag((-60, 150), (60, 150))
    studio.until(lambda: studio.at("message").is_displayed(), "the conflict is told")
    assert "another tab" in studio.at("message").text
    next(b for b in studio.at("message").find_elements("tag name", "button") if b.text == "Take theirs").click()
    studio.until(lambda: studio.mask() == theirs, "theirs is shown")
    for handle in studio.browser.window_handles:
        if handle != first:
            studio.browser.switch_to.window(handle)
            studio.browser.close()
    studio.browser.switch_to.window(first)


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
