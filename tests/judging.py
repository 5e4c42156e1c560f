"""Images to be judged, the real ones and an extractor; quick settings, and what a judgement has written."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers

import fakes
from flawsmith.config import GenerateConfig
from flawsmith.generation import run as generation

QUICK = ("--set", "segmentation.steps=6", "--set", "segmentation.batch_size=2", "--set", "segmentation.crop=48")


def folder(root: Path) -> Path:
    """A folder with data/widget, `pasted` (copypaste on it) and the extractor `mobilenet`."""
    data = fakes.mvtec_tree(root / "data", good=6, defects={"crack": 9, "hole": 9}, size=(72, 96), test_good=4)
    generation.run(GenerateConfig(method="copypaste", normal=f"mvtec_ad:{data}", out=root / "pasted", n=6))
    torch.manual_seed(0)
    config = transformers.MobileNetV2Config(depth_multiplier=0.1, image_size=64, num_labels=4, initializer_range=0.3)
    transformers.MobileNetV2ForImageClassification(config).save_pretrained(root / "mobilenet")
    return root


def results(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())
