"""Rewards of a group of samples to their advantages."""

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
    return rewards_qg - rewards_qg.mean(dim=1, keepdim=True)


ADVANTAGES: dict[str, Callable[[Tensor], Tensor]] = {"grpo": grpo, "dr_grpo": dr_grpo}
