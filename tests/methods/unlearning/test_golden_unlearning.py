"""Loss and gradient of every unlearning method, in float64 and float32, against what its official code gave."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlx.numerics.output_layer.logprobs import Head
from rlx.numerics.terms import count, total
from rlx.numerics.unlearn_batch import LabelledBatch, Reference
from rlx.registry import get
from tests.devices import DEVICE

FOLDER = Path(os.environ.get("RLX_GOLDEN_DIR") or Path(__file__).parents[2] / "golden")
FILES = sorted(FOLDER.glob("unlearning_losses*.json"))
CASES = [case for file in FILES for case in json.loads(file.read_text())]
IGNORED = -100
TOLERANCES = {torch.float64: 1e-8, torch.float32: 1e-6}
"""Absolute difference; relative where a figure is above 1."""


def label(case: dict[str, Any]) -> str:
    params = ",".join(f"{key}={value}" for key, value in case.get("params", {}).items())
    return f"{case['method']}-{params}-{case['seed']}"


def view(side: dict[str, Any], logits: Tensor, needed: set[str], top_k: int, eos: int | None) -> LabelledBatch:
    """A golden side as a method sees it: identity head, so that the hidden states are the logits."""
    labels_bs = torch.tensor(side["labels"], device=DEVICE)
    b, s, v = logits.shape
    all_positions = "all_positions" in needed
    shifted_bs = torch.cat([labels_bs[:, 1:], torch.full((b, 1), IGNORED, device=DEVICE)], dim=1)
    labelled_bs = shifted_bs != IGNORED
    if "sensitive" in needed:
        # The released PALU gives the end of sequence to neither term, which is what having no label means.
        labelled_bs &= shifted_bs != eos
    mask_bs = torch.ones_like(labelled_bs) if all_positions else labelled_bs
    labels_n = shifted_bs[mask_bs]
    head = Head(torch.eye(v, dtype=logits.dtype, device=DEVICE))
    ref_nv = torch.tensor(side["ref_logits"], dtype=logits.dtype, device=DEVICE)[mask_bs]
    safe_n = labels_n.clamp(min=0)
    nll_bs = torch.zeros((b, s), dtype=logits.dtype, device=DEVICE)
    nll_bs[mask_bs] = -ref_nv.log_softmax(1).gather(1, safe_n[:, None]).squeeze(1)
    return LabelledBatch(
        mask_bt=mask_bs,
        labels_n=safe_n,
        hidden_nd=logits[mask_bs],
        head=head,
        labelled_n=labelled_bs[mask_bs] if all_positions else None,
        sensitive_n=(labels_n >= 0) if "sensitive" in needed else None,
        reference=Reference(
            nll_b=(nll_bs * labelled_bs).sum(1) if "ref_nll" in needed else None,
            topk_nk=ref_nv.topk(min(top_k, v), dim=1).indices if "ref_topk" in needed else None,
            argmax_n=ref_nv.argmax(1) if "ref_argmax" in needed else None,
            hidden_nd=ref_nv if "ref_hidden" in needed else None,
            head=head if "ref_hidden" in needed else None,
        ),
    )


def for_side(needs: frozenset[str], side: str) -> set[str]:
    return {need.removeprefix(f"{side}.") for need in needs if "." not in need or need.startswith(f"{side}.")}


def distance(found: Tensor, expected: Any) -> float:
    """Largest difference from the official figures."""
    exact = torch.tensor(expected, dtype=torch.float64)
    return ((found.detach().cpu().double() - exact).abs() / exact.abs().clamp(min=1)).max().item()


def test_every_golden_case_belongs_to_a_method() -> None:
    assert CASES
    for case in CASES:
        get("unlearn", case["method"].partition("(")[0])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("case", CASES, ids=label)
def test_loss_and_gradient_agree_with_the_official_code(case: dict[str, Any], dtype: torch.dtype) -> None:
    name, _, note = case["method"].partition("(")
    method = get("unlearn", name)
    params = dict(case.get("params", {}))
    eos = params.pop("eos_token_id", None)
    if params.get("retain") == "kl":
        params["retain"] = "kl_released"
    if "compat" in note:
        params["compat"] = True
    hp = method.hyper.model_validate(params)
    needs = method.needed(hp)
    top_k = params.get("top_k", 1)
    logits = {
        side: torch.tensor(case[side]["logits"], dtype=dtype, device=DEVICE).requires_grad_()
        for side in ("forget", "retain", "alternate")
        if case[side]
    }
    views = {
        side: view(case[side], logits[side], for_side(needs, "retain" if side == "retain" else "forget"), top_k, eos)
        for side in logits
    }
    forget = views["forget"]
    if "alternate" in needs:
        fields = {name: getattr(forget, name) for name in LabelledBatch.__slots__}
        forget = LabelledBatch(**{**fields, "alternate": views["alternate"]})
    terms = method.fn(forget, views["retain"], hp)
    loss = total(terms, {term.name: count([term.mask]) for term in terms})
    assert distance(loss, case["loss"]) < TOLERANCES[dtype]
    loss.backward()
    for side, tensor in logits.items():
        grad = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        assert distance(grad, case[side]["grad_logits"]) < TOLERANCES[dtype], side
    dry = {term.name: count([term.mask]) for term in method.fn(forget.dry(), views["retain"].dry(), hp)}
    assert dry == {term.name: count([term.mask]) for term in terms}
