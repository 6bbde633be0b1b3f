"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rlx.errors import UserError

RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder of all runs.", envvar="RLX_RUNS_DIR")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set any key of the spec; may be repeated.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget what this run has done and start anew.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved experiment and stop.")]
JsonSchema = Annotated[bool, typer.Option("--json-schema", help="Print the spec's JSON schema and stop.")]
Seed = Annotated[int | None, typer.Option(help="Every random choice follows from it.")]
RunName = Annotated[str | None, typer.Option(help="First part of the run folder's name.")]
Jobs = Annotated[int, typer.Option(min=1, help="Runs of a study at once.")]
Launcher = Annotated[str, typer.Option(help="Of a study: local processes, or ray for a cluster's tasks.")]
Plan = Annotated[bool, typer.Option("--plan", help="Of a study: show what would be done, and stop.")]

Processes = Annotated[int, typer.Option(min=1, help="Processes on each node that share the work.")]
Nodes = Annotated[int, typer.Option(min=1, help="Machines that share the work, and the runs folder.")]
NodeRank = Annotated[int, typer.Option(min=0, help="This machine's number.")]
Master = Annotated[str, typer.Option(metavar="HOST:PORT", help="Address and free port of machine 0.")]


def with_named(content: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    """The content with the named options that were given put on top."""
    from rlx.specs.reading import assign, with_sets

    result = with_sets(content, [])
    for key, value in named.items():
        if value is not None:
            assign(result, key, value)
    return result


def refuse_beside_study(study: Path | None, named: dict[str, Any], sets: list[str] | None) -> None:
    """Refuse options that change one spec where a study was given.

    Raises:
        UserError: naming the first of them.
    """
    given = [key for key, value in named.items() if value is not None] + (sets or [])
    if given:
        raise UserError(f"{given[0]} does not go with a study", fix=f"write it in {study} under base or axes")
