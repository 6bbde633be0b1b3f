"""AIME I and II of 2024: 30 problems with integer answers."""

from __future__ import annotations

from rlx.benchmarks.benchmark import Benchmark
from rlx.registry import register


@register("benchmark", paper="no paper: AIME contest")
def aime24() -> Benchmark:
    """AIME I and II of 2024: 30 problems with integer answers.

    Revision: the commit as other public evaluations pin it; the reviewed rows follow the AoPS wiki, so the mirror may
    word a problem otherwise.
    """
    return Benchmark(
        hub="HuggingFaceH4/aime_2024",
        rows=30,
        sha256="c12ff955488cffaefe616a23faee3e0c881e41f002b87f9749936f2d07a26ad4",
        sequence="2bfabc9ca1606ced9b733add43a1c1c9d44b20a5693dab8af5ac5258ef0d0595",
        split="train",
        revision="e6cf0cd64082ada1c025717826bd40e155b1ec81",
    )
