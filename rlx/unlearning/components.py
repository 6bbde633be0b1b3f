"""The objects that the unlearning loop works with, and the rows of each update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import Tensor

from rlx.engine.hidden_state_hook import HiddenStateHook
from rlx.engine.recovery import Recovery
from rlx.engine.step import Engine
from rlx.numerics.output_layer.logprobs import Head
from rlx.registry import Method
from rlx.runs.folder import RunDir
from rlx.runs.recorder import Recorder
from rlx.runs.stop import Stop
from rlx.specs.unlearn import ResolvedUnlearn
from rlx.unlearning.data.requests import Request
from rlx.unlearning.data.tokens import Example
from rlx.unlearning.earlier import EarlierRequest
from rlx.unlearning.subject import Subject
from rlx.unlearning.update import Constants, Row, example_row, widened

SPLIT = 0
"""Seed of the split into a validation and a final half."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The examples of one side with their reference constants.

    Example:
        ``Knowledge(examples=[...], constants=[{"ref_nll": nll}, ...], alternates=[...])``
    """

    examples: Sequence[Example]
    constants: Sequence[Constants]
    alternates: Sequence[Constants] = ()
    """Constants of the alternates; empty if the method has none."""


@dataclass(frozen=True, slots=True)
class UnlearnComponents:
    """The objects of one unlearning run."""

    resolved: ResolvedUnlearn
    run: RunDir
    subject: Subject
    method: Method
    needs: frozenset[str]
    forget: Knowledge
    retain: Knowledge
    validation: Sequence[Request]
    """Forget requests that select the checkpoint; complete authors."""
    final: Sequence[Request]
    """The other forget requests, which select nothing."""
    measured: Mapping[str, Sequence[Request]]
    reference_head: Head | None
    """The output layer before training, if it is trained."""
    mean_row_d: Tensor | None
    """Mean row of the output layer, if it is frozen."""
    hook: HiddenStateHook | None
    recorder: Recorder
    recovery: Recovery
    stop: Stop
    pad_id: int
    earlier: Sequence[EarlierRequest] = ()
    """Requests of the runs that this run continues."""

    @property
    def engine(self) -> Engine:
        """The model and its optimiser."""
        return self.subject.engine

    @property
    def updates_per_epoch(self) -> int:
        """Optimiser updates of one pass over the forget set."""
        return updates_per_epoch(len(self.forget.examples), self.resolved.spec.batch.forget)


def updates_per_epoch(requests: int, batch: int) -> int:
    """Updates of one pass; the last one may be smaller."""
    return -(-requests // batch)


def split_by_author(requests: Sequence[Request]) -> tuple[list[Request], list[Request]]:
    """Split requests into a validation half and a final half; an author's questions stay together.

    The halves depend on the requests alone: runs that differ in their training seed are measured on the same ones, so
    that a study can pair them. With a single author the questions are split individually. One request alone is both
    halves: its checkpoint is selected on it.
    """
    if len(requests) < 2:
        return list(requests), list(requests)
    clusters: dict[int, list[Request]] = {}
    for index, request in enumerate(requests):
        clusters.setdefault(index if request.author is None else request.author, []).append(request)
    groups = list(clusters.values()) if len(clusters) > 1 else [[request] for request in requests]
    order = np.random.Generator(np.random.Philox(key=SPLIT)).permutation(len(groups))
    first = set(order[: len(groups) // 2].tolist())
    halves: tuple[list[Request], list[Request]] = ([], [])
    for index, group in enumerate(groups):
        halves[index not in first].extend(group)
    return halves


def rows_of(components: UnlearnComponents, update: int) -> list[Row]:
    """This process's rows of the update with this index, a pure function of the seed.

    The forget set is shuffled again each epoch; retain rows come from their own sequence of shuffles.
    """
    spec, engine = components.resolved.spec, components.engine
    epoch, batch_index = divmod(update, components.updates_per_epoch)
    order = _shuffled(len(components.forget.examples), spec.seed, epoch, "forget")
    forget_indices = order[batch_index * spec.batch.forget : (batch_index + 1) * spec.batch.forget]
    companions = spec.batch.retain or spec.batch.forget
    positions = range(update * companions, (update + 1) * companions)
    retain_indices = [_retain_index(len(components.retain.examples), spec.seed, number) for number in positions]
    own, retain_indices = forget_indices[engine.rank :: engine.world], retain_indices[engine.rank :: engine.world]
    knowledge = components.forget
    rows = [example_row("forget", knowledge.examples[i], knowledge.constants[i]) for i in own]
    if "alternate" in components.needs:
        rows += [example_row("alternate", knowledge.examples[i], knowledge.alternates[i]) for i in own]
    if "forget_only" not in components.needs:
        rows += [
            example_row("retain", components.retain.examples[i], components.retain.constants[i]) for i in retain_indices
        ]
    for side in ("forget", "retain"):
        if f"{side}.all_positions" in components.needs:
            width = max((len(row.sequence) for row in rows if row.side == side), default=0)
            rows = [widened(row, width, components.pad_id) if row.side == side else row for row in rows]
    return rows


@lru_cache(maxsize=4)
def _shuffled(length: int, seed: int, epoch: int, side: str) -> list[int]:
    key = (seed << 32) + (epoch << 1) + (side == "retain")
    order: list[int] = np.random.Generator(np.random.Philox(key=key)).permutation(length).tolist()
    return order


def _retain_index(length: int, seed: int, number: int) -> int:
    """Entry ``number`` of an infinite sequence of shuffles of the retain set."""
    epoch, index = divmod(number, length)
    return _shuffled(length, seed, epoch, "retain")[index]
