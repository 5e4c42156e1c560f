"""How close generated images come to real ones in a feature space: KID, FID, IS, precision and recall, density.

Pure functions of feature arrays (see features.py); definitions: docs/evaluation.md, "Images". None of them says that
an image is useful: below about 100 real images their spread is larger than most differences.
"""

from __future__ import annotations

import warnings

import numpy as np

from flawsmith.errors import FlawsmithError


def _pair(real: np.ndarray, generated: np.ndarray, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 (N, D), refused when they disagree in width or are too few."""
    real, generated = (np.asarray(side, dtype=np.float64) for side in (real, generated))
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise FlawsmithError(
            f"Features must be (N, D) of one extractor, got {real.shape} and {generated.shape}: use one for both."
        )
    if min(len(real), len(generated)) < least:
        raise FlawsmithError(
            f"{len(real)} real and {len(generated)} generated images: at least {least} of each are needed."
        )
    return real, generated


# -- KID -------------------------------------------------------------------------------------------------------------


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3)


def _mmd(xx: np.ndarray, yy: np.ndarray, xy: np.ndarray) -> float:
    n, m = xy.shape
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def kid(real: np.ndarray, generated: np.ndarray) -> float:
    """Kernel Inception Distance: the unbiased squared MMD with kernel (x.y / D + 1)^3, on all images.

    real (N, D), generated (M, D), at least two of each. Around 0 for equal distributions, and then as often below
    as above. Binkowski et al., "Demystifying MMD GANs", ICLR 2018.
    """
    real, generated = _pair(real, generated)
    return _mmd(_kernel(real, real), _kernel(generated, generated), _kernel(real, generated))


def kid_spread(
    real: np.ndarray, generated: np.ndarray, subsets: int = 100, size: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """Mean and standard deviation of KID over random subsets without replacement: (mean, spread).

    `size` images of each side per subset; default half of the smaller side. The classic KID is the mean at size 1000.
    """
    real, generated = _pair(real, generated)
    smaller = min(len(real), len(generated))
    size = max(2, smaller // 2) if size is None else size
    if not 2 <= size <= smaller:
        raise FlawsmithError(f"KID subsets of {size} images: choose 2 to {smaller}, the smaller side's count.")
    xx, yy, xy = _kernel(real, real), _kernel(generated, generated), _kernel(real, generated)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        i = rng.choice(len(real), size, replace=False)
        j = rng.choice(len(generated), size, replace=False)
        values.append(_mmd(xx[np.ix_(i, i)], yy[np.ix_(j, j)], xy[np.ix_(i, j)]))
    return float(np.mean(values)), float(np.std(values))


# -- FID -------------------------------------------------------------------------------------------------------------


def fid(real: np.ndarray, generated: np.ndarray) -> float:
    """Frechet distance of two Gaussians fitted to (N, D) and (M, D), float64, unbiased covariances.

    Warns (UserWarning) when either side has fewer images than D: the covariance is then singular, and the value says
    little. Heusel et al., NeurIPS 2017. The trace of the root of a product of covariances A'A and B'B is the sum of the
    singular values of AB', so that no matrix root is needed.
    """
    real, generated = _pair(real, generated)
    fewest, width = min(len(real), len(generated)), real.shape[1]
    if fewest < width:
        warnings.warn(f"FID of {fewest} images in {width} dimensions: read KID instead.", UserWarning, stacklevel=2)
    means = [side.mean(axis=0) for side in (real, generated)]
    factors: list[np.ndarray] = []
    for side, mean in zip((real, generated), means, strict=True):
        factor = (side - mean) / np.sqrt(len(side) - 1)
        factors.append(np.asarray(np.linalg.qr(factor, mode="r")) if len(side) > width else factor)
    traces = sum(float(np.square(factor).sum()) for factor in factors)
    root = float(np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum())
    return float(np.square(means[0] - means[1]).sum()) + traces - 2 * root


# -- IS --------------------------------------------------------------------------------------------------------------


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, K) float64 from logits (N, K)."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def inception_score(probabilities: np.ndarray, splits: int | None = None) -> float:
    """exp(mean KL(p(y|x) || p(y))), natural logarithm, from class probabilities (N, K).

    The mean over `splits` equal parts; default 1 below 5,000 images, else 10. Between 1 and K. It rewards variety of
    the classifier's classes, which on textures says little. Salimans et al., NeurIPS 2016.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or not len(p):
        raise FlawsmithError(f"The inception score needs probabilities (N, K), got {p.shape}.")
    splits = splits or (1 if len(p) < 5000 else 10)
    values = []
    for part in np.array_split(p, splits):
        marginal = part.mean(axis=0, keepdims=True)
        ratio = np.log(np.maximum(part, 1e-300)) - np.log(np.maximum(marginal, 1e-300))
        values.append(np.exp(np.sum(part * ratio, axis=1).mean()))
    return float(np.mean(values))


# -- manifolds -------------------------------------------------------------------------------------------------------


def squared_distances(x: np.ndarray, y: np.ndarray, block: int = 256) -> np.ndarray:
    """Squared Euclidean distances (N, M) float64 between the rows of (N, D) and (M, D); exactly 0 for equal rows."""
    result = np.empty((len(x), len(y)))
    norms = np.array([np.square(row, dtype=np.float64).sum() for row in y])
    columns = np.asarray(y, dtype=np.float32)
    for start in range(0, len(x), block):
        rows = np.asarray(x[start : start + block], dtype=np.float32)
        own = np.square(rows, dtype=np.float64).sum(axis=1)
        result[start : start + block] = own[:, None] + norms - 2.0 * (rows @ columns.T)
    scale = max(float(norms.max(initial=0.0)), 1e-30)
    for i, j in np.argwhere(result < 1e-4 * scale):  # few, and rounding there is larger than the distance
        result[i, j] = np.square(np.asarray(x[i], np.float64) - np.asarray(y[j], np.float64)).sum()
    return np.maximum(result, 0.0)


def manifold(real: np.ndarray, generated: np.ndarray, neighbours: int = 5) -> dict[str, float]:
    """precision, recall, density and coverage from nearest-neighbour balls in features (N, D) and (M, D).

    precision: share of generated images inside a real image's ball (radius: its k-th nearest real neighbour);
    recall: the same with sides exchanged (Kynkaanniemi et al., NeurIPS 2019). density: real balls that hold a
    generated image, over k, may exceed 1; coverage: share of real balls that hold any (Naeem et al., ICML 2020).
    """
    real, generated = _pair(real, generated, least=neighbours + 1)
    across = squared_distances(real, generated)  # (N, M)
    radii = []
    for side in (real, generated):
        within = squared_distances(side, side)
        np.fill_diagonal(within, np.inf)
        radii.append(np.sort(within, axis=1)[:, neighbours - 1])
    held = across <= radii[0][:, None]
    return {
        "precision": float(held.any(axis=0).mean()),
        "recall": float((across <= radii[1][None]).any(axis=1).mean()),
        "density": float(held.sum(axis=0).mean() / neighbours),
        "coverage": float((across.min(axis=1) <= radii[0]).mean()),
    }
