"""The denoiser's network compiled by OpenVINO, with its adapters and the papers' attention, called as the denoiser is.

Only the network is compiled. What the compact denoiser computes around it stays in torch and in float32, as always:
differences of near numbers, which bfloat16 would spoil.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flawsmith.diffusion.adapters import LARGEST, active_adapters
from flawsmith.diffusion.backbone import Backbone
from flawsmith.diffusion.denoise import has_bf16
from flawsmith.errors import FlawsmithError, unknown

__all__ = ["RUNTIMES", "Compiled", "Runtime", "compiled", "described", "openvino"]

Runtime = Literal["torch", "openvino"]
RUNTIMES = ("torch", "openvino")
KEPT = 16  # compiled networks, one for each adapter and lambda; of a denoiser above LARGEST weights one
ROWS = 4  # windows of one call in bfloat16: a fixed number runs 1.15 times as fast as any number, 16 no faster than 4


def openvino() -> Any:
    """The package, without the reports that its converter sends to its makers as soon as it is imported."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
    import openvino as package

    return package


def compiled(backbone: Backbone, runtime: Runtime) -> Compiled | None:
    """What runs in the place of the backbone's denoiser; None = torch itself.

    Raises FlawsmithError where the package is missing, or the denoiser is on a GPU or in half precision.
    """
    if runtime not in RUNTIMES:
        raise unknown("Runtime", str(runtime), RUNTIMES)
    if runtime == "torch":
        return None
    if find_spec("openvino") is None:
        raise FlawsmithError(
            "Runtime 'openvino' needs openvino, which is not installed: pip install 'flawsmith[openvino]', or leave "
            "--runtime out."
        )
    if backbone.device.type != "cpu" or backbone.unet_dtype != torch.float32:
        raise FlawsmithError(
            f"Runtime 'openvino' runs on the CPU, from float32 weights; this denoiser is on {backbone.device} in "
            f"{str(backbone.unet_dtype).removeprefix('torch.')}: leave --runtime or --device out."
        )
    return Compiled(backbone.unet)


def described(backbone: Backbone, running: Compiled | None) -> str:
    """What computes the denoiser, for the manifest: name, version and precision, as "torch 2.13.0+cpu bfloat16"."""
    half = backbone.unet_dtype == torch.float32 and has_bf16(backbone.device)
    precision = "bfloat16" if half else str(backbone.unet_dtype).removeprefix("torch.")
    name = f"torch {torch.__version__}" if running is None else f"openvino {version('openvino')}"
    return f"{name} {precision}"


class Compiled(nn.Module):
    """A denoiser on the CPU whose network OpenVINO computes.

    It is called like the denoiser and gives the same answer up to rounding: inside autocast in bfloat16, else in
    float32. A network is compiled at its first call, and again for other adapters, another lambda or other shapes. In
    bfloat16 it takes `ROWS` windows at a time, the last ones repeated to make up the number; else, and of a denoiser
    above `LARGEST` weights, as many as there are (OpenVINO 2026.4 crashes on a fixed number in float32).
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet
        self._networks: dict[tuple[Any, ...], Callable[[list[Tensor]], tuple[Tensor, ...]]] = {}

    @property
    def attn_processors(self) -> dict[str, Any]:
        found: dict[str, Any] = self.unet.attn_processors
        return found

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Any, return_dict: bool = False) -> Any:
        """sample (B, in_channels, h, w), timestep (B,), states (B, L, D) or the tuple of context and semantic."""
        if hasattr(self.unet, "network"):
            return self.unet(sample, timestep, encoder_hidden_states, return_dict=False, network=self._run)
        return self._run(sample, timestep, encoder_hidden_states)

    def _run(self, x: Tensor, t: Tensor, states: Any) -> tuple[Tensor, ...]:
        given = [x.float(), t, *(s.float() for s in (states if isinstance(states, tuple) else (states,)))]
        half = torch.is_autocast_enabled("cpu")
        key = (half, active_adapters(self.unet), self._weights(), *(tuple(part.shape[1:]) for part in given))
        if key not in self._networks:
            large = sum(p.numel() for p in self.unet.parameters()) > LARGEST
            while len(self._networks) >= (1 if large else KEPT):
                del self._networks[next(iter(self._networks))]
            self._networks[key] = _compile(self.unet, given, half, ROWS if half and not large else None)
        return self._networks[key](given)

    def _weights(self) -> tuple[float, ...]:
        """Every lambda: numbers of the graph, not inputs."""
        return tuple(p.weight for p in self.attn_processors.values() if isinstance(getattr(p, "weight", None), float))


class _Network(nn.Module):
    """The part of a denoiser that is compiled, with tensors as its only arguments."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet
        beside = [part for p in unet.attn_processors.values() for part in vars(p).values()]  # an adapter's own layers
        self.beside = nn.ModuleList(part for part in beside if isinstance(part, nn.Module))

    def forward(self, x: Tensor, t: Tensor, context: Tensor, semantic: Tensor | None = None) -> Any:
        states: Any = context if semantic is None else (context, semantic)
        if hasattr(self.unet, "network"):
            return self.unet.network(x, t, states)
        return self.unet(x, t, encoder_hidden_states=states, return_dict=False)


def _compile(
    unet: Any, given: list[Tensor], half: bool, rows: int | None
) -> Callable[[list[Tensor]], tuple[Tensor, ...]]:
    """The network at the shapes of `given`, for any number of rows; it computes `rows` at a time, None = all."""
    package = openvino()
    two = tuple(part.repeat(2, *[1] * (part.ndim - 1))[:2] for part in given)  # traced with more than one row
    with torch.no_grad(), torch.autocast("cpu", enabled=False), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit.trace, which the converter calls
        traced = torch.jit.trace(_Network(unet).eval(), two, check_trace=False)  # the check takes as long as the trace
        model = package.convert_model(traced, example_input=two)
    model.reshape({place: [rows or -1, *part.shape[1:]] for place, part in enumerate(given)})
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    network: Callable[[list[Any]], Any] = package.Core().compile_model(model, "CPU", options)

    def run(given: list[Tensor]) -> tuple[Tensor, ...]:
        count = len(given[0])
        size = rows or count
        answers = []
        for start in range(0, count, size):
            taken = torch.arange(start, start + size).clamp(max=count - 1)
            answer = network([part[taken].numpy() for part in given])
            answers.append([torch.from_numpy(answer[i].copy()) for i in range(len(answer))])  # overwritten next time
        return tuple(torch.cat(parts)[:count] for parts in zip(*answers, strict=True))

    return run
