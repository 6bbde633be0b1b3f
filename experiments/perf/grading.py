"""Pairs graded a second: through math-verify in a worker process, and by text alone.

    python experiments/perf/grading.py [--pairs 500] [--out experiments/perf/grading.md]

Pairs hardly repeat, so that few verdicts are remembered. Text decides boxed integers; the other kinds reach
math-verify.
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


def pair(kind: str, draw: random.Random) -> tuple[str, str]:
    """A response and its gold; of all kinds but ``text`` only mathematics can tell whether they are equal."""
    a, b = draw.randint(2, 999), draw.randint(2, 999)
    forms = {
        "fraction": (rf"so \boxed{{\frac{{{a}}}{{{b}}}}}", rf"\frac{{{2 * a}}}{{{2 * b}}}"),
        "root": (rf"so \boxed{{{a}\sqrt{{{b}}}}}", rf"\sqrt{{{a * a * b}}}"),
        "half-open interval": (rf"so \boxed{{({a}, {a + b}]}}", rf"({a}, {a + b + 1}]"),
        "text": (f"We add and find \\boxed{{{a}}}.", str(draw.choice([a, a + 1]))),
    }
    return forms[kind]


def rate(pairs: list[tuple[str, str]], pool: SymbolicPool, repeats: int) -> float:
    """Median of pairs a second; each repeat takes its own share of the pairs."""
    reward, share, rates = get("reward", "rlx").fn, len(pairs) // repeats, []
    for start in range(0, share * repeats, share):
        began = time.perf_counter()
        grade(reward, pairs[start : start + share], pool)
        rates.append(share / (time.perf_counter() - began))
    return statistics.median(rates)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description="Measure how fast answers are graded.")
    parser.add_argument("--pairs", type=int, default=500, help="of each kind; fifty times as many that text decides")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="the table")
    arguments = parser.parse_args()
    draw = random.Random(0)
    pool = SymbolicPool(workers=1)
    try:
        grade(get("reward", "rlx").fn, [pair("root", draw)], pool)  # starts the worker
        rates = {
            kind: rate([pair(kind, draw) for _ in range(arguments.pairs * times)], pool, 5)
            for kind, times in (("fraction", 1), ("root", 1), ("half-open interval", 1), ("text", 50))
        }
    finally:
        pool.close()
    text = (
        "# Grading\n\n"
        f"`python experiments/perf/grading.py --pairs {arguments.pairs}`, {datetime.date.today()}, CPU "
        f"({platform.machine()}), one worker process; median of 5 shares. All but `text` are parsed and compared by "
        "math-verify, whose grammar takes most of the time.\n\n| kind | pairs a second |\n|---|---|\n"
    )
    text += "".join(f"| {kind} | {value:.0f} |\n" for kind, value in rates.items())
    print(text)
    arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
