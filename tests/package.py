"""Does a stranger's `pip install` work? Builds the wheel and the sdist, installs each in a clean environment, uses it.

    python tests/package.py FOLDER     everything is made under FOLDER, a minute the first time

In the environment with nothing but the wheel and what it needs, from the hashes of requirements/core.txt, the Python
blocks of README.md and docs/python.md run as
written, and a command. Exits with 1, saying what went wrong. Not part of pytest: it installs packages.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDED = (
    *("flawsmith/py.typed", "flawsmith/weights/compact/", "flawsmith/cli/main.py"),
    *("flawsmith/report/page.html", "flawsmith/studio/static/index.html"),
)


def blocks(page: str) -> str:
    """The Python blocks of a page, one after the other."""
    return "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL))


def run(*words: str | Path, cwd: Path = ROOT) -> None:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))[:300]}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("flawsmith-*"):
        old.unlink()
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)  # not where `build` is a folder
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    for needed in NEEDED:
        if not any(name.startswith(needed) for name in names):
            sys.exit(f"{wheel.name} holds no {needed}.")
    if any(name.startswith("tests/") for name in names):
        sys.exit(f"{wheel.name} holds the tests.")
    with tarfile.open(sdist) as archive:
        if not any(name.endswith("/LICENSE") for name in archive.getnames()):
            sys.exit(f"{sdist.name} holds no LICENSE.")
    home = folder / "clean"
    if not home.is_dir():
        run(sys.executable, "-m", "venv", home)
    python, pip = home / "bin" / "python", [home / "bin" / "python", "-m", "pip", "install", "-q"]
    run(*pip, "--require-hashes", "--no-deps", "-r", ROOT / "requirements" / "core.txt")
    run(*pip, "--force-reinstall", "--no-deps", wheel)
    run(python, "-m", "pip", "check")
    for page in ("README.md", "docs/python.md"):
        place = folder / Path(page).stem
        place.mkdir(exist_ok=True)
        run("rm", "-rf", *place.iterdir(), cwd=folder) if any(place.iterdir()) else None
        run(python, "-c", blocks(page), cwd=place)
    run(home / "bin" / "flawsmith", "check", f"mvtec_ad:{folder / 'README' / 'cracks'}", cwd=folder)
    run(*pip, "--force-reinstall", "--no-deps", sdist)
    run(home / "bin" / "flawsmith", "--help", cwd=folder)
    print(f"{wheel.name} ({wheel.stat().st_size / 1e6:.1f} MB) and {sdist.name}: built, installed, used.")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else sys.exit(__doc__))
