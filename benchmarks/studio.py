"""How soon the studio paints, how long a brush stroke takes on 12 megapixels, and what 500 bad requests at once do.

    python benchmarks/studio.py --out FOLDER

Starts `flawsmith studio` and a headless Chromium. A movement of the brush is measured twice: by the clock, from the
call to the drawn pixels, which on a busy machine also counts the time in which others ran; and (on Linux) by the
processor time of the page's main thread in a frame with a movement and in one without, drawing and layout included.
"""

from __future__ import annotations

import argparse
import http.client
import re
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith import images

SIZE = (3000, 4000)
OPENINGS, MOVES, FRAMES, REQUESTS = 5, 200, 60, 500

STROKES = """
const done = arguments[arguments.length - 1], [moves, size] = arguments;
import('/static/paint.js').then((paint) => {
  const { viewer } = paint, mask = viewer.mask, times = [];
  let at = { x: 300, y: 300 };
  mask.begin();
  for (let i = 0; i < moves; i++) {
    const next = { x: 300 + (i * 97) % 3400, y: 300 + (i * 61) % 2400 };
    const near = { x: at.x + Math.sign(next.x - at.x) * 40, y: at.y + Math.sign(next.y - at.y) * 25 };
    const begun = performance.now();
    viewer.drawMask(mask.stroke(at, near, size / 2, 1));
    times.push(performance.now() - begun);
    at = near;
  }
  mask.end();
  done(times);
});
"""

FRAME = """
const done = arguments[arguments.length - 1], [size, number] = arguments;
import('/static/paint.js').then(({ viewer }) => requestAnimationFrame(() => {
  if (size) {
    const from = { x: 300 + (number * 40) % 3400, y: 300 + (number * 25) % 2400 };
    viewer.drawMask(viewer.mask.stroke(from, { x: from.x + 40, y: from.y + 25 }, size / 2, 1));
  }
  requestAnimationFrame(() => done());
}));
"""


def start(out: Path, data: Path) -> tuple[subprocess.Popen[str], int]:
    words = [sys.executable, "-m", "flawsmith", "studio", "--out", out, "--port", "0", "--no-browser", "--data", data]
    process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r":(\d+)/", process.stdout.readline())
    assert found is not None
    return process, int(found[1])


def hammer(port: int) -> list[int]:
    """The answers to REQUESTS bad requests, 50 at a time."""
    bodies = (b"", b"{", b"[]", b'{"a":' * 2000, b"\xff" * 5000, b'{"seed":1e999}')
    paths = ("/api/make", "/api/data/../../etc/passwd", "/api/sets/x/-1/image", "/api/wand", "/x" * 400, "/api/export")

    def ask(number: int) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"X-Flawsmith": "1"} if number % 2 else {"Host": "evil.example"} if number % 3 else {}
        method = ("GET", "POST", "PUT", "DELETE")[number % 4]
        try:
            connection.request(
                method, paths[number % 6], bodies[number % 5], {**headers, "Content-Type": "application/json"}
            )
            return connection.getresponse().status
        finally:
            connection.close()

    with ThreadPoolExecutor(50) as pool:
        return list(pool.map(ask, range(REQUESTS)))


def of_the_page(browser: Any) -> Path | None:
    """Where Linux tells the processor time of the page's main thread; None elsewhere."""
    found: list[Path] = []
    waiting = [browser.service.process.pid]
    while waiting and Path("/proc").is_dir():
        process = Path("/proc") / str(waiting.pop())
        if b"--type=renderer" in (process / "cmdline").read_bytes():
            found.append(process / "schedstat")
        waiting += [int(pid) for file in process.glob("task/*/children") for pid in file.read_text().split()]
    return max(found, key=lambda file: int(file.read_text().split()[0]), default=None)  # others stand in reserve


def frames(browser: Any, told: Path, size: int) -> list[float]:
    """Milliseconds of processor time of frames with a movement of the brush; without one at size 0."""
    spent = []
    for number in range(FRAMES):
        before = int(told.read_text().split()[0])
        browser.execute_async_script(FRAME, size, number)
        spent.append((int(told.read_text().split()[0]) - before) / 1e6)
    return sorted(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    folder = parser.parse_args().out.resolve()
    photo = np.random.default_rng(0).normal(120, 12, (*SIZE, 3)).clip(0, 255).astype(np.uint8)
    images.write_image(folder / "data" / "photo.png", photo)
    process, port = start(folder / "studio", folder / "data")
    try:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1366,768"):
            options.add_argument(argument)
        browser: Any = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        paints = []
        for _ in range(OPENINGS):
            browser.get(f"http://localhost:{port}/")
            time.sleep(2)
            paints.append(
                browser.execute_script("return performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
            )
        print("first contentful paint, ms:", ", ".join(f"{one:.0f}" for one in paints if one))
        while not browser.execute_script("return document.getElementById('overlay').dataset.image"):
            time.sleep(0.2)
        told = of_the_page(browser)
        empty = statistics.median(frames(browser, told, 0)) if told else 0.0
        for size in (20, 100, 300):
            if told:
                spent = [one - empty for one in frames(browser, told, size)]
                print(f"processor time of a movement of a {size} px brush above a frame without, ms: "
                      f"median {statistics.median(spent):.1f}, 95th of 100 {spent[int(0.95 * FRAMES)]:.1f}, "
                      f"worst {spent[-1]:.1f}")  # fmt: skip
            times = sorted(browser.execute_async_script(STROKES, MOVES, size))
            print(f"a movement of a {size} px brush on 12 megapixels, ms: median {statistics.median(times):.1f}, "
                  f"95th of 100 {times[int(0.95 * len(times))]:.1f}, worst {times[-1]:.1f}")  # fmt: skip
        browser.quit()
        begun = time.perf_counter()
        answers = hammer(port)
        connection = http.client.HTTPConnection("localhost", port, timeout=60)
        connection.request("GET", "/api/state")
        after = connection.getresponse().status
        counts = {status: answers.count(status) for status in sorted(set(answers))}
        print(f"{REQUESTS} bad requests in {time.perf_counter() - begun:.1f} s: {counts}; then /api/state: {after}")
    finally:
        process.terminate()
        process.wait(20)


if __name__ == "__main__":
    main()
