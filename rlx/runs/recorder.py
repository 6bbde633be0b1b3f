"""Recording of a run's metrics: to disk, to MLflow and to the console."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rlx.console import Progress
from rlx.runs.folder import RunDir
from rlx.runs.mlflow_settings import is_logged
from rlx.runs.tracking import JsonlLog, Metrics, MlflowSink, read_metrics, tracking_uri
from rlx.specs.train import Section, Tracker


class Recorder(Protocol):
    """Receives the records of a loop; on all processes but the first it does nothing."""

    def write(self, record: Mapping[str, float | int]) -> None:
        """Take one line of metrics."""
        ...

    @property
    def offset(self) -> int:
        """Bytes of metrics written so far."""
        ...

    def rewind(self, offset: int, copy: Path | None = None) -> None:
        """Drop the records written after ``offset``: they will be written again; ``copy`` has those before it."""
        ...

    def note(self, text: str, tag: str = "") -> None:
        """Print a notice for the user; with ``tag`` the MLflow run gets it as that tag."""
        ...


class NullRecorder:
    """The recorder of every process but the first: it does nothing."""

    offset = 0

    def write(self, record: Metrics) -> None:
        """Do nothing."""

    def rewind(self, offset: int, copy: Path | None = None) -> None:
        """Do nothing."""

    def note(self, text: str, tag: str = "") -> None:
        """Do nothing."""

    def close(self, status: str) -> None:
        """Do nothing."""


class View(Protocol):
    """The values of the records that the console shows."""

    @property
    def curve(self) -> list[float]:
        """The metric that is drawn as a small curve, one value per record that has it."""

    def remember(self, record: Metrics) -> None:
        """Store the values of one record."""

    def facts(self, record: Metrics) -> Mapping[str, str]:
        """Names and values to show next to the progress bar."""


@dataclass(frozen=True, slots=True)
class RunDescription:
    """What is logged to MLflow when a run starts.

    Example:
        ``RunDescription(spec, spec.tracker, {"rlx.algorithm": "dgpo"}, changeable=("tracker",))``
    """

    spec: Section
    tracker: Tracker
    tags: Mapping[str, str]
    changeable: tuple[str, ...] = ()
    """Keys of the spec, or sections, that may differ when the run is resumed."""


class RunRecorder:
    """Writes metrics.jsonl, feeds MLflow and shows progress."""

    def __init__(self, folder: RunDir, description: RunDescription, view: View, progress: Progress) -> None:
        self._folder, self._description, self._view, self._progress = folder, description, view, progress
        self._log = JsonlLog(folder.metrics, progress.warn)
        self._mlflow: MlflowSink | None = None
        self._tags: dict[str, str] = {}

    @property
    def offset(self) -> int:
        """Length of metrics.jsonl (bytes)."""
        return self._log.offset

    def expect(self, steps: int) -> None:
        """Set the total number of steps of the progress bar."""
        self._progress.total = steps

    def rewind(self, offset: int, copy: Path | None = None) -> None:
        """Cut metrics.jsonl back to a checkpoint, then send MLflow the remaining records.

        Args:
            offset: length at the checkpoint (bytes).
            copy: the checkpoint's copy, which replaces a damaged file.
        """
        self._log.rewind(offset, copy)
        remaining = read_metrics(self._folder.metrics)
        for record in remaining:
            self._view.remember(record)
        if self._description.tracker.mlflow:
            self._mlflow = self._open_mlflow()
            for record in remaining:
                self._mlflow.write(record)

    def _open_mlflow(self) -> MlflowSink:
        """Start logging to the run's MLflow run."""
        return _start_sink(self._folder, self._description, self._tags, self._progress.warn)

    def write(self, record: Metrics) -> None:
        """Write one record to disk, MLflow and the console."""
        self._log.write(record)
        if self._mlflow is not None:
            self._mlflow.write(record)
        self._view.remember(record)
        self._progress.show(int(record["step"]), self._view.facts(record), self._view.curve)

    def note(self, text: str, tag: str = "") -> None:
        """Print a notice for the user, and keep a tagged one for the start of the MLflow run."""
        self._progress.note(text)
        if tag:
            self._tags[tag] = text

    def attach(self, files: list[Path]) -> None:
        """Send files to MLflow."""
        if self._mlflow is not None:
            self._mlflow.attach(files)

    def close(self, status: str) -> None:
        """Flush all outputs, with a limit on the time that MLflow may take."""
        self._progress.stop()
        self._log.close()
        if self._mlflow is None and self._description.tracker.mlflow and self._folder.mlflow.is_file():
            self._mlflow = self._open_mlflow()  # a killed process left the MLflow run in state RUNNING
        if self._mlflow is not None:
            self._mlflow.close(status)


def complete_tracking(
    folder: RunDir, description: RunDescription, warn: Callable[[str], None], artifacts: list[Path] | None = None
) -> None:
    """Send MLflow what it does not have of a finished run; does nothing, and imports nothing, if it has all of it.

    Args:
        folder: the run's.
        description: what is logged when a run starts.
        warn: prints a warning.
        artifacts: files that the end of the run attaches.
    """
    if not description.tracker.mlflow:
        return
    records = read_metrics(folder.metrics)
    last_step = int(records[-1]["step"]) if records else -1
    if is_logged(folder.mlflow, description.tracker.experiment, last_step):
        return
    sink = _start_sink(folder, description, {}, warn)
    for record in records:
        sink.write(record)
    if artifacts:
        sink.attach(artifacts)
    sink.close("FINISHED")


def _start_sink(
    folder: RunDir, description: RunDescription, tags: Mapping[str, str], warn: Callable[[str], None]
) -> MlflowSink:
    """A sink that has started logging to the run's MLflow run."""
    sink = MlflowSink(
        uri=tracking_uri(folder.root.parent),
        experiment=description.tracker.experiment,
        name=folder.run_id,
        id_file=folder.mlflow,
        warn=warn,
        changeable=description.changeable,
    )
    all_tags = {"rlx.run_id": folder.run_id, **description.tags, **tags}
    sink.start(description.spec.model_dump(mode="json"), all_tags, [folder.spec, folder.resolved])
    return sink
