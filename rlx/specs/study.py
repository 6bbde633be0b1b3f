"""The spec of a study: a base spec, the axes along which it varies, and how every run is measured."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from rlx.errors import UserError, did_you_mean
from rlx.specs.reading import assign, copy_content, value_at
from rlx.specs.train import Section

LABEL = "label"
"""Key in an axis value that names the value in the report; every other key of the value is set in the spec."""


NOT_CONDITIONS = ("seed", "algorithm.name", "method.name")
"""Keys that an axis of ``conditions`` cannot set: methods are compared over seeds within each condition."""


class PublishedValue(Section):
    """A value that a paper reports, shown in grey next to ours."""

    method: str
    """Name of the method in the report."""
    benchmark: str
    value: float = Field(ge=0, le=1)
    """Fraction."""
    source: str
    """Paper and table that report it."""


class StudyCase(Section):
    """Settings of those combinations of the axes that have certain values, or the omission of these combinations.

    Example:
        ``StudyCase(match={"algorithm.name": "dgpo", "model.path": "m/1.5B"}, set={"algorithm.params.n": 2})``
    """

    match: dict[str, Any] = Field(min_length=1)
    """Dotted key of the spec to its value, or to a list of which it has one; all keys must match."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted key of the spec to the value that it gets in the matching combinations."""
    skip: bool = False
    """Whether the matching combinations are left out of the study."""


class StudySpec(Section):
    """One study."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Folder of its report."""
    baseline: str
    """Method that the others are tested against."""
    command: Literal["train", "unlearn"] = "train"
    """``train``: each run is ``rlx train`` and then ``rlx eval``; ``unlearn``: each run is ``rlx unlearn``, which
    includes its evaluation."""
    base: dict[str, Any] = Field(default_factory=dict)
    """Spec for the command that all runs share."""
    axes: dict[str, list[Any]] = Field(min_length=1)
    """Dotted key of the spec to its values; a value that is a mapping sets its own dotted keys and may have a
    ``label``. Every combination is one run."""
    conditions: list[str] = Field(default_factory=list)
    """Axes that are no method, such as ``optim.lr``: methods are compared under each of their combinations, and the
    report has a summary across them (docs/studies.md)."""
    cases: list[StudyCase] = Field(default_factory=list)
    """Settings that belong to some combinations only, such as a method's parameter for one model, and combinations
    that are left out; applied in their order."""
    evaluation: dict[str, Any] = Field(default_factory=dict)
    """Spec of the evaluation of each run of ``rlx train``, as for ``rlx eval``; ``model`` is the run."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Significance level of tests; intervals cover 1 - alpha."""
    cpus: float = Field(default=1, gt=0)
    """CPUs that each run reserves on a Ray cluster (``--launcher ray``)."""
    gpus: float = Field(default=0, ge=0)
    """GPUs that each run reserves; with a fraction several runs share a GPU."""
    published: list[PublishedValue] = Field(default_factory=list)
    """Values from papers."""


@dataclass(frozen=True, slots=True)
class ConditionAxis:
    """The values of one condition axis: ascending if all are numbers, else in the order of the study.

    Example:
        ``ConditionAxis("optim.lr", ("1e-4", "2e-4"))``
    """

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variant:
    """One combination of the axes.

    Example:
        ``Variant({"seed": 1, "algorithm": {"name": "dgpo"}}, label="", condition=("1e-4",))``
    """

    content: dict[str, Any]
    """The run's spec."""
    label: str
    """Name of the run's method in the report; empty if the study sets no label."""
    condition: tuple[str, ...] = ()
    """The text of the value of each condition axis, in the order of ``conditions``."""


def variants(study: StudySpec) -> list[Variant]:
    """Return every combination of the axes that no case skips; the last axis varies fastest.

    Raises:
        UserError: for an axis without values, a condition that is not an axis of its own, a case that does nothing or
            matches nothing, or if no run is left.
    """
    for key, values in study.axes.items():
        if not values:
            raise UserError(f"axes.{key} has no values", fix="give a list such as [0, 1, 2]")
    _check_conditions(study)
    all_variants = [_variant(study, values) for values in itertools.product(*study.axes.values())]
    for index, case in enumerate(study.cases):
        all_variants = _apply_case(all_variants, case, f"cases.{index}")
    if not all_variants:
        raise UserError(f"the cases of study {study.name} skip all of its runs", fix="remove one with skip: true")
    return all_variants


def _variant(study: StudySpec, combination: Sequence[Any]) -> Variant:
    """Return the run that has one value of each axis."""
    content, labels, condition = copy_content(study.base), [], {}
    for axis, value in zip(study.axes, combination, strict=True):
        if axis in study.conditions:
            condition[axis] = value_text(value)
        for key, setting in _settings(axis, value):
            if key != LABEL:
                assign(content, key, setting)
            elif axis not in study.conditions:
                labels.append(str(setting))
    return Variant(content, " ".join(labels), tuple(condition[axis] for axis in study.conditions))


def _apply_case(all_variants: Sequence[Variant], case: StudyCase, key: str) -> list[Variant]:
    """Return the variants with the settings of a case, or without those that it skips.

    Args:
        all_variants: the variants.
        case: the case.
        key: name of the case in errors.
    """
    if bool(case.set) == case.skip:
        raise UserError(f"{key} must have either set or skip: true", fix="give one of the two")
    matching = [variant for variant in all_variants if _matches(variant.content, case.match)]
    if not matching:
        raise UserError(f"{key} matches no run of the study", fix=_explain_mismatch(all_variants, case))
    if case.skip:
        return [variant for variant in all_variants if variant not in matching]
    for variant in matching:
        for name, value in case.set.items():
            assign(variant.content, name, value)
    return list(all_variants)


def _matches(content: Mapping[str, Any], match: Mapping[str, Any]) -> bool:
    """Return whether the spec has, for each key, the value or one of the list of values."""
    return all(
        value_at(content, key) in (value if isinstance(value, list) else [value]) for key, value in match.items()
    )


def _explain_mismatch(all_variants: Sequence[Variant], case: StudyCase) -> str:
    """Return the first key of a case that matches no run by itself, with the values that the runs have."""
    for key, value in case.match.items():
        values = list(dict.fromkeys(str(value_at(variant.content, key)) for variant in all_variants))
        if not any(_matches(variant.content, {key: value}) for variant in all_variants):
            return f"match.{key} is {value!r}; {did_you_mean(str(value), values)}"
    return "no run has all of these values together"


def condition_axes(study: StudySpec) -> tuple[ConditionAxis, ...]:
    """Return the condition axes with their values in order."""
    axes = []
    for key in study.conditions:
        texts = [value_text(value) for value in study.axes[key]]
        numbers = [numeric(text) for text in texts]
        if all(number is not None for number in numbers):
            texts = [text for _, text in sorted(zip(numbers, texts, strict=True))]
        axes.append(ConditionAxis(key, tuple(texts)))
    return tuple(axes)


def condition_keys(study: StudySpec) -> set[str]:
    """Return the dotted keys of the spec that the condition axes set."""
    return {key for axis in study.conditions for value in study.axes[axis] for key, _ in _settings(axis, value)} - {
        LABEL
    }


def value_text(value: Any) -> str:
    """Return the text of an axis value in the report: its label, else the settings of a mapping, else the value."""
    if isinstance(value, Mapping):
        return str(value[LABEL]) if LABEL in value else ", ".join(f"{k}={value_text(v)}" for k, v in value.items())
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)


def _settings(axis: str, value: Any) -> list[tuple[str, Any]]:
    """The keys that a value of an axis sets, with a label if it has one."""
    return list(value.items()) if isinstance(value, Mapping) else [(axis, value)]


def numeric(text: str) -> float | None:
    """Return the number that a text says, or None."""
    try:
        return float(text)
    except ValueError:
        return None


def _check_conditions(study: StudySpec) -> None:
    """Refuse conditions that are no axis, are given twice, vary the method or the seed, or overlap with other axes."""
    if len(set(study.conditions)) < len(study.conditions):
        raise UserError(f"conditions is {study.conditions}, which repeats an axis", fix="name each axis once")
    for axis in study.conditions:
        if axis not in study.axes:
            raise UserError(f"conditions has '{axis}', which is not an axis", fix=did_you_mean(axis, list(study.axes)))
        texts = [value_text(value) for value in study.axes[axis]]
        repeated = sorted({text for text in texts if texts.count(text) > 1})
        if repeated:
            raise UserError(
                f"axes.{axis} is a condition and has '{repeated[0]}' more than once",
                fix="give each value its own label",
            )
    own = condition_keys(study)
    compared = sorted(own & set(NOT_CONDITIONS))
    if compared:
        raise UserError(
            f"conditions has an axis that sets {compared[0]}, but a condition is neither the method nor the seed",
            fix="remove it from conditions",
        )
    others = [axis for axis in study.axes if axis not in study.conditions]
    for axis, key in ((a, key) for a in others for value in study.axes[a] for key, _ in _settings(a, value)):
        if any(f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.") for other in own):
            raise UserError(
                f"axes.{axis} sets {key}, which an axis of conditions sets too", fix="set it in one of the two"
            )
