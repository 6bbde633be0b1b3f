"""What the user sees of a training run: the values of the live panel, and the table at its end."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping

from rlx.console import Progress, print_out, table
from rlx.numerics.intervals import wilson
from rlx.numerics.trust import SIDES
from rlx.runs.folder import RunDir, read_json, write_atomically
from rlx.runs.mlflow_settings import dotted_keys, mlflow_command
from rlx.runs.recorder import RunDescription, RunRecorder
from rlx.runs.tracking import Metrics, read_metrics, tracking_uri
from rlx.runs.usage_facts import usage_facts
from rlx.specs.resolve_train import NOT_IDENTIFYING
from rlx.specs.train import Resolved

KINDS = {"sampled": "eval/sampled_accuracy", "greedy": "eval/greedy_accuracy"}
"""Metric keys of the accuracies by name; verl measures no greedy accuracy."""


class TrainView:
    """The live panel's values: reward, accuracy, entropy, clipping, length, speed and memory."""

    def __init__(self) -> None:
        self.curve: list[float] = []
        self._accuracy = ""

    def remember(self, record: Metrics) -> None:
        """Store what later panels show of one record."""
        if "train/reward" in record:
            self.curve.append(float(record["train/reward"]))
        if "eval/sampled_accuracy" in record:
            accuracies = [f"{_accuracy(record, key)} {kind}" for kind, key in KINDS.items() if key in record]
            self._accuracy = f"{', '.join(accuracies)} at step {int(record['step'])}"

    def facts(self, record: Metrics) -> Mapping[str, str]:
        """Names and values to show next to the progress bar."""
        facts = {"reward": f"{record['train/reward']:.3f}"} if "train/reward" in record else {}
        if self._accuracy:
            facts["accuracy"] = self._accuracy
        if "policy/entropy" in record:
            facts["entropy"] = f"{record['policy/entropy']:.3f} nats"
        if "trust/low_neg" in record:
            outside = sum(record[f"trust/{side}"] for side in SIDES)
            weight = f", mean weight {record['trust/weight_outside']:.2f}" if "trust/weight_outside" in record else ""
            facts["ratio outside .8 to 1.2"] = f"{outside:.2%} of tokens{weight}"
        if "train/response_tokens" in record:
            truncated = f", {record['train/truncated']:.1%} truncated" if "train/truncated" in record else ""
            facts["response"] = f"{record['train/response_tokens']:.1f} tokens{truncated}"
            facts["speed"] = f"{record['time/tokens_per_s']:,.0f} tokens/s"
        return {**facts, **usage_facts(record)}


def run_description(resolved: Resolved) -> RunDescription:
    """What is logged to MLflow of a training run."""
    spec = resolved.spec
    tags = {
        "rlx.algorithm": spec.algorithm.name,
        "rlx.seed": str(spec.seed),
        "rlx.model": spec.model.path,
        "rlx.version": resolved.version,
    }
    return RunDescription(spec, spec.tracker, tags, tuple(dotted_keys(NOT_IDENTIFYING)))


def train_recorder(resolved: Resolved, folder: RunDir) -> RunRecorder:
    """The recorder of a training run."""
    progress = Progress(f"rlx {folder.run_id}", resolved.spec.steps)
    return RunRecorder(folder, run_description(resolved), TrainView(), progress)


def finish(folder: RunDir) -> None:
    """Write the summary that marks a run as complete: its first and last evaluation and its time."""
    records = read_metrics(folder.metrics)
    evaluated = [record for record in records if "eval/sampled_accuracy" in record]
    keys = ("step", *KINDS.values(), "eval/problems")
    ends = {"before": evaluated[0], "after": evaluated[-1]} if evaluated else {}
    summary = {
        "steps": int(records[-1]["step"]),
        "seconds": round(sum(record.get("time/step", 0.0) for record in records), 1),
        "tokens": int(sum(record.get("train/tokens", 0) for record in records)),
        **{name: {key: record[key] for key in keys if key in record} for name, record in ends.items()},
    }
    write_atomically(folder.summary, json.dumps(summary, indent=2))


def print_summary(resolved: Resolved, folder: RunDir, again: bool = False) -> None:
    """Print the table of a complete run: accuracy before and after, the paths of its files, and a next command."""
    summary = read_json(folder.summary)
    state = "was already complete; nothing was done (--fresh starts it again)" if again else "is complete"
    print_out(f"run {folder.run_id} {state}")
    if "before" in summary:
        rows = [
            [name, _accuracy(summary["before"], key), _accuracy(summary["after"], key), _gain(summary, key)]
            for name, key in KINDS.items()
            if key in summary["after"]
        ]
        problems = int(summary["after"]["eval/problems"])
        values = [summary[end][key] for end in ("before", "after") for key in KINDS.values() if key in summary[end]]
        is_accuracy = 0 <= min(values) <= max(values) <= 1
        held_out = f"on {problems} held-out problems"
        title = f"accuracy {held_out}, with 95 % Wilson intervals" if is_accuracy else f"first reward's mean {held_out}"
        print_out(table(title, ["", "before", "after", "difference"], rows))
    lines = [
        ["steps", f"{summary['steps']} in {summary['seconds']:.0f} s, {summary['tokens']:,} response tokens"],
        ["model", str(folder.model)],
        ["metrics", str(folder.metrics)],
        ["samples", str(folder.samples)],
    ]
    if resolved.spec.tracker.mlflow:
        lines.append(["MLflow", mlflow_command(tracking_uri(folder.root.parent))])
    other = "grpo" if resolved.spec.algorithm.name != "grpo" else "dgpo"
    lines.append(
        [
            "next",
            f"rlx train --algo {other}"
            if _embedded(resolved)
            else f"rlx sample {shlex.quote(str(folder.root))} --browse",
        ]
    )
    for name, value in lines:
        print_out(f"{name:8} {value}")


def _embedded(resolved: Resolved) -> bool:
    return resolved.spec.model.path == "embedded"


def _accuracy(record: Mapping[str, float], key: str) -> str:
    problems = int(record["eval/problems"])
    if not 0 <= record[key] <= 1:  # the mean of a reward that is no fraction of right answers
        return f"{record[key]:.3f}"
    low, high = wilson(record[key] * problems, problems)
    return f"{record[key]:.1%} [{low:.1%}, {high:.1%}]"


def _gain(summary: Mapping[str, Mapping[str, float]], key: str) -> str:
    before, after = summary["before"][key], summary["after"][key]
    points = f"{100 * (after - before):+.1f} points"
    return points if 0 <= min(before, after) <= max(before, after) <= 1 else f"{after - before:+.3f}"
