"""`rlx compare`: from what a person names to the report."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlx.compare.load.folders import Trained, read_run, refuse_mismatch, results
from rlx.compare.load.results import Published, RunResult, Study
from rlx.compare.load.unlearning import certified_results, is_unlearning, read_certified
from rlx.compare.report.text import terminal
from rlx.compare.report.write import RENDERERS, write_report
from rlx.compare.statistics.analysis import compared
from rlx.compare.study.runner import Planned, planned, read_study, run_all, time_left
from rlx.console import print_out, table, warn
from rlx.errors import UserError, did_you_mean
from rlx.runs.folder import RunDir, read_json, runs_in
from rlx.runs.tracking import MlflowSink, tracking_uri
from rlx.specs.study import StudySpec

LAUNCHERS = ("local", "ray")
EXPERIMENT = "rlx"
"""MLflow experiment of reports."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where runs are and reports go.

    Example:
        ``Places(runs=Path("runs"), reports=Path("reports"))``
    """

    runs: Path
    reports: Path


@dataclass(frozen=True, slots=True)
class Request:
    """How a person wants runs compared.

    Example:
        ``Request(baseline="grpo", force=False)``
    """

    baseline: str | None
    force: bool


def run_study(
    study: StudySpec, places: Places, jobs: int, measure: bool = True, launcher: str = "local"
) -> dict[str, str]:
    """Run what is missing of a study; the runs that failed, with the reason.

    Args:
        study: the study.
        places: where its runs are.
        jobs: runs at once; on Ray the cluster decides.
        measure: evaluate the runs too.
        launcher: ``local`` or ``ray``.
    """
    if launcher not in LAUNCHERS:
        raise UserError(f"--launcher is '{launcher}'", fix=did_you_mean(launcher, LAUNCHERS))
    runs = planned(study, places.runs)
    todo = [run for run in runs if run.state != "done"]
    if launcher == "local" or not todo:
        if todo:
            warn_of_time(runs, jobs)
        return run_all(runs, jobs, measure, _say)
    from rlx.compare.study.ray_launcher import on_ray

    with on_ray(study.cpus, study.gpus, measure) as launch:
        asks = f"{study.cpus:g} CPUs and {study.gpus:g} GPUs"
        _say(f"{len(todo)} of {len(runs)} runs to go, each with {asks} of the cluster")
        return run_all(runs, len(todo), measure, _say, launch)


def run_only(content: Mapping[str, Any], command: str, places: Places, jobs: int, launcher: str, plan: bool) -> int:
    """``rlx train STUDY`` and ``rlx unlearn STUDY``: a study's runs without a report; the exit code.

    Raises:
        UserError: for a study of the other command.
    """
    study = read_study(content)
    if study.command != command:
        raise UserError(
            f"study {study.name} has command: {study.command}", fix=f"start it with rlx {study.command} or rlx compare"
        )
    if plan:
        print_plan(study, places, jobs)
        return 0
    return 1 if run_study(study, places, jobs, measure=False, launcher=launcher) else 0


def print_plan(study: StudySpec, places: Places, jobs: int) -> None:
    """What would be done, and about how long it would take."""
    runs = planned(study, places.runs)
    rows = [[run.folder.run_id, run.state, f"{run.progress:.0%}"] for run in runs]
    print_out(table(f"study {study.name}", ["run", "state", "trained"], rows))
    warn_of_time(runs, jobs)


def warn_of_time(runs: Sequence[Planned], jobs: int) -> None:
    """Say how much is left."""
    todo = sum(run.state != "done" for run in runs)
    left = time_left(runs, jobs)
    about = "unknown until a run is finished" if left is None else f"about {left / 60:.1f} minutes of training"
    _say(f"{todo} of {len(runs)} runs to go, {jobs} at a time; time left: {about}")


def compare_study(study: StudySpec, failed: Mapping[str, str], places: Places, force: bool) -> None:
    """The report of a study's finished runs."""
    runs = planned(study, places.runs)
    finished = [run for run in runs if run.state == "done"]
    missing = {run.folder.run_id: failed.get(run.folder.run_id) or run.state for run in runs if run not in finished}
    if not finished:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(missing.items())[:3])
        raise UserError(f"study {study.name} has no finished run ({reasons})", fix="mend its spec", exit_code=1)
    found = _found([run.folder for run in finished], {run.folder.run_id: run.label for run in finished}, finished[0])
    made = Study(
        name=study.name,
        baseline=study.baseline,
        runs=tuple(found),
        missing=missing,
        published=tuple(Published(each.method, each.benchmark, each.value, each.source) for each in study.published),
        mismatched=refuse_mismatch(found, force),
        alpha=study.alpha,
    )
    tell_report(made, places)


def compare_runs(names: Sequence[str], logged: Sequence[Trained], request: Request, places: Places) -> None:
    """The report of runs that stand.

    Args:
        names: runs by folder or by the folder's name.
        logged: runs read from MLflow.
        request: how to compare them.
        places: where they are and the report goes.
    """
    folders = [_folder(name, places.runs) for name in dict.fromkeys(names)]
    kinds = {is_unlearning(read_json(folder.resolved)): folder.run_id for folder in folders}
    if len(kinds) > 1 or (logged and True in kinds):
        other = kinds.get(False) or logged[0].run_id
        raise UserError(
            f"run {kinds[True]} is one of unlearning and {other} is not", fix="compare either by themselves"
        )
    found = _found(folders, logged=logged)
    methods = list(dict.fromkeys(run.method for run in found))
    made = Study(
        name=f"{'-'.join(methods[:4]).replace(' ', '_').replace('/', '_')}-{len(found)}runs",
        baseline=request.baseline or ("grpo" if "grpo" in methods else methods[0]),
        runs=tuple(found),
        mismatched=refuse_mismatch(found, request.force),
    )
    tell_report(made, places)


def _found(
    folders: Sequence[RunDir],
    labels: Mapping[str, str] | None = None,
    asked: Planned | None = None,
    logged: Sequence[Trained] = (),
) -> list[RunResult]:
    """What finished runs were measured at: of unlearning all, else as a study asks, if one does."""
    if folders and is_unlearning(read_json(folders[0].resolved)):
        return certified_results([read_certified(folder) for folder in folders], labels)
    here = [read_run(folder) for folder in folders]
    known = {run.run_id for run in here}
    every = [*here, *(run for run in logged if run.run_id not in known)]
    return results(every, asked.accepts if asked else lambda protocol: True, labels)


def _folder(name: str, runs: Path) -> RunDir:
    for root in (Path(name), runs / name):
        if RunDir(root).resolved.is_file():
            return RunDir(root)
    known = ", ".join(run.run_id for run in runs_in(runs)[:8]) or "none"
    raise UserError(f"there is no run '{name}'", fix=f"give a run's folder; {runs} holds: {known}")


def tell_report(study: Study, places: Places) -> None:
    """Compute, write every rendering, and print the terminal's."""
    comparison = compared(study)
    folder = places.reports / study.name
    content = RENDERERS["report.json"](comparison)
    known = folder / "report.json"
    changed = not known.exists() or known.read_text(encoding="utf-8") != content
    files = write_report(comparison, folder)
    print_out(terminal(comparison))
    print_out(f"\nreport {folder / 'report.html'} (and .md, .tex, .csv, .json)")
    if changed:
        _log(study, folder, files, places)


def _log(study: Study, folder: Path, files: Sequence[Path], places: Places) -> None:
    """The report's files as artifacts of an MLflow run of the study's name."""
    uri = tracking_uri(places.runs)
    places.runs.mkdir(parents=True, exist_ok=True)
    sink = MlflowSink(
        uri=uri, experiment=EXPERIMENT, name=f"report {study.name}", id_file=folder / "mlflow.json", warn=warn
    )
    params = {"baseline": study.baseline, "alpha": study.alpha, "runs": len(study.runs)}
    sink.start(params, {"rlx.kind": "report", "rlx.study": study.name}, list(files))
    sink.close("FINISHED", timeout=60.0)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
