"""An evaluation as asked for to one with nothing left open. Light: no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlx.errors import UserError
from rlx.registry import get
from rlx.specs.engine_choice import choose_engine
from rlx.specs.evaluate import PRESETS, EvalSpec, ResolvedEval
from rlx.specs.reading import assign, validate
from rlx.specs.resolve_train import EMBEDDED_DATA

Locate = Callable[[EvalSpec], tuple[dict[str, Any], bool]]
"""From a spec to the keys of ``ResolvedEval`` that say where its model and results are, and whether that model is the
embedded one or was trained from it."""


def resolve_eval(content: Mapping[str, Any], locate: Locate) -> ResolvedEval:
    """What ``content`` comes to.

    Args:
        content: keys of ``EvalSpec``.
        locate: finds the model; ``rlx.runs.locate.locator`` makes it.

    Raises:
        UserError: for an unknown key, benchmark or grader, or a model that is nowhere.
    """
    asked = validate(content, EvalSpec)
    place, embedded = locate(asked)
    merged = asked.model_dump(mode="json")
    if not asked.benchmarks:
        if not embedded:
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
