"""Metrics: metrics.jsonl, the source of truth, and MLflow, whose failures do not stop a run."""

from __future__ import annotations

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

from rlx.errors import UserError, reason
from rlx.runs.folder import write_atomically
from rlx.runs.integrity import set_aside
from rlx.runs.mlflow_settings import can_end_run, experiment_id, failure_sentence, log_settings, public_uri
from rlx.runs.sqlite_store import SQLITE, one_at_a_time, sqlite_path

Metrics = Mapping[str, float | int]
TIMEOUT = "5"
"""Seconds that a request to an MLflow server may take."""


class JsonlLog:
    """One JSON line per record, appended and passed to the operating system at once.

    Example:
        ``JsonlLog(Path("runs/dgpo_s0-1f0c/metrics.jsonl"), warn=print).write({"step": 3, "train/reward": 0.41})``
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path = path
        self._warn = warn
        self._named: set[str] = set()
        # Unbuffered: a line that could not be written must not be written, and fail, again when the file is closed.
        self._file = path.open("ab", buffering=0)

    @property
    def offset(self) -> int:
        """Bytes written so far, synchronised to the disk, so that a checkpoint's count survives a power failure."""
        with suppress(OSError):  # a pipe cannot be synchronised
            os.fsync(self._file.fileno())
        return self._file.tell()

    def write(self, record: Metrics) -> None:
        """Append one line; values that are not finite are written as null, and reported once in a warning.

        Raises:
            UserError: when it cannot be written: without this file a run has no results.
        """
        non_finite = {key for key, value in record.items() if not math.isfinite(value)}
        if non_finite - self._named:
            self._warn(f"not finite at step {record['step']}, null in {self.path}: {', '.join(sorted(non_finite))}")
            self._named |= non_finite
        line = json.dumps({key: None if key in non_finite else value for key, value in record.items()}).encode() + b"\n"
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({reason(error)})",
                fix="free some space and run the same command again: it continues from the last checkpoint",
                exit_code=1,
            ) from None

    def rewind(self, offset: int, copy: Path | None = None) -> None:
        """Cut the file back to ``offset`` bytes.

        Args:
            offset: length to keep.
            copy: a file with the first ``offset`` bytes; if this file differs from it, it is set aside and replaced.

        Raises:
            UserError: when the file is shorter and there is no copy, so that records would be missing.
        """
        if copy is not None:
            self._restore(copy.read_bytes(), offset)
        size = self.path.stat().st_size
        if size < offset:
            raise UserError(
                f"{self.path} has {size} bytes where the checkpoint counts {offset}: records are lost",
                fix="start the run again with --fresh",
                exit_code=1,
            )
        self._file.truncate(offset)
        self._file.seek(offset)

    def _restore(self, content: bytes, offset: int) -> None:
        """Replace the file if its first ``offset`` bytes are not ``content``."""
        with self.path.open("rb") as file:
            current = file.read(offset)
        if len(content) != offset or current == content:
            return
        self._file.close()
        aside = set_aside(self.path) if current else self.path
        write_atomically(self.path, content.decode("utf-8"))
        self._file = self.path.open("ab", buffering=0)
        renamed = f" (the damaged file is {aside.name})" if current else ""
        self._warn(f"{self.path} differed from the checkpoint's copy and was restored from it{renamed}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Every complete line of a metrics file, with null as nan; a missing file gives no records.

    Raises:
        UserError: for a line that is not a JSON object.
    """
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            record = json.loads(line)
            records.append({key: math.nan if value is None else value for key, value in record.items()})
        except (ValueError, AttributeError):
            raise UserError(
                f"{path}, line {number} is not a record",
                fix="repair it or start the run again with --fresh",
                exit_code=1,
            ) from None
    return records


@dataclass(slots=True)
class MlflowSink:
    """Logging to MLflow in a thread: a slow or unreachable server causes a warning and never delays a step.

    A resumed run sends every record again; those that MLflow already has are skipped, so that none is missing and none
    is stored twice.

    Example:
        ``MlflowSink(uri="sqlite:////home/me/runs/mlflow.db", experiment="rlx", name="dgpo_s0-1f0c", ...)``
    """

    uri: str
    experiment: str
    name: str
    id_file: Path
    """Stores MLflow's run id, so that a resumed run continues in it, and what MLflow has when the run ends."""
    warn: Callable[[str], None]
    changeable: tuple[str, ...] = ()
    """Dotted keys of settings that may differ when a run is resumed; they are logged as tags."""
    _queue: queue.Queue[Metrics | list[Path] | str] = field(default_factory=queue.Queue)
    _thread: threading.Thread | None = None
    _dead: bool = False

    def start(self, params: Mapping[str, Any], tags: Mapping[str, str], artifacts: list[Path]) -> None:
        """Open or reopen the run, with its parameters, tags and files."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", TIMEOUT)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._thread = threading.Thread(target=self._work, args=(params, tags, artifacts), daemon=True)
        self._thread.start()

    def write(self, record: Metrics) -> None:
        """Log the metrics of one step, unless MLflow already has them."""
        if not self._dead:
            self._queue.put(record)

    def attach(self, files: list[Path]) -> None:
        """Log files as artifacts of the run."""
        if not self._dead:
            self._queue.put(files)

    def close(self, status: str, timeout: float = 60.0) -> None:
        """Wait for pending records, at most ``timeout`` seconds.

        Args:
            status: ``FINISHED``, ``KILLED`` or ``FAILED``.
            timeout: seconds.
        """
        if self._thread is not None:
            self._queue.put(status)
            self._thread.join(timeout)
            if self._thread.is_alive():
                self.warn(f"MLflow at {public_uri(self.uri)} took over {timeout:g} s; metrics.jsonl has all records")

    def _work(self, params: Mapping[str, Any], tags: Mapping[str, str], artifacts: list[Path]) -> None:
        client, run = None, ""
        try:
            client = open_client(self.uri)
            run, logged = self._open(client, tags)
            last = logged
            log_settings(client, run, params, self.changeable)
            if self._has_own_artifacts(client, run):
                for artifact in artifacts:
                    client.log_artifact(run, str(artifact))
            while not isinstance(record := self._queue.get(), str):
                if isinstance(record, list):
                    for file in record:
                        client.log_artifact(run, str(file))
                elif record["step"] > logged:
                    client.log_batch(run, metrics=_metrics(record))
                    last = max(last, int(record["step"]))
            client.set_terminated(run, status=record)
            self._write_id(run, {"status": record, "last_step": last})
        except Exception as error:  # training continues without MLflow, whatever it raises
            self._dead = True
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self.warn(failure_sentence(error, public_uri(self.uri), public_uri(lines[0])[:400]))
            if client is not None and run and can_end_run(error):
                self._end_incomplete(client, run)

    def _end_incomplete(self, client: Any, run: str) -> None:
        """When the run ends, set a status that says that MLflow does not have all of it."""
        while not isinstance(self._queue.get(), str):
            continue
        with suppress(Exception):
            client.set_terminated(run, status="KILLED")

    def _write_id(self, run: str, logged: Mapping[str, Any]) -> None:
        write_atomically(self.id_file, json.dumps({"run_id": run, "experiment": self.experiment, **logged}))

    def _has_own_artifacts(self, client: Any, run: str) -> bool:
        """Whether the run's files go next to the sqlite store, or to a server.

        MLflow stores absolute paths: after a move it would create the former folder again.
        """
        path, location = sqlite_path(self.uri), str(client.get_run(run).info.artifact_uri)
        return path is None or location.startswith(path.resolve().parent.as_uri())

    def _open(self, client: Any, tags: Mapping[str, str]) -> tuple[str, int]:
        """The run's id, and the last step that MLflow has of it (-1 if none)."""
        experiment = experiment_id(client, self.uri, self.experiment)
        stored = json.loads(self.id_file.read_text()) if self.id_file.exists() else {}
        if stored and self._continues(client, stored):
            run_id = str(stored["run_id"])
            client.update_run(run_id, status="RUNNING")
            self._write_id(run_id, {})
            return run_id, max((m.step for m in client.get_metric_history(run_id, "step")), default=-1)
        run = str(client.create_run(experiment, run_name=self.name, tags=dict(tags)).info.run_id)
        self._write_id(run, {})
        return run, -1

    def _continues(self, client: Any, stored: Mapping[str, Any]) -> bool:
        """Whether the stored MLflow run can be continued.

        A run of a lost store, a deleted run, and a run of another experiment, which is ended, are replaced by a new one
        with all records.
        """
        from mlflow.exceptions import MlflowException

        try:
            info = client.get_run(str(stored["run_id"])).info
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        if info.lifecycle_stage == "deleted":
            return False
        if stored.get("experiment", self.experiment) != self.experiment:
            if info.status == "RUNNING":
                client.set_terminated(info.run_id, status="KILLED")
            return False
        return True


def open_client(uri: str) -> Any:
    """A client; its first use creates the store."""
    from mlflow.tracking import MlflowClient

    for name, level in (("mlflow", logging.WARNING), ("alembic", logging.WARNING), ("urllib3", logging.ERROR)):
        logging.getLogger(name).setLevel(level)
    with one_at_a_time(uri):
        return MlflowClient(tracking_uri=uri)


def _metrics(record: Metrics) -> list[Any]:
    """A record's finite values, including the step, from which a resumed run knows what MLflow already has."""
    from mlflow.entities import Metric
    from mlflow.utils.time import get_current_time_millis

    now, step = get_current_time_millis(), int(record["step"])
    return [Metric(legal_name(key), float(v), now, step) for key, v in record.items() if math.isfinite(v)]


def tracking_uri(runs: Path) -> str:
    """MLFLOW_TRACKING_URI, or a sqlite file in the runs folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{runs.resolve() / 'mlflow.db'}"


def legal_name(key: str) -> str:
    """A metric name that MLflow accepts: letters, digits and ``_ - . / : space``."""
    return re.sub(r"[^A-Za-z0-9_\-./: ]", "_", key)
