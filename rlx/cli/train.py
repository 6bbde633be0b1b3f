"""`rlx train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlx.cli.completion import policy_losses, rewards
from rlx.cli.options import (
    OUTPUT,
    RUN,
    SCALE,
    DryRun,
    Fresh,
    Jobs,
    JsonSchema,
    Launcher,
    Master,
    ModelPath,
    NodeRank,
    Nodes,
    Overrides,
    Plan,
    Preview,
    Processes,
    RunName,
    RunsDir,
    Seed,
    TakeOver,
    Trust,
)
from rlx.cli.preview import reject_preview_of_study, skip_unused_imports
from rlx.cli.run_spec import (
    StudyOptions,
    apply_options_and_overrides,
    is_study,
    print_json_schema,
    print_resolved,
    read_user_spec,
    reject_fresh_with_launcher,
    reject_options_of_one_run,
    run_study,
)
from rlx.errors import UserError

if TYPE_CHECKING:
    from rlx.engine.processes import ProcessLayout
    from rlx.runs.folder import RunDir
    from rlx.specs.train import Resolved


def train(
    spec: Annotated[
        Path | None, typer.Argument(help="YAML file of a spec or study; default: the embedded arithmetic task.")
    ] = None,
    algo: Annotated[
        str | None,
        typer.Option(
            help="Policy loss: a name from rlx methods, name@preset, or file.py:function. Default: dgpo.",
            rich_help_panel=RUN,
            autocompletion=policy_losses,
        ),
    ] = None,
    model: ModelPath = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Prompts: a file, a glob, a saved folder or a hub data set (docs/data.md). Default: arithmetic.",
            rich_help_panel=RUN,
        ),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="Reward: a name such as boxed, or file.py:function. Default: chosen by the data.",
            rich_help_panel=RUN,
            autocompletion=rewards,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Number of steps: rollouts, each with its updates. Default: 100.", rich_help_panel=RUN),
    ] = None,
    seed: Seed = None,
    run_name: RunName = None,
    overrides: Overrides = None,
    processes: Processes = 1,
    nodes: Nodes = 1,
    node_rank: NodeRank = 0,
    master: Master = "",
    backend: Annotated[
        str | None,
        typer.Option(help="local, or verl (on a Ray cluster). Default: local.", rich_help_panel=SCALE),
    ] = None,
    gpus_per_node: Annotated[
        int | None,
        typer.Option(min=1, help="verl only: number of GPUs on each machine. Default: 8.", rich_help_panel=SCALE),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="verl only: address of a running Ray cluster. Default: start one on this machine.",
            rich_help_panel=SCALE,
        ),
    ] = None,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Profile two steps: print the seconds of each phase and write a trace.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    fresh: Fresh = False,
    take_over: TakeOver = False,
    trust: Trust = False,
    dry_run: DryRun = False,
    preview: Preview = False,
    json_schema: JsonSchema = False,
    jobs: Jobs = 1,
    launcher: Launcher = "local",
    plan: Plan = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Train a policy by reinforcement learning with verifiable rewards.

    The same spec always names the same run: an interrupted run is resumed and a complete run is left as it is. If the
    YAML file is a study (it has axes), all of its runs are trained.
    """
    from rlx.engine.processes import ProcessLayout
    from rlx.runs.folder import RunDir
    from rlx.runs.locate import with_existing_id
    from rlx.specs.resolve_train import resolve
    from rlx.specs.train import Spec

    if json_schema:
        print_json_schema(Spec)
        return
    options = {
        "algorithm.name": algo,
        "model.path": model,
        "data.source": data,
        "reward.name": reward,
        "steps": steps,
        "seed": seed,
        "run_name": run_name,
        "backend": backend,
        "cluster.gpus_per_node": gpus_per_node,
        "cluster.ray_address": ray_address,
    }
    content = read_user_spec(spec, trust)
    if is_study(content):
        reject_preview_of_study(preview)
        reject_options_of_one_run(spec, options, overrides or [])
        raise typer.Exit(
            run_study("train", content, StudyOptions(jobs, launcher, plan or dry_run, runs_dir, take_over))
        )
    content = apply_options_and_overrides(content, options, overrides or [])
    layout = ProcessLayout(processes, nodes, node_rank, master)
    if content.get("backend") == "verl":
        _reject_local_options(layout)
        _set_verl_nodes(content, nodes)
    else:
        _reject_verl_options(gpus_per_node, ray_address)
    resolved = with_existing_id(resolve(content), runs_dir)
    folder = RunDir(runs_dir / resolved.run_id)
    if dry_run or plan:
        print_resolved(resolved)
        if resolved.spec.backend == "verl":
            _print_verl_command(resolved, folder)
        return
    if preview:
        skip_unused_imports()
        from rlx.rl.preview import preview_train

        raise typer.Exit(preview_train(resolved, processes * nodes))
    if profile:
        _check_profile(resolved)
    reject_fresh_with_launcher(fresh, [folder])
    if take_over:
        folder.take_over()
    raise typer.Exit(_run(resolved, content, folder, layout, fresh, profile))


def _reject_local_options(layout: ProcessLayout) -> None:
    """Reject options that only the local backend reads."""
    options = {
        "--processes": layout.processes > 1,
        "--node-rank": layout.node_rank > 0,
        "--master": bool(layout.master),
    }
    _reject_options([name for name, given in options.items() if given], "verl")


def _reject_verl_options(gpus_per_node: int | None, ray_address: str | None) -> None:
    """Reject options that only the verl backend reads."""
    options = {"--gpus-per-node": gpus_per_node, "--ray-address": ray_address}
    _reject_options([name for name, value in options.items() if value is not None], "local")


def _reject_options(names: list[str], backend: str) -> None:
    if names:
        raise UserError(
            f"{names[0]} does not go with backend={backend}",
            fix="local reads --processes, --node-rank and --master; verl reads --gpus-per-node and --ray-address",
        )


def _set_verl_nodes(content: dict[str, Any], nodes: int) -> None:
    """Store ``--nodes`` in the spec; the spec's own value is kept if the option was not given."""
    from rlx.specs.reading import assign

    assign(content, "cluster.nodes", nodes if nodes > 1 else content.get("cluster", {}).get("nodes", 1))


def _check_profile(resolved: Resolved) -> None:
    """Reject a run that cannot be profiled."""
    if resolved.spec.backend == "verl":
        raise UserError(
            "--profile does not go with backend=verl", fix="use verl's own profiler, or leave --backend out"
        )
    if resolved.spec.steps < 2:
        raise UserError(
            "--profile needs at least 2 steps, one to warm up and one to profile, and steps is 1", fix="give --steps 3"
        )


def _print_verl_command(resolved: Resolved, folder: RunDir) -> None:
    """Print verl's configuration and command."""
    from rlx.verl.translate import format_translation

    typer.echo(format_translation(resolved, folder))


def _run(
    resolved: Resolved, content: dict[str, Any], folder: RunDir, layout: ProcessLayout, fresh: bool, profile: bool
) -> int:
    """Run the experiment on its backend; returns the exit code."""
    if fresh and layout.node_rank == 0:
        with folder.locked():
            folder.clear()
    if resolved.spec.backend == "verl":
        from rlx.verl.run import run_verl

        return run_verl(resolved, content, folder)

    from rlx.console import loading

    loading("torch and transformers")
    from rlx.rl.run import run

    return run(resolved, content, folder, layout, profile)
