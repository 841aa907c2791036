"""The decorator of this folder's compiled loops."""

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for speed, without the GIL; kept on disk wherever numba finds a folder that it may write to."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no such folder: package and home are read-only, as in some containers
        return numba.njit(nogil=True)(function)
