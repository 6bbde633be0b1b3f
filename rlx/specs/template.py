"""A commented spec to start from, as YAML text: one's own values, and other keys as comments with their defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel

from rlx.specs.mistakes import field_at
from rlx.specs.train import Spec
from rlx.specs.unlearn import UnlearnSpec

WIDTH = 100
"""Longest comment line (characters)."""
TRAIN_KEYS: Sequence[str] = (
    *("steps", "seed", "model.path", "model.lora", "data.source", "data.prompt", "data.answer", "data.answer_format"),
    *("data.system", "data.suffix", "reward.name", "algorithm.name", "rollout.samples_per_prompt"),
    *("rollout.max_new_tokens", "rollout.temperature", "optim.lr", "batch.prompts", "batch.updates_per_rollout"),
    *("evaluation.every", "checkpoint.every", "tracker.experiment"),
)
UNLEARN_KEYS: Sequence[str] = (
    *("epochs", "seed", "model.path", "forget.source", "forget.retain", "forget.spans", "forget.system"),
    *("method.name", "optim.lr", "batch.forget", "evaluation.utility_budget", "evaluation.retain_model"),
    *("evaluation.attacks", "checkpoint.every", "tracker.experiment"),
)
KEYS: Mapping[str, tuple[type[BaseModel], Sequence[str]]] = {
    "train": (Spec, TRAIN_KEYS),
    "unlearn": (UnlearnSpec, UNLEARN_KEYS),
}
"""The spec of each command, and its keys in the template."""


def spec_template(command: str, values: Mapping[str, Any], notes: Mapping[str, str]) -> str:
    """The spec of one run.

    Args:
        command: ``train`` or ``unlearn``.
        values: dotted keys to the user's values; other keys are comments with their defaults.
        notes: dotted keys to further comments, such as the columns of a file.
    """
    spec, keys = KEYS[command]
    lines = [
        f"# A spec for rlx {command}. Keys behind # have their defaults; remove the # to change them.",
        f"# All keys: rlx {command} --json-schema",
    ]
    section = ""
    for key in keys:
        head, dot, last = key.rpartition(".")
        if head != section:
            section = head
            active = any(other.startswith(f"{head}.") for other in values)
            lines += ["", f"{head}:" if active else f"# {head}:"]
        elif not dot:
            lines.append("")
        indent = "  " if dot else ""
        lines += _entry(spec, key, last, indent, values, notes)
    return "\n".join(lines) + "\n"


def study_template(command: str, name: str, values: Mapping[str, Any], benchmarks: Sequence[str]) -> str:
    """A study of two methods with three seeds each.

    Args:
        command: ``train`` or ``unlearn``.
        name: of the study.
        values: dotted keys to the user's values, which all runs share.
        benchmarks: of the evaluation of each run of ``rlx train``.
    """
    axis, methods = {"train": ("algorithm.name", ["grpo", "dgpo"]), "unlearn": ("method.name", ["npo", "palu"])}[
        command
    ]
    base: dict[str, Any] = {}
    for key, value in values.items():
        if key in ("seed", axis):
            continue
        head, dot, last = key.rpartition(".")
        (base.setdefault(head, {}) if dot else base)[last] = value
    lines = [
        f"# A study: rlx compare FILE starts rlx {command} for every combination of the axes and compares them.",
        "# rlx compare FILE --plan prints the runs without starting them.",
        f"name: {name}",
        f"command: {command}",
        "# The method that the others are tested against",
        f"baseline: {methods[0]}",
        "# Keys that all runs share, as in a spec of one run",
        yaml.safe_dump({"base": base}, sort_keys=False).rstrip(),
        "# Every combination is one run; the last axis varies fastest. More seeds show smaller differences.",
        "axes:",
        "  seed: [0, 1, 2]",
        f"  {axis}: [{', '.join(methods)}]",
    ]
    if command == "train":
        lines += [
            "# The evaluation of each trained model, as for rlx eval",
            "evaluation:",
            f"  benchmarks: [{', '.join(benchmarks)}]",
            "  n: 8",
        ]
    return "\n".join(lines) + "\n"


def _entry(
    spec: type[BaseModel], key: str, last: str, indent: str, values: Mapping[str, Any], notes: Mapping[str, str]
) -> list[str]:
    """A key with its meaning above it."""
    field = field_at(spec, key.split("."))
    if field is None:
        raise KeyError(key)
    meaning = _first_sentence(field.description or "")
    comments = [*_wrapped(meaning, indent), *_wrapped(notes.get(key, ""), indent)]
    if key in values:
        return [*comments, f"{indent}{last}: {_inline(values[key])}"]
    return [*comments, f"{indent}# {last}: {_inline(field.get_default(call_default_factory=True))}"]


def _inline(value: Any) -> str:
    """A value as YAML in one line."""
    content = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return yaml.safe_dump(content, default_flow_style=True, width=10**6).removesuffix("\n...\n").strip()


def _first_sentence(text: str) -> str:
    return " ".join(text.replace("``", "").split()).split(". ")[0].rstrip(".")


def _wrapped(text: str, indent: str) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(f"{indent}# {word}")
    return lines
