"""What a user installs with flawsmith: licences that let them use it, and locks that name every file by its hash."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("tomllib")

from packaging.requirements import Requirement

import licences

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "supply-chain.md").read_text(encoding="utf-8")
LOCKS = {"core": (), "all": ("all",)}


def locked(name: str) -> dict[str, list[tuple[Requirement, int]]]:
    """Name -> its pins, each with the number of its hashes."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, list[tuple[Requirement, int]]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        pin, *hashes = line.split(" --hash=")
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one.strip()) for one in hashes), line
        one = Requirement(pin.strip())
        found.setdefault(licences.normal(one.name), []).append((one, len(hashes)))
    return found


def applies(one: Requirement) -> bool:
    return one.marker is None or one.marker.evaluate()


@pytest.mark.parametrize("extra", ["", "diffusion", "onnx", "openvino", "report", "store", "studio", "all"])
def test_no_package_binds_its_user_by_an_unknown_or_copyleft_licence(extra: str) -> None:
    names = licences.needed(*filter(None, [extra]))
    assert {"numpy", "pillow", "typer"} <= names
    for one in map(licences.package, sorted(names)):
        assert not licences.refused(one.licence), f"{one.name} is under {one.licence!r}"
        assert not licences.STRICT & set(one.bundled), f"the wheel of {one.name} brings {one.bundled}"


def test_the_readme_names_every_extra() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    extras = licences.project()["optional-dependencies"]
    assert all(f"| `flawsmith[{extra}]` |" in readme for extra in extras if extra != "dev")
    assert set(extras) - {"all", "anomalib", "dev", "heic"} == set(re.findall(r"\w+", extras["all"][0])) - {"flawsmith"}


def test_the_page_says_what_is_installed() -> None:
    """Make it anew with `python tests/licences.py docs/supply-chain.md`."""
    for name in sorted(licences.needed("all", "heic")):
        one = licences.package(name)
        assert f"\n| {one.name} | {one.licence} |" in PAGE, f"{one.name} ({one.licence}) is not on the page"


def test_what_is_refused() -> None:
    for expression in ("GPL-3.0-only", "unknown", "LGPL-2.1 AND MIT", "Proprietary", "AGPL-3.0 OR SSPL-1.0"):
        assert licences.refused(expression), expression
    assert licences.refused("MIT AND GPL-2.0") == ["GPL-2.0"]
    assert not licences.refused("(GPL-2.0 OR MIT) AND Apache-2.0 WITH LLVM-exception")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_every_package_with_its_hashes(name: str) -> None:
    """All that is installed with it, at one version on one machine; torch alone comes by version."""
    pins = locked(name)
    for package, found in pins.items():
        assert len(found) == 1 or all(pin.marker is not None for pin, _ in found), package
        assert all(str(pin.specifier).startswith("==") and hashes for pin, hashes in found), package
        assert sum(applies(pin) for pin, _ in found) <= 1, package
    here = {package for package, found in pins.items() if any(applies(pin) for pin, _ in found)}
    assert licences.needed(*LOCKS[name]) - {"torch"} <= here


@pytest.mark.parametrize("name", LOCKS)
def test_locks_and_constraints_agree(name: str) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    wanted = {licences.normal(one.name): one for one in map(Requirement, filter(_pin, lines)) if applies(one)}
    agreed = 0
    for package, found in locked(name).items():
        for pin, _ in found:
            if applies(pin) and package in wanted:
                assert pin.specifier == wanted[package].specifier, package
                agreed += 1
    assert agreed >= 10


def _pin(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")
