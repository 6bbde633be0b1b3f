"""Selection, order and differences of runs, for `rlx runs`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from rlx.errors import UserError, did_you_mean
from rlx.runs.folder import RunDir, read_json
from rlx.runs.mlflow_settings import flattened
from rlx.runs.status import RunStatus
from rlx.specs.reading import value_at

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
CONDITION = re.compile(r"^(?P<key>[^<>=!]+)(?P<sign><=|>=|!=|=|<|>)(?P<value>.*)$")


def select_runs(statuses: Sequence[RunStatus], conditions: Sequence[str]) -> list[RunStatus]:
    """The runs that meet all conditions.

    Args:
        statuses: the runs.
        conditions: ``KEY=VALUE``, or with ``!=``, ``<``, ``<=``, ``>``, ``>=``; a value of ``=`` may contain ``*``.

    Raises:
        UserError: for a condition that cannot be read, or a key that no run has.
    """
    selected = list(statuses)
    for condition in conditions:
        match = CONDITION.match(condition)
        if match is None:
            raise UserError(f"--where '{condition}' is not a condition", fix="write it as algo=dgpo or reward>0.5")
        key, value = match["key"].strip(), match["value"].strip()
        _check_key(key, statuses, "--where")
        selected = [status for status in selected if _holds(lookup(status, key), match["sign"], value)]
    return selected


def sort_runs(statuses: Sequence[RunStatus], key: str | None) -> list[RunStatus]:
    """The runs in the order of a key, the largest number first, those without it last; without a key the newest first.

    Raises:
        UserError: for a key that no run has.
    """
    if key is None:
        return sorted(statuses, key=lambda status: -status.changed)
    _check_key(key, statuses, "--sort")

    def rank(status: RunStatus) -> tuple[int, float, str]:
        value = lookup(status, key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return (0, -float(value), "")
        return (2, 0.0, "") if value is None or value == "" else (1, 0.0, str(value))

    return sorted(statuses, key=rank)


def lookup(status: RunStatus, key: str) -> Any:
    """A run's value of a short name such as ``algo``, a dotted key of its spec, or a metric; None if it has none."""
    values = status.values()
    if key in values:
        return values[key]
    value = value_at(status.spec, key)
    return value if value is not None else status.metrics.get(key)


def _check_key(key: str, statuses: Sequence[RunStatus], option: str) -> None:
    if not statuses or any(lookup(status, key) is not None for status in statuses):
        return
    choices: dict[str, None] = {}
    for status in statuses:
        choices |= dict.fromkeys([*status.values(), *flattened(status.spec), *status.metrics])
    if key in choices:  # a key of the spec that is null in every run
        return
    near = did_you_mean(key, list(choices)).partition("? ")
    question = f"{near[0]}? " if near[1] else ""
    short = "name, state, algo, model, data, seed, step, age, size, reward"
    raise UserError(
        f"{option} names '{key}', which no run has", fix=f"{question}choices: {short}, a key of the spec, a metric"
    )


def _holds(actual: Any, sign: str, value: str) -> bool:
    if actual is None:
        return sign == "!="
    try:
        return OPERATORS[sign](float(actual), float(value))
    except (TypeError, ValueError):
        pass
    text = str(actual).lower() if isinstance(actual, bool) else str(actual)
    if sign in ("=", "!="):
        return fnmatchcase(text, value) == (sign == "=")
    return OPERATORS[sign](text, value)


def differences(first: RunDir, second: RunDir) -> list[tuple[str, str, str]]:
    """Keys with other values in two runs, each with both values: the spec, fingerprints of files, and versions.

    A key that one of them does not have gets an empty value.
    """
    contents = [_facts(folder) for folder in (first, second)]
    keys = dict.fromkeys([*contents[0], *contents[1]])
    pairs = [(key, contents[0].get(key, ""), contents[1].get(key, "")) for key in keys]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _facts(folder: RunDir) -> dict[str, str]:
    resolved = read_json(folder.resolved) if folder.resolved.exists() else read_json(folder.evaluated)
    own = ("spec", "run_id", "earlier_run_id", "engine_reason")
    outside = {key: value for key, value in resolved.items() if key not in own}
    return flattened(resolved.get("spec", {})) | flattened(outside)


def unit_values(values: Sequence[float]) -> list[float]:
    """Finite values for a sparkline: unchanged if all are within [0, 1], else scaled to it."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite or 0 <= min(finite) <= max(finite) <= 1:
        return finite
    low, width = min(finite), (max(finite) - min(finite)) or 1.0
    return [(value - low) / width for value in finite]
