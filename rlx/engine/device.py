"""The optimisations that depend on the device: the only file that chooses among engine/cpu and its siblings."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from rlx.engine.attention import GROUPED, PACKED, SHARED_PROMPTS, use_attention
from rlx.engine.cpu.allocator import keep_freed_memory
from rlx.engine.cpu.small_batch_linear import small_batch_linears

TINY_MODEL = 4_000_000
"""Number of parameters below which a model runs on one CPU thread, and is not packed on a GPU."""


def optimize_for_device(lm: nn.Module, device: torch.device) -> None:
    """Choose the attention implementation of a loaded model and, on a CPU, set threads and memory allocation.

    On a CPU a tiny model gets one thread unless OMP_NUM_THREADS is set: its operations are too short to be divided, and
    on a busy machine threads that wait for each other cost seconds per step (100 steps of the embedded task took 245 s
    with two threads next to other work, 44 to 62 s with one). Only larger models gain from attention that is computed
    block by block over shared prompts.
    """
    if device.type != "cpu":
        use_attention(lm, PACKED if prefers_packed_rows(lm, device) else GROUPED)
    elif not is_tiny(lm):
        keep_freed_memory()
        use_attention(lm, SHARED_PROMPTS)
    else:
        use_attention(lm, GROUPED)
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)


def computes_in_bfloat16(precision: str) -> bool:
    """Whether autocast to bfloat16 is on: where the spec's ``model.precision`` says so, or the device supports it."""
    if precision != "auto":
        return precision == "bfloat16"
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def sampling_dtype(precision: str) -> torch.dtype | None:
    """Type of the transformers sampler's copy of the weights; None if it samples from the trainer's own weights."""
    return torch.bfloat16 if computes_in_bfloat16(precision) else None


@torch.no_grad()
def narrow_frozen_weights(model: nn.Module, precision: str) -> None:
    """Store frozen weights of linear layers in bfloat16 if the model computes in it, where that changes no value.

    Weights that were published in bfloat16 take half the memory, and autocast has nothing to cast: it casts weights
    without a gradient again in every forward pass. Weights that bfloat16 would round stay float32, and so do the
    embeddings, because hidden states would take their type.

    Args:
        model: the model, adapters inside or not.
        precision: ``model.precision`` of the spec.
    """
    if not computes_in_bfloat16(precision):
        return
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    weights = [m.weight for m in model.modules() if type(m) is nn.Linear and id(m.weight) not in embeddings]
    for weight in weights:
        if not weight.requires_grad and weight.dtype == torch.float32:
            narrow = weight.data.to(torch.bfloat16)
            if torch.equal(narrow.float(), weight.data):
                weight.data = narrow


def decoding_optimizations(lm: nn.Module, device: torch.device) -> AbstractContextManager[None]:
    """The context in which a sampler decodes with the model."""
    return small_batch_linears(lm) if device.type == "cpu" else nullcontext()


def memory_bytes(device: torch.device) -> int:
    """All memory of a device, whether in use or not, so that the same machine always gives the same number (bytes)."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def prefers_packed_rows(lm: nn.Module, device: torch.device) -> bool:
    """Whether micro-batches without padding are chosen: on CUDA, where a kernel skips pairs of other sequences.

    The kernel is compiled at the start of a process, which takes longer than a tiny model's padding. Not timed on a
    GPU.
    """
    return device.type == "cuda" and not is_tiny(lm)


def is_tiny(lm: nn.Module) -> bool:
    """Whether the model has fewer than four million parameters."""
    return sum(parameter.numel() for parameter in lm.parameters()) < TINY_MODEL


def prefers_shared_prompts(device: torch.device) -> bool:
    """Whether padded rows that hold several responses to one prompt are faster here than one row per response.

    Such rows need a dense mask, which excludes a GPU's fast attention kernels; a GPU shares prompts in packed rows.
    """
    return device.type == "cpu"
