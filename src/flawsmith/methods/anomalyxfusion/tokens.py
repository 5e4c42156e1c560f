"""What a defect is called (semantic tokens) and what it looks like (texture tokens).

Reference: AnomalyXFusion, multi-modal embeddings; docs/methods/anomalyxfusion.md says where paper and code differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flawsmith.errors import unknown

__all__ = ["NullTokens", "SemanticTokens", "TextureTokens"]


class SemanticTokens(nn.Module):
    """A frozen sentence feature (B, F) -> k equal tokens e_sem (B, k, D), by one trained linear layer."""

    def __init__(self, feature_width: int, width: int, count: int = 4) -> None:
        super().__init__()
        self.count = count
        self.project = nn.Linear(feature_width, width)
        nn.init.normal_(self.project.weight, std=0.02)  # near zero: a fresh method starts near the backbone
        nn.init.zeros_(self.project.bias)

    def forward(self, feature: Tensor) -> Tensor:
        """feature (B, F), not normalised, zeros for no caption; no gradient goes to it."""
        unit = nn.functional.normalize(feature.detach().float(), dim=-1, eps=1e-6)
        return self.project(unit)[:, None].expand(-1, self.count, -1)  # (B, k, D)


class TextureTokens(nn.Module):
    """One entry per "category/defect_type": e_tex = start + P(f) + T, each (k, D).

    start: what every name begins with, the word "anomaly". P(f): a linear layer of the type's image feature f (F,),
    zero at first, so that the start is the released code's. With `identity`, f is already tokens (k, D) and P does
    nothing: the compact backbone's reader was pretrained to turn an image into them. T: learned, zero at first.
    Entries stay on the run, so that generation needs no image of a defect.
    """

    start: Tensor  # (k, D)

    def __init__(self, start: Tensor, feature_width: int, identity: bool = False) -> None:
        super().__init__()
        self.register_buffer("start", start.detach().clone())
        self.project = nn.Identity() if identity else nn.Linear(feature_width, start.numel())
        if isinstance(self.project, nn.Linear):
            nn.init.zeros_(self.project.weight)
            nn.init.zeros_(self.project.bias)
        self.feature_width = feature_width
        self.names: list[str] = []
        self.table = nn.ParameterList()  # T

    def add(self, name: str, feature: Tensor | None) -> None:
        """A new name with its feature (F,), or None where weights are loaded next."""
        self.names.append(name)
        self.table.append(nn.Parameter(torch.zeros_like(self.start)))
        stored = torch.zeros(self.feature_width) if feature is None else feature.detach().float().reshape(-1)
        self.register_buffer(f"feature_{len(self.names) - 1}", stored.to(self.start.device))

    def index(self, name: str) -> int:
        """Where a name stands. Raises FlawsmithError listing the known ones."""
        if name not in self.names:
            raise unknown("Defect", name, self.names, "in this run")
        return self.names.index(name)

    def forward(self, names: Sequence[str], null: Tensor) -> Tensor:
        """Tokens (B, k, D) of the names; `null` (k, D) for rows whose name is empty."""
        rows = []
        for name in names:
            if not name:
                rows.append(null)
                continue
            index = self.index(name)
            projected = self.project(self.get_buffer(f"feature_{index}")).reshape(self.start.shape)
            rows.append(self.start + projected + self.table[index])
        return torch.stack(rows)


class NullTokens(nn.Module):
    """What stands in the tokens' place when they are left out, (N, D): where guidance starts from.

    `start` (N, D) is frozen, what is added to it is learned.
    """

    start: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start.detach().clone())
        self.learned = nn.Parameter(torch.zeros_like(start))

    def forward(self) -> Tensor:
        return self.start + self.learned
