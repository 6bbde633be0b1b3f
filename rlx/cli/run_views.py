"""Output of `rlx runs`: the table of runs, one run in full, and the differences of two."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from rlx.console import print_out, sparkline, table
from rlx.runs.folder import RunDir, read_json
from rlx.runs.listing import differences, unit_values
from rlx.runs.status import MAIN_METRICS, RunStatus, folder_bytes, run_status

SPARKLINE_WIDTH = 60
LOG_LINES = 5
"""Number of last lines of a failed run's log that are shown."""


def print_list(statuses: Sequence[RunStatus], total: int, runs_dir: Path) -> None:
    """Print the table of runs.

    Args:
        statuses: the selected runs.
        total: number of runs in the folder.
        runs_dir: that folder.
    """
    if not total:
        print_out(f"there are no runs in {runs_dir}; rlx train starts one")
        return
    title = f"{len(statuses)} of {total} runs in {runs_dir}, {format_bytes(sum(s.bytes for s in statuses))}"
    rows = [
        [
            status.folder.run_id,
            status.state,
            _step(status),
            _last_metrics(status),
            format_age(time.time() - status.changed),
            format_bytes(status.bytes),
        ]
        for status in statuses
    ]
    print_out(table(title, ["run", "state", "step", "last metrics", "changed", "size"], rows, words=True))


def print_json(statuses: Sequence[RunStatus]) -> None:
    """Print one JSON object per run: its values, and the last value of each metric."""
    for status in statuses:
        content = {**status.values(), "reason": status.reason, "metrics": status.metrics}
        print_out(json.dumps(content))


def print_run(folder: RunDir) -> None:
    """Print one run in full."""
    status = run_status(folder)
    state = f"{status.state}: {status.reason}" if status.reason else status.state
    values = status.values()
    lines = [
        ("run", folder.run_id),
        ("state", state),
        ("step", _step(status)),
        ("changed", f"{format_age(time.time() - status.changed)} ago"),
        ("size", format_bytes(status.bytes)),
        *((key, str(values[key])) for key in ("method", "model", "data", "seed") if values[key] != ""),
    ]
    for name, value in lines:
        print_out(f"{name:12} {value}")
    _print_metrics(status)
    _print_evaluations(folder)
    _print_files(folder)
    _print_trouble(status)


def print_differences(first: RunDir, second: RunDir) -> None:
    """Print the keys with other values in two runs, and the last metrics of both."""
    pairs = differences(first, second)
    if not pairs:
        print_out(f"{first.run_id} and {second.run_id} have the same spec, files and version")
    else:
        rows = [[key, left or "-", right or "-"] for key, left, right in pairs]
        print_out(table("what differs", ["key", first.run_id, second.run_id], rows, words=True))
    left, right = run_status(first), run_status(second)
    names = dict.fromkeys([*MAIN_METRICS[left.kind], *MAIN_METRICS[right.kind]])
    rows = [[name, _short_value(left, name), _short_value(right, name)] for name in names]
    rows.append(["step", _step(left), _step(right)])
    print_out(table("last metrics", ["", first.run_id, second.run_id], rows, words=True))


def format_bytes(number: int) -> str:
    """A number of bytes as 512 B, 1.5 KiB, 20.3 MiB or 3.1 GiB."""
    if number < 1024:
        return f"{number} B"
    value, unit = number / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.1f} {unit}"


def format_age(seconds: float) -> str:
    """An age as 40 s, 12 min, 5 h or 3 days."""
    for limit, length, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def _step(status: RunStatus) -> str:
    if status.step < 0:
        return "-"
    return f"{status.step}/{status.total}" if status.total else str(status.step)


def _short_value(status: RunStatus, name: str) -> str:
    value = status.values().get(name)
    return f"{value:.3f}" if isinstance(value, float) else "-" if value is None else str(value)


def _last_metrics(status: RunStatus) -> str:
    shown = [f"{name} {_short_value(status, name)}" for name in MAIN_METRICS[status.kind] if name in status.values()]
    return ", ".join(shown) or "-"


def _print_metrics(status: RunStatus) -> None:
    """Print the last value of each metric, and the course of the main ones."""
    for name, key in MAIN_METRICS[status.kind].items():
        course = [record[key] for record in status.records if key in record]
        bars = sparkline(unit_values(course), SPARKLINE_WIDTH)
        if bars:
            print_out(f"{name:12} {bars} {min(course):.3f} to {max(course):.3f}, last {course[-1]:.3f}")
    rows = [[key, f"{value:.6g}"] for key, value in sorted(status.metrics.items()) if key != "step"]
    if rows:
        print_out(table("\nlast value of each metric", ["metric", "value"], rows))


def _print_evaluations(folder: RunDir) -> None:
    rows = []
    for evaluation in folder.evaluations():
        if evaluation.result.is_file():
            average = read_json(evaluation.result)["average"]
            shown = f"{average['value']:.3f} [{average['low']:.3f}, {average['high']:.3f}]"
        else:
            shown = "not finished"
        rows.append([evaluation.root.parent.name, evaluation.root.name, shown])
    if rows:
        print_out(table("\nevaluations", ["checkpoint", "benchmark and protocol", "result"], rows, words=True))


def _print_files(folder: RunDir) -> None:
    paths = {
        "model": folder.model,
        "checkpoints": folder.checkpoints,
        "samples": folder.samples,
        "metrics": folder.metrics,
        "certificate": folder.certificate_page,
        "spec": folder.spec,
        "resolved": folder.resolved,
        "log": folder.log,
        "profile": folder.profile,
    }
    print_out("\nfiles")
    for name, path in paths.items():
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            print_out(f"{name:12} {format_bytes(folder_bytes(path)):>10}  {path}")


def _print_trouble(status: RunStatus) -> None:
    """Print the last lines of a failed run's log, and the files that were set aside as damaged."""
    folder = status.folder
    if status.state == "failed" and folder.log.is_file():
        lines = folder.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-LOG_LINES:]
        print_out("\nlast lines of the log\n" + "\n".join(f"  {line}" for line in lines))
    for path in sorted(folder.root.rglob("_*.damaged*")):
        print_out(f"set aside as damaged: {path}")
    if status.state in ("stopped", "failed"):
        command = "unlearn" if status.kind == "unlearn" else "train"
        print_out(f"\ncontinue with: rlx {command} {folder.spec} --runs-dir {folder.root.parent}")
