"""A run's figures on their way to disk, to MLflow and to the person, and the table at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping

from rlx.console import Progress, print_out, table
from rlx.numerics.intervals import wilson
from rlx.rundir import RunDir, read_json, write_atomically
from rlx.spec import Resolved
from rlx.track import Figures, JsonlLog, MlflowSink, public_uri, read_metrics, tracking_uri


class Silent:
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


class RunRecorder:
    """Writes metrics.jsonl, feeds MLflow and shows progress."""

    def __init__(self, resolved: Resolved, folder: RunDir) -> None:
        spec = resolved.spec
        self._resolved, self._folder = resolved, folder
        self._progress = Progress(f"rlx {folder.run_id}", spec.steps)
        self._log = JsonlLog(folder.metrics, self._progress.warn)
        self._mlflow: MlflowSink | None = None
        self._rewards: list[float] = []
        self._accuracy = ""

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
                "rlx.algorithm": spec.algorithm.name,
                "rlx.seed": str(spec.seed),
                "rlx.model": spec.model.path,
                "rlx.version": self._resolved.version,
            }
            files = [self._folder.spec, self._folder.resolved]
            self._mlflow.start(spec.model_dump(mode="json"), tags, files)
            for record in left:
                self._mlflow.write(record)

    def write(self, record: Figures) -> None:
        """One step's figures to everywhere."""
        self._log.write(record)
        if self._mlflow is not None:
            self._mlflow.write(record)
        self._remember(record)
        self._progress.show(int(record["step"]), self._facts(record), self._rewards)

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
        if "train/reward" in record:
            self._rewards.append(float(record["train/reward"]))
        if "eval/sampled_accuracy" in record:
            sampled, greedy = (_share(record, f"eval/{kind}_accuracy") for kind in ("sampled", "greedy"))
            self._accuracy = f"{sampled} sampled, {greedy} greedy at step {int(record['step'])}"

    def _facts(self, record: Figures) -> Mapping[str, str]:
        facts = {"reward": f"{record['train/reward']:.3f}"} if "train/reward" in record else {}
        if self._accuracy:
            facts["accuracy"] = self._accuracy
        if "policy/entropy" in record:
            low, high = record.get("policy/clip_low", 0.0), record.get("policy/clip_high", 0.0)
            facts["entropy"] = f"{record['policy/entropy']:.3f} nats"
            facts["clipped"] = f"{low:.2%} low, {high:.2%} high"
        if "train/response_tokens" in record:
            cut = record["train/truncated"]
            facts["response"] = f"{record['train/response_tokens']:.1f} tokens, {cut:.1%} truncated"
            facts["speed"] = f"{record['time/tokens_per_s']:,.0f} tokens/s"
        return facts


def finish(folder: RunDir) -> None:
    """Write the summary that marks a run as complete: its first and last evaluation and its time."""
    records = read_metrics(folder.metrics)
    evaluated = [record for record in records if "eval/sampled_accuracy" in record]
    keep = ("step", "eval/sampled_accuracy", "eval/greedy_accuracy", "eval/problems")
    ends = {"before": evaluated[0], "after": evaluated[-1]} if evaluated else {}
    summary = {
        "steps": int(records[-1]["step"]),
        "seconds": round(sum(record.get("time/step", 0.0) for record in records), 1),
        "tokens": int(sum(record.get("train/tokens", 0) for record in records)),
        **{name: {key: record[key] for key in keep} for name, record in ends.items()},
    }
    write_atomically(folder.summary, json.dumps(summary, indent=2))


def tell_end(resolved: Resolved, folder: RunDir, again: bool = False) -> None:
    """The table of a complete run: accuracy before and after, where everything is, and what to do next."""
    summary = read_json(folder.summary)
    state = "was already complete; nothing was done (--fresh starts it anew)" if again else "is complete"
    print_out(f"run {folder.run_id} {state}")
    if "before" in summary:
        rows = [
            [name, _share(summary["before"], key), _share(summary["after"], key), _gain(summary, key)]
            for name, key in (("sampled", "eval/sampled_accuracy"), ("greedy", "eval/greedy_accuracy"))
        ]
        problems = int(summary["after"]["eval/problems"])
        title = f"accuracy on {problems} held-out problems, with 95 % Wilson intervals"
        print_out(table(title, ["", "before", "after", "difference"], rows))
    uri = tracking_uri(folder.root.parent)
    places = [
        ["steps", f"{summary['steps']} in {summary['seconds']:.0f} s, {summary['tokens']:,} response tokens"],
        ["model", str(folder.model)],
        ["metrics", str(folder.metrics)],
        ["samples", str(folder.samples)],
    ]
    if resolved.spec.tracker.mlflow:
        places.append(["MLflow", public_uri(uri)])
    other = "grpo" if resolved.spec.algorithm.name != "grpo" else "dgpo"
    places.append(["next", f"rlx train --algo {other}" if _embedded(resolved) else f"ls {folder.samples}"])
    for name, place in places:
        print_out(f"{name:8} {place}")


def _embedded(resolved: Resolved) -> bool:
    return resolved.spec.model.path == "embedded"


def _share(record: Mapping[str, float], key: str) -> str:
    problems = int(record["eval/problems"])
    low, high = wilson(record[key] * problems, problems)
    return f"{record[key]:.1%} [{low:.1%}, {high:.1%}]"


def _gain(summary: Mapping[str, Mapping[str, float]], key: str) -> str:
    return f"{summary['after'][key] - summary['before'][key]:+.1%}"
