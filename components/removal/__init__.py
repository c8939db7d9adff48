"""The ways to remove samples from a trained model."""
