"""Synthesizer: what every method promises, written once. No torch here.

The promises (checked for every method by tests/contract.py):
1. one Sample per Request, in order, at the request's own size;
2. pixels outside `sample.mask` equal the normal image's, byte for byte;
3. `sample.mask` lies inside `request.mask`, equals the visibly changed region, and is not empty unless
   `info["rejected"]` says why;
4. the same request gives the same pixels, alone or in any batch;
5. saved and loaded, it gives the same pixels;
6. an unknown option is refused with the known ones listed; the normal image is never modified.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from flawsmith import compose, images, inputs
from flawsmith.config import validated
from flawsmith.errors import FlawsmithError
from flawsmith.masks.growth import Spread, spread_of
from flawsmith.methods.calls import OnArrays, References
from flawsmith.records import Request, Sample


class Options(BaseModel):
    """What may change from call to call; written to the manifest. Subclasses add the method's own dials."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    min_visibility: float = Field(8.0, ge=0, le=255, description="refuse fainter changes (mean grey levels)")
    min_share: float = Field(0.1, ge=0, le=1, description="refuse when less of the mask visibly changed")
    tolerance: float | None = Field(
        None,
        ge=0,
        le=255,
        description="grey levels that count as change; default from the photograph's grain",
    )


def growth_field(default: float) -> Any:
    """The dial of methods that may go beyond the real ones, 0 to 1; see `masks.growth`."""
    return Field(
        default,
        ge=0,
        le=1,
        description="how far size and contrast may differ from the few real ones seen; 0 = as theirs, 1 = as far as so "
        "few leave open",
    )


class FollowingOptions(Options):
    """Of methods that follow one real defect in each image."""

    growth: float = growth_field(0.0)


Learns = Literal["nothing", "adapters", "model"]
BaseOptions = Options  # inside Synthesizer the name `Options` means the method's own


class Synthesizer(OnArrays):
    """Turns requests into samples. A classic method only overrides `paint`."""

    name: ClassVar[str] = ""
    Options: ClassVar[type[BaseOptions]] = BaseOptions
    # what `train` fits: nothing, one adapter for each defect type, or one model for all; what learns works in batches
    learns: ClassVar[Learns] = "nothing"
    references: ClassVar[References] = "none"  # real defects that an image cannot do without
    home: Any = None  # what a run without a folder of its own lives in, as long as the method does
    imitates: ClassVar[bool] = True  # its images are to look like real defects; else they are signals to train on
    copies: ClassVar[bool] = False  # lays real pixels, so that a copy of a real defect is what it is for
    window_minimum: ClassVar[int] = 64
    window_context: ClassVar[float] = 1.6

    def __init__(self, **options: Any) -> None:
        self.options = self.parse_options(options)

    @property
    def reference_count(self) -> int:
        """Real defects that an image is given where nobody asks for more."""
        return 1

    # -- options ---------------------------------------------------------------------------------------------------

    @classmethod
    def parse_options(cls, given: dict[str, Any], base: BaseOptions | None = None) -> BaseOptions:
        """Check options and fill in defaults (from `base` where given). Raises FlawsmithError naming the field."""
        known = {**(base.model_dump() if base else {}), **given}
        return validated(cls.Options, known, "Option", f"for {cls.name}")

    def types(self, category: str, shown: Sequence[str] = ()) -> tuple[str, ...]:
        """The defect types to make of a category where nobody names one; () = any name will do.

        shown: the types of which there are real examples. Raises FlawsmithError when it can make nothing yet.
        """
        return () if self.references == "none" else tuple(shown)

    def check_type(self, category: str, defect_type: str) -> None:
        """Raises FlawsmithError for a named defect type that it cannot make."""

    def default_category(self) -> str:
        """The category of images that come without one."""
        return ""

    def default_mask(self, defect_type: str) -> str:
        """The mask family (a key of MASKS) used for this defect type when the user names none."""
        return "blob" if self.references == "none" else "reference"

    def spread(self, exemplars: Iterable[Sample], parts: Sequence[str], options: Any = None) -> Spread | None:
        """How far new defects of a type may go beyond its real ones, on the named parts; None: they are as these."""
        chosen = options or self.options
        if not isinstance(chosen, FollowingOptions) or not chosen.growth:
            return None
        return spread_of(exemplars, parts, chosen.growth)

    def default_caption(self, category: str, defect_type: str) -> str:
        """The caption of a request that brings none; "" lets the method write its own."""
        from flawsmith.captions import sentence

        return sentence(category, defect_type)

    def seen(self) -> dict[str, str]:
        """Real defects this synthesizer was trained on, by name and hash: no evaluation may test on them."""
        return {}

    def check_reference(self, reference: Sample, name: str = "The reference") -> None:
        """Raises FlawsmithError saying why this method cannot use a reference; called before any image is made."""

    # -- the job ---------------------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[Request], **options: Any) -> list[Sample]:
        """Make one Sample per Request, in order. `options` override the synthesizer's own for this call."""
        chosen = self.parse_options(options, base=self.options)
        return [self._one(request, chosen) for request in requests]

    def _one(self, request: Request, options: BaseOptions) -> Sample:
        if self.references != "none" and (request.reference is None or not request.reference.mask.any()):
            raise FlawsmithError(
                f"{self.name} needs a reference defect with a mask: name a data set with defects (READER:DIR) or "
                "give --reference and --reference-mask."
            )
        area = compose.window(request.mask, self.window_minimum, self.window_context)
        view = area.slices
        normal, mask = np.ascontiguousarray(request.normal.image[view]), request.mask[view]
        rng = np.random.default_rng(request.seed)
        painted, info = self.paint(normal, mask, request, area, rng, options)
        limits = options.tolerance, options.min_visibility, options.min_share
        if request.severity is not None:
            painted = compose.at_severity(normal, painted, mask, request.severity, *limits)
        elif request.contrast != 1:
            painted = compose.strengthened(normal, painted, mask, request.contrast, *limits)
        done = compose.finish(normal, painted, mask, *limits)
        image = request.normal.image.copy()
        label = np.zeros(request.mask.shape, dtype=bool)
        caption = str(info.pop("caption", request.caption))
        info = {**info, "window": area.as_list(), "scores": done.scores}
        if done.rejected:
            info["rejected"] = done.rejected
        else:
            image[view], label[view] = done.image, done.label
        return Sample(image, label, request.normal.category, request.defect_type, caption, info)

    def paint(
        self,
        normal: np.ndarray,
        mask: np.ndarray,
        request: Request,
        area: compose.Window,
        rng: np.random.Generator,
        options: Any,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Paint one window: normal (h, w, 3) uint8 and mask (h, w) bool are `area` of the request's image and mask.

        Returns the painted window (h, w, 3) uint8, free to differ anywhere (what differs outside the mask is
        undone), and facts for the manifest; a "caption" among them replaces the request's.
        """
        raise FlawsmithError(f"Method {self.name or type(self).__name__} does not paint.")

    # -- disk ------------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `card.json`, enough to rebuild this synthesizer."""
        from flawsmith import __version__

        card = {"method": self.name, "options": self.options.model_dump(mode="json"), "flawsmith": __version__}
        images.write_bytes(Path(folder) / "card.json", (json.dumps(card, indent=2) + "\n").encode())

    @classmethod
    def from_pretrained(cls, folder: str | Path, **place: Any) -> Synthesizer:
        """Rebuild from `save_pretrained`'s folder; `methods.load` finds the class by the card's name.

        place: `device` and `memory` of a diffusion method. Raises FlawsmithError for another method's folder.
        """
        card = read_card(Path(folder))
        if card["method"] != cls.name:
            raise FlawsmithError(
                f"{Path(folder) / 'card.json'} is of method {card['method']!r}, not {cls.name!r}: "
                "load it with flawsmith.load(folder)."
            )
        return cls(**card.get("options", {}))


def read_card(folder: Path) -> dict[str, Any]:
    """The content of `folder/card.json`. Raises FlawsmithError when it is missing or damaged."""
    path = folder / "card.json"
    try:
        card: dict[str, Any] = inputs.parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(card["method"], str):
            raise ValueError("it names no method")
        learned = [*card.get("learned", {}).values()]
        kinds = [
            (card.get("options", {}), dict),
            (card.get("backbone", ""), str),
            (card.get("config") or {}, dict),
            *((one, dict) for one in learned),
        ]
        kinds += [kind for one in learned for kind in ((one["support"], dict), (one["file"], str))]
        if not all(isinstance(value, kind) for value, kind in kinds):
            raise ValueError("it holds values of another kind")
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise FlawsmithError(
            f"{path} is not a flawsmith checkpoint card ({error}): name the folder of a trained run."
        ) from error
    return card
