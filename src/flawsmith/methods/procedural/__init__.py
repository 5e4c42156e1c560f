"""Parametric painters with captions from the same parameters."""
