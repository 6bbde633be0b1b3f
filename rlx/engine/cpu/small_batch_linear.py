"""Linear layers over few rows, such as one new token of each of a few dozen sequences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

MAX_ROWS = 128
"""Largest number of rows for which the other order of the product is used. Seven layers of SmolLM2-135M's sizes, thirty
times, on a CPU without AVX-512: 64 rows take 107 ms instead of 161, 32 take 67 instead of 100, 512 take 709 instead
of 762."""


@contextmanager
def small_batch_linears(lm: nn.Module) -> Iterator[None]:
    """Within this context the model's float32 linear layers compute few rows as (W x^T)^T: the same to rounding.

    Intel's library, which torch's CPU build calls, is tuned for left factors that have many rows.
    """
    layers = [layer for layer in lm.modules() if type(layer) is nn.Linear and _applies_to(layer.weight)]
    for layer in layers:
        vars(layer)["forward"] = partial(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


def _applies_to(weight_oi: Tensor) -> bool:
    return weight_oi.device.type == "cpu" and weight_oi.dtype == torch.float32


def _forward(layer: nn.Linear, x: Tensor) -> Tensor:
    rows = x.numel() // layer.in_features
    if rows > MAX_ROWS or torch.is_autocast_enabled("cpu"):
        return linear(x, layer.weight, layer.bias)
    # The result is copied to the usual memory layout: torch's attention and softmax are slower on the other one, by
    # more than the copy costs.
    out = torch.mm(layer.weight, x.reshape(rows, -1).T).T.contiguous()
    out = out if layer.bias is None else out + layer.bias
    return out.view(*x.shape[:-1], -1)
