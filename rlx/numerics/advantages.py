"""Advantages from the rewards of a group of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

EPSILON = 1e-6
"""Added to standard deviations, in reward units (verl's value; TRL adds 1e-4)."""

WHITEN_EPSILON = 1e-8
"""Added to the variance by ``normalise_each`` (verl's value)."""


def grpo(rewards_qg: Tensor) -> Tensor:
    """A = (r - mean_g r) / (std_g r + 1e-6), std with n-1 (GRPO, arXiv 2402.03300, section 4.1.2).

    Args:
        rewards_qg: rewards [q, g], g >= 2.
    """
    return dr_grpo(rewards_qg) / (rewards_qg.std(dim=1, keepdim=True) + EPSILON)


def dr_grpo(rewards_qg: Tensor) -> Tensor:
    """A = r - mean_g r, without the division by the group's deviation (Dr. GRPO, arXiv 2503.20783, section 3.2).

    Args:
        rewards_qg: rewards [q, g], g >= 2.
    """
    # From each group's first reward: equal rewards then give exactly 0, and cost no forward pass, however they round.
    rise_qg = rewards_qg - rewards_qg[:, :1]
    return rise_qg - rise_qg.mean(dim=1, keepdim=True)


def rloo(rewards_qg: Tensor) -> Tensor:
    """A = r - mean of the group's other rewards (RLOO, arXiv 2402.14740, equation 7).

    Args:
        rewards_qg: rewards [q, g], g >= 2.
    """
    samples = rewards_qg.shape[1]
    return dr_grpo(rewards_qg) * (samples / (samples - 1))


def reinforce_pp(rewards_qg: Tensor) -> Tensor:
    """Rewards less their group's mean, whitened over the batch (REINFORCE++-baseline, arXiv 2501.03262).

    Every sample counts once; the official trainer whitens over tokens, which weighs a sample by its length.

    Args:
        rewards_qg: rewards [q, g], g >= 2.
    """
    # The batch's mean is 0 already: groups are of one size.
    centred_qg = dr_grpo(rewards_qg)
    return centred_qg / (centred_qg.std() + EPSILON)


def normalise_each(
    rewards_kqg: Tensor, weights: Sequence[float], lengths_qg: Tensor, advantage: Callable[[Tensor], Tensor]
) -> Tensor:
    r"""Each reward's advantages, added with weights and whitened over the batch's tokens (GDPO, arXiv 2601.05242).

    S = \sum_k w_k A(r_k);  A = (S - m) / sqrt(v + 1e-8), with m and v (n-1) the mean and variance of S over all
    response tokens, as verl 0.9.1 computes them (``verl/trainer/ppo/core_algos.py``, ``compute_gdpo_outcome_advantage``
    and ``masked_whiten``). A sample counts as often as it has tokens, so that m is not 0, and a group with equal
    rewards may have advantages other than 0. The paper's equation 6 counts every sample once.

    Args:
        rewards_kqg: k rewards of each sample [k, q, g], g >= 2.
        weights: weight of each reward.
        lengths_qg: length of each response (tokens) [q, g].
        advantage: ``grpo``, or ``dr_grpo`` (verl: ``norm_adv_by_std_in_grpo=False``).
    """
    sum_qg = torch.stack([w * advantage(r_qg) for w, r_qg in zip(weights, rewards_kqg, strict=True)]).sum(dim=0)
    tokens = lengths_qg.sum()
    centred_qg = sum_qg - (lengths_qg * sum_qg).sum() / tokens
    variance = (lengths_qg * centred_qg.square()).sum() / (tokens - 1)
    return centred_qg * (variance + WHITEN_EPSILON).rsqrt()


ADVANTAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "reinforce_pp": reinforce_pp,
}
