"""Analogy: the texture of real defects in new shapes, without any training."""
