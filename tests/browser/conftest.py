"""A real headless Chromium, driven by Selenium; a visible skip where either is absent. A studio for each file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from studio_page import Page, Server

from browsing import colours

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One browser for all tests, 1366 x 768 as a small laptop; downloads go to its `downloads` folder."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is absent: pip install selenium")
    binary = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium to drive: apt-get install chromium chromium-driver")
    downloads = tmp_path_factory.mktemp("downloads")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.add_argument("--window-size=1366,768")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.downloads = downloads  # type: ignore[attr-defined]
    yield browser
    browser.quit()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """The browser with empty logs, light, on an empty page."""
    colours(chromium, "light")
    chromium.get("about:blank")
    for kind in ("browser", "performance"):
        chromium.get_log(kind)
    yield chromium
    chromium.get("about:blank")


@pytest.fixture(scope="module")
def server(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("studio"))
    yield running
    running.stop()


@pytest.fixture
def studio(page: Any, server: Server) -> Page:
    page.get(f"{server.address}static/studio.css")  # of the same origin, without a script that would write it again
    page.execute_script("localStorage.clear()")
    for kind in ("browser", "performance"):
        page.get_log(kind)
    return Page(page, server).open()
