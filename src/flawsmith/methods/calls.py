"""A method called with arrays: images in, Samples out, no folder on disk; and the redrawing that every path shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from flawsmith import captions
from flawsmith import images as pixels
from flawsmith import masks as families
from flawsmith.errors import FlawsmithError
from flawsmith.masks.growth import SIZING, Spread
from flawsmith.masks.structure import following, is_structure
from flawsmith.methods import mask_choice
from flawsmith.methods.arrays import allowed_on, as_list, as_normal, as_reference, own_masks
from flawsmith.methods.samples import Samples
from flawsmith.quality.gate import Gate, Level, settled
from flawsmith.quality.watch import Watch
from flawsmith.records import Growth, Request, Sample, hash_seed

References = Literal["none", "one", "many"]
Judge = Callable[[int, int, Request, Sample], Sample]
Foresee = Callable[[int, int, Request], Sample | None]


class Painter(Protocol):
    """What `OnArrays` asks of a method; see Synthesizer."""

    name: ClassVar[str]
    references: ClassVar[References]
    options: Any
    copies: ClassVar[bool]
    imitates: ClassVar[bool]

    @property
    def reference_count(self) -> int: ...
    def parse_options(self, given: dict[str, Any], base: Any) -> Any: ...
    def types(self, category: str, shown: Sequence[str] = ()) -> tuple[str, ...]: ...
    def default_mask(self, defect_type: str) -> str: ...
    def spread(self, exemplars: Iterable[Sample], parts: Sequence[str], options: Any = None) -> Spread | None: ...
    def default_category(self) -> str: ...
    def default_caption(self, category: str, defect_type: str) -> str: ...
    def seen(self) -> dict[str, str]: ...
    def generate(self, requests: Sequence[Request], **options: Any) -> list[Sample]: ...


def make(
    generate: Callable[[Sequence[Request]], Sequence[Sample]],
    request: Callable[[int, int], Request],
    count: int,
    max_redraws: int,
    judge: Judge = lambda place, redraw, request, sample: sample,
    first: int = 0,
    foresee: Foresee = lambda place, redraw, request: None,
) -> list[tuple[Request, Sample, int]]:
    """Make `count` samples; those that `judge` or `generate` refuses are drawn again, at most `max_redraws` times.

    `request(place, redraw)` gives the request of a place, redraw > 0 with another mask and seed; `judge(place, redraw,
    request, sample)` may enter `info["rejected"]`. `first`: the redraw to begin with. `foresee(place, redraw, request)`
    may give a sample that is refused without being painted. Returns (request, sample,
    redraws) for every place.
    """
    results: list[tuple[Request, Sample, int]] = []
    for redraw in range(first, max(first, max_redraws) + 1):
        places = [i for i in range(count) if redraw == first or "rejected" in results[i][1].info]
        if not places:
            break
        requests = [request(place, redraw) for place in places]
        refused = [foresee(place, redraw, asked) for place, asked in zip(places, requests, strict=True)]
        left = [asked for asked, known in zip(requests, refused, strict=True) if known is None]
        painted = iter(generate(left) if left else ())
        for place, asked, known in zip(places, requests, refused, strict=True):
            sample = judge(place, redraw, asked, next(painted)) if known is None else known
            results[place : place + 1] = [(asked, sample, redraw)]
            del asked, sample
    return results


def _facts(method: Painter, options: Any, references: list[Sample]) -> dict[str, Any]:
    """What every sample of a call records: the method, its options, and the real defects it has seen."""
    shown = {f"memory/{i}": pixels.array_sha(r.image) for i, r in enumerate(references)}
    support = {**method.seen(), **shown}
    return {"method": method.name, "options": options.model_dump(mode="json"), "support": support}


def _sorted(results: Sequence[tuple[Request, Sample, int]], category: str, facts: dict[str, Any]) -> Samples:
    """What `make` returns as Samples, kept and refused, each with the facts that are common and its own."""
    kept: list[Sample] = []
    refused: list[Sample] = []
    for asked, sample, redraws in results:
        normal = {"file": "", "sha": pixels.array_sha(asked.normal.image)}
        info = {**facts, "seed": asked.seed, "redraws": redraws, "normal": normal, **sample.info}
        (refused if "rejected" in info else kept).append(replace(sample, category=category, info=info))
    return Samples(kept, refused)


@dataclass(frozen=True)
class Call:
    """What one call of a method asks for: the request of any place and attempt, always the same."""

    method: Painter
    chosen: Any  # the method's options of this call
    normals: list[Sample]
    references: list[Sample]
    given: list[np.ndarray]  # the caller's own masks
    family: str | None  # the mask family that was named
    grounds: list[np.ndarray]  # where a defect may sit on each of `normals`
    dials: families.MaskOptions
    types: tuple[str, ...]
    prompt: str
    category: str
    seed: int
    severity: float | None
    sized: bool  # the caller says how large or strong defects are
    heat: Any
    _known: dict[str, tuple[str, Spread | None]] = field(default_factory=dict)

    def request(self, place: int, redraw: int) -> Request:
        """redraw > 0: the same place with another mask and seed."""
        normal, references = self.normals[place % len(self.normals)], self.references
        own = references[place % len(references)] if references else None
        kind = own.defect_type if own else self.types[place % len(self.types)]
        first = hash_seed(self.seed, place)
        now = hash_seed(first, redraw) if redraw else first
        family, growth, warp = "", Growth(), None
        if self.given:
            mask = self.given[place % len(self.given)]
        else:
            family, spread = self._kind(kind)
            growth = growth if spread is None else spread.draw(first).nearer(redraw)
            family, growth = following(self.family or family, growth, own, self.family is not None)
            rng, ground = np.random.default_rng(hash_seed(now, "mask")), self.grounds[place % len(self.normals)]
            sized = self.dials.grown(growth)
            mask, warp = families.draw(family, ground, rng, sized, own, normal.image, heat=self.heat)
        several = self.method.references == "many" or self.method.reference_count > 1
        others = tuple(r for r in references if r is not own) if several else ()
        said = self.prompt or self.method.default_caption(self.category, kind)
        whole = family == "whole"
        return Request(normal, mask, kind, said, own, now, warp, others, self.severity, whole, growth.contrast)

    def _kind(self, kind: str) -> tuple[str, Spread | None]:
        """The method's mask family of a defect type, and how far its defects may go beyond the real ones."""
        if kind not in self._known:
            alike = [one for one in self.references if one.defect_type == kind]
            family = mask_choice.choose(self.method.default_mask(kind), kind, bool(alike), self.prompt)
            if family == "varied" and is_structure(alike, [n.image for n in self.normals]):
                family = "whole"
            bound = not alike or self.sized or captions.logical(self.prompt or kind)
            names = [str(number) for number in range(len(alike))]
            self._known[kind] = family, None if bound else self.method.spread(alike, names, self.chosen)
        return self._known[kind]

    def product(self, place: int) -> np.ndarray | None:
        """Where a defect may sit; None where the caller painted the mask."""
        return None if self.given else self.grounds[place % len(self.normals)]


class OnArrays:
    """What makes a method callable with arrays; every Synthesizer is one."""

    def __call__(
        self: Painter,
        images: Any,
        masks: Any = None,
        *,
        defect_type: str = "",
        prompt: str = "",
        reference: Any = None,
        category: str = "",
        n: int | None = None,
        seed: int = 0,
        roi: Any = None,
        heat: Any = None,
        severity: float | None = None,
        gate: Level = "off",
        mask_options: dict[str, Any] | None = None,
        max_redraws: int = 5,
        **options: Any,
    ) -> Samples:
        """Paint defects on images of good parts, from arrays to arrays; the same call gives the same pixels.

        images: one or a list of (H, W, 3) uint8 arrays, PIL images, paths, or good Samples; used in turn.
        masks: where a defect may be: None (the method's own choice), the name of a mask family ("scratch"), one mask
            (H, W) bool, or a list of them, used in turn.
        reference: (image, mask), a Sample, or a list of them, used in turn; the real defects that are imitated.
        n: how many images; default one for each of `images`. roi: (H, W), True where a defect may sit; heat: (H, W), 0
            or more, how likely a defect's centre lies at each pixel of every image.
        severity: 0 (barely visible, small) to 1. gate: "off", or "normal" or "strict", by which images that nobody
            would see or believe are painted anew, see `flawsmith.quality`; `info["refused"]` tells of them.
        mask_options: dials of the family, {"size": (0.01, 0.02)}. options: the method's own dials, for this call.

        Returns Samples: a list of Sample with `.save(folder)`, `.sheet()` and `.refused`. Raises FlawsmithError saying
        what was given, what is allowed and what to do.
        """
        chosen = self.parse_options(options, self.options)
        category = category or self.default_category()
        normals = [as_normal(image, category) for image in as_list(images)]
        if not normals:
            raise FlawsmithError("No image was given: pass one image of a good part, or a list of them.")
        references = [as_reference(item, category, defect_type) for item in as_list(reference)]
        given, family = own_masks(masks), masks if isinstance(masks, str) else None
        grounds = [] if given else [allowed_on(normal, roi) for normal in normals]
        dials = families.mask_options({**({} if severity is None else {"severity": severity}), **(mask_options or {})})
        sized = severity is not None or bool(SIZING & (mask_options or {}).keys())
        kind = defect_type or (captions.parse(prompt).kind if prompt else "")
        types = (kind,) if kind else self.types(category) or (self.name,)
        call = Call(
            method=self,
            chosen=chosen,
            normals=normals,
            references=references,
            given=given,
            family=family,
            grounds=grounds,
            dials=dials,
            types=types,
            prompt=prompt,
            category=category,
            seed=seed,
            severity=severity,
            sized=sized,
            heat=heat,
        )

        placed = roi is not None or heat is not None or dials.place != "anywhere"
        unasked = settled(placed, dials.size is not None, severity is not None, self.imitates)
        watch = None if gate == "off" else Watch(Gate.of(gate, references, None, unasked), self.copies)

        def judge(place: int, redraw: int, request: Request, sample: Sample) -> Sample:
            return sample if watch is None else watch.judge(place, redraw, request, sample, call.product(place))

        def foresee(place: int, redraw: int, request: Request) -> Sample | None:
            return None if watch is None else watch.foresee(place, redraw, request)

        count = len(normals) if n is None else n
        results = make(lambda r: self.generate(r, **options), call.request, count, max_redraws, judge, foresee=foresee)
        if watch is not None:
            results = [
                (asked, replace(one, info={**one.info, "gate": gate, "refused": watch.refused[place]}), redraws)
                for place, (asked, one, redraws) in enumerate(results)
            ]
        return _sorted(results, category, _facts(self, chosen, references))
