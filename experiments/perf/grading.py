"""Measure the grader: pairs per second through math-verify in a worker process, and by text alone.

    python experiments/perf/grading.py [--pairs 500] [--out experiments/perf/grading.md]

Pairs hardly ever repeat, so that few verdicts come from a cache. Boxed integers are compared as text; the other kinds
need math-verify.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import random
import statistics
import time
from pathlib import Path

from rlx.registry import get
from rlx.rewards.grade import grade
from rlx.rewards.symbolic_pool import SymbolicPool


def pair(kind: str, rng: random.Random) -> tuple[str, str]:
    """A response and its gold answer; for all kinds but ``text`` they must be compared as mathematics."""
    a, b = rng.randint(2, 999), rng.randint(2, 999)
    forms = {
        "fraction": (rf"so \boxed{{\frac{{{a}}}{{{b}}}}}", rf"\frac{{{2 * a}}}{{{2 * b}}}"),
        "root": (rf"so \boxed{{{a}\sqrt{{{b}}}}}", rf"\sqrt{{{a * a * b}}}"),
        "half-open interval": (rf"so \boxed{{({a}, {a + b}]}}", rf"({a}, {a + b + 1}]"),
        "text": (f"We add and find \\boxed{{{a}}}.", str(rng.choice([a, a + 1]))),
    }
    return forms[kind]


def rate(pairs: list[tuple[str, str]], pool: SymbolicPool, repeats: int) -> float:
    """Median number of pairs per second; each repeat grades its own part of the pairs."""
    reward, size, rates = get("reward", "rlx").fn, len(pairs) // repeats, []
    for first in range(0, size * repeats, size):
        start = time.perf_counter()
        grade(reward, pairs[first : first + size], pool)
        rates.append(size / (time.perf_counter() - start))
    return statistics.median(rates)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description="Measure how fast answers are graded.")
    parser.add_argument(
        "--pairs", type=int, default=500, help="number of pairs of each kind; fifty times as many of kind text"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="file of the table")
    arguments = parser.parse_args()
    rng = random.Random(0)
    pool = SymbolicPool(workers=1)
    try:
        grade(get("reward", "rlx").fn, [pair("root", rng)], pool)  # starts the worker
        rates = {
            kind: rate([pair(kind, rng) for _ in range(arguments.pairs * times)], pool, 5)
            for kind, times in (("fraction", 1), ("root", 1), ("half-open interval", 1), ("text", 50))
        }
    finally:
        pool.close()
    text = (
        "# Grading\n\n"
        f"`python experiments/perf/grading.py --pairs {arguments.pairs}`, {datetime.date.today()}, CPU "
        f"({platform.machine()}), one worker process; median of 5 parts. All kinds but `text` are parsed and compared "
        "by math-verify, whose grammar takes most of the time.\n\n| kind | pairs per second |\n|---|---|\n"
    )
    text += "".join(f"| {kind} | {value:.0f} |\n" for kind, value in rates.items())
    print(text)
    arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
