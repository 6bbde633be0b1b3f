"""`rlx compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlx.cli.options import Jobs, Launcher, Plan, RunsDir
from rlx.errors import UserError

if TYPE_CHECKING:
    from rlx.specs.study import StudySpec


def compare(
    targets: Annotated[list[str] | None, typer.Argument(help="A study's YAML file, or runs by folder or name.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Method that the others are tested against.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Runs with this MLflow tag.")] = None,
    experiment: Annotated[str | None, typer.Option(help="Runs of this MLflow experiment.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Compare runs that were not measured alike.")] = False,
    jobs: Jobs = 1,
    launcher: Launcher = "local",
    plan: Plan = False,
    out: Annotated[Path, typer.Option(help="Folder of all reports.")] = Path("reports"),
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Say which method is better, and whether the data allow saying so.

    A study's missing runs are trained and evaluated first; killed, the same command goes on.
    """
    from rlx.compare.run import Places, Request, compare_runs, compare_study, print_plan, run_study

    places = Places(runs_dir, out)
    studies = [name for name in targets or [] if name.endswith((".yaml", ".yml"))]
    if studies:
        if len(targets or []) > 1 or tag or experiment:
            raise UserError(f"{studies[0]} is a study, and more is named beside it", fix="give the study alone")
        study = _study(Path(studies[0]), baseline)
        if plan:
            print_plan(study, places, jobs)
            return
        failed = run_study(study, places, jobs, launcher=launcher)
        compare_study(study, failed, places, force)
        raise typer.Exit(1 if failed else 0)
    if not (targets or tag or experiment):
        raise UserError("nothing is named to compare", fix="give a study, runs, --tag or --experiment")
    names, trained = list(targets or []), []
    if tag or experiment:
        from rlx.compare.load.mlflow import logged_runs

        logged = logged_runs(runs_dir, tag or [], experiment)
        names, trained = [*names, *logged.unlearned], list(logged.trained)
    compare_runs(names, trained, Request(baseline, force), places)


def _study(path: Path, baseline: str | None = None) -> StudySpec:
    """The study in a file."""
    from rlx.compare.study.runner import read_study
    from rlx.specs.reading import read_spec

    content = read_spec(path)
    return read_study({**content, "baseline": baseline} if baseline else content)
