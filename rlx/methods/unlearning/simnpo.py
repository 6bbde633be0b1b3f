"""SimNPO: NPO without a reference, with length normalisation instead."""

from __future__ import annotations

from pydantic import Field
from torch.nn.functional import logsigmoid

from rlx.methods.unlearning.retain import Retain, retain_needs, retain_term
from rlx.numerics.terms import Term
from rlx.numerics.unlearn_batch import LabelledBatch
from rlx.registry import Hyper, register


class SimNPO(Hyper):
    """Parameters of ``simnpo``."""

    beta: float = Field(default=4.5, gt=0)
    """Inverse temperature."""
    delta: float = 0.0
    """Margin: the mean NLL (nats a token) beyond which forgetting slows down."""
    gamma: float = Field(default=0.125, ge=0)
    """Weight of the forget term."""
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the retain term."""
    retain: Retain = "nll"
    """Retain term: ``nll``, ``kl`` to the model before training, or ``kl_released`` (see retain.py)."""


@register(
    "unlearn",
    paper="2410.07163",
    official="locuslab/open-unlearning@56b662e:src/trainer/unlearn/simnpo.py",
    needs_if=lambda hp: retain_needs(hp.retain),
)
def simnpo(forget: LabelledBatch, retain: LabelledBatch, hp: SimNPO) -> list[Term]:
    """-(2/beta) mean_b log sigmoid(beta (NLL_b / len_b - delta)) + alpha R (arXiv 2410.07163).

    Args:
        forget: labelled tokens to be forgotten.
        retain: labelled tokens to be kept.
        hp: see ``SimNPO``.
    """
    mean_b = forget.sequence_nll() / forget.labelled_bt.sum(dim=1).clamp(min=1)
    return [
        Term("forget", -(2 / hp.beta) * logsigmoid(hp.beta * (mean_b - hp.delta)), forget.rows_b, hp.gamma),
        retain_term(retain, hp.retain, hp.alpha),
    ]
