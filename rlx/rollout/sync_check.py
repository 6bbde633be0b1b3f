"""The check that the sampler's copy of the weights is the trainer's: their log-probs of the same tokens must agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rlx.engine.model import ReadableModel
from rlx.engine.step import Engine
from rlx.errors import UserError
from rlx.numerics.collate import TokenSequence
from rlx.numerics.output_layer.response_reader import logprob_reader
from rlx.rollout.sampler import Response

FIRST_STEPS = 3
"""Number of steps after the start of the process that are always checked."""
SEQUENCES = 8
"""Number of responses that each process compares, spread over its groups."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest allowed difference of log-probs (nats).

    Example:
        ``Tolerance(mean=1e-4, worst=2e-3)``
    """

    mean: float
    worst: float


TOLERANCES = {"float32": Tolerance(mean=1e-4, worst=2e-3), "bfloat16": Tolerance(mean=0.06, worst=2.0)}
"""Tolerance by the sampler's dtype. Measured on SmolLM2-135M: differences of 3e-5 in float32, .17 in bfloat16, and .28
with a stale output layer. The rounding of bfloat16 hides a stale weight whose effect is smaller than that."""


@dataclass(frozen=True, slots=True)
class SyncSchedule:
    """When log-probs are compared, and the allowed difference.

    Example:
        ``SyncSchedule(TOLERANCES["float32"], every=25)``
    """

    tolerance: Tolerance
    every: int
    """Steps between comparisons after the first few; 0 turns them off."""

    def due(self, step: int, began: int) -> bool:
        """Whether the rollout of ``step`` is compared in a process that started after step ``began``."""
        return step - began <= FIRST_STEPS or (self.every > 0 and step % self.every == 0)


def check_sync(
    sequences: Sequence[TokenSequence],
    responses: Sequence[Response],
    engine: Engine,
    temperature: float,
    tolerance: Tolerance,
    model: ReadableModel | None = None,
) -> dict[str, float]:
    """Compare the sampler's log-probs with the trainer's on every process, before an update uses the samples.

    Args:
        sequences: prompts with the sampled tokens, on this process.
        responses: the sampler's output for them.
        engine: the trainer, with the weights that the sampler was given.
        temperature: the sampling temperature.
        tolerance: the largest allowed difference.
        model: the model whose weights the sampler was given, if it is not the trainer's.

    Returns:
        ``sync/logprob_diff`` and ``sync/logprob_diff_max`` (nats) and ``sync/tokens``.

    Raises:
        UserError: when they differ by more.
    """
    count = len(responses)
    compared = sorted({index * count // SEQUENCES for index in range(SEQUENCES)}) if count else []
    differences = [torch.zeros(0)]
    for rows, (logprobs_n, _) in engine.score([sequences[b] for b in compared], logprob_reader(temperature), model):
        sampled_n = torch.cat([torch.tensor(responses[compared[row]].logprobs) for row in rows])
        differences.append((logprobs_n.float().cpu() - sampled_n).abs())
    differences_n = torch.cat(engine.gather([torch.cat(differences)]))
    mean, worst = float(differences_n.mean()), float(differences_n.max())
    if not (mean <= tolerance.mean and worst <= tolerance.worst):
        raise UserError(
            f"sampler and trainer disagree: their log-probs of {len(differences_n)} sampled tokens differ by "
            f"{mean:.2g} nats on average and {worst:.2g} at most, where {tolerance.mean:g} and {tolerance.worst:g} are "
            "allowed, so the sampler's copy of the weights is not the trainer's",
            fix="these samples were not used; set rollout.engine=hf (evaluation.engine=hf in unlearning)",
            exit_code=1,
        )
    return {"sync/logprob_diff": mean, "sync/logprob_diff_max": worst, "sync/tokens": len(differences_n)}
