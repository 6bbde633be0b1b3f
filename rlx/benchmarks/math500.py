"""500 problems of MATH (2103.03874) with subject and level, the test split of 2305.20050."""

from __future__ import annotations

from rlx.benchmarks.benchmark import Benchmark
from rlx.registry import register


@register("benchmark", paper="2305.20050")
def math500() -> Benchmark:
    """500 problems of MATH (2103.03874) with subject and level, the test split of 2305.20050.

    Revision: the commit as other public evaluations pin it.
    """
    return Benchmark(
        hub="HuggingFaceH4/MATH-500",
        rows=500,
        sha256="7f645575efc1b0006506488e57fa10e847d6dc645c9d1dd683b68530d3fa6dd2",
        sequence="c937add595d4dc32f485cc4f845fcbb1901e4ac5c60c2a3fa36efd2c37bb3ce5",
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        bad_golds=frozenset({"4b1ca7568ed6", "8694f232924a", "8c8d56c75ddc"}),
    )
