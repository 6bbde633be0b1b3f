"""Speed of training at DeepSeek-R1-Distill-Qwen-1.5B's shapes: whole updates, one layer, the output layer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from phases.harness import DEVICE, GPU, SMALL, error_text, peak_gib, reset_peak, save, seconds_of, synchronize
from phases.models import qwen2, random_model

MICRO_BATCHES = ((8192, True), (16384, True), (32768, True), (4096, False), (8192, False), (16384, False))
"""Tokens of a micro-batch, and whether activations are recomputed."""


def update() -> None:
    """Seconds and peak memory of an update of two micro-batches, and a profile."""
    from rlx.engine.step import Engine
    from rlx.specs.train import Model, Optim

    results: dict[str, Any] = {}
    lm = random_model(qwen2())
    engine = Engine(lm, Model(), Optim(lr=1e-6), 100, 16384)
    for tokens, recompute in MICRO_BATCHES:
        name = f"{tokens} ckpt={recompute}"
        try:
            results[name] = timed_update(engine, tokens // 64 if SMALL else tokens, recompute)
        except torch.OutOfMemoryError as error:
            results[name] = "OOM: " + str(error)[:120]
            engine.optimizer.zero_grad()
        save("update", results)
    activities = [torch.profiler.ProfilerActivity.CPU] + ([torch.profiler.ProfilerActivity.CUDA] if GPU else [])
    with torch.profiler.profile(activities=activities) as profile:
        timed_update(engine, 128 if SMALL else 8192, False, updates=1)
    own_time = {e.key: e.self_device_time_total if GPU else e.self_cpu_time_total for e in profile.key_averages()}
    events = sorted(profile.key_averages(), key=lambda event: -own_time[event.key])[:25]
    results["profile, ms of 2 micro-batches and Adam"] = {
        event.key[:80]: [round(own_time[event.key] / 1e3, 2), event.count] for event in events
    }
    save("update", results)


def timed_update(engine: Any, tokens: int, recompute: bool, updates: int = 2) -> dict[str, float]:
    """The fastest of a few updates, each of two micro-batches of ``tokens`` tokens."""
    from rlx.engine.activation_checkpointing import disable_checkpointing, enable_checkpointing

    if recompute:
        enable_checkpointing(engine.raw)
    else:
        disable_checkpointing(engine.raw)
    engine.max_tokens = tokens
    prompt, response = (20, 44) if SMALL else (200, 825)
    count = 2 * max(1, tokens // (prompt + response))
    batch = policy_batch(count, prompt, response)
    reset_peak()
    durations = []
    for _ in range(updates):
        start = time.perf_counter()
        result = engine.update(batch)
        synchronize()
        durations.append(time.perf_counter() - start)
    return {
        "s a micro-batch": min(durations) / 2,
        "tokens/s": count * (prompt + response) / min(durations),
        "peak GiB": peak_gib(),
        "loss": result.loss,
        "norm": result.grad_norm,
    }


def policy_batch(count: int, prompt: int, response: int) -> Any:
    """An update of ``dgpo`` on sequences with one advantage."""
    from rlx.engine.batch import Batch
    from rlx.numerics.collate import TokenSequence
    from rlx.numerics.output_layer.response_reader import logprob_reader
    from rlx.numerics.terms import Counts
    from rlx.registry import Method, get
    from rlx.rl.objective import MiniBatch, PolicyObjective
    from rlx.specs.train import Algorithm

    component = get("policy", "dgpo")
    sequences = [
        TokenSequence(tuple(range(3, 3 + prompt)), tuple((7 * k + j) % 4000 + 3 for k in range(response)))
        for j in range(count)
    ]
    counts = Counts(count * response, count, response)
    sampler = [torch.full((response,), -8.0)] * count
    mini = MiniBatch(sequences, torch.ones(count), sampler, None, None, counts)
    objective = PolicyObjective(Method(component, component.hyper()), Algorithm(), mini)
    return Batch(sequences, logprob_reader(1.0), objective, {"policy": counts, "kl": counts})


def layer() -> None:
    """Forward and backward of a decoder layer on 16 x 1,024 tokens, by type of the weights, eager and compiled."""
    from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RotaryEmbedding

    config = qwen2()
    config._attn_implementation = "sdpa"
    results: dict[str, Any] = {}
    rows, length = (2, 16) if SMALL else (16, 1024)
    for name, dtype, compiled in (
        ("float32 masters, autocast, eager (rlx now)", torch.float32, False),
        ("bfloat16 weights, eager", torch.bfloat16, False),
        ("bfloat16 weights, compiled", torch.bfloat16, True),
        ("float32 masters, autocast, compiled", torch.float32, True),
    ):
        if compiled and not GPU:
            continue
        one = Qwen2DecoderLayer(config, 0).to(DEVICE, dtype)
        x = torch.randn(rows, length, config.hidden_size, device=DEVICE, dtype=dtype, requires_grad=True)
        rope = Qwen2RotaryEmbedding(config).to(DEVICE)(x, torch.arange(length, device=DEVICE)[None])
        work = layer_pass(torch.compile(one) if compiled else one, x, rope)
        try:
            start = time.perf_counter()
            work()
            first = time.perf_counter() - start
            results[name] = {"ms": seconds_of(work, 6) * 1e3, "first call s": round(first, 1)}
            reset_peak()
            work()
            results[name]["peak GiB"] = peak_gib()
        except Exception as error:
            results[name] = error_text(error)
        save("layer", results)


def layer_pass(module: Any, x: Tensor, rope: Any) -> Callable[[], None]:
    """One forward and backward pass, under autocast if the weights are float32."""

    def work() -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=x.dtype == torch.float32):
            output = module(x, position_embeddings=rope)
        output.float().sum().backward()

    return work


def head() -> None:
    """Log-probs with gradients, 13,200 tokens x 151,936: rlx's tiles by width, and cut-cross-entropy."""
    n, d, v = (64, 32, 4096) if SMALL else (13200, 1536, 151936)
    hidden_nd = torch.randn(n, d, device=DEVICE, requires_grad=True)
    weight_vd = (torch.randn(v, d, device=DEVICE) / d**0.5).requires_grad_()
    targets_n = torch.randint(v, (n,), device=DEVICE)
    with torch.no_grad():
        exact = (hidden_nd[:256].double() @ weight_vd.double().T).log_softmax(-1).gather(1, targets_n[:256, None])[:, 0]
    results: dict[str, Any] = {}
    for name, logprobs in head_variants(hidden_nd, weight_vd, targets_n).items():

        def work(logprobs: Callable[[], Tensor] = logprobs) -> Tensor:
            hidden_nd.grad = weight_vd.grad = None
            with torch.autocast(DEVICE, torch.bfloat16):
                values_n = logprobs()
            values_n.mean().backward()
            return values_n.detach()

        try:
            reset_peak()
            values_n = work()
            results[name] = {
                "ms": seconds_of(work, 4) * 1e3,
                "error": float((values_n[:256].double() - exact).abs().max()),
                "peak GiB": peak_gib(),
            }
        except Exception as error:
            results[name] = error_text(error)
        save("head", results)


def head_variants(hidden_nd: Tensor, weight_vd: Tensor, targets_n: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Log-probs of the targets [n], computed in several ways."""
    from rlx.numerics.output_layer import tiled
    from rlx.numerics.output_layer.fused import installed_kernel
    from rlx.numerics.output_layer.logprobs import Head, token_logprobs

    def tiles(width: int) -> Callable[[], Tensor]:
        def logprobs() -> Tensor:
            tiled.TILE = tiled.CUDA_TILE = width
            values_n, _ = tiled.LinearLogprobs.apply(hidden_nd, weight_vd, None, targets_n, 1.0, False)
            return values_n

        return logprobs

    used = "cut cross-entropy" if installed_kernel() else "tiles"
    variants = {f"rlx, tiles of {width}": tiles(width) for width in (2048, 32768, 8192)}
    chosen = f"rlx, as chosen on this device ({used}), with entropies"
    variants[chosen] = lambda: token_logprobs(hidden_nd, targets_n, Head(weight_vd))[0]

    def cut_cross_entropy() -> Tensor:
        from cut_cross_entropy import linear_cross_entropy

        loss_n: Tensor = linear_cross_entropy(hidden_nd.bfloat16(), weight_vd.bfloat16(), targets_n, reduction="none")
        return -loss_n

    return variants | {"cut cross-entropy": cut_cross_entropy}
