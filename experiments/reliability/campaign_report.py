"""The report of a campaign in Markdown."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "pyarrow", "mlflow")


def write_report(file: Path, trials: Sequence[Mapping[str, Any]], compared: Mapping[str, Sequence[str]]) -> None:
    """Write what was killed, what was compared, and every difference.

    Args:
        file: the report.
        trials: finished trials.
        compared: kinds of content with the files that hold them.
    """
    kills, different = sum(trial["kills"] for trial in trials), [trial for trial in trials if trial["differences"]]
    seeds = [trial["seed"] for trial in trials]
    content = "; ".join(f"{kind} ({', '.join(f'`{file}`' for file in files)})" for kind, files in compared.items())
    lines = [
        "# Kills at random moments",
        "",
        f"{kills} SIGKILLs in {len(trials)} runs; {len(different)} runs differ from the uninterrupted run.",
        "",
        f"- seeds: {min(seeds)} to {max(seeds)} (`campaign.py --seed {min(seeds)}`); a quarter of the kills "
        "falls into the start of the process, the others into the rest of the run; at most 4 in a run",
        f"- machine: {platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores, Python "
        f"{platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in PACKAGES)}",
        f"- time of the runs: {sum(trial['seconds'] for trial in trials) / 60:.1f} minutes; written "
        f"{time.strftime('%Y-%m-%d', time.gmtime())}",
        f"- compared: {content}",
        "",
        "| run | runs | kills | earliest kill, s | latest kill, s | runs that differ |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for workload in dict.fromkeys(trial["workload"] for trial in trials):
        own = [trial for trial in trials if trial["workload"] == workload]
        moments = [moment for trial in own for moment in trial["moments"]] or [0.0]
        lines.append(
            f"| {workload} | {len(own)} | {sum(trial['kills'] for trial in own)} | {min(moments):.2f} | "
            f"{max(moments):.2f} | {sum(bool(trial['differences']) for trial in own)} |"
        )
    lines += ["", "## Differences", ""]
    lines += [f"- {t['workload']}, seed {t['seed']}: {'; '.join(t['differences'])}" for t in different] or ["None."]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
