"""The sampler's copy of the weights in the compute type."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from rlx.engine.lora import causal_lm, merged_weights
from rlx.rollout.hf import HFSampler
from rlx.rollout.sampler import Sampling
from rlx.rollout.weights_copy import copy_in
from tests.tiny_models import small_llama

IDS = torch.arange(3, 23)[None]


def trained(lora: bool, tied: bool = True):
    lm = small_llama(tie_word_embeddings=tied).eval()
    if lora:
        lm = get_peft_model(lm, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)).eval()
    return lm


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_a_copy_computes_what_the_trained_model_does_and_shares_and_trains_nothing(lora, tied):
    model = trained(lora, tied)
    copied = copy_in(torch.float64, causal_lm(model))
    with torch.no_grad():
        assert (copied(input_ids=IDS).logits - model(input_ids=IDS).logits).abs().max() < 1e-5
    assert not [name for name, p in copied.named_parameters() if p.requires_grad or "lora" in name]
    assert {p.dtype for p in copied.parameters()} == {torch.float64}
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in copied.parameters()}
    assert (copied.lm_head.weight is copied.model.embed_tokens.weight) == tied
    assert [name for name, _ in merged_weights(causal_lm(model))] == [name for name, _ in copied.named_parameters()]


def test_weights_that_the_architecture_keeps_in_float32_stay_so():
    model = trained(lora=False)
    model._keep_in_fp32_modules = ["q_proj"]
    copied = copy_in(torch.bfloat16, model)
    kinds = {name: p.dtype for name, p in copied.named_parameters()}
    assert {kind for name, kind in kinds.items() if "q_proj" in name} == {torch.float32}
    assert {kind for name, kind in kinds.items() if "q_proj" not in name} == {torch.bfloat16}


def test_the_sampler_follows_the_trainers_weights_and_frees_its_copy():
    model = trained(lora=True)
    sampler = HFSampler(autocast=lambda: torch.autocast("cpu", torch.bfloat16), dtype=torch.bfloat16)
    drawn = []
    for _ in range(2):
        sampler.load_weights(causal_lm(model))
        drawn.append(sampler.sample([[5, 6, 7]], [[1, 2, 3]], Sampling(1.0, 12, (2,))))
        sampler.sleep()
        assert sampler.lm is None
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter += torch.randn_like(parameter)
    assert drawn[0] != drawn[1]
    with pytest.raises(ValueError, match="load_weights"):
        next(sampler.stream([[5]], [[1]], Sampling(1.0, 2, ())))
