"""One uninterrupted run, shared by the tests of this folder."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from command import rlx

TRAIN = [
    "train", "--steps", "6", "--set", "batch.prompts=4", "--set", "batch.updates_per_rollout=2",
    "--set", "rollout.samples_per_prompt=4", "--set", "evaluation.limit=8", "--set", "evaluation.every=2",
    "--set", "checkpoint.every=2", "--set", "checkpoint.keep=3", "--set", "tracker.mlflow=false",
]  # fmt: skip


class Reference:
    """The uninterrupted run, and copies of it as a process killed just before the end leaves them."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def interrupted(self, runs: Path) -> Path:
        """A copy in another folder that is not complete."""
        copy = runs / self.run.name
        shutil.copytree(self.run, copy)
        (copy / "summary.json").unlink()
        return copy

    def assert_same(self, run: Path) -> None:
        """Assert that a run ended in the same bits: model, checkpoint, metrics without times, samples."""
        for name in ("model/model.safetensors", "checkpoints/step_000006/model.safetensors",
                     "checkpoints/step_000006/optimizer.safetensors"):  # fmt: skip
            assert (run / name).read_bytes() == (self.run / name).read_bytes(), name
        assert records(run) == records(self.run)
        assert samples(run) == samples(self.run)
        assert (run / "summary.json").is_file()


def samples(run: Path) -> list[dict[str, object]]:
    """Rows of all parts of the samples; a run that was stopped has more parts, because a stop writes a checkpoint."""
    return [
        row for part in sorted((run / "samples.parquet").glob("*.parquet")) for row in pq.read_table(part).to_pylist()
    ]


def records(run: Path) -> list[dict[str, float]]:
    """Metrics without those that are measured times, speed and memory."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(("time/", "perf/", "memory/"))} for line in lines]


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """The uninterrupted run."""
    runs = tmp_path_factory.mktemp("reference")
    code, output = rlx(*TRAIN, "--runs-dir", str(runs))
    assert code == 0, output
    (run,) = [path.parent for path in runs.glob("*/resolved.json")]
    return Reference(run)
