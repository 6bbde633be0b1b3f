"""DPO: prefer another answer (a refusal, or one of your own) to the one to be forgotten."""

from __future__ import annotations

from pydantic import Field
from torch.nn.functional import logsigmoid

from rlx.methods.unlearning.retain import Retain, retain_needs, retain_term
from rlx.numerics.terms import Term
from rlx.numerics.unlearn_batch import LabelledBatch, declared
from rlx.registry import Hyper, register


class DPO(Hyper):
    """Parameters of ``dpo``."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature."""
    gamma: float = Field(default=1.0, ge=0)
    """Weight of the forget term."""
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the retain term."""
    retain: Retain = "nll"
    """Retain term: ``nll``, ``kl`` to the model before training, or ``kl_released`` (see retain.py)."""


@register(
    "unlearn",
    paper="2305.18290; as IdkDPO in TOFU, arXiv 2401.06121; as AltPO in arXiv 2409.13474",
    official="locuslab/open-unlearning@afcd6b6:src/trainer/unlearn/dpo.py",
    needs={"alternate", "forget.ref_nll"},
    needs_if=lambda hp: retain_needs(hp.retain),
)
def dpo(forget: LabelledBatch, retain: LabelledBatch, hp: DPO) -> list[Term]:
    """-(2/beta) mean_b log sigmoid(beta [(logp-ref)(alternate) - (logp-ref)(forget)]) + alpha R.

    The loss of arXiv 2305.18290 times 2/beta. Which alternates: the ``alternate`` of each request (AltPO), else a
    refusal drawn by seed (IdkDPO).

    Args:
        forget: labelled tokens to be forgotten, with ``ref_nll`` and ``alternate``.
        retain: labelled tokens to be kept.
        hp: see ``DPO``.
    """
    assert forget.alternate is not None, "alternate is declared"
    lost_b = forget.sequence_nll() - declared(forget.reference.nll_b, "ref_nll")
    won_b = declared(forget.alternate.reference.nll_b, "ref_nll") - forget.alternate.sequence_nll()
    return [
        Term("forget", -(2 / hp.beta) * logsigmoid(hp.beta * (won_b + lost_b)), forget.rows_b, hp.gamma),
        retain_term(retain, hp.retain, hp.alpha),
    ]
