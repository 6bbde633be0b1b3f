"""`rlx unlearn --purge RUN`."""

from __future__ import annotations

from pathlib import Path

import typer

from rlx.errors import UserError
from rlx.inert import visible


def purge_run(name: str, runs: Path, yes: bool) -> int:
    """List what in a run's folder still holds the forgotten knowledge, and delete it after a question.

    Args:
        name: the run's folder or name.
        runs: folder of all runs.
        yes: delete without asking.

    Returns:
        The exit code: 1 if the user declines.

    Raises:
        UserError: when there is no such run, another process writes it, or nobody can answer the question.
    """
    from rlx.console import print_out
    from rlx.runs.after import finished_run
    from rlx.runs.purge import purge, remainders

    folder = finished_run(name, runs, "--purge")
    with folder.locked():
        items = remainders(folder)
        if not items:
            print_out(f"run {folder.run_id} holds nothing of the forgotten knowledge but its model {folder.model}")
            return 0
        width = max(len(visible(str(item.path))) for item in items)
        for item in items:
            typer.echo(f"{visible(str(item.path)):{width}}  {_size(item.bytes):>9}  {item.content}")
        if folder.summary.is_file():
            print_out(f"not deleted: the unlearned model {folder.model} and the certificate")
        else:
            typer.echo("the run is not complete: after the deletion it starts again from update 0")
        typer.echo("not listed: the original model, the request files, copies that others have, and MLflow's metrics")
        if not yes and not _confirm(len(items)):
            typer.echo("nothing was deleted")
            return 1
        purge(items)
        typer.echo(f"deleted {len(items)} of {len(items)}")
    return 0


def _confirm(number: int) -> bool:
    try:
        return typer.confirm(f"delete these {number}?")
    except typer.Abort:
        raise UserError("--purge needs an answer to its question", fix="add --yes to delete without one") from None


def _size(number: int) -> str:
    return f"{number / 2**20:,.1f} MiB" if number >= 2**20 else f"{number / 2**10:,.1f} KiB"
