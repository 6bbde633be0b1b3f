"""Shell completion: names of runs, methods, benchmarks and rewards, and keys of a spec. Does not import torch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel


def run_names(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the runs in the runs folder."""
    folder = Path(context.params.get("runs_dir") or os.environ.get("RLX_RUNS_DIR") or "runs")
    files = [*folder.glob("*/resolved.json"), *folder.glob("*/evaluated.json")]
    return _matching({file.parent.name for file in files}, incomplete)


def models(context: typer.Context, incomplete: str) -> list[str]:
    """The embedded model, runs, and folders with a saved model."""
    typed = Path(incomplete)
    parent = typed if incomplete.endswith("/") else typed.parent
    folders = [str(path.parent) for path in parent.glob("*/config.json")]
    return _matching(["embedded", *folders], incomplete) + run_names(context, incomplete)


def policy_losses(incomplete: str) -> list[str]:
    """Names of policy losses."""
    return _components("policy", incomplete)


def unlearning_methods(incomplete: str) -> list[str]:
    """Names of unlearning methods, the last of several separated by commas."""
    return _last_of_list("unlearn", incomplete)


def all_methods(incomplete: str) -> list[str]:
    """Names of policy losses and unlearning methods."""
    return [*_components("policy", incomplete), *_components("unlearn", incomplete)]


def benchmarks(incomplete: str) -> list[str]:
    """Names of benchmarks, the last of several separated by commas."""
    return _last_of_list("benchmark", incomplete)


def rewards(incomplete: str) -> list[str]:
    """Names of rewards."""
    return _components("reward", incomplete)


def spec_settings(context: typer.Context, incomplete: str) -> list[str]:
    """Keys of the command's spec with ``=`` behind them, and the choices of a key that has them."""
    from typing import Literal, get_args, get_origin

    from rlx.specs.evaluate import EvalSpec
    from rlx.specs.mistakes import dotted_keys, field_at, section_at
    from rlx.specs.train import Spec
    from rlx.specs.unlearn import UnlearnSpec

    specs: dict[str, type[BaseModel]] = {"train": Spec, "unlearn": UnlearnSpec, "eval": EvalSpec}
    spec = specs.get(context.info_name or "", Spec)
    key, equals, _ = incomplete.partition("=")
    if not equals:
        leaves = [name for name in dotted_keys(spec) if section_at(spec, name.split(".")) is None]
        return _matching([f"{name}=" for name in leaves], incomplete)
    field = field_at(spec, key.split("."))
    annotation = field.annotation if field is not None else None
    members = [annotation, *get_args(annotation)]
    choices = [str(value) for one in members if get_origin(one) is Literal for value in get_args(one)]
    if bool in members:
        choices += ["true", "false"]
    return _matching([f"{key}={choice}" for choice in choices], incomplete)


def _components(kind: str, incomplete: str) -> list[str]:
    from rlx.registry import names

    return _matching(names(kind), incomplete)


def _last_of_list(kind: str, incomplete: str) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _components(kind, last)]


def _matching(choices: Iterable[str], incomplete: str) -> list[str]:
    return sorted(choice for choice in choices if choice.startswith(incomplete))
