"""`rlx eval --check-benchmarks`: check that every gold parses and is graded right against itself."""

from __future__ import annotations

from collections.abc import Sequence

from rlx.benchmarks.benchmark import Benchmark, Problem, fingerprint
from rlx.console import print_out, table, warn
from rlx.errors import UserError
from rlx.evaluation.problems import load_problems
from rlx.registry import get
from rlx.rewards.by_text import as_integer, cleaned
from rlx.rewards.grade import shared_symbolic_pool
from rlx.rewards.rlx import in_boxes


def check_benchmarks(names: Sequence[str], data_dir: str | None, unpinned: bool) -> int:
    """Check benchmarks and print the result.

    Args:
        names: benchmarks.
        data_dir: folder of local files; None for the hub.
        unpinned: accept sets with other hashes.

    Returns:
        The exit code: 1 if a set is missing or changed, or a gold fails that is not listed as malformed.
    """
    rows, failures = [], 0
    for name in names:
        benchmark: Benchmark = get("benchmark", name, key="benchmark").fn()
        try:
            problems, data_hash = load_problems(name, data_dir, unpinned)
        except UserError as error:
            warn(str(error))
            rows.append([name, "-", "-", "-", "not checked"])
            failures += 1
            continue
        bad = unfit_golds(problems)
        new = [problem.id for problem in bad if fingerprint(problem.text) not in benchmark.bad_golds]
        failures += bool(new)
        for problem in bad:
            expected = "known" if problem.id not in new else "NOT known"
            print_out(
                f"{name}: {problem.id} ({expected}): gold {problem.gold[:80]!r} is not graded right against itself"
            )
        state = "reviewed" if data_hash == benchmark.sha256 else "another set"
        rows.append([name, str(len(problems)), str(len(problems) - len(bad)), str(len(benchmark.bad_golds)), state])
    print_out(table("benchmarks", ["name", "problems", "golds right", "known to be malformed", "data"], rows))
    return 1 if failures else 0


def unfit_golds(problems: Sequence[Problem]) -> list[Problem]:
    """Problems whose gold, used as an answer, is not graded right; integers are compared as text and not checked."""
    to_check = [problem for problem in problems if as_integer(cleaned(problem.gold)) is None]
    verdicts = shared_symbolic_pool().compare([in_boxes(problem.gold, problem.gold) for problem in to_check])
    return [problem for problem, verdict in zip(to_check, verdicts, strict=True) if verdict.score != 1.0]
