"""How a process on a CPU holds its memory."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``."""
LARGEST = 1 << 25
"""Bytes up to which a block is kept: what glibc allows at most. Without any limit an update of SmolLM2-135M took a
tenth less time, and the process grew by 1.5 GiB, for large blocks leave gaps (experiments/perf/profile.md)."""


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed instead of giving it back to the system at once.

    By default glibc gives large blocks back, and the system fills each page of the next one with zeros: in an update of
    SmolLM2-135M a third of the time went there. The price is that a process stays as large as it once was. GPUs have
    torch's own caching allocator.

    Returns:
        Whether there was such a library to tell.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST)) and bool(mallopt(TRIM_THRESHOLD, 2**31 - 1))
