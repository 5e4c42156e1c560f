"""The report in a browser, from disk: nothing asked of the network, filters, details by keyboard, axe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fakes
from browsing import console, requests, violations
from flawsmith.config import GenerateConfig
from flawsmith.evaluation.results import Value
from flawsmith.evaluation.results import write as write_results
from flawsmith.generation import run as generation
from flawsmith.report import write as write_report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report about 70 images, more than are built at once, of two runs, with results and a refusal."""
    root = tmp_path_factory.mktemp("reported")
    data = fakes.mvtec_tree(root / "data", good=4, defects={"crack": 6, "hole": 6}, size=(72, 96))
    for method, n in (("copypaste", 66), ("perlin", 4)):
        generation.run(GenerateConfig(method=method, normal=f"mvtec_ad:{data}", out=root / method, n=n))
    values = [Value("KID/x/window", a + s / 9, "all", f"arm {a}", s, 9, 9) for a in range(3) for s in range(3)]
    write_results(root / "results", values, {"verdicts": ["arm 1: helps: adds 4.0 AP", "arm 2: does not help: no"]})
    write_report([(name, root / name) for name in ("copypaste", "perlin")], root / "page.html", [root / "results"])
    return root / "page.html"


@pytest.fixture
def opened(page: Any, report: Path) -> Any:
    page.get(report.as_uri())
    return page


def tiles(browser: Any) -> list[Any]:
    return browser.find_elements("css selector", ".tile")


def choose(browser: Any, name: str, value: str) -> None:
    script = "const e = document.getElementById('filters').elements[arguments[0]]; e.value = arguments[1];"
    browser.execute_script(script + "e.dispatchEvent(new Event('input', {bubbles: true}))", name, value)


def test_it_opens_from_disk_and_asks_nothing(opened: Any, report: Path) -> None:
    assert requests(opened) == [report.as_uri()] and console(opened) == []
    assert 60 <= len(tiles(opened)) < 70  # the rest is built when it is scrolled to
    opened.execute_script("document.querySelector('.more').scrollIntoView()")
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(opened, 5).until(lambda browser: not browser.find_element("id", "more").is_displayed())
    opened.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert requests(opened) == [] and console(opened) == []


def test_filters_say_how_many_and_which(opened: Any) -> None:
    def count() -> int:
        return int(opened.find_element("id", "count").text.split()[0])

    everything = count()
    choose(opened, "run", "1")
    assert count() == len(tiles(opened)) == 4
    choose(opened, "run", "")
    choose(opened, "type", "crack")
    cracks = count()
    assert 0 < cracks < everything and all("crack" in tile.text for tile in tiles(opened))
    choose(opened, "order", "down")
    scores = [float(tile.text.split()[-1]) for tile in tiles(opened)]
    assert scores == sorted(scores, reverse=True)
    choose(opened, "low", str(scores[3]))
    assert count() <= 5
    choose(opened, "words", "no such word")
    assert count() == 0 and tiles(opened) == []


def test_details_by_keyboard_alone(opened: Any) -> None:
    from selenium.webdriver import ActionChains, Keys

    tiles(opened)[0].send_keys(Keys.ENTER)
    title = opened.find_element("id", "detail-title")
    first = title.text
    named = [figure.text.split("\n")[0] for figure in opened.find_elements("css selector", "dialog figure")]
    assert [text.split(" ")[0] for text in named] == [
        *("Enlarged", "Before", "Reference", "Nearest", "Photograph", "Generated", "Mask", "Change")
    ]
    ActionChains(opened).send_keys(Keys.ARROW_RIGHT).perform()
    assert opened.find_element("id", "detail-title").text != first
    ActionChains(opened).send_keys("b").perform()
    assert opened.find_element("id", "blink").get_attribute("aria-pressed") == "true"
    ActionChains(opened).send_keys(Keys.ESCAPE).perform()
    assert not opened.find_element("id", "detail").is_displayed() and console(opened) == []


def test_axe_finds_nothing_serious(opened: Any) -> None:
    opened.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert violations(opened) == []
    tiles(opened)[0].click()
    assert violations(opened) == []
