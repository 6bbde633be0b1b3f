"""HMMT February 2025: 30 problems."""

from __future__ import annotations

from rlx.benchmarks.benchmark import Benchmark
from rlx.registry import register


@register("benchmark", paper="no paper: HMMT contest")
def hmmt25() -> Benchmark:
    """HMMT February 2025: 30 problems.

    Revision: no commit could be verified, so the hash alone pins the set.
    """
    return Benchmark(
        hub="MathArena/hmmt_feb_2025",
        rows=30,
        sha256="85db6f24ec95482ba31e97569135f6eca89899c6d821d494135d30cd46dc4240",
        sequence="95e44bd77c61459363e9627c2874d46f2482acc77d862e068e902c7a6d31f612",
        split="train",
        file="hmmt25_feb",
    )
