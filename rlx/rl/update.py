"""From a graded rollout to optimiser updates: old and reference log-probs, batch statistics, denominators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rlx.engine.batch import Batch, Update
from rlx.engine.lora import without_adapters
from rlx.engine.model import ReadableModel
from rlx.engine.step import Engine
from rlx.numerics.batch import PolicyBatch
from rlx.numerics.collate import TokenSequence, pad_rows
from rlx.numerics.kl import KL_FORMS
from rlx.numerics.output_layer.response_reader import Read, logprob_reader
from rlx.numerics.terms import Counts
from rlx.registry import Method
from rlx.rl.components import TrainComponents
from rlx.rl.objective import MiniBatch, PolicyObjective
from rlx.rl.rollouts import Graded


def update_policy(graded: Graded, adv_b: Tensor, components: TrainComponents) -> list[Update]:
    """The rollout's ``updates_per_rollout`` optimiser updates, each on its own mini-batch of prompts.

    Samples whose advantage is 0 are neither scored nor trained on unless another part of the loss needs them; the
    denominators count them in any case.

    Args:
        graded: this process's share of the rollout.
        adv_b: advantage of each sample.
        components: provides method, spec, engine and reference model.
    """
    spec, engine = components.resolved.spec, components.engine
    read = logprob_reader(spec.rollout.temperature)
    sequences = graded.sequences
    rows_of_updates = [_rows_of_update(graded, components, i) for i in range(spec.batch.updates_per_rollout)]
    kl_term = spec.algorithm.kl_coef > 0 and spec.algorithm.kl_in == "loss"
    needs_all = kl_term or "zero_advantage" in components.method.component.needs
    scored_rows = [[b for b in rows if needs_all or adv_b[b] != 0] for rows in rows_of_updates]
    old = _logprobs(scored_rows[1:], sequences, engine, read)
    ref = _reference_logprobs(scored_rows, sequences, components, read) if kl_term else {}
    max_tokens = spec.rollout.max_new_tokens
    updates = []
    for index, rows in enumerate(scored_rows):
        mini = MiniBatch(
            sequences=[sequences[b] for b in rows],
            adv_b=adv_b[rows],
            sampler_logprobs=[torch.tensor(graded.responses[b].logprobs) for b in rows],
            old_logprobs=None if index == 0 else [old[b] for b in rows],
            ref_logprobs=[ref[b] for b in rows] if kl_term else None,
            counts=_counts([len(sequences[b].response) for b in rows_of_updates[index]], engine, max_tokens),
        )
        if components.method.component.whole_batch is not None:
            mini = replace(mini, statistics=_batch_statistics(mini, components.method, engine, read))
        objective = PolicyObjective(components.method, spec.algorithm, mini)
        counts = {"policy": mini.counts, "kl": mini.counts}
        updates.append(engine.update(Batch(mini.sequences, read, objective, counts)))
    return updates


def subtract_kl(graded: Graded, components: TrainComponents) -> Graded:
    """Subtract ``kl_coef`` times each response's summed KL to the initial model from its reward (``kl_in: reward``)."""
    algorithm, read = components.resolved.spec.algorithm, logprob_reader(components.resolved.spec.rollout.temperature)
    rows = [list(range(len(graded.responses)))]
    policy = _logprobs(rows, graded.sequences, components.engine, read)
    ref = _reference_logprobs(rows, graded.sequences, components, read)
    kl_b = torch.stack([KL_FORMS[algorithm.kl_form](policy[b], ref[b]).sum() for b in rows[0]]).double()
    return replace(graded, rewards_b=graded.rewards_b - algorithm.kl_coef * kl_b)


def _rows_of_update(graded: Graded, components: TrainComponents, update: int) -> list[int]:
    """Samples of the update with this index: a contiguous share of the rollout's prompts, without masked samples."""
    spec = components.resolved.spec
    share = spec.batch.prompts // spec.batch.updates_per_rollout
    return [
        b
        for b, response in enumerate(graded.responses)
        if graded.prompt_indices[b // graded.samples] // share == update
        and (response.finished or not spec.reward.mask_truncated)
    ]


def _reference_logprobs(
    rows: Iterable[Sequence[int]], sequences: Sequence[TokenSequence], components: TrainComponents, read: Read
) -> dict[int, Tensor]:
    """Log-probs under the initial model: a frozen copy, or the base model with adapters switched off."""
    with without_adapters(components.engine.raw):
        return _logprobs(rows, sequences, components.engine, read, components.reference)


def _logprobs(
    rows: Iterable[Sequence[int]],
    sequences: Sequence[TokenSequence],
    engine: Engine,
    read: Read,
    model: ReadableModel | None = None,
) -> dict[int, Tensor]:
    """Log-probs [t] (nats) of the response tokens of the samples at ``rows``, without gradient, on the CPU."""
    samples = [b for group in rows for b in group]
    scored = engine.score([sequences[b] for b in samples], read, model)
    if not scored:
        return {}
    order = [samples[member] for members, _ in scored for member in members]
    logprobs_n = torch.cat([logprobs_n for _, (logprobs_n, _) in scored]).cpu()  # one transfer for all micro-batches
    values = torch.split(logprobs_n, [len(sequences[b].response) for b in order])
    return dict(zip(order, values, strict=True))


def _batch_statistics(
    mini: MiniBatch, method: Method, engine: Engine, read: Read
) -> Mapping[str, Tensor | list[Tensor]]:
    """The method's statistics of the update's samples on all processes, restricted to this process's samples."""
    assert method.component.whole_batch is not None
    by_sample = _logprobs([range(len(mini.sequences))], mini.sequences, engine, read)
    logprobs = [by_sample[b] for b in range(len(mini.sequences))]
    old = logprobs if mini.old_logprobs is None else mini.old_logprobs
    rows = engine.gather([(engine.rank, *row) for row in zip(logprobs, old, mini.adv_b.tolist(), strict=True)])
    if not rows:
        return {}
    lengths = torch.tensor([len(row[1]) for row in rows])
    mask_bt = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
    width = mask_bt.shape[1]
    adv_bt = torch.tensor([row[3] for row in rows])[:, None] * mask_bt
    batch = PolicyBatch(pad_rows([row[2] for row in rows], width), adv_bt, mask_bt)
    statistics = method.component.whole_batch(pad_rows([row[1] for row in rows], width), batch, method.hyper)
    own = [index for index, row in enumerate(rows) if row[0] == engine.rank]
    return {
        name: [value[index, : lengths[index]] for index in own] if value.dim() == 2 else value
        for name, value in statistics.items()
    }


def _counts(lengths: Sequence[int], engine: Engine, max_tokens: int) -> Counts:
    """Denominators over all processes."""
    all_lengths = engine.gather(list(lengths))
    return Counts(sum(all_lengths), sum(length > 0 for length in all_lengths), max_tokens)
