"""How the kernels of the CPU engine are compiled and cached.

Kernels are compiled when first called, which takes seconds, and cached: beside their file or, where that is read-only,
in the user's cache folder (NUMBA_CACHE_DIR names another). What takes longest to compile are numpy's own algorithms and
the errors that they raise, as of partition or of an assignment to a slice: kernels call none of them.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Rows = NDArray[np.unsignedinteger]
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled_with(*parts: ModuleType) -> Callable[[Kernel], Kernel]:
    """A decorator for the kernels of one module: each is compiled on its first call, while other threads run Python.

    Args:
        parts: the other modules whose code is compiled into these kernels. numba notices by itself only that the
            kernel's own file has changed.
    """
    sources = "".join(inspect.getsource(part) for part in parts)
    digest = hashlib.sha256(sources.encode()).hexdigest()[:12]

    def compiled(function: Kernel) -> Kernel:
        function.__qualname__ = f"{function.__name__}_{digest}"  # part of the cache's file names
        try:
            return cast(Kernel, njit(nogil=True, error_model="numpy", cache=True)(function))
        except RuntimeError:
            # Neither this folder nor the user's cache folder can be written: each process compiles for itself.
            return cast(Kernel, njit(nogil=True, error_model="numpy")(function))

    return compiled
