"""What the unlearning loop is handed, and which rows belong to which update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from rlx.engine.hidden_state_hook import HiddenStateHook
from rlx.engine.step import Engine
from rlx.numerics.output_layer.logprobs import Head
from rlx.registry import Method
from rlx.runs.folder import RunDir
from rlx.runs.recorder import Recorder
from rlx.runs.stop import Stop
from rlx.specs.unlearn import ResolvedUnlearn
from rlx.unlearning.data.requests import Request
from rlx.unlearning.data.tokens import Example
from rlx.unlearning.measures import Subject
from rlx.unlearning.update import Constants, Row, example_row, widened

SPLIT = 0
"""Seed of the halves."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Examples of one side with the reference's constants of each.

    Example:
        ``Knowledge(examples=[...], constants=[{"ref_nll": nll}, ...], alternates=[...])``
    """

    examples: Sequence[Example]
    constants: Sequence[Constants]
    alternates: Sequence[Constants] = ()
    """Constants of the alternates; empty where the method has none."""


@dataclass(frozen=True, slots=True)
class UnlearnComponents:
    """Everything an unlearning run is made of."""

    resolved: ResolvedUnlearn
    run: RunDir
    subject: Subject
    method: Method
    needs: frozenset[str]
    forget: Knowledge
    retain: Knowledge
    validation: Sequence[Request]
    """Forget requests that checkpoints are chosen by; whole authors."""
    final: Sequence[Request]
    """The other forget requests: nothing is chosen by them."""
    measured: Mapping[str, Sequence[Request]]
    reference_head: Head | None
    """The output layer before training, where it is trained."""
    mean_row_d: Tensor | None
    """Its mean row, where it is frozen."""
    tap: HiddenStateHook | None
    recorder: Recorder
    stop: Stop
    pad_id: int

    @property
    def engine(self) -> Engine:
        """Model and optimiser."""
        return self.subject.engine

    @property
    def updates_an_epoch(self) -> int:
        """Optimiser updates of one pass over the forget set."""
        return updates_an_epoch(len(self.forget.examples), self.resolved.spec.batch.forget)


def updates_an_epoch(requests: int, batch: int) -> int:
    """Updates of one pass; the last one may be smaller."""
    return -(-requests // batch)


def split_by_author(requests: Sequence[Request]) -> tuple[list[Request], list[Request]]:
    """A validation half and a final half; an author's questions stay together.

    The halves follow from the requests alone: runs that differ in their training seed are measured on the same ones,
    so that a study can pair them. With a single author the questions are split one by one, since there is no other way.
    """
    clusters: dict[int, list[Request]] = {}
    for place, request in enumerate(requests):
        clusters.setdefault(place if request.author is None else request.author, []).append(request)
    groups = list(clusters.values()) if len(clusters) > 1 else [[request] for request in requests]
    order = np.random.Generator(np.random.Philox(key=SPLIT)).permutation(len(groups))
    first = set(order[: len(groups) // 2].tolist())
    halves: tuple[list[Request], list[Request]] = ([], [])
    for number, group in enumerate(groups):
        halves[number not in first].extend(group)
    return halves


def rows_of(parts: UnlearnComponents, update: int) -> list[Row]:
    """This process's rows of the update with this number: a pure function of the seed.

    The forget set is shuffled anew each epoch; retain rows are taken from their own shuffles, one after the other.
    """
    spec, engine = parts.resolved.spec, parts.engine
    epoch, place = divmod(update, parts.updates_an_epoch)
    order = _shuffled(len(parts.forget.examples), spec.seed, epoch, "forget")
    chosen = order[place * spec.batch.forget : (place + 1) * spec.batch.forget]
    companions = spec.batch.retain or spec.batch.forget
    drawn = range(update * companions, (update + 1) * companions)
    kept = [_endless(len(parts.retain.examples), spec.seed, number) for number in drawn]
    mine, kept = chosen[engine.rank :: engine.world], kept[engine.rank :: engine.world]
    knowledge = parts.forget
    rows = [example_row("forget", knowledge.examples[i], knowledge.constants[i]) for i in mine]
    if "alternate" in parts.needs:
        rows += [example_row("alternate", knowledge.examples[i], knowledge.alternates[i]) for i in mine]
    if "forget_only" not in parts.needs:
        rows += [example_row("retain", parts.retain.examples[i], parts.retain.constants[i]) for i in kept]
    for side in ("forget", "retain"):
        if f"{side}.all_positions" in parts.needs:
            width = max((len(row.sequence) for row in rows if row.side == side), default=0)
            rows = [widened(row, width, parts.pad_id) if row.side == side else row for row in rows]
    return rows


def _shuffled(length: int, seed: int, epoch: int, side: str) -> list[int]:
    key = (seed << 32) + (epoch << 1) + (side == "retain")
    order: list[int] = np.random.Generator(np.random.Philox(key=key)).permutation(length).tolist()
    return order


def _endless(length: int, seed: int, number: int) -> int:
    """Entry ``number`` of shuffles set one behind the other."""
    epoch, place = divmod(number, length)
    return _shuffled(length, seed, epoch, "retain")[place]
