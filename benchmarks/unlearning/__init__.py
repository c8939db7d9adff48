"""The removal update against retraining: `python -m benchmarks.unlearning`.

See benchmarks/unlearning/README.md for what is measured, and how to read it.
"""
