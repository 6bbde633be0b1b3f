"""AIME I and II of 2026: 30 problems with integer answers."""

from __future__ import annotations

from rlx.benchmarks.benchmark import Benchmark
from rlx.registry import register


@register("benchmark", paper="no paper: AIME contest")
def aime26() -> Benchmark:
    """AIME I and II of 2026: 30 problems with integer answers.

    Revision: no commit could be verified, so the hash alone pins the set.
    """
    return Benchmark(
        hub="MathArena/aime_2026",
        rows=30,
        sha256="8c77194a1270ffd232bb6a952391ba75513f8986c8423821bbd331a62cfe55b5",
        sequence="94f8fc6fe3796ebe9a7db6fd1bee98485f9e9145c09e415e7c048063fadf6229",
        split="train",
    )
