"""What a person writes to ask for a study: one base spec, the axes along which it varies, and how all are measured."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from rlx.errors import UserError
from rlx.specs.reading import assign, with_sets
from rlx.specs.train import Section

LABEL = "label"
"""Key of an axis's value that names it in the report; every other key of the value is set in the spec."""


class PublishedFigure(Section):
    """A figure that a paper prints, shown in grey beside ours."""

    method: str
    """As the report names it."""
    benchmark: str
    value: float = Field(ge=0, le=1)
    """Fraction."""
    source: str
    """Where it is printed."""


class StudySpec(Section):
    """One study."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Folder of its report."""
    baseline: str
    """The method that the others are tested against."""
    command: Literal["train", "unlearn"] = "train"
    """What each run is: ``rlx train`` with an evaluation by ``rlx eval``, or ``rlx unlearn``, which measures itself."""
    base: dict[str, Any] = Field(default_factory=dict)
    """Spec that all runs share, as for the command."""
    axes: dict[str, list[Any]] = Field(min_length=1)
    """Dotted key of the spec to its values; a value that is a mapping sets its own dotted keys and may have a
    ``label``. Every combination is one run."""
    evaluation: dict[str, Any] = Field(default_factory=dict)
    """How each run of ``rlx train`` is measured, as for ``rlx eval``; ``model`` is the run."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Level of tests and intervals."""
    cpus: float = Field(default=1, gt=0)
    """What each run asks of a Ray cluster (``--launcher ray``)."""
    gpus: float = Field(default=0, ge=0)
    """The same; a fraction shares a GPU among runs."""
    published: list[PublishedFigure] = Field(default_factory=list)
    """Papers' figures."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One combination of the axes.

    Example:
        ``Variant({"seed": 1, "algorithm": {"name": "dgpo"}}, label="")``
    """

    content: Mapping[str, Any]
    """The run's spec."""
    label: str
    """What the report calls it; empty when the study names no label."""


def variants(study: StudySpec) -> list[Variant]:
    """Every combination of the axes, the last axis running fastest.

    Raises:
        UserError: for an axis without values.
    """
    for key, values in study.axes.items():
        if not values:
            raise UserError(f"axes.{key} has no values", fix="give a list such as [0, 1, 2]")
    made = []
    for chosen in itertools.product(*study.axes.values()):
        content, labels = with_sets(study.base, []), []
        for key, value in zip(study.axes, chosen, strict=True):
            for name, each in value.items() if isinstance(value, Mapping) else [(key, value)]:
                if name == LABEL:
                    labels.append(str(each))
                else:
                    assign(content, name, each)
        made.append(Variant(content, " ".join(labels)))
    return made
