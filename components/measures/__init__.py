"""Figures of a model, and of what is left of the removed samples in it."""
