"""The input of a comparison: finished runs, their scores by problem, and their learning curves. No torch.

Names carry shapes by lower-case suffix, one letter per axis:

    p  problem of a benchmark        k  training seed        m  method (a group of runs that differ in seed only)
    n  sample of a problem           r  replicate of a bootstrap or of a permutation
    j  mean that enters a metric (significance.linearise)

In a study of unlearning the problems are authors, because the scores of questions about one author are correlated.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rlx.specs.study import ConditionAxis

Array = NDArray[np.float64]
FORGETTING = "forgetting"
"""1 - probability of the forgotten answers."""
EXTRACTION = "1 - extraction"
"""1 - extraction strength."""
UTILITY = "utility"
WITHSTANDS = "withstands"
"""1 - share of the lost knowledge that an attack recovers; the name of the metric is ``withstands <attack>``."""


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
    """Whether the metric is not a plain mean, so that a row is the problem's contribution to the metric
    (``significance.linearise``): means over all rows, their errors and their differences are valid, a single row has no
    meaning."""

    def __post_init__(self) -> None:
        if self.scores_pn.ndim != 2 or self.scores_pn.shape[0] != len(self.problem_ids) or not self.scores_pn.size:
            raise ValueError(f"scores of shape {self.scores_pn.shape} for {len(self.problem_ids)} problems")

    @property
    def means_p(self) -> Array:
        """Mean score of each problem."""
        return np.asarray(self.scores_pn.mean(axis=1))


@dataclass(frozen=True, slots=True)
class UnlearningResult:
    """What a report shows of an unlearning run in addition to its scores.

    Example:
        ``UnlearningResult(curve=((0.1, 0.88), (0.7, 0.86)), selected=1, within_budget=True, budget=0.95, ...)``
    """

    curve: tuple[tuple[float, float], ...]
    """Forgetting (validation half) and utility of the original and of every evaluated checkpoint."""
    selected: int
    """Index of the selected checkpoint in the curve."""
    within_budget: bool
    """Whether any checkpoint is within the utility budget."""
    budget: float
    """Fraction of the original's utility that a checkpoint has to keep."""
    kept: float
    """Fraction of the original's utility that the selected checkpoint keeps, in the final measurement."""
    supported: bool
    """Whether the certificate's verdict is that the evidence supports unlearning."""
    references: Mapping[str, tuple[float, float]]
    """Forgetting (final half) and utility of the original and, if there is one, the retain model."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """One finished run.

    Example:
        ``RunResult("dgpo_s0-1f0c", "dgpo", 0, "embedded", {"temperature": 1.0}, (Scores(...),), ({"step": 0},))``
    """

    run_id: str
    method: str
    """Name in the report: the method, with the parameters that differ within the study."""
    seed: int
    model: str
    protocol: Mapping[str, object]
    """All settings that must be equal for scores to be comparable, by dotted key."""
    scores: tuple[Scores, ...]
    metrics: tuple[Mapping[str, float], ...] = ()
    """Records of metrics.jsonl, in order of their step."""
    unlearned: UnlearningResult | None = None
    """Set for an unlearning run only."""
    condition: str = ""
    """Name of its condition, one of ``Study.conditions``; empty in a study without conditions."""
    steps: int = 0
    """Number of rollouts of its spec; the area under the curve of a failed run is computed over all of them."""
    failed: bool = False
    """Whether training failed. In a study with conditions such a run has the score 0 on every problem."""


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """A run of a study with conditions that is neither finished nor failed.

    Example:
        ``UnfinishedRun("dgpo", "embedded", seed=3, condition="optim.lr=1e-4")``
    """

    method: str
    model: str
    seed: int
    condition: str


@dataclass(frozen=True, slots=True)
class Condition:
    """One combination of the values of a study's condition axes.

    Example:
        ``Condition("optim.lr=1e-4", ("1e-4",))``
    """

    name: str
    values: tuple[str, ...]
    """One per axis of ``Study.condition_axes``."""


@dataclass(frozen=True, slots=True)
class PublishedScore:
    """A score that a paper reports, shown next to ours and not tested against it.

    Example:
        ``PublishedScore("dgpo", "aime24", 0.311, "arXiv 2603.14389, table 1")``
    """

    method: str
    benchmark: str
    value: float
    """Fraction, as our scores."""
    source: str


def condition_name(axes: Sequence[ConditionAxis], values: Sequence[str]) -> str:
    """The name of a condition: ``optim.lr=1e-4, batch.updates_per_rollout=4``."""
    return ", ".join(f"{axis.key}={value}" for axis, value in zip(axes, values, strict=True))


@dataclass(frozen=True, slots=True)
class Study:
    """The input of one report.

    Example:
        ``Study("tiny", baseline="grpo", runs=(...), missing={"maspo_s3-77ab": "failed"})``
    """

    name: str
    baseline: str
    runs: tuple[RunResult, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    """Runs of the study that have no scores, with the reason."""
    published: tuple[PublishedScore, ...] = ()
    mismatched: tuple[str, ...] = ()
    """Protocol fields that differ between the runs, if the user compares them with ``--force``."""
    alpha: float = 0.05
    """Significance level of every test; intervals cover 1 - alpha."""
    condition_axes: tuple[ConditionAxis, ...] = ()
    """Axes that are no method, each with its values in order."""
    unfinished: tuple[UnfinishedRun, ...] = ()
    """The runs of a study with conditions that are neither finished nor failed."""

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Every condition, the last axis varying fastest; empty if the study has none."""
        if not self.condition_axes:
            return ()
        values = itertools.product(*(axis.values for axis in self.condition_axes))
        return tuple(Condition(condition_name(self.condition_axes, combination), combination) for combination in values)

    @property
    def unit(self) -> str:
        """What differences are paired by, in the plural."""
        return "authors" if any(run.unlearned for run in self.runs) else "problems"
