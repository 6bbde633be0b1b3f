"""From a graded rollout to optimiser updates: old and reference log-probs, denominators."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rlx.engine.batch import Batch, Update
from rlx.engine.lora import without_adapters
from rlx.engine.step import Engine
from rlx.numerics.collate import TokenSequence
from rlx.numerics.kl import KL_FORMS
from rlx.numerics.output_layer.response_reader import Read, logprob_reader
from rlx.numerics.terms import Counts
from rlx.rl.batch_statistics import logprobs_of, with_batch_statistics
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
    train_read = logprob_reader(spec.rollout.temperature, entropy_gradient=spec.algorithm.entropy_coef > 0)
    sequences = graded.sequences
    rows_of_updates = [_rows_of_update(graded, components, i) for i in range(spec.batch.updates_per_rollout)]
    kl_term = spec.algorithm.kl_coef > 0 and spec.algorithm.kl_in == "loss"
    needs = components.method.component.needed(components.method.hyper)
    needs_all = spec.algorithm.needs_all_tokens or "zero_advantage" in needs
    scored_rows = [[b for b in rows if needs_all or adv_b[b] != 0] for rows in rows_of_updates]
    old = logprobs_of(scored_rows[1:], sequences, engine, read)
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
        mini = with_batch_statistics(mini, components.method, spec.algorithm, engine, read)
        objective = PolicyObjective(components.method, spec.algorithm, mini)
        counts = dict.fromkeys(("policy", "kl", "entropy"), mini.counts)
        updates.append(engine.update(Batch(mini.sequences, train_read, objective, counts)))
    return updates


def subtract_kl(graded: Graded, components: TrainComponents) -> Graded:
    """Subtract ``kl_coef`` times each response's summed KL to the initial model from its reward (``kl_in: reward``)."""
    algorithm, read = components.resolved.spec.algorithm, logprob_reader(components.resolved.spec.rollout.temperature)
    rows = [list(range(len(graded.responses)))]
    policy = logprobs_of(rows, graded.sequences, components.engine, read)
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
        return logprobs_of(rows, sequences, components.engine, read, components.reference)


def _counts(lengths: Sequence[int], engine: Engine, max_tokens: int) -> Counts:
    """Denominators over all processes."""
    all_lengths = engine.gather(list(lengths))
    return Counts(sum(all_lengths), sum(length > 0 for length in all_lengths), max_tokens)
