"""What glibc's allocator is told, so that buffers of frames are reused; other C libraries do without.

By default glibc gives large buffers back to the system as they are freed, and each frame pays for fresh pages: at
256 KB that is as much time as the call itself (benchmarks/function_calls.py).
"""

import contextlib
import ctypes
import functools
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of malloc.h
_KEPT_BYTES = 64 << 20  # of freed memory, at most
_GIVEN_BACK_BYTES = 128 << 10  # glibc's own at the start of a process
_HEAP_BYTES = 32 << 20  # the most that glibc takes; larger buffers come from the system


@functools.cache
def keep_buffers() -> None:
    """Have this process keep up to 64 MB of freed memory; settings in the environment (``MALLOC_…``) stay."""
    if not any(name.startswith("MALLOC_") for name in os.environ):
        _tell(_M_MMAP_THRESHOLD, _HEAP_BYTES)
        _tell(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def keep_little() -> None:
    """Have this process give freed memory back, and ``keep_buffers`` do nothing: for boards with little memory."""
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(_GIVEN_BACK_BYTES))
    _tell(_M_TRIM_THRESHOLD, _GIVEN_BACK_BYTES)
    _tell(_M_MMAP_THRESHOLD, _GIVEN_BACK_BYTES)  # else glibc raises it to the largest buffer that was freed


def share_arenas() -> None:
    """Have threads share glibc's arenas, one a core: of eight a core each would keep holes of large payloads."""
    _tell(_M_ARENA_MAX, max(2, os.cpu_count() or 2))


def give_memory_back() -> None:
    """Have glibc return what large payloads leave in its arenas."""
    with contextlib.suppress(AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _tell(what: int, value: int) -> None:
    with contextlib.suppress(AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(what, value)
