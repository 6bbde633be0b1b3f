"""A model's modules and shapes without its weights, and what an update of it would need, before anything is loaded."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rlx.engine.device import computes_in_bfloat16
from rlx.engine.flops import model_flops
from rlx.engine.load import LOADING_ERRORS, base_path, causal_class, freeze_other_modalities, not_loaded
from rlx.engine.lora import LM, add_lora, causal_lm
from rlx.engine.memory import (
    FREE_SHARE,
    GIB,
    MASTER_BYTES,
    Setting,
    free_bytes,
    model_sizes,
    needs_checkpointing,
    update_bytes,
    weight_bytes,
)
from rlx.engine.shard import is_sharded
from rlx.engine.step import make_accelerator
from rlx.specs.train import Model, Sharding

MEASURED_SECONDS = 0.2
"""Time that ``matrix_product_rate`` takes (s)."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The estimated memory of one process that trains the model.

    Example:
        ``MemoryPlan(parameters=8, trained=8, weights=32, update=900, recompute=False, free=75 << 30, device="cuda")``
    """

    parameters: int
    trained: int
    """Parameters that get a gradient."""
    weights: int
    """Bytes of the weights in float32, and of the reference model if there is one."""
    update: int
    """Bytes of gradients, optimiser states and activations of an update."""
    recompute: bool
    """Whether activations are recomputed."""
    free: int
    """Bytes that are free on the device now."""
    device: str

    @property
    def fits(self) -> bool:
        """Whether the estimate is within the share of the free memory that estimates may use."""
        return self.weights + self.update <= FREE_SHARE * self.free

    def sentence(self) -> str:
        """``about 21.4 GiB of 75.0 GiB free on cuda: weights 4.6, an update 16.8; 1,235,814,400 parameters``."""
        counts = f"{self.parameters:,} parameters"
        if self.trained != self.parameters:
            counts += f", {self.trained:,} trained"
        return (
            f"about {(self.weights + self.update) / GIB:.2f} GiB of {self.free / GIB:.1f} GiB free on {self.device}: "
            f"weights {self.weights / GIB:.2f}, an update {self.update / GIB:.2f}"
            f"{' with recomputed activations' if self.recompute else ''}; {counts}"
        )


def load_skeleton(path: str, model: Model) -> LM | None:
    """The model that training starts from, with new adapters if the spec has them, on torch's meta device.

    Args:
        path: a folder or hub id of a model or adapter.
        model: the spec's model section.

    Returns:
        None if transformers cannot build this architecture without weights.

    Raises:
        UserError: when its configuration cannot be read or is of no causal language model.
    """
    base = base_path(path, model)
    code = {"trust_remote_code": model.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(base, revision=model.revision if base == path else None, **code)
        kind = causal_class(config, model)
    except LOADING_ERRORS as error:
        raise not_loaded("configuration", path, error) from None
    try:
        with torch.device("meta"):
            lm = kind.from_config(config, **code) if kind is AutoModelForCausalLM else kind._from_config(config)
    except (*LOADING_ERRORS, TypeError, AssertionError):  # weights in files may fit where a new model cannot be built
        return None
    lm.float()
    freeze_other_modalities(lm)
    with torch.device("meta"):
        return add_lora(lm, model.model_copy(update={"gradient_checkpointing": False}))


def plan_memory(
    trained: LM | None, spec: Model, sharding: Sharding, tokens: int, world: int, reference: bool = False
) -> MemoryPlan | None:
    """The estimate of ``rlx.engine.memory`` for a model whose weights are not loaded yet.

    Args:
        trained: see ``load_skeleton``.
        spec: the spec's model section.
        sharding: how several processes hold the model.
        tokens: tokens of the largest micro-batch, padding counted.
        world: number of processes.
        reference: whether a frozen copy of the model is loaded too.

    Returns:
        None without a skeleton, or if the configuration does not name the number of layers.
    """
    if trained is None:
        return None
    lm, device = causal_lm(trained), make_accelerator(spec).device
    sizes = model_sizes(lm, trained)
    if sizes is None:
        return None
    bytes_per_value = 2 if computes_in_bfloat16(spec.precision) else 4
    sharded = is_sharded(sharding, world, device)
    setting = Setting(tokens, bytes_per_value, world if sharded else 1, not (sharded and sharding.offload))
    weights = weight_bytes(sizes, setting) + (MASTER_BYTES * sizes.parameters if reference else 0)
    free = free_bytes(device)
    recompute = spec.gradient_checkpointing is True
    if spec.gradient_checkpointing == "auto":
        recompute = needs_checkpointing(sizes, setting, free - weights) and lm.supports_gradient_checkpointing
    update = update_bytes(sizes, setting, recompute)
    return MemoryPlan(sizes.parameters, sizes.trained, weights, update, recompute, free, device.type)


def update_seconds(trained: LM, spec: Model, prompt: int, responses: list[int]) -> float:
    """A lower limit of the time of the forward and backward passes over one prompt and its responses (s).

    The model's operations (``ModelFlops.of_row``) divided by the rate that a matrix product reaches on this device now.

    Args:
        trained: see ``load_skeleton``.
        spec: the spec's model section.
        prompt: tokens of the prompt.
        responses: tokens of each response.
    """
    rate = matrix_product_rate(make_accelerator(spec).device, computes_in_bfloat16(spec.precision))
    return model_flops(causal_lm(trained)).of_row(prompt, responses) / rate


def matrix_product_rate(device: torch.device, bfloat16: bool) -> float:
    """Operations per second of products of square matrices, measured for ``MEASURED_SECONDS``."""
    n = 8192 if device.type == "cuda" else 1024
    left_nn = torch.ones(n, n, device=device, dtype=torch.bfloat16 if bfloat16 else torch.float32)
    products, start, elapsed = -1, 0.0, 0.0  # the first product warms up and is not counted
    while elapsed < MEASURED_SECONDS:
        left_nn @ left_nn
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        products += 1
        start = start or time.perf_counter()
        elapsed = time.perf_counter() - start
    return 2.0 * n**3 * products / elapsed
