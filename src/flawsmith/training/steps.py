"""The steps of a fit: which windows, at which diffusion steps, with which noise; in parts that fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.batch import Batch
from flawsmith.diffusion.denoise import Conditioning
from flawsmith.diffusion.memory import halved
from flawsmith.training import parallel
from flawsmith.training.losses import Encoded, batch_loss, encode_batch, stratified_steps
from flawsmith.training.settings import FitConfig

__all__ = ["Steps", "draw"]


def draw(backbone: Backbone, config: FitConfig, step: int) -> tuple[Tensor, Tensor]:
    """The diffusion steps (B,) and the noise (B, C, h, w) of training step `step`."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    t = stratified_steps(config.batch_size, generator, backbone.training_steps())
    side = backbone.size // backbone.factor
    return t, torch.randn(config.batch_size, backbone.latent_channels, side, side, generator=generator)


class Steps:
    """A fit's losses. `batches(n)` is batch number n, a pure function; `judged` the held-out batch, if there is one.

    With `config.views` there are only so many different batches, and each is encoded once; the held-out batch always
    is. A step is computed `rows` windows at a time, whose parts add up to the same loss: each window's is its own,
    whatever stands beside it. Where several processes fit together, the parts are of this one's share of the windows.
    """

    def __init__(
        self,
        backbone: Backbone,
        batches: Callable[[int], Batch],
        judged: Batch | None,
        config: FitConfig,
        condition: Callable[[Batch, Tensor], Conditioning] | None = None,
    ) -> None:
        self.backbone, self.batches, self.judged = backbone, batches, judged
        self.config, self.condition = config, condition
        self.rows = config.batch_size
        self._kept: dict[int, tuple[Batch, Encoded]] = {}

    def __call__(self, step: int) -> Iterator[Tensor]:
        """The loss of a step, a scalar, in parts to be added up."""
        views = self.config.views
        batch, encoded = self._encoded(step % views) if views else (self.batches(step), None)
        yield from self._parts(batch, encoded, *draw(self.backbone, self.config, step))

    @torch.no_grad()
    def held_out(self) -> float:
        """Mean loss of the held-out batch at evenly spread steps with fixed noise."""
        assert self.judged is not None
        backbone, count = self.backbone, len(self.judged.captions)
        side = backbone.size // backbone.factor
        generator = torch.Generator().manual_seed(self.config.seed)
        table = backbone.training_steps()
        t = torch.linspace(200, 990, count).long()
        t = t if table is None else table[t]
        noise = torch.randn(count, backbone.latent_channels, side, side, generator=generator)
        while True:
            try:
                own = sum(float(part) for part in self._parts(*self._encoded(-1), t, noise))
                break
            except torch.OutOfMemoryError:
                pass
            self.smaller()
        return parallel.total(own, backbone.device)

    def smaller(self) -> None:
        """Half the windows at a time, after an out-of-memory error. Raises FlawsmithError at one."""
        self.rows = halved(self.rows, "training")

    def _parts(self, batch: Batch, encoded: Encoded | None, t: Tensor, noise: Tensor) -> Iterator[Tensor]:
        count, config = len(batch.captions), self.config
        own = parallel.share(count)
        for start in own[:: self.rows]:
            rows = slice(start, min(start + self.rows, own.stop))
            known = None if encoded is None else encoded.rows(rows)
            part = batch if rows == slice(0, count) else batch.part(rows)
            loss = batch_loss(
                self.backbone, part, t[rows], noise[rows], config, self.condition, config.loss_norm, known
            )
            yield loss.sum() / count

    def _encoded(self, number: int) -> tuple[Batch, Encoded]:
        """Batch `number` (-1 = held out) with its latents, from the first time on kept on the CPU."""
        if number not in self._kept:
            batch = self.judged if number < 0 and self.judged is not None else self.batches(number)
            starts = range(0, len(batch.captions), self.rows)
            parts = [encode_batch(self.backbone, batch.part(slice(s, s + self.rows))).to("cpu") for s in starts]
            self._kept[number] = batch, Encoded.join(parts)
        return self._kept[number]
