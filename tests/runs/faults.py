"""The faults of files of tests/runs/test_recovery.py; docs/generate.py prints them in docs/reliability.md."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NEWEST, BEFORE = "step_000006", "step_000004"
"""The run's newest checkpoint and the one before it."""


def _truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _halve(path: Path) -> None:
    """Leave what a process killed while it writes a checkpoint leaves."""
    path.rename(path.with_name(f".tmp-{path.name}"))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": _truncate,
    "emptied": _empty,
    "one byte flipped": _flip,
    "removed": _remove,
    "half-written": _halve,
}
BEFORE_IT = "goes on from the checkpoint before"
RESTORED = "restores it from the checkpoint's copy"
UNNEEDED = "loses nothing"
AGAIN = "writes it again"


@dataclass(frozen=True)
class Fault:
    """One file, what happened to it, and what the same command does."""

    file: str
    damage: str
    outcome: str
    sentence: str
    """A part of the sentence that the command prints; empty if nothing is printed."""


def _faults() -> list[Fault]:
    faults = []
    for name in ("model.safetensors", "optimizer.safetensors", "state.json", "metrics.jsonl", "rlx_manifest.json"):
        for damage in list(DAMAGES)[:4]:
            sentence = f"checkpoint {NEWEST} is damaged ({name} "
            faults.append(Fault(f"checkpoints/{NEWEST}/{name}", damage, BEFORE_IT, sentence))
    for damage in ("removed", "half-written"):
        faults.append(Fault(f"checkpoints/{NEWEST}", damage, BEFORE_IT, f"checkpoint {NEWEST} is missing"))
    for damage in ("truncated", "emptied", "removed"):
        faults.append(Fault("checkpoints/newest.json", damage, UNNEEDED, ""))
    for damage in list(DAMAGES)[:4]:
        faults.append(Fault("metrics.jsonl", damage, RESTORED, "differed from the checkpoint's copy"))
        faults.append(Fault("samples.parquet/part_000006.parquet", damage, BEFORE_IT, "(part_000006.parquet "))
    faults.append(Fault("model/model.safetensors", "one byte flipped", AGAIN, ""))
    faults.append(Fault("model", "removed", AGAIN, ""))
    return faults


FAULTS = _faults()


def markdown() -> str:
    """The list as a Markdown table: a row for each file, a column for each kind of damage."""
    columns = list(DAMAGES)
    lines = ["| file | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for file in dict.fromkeys(fault.file for fault in FAULTS):
        cells = {fault.damage: fault.outcome for fault in FAULTS if fault.file == file}
        shown = file.replace(NEWEST, "NEWEST").replace("000006", "NEWEST")
        lines.append(f"| `{shown}` | " + " | ".join(cells.get(column, "") for column in columns) + " |")
    return "\n".join(lines)
