"""Measure the grader: pairs per second through comparison in a worker process, and by text alone.

    python experiments/perf/grading.py [--baseline CHECKOUT] [--pairs 500] [--out experiments/perf/grading.md]

With ``--baseline``, another checkout of this repository is measured too: both take turns, part by part, in processes
of their own. Pairs hardly ever repeat, so that few verdicts come from a cache. Boxed integers are compared as text; the
other kinds are compared as mathematics.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rlx.registry import get
from rlx.rewards.grade import VERSION, grade
from rlx.rewards.symbolic_pool import SymbolicPool
from rlx.rewards.verdict import NeedsSymbolicCheck

KINDS = {
    "fraction": 1,
    "root": 1,
    "polynomial": 1,
    "equation": 1,
    "pair": 1,
    "half-open interval": 1,
    "list of roots": 1,
    "value with text": 1,
    "text": 50,
    "text in a long response": 20,
}
"""Kinds of pairs, and how many times as many of them are measured."""
ROUNDS = 5
"""Parts of the pairs, which are measured one after the other; the table has the median."""


def pair(kind: str, rng: random.Random) -> tuple[str, str]:
    """A response and its gold answer; for all kinds but ``text`` they must be compared as mathematics."""
    a, b = rng.randint(2, 999), rng.randint(2, 999)
    forms = {
        "fraction": (rf"so \boxed{{\frac{{{a}}}{{{b}}}}}", rf"\frac{{{2 * a}}}{{{2 * b}}}"),
        "root": (rf"so \boxed{{{a}\sqrt{{{b}}}}}", rf"\sqrt{{{a * a * b}}}"),
        "polynomial": (rf"so \boxed{{(x+{a})^2+{b}}}", rf"x^2+{2 * a}x+{a * a + b}"),
        "equation": (rf"so \boxed{{y = {a}x + {b}}}", rf"{a}x - y + {b} = 0"),
        "pair": (rf"so \boxed{{({a}, {b})}}", rf"\left({a}, \frac{{{2 * b}}}{{2}}\right)"),
        "half-open interval": (rf"so \boxed{{({a}, {a + b}]}}", rf"({a}, {a + b + 1}]"),
        "list of roots": (rf"so \boxed{{{a}, {-b}}}", rf"{-b}, {a}"),
        "value with text": (rf"so \boxed{{{a} \text{{ cm}}}}", rf"{a}.0"),
        "text": (f"We add and find \\boxed{{{a}}}.", str(rng.choice([a, a + 1]))),
        "text in a long response": (
            "We add $x = 3$ and find {y}. " * 100 + f"So it is \\boxed{{{a}}}.",
            str(rng.choice([a, a + 1])),
        ),
    }
    return forms[kind]


def rates(seed: int, count: int) -> dict[str, float]:
    """Pairs per second by kind, of one part of the pairs."""
    rng, reward = random.Random(seed), get("reward", "rlx").fn
    pool = SymbolicPool(workers=1)
    result = {}
    try:
        for kind, times in KINDS.items():
            warm_up = [pair(kind, rng) for _ in range(5)]
            grade(reward, warm_up, pool)  # starts the worker, whose grammar is slow on a new kind
            pairs = [pair(kind, rng) for _ in range(count * times)]
            start = time.perf_counter()
            grade(reward, pairs, pool)
            result[kind] = len(pairs) / (time.perf_counter() - start)
    finally:
        pool.close()
    return result


def share_by_text(files: list[Path]) -> dict[str, float]:
    """Share of the pairs of each file that text alone decides."""
    reward, shares = get("reward", "rlx").fn, {}
    for file in files:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        first = [reward(row["response"], row["gold"]) for row in rows]
        shares[file.stem] = sum(not isinstance(verdict, NeedsSymbolicCheck) for verdict in first) / len(rows)
    return shares


def measured(root: Path, seed: int, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The measurements of one part, in a process that imports rlx from ``root``."""
    command = [sys.executable, __file__, "--part", str(seed), "--pairs", str(arguments.pairs)]
    command += [word for file in arguments.files for word in ("--files", str(file))]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    result: dict[str, dict[str, float]] = json.loads(output.splitlines()[-1])
    return result


def table(results: dict[str, list[dict[str, dict[str, float]]]], arguments: argparse.Namespace) -> str:
    """The report."""
    names = list(results)
    baseline = " --baseline CHECKOUT" if len(names) > 1 else ""
    lines = [
        "# Grading",
        "",
        f"`python experiments/perf/grading.py{baseline} --pairs {arguments.pairs}`, {datetime.date.today()}, "
        f"CPU ({platform.machine()}), one worker process, grading rules {VERSION}; median of {ROUNDS} parts. All kinds "
        "but `text` are compared as mathematics.",
        "",
        "| kind, pairs per second | " + " | ".join(names) + " |" + (" ratio |" if len(names) > 1 else ""),
        "|---" * (1 + len(names) + (len(names) > 1)) + "|",
    ]
    for kind in KINDS:
        values = [statistics.median(part["rates"][kind] for part in results[name]) for name in names]
        ratio = [f"{values[1] / values[0]:.2f}"] if len(values) > 1 else []
        lines.append(f"| {kind} | " + " | ".join([*(f"{value:.0f}" for value in values), *ratio]) + " |")
    shares = results[names[-1]][0]["shares"]
    if shares:
        lines += ["", "Share of judged pairs that text alone decides:", "", "| file | share |", "|---|---|"]
        lines += [f"| {name} | {share:.0%} |" for name, share in shares.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description="Measure how fast answers are graded.")
    parser.add_argument("--pairs", type=int, default=500, help="number of pairs of each kind; more of kind text")
    parser.add_argument("--baseline", type=Path, help="root of another checkout, which is measured in turns with this")
    parser.add_argument("--files", type=Path, action="append", default=[], help="judged pairs, a JSON object a line")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="file of the table")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part is not None:
        result = {"rates": rates(arguments.part, arguments.pairs), "shares": share_by_text(arguments.files)}
        print(json.dumps(result))
        return
    arguments.pairs = max(1, arguments.pairs // ROUNDS)
    roots = {"present": Path(__file__).resolve().parents[2]}
    if arguments.baseline:
        roots = {"baseline": arguments.baseline.resolve(), **roots}
    results: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in roots}
    for part in range(ROUNDS):
        for name in list(roots) if part % 2 == 0 else list(roots)[::-1]:
            results[name].append(measured(roots[name], part, arguments))
    arguments.pairs *= ROUNDS
    text = table(results, arguments)
    print(text)
    arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
