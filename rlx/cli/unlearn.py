"""`rlx unlearn`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlx.cli.completion import run_names, unlearning_methods
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
from rlx.cli.purge import purge_run
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
    from rlx.specs.unlearn import ResolvedUnlearn


def unlearn(
    spec: Annotated[
        Path | None, typer.Argument(help="YAML file of a spec or study; default: the embedded example.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Unlearning method: a name from rlx methods, name@preset, or file.py:function. Default: palu.",
            rich_help_panel=RUN,
            autocompletion=unlearning_methods,
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="More methods to run for comparison, separated by commas; '' for none. Default: grad_diff,npo for "
            "the embedded model, else none.",
            rich_help_panel=RUN,
            autocompletion=unlearning_methods,
        ),
    ] = None,
    model: ModelPath = None,
    forget: Annotated[
        str | None,
        typer.Option(
            help="File of requests, each with question and answer, or with text. Default: the embedded authors.",
            rich_help_panel=RUN,
        ),
    ] = None,
    retain: Annotated[
        str | None,
        typer.Option(
            help="File of questions and answers that the model must not forget. Default: general questions.",
            rich_help_panel=RUN,
        ),
    ] = None,
    tofu: Annotated[
        str | None,
        typer.Option(help="TOFU split in place of --forget: forget01, forget05 or forget10.", rich_help_panel=RUN),
    ] = None,
    retain_model: Annotated[
        str | None,
        typer.Option(
            help="Model that was trained without the forget set, for comparison: a folder or a hub id. Default: none.",
            rich_help_panel=RUN,
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            help="Earlier unlearning run: start from its model with its settings, forget the new requests of --forget, "
            "and measure its requests again.",
            metavar="RUN",
            rich_help_panel=RUN,
            autocompletion=run_names,
        ),
    ] = None,
    spans: Annotated[
        str | None,
        typer.Option(
            help="How the sensitive words of an answer are found: auto, given, subject, surprisal or all. "
            "Default: auto.",
            rich_help_panel=RUN,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Number of passes over the forget set. Default: 12 for the embedded model, else 10.",
            rich_help_panel=RUN,
        ),
    ] = None,
    seed: Seed = None,
    run_name: RunName = None,
    show_secrets: Annotated[
        bool,
        typer.Option(
            "--show-secrets",
            help="Also write the certificate with sensitive texts in clear, to a file that only you can read.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    purge: Annotated[
        str | None,
        typer.Option(
            help="List what in a run's folder still holds the forgotten knowledge, ask, and delete it.",
            metavar="RUN",
            rich_help_panel=OUTPUT,
            autocompletion=run_names,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --purge: delete without asking.", rich_help_panel=OUTPUT)
    ] = False,
    overrides: Overrides = None,
    processes: Processes = 1,
    nodes: Nodes = 1,
    node_rank: NodeRank = 0,
    master: Master = "",
    backend: Annotated[str, typer.Option(help="local is the only choice.", rich_help_panel=SCALE)] = "local",
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
    """Make a model forget requests and certify what it still knows.

    Without arguments, an embedded model forgets four fictitious authors with palu, grad_diff and npo. If the YAML file
    is a study (it has axes), all of its runs are trained.
    """
    from rlx.engine.processes import ProcessLayout
    from rlx.runs.after import continue_run
    from rlx.runs.folder import RunDir
    from rlx.runs.locate import with_existing_id
    from rlx.specs.unlearn import UnlearnSpec

    if backend != "local":
        raise UserError(f"--backend is '{backend}', but rlx unlearn has only the local backend", fix="leave it out")
    if json_schema:
        print_json_schema(UnlearnSpec)
        return
    if purge is not None:
        raise typer.Exit(purge_run(purge, runs_dir, yes))
    options = {
        "after": after,
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
    content = read_user_spec(spec, trust)
    if is_study(content):
        reject_preview_of_study(preview)
        reject_options_of_one_run(spec, {**options, "--against": against}, overrides or [])
        raise typer.Exit(
            run_study("unlearn", content, StudyOptions(jobs, launcher, plan or dry_run, runs_dir, take_over))
        )
    content = continue_run(apply_options_and_overrides(content, options, overrides or []), runs_dir, trust)
    experiments = [
        (with_existing_id(resolved, runs_dir), own)
        for resolved, own in _experiments(content, against, compare_embedded=method is None)
    ]
    if dry_run or plan:
        for resolved, _ in experiments:
            print_resolved(resolved)
        return
    if preview:
        skip_unused_imports()
        from rlx.unlearning.preview import preview_unlearn

        others = [resolved.spec.method.name for resolved, _ in experiments[1:]]
        raise typer.Exit(preview_unlearn(experiments[0][0], others, processes * nodes))
    folders = [RunDir(runs_dir / resolved.run_id) for resolved, _ in experiments]
    reject_fresh_with_launcher(fresh, folders)
    if take_over:
        for folder in folders:
            folder.take_over()

    from rlx.console import loading

    loading("torch and transformers")
    from rlx.unlearning.run import run_unlearn

    layout = ProcessLayout(processes, nodes, node_rank, master)
    raise typer.Exit(run_unlearn(experiments, runs_dir, fresh, layout, show_secrets))


def _experiments(
    content: dict[str, Any], against: str | None, compare_embedded: bool
) -> list[tuple[ResolvedUnlearn, dict[str, Any]]]:
    """Return the resolved experiment of a spec and one for each method to compare with, each with its spec.

    Args:
        content: the user's spec.
        against: methods to compare with, separated by commas; None means the default.
        compare_embedded: whether the default for the embedded model is ``EMBEDDED_COMPARISONS`` instead of none.
    """
    from rlx.specs.reading import assign, copy_content
    from rlx.specs.resolve_unlearn import EMBEDDED_COMPARISONS, resolve_unlearn

    resolved = resolve_unlearn(content)
    experiments = [(resolved, content)]
    if against is None:
        against = EMBEDDED_COMPARISONS if compare_embedded and resolved.spec.model.path == "embedded" else ""
    for name in filter(None, against.split(",")):
        other = copy_content(content)
        assign(other, "method", {**content.get("method", {}), "name": name.strip(), "params": {}})
        experiments.append((resolve_unlearn(other), other))
    return experiments
