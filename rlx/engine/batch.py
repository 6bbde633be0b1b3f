"""What an optimiser update works on and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch import Tensor

from rlx.engine.model import Reader
from rlx.numerics.collate import TokenBatch, TokenSequence
from rlx.numerics.terms import Counts, Term

T = TypeVar("T")
MicroBatch = list[list[int]]
"""Rows of a micro-batch, each a list of the indices of its sequences, which share their prompt."""
Planner = Callable[[Sequence[TokenSequence], int], list[MicroBatch]]
"""Micro-batches of sequences for a token budget."""


@dataclass(frozen=True, slots=True)
class Losses:
    """The loss terms and statistics of one micro-batch.

    Example:
        ``Losses([Term("policy", loss_bt, mask_bt)], sums={"entropy": entropy_bt.sum()}, peaks={"ratio_max": r.max()})``
    """

    terms: list[Term]
    sums: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars that are summed over micro-batches and processes."""
    peaks: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars whose maximum over micro-batches and processes is reported."""
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    """Vectors that are summed over micro-batches and processes, such as histograms."""
    counts: Mapping[str, Counts] | None = None
    """Denominators of this micro-batch alone, not the update's: some official codes average micro-batches."""


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """The work of one optimiser update on this process.

    Example:
        ``Batch(sequences, read=read_logprobs, objective=objective, counts={"policy": Counts(812, 64)})``
    """

    sequences: Sequence[TokenSequence]
    read: Reader[T]
    objective: Callable[[T, TokenBatch, list[int]], Losses]
    """Losses from the reader's output, the micro-batch and the indices of its sequences."""
    counts: Mapping[str, Counts]
    """Denominators of each term over all micro-batches and processes."""
    plan: Callable[[int], list[list[int]]] | None = None
    """Micro-batches for a token budget chosen by the caller, for losses that pair sequences; None lets the engine cut
    them by length."""

    def micro_batches(self, planner: Planner, max_tokens: int) -> list[MicroBatch]:
        """The micro-batches for a token budget: those of ``plan``, or the planner's."""
        if self.plan is None:
            return planner(self.sequences, max_tokens)
        return [[[index] for index in indices] for indices in self.plan(max_tokens)]


@dataclass(frozen=True, slots=True)
class Update:
    """The result of one optimiser update.

    Example:
        ``Update(loss=0.02, grad_norm=0.4, lr=1e-4, applied=True, sums={"entropy": 31.0}, peaks={"ratio_max": 1.3})``
    """

    loss: float
    grad_norm: float
    """L2 norm before clipping."""
    lr: float
    applied: bool
    """False if the loss or gradient was not finite and the update was skipped."""
    sums: Mapping[str, float]
    peaks: Mapping[str, float]
    vectors: Mapping[str, Sequence[float]] = field(default_factory=dict)
    router: Mapping[str, float] = field(default_factory=dict)
    """Load balance of a mixture of experts (``load_metrics``); empty for other models."""
