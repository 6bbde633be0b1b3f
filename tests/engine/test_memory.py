"""What a process on a CPU does with memory that is freed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from rlx.engine.cpu.allocator import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    print("none")
    sys.exit()
def use():
    for _ in range(4):
        blocks = [torch.empty(1 << 22).fill_(1) for _ in range(20)]
        del blocks
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
GIVING_BACK = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
"""Left to itself glibc moves its threshold, and what happens to lie at the heap's end decides what it gives back."""


def test_memory_that_is_kept_costs_no_new_pages():
    def faults(how):
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, env=GIVING_BACK
        ).stdout.strip()

    if faults("kept") == "none":
        pytest.skip("the C library has no mallopt")
    assert int(faults("given back")) > 20_000, "20 blocks of 16 MiB are 81,920 pages"
    assert int(faults("kept")) < 1_000
