"""The 1319 test problems of GSM8K (2110.14168)."""

from __future__ import annotations

from rlx.benchmarks.benchmark import Benchmark
from rlx.registry import register


@register("benchmark", paper="2110.14168")
def gsm8k() -> Benchmark:
    """The 1319 test problems of GSM8K (2110.14168).

    Revision: the commit that UKGovernmentBEIS/inspect_evals pins.
    """
    return Benchmark(
        hub="openai/gsm8k",
        rows=1319,
        sha256="2ebc4d05706560df9bae03f2d28494ab7e67c9cab2d2c1b11cc10ec85ed8de00",
        sequence="3e7277e8ae60eab4406ea00d9b065ca476e88bfe6daa18ab5a4408cf02ca89e4",
        subset="main",
        revision="cc7b047b6e5bb11b4f1af84efc572db110a51b3c",
        problem="question",
        answer_format="gsm8k_hash",
    )
