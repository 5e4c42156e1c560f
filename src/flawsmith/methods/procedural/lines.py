"""Scratch, crack and fibre: defects that are lines."""

from __future__ import annotations

import numpy as np

from flawsmith.methods.procedural import colours, strokes
from flawsmith.methods.procedural.scene import DefectParams, Scene, blur, clouds, edge, lit, mix, moved, smooth_step


def scratch(scene: Scene, params: DefectParams, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A groove with a bright and a dark side, of varying depth, with gaps and a burr thrown up beside it."""
    thin = params.shape == "thin"
    if not strokes.is_line(scene.mask, scene.radius):
        scene = scene.with_mask(strokes.scratches(scene.mask, rng, thin))
    cross, half = strokes.ridge(scene.inside, scene.radius)
    extent = max(16.0, float(scene.mask.sum()) / (2 * scene.radius))
    slow = clouds(scene.shape, max(10.0, extent / 5), rng, octaves=2)
    fast = clouds(scene.shape, 5.0, rng, octaves=2)
    depth = np.clip(0.78 + 0.28 * slow + 0.12 * fast, 0.12, 1.2)
    if rng.random() < 0.6:  # the tool lost contact here and there
        depth = depth * smooth_step((slow + 1.5 - 0.5 * (params.severity < 0.4)) / 0.5 + 0.15)
    width = half * np.clip((0.5 if thin else 0.68) + 0.16 * slow + 0.06 * fast, 0.3, 0.95)
    width = np.maximum(width, np.minimum(half, 0.8))
    core = np.clip((width - cross) / 0.9 + 0.5, 0, 1) * (scene.inside > 0) * depth
    # Fine parallel marks inside a wide scratch: ridges left by the grit, found by their distance from the middle.
    marks = 1 + 0.55 * np.sin(cross * (2.4 + 0.6 * rng.random()) + 2.0 * slow) * np.clip(half - 1.5, 0, 1)
    colour = colours.pigment(scene, params.colour, rng)
    cover = np.clip(core * marks, 0, 1) * (0.2 + 0.76 * params.severity)
    body = colours.opaque(scene, colour, 0.35 if params.colour in {"rusty", "brown"} else 0.5)
    image = mix(scene.photo, body, cover)
    burr = np.exp(-(((cross - width - 0.6) / 0.7) ** 2)) * (scene.inside > 0) * np.clip(fast, 0, 1.5) * 0.4
    height = (burr - core) * (0.2 + 1.1 * params.severity) * np.minimum(half, 3.0)
    gain = 0.75 if params.colour in {"", "bright", "dark"} else 0.5
    return lit(image, scene, height, gain, gloss=0.12 + 0.15 * (params.colour == "bright")), cover


def crack(scene: Scene, params: DefectParams, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A dark gap of varying width along the mask's middle line; one lip catches the light, the other lies in shade."""
    whole = scene
    if not strokes.is_line(scene.mask, scene.radius):
        scene = scene.with_mask(strokes.cracks(scene.mask, rng, params.shape == "thin"))
    cross, half = strokes.ridge(scene.inside, scene.radius)
    slow = clouds(scene.shape, max(8.0, 5 * scene.radius), rng, octaves=2)
    fast = clouds(scene.shape, 3.0, rng, octaves=2)
    opening = (0.34 if params.shape == "thin" else 0.5) + 0.25 * params.severity
    width = np.maximum(half * np.clip(opening + 0.16 * slow + 0.14 * fast, 0.15, 0.9), 0.55)
    gap = np.clip((width - cross) / 0.8 + 0.5, 0, 1) * (scene.inside > 0)
    gap = gap * np.clip(0.85 + 0.2 * slow, 0.35, 1.0)
    colour = colours.pigment(scene, params.colour, rng, 0.3 + 0.7 * params.severity)
    cover = gap * (0.75 + 0.22 * params.severity)
    # Along the gap the surface is strained and dusty: a soft shade wider than the gap, still inside the mask.
    strain = smooth_step(scene.inside / max(1.0, scene.radius)) * 0.12 * params.severity
    sign = np.sign(float(colours.luminance(colour) - colours.luminance(scene.level))) or -1.0
    image = scene.photo * (1 + sign * strain)[..., None]
    image = mix(image, colours.opaque(scene, colour, 0.15), cover)
    step = blur(gap.astype(np.float32), 0.8) * whole.mask
    height = -step * (0.6 + 0.9 * params.severity) * np.minimum(half, 2.5)
    shaded = lit(image, scene, height, 0.55, gloss=0.1)
    # The gap itself swallows light: shading acts on its lips only.
    return mix(shaded, image, gap * 0.7), cover


def fibre(scene: Scene, params: DefectParams, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A thread lying on the surface: round in its shading, with a soft shadow on the side away from the light."""
    if strokes.is_line(scene.mask, scene.radius):
        cross, half = strokes.ridge(scene.inside, scene.radius)
        wave = clouds(scene.shape, max(8.0, 4 * scene.radius), rng, octaves=2)
        width = np.maximum(half * np.clip(0.72 + 0.1 * wave, 0.5, 0.9), 0.6)
        thread = np.clip((width - cross) / 0.9 + 0.5, 0, 1) * (scene.inside > 0)
        thick = float(2 * width[scene.mask].mean())
    else:
        thread, thick = strokes.threads(scene.mask, rng)
        thread = thread * edge(scene.inside, 1.5, scene.radius)
        if thread.sum() < 4:
            thread = edge(scene.inside, 1.5, scene.radius)
    thread = thread.astype(np.float32)
    x, y, _ = scene.light
    shift = (-x * (0.7 + 0.5 * thick), -y * (0.7 + 0.5 * thick))
    shadow = blur(moved(thread, shift), 0.5 + 0.35 * thick) * (1 - thread)
    image = scene.photo * (1 - (0.25 + 0.3 * params.severity) * shadow * (scene.inside > 0))[..., None]
    colour = colours.pigment(scene, params.colour, rng, colours.strength(params.severity))
    body = np.broadcast_to(colour, image.shape)
    along = clouds(scene.shape, 6.0, rng, octaves=2)
    cover = thread * (0.85 + 0.13 * params.severity) * np.clip(0.95 + 0.08 * along, 0, 1)
    image = mix(image, body * (1 + 0.08 * along)[..., None], cover)
    round_height = blur(thread, max(0.6, 0.25 * thick)) * thick * 0.5
    return mix(image, lit(image, scene, round_height, 0.6, gloss=0.1), thread), cover
