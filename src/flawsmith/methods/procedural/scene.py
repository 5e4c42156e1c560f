"""Scene: what a painter knows about the photograph under the mask, and the tools all painters share.

A painter turns a Scene into `(image, cover)`: the image without the grain it hid, and how much of the photograph's
own texture it covered (0..1). `Scene.develop` then puts the photograph's grain back and the lens blur on top, so that
painted pixels carry the same noise and sharpness as their neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith import compose


@dataclass(frozen=True)
class DefectParams:
    """The drawn parameters of one defect: `colour` a key of captions.COLOURS or "", severity and softness 0..1."""

    kind: str
    colour: str
    severity: float
    shape: str = ""
    softness: float = 0.5


@dataclass(frozen=True)
class Scene:
    """A window of the photograph as float32, with what was measured in it. All arrays are (h, w) or (h, w, 3)."""

    photo: np.ndarray  # (h, w, 3) float32, 0..255
    mask: np.ndarray  # (h, w) bool
    inside: np.ndarray  # (h, w) float32, pixels from the mask's edge, 0.5 in the outermost pixel, 0 outside
    radius: float  # the largest `inside`
    base: np.ndarray  # (h, w, 3) float32, the surface without its fine texture
    level: np.ndarray  # (3,) float32, the surface's mean colour under and around the mask
    white: float  # what a white thing would measure in this light
    light: tuple[float, float, float]  # unit vector to the light: x right, y down, z to the camera
    noise: float  # grain, standard deviation in grey levels
    lens: float  # sigma of the lens blur in pixels
    grey: bool  # three equal channels

    @property
    def shape(self) -> tuple[int, int]:
        return self.photo.shape[0], self.photo.shape[1]

    def with_mask(self, mask: np.ndarray) -> Scene:
        """The same scene with another mask, (h, w) bool."""
        inside = distance_inside(mask)
        return Scene(
            self.photo,
            mask,
            inside,
            float(inside.max(initial=0.5)),
            self.base,
            self.level,
            self.white,
            self.light,
            self.noise,
            self.lens,
            self.grey,
        )

    def develop(self, image: np.ndarray, cover: np.ndarray | None, grain: float = 1.0) -> np.ndarray:
        """Lens blur and grain: (h, w, 3) float32 from a painter's image and its cover (h, w).

        What the blur removes from the photograph is its grain and finest texture. It comes back in full where the
        surface still shows; where it is covered, grain from another place of the window does, without its outliers
        (the edges of the hidden surface must not shine through). Cover None: the image has its grain already.
        """
        if cover is None:
            return image
        fine = self.photo - blur(self.photo, self.lens)
        weight = cover[..., None]
        kept = fine * (1 - weight) + compose.borrowed_grain(fine, self.noise) * weight * grain
        return np.asarray(blur(image, self.lens) + kept)


def survey(
    photo: np.ndarray,
    mask: np.ndarray,
    rng: np.random.Generator,
    light: float | None = None,
    whole: np.ndarray | None = None,
) -> Scene:
    """Measure a window (h, w, 3) uint8 under its mask (h, w) bool.

    `light` is where the light comes from in degrees, 0 = from the right, 90 = from above; None estimates it from
    the photograph (`whole`, or the window itself).
    """
    pixels = photo.astype(np.float32)
    inside = distance_inside(mask)
    radius = float(inside.max(initial=0.5))
    base = blur(pixels, float(np.clip(0.12 * min(photo.shape[:2]) / 4, 1.0, 4.0)))
    grey = bool((photo[..., 0] == photo[..., 1]).all() and (photo[..., 1] == photo[..., 2]).all())
    level = pixels[mask].mean(axis=0)
    wide = photo if whole is None else whole
    bright = wide[:: max(1, wide.shape[0] // 96), :: max(1, wide.shape[1] // 96)]
    white = float(np.clip(max(np.percentile(bright, 98), 1.25 * level.max()), 70, 250))
    azimuth = light_direction(bright, rng) if light is None else np.deg2rad(light)
    height = np.deg2rad(40.0)
    vector = (
        float(np.cos(azimuth) * np.cos(height)),
        float(-np.sin(azimuth) * np.cos(height)),
        float(np.sin(height)),
    )
    return Scene(
        pixels,
        mask,
        inside,
        radius,
        base,
        level,
        white,
        vector,
        compose.noise_level(photo),
        lens_blur(photo),
        grey,
    )


# -- measuring -----------------------------------------------------------------------------------------------------


def distance_inside(mask: np.ndarray) -> np.ndarray:
    """(h, w) float32: how deep a pixel lies inside the mask; the window's border is no edge unless it is all mask.

    Lightly blurred, so that its contours run smoothly between the stairs of the mask's pixels.
    """
    full = float(mask.mean()) > 0.97
    padded = np.pad(mask.astype(np.uint8), 1, constant_values=0 if full else 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    depth = np.maximum(depth - 0.5, 0).astype(np.float32)
    radius = float(depth.max(initial=0.0))
    return blur(depth, min(0.9, 0.3 * radius)) * mask if radius > 1 else depth


def contour(mask: np.ndarray, radius: float) -> np.ndarray:
    """Weight (h, w) in 0..1 that is 0 outside the mask, near 1 inside, and takes the corners off its stairs."""
    if radius < 1.2:
        return mask.astype(np.float32)
    level = blur(np.pad(mask, 4, mode="edge").astype(np.float32), min(1.0, 0.45 * radius))[4:-4, 4:-4]
    return np.clip((level - 0.3) / 0.45, 0, 1) * mask


def light_direction(image: np.ndarray, rng: np.random.Generator) -> float:
    """The side the light comes from, in radians (0 = right, pi/2 = above), for a small (h, w, 3) uint8 image.

    The brighter side is taken for the lit one: the plane fitted to the brightness points there. Where the plane says
    little, most inspection photographs are lit from above, so a direction near that is drawn.
    """
    grey = image.astype(np.float32).mean(axis=2)
    rows = np.linspace(-1, 1, grey.shape[0], dtype=np.float32)
    columns = np.linspace(-1, 1, grey.shape[1], dtype=np.float32)
    across = float((grey * columns).mean())
    down = float((grey * rows[:, None]).mean())
    drawn = np.deg2rad(rng.normal(110, 45))
    if np.hypot(across, down) < 0.02 * max(1.0, float(grey.mean())):
        return float(drawn)
    return float(np.arctan2(-down, across))


def lens_blur(photo: np.ndarray) -> float:
    """Sigma in pixels of the photograph's own sharpness, 0.45 (crisp) to 1.3 (soft), from its steepest edges.

    Over a step edge blurred by sigma, the ratio of one-pixel to four-pixel differences falls with sigma: 0.68 at 0.5,
    0.40 at 1.0, 0.29 at 2.0.
    """
    if min(photo.shape[:2]) < 12:
        return 0.6
    grey = photo[..., 1].astype(np.float32)
    near = np.partition(np.abs(np.diff(grey, axis=1)).ravel(), -32)[-32:].mean()
    far = np.partition(np.abs(grey[:, 4:] - grey[:, :-4]).ravel(), -32)[-32:].mean()
    return float(np.clip(0.45 * far / max(near, 1e-3), 0.45, 1.3))


# -- painting ------------------------------------------------------------------------------------------------------


def blur(array: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of (h, w) or (h, w, C) float32 with mirrored borders."""
    size = 2 * max(1, int(np.ceil(2.5 * sigma))) + 1
    return np.asarray(cv2.GaussianBlur(array, (size, size), sigma, borderType=cv2.BORDER_REFLECT))


def smooth_step(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0, 1)
    return np.asarray(x * x * (3 - 2 * x))


def clouds(
    shape: tuple[int, int], feature: float, rng: np.random.Generator, octaves: int = 3, rough: float = 0.5
) -> np.ndarray:
    """Smooth noise (h, w) float32 with mean near 0 and standard deviation 1; `feature` is its largest grain in pixels.

    Value noise: random grids enlarged by cubic interpolation, each octave half as large and `rough` times as strong.
    """
    total = np.zeros(shape, dtype=np.float32)
    weight = 1.0
    for _ in range(octaves):
        rows, columns = (int(np.clip(np.ceil(side / max(feature, 1.0)) + 3, 4, side + 3)) for side in shape)
        grid = rng.standard_normal((rows, columns), dtype=np.float32)
        # One cell more than needed on each side, so that the noise does not start at a grid point.
        big = cv2.resize(grid, (round(columns * feature) + 1, round(rows * feature) + 1), interpolation=cv2.INTER_CUBIC)
        if big.shape[0] < shape[0] or big.shape[1] < shape[1]:
            big = cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
        top, left = (big.shape[0] - shape[0]) // 2, (big.shape[1] - shape[1]) // 2
        total += weight * big[top : top + shape[0], left : left + shape[1]]
        feature, weight = feature / 2, weight * rough
        if feature < 1:
            break
    deviation = float(total.std())
    return total / deviation if deviation > 1e-6 else total


def rough_inside(
    scene: Scene, rng: np.random.Generator, amount: float = 0.2, feature: float | None = None
) -> np.ndarray:
    """`inside` with an edge finer than the mask's: noise takes up to `amount` of the radius off, never adds any."""
    if scene.radius < 2:
        return scene.inside
    reach = min(amount * scene.radius, 8.0)
    noise = clouds(scene.shape, feature or max(4.0, 0.7 * scene.radius), rng, octaves=4, rough=0.6)
    return np.maximum(scene.inside - reach * np.clip(0.5 + 0.5 * noise, 0, 1.6), 0) * scene.mask


def edge(inside: np.ndarray, soft: float, radius: float) -> np.ndarray:
    """Coverage 0..1 from a distance map: rises over `soft` pixels, and reaches 1 even in a one-pixel mask."""
    # In a mask with room, the outermost pixels stay nearly free: there the stairs of the mask would show.
    start = 0.35 if radius > 2.5 else 0.0
    return smooth_step((inside - start) / max(0.5, min(soft, 0.9 * radius + 0.1)))


def relight(height: np.ndarray, light: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Shading and highlight of a height map (h, w) in pixels.

    Returns the Lambertian factor, 1 on the flat surface, within 0.15..1.85, and a highlight 0..1 (Blinn, 1977)
    that is 0 on the flat surface.
    """
    down = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=0.125, borderType=cv2.BORDER_REPLICATE)
    across = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=0.125, borderType=cv2.BORDER_REPLICATE)
    length = np.sqrt(1 + across * across + down * down)
    x, y, z = light
    shade = (z - x * across - y * down) / (length * z)
    half = np.array([x, y, z + 1], dtype=np.float32)
    half /= np.linalg.norm(half)
    towards = np.clip((half[2] - half[0] * across - half[1] * down) / length, 0, 1)
    flat = float(half[2]) ** 24
    glint = np.clip((towards**24 - flat) / (1 - flat), 0, 1)
    return np.clip(shade, 0.15, 1.85), glint


def lit(image: np.ndarray, scene: Scene, height: np.ndarray, gain: float = 1.0, gloss: float = 0.15) -> np.ndarray:
    """The image (h, w, 3) relit over a height map: multiplied by its shading, with a highlight added.

    `gloss` is the highlight's strength as a share of white: it lets a dark surface show a bright rim.
    """
    shade, glint = relight(height, scene.light)
    factor = (1 + gain * (shade - 1))[..., None]
    return image * np.clip(factor, 0.1, 2.2) + (gloss * scene.white * gain * glint)[..., None]


def moved(array: np.ndarray, shift: tuple[float, float], outside: float = 0.0) -> np.ndarray:
    """(h, w) float32 moved by (x, y) pixels, `outside` coming in at the border."""
    turn = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    return np.asarray(
        cv2.warpAffine(
            array.astype(np.float32), turn, (array.shape[1], array.shape[0]), borderValue=(outside, 0.0, 0.0, 0.0)
        )
    )


def elsewhere(scene: Scene) -> np.ndarray:
    """The surface's fine relief from another place of the window, relative brightness (h, w) around 1."""
    grey = scene.photo.mean(axis=2)
    relative = (grey + 8) / (blur(grey, 2.5) + 8)
    return np.clip(compose.displaced(relative), 0.75, 1.3)


def mix(below: np.ndarray, above: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """`above` over `below`, (h, w, 3), with coverage (h, w)."""
    return below + (above - below) * cover[..., None]
