"""Log-probs of given tokens from hidden states, without ever allocating a [batch, time, vocabulary] tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from rlx.numerics.output_layer.entropy import entropies
from rlx.numerics.output_layer.fused import fused_logprobs, kernel_for
from rlx.numerics.output_layer.tiled import LinearLogprobs

CHUNK_ELEMENTS = 1 << 24
"""Largest tensor of soft-capped logits allocated at once: 16.8 million elements, 64 MiB in float32."""
KEPT_ELEMENTS = 1 << 26
"""Largest number of logits of a micro-batch that are stored for its backward pass instead of recomputed: 256 MiB in
float32. The output layer's product is a fifth of the computation of a model of 135M parameters for a token."""


@dataclass(frozen=True, slots=True)
class Head:
    """The output layer of a causal language model: logits = scale * softcap(W h + bias).

    Example:
        ``Head(weight_vd=lm.lm_head.weight)``
    """

    weight_vd: Tensor
    bias_v: Tensor | None = None
    softcap: float | None = None
    """Logits are squashed to softcap * tanh(logits / softcap) (Gemma 2)."""
    scale: float = 1.0
    """Logits are multiplied by this (Cohere, Granite)."""

    def logits(self, hidden_nd: Tensor) -> Tensor:
        """Logits [n, v] in float32 (float64 stays)."""
        logits_nv = linear(hidden_nd, self.weight_vd, self.bias_v)
        if logits_nv.dtype in (torch.bfloat16, torch.float16):
            logits_nv = logits_nv.float()
        logits_nv = logits_nv * self.scale if self.scale != 1.0 else logits_nv
        return logits_nv if self.softcap is None else self.softcap * torch.tanh(logits_nv / self.softcap)


def token_logprobs(hidden_nd: Tensor, targets_n: Tensor, head: Head, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log softmax(logits / temperature)[target] and the entropy of that softmax, both [n], in nats.

    The entropy carries no gradient. On CUDA in bfloat16, cut-cross-entropy computes the log-probs of an output layer
    without a bias if it is installed, and the entropy takes one more product. Otherwise, logits that are linear in the
    hidden state are computed in tiles of the vocabulary, with an explicit backward formula; the intermediate values are
    stored if the micro-batch has few enough logits, and recomputed otherwise. Soft-capped logits use autograd, in
    chunks of tokens.

    Args:
        hidden_nd: final hidden states of the positions that predict the targets.
        targets_n: token ids.
        head: the output layer.
        temperature: the sampling temperature, above 0.
    """
    if not len(targets_n):
        empty_n = hidden_nd.sum(dim=1)
        return empty_n, empty_n.detach()
    kernel = kernel_for(hidden_nd, head)
    if kernel is not None:
        return fused_logprobs(kernel, hidden_nd, targets_n, head, temperature), entropies(hidden_nd, head, temperature)
    if head.softcap is None:
        scale = head.scale / temperature
        keep = torch.is_grad_enabled() and len(targets_n) * head.weight_vd.shape[0] <= KEPT_ELEMENTS
        inputs = (hidden_nd, head.weight_vd, head.bias_v, targets_n, scale, keep)
        result: tuple[Tensor, Tensor] = LinearLogprobs.apply(*inputs)  # type: ignore[no-untyped-call]
        return result
    size = max(1, CHUNK_ELEMENTS // head.weight_vd.shape[0])
    parts = []
    for start in range(0, len(targets_n), size):
        hidden, targets = hidden_nd[start : start + size], targets_n[start : start + size]
        if torch.is_grad_enabled():
            parts.append(checkpoint(_chunk, hidden, targets, head, temperature, use_reentrant=False))
        else:
            parts.append(_chunk(hidden, targets, head, temperature))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _chunk(hidden_nd: Tensor, targets_n: Tensor, head: Head, temperature: float) -> tuple[Tensor, Tensor]:
    logits_nv = head.logits(hidden_nd)
    if temperature != 1.0:
        logits_nv = logits_nv / temperature
    logsumexp_n = torch.logsumexp(logits_nv, dim=-1)
    logprobs_n = logits_nv.gather(-1, targets_n[:, None]).squeeze(-1) - logsumexp_n
    with torch.no_grad():
        probs_nv = (logits_nv - logsumexp_n[:, None]).exp()
        entropy_n = logsumexp_n - (probs_nv * logits_nv).sum(dim=-1)
    return logprobs_n, entropy_n
