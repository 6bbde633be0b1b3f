"""Deletion of runs and of their checkpoints, with the number of bytes before anything is deleted."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlx.runs.checkpoint_files import newest_file, read_state, step_folders
from rlx.runs.folder import RunDir, read_json, runs_in
from rlx.runs.integrity import Damaged
from rlx.runs.status import folder_bytes


@dataclass(frozen=True, slots=True)
class Removal:
    """A folder that would be deleted.

    Example:
        ``Removal(run, Path("runs/dgpo-1f0c/checkpoints/step_000025"), 5_210_000)``
    """

    run: RunDir
    path: Path
    bytes: int


def run_removals(runs: Sequence[RunDir]) -> list[Removal]:
    """The folders of complete runs."""
    return [Removal(run, run.root, folder_bytes(run.root)) for run in runs]


def checkpoint_removals(run: RunDir, keep: int) -> list[Removal]:
    """The checkpoints of a run without the newest ``keep`` and, unless ``keep`` is 0, the best one.

    An incomplete run needs its newest checkpoint to continue: with ``keep=0`` none of its checkpoints is listed.
    """
    folders = step_folders(run.checkpoints)
    if not folders or (keep == 0 and not run.summary.exists()):
        return []
    retained = set(folders[-keep:]) if keep else set()
    if keep:
        try:
            retained.add(run.checkpoint(int(read_state(folders[-1])["position"]["best_step"])))
        except (Damaged, KeyError):
            return []  # `rlx runs check` says what is damaged; an older checkpoint may be the only intact one
    return [Removal(run, path, folder_bytes(path)) for path in folders if path not in retained]


def remove(removals: Sequence[Removal]) -> None:
    """Delete the folders; without any checkpoint the file that names the newest one is deleted too."""
    for removal in removals:
        shutil.rmtree(removal.path)
        if removal.path != removal.run.root and not step_folders(removal.run.checkpoints):
            newest_file(removal.run.checkpoints).unlink(missing_ok=True)


def dependent_runs(run: RunDir, runs_dir: Path) -> list[str]:
    """Names of the other runs that start from this run's model."""
    dependents = []
    for other in runs_in(runs_dir):
        if other.root == run.root:
            continue
        folder = Path(str(read_json(other.resolved).get("model_folder", "")))
        if folder.resolve().is_relative_to(run.root.resolve()):
            dependents.append(other.run_id)
    return dependents
