"""What a comparison is made of: finished runs, their scores problem by problem, and their curves. No torch.

Names carry shapes by lower-case suffix, one letter an axis:

    p  problem of a benchmark        k  training seed        m  method (a group of runs that differ in seed only)
    n  sample of a problem           r  replicate of a bootstrap or of a permutation
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scores:
    """One run's scores on one benchmark.

    Example:
        ``Scores("aime24", ("2024-I-1", "2024-I-2"), np.array([[1.0, 0.0], [0.0, 0.0]]))``
    """

    benchmark: str
    problem_ids: tuple[str, ...]
    scores_pn: Array
    """Score of each sample of each problem, within [0, 1]."""

    def __post_init__(self) -> None:
        if self.scores_pn.ndim != 2 or self.scores_pn.shape[0] != len(self.problem_ids) or not self.scores_pn.size:
            raise ValueError(f"scores of shape {self.scores_pn.shape} for {len(self.problem_ids)} problems")

    @property
    def means_p(self) -> Array:
        """Mean score of each problem."""
        return np.asarray(self.scores_pn.mean(axis=1))


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
