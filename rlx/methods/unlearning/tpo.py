"""TPO: lower the logits of the target tokens, keep the rest of each answer."""

from __future__ import annotations

from pydantic import Field
from torch.nn.functional import logsigmoid

from rlx.methods.unlearning.retain import Retain, retain_needs, retain_term
from rlx.numerics.output_layer.statistics import row_logits
from rlx.numerics.terms import Term, sequence_mean
from rlx.numerics.unlearn_batch import LabelledBatch, declared
from rlx.registry import Hyper, register


class TPO(Hyper):
    """Parameters of ``tpo``."""

    beta: float = Field(default=0.3, gt=0)
    """Inverse temperature."""
    gamma: float = Field(default=1.0, ge=0)
    """Weight of the forget term."""
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the retain term, and of the NLL of the answers' other tokens."""
    retain: Retain = "nll"
    """Retain term: ``nll``, ``kl`` to the model before training, or ``kl_released`` (see retain.py)."""


@register(
    "unlearn",
    paper="Targeted Preference Optimization; no official code was compared with",
    needs={"forget.sensitive", "forget.ref_label_logit"},
    needs_if=lambda hp: retain_needs(hp.retain),
)
def tpo(forget: LabelledBatch, retain: LabelledBatch, hp: TPO) -> list[Term]:
    """-(2/beta) mean_b log sigmoid(beta (zref_b - z_b)) + mean_b sum of NLL on the other answer tokens + alpha R.

    z_b is the mean raw logit of a sequence's sensitive labels; sequences without any have no forget term.

    Args:
        forget: labelled tokens to be forgotten, with ``sensitive`` and ``ref_label_logit``.
        retain: labelled tokens to be kept.
        hp: see ``TPO``.
    """
    sensitive_bt = forget.sensitive_bt
    logit_n = row_logits(forget.hidden_nd, forget.labels_n[:, None], forget.head).squeeze(1)
    gap_n = declared(forget.reference.label_logit_n, "ref_label_logit") - logit_n
    gap_b = sequence_mean(forget.padded(gap_n), sensitive_bt)
    others_bt = forget.labelled_bt & ~sensitive_bt
    others_b = (forget.padded(forget.nll()) * others_bt).sum(dim=1)
    return [
        Term("forget", -(2 / hp.beta) * logsigmoid(hp.beta * gap_b), sensitive_bt.any(dim=1), hp.gamma),
        Term("others", others_b, others_bt.any(dim=1), hp.alpha),
        retain_term(retain, hp.retain, hp.alpha),
    ]
