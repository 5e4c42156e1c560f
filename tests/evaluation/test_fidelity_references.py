"""KID, FID and IS against torchmetrics, on the same features; skipped where it is absent."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchmetrics")

from torchmetrics.image.fid import FrechetInceptionDistance  # noqa: E402
from torchmetrics.image.inception import InceptionScore  # noqa: E402
from torchmetrics.image.kid import KernelInceptionDistance  # noqa: E402

from flawsmith.evaluation.metrics import fidelity  # noqa: E402

RNG = np.random.default_rng(5)
REAL, MADE = RNG.normal(0, 1, (60, 8)).astype(np.float32), RNG.normal(0.4, 1.3, (50, 8)).astype(np.float32)


class Given(torch.nn.Module):
    """A feature extractor for images that are features already: torchmetrics sees what we see."""

    num_features = 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).float()


def as_pictures(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rows)[:, :, None, None]


def updated(metric, both: bool = True):
    for rows, real in ((REAL, True), (MADE, False)):
        metric.update(as_pictures(rows), real=real)
    return metric


def test_kid_on_all_images() -> None:
    n = min(len(REAL), len(MADE))
    metric = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=n, normalize=False)
    metric.update(as_pictures(REAL[:n]), real=True)
    metric.update(as_pictures(MADE), real=False)
    assert fidelity.kid(REAL[:n], MADE) == pytest.approx(float(metric.compute()[0]), abs=1e-4)


def test_fid() -> None:
    metric = updated(FrechetInceptionDistance(feature=Given(), input_img_size=(8, 1, 1)).double())
    assert fidelity.fid(REAL, MADE) == pytest.approx(float(metric.compute()), abs=1e-4)


def test_inception_score() -> None:
    metric = InceptionScore(feature=Given(), splits=1)
    metric.update(as_pictures(MADE))
    expected = float(metric.compute()[0])
    assert fidelity.inception_score(fidelity.softmax(MADE), splits=1) == pytest.approx(expected, abs=1e-4)
