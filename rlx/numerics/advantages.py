"""Advantages from the rewards of a group of samples.

Each is a function of rewards [q, g], g >= 2, and of the responses' lengths in tokens [q, g], which most ignore.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

EPSILON = 1e-6
"""Added to standard deviations, in reward units (verl's value; TRL adds 1e-4)."""

WHITEN_EPSILON = 1e-8
"""Added to the variance over tokens (verl's value)."""

Advantage = Callable[[Tensor, Tensor], Tensor]
"""Rewards [q, g] and lengths [q, g] to advantages [q, g]."""


def grpo(rewards_qg: Tensor, lengths_qg: Tensor) -> Tensor:
    """A = (r - mean_g r) / (std_g r + 1e-6), std with n-1 (GRPO, arXiv 2402.03300, section 4.1.2)."""
    return dr_grpo(rewards_qg, lengths_qg) / (rewards_qg.std(dim=1, keepdim=True) + EPSILON)


def dr_grpo(rewards_qg: Tensor, lengths_qg: Tensor) -> Tensor:
    """A = r - mean_g r, without the division by the group's deviation (Dr. GRPO, arXiv 2503.20783, section 3.2)."""
    rise_qg = _rise(rewards_qg)
    return rise_qg - rise_qg.mean(dim=1, keepdim=True)


def rloo(rewards_qg: Tensor, lengths_qg: Tensor) -> Tensor:
    """A = r - mean of the group's other rewards (RLOO, arXiv 2402.14740, equation 7)."""
    samples = rewards_qg.shape[1]
    return dr_grpo(rewards_qg, lengths_qg) * (samples / (samples - 1))


def opo(rewards_qg: Tensor, lengths_qg: Tensor) -> Tensor:
    """A = r - sum_g l r / sum_g l, l the lengths: the optimal reward baseline (OPO, arXiv 2505.23585)."""
    rise_qg = _rise(rewards_qg)
    baseline_q = (lengths_qg * rise_qg).sum(dim=1) / lengths_qg.sum(dim=1).clamp(min=1)
    return rise_qg - baseline_q[:, None]


def grpo_passk(rewards_qg: Tensor, lengths_qg: Tensor) -> Tensor:
    """A = (highest - second highest reward) / (std_g r + 1e-6) for the best sample, 0 for others (arXiv 2503.19595).

    As verl 0.9.1 computes it (``compute_grpo_passk_outcome_advantage``). If the best reward is shared, all are 0.
    """
    top = rewards_qg.topk(2, dim=1)
    gap_q = (top.values[:, 0] - top.values[:, 1]) / (rewards_qg.std(dim=1) + EPSILON)
    return torch.zeros_like(rewards_qg).scatter(1, top.indices[:, :1], gap_q[:, None])


def reinforce_pp(rewards_qg: Tensor, lengths_qg: Tensor) -> Tensor:
    """Rewards less their group's mean, whitened over the batch's tokens (REINFORCE++-baseline, arXiv 2501.03262).

    As the paper's trainer and verl 0.9.1 compute it (``compute_reinforce_plus_plus_baseline_outcome_advantage``). A
    sample counts as often as it has tokens, so a group with equal rewards may have advantages other than 0.
    """
    return whiten_over_tokens(dr_grpo(rewards_qg, lengths_qg), lengths_qg)


def reinforce_pp_samples(rewards_qg: Tensor, lengths_qg: Tensor) -> Tensor:
    """Rewards less their group's mean, divided by their deviation over the batch's samples; each counts once."""
    # The batch's mean is 0 already: groups are of one size.
    centred_qg = dr_grpo(rewards_qg, lengths_qg)
    return centred_qg / (centred_qg.std() + EPSILON)


def whiten_over_tokens(values_qg: Tensor, lengths_qg: Tensor) -> Tensor:
    """(S - m) / sqrt(v + 1e-8), m and v (n-1) the mean and variance of the samples' values S over all response tokens.

    Args:
        values_qg: one value for all tokens of each sample.
        lengths_qg: number of tokens of each sample.
    """
    tokens = lengths_qg.sum()
    centred_qg = values_qg - (lengths_qg * values_qg).sum() / tokens.clamp(min=1)
    variance = (lengths_qg * centred_qg.square()).sum() / (tokens - 1).clamp(min=1)
    return centred_qg * (variance + WHITEN_EPSILON).rsqrt()


def normalise_each(rewards_kqg: Tensor, weights: Sequence[float], lengths_qg: Tensor, advantage: Advantage) -> Tensor:
    r"""Each reward's advantages, added with weights and whitened over the batch's tokens (GDPO, arXiv 2601.05242).

    S = \sum_k w_k A(r_k), then ``whiten_over_tokens``, as verl 0.9.1 computes it (``verl/trainer/ppo/core_algos.py``,
    ``compute_gdpo_outcome_advantage`` and ``masked_whiten``). A sample counts as often as it has tokens, so that m is
    not 0, and a group with equal rewards may have advantages other than 0. The paper's equation 6 counts every sample
    once.

    Args:
        rewards_kqg: k rewards of each sample [k, q, g], g >= 2.
        weights: weight of each reward.
        lengths_qg: length of each response (tokens) [q, g].
        advantage: ``grpo``, or ``dr_grpo`` (verl: ``norm_adv_by_std_in_grpo=False``).
    """
    parts = [w * advantage(r_qg, lengths_qg) for w, r_qg in zip(weights, rewards_kqg, strict=True)]
    return whiten_over_tokens(torch.stack(parts).sum(dim=0), lengths_qg)


def _rise(rewards_qg: Tensor) -> Tensor:
    """Rewards less each group's first: equal rewards then give exactly 0, and cost no forward pass, however rounded."""
    return rewards_qg - rewards_qg[:, :1]


ADVANTAGES: dict[str, Advantage] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "opo": opo,
    "grpo_passk": grpo_passk,
    "reinforce_pp": reinforce_pp,
    "reinforce_pp_samples": reinforce_pp_samples,
}
