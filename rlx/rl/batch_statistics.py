"""Log-probs before an update, and what a loss needs of the whole optimiser batch over all processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rlx.engine.model import ReadableModel
from rlx.engine.step import Engine
from rlx.numerics.batch import PolicyBatch
from rlx.numerics.collate import TokenSequence, pad_rows
from rlx.numerics.output_layer.response_reader import Read, Scored
from rlx.numerics.shaping import highest_entropy
from rlx.registry import Method
from rlx.rl.objective import MiniBatch
from rlx.specs.algorithm import Algorithm


def logprobs_of(
    rows: Iterable[Sequence[int]],
    sequences: Sequence[TokenSequence],
    engine: Engine,
    read: Read,
    model: ReadableModel | None = None,
) -> dict[int, Tensor]:
    """Log-probs [t] (nats) of the response tokens of the samples at ``rows``, without gradient, on the CPU.

    Args:
        rows: samples, in any grouping.
        sequences: all samples.
        engine: scores them.
        read: reads the log-probs.
        model: a model other than the trained one, such as a frozen reference.
    """
    return {sample: scored[0] for sample, scored in _scored(rows, sequences, engine, read, model).items()}


def with_batch_statistics(
    mini: MiniBatch, method: Method, algorithm: Algorithm, engine: Engine, read: Read
) -> MiniBatch:
    """The mini-batch with the method's statistics and the tokens of highest entropy, if they are needed.

    Both are taken over the samples of all processes, from one more forward pass with the current weights.

    Args:
        mini: this process's samples of the update.
        method: its component may have a ``whole_batch`` function.
        algorithm: for ``top_entropy``.
        engine: scores, and gathers over processes.
        read: reads log-probs and entropies.
    """
    whole_batch, share = method.component.whole_batch, algorithm.top_entropy
    if whole_batch is None and share is None:
        return mini
    by_sample = _scored([range(len(mini.sequences))], mini.sequences, engine, read)
    scored = [by_sample[b] for b in range(len(mini.sequences))]
    if whole_batch is not None:
        mini = replace(mini, statistics=_statistics(mini, method, engine, [logprobs for logprobs, _ in scored]))
    if share is not None:
        entropies = [entropy for _, entropy in scored]
        everywhere = engine.gather(entropies)
        threshold = highest_entropy(everywhere, share) if everywhere else torch.tensor(0.0)
        mini = replace(mini, selected=[entropy >= threshold for entropy in entropies])
    return mini


def _scored(
    rows: Iterable[Sequence[int]],
    sequences: Sequence[TokenSequence],
    engine: Engine,
    read: Read,
    model: ReadableModel | None = None,
) -> dict[int, Scored]:
    """Log-probs and entropies [t] (nats) of the response tokens of the samples at ``rows``, on the CPU."""
    samples = [b for group in rows for b in group]
    scored = engine.score([sequences[b] for b in samples], read, model)
    if not scored:
        return {}
    order = [samples[member] for members, _ in scored for member in members]
    values_n = torch.cat([*(logprobs_n for _, (logprobs_n, _) in scored), *(entropy_n for _, (_, entropy_n) in scored)])
    lengths = [len(sequences[b].response) for b in order]
    values = torch.split(values_n.cpu(), lengths * 2)  # one transfer for all micro-batches
    return dict(zip(order, zip(values[: len(order)], values[len(order) :], strict=True), strict=True))


def _statistics(
    mini: MiniBatch, method: Method, engine: Engine, logprobs: Sequence[Tensor]
) -> Mapping[str, Tensor | list[Tensor]]:
    """The method's statistics of the update's samples on all processes, restricted to this process's samples."""
    assert method.component.whole_batch is not None
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
