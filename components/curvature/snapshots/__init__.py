"""Curvature that is kept from training, so that a removal needs the removed samples alone."""
