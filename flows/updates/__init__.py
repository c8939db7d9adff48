"""The ways to make an update: one module for each method."""
