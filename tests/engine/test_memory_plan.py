"""The estimate of an update's memory, and the choice to recompute activations."""

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rlx.engine.activation_checkpointing import recomputes_activations
from rlx.engine.memory import (
    GIB,
    ModelSizes,
    Setting,
    activation_bytes,
    free_bytes,
    layer_bytes,
    model_sizes,
    needs_checkpointing,
    peak_bytes,
    state_bytes,
    update_bytes,
)
from rlx.engine.step import Engine
from rlx.numerics.collate import TokenSequence
from rlx.specs.train import Lora, Model, Optim
from tests.engine.test_step import batch, engine, weights
from tests.tiny_models import tiny_model

SMALL = ModelSizes(layers=3, hidden=10, inner=20, queries=8, keys=4, vocabulary=100, parameters=1000, trained=900)
LLAMA_8B = ModelSizes(
    layers=32, hidden=4096, inner=14336, queries=4096, keys=1024, vocabulary=128256, parameters=8_030_261_248,
    trained=8_030_261_248,
)  # fmt: skip


def test_the_bytes_of_a_layer_follow_the_formula():
    assert layer_bytes(SMALL, Setting(7, 4)) == 7 * (2 * 12 * 10 + 4 * (2 * 8 + 2 * 4 + 4 * 20))
    assert layer_bytes(SMALL, Setting(7, 2)) == 7 * (2 * 10 * 10 + 2 * (2 * 8 + 2 * 4 + 4 * 20))
    routed = replace(SMALL, routed=2)
    assert layer_bytes(routed, Setting(7, 4)) - layer_bytes(SMALL, Setting(7, 4)) == 7 * 4 * 2 * 2 * 10


def test_recomputation_keeps_one_layer_and_the_inputs_of_all():
    float32 = Setting(1, 4)
    output = 12 * 10 + 3 * 4 * 100
    assert activation_bytes(SMALL, float32, False) == 3 * layer_bytes(SMALL, float32) + output
    assert activation_bytes(SMALL, float32, True) == 3 * 4 * 10 + layer_bytes(SMALL, float32) + output
    casts = activation_bytes(SMALL, Setting(1, 2), False) - 3 * layer_bytes(SMALL, Setting(1, 2))
    assert casts == 2 * 1000 + 10 * 10 + 3 * 4 * 100


def test_gradients_and_moments_are_divided_over_shards_and_may_be_in_main_memory():
    assert state_bytes(SMALL, Setting(1, 4)) == 12 * 900
    assert state_bytes(SMALL, Setting(1, 4, shards=4)) == 3 * 900
    assert state_bytes(SMALL, Setting(1, 4, on_device=False)) == 0


def test_an_update_of_8b_weights_needs_recomputation_on_eight_gpus_of_80_gib_but_not_with_few_tokens():
    free = 75 * GIB
    sharded = Setting(16384, 2, shards=8)
    assert 100 < activation_bytes(LLAMA_8B, sharded, False) / GIB < 140
    assert needs_checkpointing(LLAMA_8B, sharded, free)
    assert update_bytes(LLAMA_8B, sharded, True) < 0.9 * free
    assert not needs_checkpointing(LLAMA_8B, replace(sharded, tokens=4096), free)


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize(("hidden", "inner", "heads", "key_heads"), [(64, 192, 4, 2), (128, 512, 8, 8)])
def test_the_estimate_of_a_llama_is_what_autograd_keeps(bfloat16, hidden, inner, heads, key_heads):
    config = LlamaConfig(
        vocab_size=32, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=4, num_attention_heads=heads,
        num_key_value_heads=key_heads, max_position_embeddings=256,
    )  # fmt: skip
    lm = LlamaForCausalLM(config)
    weights = {parameter.untyped_storage().data_ptr() for parameter in lm.parameters()}
    storages = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
    ):
        lm.get_decoder()(input_ids=torch.randint(0, 32, (4, 128)), use_cache=False)
    setting = Setting(4 * 128, 2 if bfloat16 else 4)
    sizes = model_sizes(lm, lm)
    estimate = activation_bytes(sizes, setting, False) - 3 * 4 * setting.tokens * 32
    assert sum(size for size, _ in storages.values()) == pytest.approx(estimate, rel=0.12)


@pytest.mark.parametrize(
    "model_type", ["llama", "gpt2", "qwen3_moe", "deepseek_v3", "mamba2", "gemma3_text", "gemma4_text"]
)
def test_sizes_are_read_from_any_configuration(model_type):
    lm = tiny_model(model_type)
    sizes = model_sizes(lm, lm)
    assert (sizes.layers, sizes.hidden, sizes.vocabulary) == (2, 32, 32)
    assert sizes.parameters == sizes.trained == sum(p.numel() for p in lm.parameters())
    assert sizes.routed == (2 if model_type in ("qwen3_moe", "deepseek_v3") else 0)
    lm.get_input_embeddings().weight.requires_grad_(False)
    assert model_sizes(lm, lm).trained < sizes.trained


def test_the_memory_of_a_cpu_process_is_measured():
    assert free_bytes(torch.device("cpu")) > 0
    assert 10 << 20 < peak_bytes(torch.device("cpu")) < 1 << 40


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_auto_recomputes_activations_only_if_an_update_would_not_fit_and_changes_no_bit(lora):
    plain, full = engine(max_tokens=10_000, lora=lora), engine(max_tokens=10**12, lora=lora)
    assert not recomputes_activations(plain.lm)
    assert recomputes_activations(full.lm)
    assert plain.update(batch()) == full.update(batch())
    assert all(torch.equal(value, weights(full)[name]) for name, value in weights(plain).items())


def test_an_update_of_few_tokens_is_estimated_by_these_whatever_the_budget():
    lm = tiny_model("llama")
    Engine(lm, Model(), Optim(), 1, 10**12, update_tokens=1000)
    assert not recomputes_activations(lm)


def test_the_spec_overrides_the_estimate():
    lm = tiny_model("llama")
    Engine(lm, Model(gradient_checkpointing=False), Optim(), 1, 10**12)
    assert not recomputes_activations(lm)


def test_a_model_that_cannot_recompute_activations_is_left_as_it_is():
    lm = tiny_model("llama")
    lm.supports_gradient_checkpointing = False
    Engine(lm, Model(), Optim(), 1, 10**12)
    assert not recomputes_activations(lm)


def test_a_step_reports_its_memory_and_speed_and_starts_a_new_measurement():
    made = engine(max_tokens=500)
    made.update(batch())
    first = made.usage.report(made.gather, made.max_tokens)
    assert first.keys() == {"memory/peak_gib", "memory/estimate_gib", "memory/max_tokens", "perf/train_tokens_per_s"}
    assert first["perf/train_tokens_per_s"] > 0 and first["memory/max_tokens"] == 500
    again = made.usage.report(made.gather, made.max_tokens)
    assert "perf/train_tokens_per_s" not in again, "nothing has been trained since"


def test_the_share_of_the_peak_is_that_of_all_devices_over_the_slowest_process():
    made = engine()
    made.usage.add([TokenSequence((1, 2), (3, 4))], [[[0]]])
    flops, tokens = made.usage._flops, made.usage._tokens
    assert tokens == 3 and flops > 0
    made.usage._seconds, made.usage._device_peak = 0.5, flops
    metrics = made.usage.report(lambda own: [*own, replace(own[0], seconds=2.0, tokens=7)], 100)
    assert metrics["perf/train_tokens_per_s"] == 5.0
    assert metrics["perf/mfu"] == 0.5
