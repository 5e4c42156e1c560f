"""What can be measured of a defect, said in one sentence: for images that nobody has described.

Size, shape, place, contrast and colour come from the image and its mask; what the defect is called comes from its type.
Nothing is guessed, so the sentence is true, if plain. `captions.parse` reads its words back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from flawsmith.captions import Attributes, article, parse, sentence, words
from flawsmith.records import GOOD, Sample

TINY, SMALL, LARGE = 0.03, 0.08, 0.22  # the side of a square of the defect's area, in parts of the image's
ROUND = 0.86  # of 4 pi area / perimeter squared: a disc has 1, a square 0.79
SPECK = 20  # pixels: fewer have no shape
SHOWN = 0.1  # of the largest part: smaller ones are not counted
FAINT, STRONG = 8.0, 30.0  # difference to the surroundings in CIELAB units, of which a just visible one is about 2
# From which chroma on a colour is one, and from which distance and angle it is another than that of the surroundings.
CHROMA, APART, TURN = 16.0, 10.0, 25.0
SHADE, BLACK = 3.0, 12.0  # of lightness 0 to 100
# Hue angles of CIELAB in degrees, in the order in which they end.
HUES = ((15, "red"), (40, "red"), (72, "orange"), (104, "yellow"), (195, "green"), (300, "blue"), (345, "purple"))
PLACES = (
    ("in the upper left", "at the top", "in the upper right"),
    ("on the left", "in the centre", "on the right"),
    ("in the lower left", "at the bottom", "in the lower right"),
)


@dataclass(frozen=True)
class Measured:
    """`attributes` without a kind; `count` separate parts; `place` of the largest in the image, as words."""

    attributes: Attributes
    count: int
    place: str


def measure(sample: Sample) -> Measured:
    """What its mask shows; the largest part speaks for several. The mask must hold a pixel."""
    count, parts, stats, centres = cv2.connectedComponentsWithStats(sample.mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    largest = 1 + int(np.argmax(areas))
    left, top, width, height = (int(value) for value in stats[largest, :4])
    part = parts[top : top + height, left : left + width] == largest
    size, shape = _size(part, sample.mask.shape)
    colour, severity = _colour(sample)
    number = int((areas >= SHOWN * areas.max()).sum()) if count > 2 else 1
    place = _place(centres[largest], (width, height), sample.mask.shape)
    return Measured(Attributes("", colour, size, shape, severity), number, place)


def size_word(area: float, image: tuple[int, ...]) -> str:
    """A key of captions.SIZES for a defect of `area` pixels in an image (H, W, ...), or "" for a middling one."""
    extent = np.sqrt(area) / np.sqrt(float(np.prod(image[:2])))
    return "tiny" if extent < TINY else "small" if extent < SMALL else "large" if extent > LARGE else ""


def _size(part: np.ndarray, image: tuple[int, ...]) -> tuple[str, str]:
    """(size, shape) of one part (h, w) bool in an image (H, W): keys of captions.SIZES and SHAPES, or ""."""
    area = float(part.sum())
    size = size_word(area, image)
    if area < SPECK:
        return size, ""
    outline, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    ring = max(outline, key=len)
    length, width = sorted((side + 1 for side in cv2.minAreaRect(ring)[1]), reverse=True)
    hull = cv2.convexHull(ring)
    around = cv2.arcLength(hull, True)  # through the middles of pixels: half a pixel is added on every side
    filled = area / (cv2.contourArea(hull) + around / 2 + 1)
    if length > 2.4 * width:
        return size, "thin" if area / length < length / 8 else "elongated"
    round_ = 4 * np.pi * area / (around + np.pi) ** 2
    return size, "round" if round_ > ROUND and length < 1.35 * width else "irregular" if filled < 0.75 else ""


def _colour(sample: Sample) -> tuple[str, str]:
    """(colour, severity) of the marked pixels against those around them, or "" for each."""
    rows, columns = np.flatnonzero(sample.mask.any(axis=1)), np.flatnonzero(sample.mask.any(axis=0))
    grow = max(4, round(0.3 * max(rows[-1] - rows[0], columns[-1] - columns[0])))
    place = slice(max(0, rows[0] - grow), rows[-1] + grow + 1), slice(max(0, columns[0] - grow), columns[-1] + grow + 1)
    lab = cv2.cvtColor(sample.image[place].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    mask = sample.mask[place]
    near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)  # edges are of both
    around = ~near if (~near).any() else ~mask
    if not around.any():
        return "", ""
    inside, outside = lab[mask].mean(axis=0), lab[around].mean(axis=0)
    away = np.linalg.norm(lab - outside, axis=2)
    # What is partly brighter and partly darker is as visible; in lively surroundings nobody can tell what is faint.
    apart, lively = max(float(np.linalg.norm(inside - outside)), float(away[mask].mean())), float(away[around].mean())
    severity = "faint" if apart < FAINT + lively and lively < FAINT else "strong" if apart > STRONG + lively else ""
    lightness, a, b = (float(value) for value in inside)
    shade = lightness - float(outside[0])
    hue, other = (np.degrees(np.arctan2(colour[2], colour[1])) % 360 for colour in (inside, outside))
    shade_of_it = np.hypot(*outside[1:]) > CHROMA and abs((hue - other + 180) % 360 - 180) < TURN
    if np.hypot(a, b) > CHROMA and np.linalg.norm((inside - outside)[1:]) > APART and not shade_of_it:
        name = next((name for end, name in HUES if hue < end), "red")
        return "brown" if lightness < 50 and 40 <= hue < 104 else name, severity
    if abs(shade) < SHADE:
        return "", severity
    if shade < 0:
        return "black" if lightness < 12 and shade < -BLACK else "dark", severity
    return "white" if lightness > 88 else "bright", severity


def _place(centre: np.ndarray, box: tuple[int, int], image: tuple[int, ...]) -> str:
    """Where a part lies in an image (H, W): its `centre` (x, y), unless its `box` (width, height) spans the image."""
    wide, high = box[0] > 0.75 * image[1], box[1] > 0.75 * image[0]
    if wide or high:
        return "all over the image" if wide and high else "across the image" if wide else "from top to bottom"
    column, row = (min(2, int(3 * at / side)) for at, side in zip(centre, (image[1], image[0]), strict=True))
    return PLACES[row][column]


def caption(sample: Sample) -> str:
    """A sentence about an image: "A photo of a tile with a defect: blowhole, a small round dark area at the top."

    What the type's own name says (the size, in "broken_large") is not said twice. Without a marked pixel, and of a
    good part, it is `captions.sentence`.
    """
    plain = sentence(sample.category, sample.defect_type)
    if sample.defect_type == GOOD or not sample.mask.any():
        return plain
    found = measure(sample)
    named = parse(words(sample.defect_type))
    said = replace(
        found.attributes,
        **{name: "" for name in ("colour", "size", "shape", "severity") if getattr(named, name)},
    )
    adjectives = " ".join(filter(None, (said.severity, said.size, said.shape, said.colour)))
    area = f"{adjectives} area".strip()
    if found.count == 1:
        return f"{plain[:-1]}, {article(area)} {found.place}."
    return f"{plain[:-1]}, {found.count} {area}s, the largest {found.place}."
