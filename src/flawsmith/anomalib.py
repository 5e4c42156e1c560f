"""A data module for anomalib: any readable data set, with generated defects where a detector may see them.

    from flawsmith.anomalib import DataModule
    Engine().fit(Padim(), datamodule=DataModule("mvtec_ad:data/bottle", "painted"))

Needs `flawsmith[anomalib]`; nothing else of flawsmith imports this module.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flawsmith.datasets.exports import one_class, sources
from flawsmith.errors import FlawsmithError
from flawsmith.records import Record

try:
    import torch
    from anomalib.data import AnomalibDataModule, AnomalibDataset, ImageItem
    from pandas import DataFrame
    from torchvision.transforms.v2.functional import to_dtype, to_image
    from torchvision.tv_tensors import Mask
except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
    raise FlawsmithError(
        f"anomalib cannot be imported ({error}): pip install 'flawsmith[anomalib]', with a torchvision that fits torch."
    ) from error

log = logging.getLogger(__name__)


class Records(AnomalibDataset):
    """Records as anomalib's items: image (3, H, W) float in [0, 1], mask (H, W) uint8; whatever the reader was."""

    def __init__(self, records: Sequence[Record], task: str) -> None:
        super().__init__()
        self.records = {str(record.image): record for record in records}
        rows = [(path, record.defect_type, int(not record.is_good)) for path, record in self.records.items()]
        samples = DataFrame(rows, columns=["image_path", "label", "label_index"]).astype({"label_index": "Int64"})
        self.samples = samples.assign(split="", mask_path="")
        self.samples.attrs["task"] = task

    def __getitem__(self, index: int) -> ImageItem:
        row = self.samples.iloc[index]
        sample = self.records[row.image_path].load()
        image = to_dtype(to_image(sample.image.copy()), torch.float32, scale=True)
        mask = Mask(torch.from_numpy(sample.mask.astype("uint8")))
        if self.augmentations:
            image, mask = self.augmentations(image, mask)
        marked = mask if self.samples.attrs["task"] == "segmentation" else None
        return ImageItem(
            image=image, gt_mask=marked, gt_label=torch.tensor(int(row.label_index)), image_path=row.image_path
        )


class DataModule(AnomalibDataModule):
    """Real images and generated defects for anomalib's models.

    real: READER:DIR or a folder. generated: folders that `flawsmith generate` has written. category: needed where the
    data set has several.

    supervised False, for one-class models: good images train, generated defects validate on good images that are held
    out, real defects test; see `datasets.exports.one_class`. supervised True, for models that learn from defects:
    generated defects train, validation and test are real, as in `flawsmith export --merge`; `split` is its rule. A
    model that learns good images only is refused then, before it trains.

    val, test: shares, in (0, 1). Further options are AnomalibDataModule's: batch sizes, workers, augmentations. Raises
    FlawsmithError as the readers do, and for a division that leaves nothing to train or validate.
    """

    def __init__(
        self,
        real: str | Path,
        generated: str | Path | Sequence[str | Path] = (),
        category: str | None = None,
        supervised: bool = False,
        split: str | None = None,
        val: float = 0.2,
        test: float = 0.2,
        seed: int = 0,
        group_by: str = "group",
        train_batch_size: int = 32,
        eval_batch_size: int = 32,
        num_workers: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(train_batch_size, eval_batch_size, num_workers, seed=seed, **options)
        if not (val > 0 and test >= 0 and val + test < 1):
            raise FlawsmithError(f"val={val:g} and test={test:g} are shares: val above 0, together less than 1.")
        made = [generated] if isinstance(generated, (str, Path)) else list(generated)
        found = sources.read([real, *made], category, group_by)
        bare = [root for root in found.roots[1:] if not any(root in image.parents for image in found.lines)]
        if bare:
            raise FlawsmithError(f"{bare[0]} holds no image that flawsmith has generated: name it as `real`.")
        names = sorted({record.category for record in found.records})
        if len(names) > 1:
            raise FlawsmithError(f"{real} shows several products, {', '.join(names)}: name one with category=.")
        if supervised:
            chosen = sources.divide(found, split, val, test, seed)
        else:
            chosen = one_class.divide(found, val, test, seed)
        self.supervised, self.category = supervised, names[0]
        sides = {side: [r for r in found.records if chosen.get(r.image) == side] for side in ("train", "val", "test")}
        self._refuse_empty(sides, real)
        for note in found.notes:
            log.info(note)
        unmarked = [record for side in sides.values() for record in side if not record.is_good and not record.masks]
        if unmarked:
            log.warning(f"{len(unmarked)} defect images have no mask (the first: {unmarked[0].name}): labels only.")
        task = "classification" if unmarked else "segmentation"
        self.train_data, self.val_data, self.test_data = (Records(records, task) for records in sides.values())

    @property
    def name(self) -> str:
        """What anomalib calls the data set, in its folders of results."""
        return "flawsmith"

    @staticmethod
    def _refuse_empty(sides: dict[str, list[Record]], real: str | Path) -> None:
        for side, records in sides.items():
            if not records:
                raise FlawsmithError(
                    f"{real} leaves no image for {side}: give another share of val or test, or a data set with more "
                    "parts (of every type one part trains)."
                )

    def _setup(self, _stage: str | None = None) -> None:
        """The division was made when the module was."""

    def _create_test_split(self) -> None: ...

    def _create_val_split(self) -> None: ...

    def train_dataloader(self) -> Any:
        self.refuse_anomalies()
        return super().train_dataloader()

    def refuse_anomalies(self) -> None:
        """Raise FlawsmithError where the trainer's model learns good images only, and defects would train."""
        model: Any = getattr(self.trainer, "lightning_module", None)
        kinds = Counter(self.train_data.samples.label[self.train_data.samples.label_index == 1])
        if not kinds or not hasattr(model, "learning_type") or getattr(model, "supervised", False):
            return
        told = ", ".join(f"{kind}: {count}" for kind, count in kinds.most_common(5))
        raise FlawsmithError(
            f"{type(model).__name__} learns good images only ({model.learning_type.value}), and "
            f"{sum(kinds.values())} of {len(self.train_data)} training images show defects ({told}). Give "
            "DataModule(..., supervised=False), where generated defects validate; or a model that learns from defects, "
            "as Supersimplenet(supervised=True) does."
        )
