"""A method called with arrays: images in, Samples out, no folder on disk; and the redrawing that every path shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from PIL import Image

from flawsmith import captions
from flawsmith import images as pixels
from flawsmith import masks as families
from flawsmith.errors import FlawsmithError
from flawsmith.masks.growth import SIZING, Spread
from flawsmith.masks.structure import following, is_structure
from flawsmith.methods import mask_choice
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


def as_image(image: Any) -> np.ndarray:
    """A PIL image, an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8, or a path -> (H, W, 3) uint8 RGB."""
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if not isinstance(image, np.ndarray):
        return pixels.read_image(image)
    array = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise FlawsmithError(
            f"An image must be (H, W), (H, W, 3) or (H, W, 4) uint8, got {image.shape} {image.dtype}: "
            "multiply floats in 0 to 1 by 255 and convert them with .astype('uint8')."
        )
    return np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else np.ascontiguousarray(array[..., :3])


def as_mask(mask: Any) -> np.ndarray:
    """A bool array, a grey array or PIL image (white = defect), or a path -> (H, W) bool."""
    if isinstance(mask, Image.Image):
        mask = np.asarray(mask.convert("L"))
    if not isinstance(mask, np.ndarray):
        return pixels.read_mask(mask)
    if mask.ndim == 3:
        mask = mask[..., 0]
    if mask.dtype == bool:
        return mask
    level = 0.5 * (255 if mask.dtype == np.uint8 and mask.max(initial=0) > 1 else 1)
    return np.asarray(mask > level)


def as_list(given: Any) -> list[Any]:
    """One image, one pair (image, mask) or a list of them as a list; None is an empty one."""
    if given is None:
        return []
    pair = isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], (np.ndarray, Image.Image))
    return [given] if pair or not isinstance(given, Sequence) or isinstance(given, str) else list(given)


def as_normal(image: Any, category: str) -> Sample:
    """An image of a good part, see `as_image`, as a Sample with an empty mask."""
    if isinstance(image, Sample):
        return image
    array = as_image(image)
    return Sample(array, np.zeros(array.shape[:2], dtype=bool), category)


def as_reference(given: Any, category: str, defect_type: str) -> Sample:
    """A Sample with a mask, or a pair (image, mask), as a Sample."""
    if isinstance(given, Sample):
        return given
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise FlawsmithError("A reference is a pair (image, mask) or a Sample with a mask: its mask says what to copy.")
    return Sample(as_image(given[0]), as_mask(given[1]), category, defect_type or "defect")


def _allowed(normal: Sample, roi: Any) -> np.ndarray:
    ground = families.foreground(normal.image)
    if roi is None:
        return ground
    allowed = ground & as_mask(roi)
    if not allowed.any():
        raise FlawsmithError("The region of interest and the object do not meet: mark where defects may sit.")
    return allowed


def _given(masks: Any) -> list[np.ndarray]:
    """The caller's own masks, each (H, W) bool; none where a family or the method is to draw them."""
    if masks is None or isinstance(masks, str):
        return []
    given = [as_mask(mask) for mask in as_list(masks)]
    if not given:
        raise FlawsmithError("The list of masks is empty: pass one, one for each image, or the name of a family.")
    return given


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
        given = _given(masks)
        grounds = [np.empty(0)] * len(normals) if given else [_allowed(normal, roi) for normal in normals]
        dials = families.mask_options({**({} if severity is None else {"severity": severity}), **(mask_options or {})})
        placed = roi is not None or heat is not None or dials.place != "anywhere"
        unasked = settled(placed, dials.size is not None, severity is not None, self.imitates)
        watch = None if gate == "off" else Watch(Gate.of(gate, references, None, unasked), self.copies)
        kind = captions.parse(prompt).kind if prompt else ""
        types = (defect_type or kind,) if defect_type or kind else self.types(category) or (self.name,)

        @cache
        def family_of(kind: str, imitates: bool) -> str:
            chosen = mask_choice.choose(self.default_mask(kind), kind, imitates, prompt)
            alike = [one for one in references if one.defect_type == kind]
            return "whole" if chosen == "varied" and is_structure(alike, [n.image for n in normals]) else chosen

        @cache
        def spread(kind: str) -> Spread | None:
            alike = [one for one in references if one.defect_type == kind]
            told = severity is not None or SIZING & (mask_options or {}).keys() or captions.logical(prompt or kind)
            return None if told else self.spread(alike, [str(number) for number in range(len(alike))], chosen)

        def request(place: int, redraw: int) -> Request:
            normal, ground = normals[place % len(normals)], grounds[place % len(normals)]
            own = references[place % len(references)] if references else None
            kind = own.defect_type if own else types[place % len(types)]
            now = hash_seed(seed, place) if not redraw else hash_seed(hash_seed(seed, place), redraw)
            family, growth, warp = "", Growth(), None
            if given:
                mask = given[place % len(given)]
            else:
                opened = spread(kind) if own is not None else None
                growth = growth if opened is None else opened.draw(hash_seed(seed, place)).nearer(redraw)
                family = masks or family_of(kind, own is not None)
                family, growth = following(family, growth, own, masks is not None)
                rng = np.random.default_rng(hash_seed(now, "mask"))
                sized = dials.enlarged(growth.side)
                mask, warp = families.draw(family, ground, rng, sized, own, normal.image, heat=heat)
            several = self.references == "many" or self.reference_count > 1
            others = tuple(r for r in references if r is not own) if several else ()
            caption = prompt or self.default_caption(category, kind)
            whole = family == "whole"
            return Request(normal, mask, kind, caption, own, now, warp, others, severity, whole, growth.contrast)

        def judge(place: int, redraw: int, request: Request, sample: Sample) -> Sample:
            product = None if given else grounds[place % len(normals)]
            return sample if watch is None else watch.judge(place, redraw, request, sample, product)

        count = len(normals) if n is None else n

        def foresee(place: int, redraw: int, request: Request) -> Sample | None:
            return None if watch is None else watch.foresee(place, redraw, request)

        results = make(lambda r: self.generate(r, **options), request, count, max_redraws, judge, foresee=foresee)
        if watch is not None:
            results = [
                (asked, replace(one, info={**one.info, "gate": gate, "refused": watch.refused[place]}), redraws)
                for place, (asked, one, redraws) in enumerate(results)
            ]
        return _sorted(results, category, _facts(self, chosen, references))
