"""674 text-only open-ended English mathematics problems of OlympiadBench (2402.14008)."""

from __future__ import annotations

from rlx.benchmarks.benchmark import Benchmark
from rlx.registry import register


@register("benchmark", paper="2402.14008")
def olympiadbench() -> Benchmark:
    """674 text-only open-ended English mathematics problems of OlympiadBench (2402.14008).

    Revision: no commit could be verified, so the hash alone pins the set.
    """
    return Benchmark(
        hub="Hothan/OlympiadBench",
        rows=674,
        sha256="407d084a46655654e3e662f6b26df3319bc9a1fdee2697b3e0c5be9c219c2c90",
        sequence="0fe7239e945f51c0ad406c47db31c4403ae9917da06bc9095a2c0965acfe9ad9",
        subset="OE_TO_maths_en_COMP",
        split="train",
        problem="question",
        answer="final_answer",
        left_out=frozenset({"b85e740c99e1"}),
        bad_golds=frozenset({"17abaa8efc26", "58470f07a803", "8a0661372c3d"}),
    )
