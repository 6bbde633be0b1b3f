"""How far an update has moved each token from the old policy, and what weight its loss gives the tokens: ``trust/*``.

The same for every policy loss: the region is 0.8 <= r <= 1.2 whatever the method's own bounds are, and only tokens with
A != 0 count. Sums and the histogram add up over micro-batches, processes and updates; ``trust_metrics`` divides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rlx.numerics.kl import kl_k3
from rlx.numerics.ratio import LOG_RATIO_LIMIT, log_ratio

REGION = (0.8, 1.2)
"""Ratios inside of the region."""
PREFIX = "trust/"
SIDES = ("low_neg", "low_pos", "high_neg", "high_pos")
"""Side of the region (r < 0.8, r > 1.2) and sign of the advantage."""
BINS = 1025
"""Bins of the histogram of log r. The number is odd, so that r = 1 is the centre of a bin."""
LINEAR = 0.05
"""Bins have equal widths in sign(l) log(1 + |l| / LINEAR), l = log r: .06 % of r at r = 1, .3 % at 1.2, 1.2 % at 3."""
RANGE = math.log1p(LOG_RATIO_LIMIT / LINEAR)


def gradient_weights(loss_bt: Tensor, logprobs_bt: Tensor, adv_bt: Tensor, mask_bt: Tensor) -> Tensor:
    """The weight d(-sum loss) / d log pi / A of each token [b, t], by autograd; 0 where masked or A = 0.

    1 is the plain policy gradient, r is importance sampling, 0 a token without influence. Only the graph between the
    log-probs and the loss is traversed, and it is kept for the backward pass.

    Args:
        loss_bt: per-token loss, before the reduction.
        logprobs_bt: the log-probs that it was computed from.
        adv_bt: advantages.
        mask_bt: True at response tokens.
    """
    zero_bt = torch.zeros_like(adv_bt)
    loss = torch.where(mask_bt, loss_bt, torch.zeros_like(loss_bt)).sum()
    (slope_bt,) = torch.autograd.grad(loss, logprobs_bt, retain_graph=True)
    trained_bt = mask_bt & (adv_bt != 0)
    return torch.where(trained_bt, -slope_bt / torch.where(trained_bt, adv_bt, torch.ones_like(adv_bt)), zero_bt)


def trust_sums(
    weights_bt: Tensor, logprobs_bt: Tensor, old_bt: Tensor, adv_bt: Tensor, mask_bt: Tensor
) -> dict[str, Tensor]:
    """Sums over the tokens with A != 0, from which ``trust_metrics`` computes the metrics.

    Args:
        weights_bt: see ``gradient_weights``.
        logprobs_bt: current log-probs, nats.
        old_bt: old log-probs, nats.
        adv_bt: advantages.
        mask_bt: True at response tokens.
    """
    logprobs_bt = logprobs_bt.detach()
    ratio_bt = log_ratio(logprobs_bt, old_bt).exp()
    trained_bt = mask_bt & (adv_bt != 0)
    low_bt, high_bt = ratio_bt < REGION[0], ratio_bt > REGION[1]
    outside_bt = low_bt | high_bt
    # In float64: a ratio may be e^20, and its square is summed.
    wide_bt = ratio_bt.double() * trained_bt
    sums = {
        "tokens": trained_bt.sum(),
        "low_neg": (trained_bt & low_bt & (adv_bt < 0)).sum(),
        "low_pos": (trained_bt & low_bt & (adv_bt > 0)).sum(),
        "high_neg": (trained_bt & high_bt & (adv_bt < 0)).sum(),
        "high_pos": (trained_bt & high_bt & (adv_bt > 0)).sum(),
        "weight_outside": (weights_bt * outside_bt).double().sum(),
        "weight_inside": (weights_bt * ~outside_bt).double().sum(),
        "kl_old": (kl_k3(old_bt, logprobs_bt) * trained_bt).double().sum(),
        "ratio": wide_bt.sum(),
        "ratio_squared": wide_bt.square().sum(),
    }
    return {PREFIX + name: value for name, value in sums.items()}


def ratio_histogram(logprobs_bt: Tensor, old_bt: Tensor, adv_bt: Tensor, mask_bt: Tensor) -> Tensor:
    """Number of tokens with A != 0 in each bin of log r [BINS] (float64).

    Args:
        logprobs_bt: current log-probs, nats.
        old_bt: old log-probs, nats.
        adv_bt: advantages.
        mask_bt: True at response tokens.
    """
    difference_bt = log_ratio(logprobs_bt.detach(), old_bt)
    position_bt = difference_bt.sign() * torch.log1p(difference_bt.abs() / LINEAR)
    bin_bt = ((position_bt / RANGE + 1) * (BINS / 2)).long().clamp(0, BINS - 1)
    counts = torch.zeros(BINS, dtype=torch.float64, device=logprobs_bt.device)
    return counts.scatter_add_(0, bin_bt.flatten(), (mask_bt & (adv_bt != 0)).double().flatten())


def ratio_quantile(histogram: Sequence[float], share: float) -> float:
    """The ratio below which this share of the tokens lies, to the width of a bin; 1 without tokens.

    Args:
        histogram: see ``ratio_histogram``.
        share: between 0 and 1.
    """
    target, below = share * sum(histogram), 0.0
    for index, tokens in enumerate(histogram):
        below += tokens
        if tokens and below >= target:
            position = ((index + 0.5) * 2 / BINS - 1) * RANGE
            return math.exp(math.copysign(LINEAR * math.expm1(abs(position)), position))
    return 1.0


def trust_metrics(sums: Mapping[str, float], histogram: Sequence[float] | None = None) -> dict[str, float]:
    """The metrics ``trust/*`` from the totals of ``trust_sums`` and ``ratio_histogram``; empty without tokens.

    The shares of tokens outside of the region by side and sign, the mean weight of the tokens outside (if there are
    any) and inside, the KL divergence from the old policy (nats, k3), the effective sample size (sum r)^2 / (n sum
    r^2), a share of the tokens, and the 99th percentile of r.
    """
    total = {name.removeprefix(PREFIX): value for name, value in sums.items() if name.startswith(PREFIX)}
    tokens = total.get("tokens", 0.0)
    if not tokens:
        return {}
    metrics = {name: total[name] / tokens for name in (*SIDES, "kl_old")}
    outside = sum(total[side] for side in SIDES)
    for name, count in (("weight_outside", outside), ("weight_inside", tokens - outside)):
        if count:
            metrics[name] = total[name] / count
    metrics["ess"] = total["ratio"] ** 2 / (tokens * total["ratio_squared"])
    if histogram is not None:
        metrics["ratio_p99"] = ratio_quantile(histogram, 0.99)
    return {PREFIX + name: value for name, value in metrics.items()}
