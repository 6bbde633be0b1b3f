"""PALU: flatten the top of the distribution at sensitive tokens, and preserve it at all others."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from rlx.methods.unlearning.retain import Retain, retain_needs, retain_term
from rlx.numerics.output_layer.logprobs import Head
from rlx.numerics.output_layer.statistics import divergence, label_logprobs, mean_logit, over_logits, row_logits
from rlx.numerics.terms import Term
from rlx.numerics.unlearn_batch import LabelledBatch, declared
from rlx.registry import Hyper, register


class PALU(Hyper):
    """Parameters of ``palu``."""

    top_k: int = Field(default=1000, ge=1)
    """How many of the reference's largest logits are flattened; the official script tries 1, 1000, 5000 and 10000."""
    first_n: int = 3
    """Number of tokens at the start of each run of sensitive tokens that get the forget loss; 0 or less is all."""
    target: Literal["global_mean", "local_mean"] = "global_mean"
    """The target of the top_k logits: their mean over the vocabulary, or over the top_k entries."""
    target_grad: Literal["through", "detach"] = "through"
    """Whether gradient flows through that mean."""
    non_sensitive: Literal["kl", "nll", "none"] = "kl"
    """Term on the answers' other tokens: KL to the reference, or -log p of the reference's likeliest token."""
    kl_direction: Literal["theta_ref", "ref_theta"] = "theta_ref"
    """KL(model || reference) as in the code, or KL(reference || model) as in the paper."""
    gamma: float = Field(default=1.0, ge=0)
    """Weight of the forget term."""
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the non-sensitive and of the retain term; the official script tries .2 to 5."""
    retain: Retain = "nll"
    """Retain term: ``nll``, ``kl`` to the model before training, or ``kl_released`` (see retain.py)."""


def _needs(hp: PALU) -> frozenset[str]:
    constants = {"kl": {"forget.ref_hidden"}, "nll": {"forget.ref_argmax"}, "none": set()}[hp.non_sensitive]
    return retain_needs(hp.retain) | constants


@register(
    "unlearn",
    paper="2601.03190",
    official="PALU's published trainer, compute_loss",
    needs={"forget.sensitive", "forget.ref_topk"},
    needs_if=_needs,
    presets={
        "official": {},
        "paper": {"top_k": 50, "first_n": 3, "kl_direction": "ref_theta", "target": "local_mean"},
        "embedded": {"top_k": 5, "first_n": 1, "alpha": 5.0},
    },
)
def palu(forget: LabelledBatch, retain: LabelledBatch, hp: PALU) -> list[Term]:
    """Equal top logits at sensitive tokens, the reference's distribution at all others (arXiv 2601.03190).

        gamma mean_t (1/k) sum_{i in S_t} (z_i - m_t)^2 + alpha mean_t' KL(theta || ref) + alpha R

    S_t holds the k largest reference logits at a selected position, m_t the mean of the current ones. No second model
    is needed: S_t and the reference's hidden states are constants. ``flatness`` avoids the full vocabulary.

    Args:
        forget: labelled tokens to be forgotten, with ``sensitive``, ``ref_topk`` and what the non-sensitive term reads.
        retain: labelled tokens to be kept.
        hp: see ``PALU``.

    Deviation: the released code gives the end of sequence to neither term; here it is preserved like any token that is
    not sensitive, so that answers still end. Without a label on it the loss is the released one.
    """
    selected_bt = first_of_runs(forget.sensitive_bt, hp.first_n)
    selected_n = selected_bt[forget.mask_bt]
    topk_nk = declared(forget.reference.topk_nk, "ref_topk")
    flat_n = flatness(forget, topk_nk[selected_n], selected_n, hp)
    values_bt = torch.zeros(selected_bt.shape, dtype=flat_n.dtype, device=flat_n.device)
    terms = [Term("forget", values_bt.masked_scatter(selected_bt, flat_n), selected_bt, hp.gamma)]
    if hp.non_sensitive != "none":
        terms.append(_non_sensitive_term(forget, hp))
    return [*terms, retain_term(retain, hp.retain, hp.alpha)]


def first_of_runs(sensitive_bt: Tensor, first_n: int) -> Tensor:
    """True at the first ``first_n`` tokens of every run of adjacent sensitive tokens [b, t]; at all if it is <= 0."""
    if first_n <= 0:
        return sensitive_bt
    position_t = torch.arange(1, sensitive_bt.shape[1] + 1, device=sensitive_bt.device)
    outside_bt = torch.where(sensitive_bt, 0, position_t)
    return sensitive_bt & (position_t - outside_bt.cummax(dim=1).values <= first_n)


def flatness(forget: LabelledBatch, topk_nk: Tensor, selected_n: Tensor, hp: PALU) -> Tensor:
    """(1/k) sum_{i in S_t} (z_i - m_t)^2 at the selected positions [n].

    With hidden state h and head W, m = h . mean_v(W) and z_i = W_i . h: if fewer rows are needed than the
    vocabulary has, they are gathered. Otherwise, or if a soft cap makes the mean non-linear, the full logits of the
    selected positions are computed in chunks. Values and gradients are equal to rounding.
    """
    hidden_nd, head = forget.hidden_nd[selected_n], forget.head
    through = hp.target_grad == "through"

    def deviation(selected_nk: Tensor, target_n: Tensor) -> Tensor:
        return (selected_nk - (target_n if through else target_n.detach())[:, None]).square().mean(dim=1)

    gather = topk_nk.numel() < head.weight_vd.shape[0]
    if hp.target == "local_mean":
        rows = row_logits if gather else _gather_from_all
        selected_nk = rows(hidden_nd, topk_nk, head)
        return deviation(selected_nk, selected_nk.mean(dim=1))
    if gather and head.softcap is None:
        return deviation(row_logits(hidden_nd, topk_nk, head), mean_logit(hidden_nd, head, forget.mean_row_d))
    return over_logits(lambda z, ids: deviation(z.gather(1, ids), z.mean(dim=1)), hidden_nd, head, topk_nk)


def _gather_from_all(hidden_nd: Tensor, ids_nk: Tensor, head: Head) -> Tensor:
    return over_logits(lambda z, ids: z.gather(1, ids), hidden_nd, head, ids_nk)


def _non_sensitive_term(forget: LabelledBatch, hp: PALU) -> Term:
    """The term on answer tokens that are not sensitive."""
    others_bt = forget.labelled_bt & ~forget.sensitive_bt
    others_n = others_bt[forget.mask_bt]
    hidden_nd = forget.hidden_nd[others_n]
    if hp.non_sensitive == "kl":
        ref_nd, ref_head = forget.reference.distribution()
        forward = hp.kl_direction == "ref_theta"
        values_n = divergence(hidden_nd, forget.head, ref_nd[others_n], ref_head, forward)
    else:
        likeliest_n = declared(forget.reference.argmax_n, "ref_argmax")[others_n]
        values_n = -label_logprobs(hidden_nd, likeliest_n, forget.head)
    values_bt = torch.zeros(others_bt.shape, dtype=values_n.dtype, device=values_n.device)
    return Term("non_sensitive", values_bt.masked_scatter(others_bt, values_n), others_bt, hp.alpha)
