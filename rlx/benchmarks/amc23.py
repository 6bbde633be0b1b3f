"""AMC 12 of 2023: the 40 problems whose answers are integers."""

from __future__ import annotations

from rlx.benchmarks.benchmark import Benchmark
from rlx.registry import register


@register("benchmark", paper="no paper: AMC contest")
def amc23() -> Benchmark:
    """AMC 12 of 2023: the 40 problems whose answers are integers.

    Revision: the hub's mirror words some problems otherwise than the AoPS wiki, which the reviewed rows follow.
    """
    return Benchmark(
        hub="math-ai/amc23",
        rows=40,
        sha256="c44c641491ce424043ffcb31c7cab12c55f5381f673d48aed2533914a1745dc1",
        sequence="d78a4bf57ce305fe79e98f801eeb7bf49e401c491f466b0ad1fb549fe0438f3b",
        problem="question",
    )
