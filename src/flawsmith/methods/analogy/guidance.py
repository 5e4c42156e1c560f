"""What guides the analogy beside the pixels: where a pixel lies in its defect, and what surrounds the defect.

"Texture by numbers" (Hertzmann et al. 2001, section 4.3), with numbers that a mask alone can give. The channels are
the same for an exemplar and for the new mask, so that a rim is painted from rims and a floor from floors.
"""

from __future__ import annotations

import cv2
import numpy as np

RIM = 6.0  # pixels on both sides of the border in which one pixel more or less counts
BOUND = 1.3  # largest factor between the surroundings here and on the whole that is taken for shading


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Pixels to the mask's border, (h, w) float32: positive inside, negative outside. The frame is no border."""
    padded = np.pad(mask, 2, mode="edge").astype(np.uint8)
    if padded.all() or not padded.any():
        return np.full(mask.shape, 1e3 if padded.all() else -1e3, np.float32)
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(1 - padded, cv2.DIST_L2, 5)
    return np.asarray((inside - outside - np.where(padded > 0, 0.5, -0.5))[2:-2, 2:-2], np.float32)


def guides(
    mask: np.ndarray,
    around: np.ndarray,
    light: float = 1.0,
    along: np.ndarray | None = None,
    displaced: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Guidance channels (h, w, G) float32 of a defect, scaled by how much they count in |guide - guide|^2.

    mask (h, w) bool; around (h, w, C) float32: what the surroundings suggest, in units of the exemplars' contrast;
    light: how much the direction of the border counts; along (h, w) float32: position on the axis of a thin mask, -1
    to 1, in place of the position in the box; displaced (h, w, 2): what is added to the position, in half boxes.
    """
    distance = signed_distance(mask)
    depth = np.clip(distance, 0, None)
    deepest = max(1.0, float(depth[mask].max()) if mask.any() else 1.0)
    soft = cv2.GaussianBlur(np.clip(distance, -4 * RIM, 4 * RIM), (0, 0), 1.5)
    slope = np.stack([cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)], axis=-1) / 8
    slope /= np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 0.3)
    near = np.exp(-np.abs(distance) / RIM)
    rows, columns = np.nonzero(mask)
    place = []
    for values, span in ((np.arange(mask.shape[0]), rows), (np.arange(mask.shape[1]), columns)):
        middle, half = (span.min() + span.max()) / 2, max(2.0, (span.max() - span.min()) / 2)
        place.append(np.clip((values - middle) / half, -1.3, 1.3))
    inside = np.exp(np.clip(distance, -RIM, 0) / RIM)  # beyond the border only the border itself counts
    channels = [
        2.5 * np.clip(distance, -RIM, RIM) / RIM,
        1.5 * depth / deepest,
        *(0.6 * light * near * slope[..., i] for i in (0, 1)),
    ]
    displaced = np.broadcast_to(displaced, (*mask.shape, 2))
    if along is None:
        lines = place[0][:, None], place[1][None, :]
        channels += [0.8 * inside * (line + displaced[..., i]) for i, line in enumerate(lines)]
    else:
        channels.append(0.7 * (along + displaced[..., 0]))
    return np.concatenate([np.stack(channels, -1), 0.4 * around], axis=-1).astype(np.float32)


def surroundings(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The smooth image that the known pixels suggest everywhere, (h, w, C) float32: wide means where little is known.

    image (h, w, C) float32; known (h, w) bool. Normalised convolution from wide to narrow; scales with the image.
    """
    weight = known.astype(np.float32)
    if not known.any():
        return np.broadcast_to(image.mean(axis=(0, 1)), image.shape).astype(np.float32)
    held = image * weight[..., None]
    smooth = np.broadcast_to(held.sum(axis=(0, 1)) / weight.sum(), image.shape).astype(np.float32)
    for sigma in (32.0, 16.0, 8.0, 4.0):
        step = max(1, int(sigma / 4))
        size = max(1, image.shape[1] // step), max(1, image.shape[0] // step)
        blurred = [
            cv2.GaussianBlur(cv2.resize(part, size, interpolation=cv2.INTER_AREA), (0, 0), sigma / step)
            for part in (held, weight)
        ]
        full = [cv2.resize(part, image.shape[1::-1], interpolation=cv2.INTER_LINEAR) for part in blurred]
        share = full[1][..., None]
        mean = full[0].reshape(image.shape) / np.maximum(share, 1e-6)
        smooth += np.clip(share / 0.3, 0, 1) * (mean - smooth)
    return smooth


def shading(around: np.ndarray, level: np.ndarray) -> np.ndarray:
    """What an image is divided by to be compared: its surroundings (h, w, C), at most BOUND from `level` (C,)."""
    return np.asarray(level * np.clip(around / level, 1 / BOUND, BOUND), np.float32)


def gain(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Factors (C,) float that bring the light of colours `there` (m, C) to that of `here` (n, C), float32.

    The exposure under which each colour on one side finds its like on the other (Chamfer distance), whatever share of
    the ring each structure has; where all is one surface the distributions decide. Then a small tint per channel.
    """
    here, there = (part[:: max(1, len(part) // 90)].astype(np.float64) for part in (here, there))
    light = max(float(here.mean()), 1.0)
    places = (np.arange(16) + 0.5) / 16
    quantiles = [np.quantile(part.mean(axis=1), places) for part in (here, there)]

    def apart(factor: float) -> float:
        table = np.abs(here[:, None] - factor * there[None]).mean(axis=2)
        chamfer = 0.5 * (table.min(axis=1).mean() + table.min(axis=0).mean())
        return float(
            chamfer + 0.3 * np.abs(quantiles[0] - factor * quantiles[1]).mean() + 0.04 * light * abs(np.log(factor))
        )

    factor = 1.0
    for spread, count in ((np.log(2.5), 25), (0.08, 9), (0.02, 5)):
        tried = factor * np.exp(np.linspace(-spread, spread, count))
        factor = float(tried[int(np.argmin([apart(one) for one in tried]))])
    table = np.abs(here[:, None] - factor * there[None]).mean(axis=2)
    like = factor * there[table.argmin(axis=1)]
    held = 0.1 * light  # a dark channel's ratio is mostly noise
    tint = np.median((here + held) / (like + held), axis=0)
    return factor * np.clip(tint / max(float(tint.mean()), 1e-6), 0.85, 1.18)
