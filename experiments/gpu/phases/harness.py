"""What the phases share: folders, results, timing, and runs of rlx in child processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(os.environ.get("RLX_ROOT", Path(__file__).resolve().parents[3]))
"""The checkout that is checked."""
OUT = Path(os.environ.get("OUT", "/tmp/rlx_check/out"))
"""Where results are saved."""
WORK = Path(os.environ.get("WORK", "/tmp/rlx_check/work"))
"""Runs and models of the check, which may be deleted afterwards."""
SMALL = "--small" in sys.argv
"""Tiny shapes, to try the check on a CPU."""
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
DETERMINISTIC = (
    "import sys, torch; torch.use_deterministic_algorithms(True); from rlx.cli.app import main; sys.exit(main())"
)
"""A program that runs rlx with torch's deterministic algorithms."""
CUBLAS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""What cuBLAS needs for them."""
EMBEDDED = ["train", "--algo", "dgpo", "--set", "tracker.mlflow=false", "--set", "rollout.engine=hf"]
"""``rlx train`` on the embedded model and task."""


def save(name: str, content: Any) -> None:
    """Save a phase's results to the one file of all results, so that an interrupted run keeps them."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / "all.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    results[name] = content
    temporary = OUT / f".all.{os.getpid()}"
    temporary.write_text(json.dumps(results, indent=1))
    temporary.replace(path)
    print(name, json.dumps(content)[:600], flush=True)


def empty_folder(name: str) -> Path:
    """A new, empty folder in WORK."""
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child process ended.

    Example:
        ``Ended(seconds=19.1, code=0, last=["metrics  runs/...", "next     rlx train ..."])``
    """

    seconds: float
    code: int
    """Exit code; negative if a signal ended the process, as a time limit does."""
    last: list[str]
    """Its last three lines of output."""

    def as_list(self) -> list[Any]:
        """The same for a JSON file."""
        return [self.seconds, self.code, self.last]


def rlx(
    *arguments: str,
    limit: float = 60,
    kill_at: Callable[[], bool] | None = None,
    deterministic: bool = False,
) -> Ended:
    """Run an rlx command.

    Args:
        arguments: the command line without ``rlx``.
        limit: seconds after which the process is killed.
        kill_at: the process is killed (SIGKILL) once this returns True.
        deterministic: use torch's deterministic algorithms.
    """
    program = ["-c", DETERMINISTIC] if deterministic else ["-m", "rlx.cli"]
    environment = os.environ | (CUBLAS if deterministic else {})
    WORK.mkdir(parents=True, exist_ok=True)
    output = WORK / f"output.{os.getpid()}.{time.time_ns()}"
    start = time.time()
    with output.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, *program, *arguments], stdout=out, stderr=out, cwd=WORK, env=environment
        )
        while process.poll() is None and time.time() - start < limit:
            if kill_at and kill_at():
                process.send_signal(signal.SIGKILL)
            time.sleep(0.02)
        if process.poll() is None:
            process.kill()
        process.wait()
    last = output.read_text().strip().splitlines()[-3:]
    return Ended(round(time.time() - start, 1), process.returncode, last)


def settings(values: dict[str, Any]) -> list[str]:
    """Options that set these keys of a spec."""
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def metrics(runs: Path) -> list[dict[str, Any]]:
    """The metric records of the only run in a folder of runs; empty if it wrote none."""
    files = list(runs.glob("*/metrics.jsonl"))
    return [json.loads(line) for line in files[0].read_text().splitlines()] if files else []


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if GPU:
        torch.cuda.synchronize()


def reset_peak() -> None:
    """Free cached memory of the GPU and measure its peak from here."""
    if GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float:
    """Peak of the GPU's allocated memory (GiB); 0 without a GPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if GPU else 0.0


def seconds_of(work: Callable[[], Any], repeats: int = 8) -> float:
    """Median seconds of a call, measured by CUDA events if there is a GPU; one call without."""
    if not GPU:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    for _ in range(2):
        work()
    torch.cuda.synchronize()
    durations = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        durations.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(durations)


def error_text(error: Exception) -> str:
    """An error as a result: a measurement that fails must not end the others of its phase."""
    return f"{type(error).__name__}: {str(error)[:200]}"


def pick(record: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The given keys of a record; None where it has no such key."""
    return {key: record.get(key) for key in keys}
