"""The state of a run, read from its folder without torch: what it is, how far it is, its last metrics and its size."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlx.errors import UserError
from rlx.runs.checkpoint_files import newest_step, step_folders
from rlx.runs.failure import failure_reason
from rlx.runs.folder import RunDir
from rlx.runs.integrity import Damaged, read_manifest
from rlx.runs.lock import Holder, active_holder
from rlx.runs.tracking import read_metrics

State = Literal["running", "finished", "stopped", "failed", "damaged"]
Kind = Literal["train", "unlearn", "eval"]
MAIN_METRICS: Mapping[Kind, Mapping[str, str]] = {
    "train": {"reward": "train/reward", "accuracy": "eval/sampled_accuracy"},
    "unlearn": {"forgetting": "eval/forgetting", "utility": "eval/utility"},
    "eval": {},
}
"""The metrics that a list of runs shows, by their short names."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The state of one run.

    Example:
        ``RunStatus(folder, "train", "stopped", "", spec, step=40, total=100, records=[],
        metrics={}, changed=1.7e9, bytes=9_000)``
    """

    folder: RunDir
    kind: Kind
    state: State
    reason: str
    """Why the run failed or what is damaged, or the process that writes it; else empty."""
    spec: Mapping[str, Any]
    """The resolved spec; empty if it cannot be read."""
    step: int
    """Steps done; -1 if none is recorded."""
    total: int | None
    """Steps of the complete run, if the spec says it."""
    records: list[dict[str, float]]
    """The lines of metrics.jsonl."""
    metrics: Mapping[str, float]
    """The last finite value of each metric."""
    changed: float
    """Time of the last change (seconds since 1970)."""
    bytes: int
    """Size of the folder."""

    @property
    def method(self) -> str:
        """The policy loss, the unlearning method, or nothing for a folder of evaluations."""
        section = {"train": "algorithm", "unlearn": "method", "eval": ""}[self.kind]
        return str((self.spec.get(section) or {}).get("name", ""))

    def values(self) -> dict[str, Any]:
        """Values by the names that ``rlx runs --where`` and ``--sort`` accept, without keys of the spec and metrics."""
        data = {"train": "data", "unlearn": "forget", "eval": ""}[self.kind]
        main = MAIN_METRICS[self.kind].items()
        short = {name: self.metrics[key] for name, key in main if key in self.metrics}
        return {
            "name": self.folder.run_id,
            "state": self.state,
            "kind": self.kind,
            "algo": self.method,
            "method": self.method,
            "model": (self.spec.get("model") or {}).get("path", ""),
            "data": (self.spec.get(data) or {}).get("source", ""),
            "seed": self.spec.get("seed", ""),
            "step": self.step,
            "age": time.time() - self.changed,
            "size": self.bytes,
            **short,
        }


def run_status(folder: RunDir) -> RunStatus:
    """The state of a run folder; what cannot be read makes the state ``damaged``."""
    problems: list[str] = []
    resolved = _read(folder.resolved, problems) if folder.resolved.exists() else {}
    if folder.evaluated.exists() and not folder.resolved.exists():
        kind: Kind = "eval"
        evaluated = _read(folder.evaluated, problems)
        spec: Mapping[str, Any] = {"model": {"path": evaluated.get("model", folder.run_id)}}
    else:
        spec = resolved.get("spec", {}) if isinstance(resolved.get("spec"), dict) else {}
        kind = "unlearn" if "forget" in spec else "train"
    records: list[dict[str, float]] = []
    try:
        records = read_metrics(folder.metrics)
    except (UserError, OSError) as error:
        problems.append(error.what if isinstance(error, UserError) else str(error))
    if folder.summary.exists():
        _read(folder.summary, problems)
    problems += _missing_files(folder)
    state, reason = _state(folder, kind, problems)
    own = [path for path in (folder.metrics, folder.resolved, folder.summary, folder.evaluated) if path.exists()]
    return RunStatus(
        folder=folder,
        kind=kind,
        state=state,
        reason=reason,
        spec=spec,
        step=int(records[-1].get("step", -1)) if records else -1,
        total=spec.get("steps") if kind == "train" else None,
        records=records,
        metrics={key: value for record in records for key, value in record.items() if math.isfinite(value)},
        changed=max((path.stat().st_mtime for path in own), default=0.0),
        bytes=folder_bytes(folder.root),
    )


def _state(folder: RunDir, kind: Kind, problems: list[str]) -> tuple[State, str]:
    holder: Holder | None = active_holder(folder.lock)
    if holder is not None:
        return "running", str(holder)
    if problems:
        return "damaged", problems[0]
    if kind == "eval" or folder.summary.exists():
        return "finished", ""
    if folder.failure.exists():
        return "failed", failure_reason(folder)
    return "stopped", ""


def _missing_files(folder: RunDir) -> list[str]:
    """Sentences about files that others require, or that have another size than was written; reads no contents."""
    problems = []
    recorded = newest_step(folder.checkpoints)
    if recorded >= 0 and not folder.checkpoint(recorded).is_dir():
        problems.append(f"checkpoint step_{recorded:06d} is missing")
    for part in (folder.model, *step_folders(folder.checkpoints)):
        try:
            for name, file in read_manifest(part).items():
                path = part / name
                if not path.is_file() or path.stat().st_size != file["bytes"]:
                    problems.append(f"{part.name}/{name} is missing or has another size")
        except FileNotFoundError:
            continue
        except Damaged as damage:
            problems.append(f"{part.name}: {damage}")
    return problems


def folder_bytes(path: Path) -> int:
    """Size of a file, or of all files below a folder."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in _files(path))


def _files(folder: Path) -> list[Path]:
    """The files below a folder; a running process may remove some meanwhile."""
    files = []
    with suppress(FileNotFoundError):
        files = [path for path in folder.rglob("*") if path.is_file()]
    return files


def _read(path: Path, problems: list[str]) -> dict[str, Any]:
    """The object in a JSON file; an unreadable one is added to the problems."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
        problems.append(f"{path.name} is not an object")
    except (OSError, ValueError) as error:
        problems.append(f"{path.name} cannot be read ({error})")
    return {}
