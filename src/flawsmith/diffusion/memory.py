"""How many windows a GPU takes at a time: `batch_that_fits` chooses the largest batch whose estimate fits the
backbone's preset, `halved` answers an out-of-memory error.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping

import torch
from torch import nn

from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.estimate import Estimate, activations, coding_bytes, weight_bytes
from flawsmith.errors import FlawsmithError

__all__ = ["batch_that_fits", "halved"]

log = logging.getLogger("flawsmith")


def batch_that_fits(
    backbone: Backbone, wanted: int, trained: Mapping[str, nn.Parameter] | None = None, beside: int = 0
) -> int:
    """The largest of wanted, wanted / 2, ... 1 windows whose estimate fits the backbone's preset; the estimate is
    logged. With `trained` it is for training, else for painting, where guidance doubles a window. `beside`: bytes of a
    method's own weights on the GPU.

    Without a preset nothing limits it, and nothing is said on the CPU.
    """
    preset = backbone.preset
    if preset is None and backbone.device.type == "cpu":
        return wanted
    training, batch = trained is not None, wanted
    if training and backbone.unet_dtype == torch.float16:
        raise FlawsmithError(
            "This GPU has no bfloat16, and in float16 the adapters' small gradients vanish: train with --device cpu, "
            "or on a GPU of compute capability 8 or more. Generating works here."
        )
    resident = sum(weight_bytes(m) for name, m in backbone.modules().items() if not backbone.offloaded(name))
    resident += beside
    # gradient, two moments and the average beside the parameter itself
    learned = sum(5 * p.numel() * p.element_size() for p in (trained or {}).values())
    checkpointing = preset is not None and preset.checkpointing
    row = activations(backbone, 1, training, checkpointing) * (1 if training else 2)
    coding = coding_bytes(backbone)

    def needed() -> Estimate:
        return Estimate(resident, learned, max(row * batch, coding), batch, training)

    while preset is not None and batch > 1 and needed().total > preset.gib * 2**30:
        batch = (batch + 1) // 2
    log.info("%s", needed())
    if preset is not None and needed().total > preset.gib * 2**30:
        log.warning("That is more than the %d GiB asked for, and nothing is left to make smaller.", preset.gib)
    return batch


def halved(batch: int, doing: str) -> int:
    """The batch to try after an out-of-memory error at `batch`. Raises FlawsmithError when it was 1 already.

    Call it outside the `except` block: an exception that is being handled keeps its tensors alive.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if batch <= 1:
        raise FlawsmithError(
            f"Out of GPU memory while {doing}, even one window at a time: give --memory 8, close other programs on the "
            "GPU, or use --device cpu. What was finished is kept; the same command resumes."
        )
    log.warning("Out of memory while %s with %d windows at a time: going on with %d.", doing, batch, (batch + 1) // 2)
    return (batch + 1) // 2
