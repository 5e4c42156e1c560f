"""Training a run's mask model beside its method, on the same support pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flawsmith import images, masks
from flawsmith.config import TrainConfig
from flawsmith.diffusion.mask_model import FILE, LearnedMasks, MaskSettings, fit_folder, learn
from flawsmith.records import Record
from flawsmith.training import support as training_data
from flawsmith.training.windows import FitConfig

if TYPE_CHECKING:
    from flawsmith.training.run import Progress


def train(
    config: TrainConfig,
    fit: FitConfig,
    records: Sequence[Record],
    wanted: Sequence[tuple[str, str]],
    progress: Progress | None,
) -> None:
    """Learn the masks of the wanted types; those the run knows already are learned again together with new ones."""
    known = LearnedMasks.load(config.out).names if (config.out / FILE).is_file() else []
    missing = [(category, defect) for category, defect in wanted if f"{category}/{defect}" not in known]
    if not missing:
        return

    def tell(line: dict[str, Any]) -> None:
        if progress:
            progress("masks", line["step"], fit.mask_steps, line)

    material, seen = {}, {}
    for category, defect in missing:
        support = training_data.support_of(config, records, category, defect)
        samples = [record.load() for record in support]
        material[f"{category}/{defect}"] = [(s, masks.foreground(s.image)) for s in samples if s.mask.any()]
        seen[f"{category}/{defect}"] = {record.name: images.file_sha(record.image) for record in support}
    settings = MaskSettings(steps=fit.mask_steps, seed=fit.seed)
    folder = fit_folder(config.out, len(known) + len(material))
    training_data.same_fit(folder, {"known": known, "support": seen, "fit": asdict(settings)})
    learn(material, config.out, settings, tell)
