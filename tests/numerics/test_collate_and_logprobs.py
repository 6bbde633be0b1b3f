"""Micro-batches within budget and waste, and log-probs equal to the plain formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlx.numerics.collate import (
    TokenSequence,
    collate,
    micro_batches,
    pack,
    packed_micro_batches,
    packed_plan,
)
from rlx.numerics.output_layer import logprobs as numerics_logprobs
from rlx.numerics.output_layer import tiled as linear_logprobs
from rlx.numerics.output_layer.logprobs import Head, token_logprobs
from tests.devices import DEVICE


@given(st.lists(st.integers(1, 300), max_size=80), st.integers(1, 2000))
def test_micro_batches_hold_every_sequence_once_within_budget_and_waste(lengths, budget):
    plan = micro_batches(lengths, budget)
    assert sorted(index for rows in plan for index in rows) == list(range(len(lengths)))
    for rows in plan:
        longest = max(lengths[row] for row in rows)
        assert len(rows) == 1 or len(rows) * longest <= budget
        assert sum(lengths[row] for row in rows) >= 0.9 * len(rows) * longest


@given(st.lists(st.integers(1, 300), max_size=80), st.integers(1, 2000))
def test_packed_micro_batches_hold_every_sequence_once_within_budget(lengths, budget):
    plan = packed_micro_batches(lengths, budget)
    assert sorted(index for members in plan for index in members) == list(range(len(lengths)))
    loads = [sum(lengths[index] for index in members) for members in plan]
    assert all(len(members) == 1 or load <= budget for members, load in zip(plan, loads, strict=True))
    assert sum(sorted(loads)[:2]) > budget or len(plan) < 2, "no two micro-batches fit into one"


def test_packing_wastes_little_of_the_budget_where_padded_rows_waste_more():
    lengths = [int(20 + 980 * (n / 511) ** 2) for n in range(512)]
    packed, padded = packed_micro_batches(lengths, 8192), micro_batches(lengths, 8192)
    assert len(packed) == -(-sum(lengths) // 8192) < len(padded)


def test_groups_share_their_prompt_in_a_packed_plan_and_are_cut_at_the_budget():
    sequences = [TokenSequence((n, 1, 2, 3), tuple(range(5, 5 + n))) for n in (7, 8) for _ in range(3)]
    assert packed_plan(sequences, 1000) == [[[3, 4, 5], [0, 1, 2]]], "longest first: 25 tokens and 22"
    assert packed_plan(sequences, 18) == [[[3, 4]], [[0, 1]], [[5]], [[2]]]
    assert packed_plan([], 18) == []


def test_pack_places_prompts_and_responses_end_to_end():
    sequences = [TokenSequence((5, 6), (7, 8, 2)), TokenSequence((5, 6), (9, 2)), TokenSequence((4,), (3,))]
    batch = pack([*sequences, TokenSequence((4,), ())], pad_id=1, members=(2, 0, 1, 3), shares=[2, 2])
    assert batch.input_ids_bs.tolist() == [[5, 6, 7, 8, 9, 4] + [1] * 122]
    assert batch.mask_bt.tolist() == [[True] * 3, [True, True, False], [True, False, False], [False] * 3]
    assert batch.targets_n.tolist() == [7, 8, 2, 9, 2, 3] and batch.members == (2, 0, 1, 3)
    assert batch.input_ids_bs[batch.rows_n, batch.columns_n].tolist() == [6, 7, 8, 6, 9, 4]


def test_collate_puts_each_response_token_behind_the_position_that_predicts_it():
    batch = collate([TokenSequence((5, 6), (7, 8)), TokenSequence((5,), (9,)), TokenSequence((4,), ())]).to(DEVICE)
    assert batch.input_ids_bs.tolist() == [[5, 6, 7], [5, 0, 0], [4, 0, 0]], "nothing is predicted from a last token"
    assert batch.mask_bt.tolist() == [[True, True], [True, False], [False, False]]
    assert batch.targets_n.tolist() == [7, 8, 9]
    assert batch.input_ids_bs[batch.rows_n, batch.columns_n].tolist() == [6, 7, 5]
    assert batch.padded(torch.tensor([1.0, 2.0, 3.0], device=DEVICE)).tolist() == [[1, 2], [3, 0], [0, 0]]


NAMES = ("hidden", "weight")


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("tile", [1, 4, 11, 2048])
def test_tiled_logprobs_and_gradients_equal_the_plain_formula(tile, kept, monkeypatch):
    monkeypatch.setattr(linear_logprobs, "TILE", tile)
    monkeypatch.setattr(numerics_logprobs, "KEPT_ELEMENTS", 7 * 11 if kept else 0)
    assert_equal_to_the_plain_formula(None)


@pytest.mark.parametrize("tokens", [1, 3, 100])
def test_chunked_soft_capped_logprobs_and_gradients_equal_the_plain_formula(tokens, monkeypatch):
    monkeypatch.setattr(numerics_logprobs, "CHUNK_ELEMENTS", tokens * 11)
    assert_equal_to_the_plain_formula(3.0)


def on_device(*shape, dtype=torch.float32):
    """Random numbers with a gradient, the same on every device."""
    return torch.randn(shape, dtype=dtype).to(DEVICE).requires_grad_()


def assert_equal_to_the_plain_formula(softcap):
    torch.manual_seed(0)
    hidden, weight, bias = (on_device(*shape, dtype=torch.float64) for shape in ((7, 5), (11, 5), (11,)))
    targets = torch.randint(0, 11, (7,)).to(DEVICE)
    factor = torch.randn(7, dtype=torch.float64).to(DEVICE)
    ours, entropy = token_logprobs(hidden, targets, Head(weight, bias, softcap, 0.5), 0.7)
    got = torch.autograd.grad((ours * factor).sum(), (hidden, weight, bias))
    logits = 0.5 * (hidden @ weight.T + bias)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    plain = torch.log_softmax(logits / 0.7, dim=-1)
    expected = torch.autograd.grad((plain.gather(1, targets[:, None])[:, 0] * factor).sum(), (hidden, weight, bias))
    assert torch.allclose(ours, plain.gather(1, targets[:, None])[:, 0], atol=1e-12)
    assert torch.allclose(entropy, -(plain.exp() * plain).sum(-1), atol=1e-12)
    assert not entropy.requires_grad
    for one, other in zip(got, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("tile", [50, 16])
@pytest.mark.parametrize("frozen", ["hidden", "weight", None])
def test_under_autocast_the_formula_computes_what_autograd_does(frozen, tile, monkeypatch):
    monkeypatch.setattr(linear_logprobs, "TILE", tile)
    torch.manual_seed(0)
    targets, factor = torch.randint(0, 50, (9,)).to(DEVICE), torch.randn(9).to(DEVICE)
    start = torch.randn(9, 16).to(DEVICE), torch.randn(50, 16).to(DEVICE)
    made = []
    for softcap in (None, 1e6):  # a cap this high changes nothing, and is autograd's path
        hidden, weight = (
            tensor.clone().requires_grad_(name != frozen) for tensor, name in zip(start, NAMES, strict=True)
        )
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            logprobs, entropy = token_logprobs(hidden, targets, Head(weight, softcap=softcap), 0.7)
        (logprobs * factor).sum().backward()
        assert logprobs.dtype == entropy.dtype == torch.float32
        made.append((logprobs.detach(), entropy, hidden.grad, weight.grad))
    for name, ours, autograds in zip(("logprobs", "entropy", *NAMES), *made, strict=True):
        assert (ours is None) == (autograds is None) == (name == frozen)
        if ours is not None:  # a tile's gradient is rounded to bfloat16, in both
            assert ours.dtype == torch.float32 and torch.allclose(ours, autograds, rtol=2e-2, atol=2e-2), name


def test_logits_far_apart_lose_neither_log_probs_nor_entropy(monkeypatch):
    """Tiles meet relative to the largest logit of all, whichever tile holds it."""
    monkeypatch.setattr(linear_logprobs, "TILE", 2)
    weight = torch.tensor([[-300.0], [-1.0], [0.0], [1.0], [200.0], [199.0], [-90.0]], device=DEVICE)
    logprobs, entropy = token_logprobs(torch.ones_like(weight[:3]), torch.tensor([4, 5, 0]).to(DEVICE), Head(weight))
    exact = torch.log_softmax(weight.cpu().double().T, dim=-1)[0]
    assert torch.allclose(logprobs.cpu().double(), exact[[4, 5, 0]], rtol=1e-6)
    assert torch.allclose(entropy.cpu().double(), -(exact.exp() * exact).sum().expand(3), rtol=1e-6)


def test_a_second_backward_pass_gives_the_gradient_of_the_first():
    hidden, weight = on_device(6, 8), on_device(40, 8)
    logprobs, _ = token_logprobs(hidden, torch.randint(0, 40, (6,)).to(DEVICE), Head(weight))
    once, again = (torch.autograd.grad(logprobs.sum(), (hidden, weight), retain_graph=True) for _ in range(2))
    for one, other in zip(once, again, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_logits_are_kept_for_a_backward_pass_and_not_when_there_is_none(monkeypatch):
    """Kept, they are computed once; else again in the backward pass."""
    hidden, weight = on_device(6, 8), on_device(40, 8)
    targets, products = torch.randint(0, 40, (6,)).to(DEVICE), []

    class SyncSchedule(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            products.append("mm" in str(func))
            return func(*args, **(kwargs or {}))

    def count(backward):
        products.clear()
        with SyncSchedule(), torch.set_grad_enabled(backward):
            logprobs, _ = token_logprobs(hidden, targets, Head(weight))
            if backward:
                logprobs.sum().backward()
        return sum(products)

    assert (count(False), count(True)) == (1, 3)
    monkeypatch.setattr(numerics_logprobs, "KEPT_ELEMENTS", 6 * 40 - 1)
    assert count(True) == 4


def test_no_tensor_of_all_logits_is_ever_alive(monkeypatch):
    """The largest tensor that the scoring allocates is one tile of logits."""
    monkeypatch.setattr(linear_logprobs, "TILE", 32)
    monkeypatch.setattr(numerics_logprobs, "KEPT_ELEMENTS", 0)
    hidden, weight = on_device(64, 8), on_device(1000, 8)
    targets = torch.randint(0, 1000, (64,)).to(DEVICE)
    largest = 0

    class SyncSchedule(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    with SyncSchedule():
        logprobs, _ = token_logprobs(hidden, targets, Head(weight))
        logprobs.sum().backward()
    assert largest <= max(64 * 32, weight.numel())


def test_padding_differs_from_tokens():
    batch = collate([TokenSequence((3, 4, 5), (6, 7)), TokenSequence((3,), (4,))]).to(DEVICE)
    assert batch.input_ids_bs.tolist() == [[3, 4, 5, 6], [3, 0, 0, 0]]
    assert batch.real_bs().tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
