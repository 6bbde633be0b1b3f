"""Whether a killed run ends in the bits of an uninterrupted one, and what torch's deterministic switches cost."""

from __future__ import annotations

import hashlib
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from phases.harness import EMBEDDED, empty_folder, metrics, rlx, save, settings

STEPS = 8
OPTIONS = [*EMBEDDED, *settings({"evaluation.every": 0, "checkpoint.every": 2}), "--steps", str(STEPS)]
MODES = {"no switch": False, "deterministic": True}


def resume() -> None:
    """Resume with and without the switches.

    The two uninterrupted runs come one after the other, because their steps are timed; the two killed and resumed runs
    share the GPU.
    """
    results: dict[str, Any] = {}
    uninterrupted = {}
    for mode, deterministic in MODES.items():
        uninterrupted[mode] = empty_folder(f"uninterrupted {mode}")
        ended = rlx(*OPTIONS, "--runs-dir", str(uninterrupted[mode]), limit=40, deterministic=deterministic)
        results[mode] = {"uninterrupted": ended.as_list(), "s a step": step_seconds(uninterrupted[mode])}
        save("resume", results)
    times = [results[mode]["s a step"] for mode in MODES]
    results["time ratio, deterministic / no switch"] = times[1] / times[0] if all(times) else None
    with ThreadPoolExecutor() as pool:
        killed = dict(zip(MODES, pool.map(killed_and_resumed, MODES), strict=True))
    for mode, (runs, attempts) in killed.items():
        results[mode] |= attempts | compare(runs, uninterrupted[mode])
    plain, switched = (digest(uninterrupted[mode]) for mode in MODES)
    results["both modes give the same weights"] = plain == switched
    save("resume", results)


def killed_and_resumed(mode: str) -> tuple[Path, dict[str, Any]]:
    """A run that is killed after the checkpoint of step 4, and the same command once more."""
    runs = empty_folder(f"killed {mode}")
    arguments = [*OPTIONS, "--runs-dir", str(runs)]

    def checkpoint_written() -> bool:
        return any(runs.glob("*/checkpoints/step_000004/state.json"))

    first = rlx(*arguments, limit=45, kill_at=checkpoint_written, deterministic=MODES[mode])
    again = rlx(*arguments, limit=45, deterministic=MODES[mode])
    return runs, {"killed": first.as_list(), "again": again.as_list()}


def step_seconds(runs: Path) -> float | None:
    """Median seconds of a run's steps after the first two."""
    times = [record["time/step"] for record in metrics(runs)[3:]]
    return statistics.median(times) if times else None


def compare(runs: Path, uninterrupted: Path) -> dict[str, Any]:
    """Whether losses of every step and the final weights are equal, bit by bit."""
    pairs = list(zip(metrics(runs), metrics(uninterrupted), strict=False))[1:]
    return {
        "same losses": [a.get("optim/loss") == b.get("optim/loss") for a, b in pairs],
        "same weights": digest(runs) is not None and digest(runs) == digest(uninterrupted),
    }


def digest(runs: Path) -> str | None:
    """SHA-256 of the only run's final weights; None if it saved none."""
    files = list(runs.glob("*/model/model.safetensors"))
    return hashlib.sha256(files[0].read_bytes()).hexdigest() if files else None
