"""A copy of the trainer's weights in the compute type, for the transformers sampler."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlx.engine.lora import LM, base_name, copy_with_weights, merged_weights
from rlx.engine.shard import Cast


def cast_to(dtype: torch.dtype, lm: LM) -> Cast:
    """A function that gives a weight the type it has in a copy of this model.

    Weights that transformers keeps in float32 for this architecture stay so, and adapters, which are yet to be merged.
    """
    kinds = [getattr(lm, name, None) for name in ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")]
    wide = {part for parts in kinds for part in parts or ()}

    def cast(name: str, weight: Tensor) -> Tensor:
        stays = ".lora_" in name or not weight.is_floating_point() or bool(wide & set(name.split(".")))
        return weight.clone() if stays else weight.to(dtype)

    return cast


@torch.no_grad()
def copy_in(dtype: torch.dtype, lm: LM) -> LM:
    """A copy of a causal language model with its weights in ``dtype``, adapters merged and nothing trainable.

    Autocast would cast every weight again in each forward pass without gradients, which for one new token per row
    takes longer than the products.

    Args:
        dtype: type of the weights.
        lm: the model, with peft's adapters inside or not.
    """
    cast = cast_to(dtype, lm)
    # Cast one at a time: the merged weights never exist in float32 all together.
    weights = {name: cast(name, weight) for name, weight in merged_weights(lm)}

    def merged(name: str, parameter: nn.Parameter) -> Tensor:
        adapter = base_name(name) not in weights
        return parameter.new_empty(0) if adapter else weights[base_name(name)]

    copied = copy_with_weights(lm, merged)
    for name, module in [*copied.named_modules()]:
        parent, _, child = name.rpartition(".")
        if hasattr(module, "get_delta_weight") and ".base_layer" not in name:
            setattr(copied.get_submodule(parent), child, module.get_base_layer())
    return copied.eval()
