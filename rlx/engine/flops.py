"""Floating-point operations of training a model on a sequence, and the peak rate of known GPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlx.engine.layer_configs import layer_configs
from rlx.engine.lora import LM
from rlx.engine.memory import experts_per_token

PEAK_TFLOPS: dict[str, tuple[float, float]] = {
    "NVIDIA H100 80GB HBM3": (989.4, 66.9),
    "NVIDIA H100 PCIe": (756.0, 51.0),
    "NVIDIA H200": (989.4, 66.9),
    "NVIDIA A100-SXM4-40GB": (312.0, 19.5),
    "NVIDIA A100-SXM4-80GB": (312.0, 19.5),
    "NVIDIA A100-PCIE-40GB": (312.0, 19.5),
    "NVIDIA A100 80GB PCIe": (312.0, 19.5),
    "NVIDIA A30": (165.0, 10.3),
    "NVIDIA A40": (149.7, 37.4),
    "NVIDIA L4": (121.0, 30.3),
    "NVIDIA L40S": (362.1, 91.6),
    "NVIDIA GeForce RTX 4090": (165.2, 82.6),
}
"""Peak TFLOP/s of a GPU in bfloat16 (tensor cores, dense, float32 accumulation) and in float32 (without TF32), by the
name that torch gives it.

Sources: NVIDIA's data sheets of the H100, H200, A100, A30, A40, L4 and L40S (where a sheet gives the rate with
sparsity, half of it), and the Ada architecture white paper, appendix A, for the RTX 4090.
"""


@dataclass(frozen=True, slots=True)
class Attention:
    """The attention layers of one kind.

    Example:
        32 layers with 32 heads of width 128 that see every earlier token: ``Attention(32, 4096, 4096, None)``
    """

    layers: int
    query_width: int
    """Query heads times the width of a query."""
    value_width: int
    """Query heads times the width of a value."""
    window: int | None
    """Tokens that a token sees, itself included; None if it sees all earlier ones."""


@dataclass(frozen=True, slots=True)
class ModelFlops:
    """What determines the operations of a forward and backward pass (``model_flops`` reads it from a model).

    Example:
        ``ModelFlops(body=101.2e6, body_trained=101.2e6, head=28.3e6, head_trained=28.3e6, attention=(...,))``
    """

    body: float
    """Weights of the matrix products that a token passes before the output layer: of experts only the active ones."""
    body_trained: float
    """Those of them that get a gradient."""
    head: float
    """Weights of the output layer."""
    head_trained: float
    attention: tuple[Attention, ...]

    def of_row(self, prompt: int, responses: Sequence[int]) -> float:
        r"""Operations of one row: a prompt and the responses that share it.

        With T tokens, R response tokens, P query-key pairs a layer, body weights N and output weights V:

            T (4 N + 2 N_trained) + R (4 V + 2 V_trained) + 6 sum_layers P (query_width + value_width)

        A product with n weights costs 2 n operations a token forward, 2 n for the gradient of its input and 2 n for
        that of its weights, so 6 n if they are trained. Recomputed activations are not counted: these are the model's
        operations, which do not depend on how they are carried out (Chowdhery et al. 2022, PaLM, appendix B).

        Args:
            prompt: tokens of the prompt.
            responses: tokens of each response; the last one is predicted but is no input.
        """
        tails = [max(response - 1, 0) for response in responses]
        flops = (prompt + sum(tails)) * (4 * self.body + 2 * self.body_trained)
        flops += sum(responses) * (4 * self.head + 2 * self.head_trained)
        for kind in self.attention:
            pairs = _pairs(0, prompt, kind.window) + sum(_pairs(prompt, tail, kind.window) for tail in tails)
            flops += 6 * kind.layers * pairs * (kind.query_width + kind.value_width)
        return flops


def _pairs(start: int, count: int, window: int | None) -> int:
    """Query-key pairs of ``count`` tokens from position ``start`` on, each of which sees itself and all before it."""
    end = start + count
    if window is None:
        return end * (end + 1) // 2 - start * (start + 1) // 2
    full = min(max(window, start), end)
    return _pairs(start, full - start, None) + (end - full) * window


def model_flops(lm: LM) -> ModelFlops:
    """Count the weights of a model's matrix products.

    All parameters of two or more dimensions of the decoder are such weights, except embeddings and biases. Operations
    that have none (attention, counted separately; the recurrence of state-space layers, not counted) are not included.

    Args:
        lm: a transformers causal language model, adapters inside or not, not sharded.
    """
    decoder, head = lm.get_decoder(), lm.get_output_embeddings()
    if decoder is head:  # ModernBERT calls its output layer decoder
        decoder = lm.base_model
    tables = {id(p) for module in decoder.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    head_ids = {id(parameter) for parameter in head.parameters()}
    active = experts_per_token(lm)
    body = body_trained = 0.0
    for name, parameter in decoder.named_parameters():
        if parameter.dim() < 2 or name.endswith("bias") or id(parameter) in tables | head_ids:
            continue
        weights = parameter.numel() * _active_share(name, parameter, active)
        body += weights
        body_trained += weights * parameter.requires_grad
    matrices = [parameter for parameter in head.parameters() if parameter.dim() == 2]
    return ModelFlops(
        body=body,
        body_trained=body_trained,
        head=sum(parameter.numel() for parameter in matrices),
        head_trained=sum(parameter.numel() for parameter in matrices if parameter.requires_grad),
        attention=_attention(layer_configs(lm.config)),
    )


def _active_share(name: str, parameter: torch.nn.Parameter, active: int) -> float:
    """The fraction of a parameter that one token passes: below 1 if it holds the weights of all experts."""
    stacked = parameter.dim() == 3 and "experts" in name.split(".")
    return min(active / parameter.shape[0], 1.0) if stacked and active else 1.0


def _attention(configs: Sequence[Any]) -> tuple[Attention, ...]:
    """The attention layers that the layers' configurations describe, by widths and window."""
    layers: Counter[tuple[int, int, int | None]] = Counter()
    for index, config in enumerate(configs):
        heads = getattr(config, "num_attention_heads", None)
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * len(configs)
        if isinstance(heads, int) and kinds[index] in ("full_attention", "sliding_attention"):
            width = getattr(config, "head_dim", None) or config.hidden_size // heads
            query = getattr(config, "qk_head_dim", None) or width
            value = getattr(config, "v_head_dim", None) or width
            window = getattr(config, "sliding_window", None) if kinds[index] == "sliding_attention" else None
            layers[heads * query, heads * value, window] += 1
    return tuple(Attention(n, query, value, window) for (query, value, window), n in layers.items())


def peak_flops(name: str, bfloat16: bool) -> float | None:
    """Peak operations per second of the GPU with this name (``PEAK_TFLOPS``); None for an unknown one.

    Args:
        name: the full name from ``torch.cuda.get_device_name``; a part of a GPU (MIG) has another one.
        bfloat16: whether matrix products are computed in bfloat16, else float32.
    """
    peaks = PEAK_TFLOPS.get(name)
    return None if peaks is None else peaks[0 if bfloat16 else 1] * 1e12


def device_peak(device: torch.device, bfloat16: bool) -> float | None:
    """``peak_flops`` of a device; None for a CPU."""
    return peak_flops(torch.cuda.get_device_name(device), bfloat16) if device.type == "cuda" else None
