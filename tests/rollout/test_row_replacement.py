"""Rows that finish take the next prompt, steps of fixed shape, and responses that come as they finish."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from rlx.rollout import decode_loop, fixed_step, shared_prefill
from rlx.rollout.decode_loop import DecodeLoop, Request
from rlx.rollout.decoders import OwnCacheDecoder, RecomputeDecoder, _reproduces
from rlx.rollout.hf import HFSampler
from rlx.rollout.sampler import Sampling, sample_seed
from rlx.rollout.shared_prefill import FixedShapesDecoder, SharedPrefillDecoder, bytes_per_token

SIZES = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SAMPLING = Sampling(1.2, 40, (2, 3))
PROMPTS = [[4 + (q * 7 + i) % 28 for i in range(2 + 5 * q % 11)] for q in range(12)]
SEEDS = [[sample_seed(0, q, g) for g in range(4)] for q in range(12)]


def tiny(kind, config, **more):
    torch.manual_seed(0)
    lm = kind(config(**SIZES, **more)).eval()
    for parameter in lm.parameters():
        parameter.data *= 3
    return lm


MODELS = {
    "all tokens": lambda: tiny(LlamaForCausalLM, LlamaConfig),
    "a window": lambda: tiny(MistralForCausalLM, MistralConfig, sliding_window=6),
    "both": lambda: tiny(
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        sliding_window=6,
        head_dim=8,
        layer_types=["full_attention", "sliding_attention"],
    ),
}


@pytest.fixture(params=MODELS)
def lm(request):
    return MODELS[request.param]()


def tokens_of(groups):
    return [[response.tokens for response in group] for group in groups]


def sampler(lm, decoder=None, **options):
    made = HFSampler(lm, **options)
    made._decoder = decoder
    return made


def test_replaced_rows_draw_what_they_draw_alone(lm, monkeypatch):
    monkeypatch.setattr(shared_prefill, "UNUSED_COLUMNS", 4)
    reads, drops = [], []
    read, drop = shared_prefill._read, shared_prefill.drop_columns
    monkeypatch.setattr(shared_prefill, "_read", lambda *a: reads.append(len(a[1])) or read(*a))
    monkeypatch.setattr(shared_prefill, "drop_columns", lambda *a: drops.append(a[1]) or drop(*a))
    alone = [HFSampler(lm).sample([p], [s], SAMPLING)[0] for p, s in zip(PROMPTS, SEEDS, strict=True)]
    reads.clear(), drops.clear()
    replaced = sampler(lm, SharedPrefillDecoder, batch_size=5).sample(PROMPTS, SEEDS, SAMPLING)
    assert tokens_of(replaced) == tokens_of(alone)
    assert reads[0] == 5 and sum(reads) == 48 and max(reads[1:]) < 5, "one batch, whose rows are replaced"
    assert drops, "columns that no row needs any more are dropped"
    for ours, theirs in zip(replaced, alone, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(torch.tensor(a.logprobs), torch.tensor(b.logprobs), atol=1e-4)


@pytest.mark.parametrize("decoder", [OwnCacheDecoder, RecomputeDecoder])
def test_decoders_that_cannot_replace_rows_take_batch_after_batch(decoder):
    lm = MODELS["all tokens"]()
    expected = HFSampler(lm).sample(PROMPTS, SEEDS, SAMPLING)
    assert tokens_of(sampler(lm, decoder, batch_size=5).sample(PROMPTS, SEEDS, SAMPLING)) == tokens_of(expected)


@pytest.mark.parametrize("name", MODELS)
def test_steps_of_fixed_shape_give_the_same_through_growth_replacement_and_compaction(name, monkeypatch):
    monkeypatch.setattr(fixed_step, "CAPACITY_STEP", 8)
    monkeypatch.setattr(shared_prefill, "UNUSED_COLUMNS", 4)
    lm = MODELS[name]()
    assert _reproduces(lm, FixedShapesDecoder)
    expected = sampler(lm, SharedPrefillDecoder).sample(PROMPTS, SEEDS, SAMPLING)
    steps = []
    step = fixed_step.FixedStep.step
    monkeypatch.setattr(fixed_step.FixedStep, "step", lambda *a: steps.append(1) or step(*a))
    for rows in (5, 48):
        fixed = sampler(lm, FixedShapesDecoder, batch_size=rows).sample(PROMPTS, SEEDS, SAMPLING)
        assert tokens_of(fixed) == tokens_of(expected)
    assert bool(steps) == (name == "all tokens"), "layers with a window keep the usual steps"


def test_looking_less_often_for_finished_rows_changes_no_response(lm, monkeypatch):
    expected = HFSampler(lm, batch_size=5).sample(PROMPTS, SEEDS, SAMPLING)
    monkeypatch.setattr(decode_loop, "CHECK_EVERY", {"cpu": 8})
    for decoder in (None, FixedShapesDecoder, OwnCacheDecoder):
        seldom = sampler(lm, decoder, batch_size=5).sample(PROMPTS, SEEDS, SAMPLING)
        assert tokens_of(seldom) == tokens_of(expected)
        assert all(r.finished == (r.tokens[-1] in (2, 3)) for group in seldom for r in group)


def test_a_short_response_does_not_wait_for_a_long_one():
    lm = MODELS["all tokens"]()
    streamed = list(HFSampler(lm).stream(PROMPTS, SEEDS, SAMPLING))
    lengths = [len(response.tokens) for _, _, response in streamed]
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]
    assert sorted((q, g) for q, g, _ in streamed) == [(q, g) for q in range(12) for g in range(4)]


def test_an_abandoned_stream_leaves_the_model_and_the_callers_gradient_mode_as_they_were():
    lm = MODELS["all tokens"]().train()
    stream = HFSampler(lm).stream(PROMPTS, SEEDS, SAMPLING)
    next(stream)
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    stream.close()
    assert lm.training


def test_more_rows_than_memory_allows_are_decoded_one_after_another(monkeypatch):
    lm = MODELS["all tokens"]()
    expected = HFSampler(lm).sample(PROMPTS, SEEDS, SAMPLING)
    longest = max(map(len, PROMPTS)) + SAMPLING.max_new_tokens
    one = 2 * 2 * 2 * 8 * 4 * longest  # keys and values, layers, key heads, head width, bytes of a number, tokens
    monkeypatch.setattr("rlx.rollout.hf.memory_bytes", lambda device: one * 3.5 / 0.4)
    rows = []
    start = DecodeLoop.__init__
    monkeypatch.setattr(DecodeLoop, "__init__", lambda *a: rows.append(len(a[3])) or start(*a))
    assert tokens_of(HFSampler(lm).sample(PROMPTS, SEEDS, SAMPLING)) == tokens_of(expected)
    assert rows == [3]


def test_the_memory_of_a_token_is_measured_on_the_model(lm):
    assert bytes_per_token(lm) == 2 * 2 * 2 * 8 * 4  # keys and values, layers, key heads, head width, bytes
    assert HFSampler(lm).sample([], [], SAMPLING) == []


def test_the_queue_is_taken_from_the_left_and_greedy_rows_need_no_random_numbers():
    lm = MODELS["all tokens"]()
    requests = deque(Request(PROMPTS[0], 1, (0, g)) for g in range(6))
    batch = [requests.popleft() for _ in range(2)]
    with torch.no_grad():
        loop = DecodeLoop(lm, SharedPrefillDecoder(), batch, requests, Sampling(0.0, 3, ()))
        first = loop.advance()
        assert [place[:2] for place in first] == [(0, 0), (0, 1)] and loop.running()
        assert [place[:2] for place in loop.advance()] == [(0, 2), (0, 3)]
    assert not loop.uniforms_bt.any()
    assert all(not response.finished and len(response.tokens) == 3 for _, _, response in first)
