"""The shipped backbone's own parts, and where its weights lie."""

from pathlib import Path

SHIPPED = {"compact": Path(__file__).parents[2] / "weights" / "compact"}
