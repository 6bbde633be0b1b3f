"""Decoding of grouped-query models: the same result as transformers' attention, without a copied cache."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from rlx.engine.attention import GROUPED, grouped_attention, use_attention
from rlx.engine.load import load_model
from rlx.rollout.hf import HFSampler
from rlx.rollout.sampler import Sampling
from rlx.specs.train import Model
from tests import architecture_checks as checks
from tests.devices import DEVICE


class Layer(torch.nn.Module):
    num_key_value_groups = 4
    is_causal = True


@pytest.mark.parametrize("new", [1, 5])
@pytest.mark.parametrize("masked", ["none", "shared", "per head"])
def test_grouped_decoding_equals_transformers_attention(new, masked):
    torch.manual_seed(0)
    query_bhtd = torch.randn(3, 8, new, 16, dtype=torch.float64, device=DEVICE)
    key_bksd, value_bksd = (torch.randn(3, 2, 9, 16, dtype=torch.float64, device=DEVICE) for _ in range(2))
    heads = {"none": 0, "shared": 1, "per head": 8}[masked]
    mask = None if not heads else torch.rand(3, heads, new, 9, device=DEVICE) > 0.4
    if mask is not None:
        mask[..., 0] = True
    options = {"dropout": 0.0, "scaling": 0.3}
    ours, _ = grouped_attention(Layer(), query_bhtd, key_bksd, value_bksd, mask, **options)
    theirs, _ = sdpa_attention_forward(Layer(), query_bhtd, key_bksd, value_bksd, mask, **options)
    assert ours.shape == theirs.shape == (3, new, 8, 16)
    assert torch.allclose(ours, theirs, atol=1e-12)


def grouped_lm(implementation):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM._from_config(config, attn_implementation=implementation).eval().to(DEVICE)


def test_a_masked_decode_step_copies_no_keys_per_query_head(monkeypatch):
    """transformers' attention is entered for the prefill only; every decode step is grouped."""
    lengths = []

    def counted(module, query, *others, **options):
        lengths.append(query.shape[2])
        return sdpa_attention_forward(module, query, *others, **options)

    monkeypatch.setattr("rlx.engine.attention.sdpa_attention_forward", counted)
    lm = grouped_lm("sdpa")
    use_attention(lm, GROUPED)
    HFSampler(lm).sample([[5, 6, 7], [8, 9]], [[1, 2], [3]], Sampling(1.0, 6, ()))
    assert lengths and all(length > 1 for length in lengths)


def test_only_attention_by_sdpa_is_replaced():
    for implementation, expected in (("sdpa", GROUPED), ("eager", "eager")):
        lm = grouped_lm(implementation)
        use_attention(lm, GROUPED)
        assert lm.config._attn_implementation == expected


def test_a_model_that_compares_the_implementations_name_keeps_its_own(tmp_path):
    folder = str(checks.save_tiny("falcon", tmp_path / "falcon"))
    lm = load_model(folder, Model(path=folder), torch.device("cpu"))
    assert lm.config._attn_implementation == "sdpa"
