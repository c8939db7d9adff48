"""`oubli demo`: the whole job on scikit-learn's bundled handwritten digits."""

from __future__ import annotations


def demo() -> None:
    """Train two models on handwritten digits, remove 25 samples from each, and compare with retraining.

    Needs no server: the object store is a folder and MLflow a file, both under .oubli. Set OUBLI_STORE to
    s3://bucket/prefix to keep objects on S3. Running it again finds everything done.
    """
    from rich.console import Console

    from oubli.cli.demo_job import run_demo
    from oubli.registry.settings import load_settings

    run_demo(Console(), load_settings())
