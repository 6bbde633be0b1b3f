"""Folders inside a run folder: evaluations, and the files that verl reads and writes."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class EvalDir:
    """One evaluation's folder.

    Example:
        ``EvalDir(Path("runs/dgpo-1f0c2a9b33/evaluations/final/aime24-0b5e9c1d"))``
    """

    root: Path

    @property
    def protocol(self) -> Path:
        """The protocol: what is measured and how."""
        return self.root / "protocol.json"

    @property
    def first_prompt(self) -> Path:
        """The first prompt as the model reads it."""
        return self.root / "first_prompt.txt"

    @property
    def samples(self) -> Path:
        """A parquet data set of responses and verdicts: a folder of part files."""
        return self.root / "samples.parquet"

    @property
    def result(self) -> Path:
        """Metrics and the score of each problem; written when all samples are stored."""
        return self.root / "result.json"

    @property
    def mlflow(self) -> Path:
        """MLflow's run id."""
        return self.root / "mlflow.json"

    def part(self, number: int) -> Path:
        """The part file with this index."""
        return self.samples / f"part_{number:06d}.parquet"

    def parts(self) -> list[Path]:
        """The existing part files."""
        return sorted(self.samples.glob("part_*.parquet"))

    def discard_start(self) -> None:
        """Remove the folder if it has no samples, and the folders above it that are empty then."""
        if self.parts() or self.result.exists():
            return
        shutil.rmtree(self.root, ignore_errors=True)
        with suppress(OSError):  # not empty
            for folder in (self.root.parent, self.root.parent.parent):
                folder.rmdir()


def part_number(part: Path) -> int:
    """The index of a part file."""
    return int(part.stem.removeprefix("part_"))


@dataclass(frozen=True, slots=True)
class VerlDir:
    """The files of one run that verl reads and writes."""

    root: Path

    @property
    def train(self) -> Path:
        """Prompts in the order of their use, in verl's schema."""
        return self.root / "train.parquet"

    @property
    def validation(self) -> Path:
        """Held-out prompts."""
        return self.root / "validation.parquet"

    @property
    def metrics(self) -> Path:
        """Verl's own log of the current attempt, one JSON line per step."""
        return self.root / "metrics.jsonl"

    @property
    def generations(self) -> Path:
        """Responses to the held-out prompts, one file per evaluation."""
        return self.root / "validation"

    @property
    def checkpoints(self) -> Path:
        """Verl's checkpoints."""
        return self.root / "checkpoints"

    def model(self, step: int) -> Path:
        """The model for ``from_pretrained`` inside a checkpoint of verl's."""
        return self.checkpoints / f"global_step_{step}" / "actor" / "huggingface"
