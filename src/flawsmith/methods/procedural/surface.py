"""Stain, spots and discolouration: defects of colour on an intact surface."""

from __future__ import annotations

import cv2
import numpy as np

from flawsmith.methods.procedural import colours, strokes
from flawsmith.methods.procedural.scene import (
    DefectParams,
    Scene,
    blur,
    clouds,
    edge,
    elsewhere,
    lit,
    mix,
    rough_inside,
    smooth_step,
)

# Temper colours of steel from the cool edge to the hot middle: straw, brown, purple, blue (relative RGB).
HEAT = np.array(
    [[1.0, 1.0, 1.0], [1.02, 0.93, 0.68], [0.86, 0.68, 0.42], [0.66, 0.46, 0.60], [0.45, 0.55, 0.86]], np.float32
)


def stain(scene: Scene, params: DefectParams, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A dried liquid: uneven film through which the texture shows, densest in a ring at its edge."""
    radius = scene.radius
    inside = rough_inside(scene, rng, 0.28)
    soft = 1.2 + 2.5 * params.softness
    body = edge(inside, soft, radius)
    pools = clouds(scene.shape, max(6.0, 1.3 * radius), rng, octaves=4, rough=0.55)
    density = np.clip(0.72 + 0.26 * pools, 0.15, 1.4)
    if radius > 3:
        # Evaporation carries the pigment outwards (the coffee ring): a line near the edge, broken in places.
        line = float(np.clip(0.07 * radius, 1.0, 3.5))
        where = inside - line * 1.2
        ring = np.exp(-((where / line) ** 2)) * (0.7 + 0.5 * np.clip(clouds(scene.shape, 2 * radius, rng, 2), -1, 1))
        density = density * 0.8 + float(rng.uniform(0.15, 0.65)) * ring
    density = density * body * (0.2 + 0.9 * params.severity)
    image = colours.absorbed(scene, colours.pigment(scene, params.colour, rng), density)
    return image, np.zeros(scene.shape, np.float32)


def spots(scene: Scene, params: DefectParams, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Many small spots of varied tone; dark ones are shallow pits with a lit edge."""
    count, parts = cv2.connectedComponents(scene.mask.astype(np.uint8), connectivity=8)
    if count <= 3 and scene.radius > 4:
        scene = scene.with_mask(strokes.scattered(scene.mask, rng))
        count, parts = cv2.connectedComponents(scene.mask.astype(np.uint8), connectivity=8)
    inside = scene.inside
    if scene.radius > 1.5:
        ragged = 0.25 * np.clip(1 + clouds(scene.shape, max(3.0, scene.radius), rng, 3, 0.7), 0, 2)
        inside = np.maximum(inside - ragged * min(1.0, scene.radius / 4), 0) * scene.mask
    body = edge(inside, 1.1 + 1.2 * params.softness, scene.radius)
    tones = rng.uniform(0.65, 1.0, size=count).astype(np.float32)[parts]
    colour = colours.pigment(scene, params.colour, rng, colours.strength(params.severity))
    # Where spots run together they still differ: the tone also drifts from place to place.
    drift = clouds(scene.shape, max(4.0, 1.5 * scene.radius), rng, 3)
    cover = body * np.clip(tones * (0.97 + 0.1 * drift), 0, 1)
    mottle = elsewhere(scene) * (1 + 0.12 * drift)
    image = mix(scene.photo, colours.opaque(scene, colour, 0.3) * mottle[..., None], cover)
    pitted = params.colour in {"black", "dark", ""} or rng.random() < 0.3
    depth = (-1.0 if pitted else 0.6) * (0.2 + 1.0 * params.severity)
    reach = max(1.5, min(3.0, 0.6 * scene.radius))
    height = blur(np.clip(inside / reach, 0, 1).astype(np.float32), 0.7) * depth * tones
    height = height + (0.25 * min(1.0, scene.radius / 4) * (drift * body) if pitted else 0.0)
    return lit(image, scene, height.astype(np.float32), 0.6 if pitted else 0.25, gloss=0.1), cover


def discolouration(scene: Scene, params: DefectParams, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A smooth change of tint or brightness without any edge; on metal sometimes the colours of heat."""
    radius = scene.radius
    depth = smooth_step(scene.inside / max(1.0, 0.55 * radius))
    depth = blur(depth.astype(np.float32), max(0.5, 0.12 * radius)) * edge(scene.inside, 4.0, radius)
    slow = clouds(scene.shape, max(6.0, 1.8 * radius), rng, octaves=2, rough=0.4)
    amount = np.clip(depth * (0.9 + 0.2 * slow), 0, 1.1) * (0.18 + 0.75 * params.severity)
    if params.colour in colours.CHROMATIC:
        amount = 0.8 * amount  # a tint, not a paint
    heat = not scene.grey and params.colour in {"blue", "purple", "brown"} and rng.random() < 0.5
    image = colours.absorbed(scene, colours.pigment(scene, params.colour, rng), amount)
    if heat:
        centre = {"brown": 2.0, "purple": 3.0, "blue": 4.0}[params.colour]
        position = np.clip(depth + 0.1 * slow, 0, 1) * centre
        index = np.minimum(position.astype(np.int64), 3)
        share = (position - index)[..., None]
        tint = HEAT[index] * (1 - share) + HEAT[index + 1] * share
        image = 0.45 * image + 0.55 * (scene.photo * (1 + (tint - 1) * (0.4 + 0.6 * params.severity)))
    return image, np.zeros(scene.shape, np.float32)
