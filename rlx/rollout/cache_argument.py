"""The name under which a model's forward takes and returns its cache: ``cache`` in newer versions of transformers."""

from __future__ import annotations

import inspect

from torch import nn

from rlx.engine.lora import causal_lm

CACHE_NAMES = ("past_key_values", "cache_params", "state", "cache")
"""``cache`` is last: in an older transformers (5.19) a few models have it in addition, for something else."""


def cache_argument(lm: nn.Module) -> str:
    """Return the keyword of ``lm.forward`` for the cache, which is also the output's attribute.

    Args:
        lm: a causal language model, inside peft's wrapper or not.

    Raises:
        ValueError: if the forward takes no cache.
    """
    accepted = inspect.signature(causal_lm(lm).forward).parameters
    name = next((name for name in CACHE_NAMES if name in accepted), None)
    if name is None:
        raise ValueError("the model's forward takes no cache")
    return name
