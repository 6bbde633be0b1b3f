"""An evaluation as asked for to one with nothing left open. Light: no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlx.errors import UserError
from rlx.eval_spec import PRESETS, EvalSpec, ResolvedEval
from rlx.registry import get
from rlx.resolve import EMBEDDED_DATA, EMBEDDED_MODEL, model_hash, stem
from rlx.rollout.choice import choose_engine
from rlx.rundir import RunDir, read_json
from rlx.spec_file import assign, validate


def resolve_eval(content: Mapping[str, Any], runs: Path) -> ResolvedEval:
    """What ``content`` comes to.

    Args:
        content: keys of ``EvalSpec``.
        runs: folder of all runs; a run may be named by its folder's name alone.

    Raises:
        UserError: for an unknown key, benchmark or grader, or a model that is nowhere.
    """
    asked = validate(content, EvalSpec)
    place = _placed(asked, runs)
    merged = asked.model_dump(mode="json")
    if not asked.benchmarks:
        if not _reads_only_embedded(place):
            raise UserError("no benchmark is named", fix="add --bench with names such as aime24,math500")
        assign(merged, "benchmarks", [EMBEDDED_DATA])
    for name in merged["benchmarks"]:
        get("benchmark", name, key="benchmark")
    if asked.grader != "auto":
        get("reward", asked.grader, key="grader")
    if asked.data_dir is not None and not Path(asked.data_dir).is_dir():
        raise UserError(f"--data-dir '{asked.data_dir}' is no folder", fix="give the folder of <benchmark>.jsonl files")
    preset = PRESETS[asked.preset]
    chosen = {key: preset[key] if merged[key] is None else merged[key] for key in preset}
    for key in preset:
        del merged[key]
    engine = choose_engine(asked.engine, str(place["model_folder"]))
    sampled_by = {"engine": engine.engine, "engine_reason": engine.why}
    return validate({"spec": merged, **chosen, **place, **sampled_by}, ResolvedEval)


def _placed(asked: EvalSpec, runs: Path) -> dict[str, Any]:
    """Where the model is and where its results go."""
    for root in (Path(asked.model), runs / asked.model):
        if RunDir(root).resolved.is_file():
            return _of_run(RunDir(root), asked.checkpoint)
    if asked.checkpoint != "final":
        raise UserError(
            f"checkpoint is '{asked.checkpoint}', but '{asked.model}' is no run folder", fix="leave --checkpoint out"
        )
    path = EMBEDDED_MODEL if asked.model == "embedded" else Path(asked.model)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(
                f"model '{asked.model}' is neither a run folder nor a saved model", fix="give one, or a hub id"
            )
        mark = model_hash(path).removeprefix("sha256:")[:10]
    elif path.suffix or asked.model.startswith((".", "/")) or asked.model.count("/") != 1:
        raise UserError(f"there is no model '{asked.model}'", fix="give a run folder, a model folder or a hub id")
    else:
        mark = hashlib.sha256(f"{asked.model}@{asked.revision}".encode()).hexdigest()[:10]
    folder = runs / f"eval_{stem(asked.model)}-{mark}"
    return {"folder": str(folder), "checkpoint": "final", "model_folder": str(path)}


def _of_run(run: RunDir, checkpoint: str) -> dict[str, Any]:
    """A run's trained model, or one of its checkpoints."""
    place = {"folder": str(run.root), "run_spec": str(run.resolved)}
    if checkpoint == "final":
        if not run.model.is_dir():
            raise UserError(
                f"run {run.run_id} has no final model yet", fix="finish it, or add --checkpoint best", exit_code=1
            )
        return {**place, "checkpoint": "final", "model_folder": str(run.model)}
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
    return {**place, "checkpoint": weights.name, "model_folder": base, "weights": str(weights)}


def _reads_only_embedded(place: Mapping[str, Any]) -> bool:
    """Whether the model is the embedded one, or trained from it."""
    if "run_spec" not in place:
        return str(place["model_folder"]) == str(EMBEDDED_MODEL)
    return bool(read_json(Path(place["run_spec"]))["spec"]["model"]["path"] == "embedded")
