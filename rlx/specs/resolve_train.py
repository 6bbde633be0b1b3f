"""Spec to resolved experiment: the only place that fills defaults. Light: no torch unless a method's file is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlx.errors import UserError
from rlx.registry import Component, get
from rlx.specs.engine_choice import Choice, choose_engine
from rlx.specs.identity import code_fingerprint, file_hash, model_fingerprints, run_id, run_label
from rlx.specs.reading import assign, validate
from rlx.specs.train import Resolved, Spec

EMBEDDED_MODEL = Path(__file__).parents[1] / "assets" / "arithmetic"
EMBEDDED_DATA = "arithmetic"
EMBEDDED_RECIPE: Mapping[str, Any] = {"optim.lr": 1e-4, "rollout.max_new_tokens": 24, "data.max_prompt_tokens": 16}
"""What suits the embedded model better than the general defaults (which suit a 1B model)."""


def resolve(content: Mapping[str, Any]) -> Resolved:
    """The resolved experiment of what a person wrote.

    Precedence, weakest first: the spec's defaults, the embedded task's recipe, the method's recipe, the person's own.

    Raises:
        UserError: for an unknown key or name, a wrong type, or keys that exclude each other.
    """
    asked = validate(content, Spec)
    method = policy_method(asked)
    merged: dict[str, Any] = {}
    embedded = asked.model.path == "embedded" and asked.data.source in ("auto", EMBEDDED_DATA)
    for recipe in (EMBEDDED_RECIPE if embedded else {}, method.recipe):
        for key, value in recipe.items():
            assign(merged, key, value)
    merge(merged, asked.model_dump(mode="json", exclude_unset=True))
    assign(merged, "algorithm.params", method_params(asked.algorithm.name, asked.algorithm.params, method, "algorithm"))
    if asked.data.source == "auto":
        assign(merged, "data.source", _default_source(asked))
    choice = choose_engine(asked.rollout.engine, model_folder(asked))
    if asked.backend == "verl":
        choice = Choice("vllm", "verl samples with nothing else here")
    assign(merged, "rollout.engine", choice.engine)
    if asked.reward.name == "auto":
        assign(merged, "reward.name", EMBEDDED_DATA if merged["data"]["source"] == EMBEDDED_DATA else "boxed")
    spec = validate(merged, Spec)
    get("reward", spec.reward.name, key="reward.name")
    _check_required(spec, method)
    _check(spec)
    return _identified(spec, choice.why)


def policy_method(spec: Spec) -> Component:
    """The component of ``algorithm.name``, the preset after ``@`` left out."""
    return get("policy", spec.algorithm.name.partition("@")[0], key="algorithm.name")


def method_params(asked: str, given: Mapping[str, Any], method: Component, section: str) -> dict[str, Any]:
    """All of the method's parameters: its defaults, the preset's, the person's.

    Args:
        asked: the method's name as written, with its preset.
        given: the parameters as written.
        method: the component.
        section: the spec's section, for error sentences.
    """
    name, _, preset = asked.partition("@")
    if preset and preset not in method.presets:
        choices = ", ".join(f"{name}@{known}" for known in method.presets) or f"{name} (it has no presets)"
        raise UserError(f"{section}.name '{asked}' is not a known preset", fix=f"choices: {choices}")
    chosen = {**(method.presets[preset] if preset else {}), **given}
    hyper = validate(chosen, method.hyper, prefix=f"{section}.params")
    return hyper.model_dump(mode="json")


def _default_source(asked: Spec) -> str:
    if asked.model.path != "embedded":
        raise UserError(
            f"data.source is not given, and model.path is '{asked.model.path}'",
            fix="add --data with a .jsonl file, a .parquet file or a hub data set",
        )
    return EMBEDDED_DATA


def _check_required(spec: Spec, method: Component) -> None:
    """Refuse keys that would make the method another one."""
    written = spec.model_dump(mode="json")
    for key, needed in method.requires.items():
        section, _, name = key.partition(".")
        if written[section][name] != needed:
            raise UserError(
                f"{key} is {written[section][name]!r}, but {spec.algorithm.name} is another method without {needed!r}",
                fix=f"set {key}={needed} or leave it out",
            )


def _check(spec: Spec) -> None:
    """Refuse keys that exclude each other."""
    rollout, batch = spec.rollout, spec.batch
    for key, value, needed in (("top_p", rollout.top_p, 1), ("top_k", rollout.top_k, 0), ("min_p", rollout.min_p, 0)):
        if value != needed:
            raise UserError(
                f"rollout.{key} is {value}, but training compares log-probs over the full vocabulary and a truncated "
                "sampler would bias every ratio by the mass it drops",
                fix=f"set rollout.{key}={needed}",
            )
    if rollout.temperature == 0:
        raise UserError(
            "rollout.temperature is 0, but training needs samples that differ", fix="set a value such as 1.0"
        )
    if rollout.samples_per_prompt < 2:
        raise UserError(
            f"rollout.samples_per_prompt is {rollout.samples_per_prompt}, but advantage '{spec.advantage.name}' "
            "compares the samples of a group",
            fix="set it to 2 or more",
        )
    if batch.prompts % batch.updates_per_rollout:
        divisors = [str(n) for n in range(1, batch.prompts + 1) if batch.prompts % n == 0]
        raise UserError(
            f"batch.prompts is {batch.prompts}, which batch.updates_per_rollout={batch.updates_per_rollout} does not "
            "divide",
            fix=f"choices for updates_per_rollout: {', '.join(divisors)}",
        )
    if spec.optim.warmup_updates > spec.steps * batch.updates_per_rollout:
        raise UserError(
            f"optim.warmup_updates is {spec.optim.warmup_updates}, more than the run's "
            f"{spec.steps * batch.updates_per_rollout} updates (steps * batch.updates_per_rollout)",
            fix="lower it",
        )
    if spec.model.path == "embedded" and spec.data.source != EMBEDDED_DATA:
        raise UserError(
            f"data.source is '{spec.data.source}', but the embedded model reads only its own {EMBEDDED_DATA} task",
            fix="add --model with a folder or a hub id",
        )


def _identified(spec: Spec, engine_reason: str) -> Resolved:
    """The spec with its fingerprints and run id; run name, tracker, sharding and cluster don't change the result."""
    fingerprints = _fingerprints(spec)
    label = run_label(spec.run_name, (spec.algorithm.name, spec.model.path, spec.data.source), spec.seed)
    exclude = {"run_name": True, "tracker": True, "sharding": True, "cluster": True}
    return Resolved(
        run_id=run_id(label, spec, exclude, fingerprints),
        spec=spec,
        model_folder=model_folder(spec),
        fingerprints=fingerprints,
        total_updates=spec.steps * spec.batch.updates_per_rollout,
        sequences_per_update=spec.batch.prompts // spec.batch.updates_per_rollout * spec.rollout.samples_per_prompt,
        engine_reason=engine_reason,
    )


def model_folder(spec: Spec) -> str:
    """What ``from_pretrained`` is given: a folder or a hub id."""
    return str(EMBEDDED_MODEL) if spec.model.path == "embedded" else spec.model.path


def _fingerprints(spec: Spec) -> dict[str, str]:
    """Content hashes of the local files that the run reads."""
    fingerprints = {}
    for name, source in (("data", spec.data.source), ("evaluation", spec.evaluation.source)):
        if Path(source).is_file():
            fingerprints[name] = file_hash(Path(source))
    for name, reference in (("algorithm", spec.algorithm.name), ("reward", spec.reward.name)):
        code = code_fingerprint(reference)
        if code is not None:
            fingerprints[name] = code
    return fingerprints | model_fingerprints("model", model_folder(spec))


def merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Put ``other`` on top of ``into``, section by section."""
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value
