"""`rlx runs`: commands about the runs of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlx.cli.options import RunsDir

runs = typer.Typer(help="Check run folders.", no_args_is_help=True, rich_markup_mode=None)


@runs.callback()
def _group() -> None:
    """Check run folders."""


@runs.command()
def check(
    run: Annotated[str | None, typer.Argument(help="A run (folder or name); default: every run.")] = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Compare the files of runs with their hashes, and print what is damaged or missing.

    Reads checkpoints, models, metrics, samples, evaluations and reference constants; changes nothing. The exit code is
    1 if a file is damaged or missing.
    """
    from rlx.console import print_out
    from rlx.runs.check import check_references, check_run, run_folders

    problems = 0
    for folder in run_folders(run, runs_dir):
        report = check_run(folder)
        problems += len(report.problems)
        print_out(report.text(folder.run_id))
    if run is None:
        report = check_references(runs_dir)
        if report.checked or report.problems:
            problems += len(report.problems)
            print_out(report.text("reference constants"))
    raise typer.Exit(1 if problems else 0)
