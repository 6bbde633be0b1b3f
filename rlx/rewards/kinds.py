"""The kinds of answers that the grader compares: values, words, tuples, sets, unions, relations and ratios."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Value:
    r"""A number or an expression.

    Example:
        ``Value(r"\frac{1}{2}", sign="", unit=None)``
    """

    latex: str
    sign: str = ""
    """``%``, or ``deg`` for degrees."""
    unit: tuple[str, Fraction] | None = None
    """Dimension and size of a known unit."""


@dataclass(frozen=True, slots=True)
class Words:
    """An answer in words, such as ``Tuesday``."""

    text: str


@dataclass(frozen=True, slots=True)
class Ordered:
    """A pair, tuple or vector, or an interval: ``(1, 2]``."""

    items: tuple[Answer, ...]
    opening: str
    closing: str


@dataclass(frozen=True, slots=True)
class Unordered:
    r"""A set ``\{1, 2\}`` or a list of solutions ``1, 2``; the empty set without items."""

    items: tuple[Answer, ...]
    braces: bool = False


@dataclass(frozen=True, slots=True)
class Union:
    """Sets or conditions joined by a union or by ``or``; by ``and`` or commas if ``both``."""

    parts: tuple[Answer, ...]
    both: bool = False


@dataclass(frozen=True, slots=True)
class Without:
    r"""``A \setminus B``."""

    base: Answer
    removed: Answer


@dataclass(frozen=True, slots=True)
class Relation:
    """Equations and inequalities, also chains: ``-2 <= x < 7`` has three sides and two operators."""

    sides: tuple[str, ...]
    operators: tuple[str, ...]

    @property
    def is_equation(self) -> bool:
        """Whether all its operators are equality."""
        return all(operator == "=" for operator in self.operators)


@dataclass(frozen=True, slots=True)
class Approximated:
    r"""An exact answer with its decimals: ``\frac{1}{3} \approx 0.33``."""

    exact: Answer
    decimals: Answer


@dataclass(frozen=True, slots=True)
class Ratio:
    """``3:4``, also a time of day."""

    parts: tuple[str, ...]
    half_day: str = ""
    """``a`` or ``p`` for a time with a.m. or p.m."""


Answer = Value | Words | Ordered | Unordered | Union | Without | Relation | Ratio | Approximated
