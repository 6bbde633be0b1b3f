"""Find the model that an evaluation names: a run, one of its checkpoints, a saved model or a hub id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from rlx.errors import UserError
from rlx.runs.folder import RunDir, find_run, read_json
from rlx.specs.evaluate import EvalSpec
from rlx.specs.identity import model_hash, stem
from rlx.specs.resolve_evaluate import ModelLocator
from rlx.specs.resolve_train import EMBEDDED_MODEL
from rlx.specs.train import Resolved
from rlx.specs.unlearn import ResolvedUnlearn

R = TypeVar("R", bound=Resolved | ResolvedUnlearn)


def locator(runs: Path) -> ModelLocator:
    """The ``locate`` argument of ``resolve_eval`` for the runs in this folder; a run may be given by its name alone."""

    def locate(spec: EvalSpec) -> tuple[dict[str, Any], bool]:
        location = _location(spec, runs)
        return location, _is_embedded(location)

    return locate


def with_existing_id(resolved: R, runs: Path) -> R:
    """The experiment under its earlier id if only that run exists: ids once covered the bytes of data files.

    Args:
        resolved: the experiment.
        runs: folder of all runs.
    """
    earlier = resolved.earlier_run_id
    if earlier and RunDir(runs / earlier).resolved.is_file() and not RunDir(runs / resolved.run_id).resolved.is_file():
        return cast(R, resolved.model_copy(update={"run_id": earlier}))
    return resolved


def _location(spec: EvalSpec, runs: Path) -> dict[str, Any]:
    """Where the model is stored and where its results go, as keys of ``ResolvedEval``."""
    run = find_run(spec.model, runs)
    if run is not None:
        return _of_run(run, spec.checkpoint)
    if spec.checkpoint != "final":
        raise UserError(
            f"checkpoint is '{spec.checkpoint}', but '{spec.model}' is not a run folder", fix="leave --checkpoint out"
        )
    path = EMBEDDED_MODEL if spec.model == "embedded" else Path(spec.model)
    if path.is_dir():
        if not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise UserError(
                f"model '{spec.model}' is neither a run folder nor a saved model", fix="give one, or a hub id"
            )
        fingerprint = model_hash(path).removeprefix("sha256:")[:10]
    elif path.suffix or spec.model.startswith((".", "/")) or spec.model.count("/") != 1:
        raise UserError(f"there is no model '{spec.model}'", fix="give a run folder, a model folder or a hub id")
    else:
        fingerprint = hashlib.sha256(f"{spec.model}@{spec.revision}".encode()).hexdigest()[:10]
    folder = runs / f"eval_{stem(spec.model)}-{fingerprint}"
    return {"folder": str(folder), "checkpoint": "final", "model_folder": str(path)}


def _of_run(run: RunDir, checkpoint: str) -> dict[str, Any]:
    """A run's trained model, or one of its checkpoints."""
    location = {"folder": str(run.root), "run_spec": str(run.resolved)}
    if checkpoint == "final":
        if not run.model.is_dir():
            raise UserError(
                f"run {run.run_id} has no final model yet", fix="finish it, or add --checkpoint best", exit_code=1
            )
        return {**location, "checkpoint": "final", "model_folder": str(run.model)}
    states = [file.parent for file in sorted(run.checkpoints.glob("step_*/state.json"))]
    choices = f"choices: final, best, {', '.join(str(int(state.name[5:])) for state in states) or 'no step yet'}"
    if checkpoint == "best":
        step = int(read_json(states[-1] / "state.json")["position"]["best_step"]) if states else -1
    elif checkpoint.isdecimal():
        step = int(checkpoint)
    else:
        raise UserError(f"checkpoint '{checkpoint}' is not one of run {run.run_id}", fix=choices)
    weights = run.checkpoint(step)
    if weights not in states:
        raise UserError(f"run {run.run_id} holds no checkpoint '{checkpoint}'", fix=choices)
    base = str(read_json(run.resolved)["model_folder"])
    return {**location, "checkpoint": weights.name, "model_folder": base, "weights": str(weights)}


def _is_embedded(location: Mapping[str, Any]) -> bool:
    """Whether the model is the embedded one, or trained from it."""
    if "run_spec" not in location:
        return str(location["model_folder"]) == str(EMBEDDED_MODEL)
    return bool(read_json(Path(location["run_spec"]))["spec"]["model"]["path"] == "embedded")
