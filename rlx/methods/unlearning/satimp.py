"""SatImp: gradient ascent weighted by saturation and importance."""

from __future__ import annotations

import torch
from pydantic import Field

from rlx.methods.unlearning.retain import Retain, retain_needs, retain_term
from rlx.numerics.terms import Term
from rlx.numerics.unlearn_batch import LabelledBatch
from rlx.registry import Hyper, register


class SatImp(Hyper):
    """Parameters of ``satimp``."""

    beta1: float = Field(default=5.0, ge=0)
    """Power of p: tokens already forgotten (saturated) count little."""
    beta2: float = Field(default=1.0, ge=0)
    """Power of 1 - p: tokens that cannot be missed (function words) count little."""
    gamma: float = Field(default=0.1, ge=0)
    """Weight of the forget term."""
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the retain term."""
    retain: Retain = "nll"
    """Retain term: ``nll``, ``kl`` to the model before training, or ``kl_released`` (see retain.py)."""


@register(
    "unlearn",
    paper="2505.11953",
    official="locuslab/open-unlearning@423c6f2:src/trainer/unlearn/satimp.py",
    needs_if=lambda hp: retain_needs(hp.retain),
)
def satimp(forget: LabelledBatch, retain: LabelledBatch, hp: SatImp) -> list[Term]:
    """-sg[p^beta1 (1-p)^beta2] NLL, mean over labelled tokens, + alpha R (arXiv 2505.11953).

    Args:
        forget: labelled tokens to be forgotten.
        retain: labelled tokens to be kept.
        hp: see ``SatImp``.
    """
    nll_n = forget.nll()
    fixed_n = nll_n.detach()
    # 1 - p from -expm1(log p): exact for the memorised tokens, whose p rounds to 1.
    weight_n = (-hp.beta1 * fixed_n).exp() * (-torch.expm1(-fixed_n)).clamp(min=0).pow(hp.beta2)
    return [
        Term("forget", forget.padded(-weight_n * nll_n), forget.labelled_bt, hp.gamma),
        retain_term(retain, hp.retain, hp.alpha),
    ]
