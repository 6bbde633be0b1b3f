"""Steps that `rlx train` and `rlx unlearn` share, from the spec file to the run or the study.

A command reads the user's spec, runs it as a study if it has axes, else resolves it and prints or runs the result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from rlx.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from rlx.runs.folder import RunDir


@dataclass(frozen=True, slots=True)
class StudyOptions:
    """How the runs of a study are started.

    Example:
        ``StudyOptions(jobs=2, launcher="local", plan=False, runs_dir=Path("runs"))``
    """

    jobs: int
    """Number of runs at the same time."""
    launcher: str
    """``local`` or ``ray``."""
    plan: bool
    """Print the plan instead of running it."""
    runs_dir: Path
    take_over: bool = False
    """Take over the locks of other machines' processes."""


def print_json_schema(spec_type: type[BaseModel]) -> None:
    """Print the JSON schema of a spec."""
    typer.echo(json.dumps(spec_type.model_json_schema(), indent=2))


def read_user_spec(file: Path | None, trust: bool = False) -> dict[str, Any]:
    """Return the content of the spec file; empty without a file, which means the embedded example.

    Args:
        file: the spec file, which may be the one in a run folder.
        trust: whether code may be executed that the spec in a run folder names.

    Raises:
        UserError: when a run folder's spec names code that is not trusted.
    """
    from rlx.runs.folder import RunDir
    from rlx.runs.foreign import refuse_code
    from rlx.specs.reading import read_spec

    if file is None:
        return {}
    content = read_spec(file)
    if RunDir(file.parent).resolved.exists():
        refuse_code(content, f"{file}, the spec of a run folder,", trust)
    return content


def is_study(content: Mapping[str, Any]) -> bool:
    """Return whether a spec file describes a study, which has axes."""
    return "axes" in content


def reject_options_of_one_run(study: Path | None, options: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Reject options that change the spec of one run if the file is a study.

    Raises:
        UserError: for the first of these options.
    """
    given = [*(key for key, value in options.items() if value is not None), *overrides]
    if given:
        raise UserError(f"{given[0]} cannot be set for a study", fix=f"write it in {study} under base or axes")


def run_study(command: Literal["train", "unlearn"], content: Mapping[str, Any], options: StudyOptions) -> int:
    """Run a study, or print its plan; returns the exit code."""
    from rlx.compare.run import Folders, run_without_report
    from rlx.compare.study.runner import plan_runs, read_study

    folders = Folders(options.runs_dir, Path("reports"))
    if options.take_over:
        for run in plan_runs(read_study(content), options.runs_dir):
            run.folder.take_over()
    return run_without_report(content, command, folders, options.jobs, options.launcher, options.plan)


def apply_options_and_overrides(
    content: Mapping[str, Any], options: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
    """Return the spec of one run with the command-line options applied, then those of ``--set``.

    Args:
        content: the content of the spec file.
        options: dotted keys to values; None means an option that was not given.
        overrides: ``KEY=VALUE`` strings of ``--set``.
    """
    from rlx.specs.reading import apply_options, apply_overrides

    return apply_overrides(apply_options(content, options), overrides)


def print_resolved(resolved: BaseModel) -> None:
    """Print a resolved experiment as YAML."""
    import yaml

    typer.echo(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False).rstrip())


def reject_fresh_with_launcher(fresh: bool, folders: Sequence[RunDir]) -> None:
    """Reject ``--fresh`` if torchrun or accelerate launch started several processes: each would delete the run.

    Raises:
        UserError: naming the folders to remove.
    """
    from rlx.engine.processes import launched

    if fresh and launched():
        roots = ", ".join(str(folder.root) for folder in folders)
        raise UserError(
            "--fresh does not work with a launcher, because each of its processes would delete the run",
            fix=f"leave --fresh out and remove {roots} first",
        )
