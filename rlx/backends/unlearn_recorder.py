"""An unlearning run's figures on their way to disk, to MLflow and to the person."""

from __future__ import annotations

from rlx.console import Progress
from rlx.rundir import RunDir
from rlx.track import Figures, JsonlLog, MlflowSink, read_metrics, tracking_uri
from rlx.unlearn_spec import ResolvedUnlearn


class UnlearnRecorder:
    """Writes metrics.jsonl, feeds MLflow and shows progress."""

    def __init__(self, resolved: ResolvedUnlearn, folder: RunDir) -> None:
        self._resolved, self._folder = resolved, folder
        self._progress = Progress(f"rlx {folder.run_id}", total=0, unit="update")
        self._log = JsonlLog(folder.metrics, self._progress.warn)
        self._mlflow: MlflowSink | None = None
        self._evaluated: dict[str, str] = {}
        self._forgetting: list[float] = []

    def expect(self, updates: int) -> None:
        """How many updates there will be."""
        self._progress.total = updates

    @property
    def offset(self) -> int:
        """Bytes of metrics.jsonl."""
        return self._log.offset

    def rewind(self, offset: int) -> None:
        """Cut metrics.jsonl back to a checkpoint, then offer MLflow every record that is left."""
        self._log.rewind(offset)
        left = read_metrics(self._folder.metrics)
        for record in left:
            self._remember(record)
        spec = self._resolved.spec
        if spec.tracker.mlflow:
            self._mlflow = MlflowSink(
                uri=tracking_uri(self._folder.root.parent),
                experiment=spec.tracker.experiment,
                name=self._folder.run_id,
                id_file=self._folder.mlflow,
                warn=self._progress.warn,
            )
            tags = {
                "rlx.run_id": self._folder.run_id,
                "rlx.method": spec.method.name,
                "rlx.seed": str(spec.seed),
                "rlx.model": spec.model.path,
                "rlx.version": self._resolved.version,
            }
            self._mlflow.start(spec.model_dump(mode="json"), tags, [self._folder.spec, self._folder.resolved])
            for record in left:
                self._mlflow.write(record)

    def write(self, record: Figures) -> None:
        """One update's figures to everywhere."""
        self._log.write(record)
        if self._mlflow is not None:
            self._mlflow.write(record)
        self._remember(record)
        facts = dict(self._evaluated)
        if "train/loss" in record:
            facts["loss"] = f"{record['train/loss']:.3f}"
        self._progress.show(int(record["step"]), facts, self._forgetting)

    def note(self, text: str) -> None:
        """Tell the person something."""
        self._progress.note(text)

    def close(self, status: str) -> None:
        """Flush everything, with a bound on how long MLflow may take."""
        self._progress.stop()
        self._log.close()
        if self._mlflow is not None:
            self._mlflow.close(status)

    def _remember(self, record: Figures) -> None:
        if "eval/forgetting" in record:
            self._forgetting.append(float(record["eval/forgetting"]))
            self._evaluated = {
                "forgetting": f"{record['eval/forgetting']:.3f} at update {int(record['step'])}",
                "utility": f"{record['eval/utility']:.3f}",
            }
