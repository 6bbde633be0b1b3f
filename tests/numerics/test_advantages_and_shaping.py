"""Rewards to advantages, what is taken off rewards, and weights against the sampler."""

from __future__ import annotations

import json
import math
import os
import typing
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlx.numerics.advantages import ADVANTAGES, normalise_each
from rlx.numerics.kl import KL_FORMS
from rlx.numerics.shaping import highest_entropy, mismatch_weight, overlong_penalty
from rlx.specs.algorithm import Mismatch
from rlx.specs.train import Advantage, Algorithm
from tests.devices import DEVICE

# Two groups: 1 0 0 1 (mean 1/2, deviation with n-1 sqrt(1/3)) and 3 1 1 1 (mean 3/2, deviation 1).
REWARDS = torch.tensor([[1.0, 0.0, 0.0, 1.0], [3.0, 1.0, 1.0, 1.0]], dtype=torch.float64, device=DEVICE)
LENGTHS = torch.tensor([[1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 1.0, 3.0]], dtype=torch.float64, device=DEVICE)
CENTRED = [[0.5, -0.5, -0.5, 0.5], [1.5, -0.5, -0.5, -0.5]]
HALF = 0.5 / math.sqrt(1 / 3)
BY_HAND = {
    "grpo": [[HALF, -HALF, -HALF, HALF], [1.5, -0.5, -0.5, -0.5]],
    "dr_grpo": [[0.5, -0.5, -0.5, 0.5], [1.5, -0.5, -0.5, -0.5]],
    "rloo": [[1 - 1 / 3, -2 / 3, -2 / 3, 1 - 1 / 3], [2, 1 - 5 / 3, 1 - 5 / 3, 1 - 5 / 3]],
    # Baselines (1 + 4) / 10 and (3 * 2 + 2 + 1 + 3) / 8.
    "opo": [[0.5, -0.5, -0.5, 0.5], [1.5, -0.5, -0.5, -0.5]],
    # The best reward of the first group is shared; that of the second leads by 2.
    "grpo_passk": [[0, 0, 0, 0], [2, 0, 0, 0]],
    # Over 18 tokens: the sum of length * centred reward is (1 - 2 - 3 + 4) / 2 + (2 * 3 - 2 - 1 - 3) / 2 = 0, that of
    # its squares 10 / 4 + 2 * 2.25 + 6 / 4 = 8.5.
    "reinforce_pp": [[v / math.sqrt(8.5 / 17) for v in row] for row in CENTRED],
    # Squares of the centred rewards: 4 * .25 + 2.25 + 3 * .25 = 4 over n - 1 = 7.
    "reinforce_pp_samples": [[v / math.sqrt(4 / 7) for v in row] for row in CENTRED],
}
OVER_TOKENS = ("reinforce_pp",)
"""Advantages that are whitened over tokens, so that a group of equal rewards may have some."""
GOLDEN = Path(os.environ.get("RLX_GOLDEN_DIR", Path(__file__).parents[1] / "golden"))
if not list(GOLDEN.glob("advantages*.json")):
    GOLDEN = Path(__file__).parents[1] / "golden"
CASES = [case for file in sorted(GOLDEN.glob("advantages*.json")) for case in json.loads(file.read_text())]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64, device=DEVICE)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['advantage']}-seed{case['seed']}")
def test_the_advantages_of_random_groups_equal_verls(case):
    found = ADVANTAGES[case["advantage"]](tensor(case["rewards"]), tensor(case["lengths"]))
    assert (found - tensor(case["values"])).abs().max() < 1e-8


def test_every_advantage_but_our_own_has_figures_of_verls():
    assert {case["advantage"] for case in CASES} == set(ADVANTAGES) - {"reinforce_pp_samples"}


@pytest.mark.parametrize("name", ADVANTAGES)
def test_each_advantage_has_the_values_worked_by_hand(name):
    found = ADVANTAGES[name](REWARDS, LENGTHS).cpu()
    assert torch.allclose(found, torch.tensor(BY_HAND[name], dtype=torch.float64), atol=1e-5)


@pytest.mark.parametrize("name", ADVANTAGES)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=6), st.floats(-5, 5))
@settings(max_examples=25, deadline=None)
def test_a_constant_on_top_of_a_group_s_rewards_changes_no_advantage(name, group, constant):
    rewards = torch.tensor([group, group[::-1]], dtype=torch.float64, device=DEVICE)
    shifted = rewards + torch.tensor([[constant], [0.0]], dtype=torch.float64, device=DEVICE)
    # A deviation of the size of epsilon would blow rounding up: only groups with a spread, or none, are looked at.
    if max(group) - min(group) > 1e-3 or len(set(group)) == 1:
        lengths = torch.arange(1.0, rewards.numel() + 1, dtype=torch.float64, device=DEVICE).view_as(rewards)
        found, other = ADVANTAGES[name](rewards, lengths), ADVANTAGES[name](shifted, lengths)
        assert torch.allclose(found, other, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in ADVANTAGES if name not in OVER_TOKENS])
def test_a_group_of_equal_rewards_has_advantage_exactly_zero(name):
    groups = [[1.0, 1.0, 1.0], [0.1, 0.1, 0.1], [0.0, 1.0, 0.0]]
    rewards = torch.tensor(groups, dtype=torch.float64, device=DEVICE)
    found = ADVANTAGES[name](rewards, torch.tensor([[3.0, 1.0, 2.0]] * 3, dtype=torch.float64, device=DEVICE))
    assert found[:2].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert found[2].abs().max() > 0.1


def test_the_whitening_over_tokens_gives_every_token_of_the_batch_mean_zero_and_variance_one():
    found = ADVANTAGES["reinforce_pp"](REWARDS, LENGTHS**2)
    tokens = LENGTHS.square().sum()
    assert (found * LENGTHS.square()).sum().item() == pytest.approx(0, abs=1e-12)
    assert ((found.square() * LENGTHS.square()).sum() / (tokens - 1)).item() == pytest.approx(1)
    # One token, and equal rewards: no division by zero.
    assert ADVANTAGES["reinforce_pp"](REWARDS * 0, LENGTHS).abs().max() == 0
    assert ADVANTAGES["reinforce_pp"](REWARDS, LENGTHS * 0).isfinite().all()


def test_the_spec_names_the_advantages_and_kl_forms_that_there_are():
    assert set(typing.get_args(Advantage.model_fields["name"].annotation)) == set(ADVANTAGES)
    assert set(typing.get_args(Algorithm.model_fields["kl_form"].annotation)) == set(KL_FORMS)


def test_the_kl_forms_have_the_values_worked_by_hand():
    logprobs, ref = (torch.tensor([[math.log(p)]], dtype=torch.float64, device=DEVICE) for p in (0.5, 0.25))
    found = {name: form(logprobs, ref).item() for name, form in KL_FORMS.items()}
    ln2 = math.log(2)
    assert found == pytest.approx({"k1": ln2, "k2": ln2**2 / 2, "k3": 0.5 + ln2 - 1, "abs": ln2})


def test_k1_and_k3_have_the_exact_kl_as_their_mean_and_k3_is_never_negative():
    # KL(p || q) = .5 ln 2 + .3 ln(.3/.5) + .2 ln(.2/.25)
    p, q = (torch.tensor(v, device=DEVICE).double() for v in ([0.5, 0.3, 0.2], [0.25, 0.5, 0.25]))
    exact = 0.5 * math.log(2) + 0.3 * math.log(0.6) + 0.2 * math.log(0.8)
    for name in ("k1", "k3"):
        assert (p * KL_FORMS[name](p.log(), q.log())).sum().item() == pytest.approx(exact)
    assert KL_FORMS["k3"](p.log(), q.log()).min() >= 0
    # The gradient of k2's mean is that of the KL itself, d/dlog p of the sampled token: log p - log q.
    leaf = p.log().requires_grad_()
    (gradient,) = torch.autograd.grad(KL_FORMS["k2"](leaf, q.log()).sum(), leaf)
    assert torch.allclose(gradient, (p / q).log())


@pytest.mark.parametrize("name", KL_FORMS)
def test_kl_of_far_apart_policies_stays_finite(name):
    leaf = torch.tensor([[-1e4, -1.0]], device=DEVICE).requires_grad_()
    values = KL_FORMS[name](leaf, torch.tensor([[-1.0, -1e4]], device=DEVICE))
    (gradient,) = torch.autograd.grad(values.sum(), leaf)
    assert values.isfinite().all() and gradient.isfinite().all()


def test_the_overlong_penalty_falls_over_the_buffer_and_stops_at_minus_one():
    # DAPO's own figures: 20,480 tokens with a buffer of a fifth, 4,096, so that 16,384 tokens are free.
    lengths = torch.tensor([0, 16_384, 17_408, 18_432, 20_480, 30_000], device=DEVICE)
    assert overlong_penalty(lengths, 20_480, 0.2).tolist() == pytest.approx([0, 0, -0.25, -0.5, -1, -1])
    assert overlong_penalty(lengths, 20_480, 0.0).tolist() == [0.0] * 6


RATIOS = (0.25, 0.5, 1.0, 3.0, 8.0)
WEIGHTS = {
    ("truncate", 0.0, 2.0): (0.25, 0.5, 1.0, 2.0, 2.0),
    ("truncate", 0.5, 2.0): (0.5, 0.5, 1.0, 2.0, 2.0),
    ("mask", 0.0, 2.0): (0.25, 0.5, 1.0, 0.0, 0.0),
    ("mask", 0.4, 5.0): (0.0, 0.5, 1.0, 3.0, 0.0),
}


@pytest.mark.parametrize(("mode", "low", "high"), WEIGHTS)
def test_the_weight_against_the_sampler_is_truncated_or_masked_and_carries_no_gradient(mode, low, high):
    old = torch.tensor([RATIOS], dtype=torch.float64, device=DEVICE).log().requires_grad_()
    mask = torch.ones_like(old, dtype=torch.bool)
    correction = Mismatch(mode=mode, low=low, high=high)
    weight = mismatch_weight(old, torch.zeros_like(old), mask, correction)
    assert weight[0].tolist() == pytest.approx(WEIGHTS[mode, low, high])
    assert not weight.requires_grad


@pytest.mark.parametrize("mode", ["truncate", "mask"])
def test_by_sequence_every_token_has_the_product_of_its_response_s_ratios(mode):
    # Products .5 * 3 = 1.5, 2 * 2 = 4 (outside) and, with the padding left out, .5.
    old = torch.tensor([[0.5, 3.0], [2.0, 2.0], [0.5, 9.0]], dtype=torch.float64, device=DEVICE).log()
    mask = torch.tensor([[True, True], [True, True], [True, False]], device=DEVICE)
    correction = Mismatch(mode=mode, high=2.0, level="sequence")
    weight = mismatch_weight(old, torch.zeros_like(old), mask, correction)
    assert weight[:, 0].tolist() == pytest.approx([1.5, {"truncate": 2.0, "mask": 0.0}[mode], 0.5])
    assert torch.equal(weight[:, 0], weight[:, 1])


def test_the_weight_against_the_sampler_stays_finite_however_far_the_log_probs_are_apart():
    old = torch.tensor([[-1e4, 0.0]], device=DEVICE)
    mask = torch.ones_like(old, dtype=torch.bool)
    for level in ("token", "sequence"):
        weight = mismatch_weight(old, torch.tensor([[0.0, -1e4]], device=DEVICE), mask, Mismatch(level=level))
        assert weight.isfinite().all() and weight.max() <= 2


def test_the_threshold_of_the_highest_entropies_keeps_their_share_over_all_samples():
    entropies = [torch.tensor([0.1, 0.9, 0.5]), torch.tensor([0.7, 0.3, 0.2, 0.4, 0.6, 0.8, 0.0])]
    assert highest_entropy(entropies, 0.2).item() == pytest.approx(0.8)
    assert highest_entropy(entropies, 1.0).item() == 0
    assert highest_entropy(entropies, 1e-6).item() == pytest.approx(0.9)


GDPO = {
    "grpo": [-0.115225, -0.565937, 2.138339, -0.115225, 1.218152, -1.135618, 1.218152, 0.041267],
    "dr_grpo": [-0.126258, -0.588492, 2.18491, -0.126258, 1.202664, -1.108505, 1.202664, 0.047079],
}
"""verl 0.9.1, ``compute_gdpo_outcome_advantage`` on these rewards, with ``norm_adv_by_std_in_grpo`` true and false."""


@pytest.mark.parametrize("name", GDPO)
def test_rewards_normalised_one_by_one_and_summed_equal_verls_gdpo(name):
    right = [[0, 0, 1, 0], [1, 0, 1, 0.5]]
    form = [[1, 0, 1, 1], [0, 0, 0, 0]]
    rewards_kqg = torch.tensor([right, form], dtype=torch.float64)
    lengths_qg = torch.tensor([[3, 5, 2, 4], [1, 6, 4, 2]], dtype=torch.float64)
    adv_qg = normalise_each(rewards_kqg, [1.0, 0.2], lengths_qg, ADVANTAGES[name])
    assert adv_qg.flatten().tolist() == pytest.approx(GDPO[name], abs=1e-5)


def test_equal_rewards_give_no_advantage_when_each_is_normalised():
    adv_qg = normalise_each(torch.ones(2, 3, 4).double(), [1.0, 2.0], torch.ones(3, 4).double(), ADVANTAGES["grpo"])
    assert not adv_qg.any()
