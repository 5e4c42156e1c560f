"""What tests of AnomalyControl share: a method as after a fit, and the one image it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from flawsmith.methods.anomalycontrol.synthesizer import AnomalyControl
from flawsmith.methods.base import Synthesizer
from flawsmith.records import Request


def trained(folder: Path, **config: Any) -> AnomalyControl:
    """As after a fit: every weight of the adapter somewhere else than it started."""
    made = AnomalyControl(str(folder), config, steps=2, min_visibility=0, min_share=0)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in made.parameters().values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    made.card["learned"] = {"widget/hole": {"file": "weights.safetensors", "support": {}, "names": ["widget/hole"]}}
    return made


def painted(method: Synthesizer, asked: Request, **options: Any) -> np.ndarray:
    return method.generate([asked], **options)[0].image
