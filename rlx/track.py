"""Where figures go: metrics.jsonl, the source of truth, and MLflow beside it, which may fail without harm."""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import queue
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlx.errors import UserError

Figures = Mapping[str, float | int]
LONGEST_PARAM = 500
"""MLflow refuses longer parameter values in some stores."""
TIMEOUT = "5"
"""Seconds that a request to an MLflow server may take."""


class JsonlLog:
    """One JSON line a record, appended and handed to the operating system at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab")

    @property
    def offset(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def write(self, record: Figures) -> None:
        """Append one line; figures that are not finite are written as null.

        Raises:
            UserError: when the disk refuses: without this file a run has no results.
        """
        line = json.dumps({key: value if math.isfinite(value) else None for key, value in record.items()})
        try:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({error.strerror})",
                fix="free some space and run the same command again: it goes on from the last checkpoint",
                exit_code=1,
            ) from None

    def rewind(self, offset: int) -> int:
        """Cut the file back to ``offset``.

        Returns:
            The last step on any whole line that stood there before, -1 without any.
        """
        last = max((int(record["step"]) for record in read_metrics(self.path)), default=-1)
        self._file.flush()
        os.truncate(self.path, offset)
        self._file.seek(offset)
        return last

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Every whole line of a metrics file; a half-written last line is left out, a missing file is empty."""
    records = []
    with suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines(keepends=True):
            with suppress(ValueError):
                if line.endswith(b"\n"):
                    records.append(json.loads(line))
    return records


@dataclass(slots=True)
class MlflowSink:
    """MLflow in a thread of its own: a slow or dead server costs a warning, never a step.

    Example:
        ``MlflowSink(uri="sqlite:///runs/mlflow.db", experiment="rlx", name="dgpo-1f0c", id_file=..., warn=print)``
    """

    uri: str
    experiment: str
    name: str
    id_file: Path
    """Keeps MLflow's run id, so that a resumed run goes on in it."""
    warn: Callable[[str], None]
    logged_through: int = -1
    """Steps up to this one have been logged before a kill."""
    _queue: queue.Queue[Callable[[Any, str], None] | str] = field(default_factory=queue.Queue)
    _thread: threading.Thread | None = None
    _dead: bool = False

    def start(self, params: Mapping[str, Any], tags: Mapping[str, str], artifacts: list[Path]) -> None:
        """Open or reopen the run; parameters, tags and artifacts are logged the first time."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", TIMEOUT)
        self._thread = threading.Thread(target=self._work, args=(params, tags, artifacts), daemon=True)
        self._thread.start()

    def write(self, record: Figures) -> None:
        """Log the figures of one step, unless they have been logged before."""
        step = int(record["step"])
        finite = {legal_name(key): float(v) for key, v in record.items() if key != "step" and math.isfinite(v)}
        if not self._dead and step > self.logged_through:
            self._queue.put(lambda client, run: _log_figures(client, run, finite, step))

    def close(self, status: str, timeout: float = 20.0) -> None:
        """Wait for what is under way, at most ``timeout`` seconds.

        Args:
            status: ``FINISHED``, ``KILLED`` or ``FAILED``.
            timeout: seconds.
        """
        if self._thread is not None:
            self._queue.put(status)
            self._thread.join(timeout)

    def _work(self, params: Mapping[str, Any], tags: Mapping[str, str], artifacts: list[Path]) -> None:
        try:
            client, run = self._open(params, tags, artifacts)
            while not isinstance(task := self._queue.get(), str):
                task(client, run)
            client.set_terminated(run, status=task)
        except Exception as error:  # whatever MLflow raises, training goes on without it
            self._dead = True
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            reason = public_uri(first_line)[:200]
            self.warn(f"MLflow at {public_uri(self.uri)} is not reachable ({reason}); metrics.jsonl goes on")

    def _open(self, params: Mapping[str, Any], tags: Mapping[str, str], artifacts: list[Path]) -> tuple[Any, str]:
        """The client and the id of the run, made when it is new."""
        from mlflow.tracking import MlflowClient

        for name, level in (("mlflow", logging.WARNING), ("alembic", logging.WARNING), ("urllib3", logging.ERROR)):
            logging.getLogger(name).setLevel(level)
        with _one_at_a_time(self.uri):
            client = MlflowClient(tracking_uri=self.uri)
            experiment = client.get_experiment_by_name(self.experiment)
            place = experiment.experiment_id if experiment else client.create_experiment(self.experiment)
        with suppress(OSError, ValueError, KeyError):
            known = str(json.loads(self.id_file.read_text())["run_id"])
            client.update_run(known, status="RUNNING")
            return client, known
        run = client.create_run(place, run_name=self.name, tags=dict(tags)).info.run_id
        for key, value in flattened(params).items():
            client.log_param(run, key, value)
        for artifact in artifacts:
            client.log_artifact(run, str(artifact))
        self.id_file.write_text(json.dumps({"run_id": run, "experiment": self.experiment}))
        return client, str(run)


def _log_figures(client: Any, run: str, figures: Mapping[str, float], step: int) -> None:
    from mlflow.entities import Metric
    from mlflow.utils.time import get_current_time_millis

    now = get_current_time_millis()
    client.log_batch(run, metrics=[Metric(key, value, now, step) for key, value in figures.items()])


class _one_at_a_time:  # noqa: N801  (reads as a statement: with _one_at_a_time(uri))
    """Several processes opening a fresh sqlite store at once break it for good, so they queue at a lock file."""

    def __init__(self, uri: str) -> None:
        path = uri.removeprefix("sqlite:///")
        self._path = Path(path + ".lock") if path != uri else None

    def __enter__(self) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("w")
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        if self._path is not None:
            self._file.close()


def tracking_uri(runs: Path) -> str:
    """MLFLOW_TRACKING_URI, or a sqlite file in the runs folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs.resolve() / 'mlflow.db'}"


def public_uri(uri: str) -> str:
    """The URI without the credentials that may stand in it."""
    return re.sub(r"//[^/@]*@", "//", uri)


def legal_name(key: str) -> str:
    """A metric name that MLflow takes: letters, digits and ``_ - . / : space``."""
    return re.sub(r"[^A-Za-z0-9_\-./: ]", "_", key)


def flattened(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters by dotted key, values as text cut to MLflow's limit."""
    flat: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, Mapping) and value:
            flat.update(flattened(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = str(value)[:LONGEST_PARAM]
    return flat
