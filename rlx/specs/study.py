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
class Variant:
    """One combination of the axes.

    Example:
        ``Variant({"seed": 1, "algorithm": {"name": "dgpo"}}, label="")``
    """

    content: dict[str, Any]
    """The run's spec."""
    label: str
    """Name of the run's method in the report; empty if the study sets no label."""


def variants(study: StudySpec) -> list[Variant]:
    """Return every combination of the axes that no case skips; the last axis varies fastest.

    Raises:
        UserError: for an axis without values, a case that does nothing or matches nothing, or if no run is left.
    """
    for key, values in study.axes.items():
        if not values:
            raise UserError(f"axes.{key} has no values", fix="give a list such as [0, 1, 2]")
    all_variants = [_variant(study, values) for values in itertools.product(*study.axes.values())]
    for index, case in enumerate(study.cases):
        all_variants = _apply_case(all_variants, case, f"cases.{index}")
    if not all_variants:
        raise UserError(f"the cases of study {study.name} skip all of its runs", fix="remove one with skip: true")
    return all_variants


def _variant(study: StudySpec, combination: Sequence[Any]) -> Variant:
    """Return the run that has one value of each axis."""
    content, labels = copy_content(study.base), []
    for axis, value in zip(study.axes, combination, strict=True):
        for key, setting in value.items() if isinstance(value, Mapping) else [(axis, value)]:
            if key == LABEL:
                labels.append(str(setting))
            else:
                assign(content, key, setting)
    return Variant(content, " ".join(labels))


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
