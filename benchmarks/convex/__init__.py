"""Removal from convex models against retraining to the same distance: how near, how long, and what the factor costs."""
