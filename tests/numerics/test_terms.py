"""The one division: denominators of the whole step, and shares that add up."""

from __future__ import annotations

import math
import typing

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlx.numerics.terms import Counts, Reduction, Term, count, reduce, sequence_mean, total
from tests.devices import DEVICE

ROWS = [[1.0, 2.0, 3.0, 9.0], [4.0, 9.0, 9.0, 9.0], [9.0, 9.0, 9.0, 9.0]]
VALUES = torch.tensor(ROWS, dtype=torch.float64, device=DEVICE)
MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], device=DEVICE).bool()
# Tokens 1 2 3 | 4; the third sequence has none and does not count. The longest response allowed is 5 tokens.
BY_HAND = {
    "token-mean": 10 / 4,
    "seq-mean-token-mean": (2 + 4) / 2,
    "seq-mean-token-sum": (6 + 4) / 2,
    "seq-mean-token-sum-norm": (6 + 4) / 2 / 5,
}


@pytest.mark.parametrize("reduction", typing.get_args(Reduction))
def test_each_reduction_has_the_value_worked_by_hand(reduction):
    assert reduce(VALUES, MASK, reduction, count([MASK], max_tokens=5)).item() == pytest.approx(BY_HAND[reduction])


def test_counts_are_over_all_masks_and_leave_empty_sequences_out():
    assert count([MASK, MASK[:1]], max_tokens=5) == Counts(tokens=7, sequences=3, max_tokens=5)
    assert count([torch.tensor([True, False, True])]) == Counts(tokens=2, sequences=2)


@pytest.mark.parametrize("reduction", typing.get_args(Reduction))
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(1, 5), max_size=3))
@settings(max_examples=20, deadline=None)
def test_one_batch_is_the_sum_of_its_micro_batches_in_value_and_gradient(reduction, seed, cuts):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(6, 7, generator=generator, dtype=torch.float64).to(DEVICE).requires_grad_()
    mask = (torch.rand(6, 7, generator=generator) < 0.6).to(DEVICE)
    counts = count([mask], max_tokens=7)
    whole = reduce(values, mask, reduction, counts)
    edges = [0, *sorted(set(cuts)), 6]
    parts = [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]
    assert count([mask[part] for part in parts], max_tokens=7) == counts
    shares = torch.stack([reduce(values[part], mask[part], reduction, counts) for part in parts]).sum()
    assert torch.allclose(shares, whole, atol=1e-14)
    if mask.any():
        ours, theirs = torch.autograd.grad(shares, values)[0], torch.autograd.grad(whole, values)[0]
        assert torch.allclose(ours, theirs, atol=1e-15)
        assert not ours[~mask].any()


@pytest.mark.parametrize("reduction", typing.get_args(Reduction))
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_what_stands_under_the_mask_has_no_influence_not_even_when_it_is_not_finite(reduction, poison):
    leaf = torch.where(MASK, VALUES, torch.full_like(VALUES, poison)).requires_grad_()
    loss = reduce(leaf, MASK, reduction, count([MASK], max_tokens=5))
    assert loss.item() == pytest.approx(BY_HAND[reduction])
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert gradient.isfinite().all()
    assert not gradient[~MASK].any()


def test_a_batch_without_any_token_costs_nothing_and_divides_by_nothing():
    empty = torch.zeros_like(MASK)
    for reduction in typing.get_args(Reduction):
        assert reduce(VALUES, empty, reduction, count([empty])).item() == 0.0


def test_terms_add_up_with_their_weights_each_by_its_own_denominator():
    terms = [
        Term("policy", VALUES, MASK, reduction="token-mean"),
        Term("kl", VALUES[:1], MASK[:1], weight=0.5, reduction="seq-mean-token-sum"),
        Term("sequence", torch.tensor([3.0, 5.0, 7.0], device=DEVICE), MASK[:, 0], weight=2.0),
    ]
    counts = {term.name: count([term.mask]) for term in terms}
    assert total(terms, counts).item() == pytest.approx(2.5 + 0.5 * 6 + 2 * 4)


def test_the_mean_of_a_sequence_is_over_its_own_tokens_and_0_without_any():
    assert sequence_mean(VALUES, MASK).tolist() == [2.0, 4.0, 0.0]
