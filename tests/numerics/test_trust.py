"""The diagnostic of all policy losses: shares of tokens outside of [.8, 1.2] and the weights they are given."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rlx.numerics.batch import PolicyBatch
from rlx.numerics.trust import (
    BINS,
    SIDES,
    gradient_weights,
    ratio_histogram,
    ratio_quantile,
    trust_metrics,
    trust_sums,
)
from rlx.registry import get, names
from tests.devices import DEVICE

# Ten tokens of two signs, one masked and one without advantage.
RATIOS = [[0.5, 0.75, 1.0, 1.5, 2.0, 9.0], [0.5, 1.0, 1.1, 1.5, 4.0, 3.0]]
MASK = [[True] * 5 + [False], [True] * 6]
ADVANTAGES = [[1.0] * 6, [-2.0] * 5 + [0.0]]


def tensor(values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype, device=DEVICE)


def batch_of(ratios, advantages, mask, p_old=0.1):
    mask_bt = tensor(mask, torch.bool)
    old_bt = torch.full_like(tensor(ratios), math.log(p_old)) * mask_bt
    logprobs_bt = ((old_bt + tensor(ratios).log()) * mask_bt).requires_grad_()
    return logprobs_bt, PolicyBatch(old_bt, tensor(advantages) * mask_bt, mask_bt, torch.ones_like(old_bt))


def metrics(name, logprobs_bt, batch, rows=None, **params):
    """The metrics of the method's own loss, from the sums over micro-batches of the given rows."""
    component = get("policy", name)
    hyper = component.hyper(**params)
    if component.whole_batch is not None:
        batch = replace(batch, statistics=component.whole_batch(logprobs_bt.detach(), batch, hyper))
    sums, histogram = {}, torch.zeros(BINS, dtype=torch.float64, device=DEVICE)
    for chosen in rows or [list(range(len(batch.mask_bt)))]:
        statistics = {key: value[chosen] if value.dim() == 2 else value for key, value in batch.statistics.items()}
        tensors = (batch.old_logprobs_bt, batch.adv_bt, batch.mask_bt, batch.entropy_bt)
        part = PolicyBatch(*(value[chosen] for value in tensors), statistics)
        current_bt = logprobs_bt[chosen]
        loss_bt = component.fn(current_bt, part, hyper).loss_bt
        weights_bt = gradient_weights(loss_bt, current_bt, part.adv_bt, part.mask_bt)
        arguments = (current_bt, part.old_logprobs_bt, part.adv_bt, part.mask_bt)
        for key, value in trust_sums(weights_bt, *arguments).items():
            sums[key] = sums.get(key, 0.0) + float(value)
        histogram += ratio_histogram(*arguments)
    return trust_metrics(sums, histogram.tolist())


def test_the_shares_and_weights_are_those_counted_by_hand():
    found = metrics("is_pg", *batch_of(RATIOS, ADVANTAGES, MASK))
    # Good tokens: .5, .75 | 1 | 1.5, 2; bad tokens: .5 | 1, 1.1 | 1.5, 4. The weight of -A r is r.
    assert found["trust/low_pos"] == pytest.approx(2 / 10)
    assert found["trust/low_neg"] == pytest.approx(1 / 10)
    assert found["trust/high_pos"] == pytest.approx(2 / 10)
    assert found["trust/high_neg"] == pytest.approx(2 / 10)
    outside = [0.5, 0.75, 1.5, 2.0, 0.5, 1.5, 4.0]
    assert found["trust/weight_outside"] == pytest.approx(sum(outside) / 7)
    assert found["trust/weight_inside"] == pytest.approx((1 + 1 + 1.1) / 3)
    ratios = np.array([*outside, 1, 1, 1.1])
    assert found["trust/ess"] == pytest.approx(ratios.sum() ** 2 / (10 * (ratios**2).sum()))
    assert found["trust/kl_old"] == pytest.approx(float((ratios - np.log(ratios) - 1).mean()))
    assert found["trust/ratio_p99"] == pytest.approx(4, rel=0.01)


def test_a_clip_takes_the_weight_of_the_tokens_that_push_outward_and_a_mask_of_all():
    batch = batch_of(RATIOS, ADVANTAGES, MASK, p_old=0.2)
    grpo = metrics("grpo", *batch)
    # .5 and .75 with A > 0 and 1.5 with A < 0 keep r; 4 with A < 0 is above the dual clip.
    assert grpo["trust/weight_outside"] == pytest.approx((0.5 + 0.75 + 1.5) / 7)
    assert metrics("grpo", *batch, dual_clip=None)["trust/weight_outside"] == pytest.approx((2.75 + 4) / 7)
    assert metrics("ipo", *batch, eps=0.03, kl_tau=0.0)["trust/weight_outside"] == 0
    assert metrics("gpg", *batch)["trust/weight_outside"] == pytest.approx(1)
    for found in (grpo, metrics("gpg", *batch)):
        assert [found[f"trust/{side}"] for side in SIDES] == pytest.approx([0.1, 0.2, 0.2, 0.2])


@pytest.mark.parametrize("name", names("policy"))
def test_every_method_is_measured_on_the_same_tokens_whatever_the_micro_batches(name):
    logprobs_bt, batch = batch_of(RATIOS, ADVANTAGES, MASK)
    together = metrics(name, logprobs_bt, batch)
    assert metrics(name, logprobs_bt, batch, rows=[[1], [0]]) == pytest.approx(together, rel=1e-12)
    reference = metrics("is_pg", logprobs_bt, batch)
    weights = {"trust/weight_inside", "trust/weight_outside"}
    assert together.keys() == reference.keys()
    assert {key: together[key] for key in together.keys() - weights} == pytest.approx(
        {key: reference[key] for key in reference.keys() - weights}
    )


def test_at_ratio_one_every_token_is_inside_with_weight_one():
    found = metrics("dgpo", *batch_of([[1.0] * 6, [1.0] * 6], ADVANTAGES, MASK))
    assert found == pytest.approx(
        {f"trust/{side}": 0.0 for side in SIDES}
        | {"trust/kl_old": 0.0, "trust/weight_inside": 1.0, "trust/ess": 1.0, "trust/ratio_p99": 1.0}
    )
    assert "trust/weight_outside" not in found, "no token is outside, so that there is no mean weight"


def test_without_a_token_that_is_trained_on_there_are_no_metrics():
    assert metrics("grpo", *batch_of(RATIOS, [[0.0] * 6] * 2, MASK)) == {}
    assert trust_metrics({}) == {}


def test_the_weights_leave_the_graph_of_the_loss_for_the_backward_pass():
    logprobs_bt, batch = batch_of(RATIOS, ADVANTAGES, MASK)
    scaled_bt = logprobs_bt * 1.0
    loss_bt = get("policy", "is_pg").fn(scaled_bt, batch, get("policy", "is_pg").hyper()).loss_bt
    gradient_weights(loss_bt, scaled_bt, batch.adv_bt, batch.mask_bt)
    assert logprobs_bt.grad is None
    loss_bt.sum().backward()
    assert logprobs_bt.grad is not None


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("spread", [1e-3, 0.1, 1.0, 6.0])
def test_a_quantile_of_the_histogram_is_within_a_bin_of_the_exact_one(share, spread):
    log_ratio = spread * torch.randn(1, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_ratio_bt = log_ratio.to(DEVICE)
    zero_bt, one_bt = torch.zeros_like(log_ratio_bt), torch.ones_like(log_ratio_bt)
    histogram = ratio_histogram(log_ratio_bt, zero_bt, one_bt, one_bt.bool())
    assert histogram.sum() == 4000
    exact = np.quantile(log_ratio.clamp(-20, 20).numpy(), share, method="inverted_cdf")
    found = math.log(ratio_quantile(histogram.tolist(), share))
    assert found == pytest.approx(exact, abs=0.0065 * (0.05 + abs(exact)))
