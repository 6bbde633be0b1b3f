"""Log-probs by a kernel that writes no logits to memory, where one can be used: cut-cross-entropy on CUDA.

13,200 tokens x 151,936, forward and backward on an H100 with random weights, kernel called alone: 54.8 ms, where the
tiles of ``LinearLogprobs`` took 97 to 120. The functions of this file have not been run on a GPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlx.numerics.output_layer.tiled import product_dtype

if TYPE_CHECKING:
    from rlx.numerics.output_layer.logprobs import Head

Kernel = Callable[..., Tensor]
"""``linear_cross_entropy`` of cut-cross-entropy (arXiv 2411.09009): -log softmax(softcap(W h))[target]."""
DEVICES = {"cuda"}
"""Types of device on which the kernel runs."""
DTYPES = {torch.bfloat16}
"""Types of its inputs: its backward pass has no kernel for float32, and float16 has not been tried."""


@cache
def installed_kernel() -> Kernel | None:
    """cut-cross-entropy's function, or None if the package (``pip install 'rlx[fast]'``) cannot be imported."""
    try:
        kernel: Kernel = importlib.import_module("cut_cross_entropy").linear_cross_entropy
    except ImportError:
        return None
    return kernel


def kernel_for(hidden_nd: Tensor, head: Head) -> Kernel | None:
    """The kernel, if it is installed and supports the device, the type of the products and the output layer.

    It is not used under ``torch.use_deterministic_algorithms``: its gradients may differ from run to run.

    Args:
        hidden_nd: final hidden states.
        head: the output layer; the kernel has no bias.
    """
    supported = hidden_nd.device.type in DEVICES and product_dtype(hidden_nd) in DTYPES and head.bias_v is None
    return installed_kernel() if supported and not torch.are_deterministic_algorithms_enabled() else None


def fused_logprobs(kernel: Kernel, hidden_nd: Tensor, targets_n: Tensor, head: Head, temperature: float) -> Tensor:
    """Log softmax(logits / temperature)[target] of each token [n] (nats), differentiable.

    softcap(s W h) / T = (c / T) tanh((s / T) W h / (c / T)), so the scale s and the temperature T become a factor of
    the hidden states, and the kernel's soft cap is c / T.

    In version 25.1.1 the gradients are not exact: tiles of the vocabulary in which every |softmax - onehot| is below
    2^-12 are skipped, and sums over tiles are rounded to bfloat16 in an order that may differ from run to run.

    Args:
        kernel: see ``Kernel``.
        hidden_nd: final hidden states of the positions that predict the targets.
        targets_n: token ids.
        head: the output layer, without a bias.
        temperature: the sampling temperature, above 0.
    """
    dtype, scale = product_dtype(hidden_nd), head.scale / temperature
    softcap = None if head.softcap is None else head.softcap / temperature
    with torch.autocast(hidden_nd.device.type, enabled=False):
        scaled_nd = hidden_nd if scale == 1.0 else hidden_nd * scale
        nll_n = kernel(scaled_nd.to(dtype), head.weight_vd.to(dtype), targets_n, softcap=softcap, reduction="none")
    return -nll_n
