"""Gradient ascent: raise the loss on the forget set, and nothing else."""

from __future__ import annotations

from pydantic import Field

from rlx.numerics.terms import Term
from rlx.numerics.unlearn_batch import LabelledBatch
from rlx.registry import Hyper, register


class GradAscent(Hyper):
    """Parameters of ``grad_ascent``."""

    gamma: float = Field(default=1.0, ge=0)
    """Weight of the forget term."""


@register(
    "unlearn",
    paper="Jang et al. 2022, arXiv 2210.01504",
    official="locuslab/open-unlearning@a50f1e2:src/trainer/unlearn/grad_ascent.py",
    needs={"forget_only"},
)
def grad_ascent(forget: LabelledBatch, retain: LabelledBatch, hp: GradAscent) -> list[Term]:
    """-NLL of the forget answers, mean over labelled tokens (arXiv 2210.01504). Unbounded below.

    Args:
        forget: labelled tokens to be forgotten.
        retain: not read.
        hp: see ``GradAscent``.
    """
    return [Term("forget", forget.padded(-forget.nll()), forget.labelled_bt, hp.gamma)]
