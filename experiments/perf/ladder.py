"""Measure the time of `rlx compare` of a finished study with conditions: 13 methods, 5 learning rates, 8 seeds.

    python experiments/perf/ladder.py [--profile FILE] [--out experiments/perf/ladder.md]

The 520 runs are synthetic, but their folders have all that a report reads of real ones: the resolved spec, 31 records
of 60 metrics, and an evaluation of 500 problems with 8 samples. Two methods collapse at large learning rates. Measured
is the whole command: process, resolution of 520 specs, reading, statistics, all output formats, and logging the report
to MLflow.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rlx.benchmarks.summary import as_json, problem_scores, summarised
from rlx.compare.report.curves import BY_STEP, EVERY_AXIS
from rlx.compare.study.runner import PlannedRun, plan_runs, read_study
from rlx.runs.tracking import JsonlLog
from rlx.specs.evaluate import Protocol

STEPS, METRICS, PROBLEMS, SAMPLES = 30, 60, 500, 8
METHODS = (
    "grpo", "dapo", "dgpo", "maspo", "cispo", "gspo", "sapo", "is_pg", "gmpo", "rloo", "clip_higher", "gppo", "aspo",
)  # fmt: skip
STUDY: dict[str, Any] = {
    "name": "ladder",
    "baseline": "grpo",
    "conditions": ["optim.lr"],
    "base": {"steps": STEPS, "batch": {"prompts": 64, "updates_per_rollout": 16}},
    "axes": {
        "seed": list(range(8)),
        "optim.lr": [5e-5, 1e-4, 1.5e-4, 2e-4, 2.5e-4],
        "algorithm.name": [{"label": name, "algorithm.name": name} for name in METHODS],
    },
    "evaluation": {"benchmarks": ["arithmetic"], "n": SAMPLES, "temperature": 1.0, "top_p": 1.0},
}
FRAGILE = ("is_pg", "aspo")
"""Methods whose runs collapse at learning rates of 2e-4 or more in half of the cases."""
PROTOCOL = Protocol(
    benchmark="arithmetic", problems=PROBLEMS, data_sha256="0" * 64, prompt="{problem}", system=None,
    chat_template="none", n=SAMPLES, temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=24, stop=(), seed=0,
    grader="arithmetic", grader_version="1", engine="none", engine_version="0", dtype="float32",
)  # fmt: skip


def write_run(run: PlannedRun, number: int) -> None:
    """Write a finished run with its evaluation."""
    rng = np.random.Generator(np.random.Philox(number))
    folder = run.folder
    folder.create(dict(run.content), run.resolved.model_dump_json())
    learning_rate = float(run.condition[0])
    collapsed = run.method in FRAGILE and learning_rate >= 2e-4 and rng.random() < 0.5
    end = 0.05 if collapsed else 0.75 - 500 * learning_rate + 0.03 * rng.normal()
    names = list(dict.fromkeys(key for key, _ in (*EVERY_AXIS, *BY_STEP)))
    names += [f"other/{index}" for index in range(METRICS - len(names))]
    log = JsonlLog(folder.metrics, warn=print)
    for step in range(STEPS + 1):
        record: dict[str, float] = {"step": step, **dict(zip(names, rng.random(len(names)).tolist(), strict=True))}
        record["eval/sampled_accuracy"] = 0.35 + (end - 0.35) * step / STEPS
        log.write(record)
    log.close()
    folder.model.mkdir()
    folder.summary.write_text(json.dumps({"seconds": 40.0}), encoding="utf-8")
    evaluation = folder.evaluation("final", f"arithmetic-{PROTOCOL.digest}")
    evaluation.root.mkdir(parents=True)
    chance = np.clip(end + 0.2 * np.linspace(-1, 1, PROBLEMS), 0, 1)
    right = rng.random((PROBLEMS, SAMPLES)) < chance[:, None]
    rows = [
        {
            "problem_id": f"p{problem}", "sample": sample, "score": float(right[problem, sample]), "reason": "exact",
            "extracted": "1", "tokens": 10, "finished": True, "subject": "", "level": "",
        }
        for problem in range(PROBLEMS)
        for sample in range(SAMPLES)
    ]  # fmt: skip
    evaluation.protocol.write_text(PROTOCOL.model_dump_json(), encoding="utf-8")
    result = as_json(summarised("arithmetic", rows), problem_scores(rows))
    evaluation.result.write_text(json.dumps(result), encoding="utf-8")


def write_study(folder: Path) -> tuple[Path, int]:
    """Write the study's file and its finished runs; return the file and the number of runs."""
    file = folder / "ladder.yaml"
    file.write_text(yaml.safe_dump(STUDY, sort_keys=False), encoding="utf-8")
    runs = plan_runs(read_study(STUDY), folder / "runs")
    for number, run in enumerate(runs):
        write_run(run, number)
    return file, len(runs)


def seconds(file: Path, repeats: int, profile: Path | None) -> tuple[list[float], float]:
    """The duration of each call of the command, and the CPU time of the last call (seconds).

    Args:
        file: the study.
        repeats: number of calls.
        profile: file for the profile of one more call, for ``python -m pstats``.
    """
    folder = file.parent
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    arguments = ["compare", str(file), "--runs-dir", str(folder / "runs"), "--out", str(folder / "reports")]
    durations, cpu = [], 0.0
    for _ in range(repeats):
        for report in folder.glob("reports/*/*"):
            report.unlink()
        start, used = time.perf_counter(), sum(os.times()[2:4])
        done = subprocess.run(
            [sys.executable, "-m", "rlx.cli", *arguments], capture_output=True, text=True, env=environment
        )
        durations.append(time.perf_counter() - start)
        cpu = sum(os.times()[2:4]) - used
        if done.returncode:
            raise SystemExit(done.stderr)
    if profile is not None:
        command = [sys.executable, "-m", "cProfile", "-o", str(profile), "-m", "rlx.cli", *arguments]
        subprocess.run(command, capture_output=True, check=True, env=environment)
    return durations, cpu


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description="Time rlx compare of a study with conditions.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", type=Path, help="also profile one call and write the profile to this file")
    parser.add_argument("--out", type=Path, help="file of the sentence with the result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file, count = write_study(Path(folder))
        print(f"{count} runs written", flush=True)
        durations, cpu = seconds(file, arguments.repeats, arguments.profile)
        size = sum(path.stat().st_size for path in Path(folder).glob("reports/*/*")) / 2**20
    text = (
        f"`rlx compare` of {count} finished runs ({len(METHODS)} methods, 5 learning rates, 8 seeds; {STEPS + 1} "
        f"records of {METRICS} metrics, {PROBLEMS} problems with {SAMPLES} samples): median "
        f"{statistics.median(durations):.1f} s, longest {max(durations):.1f} s of {len(durations)} calls; "
        f"{size:.1f} MiB of reports. {datetime.date.today()}, CPU ({platform.machine()}, {os.cpu_count()} cores), "
        f"load average {os.getloadavg()[0]:.1f}; CPU time of a call {cpu:.1f} s.\n"
    )
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
