"""Statistics of the logits, computed in chunks without a full [tokens, vocabulary] tensor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import embedding
from torch.utils.checkpoint import checkpoint

from rlx.numerics.output_layer.logprobs import CHUNK_ELEMENTS, Head


def over_logits(fn: Callable[..., Tensor], hidden_nd: Tensor, head: Head, *extras: Tensor) -> Tensor:
    """``fn(logits_nv, *extras)`` of every token, a chunk of logits at a time.

    Under a frozen head, a figure a token takes its gradient along on the way forward (each depends on its own hidden
    state alone), so that no logits are computed twice; otherwise a chunk's logits are recomputed in the backward pass.

    Args:
        fn: row-wise function of logits [n, v] and of the extras' rows, giving [n] or [n, ...].
        hidden_nd: final hidden states.
        head: the output layer.
        extras: constants whose first axis is n.
    """

    def part(hidden: Tensor, *rows: Tensor) -> Tensor:
        return fn(head.logits(hidden), *rows)

    size = max(1, CHUNK_ELEMENTS // head.weight_vd.shape[0])
    if not len(hidden_nd):
        return part(hidden_nd, *extras)
    trained = head.weight_vd.requires_grad or (head.bias_v is not None and head.bias_v.requires_grad)
    pieces = []
    for start in range(0, len(hidden_nd), size):
        rows = [tensor[start : start + size] for tensor in (hidden_nd, *extras)]
        if not torch.is_grad_enabled():
            pieces.append(part(*rows))
        elif trained or not hidden_nd.requires_grad:
            pieces.append(checkpoint(part, *rows, use_reentrant=False, preserve_rng_state=False))
        else:
            pieces.append(_with_gradient(part, *rows))
    return torch.cat(pieces)


def _with_gradient(part: Callable[..., Tensor], hidden_nd: Tensor, *rows: Tensor) -> Tensor:
    """``part(hidden_nd, *rows)`` whose graph holds d value / d hidden [n, d] in place of the logits."""
    leaf_nd = hidden_nd.detach().requires_grad_()
    values = part(leaf_nd, *rows)
    if values.dim() > 1:
        again: Tensor = checkpoint(part, hidden_nd, *rows, use_reentrant=False, preserve_rng_state=False)
        return again
    (slope_nd,) = torch.autograd.grad(values.sum(), leaf_nd)
    # Adds 0 to the value and slope . d hidden to the gradient.
    return values.detach() + ((hidden_nd - leaf_nd.detach()) * slope_nd).sum(dim=1, dtype=values.dtype)


def label_logprobs(hidden_nd: Tensor, labels_n: Tensor, head: Head) -> Tensor:
    """Log-probability log softmax(z)[label] of each token [n] (nats).

    Args:
        hidden_nd: final hidden states of the positions that predict the labels.
        labels_n: token ids.
        head: the output layer.
    """

    def logprob(logits_nv: Tensor, labels_n: Tensor) -> Tensor:
        return logits_nv.gather(1, labels_n[:, None]).squeeze(1) - logits_nv.logsumexp(dim=1)

    return over_logits(logprob, hidden_nd, head, labels_n)


def token_entropies(hidden_nd: Tensor, head: Head, temperature: float) -> Tensor:
    """Entropy of softmax(logits / temperature) of each token [n] (nats), differentiable.

    Args:
        hidden_nd: final hidden states.
        head: the output layer.
        temperature: the sampling temperature, above 0.
    """

    def entropy(logits_nv: Tensor) -> Tensor:
        own_nv = (logits_nv / temperature).log_softmax(dim=1)
        return -(own_nv.exp() * own_nv).sum(dim=1)

    return over_logits(entropy, hidden_nd, head)


def row_logits(hidden_nd: Tensor, ids_nk: Tensor, head: Head) -> Tensor:
    """Logits of the given vocabulary entries alone [n, k], from their k rows of the head.

    Exact for soft-capped heads too, since the cap acts on each logit by itself. The gathered rows [n, k, d] are cut
    into chunks and gathered again in the backward pass.

    Args:
        hidden_nd: final hidden states.
        ids_nk: vocabulary entries asked for at each token.
        head: the output layer.
    """

    def part(hidden: Tensor, ids: Tensor) -> Tensor:
        rows_nkd = embedding(ids, head.weight_vd)
        logits_nk = torch.bmm(rows_nkd, hidden.to(rows_nkd.dtype)[:, :, None]).squeeze(2)
        if head.bias_v is not None:
            logits_nk = logits_nk + head.bias_v[ids]
        if logits_nk.dtype in (torch.bfloat16, torch.float16):
            logits_nk = logits_nk.float()
        logits_nk = logits_nk * head.scale if head.scale != 1.0 else logits_nk
        return logits_nk if head.softcap is None else head.softcap * torch.tanh(logits_nk / head.softcap)

    if not ids_nk.numel():
        return hidden_nd.sum(dim=1, keepdim=True).expand(ids_nk.shape)
    size = max(1, CHUNK_ELEMENTS // (ids_nk.shape[1] * hidden_nd.shape[1]))
    pieces = []
    for start in range(0, len(hidden_nd), size):
        rows = hidden_nd[start : start + size], ids_nk[start : start + size]
        if torch.is_grad_enabled() and len(hidden_nd) > size:
            pieces.append(checkpoint(part, *rows, use_reentrant=False, preserve_rng_state=False))
        else:
            pieces.append(part(*rows))
    return torch.cat(pieces)


def mean_row(weight_vd: Tensor) -> Tensor:
    """Mean of an output layer's rows [d], in float32 at least."""
    return weight_vd.mean(dim=0, dtype=torch.promote_types(weight_vd.dtype, torch.float32))


def mean_logit(hidden_nd: Tensor, head: Head, mean_row_d: Tensor | None = None) -> Tensor:
    """Mean of the logits over the vocabulary [n] as h . mean_v(W) + mean_v(bias), without the logits.

    Exact because the mean is linear; a soft cap is not, and is refused.

    Args:
        hidden_nd: final hidden states.
        head: the output layer, without a soft cap.
        mean_row_d: ``mean_row(head.weight_vd)`` where the head is frozen and it was computed once; else it is computed
            here and its gradient reaches every row.
    """
    if head.softcap is not None:
        raise ValueError("the mean of soft-capped logits does not follow from the head's mean row")
    mean_d = mean_row(head.weight_vd) if mean_row_d is None else mean_row_d
    mean_n = hidden_nd.to(mean_d.dtype) @ mean_d
    return (mean_n if head.bias_v is None else mean_n + head.bias_v.mean()) * head.scale


def divergence(hidden_nd: Tensor, head: Head, other_nd: Tensor, other_head: Head, forward: bool) -> Tensor:
    """KL between the model's and another's next-token distributions at each token [n] (nats), chunk by chunk.

    Args:
        hidden_nd: the model's final hidden states.
        head: its output layer.
        other_nd: the other model's final hidden states at the same positions, constant.
        other_head: its output layer, constant.
        forward: True for KL(other || model), False for KL(model || other).
    """

    def kl(logits_nv: Tensor, other: Tensor) -> Tensor:
        own_nv = logits_nv.log_softmax(dim=1)
        with torch.no_grad():
            other_nv = other_head.logits(other).log_softmax(dim=1).to(own_nv.dtype)
        if forward:
            return (other_nv.exp() * (other_nv - own_nv)).sum(dim=1)
        return (own_nv.exp() * (own_nv - other_nv)).sum(dim=1)

    return over_logits(kl, hidden_nd, head, other_nd)
