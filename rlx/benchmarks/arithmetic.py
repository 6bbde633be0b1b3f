"""The embedded task: 500 held-out sums of two two-digit numbers."""

from __future__ import annotations

from rlx.benchmarks.benchmark import Benchmark
from rlx.registry import register


@register("benchmark", paper="no paper: rlx.data.arithmetic")
def arithmetic() -> Benchmark:
    """500 held-out sums of two two-digit numbers, which come with the package."""
    return Benchmark(
        hub="arithmetic",
        rows=500,
        sha256="295803c980e570cf7536a7c540fd999391c9dc6db896b0a6b4113a4b78c7703f",
        sequence="836a4845121a025199eeaf7208f999d66ae31ac037b9a02b5fd56f20fec12e6f",
        prompt="{problem}",
        grader="arithmetic",
        longest=24,
    )
