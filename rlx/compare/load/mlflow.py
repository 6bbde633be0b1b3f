"""Runs as MLflow knows them, for runs whose folders are on another machine."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from rlx.benchmarks.summary import from_json
from rlx.compare.load.folders import DRAWN, Evaluated, Trained
from rlx.errors import UserError
from rlx.runs.folder import RunDir, read_json
from rlx.runs.tracking import legal_name, open_client, public_uri, tracking_uri

PAGE = 1000
"""Runs that MLflow hands out at once."""
UNLEARNING = "rlx.method"
"""Tag that `rlx unlearn` alone sets."""
READERS = 4
"""Threads that read metrics: a server answers them side by side."""


@dataclass(frozen=True, slots=True)
class Logged:
    """What MLflow has of the runs that were asked for.

    Example:
        ``Logged(trained=[Trained(...)], unlearned=["palu_s0-1f0c"])``
    """

    trained: Sequence[Trained]
    """Of `rlx train`, with their evaluations."""
    unlearned: Sequence[str]
    """Names of those of `rlx unlearn`: what they measured, sample by sample, stands in their folders."""


def logged_runs(runs: Path, tags: Sequence[str], experiment: str | None) -> Logged:
    """Finished runs under all of ``tags`` and in ``experiment``.

    Args:
        runs: folder of all runs, for the store's place.
        tags: ``key=value``.
        experiment: name; None searches all.

    Raises:
        UserError: for a tag without a value, an unknown experiment, a store that does not answer, or when no run fits.
    """
    asked = [_filter(tag) for tag in tags]
    uri = tracking_uri(runs)
    try:
        return _read(open_client(uri), asked, experiment, public_uri(uri))
    except UserError:
        raise
    except Exception as error:  # whatever MLflow raises, a person needs the place and the reason
        reason = public_uri((str(error).strip().splitlines() or [type(error).__name__])[0])[:200]
        raise UserError(
            f"MLflow at {public_uri(uri)} cannot be read ({reason})",
            fix="set MLFLOW_TRACKING_URI, or name the runs by folder",
            exit_code=1,
        ) from None


def _filter(tag: str) -> str:
    key, equals, value = tag.partition("=")
    if not equals or not key or "`" in key or "'" in value:
        raise UserError(f"--tag '{tag}' has no key or no value", fix="write it as --tag rlx.algorithm=dgpo")
    return f"tags.`{key}` = '{value}'"


def _read(client: Any, asked: Sequence[str], experiment: str | None, place: str) -> Logged:
    every = [each.experiment_id for each in client.search_experiments()]
    chosen = every
    if experiment is not None:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            raise UserError(f"MLflow at {place} has no experiment '{experiment}'", fix="look at them with mlflow ui")
        chosen = [found.experiment_id]
    training = [run for run in _search(client, chosen, asked) if "rlx.kind" not in run.data.tags]
    training = [run for run in training if "rlx.run_id" in run.data.tags and run.info.status == "FINISHED"]
    if not training:
        raise UserError(
            f"MLflow at {place} has no finished training run with {' and '.join(asked) or f'experiment {experiment}'}",
            fix="look at its tags with mlflow ui, or name the runs by folder",
            exit_code=1,
        )
    measured: dict[str, list[Any]] = {}
    for run in _search(client, every, ["tags.`rlx.kind` = 'evaluation'"]):
        if run.info.status == "FINISHED" and run.data.tags["rlx.checkpoint"] == "final":
            measured.setdefault(run.data.tags["rlx.run_id"], []).append(run)
    unlearned = [run.data.tags["rlx.run_id"] for run in training if UNLEARNING in run.data.tags]
    training = [run for run in training if UNLEARNING not in run.data.tags]
    with ThreadPoolExecutor(max_workers=READERS) as pool:
        found = pool.map(lambda run: _trained(client, run, measured.get(run.data.tags["rlx.run_id"], [])), training)
        return Logged(list(found), unlearned)


def _search(client: Any, experiments: Sequence[str], asked: Sequence[str]) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_runs(experiments, " and ".join(asked), max_results=PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _trained(client: Any, run: Any, evaluations: Sequence[Any]) -> Trained:
    """One training run with its evaluations."""
    records: dict[int, dict[str, float]] = {}
    for key in sorted(DRAWN):
        name = legal_name(key)
        for point in client.get_metric_history(run.info.run_id, name) if name in run.data.metrics else ():
            records.setdefault(point.step, {"step": float(point.step)})[key] = point.value
    names = RunDir(Path())
    resolved = _artifact(client, run, names.resolved.name)
    evaluated = [
        Evaluated(_artifact(client, each, "protocol.json"), from_json(_artifact(client, each, "result.json"))[1])
        for each in evaluations
    ]
    metrics = tuple(records[step] for step in sorted(records))
    return Trained(run.data.tags["rlx.run_id"], resolved["spec"], metrics, tuple(evaluated))


def _artifact(client: Any, run: Any, name: str) -> Any:
    """A JSON artifact, read in place when it lies on this machine."""
    place = urlparse(run.info.artifact_uri)
    local = Path(unquote(place.path)) / name
    if place.scheme in ("", "file") and local.is_file():
        return read_json(local)
    with tempfile.TemporaryDirectory() as folder:
        return read_json(Path(client.download_artifacts(run.info.run_id, name, folder)))
