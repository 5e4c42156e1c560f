"""What a colour word means on a given surface in a given light."""

from __future__ import annotations

import numpy as np

from flawsmith.methods.procedural.scene import Scene

# Typical reflectances, sRGB, of things that are called by these names.
PIGMENTS: dict[str, tuple[float, float, float]] = {
    "brown": (0.42, 0.27, 0.15),
    "rusty": (0.60, 0.29, 0.13),
    "red": (0.76, 0.13, 0.12),
    "orange": (0.92, 0.50, 0.12),
    "yellow": (0.97, 0.80, 0.18),
    "green": (0.20, 0.50, 0.22),
    "blue": (0.15, 0.30, 0.72),
    "purple": (0.45, 0.20, 0.58),
}
CHROMATIC = frozenset(PIGMENTS)


def luminance(colour: np.ndarray) -> np.ndarray:
    """Brightness of (..., 3) RGB, Rec. 601 weights."""
    return np.asarray(colour @ np.array([0.299, 0.587, 0.114], dtype=np.float32))


def strength(severity: float) -> float:
    """How far a cover's colour lies from the surface's: even a faint one is seen, only a strong one is full."""
    return 0.22 + 0.78 * severity


def pigment(scene: Scene, colour: str, rng: np.random.Generator, share: float = 1.0) -> np.ndarray:
    """The (3,) float32 RGB that a thing of this colour shows on this surface, in this photograph's light.

    Neutral words are relative to the surface: "dark" is a share of its brightness, "bright" a step towards white.
    "" stays at the surface's own colour. `share` is how far to go from the surface's colour to the named one.
    """
    level, white = scene.level.astype(np.float32), scene.white
    own = float(luminance(level))
    drift = rng.normal(0, 0.05, size=3).astype(np.float32) if not scene.grey else np.zeros(3, np.float32)
    shift = float(rng.uniform(-1, 1))
    if colour == "black":
        result = level * (0.14 + 0.08 * shift)
    elif colour == "dark":
        result = level * (0.42 + 0.12 * shift)
    elif colour == "bright":
        top = max(1.7 * own + 35, 0.8 * white)
        result = level + (top - level) * (0.7 + 0.15 * shift)
    elif colour == "white":
        top = max(0.95 * white, 1.6 * own + 30)
        result = np.full(3, top * (0.97 + 0.05 * shift), np.float32) * (1 + 0.3 * drift)
    elif colour == "grey":
        # Of the greys in this light, one that differs from the surface.
        dark, pale = 0.42 * white, 0.68 * white
        chosen = dark if abs(dark - own) > abs(pale - own) else pale
        result = np.full(3, chosen * (1 + 0.1 * shift), np.float32) * (1 + 0.2 * drift)
    elif colour in PIGMENTS:
        result = np.array(PIGMENTS[colour], np.float32) * (1 + drift) * (white * (0.92 + 0.12 * shift))
    else:
        result = level
    result = level + (result - level) * share
    return np.asarray(np.clip(result, 0, 255), np.float32)


def opaque(scene: Scene, colour: np.ndarray, texture: float = 0.0) -> np.ndarray:
    """A (h, w, 3) layer of one colour (3,) that keeps `texture` of the surface's own relative variation.

    With texture 1 the layer is the photograph multiplied by a constant: a glaze, not a cover.
    """
    if texture <= 0:
        return np.broadcast_to(colour, scene.photo.shape).astype(np.float32)
    relative = luminance(scene.photo + 6) / (luminance(scene.level) + 6)
    return colour * (1 + texture * (np.clip(relative, 0.25, 2.2) - 1))[..., None]


def absorbed(scene: Scene, colour: np.ndarray, density: np.ndarray) -> np.ndarray:
    """The photograph seen through a film of this colour; density (h, w), 1 = the full colour.

    Beer's law per channel where the film is darker than the surface; where it is brighter, pigment that scatters is
    laid over it and most of the texture still shows.
    """
    ratio = np.clip((colour + 4) / (scene.level + 4), 0.04, 6.0)
    through = scene.photo * np.power(np.minimum(ratio, 1.0), density[..., None])
    # A film on a dark surface glows less than a solid of its colour.
    room = np.clip((2.2 * luminance(scene.level) + 40) / (luminance(colour) + 1), 0.35, 1.0)
    scatter = np.maximum(colour * room - scene.level, 0) * np.clip(density, 0, 1.2)[..., None]
    return (
        through
        + scatter * (0.65 + 0.35 * np.clip(luminance(scene.photo) / (luminance(scene.level) + 4), 0.3, 1.7))[..., None]
    )


def draw_colour(kind: str, scene: Scene, rng: np.random.Generator, pits: bool = False) -> str:
    """A colour word for a kind nobody named one for; only words that show on this surface.

    `pits`: the name tells of pits or pores, which are dark whatever the material.
    """
    own = float(luminance(scene.level))
    room = scene.white / max(own, 1.0)
    table = DRAWN[kind]
    names, weights = [], []
    for name, weight in table.items():
        if (scene.grey and name in CHROMATIC) or (pits and name not in {"black", "dark", "brown"}):
            continue
        if name in {"black", "dark"} and own < 45:
            continue  # dark on dark says nothing
        if name in {"white", "bright"} and (own > 200 or room < 1.15):
            continue
        names.append(name)
        weights.append(weight)
    if not names:
        return "dark" if own > 45 or pits else "bright"
    share = np.array(weights) / sum(weights)
    return names[int(rng.choice(len(names), p=share))]


DRAWN: dict[str, dict[str, float]] = {
    "scratch": {"bright": 4, "white": 2, "dark": 3, "black": 1, "rusty": 1, "grey": 1, "brown": 0.5},
    "crack": {"black": 4, "dark": 4, "brown": 0.15, "bright": 0.6},
    "dent": {"": 1},
    "hole": {"black": 5, "dark": 4, "": 0.7},
    "chip": {"": 4, "bright": 1.5, "dark": 2, "white": 0.4, "grey": 1, "black": 0.5},
    "stain": {
        "dark": 3,
        "brown": 2,
        "black": 1,
        "white": 1.5,
        "rusty": 1.5,
        "yellow": 1,
        "red": 0.6,
        "blue": 0.5,
        "green": 0.6,
        "orange": 0.4,
        "purple": 0.3,
        "grey": 0.8,
        "bright": 0.8,
    },
    "spots": {
        "black": 2.5,
        "dark": 3,
        "white": 1.5,
        "brown": 1.2,
        "rusty": 1.2,
        "red": 0.5,
        "bright": 0.8,
        "grey": 0.5,
        "green": 0.3,
        "blue": 0.3,
        "yellow": 0.4,
    },
    "fibre": {
        "white": 2,
        "black": 1.5,
        "dark": 1.5,
        "blue": 1,
        "red": 1,
        "grey": 1,
        "brown": 0.8,
        "yellow": 0.5,
        "green": 0.6,
        "bright": 0.5,
        "orange": 0.3,
        "purple": 0.3,
    },
    "discolouration": {
        "dark": 3,
        "bright": 2,
        "brown": 1.5,
        "yellow": 1.2,
        "blue": 0.5,
        "purple": 0.4,
        "rusty": 0.7,
        "grey": 0.7,
        "orange": 0.3,
        "green": 0.25,
        "red": 0.25,
    },
    "missing_part": {"": 1},
    "bend": {"": 1},
}
