"""Speed of decoding at DeepSeek-R1-Distill-Qwen-1.5B's shapes: rlx's sampler, and a step in a CUDA graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from phases.harness import DEVICE, GPU, SMALL, error_text, save, seconds_of, synchronize
from phases.models import qwen2, random_model


def decode() -> None:
    """Milliseconds per decode step of the transformers sampler, by context, prompt lengths and trainable weights."""
    from rlx.rollout.hf import HFSampler

    results: dict[str, Any] = {}
    lm = random_model(qwen2())
    rows = 2 if SMALL else 32
    for name, lengths, frozen in (
        ("200 even", [200] * rows, False),
        ("200 mixed", [200 - i for i in range(rows)], False),
        ("1000 mixed", [1000 - i for i in range(rows)], False),
        ("1000 even", [1000] * rows, False),
        ("200 even frozen (LoRA)", [200] * rows, True),
    ):
        lm.requires_grad_(not frozen)
        sampler = HFSampler(autocast=bfloat16, dtype=torch.bfloat16)
        sampler.load_weights(lm)
        prompts = [list(range(3, 3 + (length // 10 if SMALL else length))) for length in lengths]
        seconds = decode_seconds(sampler, prompts)
        results[name] = {"ms a token": seconds * 1e3, f"tokens/s at {rows * 8} rows": rows * 8 / seconds}
        save("decode", results)


def bfloat16() -> AbstractContextManager[None]:
    """Autocast to bfloat16."""
    return torch.autocast(DEVICE, torch.bfloat16)


def decode_seconds(sampler: Any, prompts: list[list[int]]) -> float:
    """Seconds of one decode step: the difference of a long and a short call, without their prefill."""
    from rlx.rollout.sampler import Sampling

    long, durations = 4 if SMALL else 40, []
    for tokens in (2, long):
        start = time.perf_counter()
        sampler.sample(prompts, [list(range(8)) for _ in prompts], Sampling(1.0, tokens, (1,)))
        synchronize()
        durations.append(time.perf_counter() - start)
    return (durations[1] - durations[0]) / (long - 2)


def graph() -> None:
    """Milliseconds per decode step with bfloat16 weights, a static cache and a CUDA graph, by attention."""
    from rlx.engine.attention import GROUPED

    results: dict[str, Any] = {}
    lm = random_model(qwen2(), torch.bfloat16).eval().requires_grad_(False)
    for rows, length in ((4, 64),) if SMALL else ((256, 512), (256, 1280), (512, 1280)):
        for attention in (GROUPED, "sdpa"):
            lm.set_attn_implementation(attention)
            name = f"{rows} rows, cache {length}, {attention}"
            try:
                with torch.no_grad():
                    results[name] = graph_times(static_step(lm, rows, length), rows)
            except Exception as error:
                results[name] = error_text(error)
            save("graph", results)
            if GPU:
                torch.cuda.empty_cache()


def static_step(lm: Any, rows: int, length: int) -> Callable[[], Tensor]:
    """A decode step at the end of a static cache of ``length`` tokens."""
    from transformers import StaticCache

    from rlx.rollout.cache_argument import cache_argument

    cache = StaticCache(config=lm.config, max_cache_len=length)
    ids = torch.ones(rows, 1, dtype=torch.long, device=DEVICE)
    positions = torch.full((rows, 1), length - 8, device=DEVICE, dtype=torch.long)
    mask = torch.zeros(rows, 1, 1, length, dtype=torch.bool, device=DEVICE)
    mask[..., : length - 8] = True

    def step() -> Tensor:
        logits: Tensor = lm(
            input_ids=ids,
            position_ids=positions,
            use_cache=True,
            attention_mask={"full_attention": mask},
            logits_to_keep=1,
            **{cache_argument(lm): cache},
        ).logits
        return logits

    return step


def graph_times(step: Callable[[], Tensor], rows: int) -> dict[str, float]:
    """Times of the step in eager mode and in a CUDA graph; in eager mode only without a GPU."""
    eager = seconds_of(step, 4)
    if not GPU:
        return {"eager ms": eager * 1e3, "logits": float(step().float().abs().sum())}
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.synchronize()
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        step()
    replay = seconds_of(recorded.replay, 8)
    return {"eager ms": eager * 1e3, "graph ms": replay * 1e3, "tokens/s": rows / replay}
