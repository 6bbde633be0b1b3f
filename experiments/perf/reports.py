"""Measure the time of `rlx compare` over many runs, read from run folders and from MLflow.

    python experiments/perf/reports.py [--runs 300] [--metrics 200] [--steps 20] [--out experiments/perf/reports.md]

The runs are synthetic (ten settings of grpo with thirty seeds each; 100 problems, 4 samples per problem) and written by
the same classes as real runs. Each measurement is one whole command: process, reading, statistics, all six formats.
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
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rlx.benchmarks.summary import as_json, problem_scores, summarised
from rlx.compare.report.html import BY_STEP, EVERY_AXIS
from rlx.runs.folder import RunDir
from rlx.runs.tracking import JsonlLog, MlflowSink, tracking_uri
from rlx.specs.evaluate import Protocol
from rlx.specs.resolve_train import resolve

PROBLEMS, SAMPLES, SEEDS = 100, 4, 30
PROTOCOL = Protocol(
    benchmark="made", problems=PROBLEMS, data_sha256="0" * 64, prompt="{problem}", system=None, chat_template="none",
    n=SAMPLES, temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=64, stop=(), seed=0, grader="rlx",
    grader_version="1", engine="none", engine_version="0", dtype="float32",
)  # fmt: skip


def write_run(runs: Path, number: int, metrics: int, steps: int, mlflow: bool) -> RunDir:
    """Write a finished run with its evaluation to a folder and, with ``mlflow``, to MLflow."""
    rng = np.random.Generator(np.random.Philox(number))
    content = {
        "seed": number % SEEDS,
        "algorithm": {"name": "grpo", "params": {"clip_low": 0.1 + 0.01 * (number // SEEDS)}},
    }
    resolved = resolve(content)
    run = RunDir(runs / resolved.run_id)
    run.create(content, resolved.model_dump_json())
    names = list(dict.fromkeys(key for key, _ in (*EVERY_AXIS, *BY_STEP)))
    names += [f"made/{i}" for i in range(metrics - len(names))]
    log = JsonlLog(run.metrics, warn=print)
    records = [
        {"step": step, **dict(zip(names, rng.random(len(names)).tolist(), strict=True))} for step in range(steps)
    ]
    for record in records:
        log.write(record)
    log.close()
    folder = run.evaluation("final", f"made-{PROTOCOL.digest}")
    folder.root.mkdir(parents=True)
    ability = 0.4 + 0.02 * (number // SEEDS)
    rows = [
        {
            "problem_id": f"p{problem}", "sample": sample, "score": float(rng.random() < ability), "reason": "exact",
            "extracted": "1", "tokens": 10, "finished": True, "subject": "", "level": "",
        }
        for problem in range(PROBLEMS)
        for sample in range(SAMPLES)
    ]  # fmt: skip
    folder.protocol.write_text(PROTOCOL.model_dump_json(), encoding="utf-8")
    folder.result.write_text(json.dumps(as_json(summarised("made", rows), problem_scores(rows))), encoding="utf-8")
    if mlflow:
        uri, tags = tracking_uri(runs), {"rlx.run_id": run.run_id}
        sink = MlflowSink(uri, "rlx", run.run_id, run.root / "mlflow.json", print)
        sink.start(content, tags, [run.resolved])
        for record in records:
            sink.write(record)
        sink.close("FINISHED", 600.0)
        evaluation_tags = {**tags, "rlx.kind": "evaluation", "rlx.checkpoint": "final"}
        sink = MlflowSink(uri, "rlx-eval", run.run_id, folder.mlflow, print)
        sink.start({}, evaluation_tags, [folder.protocol, folder.result])
        sink.close("FINISHED", 600.0)
    return run


def seconds(command: list[str], repeats: int, environment: dict[str, str], clear: Callable[[], None]) -> float:
    """Median time of the command (seconds); ``clear`` is called before each repeat."""
    durations = []
    for _ in range(repeats):
        clear()
        start = time.perf_counter()
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
        durations.append(time.perf_counter() - start)
        if result.returncode:
            raise SystemExit(result.stderr)
    return statistics.median(durations)


def measure(arguments: argparse.Namespace) -> str:
    """The table as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        runs, reports = Path(folder) / "runs", Path(folder) / "reports"
        environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
        start = time.perf_counter()
        written = [write_run(runs, i, arguments.metrics, arguments.steps, mlflow=True) for i in range(arguments.runs)]
        print(f"{len(written)} runs written in {time.perf_counter() - start:.0f} s", flush=True)

        def delete_reports() -> None:
            for file in reports.glob("*/*"):
                file.unlink()

        command = [sys.executable, "-m", "rlx.cli", "compare", "--runs-dir", str(runs), "--out", str(reports)]
        from_folders = seconds(
            [*command, *(run.run_id for run in written)], arguments.repeats, environment, delete_reports
        )
        from_mlflow = seconds([*command, "--experiment", "rlx"], arguments.repeats, environment, delete_reports)
    return (
        "# Time of a report over many runs\n\n"
        f"`python experiments/perf/reports.py --runs {arguments.runs} --metrics {arguments.metrics} --steps "
        f"{arguments.steps}`, {datetime.date.today()}, CPU ({platform.machine()}, {os.cpu_count()} cores), median of "
        f"{arguments.repeats}. Each run has {arguments.steps} records of {arguments.metrics} metrics and {PROBLEMS} "
        f"problems with {SAMPLES} samples; {arguments.runs // SEEDS} methods with {SEEDS} seeds each. Measured is the "
        "whole command, including all output formats and logging the report to MLflow.\n\n"
        "| read from | seconds |\n|---|---|\n"
        f"| run folders | {from_folders:.1f} |\n| MLflow (sqlite) | {from_mlflow:.1f} |\n"
    )


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description="Time rlx compare over many runs.")
    for name, default in (("runs", 300), ("metrics", 200), ("steps", 20), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="file of the table")
    arguments = parser.parse_args()
    text = measure(arguments)
    print(text)
    arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
