"""flawsmith: defect images with pixel-exact masks and captions, from photographs of good parts.

The public names below are resolved on first use, so that importing the package stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "FlawsmithError": "flawsmith.errors",
    "Record": "flawsmith.records",
    "Sample": "flawsmith.records",
    "Job": "flawsmith.records",
    "Request": "flawsmith.records",
    "Samples": "flawsmith.methods.samples",
    "read": "flawsmith.datasets",
    "few_shot": "flawsmith.datasets.splits",
    "load": "flawsmith.methods",
    "fit": "flawsmith.training",
    "generate": "flawsmith.generation",
    "evaluate": "flawsmith.evaluation",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604 - resolved lazily below


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'flawsmith' has no attribute {name!r}")
