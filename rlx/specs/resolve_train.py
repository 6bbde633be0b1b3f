"""Resolution of a training spec into a complete experiment. Does not import torch, except with a method's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlx.errors import UserError
from rlx.files.sources import Source
from rlx.registry import Component
from rlx.specs.algorithm import check_algorithm
from rlx.specs.defaults import merge_recipes, method_component, method_params
from rlx.specs.engine_choice import EngineChoice, choose_engine
from rlx.specs.identity import code_fingerprints, data_fingerprints, earlier_fingerprints, model_fingerprints, run_id
from rlx.specs.reading import assign, refuse_credentials, validate
from rlx.specs.resolve_rewards import EMBEDDED_DATA as EMBEDDED_DATA
from rlx.specs.resolve_rewards import check_rewards, fill_rewards, reward_references
from rlx.specs.train import Resolved, Spec

EMBEDDED_MODEL = Path(__file__).parents[1] / "assets" / "arithmetic"
MIXTURE = "mixture"
"""``data.source`` of a run with ``data.sources``."""
EMBEDDED_RECIPE: Mapping[str, Any] = {"optim.lr": 1e-4, "rollout.max_new_tokens": 24, "data.max_prompt_tokens": 16}
"""Defaults for the embedded model, which differ from the general ones (those suit a 1B model)."""
NOT_IDENTIFYING: Mapping[str, Any] = {
    **dict.fromkeys(("run_name", "tracker", "sharding", "cluster"), True),
    "reward": {"workers": True},
}
"""Keys of the spec that do not affect the run's result and so are not part of its id."""


def resolve(content: Mapping[str, Any]) -> Resolved:
    """Return the complete experiment of a user's spec.

    Precedence, lowest first: the spec's defaults, the embedded task's recipe, the method's recipe, the user's keys.

    Args:
        content: keys of ``Spec``.

    Raises:
        UserError: for an unknown key or name, a wrong type, or keys that contradict each other.
    """
    refuse_credentials(content)
    user_spec = validate(content, Spec)
    method = policy_method(user_spec)
    embedded = user_spec.model.path == "embedded" and user_spec.data.source in ("auto", EMBEDDED_DATA)
    if user_spec.data.sources and user_spec.data.source not in ("auto", MIXTURE):
        raise UserError(
            f"data.source is '{user_spec.data.source}', and data.sources is given too", fix="remove one of them"
        )
    merged = merge_recipes([EMBEDDED_RECIPE if embedded else {}, method.recipe], user_spec)
    algorithm = user_spec.algorithm
    assign(merged, "algorithm.params", method_params(algorithm.name, algorithm.params, method, "algorithm"))
    if user_spec.data.source == "auto":
        assign(merged, "data.source", _default_source(user_spec))
    choice = choose_engine(user_spec.rollout.engine, model_folder(user_spec))
    if user_spec.backend == "verl":
        choice = EngineChoice("vllm", "verl samples with nothing else here")
    assign(merged, "rollout.engine", choice.engine)
    spec = validate(fill_rewards(merged, user_spec, merged["data"]["source"]), Spec)
    check_rewards(spec)
    check_algorithm(spec.algorithm)
    _check_required_keys(spec, method)
    _check_sampling(spec)
    _check_batch(spec)
    _check_embedded_data(spec)
    _check_sources(spec)
    sources = _sources(spec)
    fingerprints = _fingerprints(spec) | data_fingerprints(sources)
    name_parts = (spec.algorithm.name, spec.model.path, spec.data.source)
    identified = spec.model_copy(update={"algorithm": spec.algorithm.identified()})
    identity = run_id(identified, name_parts, NOT_IDENTIFYING, fingerprints)
    older = fingerprints | earlier_fingerprints(sources)
    earlier = identity if older == fingerprints else run_id(identified, name_parts, NOT_IDENTIFYING, older)
    return Resolved(
        run_id=identity,
        spec=spec,
        model_folder=model_folder(spec),
        fingerprints=fingerprints,
        total_updates=spec.steps * spec.batch.updates_per_rollout,
        sequences_per_update=spec.batch.prompts // spec.batch.updates_per_rollout * spec.rollout.samples_per_prompt,
        earlier_run_id="" if earlier == identity else earlier,
        engine_reason=choice.reason,
    )


def policy_method(spec: Spec) -> Component:
    """Return the component of ``algorithm.name``, without its preset."""
    return method_component("policy", spec.algorithm.name, "algorithm.name")


def model_folder(spec: Spec) -> str:
    """Return the folder or hub id that ``from_pretrained`` loads."""
    return str(EMBEDDED_MODEL) if spec.model.path == "embedded" else spec.model.path


def _sources(spec: Spec) -> dict[str, list[Source]]:
    """Return the sources of the training data and of the evaluation's own data."""
    parts = [Source(part.source, part.subset, part.split) for part in spec.data.parts()]
    evaluation = spec.evaluation
    sources = {"data": [part for part in parts if part.name != EMBEDDED_DATA]}
    if evaluation.source not in ("auto", EMBEDDED_DATA):
        sources["evaluation"] = [Source(evaluation.source, spec.data.subset, evaluation.split, key="evaluation.source")]
    return sources


def _check_sources(spec: Spec) -> None:
    """Refuse weights for some of the sources only."""
    without = [part.source for part in spec.data.sources if part.weight is None]
    if without and len(without) < len(spec.data.sources):
        raise UserError(f"data.sources: '{without[0]}' has no weight, but others have", fix="give all or none a weight")


def _default_source(user_spec: Spec) -> str:
    if user_spec.data.sources:
        return MIXTURE
    if user_spec.model.path != "embedded":
        raise UserError(
            f"data.source is not given, and model.path is '{user_spec.model.path}'",
            fix="add --data with a file, a folder saved by datasets or a hub data set",
        )
    return EMBEDDED_DATA


def _check_required_keys(spec: Spec, method: Component) -> None:
    """Refuse values of keys that are part of the method's definition if they differ from it."""
    content = spec.model_dump(mode="json")
    for key, required in method.requires.items():
        section, _, name = key.partition(".")
        if content[section][name] != required:
            raise UserError(
                f"{key} is {content[section][name]!r}, but {spec.algorithm.name} is defined with {required!r}",
                fix=f"set {key}={required} or leave it out",
            )


def _check_sampling(spec: Spec) -> None:
    """Refuse sampling settings with which the importance ratios or the advantages would be wrong."""
    rollout = spec.rollout
    exact = (("top_p", rollout.top_p, 1), ("top_k", rollout.top_k, 0), ("min_p", rollout.min_p, 0))
    for key, value, required in exact:
        if value != required:
            raise UserError(
                f"rollout.{key} is {value}, but training compares log-probs over the full vocabulary and a truncated "
                "sampler would bias every ratio by the mass it drops",
                fix=f"set rollout.{key}={required}",
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


def _check_batch(spec: Spec) -> None:
    """Refuse a rollout that cannot be split into equal updates, and a warm-up that is longer than the run."""
    batch, updates = spec.batch, spec.steps * spec.batch.updates_per_rollout
    if batch.prompts % batch.updates_per_rollout:
        divisors = [str(n) for n in range(1, batch.prompts + 1) if batch.prompts % n == 0]
        raise UserError(
            f"batch.prompts is {batch.prompts}, which is not divisible by "
            f"batch.updates_per_rollout={batch.updates_per_rollout}",
            fix=f"choices for updates_per_rollout: {', '.join(divisors)}",
        )
    if spec.optim.warmup_updates > updates:
        raise UserError(
            f"optim.warmup_updates is {spec.optim.warmup_updates}, more than the run's {updates} updates "
            "(steps * batch.updates_per_rollout)",
            fix="lower it",
        )


def _check_embedded_data(spec: Spec) -> None:
    """Refuse the embedded model with data that it was not built for."""
    if spec.model.path == "embedded" and spec.data.source != EMBEDDED_DATA:
        raise UserError(
            f"data.source is '{spec.data.source}', but the embedded model reads only its own {EMBEDDED_DATA} task",
            fix="add --model with a folder or a hub id",
        )


def _fingerprints(spec: Spec) -> dict[str, str]:
    """Return the content hashes of the model and of the user's code that the run reads."""
    return {
        **code_fingerprints({"algorithm": spec.algorithm.name, **reward_references(spec)}),
        **model_fingerprints("model", model_folder(spec)),
    }
