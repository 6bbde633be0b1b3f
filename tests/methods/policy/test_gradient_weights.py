"""Weights on grad log pi, d(-loss)/d log pi against r, of every curve that the official codes gave.

A curve is named "LABEL|q=p_old|A=advantage"; its values are per unit of A.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch

from rlx.numerics.batch import PolicyBatch
from rlx.registry import get
from tests.devices import DEVICE

GOLDEN = Path(os.environ.get("RLX_GOLDEN_DIR", Path(__file__).parents[2] / "golden"))
if not (GOLDEN / "gradient_weights.json").exists():
    GOLDEN = Path(__file__).parents[2] / "golden"
CURVES = json.loads((GOLDEN / "gradient_weights.json").read_text())
LABELS = {
    "GRPO (ppo mode, 0.2/0.2, c=3)": ("grpo", {}),
    "Clip-Higher 0.2/0.28": ("clip_higher", {}),
    "DGPO n1 m2": ("dgpo", {}),
    "DGPO n2 m2": ("dgpo", {"n": 2}),
    "DGPO n1 m1": ("dgpo", {"m": 1}),
    "MASPO a=0.3": ("maspo", {}),
    "MASPO a=0.5": ("maspo", {"alpha": 0.5}),
    # These curves clip at 1.2, not at the .28 of the released scripts.
    "GPPO (b1=b2=1,c=10)": ("gppo", {"clip_high": 0.2, "dual_clip": 10}),
    "CE-GPPO b1=.5 b2=1": ("ce_gppo", {"clip_high": 0.2, "dual_clip": 10}),
    "CE-GPPO b1=.75 b2=1": ("ce_gppo", {"beta_low": 0.75, "clip_high": 0.2, "dual_clip": 10}),
    "ASPO low-entropy tok (.2)": ("aspo", {}),
    "ASPO high-entropy tok (.4)": ("aspo", {"clip_low": 0.4, "clip_high": 0.4}),
    "DAC/DCPO .16/.2 c=10": ("dac", {}),
    "CISPO verl default .2/.2": ("cispo", {"clip_low": 0.2, "clip_high": 0.2}),
    "CISPO low=10 high=.2 (verl example)": ("cispo", {"clip_low": 10, "clip_high": 0.2}),
    "CISPO cap 5 (ScaleRL: high=4,low=10)": ("cispo", {"clip_low": 10, "clip_high": 4}),
    "SAPO 1/1.05": ("sapo", {}),
    "GMPO 1-token seq (±.4 log)": ("gmpo", {}),
}


def weights(name, params, p_old, advantage):
    component = get("policy", name)
    ratios_bt = torch.tensor(CURVES["rhos"], dtype=torch.float64, device=DEVICE)[:, None]
    old_bt = torch.full_like(ratios_bt, math.log(p_old))
    logprobs_bt = (old_bt + ratios_bt.log()).requires_grad_()
    batch = PolicyBatch(old_bt, torch.full_like(old_bt, advantage), torch.ones_like(old_bt, dtype=torch.bool))
    loss_bt = component.fn(logprobs_bt, batch, component.hyper(**params)).loss_bt
    (gradient_bt,) = torch.autograd.grad(loss_bt.sum(), logprobs_bt)
    return (-gradient_bt / advantage).flatten().tolist()


@pytest.mark.parametrize("curve", CURVES["weights"])
def test_the_gradient_weight_equals_the_official_code_s(curve):
    label, p_old, advantage = curve.split("|")
    assert label in LABELS, f"no method is mapped to the curve '{label}'"
    name, params = LABELS[label]
    found = weights(name, params, float(p_old.removeprefix("q=")), float(advantage.removeprefix("A=")))
    for ratio, ours, theirs in zip(CURVES["rhos"], found, CURVES["weights"][curve], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6), f"at r = {ratio}"
