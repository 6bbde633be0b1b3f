"""Types of the options that several commands share, and the groups that the help lists options in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlx.cli.completion import models, spec_settings

RUN, SCALE, STUDY, OUTPUT = "Run", "Scale", "Study", "Output"
"""Groups of options: what is run, on which processes and machines, several runs, and what is printed or stored."""

RunsDir = Annotated[
    Path,
    typer.Option("--runs-dir", help="Folder that contains all runs.", envvar="RLX_RUNS_DIR", rich_help_panel=OUTPUT),
]

ModelPath = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Model: a folder, a hub id, or embedded. Default: embedded.",
        rich_help_panel=RUN,
        autocompletion=models,
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", help="Seed of all random choices. Default: 0.", rich_help_panel=RUN)
]
RunName = Annotated[
    str | None,
    typer.Option(
        "--run-name",
        help="First part of the run folder's name. Default: method, model, data and seed.",
        rich_help_panel=RUN,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set any key of the spec, such as optim.lr=1e-5; the value is YAML; may be repeated.",
        rich_help_panel=RUN,
        autocompletion=spec_settings,
    ),
]

Processes = Annotated[
    int,
    typer.Option("--processes", min=1, help="Number of processes (GPUs) on each machine.", rich_help_panel=SCALE),
]
Nodes = Annotated[
    int,
    typer.Option("--nodes", min=1, help="Number of machines, which share the runs folder.", rich_help_panel=SCALE),
]
NodeRank = Annotated[
    int,
    typer.Option("--node-rank", min=0, help="Index of this machine, from 0 to nodes - 1.", rich_help_panel=SCALE),
]
Master = Annotated[
    str,
    typer.Option(
        "--master",
        metavar="HOST:PORT",
        help="Address of machine 0 and a free port on it; needed with several machines.",
        rich_help_panel=SCALE,
    ),
]

Fresh = Annotated[
    bool,
    typer.Option("--fresh", help="Delete the run's earlier results and start again.", rich_help_panel=RUN),
]
TakeOver = Annotated[
    bool,
    typer.Option(
        "--take-over",
        help="Remove the lock that a process of another machine left, if you know that it has ended.",
        rich_help_panel=RUN,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the resolved spec and stop; writes nothing.", rich_help_panel=OUTPUT),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Execute Python code that a run folder or the model in it names (file.py, remote code).",
        rich_help_panel=RUN,
    ),
]
Preview = Annotated[
    bool,
    typer.Option(
        "--preview",
        help="Print data, prompts, rewards and size without loading weights, and stop; writes nothing.",
        rich_help_panel=OUTPUT,
    ),
]
JsonSchema = Annotated[
    bool,
    typer.Option("--json-schema", help="Print the JSON schema of the spec and stop.", rich_help_panel=OUTPUT),
]

Jobs = Annotated[
    int,
    typer.Option(
        "--jobs", min=1, help="Number of runs at the same time (with --launcher local).", rich_help_panel=STUDY
    ),
]
Launcher = Annotated[
    str,
    typer.Option("--launcher", help="local (processes) or ray (tasks on a Ray cluster).", rich_help_panel=STUDY),
]
Plan = Annotated[
    bool,
    typer.Option("--plan", help="Print the runs, their states and the time left, and stop.", rich_help_panel=STUDY),
]
