"""`rlx runs`: list, compare, show, check and delete the runs of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlx.cli.completion import run_names
from rlx.cli.options import RunsDir
from rlx.errors import UserError

if TYPE_CHECKING:
    from rlx.runs.removal import Removal

runs = typer.Typer(help="List, compare, show, check and delete runs.", rich_markup_mode="markdown")
RunArgument = Annotated[
    str, typer.Argument(help="A run: its folder, or enough of its name.", autocompletion=run_names, show_default=False)
]
Yes = Annotated[bool, typer.Option("--yes", help="Delete without asking.")]


@runs.callback(invoke_without_command=True)
def list_runs(
    context: typer.Context,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Only runs with this value: algo=dgpo, state=stopped, optim.lr>1e-6, reward>=0.5; may be repeated.",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Order: reward, step, size or any other key; default: the newest first."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per run.")] = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """List the runs of a folder with their state, last metrics, age and size; the commands below do more.

    States are running, finished, stopped, failed and damaged (details: rlx runs show RUN).
    """
    if context.invoked_subcommand is not None:
        if context.get_parameter_source("runs_dir").name == "COMMANDLINE":  # type: ignore[union-attr]
            raise UserError("--runs-dir is before the command", fix=f"write it after {context.invoked_subcommand}")
        return
    from rlx.cli.run_views import print_json, print_list
    from rlx.runs.check import run_folders
    from rlx.runs.listing import select_runs, sort_runs
    from rlx.runs.status import run_status

    statuses = [run_status(folder) for folder in run_folders(None, runs_dir)]
    selected = sort_runs(select_runs(statuses, where or []), sort)
    if as_json:
        print_json(selected)
    else:
        print_list(selected, len(statuses), runs_dir)


@runs.command()
def show(run: RunArgument, runs_dir: RunsDir = Path("runs")) -> None:
    """Show one run: state, metrics with their course, evaluations, where its files are, and what went wrong."""
    from rlx.cli.run_views import print_run
    from rlx.runs.check import matching_run

    print_run(matching_run(run, runs_dir))


@runs.command()
def diff(first: RunArgument, second: RunArgument, runs_dir: RunsDir = Path("runs")) -> None:
    """Print the keys of the spec, the fingerprints and the versions that differ between two runs."""
    from rlx.cli.run_views import print_differences
    from rlx.runs.check import matching_run

    print_differences(matching_run(first, runs_dir), matching_run(second, runs_dir))


@runs.command()
def rm(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs to delete.", autocompletion=run_names)],
    yes: Yes = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Delete runs with all their files, after a question that says how many bytes they have."""
    from rlx.console import print_out
    from rlx.runs.check import matching_run
    from rlx.runs.removal import dependent_runs, run_removals

    folders = list({folder.root: folder for folder in (matching_run(name, runs_dir) for name in names)}.values())
    for folder in folders:
        for dependent in dependent_runs(folder, runs_dir):
            print_out(f"note: run {dependent} starts from the model of {folder.run_id}")
    raise typer.Exit(_remove(run_removals(folders), yes, "MLflow keeps the logged metrics"))


@runs.command()
def prune(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN...]", help="Runs to prune; default: all.", autocompletion=run_names),
    ] = None,
    keep_checkpoints: Annotated[
        int,
        typer.Option(
            min=0,
            help="Number of newest checkpoints to keep in each run, in addition to the best one; "
            "0 deletes all checkpoints of finished runs.",
        ),
    ] = 1,
    yes: Yes = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Delete old checkpoints, after a question that says how many bytes they have; models and metrics stay."""
    from rlx.console import print_out
    from rlx.runs.check import matching_run, run_folders
    from rlx.runs.lock import active_holder
    from rlx.runs.removal import checkpoint_removals

    folders = [matching_run(name, runs_dir) for name in names] if names else run_folders(None, runs_dir)
    removals = []
    for folder in folders:
        holder = active_holder(folder.lock)
        if holder is not None:
            print_out(f"note: {folder.run_id} is left as it is: {holder} writes it")
            continue
        removals += checkpoint_removals(folder, keep_checkpoints)
    raise typer.Exit(_remove(removals, yes, "models, metrics and samples stay"))


def _remove(removals: Sequence[Removal], yes: bool, note: str) -> int:
    """Print what would be deleted, ask, and delete it while the runs are locked; returns the exit code."""
    from contextlib import ExitStack

    from rlx.cli.run_views import format_bytes
    from rlx.console import print_out
    from rlx.runs.removal import remove

    if not removals:
        print_out("there is nothing to delete")
        return 0
    with ExitStack() as stack:
        for folder in {removal.run.root: removal.run for removal in removals}.values():
            stack.enter_context(folder.locked())
        for removal in removals:
            print_out(f"{format_bytes(removal.bytes):>10}  {removal.path}")
        total = sum(removal.bytes for removal in removals)
        if not yes and not _confirm(f"delete {len(removals)} folders, {format_bytes(total)} ({total:,} bytes)?"):
            print_out("nothing was deleted")
            return 1
        remove(removals)
        print_out(f"deleted {len(removals)} folders, {format_bytes(total)} ({total:,} bytes); {note}")
    return 0


def _confirm(question: str) -> bool:
    try:
        return typer.confirm(question)
    except typer.Abort:
        raise UserError("the deletion needs an answer to its question", fix="add --yes to delete without one") from None


@runs.command()
def check(
    run: Annotated[
        str | None, typer.Argument(help="A run (folder or name); default: every run.", autocompletion=run_names)
    ] = None,
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
