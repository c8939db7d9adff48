"""Training a model, and training it again without what was removed."""
