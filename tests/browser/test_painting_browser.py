"""Painting in a browser, with a real server and worker: by pointer and by keyboard, saved pixel for pixel."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio's extra is absent: pip install 'flawsmith[studio]'")

from studio_page import LARGE, Page

import fakes
from browsing import console, violations
from flawsmith import images


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
