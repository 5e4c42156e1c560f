"""Reading, writing and showing images. Inside flawsmith an image is (H, W, 3) uint8 RGB, a mask (H, W) bool."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFile, ImageFont, ImageOps, UnidentifiedImageError

from flawsmith.errors import FlawsmithError

HEIC = frozenset({".heic", ".heif"})  # what phones write; read by the extra heic
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}) | HEIC
MAX_PIXELS = 250_000_000  # a decoded RGB array of 0.75 GB; larger files are mosaics, to be cut first
PARTIAL = re.compile(r"\..+\.\d+\.tmp")  # a file that `write_bytes` has not finished


def open_file(path: str | Path) -> ImageFile.ImageFile:
    """Pillow's `open`, of files only: a pipe would be waited for, and a folder has no pixels.

    Raises FlawsmithError for a HEIC file where nothing is installed that reads it.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError("it is a folder or a device, not a file")
    if path.suffix.lower() in HEIC:
        try:
            import pillow_heif
        except ImportError:
            raise FlawsmithError(
                f"Image {path} is HEIC, which needs pillow-heif: pip install 'flawsmith[heic]', or export it as JPEG."
            ) from None
        pillow_heif.register_heif_opener()
    return Image.open(path)


def _decode(path: Path) -> np.ndarray:
    """Decode a file to whatever it holds: (H, W) or (H, W, C), uint8, uint16, int32 or float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the size has its own limit below; a damaged tag is no news for a user
        with open_file(path) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise FlawsmithError(
                    f"{path} has {opened.width} x {opened.height} pixels, more than {MAX_PIXELS:,} allowed: "
                    "cut it into tiles first."
                )
            if opened.tile and ";16" in str(opened.tile[0][3]) and opened.mode in ("RGB", "RGBA"):
                raise OSError("16-bit colour, which Pillow cuts to 8 bits")  # OpenCV keeps the 16 bits
            asked = "exif" in opened.info or opened.format != "PNG"
            turned = asked and opened.getexif().get(0x0112, 1) != 1
            image = ImageOps.exif_transpose(opened) if turned else opened  # it copies even when there is nothing to do
            if image.mode in ("I", "F", "I;16", "I;16B", "I;16L", "I;16N"):
                return np.asarray(image)
            return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))


def read_image(path: str | Path) -> np.ndarray:
    """Read png, jpg, bmp, tif, webp or heic as (H, W, 3) uint8 RGB.

    EXIF orientation is applied, alpha dropped, grey repeated to three channels. 16-bit values are divided by 256,
    or by 16 when none exceeds 4095 (a 12-bit camera). Raises FlawsmithError naming a damaged or oversized file.
    """
    path = Path(path)
    try:
        array = _decode(path)
    except FlawsmithError:
        raise
    except FileNotFoundError:
        raise FlawsmithError(f"Image {path} does not exist.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # 16-bit colour, which Pillow does not decode; damaged files would only make OpenCV print to stderr.
        deep = isinstance(error, UnidentifiedImageError) or "16-bit" in str(error)
        deep = deep and path.suffix.lower() in (".png", ".tif", ".tiff")
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if deep else None
        if found is None or found.dtype == np.uint8:
            empty = path.is_file() and path.stat().st_size == 0
            reason = "the file is empty (0 bytes)" if empty else str(error)
            raise FlawsmithError(
                f"Image {path} cannot be read: {reason}. Export it again, or remove it from the data set."
            ) from error
        array = found[..., 2::-1] if found.ndim == 3 else found
    if array.dtype != np.uint8:
        array = _to_uint8(array)
    if array.ndim == 2:
        array = cv2.cvtColor(np.ascontiguousarray(array), cv2.COLOR_GRAY2RGB)
    return np.ascontiguousarray(array[..., :3])


def _to_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f" and array.size and float(np.nanmax(array)) <= 1.0:
        return np.clip(np.nan_to_num(array) * 255 + 0.5, 0, 255).astype(np.uint8)
    array = np.clip(np.nan_to_num(array) if array.dtype.kind == "f" else array, 0, 65535).astype(np.uint16)
    top = int(array.max(initial=0))
    shift = 8 if top > 4095 else 4 if top > 255 else 0
    return (array >> shift).astype(np.uint8)


def read_mask(path: str | Path, any_level: bool = False) -> np.ndarray:
    """Read a mask as (H, W) bool: any value above zero is defect, in any channel but alpha.

    Masks exported with smooth edges hold grey levels: `datasets.check` reports them; here every non-zero level counts
    unless the file's values span the full range, where half (128) is the limit, since such edges are antialiased.
    `any_level`: every non-zero level counts there too (data sets whose levels name kinds of defects).
    """
    image = read_image(path)
    grey = brightest(image)
    return grey >= (128 if grey.max(initial=0) == 255 and not any_level else 1)


def brightest(image: np.ndarray) -> np.ndarray:
    """The largest channel of (H, W, 3), (H, W); many times faster than `image.max(axis=2)`."""
    highest = np.maximum(image[..., 0], image[..., 1])
    return np.maximum(highest, image[..., 2], out=highest)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) after EXIF orientation, reading only the header. Raises FlawsmithError as `read_image`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with open_file(path) as opened:
                width, height = opened.size
                # Asking a PNG without EXIF for it would decode the whole image.
                asked = "exif" in opened.info or opened.format != "PNG"
                turned = asked and opened.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        height, width = read_image(path).shape[:2]
        turned = False
    return (width, height) if turned else (height, width)


def verify(path: str | Path) -> None:
    """Refuse a damaged file quickly: PNG by its checksums, JPEG decoded at an eighth, others whole.

    Raises FlawsmithError as `read_image`.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_file(path) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ValueError("too large")
                if opened.format == "PNG":
                    opened.verify()
                else:
                    opened.draft(None, (opened.width // 8, opened.height // 8))
                    opened.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        read_image(path)  # it knows more kinds of file, and says what is wrong


def encode_png(array: np.ndarray) -> bytes:
    """PNG bytes of an (H, W, 3) uint8 RGB image or an (H, W) bool mask (stored as 0 and 255)."""
    pixels = array.astype(np.uint8) * 255 if array.dtype == bool else array
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, buffer = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise FlawsmithError(f"An image of shape {array.shape} cannot be encoded as PNG.")
    del pixels  # a large photograph's copy is as large as itself
    return buffer.tobytes()


def encode_jpeg(image: np.ndarray) -> bytes:
    """JPEG bytes of an (H, W, 3) uint8 RGB image that is only looked at, in a tenth of a PNG's time."""
    done, buffer = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not done:
        raise FlawsmithError(f"An image of shape {image.shape} cannot be encoded as JPEG.")
    return buffer.tobytes()


def write_bytes(path: str | Path, content: bytes, partial: Path | None = None, durable: bool = True) -> None:
    """Write a file whole or not at all: to a temporary file (in `partial` or beside it), then one rename.

    `durable=False` skips the flush to the disk, for files that a resumed run verifies and redoes anyway. Raises
    FlawsmithError naming the file when the folder is read-only or the disk is full; nothing is left behind.
    """
    path = Path(path)
    temporary = (partial or path.parent) / f".{path.name}.{os.getpid()}.tmp"
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def append_bytes(path: str | Path, content: bytes) -> None:
    """Append to a file of lines, whose reader cuts off a last line that is not whole. Raises as `write_bytes`."""
    try:
        with open(path, "ab") as file:
            file.write(content)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: str | Path, error: OSError) -> FlawsmithError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = (
        "free some space and run the same command again; it resumes"
        if full
        else "choose another folder or change its permissions"
    )
    return FlawsmithError(f"{path} cannot be written ({error.strerror or error}): {remedy}.")


def clear_partial(folder: Path) -> None:
    """Remove what processes that were killed inside `write_bytes` left in a folder and below."""
    for path in folder.rglob(".*.tmp"):
        if PARTIAL.fullmatch(path.name):
            path.unlink(missing_ok=True)


def write_image(path: str | Path, array: np.ndarray) -> None:
    """Write an image or mask as PNG, atomically."""
    write_bytes(path, encode_png(array))


def file_sha(path: str | Path) -> str:
    """First 16 hex digits of a file's SHA-256, streamed."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:16]


def bytes_sha(content: bytes) -> str:
    """First 16 hex digits of the SHA-256 of what a file will hold."""
    return hashlib.sha256(content).hexdigest()[:16]


def array_sha(array: np.ndarray) -> str:
    """First 16 hex digits of the SHA-256 of an array's shape, type and bytes."""
    digest = hashlib.sha256(f"{array.shape}{array.dtype}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def is_artwork(image: np.ndarray) -> bool:
    """Whether an image (h, w, 3) is black and white, as binarised board images are: it knows no third level."""
    return float(((image < 6) | (image > 249)).mean()) > 0.9


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (H, W, 3) or (H, W) uint8 or float: area averaging to shrink, cubic to enlarge."""
    smaller = height * width < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def reduced(image: np.ndarray, longest: int) -> tuple[np.ndarray, float]:
    """A copy of (H, W, 3) uint8 whose longest side is at most `longest`, and by what its sides were divided, 1 or more.

    An image that is small enough is returned itself.
    """
    height, width = image.shape[:2]
    step = max(1.0, max(height, width) / longest)
    return (image if step == 1 else resize(image, max(1, round(height / step)), max(1, round(width / step)))), step


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (H, W) bool by nearest neighbour."""
    return cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)


def fit(image: np.ndarray, size: int, background: int = 255) -> np.ndarray:
    """Scale an image into a (size, size, 3) square without distorting it."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    small = resize(image, max(1, round(height * scale)), max(1, round(width * scale)))
    square = np.full((size, size, 3), background, dtype=np.uint8)
    top, left = (size - small.shape[0]) // 2, (size - small.shape[1]) // 2
    square[top : top + small.shape[0], left : left + small.shape[1]] = small
    return square


def overlay(image: np.ndarray, mask: np.ndarray, colour: Sequence[int] = (255, 40, 40)) -> np.ndarray:
    """The image with the mask's outline drawn in `colour`; (H, W, 3) uint8."""
    thickness = max(1, max(image.shape[:2]) // 256)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(image.copy(), contours, -1, tuple(colour), thickness))


def mask_image(mask: np.ndarray) -> np.ndarray:
    """A mask as an (H, W, 3) uint8 image in black and white."""
    return cv2.cvtColor(mask.astype(np.uint8) * 255, cv2.COLOR_GRAY2RGB)


def contact_sheet(
    rows: Iterable[Sequence[np.ndarray]],
    titles: Sequence[str] = (),
    captions: Sequence[str] = (),
    cell: int = 192,
) -> np.ndarray:
    """Lay images out in a grid: `titles` head the columns, `captions` stand under the rows.

    Returns (H, W, 3) uint8. Raises FlawsmithError when there is no row.
    """
    listed = [list(row) for row in rows]
    if not listed:
        raise FlawsmithError("A contact sheet needs at least one image.")
    font = ImageFont.load_default(size=13)
    columns, gap, head, foot = max(map(len, listed)), 6, 22 if titles else 0, 20 if captions else 0
    width, line = columns * (cell + gap) + gap, cell + gap + foot
    page = Image.new("RGB", (width, head + len(listed) * line + gap), "white")
    draw = ImageDraw.Draw(page)
    for column, title in enumerate(titles):
        draw.text((gap + column * (cell + gap), 4), title, fill="black", font=font)
    for index, row in enumerate(listed):
        top = head + gap + index * line
        for column, image in enumerate(row):
            page.paste(Image.fromarray(fit(image, cell)), (gap + column * (cell + gap), top))
        if index < len(captions):
            text = captions[index]
            while text and draw.textlength(text, font=font) > width - 2 * gap:
                text = text[:-2]
            draw.text((gap, top + cell + 2), text, fill=(60, 60, 60), font=font)
    return np.asarray(page)
