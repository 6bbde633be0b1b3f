"""Packed rows: the mask pair by pair, and hidden states, log-probs and gradients equal to padded rows'.

flex_attention runs here as on CUDA but uncompiled and without gradients: it has no backward pass on a CPU. Gradients
are those of torch's attention under the same mask function.
"""

import contextlib
import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from rlx.engine import device, row_layout
from rlx.engine.attention import GROUPED, PACKED, SHARED_PROMPTS, packed_rows_attention, use_attention
from rlx.engine.batch import Batch, Losses
from rlx.engine.cuda import packed_attention as cuda
from rlx.engine.lora import add_lora, causal_lm
from rlx.engine.model import ReadableModel
from rlx.engine.row_layout import can_pack, choose_row_layout
from rlx.engine.step import Engine
from rlx.numerics.collate import TokenSequence, collate, pack
from rlx.numerics.output_layer.logprobs import token_logprobs
from rlx.numerics.packed_row import BLOCK, lay_out_packed
from rlx.numerics.terms import Counts, Term
from rlx.specs.train import Lora, Model, Optim

GROUPS = [((3, 4, 5, 6, 7, 8, 9, 10), (1, 60, 2, 33)), ((11, 12, 13, 14), (20, 5, 0, 1)), ((2,), (7,))]
SEQUENCES = [
    TokenSequence(prompt, tuple(n % 30 for n in range(count))) for prompt, counts in GROUPS for count in counts
]
SHARES = [len(counts) for _, counts in GROUPS]


def llama(**changes):
    torch.manual_seed(0)
    shape = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "initializer_range": 0.2}
    config = LlamaConfig(vocab_size=32, num_attention_heads=6, num_key_value_heads=2, **(shape | changes))
    return with_attention(LlamaForCausalLM(config), PACKED)


def with_attention(lm, name):
    use_attention(lm, name)
    return lm.eval()


def hidden(hidden_nd, head, batch):
    return hidden_nd


def read(hidden_nd, head, batch):
    return token_logprobs(hidden_nd, batch.targets_n, head)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(1, 300), st.lists(st.integers(0, 300), min_size=1, max_size=4)), min_size=1, max_size=4
    )
)
def test_blocks_of_the_mask_are_listed_exactly_where_a_pair_is_visible(groups):
    tokens = sum(prompt + sum(tails) for prompt, tails in groups)
    width = -(-tokens // BLOCK) * BLOCK
    layout = lay_out_packed([prompt for prompt, _ in groups], [tails for _, tails in groups], width)
    index = torch.arange(width)
    sees = layout.sees(index[:, None], index)
    assert sees.diagonal().all()
    pairs = sees.view(width // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(1, 2).flatten(2)
    some, complete = layout.visible_blocks()
    assert torch.equal(some, pairs.any(2))
    assert not (complete & ~pairs.all(2)).any()


def test_a_token_sees_its_prompt_and_the_earlier_tokens_of_its_own_response():
    layout = lay_out_packed([2, 1], [[2, 1], [1]], BLOCK)
    index = torch.arange(8)
    assert layout.positions_bs[0, :9].tolist() == [0, 1, 2, 3, 2, 0, 1, 0, 0]
    visible = layout.sees(index[:, None], index)
    assert [row.nonzero().flatten().tolist() for row in visible] == [
        *([0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4]),
        *([5], [5, 6], [7]),
    ]


def test_whole_blocks_need_no_mask_function():
    _, complete = lay_out_packed([256], [[128, 256]], 640).visible_blocks()
    assert complete.int().tolist() == [[0] * 5, [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 1, 0]]


@pytest.mark.parametrize("grouped", [True, False])
def test_flex_attention_and_the_dense_form_of_its_mask_are_equal(grouped):
    layout = pack(SEQUENCES, shares=SHARES).layout
    torch.manual_seed(0)
    heads = (6, 2, 2) if grouped else (4, 4, 4)
    q, k, v = (torch.randn(1, h, layout.positions_bs.shape[1], 16) for h in heads)
    mask = cuda.packed_mask(layout)
    flex = cuda.packed_attention(q, k, v, mask, 0.3)
    dense = cuda.packed_attention(q.requires_grad_(), k, v, mask, 0.3)
    assert dense.requires_grad and flex.shape == dense.shape
    assert torch.allclose(flex, dense, atol=1e-5)


@pytest.mark.slow
def test_compiled_flex_attention_equals_the_uncompiled_one_with_two_variants_for_all_lengths():
    torch._dynamo.reset()
    variants = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for count in (1, 3, 8, 14):
        layout = pack([TokenSequence((1,) * 20, (2,) * 40)] * count, shares=[count]).layout
        q, k, v = (torch.randn(1, heads, layout.positions_bs.shape[1], 16) for heads in (6, 2, 2))
        mask = cuda.packed_mask(layout)
        compiled = cuda._compiled_flex_attention()(q, k, v, block_mask=mask, enable_gqa=True)
        index = torch.arange(layout.positions_bs.shape[1])
        sees = layout.sees(index[:, None], index)
        dense = scaled_dot_product_attention(q, k, v, sees[None, None], enable_gqa=True)
        assert torch.allclose(compiled, dense, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - variants == 2


def test_under_autocast_attention_is_computed_in_its_type_from_inputs_of_two():
    layout = pack(SEQUENCES, shares=SHARES).layout
    q, k, v = (torch.randn(1, 2, layout.positions_bs.shape[1], 16) for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        out = cuda.packed_attention(q, k, v.bfloat16(), cuda.packed_mask(layout), None)
    assert out.dtype == torch.bfloat16


def test_the_mask_needs_no_tensor_of_all_pairs_and_dropout_is_refused():
    largest = 0

    class SizeRecorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else (out,):
                largest = max(largest, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
            return out

    long = pack([TokenSequence((1,) * 100, (2,) * 4000)] * 3, shares=[3])
    with SizeRecorder():
        mask = cuda.packed_mask(long.layout)
    assert largest <= long.input_ids_bs.numel() < 13_000
    q = torch.randn(1, 2, 8, 4)
    with pytest.raises(NotImplementedError, match="dropout"):
        packed_rows_attention(torch.nn.Module(), q, q, q, mask, dropout=0.1)


@pytest.mark.parametrize("shares", [SHARES, None])
def test_packed_rows_give_the_hidden_states_log_probs_and_gradients_of_padded_rows(shares):
    lm = llama()
    model = ReadableModel(lm)
    padded, packed = collate(SEQUENCES), pack(SEQUENCES, shares=shares or ())
    assert torch.equal(padded.targets_n, packed.targets_n) and torch.equal(padded.mask_bt, packed.mask_bt)
    with torch.no_grad():  # flex_attention
        assert torch.allclose(model(padded, hidden), model(packed, hidden), atol=1e-5)
        for one, other in zip(model(padded, read), model(packed, read), strict=True):
            assert torch.allclose(one, other, atol=1e-5)
    gradients = []
    for batch in (padded, packed):  # the dense form
        logprobs_n, _ = model(batch, read)
        lm.zero_grad()
        (logprobs_n * torch.linspace(-1, 1, len(logprobs_n))).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in lm.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-4, atol=1e-4 * gradient.abs().max()), name


@pytest.mark.parametrize("max_tokens", [10_000, 150, 40])
@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_an_engine_with_packed_rows_takes_the_same_steps(max_tokens, lora):
    tokens = sum(len(s.response) for s in SEQUENCES)
    results = []
    for packs in (False, True):
        spec = Model(lora=lora)
        made = Engine(add_lora(llama(), spec), spec, Optim(lr=1e-2), 100, max_tokens)
        made.pack_rows = packs
        scored = [
            pair for members, (values_n, _) in made.score(SEQUENCES, read) for pair in by_member(members, values_n)
        ]
        updates = [made.update(Batch(SEQUENCES, read, likelihood, {"nll": Counts(tokens, 9, 99)})) for _ in range(2)]
        results.append((dict(scored), updates, dict(made.raw.named_parameters())))
    (padded, one, weights), (packed, two, others) = results
    assert set(padded) == set(packed) == set(range(len(SEQUENCES)))
    for member, values_n in padded.items():
        assert torch.allclose(values_n, packed[member], atol=1e-5), member
    for a, b in zip(one, two, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-5) and b.grad_norm == pytest.approx(a.grad_norm, rel=1e-4)
        assert a.sums == b.sums
    for name, value in weights.items():
        assert torch.allclose(value, others[name], atol=1e-4), name


def likelihood(scored, tokens, members):
    logprobs_bt = tokens.padded(scored[0])
    return Losses([Term("nll", -logprobs_bt, tokens.mask_bt)], sums={"tokens": tokens.mask_bt.sum()})


def by_member(members, values_n):
    return zip(members, torch.split(values_n, [len(SEQUENCES[i].response) for i in members]), strict=True)


BFLOAT16 = torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("autocast", [contextlib.nullcontext(), BFLOAT16])
def test_a_model_is_packed_if_a_trial_shows_that_it_can(autocast):
    lm = llama().train()
    assert can_pack(lm, lambda: autocast) and lm.training
    assert can_pack(causal_lm(add_lora(llama(), Model(lora=Lora(rank=2)))), lambda: autocast)


def test_models_that_cannot_be_packed_keep_padded_rows():
    plain = contextlib.nullcontext
    for name in (GROUPED, SHARED_PROMPTS):
        lm = llama()
        for module in lm.modules():
            if getattr(module, "config", None) is not None:
                module.config._attn_implementation = name
        assert not can_pack(lm, plain), "this attention does not read the mask of a packed row"
    blind = llama()
    decoder = blind.get_decoder()
    forward = decoder.forward
    decoder.forward = lambda input_ids, use_cache, **_: forward(input_ids=input_ids, use_cache=use_cache)
    assert not can_pack(blind, plain), "positions and mask are ignored"
    shape = GPT2Config(vocab_size=32, n_positions=64, n_embd=24, n_layer=2, n_head=4)
    assert not can_pack(with_attention(GPT2LMHeadModel(shape), PACKED), plain), "its forward asks for a tensor as mask"
    window = MistralConfig(
        vocab_size=32,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=4096,
    )
    assert not can_pack(with_attention(MistralForCausalLM(window), PACKED), plain)


def test_a_gpu_packs_models_that_are_not_tiny(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert not device.prefers_packed_rows(llama(), gpu)
    monkeypatch.setattr(device, "TINY_MODEL", 0)
    assert device.prefers_packed_rows(llama(), gpu) and not device.prefers_packed_rows(llama(), cpu)
    lm = llama()
    for module in lm.modules():
        if getattr(module, "config", None) is not None:
            module.config._attn_implementation = "sdpa"
    device.optimize_for_device(lm, gpu)
    assert lm.config._attn_implementation == PACKED


def test_a_cpu_shares_prompts_and_a_gpu_packs(monkeypatch):
    made = Engine(copy.deepcopy(llama()), Model(), Optim(), 100, 1000)
    assert choose_row_layout(made) == ""
    assert (made.share_prompts, made.pack_rows) == (True, False)
    monkeypatch.setattr(row_layout, "prefers_packed_rows", lambda lm, device: True)
    for spec, packs in ((Model(), True), (Model(dropout=True), False), (Model(router_aux_coef=0.1), False)):
        made = Engine(copy.deepcopy(llama()), spec, Optim(), 100, 1000)
        notice = choose_row_layout(made)
        assert made.pack_rows == packs and (not notice) == packs and not made.share_prompts
