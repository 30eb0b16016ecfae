"""What the C library does with memory that a network has freed."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["tune_malloc"]

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's
TRIM_BYTES, MMAP_BYTES = 256 << 20, 32 << 20  # the second is glibc's most


def tune_malloc() -> bool:
    """Keep up to 256 MB of it for the next layer, where the library is glibc; return whether it does.

    Otherwise every layer waits for the system to clear its pages: a small network trains in 1.2 times the time, and
    finds in 2.5 times where Dask has told its workers to give back all at once (RESULTS.md).
    """
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return False
    return bool(library.mallopt(TRIM_THRESHOLD, TRIM_BYTES) and library.mallopt(MMAP_THRESHOLD, MMAP_BYTES))
