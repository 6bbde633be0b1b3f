"""Models with random weights in the shapes of published ones."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config

from phases.harness import DEVICE, SMALL

QWEN2 = {"1.5b": (1536, 8960, 28, 12, False), "0.5b": (896, 4864, 24, 14, True)}
"""Hidden size, inner size, layers, query heads, tied embeddings; the first is DeepSeek-R1-Distill-Qwen-1.5B's."""
TINY = {
    "vocab_size": 4096,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}


def qwen2(size: str = "1.5b") -> Qwen2Config:
    """The configuration of Qwen2.5 with this size."""
    if SMALL:
        return Qwen2Config(**TINY, use_sliding_window=False, tie_word_embeddings=False)
    hidden, inner, layers, heads, tied = QWEN2[size]
    return Qwen2Config(
        vocab_size=151936,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        use_sliding_window=False,
        tie_word_embeddings=tied,
    )


def as_llama(config: Qwen2Config) -> LlamaConfig:
    """A Llama of the same sizes: transformers loads Qwen2's own tokenizer for a Qwen2, whatever its folder holds."""
    names = (*TINY, "tie_word_embeddings")
    return LlamaConfig(**{name: getattr(config, name) for name in names})


def llama_1b() -> LlamaConfig:
    """The configuration of Llama-3.2-1B."""
    if SMALL:
        return LlamaConfig(**TINY, tie_word_embeddings=True)
    return LlamaConfig(
        vocab_size=128_256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131_072,
        rope_theta=500_000.0,
        tie_word_embeddings=True,
    )


def random_model(config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> Any:
    """A causal language model with random weights on the device."""
    with torch.device(DEVICE):
        return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=dtype)
