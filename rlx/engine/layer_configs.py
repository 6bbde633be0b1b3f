"""The configuration of each layer of a transformers model."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig


def layer_configs(config: PreTrainedConfig) -> list[Any]:
    """One configuration per layer of a model's text part; empty if its configuration names no number of layers.

    Most models have one for all layers. Some give layers sizes of their own (Gemma 4), and their common configuration
    refuses to be asked for them.
    """
    text = config.get_text_config()
    if getattr(text, "is_heterogeneous", False):
        return list(text.per_layer_config)
    layers = getattr(text, "num_hidden_layers", None)
    return [text] * layers if isinstance(layers, int) else []


def windows(config: PreTrainedConfig) -> list[int]:
    """The sizes of the attention windows that a model's configuration names (tokens)."""
    return [window for layer in layer_configs(config) if (window := getattr(layer, "sliding_window", None))]
