"""Attention over shared rows against torch's own, pair by pair."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from rlx import assets
from rlx.engine import attention, device
from rlx.engine.export import save_model
from rlx.engine.load import load_model, load_tokenizer
from rlx.engine.model import can_share_prompts
from rlx.numerics.shared_rows import lay_out
from rlx.specs.train import Model

HEADS, KV_HEADS, DIM = 6, 2, 4


def inputs(layout, dtype=torch.float64):
    """Random queries, keys and values [b, heads, s, d]."""
    torch.manual_seed(0)
    b, s = layout.positions_bs.shape
    return [torch.randn(b, h, s, DIM, dtype=dtype, requires_grad=True) for h in (HEADS, KV_HEADS, KV_HEADS)]


def dense(q, k, v, layout):
    """torch's attention under the whole mask."""
    k, v = (x.repeat_interleave(HEADS // KV_HEADS, dim=1) for x in (k, v))
    return scaled_dot_product_attention(q, k, v, attn_mask=layout.sees_bss[:, None]).transpose(1, 2)


def real_tokens(prompts, responses, width):
    """True where a row holds a token and no padding."""
    lengths = torch.tensor([p + sum(r) for p, r in zip(prompts, responses, strict=True)])
    return torch.arange(width) < lengths[:, None]


@pytest.mark.parametrize(
    ("prompts", "responses"),
    [
        ((3,), ((2, 2, 2),)),
        ((5, 2, 1), ((4, 1, 0, 3), (4, 4, 4), (5, 5))),
        ((1, 7), ((0, 0, 6, 6, 6), (5, 6, 5))),
        ((6, 4), ((0, 0), (0,))),
        ((3, 1), ((1, 0, 2), (0, 0))),
    ],
)
def test_blocks_read_what_torchs_attention_reads_under_the_whole_mask_and_pass_the_same_gradients(prompts, responses):
    width = max(p + sum(r) for p, r in zip(prompts, responses, strict=True))
    layout = lay_out(prompts, responses, width)
    assert layout.blocks
    ours, theirs = inputs(layout), inputs(layout)
    read, weights = attention.shared_prompts_attention(torch.nn.Module(), *ours, None, layout=layout)
    real_bs = real_tokens(prompts, responses, width)
    expected = dense(*theirs, layout)
    assert weights is None and read.shape == expected.shape
    assert torch.allclose(read[real_bs], expected[real_bs], atol=1e-12)
    slopes = torch.randn(read[real_bs].shape, dtype=read.dtype)
    (read[real_bs] * slopes).sum().backward()
    (expected[real_bs] * slopes).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-12)


def test_scores_are_scaled_as_the_model_says():
    layout = lay_out((2,), ((2, 2),), 6)
    q, k, v = inputs(layout)
    read, _ = attention.shared_prompts_attention(torch.nn.Module(), q, k, v, None, scaling=0.3, layout=layout)
    by_default, _ = attention.shared_prompts_attention(torch.nn.Module(), q * 0.6, k, v, None, layout=layout)
    assert torch.allclose(read, by_default, atol=1e-12)


def test_one_long_response_among_short_ones_is_left_to_whole_rows():
    assert lay_out((2,), ((3, 3, 3),), 11).blocks
    layout = lay_out((2,), ((40, 1, 1, 1, 1, 1, 1),), 48)
    assert layout.blocks == ()
    module = torch.nn.Module()
    module.num_key_value_groups = HEADS // KV_HEADS
    q, k, v = inputs(layout)
    read, _ = attention.shared_prompts_attention(module, q, k, v, layout.sees_bss[:, None], layout=layout)
    assert torch.allclose(read, dense(q, k, v, layout), atol=1e-12)


def test_a_larger_model_gets_this_attention_on_a_cpu_and_its_saved_configuration_does_not_name_it(
    monkeypatch, tmp_path
):
    spec = Model(path="arithmetic")
    cpu = torch.device("cpu")
    folder = str(Path(assets.__file__).parent / "arithmetic")
    assert load_model(folder, spec, cpu).config._attn_implementation == attention.GROUPED
    monkeypatch.setattr(device, "TINY_MODEL", 0)
    monkeypatch.setattr(device, "keep_freed_memory", lambda: True)  # it would hold for the tests after this one
    lm = load_model(folder, spec, cpu)
    assert lm.config._attn_implementation == attention.SHARED_PROMPTS
    assert can_share_prompts(lm)
    save_model(lm, load_tokenizer(folder, spec), tmp_path)
    assert attention.SHARED_PROMPTS not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
    assert load_model(str(tmp_path), spec, cpu).config._attn_implementation == attention.SHARED_PROMPTS
