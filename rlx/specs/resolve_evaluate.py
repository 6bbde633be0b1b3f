"""Resolution of an evaluation spec into a complete evaluation. Does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlx.errors import UserError
from rlx.registry import get
from rlx.specs.engine_choice import choose_engine
from rlx.specs.evaluate import PRESETS, EvalSpec, ResolvedEval
from rlx.specs.reading import assign, refuse_credentials, validate
from rlx.specs.resolve_train import EMBEDDED_DATA

ModelLocator = Callable[[EvalSpec], tuple[dict[str, Any], bool]]
"""Maps a spec to the keys of ``ResolvedEval`` that locate its model and its results, and to whether that model is the
embedded one or was trained from it."""


def resolve_eval(content: Mapping[str, Any], locate: ModelLocator) -> ResolvedEval:
    """Return the complete evaluation of a user's spec.

    Args:
        content: keys of ``EvalSpec``.
        locate: finds the model; ``rlx.runs.locate.locator`` returns one.

    Raises:
        UserError: for an unknown key, benchmark or grader, or a model that does not exist.
    """
    refuse_credentials(content)
    user_spec = validate(content, EvalSpec)
    location, embedded = locate(user_spec)
    merged = user_spec.model_dump(mode="json")
    if user_spec.data is not None and not user_spec.data.source:
        raise UserError("data.source is not given, but other keys of data are", fix="add --data FILE")
    if not user_spec.benchmarks and user_spec.data is None:
        if not embedded:
            raise UserError(
                "no benchmark is given",
                fix="add --bench with names such as aime24,math500, or --data with a file of questions",
            )
        assign(merged, "benchmarks", [EMBEDDED_DATA])
    for name in merged["benchmarks"]:
        get("benchmark", name, key="benchmark")
    if user_spec.grader != "auto":
        get("reward", user_spec.grader, key="grader")
    if user_spec.data_dir is not None and not Path(user_spec.data_dir).is_dir():
        raise UserError(
            f"--data-dir '{user_spec.data_dir}' is not a folder", fix="give the folder of <benchmark>.jsonl files"
        )
    preset = PRESETS[user_spec.preset]
    sampling = {key: preset[key] if merged[key] is None else merged[key] for key in preset}
    for key in preset:
        del merged[key]
    choice = choose_engine(user_spec.engine, str(location["model_folder"]))
    engine = {"engine": choice.engine, "engine_reason": choice.reason}
    return validate({"spec": merged, **sampling, **location, **engine}, ResolvedEval)
