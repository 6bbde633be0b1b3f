"""The run folder: the only module that builds its paths; folder_parts.py has the folders inside it.

runs/<id>/spec.yaml          the user's spec
runs/<id>/resolved.json      the resolved spec
runs/<id>/metrics.jsonl      one line per step, the source of truth
runs/<id>/samples.parquet/   sampled texts, one part file per checkpoint
runs/<id>/checkpoints/       step_000025/ ...: see engine/checkpoint.py
runs/<id>/lock               the process that writes the run: see lock.py
runs/<id>/model/             the trained model, for from_pretrained
runs/<id>/mlflow.json        MLflow run id, kept across resume
runs/<id>/certificate.json   evidence of an unlearning run, and .html
runs/<id>/certificate_clear.html  the same with sensitive text (`--show-secrets`), mode 600
runs/<id>/mask.key           key of the hashes of masked text, mode 600
runs/<id>/references.txt     names of the reference caches that the run used
runs/<id>/summary.json       written last: the run is complete
runs/<id>/profile/           phases.tsv and trace.json.gz of `rlx train --profile`
runs/<id>/verl/              verl's files: see VerlDir
runs/<id>/evaluations/       <checkpoint>/<benchmark>-<protocol>/ of `rlx eval`: see EvalDir
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlx.errors import UserError, reason
from rlx.runs.folder_parts import EvalDir, VerlDir
from rlx.runs.foreign import refuse_links_outside
from rlx.runs.lock import locked, take_over


@dataclass(frozen=True, slots=True)
class RunDir:
    """One run's folder.

    Example:
        ``RunDir(Path("runs/dgpo_embedded_arithmetic_s0-1f0c2a9b33"))``
    """

    root: Path

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.root.name

    @property
    def spec(self) -> Path:
        """The user's spec."""
        return self.root / "spec.yaml"

    @property
    def resolved(self) -> Path:
        """The resolved experiment."""
        return self.root / "resolved.json"

    @property
    def metrics(self) -> Path:
        """One JSON line per step."""
        return self.root / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        """A parquet data set: a folder of part files."""
        return self.root / "samples.parquet"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        """The trained model."""
        return self.root / "model"

    @property
    def mlflow(self) -> Path:
        """MLflow's run id."""
        return self.root / "mlflow.json"

    @property
    def summary(self) -> Path:
        """The final results; exists only in a complete run."""
        return self.root / "summary.json"

    @property
    def certificate(self) -> Path:
        """Evidence of an unlearning run as JSON."""
        return self.root / "certificate.json"

    @property
    def certificate_page(self) -> Path:
        """The certificate as a page for readers."""
        return self.root / "certificate.html"

    @property
    def clear_page(self) -> Path:
        """The certificate with sensitive text in clear; exists from the request for it (``--show-secrets``)."""
        return self.root / "certificate_clear.html"

    @property
    def mask_key(self) -> Path:
        """The key of the hashes of masked text."""
        return self.root / "mask.key"

    @property
    def reference_list(self) -> Path:
        """Names of the files of ``references`` that the run used, one a line."""
        return self.root / "references.txt"

    @property
    def picture(self) -> Path:
        """Forgetting against utility."""
        return self.root / "forgetting.png"

    @property
    def failure(self) -> Path:
        """Why the last attempt at this run failed; removed when the run continues."""
        return self.root / "failure.json"

    @property
    def log(self) -> Path:
        """The run's output while a study ran it."""
        return self.root / "log.txt"

    @property
    def profile(self) -> Path:
        """The folder of the profile."""
        return self.root / "profile"

    @property
    def profile_request(self) -> Path:
        """Exists from the request for a profile until profiling starts."""
        return self.profile / "requested"

    @property
    def profile_table(self) -> Path:
        """Seconds of each phase."""
        return self.profile / "phases.tsv"

    @property
    def profile_trace(self) -> Path:
        """Torch's trace, for a browser's viewer."""
        return self.profile / "trace.json.gz"

    @property
    def lock(self) -> Path:
        """Exists while a process writes the run, and names that process."""
        return self.root / "lock"

    @property
    def references(self) -> Path:
        """Constants of models before training, by content; shared by all runs of the folder."""
        return self.root.parent / ".references"

    @property
    def evaluated(self) -> Path:
        """The model of a folder that contains evaluations only."""
        return self.root / "evaluated.json"

    @property
    def verl(self) -> VerlDir:
        """The folder of verl's files."""
        return VerlDir(self.root / "verl")

    def evaluation(self, checkpoint: str, name: str) -> EvalDir:
        """Folder of one checkpoint's evaluation by one protocol."""
        return EvalDir(self.root / "evaluations" / checkpoint / name)

    def evaluations(self, checkpoint: str = "*") -> list[EvalDir]:
        """Every evaluation that was started."""
        return [EvalDir(file.parent) for file in sorted(self.root.glob(f"evaluations/{checkpoint}/*/protocol.json"))]

    def checkpoint(self, step: int) -> Path:
        """Folder of the checkpoint after ``step`` steps."""
        return self.checkpoints / f"step_{step:06d}"

    def sample_part(self, step: int) -> Path:
        """Part file of the samples up to ``step``."""
        return self.samples / f"part_{step:06d}.parquet"

    def sample_parts(self) -> list[Path]:
        """The existing part files of samples."""
        return sorted(self.samples.glob("part_*.parquet"))

    def create(self, content: dict[str, Any], resolved_json: str) -> None:
        """Create the folder with its spec, if it does not exist.

        Raises:
            UserError: when the folder cannot be written.
        """
        self.refuse_links_outside()
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            if not self.resolved.exists():
                write_atomically(self.spec, yaml.safe_dump(content, sort_keys=False))
                write_atomically(self.resolved, resolved_json)
        except OSError as error:
            raise UserError(
                f"run folder {self.root} cannot be written ({reason(error)})",
                fix="free some space or choose another folder with --runs-dir",
                exit_code=1,
            ) from None

    def replace_spec(self, content: dict[str, Any]) -> None:
        """Replace the stored user's spec if it differs, as in a folder that somebody else wrote."""
        text = yaml.safe_dump(content, sort_keys=False)
        if not self.spec.is_file() or self.spec.read_text(encoding="utf-8") != text:
            write_atomically(self.spec, text)

    def update(self, resolved_json: str) -> None:
        """Replace the stored resolved spec by one of the same identity (sharding may differ)."""
        if self.resolved.read_text(encoding="utf-8") != resolved_json:
            write_atomically(self.resolved, resolved_json)

    def clear(self) -> None:
        """Remove the folder with its content (``--fresh``)."""
        shutil.rmtree(self.root, ignore_errors=True)

    def locked(self) -> AbstractContextManager[None]:
        """Lock the folder for this process while the context lasts; the lock ends with the process, however it ends.

        Raises:
            UserError: when another process has locked it, or a link leads out of it.
        """
        self.refuse_links_outside()
        return locked(self.lock, self.run_id)

    def refuse_links_outside(self) -> None:
        """Refuse a folder from which a link leads out: writing it would change files elsewhere.

        Raises:
            UserError: naming the link.
        """
        refuse_links_outside(self.root)

    def take_over(self) -> None:
        """Remove the lock of a process of another host, which the user knows to have ended."""
        take_over(self.lock, self.run_id)

    def discard_start(self) -> None:
        """Remove the folder if nothing but the files of a start is in it: a failed start leaves nothing.

        A folder with a checkpoint, samples, records of steps or any file that a start does not write stays as it is.
        The record of step 0 alone is computed again in any case. A list of reference caches stays, so that ``--purge``
        can find them.
        """
        started = {self.spec, self.resolved, self.metrics, self.mlflow, self.lock, self.profile_request}
        started |= {self.mask_key, self.clear_page}
        empty = {self.checkpoints, self.samples, self.profile}
        paths = list(self.root.rglob("*"))
        if any(path not in (empty if path.is_dir() else started) for path in paths):
            return
        if not self.metrics.is_file() or self.metrics.read_bytes().count(b"\n") <= 1:
            shutil.rmtree(self.root, ignore_errors=True)

    def discard_evaluated(self) -> None:
        """Remove the folder if it is one of evaluations only, and has none."""
        if list(self.root.glob("*")) == [self.evaluated]:
            shutil.rmtree(self.root, ignore_errors=True)


def find_run(name: str, runs: Path, evaluated: bool = False) -> RunDir | None:
    """The folder of a run that is given by its path or by its name in ``runs``; None if there is no such run.

    Args:
        name: path or name.
        runs: folder of all runs.
        evaluated: whether the folder of the evaluations of a model that is no run counts as one.
    """
    folders = (RunDir(Path(name)), RunDir(runs / name))
    return next((f for f in folders if f.resolved.is_file() or (evaluated and f.evaluated.is_file())), None)


def runs_in(folder: Path) -> list[RunDir]:
    """Every run folder below ``folder``, by name."""
    return [RunDir(file.parent) for file in sorted(folder.glob("*/resolved.json"))]


def write_atomically(path: Path, text: str, private: bool = False) -> None:
    """Write ``text`` so that a reader sees the complete old file or the complete new one.

    Args:
        path: the file.
        text: its content.
        private: whether only its owner can read it (mode 600), from its first byte on.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # one that a killed process left may have another mode
    mode = 0o600 if private else 0o666
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """The content of a JSON file that rlx wrote.

    Raises:
        UserError: when it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({error})", fix="start the run again with --fresh", exit_code=1
        ) from None
