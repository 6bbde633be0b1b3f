"""Every policy loss on nine tokens, r in {.5, 1, 1.5} by A in {-1, 0, 1}, with figures worked by hand from the papers.

A row holds, for each r, the loss and the weight d(-loss)/d log pi. ``P`` is the tokens' old probability.
"""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import replace
from math import exp, log, sqrt
from pathlib import Path

import pytest
import torch

from rlx.numerics.batch import PolicyBatch
from rlx.registry import get, names
from tests.devices import DEVICE

RATIOS = (0.5, 1.0, 1.5)
P = 0.25
P_DAC = 0.8  # at .25 dac's lower bound would be .5, which r = .5 meets exactly
NOTHING = [(0, 0), (0, 0), (0, 0)]

SIGMA_POS = 1.03 * 4**0.3
SIGMA_NEG = 4**0.3 / 1.03
PLUS_FREE = [(-0.5, 0.5), (-1, 1), (-1.5, 1.5)]
MINUS_FREE = [(0.5, -0.5), (1, -1), (1.5, -1.5)]
CLIPPED = {
    1: [(-0.5, 0.5), (-1, 1), (-1.2, 0)],
    0: NOTHING,
    -1: [(0.8, 0), (1, -1), (1.5, -1.5)],
}


def clipped(low, high):
    """Rows of the clipped loss when r = .5 and r = 1.5 stand outside [low, high]."""
    return {1: [(-0.5, 0.5), (-1, 1), (-high, 0)], 0: NOTHING, -1: [(low, 0), (1, -1), (1.5, -1.5)]}


def soft(tau):
    """-4/tau sigmoid(tau (r-1)) and r * 4 s (1-s) at each r."""
    s = [1 / (1 + exp(-tau * (r - 1))) for r in RATIOS]
    return [(-4 / tau * v, 4 * r * v * (1 - v)) for r, v in zip(RATIOS, s, strict=True)]


def negated(row):
    return [(-loss, -weight) for loss, weight in row]


HAND = {
    "grpo": ({}, CLIPPED),
    "dr_grpo": ({}, CLIPPED),
    "rloo": ({}, CLIPPED),
    "reinforce_pp": ({}, CLIPPED),
    "clip_higher": ({}, clipped(0.8, 1.28)),
    "dapo": ({}, clipped(0.8, 1.28)),
    "is_pg": ({}, {1: PLUS_FREE, 0: NOTHING, -1: MINUS_FREE}),
    # H = 1 nat: the bonus is min(.4, |A|/2) = .4, so A' = 1.4, 0 and -.6.
    "entropy_adv": (
        {},
        {1: [(-0.7, 0.7), (-1.4, 1.4), (-1.68, 0)], 0: NOTHING, -1: [(0.48, 0), (0.6, -0.6), (0.9, -0.9)]},
    ),
    # One token a sequence, so that the sequence's ratio is the token's.
    "gspo": ({}, clipped(0.9997, 1.0004)),
    "gmpo": ({}, clipped(exp(-0.4), exp(0.4))),
    # -w A log pi with w = .5, 1, 1.28 and log pi = -ln 8, -ln 4, ln .375.
    "cispo": (
        {},
        {
            1: [(0.5 * log(8), 0.5), (log(4), 1), (-1.28 * log(0.375), 1.28)],
            0: NOTHING,
            -1: [(-0.5 * log(8), -0.5), (-log(4), -1), (1.28 * log(0.375), -1.28)],
        },
    ),
    "gpg": (
        {},
        {
            1: [(log(8), 1), (log(4), 1), (-log(0.375), 1)],
            0: NOTHING,
            -1: [(-log(8), -1), (-log(4), -1), (log(0.375), -1)],
        },
    ),
    "gppo": (
        {},
        {1: [(-0.5, 0.5), (-1, 1), (-1.28, 1.28)], 0: NOTHING, -1: [(0.8, -0.8), (1, -1), (1.5, -1.5)]},
    ),
    "ce_gppo": (
        {},
        {1: [(-0.5, 0.5), (-1, 1), (-1.28, 1.28)], 0: NOTHING, -1: [(0.4, -0.4), (1, -1), (1.5, -1.5)]},
    ),
    # Positive tokens are weighed by 1/r: 2, 1, and no gradient at p = 1.2.
    "aspo": ({}, {1: [(-2, 2), (-1, 1), (-1 / 1.2, 0)], 0: NOTHING, -1: [(0.8, 0), (1, -1), (1.5, -1.5)]}),
    # q = .8: low = (1 + sqrt(1 - .64/.8)) / 2, high = (1 + sqrt(1 + .8/.8)) / 2.
    "dac": ({}, clipped((1 + sqrt(0.2)) / 2, (1 + sqrt(2)) / 2)),
    # Over the nine tokens P <= .5+1+1.5 = 3.0 < N = .8+1+1.5 = 3.3: both bounds go to their ends, .8 and 2.
    "bapo": ({}, {1: PLUS_FREE, 0: NOTHING, -1: [(0.8, 0), (1, -1), (1.5, -1.5)]}),
    "sapo": ({}, {1: soft(1.0), 0: NOTHING, -1: negated(soft(1.05))}),
    # The largest of A (log pi - mean log pi) is at A = -1, r = .5: there ln 2 is added, whose weight is +1.
    "kl_cov": ({}, {1: PLUS_FREE, 0: NOTHING, -1: [(0.5 + log(2), 0.5), (1, -1), (1.5, -1.5)]}),
    # mean log r = ln(.75)/3 = -.096: of the unclipped tokens only A = 1, r = 1 has a covariance above .09.
    "clip_cov": (
        {"cov_low": 0.09},
        {1: [(-0.5, 0.5), (0, 0), (-1.2, 0)], 0: NOTHING, -1: [(0.8, 0), (1, -1), (1.5, -1.5)]},
    ),
    # -(A log pi - (log r)^2 / 4), weight A - (log r) / 2.
    "dro": (
        {},
        {a: [(-(a * log(P * r) - log(r) ** 2 / 4), a - log(r) / 2) for r in RATIOS] for a in (1, 0, -1)},
    ),
    "dgpo": (
        {},
        {
            1: [(-0.5, 0.5), (-1, 1), (-1.5 * sqrt(0.8), 1.5 * sqrt(0.8))],
            0: NOTHING,
            -1: [(0.3125, -0.3125), (1, -1), (1.5, -1.5)],
        },
    ),
    # p_old^-.3 = 4^.3; the advantage's factors are 1.03 and 1/1.03.
    "maspo": (
        {},
        {
            1: [(-0.5, 0.5), (-1, 1), (-1.5 * exp(-0.125 / SIGMA_POS**2), 1.5 * exp(-0.125 / SIGMA_POS**2))],
            0: NOTHING,
            -1: [(0.5 * exp(-0.125 / SIGMA_NEG**2), -0.5 * exp(-0.125 / SIGMA_NEG**2)), (1, -1), (1.5, -1.5)],
        },
    ),
}


def column(values):
    """One token a sequence, [b, 1]."""
    return torch.tensor(values, dtype=torch.float64, device=DEVICE)[:, None]


def tokens(name, params, ratios, advantages, old=P):
    """Loss and weight of each token, with what the method needs of the whole batch."""
    component = get("policy", name)
    hyper = component.hyper(**params)
    old_bt = column([log(old)] * len(ratios))
    logprobs_bt = (old_bt + column(ratios).log()).requires_grad_()
    mask_bt = torch.ones_like(old_bt, dtype=torch.bool)
    batch = PolicyBatch(old_bt, column(advantages), mask_bt, entropy_bt=torch.ones_like(old_bt))
    if component.whole_batch is not None:
        batch = replace(batch, statistics=component.whole_batch(logprobs_bt.detach(), batch, hyper))
    loss_bt = component.fn(logprobs_bt, batch, hyper).loss_bt
    (gradient_bt,) = torch.autograd.grad(loss_bt.sum(), logprobs_bt)
    return loss_bt.flatten().tolist(), (-gradient_bt).flatten().tolist()


@pytest.mark.parametrize("name", HAND)
def test_nine_tokens_have_the_loss_and_weight_worked_by_hand(name):
    params, rows = HAND[name]
    places = [(a, r) for a in (1, 0, -1) for r in RATIOS]
    losses, weights = tokens(
        name, params, [r for _, r in places], [a for a, _ in places], P_DAC if name == "dac" else P
    )
    for place, (a, r) in enumerate(places):
        loss, weight = rows[a][RATIOS.index(r)]
        assert losses[place] == pytest.approx(loss, abs=1e-12), (name, a, r)
        assert weights[place] == pytest.approx(weight, abs=1e-12), (name, a, r)


@pytest.mark.parametrize("name", [name for name in HAND if "dual_clip" in get("policy", name).hyper.model_fields])
def test_the_dual_clip_bounds_bad_tokens_of_every_method_and_null_turns_it_off(name):
    params = HAND[name][0]
    # bapo's and clip_cov's whole batch is this one token, kl_cov's penalty is turned off: only the clip is looked at.
    params = {**params, **({"ppo_kl_coef": 0.0} if name == "kl_cov" else {})}
    _, free = tokens(name, {**params, "dual_clip": None}, [6.0], [-1.0])
    _, capped = tokens(name, {**params, "dual_clip": 4.0}, [6.0], [-1.0])
    bounded = {"cispo": (-1.28, -1.28), "sapo": (free[0], free[0])}
    # A loss that is capped has no gradient; cispo's weight never passes 1.28, sapo's loss stays under 4 / 1.05.
    assert (free[0], capped[0]) == pytest.approx(bounded.get(name, (-3.6 if name == "entropy_adv" else -6, 0)))


def test_aspo_caps_the_weight_on_both_sides_and_keeps_the_gradient():
    assert tokens("aspo", {}, [0.1, 6.0], [1.0, -1.0])[1] == pytest.approx([3, -3])
    assert tokens("aspo", {"dual_clip_pos": None, "dual_clip_neg": None}, [0.1, 6.0], [1.0, -1.0])[1] == pytest.approx(
        [10, -6]
    )


def test_cispo_presets_weigh_as_their_sources_do():
    presets = get("policy", "cispo").presets
    found = {name: tokens("cispo", presets[name], [0.5, 1.5, 9.0], [1.0, 1.0, 1.0])[1] for name in presets}
    assert found["minimax"] == pytest.approx([0.5, 1.28, 1.28])
    assert found["verl"] == pytest.approx([0.8, 1.2, 1.2])
    assert found["scalerl"] == pytest.approx([0.5, 1.5, 5])
    assert found["trl"] == pytest.approx([0.5, 1.5, 5])


def bounds(ratios, advantages, **params):
    component = get("policy", "bapo")
    old_bt = column([log(P)] * len(ratios))
    batch = PolicyBatch(old_bt, column(advantages), torch.ones_like(old_bt, dtype=torch.bool))
    found = component.whole_batch(old_bt + column(ratios).log(), batch, component.hyper(**params))
    return float(found["low"]), float(found["high"])


def test_bapo_leaves_its_bounds_where_positive_tokens_weigh_enough():
    assert bounds([1.0, 1.0], [1.0, -0.9]) == (0.6, 1.2)


def test_bapo_stops_at_the_first_bound_that_balances():
    # P = 1 + min(1.4, high), N = 1 + 1.33 whatever low: low goes to .8 for nothing, then 1.25, 1.3, 1.35 (2.35 > 2.33).
    assert bounds([1.0, 1.4, 1.0, 1.33], [1.0, 1.0, -1.0, -1.0]) == pytest.approx((0.8, 1.35))


def test_bapo_of_the_paper_moves_the_upper_bound_first():
    paper = get("policy", "bapo").presets["paper"]
    # Wanted P/N = 2/3: P = min(1.3, high), N = max(.5, low) + 1.3 = 1.9 at low .6: high 1.3 gives 1.3/1.9 = .684.
    assert bounds([1.3, 0.5, 1.3], [1.0, -1.0, -1.0], **paper) == pytest.approx((0.6, 1.3))


def test_gspo_and_gmpo_take_the_geometric_mean_over_a_sequence():
    # Ratios 1/2 and 2: their geometric mean is 1, where neither clips though each token stands far outside.
    for name in ("gspo", "gmpo"):
        component = get("policy", name)
        old_bt = torch.full((1, 2), log(P), dtype=torch.float64, device=DEVICE)
        logprobs_bt = (old_bt + torch.tensor([[log(0.5), log(2)]], device=DEVICE)).requires_grad_()
        batch = PolicyBatch(old_bt, torch.ones_like(old_bt), torch.ones_like(old_bt, dtype=torch.bool))
        loss_bt = component.fn(logprobs_bt, batch, component.hyper()).loss_bt
        (gradient_bt,) = torch.autograd.grad(loss_bt.mean(), logprobs_bt)
        expected = {"gspo": (-1.0, [-0.5, -0.5]), "gmpo": (-sqrt(0.5 * exp(0.4)), [-0.5 * sqrt(0.5 * exp(0.4)), 0])}
        assert loss_bt.mean().item() == pytest.approx(expected[name][0])
        assert gradient_bt.flatten().tolist() == pytest.approx(expected[name][1])


def test_kl_cov_and_clip_cov_never_choose_a_masked_token():
    for name, params in (("kl_cov", {"kl_cov_ratio": 1.0}), ("clip_cov", {"clip_cov_ratio": 1.0, "cov_low": -9.0})):
        component = get("policy", name)
        mask_bt = torch.tensor([[True, True, False], [True, False, False]], device=DEVICE)
        zero_bt = torch.zeros(2, 3, dtype=torch.float64, device=DEVICE)
        adv_bt = torch.tensor([[1.0, 2.0, 9.0], [-1.0, 9.0, 9.0]], dtype=torch.float64, device=DEVICE)
        batch = PolicyBatch(zero_bt, adv_bt, mask_bt)
        logprobs_bt = torch.tensor([[0.1, 0.05, 9.0], [-0.1, 9.0, 9.0]], dtype=torch.float64, device=DEVICE)
        chosen_bt = component.whole_batch(logprobs_bt, batch, component.hyper(**params))["chosen"]
        assert not (chosen_bt & ~mask_bt).any()
        assert chosen_bt.any()


def test_clip_cov_repeats_its_choice_and_another_seed_makes_another():
    component = get("policy", "clip_cov")
    generator = torch.Generator().manual_seed(0)
    logprobs_bt = -torch.rand(16, 16, generator=generator, dtype=torch.float64).to(DEVICE)
    adv_bt = torch.randn(16, 16, generator=generator, dtype=torch.float64).to(DEVICE)
    batch = PolicyBatch(logprobs_bt, adv_bt, torch.ones_like(adv_bt, dtype=torch.bool))

    def chosen(seed):
        hyper = component.hyper(clip_cov_ratio=0.05, cov_low=0.0, seed=seed)
        return component.whole_batch(logprobs_bt, batch, hyper)["chosen"]

    assert int(chosen(0).sum()) == int(0.05 * 256)
    assert torch.equal(chosen(0), chosen(0))
    assert not torch.equal(chosen(0), chosen(1))


def test_every_registered_method_has_a_hand_worked_or_a_golden_case():
    files = (Path(__file__).parents[2] / "golden").glob("policy_losses*.json")
    golden = {case["algo"] for file in files for case in json.loads(file.read_text())}
    assert set(names("policy")) <= set(HAND) | golden


@pytest.mark.parametrize("name", names("policy"))
def test_every_registered_method_names_its_file_its_paper_and_what_it_computes(name):
    component = get("policy", name)
    assert component.name == component.fn.__name__ == Path(inspect.getfile(component.fn)).stem == name
    assert component.paper, "no paper (write 'no paper: ...' where there is none)"
    assert component.official or "no paper" in component.paper
    doc = inspect.getdoc(component.fn) or ""
    assert "Args:" in doc and len(doc.splitlines()[0]) > 20
    assert all(field.description for field in component.hyper.model_fields.values()), "a parameter without a docstring"


def test_every_preset_and_default_is_a_valid_set_of_parameters():
    for name in names("policy"):
        component = get("policy", name)
        for preset in ({}, *component.presets.values()):
            assert all(
                math.isfinite(v) for v in component.hyper(**preset).model_dump().values() if isinstance(v, float)
            )
