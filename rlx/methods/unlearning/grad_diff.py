"""Gradient difference: ascend on the forget set, descend on the retain set."""

from __future__ import annotations

from pydantic import Field

from rlx.methods.unlearning.retain import Retain, retain_needs, retain_term
from rlx.numerics.terms import Term
from rlx.numerics.unlearn_batch import LabelledBatch
from rlx.registry import Hyper, register


class GradDiff(Hyper):
    """Parameters of ``grad_diff``."""

    gamma: float = Field(default=1.0, ge=0)
    """Weight of the forget term."""
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the retain term."""
    retain: Retain = "nll"
    """Retain term: ``nll``, ``kl`` to the model before training, or ``kl_released`` (see retain.py)."""


@register(
    "unlearn",
    paper="Liu et al. 2022, arXiv 2203.12817; TOFU, arXiv 2401.06121",
    official="locuslab/open-unlearning@f7656c7:src/trainer/unlearn/grad_diff.py",
    needs_if=lambda hp: retain_needs(hp.retain),
)
def grad_diff(forget: LabelledBatch, retain: LabelledBatch, hp: GradDiff) -> list[Term]:
    """-gamma NLL(forget) + alpha R(retain), means over labelled tokens (arXiv 2401.06121).

    Args:
        forget: labelled tokens to be forgotten.
        retain: labelled tokens to be kept.
        hp: see ``GradDiff``.
    """
    return [
        Term("forget", forget.padded(-forget.nll()), forget.labelled_bt, hp.gamma),
        retain_term(retain, hp.retain, hp.alpha),
    ]
