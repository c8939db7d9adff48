"""Compile the CPU kernels before the first selection: `python -m oubli.components.lfoci.warming`.

numba keeps what it compiled for this machine's processor, and finds it again in every later process.
"""

from __future__ import annotations

import numpy as np

from oubli.components.lfoci.foci import l_foci

_ROWS, _COLUMNS = 64, 16  # any table of at most 65,535 rows: more rows are numbered by another type


def warm() -> None:
    """Run a small selection, which compiles every kernel that is not found in the cache."""
    generator = np.random.default_rng(0)
    table = generator.normal(size=(_ROWS, _COLUMNS))
    l_foci(table, table[:, 0] * table[:, 1], generator=generator)


if __name__ == "__main__":
    warm()
