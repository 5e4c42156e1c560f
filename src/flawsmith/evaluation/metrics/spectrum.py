"""The power of a window's grain by wavelength, and the distance of two sets of windows in it. NumPy alone.

Definitions follow docs/evaluation.md, "Realism".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flawsmith.errors import FlawsmithError

WAVELENGTHS = tuple(2 * 2 ** (step / 2) for step in range(9))  # px, the limits of eight half octaves, 2 to 32
FLOOR = 1e-9  # squared grey levels: a window without any grain has a spectrum too


def spectrum(window: np.ndarray) -> np.ndarray:
    """Power (8,) in dB of a window (h, w, 3) or (h, w) by wavelength: half octaves from 2 to 32 px, the finest first.

    Grey is the mean of the channels, minus its mean, both under a Hann taper; the squared magnitude of its Fourier
    transform over the taper's energy is averaged over all frequencies of a band (radius, so every direction counts
    alike). White noise of variance v has 10 log10(v) in every band. nan for a band that a small window has no frequency
    in.
    """
    grey = window.astype(np.float64)
    grey = grey.mean(axis=2) if grey.ndim == 3 else grey
    taper = np.outer(np.hanning(grey.shape[0] + 2)[1:-1], np.hanning(grey.shape[1] + 2)[1:-1])
    grey = (grey - (taper * grey).sum() / taper.sum()) * taper
    power = np.abs(np.fft.fft2(grey)) ** 2 / np.square(taper).sum()
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(side) for side in grey.shape), indexing="ij"))
    band = np.searchsorted(1 / np.array(WAVELENGTHS[::-1]), radius.ravel() * (1 + 1e-12), side="right") - 1
    inside_ = (band >= 0) & (band < len(WAVELENGTHS) - 1)
    sums, sizes = (
        np.bincount(band[inside_], weights=kind, minlength=len(WAVELENGTHS) - 1)
        for kind in (power.ravel()[inside_], np.ones(int(inside_.sum())))
    )
    with np.errstate(invalid="ignore"):
        return np.asarray(10 * np.log10(sums / np.where(sizes, sizes, np.nan) + FLOOR)[::-1])


def spectrum_distance(real: Sequence[np.ndarray], made: Sequence[np.ndarray]) -> float:
    """Mean over the bands of |mean dB of the real windows - mean dB of the generated ones|; 0 for equal sets.

    Raises FlawsmithError when a side is empty or no band is known on both.
    """
    if not len(real) or not len(made):
        raise FlawsmithError(f"A spectrum needs windows: {len(real)} real and {len(made)} generated ones were given.")
    sides = []
    for side in (real, made):
        rows = np.array([spectrum(window) for window in side])
        known = np.isfinite(rows)
        total = np.where(known, rows, 0.0).sum(axis=0)
        sides.append(np.divide(total, known.sum(axis=0), out=np.full(len(total), np.nan), where=known.any(axis=0)))
    difference = np.abs(sides[0] - sides[1])
    if not np.isfinite(difference).any():
        raise FlawsmithError("Windows of 2 px and less have no spectrum: give larger ones.")
    return float(np.nanmean(difference))
