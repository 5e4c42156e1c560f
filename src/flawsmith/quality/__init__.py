"""The quality gate: an image leaves flawsmith only when it has earned it. Nothing here imports torch."""

from __future__ import annotations

from flawsmith.quality.gate import CHECKS, Check, Gate, Level, Refusal, Verdict

__all__ = ["CHECKS", "Check", "Gate", "Level", "Refusal", "Verdict"]
