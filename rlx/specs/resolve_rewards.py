"""Resolution of the rewards of a training spec: default names, and settings that contradict each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlx.errors import UserError
from rlx.registry import get
from rlx.specs.train import Spec

EMBEDDED_DATA = "arithmetic"
"""Name of the embedded data and of its reward."""
NORMALISED = ("grpo", "dr_grpo")
"""Advantages that ``advantage.combine=normalise_each`` can compute for each reward."""


def fill_rewards(content: Mapping[str, Any], user_spec: Spec, source: str) -> dict[str, Any]:
    """Return the spec's content with every reward name ``auto`` replaced by the default of the data.

    Args:
        content: the spec's content so far.
        user_spec: the user's spec.
        source: the resolved ``data.source``.

    Raises:
        UserError: when both ``rewards`` and ``reward.name`` are given.
    """
    default = EMBEDDED_DATA if source == EMBEDDED_DATA else "boxed"
    if not user_spec.rewards:
        name = default if user_spec.reward.name == "auto" else user_spec.reward.name
        return {**content, "reward": {**content.get("reward", {}), "name": name}}
    if user_spec.reward.name != "auto":
        raise UserError(
            f"reward.name is '{user_spec.reward.name}', and rewards lists {len(user_spec.rewards)} more",
            fix="give either reward.name (--reward) or rewards",
        )
    rewards = [
        {"name": default if reward.name == "auto" else reward.name, "weight": reward.weight}
        for reward in user_spec.rewards
    ]
    return {**content, "rewards": rewards}


def reward_references(spec: Spec) -> dict[str, str]:
    """Return the references of all rewards under the spec keys that name them, such as ``rewards.1``."""
    if not spec.rewards:
        return {"reward": spec.reward.name}
    return {f"rewards.{index}": reward.name for index, reward in enumerate(spec.rewards)}


def check_rewards(spec: Spec) -> None:
    """Load every reward, and refuse settings that do not go together.

    Raises:
        UserError: naming the key, its value and the choices.
    """
    for key, reference in reward_references(spec).items():
        get("reward", reference, key=f"{key}.name")
    if spec.rewards and not any(reward.weight for reward in spec.rewards):
        raise UserError("every weight of rewards is 0, so nothing would be trained", fix="set one of them to 1.0")
    if spec.advantage.combine == "sum":
        return
    if spec.advantage.name not in NORMALISED:
        raise UserError(
            f"advantage.name is '{spec.advantage.name}', which does not go with advantage.combine=normalise_each",
            fix=f"choices: {', '.join(NORMALISED)}",
        )
    shaped = {
        f"reward.overlong_buffer={spec.reward.overlong_buffer}": spec.reward.overlong_buffer > 0,
        "algorithm.kl_in=reward": spec.algorithm.kl_in == "reward" and spec.algorithm.kl_coef > 0,
    }
    for setting, given in shaped.items():
        if given:
            raise UserError(
                f"{setting} changes the sum of the rewards, which advantage.combine=normalise_each does not use",
                fix="leave it out, or set advantage.combine=sum",
            )
