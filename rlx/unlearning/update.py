"""One optimiser update from forget and retain examples: batches of each side, denominators, loss terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rlx.engine.batch import Batch, Losses, Update
from rlx.engine.hidden_state_hook import HiddenStateHook
from rlx.engine.step import Engine
from rlx.numerics.collate import TokenBatch, TokenSequence, collate, micro_batches
from rlx.numerics.output_layer.logprobs import Head
from rlx.numerics.terms import Counts, Term, count
from rlx.numerics.unlearn_batch import LabelledBatch, Reference
from rlx.registry import Method
from rlx.unlearning.data.tokens import Example

SIDES = ("forget", "alternate", "retain")
Constants = Mapping[str, Tensor]
"""Reference constants of one sequence by need: ``ref_nll`` [1], the others [n, ...]."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence of an update.

    Example:
        ``Row("forget", TokenSequence((3, 7), (9, 2)), labelled=(True, True), sensitive=(True, False), constants={})``
    """

    side: str
    sequence: TokenSequence
    labelled: tuple[bool, ...]
    sensitive: tuple[bool, ...]
    constants: Constants


@dataclass(frozen=True, slots=True)
class UnlearnStep:
    """One update's sequences with the method's inputs; ``read`` runs inside the model's forward.

    Example:
        ``UnlearnStep(method, rows, needs, frozen_head=True)``
    """

    method: Method
    rows: Sequence[Row]
    needs: frozenset[str]
    reference_head: Head | None = None
    """The output layer before training; None if it is frozen, and so the model's own."""
    mean_row_d: Tensor | None = None
    """Mean row of the frozen output layer."""
    hook: HiddenStateHook | None = None
    micro_total: int = 0
    """Number of micro-batches over all processes if each is averaged separately; 0 averages over the update."""

    def read(self, hidden_nd: Tensor, head: Head, tokens: TokenBatch) -> Losses:
        """The method's terms of one micro-batch."""
        layer_nd = None if self.hook is None else self.hook.at(tokens.rows_n, tokens.columns_n)
        terms = self._terms(tokens, hidden_nd, head, layer_nd)
        sums = {f"{term.name}/{unit_of(term)}": (term.values.detach() * term.mask).sum() for term in terms}
        if not self.micro_total:
            return Losses(terms, sums)
        counts = {term.name: count([term.mask]) for term in terms}
        terms = [replace(term, weight=term.weight / self.micro_total) for term in terms]
        return Losses(terms, sums, counts=counts)

    def counts(self, engine: Engine) -> dict[str, Counts]:
        """Denominators of every term over the update, on all processes, from the masks alone."""
        own: dict[str, Counts] = {}
        if self.rows:
            tokens = collate([row.sequence for row in self.rows], members=range(len(self.rows)))
            zeros_n1 = torch.zeros((len(tokens.targets_n), 1))
            terms = self._terms(tokens, zeros_n1, Head(torch.ones((1, 1))), zeros_n1, dry=True)
            own = {term.name: count([term.mask]) for term in terms}
        all_counts = engine.gather([own])
        names = {name for counts in all_counts for name in counts}
        return {
            name: Counts(
                sum(counts[name].tokens for counts in all_counts if name in counts),
                sum(counts[name].sequences for counts in all_counts if name in counts),
            )
            for name in sorted(names)
        }

    def _terms(
        self, tokens: TokenBatch, hidden_nd: Tensor, head: Head, layer_nd: Tensor | None, dry: bool = False
    ) -> list[Term]:
        batches = {side: self._side_batch(side, tokens, hidden_nd, head, layer_nd, dry) for side in SIDES}
        forget = replace(batches["forget"], alternate=batches["alternate"] if "alternate" in self.needs else None)
        retain = batches["retain"]
        if dry:
            forget, retain = forget.dry(), retain.dry()
        terms: list[Term] = self.method.component.fn(forget, retain, self.method.hyper)
        return terms

    def _side_batch(
        self, side: str, tokens: TokenBatch, hidden_nd: Tensor, head: Head, layer_nd: Tensor | None, dry: bool
    ) -> LabelledBatch:
        """One side's sequences of a micro-batch, with the inputs that the method declared."""
        device = tokens.mask_bt.device
        indices = [index for index, member in enumerate(tokens.members) if self.rows[member].side == side]
        selected_b = torch.tensor(indices, dtype=torch.long, device=device)
        belongs_b = torch.zeros(len(tokens.members), dtype=torch.bool, device=device).index_fill(0, selected_b, True)
        selected_n = belongs_b[:, None].expand_as(tokens.mask_bt)[tokens.mask_bt]
        rows = [self.rows[tokens.members[index]] for index in indices]
        declared = side_needs(self.needs, "forget" if side == "alternate" else side)

        def flags(values: list[bool]) -> Tensor:
            return torch.tensor(values, dtype=torch.bool, device=device)

        labelled = flags([flag for row in rows for flag in row.labelled]) if "all_positions" in declared else None
        sensitive = flags([flag for row in rows for flag in row.sensitive]) if "sensitive" in declared else None
        return LabelledBatch(
            mask_bt=tokens.mask_bt[selected_b],
            labels_n=tokens.targets_n[selected_n],
            hidden_nd=hidden_nd[selected_n],
            head=head,
            labelled_n=labelled,
            sensitive_n=sensitive,
            layer_nd=layer_nd[selected_n] if layer_nd is not None and "layer" in declared else None,
            reference=Reference() if dry else self._reference(rows, head, declared, device),
            mean_row_d=self.mean_row_d,
        )

    def _reference(self, rows: list[Row], head: Head, declared: set[str], device: torch.device) -> Reference:
        def joined(need: str) -> Tensor | None:
            if need not in declared or not rows:
                return None
            return torch.cat([row.constants[need] for row in rows]).to(device)

        if not rows:
            return _empty_reference(declared, head, torch.zeros(0, device=device))
        return Reference(
            nll_b=joined("ref_nll"),
            topk_nk=joined("ref_topk"),
            argmax_n=joined("ref_argmax"),
            label_logit_n=joined("ref_label_logit"),
            layer_nd=joined("ref_layer"),
            hidden_nd=joined("ref_hidden"),
            head=(self.reference_head or detached(head)) if "ref_hidden" in declared else None,
        )


def detached(head: Head) -> Head:
    """The same output layer as a constant."""
    return replace(
        head, weight_vd=head.weight_vd.detach(), bias_v=None if head.bias_v is None else head.bias_v.detach()
    )


def _empty_reference(declared: set[str], head: Head, empty_n: Tensor) -> Reference:
    """Constants of a micro-batch without this side, with shapes that every method accepts."""
    ids_n, states_nd = empty_n.long(), empty_n[:, None].expand(0, head.weight_vd.shape[1])
    return Reference(
        nll_b=empty_n if "ref_nll" in declared else None,
        topk_nk=ids_n[:, None] if "ref_topk" in declared else None,
        argmax_n=ids_n if "ref_argmax" in declared else None,
        label_logit_n=empty_n if "ref_label_logit" in declared else None,
        layer_nd=states_nd if "ref_layer" in declared else None,
        hidden_nd=states_nd if "ref_hidden" in declared else None,
        head=head if "ref_hidden" in declared else None,
    )


def side_needs(needs: frozenset[str], side: str) -> set[str]:
    """The declared needs of one side: ``{"forget.ref_nll"}`` gives ``{"ref_nll"}`` for forget."""
    return {need.removeprefix(f"{side}.") for need in needs if need.startswith(f"{side}.")}


def example_row(side: str, example: Example, constants: Constants) -> Row:
    """An example's labelled tokens as a row."""
    sequence = example.encoded.sequence
    if side == "alternate":
        if example.alternate is None:
            raise ValueError(f"request {example.request.id} has no alternate")
        sequence = example.alternate
    sensitive = example.encoded.sensitive if side == "forget" else (False,) * len(sequence.response)
    return Row(side, sequence, (True,) * len(sequence.response), sensitive, constants)


def widened(row: Row, width: int, pad_id: int) -> Row:
    """The row with every position read, including the prompt and padding up to ``width`` tokens.

    One more padding token is appended, so that the last position has a token to predict.
    """
    ids = (*row.sequence.prompt, *row.sequence.response)
    before = len(row.sequence.prompt) - 1
    after = width - len(ids)
    padding = (pad_id,) * (after + 1)
    return Row(
        row.side,
        TokenSequence(ids[:1], (*ids[1:], *padding)),
        labelled=(*(False,) * before, *row.labelled, *(False,) * (after + 1)),
        sensitive=(*(False,) * before, *row.sensitive, *(False,) * (after + 1)),
        constants={need: value if need == "ref_nll" else value[:width] for need, value in row.constants.items()},
    )


Plan = Callable[[int], list[list[int]]]
"""The rows of each micro-batch, for a token budget of a micro-batch."""


def plan_of(rows: Sequence[Row], paired: bool, micro: int) -> Plan | None:
    """The rows of each micro-batch for a token budget; None leaves the division to the engine.

    Args:
        rows: the update's rows.
        paired: an alternate must be in the micro-batch of its forget sequence (they are in the same order).
        micro: number of forget sequences of a separately averaged micro-batch, whatever the budget; 0 if the update is
            averaged as a whole.
    """
    by_side = {side: [i for i, row in enumerate(rows) if row.side == side] for side in SIDES}
    if micro:
        cuts = range(-(-len(by_side["forget"]) // micro))
        fixed = [[i for s in SIDES for i in _share(by_side[s], cut, len(cuts))] for cut in cuts]
        return lambda max_tokens: fixed
    if not paired:
        return None
    units = [list(pair) for pair in zip(by_side["forget"], by_side["alternate"], strict=True)]
    units += [[i] for i in by_side["retain"]]
    lengths = [sum(len(rows[i].sequence) for i in unit) for unit in units]
    return lambda max_tokens: [[i for u in group for i in units[u]] for group in micro_batches(lengths, max_tokens)]


def _share(members: Sequence[int], part: int, parts: int) -> Sequence[int]:
    """One of several parts that differ by at most one member, so that none is empty if there are enough."""
    size, larger = divmod(len(members), parts)
    start = part * size + min(part, larger)
    return members[start : start + size + (part < larger)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """An update and the mean of each of its terms.

    Example:
        ``Outcome(update, means={"forget": 3.1, "retain": 0.2})``
    """

    update: Update
    means: Mapping[str, float] = field(default_factory=dict)


def update_once(engine: Engine, step: UnlearnStep, plan: Plan | None) -> Outcome:
    """One optimiser update of ``step`` on this process's rows."""
    counts = step.counts(engine)
    update = engine.update(
        Batch(
            sequences=[row.sequence for row in step.rows],
            read=step.read,
            objective=lambda losses, tokens, rows: losses,
            counts=counts,
            plan=plan,
        )
    )
    means = {}
    for name, tally in counts.items():
        for unit, number in (("tokens", tally.tokens), ("sequences", tally.sequences)):
            if f"{name}/{unit}" in update.sums:
                means[name] = update.sums[f"{name}/{unit}"] / max(number, 1)
    return Outcome(update, means)


def unit_of(term: Term) -> str:
    """The unit over which a term is averaged."""
    return "sequences" if term.values.dim() == 1 else "tokens"
