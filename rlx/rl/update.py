"""A graded rollout to optimiser updates: old and reference log-probs, whole-batch statistics, denominators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rlx.engine.lora import without_adapters
from rlx.engine.model import ReadableModel
from rlx.engine.step import Batch, Engine, Update
from rlx.numerics.batch import PolicyBatch
from rlx.numerics.collate import TokenSequence, pad_rows
from rlx.numerics.kl import KL_FORMS
from rlx.numerics.output_layer.response_reader import Read, logprob_reader
from rlx.numerics.terms import Counts
from rlx.registry import Method
from rlx.rl.components import TrainComponents
from rlx.rl.objective import MiniBatch, PolicyObjective
from rlx.rl.rollouts import Graded


def update_policy(graded: Graded, adv_b: Tensor, parts: TrainComponents) -> list[Update]:
    """The rollout's ``updates_per_rollout`` optimiser updates, each on its own mini-batch of prompts.

    Samples whose advantage is 0 are neither scored nor trained on when nothing else in the loss needs them; the
    denominators count them all the same.

    Args:
        graded: this process's share of the rollout.
        adv_b: advantage of each sample.
        parts: method, spec, engine, reference.
    """
    spec, engine = parts.resolved.spec, parts.engine
    read = logprob_reader(spec.rollout.temperature)
    sequences = graded.sequences
    taken = [_rows_of_update(graded, parts, number) for number in range(spec.batch.updates_per_rollout)]
    kl_term = spec.algorithm.kl_coef > 0 and spec.algorithm.kl_in == "loss"
    every_sample = kl_term or "zero_advantage" in parts.method.component.needs
    kept = [[b for b in rows if every_sample or adv_b[b] != 0] for rows in taken]
    old = _by_row(kept[1:], sequences, engine, read)
    ref = _reference(kept, sequences, parts, read) if kl_term else {}
    updates = []
    for number, rows in enumerate(kept):
        mini = MiniBatch(
            sequences=[sequences[b] for b in rows],
            adv_b=adv_b[rows],
            sampler_logprobs=[torch.tensor(graded.responses[b].logprobs) for b in rows],
            old_logprobs=None if number == 0 else [old[b] for b in rows],
            ref_logprobs=[ref[b] for b in rows] if kl_term else None,
            counts=_counts([len(sequences[b].response) for b in taken[number]], engine, spec.rollout.max_new_tokens),
        )
        if parts.method.component.whole_batch is not None:
            mini = replace(mini, whole=_whole(mini, parts.method, engine, read))
        objective = PolicyObjective(parts.method, spec.algorithm, mini)
        counts = {"policy": mini.counts, "kl": mini.counts}
        updates.append(engine.update(Batch(mini.sequences, read, objective, counts)))
    return updates


def subtract_kl(graded: Graded, parts: TrainComponents) -> Graded:
    """Rewards less ``kl_coef`` times each response's summed KL to the initial model (``kl_in: reward``)."""
    algorithm, read = parts.resolved.spec.algorithm, logprob_reader(parts.resolved.spec.rollout.temperature)
    rows = [list(range(len(graded.responses)))]
    ours = _by_row(rows, graded.sequences, parts.engine, read)
    ref = _reference(rows, graded.sequences, parts, read)
    kl_b = torch.stack([KL_FORMS[algorithm.kl_form](ours[b], ref[b]).sum() for b in rows[0]]).double()
    return replace(graded, rewards_b=graded.rewards_b - algorithm.kl_coef * kl_b)


def _rows_of_update(graded: Graded, parts: TrainComponents, number: int) -> list[int]:
    """Samples of the update with this number: a contiguous share of the rollout's prompts, without masked ones."""
    spec = parts.resolved.spec
    share = spec.batch.prompts // spec.batch.updates_per_rollout
    return [
        b
        for b, response in enumerate(graded.responses)
        if graded.numbers[b // graded.samples] // share == number
        and (response.finished or not spec.reward.mask_truncated)
    ]


def _reference(
    rows: Iterable[Sequence[int]], sequences: Sequence[TokenSequence], parts: TrainComponents, read: Read
) -> dict[int, Tensor]:
    """Log-probs under the initial model: the frozen copy, or the adapters switched off."""
    with without_adapters(parts.engine.raw):
        return _by_row(rows, sequences, parts.engine, read, parts.reference)


def _by_row(
    rows: Iterable[Sequence[int]],
    sequences: Sequence[TokenSequence],
    engine: Engine,
    read: Read,
    model: ReadableModel | None = None,
) -> dict[int, Tensor]:
    """Log-probs [t] of the response tokens of the named samples, without gradient, on the CPU (nats)."""
    chosen = [b for part in rows for b in part]
    found: dict[int, Tensor] = {}
    for places, (logprobs_n, _) in engine.score([sequences[b] for b in chosen], read, model):
        lengths = [len(sequences[chosen[place]].response) for place in places]
        values = torch.split(logprobs_n.cpu(), lengths)
        found.update({chosen[place]: value for place, value in zip(places, values, strict=True)})
    return found


def _whole(mini: MiniBatch, method: Method, engine: Engine, read: Read) -> Mapping[str, Tensor | list[Tensor]]:
    """The method's statistic over the update's samples of all processes, cut back to this process's."""
    assert method.component.whole_batch is not None
    now = _by_row([range(len(mini.sequences))], mini.sequences, engine, read)
    logprobs = [now[b] for b in range(len(mini.sequences))]
    old = logprobs if mini.old_logprobs is None else mini.old_logprobs
    mine = [(engine.rank, *row) for row in zip(logprobs, old, mini.adv_b.tolist(), strict=True)]
    every = engine.gather(mine)
    if not every:
        return {}
    lengths = torch.tensor([len(row[1]) for row in every])
    mask_bt = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
    width = mask_bt.shape[1]
    adv_bt = torch.tensor([row[3] for row in every])[:, None] * mask_bt
    batch = PolicyBatch(pad_rows([row[2] for row in every], width), adv_bt, mask_bt)
    found = method.component.whole_batch(pad_rows([row[1] for row in every], width), batch, method.hyper)
    ours = [place for place, row in enumerate(every) if row[0] == engine.rank]
    return {
        name: [value[place, : lengths[place]] for place in ours] if value.dim() == 2 else value
        for name, value in found.items()
    }


def _counts(lengths: Sequence[int], engine: Engine, max_tokens: int) -> Counts:
    every = engine.gather(list(lengths))
    return Counts(sum(every), sum(length > 0 for length in every), max_tokens)
