"""RMU: steer the hidden states of the forget set towards a random direction, and hold those of the retain set."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rlx.numerics.terms import Term
from rlx.numerics.unlearn_batch import LabelledBatch, declared
from rlx.registry import Hyper, register


class RMU(Hyper):
    """Parameters of ``rmu``."""

    layer: int = Field(default=7, ge=0)
    """Decoder layer whose output is steered, from 0; the last one when the model has fewer."""
    s: float = Field(default=2.0, gt=0)
    """Length of the target vector."""
    seed: int = Field(default=0, ge=0)
    """Of the random direction."""
    gamma: float = Field(default=1.0, ge=0)
    """Weight of the forget term."""
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the retain term."""


@register(
    "unlearn",
    paper="2403.03218",
    official="locuslab/open-unlearning@afcd6b6:src/trainer/unlearn/rmu.py",
    needs={"forget.layer", "retain.layer", "retain.ref_layer"},
)
def rmu(forget: LabelledBatch, retain: LabelledBatch, hp: RMU) -> list[Term]:
    """Hidden states to s u on forget, held on retain (arXiv 2403.03218).

        gamma mean |h_l - s u|^2 / d (forget) + alpha mean |h_l - h_l,ref|^2 / d (retain)

    u is a fixed unit vector drawn uniformly from [0, 1)^d; means over labelled tokens.

    Args:
        forget: labelled tokens to be forgotten, with ``layer``.
        retain: labelled tokens to be kept, with ``layer`` and ``ref_layer``.
        hp: see ``RMU``.
    """
    layer_nd = declared(forget.layer_nd, "layer")
    away_n = (layer_nd - hp.s * direction(layer_nd, hp.seed)).square().mean(dim=1)
    moved_nd = declared(retain.layer_nd, "layer") - declared(retain.reference.layer_nd, "ref_layer")
    return [
        Term("forget", forget.padded(away_n), forget.labelled_bt, hp.gamma),
        Term("retain", retain.padded(moved_nd.square().mean(dim=1)), retain.labelled_bt, hp.alpha),
    ]


def direction(like_nd: Tensor, seed: int) -> Tensor:
    """The unit vector u [d], a function of the seed alone."""
    uniform_d: Tensor = torch.rand(like_nd.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    unit_d: Tensor = uniform_d / torch.linalg.vector_norm(uniform_d)
    return unit_d.to(like_nd.device, like_nd.dtype)
