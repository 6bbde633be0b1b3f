"""Checks of a run folder: every file with a hash, and every file that another one says must exist."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rlx.errors import UserError, did_you_mean
from rlx.runs.checkpoint_files import METRICS, STATE, check_checkpoint, newest_step, read_state, step_folders
from rlx.runs.folder import RunDir, find_run, runs_in
from rlx.runs.folder_parts import EvalDir
from rlx.runs.foreign import links_outside
from rlx.runs.integrity import Damaged, check_file, check_folder, has_hash


@dataclass(slots=True)
class CheckReport:
    """What the check of a folder gave.

    Example:
        ``CheckReport(checked=14, problems=["checkpoints/step_000025: model.safetensors is missing"])``
    """

    checked: int = 0
    """Files and folders that were compared with a hash or with another file."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be checked, and what was set aside earlier."""

    @contextmanager
    def item(self, name: str) -> Iterator[None]:
        """Count one check, and record its damage under this name."""
        self.checked += 1
        try:
            yield
        except Damaged as damage:
            self.problems.append(f"{name}: {damage}")

    def text(self, title: str) -> str:
        """One line, then one for each problem and note."""
        state = f"{len(self.problems)} damaged or missing" if self.problems else "intact"
        lines = [f"{title}: {state} ({self.checked} checked)"]
        lines += [f"  damaged   {problem}" for problem in self.problems]
        return "\n".join([*lines, *(f"  note      {note}" for note in self.notes)])


def run_folders(run: str | None, runs_dir: Path) -> list[RunDir]:
    """The named run, or every run of the folder, those of evaluations only included.

    Raises:
        UserError: when there is no such run.
    """
    if run is None:
        evaluated = [RunDir(file.parent) for file in sorted(runs_dir.glob("*/evaluated.json"))]
        return [*runs_in(runs_dir), *evaluated]
    return [matching_run(run, runs_dir)]


def matching_run(name: str, runs_dir: Path) -> RunDir:
    """The run with this folder or name; the beginning or the end of a name suffices if only one run has it.

    Raises:
        UserError: when there is no such run, or several have a name that begins or ends so.
    """
    exact = find_run(name, runs_dir, evaluated=True)
    if exact is not None:
        return exact
    existing = run_folders(None, runs_dir)
    matches = [folder for folder in existing if folder.run_id.startswith(name) or folder.run_id.endswith(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(folder.run_id for folder in matches)
        raise UserError(f"{len(matches)} runs in {runs_dir} have a name with '{name}'", fix=f"choices: {names}")
    choices = [folder.run_id for folder in existing]
    raise UserError(f"there is no run '{name}' in {runs_dir}", fix=did_you_mean(name, choices))


def check_run(run: RunDir) -> CheckReport:
    """Check every file of a run folder that has a hash, a copy, or another file that requires it."""
    report = CheckReport()
    for path in links_outside(run.root):
        report.problems.append(f"{path.relative_to(run.root)} leads out of the run folder, which is not written then")
    for path in (run.resolved, run.summary, run.certificate, run.evaluated):
        if path.exists():
            with report.item(path.name):
                _check_json(path)
    _check_checkpoints(run, report)
    if run.model.is_dir() or run.summary.exists():
        with report.item("model"):
            if not run.model.is_dir():
                raise Damaged("the folder is missing, although the run is complete")
            try:
                check_folder(run.model)
            except FileNotFoundError:
                report.notes.append("model has no hashes: an earlier version wrote it")
    _check_metrics(run, report)
    for part in run.sample_parts():
        _check_part(part, run.root, report)
    for evaluation in run.evaluations():
        _check_evaluation(evaluation, run.root, report)
    for path in sorted(run.root.rglob("_*.damaged*")):
        report.notes.append(f"{path.relative_to(run.root)} was set aside earlier; nothing reads it")
    return report


def check_references(runs_dir: Path) -> CheckReport:
    """Check the constants of models before training."""
    report, folder = CheckReport(), RunDir(runs_dir / "_").references
    for path in sorted(folder.glob("*.safetensors")):
        _check_part(path, folder, report)
    return report


def _check_checkpoints(run: RunDir, report: CheckReport) -> None:
    folders = step_folders(run.checkpoints)
    for folder in folders:
        with report.item(f"checkpoints/{folder.name}"):
            if not check_checkpoint(folder):
                report.notes.append(f"checkpoints/{folder.name} has no hashes: an earlier version wrote it")
    recorded = newest_step(run.checkpoints)
    if recorded >= 0 and not run.checkpoint(recorded).is_dir():
        report.problems.append(f"checkpoints/step_{recorded:06d}: the checkpoint that was written last is missing")
    if folders and (folders[-1] / STATE).is_file():
        with report.item("samples.parquet"):
            for name, digest in read_state(folders[-1]).get("samples", {}).items():
                if not (run.samples / name).is_file():
                    raise Damaged(f"{name} is missing")
                if check_file(run.samples / name) != digest:
                    raise Damaged(f"{name} is not the file that {folders[-1].name} counts")


def _check_metrics(run: RunDir, report: CheckReport) -> None:
    """Check that every line is a record, and that the file begins as the newest checkpoint's copy does."""
    copies = [folder / METRICS for folder in step_folders(run.checkpoints) if (folder / METRICS).is_file()]
    if not run.metrics.is_file() and not copies and not run.summary.exists():
        return
    with report.item(run.metrics.name):
        try:
            content = run.metrics.read_bytes()
        except OSError as error:
            raise Damaged(f"it cannot be read ({error.strerror})") from None
        if copies and not content.startswith(copies[-1].read_bytes()):
            raise Damaged(f"it differs from the copy in {copies[-1].parent.name}")
        for number, line in enumerate(content.splitlines(keepends=True), start=1):
            if not line.endswith(b"\n"):
                if run.summary.exists():
                    raise Damaged(f"line {number} is cut off")
                report.notes.append(f"{run.metrics.name}: line {number} is cut off; the next start removes it")
                break
            try:
                json.loads(line)
            except ValueError:
                raise Damaged(f"line {number} is not a record") from None


def _check_evaluation(evaluation: EvalDir, root: Path, report: CheckReport) -> None:
    name = evaluation.root.relative_to(root).as_posix()
    for path in (evaluation.protocol, evaluation.result):
        if path.exists():
            with report.item(f"{name}/{path.name}"):
                _check_json(path)
    for part in evaluation.parts():
        _check_part(part, root, report)
    if evaluation.result.exists():
        with report.item(f"{name}/samples.parquet"):
            _check_counts(evaluation)


def _check_counts(evaluation: EvalDir) -> None:
    """Check that a finished evaluation has all of its samples.

    Raises:
        Damaged: with both numbers.
    """
    import pyarrow.parquet as pq

    try:
        protocol = json.loads(evaluation.protocol.read_bytes())
        expected = int(protocol["problems"]) * int(protocol["n"])
        count = sum(int(pq.read_metadata(part).num_rows) for part in evaluation.parts())
    except (OSError, ValueError, KeyError, TypeError):
        return  # the damaged file itself is reported
    if count != expected:
        raise Damaged(f"{count} samples are stored instead of {expected}: a part file is missing")


def _check_part(part: Path, root: Path, report: CheckReport) -> None:
    with report.item(part.relative_to(root).parent.as_posix()):
        check_file(part)
        if not has_hash(part):
            report.notes.append(f"{part.relative_to(root)} has no hash: an earlier version wrote it")


def _check_json(path: Path) -> None:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Damaged(f"it is no JSON ({error})") from None
