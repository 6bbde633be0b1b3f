"""The spec of a run that continues an earlier unlearning run with new requests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlx.errors import UserError
from rlx.runs.folder import RunDir, find_run, read_json
from rlx.runs.foreign import REMOTE_CODE, refuse_code
from rlx.specs.reading import copy_content, merge


def finished_run(name: str, runs: Path, option: str) -> RunDir:
    """The folder of an unlearning run that is given as a folder or by its name alone.

    Args:
        name: what the user gave.
        runs: folder of all runs.
        option: the option, for the error message.

    Raises:
        UserError: when there is no such run, or it is not one of `rlx unlearn`.
    """
    folder = find_run(name, runs)
    if folder is None:
        choices = ", ".join(sorted(path.parent.parent.name for path in runs.glob("*/model/config.json"))) or "none"
        raise UserError(f"{option} is '{name}', and there is no such run", fix=f"choices: {choices}")
    if "forget" not in read_json(folder.resolved).get("spec", {}):
        raise UserError(f"{option} is '{name}', which is not a run of rlx unlearn", fix="give one that is")
    return folder


def continue_run(content: Mapping[str, Any], runs: Path, trust: bool = False) -> dict[str, Any]:
    """A user's spec, completed by the settings and the model of the run in its key ``after``.

    Not taken over are the earlier requests, the run's name, and the retain model, which may know the new requests.

    Args:
        content: keys of ``UnlearnSpec``; returned unchanged without ``after``.
        runs: folder of all runs.
        trust: whether code that the earlier run names may be executed.

    Raises:
        UserError: when the run is not complete, names code that is not trusted, or the spec names another model.
    """
    if content.get("after") is None:
        return dict(content)
    folder = finished_run(str(content["after"]), runs, "after")
    if not (folder.summary.is_file() and folder.model.is_dir()):
        raise UserError(
            f"after is run {folder.run_id}, which is not complete",
            fix="finish it with the command that started it",
            exit_code=1,
        )
    path = (content.get("model") or {}).get("path")
    if path not in (None, str(folder.model)):
        raise UserError(
            f"after is run {folder.run_id}, but model.path is '{path}'",
            fix="leave one of them out: the model of that run is the start",
        )
    earlier = copy_content(read_json(folder.resolved)["spec"])
    earlier.pop("run_name")
    earlier["forget"].pop("source")
    earlier["evaluation"].pop("retain_model")
    earlier["model"] |= {"path": str(folder.model), "revision": None}
    if earlier["model"]["lora"]:
        earlier["model"]["lora"].pop("continue", None)  # the saved model has its adapters merged
    if "name" in (content.get("method") or {}):
        earlier.pop("method")
    if REMOTE_CODE in (content.get("model") or {}):
        earlier["model"].pop(REMOTE_CODE)
    refuse_code(earlier, f"run {folder.run_id}", trust)
    merge(earlier, content, replaced=("params",))
    return {**earlier, "after": str(folder.root)}
