"""Every policy loss and KL form, in float64 and float32, against the figures that the official codes gave in float64.

RLX_GOLDEN_DIR names another folder of figures. A case of a registered method that cannot be mapped fails.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlx.numerics.batch import PolicyBatch
from rlx.numerics.kl import KL_FORMS
from rlx.numerics.terms import count, reduce
from rlx.registry import get, names
from tests.devices import DEVICE

GOLDEN = Path(os.environ.get("RLX_GOLDEN_DIR", Path(__file__).parents[2] / "golden"))
FILES = sorted(GOLDEN.glob("policy_losses*.json"))
CASES = [case for file in FILES for case in json.loads(file.read_text())]
TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-6}
"""Absolute difference; relative where a figure is above 1."""
DTYPES = pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: str(dtype).removeprefix("torch."))


def tensor(values, dtype):
    return torch.tensor(values, dtype=dtype, device=DEVICE)


def assert_close(found, expected):
    """Within the tolerance of the type in which ``found`` was computed."""
    exact = torch.tensor(expected, dtype=torch.float64)
    difference = (found.detach().cpu().double() - exact).abs() / exact.abs().clamp(min=1)
    assert difference.max() <= TOLERANCES[found.dtype]


def label(case):
    params = ",".join(f"{key}={value}" for key, value in case["params"].items())
    return f"{case['algo']}[{params}]seed{case['seed']}"


def evaluate(case, dtype=torch.float64):
    """Loss and gradient of our function on a case's inputs, scalarised as the engine does."""
    component = get("policy", case["algo"])
    params = dict(case["params"])
    default = component.recipe.get("algorithm.reduction", "token-mean")
    reduction = params.pop("agg", default)
    hyper = component.hyper(**params)
    logprobs = tensor(case["logprobs"], dtype).requires_grad_()
    mask = tensor(case["mask"], torch.bool)
    batch = PolicyBatch(tensor(case["old_logprobs"], dtype), tensor(case["advantages"], dtype), mask)
    if component.whole_batch is not None:
        batch = replace(batch, statistics=component.whole_batch(logprobs.detach(), batch, hyper))
    counts = count([mask], max_tokens=mask.shape[1])
    loss = reduce(component.fn(logprobs, batch, hyper).loss_bt, mask, reduction, counts)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    return loss, gradient


@DTYPES
@pytest.mark.parametrize("case", [c for c in CASES if not c["algo"].startswith("kl:")], ids=label)
def test_loss_and_gradient_equal_the_official_codes(case, dtype):
    loss, gradient = evaluate(case, dtype)
    assert_close(loss, case["loss"])
    assert_close(gradient, case["grad_logprobs"])


@DTYPES
@pytest.mark.parametrize("case", [c for c in CASES if c["algo"].startswith("kl:")], ids=label)
def test_kl_values_and_gradients_equal_the_official_codes(case, dtype):
    form = case["algo"].removeprefix("kl:")
    assert form in KL_FORMS, f"golden has the KL form {form}, which rlx.numerics.kl does not"
    assert not case["params"], "an unknown parameter of a KL form"
    logprobs = tensor(case["logprobs"], dtype).requires_grad_()
    values = KL_FORMS[form](logprobs, tensor(case["ref_logprobs"], dtype))
    (gradient,) = torch.autograd.grad((values * tensor(case["mask"], dtype)).sum(), logprobs)
    assert_close(values, case["values"])
    assert_close(gradient, case["grad_logprobs"])


def test_every_case_is_of_a_method_that_is_registered():
    assert {c["algo"] for c in CASES if not c["algo"].startswith("kl:")} <= set(names("policy"))


def test_a_case_with_a_parameter_that_a_method_does_not_have_fails():
    case = {**CASES[0], "params": {**CASES[0]["params"], "no_such": 1}}
    with pytest.raises(ValueError, match="no_such"):
        evaluate(case)
