"""The spec of a study: a base spec, the axes along which it varies, and how every run is measured."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from rlx.errors import UserError
from rlx.specs.reading import assign, copy_content
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

    content: Mapping[str, Any]
    """The run's spec."""
    label: str
    """Name of the run's method in the report; empty if the study sets no label."""


def variants(study: StudySpec) -> list[Variant]:
    """Return every combination of the axes; the last axis varies fastest.

    Raises:
        UserError: for an axis without values.
    """
    for key, values in study.axes.items():
        if not values:
            raise UserError(f"axes.{key} has no values", fix="give a list such as [0, 1, 2]")
    all_variants = []
    for combination in itertools.product(*study.axes.values()):
        content, labels = copy_content(study.base), []
        for axis, value in zip(study.axes, combination, strict=True):
            for key, setting in value.items() if isinstance(value, Mapping) else [(axis, value)]:
                if key == LABEL:
                    labels.append(str(setting))
                else:
                    assign(content, key, setting)
        all_variants.append(Variant(content, " ".join(labels)))
    return all_variants
