"""A run's figures on their way to disk, to MLflow and to the person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rlx.console import Progress
from rlx.runs.folder import RunDir
from rlx.runs.tracking import Figures, JsonlLog, MlflowSink, read_metrics, tracking_uri
from rlx.specs.train import Section, Tracker


class Recorder(Protocol):
    """Where a loop's records go; on all but the first process, nowhere."""

    def write(self, record: Mapping[str, float | int]) -> None:
        """Take one line of metrics."""
        ...

    @property
    def offset(self) -> int:
        """Bytes of metrics written so far."""
        ...

    def rewind(self, offset: int) -> None:
        """Drop what was written behind ``offset``: it will come again."""
        ...

    def note(self, text: str) -> None:
        """Tell the person something."""
        ...


class NullRecorder:
    """The recorder of every process but the first."""

    offset = 0

    def write(self, record: Figures) -> None:
        """Nothing."""

    def rewind(self, offset: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def close(self, status: str) -> None:
        """Nothing."""


class View(Protocol):
    """What a person is shown of the records so far."""

    @property
    def curve(self) -> list[float]:
        """The figure drawn as a small curve, one value a record that has it."""

    def remember(self, record: Figures) -> None:
        """Take in one record."""

    def facts(self, record: Figures) -> Mapping[str, str]:
        """Names and values to show beside the progress bar."""


@dataclass(frozen=True, slots=True)
class RunDescription:
    """What MLflow is told of a run at its start.

    Example:
        ``RunDescription(spec, spec.tracker, {"rlx.algorithm": "dgpo"})``
    """

    spec: Section
    tracker: Tracker
    tags: Mapping[str, str]


class RunRecorder:
    """Writes metrics.jsonl, feeds MLflow and shows progress."""

    def __init__(self, folder: RunDir, told: RunDescription, view: View, progress: Progress) -> None:
        self._folder, self._told, self._view, self._progress = folder, told, view, progress
        self._log = JsonlLog(folder.metrics, progress.warn)
        self._mlflow: MlflowSink | None = None

    @property
    def offset(self) -> int:
        """Bytes of metrics.jsonl."""
        return self._log.offset

    def expect(self, steps: int) -> None:
        """How many steps there will be."""
        self._progress.total = steps

    def rewind(self, offset: int) -> None:
        """Cut metrics.jsonl back to a checkpoint, then offer MLflow every record that is left."""
        self._log.rewind(offset)
        left = read_metrics(self._folder.metrics)
        for record in left:
            self._view.remember(record)
        tracker = self._told.tracker
        if tracker.mlflow:
            self._mlflow = MlflowSink(
                uri=tracking_uri(self._folder.root.parent),
                experiment=tracker.experiment,
                name=self._folder.run_id,
                id_file=self._folder.mlflow,
                warn=self._progress.warn,
            )
            tags = {"rlx.run_id": self._folder.run_id, **self._told.tags}
            files = [self._folder.spec, self._folder.resolved]
            self._mlflow.start(self._told.spec.model_dump(mode="json"), tags, files)
            for record in left:
                self._mlflow.write(record)

    def write(self, record: Figures) -> None:
        """One step's figures to everywhere."""
        self._log.write(record)
        if self._mlflow is not None:
            self._mlflow.write(record)
        self._view.remember(record)
        self._progress.show(int(record["step"]), self._view.facts(record), self._view.curve)

    def note(self, text: str) -> None:
        """Tell the person something."""
        self._progress.note(text)

    def close(self, status: str) -> None:
        """Flush everything, with a bound on how long MLflow may take."""
        self._progress.stop()
        self._log.close()
        if self._mlflow is not None:
            self._mlflow.close(status)
