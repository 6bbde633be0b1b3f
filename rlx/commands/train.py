"""`rlx train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rlx.commands.options import (
    DryRun,
    Fresh,
    Jobs,
    JsonSchema,
    Master,
    NodeRank,
    Nodes,
    Plan,
    Processes,
    RunName,
    RunsDir,
    Seed,
    Sets,
    with_named,
)
from rlx.errors import UserError


def train(
    spec: Annotated[Path | None, typer.Argument(help="YAML spec; without one the embedded task is trained.")] = None,
    algo: Annotated[str | None, typer.Option(help="Policy loss: a name, name@preset or file.py:function.")] = None,
    model: Annotated[str | None, typer.Option(help="Folder or hub id of the model.")] = None,
    data: Annotated[str | None, typer.Option(help="Prompts: .jsonl, .parquet or hub data set.")] = None,
    steps: Annotated[int | None, typer.Option(help="Rollouts.")] = None,
    seed: Seed = None,
    run_name: RunName = None,
    sets: Sets = None,
    processes: Processes = 1,
    nodes: Nodes = 1,
    node_rank: NodeRank = 0,
    master: Master = "",
    fresh: Fresh = False,
    dry_run: DryRun = False,
    json_schema: JsonSchema = False,
    jobs: Jobs = 1,
    plan: Plan = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Train a policy by reinforcement learning with verifiable rewards.

    The same spec finds its run again: it is finished if it was cut off, and left alone if it is done. A study (a YAML
    file with axes) has all its runs trained.
    """
    from rlx.spec import Spec
    from rlx.spec_file import read_spec, with_sets

    if json_schema:
        typer.echo(json.dumps(Spec.model_json_schema(), indent=2))
        return
    named = {
        "algorithm.name": algo,
        "model.path": model,
        "data.source": data,
        "steps": steps,
        "seed": seed,
        "run_name": run_name,
    }
    content = read_spec(spec) if spec else {}
    if "axes" in content:
        given = [key for key, value in named.items() if value is not None] + (sets or [])
        if given:
            raise UserError(f"{given[0]} does not go with a study", fix=f"write it in {spec} under base or axes")
        raise typer.Exit(_train_study(content, runs_dir, jobs, plan or dry_run))
    content = with_sets(with_named(content, named), sets or [])

    from rlx.resolve import resolve

    resolved = resolve(content)
    if dry_run or plan:
        import yaml

        typer.echo(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False).rstrip())
        return

    from rlx.backends.launch import Team, launched
    from rlx.rundir import RunDir

    folder = RunDir(runs_dir / resolved.run_id)
    if fresh and launched():
        raise UserError("--fresh would be done by every process of the launcher", fix=f"remove {folder.root} first")
    if fresh and node_rank == 0:
        with folder.locked():
            folder.clear()

    from rlx.backends.local import run

    raise typer.Exit(run(resolved, content, folder, Team(processes, nodes, node_rank, master)))


def _train_study(content: dict[str, Any], runs_dir: Path, jobs: int, plan: bool) -> int:
    """Train a study's runs without a report; the exit code."""
    from rlx.compare.command import Places, run_study, tell_plan
    from rlx.compare.runner import read_study

    study, places = read_study(content), Places(runs_dir, Path("reports"))
    if plan:
        tell_plan(study, places, jobs)
        return 0
    return 1 if run_study(study, places, jobs, measure=False) else 0
