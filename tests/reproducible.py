"""Are wheel and sdist the same for everyone? Builds both twice and compares their SHA-256.

    python tests/reproducible.py FOLDER     everything is made under FOLDER

The second build is of a copy of the tree in another folder, with other file times and permissions. SOURCE_DATE_EPOCH is
the last commit's time where the environment names none. Exits with 1, naming the members that differ.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def files() -> list[str]:
    """What git knows of, and what it would: no build products."""
    found = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return [name for name in found.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def epoch() -> str:
    given = os.environ.get("SOURCE_DATE_EPOCH")
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True)
    return given or done.stdout.strip()


def copy(target: Path, mode: int, time: int) -> Path:
    """The tree in another place, every file with these permissions and this time; only those of executables stay."""
    shutil.rmtree(target, ignore_errors=True)
    for name in files():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, path)
        path.chmod(mode | (0o111 if os.access(ROOT / name, os.X_OK) else 0))
        os.utime(path, (time, time))
    return target


def build(tree: Path, out: Path) -> list[Path]:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch()}
    words = [sys.executable, "-m", "build", "--outdir", str(out), str(tree)]
    done = subprocess.run(words, cwd=out, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"The build of {tree} failed:\n{done.stdout}{done.stderr}")
    return sorted(out.iterdir())


def members(archive: Path) -> dict[str, tuple[object, ...]]:
    """Every member with what may differ."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {i.filename: (i.CRC, i.date_time, i.external_attr) for i in wheel.infolist()}
    with tarfile.open(archive) as sdist:
        return {i.name: (i.size, i.mtime, i.mode, i.uid, i.uname) for i in sdist.getmembers()}


def main(folder: Path) -> None:
    one = build(copy(folder / "one", 0o644, 1_700_000_000), folder / "first")
    two = build(copy(folder / "elsewhere" / "two", 0o600, 1_500_000_000), folder / "second")
    for first, second in zip(one, two, strict=True):
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second)]
        if first.name != second.name or digests[0] != digests[1]:
            left, right = members(first), members(second)
            names = [name for name in {**left, **right} if left.get(name) != right.get(name)]
            sys.exit(f"{first.name} is not the same twice: {', '.join(names[:10]) or 'the archive itself'}.")
        print(f"{digests[0]}  {first.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else sys.exit(__doc__))
