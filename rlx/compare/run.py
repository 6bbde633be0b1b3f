"""`rlx compare`: read runs or a study, compare them, and write the report."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlx.compare.load.conditions import unfinished_runs, with_conditions
from rlx.compare.load.folders import TrainedRun, check_protocols, read_run, run_results
from rlx.compare.load.results import PublishedScore, RunResult, Study
from rlx.compare.load.unlearning import is_unlearning, read_unlearned_run, unlearning_results
from rlx.compare.report.text import terminal
from rlx.compare.report.write import RENDERERS, write_report
from rlx.compare.statistics.analysis import analyse
from rlx.compare.study.runner import PlannedRun, plan_runs, read_study, run_all, seconds_left
from rlx.console import print_out, table, warn
from rlx.errors import UserError, did_you_mean, public
from rlx.inert import file_name
from rlx.runs.folder import RunDir, find_run, read_json, runs_in
from rlx.runs.tracking import MlflowSink, tracking_uri
from rlx.specs.study import StudySpec, condition_axes

LAUNCHERS = ("local", "ray")
EXPERIMENT = "rlx"
"""MLflow experiment of reports."""


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders of runs and of reports.

    Example:
        ``Folders(runs=Path("runs"), reports=Path("reports"))``
    """

    runs: Path
    reports: Path


@dataclass(frozen=True, slots=True)
class ComparisonOptions:
    """How to compare runs.

    Example:
        ``ComparisonOptions(baseline="grpo", force=False)``
    """

    baseline: str | None
    force: bool
    """Compare runs even if their protocols differ."""


def run_study(
    study: StudySpec, runs: Sequence[PlannedRun], jobs: int, evaluate: bool = True, launcher: str = "local"
) -> dict[str, str]:
    """Run the unfinished runs of a study; return the runs that failed, with the reason.

    Args:
        study: the study.
        runs: every run of the study.
        jobs: number of runs at once; on Ray the cluster decides.
        evaluate: whether to evaluate the runs, too.
        launcher: ``local`` or ``ray``.
    """
    if launcher not in LAUNCHERS:
        raise UserError(f"--launcher is '{launcher}'", fix=did_you_mean(launcher, LAUNCHERS))
    todo = [run for run in runs if run.state != "done"]
    if not todo:
        return {}
    if launcher == "local":
        print_time_left(runs, jobs)
        return run_all(runs, jobs, evaluate, _print_progress)
    from rlx.compare.study.ray_launcher import on_ray

    with on_ray(study.cpus, study.gpus, evaluate) as launch:
        resources = f"{study.cpus:g} CPUs and {study.gpus:g} GPUs"
        _print_progress(f"{len(todo)} of {len(runs)} runs to go, each with {resources} of the cluster")
        return run_all(runs, len(todo), evaluate, _print_progress, launch)


def run_without_report(
    content: Mapping[str, Any], command: str, folders: Folders, jobs: int, launcher: str, plan: bool
) -> int:
    """``rlx train STUDY`` and ``rlx unlearn STUDY``: run a study without a report; return the exit code.

    Raises:
        UserError: for a study of the other command.
    """
    study = read_study(content)
    if study.command != command:
        raise UserError(
            f"study {study.name} has command: {study.command}", fix=f"start it with rlx {study.command} or rlx compare"
        )
    if plan:
        print_plan(study, folders, jobs)
        return 0
    runs = plan_runs(study, folders.runs)
    return 1 if run_study(study, runs, jobs, evaluate=False, launcher=launcher) else 0


def print_plan(study: StudySpec, folders: Folders, jobs: int) -> None:
    """Print the state of each run, and an estimate of the remaining time."""
    runs = plan_runs(study, folders.runs)
    rows = [
        [
            run.folder.run_id,
            *([run.method, *run.condition] if study.conditions else []),
            run.state,
            f"{run.progress:.0%}",
        ]
        for run in runs
    ]
    conditions = ["method", *study.conditions] if study.conditions else []
    print_out(table(f"study {study.name}", ["run", *conditions, "state", "trained"], rows))
    print_time_left(runs, jobs)


def print_time_left(runs: Sequence[PlannedRun], jobs: int) -> None:
    """Print the number of unfinished runs and an estimate of the remaining time."""
    todo = sum(run.state != "done" for run in runs)
    seconds = seconds_left(runs, jobs)
    estimate = "unknown until a run is finished" if seconds is None else f"about {seconds / 60:.1f} minutes of training"
    _print_progress(f"{todo} of {len(runs)} runs to go, {jobs} at a time; time left: {estimate}")


def compare_study(
    study: StudySpec, runs: Sequence[PlannedRun], failed: Mapping[str, str], folders: Folders, force: bool
) -> None:
    """Write the report of a study's finished runs.

    Args:
        study: the study.
        runs: every run of the study.
        failed: the runs that failed, with the reason.
        folders: folders of the runs and of the reports.
        force: compare runs even if their protocols differ.
    """
    states = {run.folder.run_id: run.state for run in runs}
    finished = [run for run in runs if states[run.folder.run_id] == "done"]
    missing = {run_id: failed.get(run_id) or state for run_id, state in states.items() if state != "done"}
    if not finished:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(missing.items())[:3])
        raise UserError(
            f"study {study.name} has no finished run ({reasons})", fix="correct its spec and run it again", exit_code=1
        )
    labels = {run.folder.run_id: run.method for run in finished}
    loaded = _load_results([run.folder for run in finished], labels, finished[0])
    axes = condition_axes(study)
    results = Study(
        name=study.name,
        baseline=study.baseline,
        runs=with_conditions(loaded, runs, axes) if axes else tuple(loaded),
        missing=missing,
        published=tuple(PublishedScore(p.method, p.benchmark, p.value, p.source) for p in study.published),
        mismatched=check_protocols(loaded, force),
        alpha=study.alpha,
        condition_axes=axes,
    )
    if axes:
        results = replace(results, unfinished=unfinished_runs(results.runs, runs, axes))
    write_and_print(results, folders)


def compare_runs(
    names: Sequence[str], logged: Sequence[TrainedRun], options: ComparisonOptions, folders: Folders
) -> None:
    """Write the report of existing runs.

    Args:
        names: runs by folder or by the folder's name.
        logged: runs read from MLflow.
        options: how to compare them.
        folders: folders of the runs and of the reports.
    """
    run_folders = runs_to_compare(names, folders.runs)
    kinds = {is_unlearning(read_json(folder.resolved)): folder.run_id for folder in run_folders}
    if len(kinds) > 1 or (logged and True in kinds):
        other = kinds.get(False) or logged[0].run_id
        raise UserError(f"run {kinds[True]} is an unlearning run and {other} is not", fix="compare them separately")
    loaded = _load_results(run_folders, logged=logged)
    methods = list(dict.fromkeys(run.method for run in loaded))
    results = Study(
        name=file_name("-".join(method.replace(" ", "_") for method in methods[:4])) + f"-{len(loaded)}runs",
        baseline=options.baseline or ("grpo" if "grpo" in methods else methods[0]),
        runs=tuple(loaded),
        mismatched=check_protocols(loaded, options.force),
    )
    write_and_print(results, folders)


def runs_to_compare(names: Sequence[str], runs: Path) -> list[RunDir]:
    """The folders of runs that are given by their paths or by their names in ``runs``."""
    return [_run_folder(name, runs) for name in dict.fromkeys(names)]


def _load_results(
    folders: Sequence[RunDir],
    labels: Mapping[str, str] | None = None,
    plan: PlannedRun | None = None,
    logged: Sequence[TrainedRun] = (),
) -> list[RunResult]:
    """The results of finished runs: all metrics of unlearning runs, else the evaluations that the study accepts.

    Args:
        folders: the runs' folders.
        labels: names of methods by run id, if a study gives them.
        plan: a run of the study, whose evaluation settings are required; None accepts every evaluation.
        logged: runs read from MLflow; those that are among the folders are ignored.
    """
    if folders and is_unlearning(read_json(folders[0].resolved)):
        return unlearning_results([read_unlearned_run(folder) for folder in folders], labels)
    local = [read_run(folder) for folder in folders]
    local_ids = {run.run_id for run in local}
    all_runs = [*local, *(run for run in logged if run.run_id not in local_ids)]
    return run_results(all_runs, plan.protocol_filter() if plan else lambda protocol: True, labels)


def _run_folder(name: str, runs: Path) -> RunDir:
    """The folder of a run that is given by its path or by its name in ``runs``."""
    run = find_run(name, runs)
    if run is not None:
        return run
    existing = ", ".join(run.run_id for run in runs_in(runs)[:8]) or "none"
    raise UserError(f"there is no run '{name}'", fix=f"give the folder of a run; runs in {runs}: {existing}")


def write_and_print(study: Study, folders: Folders) -> None:
    """Analyse the runs, write the report files, and print the report to the terminal."""
    comparison = analyse(study)
    folder = folders.reports / study.name
    content = RENDERERS["report.json"](comparison)
    previous = folder / "report.json"
    changed = not previous.exists() or previous.read_text(encoding="utf-8") != content
    files = write_report(comparison, folder)
    print_out(terminal(comparison))
    print_out(f"\nreport {folder / 'report.html'} (and .md, .tex, .csv, .json)")
    if changed:
        _log(study, folder, files, folders)


def _log(study: Study, folder: Path, files: Sequence[Path], folders: Folders) -> None:
    """Log the report's files as artifacts of an MLflow run with the study's name."""
    uri = tracking_uri(folders.runs)
    folders.runs.mkdir(parents=True, exist_ok=True)
    sink = MlflowSink(
        uri=uri, experiment=EXPERIMENT, name=f"report {study.name}", id_file=folder / "mlflow.json", warn=warn
    )
    params = {"baseline": study.baseline, "alpha": study.alpha, "runs": len(study.runs)}
    sink.start(params, {"rlx.kind": "report", "rlx.study": study.name}, list(files))
    sink.close("FINISHED", timeout=60.0)


def _print_progress(text: str) -> None:
    print(public(text), file=sys.stderr, flush=True)
