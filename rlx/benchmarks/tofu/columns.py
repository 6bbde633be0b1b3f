"""Samples as arrays by part, and draws of complete authors from them with replacement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rlx.benchmarks.tofu.scores import Sample

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
SCORES = ("prob", "prob_normalised", "rouge", "truth_ratio", "exact", "strength", "strict_strength")
MEMBERSHIP = "mia_"
"""Prefix of the columns of membership attacks."""


@dataclass(frozen=True, slots=True)
class Part:
    """The scores of one part's samples, one row of the arrays per score.

    Example:
        ``Part({"prob": 0}, values_cn=np.array([[0.9, 0.0]]), present_cn=np.array([[True, False]]), complete=False)``
    """

    row_of: Mapping[str, int]
    """Row of each score that at least one sample has."""
    values_cn: Floats
    present_cn: NDArray[np.bool_]
    """False where a sample does not have the score."""
    complete: bool
    """Whether all are present."""

    def select(self, rows_n: Indices) -> Part:
        """The same scores of other samples, given by their indices."""
        present_cn = self.present_cn if self.complete else self.present_cn[:, rows_n]
        return Part(self.row_of, self.values_cn[:, rows_n], present_cn, self.complete)


Table = Mapping[str, Part]
"""The samples' scores by part."""


def table_of(samples: Sequence[Sample]) -> Table:
    """Samples as arrays, in their order."""
    parts: dict[str, list[Sample]] = {}
    for sample in samples:
        parts.setdefault(sample.part, []).append(sample)
    return {part: _part(of_part) for part, of_part in parts.items()}


def measured(table: Table, part: str, name: str) -> Floats:
    """The values of a score in a part, of the samples that have it; empty if there are none."""
    of_part = table.get(part)
    row = None if of_part is None else of_part.row_of.get(name)
    if of_part is None or row is None:
        return np.empty(0)
    values: Floats = of_part.values_cn[row]
    return values if of_part.complete else values[of_part.present_cn[row]]


def author_draws(samples: Sequence[Sample], generator: np.random.Generator) -> Callable[[], Table]:
    """A function that draws as many authors as each part has, with replacement, and returns their samples' scores.

    The questions of an author are drawn together, and in their order.
    """
    table = table_of(samples)
    authors: dict[str, list[int]] = {}
    for sample in samples:
        authors.setdefault(sample.part, []).append(sample.author)
    clusters = {part: Clusters.of(numbers, list(dict.fromkeys(numbers))) for part, numbers in authors.items()}
    return lambda: {part: table[part].select(of_part.draw(generator)) for part, of_part in clusters.items()}


@dataclass(frozen=True, slots=True)
class Clusters:
    """The rows of each author.

    Example:
        ``Clusters.of([0, 0, 1], order=[0, 1]).draw(generator)`` may be ``[2, 0, 1]``
    """

    order_n: Indices
    """Rows, those of an author together."""
    starts_a: Indices
    """Position of each author's first row in ``order_n``."""
    lengths_a: Indices

    @classmethod
    def of(cls, authors: Sequence[int], order: Sequence[int]) -> Clusters:
        """The clusters of rows with these authors, in this order of the authors."""
        rank = {author: index for index, author in enumerate(order)}
        ranks_n = np.array([rank[author] for author in authors], dtype=np.int64)
        lengths_a = np.bincount(ranks_n, minlength=len(order)).astype(np.int64)
        return cls(np.argsort(ranks_n, kind="stable"), np.cumsum(lengths_a) - lengths_a, lengths_a)

    def draw(self, generator: np.random.Generator) -> Indices:
        """The rows of as many authors as there are, drawn with replacement."""
        picked_a = generator.integers(len(self.lengths_a), size=len(self.lengths_a))
        lengths_a = self.lengths_a[picked_a]
        ends_a = np.cumsum(lengths_a)
        shifts_a = self.starts_a[picked_a] - (ends_a - lengths_a)
        rows_n: Indices = self.order_n[np.repeat(shifts_a, lengths_a) + np.arange(ends_a[-1])]
        return rows_n


def _part(samples: Sequence[Sample]) -> Part:
    scores = {name: [getattr(sample, name) for sample in samples] for name in SCORES}
    for name in dict.fromkeys(name for sample in samples for name in sample.attacks):
        scores[MEMBERSHIP + name] = [sample.attacks.get(name) for sample in samples]
    scores = {name: values for name, values in scores.items() if any(value is not None for value in values)}
    present_cn = np.array([[value is not None for value in values] for values in scores.values()], dtype=bool)
    values_cn = [[0.0 if value is None else value for value in values] for values in scores.values()]
    return Part(
        row_of={name: row for row, name in enumerate(scores)},
        values_cn=np.array(values_cn, dtype=np.float64).reshape(len(scores), len(samples)),
        present_cn=present_cn.reshape(len(scores), len(samples)),
        complete=bool(present_cn.all()),
    )
