"""The names users may rely on. Adding one is a decision; losing one is a break."""

from __future__ import annotations

from pathlib import Path

import flawsmith
from flawsmith.config import CompareConfig
from flawsmith.datasets import DATASETS
from flawsmith.masks import MASKS
from flawsmith.methods import METHODS


def test_public_names() -> None:
    assert set(flawsmith.__all__) == {
        *("__version__", "FlawsmithError", "Job", "Record", "Request", "Sample", "Samples"),
        *("evaluate", "few_shot", "fit", "generate", "load", "read"),
    }
    for name in flawsmith.__all__:
        assert getattr(flawsmith, name) is not None


def test_tables() -> None:
    assert set(DATASETS) == {
        *("btad", "coco", "folder", "ksdd", "ksdd2", "labelme", "mpdd", "mvtec_ad", "mvtec_ad2", "mvtec_loco"),
        *("cvat", "datumaro", "hf_dataset", "label_studio", "real_iad", "visa", "voc", "webdataset", "yolo"),
    }
    assert set(MASKS) == {
        *("blob", "box", "polygon", "perlin", "scratch", "crack", "spots"),
        *("component", "learned", "reference", "varied", "whole"),
    }
    assert set(METHODS) == {
        *("analogy", "anomalycontrol", "anomalyxfusion", "copypaste", "cutpaste", "inpaint", "nsa", "perlin"),
        "procedural",
    }


def test_a_comparison_judges_every_method_where_none_is_named() -> None:
    arms = CompareConfig(real="mvtec_ad:data", out=Path("results")).arms
    assert arms[0] == "real" and sorted(arms[1:]) == sorted(METHODS)
