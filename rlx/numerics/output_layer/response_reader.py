"""Log-probs and entropies of a micro-batch's response tokens from its hidden states."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rlx.numerics.collate import TokenBatch
from rlx.numerics.output_layer.logprobs import Head, token_logprobs

Scored = tuple[Tensor, Tensor]
"""Log-probs and entropies of response tokens, both [n] (nats)."""
Read = Callable[[Tensor, Head, TokenBatch], Scored]
"""Hidden states [n, d], output layer and micro-batch to ``Scored``."""


def logprob_reader(temperature: float) -> Read:
    """Log-probs and entropies at the temperature the tokens were sampled at."""

    def read(hidden_nd: Tensor, head: Head, batch: TokenBatch) -> Scored:
        return token_logprobs(hidden_nd, batch.targets_n, head, temperature)

    return read
