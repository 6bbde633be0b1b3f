"""Random valid specs: any key of the schema may be set, to a value within its bounds that suits a tiny model."""

from __future__ import annotations

import random
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types as bounds
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rlx.registry import get, names
from rlx.specs.evaluate import EvalSpec
from rlx.specs.train import Spec
from rlx.specs.unlearn import UnlearnSpec

ASSETS = Path(__file__).parents[2] / "rlx" / "assets"
SPECS: dict[str, type[BaseModel]] = {"train": Spec, "unlearn": UnlearnSpec, "eval": EvalSpec}
SHARE = 0.3
"""Probability that a key is set."""
Choices = Mapping[str, list[Any]]
SHARED: Choices = {
    "run_name": [None, "sweep", "a.b-c_1"],
    "model.revision": [None],
    "model.trust_remote_code": [False],
    "model.router_aux_coef": [0.0],
    "model.lora.rank": [1, 2, 8],
    "model.lora.target_modules": ["all-linear", ["q_proj"], ["q_proj", "down_proj"]],
    "model.lora.continue": [False],
    "sharding.mode": ["auto", "none"],
    "sharding.offload": [False],
    "tracker.mlflow": [False],
    "tracker.experiment": ["rlx", "sweep"],
    "optim.lr": [1e-6, 1e-4, 3e-4],
    "optim.betas": [[0.9, 0.95], [0.0, 0.5], [0.9, 0.999]],
    "optim.eps": [1e-8, 1e-5],
    "optim.warmup_updates": [0, 1, 2],
}
"""Keys of `rlx train` and `rlx unlearn` whose values cannot be drawn from their types, or would make a draw large."""
TRAIN: Choices = SHARED | {
    "steps": [1, 2, 3],
    "backend": ["local"],
    "model.path": ["embedded"],
    "algorithm.importance_cap": [None, 1.0, 2.0],
    "data.source": ["auto", "arithmetic"],
    "data.sources": [[]],
    "data.subset": [None],
    "data.split": ["train"],
    "data.prompt": ["prompt"],
    "data.answer": ["answer"],
    "data.system": [None, "1+1=2"],
    "data.system_column": [None],
    "data.suffix": ["", "="],
    "data.chat_kwargs": [{}, {"enable_thinking": False}],
    "data.max_prompt_tokens": [16, 64],
    "data.limit": [None, 40, 100],
    "rollout.engine": ["auto", "hf"],
    "rollout.samples_per_prompt": [2, 3, 4],
    "rollout.temperature": [0.5, 1.0, 1.5],
    "rollout.top_p": [1.0],
    "rollout.top_k": [0],
    "rollout.min_p": [0.0],
    "rollout.max_new_tokens": [1, 8, 24],
    "rollout.dynamic_tries": [1, 2],
    "reward.name": ["auto", *names("reward")],
    "reward.workers": [0, 0, 0, 1],
    "reward.timeout": [5.0, 60.0],
    "rewards": [[], [], [{"name": "arithmetic", "weight": 1.0}, {"name": "integer", "weight": 0.5}]],
    "batch.prompts": [4, 6, 8],
    "batch.updates_per_rollout": [1, 2],
    "batch.max_tokens": [1, 100, 16384],
    "cluster.tensor_parallel": [1],
    "cluster.ray_address": [None],
    "evaluation.source": ["auto", "arithmetic"],
    "evaluation.split": ["test"],
    "evaluation.limit": [1, 3, 8],
    "tracker.sample_prompts": [0, 1, 50],
}
UNLEARN: Choices = SHARED | {
    "epochs": [1, 2],
    "after": [None],
    "model.path": ["embedded"],
    "forget.source": ["auto", "minitofu"],
    "forget.retain": ["auto"],
    "forget.tofu": ["locuslab/TOFU"],
    "forget.system": [None, "Answer."],
    "forget.suffix": ["", " "],
    "forget.chat_kwargs": [{}, {"enable_thinking": False}],
    "forget.max_tokens": [128, 512],
    "batch.forget": [4, 8, 40],
    "batch.retain": [None, 1, 3, 8, 32],
    "batch.max_tokens": [1, 300, 8192],
    "method.microbatch": [1, 2, 4, 8],
    "evaluation.limit": [1, 5],
    "evaluation.max_new_tokens": [1, 6],
    "evaluation.engine": ["auto", "hf"],
    "evaluation.retain_model": [None, "embedded"],
    "evaluation.relearn_requests": [1, 10],
    "evaluation.relearn_updates": [1, 2],
    "evaluation.strengths.relearn_percent": [[], [1, 50]],
    "evaluation.strengths.prefix_tokens": [[], [1, 5]],
    "tracker.sample_prompts": [0, 2],
}
EVAL: Choices = {
    "model": ["embedded"],
    "revision": [None],
    "trust_remote_code": [False],
    "checkpoint": ["final"],
    "benchmarks": [[], ["arithmetic"]],
    "data": [None],
    "data_dir": [None],
    "n": [1, 2, 3],
    "temperature": [None, 0, 0.7, 1.0, 2.0],
    "top_p": [None, 0.1, 0.9, 1.0],
    "top_k": [0, 1, 5],
    "max_new_tokens": [1, 8, 24],
    "limit": [1, 3, 5],
    "grader": ["auto", *names("reward")],
    "prompt": [None, "{problem}", "{problem}{problem}"],
    "system": [None, "1+1=2"],
    "chat_kwargs": [{}, {"enable_thinking": False}],
    "engine": ["auto", "hf"],
    "tensor_parallel": [1],
    "batch": [1, 3, 32],
    "mlflow": [False],
}
CHOICES: Mapping[str, Choices] = {"train": TRAIN, "unlearn": UNLEARN, "eval": EVAL}
ALWAYS: Mapping[str, tuple[str, ...]] = {
    "train": ("steps", "batch.prompts", "batch.updates_per_rollout", "rollout.samples_per_prompt", "evaluation.limit",
              "tracker.mlflow"),
    "unlearn": ("epochs", "evaluation.limit", "evaluation.max_new_tokens", "evaluation.relearn_updates",
                "evaluation.attacks", "tracker.mlflow"),
    "eval": ("model", "n", "limit", "max_new_tokens", "mlflow"),
}  # fmt: skip
"""Keys that are always set, because their defaults would make a draw large."""


def draw(command: str, seed: int) -> dict[str, Any]:
    """The content of a random spec of ``rlx COMMAND``, which may still contradict itself."""
    chance = random.Random(f"{command} {seed}")
    content: dict[str, Any] = _section(SPECS[command], "", command, chance)
    if command != "eval":
        _add_method(content, command, chance)
    return content


def drawn_keys(command: str) -> set[str]:
    """Every key of the spec that draws may set, as a dotted key."""
    return set(_keys(SPECS[command], "", CHOICES[command]))


def _keys(model: type[BaseModel], prefix: str, choices: Choices) -> list[str]:
    result = []
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        section = None if key in choices else _section_type(field.annotation)
        result += _keys(section, f"{key}.", choices) if section else [key]
    return result


def _section(model: type[BaseModel], prefix: str, command: str, chance: random.Random) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        section, choices = _section_type(field.annotation), CHOICES[command]
        if section is not None and key not in choices:
            optional = type(None) in get_args(field.annotation)
            if not optional or chance.random() < SHARE:
                inner = _section(section, f"{key}.", command, chance)
                content |= {field.alias or name: inner} if inner or optional else {}
        elif key not in ("algorithm.name", "algorithm.params", "method.name", "method.params") and (
            key in ALWAYS[command] or chance.random() < SHARE
        ):
            value = chance.choice(choices[key]) if key in choices else _value(field.annotation, field, chance)
            content[field.alias or name] = value
    return content


def _add_method(content: dict[str, Any], command: str, chance: random.Random) -> None:
    """Set the method, one of its presets, and some of its parameters."""
    kind, section = ("policy", "algorithm") if command == "train" else ("unlearn", "method")
    name = chance.choice(names(kind))
    component = get(kind, name)
    params = {
        key: _value(field.annotation, field, chance)
        for key, field in component.hyper.model_fields.items()
        if chance.random() < SHARE / 2
    }
    preset = chance.choice(["", "", *component.presets])
    reference = f"{name}@{preset}" if preset else name
    content[section] = {**content.get(section, {}), "name": reference, "params": params}


def _section_type(annotation: Any) -> type[BaseModel] | None:
    """The section that a field is, optional or not."""
    for candidate in (annotation, *(get_args(annotation) if _is_union(annotation) else ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _value(annotation: Any, field: FieldInfo, chance: random.Random) -> Any:
    """A value of the type within the field's bounds.

    Raises:
        TypeError: for a type that has no random value; then the key needs an entry in ``CHOICES``.
    """
    if _is_union(annotation):
        return _value(chance.choice(get_args(annotation)), field, chance)
    if get_origin(annotation) is Literal:
        return chance.choice(get_args(annotation))
    if get_origin(annotation) is list and get_origin(get_args(annotation)[0]) is Literal:
        choices = get_args(typing.get_args(annotation)[0])
        return chance.sample(choices, chance.randint(0, len(choices)))
    if annotation is type(None):
        return None
    if annotation is bool:
        return chance.choice([True, False])
    if annotation in (int, float):
        return _number(annotation, field, chance)
    raise TypeError(f"no random value of {annotation}")


def _number(kind: type, field: FieldInfo, chance: random.Random) -> float:
    """A number within the field's bounds: an end of its range, its default, or one of a few sizes."""
    limits = {type(limit): limit for limit in field.metadata}

    def allowed(value: float) -> bool:
        return (
            (bounds.Ge not in limits or value >= limits[bounds.Ge].ge)
            and (bounds.Gt not in limits or value > limits[bounds.Gt].gt)
            and (bounds.Le not in limits or value <= limits[bounds.Le].le)
            and (bounds.Lt not in limits or value < limits[bounds.Lt].lt)
        )

    sizes = [0, 1, 2, 3, 5, 8] if kind is int else [0.0, 1e-3, 0.1, 0.2, 0.5, 0.9, 1.0, 1.5, 3.0, 10.0]
    return chance.choice([kind(size) for size in sizes if allowed(size)])
