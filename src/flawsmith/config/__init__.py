"""Run configurations: everything a command was told, checked before anything slow starts."""

from flawsmith.config.evaluation import EVERYTHING, CompareConfig, EvaluateConfig, JudgingConfig
from flawsmith.config.generation import GATED_REDRAWS, GenerateConfig
from flawsmith.config.loading import by_type, load, overlay, refused, validated
from flawsmith.config.training import TrainConfig
from flawsmith.config.values import OF_METHODS, SETTINGS, Amount, Count, Counts, Rate, Share, Span, Told, Whole

__all__ = [
    "EVERYTHING",
    "GATED_REDRAWS",
    "OF_METHODS",
    "SETTINGS",
    "Amount",
    "CompareConfig",
    "Count",
    "Counts",
    "EvaluateConfig",
    "GenerateConfig",
    "JudgingConfig",
    "Rate",
    "Share",
    "Span",
    "Told",
    "TrainConfig",
    "Whole",
    "by_type",
    "load",
    "overlay",
    "refused",
    "validated",
]
