"""Proof that the sampler's copy of the weights is the trainer's: their log-probs of the same tokens agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rlx.engine.model import ReadableModel
from rlx.engine.step import Engine
from rlx.errors import UserError
from rlx.numerics.collate import TokenSequence
from rlx.numerics.logprob_reader import logprob_reader
from rlx.rollout.sampler import Response

FIRST_STEPS = 3
"""Steps after the start of the process that are always watched."""
SEQUENCES = 8
"""Responses that each process compares, spread over its groups."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far log-probs may part (nats).

    Example:
        ``Tolerance(mean=1e-4, worst=2e-3)``
    """

    mean: float
    worst: float


TOLERANCES = {"float32": Tolerance(mean=1e-4, worst=2e-3), "bfloat16": Tolerance(mean=0.06, worst=2.0)}
"""By the sampler's type. Measured on SmolLM2-135M with the same weights: float32 parts by 3e-5, bfloat16 by .17, a
stale output layer by .28. Rounding of bfloat16 hides a weight that is stale by less than that."""


@dataclass(frozen=True, slots=True)
class SyncSchedule:
    """When to compare, and what is allowed.

    Example:
        ``SyncSchedule(TOLERANCES["float32"], every=25)``
    """

    tolerance: Tolerance
    every: int
    """Steps between comparisons after the first few; 0 is never."""

    def due(self, step: int, began: int) -> bool:
        """Whether the rollout of ``step`` is compared in a process that began behind step ``began``."""
        return step - began <= FIRST_STEPS or (self.every > 0 and step % self.every == 0)


def check_sync(
    sequences: Sequence[TokenSequence],
    responses: Sequence[Response],
    engine: Engine,
    temperature: float,
    tolerance: Tolerance,
    model: ReadableModel | None = None,
) -> dict[str, float]:
    """Compare the sampler's log-probs with the trainer's, on every process, before anything is trained on them.

    Args:
        sequences: prompts with the sampled tokens, this process's share.
        responses: the same as the sampler gave them.
        engine: the trainer with the weights that the sampler was given.
        temperature: of the sampling.
        tolerance: what is allowed.
        model: whose weights the sampler was given, if not the trainer's.

    Returns:
        ``sync/logprob_diff`` and ``sync/logprob_diff_max`` (nats) and ``sync/tokens``.

    Raises:
        UserError: when they part by more.
    """
    count = len(responses)
    chosen = sorted({place * count // SEQUENCES for place in range(SEQUENCES)}) if count else []
    apart = [torch.zeros(0)]
    for rows, (logprobs_n, _) in engine.score([sequences[b] for b in chosen], logprob_reader(temperature), model):
        sampled_n = torch.cat([torch.tensor(responses[chosen[row]].logprobs) for row in rows])
        apart.append((logprobs_n.float().cpu() - sampled_n).abs())
    apart_n = torch.cat(engine.gather([torch.cat(apart)]))
    mean, worst = float(apart_n.mean()), float(apart_n.max())
    if not (mean <= tolerance.mean and worst <= tolerance.worst):
        raise UserError(
            f"sampler and trainer part: their log-probs of {len(apart_n)} sampled tokens differ by {mean:.2g} nats on "
            f"average and {worst:.2g} at most, where {tolerance.mean:g} and {tolerance.worst:g} are allowed, so the "
            "sampler's copy of the weights is not the trainer's",
            fix="nothing was done with these samples; set rollout.engine=hf (evaluation.engine=hf in unlearning)",
            exit_code=1,
        )
    return {"sync/logprob_diff": mean, "sync/logprob_diff_max": worst, "sync/tokens": len(apart_n)}
