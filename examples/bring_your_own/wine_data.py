"""scikit-learn's bundled wine measurements as training data: one row per wine, bottled by a cellar."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from sklearn.datasets import load_wine

_WINES_PER_CELLAR = 6


def table() -> pa.Table:
    wine = load_wine()
    values = (wine.data - wine.data.mean(0)) / wine.data.std(0)
    order = np.random.default_rng(0).permutation(len(values))
    return pa.table(
        {
            "sample_id": [f"wine-{number:03d}" for number in range(len(values))],
            "cellar": [f"cellar-{number // _WINES_PER_CELLAR:02d}" for number in range(len(values))],
            "measurements": pa.array(list(values[order].astype(np.float32))),
            "label": wine.target[order],
            "split": np.where(np.arange(len(values)) % 5 == 0, "test", "train"),
        }
    )
