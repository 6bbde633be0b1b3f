"""How much memory an update needs, how much is free, and whether to recompute activations to make it fit."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import nn

from rlx.engine.lora import LM, causal_lm, has_adapters
from rlx.engine.model import recompute_activations
from rlx.numerics.output_layer.logprobs import CHUNK_ELEMENTS
from rlx.specs.train import Model

GIB = 1 << 30
"""Bytes of one GiB."""
FREE_SHARE = 0.9
"""Fraction of the free memory that an estimate may use; the remainder is for fragments, kernels' buffers and errors of
the estimate."""
MASTER_BYTES = 4
"""Bytes of a weight, a gradient and of each of AdamW's two moments (float32)."""


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """The sizes of a model on which the memory of an update depends.

    Example:
        Llama 3.2 1B: ``ModelSizes(layers=16, hidden=2048, inner=8192, queries=2048, keys=512, vocabulary=128256,
        parameters=1235814400, trained=1235814400)``
    """

    layers: int
    hidden: int
    inner: int
    """Neurons of a layer's feed-forward block that one token passes; of all its active experts together."""
    queries: int
    """Query heads times head width."""
    keys: int
    """Key heads times head width."""
    vocabulary: int
    parameters: int
    trained: int
    """Parameters that get a gradient."""
    routed: int = 0
    """Experts that one token is sent to in a mixture of experts."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The settings of a run on which the memory of an update depends.

    Example:
        ``Setting(tokens=16384, bytes_per_value=2, shards=8)``
    """

    tokens: int
    """Tokens of one micro-batch, padding counted."""
    bytes_per_value: int
    """Bytes of a number that matrix products read: 2 with autocast to bfloat16, else 4."""
    shards: int = 1
    """Number of processes that gradients and optimiser states are divided over."""
    on_device: bool = True
    """False if gradients and optimiser states are kept in main memory (``sharding.offload``)."""


def layer_bytes(sizes: ModelSizes, setting: Setting) -> int:
    r"""Bytes that autograd keeps of one layer for a micro-batch, without recomputation.

    Counted operation by operation for a Llama block of transformers, as Korthikanti et al. 2022 (arXiv 2205.05198,
    section 4.1) do for a GPT block. With hidden size d, f neurons, q and k the widths of all query and key heads, r
    experts a token and c bytes per value, each token keeps

        2 (8 + c) d + c (2 q + 2 k + 4 f + 2 r d)

    Each of the two norms keeps its input and the normalised input in float32, and its output as the input of the
    matrix products. Attention keeps q, k, v and its output, but no scores: its kernels recompute them. The gated
    feed-forward keeps the gate, its activation, the other factor and their product; a mixture of experts also the
    copies of the hidden state that it sends to the experts and gets back.
    """
    d, f, q, k, c = sizes.hidden, sizes.inner, sizes.queries, sizes.keys, setting.bytes_per_value
    return setting.tokens * (2 * (8 + c) * d + c * (2 * q + 2 * k + 4 * f + 2 * sizes.routed * d))


def activation_bytes(sizes: ModelSizes, setting: Setting, checkpointing: bool) -> int:
    """Bytes of one micro-batch between its forward and backward pass.

    Without recomputation: all layers, the final norm, one chunk of the output layer (logits, their gradient and a
    temporary, in float32) and, under autocast, the cast copy of the weights. With recomputation: the input of every
    layer in float32, and all values and weights of one layer.
    """
    d, c = sizes.hidden, setting.bytes_per_value
    casts = c * sizes.parameters if c < MASTER_BYTES else 0
    output = setting.tokens * (8 + c) * d + 3 * 4 * min(setting.tokens * sizes.vocabulary, CHUNK_ELEMENTS)
    if checkpointing:
        inputs = 4 * setting.tokens * d * sizes.layers
        return inputs + layer_bytes(sizes, setting) + casts // max(sizes.layers, 1) + output
    return sizes.layers * layer_bytes(sizes, setting) + casts + output


def state_bytes(sizes: ModelSizes, setting: Setting) -> int:
    """Bytes of the gradients and of AdamW's two moments, none of which exist when the engine is built."""
    return 3 * MASTER_BYTES * sizes.trained // setting.shards if setting.on_device else 0


def update_bytes(sizes: ModelSizes, setting: Setting, checkpointing: bool) -> int:
    """Bytes that an update needs in addition to the weights."""
    return activation_bytes(sizes, setting, checkpointing) + state_bytes(sizes, setting)


def weight_bytes(sizes: ModelSizes, setting: Setting) -> int:
    """Bytes of the float32 weights; if they are sharded, also of the unsharded copy for the sampler."""
    shards = MASTER_BYTES * sizes.parameters // setting.shards if setting.on_device else 0
    return shards + (MASTER_BYTES * sizes.parameters if setting.shards > 1 else 0)


def needs_checkpointing(sizes: ModelSizes, setting: Setting, free: int) -> bool:
    """Whether an update fits into ``free`` bytes only if activations are recomputed, or not even then."""
    return update_bytes(sizes, setting, checkpointing=False) > FREE_SHARE * free


def prepare_memory(
    model: LM, spec: Model, setting: Setting, device: torch.device, agree: Callable[[bool], bool]
) -> int | None:
    """Switch on the recomputation of activations if ``gradient_checkpointing: auto`` and an update needs it to fit.

    Args:
        model: the model on its device, adapters inside or not, before its gradients and optimiser states exist.
        spec: the spec's model section.
        setting: tokens and precision.
        device: whose free memory counts.
        agree: True on all processes if it is true on any.

    Returns:
        The estimated bytes of weights and update; None if they cannot be estimated.
    """
    lm = causal_lm(model)
    sizes = model_sizes(lm, model)
    recompute = spec.gradient_checkpointing is True
    if spec.gradient_checkpointing == "auto":
        needed = sizes is not None and needs_checkpointing(sizes, setting, free_bytes(device))
        recompute = agree(needed) and lm.supports_gradient_checkpointing
        if recompute:
            recompute_activations(lm, spec.path)
            if has_adapters(model):
                lm.enable_input_require_grads()
    return None if sizes is None else weight_bytes(sizes, setting) + update_bytes(sizes, setting, recompute)


def model_sizes(lm: LM, parts: nn.Module) -> ModelSizes | None:
    """The sizes of a transformers causal language model, from its configuration.

    For layers other than attention and feed-forward (state-space models) the estimate is rough.

    Args:
        lm: the causal language model.
        parts: the module whose parameters are counted: the model with its adapters.

    Returns:
        None if the configuration does not name the number of layers.
    """
    configs = layer_configs(lm.config.get_text_config())
    if not configs:
        return None
    vocabulary, hidden = lm.get_input_embeddings().weight.shape
    heads = _number(configs, "num_attention_heads", 1)
    head_width = _number(configs, "head_dim", hidden // heads)
    routed = experts_per_token(lm)
    inner = _number(configs, "intermediate_size", 4 * hidden)
    if routed:
        inner = routed * _number(configs, "moe_intermediate_size", inner)
        inner += _number(configs, "shared_expert_intermediate_size", 0)
    parameters = list(parts.parameters())
    return ModelSizes(
        layers=len(configs),
        hidden=hidden,
        inner=inner,
        queries=heads * head_width,
        keys=_number(configs, "num_key_value_heads", heads) * head_width,
        vocabulary=vocabulary,
        parameters=sum(parameter.numel() for parameter in parameters),
        trained=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        routed=routed,
    )


def experts_per_token(lm: LM) -> int:
    """Experts that the router sends a token to; 0 for a model without experts."""
    configs = layer_configs(lm.config.get_text_config())
    names = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")
    has_experts = any(type(module).__name__.endswith("Experts") for module in lm.modules())
    return max(_number(configs, name, 0) for name in names) if has_experts else 0


def layer_configs(config: Any) -> list[Any]:
    """The configuration of each layer: the text configuration itself, unless it has another one for each (Gemma 4)."""
    layers = getattr(config, "num_hidden_layers", None)
    if not isinstance(layers, int):
        return []
    if getattr(config, "is_heterogeneous", False):
        return [config.per_layer_config[layer] for layer in range(layers)]
    return [config] * layers


def _number(configs: list[Any], name: str, default: int) -> int:
    """The largest value of the layers' configurations, each of which may lack it or give a list."""
    values = [getattr(config, name, None) for config in configs]
    flat = [number for value in values for number in (value if isinstance(value, list | tuple) else [value])]
    return max((number for number in flat if isinstance(number, int) and number > 0), default=default)


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on the device, or in main memory for a CPU."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return int(psutil.virtual_memory().available)


def reset_peak(device: torch.device) -> None:
    """Start a new measurement of ``peak_bytes``; does nothing on a CPU, whose peak covers the whole process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """Most bytes allocated on the GPU since ``reset_peak``; on a CPU the largest resident size of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest << 10
