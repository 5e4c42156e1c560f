"""A run in fixed blocks of images. A block is made alone, by whatever thread, process or machine, to the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from flawsmith import methods
from flawsmith.config import GenerateConfig
from flawsmith.generation.attempts import Attempts
from flawsmith.generation.finished import Finished, finish
from flawsmith.generation.loading import Known, Loader
from flawsmith.generation.planning import Plan
from flawsmith.methods.base import Synthesizer
from flawsmith.quality.gate import Gate
from flawsmith.quality.watch import Watch
from flawsmith.records import Request, Sample


def load(config: GenerateConfig) -> Synthesizer:
    """The method of a run."""
    return methods.load(
        config.method,
        backbone=config.backbone,
        device=config.device,
        memory=config.memory,
        runtime=config.runtime,
        **config.options,
    )


class Blocks:
    """All that a block is made of. Sent to another process it loads its method and photographs there.

    paint: requests -> samples, the method's own; who makes blocks in several threads may put another way to it there.
    """

    def __init__(self, plan: Plan, loader: Loader, synthesizer: Synthesizer, gate: Gate | None) -> None:
        self.plan, self.loader, self.synthesizer, self.gate = plan, loader, synthesizer, gate
        self.paint: Callable[[Sequence[Request]], Sequence[Sample]] = synthesizer.generate

    def abroad(self) -> Blocks:
        """The same for another machine: files are known by their content there, and a GPU that it gives is used."""
        config = self.loader.config
        if config.actor_gpus:
            config = config.model_copy(update={"device": "cuda"})
        return Blocks(self.plan, Loader(config, self.loader.contents()), self.synthesizer, self.gate)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuilt, (self.loader.config, self.loader.known, self.plan, self.gate)

    @property
    def size(self) -> int:
        """Images of a block. By index, so that a resumed run batches exactly as an uninterrupted one."""
        return self.loader.config.batch_size if self.synthesizer.learns != "nothing" else 1

    def starts(self, done: int) -> range:
        """The first image of every block that is not wholly among the first `done` images."""
        return range(done // self.size * self.size, len(self.plan.jobs), self.size)

    def make(self, start: int) -> list[Finished]:
        """The images of the block that begins with image `start`."""
        return self._make(start, start + self.size)

    def again(self, index: int, repeated: Collection[int]) -> Finished:
        """One image, painted until it is good and no attempt of those that are known to repeat another image."""
        return self._make(index, index + 1, repeated)[0]

    def _make(self, start: int, end: int, repeated: Collection[int] = ()) -> list[Finished]:
        watch = None if self.gate is None else Watch(self.gate, self.synthesizer.copies)
        attempts = Attempts(self.plan, self.loader, self.paint, watch, repeated)
        painted = attempts.paint(self.plan.jobs[start:end])
        finished = []
        while painted:  # its pixels are gone before the next one is encoded
            finished.append(finish(painted.pop(0), self.plan, self.loader, self.synthesizer, watch))
        return finished


def _rebuilt(config: GenerateConfig, known: Known, plan: Plan, gate: Gate | None) -> Blocks:
    return Blocks(plan, Loader(config, known), load(config), gate)
