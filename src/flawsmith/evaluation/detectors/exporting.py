"""The trained segmenter for the line: safetensors, ONNX, OpenVINO; every export is run and must agree with torch.

An export takes (B, 3, H, W) float32 in [-1, 1] (pixel / 127.5 - 1), H and W multiples of 32, and gives the anomaly map
(B, 1, H, W) in [0, 1]. segmenter.json says how images are shrunk first and which threshold validation chose.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from flawsmith import images
from flawsmith.datasets.lock import PARTIAL
from flawsmith.diffusion import compiled as runtime
from flawsmith.errors import FlawsmithError, unknown
from flawsmith.evaluation.detectors import pyramid
from flawsmith.evaluation.detectors.networks import NETWORKS
from flawsmith.evaluation.detectors.segmentation import SegmentationConfig, Trained

FORMATS = ("onnx", "openvino")
NEEDED = {"onnx": ("onnx", "onnxruntime"), "openvino": ("openvino",)}
TOLERANCE = 1e-4  # of an anomaly map in [0, 1]
SIZES = ((96, 128), (64, 64))  # of the images that must agree: two, so that a fixed size would be noticed


class _Map(nn.Module):
    """The segmenter with its sigmoid: what a line wants is the map."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image).sigmoid()


def check(formats: tuple[str, ...]) -> None:
    """Refuse, before any training, a format that is unknown or whose packages are missing."""
    from importlib.util import find_spec

    for name in formats:
        if name not in FORMATS:
            raise unknown("Export format", name, FORMATS)
        for package in NEEDED[name]:
            if find_spec(package) is None:
                raise FlawsmithError(
                    f"Export to {name} needs {package}, which is not installed: pip install 'flawsmith[{name}]'."
                )


def save_segmenter(trained: Trained, folder: Path, threshold: float | None = None) -> None:
    """Write segmenter.safetensors and segmenter.json."""
    weights = {name: value.detach().cpu().contiguous() for name, value in trained.model.state_dict().items()}
    images.write_bytes(folder / "segmenter.safetensors", save(weights), folder / PARTIAL)
    about = {
        "config": asdict(trained.config),
        "selected": trained.selected,
        "step": trained.step,
        "threshold": threshold,
        "input": "(B, 3, H, W) float32, pixel / 127.5 - 1, sides padded to multiples of 32",
        "output": "(B, 1, H, W) anomaly map in [0, 1]",
    }
    images.write_bytes(folder / "segmenter.json", (json.dumps(about, indent=2) + "\n").encode(), folder / PARTIAL)


def load_segmenter(folder: Path) -> Trained:
    """What `save_segmenter` wrote, on the CPU. Raises FlawsmithError naming the file that is missing or damaged."""
    try:
        about = json.loads((folder / "segmenter.json").read_text(encoding="utf-8"))
        config = SegmentationConfig(**{**about["config"], "device": "cpu"})
        model = pyramid.build(config) if config.encoder else NETWORKS[config.network]()
        model.load_state_dict(load_file(folder / "segmenter.safetensors"))
        return Trained(model.eval(), about["selected"], about["step"], config)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise FlawsmithError(f"{folder} holds no whole segmenter ({error}): run evaluate again.") from error


def export(trained: Trained, folder: Path, formats: tuple[str, ...]) -> dict[str, Any]:
    """Write segmenter.onnx or segmenter.xml and .bin; returns format -> {file, largest difference to torch}.

    Raises FlawsmithError when a package is missing, or when an export disagrees with torch by more than 1e-4.
    """
    check(formats)
    model = _Map(trained.model).cpu().float().eval()
    rng = np.random.default_rng(0)
    examples = [rng.uniform(-1, 1, (2, 3, *size)).astype(np.float32) for size in SIZES]
    with torch.no_grad():
        wanted = [model(torch.from_numpy(x)).numpy() for x in examples]
    report: dict[str, Any] = {}
    for name in formats:
        path, found = (_onnx if name == "onnx" else _openvino)(model, folder, examples)
        difference = max(float(np.abs(a - b).max()) for a, b in zip(wanted, found, strict=True))
        if difference > TOLERANCE:
            raise FlawsmithError(
                f"{path} differs from torch by {difference:.2g}, {TOLERANCE:g} is allowed: do not use it."
            )
        report[name] = {"file": path.name, "largest_difference": difference}
    return report


def _onnx(model: nn.Module, folder: Path, examples: list[np.ndarray]) -> tuple[Path, list[np.ndarray]]:
    import onnxruntime

    content, axes = io.BytesIO(), {0: "batch", 2: "height", 3: "width"}
    torch.onnx.export(
        model,
        (torch.from_numpy(examples[0]),),
        content,  # type: ignore[arg-type]
        input_names=["image"],
        output_names=["anomaly_map"],
        dynamic_axes={"image": axes, "anomaly_map": axes},
        opset_version=17,
        dynamo=False,  # the newer exporter needs one package more
    )
    path = folder / "segmenter.onnx"
    images.write_bytes(path, content.getvalue(), folder / PARTIAL)
    session = onnxruntime.InferenceSession(content.getvalue(), providers=["CPUExecutionProvider"])
    return path, [session.run(None, {"image": x})[0] for x in examples]


def _openvino(model: nn.Module, folder: Path, examples: list[np.ndarray]) -> tuple[Path, list[np.ndarray]]:
    openvino = runtime.openvino()
    converted = openvino.convert_model(model, example_input=torch.from_numpy(examples[0]), input=[-1, 3, -1, -1])
    path = folder / "segmenter.xml"
    openvino.save_model(converted, path, compress_to_fp16=False)
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return path, [np.asarray(compiled(x)[0]) for x in examples]
