"""The small runs that the campaign kills: train, train with MLflow and rewards in processes, unlearn, eval, a study."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

SIZES = ["batch.prompts=8", "batch.updates_per_rollout=2", "rollout.samples_per_prompt=4", "evaluation.limit=10",
         "evaluation.every=4", "checkpoint.every=2"]  # fmt: skip
TRAIN = ["train", "--steps", "8", *(part for key in SIZES for part in ("--set", key))]
NO_MLFLOW = ["--set", "tracker.mlflow=false"]
UNLEARN = [
    "unlearn", "--method", "grad_diff", "--against", "", "--epochs", "3", "--set", "evaluation.limit=5",
    "--set", "evaluation.max_new_tokens=6", "--set", "evaluation.relearn_updates=2", "--set", "checkpoint.every=3",
]  # fmt: skip
EVAL = ["eval", "embedded", "--n", "8", "--limit", "60", "--set", "batch=16", "--set", "mlflow=false"]
STUDY = {
    "name": "campaign",
    "baseline": "grpo",
    "base": {
        "steps": 4,
        "batch": {"prompts": 8, "updates_per_rollout": 2},
        "rollout": {"samples_per_prompt": 4},
        "evaluation": {"every": 0},
        "checkpoint": {"every": 1},
        "tracker": {"mlflow": False},
    },
    "axes": {"algorithm.name": ["grpo", "dgpo"]},
    "evaluation": {"benchmarks": ["arithmetic"], "n": 2, "limit": 8, "batch": 4, "mlflow": False},
}


@dataclass(frozen=True)
class Workload:
    """A command that is killed and repeated."""

    name: str
    arguments: Sequence[str]

    def command(self, folder: Path) -> list[str]:
        """The command line, for a folder of its own."""
        if self.name == "study":
            (folder / "study.yaml").write_text(yaml.safe_dump(STUDY), encoding="utf-8")
        return [sys.executable, "-m", "rlx.cli", *self.arguments, "--runs-dir", "runs"]


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("train", [*TRAIN, *NO_MLFLOW]),
        Workload("unlearn", [*UNLEARN, *NO_MLFLOW]),
        Workload("eval", EVAL),
        Workload("study", ["compare", "study.yaml", "--out", "reports"]),
        Workload("train with MLflow", [*TRAIN, "--algo", "maspo"]),
        Workload("unlearn with MLflow", [*UNLEARN, "--set", "method.name=npo"]),
    )
}
