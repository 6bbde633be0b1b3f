"""Log-probs and entropies of a micro-batch's response tokens from its hidden states."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rlx.numerics.collate import TokenBatch
from rlx.numerics.output_layer.logprobs import Head, token_logprobs
from rlx.numerics.output_layer.statistics import token_entropies

Scored = tuple[Tensor, Tensor]
"""Log-probs and entropies of response tokens, both [n] (nats)."""
Read = Callable[[Tensor, Head, TokenBatch], Scored]
"""Hidden states [n, d], output layer and micro-batch to ``Scored``."""


def logprob_reader(temperature: float, entropy_gradient: bool = False) -> Read:
    """Log-probs and entropies at the temperature the tokens were sampled at.

    Args:
        temperature: the sampling temperature, above 0.
        entropy_gradient: whether the entropies are differentiable, which takes one more product of the output layer.
    """

    def read(hidden_nd: Tensor, head: Head, batch: TokenBatch) -> Scored:
        logprobs_n, entropy_n = token_logprobs(hidden_nd, batch.targets_n, head, temperature)
        if entropy_gradient:
            entropy_n = token_entropies(hidden_nd, head, temperature)
        return logprobs_n, entropy_n

    return read
