"""SGA: the projection from the semantic feature to the few tokens that the second cross-attention reads.

Reference: He et al. 2024 (AnomalyControl), semantic guided adapter; Ye et al. 2023 (IP-Adapter) for the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flawsmith.diffusion.attention import SemanticAttention
from flawsmith.errors import FlawsmithError

__all__ = ["Resampler", "SemanticProjection", "load_ip_adapter"]


class SemanticProjection(nn.Module):
    """The paper's projection of the mean state: g = W1 f + b1; F_c = LN(reshape(W2 g + b2)).

    states (B, Q, E) -> F_c (B, N, D). The feature of "no reference" is zero, so its tokens are the biases', normed.
    """

    def __init__(self, width: int, context: int, tokens: int = 4, hidden: int = 1024) -> None:
        super().__init__()
        self.tokens, self.context = tokens, context
        self.entry = nn.Linear(width, hidden)  # W1: the only part that starts at random beside IP-Adapter weights
        self.proj = nn.Linear(hidden, tokens * context)  # W2
        self.norm = nn.LayerNorm(context)

    def forward(self, states: Tensor) -> Tensor:
        feature = states.mean(1)  # f (B, E)
        return self.norm(self.proj(self.entry(feature)).unflatten(-1, (self.tokens, self.context)))


class Resampler(nn.Module):
    """Several tokens that each look at all states: the mean forgets which query saw what.

    states (B, Q, E) -> (B, N, D).
    """

    def __init__(self, width: int, context: int, tokens: int = 8, heads: int = 4) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(tokens, width) * width**-0.5)
        self.attend = nn.MultiheadAttention(width, heads, batch_first=True)
        self.before = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.proj = nn.Linear(width, context)
        self.norm = nn.LayerNorm(context)

    def forward(self, states: Tensor) -> Tensor:
        seen = self.before(states)
        asked = self.queries.expand(len(states), -1, -1)
        x = asked + self.attend(asked, seen, seen, need_weights=False)[0]
        return self.norm(self.proj(x + self.mlp(x)))


def load_ip_adapter(path: Path | str, projection: nn.Module, attention: SemanticAttention) -> None:
    """Start from published IP-Adapter weights (`ip-adapter_sd15.safetensors`): W', and W2 and its norm.

    A `Resampler` has no such projection; then only W' is read. Raises FlawsmithError naming the first key that is
    missing, unknown or of another shape; nothing is changed then.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise FlawsmithError(
            f"{path.name} is a pickle, which may run code when it is opened: take the file of the same name that ends "
            "in .safetensors, published beside it."
        )
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FlawsmithError(f"IP-Adapter file {path} cannot be read ({error}).") from error
    targets: dict[str, Any] = {}
    for number, to_k, to_v in zip(attention.positions, attention.to_k_ip, attention.to_v_ip, strict=True):
        targets[f"ip_adapter.{number}.to_k_ip.weight"] = to_k.weight
        targets[f"ip_adapter.{number}.to_v_ip.weight"] = to_v.weight
    if isinstance(projection, SemanticProjection):
        for part, module in (("proj", projection.proj), ("norm", projection.norm)):
            targets[f"image_proj.{part}.weight"], targets[f"image_proj.{part}.bias"] = module.weight, module.bias
    for key, target in targets.items():
        if key not in stored:
            raise FlawsmithError(f"{path.name} has no {key}: it is no IP-Adapter of this backbone's kind.")
        if stored[key].shape != target.shape:
            raise FlawsmithError(
                f"{path.name}: {key} is {tuple(stored[key].shape)}, this backbone needs {tuple(target.shape)}: take "
                "the IP-Adapter for the same Stable Diffusion version (ip-adapter_sd15)."
            )
    foreign = [key for key in stored if key not in targets and not key.startswith("image_proj.")]
    if foreign:
        raise FlawsmithError(f"{path.name}: {foreign[0]} fits nothing in this backbone: it is for another one.")
    with torch.no_grad():
        for key, target in targets.items():
            target.copy_(stored[key])
