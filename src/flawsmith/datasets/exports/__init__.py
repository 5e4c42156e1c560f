"""Data sets in other tools' formats: name to the class that writes it. See `exports.run.export`."""

from __future__ import annotations

FORMATS: dict[str, str] = {
    "coco": "flawsmith.datasets.exports.coco:Coco",
    "datumaro": "flawsmith.datasets.exports.datumaro:Datumaro",
    "hf-dataset": "flawsmith.datasets.exports.hf_dataset:HfDataset",
    "labelme": "flawsmith.datasets.exports.labelme:LabelMe",
    "mvtec": "flawsmith.datasets.exports.mvtec:Mvtec",
    "voc": "flawsmith.datasets.exports.voc:Voc",
    "webdataset": "flawsmith.datasets.exports.webdataset:Webdataset",
    "yolo": "flawsmith.datasets.exports.yolo:Yolo",
    "yolo-seg": "flawsmith.datasets.exports.yolo:YoloSeg",
}
PACKED = ("webdataset",)  # formats of few large files, which go to stores, too
