"""Resolution of an unlearning spec into a complete experiment. Does not import torch, except with a method's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlx.errors import UserError, did_you_mean
from rlx.files.formats import FORMATS
from rlx.files.sources import Source, local_files
from rlx.registry import Component
from rlx.specs.defaults import merge_recipes, method_component, method_params
from rlx.specs.engine_choice import choose_engine
from rlx.specs.identity import (
    code_fingerprints,
    data_fingerprints,
    earlier_fingerprints,
    file_hash,
    hash_lines,
    model_fingerprints,
    run_id,
)
from rlx.specs.reading import assign, refuse_credentials, validate
from rlx.specs.unlearn import ResolvedUnlearn, UnlearnSpec

EMBEDDED_MODELS = Path(__file__).parents[1] / "assets" / "minitofu"
"""Folder of the embedded models: ``target``, which knows the forget set, and ``retain``, which never saw it."""
EMBEDDED_DATA = "minitofu"
GENERAL_FACTS = Path(__file__).parents[1] / "assets" / "general_facts.jsonl"
"""Questions that are retained and measured with one's own requests if ``forget.retain`` is not given."""
EMBEDDED_COMPARISONS = "grad_diff,npo"
"""Methods that the embedded model is unlearned with for comparison, in addition to the default one."""
TOFU_SPLITS = ("forget01", "forget05", "forget10")
EMBEDDED_RECIPE: Mapping[str, Any] = {
    "epochs": 12,
    "optim.lr": 3e-4,
    "optim.warmup_updates": 5,
    "batch.retain": 32,
    "evaluation.max_new_tokens": 24,
    "evaluation.relearn_updates": 5,
}
"""Defaults for the embedded model, which differ from the general ones (those suit a 1B model)."""
GENERAL_RECIPE: Mapping[str, Any] = {"optim.lr": 1e-5, "optim.weight_decay": 0.01}
"""Learning rate and weight decay of the official PALU scripts (1-5e-5, .01)."""
NOT_IDENTIFYING: Mapping[str, Any] = {
    "run_name": True,
    "tracker": True,
    "sharding": True,
    "evaluation": {"memory_share"},
}
"""Keys of the spec that do not affect the run's result and so are not part of its id."""


def resolve_unlearn(content: Mapping[str, Any]) -> ResolvedUnlearn:
    """Return the complete experiment of a user's spec.

    Precedence, lowest first: the spec's defaults, the recipe for the model, the method's recipe, the user's keys.

    Args:
        content: keys of ``UnlearnSpec``.

    Raises:
        UserError: for an unknown key or name, a wrong type, or keys that contradict each other.
    """
    refuse_credentials(content)
    user_spec = validate(content, UnlearnSpec)
    method = unlearn_method(user_spec)
    embedded = user_spec.model.path == "embedded"
    merged = merge_recipes([EMBEDDED_RECIPE if embedded else GENERAL_RECIPE, method.recipe], user_spec)
    reference = user_spec.method.name
    if embedded and "embedded" in method.presets and "@" not in reference:
        reference = f"{reference}@embedded"
    assign(merged, "method.params", method_params(reference, user_spec.method.params, method, "method"))
    if user_spec.forget.source == "auto":
        assign(merged, "forget.source", _default_source(user_spec))
    if embedded and user_spec.evaluation.retain_model is None:
        assign(merged, "evaluation.retain_model", "embedded")
    choice = choose_engine(user_spec.evaluation.engine, _model_folder(user_spec.model.path, "target"))
    assign(merged, "evaluation.engine", choice.engine)
    spec = validate(merged, UnlearnSpec)
    _check_sources(spec)
    _check_batch(spec)
    model_folder = _model_folder(spec.model.path, "target")
    retain_model = spec.evaluation.retain_model
    retain_folder = None if retain_model is None else _model_folder(retain_model, "retain")
    sources = _sources(spec)
    fingerprints = _fingerprints(spec, model_folder, retain_folder) | data_fingerprints(sources)
    name_parts = (spec.method.name, spec.model.path, spec.forget.source)
    identity = run_id(spec, name_parts, NOT_IDENTIFYING, fingerprints)
    earlier = run_id(spec, name_parts, NOT_IDENTIFYING, fingerprints | earlier_fingerprints(sources))
    return ResolvedUnlearn(
        run_id=identity,
        spec=spec,
        model_folder=model_folder,
        retain_folder=retain_folder,
        fingerprints=fingerprints,
        earlier_run_id="" if earlier == identity else earlier,
        engine_reason=choice.reason,
    )


def unlearn_method(spec: UnlearnSpec) -> Component:
    """Return the component of ``method.name``, without its preset."""
    return method_component("unlearn", spec.method.name, "method.name")


def is_tofu(source: str) -> bool:
    """Return whether a forget source is a split of TOFU."""
    return source.startswith("tofu/")


def _model_folder(path: str, embedded_name: str) -> str:
    """Return the folder or hub id that ``from_pretrained`` loads.

    Args:
        path: a folder, a hub id, or ``embedded``.
        embedded_name: which of the embedded models to use, ``target`` or ``retain``.
    """
    return str(EMBEDDED_MODELS / embedded_name) if path == "embedded" else path


def _default_source(user_spec: UnlearnSpec) -> str:
    if user_spec.model.path != "embedded":
        raise UserError(
            f"forget.source is not given, and model.path is '{user_spec.model.path}'",
            fix="add --forget with a file of requests (and --retain with what to keep), or --tofu forget05",
        )
    return EMBEDDED_DATA


def _check_sources(spec: UnlearnSpec) -> None:
    """Refuse an unknown TOFU split, the embedded data with another model, and files that do not exist."""
    if spec.after is not None and not Path(spec.model.path).is_relative_to(spec.after):
        raise UserError(
            f"after is '{spec.after}', but model.path is '{spec.model.path}', which is not in it",
            fix="use rlx unlearn --after RUN, or leave after out",
        )
    source, retain = spec.forget.source, spec.forget.retain
    if is_tofu(source):
        split = source.removeprefix("tofu/")
        if split not in TOFU_SPLITS:
            raise UserError(f"forget.source is '{source}'", fix=did_you_mean(split, list(TOFU_SPLITS)))
    elif source == EMBEDDED_DATA:
        if spec.model.path != "embedded":
            raise UserError(
                f"forget.source is '{source}', which only the embedded model knows, but model.path is "
                f"'{spec.model.path}'",
                fix="add --forget with a file of requests, or --tofu forget05",
            )
    else:
        for key, path in (("forget.source", source), ("forget.retain", retain)):
            if path != "auto" and local_files(Source(path, key=key)) is None:
                raise UserError(
                    f"{key} is '{path}', and there is no such file",
                    fix=f"give a file with one request a row ({FORMATS})",
                )


def _sources(spec: UnlearnSpec) -> dict[str, list[Source]]:
    """Return the sources of the user's own requests; none for TOFU and the embedded data."""
    if is_tofu(spec.forget.source) or spec.forget.source == EMBEDDED_DATA:
        return {}
    return {
        "forget": [Source(spec.forget.source, key="forget.source")],
        "retain": [
            Source(str(GENERAL_FACTS) if spec.forget.retain == "auto" else spec.forget.retain, key="forget.retain")
        ],
    }


def _check_batch(spec: UnlearnSpec) -> None:
    """Refuse updates that cannot be split into equal micro-batches."""
    forget, microbatch = spec.batch.forget, spec.method.microbatch
    if spec.method.reduction == "microbatch" and forget % microbatch:
        raise UserError(
            f"batch.forget is {forget}, which is not divisible by method.microbatch={microbatch}",
            fix=f"set method.microbatch to a divisor of {forget}",
        )
    retain = spec.batch.retain or forget
    if spec.method.reduction == "microbatch" and retain < forget // microbatch:
        raise UserError(
            f"batch.retain is {retain}, but an update has {forget // microbatch} micro-batches (batch.forget={forget}, "
            f"method.microbatch={microbatch}), each of which needs a retain sequence",
            fix=f"set batch.retain to {forget // microbatch} or more",
        )


def _fingerprints(spec: UnlearnSpec, model_folder: str, retain_folder: str | None) -> dict[str, str]:
    """Return the content hashes of the models, of the user's code and of TOFU's files."""
    fingerprints = {}
    if is_tofu(spec.forget.source) and Path(spec.forget.tofu).is_dir():
        files = sorted(Path(spec.forget.tofu).glob("*.jsonl"))
        fingerprints["tofu"] = hash_lines([file_hash(file) for file in files], separator="")
    fingerprints |= code_fingerprints({"method": spec.method.name}) | model_fingerprints("model", model_folder)
    if retain_folder is not None:
        fingerprints |= model_fingerprints("retain_model", retain_folder)
    return fingerprints
