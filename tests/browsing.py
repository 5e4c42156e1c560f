"""What the browser tests ask of a page: its colours, complaints, requests, and what axe-core finds in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

AXE = Path(__file__).parent / "browser" / "axe" / "axe.min.js"


def colours(browser: Any, scheme: str) -> None:
    """Prefer "light" or "dark"."""
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def console(browser: Any) -> list[str]:
    """What the page complained of since the log was last read."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def requests(browser: Any) -> list[str]:
    """Addresses asked for since the log was last read, the page's own among them."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [address for address in sent if not address.startswith(("data:", "about:"))]


def violations(browser: Any) -> list[str]:
    """What axe-core finds serious or critical in light and in dark, with the elements it finds it in."""
    if not browser.execute_script("return window.axe !== undefined"):
        browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
        browser.execute_script(AXE.read_text(encoding="utf-8"))
    told = []
    for scheme in ("dark", "light"):
        colours(browser, scheme)
        found = browser.execute_async_script(
            "axe.run({resultTypes: ['violations']}).then(arguments[arguments.length - 1])"
        )
        told += [
            f"{scheme}, {one['id']}: {node['html'][:120]} ({node['any'][0]['message'] if node['any'] else ''})"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]
    return told
