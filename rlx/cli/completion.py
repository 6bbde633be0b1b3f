"""Shell completion: names of runs, methods, benchmarks and keys of a spec. Does not import torch."""

from __future__ import annotations

import os
from pathlib import Path

import typer


def run_names(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the runs in the runs folder that begin with what was typed."""
    folder = Path(context.params.get("runs_dir") or os.environ.get("RLX_RUNS_DIR") or "runs")
    files = [*folder.glob("*/resolved.json"), *folder.glob("*/evaluated.json")]
    return sorted(name for name in {file.parent.name for file in files} if name.startswith(incomplete))
