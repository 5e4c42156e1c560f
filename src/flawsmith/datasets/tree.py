"""Walking data set folders: natural order, link loops, masks and captions by stem, groups from origin.csv.

What every reader shares. Nothing here decodes an image.
"""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from flawsmith.datasets.writer import ASIDE, MANIFEST
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.images import SUFFIXES

GOOD_NAMES = frozenset({"good", "ok", "okay", "normal", "no_defect", "defect_free"})
MASK_FOLDERS = frozenset({"masks", "mask", "ground_truth", "labels"})
IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img", "photos"})
CAPTION_FOLDERS = frozenset({"prompt", "prompts", "captions"})
MASK_SUFFIXES = ("_mask", "-mask", "_gt", "_label")
ORIGIN = "origin.csv"
_NOISE = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


def natural(text: str) -> tuple[tuple[str | int, ...], str]:
    """Sort key that counts as people do: "2.png" before "10.png", whatever the letters' case."""
    parts = re.split(r"(\d+)", text.casefold())  # strings and numbers alternate, so keys always compare
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts)), text


def stem_key(stem: str) -> str:
    """A stem for pairing: composed Unicode (macOS stores decomposed names), letters' case ignored."""
    return unicodedata.normalize("NFC", stem).casefold()


def is_good_name(folder: str) -> bool:
    """Whether a folder of this name holds photographs of good parts."""
    return folder.casefold().replace("-", "_").replace(" ", "_") in GOOD_NAMES


def is_noise(name: str) -> bool:
    """Hidden files, what file managers leave behind, and unfinished writes: never part of a data set."""
    return name.startswith(".") or name.casefold() in _NOISE or name.endswith((".partial", ".tmp", "~"))


def is_image_file(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def listing(folder: Path) -> tuple[list[Path], list[Path]]:
    """(sub-folders, files) of one folder in natural order, without noise and dead links; links are followed.

    What a generated folder sets aside is left out; a missing folder is empty. Raises FlawsmithError for one that may
    not be read.
    """
    folders: list[Path] = []
    files: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_noise(entry.name):
                    continue
                linked = entry.is_symlink()  # `entry` itself raises for a link to itself, os.path says no
                if os.path.isdir(entry.path) if linked else entry.is_dir():
                    folders.append(folder / entry.name)
                elif os.path.isfile(entry.path) if linked else entry.is_file():  # no dead links, sockets, pipes
                    files.append(folder / entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError as error:
        raise FlawsmithError(
            f"Folder {folder} cannot be read ({error.strerror or error}): change its permissions or remove it."
        ) from error
    if any(child.name in ASIDE for child in folders) and folder / MANIFEST in files:
        folders = [child for child in folders if child.name not in ASIDE]
    return sorted(folders, key=lambda p: natural(p.name)), sorted(files, key=lambda p: natural(p.name))


def images(folder: Path) -> list[Path]:
    """The images directly in a folder, in natural order."""
    return [path for path in listing(folder)[1] if is_image_file(path)]


def walk(folder: Path, on_loop: Callable[[Path], None] | None = None) -> Iterator[tuple[Path, list[Path]]]:
    """Yield (folder, files) for a folder and everything below, in natural order.

    Links to folders are followed unless they lead back to a folder that is being walked: those are skipped and
    told to `on_loop`.
    """
    yield from _walk(folder, frozenset(), on_loop)


def _walk(
    folder: Path, above: frozenset[str], on_loop: Callable[[Path], None] | None
) -> Iterator[tuple[Path, list[Path]]]:
    real = os.path.realpath(folder)
    if real in above:
        if on_loop:
            on_loop(folder)
        return
    folders, files = listing(folder)
    yield folder, files
    for child in folders:
        yield from _walk(child, above | {real}, on_loop)


def require_folder(root: Path) -> None:
    """Raise FlawsmithError, with a guess at what was meant, unless `root` is a folder with something in it."""
    if root.is_dir():
        if not any(listing(root)):
            raise FlawsmithError(f"Folder {root} is empty: copy the images into it or name another folder.")
        return
    if root.exists():
        raise FlawsmithError(f"{root} is a file, not a folder: name the folder that holds the images.")
    parent = root.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    names = [path.name for path in listing(parent)[0]]
    guess = get_close_matches(root.relative_to(parent).parts[0], names, n=1) if parent != root else []
    hint = f" Did you mean {str(parent / guess[0])!r}?" if guess else ""
    raise FlawsmithError(
        f"Folder {root} does not exist; {parent} holds: {', '.join(names[:12]) or 'no folders'}"
        f"{', ...' if len(names) > 12 else ''}.{hint}"
    )


def no_images(root: Path) -> FlawsmithError:
    if (root / MANIFEST).is_file():
        return none_kept(root)
    kinds = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
    return FlawsmithError(f"Folder {root} holds no image that can be read ({kinds}): name a folder with images.")


def none_kept(root: Path) -> FlawsmithError:
    """What is said of a generated folder whose images were all set aside."""
    return FlawsmithError(
        f"{root} holds no generated image: every one was refused or dropped. `flawsmith show {root}` says why."
    )


def categories(root: Path, is_category: Callable[[Path], bool]) -> dict[str, Path]:
    """Category name -> folder: `root` itself when it is a category, else its sub-folders that are."""
    if is_category(root):
        return {root.resolve().name: root}
    return {child.name: child for child in listing(root)[0] if is_category(child)}


def only(category: str | None, found: dict[str, Path], root: Path) -> dict[str, Path]:
    """The one category of `found` (name -> folder), or all for None. Raises FlawsmithError for an unknown one."""
    if category is None:
        return found
    choose_category(category, found, root, single=root in found.values())
    return {category: found[category]}


def choose_category(category: str, known: Iterable[str], root: Path, single: bool) -> None:
    """Raise FlawsmithError unless `category` is known; `single` when `root` is itself one category's folder."""
    names = list(known)
    if category in names:
        return
    error = unknown("Category", category, names, f"in {root}")
    raise FlawsmithError(f"{error} {root} is one category's folder: leave the category out.") if single else error


def mask_stem(stem: str) -> str:
    """A mask's stem without "_mask" and the like: the stem of its image."""
    lowered = stem.casefold()
    for suffix in MASK_SUFFIXES:
        if lowered.endswith(suffix) and len(stem) > len(suffix):
            return stem[: -len(suffix)]
    return stem


class Stems:
    """Files found again by stem: the exact name first, then ignoring case and Unicode form if only one fits."""

    def __init__(self, named: Iterable[tuple[str, Path]]) -> None:
        self._exact: dict[str, list[Path]] = {}
        self._loose: dict[str, dict[str, list[Path]]] = {}
        for stem, path in named:
            self._exact.setdefault(stem, []).append(path)
            self._loose.setdefault(stem_key(stem), {}).setdefault(stem, []).append(path)

    def get(self, stem: str) -> list[Path]:
        if stem in self._exact:
            return self._exact[stem]
        loose = self._loose.get(stem_key(stem), {})
        return next(iter(loose.values())) if len(loose) == 1 else []


def read_caption(path: Path) -> str:
    """The first line of a caption file; "" when it is missing or no UTF-8 text (`datasets.check` reports that)."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.readline().strip()
    except (OSError, UnicodeDecodeError):
        return ""


class Groups:
    """Which images show the same physical part, read from the `origin.csv` of one or several folders.

    `origin.csv` has a header line, a column `file` (path relative to its own folder) and the column asked for.
    """

    def __init__(self, folders: Sequence[Path], column: str = "group") -> None:
        self._of: dict[str, str] = {}
        self._rows: dict[str, dict[str, str]] = {}
        self.tables = found = [folder / ORIGIN for folder in dict.fromkeys(folders) if (folder / ORIGIN).is_file()]
        if not found and column != "group":
            raise FlawsmithError(
                f"Grouping by {column!r} needs the file {folders[0] / ORIGIN} with the columns 'file' and {column!r}: "
                "write it, or leave the grouping out."
            )
        for path in found:
            self._read(path, column)

    def _read(self, path: Path, column: str) -> None:
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                header = file.readline()
                file.seek(0)
                table = csv.DictReader(file, delimiter=";" if ";" in header and "," not in header else ",")
                names = list(table.fieldnames or ())
                if "file" not in names:
                    raise FlawsmithError(f"{path} has no column 'file'; its columns: {', '.join(names)}.")
                if column not in names and column != "group":
                    raise unknown("Column", column, names, f"in {path}")
                for row in table:
                    if row["file"]:
                        key = self._key(path.parent / row["file"].replace("\\", "/"))
                        self._rows[key] = row
                        if row.get(column):
                            self._of[key] = row[column]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise FlawsmithError(f"{path} cannot be read ({error}): save it as UTF-8 text with commas.") from error

    @staticmethod
    def _key(path: Path) -> str:
        return unicodedata.normalize("NFC", os.path.normpath(path))

    def absent(self) -> list[str]:
        """Files the tables name that do not exist."""
        return [path for path in self._of if not os.path.exists(path)]

    def mentions(self, image: Path) -> bool:
        return self._key(image) in self._of

    def get(self, image: Path, own: str) -> str:
        """The group of an image, or `own` (its own name) when the table does not mention it."""
        return self._of.get(self._key(image), own)

    def note(self, image: Path, column: str) -> str:
        """What another column (caption, category) says of an image; "" where nothing does."""
        return self._rows.get(self._key(image), {}).get(column) or ""
