"""The sections of a training spec about rewards and advantages."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.config import JsonDict

from rlx.specs.section import ADDED_LATER, Section

IDENTIFIED_AS: JsonDict = {"reinforce_pp_samples": "reinforce_pp", "reinforce_pp": "reinforce_pp_tokens"}
"""Advantages as a run's id names them: until the official whitening was added, ``reinforce_pp`` was that over samples,
so that finished runs keep their id, and a run with the official one has another."""


class Reward(Section):
    """The reward of a response."""

    name: str = "auto"
    """A registered reward or ``path/to/file.py:function``; ``auto`` is the default of the data."""
    overlong_buffer: float = Field(default=0.0, ge=0, lt=1)
    """Last fraction of max_new_tokens, over which a length penalty rises linearly from 0 to 1 (DAPO: .2); 0 is off."""
    mask_truncated: bool = False
    """Exclude responses truncated at max_new_tokens from the loss and its denominators."""
    special_tokens: Literal["strip", "keep"] = Field(default="strip", json_schema_extra=ADDED_LATER)
    """``keep``: the text that a reward gets contains special tokens, except the stop token."""
    timeout: float = Field(default=60.0, gt=0, json_schema_extra=ADDED_LATER)
    """Time limit of one call of a reward function (seconds)."""
    on_error: Literal["stop", "zero"] = Field(default="stop", json_schema_extra=ADDED_LATER)
    """If a reward raises, exceeds its time limit or returns no finite number: stop the run, or use 0 and count it."""
    workers: int = Field(default=0, ge=0, json_schema_extra=ADDED_LATER)
    """Processes that call reward functions; 0 calls them in the training process. Not part of the run's id."""


class WeightedReward(Section):
    """One of several rewards."""

    name: str = "auto"
    """As ``reward.name``."""
    weight: float = 1.0
    """Factor of this reward in the sum; 0 only logs it."""


class Advantage(Section):
    """How rewards become advantages."""

    name: Literal["grpo", "dr_grpo", "rloo", "opo", "grpo_passk", "reinforce_pp", "reinforce_pp_samples"] = Field(
        default="grpo", json_schema_extra={"identified_as": IDENTIFIED_AS}
    )
    """``grpo``: reward minus the group's mean, divided by the group's standard deviation; ``dr_grpo``: reward minus the
    group's mean; ``rloo``: reward minus the mean of the group's other responses; ``opo``: reward minus the group's mean
    weighted by length; ``grpo_passk``: for the group's best response its lead over the second, divided by the group's
    standard deviation, 0 for all others; ``reinforce_pp``: reward minus the group's mean, whitened over the batch's
    tokens; ``reinforce_pp_samples``: the same, but each response counts once in the standard deviation."""
    combine: Literal["sum", "normalise_each"] = Field(default="sum", json_schema_extra=ADDED_LATER)
    """With several rewards: ``sum`` computes advantages from their weighted sum; ``normalise_each`` computes the
    advantages of each reward, adds these with the weights and whitens the sum over the batch (GDPO)."""
