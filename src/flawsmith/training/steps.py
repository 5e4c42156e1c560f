"""The steps of a fit: which windows, at which diffusion steps, with which noise; in parts, for memory and speed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.batch import Batch
from flawsmith.diffusion.denoise import Conditioning
from flawsmith.diffusion.memory import halved
from flawsmith.diffusion.side_by_side import computed, threads_for
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
    is. A step is computed in even parts of at most `rows` windows, `threads` parts at a time, which add up to the same
    loss: each window's is its own, whatever stands beside it. Where several processes fit together, the parts are of
    this one's share of the windows.
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
        self.rows, self.threads = config.batch_size, threads_for(backbone.device, config.batch_size)
        self._kept: dict[int, tuple[Batch, Encoded]] = {}

    def __call__(self, step: int) -> Iterator[Callable[[], Tensor]]:
        """The loss of a step, a scalar, in parts to be computed and added up."""
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
                parts = self._parts(*self._encoded(-1), t, noise)
                own = sum(computed((partial(_number, part) for part in parts), self.threads))
                break
            except torch.OutOfMemoryError:
                pass
            self.smaller()
        return parallel.total(own, backbone.device)

    def smaller(self) -> None:
        """Half the windows at a time, after an out-of-memory error. Raises FlawsmithError at one."""
        self.rows = halved(self.rows, "training")

    def _parts(self, batch: Batch, encoded: Encoded | None, t: Tensor, noise: Tensor) -> Iterator[Callable[[], Tensor]]:
        own = parallel.share(len(batch.captions))
        rounds = math.ceil(len(own) / (self.rows * self.threads))
        size = max(1, math.ceil(len(own) / max(1, rounds * self.threads)))
        for start in own[::size]:
            yield partial(self._loss, batch, encoded, t, noise, slice(start, min(start + size, own.stop)))

    def _loss(self, batch: Batch, encoded: Encoded | None, t: Tensor, noise: Tensor, rows: slice) -> Tensor:
        """What some windows add to the mean loss of a batch, a scalar."""
        known = None if encoded is None else encoded.rows(rows)
        part = batch if rows == slice(0, len(batch.captions)) else batch.part(rows)
        loss = batch_loss(
            self.backbone, part, t[rows], noise[rows], self.config, self.condition, self.config.loss_norm, known
        )
        return loss.sum() / len(batch.captions)

    def _encoded(self, number: int) -> tuple[Batch, Encoded]:
        """Batch `number` (-1 = held out) with its latents, from the first time on kept on the CPU."""
        if number not in self._kept:
            batch = self.judged if number < 0 and self.judged is not None else self.batches(number)
            starts = range(0, len(batch.captions), self.rows)
            parts = [encode_batch(self.backbone, batch.part(slice(s, s + self.rows))).to("cpu") for s in starts]
            self._kept[number] = batch, Encoded.join(parts)
        return self._kept[number]


@torch.no_grad()
def _number(part: Callable[[], Tensor]) -> float:
    return float(part())
