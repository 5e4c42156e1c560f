"""The licences of everything a user installs with flawsmith: read from the installed packages' own metadata.

    python tests/licences.py          the table of docs/supply-chain.md
    python tests/licences.py FILE     write it between that page's markers

Needs Python 3.11 and everything that `make test` installs.

A package is copied by pip from its authors to the user; flawsmith's own files hold none of them.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomllib
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
MARKS = "<!-- made by tests/licences.py -->", "<!-- end -->"
# packages whose metadata names no licence by its short name, looked up in the files they install
TOLD = {
    "cycler": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "kiwisolver": "BSD-3-Clause",
    "markdown-it-py": "MIT",
    "torch": "Apache-2.0 AND BSD-3-Clause AND BSL-1.0 AND MIT",  # and relatives of these
    "matplotlib": "PSF-2.0",  # its own text, modelled on Python's
    "mdurl": "MIT",
    "safetensors": "Apache-2.0",
    "scikit-image": "BSD-3-Clause",
    "scipy": "BSD-3-Clause",
    "shellingham": "ISC",
    "tokenizers": "Apache-2.0",
}
SPOKEN = {  # how metadata written before SPDX says it
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "OSI Approved :: Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
}
ALLOWED = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "MIT"),
    *("MIT-CMU", "PSF-2.0", "Zlib", "Apache-2.0 WITH LLVM-exception"),
    "MPL-2.0",  # binds changes to its own files, and nothing beside them
}
# copyleft libraries that wheels bring along, by the beginning of their names
BUNDLED = {
    "libavcodec": "FFmpeg",
    "libde265": "libde265",
    "libgfortran": "GCC runtime",
    "libgomp": "GCC runtime",
    "libheif": "libheif",
    "libquadmath": "libquadmath",
    "libx265": "x265",
}
STRICT = {"x265"}  # no exception for those who link it: only in an extra that is asked for by its own name


@dataclass(frozen=True)
class Package:
    name: str
    licence: str
    bundled: tuple[str, ...]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(*extras: str) -> set[str]:
    """The names of all packages that are installed with flawsmith and these extras, as far as they are here."""
    found: set[tuple[str, frozenset[str]]] = set()
    rest = [("flawsmith", frozenset({"", *extras}))]
    while rest:
        name, wanted = rest.pop()
        if (normal(name), wanted) in found:
            continue
        try:
            requires = _own(wanted) if name == "flawsmith" else importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # an extra that is not installed
            continue
        found.add((normal(name), wanted))
        for one in map(Requirement, requires):
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in wanted):
                rest.append((one.name, frozenset({"", *one.extras})))
    return {name for name, _ in found} - {"flawsmith"}


def project() -> dict[str, Any]:
    """What pyproject.toml of this working tree says of the package."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def _own(extras: frozenset[str]) -> list[str]:
    """What flawsmith itself asks for."""
    told = project()
    return [*told["dependencies"], *(one for extra in extras - {""} for one in told["optional-dependencies"][extra])]


def licence(name: str) -> str:
    """An SPDX expression; what the metadata says where it is none, "unknown" where it says nothing."""
    about = importlib.metadata.metadata(name)
    said = about.get("License-Expression") or (about.get("License") or "").split("\n")[0].strip()
    return TOLD.get(name) or SPOKEN.get(said, said) or "unknown"


def package(name: str) -> Package:
    files = importlib.metadata.files(name) or []
    libraries = {file.name for file in files if ".so" in file.name or file.suffix in (".dylib", ".dll")}
    bundled = {BUNDLED[mark] for mark in BUNDLED for library in libraries if library.startswith(mark)}
    return Package(name, licence(name), tuple(sorted(bundled)))


def refused(expression: str) -> list[str]:
    """The terms of an expression that are not allowed; of an "OR" one allowed term is enough."""
    every = [part.strip("() ") for part in expression.split(" AND ")]
    return [part for part in every if not any(one.strip("() ") in ALLOWED for one in part.split(" OR "))]


def table() -> str:
    """Every package with its licence, what it bundles, and the extra that brings it ("" = always)."""
    extras = ("", "diffusion", "onnx", "openvino", "ray", "report", "studio", "heic")
    by: dict[str, str] = {}
    for extra in extras:
        for name in sorted(needed(*filter(None, [extra]))):
            by.setdefault(name, extra)
    lines = ["| package | licence | copyleft libraries in its wheel | comes with |", "|---|---|---|---|"]
    for name in sorted(by, key=lambda name: (extras.index(by[name]), name)):
        one = package(name)
        lines.append(f"| {name} | {one.licence} | {', '.join(one.bundled)} | {by[name] or 'always'} |")
    return "\n".join(lines)


def main() -> None:
    if len(sys.argv) == 1:
        print(table())
        return
    page = Path(sys.argv[1])
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    page.write_text(f"{before}{MARKS[0]}\n\n{table()}\n\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
