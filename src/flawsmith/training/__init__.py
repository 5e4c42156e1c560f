"""Fits: what is learned from, how, and what survives a kill."""
