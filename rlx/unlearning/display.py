"""What the user sees of an unlearning run in progress."""

from __future__ import annotations

from collections.abc import Mapping

from rlx.console import Progress
from rlx.runs.folder import RunDir
from rlx.runs.mlflow_settings import dotted_keys
from rlx.runs.recorder import RunDescription, RunRecorder
from rlx.runs.tracking import Metrics
from rlx.runs.usage_facts import usage_facts
from rlx.specs.resolve_unlearn import NOT_IDENTIFYING
from rlx.specs.unlearn import ResolvedUnlearn


class UnlearnView:
    """The live panel's values: loss, forgetting, utility, speed and memory."""

    def __init__(self) -> None:
        self.curve: list[float] = []
        self._evaluated: dict[str, str] = {}

    def remember(self, record: Metrics) -> None:
        """Store what later panels show of one record."""
        if "eval/forgetting" in record:
            self.curve.append(float(record["eval/forgetting"]))
            self._evaluated = {
                "forgetting": f"{record['eval/forgetting']:.3f} at update {int(record['step'])}",
                "utility": f"{record['eval/utility']:.3f}",
            }

    def facts(self, record: Metrics) -> Mapping[str, str]:
        """Names and values to show next to the progress bar."""
        loss = {"loss": f"{record['train/loss']:.3f}"} if "train/loss" in record else {}
        return {**self._evaluated, **loss, **usage_facts(record)}


def run_description(resolved: ResolvedUnlearn) -> RunDescription:
    """What is logged to MLflow of an unlearning run."""
    spec = resolved.spec
    tags = {
        "rlx.method": spec.method.name,
        "rlx.seed": str(spec.seed),
        "rlx.model": spec.model.path,
        "rlx.version": resolved.version,
    }
    return RunDescription(spec, spec.tracker, tags, tuple(dotted_keys(NOT_IDENTIFYING)))


def unlearn_recorder(resolved: ResolvedUnlearn, folder: RunDir) -> RunRecorder:
    """The recorder of an unlearning run; the number of updates is set later."""
    progress = Progress(f"rlx {folder.run_id}", total=0, unit="update")
    return RunRecorder(folder, run_description(resolved), UnlearnView(), progress)
