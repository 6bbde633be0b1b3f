"""What a comparison is made of: finished runs, their scores problem by problem, and their curves. No torch.

Names carry shapes by lower-case suffix, one letter an axis:

    p  problem of a benchmark        k  training seed        m  method (a group of runs that differ in seed only)
    n  sample of a problem           r  replicate of a bootstrap or of a permutation
    j  mean that a figure is made of (stats.linearised)

In a study of unlearning the problems are authors: questions about one author stand or fall together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FORGETTING = "forgetting"
"""1 - probability of the forgotten answers."""
EXTRACTION = "1 - extraction"
"""1 - extraction strength."""
UTILITY = "utility"
WITHSTANDS = "withstands"
"""1 - share of the lost knowledge that the attack of this name brings back."""


@dataclass(frozen=True, slots=True)
class Scores:
    """One run's scores on one benchmark.

    Example:
        ``Scores("aime24", ("2024-I-1", "2024-I-2"), np.array([[1.0, 0.0], [0.0, 0.0]]))``
    """

    benchmark: str
    problem_ids: tuple[str, ...]
    scores_pn: Array
    """Score of each sample of each problem, within [0, 1] unless linearised."""
    linearised: bool = False
    """A row is no score of its problem but its part in a figure that is no mean (``stats.linearised``): means over all
    rows, their errors and their differences hold, a single row says nothing."""

    def __post_init__(self) -> None:
        if self.scores_pn.ndim != 2 or self.scores_pn.shape[0] != len(self.problem_ids) or not self.scores_pn.size:
            raise ValueError(f"scores of shape {self.scores_pn.shape} for {len(self.problem_ids)} problems")

    @property
    def means_p(self) -> Array:
        """Mean score of each problem."""
        return np.asarray(self.scores_pn.mean(axis=1))


@dataclass(frozen=True, slots=True)
class Unlearned:
    """What an unlearning run shows beside its scores.

    Example:
        ``Unlearned(curve=((0.1, 0.88), (0.7, 0.86)), selected=1, within_budget=True, budget=0.95, kept=0.98, ...)``
    """

    curve: tuple[tuple[float, float], ...]
    """Forgetting (validation half) and utility of the original and of every evaluated checkpoint."""
    selected: int
    """Place of the chosen checkpoint in the curve."""
    within_budget: bool
    budget: float
    """Share of the original's utility that a checkpoint had to keep."""
    kept: float
    """Share of the original's utility that the chosen checkpoint kept, in the final measurement."""
    supported: bool
    """Whether the certificate's verdict is that the evidence supports unlearning."""
    references: Mapping[str, tuple[float, float]]
    """Forgetting (final half) and utility of the original and, where there is one, the retain model."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """One finished run.

    Example:
        ``RunResult("dgpo_s0-1f0c", "dgpo", 0, "embedded", {"temperature": 1.0}, (Scores(...),), ({"step": 0},))``
    """

    run_id: str
    method: str
    """What the comparison names: the method, with the parameters that differ within the study."""
    seed: int
    model: str
    protocol: Mapping[str, object]
    """Everything that must be equal for scores to be comparable, by dotted key."""
    scores: tuple[Scores, ...]
    metrics: tuple[Mapping[str, float], ...] = ()
    """Records of metrics.jsonl, in order of their step."""
    unlearned: Unlearned | None = None
    """Of an unlearning run."""


@dataclass(frozen=True, slots=True)
class Published:
    """A figure that a paper prints, shown beside ours and never tested against it.

    Example:
        ``Published("dgpo", "aime24", 0.311, "arXiv 2603.14389, table 1")``
    """

    method: str
    benchmark: str
    value: float
    """Fraction, as our scores."""
    source: str


@dataclass(frozen=True, slots=True)
class Study:
    """Everything that one report is drawn from.

    Example:
        ``Study("tiny", baseline="grpo", runs=(...), missing={"maspo_s3-77ab": "failed"})``
    """

    name: str
    baseline: str
    runs: tuple[RunResult, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    """Runs that the study asks for and that have no scores, with the reason."""
    published: tuple[Published, ...] = ()
    mismatched: tuple[str, ...] = ()
    """Protocol fields that differ between the runs, when the person compares them all the same."""
    alpha: float = 0.05
    """Level of every test and interval."""

    @property
    def unit(self) -> str:
        """What differences are paired by, in the plural."""
        return "authors" if any(run.unlearned for run in self.runs) else "problems"
