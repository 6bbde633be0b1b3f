"""What holds for every policy loss, whatever the batch."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlx.numerics.batch import PolicyBatch
from rlx.numerics.terms import count, reduce
from rlx.registry import get, names
from tests.devices import DEVICE

METHODS = names("policy")
NOT_THE_POLICY_GRADIENT_AT_ONE = {
    "entropy_adv": "its advantage holds an entropy bonus",
    "clip_cov": "tokens of large covariance lose their gradient",
}
SEQUENCE_LEVEL = ("gspo", "gmpo")
SUMMED_SEQUENCES = ("luspo",)
"""Methods whose loss is the mean over sequences of the sum over their tokens."""
seeds = st.integers(0, 10_000)
quick = settings(max_examples=15, deadline=None)


def random_batch(seed, spread=0.5):
    """Random log-probs around the old ones, one advantage a sequence, sequences of unlike length, one of them empty."""
    generator = torch.Generator().manual_seed(seed)
    old_bt = -3 * torch.rand(4, 5, generator=generator, dtype=torch.float64)
    logprobs_bt = old_bt + spread * torch.randn(4, 5, generator=generator, dtype=torch.float64)
    lengths_b = torch.tensor([5, 1 + seed % 4, 0, 3])
    mask_bt = torch.arange(5)[None, :] < lengths_b[:, None]
    adv_bt = torch.randn(4, 1, generator=generator, dtype=torch.float64).expand(4, 5)
    entropy_bt = torch.rand(4, 5, generator=generator, dtype=torch.float64)
    zero = torch.zeros((), dtype=torch.float64)
    values = [torch.where(mask_bt, v, zero).to(DEVICE) for v in (logprobs_bt, old_bt, adv_bt, entropy_bt)]
    return values[0], PolicyBatch(values[1], values[2], mask_bt.to(DEVICE), values[3])


def gradient(name, logprobs_bt, batch, reduction=None, **params):
    """Loss and gradient as the engine takes them."""
    component = get("policy", name)
    hyper = component.hyper(**params)
    if component.whole_batch is not None and not batch.statistics:
        batch = replace(batch, statistics=component.whole_batch(logprobs_bt.detach(), batch, hyper))
    logprobs_bt = logprobs_bt.detach().requires_grad_()
    loss_bt = component.fn(logprobs_bt, batch, hyper).loss_bt
    chosen = reduction or component.requires.get("algorithm.reduction", "token-mean")
    loss = reduce(loss_bt, batch.mask_bt, chosen, count([batch.mask_bt], max_tokens=5))
    (found_bt,) = torch.autograd.grad(loss, logprobs_bt)
    return loss.detach(), found_bt


@pytest.mark.parametrize("name", [name for name in METHODS if name not in NOT_THE_POLICY_GRADIENT_AT_ONE])
@given(seed=seeds)
@quick
def test_at_ratio_one_the_gradient_is_the_policy_gradient(name, seed):
    _, batch = random_batch(seed)
    _, found_bt = gradient(name, batch.old_logprobs_bt, batch)
    if name in SUMMED_SEQUENCES:
        share_bt = batch.mask_bt / 3
    elif name in SEQUENCE_LEVEL:
        share_bt = batch.mask_bt / batch.mask_bt.sum(dim=1, keepdim=True).clamp(min=1) / 3
    else:
        share_bt = batch.mask_bt / batch.mask_bt.sum()
    assert torch.allclose(found_bt, -batch.adv_bt * share_bt, atol=1e-12)


def test_the_methods_that_are_not_the_policy_gradient_at_ratio_one_differ_as_stated():
    _, batch = random_batch(3)
    batch = replace(batch, adv_bt=torch.where(batch.mask_bt, 1.0, batch.adv_bt))
    _, found_bt = gradient("entropy_adv", batch.old_logprobs_bt, batch)
    bonus_bt = (0.4 * batch.entropy_bt).clamp(max=0.5)
    assert torch.allclose(found_bt, -(1 + bonus_bt) * batch.mask_bt / batch.mask_bt.sum())
    everything = {"chosen": batch.mask_bt}
    assert not gradient("clip_cov", batch.old_logprobs_bt, replace(batch, statistics=everything))[1].any()
    nothing = {"chosen": torch.zeros_like(batch.mask_bt)}
    _, found_bt = gradient("clip_cov", batch.old_logprobs_bt, replace(batch, statistics=nothing))
    assert torch.allclose(found_bt, -batch.adv_bt * batch.mask_bt / batch.mask_bt.sum())


@pytest.mark.parametrize("name", METHODS)
@given(seed=seeds)
@quick
def test_masked_tokens_have_no_gradient_and_no_influence(name, seed):
    logprobs_bt, batch = random_batch(seed)
    loss, found_bt = gradient(name, logprobs_bt, batch)
    assert not found_bt[~batch.mask_bt].any()
    other_loss, other_bt = gradient(name, torch.where(batch.mask_bt, logprobs_bt, -7.0), batch)
    assert torch.allclose(loss, other_loss, atol=1e-14)
    assert torch.allclose(found_bt, other_bt, atol=1e-14)


def test_clip_cov_chooses_the_same_tokens_whatever_the_order_of_rows():
    generator = torch.Generator().manual_seed(0)
    logprobs_bt = -torch.rand(16, 16, generator=generator, dtype=torch.float64).to(DEVICE)
    adv_bt = torch.randn(16, 16, generator=generator, dtype=torch.float64).to(DEVICE)
    component = get("policy", "clip_cov")
    hyper = component.hyper(clip_cov_ratio=0.05, cov_low=0.0)
    rows = torch.randperm(16, generator=generator).to(DEVICE)
    mask_bt = torch.ones_like(adv_bt, dtype=torch.bool)
    one = component.whole_batch(logprobs_bt, PolicyBatch(logprobs_bt, adv_bt, mask_bt), hyper)["chosen"]
    other_batch = PolicyBatch(logprobs_bt[rows], adv_bt[rows], mask_bt)
    assert torch.equal(component.whole_batch(logprobs_bt[rows], other_batch, hyper)["chosen"], one[rows])


@pytest.mark.parametrize("reduction", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"])
@pytest.mark.parametrize("name", METHODS)
@given(seed=seeds)
@settings(max_examples=5, deadline=None)
def test_one_batch_is_the_sum_of_its_micro_batches(name, reduction, seed):
    component = get("policy", name)
    reduction = component.requires.get("algorithm.reduction", reduction)
    logprobs_bt, batch = random_batch(seed)
    hyper = component.hyper()
    whole = component.whole_batch(logprobs_bt, batch, hyper) if component.whole_batch else {}
    batch = replace(batch, statistics=whole)
    loss, found_bt = gradient(name, logprobs_bt, batch, reduction)
    leaf_bt = logprobs_bt.requires_grad_()
    counts = count([batch.mask_bt], max_tokens=5)
    shares = []
    for rows in ([0], [1, 2], [3]):
        part = PolicyBatch(
            batch.old_logprobs_bt[rows],
            batch.adv_bt[rows],
            batch.mask_bt[rows],
            batch.entropy_bt[rows],
            {key: value[rows] if value.dim() == 2 else value for key, value in whole.items()},
        )
        shares.append(reduce(component.fn(leaf_bt[rows], part, hyper).loss_bt, part.mask_bt, reduction, counts))
    total = torch.stack(shares).sum()
    (sum_bt,) = torch.autograd.grad(total, leaf_bt)
    assert torch.allclose(total, loss, atol=1e-14)
    assert torch.allclose(sum_bt, found_bt, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", METHODS)
def test_extreme_log_ratios_give_a_finite_loss_and_gradient(name, dtype):
    for old, far in ((-1.0, -1e4), (-1e4, -1.0), (-1e4, 0.0), (0.0, -1e4), (-1.0, 1e4 - 1.0)):
        old_bt = torch.tensor([[old, -1.0], [-1.0, old]], dtype=dtype, device=DEVICE)
        logprobs_bt = torch.tensor([[far, -1.2], [-0.9, far]], dtype=dtype, device=DEVICE)
        for adv in (-3.0, 0.0, 3.0):
            adv_bt = torch.tensor([[adv, adv], [-adv, -adv]], dtype=dtype, device=DEVICE)
            batch = PolicyBatch(old_bt, adv_bt, torch.ones_like(old_bt, dtype=torch.bool), torch.ones_like(old_bt))
            loss, found_bt = gradient(name, logprobs_bt, batch)
            assert loss.isfinite() and found_bt.isfinite().all(), (old, far, adv)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "clip_cov"])
def test_a_method_declares_zero_advantage_when_and_only_when_such_tokens_matter(name):
    logprobs_bt, batch = random_batch(1, spread=0.3)
    adv_bt = batch.adv_bt.clone()
    adv_bt[0] = 0.0
    component = get("policy", name)
    variants = [{"kl_cov_ratio": 1.0} if name == "kl_cov" else {}, *component.presets.values()]
    if "kl_tau" in component.hyper.model_fields:
        variants += [{"kl_tau": 0.0}, {"kl_tau": 0.5}]
    for params in variants:
        _, found_bt = gradient(name, logprobs_bt, replace(batch, adv_bt=adv_bt), **params)
        needed = component.needed(component.hyper(**params))
        assert ("zero_advantage" in needed) == bool(found_bt[0].any()), params


def test_tokens_without_advantage_change_which_tokens_clip_cov_may_choose():
    component = get("policy", "clip_cov")
    assert "zero_advantage" in component.needs
    hyper = component.hyper(clip_cov_ratio=1.0, cov_low=0.5)
    old_bt = torch.tensor([[-1.0], [-2.0], [-8.0]], dtype=torch.float64, device=DEVICE)
    adv_bt = torch.tensor([[1.0], [-1.0], [0.0]], dtype=torch.float64, device=DEVICE)
    mask_bt = torch.ones_like(adv_bt, dtype=torch.bool)
    every = component.whole_batch(old_bt, PolicyBatch(old_bt, adv_bt, mask_bt), hyper)["chosen"]
    some = component.whole_batch(old_bt[:2], PolicyBatch(old_bt[:2], adv_bt[:2], mask_bt[:2]), hyper)["chosen"]
    # mean log p: -11/3, so the covariances are 2.67 and -1.67; without the third token: -1.5, and .5, .5 (not above).
    assert every.flatten().tolist() == [True, False, False]
    assert some.flatten().tolist() == [False, False]


@given(
    n=st.floats(0.1, 4), m=st.floats(1, 6), low=st.floats(0.01, 0.8), high=st.floats(0.01, 2), p_old=st.floats(1e-4, 1)
)
@settings(max_examples=50, deadline=None)
def test_dgpo_s_weight_is_continuous_at_both_edges(n, m, low, high, p_old):
    for edge, advantage in ((1 - low, -1.0), (1 + high, 1.0)):
        logprobs = [[math.log(p_old) + math.log(edge) + d] for d in (-1e-8, 1e-8)]
        at = torch.tensor(logprobs, dtype=torch.float64, device=DEVICE)
        old_bt = torch.full_like(at, math.log(p_old))
        batch = PolicyBatch(old_bt, torch.full_like(at, advantage), torch.ones_like(at, dtype=torch.bool))
        params = {"n": n, "m": m, "clip_low": low, "clip_high": high}
        _, found_bt = gradient("dgpo", at, batch, "seq-mean-token-sum", **params)
        weights = (-2 * found_bt * advantage).flatten().tolist()
        assert weights[0] == pytest.approx(weights[1], abs=1e-6)
        assert weights[0] == pytest.approx(edge, abs=1e-6)


@given(seed=seeds)
@quick
def test_maspo_with_a_wide_gate_is_the_plain_importance_sampled_gradient(seed):
    logprobs_bt, batch = random_batch(seed)
    wide = {"sigma_base": 1e6, "sigma_max": 1e6, "alpha": 0.0, "beta_pos": 0.0, "beta_neg": 0.0}
    loss, found_bt = gradient("maspo", logprobs_bt, batch, **wide)
    plain, plain_bt = gradient("is_pg", logprobs_bt, batch)
    assert torch.allclose(loss, plain, atol=1e-10)
    assert torch.allclose(found_bt, plain_bt, atol=1e-10)


@given(seed=seeds)
@quick
def test_trust_regions_that_are_wide_enough_leave_the_plain_importance_sampled_gradient(seed):
    logprobs_bt, batch = random_batch(seed)
    wide = {
        "dppo_tv": {"clip_low": 1.0, "clip_high": 1.0, "ratio_cap": None},
        "dppo_kl": {"clip_low": 1e9, "clip_high": 1e9, "ratio_cap": None},
        "ipo": {"eps": 1.0, "kl_tau": 0.0},
    }
    # random_batch has probabilities above 1, which no policy has.
    logprobs_bt = logprobs_bt.clamp(max=-1e-3)
    _, plain_bt = gradient("is_pg", logprobs_bt, batch)
    for name, params in wide.items():
        _, found_bt = gradient(name, logprobs_bt, batch, **params)
        assert torch.allclose(found_bt, plain_bt, atol=1e-12), name


@given(seed=seeds)
@quick
def test_luspo_is_gspo_times_each_sequence_s_length(seed):
    logprobs_bt, batch = random_batch(seed)
    bounds = {"clip_low": 0.3, "clip_high": 0.3}
    _, summed_bt = gradient("luspo", logprobs_bt, batch, **bounds)
    _, mean_bt = gradient("gspo", logprobs_bt, batch, **bounds)
    assert torch.allclose(summed_bt, mean_bt * batch.mask_bt.sum(dim=1, keepdim=True), atol=1e-12)


@given(seed=seeds)
@quick
def test_every_token_level_gate_form_is_minus_a_r_with_a_detached_gate(seed):
    logprobs_bt, batch = random_batch(seed)
    component = get("policy", "dgpo")
    leaf_bt = logprobs_bt.requires_grad_()
    loss_bt = component.fn(leaf_bt, batch, component.hyper()).loss_bt
    (found_bt,) = torch.autograd.grad(loss_bt.sum(), leaf_bt)
    assert torch.allclose(found_bt, loss_bt, atol=1e-14), "d(-A r g)/d log pi = -A r g"
