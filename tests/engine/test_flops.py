"""Operations of training, counted from a model's weights, against those that torch counts while it computes."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rlx.engine.flops import Attention, ModelFlops, device_peak, model_flops, peak_flops
from rlx.engine.lora import add_lora, causal_lm
from rlx.specs.train import Lora, Model
from tests.tiny_models import tiny_model

TOKENS = 24


def counted(lm, logits_of=slice(None)):
    """Operations by kind of a forward and backward pass over ``TOKENS`` tokens."""
    with FlopCounterMode(display=False) as counter:
        hidden = causal_lm(lm).get_decoder()(input_ids=torch.arange(3, 3 + TOKENS)[None]).last_hidden_state
        causal_lm(lm).get_output_embeddings()(hidden[:, logits_of]).sum().backward()
    by_operation = {str(name): count for name, count in counter.get_flop_counts()["Global"].items()}
    attention = by_operation.pop("aten.bmm")
    return sum(by_operation.values()), attention


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "qwen3_moe", "mixtral", "deepseek_v3", "qwen3"])
def test_operations_are_those_that_torch_counts(model_type):
    lm = tiny_model(model_type)
    lm.set_attn_implementation("eager")
    if model_type in ("qwen3_moe", "mixtral", "deepseek_v3"):
        lm.set_experts_implementation("eager")  # torch counts no operations of the fused product
    flops = model_flops(lm)
    products, attention = counted(lm, slice(TOKENS - 10, None))
    without_attention = ModelFlops(flops.body, flops.body_trained, flops.head, flops.head_trained, ())
    # The response's last token is predicted but is no input.
    assert without_attention.of_row(TOKENS - 9, [10]) == products
    # Eager attention also computes the pairs that the mask hides: T^2 instead of T (T + 1) / 2.
    causal = flops.of_row(TOKENS - 9, [10]) - products
    assert causal == attention * (TOKENS + 1) / (2 * TOKENS)


def test_frozen_weights_cost_no_gradient_of_their_own_but_pass_on_that_of_their_input():
    spec = Model(lora=Lora(rank=2))
    adapted = add_lora(tiny_model("llama"), spec)
    causal_lm(adapted).set_attn_implementation("eager")
    flops = model_flops(causal_lm(adapted))
    full = model_flops(tiny_model("llama"))
    assert flops.head_trained == 0 and flops.head == full.head
    assert flops.body == full.body + flops.body_trained
    without_attention = ModelFlops(flops.body, flops.body_trained, flops.head, flops.head_trained, ())
    products, _ = counted(adapted)
    # Nothing needs the gradient of the first layer's input, which has no trained weight before it.
    layer = causal_lm(adapted).model.layers[0].self_attn
    first = sum(p.numel() for m in (layer.q_proj, layer.k_proj, layer.v_proj) for p in m.base_layer.parameters())
    assert without_attention.of_row(1, [TOKENS]) - products <= 2 * TOKENS * (first + flops.body_trained)
    assert products <= without_attention.of_row(1, [TOKENS])


def test_attention_counts_the_pairs_that_a_causal_mask_or_a_window_leaves():
    def pairs(window, prompt, responses):
        only_attention = ModelFlops(0, 0, 0, 0, (Attention(1, 1, 1, window),))
        return only_attention.of_row(prompt, responses) / 12

    assert pairs(None, 4, [1]) == 1 + 2 + 3 + 4
    assert pairs(None, 2, [3, 2]) == (1 + 2) + (3 + 4) + 3, "responses that share a row do not see each other"
    assert pairs(3, 5, [1]) == 1 + 2 + 3 + 3 + 3
    assert pairs(3, 5, [3]) == 1 + 2 + 3 + 3 + 3 + 3 + 3
    assert pairs(100, 5, [3]) == pairs(None, 5, [3])


def test_one_token_of_smollm2_costs_six_operations_a_weight():
    flops = ModelFlops(body=106.2e6, body_trained=106.2e6, head=28.3e6, head_trained=28.3e6, attention=())
    assert flops.of_row(1, []) == pytest.approx(6 * 106.2e6)
    assert flops.of_row(1, [1]) == pytest.approx(6 * 134.5e6)


def test_peaks_are_known_for_whole_gpus_only():
    assert peak_flops("NVIDIA H100 80GB HBM3", bfloat16=True) == pytest.approx(989.4e12)
    assert peak_flops("NVIDIA H100 80GB HBM3", bfloat16=False) == pytest.approx(66.9e12)
    assert peak_flops("NVIDIA H100 80GB HBM3 MIG 1g.10gb", bfloat16=True) is None
    assert device_peak(torch.device("cpu"), bfloat16=True) is None
