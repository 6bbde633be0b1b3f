"""HMMT November 2025: 30 problems."""

from __future__ import annotations

from rlx.benchmarks.benchmark import Benchmark
from rlx.registry import register


@register("benchmark", paper="no paper: HMMT contest")
def hmmt25_nov() -> Benchmark:
    """HMMT November 2025: 30 problems.

    Revision: no commit could be verified, so the hash alone pins the set.
    """
    return Benchmark(
        hub="MathArena/hmmt_nov_2025",
        rows=30,
        sha256="e2e5136ce67097c7f1cda90a16b5d7e0452af5a3c1632b78b3c33d477950bb15",
        sequence="79beca9504b0f0478f8d5895e77e1253a19f155104b91225869d0cb02b9fe412",
        split="train",
        bad_golds=frozenset({"d2a1a63ec6f2"}),
    )
