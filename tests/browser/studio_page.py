"""`flawsmith studio` as a process, and its page in a browser: what a user does in it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fakes
from browsing import console
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
