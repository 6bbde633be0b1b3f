"""Packed rows: the compiled attention against torch's, and updates against padded rows."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from phases.harness import DEVICE, GPU, SMALL, error_text, peak_gib, reset_peak, save, synchronize
from phases.models import qwen2, random_model

UNIT = 16 if SMALL else 1
"""Lengths are divided by this."""


def packed() -> None:
    """Errors of the attention by type and head size, then seconds of an update with padded and with packed rows."""
    results: dict[str, Any] = {}
    for dtype, width in ((torch.bfloat16, 128), (torch.bfloat16, 64), (torch.float32, 128)):
        try:
            results[f"{dtype} {width}"] = attention_errors(dtype, width)
        except Exception as error:
            results[f"{dtype} {width}"] = error_text(error)
        save("packed", results)
    updates(results)


def group(prompt: int, lengths: list[int], token: int) -> list[Any]:
    """Responses of these lengths to one prompt."""
    from rlx.numerics.collate import TokenSequence

    return [TokenSequence(tuple(range(3, 3 + prompt // UNIT)), (token,) * (n // UNIT)) for n in lengths]


def attention_errors(dtype: torch.dtype, width: int) -> dict[str, Any]:
    """Relative errors of output and gradients against torch's attention under the same mask."""
    from rlx.engine.cuda.packed_attention import packed_attention, packed_mask
    from rlx.numerics.collate import pack

    batch = pack([*group(200, [900, 300, 1500], 7), *group(100, [800], 8)], shares=[3, 1]).to(torch.device(DEVICE))
    index_s = torch.arange(batch.input_ids_bs.shape[1], device=DEVICE)
    dense_ss = batch.layout.sees(index_s[:, None], index_s)
    q, k, v = (
        torch.randn(1, heads, len(index_s), width, device=DEVICE, dtype=dtype, requires_grad=True)
        for heads in (12, 2, 2)
    )
    slope = torch.randn(1, len(index_s), 12, width, device=DEVICE, dtype=dtype)
    start = time.perf_counter()
    ours = packed_attention(q, k, v, packed_mask(batch.layout), None)
    slopes = torch.autograd.grad((ours * slope).sum(), (q, k, v))
    synchronize()
    first = time.perf_counter() - start
    theirs = scaled_dot_product_attention(q, k, v, dense_ss[None, None], enable_gqa=True).transpose(1, 2)
    expected = torch.autograd.grad((theirs * slope).sum(), (q, k, v))
    pairs = zip((ours, *slopes), (theirs, *expected), strict=True)
    errors = [float((a - b).detach().float().norm() / b.detach().float().norm()) for a, b in pairs]
    return {"relative errors of output, dq, dk, dv": errors, "first call s": first}


def updates(results: dict[str, Any]) -> None:
    """Updates of the same sequences with padded and with packed rows."""
    from rlx.engine.activation_checkpointing import enable_checkpointing
    from rlx.engine.attention import PACKED
    from rlx.engine.device import optimize_for_device
    from rlx.engine.row_layout import choose_row_layout
    from rlx.engine.step import Engine
    from rlx.specs.train import Model, Optim

    lm = random_model(qwen2())
    optimize_for_device(lm, torch.device(DEVICE))
    enable_checkpointing(lm)
    engine = Engine(lm, Model(), Optim(lr=1e-12), 100, 16384 // UNIT)  # both losses are of the same weights
    start = time.perf_counter()
    results["notice, empty if it packs"] = choose_row_layout(engine)
    results["trial s"] = time.perf_counter() - start
    for packs in (False, True) if engine.pack_rows or not GPU else (False,):
        engine.pack_rows = packs
        if packs and not GPU:
            for module in lm.modules():
                if getattr(module, "config", None) is not None:
                    module.config._attn_implementation = PACKED
        results["packed" if packs else "padded"] = timed_updates(engine)
        save("packed", results)


def timed_updates(engine: Any) -> dict[str, Any]:
    """Four updates of eight prompts with eight responses of 100 to 1,023 tokens."""
    from rlx.engine.batch import Batch, Losses
    from rlx.numerics.output_layer.response_reader import logprob_reader
    from rlx.numerics.terms import Counts, Term

    lengths = [100 + (97 * n) % 924 for n in range(8)]
    sequences = [s for n in range(8) for s in group(150 + 10 * n, lengths, 9 + n)]
    tokens = sum(len(s.response) for s in sequences)

    def objective(scored: Any, batch: Any, members: list[int]) -> Losses:
        return Losses([Term("nll", -batch.padded(scored[0]), batch.mask_bt)])

    work = Batch(sequences, logprob_reader(1.0), objective, {"nll": Counts(tokens, len(sequences))})
    seconds = []
    reset_peak()
    for _ in range(4):
        start = time.perf_counter()
        update = engine.update(work)
        synchronize()
        seconds.append(time.perf_counter() - start)
    return {
        "s per update, all": seconds,
        "response tokens/s": tokens / min(seconds),
        "peak GiB": peak_gib(),
        "loss": update.loss,
        "gradient norm": update.grad_norm,
    }
