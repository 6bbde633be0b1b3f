"""Measure an unlearning run on the embedded set against an earlier checkout, and runs of 250 to 2,000 requests.

    python experiments/perf/unlearn_time.py embedded --before FOLDER [--repeats 3]
    python experiments/perf/unlearn_time.py requests [--counts 250 500 1000 2000]

FOLDER holds an earlier checkout. ``embedded`` runs `rlx unlearn --against ""` with one thread; the two versions take
turns, and the largest difference between any two numbers of their certificates is printed too. ``requests`` forgets
synthetic requests, one epoch, with the default attacks. CPU seconds are those of the complete command, imports
included; the resident memory is its peak. Both write a table to the standard output.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "rlx" / "assets" / "minitofu" / "target"
ADDED = ("/hashes/", "/attacks/", "/under_attack/", "/tried/", "/probes/", "/protocol/", "/verdict", "/reasons/")
"""Parts of a certificate that hashes of the code or the larger number of attacks change."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one command took.

    Example:
        ``Cost(wall=31.0, cpu=29.5, gigabytes=0.71)``
    """

    wall: float
    cpu: float
    gigabytes: float


def run(checkout: Path, arguments: Sequence[str]) -> Cost:
    """Run `rlx unlearn` of a checkout in a process of its own, whose child is the only one that is measured."""
    code = "import sys; from rlx.cli.app import app; sys.argv[0] = 'rlx'; app()"
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, "unlearn", "--against", "", "--set", "tracker.mlflow=false", *arguments],
        cwd=checkout,  # python -c imports from the working directory first
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"rlx unlearn of {checkout} failed with status {status}")
    assert isinstance(usage, resource.struct_rusage)
    return Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6)


def numbers(content: object, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a certificate with its path, without those that the larger number of attacks changes."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from numbers(value, f"{path}/{key}")
    if isinstance(content, int | float) and not any(part in f"{path}/" for part in ADDED):
        yield path, float(content)


def difference(runs: Sequence[Path]) -> float:
    """Largest difference between the numbers of two runs' certificates."""
    one, two = (dict(numbers(json.loads(next(at.glob("*/certificate.json")).read_text()))) for at in runs)
    return max(abs(one[path] - two[path]) for path in one.keys() & two.keys())


def embedded(before: Path, repeats: int) -> None:
    """The embedded set with both versions; the new one also with its further attacks off."""
    same = ["--set", "evaluation.strengths.paraphrase=false"]
    same += [f"--set=evaluation.strengths.{name}=[]" for name in ("relearn_percent", "quantize_bits", "prefix_tokens")]
    versions = {
        "before": (before, []), "now, the same attacks": (ROOT, same), "now, all strengths (default)": (ROOT, [])
    }  # fmt: skip
    costs: dict[str, list[Cost]] = {name: [] for name in versions}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            for name, (checkout, options) in versions.items():
                at = Path(folder) / f"{name}_{repeat}"
                costs[name].append(run(checkout, [*options, "--runs-dir", str(at)]))
        largest = difference([Path(folder) / f"{name}_0" for name in list(versions)[:2]])
    print("| version | CPU seconds | wall seconds | peak memory (GB) |\n|---|---|---|---|")
    for name, of_version in costs.items():
        cpu, wall, memory = ([getattr(cost, key) for cost in of_version] for key in ("cpu", "wall", "gigabytes"))
        spread = f"{statistics.median(cpu):.1f} ({min(cpu):.1f} to {max(cpu):.1f})"
        print(f"| {name} | {spread} | {statistics.median(wall):.1f} | {max(memory):.2f} |")
    print(f"\nLargest difference between two numbers of the certificates (attacks left out): {largest:.1e}.")


def requests(counts: Sequence[int]) -> None:
    """Runs of several sizes on synthetic requests."""
    print("| requests | CPU seconds | of these above the first row's, per request (ms) | peak memory (GB) |")
    print("|---|---|---|---|")
    first: tuple[int, float] | None = None
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            forget, retain = Path(folder) / "forget.jsonl", Path(folder) / "retain.jsonl"
            for path, start in ((forget, 0), (retain, count)):
                rows = [
                    {"question": f"In which city was {name} born?", "answer": f"{name} was born in Lima."}
                    for name in (f"Corvin{number} Kestrel{number % 97}" for number in range(start, start + count))
                ]
                path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            files = ["--model", str(TARGET), "--forget", str(forget), "--retain", str(retain)]
            cost = run(ROOT, [*files, "--epochs", "1", "--runs-dir", folder])
        first = first or (count, cost.cpu)
        more = f"{1000 * (cost.cpu - first[1]) / (count - first[0]):.1f}" if count > first[0] else "-"
        print(f"| {count:,} | {cost.cpu:.1f} | {more} | {cost.gigabytes:.2f} |", flush=True)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["embedded", "requests"])
    parser.add_argument("--before", type=Path, default=None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--counts", type=int, nargs="+", default=[250, 500, 1000, 2000])
    arguments = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}"
    print(f"`python experiments/perf/unlearn_time.py {' '.join(sys.argv[1:])}`, {datetime.date.today()}, {machine}\n")
    if arguments.what == "requests":
        requests(arguments.counts)
    elif arguments.before is None:
        parser.error("--before FOLDER is missing: an earlier checkout to compare with")
    else:
        embedded(arguments.before.resolve(), arguments.repeats)


if __name__ == "__main__":
    main()
