"""Curvature of the mean loss, restricted to a block of the parameters. One kind of curvature per module."""
