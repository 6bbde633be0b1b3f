"""Continue a run from its newest intact checkpoint; damaged ones are set aside and named in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

from rlx.engine.checkpoint import load_checkpoint
from rlx.engine.step import Engine
from rlx.errors import UserError
from rlx.runs.checkpoint_files import (
    METRICS,
    WEIGHTS,
    Position,
    check_checkpoint,
    newest_file,
    newest_step,
    read_state,
    remove_leftovers,
    step_folders,
)
from rlx.runs.folder import RunDir, write_atomically
from rlx.runs.folder_parts import part_number
from rlx.runs.integrity import BackgroundHashes, Damaged, check_file, manifest_files, set_aside
from rlx.runs.recorder import Recorder
from rlx.runs.samples import remove_samples

NO_INTACT_CHECKPOINT = 3
"""Exit code of a run with checkpoints of which none is intact."""


class Recovery:
    """The checkpoints of a run; the newest one is hashed in the background while the model is built.

    Args:
        run: the run's folder.
    """

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._hashes = BackgroundHashes(
            [file for path in step_folders(run.checkpoints)[-1:] for file in manifest_files(path)]
        )

    def restore(self, engine: Engine, recorder: Recorder, needs_best: bool = False) -> Position | None:
        """Restore the newest intact checkpoint and the records up to it.

        Every process calls it; all take the same checkpoint. Newer ones are renamed, because their steps are computed
        again.

        Args:
            engine: receives weights, optimiser and random states.
            recorder: its metrics are cut back to the checkpoint.
            needs_best: the run also ends in the weights of the best checkpoint, which must be intact too.

        Returns:
            The position, or None if no checkpoint was written yet.

        Raises:
            UserError: when there are checkpoints and none is intact, with an exit code of its own.
        """
        run = self._run
        if engine.rank == 0:
            remove_leftovers(run.checkpoints)
        folders: list[Path] = engine.gather([step_folders(run.checkpoints)[::-1]])[0]
        problems: dict[Path, str] = {}
        lost: dict[Path, str] = {}
        for folder in folders:
            problems[folder] = _agreed(engine, self._problem(folder, needs_best))
            if not problems[folder]:
                lost[folder] = _agreed(engine, self._lost_samples(folder))
                if not lost[folder]:
                    break
        complete = [folder for folder, sentence in lost.items() if not sentence]
        selected = next(iter([*complete, *lost]), None)
        if selected is None:
            self._refuse_lost_run(problems)
            recorder.rewind(0)
            self._remove_later_samples(engine, -1)
            return None
        if engine.rank == 0:
            self._report(recorder, selected, folders, problems | lost)
        position = load_checkpoint(selected, engine, verified=True)
        copy = selected / METRICS
        recorder.rewind(position.metrics_bytes, copy if copy.is_file() else None)
        self._remove_later_samples(engine, position.step)
        return position

    def _problem(self, folder: Path, needs_best: bool) -> str:
        """Why a run cannot continue from a checkpoint; empty if it can."""
        try:
            check_checkpoint(folder, self._hashes)
            position = Position(**read_state(folder)["position"])
            best = self._run.checkpoint(position.best_step)
            if needs_best and position.best_step >= 0 and best != folder:
                try:
                    check_checkpoint(best, only=WEIGHTS)
                except Damaged as damage:
                    return f"the best checkpoint {best.name} is damaged: {damage}"
        except Damaged as damage:
            return str(damage)
        return ""

    def _lost_samples(self, folder: Path) -> str:
        """The first part file of samples that a checkpoint counts as written and that is not intact."""
        for name, digest in read_state(folder).get("samples", {}).items():
            try:
                if check_file(self._run.samples / name) != digest:
                    return f"{name} is not the file that the checkpoint counts"
            except Damaged as damage:
                return str(damage)
        return ""

    def _refuse_lost_run(self, problems: dict[Path, str]) -> None:
        """Refuse to start again from nothing if there were checkpoints.

        Raises:
            UserError: naming what is wrong with the newest.
        """
        checkpoints = self._run.checkpoints
        set_aside_before = sorted(checkpoints.glob("_step_*"))
        if not problems and not set_aside_before and newest_step(checkpoints) < 0:
            return
        if problems:
            newest, reason = next(iter(problems.items()))
            detail = f"{newest.name}: {reason}"
        else:
            detail = f"step_{newest_step(checkpoints):06d} is missing"
        raise UserError(
            f"run {self._run.run_id} has no intact checkpoint ({detail})",
            fix="copy one back from a backup, or start the run again with --fresh",
            exit_code=NO_INTACT_CHECKPOINT,
        )

    def _report(self, recorder: Recorder, selected: Path, folders: list[Path], problems: dict[Path, str]) -> None:
        """Set newer checkpoints aside, and print a sentence about each, and about a missing one or lost samples.

        Args:
            recorder: prints.
            selected: the checkpoint that the run continues from.
            folders: all checkpoints, the newest first.
            problems: what is wrong with each checkpoint or with the samples that it counts; empty if nothing is.
        """
        recorded, step = newest_step(selected.parent), _step(selected)
        if recorded > _step(folders[0]):
            recorder.note(f"warning: checkpoint step_{recorded:06d} is missing; the run goes on from {selected.name}")
        later = folders[: folders.index(selected)]
        if later:
            targets = [set_aside(folder) for folder in later]
            others = f" and {len(later) - 1} more were set aside" if later[1:] else ""
            recorder.note(
                f"warning: checkpoint {later[0].name} is damaged ({problems[later[0]]}); "
                f"it was renamed to {targets[0].name}{others}; the run goes on from {selected.name}"
            )
        if lost := problems[selected]:
            recorder.note(
                f"warning: {self._run.samples.name}: {lost}; no checkpoint before it is left, its texts are lost"
            )
        if "format" not in read_state(selected):
            recorder.note(
                f"checkpoint {selected.name} has no hashes: an earlier version wrote it, and it is not checked"
            )
        if recorded not in (-1, step):
            write_atomically(newest_file(selected.parent), json.dumps({"step": step}))

    def _remove_later_samples(self, engine: Engine, step: int) -> None:
        """Remove the sample parts of steps that are computed again; damaged ones are set aside."""
        if engine.rank == 0:
            for part in self._run.sample_parts():
                if part_number(part) > step:
                    try:
                        check_file(part)
                        remove_samples(part)
                    except Damaged:
                        set_aside(part)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def _agreed(engine: Engine, problem: str) -> str:
    """The first problem that any process has; all take the same decision."""
    return next(filter(None, engine.gather([problem])), "")
