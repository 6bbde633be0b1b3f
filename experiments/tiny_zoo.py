"""Every registered policy loss on the embedded task: 100 steps, 3 seeds, one table.

python experiments/tiny_zoo.py [--jobs 2] [--seeds 3] [--steps 100] [--methods dgpo grpo] [--runs-dir runs/zoo]

Writes experiments/tiny_zoo.md. A run that is already complete is not run again.
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
HEAD = """# The zoo on the embedded task

Accuracy on the 500 held-out additions before and after training, mean over seeds with the smallest and largest in
brackets, and the number of updates skipped for a loss or gradient that was not finite. Method defaults; everything else
is as in `rlx train` ({steps} steps of 32 prompts x 8 samples, 4 updates a rollout, lr 1e-4). One learning rate for all
methods suits some better than others, and {seeds} seeds of a toy task rank nobody: the table shows that each method
trains, and what does not.

| method | sampled before | sampled after | greedy after | entropy at the end (nats) | skipped updates |
|---|---|---|---|---|---|
"""


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--methods", nargs="*", default=names("policy"))
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/zoo"))
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    runs = {(m, seed): _content(m, seed, asked.steps) for m in asked.methods for seed in range(asked.seeds)}
    with ThreadPoolExecutor(asked.jobs) as pool:
        list(pool.map(lambda content: _run(content, asked.runs_dir), runs.values()))
    rows = [
        _row(m, [RunDir(asked.runs_dir / resolve(runs[m, seed]).run_id) for seed in range(asked.seeds)])
        for m in asked.methods
    ]
    command = f"python experiments/tiny_zoo.py --jobs {asked.jobs} --seeds {asked.seeds} --steps {asked.steps}"
    foot = f"\n`{command}`, {date.today()}, {platform.machine()}, {os.cpu_count()} CPU cores, one thread a run.\n"
    asked.out.write_text(HEAD.format(steps=asked.steps, seeds=asked.seeds) + "\n".join(rows) + "\n" + foot)


def _content(method: str, seed: int, steps: int) -> dict[str, object]:
    return {
        "steps": steps,
        "seed": seed,
        "algorithm": {"name": method},
        "evaluation": {"every": steps},
        "tracker": {"mlflow": False},
    }


def _run(content: dict[str, object], runs: Path) -> None:
    """One run through the real entry point; a failure is left to the table."""
    sets = [f"--set={key}={json.dumps(value)}" for key, value in content.items()]
    command = [sys.executable, "-m", "rlx.cli", "train", *sets, "--runs-dir", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        print(f"{content['algorithm']} seed {content['seed']}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)


def _row(method: str, folders: list[RunDir]) -> str:
    if not all(folder.summary.exists() for folder in folders):
        return f"| {method} | did not finish | | | | |"
    summaries = [read_json(folder.summary) for folder in folders]
    records = [read_metrics(folder.metrics) for folder in folders]
    skipped = sum(int(record.get("optim/skipped", 0)) for run in records for record in run)
    cells = [
        _spread([s["before"]["eval/sampled_accuracy"] for s in summaries], "{:.3f}"),
        _spread([s["after"]["eval/sampled_accuracy"] for s in summaries], "{:.3f}"),
        _spread([s["after"]["eval/greedy_accuracy"] for s in summaries], "{:.3f}"),
        _spread([run[-1].get("policy/entropy", 0.0) for run in records], "{:.3f}"),
        str(skipped),
    ]
    return f"| {method} | " + " | ".join(cells) + " |"


def _spread(values: list[float], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return f"{form.format(statistics.mean(values))} [{low}, {high}]"


if __name__ == "__main__":
    main()
