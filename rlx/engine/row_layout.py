"""Which rows a model's micro-batches have: padded, shared by the responses to a prompt, or packed end to end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from rlx.engine.device import prefers_packed_rows, prefers_shared_prompts
from rlx.engine.layer_configs import windows
from rlx.engine.lora import LM
from rlx.engine.model import ReadableModel, can_share_prompts, decoder_layers, final_hidden_states
from rlx.engine.step import Engine
from rlx.numerics.collate import TokenBatch, TokenSequence, collate, pack
from rlx.numerics.output_layer.logprobs import Head
from rlx.numerics.packed_row import PackedLayout

FLOAT32_ERROR = 1e-3
"""Largest relative difference of hidden states between padded and packed rows in float32, with a dense mask. It finds
architectures that do not take positions and a mask from the caller."""
KERNEL_ERROR = 0.2
"""The same for hidden states and gradients with the kernel and type of training; bfloat16 rounds both differently."""
TRIAL = (((1, 2, 3, 4, 5, 6, 7, 8), (13, 9, 16)), ((4, 2, 6, 3, 5, 1), (14, 20)), ((9, 8, 7, 3), (25, 1, 30)))
"""Prompts and the lengths of their responses in the trial: 145 tokens, so that the mask has more than one block."""


def choose_row_layout(engine: Engine, share_prompts: bool = True) -> str:
    """Set ``engine.pack_rows`` or ``engine.share_prompts`` where the device prefers it and the model can.

    Args:
        engine: the engine, before its first micro-batch.
        share_prompts: whether sequences have prompts in common.

    Returns:
        a sentence for the user if a GPU keeps padded rows, which are slower there; otherwise empty.
    """
    device = engine.accelerator.device
    if prefers_packed_rows(engine.lm, device):
        obstacle = _packing_obstacle(engine)
        engine.pack_rows = not obstacle
        return f"micro-batches are padded, not packed: {obstacle}" if obstacle else ""
    if share_prompts:
        engine.share_prompts = shares_prompts(engine)
    return ""


def shares_prompts(engine: Engine) -> bool:
    """Whether the device prefers rows with one prompt and several responses, and the model can read them."""
    # The router's loss counts the tokens of rows of one sequence.
    if engine.pack_rows or engine.sharded or engine.spec.router_aux_coef:
        return False
    return prefers_shared_prompts(engine.accelerator.device) and can_share_prompts(engine.lm)


def same_layers(lm: LM, other: LM) -> bool:
    """Whether two models have layers of the same kinds, so that they can read the same rows."""
    one, two = (model.config.get_text_config() for model in (lm, other))
    kinds = [set(getattr(config, "layer_types", None) or ()) for config in (one, two)]
    return type(lm) is type(other) and kinds[0] == kinds[1] and windows(one) == windows(two)


def _packing_obstacle(engine: Engine) -> str:
    """Why the engine cannot pack, or an empty string."""
    if engine.sharded:
        return "packed rows have not been tried with sharded weights"
    if engine.spec.dropout:
        return "attention over packed rows has no dropout (model.dropout)"
    if engine.spec.router_aux_coef > 0:
        return "the router's loss counts the tokens of padded rows (model.router_aux_coef)"
    if not can_pack(engine.lm, engine.accelerator.autocast):
        return f"{type(engine.lm).__name__} did not pass the trial of packed rows"
    return ""


def can_pack(lm: LM, autocast: Callable[[], AbstractContextManager[None]]) -> bool:
    """Whether sequences in a packed row get the hidden states and gradients that they would have alone.

    This is tried on the model itself: in float32 with a dense mask, and as it is trained, since not every head size has
    a kernel. Windows are refused without a trial, because the trial's sequences are shorter.

    Args:
        lm: the model.
        autocast: the context in which it is trained.
    """
    config = lm.config.get_text_config()
    if windows(config) or set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
        return False
    device = next(lm.parameters()).device
    sequences = [TokenSequence(prompt, tuple(range(count, 0, -1))) for prompt, lengths in TRIAL for count in lengths]
    padded = collate(sequences).to(device)
    packed = pack(sequences, shares=[len(lengths) for _, lengths in TRIAL]).to(device)
    was_training = lm.training
    lm.eval()
    try:
        mask_error = _mask_error(lm, padded, packed)
        with autocast():
            kernel_error = _kernel_error(lm, padded, packed)
    except Exception:  # whatever a model, a compiler or a kernel raises: padded rows need none of it
        return False
    finally:
        lm.train(was_training)
    exact = all(parameter.dtype not in (torch.bfloat16, torch.float16) for parameter in lm.parameters())
    return mask_error <= (FLOAT32_ERROR if exact else KERNEL_ERROR) and kernel_error <= KERNEL_ERROR


@torch.no_grad()
def _mask_error(lm: LM, padded: TokenBatch, packed: TokenBatch) -> float:
    """Relative difference of hidden states between padded and packed rows, the latter with a dense mask."""
    assert isinstance(packed.layout, PackedLayout)
    index_s = torch.arange(packed.input_ids_bs.shape[1], device=packed.input_ids_bs.device)
    sees_ss = packed.layout.sees(index_s[:, None], index_s)
    hidden_bsd = final_hidden_states(
        lm, input_ids=packed.input_ids_bs, attention_mask=sees_ss[None, None], position_ids=packed.layout.positions_bs
    )
    return _difference(ReadableModel(lm)(padded, _hidden), hidden_bsd[packed.rows_n, packed.columns_n])


def _kernel_error(lm: LM, padded: TokenBatch, packed: TokenBatch) -> float:
    """Largest relative difference between padded and packed rows, with and without gradients.

    Gradients are those of the first layer's biases and norms (of all its trained weights if it has none): the whole
    backward pass runs, and little memory is needed.
    """
    readable = ReadableModel(lm)
    trained = [p for p in decoder_layers(lm)[0].parameters() if p.requires_grad]
    read = [p for p in trained if p.dim() == 1] or trained
    results = []
    for batch in (padded, packed):
        with torch.no_grad():
            values = [readable(batch, _hidden).float()]
        if read:
            hidden_nd = readable(batch, _hidden).float()
            # A sum of squares would not do: after a norm it is constant.
            factors_d = torch.arange(hidden_nd.shape[1], device=hidden_nd.device).cos()
            slopes = torch.autograd.grad((hidden_nd @ factors_d).mean(), read, allow_unused=True)
            values += [hidden_nd.detach(), torch.cat([slope.flatten() for slope in slopes if slope is not None])]
        results.append(values)
    return max(_difference(one, other) for one, other in zip(*results, strict=True))


def _difference(expected: Tensor, actual: Tensor) -> float:
    """Norm of the difference relative to the expected tensor's norm (L2)."""
    return float((expected.float() - actual.float()).norm() / expected.float().norm().clamp_min(1e-30))


def _hidden(hidden_nd: Tensor, head: Head, batch: TokenBatch) -> Tensor:
    return hidden_nd
