"""Switch the recomputation of activations of a transformers model, under its old and its new name.

Newer versions of transformers (5.24 is one) warn of ``gradient_checkpointing_enable`` and have
``activation_checkpointing_enable``; older ones (5.19) have only the former.
"""

from __future__ import annotations

from typing import Any

OPTIONS = {"use_reentrant": False}
"""Arguments of ``torch.utils.checkpoint.checkpoint``."""


def enable_checkpointing(lm: Any) -> None:
    """Recompute the activations of each layer in the backward pass.

    Raises:
        ValueError: if the architecture does not support it.
    """
    if hasattr(lm, "activation_checkpointing_enable"):
        lm.activation_checkpointing_enable(activation_checkpointing_kwargs=OPTIONS)
    else:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs=OPTIONS)


def disable_checkpointing(lm: Any) -> None:
    """Keep all activations for the backward pass."""
    if hasattr(lm, "activation_checkpointing_disable"):
        lm.activation_checkpointing_disable()
    else:
        lm.gradient_checkpointing_disable()


def recomputes_activations(lm: Any) -> bool:
    """Return whether any layer recomputes its activations."""
    return any(getattr(module, "gradient_checkpointing", False) for module in lm.modules())
