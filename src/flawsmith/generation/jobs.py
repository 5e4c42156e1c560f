"""The jobs of a run, each worked out when it is asked for: of a million there is no more in memory than of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, overload

import numpy as np

from flawsmith import captions
from flawsmith.config import GenerateConfig
from flawsmith.generation.misses import Aim
from flawsmith.generation.turns import Turns
from flawsmith.masks.growth import Spread
from flawsmith.methods import mask_choice
from flawsmith.records import Growth, Job, Record, hash_seed


@dataclass(frozen=True)
class Kind:
    """One kind of image: what its jobs choose from, and what its method says of it."""

    category: str
    defect_type: str
    normals: Sequence[Record]
    references: Sequence[Record]
    mask: str  # the method's own choice of a family
    caption: str  # the method's own words
    parts: tuple[tuple[Kind, int], ...] = ()  # of an image of several types: each, and how many of it
    spread: Spread | None = None  # what its real defects leave open


class Jobs(Sequence[Job]):
    """Job i is a pure function of the configuration and i; it does not depend on how many there are.

    turns: which kind each image is of. shown: references of each job. trained: whether the method learned from the
    data, whose captions it then knows.
    """

    def __init__(
        self,
        config: GenerateConfig,
        kinds: Sequence[Kind],
        turns: Turns,
        total: int,
        shown: int,
        trained: bool,
        aim: Aim | None = None,
    ) -> None:
        self.config, self.kinds, self.turns, self.total = config, list(kinds), turns, total
        self.shown, self.trained, self.aim = shown, trained, aim

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, index: int) -> Job: ...
    @overload
    def __getitem__(self, index: slice) -> list[Job]: ...
    def __getitem__(self, index: int | slice) -> Job | list[Job]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.total))]
        if not -self.total <= index < self.total:
            raise IndexError(index)
        place, turn = self.turns.at(index % self.total)
        return self._job(index % self.total, turn, self.kinds[place])

    def first_round(self) -> list[Job]:
        """Of each kind as many as it takes for every photograph and reference that any job has to have come."""
        found = []
        for place, kind in enumerate(self.kinds):
            longest = max(len(kind.normals), *(len(one.references) for one, _ in kind.parts or ((kind, 1),)))
            turns = range(min(longest, self.turns.count(place, self.total)))
            found += [self.turns.index(place, turn) for turn in turns]
        return [self[index] for index in sorted(found)]

    def _job(self, index: int, turn: int, kind: Kind) -> Job:
        """The image that is number `turn` of its kind: its photograph, and what is painted on it."""
        names = kind.category, kind.defect_type
        normal = shuffled(kind.normals, turn, self.config.seed, "normal", *names)
        seed = hash_seed(self.config.seed, index)
        if not kind.parts:
            return self._single(index, turn, kind, normal, seed)
        several = [(one, number, count) for one, count in kind.parts for number in range(count)]
        parts = tuple(
            self._single(index, turn * count + number, one, normal, hash_seed(seed, "part", place))
            for place, (one, number, count) in enumerate(several)
        )
        said = captions.together(kind.category, [one.defect_type for one in parts], [one.caption for one in parts])
        return Job(index, normal, None, parts[0].mask, kind.defect_type, said, seed, parts=parts)

    def _single(self, index: int, turn: int, kind: Kind, normal: Record, seed: int) -> Job:
        """A defect that is number `turn` of its kind: its references, mask family, words."""
        config, names = self.config, (kind.category, kind.defect_type)
        many = self.shown if kind.references else 0
        shown = [shuffled(kind.references, turn + more, config.seed, "reference", *names) for more in range(many)]
        caption = config.prompt or ""
        of_the_data = config.reference is None and config.references_from is None
        if not caption and shown and of_the_data and self.trained:
            caption = shown[0].caption  # what it was trained with
        said = caption or kind.caption
        if not said and shown:
            said = captions.sentence(*names)
        family = mask_choice.choose(kind.mask, kind.defect_type, bool(kind.references), caption)
        return Job(
            index=index,
            normal=normal,
            reference=shown[0] if shown else None,
            mask=config.mask or family,
            defect_type=kind.defect_type,
            caption=said,
            seed=seed,
            others=tuple(record for record in dict.fromkeys(shown[1:]) if record != shown[0]),
            target=None if self.aim is None else self.aim.target(kind.defect_type, turn),
            growth=Growth() if kind.spread is None or captions.logical(said) else kind.spread.draw(seed),
        )


def shuffled(items: Sequence[Any], turn: int, seed: int, *words: str) -> Any:
    """The `turn`-th item of an endless walk through `items`, each pass in a new order by the seed and any words."""
    epoch, place = divmod(turn, len(items))
    return items[int(_order(hash_seed(seed, *words), epoch, len(items))[place])]


@lru_cache(maxsize=512)  # two walks of each kind, and the passes that they are in
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)
