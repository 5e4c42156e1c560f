"""Does the core work under every Python that is promised? Installs it from its hashes and runs the tests.

    python tests/pythons.py FOLDER [TEST ...]     an environment for each version under FOLDER

Looks for python3.10 to python3.13 in pyenv's folder and on the PATH. Without torch the tests that need it skip. TEST
are files or folders of `tests`, by default all. Exits with 1 where a version fails; one that is not here is named.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
TOOLS = ("pytest", "hypothesis")


def interpreter(version: str) -> Path | None:
    """A Python of this version that starts."""
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(home.glob(f"{version}.*/bin/python"))
    named = shutil.which(f"python{version}")
    for path in [*found, *([Path(named)] if named else [])]:
        asked = subprocess.run(
            [path, "-c", "import sys; print(*sys.version_info[:2], sep='.')"],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.stdout.strip() == version:
            return path
    return None


def tried(python: Path, home: Path, tests: list[str]) -> str:
    """pytest's last line under this Python, or what went wrong before. Starts with a digit where all is well."""
    steps: list[list[str | Path]] = [[python, "-m", "venv", home]] if not home.is_dir() else []
    pip: list[str | Path] = [home / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    steps += [
        [*pip, "--require-hashes", "--no-deps", "-r", ROOT / "requirements" / "core.txt"],
        [*pip, "-c", ROOT / "constraints.txt", *TOOLS],
        [*pip, "--no-deps", "-e", ROOT],
        [home / "bin" / "python", "-W", "error::SyntaxWarning", "-m", "compileall", "-q", "-f", ROOT / "src"],
    ]
    for words in steps:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"failed at {' '.join(map(str, words))[:120]}:\n{done.stderr[-2000:]}"
    words = [home / "bin" / "python", "-m", "pytest", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    last = re.findall(r"^.*\d+ passed.*$", done.stdout, flags=re.MULTILINE)
    return (
        last[-1].strip("= ")
        if done.returncode == 0 and last
        else f"failed:\n{done.stdout[-4000:]}{done.stderr[-1000:]}"
    )


def main(folder: Path, tests: list[str]) -> None:
    results = {}
    for version in VERSIONS:
        python = interpreter(version)
        results[version] = tried(python, folder / version, tests) if python else "is not here"
        print(f"{version}: {results[version]}", flush=True)
    if any(said.startswith("failed") for said in results.values()):
        sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:]) if len(sys.argv) > 1 else sys.exit(__doc__)
