"""What makes the transformers sampler quick on a CPU changes nothing that it computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import LlamaConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from rlx.engine.cpu import small_batch_linear as few_rows
from rlx.engine.cpu.small_batch_linear import small_batch_linears
from rlx.rollout import kv_cache
from rlx.rollout.kv_cache import PreallocatedLayer, preallocated_cache


def test_a_cache_with_room_holds_what_transformers_own_holds_through_growth_and_selection(monkeypatch):
    monkeypatch.setattr(kv_cache, "GROWTH", 3)
    draw = torch.Generator().manual_seed(0)
    ours, theirs = PreallocatedLayer(), DynamicLayer()
    kept = {1: torch.tensor([0, 0, 1]), 6: torch.tensor([2, 0])}  # repeated for its samples, then two are left
    rows, made = 2, 0
    for step in range(12):
        tokens = 4 if step == 0 else 1
        keys, values = (torch.randn(rows, 2, tokens, width, generator=draw) for width in (5, 3))
        got, expected = ours.update(keys, values), theirs.update(keys, values)
        assert torch.equal(got[0], expected[0]) and torch.equal(got[1], expected[1])
        made += ours.keys._base.shape[2] == ours.get_seq_length() + 3  # just grown
        if step in kept:
            for layer in (ours, theirs):
                layer.batch_select_indices(kept[step])
            rows = len(kept[step])
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)
    assert 2 < made < 6, "it grows at some tokens and not at each"


def test_only_layers_that_see_every_token_get_room():
    config = LlamaConfig(num_hidden_layers=2)
    config.layer_types, config.sliding_window = ["full_attention", "sliding_attention"], 8
    assert [type(layer) for layer in preallocated_cache(config).layers] == [
        PreallocatedLayer,
        DynamicSlidingWindowLayer,
    ]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 1, 20), (5, 20), (few_rows.MAX_ROWS + 1, 1, 20)])
def test_few_rows_give_what_the_linear_layer_gives_in_its_layout(shape, bias):
    torch.manual_seed(0)
    lm = nn.Sequential(nn.Linear(20, 30, bias=bias))
    x = torch.randn(shape)
    plain = lm(x)
    with torch.no_grad(), small_batch_linears(lm):
        quick = lm(x)
    assert quick.is_contiguous() and quick.shape == plain.shape
    assert torch.allclose(quick, plain, atol=1e-6)


def test_layers_are_as_they_were_afterwards_even_after_an_error():
    lm = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4).to(torch.bfloat16))
    with pytest.raises(KeyError), small_batch_linears(lm):
        assert "forward" in vars(lm[0])
        assert "forward" not in vars(lm[1]), "bfloat16 has kernels of its own"
        raise KeyError
    assert not [layer for layer in lm if "forward" in vars(layer)]


def test_under_autocast_products_stay_in_its_type():
    lm = nn.Sequential(nn.Linear(4, 4))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), small_batch_linears(lm):
        assert lm(torch.randn(2, 4)).dtype == torch.bfloat16
