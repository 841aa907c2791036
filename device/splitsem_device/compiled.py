"""Calls the C functions of this package by ctypes, which gives up the GIL meanwhile; arrays are passed as they lie.

``build_backend.py`` compiles the C files beside this one into the library as the package is installed.
"""

import ctypes
import functools
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from splitsem_device.errors import ConfigError
from splitsem_device.sources import LIBRARY, digest

_NO_MEMORY, _NO_SUCH_TABLE = -2, -3  # what a function returns when malloc failed, or when a context has no table


class Array:
    """The type of an array argument: C order, this dtype, and writable where the function writes it."""

    def __init__(self, dtype: DTypeLike, *, is_written: bool = False) -> None:
        self._dtype = np.dtype(dtype)
        self._is_written = is_written

    def from_param(self, array: Any) -> Any:
        """What ctypes passes for an array; it raises ArgumentError of this TypeError."""
        flags = array.flags
        if array.dtype != self._dtype or not flags.c_contiguous or (self._is_written and not flags.writeable):
            kind = "writable " if self._is_written else ""
            raise TypeError(f"expected a {kind}{self._dtype} array in C order, got {array.dtype} {array.shape}")
        if array.size == 0:
            return None
        if flags.writeable:  # three times as fast as what follows
            return ctypes.byref(ctypes.c_char.from_buffer(array))
        return ctypes.c_void_p(array.ctypes.data)


class Function:
    """One C function, looked up when it is first called; it takes arrays and numbers and returns an int64."""

    def __init__(self, name: str, *parameters: Any) -> None:
        self._name = name
        self._parameters = parameters

    @functools.cached_property
    def _call(self) -> Any:
        function = library()[self._name]
        function.argtypes, function.restype = self._parameters, ctypes.c_int64
        return function

    def __call__(self, *arguments: Any) -> int:
        """Call it. Raises MemoryError where C had no memory to work in, ValueError for contexts without a table."""
        result = int(self._call(*arguments))
        if result == _NO_MEMORY:
            raise MemoryError(f"{self._name} had no memory to work in")
        if result == _NO_SUCH_TABLE:
            raise ValueError(f"{self._name}: levels and classes must be those of the tables, got larger ones")
        return result


@functools.cache
def library() -> ctypes.CDLL:
    """The library. Raises ConfigError when it is missing, for another processor, or made of other C files."""
    remedy = "`make setup` builds it, or python -m pip install --editable device"
    if not LIBRARY.exists():
        raise ConfigError(f"the compiled coders are missing, {LIBRARY}: {remedy}")
    try:
        loaded = ctypes.CDLL(str(LIBRARY))
        made_of = (ctypes.c_char * 64).in_dll(loaded, "splitsem_sources").value  # a SHA-256 in hexadecimal
    except (OSError, ValueError) as exc:
        raise ConfigError(f"the compiled coders cannot be loaded ({exc}): {remedy}") from exc
    if made_of != digest().encode():
        raise ConfigError(f"the compiled coders were made of other C files, {LIBRARY}: {remedy}")
    return loaded
