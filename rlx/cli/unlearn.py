"""`rlx unlearn`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

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


def unlearn(
    spec: Annotated[Path | None, typer.Argument(help="YAML spec; without one the embedded set is forgotten.")] = None,
    method: Annotated[str | None, typer.Option(help="Method: a name, name@preset or file.py:function.")] = None,
    against: Annotated[str | None, typer.Option(help="Methods to lay beside it, by comma; '' for none.")] = None,
    model: Annotated[str | None, typer.Option(help="Folder or hub id of the model.")] = None,
    forget: Annotated[str | None, typer.Option(help="JSONL of requests: question and answer, or text.")] = None,
    retain: Annotated[str | None, typer.Option(help="JSONL of questions and answers that must stay.")] = None,
    tofu: Annotated[str | None, typer.Option(help="TOFU split instead: forget01, forget05 or forget10.")] = None,
    retain_model: Annotated[str | None, typer.Option(help="A model that never saw the forget set.")] = None,
    spans: Annotated[str | None, typer.Option(help="auto, given, subject, surprisal or all.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the forget set.")] = None,
    seed: Seed = None,
    run_name: RunName = None,
    sets: Sets = None,
    processes: Processes = 1,
    nodes: Nodes = 1,
    node_rank: NodeRank = 0,
    master: Master = "",
    backend: Annotated[str, typer.Option(help="local is the only one.")] = "local",
    fresh: Fresh = False,
    dry_run: DryRun = False,
    json_schema: JsonSchema = False,
    jobs: Jobs = 1,
    launcher: Launcher = "local",
    plan: Plan = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Make a model forget what a file of requests asks, and write a certificate of what is left.

    Without any argument an embedded model forgets four fictitious authors, by palu, grad_diff and npo. A study (a YAML
    file with axes) has all its runs done.
    """
    from rlx.specs.reading import assign, read_spec, with_sets
    from rlx.specs.unlearn import UnlearnSpec

    if backend != "local":
        raise UserError(f"--backend is '{backend}', but unlearning runs here only", fix="leave it out")
    if json_schema:
        typer.echo(json.dumps(UnlearnSpec.model_json_schema(), indent=2))
        return
    named = {
        "method.name": method,
        "model.path": model,
        "forget.source": f"tofu/{tofu.removeprefix('tofu/')}" if tofu else forget,
        "forget.retain": retain,
        "forget.spans": spans,
        "evaluation.retain_model": retain_model,
        "epochs": epochs,
        "seed": seed,
        "run_name": run_name,
    }
    content = read_spec(spec) if spec else {}
    if "axes" in content:
        from rlx.compare.run import Places, run_only

        refuse_beside_study(spec, {**named, "--against": against}, sets)
        places = Places(runs_dir, Path("reports"))
        raise typer.Exit(run_only(content, "unlearn", places, jobs, launcher, plan or dry_run))
    content = with_sets(with_named(content, named), sets or [])

    from rlx.specs.resolve_unlearn import EMBEDDED_AGAINST, resolve_unlearn

    experiments = [(resolve_unlearn(content), content)]
    default = EMBEDDED_AGAINST if experiments[0][0].spec.model.path == "embedded" and method is None else ""
    for other in filter(None, (default if against is None else against).split(",")):
        beside = with_sets(content, [])
        assign(beside, "method", {**content.get("method", {}), "name": other.strip(), "params": {}})
        experiments.append((resolve_unlearn(beside), beside))
    if dry_run or plan:
        import yaml

        for resolved, _ in experiments:
            typer.echo(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False).rstrip())
        return

    from rlx.engine.processes import ProcessLayout, launched
    from rlx.unlearning.run import run_unlearn

    if fresh and launched():
        raise UserError("--fresh would be done by every process of the launcher", fix="remove the run's folder first")
    raise typer.Exit(run_unlearn(experiments, runs_dir, fresh, ProcessLayout(processes, nodes, node_rank, master)))
