"""Unlearning spec to resolved experiment; shares its manners and its pieces with resolve.py."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlx.errors import UserError, did_you_mean
from rlx.registry import Component, get
from rlx.specs.engine_choice import choose_engine
from rlx.specs.identity import code_fingerprint, file_hash, model_fingerprints, run_id, run_label
from rlx.specs.reading import assign, validate
from rlx.specs.resolve_train import merge, method_params
from rlx.specs.unlearn import ResolvedUnlearn, UnlearnSpec

EMBEDDED = Path(__file__).parents[1] / "assets" / "minitofu"
EMBEDDED_DATA = "minitofu"
EMBEDDED_AGAINST = "grad_diff,npo"
"""Methods that the embedded run lays beside the one asked for."""
TOFU_SPLITS = ("forget01", "forget05", "forget10")
EMBEDDED_RECIPE: Mapping[str, Any] = {
    "epochs": 12,
    "optim.lr": 3e-4,
    "optim.warmup_updates": 5,
    "batch.retain": 32,
    "evaluation.max_new_tokens": 24,
    "evaluation.relearn_updates": 5,
}
"""What suits the embedded model better than the general defaults (which suit a 1B model)."""
GENERAL_RECIPE: Mapping[str, Any] = {"optim.lr": 1e-5, "optim.weight_decay": 0.01}
"""Learning rate and weight decay of the official PALU scripts (1-5e-5, .01)."""


def resolve_unlearn(content: Mapping[str, Any]) -> ResolvedUnlearn:
    """The resolved experiment of what a person wrote.

    Precedence, weakest first: the spec's defaults, what suits the model, the method's recipe, the person's own.

    Raises:
        UserError: for an unknown key or name, a wrong type, or keys that exclude each other.
    """
    asked = validate(content, UnlearnSpec)
    method = unlearn_method(asked)
    embedded = asked.model.path == "embedded"
    merged: dict[str, Any] = {}
    for recipe in (EMBEDDED_RECIPE if embedded else GENERAL_RECIPE, method.recipe):
        for key, value in recipe.items():
            assign(merged, key, value)
    merge(merged, asked.model_dump(mode="json", exclude_unset=True))
    name = asked.method.name
    if embedded and "embedded" in method.presets and "@" not in name:
        name = f"{name}@embedded"
    assign(merged, "method.params", method_params(name, asked.method.params, method, "method"))
    if asked.forget.source == "auto":
        assign(merged, "forget.source", _default_source(asked))
    if embedded and asked.evaluation.retain_model is None:
        assign(merged, "evaluation.retain_model", "embedded")
    choice = choose_engine(asked.evaluation.engine, str(_folder(asked.model.path, "target")))
    assign(merged, "evaluation.engine", choice.engine)
    spec = validate(merged, UnlearnSpec)
    _check(spec)
    return _identified(spec, choice.why)


def unlearn_method(spec: UnlearnSpec) -> Component:
    """The component of ``method.name``, the preset after ``@`` left out."""
    return get("unlearn", spec.method.name.partition("@")[0], key="method.name")


def is_tofu(source: str) -> bool:
    """Whether a source is one of TOFU's splits."""
    return source.startswith("tofu/")


def _default_source(asked: UnlearnSpec) -> str:
    if asked.model.path != "embedded":
        raise UserError(
            f"forget.source is not given, and model.path is '{asked.model.path}'",
            fix="add --forget with a .jsonl file of requests and --retain with what must stay, or --tofu forget05",
        )
    return EMBEDDED_DATA


def _check(spec: UnlearnSpec) -> None:
    """Refuse keys that exclude each other, and files that are not there."""
    source, retain = spec.forget.source, spec.forget.retain
    if is_tofu(source):
        split = source.removeprefix("tofu/")
        if split not in TOFU_SPLITS:
            raise UserError(f"forget.source is '{source}'", fix=did_you_mean(split, list(TOFU_SPLITS)))
    elif source == EMBEDDED_DATA:
        if spec.model.path != "embedded":
            raise UserError(
                f"forget.source is '{source}', which only the embedded model knows; model.path is '{spec.model.path}'",
                fix="add --forget with a .jsonl file of requests, or --tofu forget05",
            )
    else:
        for key, path in (("forget.source", source), ("forget.retain", retain)):
            if not Path(path).is_file():
                given = "is not given" if path == "auto" else f"is '{path}', and there is no such file"
                raise UserError(f"{key} {given}", fix="give a .jsonl file, one JSON object a line")
    if spec.method.reduction == "microbatch" and spec.batch.forget % spec.method.microbatch:
        raise UserError(
            f"batch.forget is {spec.batch.forget}, which method.microbatch={spec.method.microbatch} does not divide",
            fix="choose a divisor",
        )


def _identified(spec: UnlearnSpec, engine_reason: str) -> ResolvedUnlearn:
    """The spec with its fingerprints and run id; run name, tracker and sharding don't change the result."""
    target, retain = (_folder(path, name) for path, name in _models(spec))
    fingerprints = _fingerprints(spec) | model_fingerprints("model", str(target))
    if retain is not None:
        fingerprints |= model_fingerprints("retain_model", retain)
    label = run_label(spec.run_name, (spec.method.name, spec.model.path, spec.forget.source), spec.seed)
    exclude = {"run_name": True, "tracker": True, "sharding": True, "evaluation": {"memory_share"}}
    return ResolvedUnlearn(
        run_id=run_id(label, spec, exclude, fingerprints),
        spec=spec,
        model_folder=str(target),
        retain_folder=retain,
        fingerprints=fingerprints,
        engine_reason=engine_reason,
    )


def _fingerprints(spec: UnlearnSpec) -> dict[str, str]:
    """Content hashes of the local request files and of a method's own file."""
    fingerprints = {}
    for name, reference in (("forget", spec.forget.source), ("retain", spec.forget.retain)):
        if Path(reference).is_file():
            fingerprints[name] = file_hash(Path(reference))
    if is_tofu(spec.forget.source) and Path(spec.forget.tofu).is_dir():
        hashes = "".join(file_hash(file) for file in sorted(Path(spec.forget.tofu).glob("*.jsonl")))
        fingerprints["tofu"] = "sha256:" + hashlib.sha256(hashes.encode()).hexdigest()[:32]
    code = code_fingerprint(spec.method.name)
    if code is not None:
        fingerprints["method"] = code
    return fingerprints


def _models(spec: UnlearnSpec) -> tuple[tuple[str | None, str], tuple[str | None, str]]:
    return (spec.model.path, "target"), (spec.evaluation.retain_model, "retain")


def _folder(path: str | None, name: str) -> str | None:
    return str(EMBEDDED / name) if path == "embedded" else path
