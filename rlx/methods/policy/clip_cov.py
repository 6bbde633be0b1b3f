"""Clip-Cov: a few random tokens of large covariance lose their gradient."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rlx.methods.policy.kl_cov import covariance
from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import clipped_surrogate, dual_clip, log_ratio, outside
from rlx.registry import Hyper, register


class ClipCov(Hyper):
    """Parameters of ``clip_cov``."""

    clip_low: float = Field(default=0.2, ge=0, lt=1)
    """The ratio is clipped from below at 1 - clip_low."""
    clip_high: float = Field(default=0.2, ge=0)
    """The ratio is clipped from above at 1 + clip_high."""
    clip_cov_ratio: float = Field(default=0.0002, gt=0, le=1)
    """Fraction of all tokens that lose their gradient; at least one token if there are candidates."""
    cov_low: float = 1.0
    """Candidates have a covariance above this."""
    cov_high: float = 5.0
    """Candidates have a covariance below this."""
    seed: int = Field(default=0, ge=0, lt=1_000_000)
    """Seed of the choice among candidates."""
    dual_clip: float | None = Field(default=None, gt=1)
    """For A < 0 the loss is capped at -A * dual_clip; null (official) turns it off."""


def random_covariance(logprobs_bt: Tensor, batch: PolicyBatch, hp: ClipCov) -> dict[str, Tensor]:
    """``chosen`` [b, t], bool: a random share of the unclipped tokens with cov_low < covariance < cov_high.

    The selection depends on ``hp.seed`` and on the batch alone, not on the order of its rows: a resumed run, and a run
    on more processes, repeat it.

    Args:
        logprobs_bt: current log-probs of the whole optimiser batch [b, t], nats.
        batch: the whole optimiser batch.
        hp: see ``ClipCov``.
    """
    ratio_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt).exp()
    edges = outside(ratio_bt, batch.adv_bt, 1 - hp.clip_low, 1 + hp.clip_high)
    cov_bt = covariance(logprobs_bt, batch)
    candidates_bt = (cov_bt > hp.cov_low) & (cov_bt < hp.cov_high) & batch.mask_bt
    candidates = (candidates_bt & ~edges["clip_low"] & ~edges["clip_high"]).flatten().nonzero().squeeze(1)
    candidates = candidates[cov_bt.flatten()[candidates].argsort()].cpu()
    tokens = int(batch.mask_bt.sum())
    number = min(max(1, int(hp.clip_cov_ratio * tokens)), len(candidates))
    # Seeded by counts, not by log-probs, whose last bits depend on how the batch is divided.
    generator = torch.Generator().manual_seed((hp.seed * 1_000_003 + tokens) * 1_000_003 + len(candidates))
    order = torch.randperm(len(candidates), generator=generator)
    selected = torch.zeros(cov_bt.numel(), dtype=torch.bool)
    selected[candidates[order[:number]]] = True
    return {"chosen": selected.reshape(cov_bt.shape).to(cov_bt.device)}


@register(
    "policy",
    paper="2505.22617",
    official="volcengine/verl@v0.9:verl/trainer/ppo/core_algos.py:compute_policy_loss_clip_cov (not in the golden set)",
    needs={"zero_advantage"},
    whole_batch=random_covariance,
)
def clip_cov(logprobs_bt: Tensor, batch: PolicyBatch, hp: ClipCov) -> Tokens:
    """GRPO's clipped loss without dual clip, 0 on the tokens that ``random_covariance`` chose (arXiv 2505.22617).

    Tokens with A = 0 count in the covariance's means.

    Args:
        logprobs_bt: current log-probs [b, t], nats.
        batch: old log-probs, advantages and mask, each [b, t]; ``statistics`` holds ``chosen``.
        hp: see ``ClipCov``.
    """
    ratio_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt).exp()
    low, high = 1 - hp.clip_low, 1 + hp.clip_high
    chosen_bt = batch.statistics["chosen"].bool()
    loss_bt = dual_clip(clipped_surrogate(ratio_bt, batch.adv_bt, low, high), batch.adv_bt, hp.dual_clip)
    stats_bt = {**outside(ratio_bt.detach(), batch.adv_bt, low, high), "chosen": chosen_bt}
    return Tokens(loss_bt.masked_fill(chosen_bt, 0.0), stats_bt)
