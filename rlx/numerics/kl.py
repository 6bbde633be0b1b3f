"""Per-token estimates of KL(policy || reference) from log-probs of sampled tokens (joschu.net/blog/kl-approx.html)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

KLForm = Literal["k1", "k2", "k3", "abs"]


def kl_k1(logprobs_bt: Tensor, ref_logprobs_bt: Tensor) -> Tensor:
    """k1 = log pi - log ref: unbiased, may be negative (nats)."""
    return logprobs_bt - ref_logprobs_bt


def kl_k2(logprobs_bt: Tensor, ref_logprobs_bt: Tensor) -> Tensor:
    """k2 = (log pi - log ref)^2 / 2: biased, its gradient is that of the reverse KL (nats)."""
    return 0.5 * (logprobs_bt - ref_logprobs_bt).square()


def kl_k3(logprobs_bt: Tensor, ref_logprobs_bt: Tensor) -> Tensor:
    """k3 = exp(d) - d - 1 with d = log ref - log pi: unbiased, never negative (nats).

    d is clamped to +-20 and the result to +-10, as in verl's ``kl_penalty`` (low_var_kl).
    """
    log_ratio_bt = (ref_logprobs_bt - logprobs_bt).clamp(-20.0, 20.0)
    return (log_ratio_bt.exp() - log_ratio_bt - 1.0).clamp(-10.0, 10.0)


def kl_abs(logprobs_bt: Tensor, ref_logprobs_bt: Tensor) -> Tensor:
    """|log pi - log ref| (nats)."""
    return (logprobs_bt - ref_logprobs_bt).abs()


KL_FORMS: dict[KLForm, Callable[[Tensor, Tensor], Tensor]] = {
    "k1": kl_k1,
    "k2": kl_k2,
    "k3": kl_k3,
    "abs": kl_abs,
}
