"""Low-rank adapters (peft): adding them, reading the merged weights, switching them off."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.functional import linear
from transformers.core_model_loading import revert_weight_conversion

from rlx.console import warn_once
from rlx.engine.full_tensor import full_tensor
from rlx.errors import UserError
from rlx.specs.train import Lora, Model

MAMBA_TYPES = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
"""Model types whose fused Mamba kernels read weights past the layers' forward; the same list as in peft."""
LM = Any
"""A transformers causal language model, inside peft's wrapper or not; neither library is typed."""


def add_lora(lm: LM, model: Model, adapter: str | None = None) -> LM:
    """The model with trainable adapters and everything else frozen; unchanged if ``model.lora`` is None.

    Args:
        lm: the base model.
        model: the spec's model section.
        adapter: folder or hub id of a trained adapter that ``lora.continue`` trains further.

    Raises:
        UserError: when target_modules fits nothing, or names layers whose adapter could not be merged exactly.
    """
    if model.lora is None:
        return lm
    from peft import LoraConfig, PeftModel, get_peft_model

    try:
        with without_peft_warning():
            if adapter is not None:
                adapted: nn.Module = PeftModel.from_pretrained(lm, adapter, is_trainable=True, revision=model.revision)
            else:
                config = LoraConfig(
                    r=model.lora.rank,
                    lora_alpha=model.lora.alpha,
                    lora_dropout=model.lora.dropout,
                    target_modules=model.lora.target_modules,
                    exclude_modules=_excluded(lm) if model.lora.target_modules == "all-linear" else None,
                    task_type="CAUSAL_LM",
                )
                adapted = get_peft_model(lm, config)
    except ValueError as error:
        raise UserError(f"model.lora.target_modules {model.lora.target_modules!r} does not fit ({error})") from None
    _check_targets(lm, model.lora)
    _report_frozen_experts(lm)
    if model.gradient_checkpointing is True:
        lm.enable_input_require_grads()
    return adapted


@contextmanager
def without_peft_warning() -> Iterator[None]:
    """Within this context newer versions of transformers do not warn of a property that peft 0.21 reads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


def has_adapters(model: LM) -> bool:
    """Whether peft's wrapper is around the model."""
    return hasattr(model, "disable_adapter")


def causal_lm(model: LM) -> LM:
    """The transformers model inside peft's wrapper, with its adapters active."""
    return model.get_base_model() if has_adapters(model) else model


def without_adapters(model: LM) -> AbstractContextManager[None]:
    """Within this context a model with adapters computes what its base model does."""
    context: AbstractContextManager[None] = model.disable_adapter() if has_adapters(model) else nullcontext()
    return context


def adapter_weight(layer: Any) -> Tensor | None:
    """The layer's weight with its active adapters added, differentiable in them; None for a layer without adapters."""
    if not hasattr(layer, "get_delta_weight") or layer.disable_adapters:
        return None
    weight: Tensor = layer.get_base_layer().weight
    for name in layer.active_adapters:
        weight = weight + layer.get_delta_weight(name)
    return weight


def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and values of the weights as a saved model has them: adapters added, tied tensors once.

    Nothing is changed in place, so that training can go on with the same bits. Sharded weights are gathered one at a
    time, by all processes together.

    Args:
        model: a transformers causal language model, with peft's adapters inside or not.
    """
    adapted: dict[str, Any] = {}
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            # peft wraps a layer, or (fused experts) one parameter of a module.
            adapted[f"{base_name(name)}.{getattr(module, 'parameter_name', 'weight')}"] = module
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            continue
        plain_name, weight = base_name(name), full_tensor(parameter)
        if plain_name in adapted:
            module = adapted[plain_name]
            with _unsharded_adapters(module):
                for adapter in module.active_adapters:
                    weight = weight + module.get_delta_weight(adapter).detach()
        yield plain_name, weight


def copy_with_weights(model: LM, value: Callable[[str, nn.Parameter], Tensor]) -> LM:
    """A copy of a model with nothing trainable, whose weights are given; the model's own are not copied.

    Args:
        model: the model, adapters inside or not.
        value: the copy's weight, from the name and the parameter.
    """
    # deepcopy takes an object's copy from the memo if it is there.
    own = {id(p): nn.Parameter(value(name, p), requires_grad=False) for name, p in model.named_parameters()}
    return copy.deepcopy(model, own)


@contextmanager
def _unsharded_adapters(module: nn.Module) -> Iterator[None]:
    """Within this context the layer's adapters are whole; a collective operation if they are sharded."""
    owned = [
        (owner, key, weight)
        for name, owner in module.named_modules()
        for key, weight in owner.named_parameters(recurse=False)
        if "lora_" in f"{name}.{key}" and isinstance(weight, DTensor)
    ]
    for owner, key, weight in owned:
        owner._parameters[key] = nn.Parameter(full_tensor(weight), requires_grad=False)
    try:
        yield
    finally:
        for owner, key, weight in owned:
            owner._parameters[key] = weight


def published_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """``merged_weights`` under the names, and in the pieces, of the published checkpoint format.

    transformers holds some weights in another form than their files do, such as all experts of a layer in one tensor.
    Only one layer's weights are gathered and converted at a time.

    Args:
        model: a transformers causal language model, with peft's adapters inside or not.
    """
    for _, weights in groupby(merged_weights(model), key=lambda item: _layer_of(item[0])):
        yield from revert_weight_conversion(model, dict(weights)).items()


def _layer_of(name: str) -> str:
    """A parameter's name up to the number of its layer; the whole name outside the layers."""
    parts = name.split(".")
    number = next((index for index, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[: number + 1])


def base_name(name: str) -> str:
    """The name that a parameter or module has without peft's wrappers."""
    return name.replace(".base_layer", "")


def _excluded(lm: LM) -> list[str] | None:
    """Names of linear layers that adapters cannot be added to: those that compute something else, and Mamba's."""
    special = {
        name.rpartition(".")[2]
        for name, module in lm.named_modules()
        if isinstance(module, nn.Linear) and not _computes_linear(module)
    }
    if lm.config.model_type in MAMBA_TYPES:
        special |= {"out_proj", "conv1d"}
    if special:
        names = ", ".join(sorted(special))
        warn_once(f"LoRA adds no adapter to {names}: peft cannot wrap these layers of {type(lm).__name__}")
    return sorted(special) or None


@torch.no_grad()
def _computes_linear(layer: nn.Linear) -> bool:
    """Whether the layer's forward is W x + b: some subclasses return more, or work in groups."""
    if type(layer).forward is nn.Linear.forward:
        return True
    x = torch.ones(1, layer.in_features, dtype=layer.weight.dtype, device=layer.weight.device)
    try:
        output = layer(x)
    except (TypeError, ValueError, RuntimeError):
        return False
    expected = linear(x, layer.weight, layer.bias)
    return isinstance(output, Tensor) and output.shape == expected.shape and bool(torch.allclose(output, expected))


def _check_targets(lm: LM, lora: Lora) -> None:
    """Refuse adapters on the embeddings or the output layer that could not be merged or read exactly."""
    head, embedding = lm.get_output_embeddings(), lm.get_input_embeddings()
    on_head, on_embedding = (hasattr(layer, "get_delta_weight") for layer in (head, embedding))
    if (on_head or on_embedding) and head.weight is embedding.weight:
        target = "output layer" if on_head else "embeddings"
        raise UserError(
            f"model.lora.target_modules {lora.target_modules!r} includes the {target}, and this model's output layer "
            "and embeddings share one weight, so an adapter on one cannot be merged without changing the other",
            fix="leave it out of target_modules; all-linear does",
        )
    if on_head and lora.dropout > 0:
        raise UserError(
            f"model.lora.dropout is {lora.dropout} with an adapter on the output layer, whose log-probs are computed "
            "from the merged weight",
            fix="set model.lora.dropout=0 or leave the output layer out of target_modules",
        )


def _report_frozen_experts(lm: LM) -> None:
    """Print once how many weights of experts, stored as one tensor per layer, get no adapter."""
    wrapped = {base_name(name) for name, module in lm.named_modules() if hasattr(module, "parameter_name")}
    fused = [base_name(name) for name, p in lm.named_parameters() if p.dim() == 3 and ".lora_" not in name]
    frozen = [name for name in fused if "expert" in name and name.rpartition(".")[0] not in wrapped]
    if frozen:
        warn_once(
            f"LoRA leaves {len(frozen)} expert tensors frozen ({frozen[0]} and others): each stores all experts of a "
            "layer, and adapters are added to linear layers only"
        )
