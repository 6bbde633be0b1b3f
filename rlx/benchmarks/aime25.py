"""AIME I and II of 2025: 30 problems with integer answers."""

from __future__ import annotations

from rlx.benchmarks.benchmark import Benchmark
from rlx.registry import register


@register("benchmark", paper="no paper: AIME contest")
def aime25() -> Benchmark:
    """AIME I and II of 2025: 30 problems with integer answers.

    Revision: no commit could be verified, so the hash alone pins the set.
    """
    return Benchmark(
        hub="MathArena/aime_2025",
        rows=30,
        sha256="1f3890d032cc0c349a4e4ffb91b3b6cbae9d976ad3d943ad41619c005e204104",
        sequence="d77b8e2276d51837b5570b0239b5041ced1011f1f2ba2d9f886965cef7483c73",
        split="train",
    )
