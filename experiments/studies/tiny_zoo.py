"""Train every registered policy loss on the embedded task (100 steps, 3 seeds) and write one table.

python experiments/studies/tiny_zoo.py [--jobs 2] [--seeds 3] [--steps 100] [--methods dgpo grpo] [--runs-dir runs/zoo]

Writes experiments/studies/tiny_zoo.md. Complete runs are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

from rlx.registry import names
from rlx.runs.folder import RunDir, read_json
from rlx.runs.tracking import read_metrics
from rlx.specs.resolve_train import resolve

OUT = Path(__file__).with_name("tiny_zoo.md")
HEADER = """# Every policy loss on the embedded task

Accuracy on the 500 held-out additions before and after training (mean over seeds, with the smallest and largest value
in brackets), and the number of updates skipped because of a loss or gradient that was not finite. Parameters are the
methods' defaults; all other settings are those of `rlx train` ({steps} steps of 32 prompts x 8 samples, 4 updates per
rollout, lr 1e-4). One learning rate for all methods suits some better than others, and {seeds} seeds of a toy task
cannot rank methods: the table shows which methods train, and which do not.

| method | sampled before | sampled after | greedy after | entropy at the end (nats) | skipped updates |
|---|---|---|---|---|---|
"""


def main() -> None:
    """Train the missing runs, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--methods", nargs="*", default=names("policy"))
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/zoo"))
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    runs = {(m, seed): _spec(m, seed, arguments.steps) for m in arguments.methods for seed in range(arguments.seeds)}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda spec: _run(spec, arguments.runs_dir), runs.values()))
    rows = [
        _row(m, [RunDir(arguments.runs_dir / resolve(runs[m, seed]).run_id) for seed in range(arguments.seeds)])
        for m in arguments.methods
    ]
    steps, seeds = arguments.steps, arguments.seeds
    command = f"python experiments/studies/tiny_zoo.py --jobs {arguments.jobs} --seeds {seeds} --steps {steps}"
    footer = f"\n`{command}`, {date.today()}, {platform.machine()}, {os.cpu_count()} CPU cores, one thread per run.\n"
    arguments.out.write_text(HEADER.format(steps=steps, seeds=seeds) + "\n".join(rows) + "\n" + footer)


def _spec(method: str, seed: int, steps: int) -> dict[str, object]:
    return {
        "steps": steps,
        "seed": seed,
        "algorithm": {"name": method},
        "evaluation": {"every": steps},
        "tracker": {"mlflow": False},
    }


def _run(spec: dict[str, object], runs: Path) -> None:
    """Train one run through the command line; a failed run is reported here and marked in the table."""
    sets = [f"--set={key}={json.dumps(value)}" for key, value in spec.items()]
    command = [sys.executable, "-m", "rlx.cli", "train", *sets, "--runs-dir", str(runs)]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if result.returncode:
        print(f"{spec['algorithm']} seed {spec['seed']}: {result.stderr.strip().splitlines()[-1]}", file=sys.stderr)


def _row(method: str, folders: list[RunDir]) -> str:
    if not all(folder.summary.exists() for folder in folders):
        return f"| {method} | did not finish | | | | |"
    summaries = [read_json(folder.summary) for folder in folders]
    records = [read_metrics(folder.metrics) for folder in folders]
    skipped = sum(int(record.get("optim/skipped", 0)) for run in records for record in run)
    cells = [
        _mean_and_range([s["before"]["eval/sampled_accuracy"] for s in summaries], "{:.3f}"),
        _mean_and_range([s["after"]["eval/sampled_accuracy"] for s in summaries], "{:.3f}"),
        _mean_and_range([s["after"]["eval/greedy_accuracy"] for s in summaries], "{:.3f}"),
        _mean_and_range([run[-1].get("policy/entropy", 0.0) for run in records], "{:.3f}"),
        str(skipped),
    ]
    return f"| {method} | " + " | ".join(cells) + " |"


def _mean_and_range(values: list[float], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return f"{form.format(statistics.mean(values))} [{low}, {high}]"


if __name__ == "__main__":
    main()
