"""NPO: negative preference optimisation, a bounded gradient ascent."""

from __future__ import annotations

from pydantic import Field
from torch.nn.functional import logsigmoid

from rlx.methods.unlearning.retain import Retain, retain_needs, retain_term
from rlx.numerics.terms import Term
from rlx.numerics.unlearn_batch import LabelledBatch, declared
from rlx.registry import Hyper, register


class NPO(Hyper):
    """Parameters of ``npo``."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature; gradient ascent as it goes to 0."""
    gamma: float = Field(default=1.0, ge=0)
    """Weight of the forget term."""
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the retain term."""
    retain: Retain = "nll"
    """Retain term: ``nll``, ``kl`` to the model before training, or ``kl_released`` (see retain.py)."""


@register(
    "unlearn",
    paper="2404.05868",
    official="locuslab/open-unlearning@a3502bc:src/trainer/unlearn/npo.py",
    needs={"forget.ref_nll"},
    needs_if=lambda hp: retain_needs(hp.retain),
)
def npo(forget: LabelledBatch, retain: LabelledBatch, hp: NPO) -> list[Term]:
    """-(2/beta) mean_b log sigmoid(beta (NLL_b - NLL_ref,b)) + alpha R (arXiv 2404.05868).

    NLL_b is the sum over a sequence's labels. The reference is one number a sequence, cached before training.

    Args:
        forget: labelled tokens to be forgotten, with ``ref_nll``.
        retain: labelled tokens to be kept.
        hp: see ``NPO``.
    """
    gap_b = forget.sequence_nll() - declared(forget.reference.nll_b, "ref_nll")
    return [
        Term("forget", -(2 / hp.beta) * logsigmoid(hp.beta * gap_b), forget.rows_b, hp.gamma),
        retain_term(retain, hp.retain, hp.alpha),
    ]
