"""WGA: gradient ascent weighted by the model's own confidence."""

from __future__ import annotations

from pydantic import Field

from rlx.methods.unlearning.retain import Retain, retain_needs, retain_term
from rlx.numerics.terms import Term
from rlx.numerics.unlearn_batch import LabelledBatch
from rlx.registry import Hyper, register


class WGA(Hyper):
    """Parameters of ``wga``."""

    beta: float = Field(default=1.0, ge=0)
    """Power of the confidence; 0 is gradient ascent."""
    gamma: float = Field(default=1.0, ge=0)
    """Weight of the forget term."""
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the retain term."""
    retain: Retain = "nll"
    """Retain term: ``nll``, ``kl`` to the model before training, or ``kl_released`` (see retain.py)."""


@register(
    "unlearn",
    paper="2502.19301",
    official="locuslab/open-unlearning@afcd6b6:src/trainer/unlearn/wga.py",
    needs_if=lambda hp: retain_needs(hp.retain),
)
def wga(forget: LabelledBatch, retain: LabelledBatch, hp: WGA) -> list[Term]:
    """-sg[p^beta] NLL, mean over labelled tokens, + alpha R (arXiv 2502.19301).

    Args:
        forget: labelled tokens to be forgotten.
        retain: labelled tokens to be kept.
        hp: see ``WGA``.
    """
    nll_n = forget.nll()
    weight_n = (-hp.beta * nll_n.detach()).exp()
    return [
        Term("forget", forget.padded(-weight_n * nll_n), forget.labelled_bt, hp.gamma),
        retain_term(retain, hp.retain, hp.alpha),
    ]
