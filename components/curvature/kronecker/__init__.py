"""Kronecker factors: which layers have them, and the passes that make them."""
