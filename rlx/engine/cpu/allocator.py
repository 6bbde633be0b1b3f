"""Memory allocation of a CPU process."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``."""
LARGEST = 1 << 25
"""Blocks up to this size (bytes) are kept; it is the largest value that glibc allows. With no limit at all an update of
SmolLM2-135M took a tenth less time, but fragmentation let the process grow by 1.5 GiB (experiments/perf/profile.md)."""


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory instead of returning it to the operating system at once.

    By default glibc returns large blocks, and the operating system zero-fills each page of the next block: a third of
    the time of an update of SmolLM2-135M. The cost is that the process never shrinks. GPUs use torch's own caching
    allocator.

    Returns:
        Whether the C library accepted the setting (glibc does).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST)) and bool(mallopt(TRIM_THRESHOLD, 2**31 - 1))
