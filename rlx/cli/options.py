"""Types of the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlx.cli.completion import run_names as run_names

RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder that contains all runs.", envvar="RLX_RUNS_DIR")]

ModelPath = Annotated[str | None, typer.Option("--model", help="Model: a folder, a hub id, or embedded.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of every random choice.")]
RunName = Annotated[
    str | None,
    typer.Option("--run-name", help="First part of the run folder's name; default: method, model, data and seed."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set any key of the spec: section.key=value, value in YAML; may be repeated."
    ),
]

Processes = Annotated[
    int, typer.Option("--processes", min=1, help="Number of processes on each machine that share the run.")
]
Nodes = Annotated[
    int, typer.Option("--nodes", min=1, help="Number of machines that share the run and the runs folder.")
]
NodeRank = Annotated[int, typer.Option("--node-rank", min=0, help="Index of this machine, from 0 to nodes - 1.")]
Master = Annotated[
    str, typer.Option("--master", metavar="HOST:PORT", help="Address of machine 0 and a free port on it.")
]

Fresh = Annotated[bool, typer.Option("--fresh", help="Delete the run's earlier results and start again.")]
TakeOver = Annotated[
    bool,
    typer.Option("--take-over", help="Take over the lock of another machine's process, which you know to have ended."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved experiment and stop.")]
Preview = Annotated[
    bool,
    typer.Option(
        "--preview", help="Print the data, prompts, rewards and size without loading weights, and stop; writes nothing."
    ),
]
JsonSchema = Annotated[bool, typer.Option("--json-schema", help="Print the JSON schema of the spec and stop.")]

Jobs = Annotated[
    int, typer.Option("--jobs", min=1, help="Study only: number of runs at the same time (launcher local).")
]
Launcher = Annotated[
    str, typer.Option("--launcher", help="Study only: local (processes) or ray (tasks on a Ray cluster).")
]
Plan = Annotated[
    bool, typer.Option("--plan", help="Study only: print the runs, their states and the time left, and stop.")
]
