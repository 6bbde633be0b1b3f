"""From per-token loss values to a gradient and new weights, over micro-batches and processes (accelerate)."""

from __future__ import annotations

import atexit
import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from rlx.engine.batch import Batch, Losses, MicroBatch, Update
from rlx.engine.device import computes_in_bfloat16
from rlx.engine.lora import LM, causal_lm
from rlx.engine.memory import Setting, prepare_memory
from rlx.engine.model import ReadableModel, Reader, set_training_mode
from rlx.engine.optim import learning_rate, make_optimizer
from rlx.engine.out_of_memory import RandomState, check_repeatable, explained, lower_budget
from rlx.engine.router import RouterMonitor, load_metrics, merged_counts
from rlx.engine.shard import Cast, UnshardedModels, clip_shards, is_sharded, reshard, shard
from rlx.engine.tally import DeviceScalars, Tally
from rlx.engine.usage import Usage
from rlx.errors import UserError
from rlx.numerics.collate import TokenBatch, TokenSequence, collate, pack, packed_plan, padded_plan
from rlx.numerics.output_layer.logprobs import Head
from rlx.numerics.terms import Counts, Term, total
from rlx.specs.train import Model, Optim, Sharding

T = TypeVar("T")
MAX_SKIPPED = 5
"""Number of non-finite updates in a row that ends the run."""


class Engine:
    """The model and its optimiser; turns batches into updates.

    Args:
        model: the causal language model, with adapters or not.
        spec: the spec's model section (precision, dropout).
        optim: the optimiser section.
        total_updates: optimiser updates of the whole run, for the learning-rate schedule.
        max_tokens: token budget of a micro-batch; lowered when memory runs out (``rlx.engine.out_of_memory``).
        sharding: how several processes hold the model; None gives each a full copy.
        update_tokens: most tokens of an update on this process, for the estimate of memory; None if it is not known.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: Model,
        optim: Optim,
        total_updates: int,
        max_tokens: int,
        sharding: Sharding | None = None,
        update_tokens: int | None = None,
    ) -> None:
        self.accelerator = make_accelerator(spec)
        self.spec, self.optim, self.total_updates, self.max_tokens = spec, optim, total_updates, max_tokens
        self.raw = model
        self.lm = causal_lm(model)
        self.updates = 0
        self.skipped = 0
        self.share_prompts = False
        """Put the responses of one prompt into one row where that saves enough tokens."""
        self.pack_rows = False
        """Put all sequences of a micro-batch into one row, without padding; responses share their prompt there."""
        self.readable = ReadableModel(self.lm, router_loss=spec.router_aux_coef > 0)
        self.router = RouterMonitor(self.lm)
        self._unsharded: UnshardedModels | None = None
        device, bfloat16 = self.accelerator.device, self.accelerator.mixed_precision == "bf16"
        sharded = sharding is not None and is_sharded(sharding, self.world, device)
        offload = sharding is not None and sharding.offload
        tokens = max_tokens if update_tokens is None else min(max_tokens, update_tokens)
        setting = Setting(tokens, 2 if bfloat16 else 4, self.world if sharded else 1, not (sharded and offload))
        self.usage = Usage(model, device, bfloat16, prepare_memory(model, spec, setting, device, self.agree))
        if sharded:
            self._unsharded = UnshardedModels(model)
            shard(self.readable, self.world, device, offload)
        self.optimizer = make_optimizer(self.readable, optim)
        self.model: nn.Module = self.readable
        self.prepared_optimizer: Any = self.optimizer
        if self._unsharded is None:
            self.model, self.prepared_optimizer = self.accelerator.prepare(self.readable, self.optimizer)
        self.parameters = [p for p in self.readable.parameters() if p.requires_grad]

    @property
    def rank(self) -> int:
        """Index of this process."""
        return int(self.accelerator.process_index)

    @property
    def world(self) -> int:
        """Number of processes."""
        return int(self.accelerator.num_processes)

    @property
    def sharded(self) -> bool:
        """Whether this process holds only a part of every parameter."""
        return self._unsharded is not None

    def gathered_model(self, cast: Cast | None = None) -> LM:
        """The model with unsharded weights, adapters included: itself, or a new copy gathered from all shards.

        Every process must call it, whether or not it needs the weights.

        Args:
            cast: gives the weights of a copy their type; None keeps it. The model itself is returned as it is.
        """
        return self.raw if self._unsharded is None else self._unsharded.build(self.raw, cast)

    def gather(self, items: list[T]) -> list[T]:
        """The items of all processes, in order of rank."""
        return list(gather_object(items)) if self.world > 1 else items

    def agree(self, flag: bool) -> bool:
        """True on all processes if it is true on any."""
        return any(self.gather([flag]))

    def score(
        self,
        sequences: Sequence[TokenSequence],
        read: Reader[T],
        model: ReadableModel | None = None,
        share_prompts: bool = False,
    ) -> list[tuple[list[int], T]]:
        """``read`` of every sequence without gradient or dropout, as (indices, output) of each micro-batch.

        Processes may have different numbers of micro-batches, so the wrapper that synchronises them is not used. With
        sharded weights every forward is collective, and processes with fewer micro-batches add empty ones. If memory
        runs out, all sequences are scored again in smaller micro-batches, except with sharded weights.

        Args:
            sequences: what to score.
            read: see ``Reader``.
            model: a model other than the trained one, such as a frozen reference.
            share_prompts: see the attribute; for these sequences only.
        """
        scorer = (self.readable if model is None else model).eval()
        collective = self.sharded and model is None
        plan_for = partial(self._plan, sequences, share_prompts=share_prompts or self.share_prompts)
        while True:
            plan = plan_for(self.max_tokens)
            outputs, failed = self._score_plan(scorer, sequences, read, plan, collective)
            if failed is None:
                return outputs
            self.max_tokens = lower_budget(self.max_tokens, failed, plan_for)

    def _score_plan(
        self,
        scorer: ReadableModel,
        sequences: Sequence[TokenSequence],
        read: Reader[T],
        plan: list[MicroBatch],
        collective: bool,
    ) -> tuple[list[tuple[list[int], T]], MicroBatch | None]:
        """The outputs of the micro-batches, and the first one that did not fit into memory."""
        outputs = []
        idle = max(self.gather([len(plan)])) - len(plan) if collective else 0
        with torch.no_grad(), self.accelerator.autocast():
            for rows in plan:
                try:
                    tokens, members = self._collated(sequences, rows)
                    outputs.append((members, scorer(tokens, read)))
                except RuntimeError as error:
                    check_repeatable(error, self.rank if collective else None, "scoring")
                    return [], rows
            for _ in range(idle):
                scorer(self._empty_batch(), _read_nothing)
        if collective:
            reshard(self.readable)
        return outputs, None

    def update(self, batch: Batch[Any]) -> Update:
        """One optimiser update; a non-finite loss or gradient leaves the weights unchanged.

        If memory runs out, a single process repeats the update in smaller micro-batches.

        Raises:
            UserError: after five skipped updates in a row, or when no smaller micro-batch is possible.
        """
        with self.usage.measure():
            return self._update(batch)

    def _update(self, batch: Batch[Any]) -> Update:
        self.model.train()
        set_training_mode(self.raw, self.spec.dropout)
        scalars = self._backward(batch)
        own, norm = scalars.read(self._clip())
        tally = Tally.merged(self.gather([own]))
        lr = learning_rate(self.optim, self.updates, self.total_updates)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        applied = math.isfinite(tally.loss) and math.isfinite(norm)
        if applied:
            with explained(self.rank, "the optimiser's step"):
                self.prepared_optimizer.step()
        self.prepared_optimizer.zero_grad()
        router = load_metrics(merged_counts(self.gather([self.router.take_counts()])))
        self.updates += 1
        self.skipped = 0 if applied else self.skipped + 1
        if self.skipped >= MAX_SKIPPED:
            raise UserError(
                f"{MAX_SKIPPED} optimiser updates in a row had a loss or gradient that is not finite "
                f"(last: loss {tally.loss}, gradient norm {norm})",
                fix="lower optim.lr or optim.max_grad_norm; the last good checkpoint is kept",
                exit_code=1,
            )
        return Update(tally.loss, norm, lr, applied, tally.sums, tally.peaks, tally.vectors, router)

    def _backward(self, batch: Batch[Any]) -> DeviceScalars:
        """Accumulate the gradients of the batch; a single process repeats this if memory runs out."""
        start = RandomState()
        while True:
            plan = batch.micro_batches(self._plan, self.max_tokens)
            scalars, failed = self._accumulate(batch, plan)
            if failed is None:
                self.usage.add(batch.sequences, plan)
                return scalars
            for parameter in self.parameters:
                parameter.grad = None
            self.router.take_counts()
            start.restore()
            plan_for = partial(batch.micro_batches, self._plan)
            self.max_tokens = lower_budget(self.max_tokens, failed, plan_for)

    def _accumulate(self, batch: Batch[Any], plan: list[MicroBatch]) -> tuple[DeviceScalars, MicroBatch | None]:
        """Accumulate gradients; processes with fewer micro-batches add empty ones.

        Returns:
            The losses and statistics, and the first micro-batch that did not fit into memory.
        """
        planned = self.gather([len(plan)])
        rounds = max(planned)
        if rounds == 0:
            for parameter in self.parameters:
                parameter.grad = torch.zeros_like(parameter)
        scalars = DeviceScalars()
        for index in range(rounds):
            rows = plan[index] if index < len(plan) else []
            last = index == rounds - 1
            try:
                # A sharded gradient is reduced in every backward pass: until then each process holds all of it.
                with nullcontext() if last or self.sharded else self.accelerator.no_sync(self.model):
                    losses = self._forward(batch, rows)
                    loss = total(losses.terms, losses.counts or batch.counts) + self._router_loss(sum(planned))
                    # accelerate averages gradients over processes; the denominators already count all processes.
                    self.accelerator.backward(loss * self.world)
            except RuntimeError as error:
                check_repeatable(error, self.rank if self.world > 1 else None, "an update")
                return scalars, rows
            scalars.add(loss, losses.sums, losses.peaks, losses.vectors)
        return scalars, None

    def _router_loss(self, micro_batches: int) -> Tensor | float:
        """The weighted load-balancing loss of the latest forward, as its share of the mean over micro-batches."""
        if self.readable.router_loss is None:
            return 0.0
        values = self.readable.router_loss[None]
        mask = torch.ones(1, dtype=torch.bool, device=values.device)
        return total([Term("router", values, mask, self.spec.router_aux_coef)], {"router": Counts(0, micro_batches)})

    def _plan(
        self, sequences: Sequence[TokenSequence], max_tokens: int, share_prompts: bool | None = None
    ) -> list[MicroBatch]:
        """Micro-batches of rows, or of groups in a packed row, for a token budget."""
        if self.pack_rows:
            return packed_plan(sequences, max_tokens)
        return padded_plan(sequences, max_tokens, self.share_prompts if share_prompts is None else share_prompts)

    def _collated(self, sequences: Sequence[TokenSequence], rows: list[list[int]]) -> tuple[TokenBatch, list[int]]:
        """A micro-batch on the device, and the indices of its sequences."""
        members = [index for row in rows for index in row]
        lay_out = pack if self.pack_rows else collate
        tokens = lay_out([sequences[i] for i in members], members=members, shares=[len(row) for row in rows])
        return tokens.to(self.accelerator.device), members

    def _forward(self, batch: Batch[Any], rows: list[list[int]]) -> Losses:
        """The losses of one micro-batch; without rows, a loss of 0 that reaches every parameter."""
        with self.accelerator.autocast():
            if rows:
                tokens, members = self._collated(batch.sequences, rows)
                return batch.objective(self.model(tokens, batch.read), tokens, members)
            name = next(iter(batch.counts))
            zero: Tensor = self.model(self._empty_batch(), _read_nothing)
            return Losses([Term(name, zero[None], torch.zeros(1, dtype=torch.bool, device=zero.device))])

    def _empty_batch(self) -> TokenBatch:
        """A micro-batch of one token, for a process that only takes part in a collective forward."""
        return collate([TokenSequence((0,), (0,))]).to(self.accelerator.device)

    def _clip(self) -> Tensor:
        """Scale gradients down to ``max_grad_norm`` and return their norm before that."""
        if self.sharded:
            return clip_shards(self.parameters, self.optim.max_grad_norm, self.accelerator.device)
        norm: Tensor = self.accelerator.clip_grad_norm_(self.parameters, self.optim.max_grad_norm)
        return norm


def make_accelerator(spec: Model) -> Accelerator:
    """An accelerator with autocast to bfloat16 where the device supports it, or where the spec requests it."""
    atexit.register(_leave_process_group)
    precision = "bf16" if computes_in_bfloat16(spec.precision) else "no"
    return Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())


def _leave_process_group() -> None:
    """Close the connections to other processes: left to the end of the interpreter, their threads may abort it."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _read_nothing(hidden_nd: Tensor, head: Head, batch: TokenBatch) -> Tensor:
    return (hidden_nd.sum() + head.weight_vd.sum()) * 0.0
