"""Procedural: eleven kinds of defect painted from parameters, lit like the photograph, with captions that are true.

No reference: a parametric painter of our own. The shading is Lambert's on a height map per kind, colours are relative
to the surface, grain and sharpness are the photograph's (scene.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from flawsmith import captions, compose
from flawsmith.captions.measured import size_word
from flawsmith.errors import unknown
from flawsmith.masks import foreground
from flawsmith.methods import base
from flawsmith.methods.mask_choice import family_of
from flawsmith.methods.procedural import strokes
from flawsmith.methods.procedural.breaks import broken_off, opens
from flawsmith.methods.procedural.colours import CHROMATIC, draw_colour
from flawsmith.methods.procedural.painters import PAINTERS
from flawsmith.methods.procedural.scene import DefectParams, contour, mix, survey
from flawsmith.records import Request

SEVERITY_SPAN = {"faint": (0.08, 0.29), "strong": (0.71, 1.0), "": (0.1, 1.0)}
BREAKS = ("chip", "missing_part")  # on the object's outline they open to the background
_PITS = re.compile(r"\b(?:pit|pits|pitted|pitting|pore|pores|porosity|pinholes?|pin.holes?)\b")
MARGIN = 12  # pixels of surroundings that a painter sees: wider than every blur and warp below the mask's own size


class ProceduralOptions(base.Options):
    """Dials of `procedural`; what is None is taken from the caption's words, else drawn."""

    severity: float | None = Field(None, ge=0, le=1, description="0 = barely visible, 1 = strong; None = drawn")
    colour: (
        Literal[
            "black",
            "dark",
            "grey",
            "white",
            "bright",
            "brown",
            "rusty",
            "red",
            "orange",
            "yellow",
            "green",
            "blue",
            "purple",
        ]
        | None
    ) = Field(None, description="a colour word; None = from the caption, else drawn to show on the surface")
    light: float | None = Field(
        None,
        ge=-360,
        le=360,
        description="where the light comes from in degrees: 0 = right, 90 = above; None = estimated",
    )
    softness: float | None = Field(None, ge=0, le=1, description="0 = crisp edges, 1 = soft; None = drawn")
    grain: float = Field(1.0, ge=0, le=2, description="the photograph's grain on covered pixels: 0 = none, 1 = as is")


class Procedural(base.Synthesizer):
    """Paint scratches, cracks, dents, holes, chips, stains, spots, fibres, discolourations, losses and bends."""

    name = "procedural"
    Options: ClassVar[type[base.Options]] = ProceduralOptions

    def types(self, category: str, shown: Sequence[str] = ()) -> tuple[str, ...]:
        return tuple(PAINTERS)

    def default_mask(self, defect_type: str) -> str:
        return family_of(defect_type)  # one that says nothing is no mistake yet: the caption may still tell the kind

    def default_caption(self, category: str, defect_type: str) -> str:
        return ""

    @staticmethod
    def kind(defect_type: str, caption: str = "", category: str = "") -> str:
        """The painter for a defect name: its own name, else what the caption names, else a synonym.

        Raises FlawsmithError listing the kinds when neither says one.
        """
        name = "_".join(captions.words(defect_type.lower()).split())
        if name in PAINTERS:
            return name
        found = captions.parse(caption, category).kind or next(iter(captions.kinds_of(defect_type)), "")
        if not found:
            raise unknown("Defect", defect_type, PAINTERS, "to procedural (nor is a synonym in its name or caption)")
        return found

    def paint(
        self,
        normal: np.ndarray,
        mask: np.ndarray,
        request: Request,
        area: compose.Window,
        rng: np.random.Generator,
        options: Any,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        category = request.normal.category
        kind = self.kind(request.defect_type, request.caption, category)
        asked = captions.parse(f"{request.caption} {request.defect_type}", category)
        # Only the neighbourhood of the mask is painted; losses also look for patches farther away.
        box = compose.mask_box(mask)
        margin = max(MARGIN, 2 * max(box.shape)) if kind in BREAKS else MARGIN
        rows = slice(max(0, box.top - margin), box.bottom + margin)
        columns = slice(max(0, box.left - margin), box.right + margin)
        photo, inside = np.ascontiguousarray(normal[rows, columns]), np.ascontiguousarray(mask[rows, columns])
        scene = survey(photo, inside, rng, options.light, request.normal.image)
        severity = options.severity if request.severity is None else request.severity
        if severity is None:
            severity = float(rng.uniform(*SEVERITY_SPAN[asked.severity]))
        softness = float(rng.uniform(0.1, 0.9)) if options.softness is None else options.softness
        colour = options.colour or asked.colour
        background = None
        if kind in BREAKS:
            found = ~foreground(request.normal.image)[area.slices][rows, columns]
            background = found if found.any() and opens(scene, found) else None
        if not colour and background is None:
            pits = bool(_PITS.search(f"{request.defect_type} {request.caption}".lower()))
            colour = draw_colour(kind, scene, rng, pits)
            if severity < 0.4:  # a faint trace of black is merely dark: nobody would call it black
                colour = {"black": "dark", "white": "bright"}.get(colour, colour)
        params = DefectParams(kind, colour, severity, asked.shape, softness)
        if background is not None:
            image, cover = broken_off(scene, params, background, rng)
        else:
            image, cover = PAINTERS[kind](scene, params, rng)
        painted = scene.develop(image, cover, options.grain)
        painted = mix(scene.photo, painted, contour(inside, scene.radius))
        if scene.grey and colour not in CHROMATIC:
            painted = np.repeat(painted.mean(axis=2, keepdims=True), 3, axis=2)
        painted = _visible(photo, painted, inside, severity, options)
        whole = normal.copy()
        whole[rows, columns] = painted
        size, shape = measure(mask, request.mask.shape, kind)
        said = captions.Attributes(kind, colour, size, shape, captions.level(severity))
        caption = request.caption or captions.describe(said, category, rng)
        return whole, {
            "caption": caption,
            "kind": kind,
            "colour": colour,
            "size": size,
            "shape": shape,
            "severity": round(severity, 3),
        }


def _visible(
    photo: np.ndarray, painted: np.ndarray, mask: np.ndarray, severity: float, options: base.Options
) -> np.ndarray:
    """(h, w, 3) uint8: the painting, strengthened where it would be too faint to be seen or to be labelled.

    What counts is what `compose.finish` will measure: the largest channel difference where it exceeds the tolerance.
    """
    original = photo.astype(np.float32)
    change = (painted - original)[mask]
    limit = compose.change_tolerance(photo) if options.tolerance is None else options.tolerance
    wanted = max(1.35 * options.min_visibility, 9 + 14 * severity, 1.4 * limit)
    before = original[mask]
    gain = 1.0
    for _ in range(4):
        size = np.abs(np.clip(before + gain * change, 0, 255) - before).max(axis=1)
        seen = size > limit
        share = float(seen.mean())
        mean = float(size[seen].mean()) if seen.any() else float(size.max(initial=0.0))
        if mean >= wanted and share >= max(0.2, 1.5 * options.min_share):
            break
        gain *= float(np.clip(max(1.06 * wanted / max(mean, 0.5), 1.25), 1.05, 2.0))
    result = original.copy()
    result[mask] = before + gain * change
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def measure(mask: np.ndarray, image_shape: tuple[int, ...], kind: str) -> tuple[str, str]:
    """(size, shape) words for a mask in an image of this (height, width): keys of captions.SIZES and SHAPES, or ""."""
    side = float(min(image_shape[:2]))
    area = float(mask.sum())
    _, _, (length, width) = strokes.axes(mask)
    if kind in {"scratch", "crack", "fibre"}:
        size = "short" if length < 0.12 * side else "long" if length > 0.4 * side else ""
        mean_width = area / length
        shape = "thin" if mean_width < 0.06 * length else "wide" if mean_width > 0.2 * length else ""
        return size, shape
    size = size_word(area, image_shape)
    if kind == "spots" or area < 12:
        return size, ""
    if length > 2.4 * width:
        return size, "elongated"
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    around = sum(cv2.arcLength(contour, True) for contour in contours)
    roundness = 4 * np.pi * area / max(around, 1.0) ** 2
    shape = "round" if roundness > 0.72 and length < 1.35 * width else "irregular" if roundness < 0.4 else ""
    return size, shape
