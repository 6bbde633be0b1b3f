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

from rlx.errors import UserError, reason
from rlx.runs.folder import write_atomically

Figures = Mapping[str, float | int]
LONGEST_PARAM = 500
"""MLflow refuses longer parameter values in some stores."""
PARAMS_A_CALL = 100
"""MLflow takes no more at once."""
TIMEOUT = "5"
"""Seconds that a request to an MLflow server may take."""
SQLITE = "sqlite:///"


class JsonlLog:
    """One JSON line a record, appended and handed to the operating system at once.

    Example:
        ``JsonlLog(Path("runs/dgpo_s0-1f0c/metrics.jsonl"), warn=print).write({"step": 3, "train/reward": 0.41})``
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path = path
        self._warn = warn
        self._named: set[str] = set()
        # Unbuffered: a line that the disk refused must not be tried again, and fail again, when the file is closed.
        self._file = path.open("ab", buffering=0)

    @property
    def offset(self) -> int:
        """Bytes written so far, all of them on the disk: a checkpoint that counts them outlives a power cut."""
        with suppress(OSError):  # what is no file on a disk, such as a pipe, cannot be synchronised
            os.fsync(self._file.fileno())
        return self._file.tell()

    def write(self, record: Figures) -> None:
        """Append one line; figures that are not finite are written as null, and named once in a warning.

        Raises:
            UserError: when the disk refuses: without this file a run has no results.
        """
        odd = {key for key, value in record.items() if not math.isfinite(value)}
        if odd - self._named:
            self._warn(f"not finite at step {record['step']}, null in {self.path}: {', '.join(sorted(odd))}")
            self._named |= odd
        line = json.dumps({key: None if key in odd else value for key, value in record.items()}).encode() + b"\n"
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written ({reason(error)})",
                fix="free some space and run the same command again: it goes on from the last checkpoint",
                exit_code=1,
            ) from None

    def rewind(self, offset: int) -> None:
        """Cut the file back to ``offset`` bytes.

        Raises:
            UserError: when it is shorter than that, so that figures would be missing.
        """
        there = self.path.stat().st_size
        if there < offset:
            raise UserError(
                f"{self.path} holds {there} bytes where the checkpoint counts {offset}: figures are lost",
                fix="start the run anew with --fresh",
                exit_code=1,
            )
        self._file.truncate(offset)
        self._file.seek(offset)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Every whole line of a metrics file, null as nan; a half-written last line is left out, a missing file is empty.

    Raises:
        UserError: for a line that is no JSON object.
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
                f"{path}, line {number} is not a record", fix="mend it or start the run anew with --fresh", exit_code=1
            ) from None
    return records


@dataclass(slots=True)
class MlflowSink:
    """MLflow in a thread of its own: a slow or dead server costs a warning, never a step.

    A run that goes on after a kill offers every record again; those that MLflow has are left out, so that none is
    missing there and none stands twice.

    Example:
        ``MlflowSink(uri="sqlite:////home/me/runs/mlflow.db", experiment="rlx", name="dgpo_s0-1f0c", ...)``
    """

    uri: str
    experiment: str
    name: str
    id_file: Path
    """Keeps MLflow's run id, so that a resumed run goes on in it."""
    warn: Callable[[str], None]
    _queue: queue.Queue[Figures | str] = field(default_factory=queue.Queue)
    _thread: threading.Thread | None = None
    _dead: bool = False

    def start(self, params: Mapping[str, Any], tags: Mapping[str, str], artifacts: list[Path]) -> None:
        """Open or reopen the run, with its parameters, tags and files."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", TIMEOUT)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self._thread = threading.Thread(target=self._work, args=(params, tags, artifacts), daemon=True)
        self._thread.start()

    def write(self, record: Figures) -> None:
        """Log the figures of one step, unless MLflow has them."""
        if not self._dead:
            self._queue.put(record)

    def close(self, status: str, timeout: float = 60.0) -> None:
        """Wait for what is under way, at most ``timeout`` seconds.

        Args:
            status: ``FINISHED``, ``KILLED`` or ``FAILED``.
            timeout: seconds.
        """
        if self._thread is not None:
            self._queue.put(status)
            self._thread.join(timeout)
            if self._thread.is_alive():
                self.warn(f"MLflow at {public_uri(self.uri)} took over {timeout:g} s; metrics.jsonl has every figure")

    def _work(self, params: Mapping[str, Any], tags: Mapping[str, str], artifacts: list[Path]) -> None:
        try:
            client = open_client(self.uri)
            run, logged = self._open(client, tags)
            for some in _params(params):
                client.log_batch(run, params=some)
            for artifact in artifacts:
                client.log_artifact(run, str(artifact))
            while not isinstance(record := self._queue.get(), str):
                if record["step"] > logged:
                    client.log_batch(run, metrics=_metrics(record))
            client.set_terminated(run, status=record)
        except Exception as error:  # whatever MLflow raises, training goes on without it
            self._dead = True
            lines = str(error).strip().splitlines() or [type(error).__name__]
            place, reason = public_uri(self.uri), public_uri(lines[0])[:200]
            self.warn(f"MLflow at {place} is not reachable ({reason}); metrics.jsonl goes on")

    def _open(self, client: Any, tags: Mapping[str, str]) -> tuple[str, int]:
        """The run's id and the last step that MLflow has of it, -1 without any."""
        from mlflow.exceptions import MlflowException

        if self.id_file.exists():
            try:
                known = str(json.loads(self.id_file.read_text())["run_id"])
                client.update_run(known, status="RUNNING")
                return known, max((m.step for m in client.get_metric_history(known, "step")), default=-1)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise  # any other store, or one that was thrown away, gets the run anew
        experiment = _experiment(client, self.uri, self.experiment)
        run = str(client.create_run(experiment, run_name=self.name, tags=dict(tags)).info.run_id)
        write_atomically(self.id_file, json.dumps({"run_id": run, "experiment": self.experiment}))
        return run, -1


def open_client(uri: str) -> Any:
    """A client; its first use makes the store."""
    from mlflow.tracking import MlflowClient

    for name, level in (("mlflow", logging.WARNING), ("alembic", logging.WARNING), ("urllib3", logging.ERROR)):
        logging.getLogger(name).setLevel(level)
    with _one_at_a_time(uri):
        return MlflowClient(tracking_uri=uri)


def _experiment(client: Any, uri: str, name: str) -> str:
    """The id of an experiment, made when it is new, with its files beside the database rather than where rlx runs."""
    path = _sqlite_path(uri)
    files = (path.resolve().parent / ".mlflow_artifacts").as_uri() if path else None
    with _one_at_a_time(uri):
        found = client.get_experiment_by_name(name)
        return str(found.experiment_id if found else client.create_experiment(name, artifact_location=files))


def _metrics(record: Figures) -> list[Any]:
    """A record's finite figures, the step among them: by it a resumed run finds where MLflow stands."""
    from mlflow.entities import Metric
    from mlflow.utils.time import get_current_time_millis

    now, step = get_current_time_millis(), int(record["step"])
    return [Metric(legal_name(key), float(v), now, step) for key, v in record.items() if math.isfinite(v)]


def _params(params: Mapping[str, Any]) -> list[list[Any]]:
    """The parameters in lists that MLflow takes at once."""
    from mlflow.entities import Param

    every = [Param(key, value) for key, value in flattened(params).items()]
    return [every[i : i + PARAMS_A_CALL] for i in range(0, len(every), PARAMS_A_CALL)]


class _one_at_a_time:  # noqa: N801  (reads as a statement: with _one_at_a_time(uri))
    """Several processes opening a fresh sqlite store at once break it for good, so they queue at a lock file."""

    def __init__(self, uri: str) -> None:
        path = _sqlite_path(uri)
        self._path = path.with_name(f"{path.name}.lock") if path else None

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
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{runs.resolve() / 'mlflow.db'}"


def _sqlite_path(uri: str) -> Path | None:
    """The file of a sqlite URI."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def public_uri(text: str) -> str:
    """The URI, or a sentence with one in it, without the credentials that may stand before the host or in the query."""
    return re.sub(r"\?\S*", "", re.sub(r"//[^/\s]*@", "//", text))


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
