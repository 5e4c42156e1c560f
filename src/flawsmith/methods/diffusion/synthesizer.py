"""DiffusionSynthesizer: requests to images through a backbone, written once for every diffusion method.

How it paints stands in `painting`; here, what it is made of, what it learns, and how that is kept. Used as it is
(`inpaint`), it paints from words and an optional reference, and `flawsmith train` gives it one adapter per defect
type. One that learns a `model` is one for many categories and types: it also says what is trained (`trainable`) and
how a training batch is conditioned (`training_condition`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from flawsmith import captions
from flawsmith.config import validated
from flawsmith.diffusion.adapters import add_adapter
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.batch import Batch
from flawsmith.diffusion.compiled import Runtime, compiled
from flawsmith.diffusion.denoise import Conditioning
from flawsmith.diffusion.estimate import weight_bytes
from flawsmith.diffusion.memory import batch_that_fits
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.masks.growth import Spread
from flawsmith.methods import base
from flawsmith.methods.analogy.synthesizer import Analogy
from flawsmith.methods.diffusion.options import FAST, REFERENCE, DiffusionConfig, DiffusionOptions
from flawsmith.methods.diffusion.painting import Painting
from flawsmith.records import Sample

BATCH = 8  # windows per forward pass, where the memory allows


class DiffusionSynthesizer(Painting):
    """Paint from words, and from a reference where the backbone can read one, with a frozen backbone."""

    name = "inpaint"
    learns: ClassVar[base.Learns] = "adapters"
    Options: ClassVar[type[base.Options]] = DiffusionOptions
    Config: ClassVar[type[DiffusionConfig]] = DiffusionConfig
    # named settings of `flawsmith train`: fields of FitConfig ("fit"), Config ("config") and Options ("options"); what
    # a preset leaves out is the default's
    presets: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {"default": {}}
    options: Any

    def __init__(
        self,
        backbone: str | Backbone = "compact",
        config: Mapping[str, Any] | DiffusionConfig | None = None,
        device: str | None = None,
        memory: int | None = None,
        runtime: Runtime = "torch",
        **options: Any,
    ) -> None:
        """`device` ("cpu", "cuda") and `memory` (8, 12, 16, 24 GiB) place the backbone; see Backbone.place. `runtime`
        computes the denoiser when images are made: "torch", or "openvino" on the CPU; see diffusion.compiled.
        """
        super().__init__(**options)
        self.config: Any = config if isinstance(config, self.Config) else self.parse_config(dict(config or {}))
        self.backbone = backbone if isinstance(backbone, Backbone) else Backbone.from_pretrained(backbone).freeze()
        self.batch = BATCH  # windows per forward pass
        if device is not None or memory is not None:
            self.backbone.place(device or "cpu", memory)
        self.compiled = compiled(self.backbone, runtime)
        self.adapters: dict[str, str] = {}  # "category/defect" -> name of the attached adapter
        self.lora: dict[str, nn.Parameter] = {}  # the shared adapter of one model for many types, once it is trained
        named = backbone if isinstance(backbone, str) else backbone.source
        self.card: dict[str, Any] = {"method": self.name, "backbone": named, "learned": {}}
        self.folder: Path | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.build()
        if device is not None or memory is not None:
            own = [*self.trainable().values(), *self.encoders().values()]
            self.batch = batch_that_fits(self.backbone, BATCH, beside=sum(weight_bytes(module) for module in own))

    @classmethod
    def parse_config(cls, given: dict[str, Any]) -> DiffusionConfig:
        """Check a Config and fill in defaults. Raises FlawsmithError naming the field."""
        return validated(cls.Config, given, "Setting", f"of {cls.name}'s config")

    @classmethod
    def parse_options(cls, given: dict[str, Any], base: base.Options | None = None) -> base.Options:
        """As every method's; "sampling" names a set of options, on which the others given come on top."""
        rest = dict(given)
        name = rest.pop("sampling", None)
        if name is None:
            return super().parse_options(rest, base)
        presets = {key: preset["options"] for key, preset in cls.presets.items() if "options" in preset}
        known: dict[str, dict[str, Any]] = {"fast": FAST, "reference": REFERENCE, **presets}
        if not isinstance(name, str) or name not in known:
            raise unknown("Sampling", str(name), known, f"of {cls.name}")
        return super().parse_options({**known[name], **rest}, base)

    def types(self, category: str, shown: Sequence[str] = ()) -> tuple[str, ...]:
        return tuple(shown)

    def default_category(self) -> str:
        """The one category that it has learned, if it is one."""
        known = {name.split("/", 1)[0] for name in self.card["learned"]}
        return known.pop() if len(known) == 1 else ""

    def default_mask(self, defect_type: str) -> str:
        return "varied" if self.options.follows else "reference"

    def spread(self, exemplars: Iterable[Sample], parts: Sequence[str], options: Any = None) -> Spread | None:
        """Only of what follows a real defect: what begins from noise is as strong as the method makes it."""
        return super().spread(exemplars, parts, options) if (options or self.options).follows else None

    @property
    def reference_count(self) -> int:
        """As of `analogy`; a method that blends its references reads one where nobody asks for more."""
        return Analogy.shown if self.options.follows and self.references == "none" else 1

    def default_caption(self, category: str, defect_type: str) -> str:
        return "" if self.by_name(category, defect_type) else super().default_caption(category, defect_type)

    def by_name(self, category: str, defect_type: str) -> bool:
        """As of every method: nothing of this name was learned, and it tells a kind."""
        learned = self.learns == "model" or f"{category}/{defect_type}" in self.card["learned"]
        return not learned and bool(captions.kinds_of(defect_type))

    def seen(self) -> dict[str, str]:
        return {name: sha for entry in self.card["learned"].values() for name, sha in entry["support"].items()}

    # -- what a method that learns one model adds ----------------------------------------------------------------------

    def build(self) -> None:
        """Make the method's own modules; called once, with torch's generator seeded by the config."""

    def trainable(self) -> dict[str, nn.Module]:
        """The method's own modules by name: what the optimiser and the checkpoint see. The backbone is not among
        them.
        """
        return {}

    def encoders(self) -> dict[str, nn.Module]:
        """The method's own frozen models by name: readers, feature extractors."""
        return {}

    def extend(self, support: Mapping[str, Sequence[Sample]]) -> None:
        """Make room for new names ("category/defect_type"), starting from their support images; those are empty
        where weights will be loaded next.
        """

    def own(self, name: str) -> list[str]:
        """Parameters (as in `parameters`) that belong to one name alone: what adding it to a finished run trains."""
        return []

    def begin(self) -> None:
        """Start from the files that the config names; called once, before the first fit."""

    def training_condition(self, batch: Batch, t: Tensor) -> Conditioning:
        """What `prepare` and `condition` give for requests, for a training batch, with gradients. Rows of
        `batch.dropped` get the unconditional tokens in place of the method's own.
        """
        raise FlawsmithError(f"Method {self.name} has nothing of its own to train.")

    def remember(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """What the card keeps of a learned type's images, beside the weights."""
        return {}

    def parameters(self) -> dict[str, nn.Parameter]:
        """Everything that is trained, by name: "module.parameter", and the shared adapter's."""
        parts = self.trainable().items()
        found = {f"{part}.{name}": p for part, module in parts for name, p in module.named_parameters()}
        return {**found, **self.lora}

    def add_lora(self) -> None:
        """Attach the config's shared adapter to the denoiser, fresh."""
        if self.config.lora_rank and not self.lora:
            self.lora = add_adapter(self.backbone, "shared", self.config.lora_rank, self.config.seed)

    # -- disk ------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, folder: str | Path, **place: Any) -> DiffusionSynthesizer:
        """Load a run's card, its backbone and what it learned; `device` and `memory` as for a new one. Raises
        FlawsmithError when the backbone is another one.
        """
        from flawsmith.methods.diffusion import runs

        return runs.load(cls, Path(folder), **place)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the card and what was learned; the backbone is named, with its fingerprint, not copied."""
        from flawsmith.methods.diffusion import runs

        runs.save(self, Path(folder))
