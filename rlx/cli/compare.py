"""`rlx compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlx.cli.completion import all_methods, run_names
from rlx.cli.options import OUTPUT, RUN, Jobs, Launcher, Plan, RunsDir
from rlx.errors import UserError

if TYPE_CHECKING:
    from rlx.runs.folder import RunDir
    from rlx.specs.study import StudySpec


def compare(
    targets: Annotated[
        list[str] | None,
        typer.Argument(help="One study (a YAML file), or runs by folder or name.", autocompletion=run_names),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Method that the others are tested against. Default: that of the study.",
            rich_help_panel=RUN,
            autocompletion=all_methods,
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Compare the runs with this MLflow tag; may be repeated.", rich_help_panel=RUN
        ),
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Compare the runs of this MLflow experiment.", rich_help_panel=RUN)
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Compare runs even if they were measured with different protocols.", rich_help_panel=RUN
        ),
    ] = False,
    regrade: Annotated[
        bool,
        typer.Option(
            "--regrade",
            help="First grade the stored responses again that another version of the grader graded.",
            rich_help_panel=RUN,
        ),
    ] = False,
    jobs: Jobs = 1,
    launcher: Launcher = "local",
    plan: Plan = False,
    out: Annotated[Path, typer.Option(help="Folder that contains all reports.", rich_help_panel=OUTPUT)] = Path(
        "reports"
    ),
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Report which method is better, and whether the data suffice.

    The missing runs of a study are trained and evaluated first. If that is interrupted, the same command resumes it.
    """
    from rlx.compare.run import (
        ComparisonOptions,
        Folders,
        compare_runs,
        compare_study,
        print_plan,
        run_study,
        runs_to_compare,
    )
    from rlx.compare.study.runner import plan_runs

    folders = Folders(runs_dir, out)
    studies = [target for target in targets or [] if target.endswith((".yaml", ".yml"))]
    if studies:
        if len(targets or []) > 1 or tag or experiment:
            raise UserError(
                f"{studies[0]} is a study and cannot be combined with other runs", fix="give only the study"
            )
        study = _read_study(Path(studies[0]), baseline)
        if plan:
            print_plan(study, folders, jobs)
            return
        runs = plan_runs(study, runs_dir)
        failed = run_study(study, runs, jobs, launcher=launcher)
        if regrade:
            _regrade([run.folder for run in runs])
        compare_study(study, runs, failed, folders, force)
        raise typer.Exit(1 if failed else 0)
    if not (targets or tag or experiment):
        raise UserError("there is nothing to compare", fix="give a study, runs, --tag or --experiment")
    names, trained = list(targets or []), []
    if tag or experiment:
        from rlx.compare.load.mlflow import logged_runs

        logged = logged_runs(runs_dir, tag or [], experiment)
        names, trained = [*names, *logged.unlearned], list(logged.trained)
    if regrade:
        _regrade(runs_to_compare(names, runs_dir))
    compare_runs(names, trained, ComparisonOptions(baseline, force), folders)


def _regrade(runs: Sequence[RunDir]) -> None:
    """Grade the stored responses of runs with the present grader, and print the names of the new results."""
    from rlx.console import print_out
    from rlx.evaluation.regrading import regrade_run

    for run in runs:
        for name in regrade_run(run):
            print_out(f"{run.run_id}: graded the stored responses of {name} again")


def _read_study(file: Path, baseline: str | None) -> StudySpec:
    """Return the study in a file, with another baseline if one is given."""
    from rlx.compare.study.runner import read_study
    from rlx.specs.reading import apply_options, read_spec

    return read_study(apply_options(read_spec(file), {"baseline": baseline or None}))
