"""`rlx train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlx.cli.options import (
    DryRun,
    Fresh,
    Jobs,
    JsonSchema,
    Launcher,
    Master,
    NodeRank,
    Nodes,
    Plan,
    Processes,
    RunName,
    RunsDir,
    Seed,
    Sets,
    refuse_beside_study,
    with_named,
)
from rlx.errors import UserError

if TYPE_CHECKING:
    from rlx.engine.processes import ProcessLayout
    from rlx.specs.train import Resolved


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
    backend: Annotated[str | None, typer.Option(help="local, or verl: a Ray cluster.")] = None,
    gpus_per_node: Annotated[int | None, typer.Option(min=1, help="Of verl: GPUs on each node.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="Of verl: a Ray cluster that stands.")] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Say where the time of two steps goes, and trace it.")
    ] = False,
    fresh: Fresh = False,
    dry_run: DryRun = False,
    json_schema: JsonSchema = False,
    jobs: Jobs = 1,
    launcher: Launcher = "local",
    plan: Plan = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Train a policy by reinforcement learning with verifiable rewards.

    The same spec finds its run again: it is finished if it was cut off, and left alone if it is done. A study (a YAML
    file with axes) has all its runs trained.
    """
    from rlx.specs.reading import assign, read_spec, with_sets
    from rlx.specs.train import Spec

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
        "backend": backend,
        "cluster.gpus_per_node": gpus_per_node,
        "cluster.ray_address": ray_address,
    }
    content = read_spec(spec) if spec else {}
    if "axes" in content:
        refuse_beside_study(spec, named, sets)
        from rlx.compare.run import Places, run_only

        places = Places(runs_dir, Path("reports"))
        raise typer.Exit(run_only(content, "train", places, jobs, launcher, plan or dry_run))
    content = with_sets(with_named(content, named), sets or [])
    if content.get("backend") == "verl":
        _refuse({"--processes": processes > 1, "--node-rank": node_rank > 0, "--master": bool(master)}, "verl")
        assign(content, "cluster.nodes", nodes if nodes > 1 else content.get("cluster", {}).get("nodes", 1))
    else:
        _refuse({"--gpus-per-node": gpus_per_node is not None, "--ray-address": ray_address is not None}, "local")

    from rlx.specs.resolve_train import resolve

    resolved = resolve(content)
    if dry_run or plan:
        _print_resolved(resolved, runs_dir)
        return

    from rlx.engine.processes import ProcessLayout

    if profile and resolved.spec.backend == "verl":
        raise UserError(
            "--profile does not go with backend=verl", fix="verl has a profiler of its own, or leave --backend out"
        )
    if profile and resolved.spec.steps < 2:
        raise UserError("--profile needs a step to warm up and one to look at, and steps is 1", fix="give --steps 3")
    raise typer.Exit(
        _run(resolved, content, runs_dir, ProcessLayout(processes, nodes, node_rank, master), fresh, profile)
    )


def _run(
    resolved: Resolved, content: dict[str, Any], runs_dir: Path, team: ProcessLayout, fresh: bool, profile: bool
) -> int:
    """Hand the experiment to its backend; the exit code."""
    from rlx.engine.processes import launched
    from rlx.runs.folder import RunDir

    folder = RunDir(runs_dir / resolved.run_id)
    if fresh and launched():
        raise UserError("--fresh would be done by every process of the launcher", fix=f"remove {folder.root} first")
    if fresh and team.node_rank == 0:
        with folder.locked():
            folder.clear()
    if resolved.spec.backend == "verl":
        from rlx.verl.run import run_verl

        return run_verl(resolved, content, folder)

    from rlx.rl.run import run

    return run(resolved, content, folder, team, profile)


def _refuse(given: dict[str, bool], backend: str) -> None:
    """Refuse an option that the backend does not read."""
    for option in (option for option, stands in given.items() if stands):
        raise UserError(
            f"{option} does not go with backend={backend}",
            fix="local reads --processes, --node-rank and --master; verl reads --gpus-per-node and --ray-address",
        )


def _print_resolved(resolved: Resolved, runs_dir: Path) -> None:
    """The resolved experiment, and with verl its command, which holds the whole configuration."""
    import yaml

    typer.echo(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False).rstrip())
    if resolved.spec.backend == "verl":
        from rlx.runs.folder import RunDir
        from rlx.verl.translate import told

        typer.echo(told(resolved, RunDir(runs_dir / resolved.run_id)))
