"""Read runs from MLflow, for runs whose folders are on another machine."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from rlx.compare.load.folders import REPORT_METRICS, Evaluation, TrainedRun
from rlx.errors import UserError
from rlx.runs.folder import RunDir, read_json
from rlx.runs.mlflow_settings import public_uri, refuse_deleted
from rlx.runs.tracking import legal_name, open_client, tracking_uri

PAGE_SIZE = 1000
"""Runs per response of MLflow."""
UNLEARNING_TAG = "rlx.method"
"""Tag that only `rlx unlearn` sets."""
READER_THREADS = 4
"""Threads that read metrics; an MLflow server answers them in parallel."""


@dataclass(frozen=True, slots=True)
class LoggedRuns:
    """The runs in MLflow that match a search.

    Example:
        ``LoggedRuns(trained=[TrainedRun(...)], unlearned=["palu_s0-1f0c"])``
    """

    trained: Sequence[TrainedRun]
    """Runs of `rlx train`, with their evaluations."""
    unlearned: Sequence[str]
    """Ids of the runs of `rlx unlearn`; their measurements of each sample are in their run folders."""


def logged_runs(runs: Path, tags: Sequence[str], experiment: str | None) -> LoggedRuns:
    """Read the finished runs that have all of ``tags`` and are in ``experiment``.

    Args:
        runs: folder of all runs, which determines the location of the MLflow store.
        tags: ``KEY=VALUE`` strings.
        experiment: name of an MLflow experiment; None searches all.

    Raises:
        UserError: for a tag without a value, an unknown experiment, an MLflow store that cannot be read, or if no run
            matches.
    """
    filters = [_filter(tag) for tag in tags]
    uri = tracking_uri(runs)
    try:
        return _read(open_client(uri), filters, experiment, public_uri(uri))
    except UserError:
        raise
    except Exception as error:  # MLflow raises many types; the user needs the URI and the reason
        reason = public_uri((str(error).strip().splitlines() or [type(error).__name__])[0])[:200]
        raise UserError(
            f"MLflow at {public_uri(uri)} cannot be read ({reason})",
            fix="set MLFLOW_TRACKING_URI, or name the runs by folder",
            exit_code=1,
        ) from None


def _filter(tag: str) -> str:
    """The tag as a condition of MLflow's search syntax."""
    key, equals, value = tag.partition("=")
    if not equals or not key or "`" in key or "'" in value:
        raise UserError(f"--tag '{tag}' has no key or no value", fix="write it as --tag rlx.algorithm=dgpo")
    return f"tags.`{key}` = '{value}'"


def _read(client: Any, filters: Sequence[str], experiment: str | None, uri: str) -> LoggedRuns:
    all_experiments = [entry.experiment_id for entry in client.search_experiments()]
    searched = all_experiments
    if experiment is not None:
        match = client.get_experiment_by_name(experiment)
        if match is None:
            raise UserError(
                f"MLflow at {uri} has no experiment '{experiment}'", fix="list its experiments with mlflow ui"
            )
        refuse_deleted(match, experiment, uri)
        searched = [match.experiment_id]
    runs = [run for run in _search(client, searched, filters) if "rlx.kind" not in run.data.tags]
    runs = [run for run in runs if "rlx.run_id" in run.data.tags and run.info.status == "FINISHED"]
    if not runs:
        raise UserError(
            f"MLflow at {uri} has no finished training run with {' and '.join(filters) or f'experiment {experiment}'}",
            fix="look at the tags of its runs with mlflow ui, or name the runs by folder",
            exit_code=1,
        )
    evaluations: dict[str, list[Any]] = {}
    for run in _search(client, all_experiments, ["tags.`rlx.kind` = 'evaluation'"]):
        if run.info.status == "FINISHED" and run.data.tags["rlx.checkpoint"] == "final":
            evaluations.setdefault(run.data.tags["rlx.run_id"], []).append(run)
    unlearned = [run.data.tags["rlx.run_id"] for run in runs if UNLEARNING_TAG in run.data.tags]
    runs = [run for run in runs if UNLEARNING_TAG not in run.data.tags]
    with ThreadPoolExecutor(max_workers=READER_THREADS) as pool:
        trained = pool.map(
            lambda run: _trained_run(client, run, evaluations.get(run.data.tags["rlx.run_id"], [])), runs
        )
        return LoggedRuns(list(trained), unlearned)


def _search(client: Any, experiments: Sequence[str], filters: Sequence[str]) -> list[Any]:
    """All pages of MLflow's result."""
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs(experiments, " and ".join(filters), max_results=PAGE_SIZE, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def _trained_run(client: Any, run: Any, evaluations: Sequence[Any]) -> TrainedRun:
    """One training run with its evaluations."""
    records: dict[int, dict[str, float]] = {}
    for key in sorted(REPORT_METRICS):
        name = legal_name(key)
        for point in client.get_metric_history(run.info.run_id, name) if name in run.data.metrics else ():
            records.setdefault(point.step, {"step": float(point.step)})[key] = point.value
    resolved = _artifact(client, run, RunDir(Path()).resolved.name)
    finished = [
        Evaluation.of(_artifact(client, entry, "protocol.json"), _artifact(client, entry, "result.json"))
        for entry in evaluations
    ]
    metrics = tuple(records[step] for step in sorted(records))
    return TrainedRun(run.data.tags["rlx.run_id"], resolved["spec"], metrics, tuple(finished))


def _artifact(client: Any, run: Any, name: str) -> Any:
    """The content of a JSON artifact; it is downloaded only if it is not on this machine."""
    uri = urlparse(run.info.artifact_uri)
    local = Path(unquote(uri.path)) / name
    if uri.scheme in ("", "file") and local.is_file():
        return read_json(local)
    with tempfile.TemporaryDirectory() as folder:
        return read_json(Path(client.download_artifacts(run.info.run_id, name, folder)))
