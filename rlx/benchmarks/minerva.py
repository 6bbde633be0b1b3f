"""272 problems of MIT OpenCourseWare (Minerva, 2206.14858)."""

from __future__ import annotations

from rlx.benchmarks.benchmark import Benchmark
from rlx.registry import register


@register("benchmark", paper="2206.14858")
def minerva() -> Benchmark:
    """272 problems of MIT OpenCourseWare (Minerva, 2206.14858).

    Revision: no commit could be verified, so the hash alone pins the set.
    """
    return Benchmark(
        hub="math-ai/minervamath",
        rows=272,
        sha256="54c86f25c3ab371c2e293d784c576ee262511118563dc707ae04c2b52e4e3113",
        sequence="da9c79c39a33744b157974477822b0d7261b77d11be459109c1ac10dd1a308a5",
        problem="question",
        bad_golds=frozenset(
            {"0d0c1328e760", "1715bb722b1a", "35d58fd1b5e6", "545f26421b38", "8291300559fe", "c8df7e82c839"}
        ),
    )
