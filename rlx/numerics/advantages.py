"""Advantages from the rewards of a group of samples."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

EPSILON = 1e-6
"""Added to standard deviations, in reward units (verl's value; TRL adds 1e-4)."""


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


ADVANTAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "reinforce_pp": reinforce_pp,
}
