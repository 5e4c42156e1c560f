"""How heavy a report of many images is, how long it takes to make, and how soon a browser has it open.

    python benchmarks/report.py --images 5000 --out FOLDER

The images are painted by `cutpaste` on the demo's photographs (256 px, among them gravel, whose grain is the heaviest
to store), at most 400 of them; the manifest names each several times, and each time it is looked at, shrunk and stored
anew. Needs Chromium and Selenium for the last figure.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

from flawsmith import demo, images
from flawsmith.config import GenerateConfig
from flawsmith.datasets.writer import CONFIG, MANIFEST, read_manifest
from flawsmith.generation import run as generation
from flawsmith.report import write

PAINTED = 400
RUNS = 5


def many(folder: Path, count: int) -> Path:
    """A generated folder whose manifest has `count` lines."""
    data, out = folder / "data", folder / f"out{count}"
    if not data.is_dir():
        demo.texture_photos(data)
        demo.product_photos(data)
    if (out / MANIFEST).is_file() and len(read_manifest(out)) == count:
        return out
    config = GenerateConfig(method="cutpaste", normal=f"mvtec_ad:{data}", out=out, n=min(count, PAINTED))
    generation.run(config)
    painted = [line for line in read_manifest(out) if line["status"] == "kept"]
    lines = [{**painted[i % len(painted)], "index": i} for i in range(count)]
    images.write_bytes(out / MANIFEST, "".join(json.dumps(line) + "\n" for line in lines).encode())
    about = json.loads((out / CONFIG).read_text(encoding="utf-8"))
    images.write_bytes(out / CONFIG, json.dumps({**about, "n": count}).encode())
    return out


def opening(page: Path) -> list[float]:
    """Seconds until the first tiles stand in the page, RUNS times; [] without a browser."""
    browser_file, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser_file or not driver:
        return []
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser_file
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    browser: Any = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    seconds = []
    for _ in range(RUNS):
        browser.get("about:blank")
        begun = time.perf_counter()
        browser.get(page.as_uri())  # returns after `load`, which comes after the page's script
        assert browser.find_elements("css selector", ".tile")
        seconds.append(time.perf_counter() - begun)
    browser.quit()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    folder = given.out.resolve()
    out, page = many(folder, given.images), folder / "report.html"
    begun, cpu = time.perf_counter(), time.process_time()
    write([("cutpaste", out)], page)
    print(f"made in {time.perf_counter() - begun:.1f} s ({time.process_time() - cpu:.1f} s of CPU)")
    print(f"weighs {page.stat().st_size / 1e6:.1f} MB")
    seconds = opening(page)
    print(f"opens in {min(seconds):.2f} to {max(seconds):.2f} s, {RUNS} times" if seconds else "no browser")


if __name__ == "__main__":
    main()
