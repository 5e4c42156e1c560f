"""Data sets in other tools' formats: name to the class that writes it. See `exports.run.export`."""

from __future__ import annotations

FORMATS: dict[str, str] = {
    "coco": "flawsmith.datasets.exports.coco:Coco",
    "labelme": "flawsmith.datasets.exports.labelme:LabelMe",
    "mvtec": "flawsmith.datasets.exports.mvtec:Mvtec",
    "voc": "flawsmith.datasets.exports.voc:Voc",
    "yolo": "flawsmith.datasets.exports.yolo:Yolo",
    "yolo-seg": "flawsmith.datasets.exports.yolo:YoloSeg",
}
