"""The files of a checkpoint, read without torch: position, leftovers, checks against the manifest."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from rlx.runs.integrity import BackgroundHashes, Damaged, check_folder, is_plain_name
from rlx.specs.identity import MANIFEST

FORMAT = 2
"""Stored in state.json; the first format had no number and no manifest."""
WEIGHTS, OPTIMIZER, STATE, METRICS = "model.safetensors", "optimizer.safetensors", "state.json", "metrics.jsonl"
TEMPORARY, TRASH = ".tmp-", ".old-"
"""Prefixes of a checkpoint that is being written, and of one that is being removed."""


@dataclass(frozen=True, slots=True)
class Position:
    """The position in the run of a checkpoint; every sampling seed follows from ``step`` and the index in the rollout.

    Example:
        ``Position(step=25, updates=100, skipped=0, metrics_bytes=20311, drawn=800, best_step=25, best_score=0.61)``
    """

    step: int
    updates: int
    skipped: int
    """Number of non-finite updates in a row so far."""
    metrics_bytes: int
    """Length of metrics.jsonl at this step."""
    drawn: int = 0
    """Prompts drawn from the data so far, over all epochs."""
    best_step: int = -1
    best_score: float = -1.0


def newest_file(checkpoints: Path) -> Path:
    """The file that names the checkpoint which was written last, so that its absence is noticed."""
    return checkpoints / "newest.json"


def remove_leftovers(checkpoints: Path) -> None:
    """Remove incomplete files that a killed process left."""
    for leftover in (*checkpoints.glob(f"{TEMPORARY}*"), *checkpoints.glob(f"{TRASH}*")):
        shutil.rmtree(leftover, ignore_errors=True)


def read_state(folder: Path) -> dict[str, Any]:
    """The content of a checkpoint's state.json: position, random states and sample parts.

    Raises:
        Damaged: when it cannot be read.
    """
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
        Position(**state["position"])
        if not all(isinstance(value, int | float) for value in state["position"].values()):
            raise ValueError("a number of the position is text")
        if not all(map(is_plain_name, state.get("samples", {}))):
            raise ValueError("samples names a file of another folder")
    except FileNotFoundError:
        raise Damaged(f"{STATE} is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{STATE} cannot be read ({type(error).__name__})") from None
    return state


def check_checkpoint(folder: Path, hashes: BackgroundHashes | None = None, only: str = "") -> bool:
    """Compare the files of a checkpoint with its manifest.

    Args:
        folder: the checkpoint's.
        hashes: of its files, computed earlier.
        only: name of the single file to check; by default all.

    Returns:
        True, or False if an earlier version of rlx wrote it, without hashes, and its files can be opened.

    Raises:
        Damaged: for the first file that differs.
    """
    try:
        check_folder(folder, only, hashes)
    except FileNotFoundError:
        if "format" in read_state(folder):
            raise Damaged(f"{MANIFEST} is missing") from None
        for name in (WEIGHTS, OPTIMIZER):
            try:
                safe_open(folder / name, framework="np")
            except (OSError, SafetensorError) as error:
                raise Damaged(f"{name} cannot be read ({error})") from None
        return False
    return True


def step_folders(checkpoints: Path) -> list[Path]:
    """The folders of checkpoints, complete or not, the newest last."""
    return sorted(path for path in checkpoints.glob("step_*") if path.is_dir())


def newest_step(checkpoints: Path) -> int:
    """The step of the checkpoint that was written last; -1 if none was, or if an earlier version wrote it."""
    try:
        return int(json.loads(newest_file(checkpoints).read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return -1
