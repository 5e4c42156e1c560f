"""Figures about images and maps."""
