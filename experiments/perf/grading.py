"""Pairs graded a second: through math-verify in a worker process, and by text alone.

    python experiments/perf/grading.py [--pairs 2000] [--out experiments/perf/grading.md]

Every pair is another one, so that no verdict is remembered. Text decides boxed integers; fractions, roots and intervals
against their equals in other notation reach math-verify.
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
from rlx.rewards.court import Court
from rlx.rewards.grade import grade


def by_mathematics(draw: random.Random) -> tuple[str, str]:
    """A response and a gold that only mathematics can compare."""
    a, b = draw.randint(2, 9999), draw.randint(2, 9999)
    forms = [
        (rf"so \boxed{{\frac{{{a}}}{{{b}}}}}", rf"\frac{{{2 * a}}}{{{2 * b}}}"),
        (rf"so \boxed{{{a}\sqrt{{{b}}}}}", rf"\sqrt{{{a * a * b}}}"),
        (rf"so \boxed{{({a}, {a + b}]}}", rf"({a}, {a + b + 1}]"),
    ]
    return draw.choice(forms)


def by_text(draw: random.Random) -> tuple[str, str]:
    """A response and a gold that text decides."""
    a = draw.randint(0, 999)
    return f"We add and find \\boxed{{{a}}}.", str(draw.choice([a, a + 1]))


def rate(pairs: list[tuple[str, str]], court: Court, repeats: int) -> float:
    """Median of pairs a second; each repeat takes its own share of the pairs."""
    reward, share, rates = get("reward", "rlx").fn, len(pairs) // repeats, []
    for start in range(0, share * repeats, share):
        began = time.perf_counter()
        grade(reward, pairs[start : start + share], court)
        rates.append(share / (time.perf_counter() - began))
    return statistics.median(rates)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description="Measure how fast answers are graded.")
    parser.add_argument("--pairs", type=int, default=2000, help="through math-verify; twenty times as many by text")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="the table")
    arguments = parser.parse_args()
    draw = random.Random(0)
    court = Court(workers=1)
    try:
        grade(get("reward", "rlx").fn, [by_mathematics(draw) for _ in range(20)], court)  # starts the worker
        slow = rate([by_mathematics(draw) for _ in range(arguments.pairs)], court, 5)
        fast = rate([by_text(draw) for _ in range(20 * arguments.pairs)], court, 5)
    finally:
        court.close()
    text = (
        "# Grading\n\n"
        f"`python experiments/perf/grading.py --pairs {arguments.pairs}`, {datetime.date.today()}, CPU "
        f"({platform.machine()}), one worker process; median of 5 shares.\n\n"
        f"| decided by | pairs a second |\n|---|---|\n| math-verify | {slow:.0f} |\n| text | {fast:.0f} |\n"
    )
    print(text)
    arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
